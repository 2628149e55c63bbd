//! Checks, verifications and repairs beside others: before whatever call of theirs somebody deletes and prunes, or changes keys, they find nothing
//! in what is sound.

#![expect(clippy::unwrap_used, reason = "a test makes its own files and may fail loudly")]

mod common;

use common::pruned::{back_up_alone, names, prune, small_packs};
use common::{init, noise, open, write};
use longshore_engine::ErrorKind;
use longshore_engine::check::{self, CheckOptions, CheckReport};
use longshore_engine::job::Job;
use longshore_engine::prune::PruneOptions;
use longshore_engine::repair::{self, RepairOptions};
use longshore_engine::repository::Repository;
use longshore_format::id::SessionId;
use longshore_format::keys::{Argon2Cost, Unlock};
use longshore_store::MemoryStore;
use longshore_store::layers::{Call, Effect, Fault, Verb};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

type Deed = fn(&Repository, SessionId);

/// Whether what was deleted goes at once, too.
const DEEDS: [(&str, Deed); 4] = [
    ("deleted", |repository, oldest| repository.remove_snapshot(oldest, "test").unwrap()),
    ("deleted and pruned", |repository, oldest| {
        repository.remove_snapshot(oldest, "test").unwrap();
        prune(repository, &PruneOptions::default()).unwrap();
    }),
    ("a key added", |repository, _| {
        repository.add_slot(&Unlock::Secret([9; 32]), "new", Argon2Cost::default()).unwrap();
    }),
    ("a key changed", |repository, _| {
        repository.add_slot(&Unlock::Secret([9; 32]), "new", Argon2Cost::default()).unwrap();
        repository.remove_slot(repository.slot()).unwrap();
    }),
];

fn made() -> (Arc<MemoryStore>, SessionId) {
    let (folder, store) = (tempfile::tempdir().unwrap(), Arc::new(MemoryStore::new()));
    let repository = init(Arc::<MemoryStore>::clone(&store));
    let mut made = vec![];
    for round in 0..3 {
        for n in 0..3 {
            write(&folder.path().join(format!("f{n}")), &noise(10 * round + n, 3000));
        }
        made.push(back_up_alone(&repository, folder.path()).unwrap().snapshot.unwrap());
    }
    (store, made[0])
}

/// Its marker is taken away, so that a prune waits for it no more.
const FENCED: (&str, Deed) = ("deleted, fenced and pruned", |repository, oldest| {
    repository.remove_snapshot(oldest, "test").unwrap();
    for _ in 0..2 {
        prune(repository, &PruneOptions { fence_now: true, ..PruneOptions::default() }).unwrap();
    }
});

/// Runs a job for each of its calls, before which somebody else does something.
fn beside(job: impl Fn(&Repository, SessionId, &str)) {
    beside_these(&DEEDS, job);
}

fn beside_these(deeds: &[(&str, Deed)], job: impl Fn(&Repository, SessionId, &str)) {
    let (store, oldest) = made();
    for (deed_name, deed) in deeds.iter().copied() {
        for moment in 0.. {
            let store = Arc::new(store.fork());
            let [own, other] = [(); 2].map(|()| open(Arc::<MemoryStore>::clone(&store)).unwrap());
            let asked = Arc::new(AtomicU64::new(0));
            let counter = Arc::clone(&asked);
            let plan = move |_: &Call<'_>| {
                if counter.fetch_add(1, SeqCst) == moment {
                    deed(&other, oldest);
                }
                Effect::Pass
            };
            job(&own.with_store(Arc::new(Fault::new(store, plan))), oldest, &format!("{deed_name} before call {moment}"));
            if asked.load(SeqCst) <= moment {
                assert!(moment > 10, "a job of {moment} calls");
                break;
            }
        }
    }
}

fn is_sound(report: &CheckReport, what: &str) {
    assert_eq!((report.exit_code, report.errors, report.items_hurt), (0, 0, 0), "{what}: {report:?}");
}

fn options(read_percent: u8) -> CheckOptions {
    CheckOptions { read_percent, workers: 0, ..CheckOptions::default() }
}

#[test]
fn a_check_finds_nothing() {
    for read_percent in [0, 100] {
        beside(|repository, _, what| {
            is_sound(&check::run(repository, &Arc::new(Job::new()), &options(read_percent)).unwrap(), what);
        });
    }
}

#[test]
fn a_verification_reads_all_or_is_told_that_the_snapshot_was_deleted() {
    for ids in [false, true] {
        beside(|repository, oldest, what| {
            match check::verify_snapshot(repository, oldest, ids, &Arc::new(Job::new()), &options(0)) {
                Ok(report) => is_sound(&report, what),
                Err(error) => assert_eq!(error.kind(), ErrorKind::SnapshotNotFound, "{what}: {error}"),
            }
        });
    }
}

#[test]
fn a_repair_writes_nothing_down() {
    for read_data in [false, true] {
        beside(|repository, _, what| {
            let options = RepairOptions { read_data, workers: 0, ..RepairOptions::default() };
            let report = repair::run(repository, &Arc::new(Job::new()), &options).unwrap();
            assert_eq!((report.exit_code, report.recorded), (0, false), "{what}: {report:?}");
        });
    }
}

#[test]
fn a_repair_that_is_fenced_writes_nothing_down_of_what_is_deleted_and_pruned_meanwhile() {
    let ended = AtomicU64::new(0);
    beside_these(&[FENCED], |repository, _, what| {
        let options = RepairOptions { workers: 0, ..RepairOptions::default() };
        match repair::run(repository, &Arc::new(Job::new()), &options) {
            Ok(report) => {
                assert_eq!((report.exit_code, report.recorded), (0, false), "{what}: {report:?}");
                ended.fetch_add(1, SeqCst);
            }
            // Its marker went before it had looked whether it is there.
            Err(error) if error.message().contains("does not have it: object=sessions/") => {}
            Err(error) => assert_ne!(error.kind(), ErrorKind::Corrupt, "{what}: {error}"),
        }
    });
    assert!(ended.into_inner() > 10);
}

#[test]
fn a_check_finds_nothing_where_a_prune_has_yet_to_delete_what_it_moved_frames_out_of() {
    let (folder, store) = (tempfile::tempdir().unwrap(), Arc::new(MemoryStore::new()));
    let repository = init(Arc::<MemoryStore>::clone(&store));
    for n in 0..20 {
        write(&folder.path().join(format!("f{n}")), &noise(n, 150_000));
    }
    let first = back_up_alone(&repository, folder.path()).unwrap().snapshot.unwrap();
    for n in 0..18 {
        std::fs::remove_file(folder.path().join(format!("f{n}"))).unwrap();
    }
    back_up_alone(&repository, folder.path()).unwrap();
    repository.remove_snapshot(first, "test").unwrap();
    let dies = |call: &Call<'_>| match call.verb == Verb::Delete && call.key.starts_with("packs/") {
        true => Effect::StopBefore,
        false => Effect::Pass,
    };
    prune(&repository.with_store(Arc::new(Fault::new(Arc::clone(&store), dies))), &small_packs()).unwrap_err();
    assert_eq!(names(&*store, "decisions/").len(), 1);
    for read_percent in [0, 100] {
        let report = check::run(&repository, &Arc::new(Job::new()), &options(read_percent)).unwrap();
        is_sound(&report, "before they are deleted");
        assert!(report.findings.iter().any(|finding| finding.message.contains("in no index")), "{report:?}");
    }
}

#[test]
fn a_verification_finds_what_was_moved_after_it_read_the_index_and_before_it_listed_packs() {
    let (folder, store) = (tempfile::tempdir().unwrap(), Arc::new(MemoryStore::new()));
    let repository = init(Arc::<MemoryStore>::clone(&store));
    for n in 0..20 {
        write(&folder.path().join(format!("f{n}")), &noise(n, 150_000));
    }
    let first = back_up_alone(&repository, folder.path()).unwrap().snapshot.unwrap();
    for n in 0..18 {
        std::fs::remove_file(folder.path().join(format!("f{n}"))).unwrap();
    }
    let second = back_up_alone(&repository, folder.path()).unwrap().snapshot.unwrap();
    repository.remove_snapshot(first, "test").unwrap();
    let dies = |call: &Call<'_>| match call.verb == Verb::PutNew && call.key.starts_with("tombstones/") {
        true => Effect::StopBefore,
        false => Effect::Pass,
    };
    for ids in [false, true] {
        let store = Arc::new(store.fork());
        let other = open(Arc::<MemoryStore>::clone(&store)).unwrap();
        let halting = other.with_store(Arc::new(Fault::new(Arc::clone(&store), dies)));
        let (moved, deleted) = (AtomicU64::new(0), AtomicU64::new(0));
        let plan = move |call: &Call<'_>| {
            if call.verb == Verb::List && call.key == "packs/" && moved.fetch_add(1, SeqCst) == 0 {
                // It moves what is needed, and dies before it deletes anything.
                prune(&halting, &small_packs()).unwrap_err();
            }
            if call.verb == Verb::GetRange && deleted.fetch_add(1, SeqCst) == 0 {
                assert!(prune(&other, &small_packs()).unwrap().packs_deleted > 0);
            }
            Effect::Pass
        };
        let own = open(Arc::<MemoryStore>::clone(&store)).unwrap().with_store(Arc::new(Fault::new(Arc::clone(&store), plan)));
        is_sound(&check::verify_snapshot(&own, second, ids, &Arc::new(Job::new()), &options(0)).unwrap(), "moved and deleted");
    }
}
