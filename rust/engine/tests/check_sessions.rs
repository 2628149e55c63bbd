//! Rot in what sessions and prunes wrote of themselves: a check names it and what mends it, and that mends it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test makes its own files and may fail loudly")]

mod common;

use common::pruned::{back_up_alone, names, prune, whole};
use common::{init, noise, open, write};
use longshore_engine::check::{self, CheckOptions, CheckReport, Severity};
use longshore_engine::job::Job;
use longshore_engine::prune::PruneOptions;
use longshore_engine::repair::{self, RepairOptions};
use longshore_engine::repository::Repository;
use longshore_format::id::SessionId;
use longshore_store::{Key, MemoryStore, Store};
use std::sync::Arc;

/// A store with a generation that has ended and one that waits for a writer, a reader beside it, and a deleted snapshot.
fn stage() -> MemoryStore {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    let repository = init(Arc::<MemoryStore>::clone(&store));
    let made: Vec<SessionId> = (0..4)
        .map(|round| {
            write(&folder.path().join("file"), &noise(round, 3000));
            back_up_alone(&repository, folder.path()).unwrap().snapshot.unwrap()
        })
        .collect();
    repository.remove_snapshot(made[0], "test").unwrap();
    assert!(prune(&repository, &PruneOptions::default()).unwrap().packs_deleted > 0);
    std::mem::forget(repository.open_writer("gone", vec![], &Job::new()).unwrap());
    let row = repository.snapshots().unwrap().0.remove(1);
    std::mem::forget(repository.open_reader(row.session, &row.snapshot.usage, "gone").unwrap());
    repository.remove_snapshot(made[1], "test").unwrap();
    assert_eq!(prune(&repository, &PruneOptions::default()).unwrap().generations_waiting, 1);
    store.fork()
}

fn opened(store: &Arc<MemoryStore>) -> Repository {
    open(Arc::<MemoryStore>::clone(store)).unwrap()
}

fn checked(store: &Arc<MemoryStore>, read_percent: u8) -> CheckReport {
    let options = CheckOptions { read_percent, workers: 0, ..CheckOptions::default() };
    check::run(&opened(store), &Arc::new(Job::new()), &options).unwrap()
}

/// One bit, all of it, and what lies under another key.
fn rotten(base: &MemoryStore, at: &str) -> Vec<Arc<MemoryStore>> {
    let key = Key::new(at).unwrap();
    let mut flipped = base.get(&key, 1 << 20).unwrap().to_vec();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 4;
    let foreign = base.get(&Key::new(names(base, "config/").remove(0)).unwrap(), 1 << 20).unwrap();
    let ways = [flipped.into(), bytes::Bytes::new(), foreign];
    ways.into_iter()
        .map(|body| {
            let store = base.fork();
            store.overwrite(&key, body);
            Arc::new(store)
        })
        .collect()
}

/// What a check says of an object, and its exit code.
fn told(store: &Arc<MemoryStore>, at: &str) -> (i32, Severity, String) {
    let report = checked(store, 100);
    let of: Vec<_> = report.findings.iter().filter(|finding| finding.object == at).collect();
    let [found] = of[..] else { panic!("{at}: {:?}", report.findings) };
    (report.exit_code, found.severity, found.message.clone())
}

fn repaired(store: &Arc<MemoryStore>) {
    repair::run(&opened(store), &Arc::new(Job::new()), &RepairOptions { workers: 0, ..RepairOptions::default() }).unwrap();
}

#[test]
fn what_is_whole_is_not_named() {
    let store = Arc::new(stage());
    let report = checked(&store, 100);
    assert_eq!((report.exit_code, report.findings), (0, vec![]));
}

#[test]
fn what_rots_of_sessions_and_generations_is_an_error_until_what_is_named_has_mended_it() {
    let base = stage();
    for prefix in ["sessions/", "tombstones/", "open/", "watches/"] {
        let all = names(&base, prefix);
        assert!(!all.is_empty(), "{prefix}");
        for (at, store) in all.iter().flat_map(|at| rotten(&base, at).into_iter().map(move |store| (at, store))) {
            let (code, severity, message) = told(&store, at);
            assert_eq!((code, severity), (4, Severity::Error), "{at}: {message}");
            assert_eq!(checked(&store, 0).exit_code, 4, "{at}, without its data");
            let name = at.strip_prefix(prefix).unwrap();
            let mut ways = vec![PruneOptions::default()];
            if prefix == "sessions/" {
                assert!(message.contains(&format!("longshore repo prune --fence {name}")), "{message}");
                ways = vec![PruneOptions { fence: vec![SessionId::from_hex(name).unwrap()], ..PruneOptions::default() }];
            } else {
                assert!(message.contains("longshore repo prune"), "{message}");
            }
            if prefix == "tombstones/" {
                assert!(message.contains("longshore repo repair"), "{message}");
                let other = Arc::new(store.fork());
                opened(&other).open_writer("new", vec![], &Job::new()).unwrap_err();
                repaired(&other);
                assert_eq!(checked(&other, 0).exit_code, 0, "{at}, after a repair");
                opened(&other).open_writer("new", vec![], &Job::new()).unwrap();
            }
            for options in ways {
                prune(&opened(&store), &options).unwrap();
            }
            let after = checked(&store, 100);
            assert_eq!((after.exit_code, after.errors), (0, 0), "{at}: {:?}", after.findings);
            assert_eq!(whole(&store).unwrap().len(), 2);
        }
    }
}

#[test]
fn a_decision_that_rots_is_an_error_as_long_as_its_generation_stands() {
    let base = stage();
    let ended = names(&base, "decisions/").remove(0);
    for store in rotten(&base, &ended) {
        let (code, severity, message) = told(&store, &ended);
        assert_eq!((code, severity), (0, Severity::Warning), "{message}");
    }
    // One that stands.
    let tombstone = names(&base, "tombstones/").remove(0);
    let decision = tombstone.replace("tombstones/", "decisions/");
    base.put_new(&Key::new(decision.as_str()).unwrap(), bytes::Bytes::from_static(b"torn")).unwrap();
    let store = Arc::new(base.fork());
    let (code, severity, message) = told(&store, &decision);
    assert_eq!((code, severity), (4, Severity::Error), "{message}");
    assert!(message.contains("longshore repo prune"), "{message}");
    for _ in 0..3 {
        prune(&opened(&store), &PruneOptions { fence_now: true, ..PruneOptions::default() }).unwrap();
    }
    let (code, severity, message) = told(&store, &decision);
    assert_eq!((code, severity), (0, Severity::Warning), "{message}");
    // And one of which nothing can be read any more: by hand, as it says.
    for store in rotten(&base, &tombstone) {
        let (code, _, message) = told(&store, &tombstone);
        let open = tombstone.replace("tombstones/", "open/");
        assert!(code == 4 && message.contains(&decision) && message.contains(&open), "{message}");
        for name in [&tombstone, &decision, &open] {
            store.delete(&Key::new(name.as_str()).unwrap()).unwrap();
        }
        assert_eq!(checked(&store, 100).exit_code, 0);
        prune(&opened(&store), &PruneOptions { fence_now: true, ..PruneOptions::default() }).unwrap();
        assert_eq!(whole(&store).unwrap().len(), 2);
    }
}

#[test]
fn a_marker_that_rots_after_its_session_ended_and_a_removal_are_told_and_are_no_errors() {
    let base = stage();
    let session = names(&base, "snapshots/").remove(0).replace("snapshots/", "");
    let marker = format!("sessions/{session}");
    base.put_new(&Key::new(marker.as_str()).unwrap(), bytes::Bytes::from_static(b"torn")).unwrap();
    let store = Arc::new(base.fork());
    let (code, severity, message) = told(&store, &marker);
    assert_eq!((code, severity), (0, Severity::Warning), "{message}");
    prune(&opened(&store), &PruneOptions::default()).unwrap();
    assert_eq!(checked(&store, 100).findings, vec![]);
    let removal = names(&store, "removed/").remove(0);
    for store in rotten(&store, &removal) {
        let (code, severity, message) = told(&store, &removal);
        assert_eq!((code, severity), (0, Severity::Warning), "{message}");
        assert_eq!(checked(&store, 0).findings, vec![], "they are as many as snapshots ever were");
    }
}
