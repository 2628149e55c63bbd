//! A prune that dies, fails or is lied to at each of its store calls in turn.
//!
//! After each, every snapshot must be whole; the prune that follows must work with nothing done by hand, and the ones after it must leave
//! nothing that nobody needs. The prune has everything to do: another's waiting generation, dead packs, packs to repack, small ones
//! to merge, dead usage tables, a marker left behind by a session that has ended.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test makes its own files and may fail loudly")]

mod common;

use common::pruned::{back_up_alone, names, orphans, prune, whole};
use common::{init, noise, open, write};
use longshore_engine::prune::PruneOptions;
use longshore_format::id::SessionId;
use longshore_store::layers::{Call, Effect, Fault, Verb};
use longshore_store::{Key, MemoryStore, Store, StoreErrorKind};
use std::path::Path;
use std::sync::Arc;

fn options() -> PruneOptions {
    PruneOptions { pack_size_bytes: 96 << 10, ..PruneOptions::default() }
}

/// A repository with work of every kind for a prune, and the snapshots that count.
fn with_work(folder: &Path) -> (Arc<MemoryStore>, Vec<SessionId>) {
    let store = Arc::new(MemoryStore::new());
    let repository = init(Arc::<MemoryStore>::clone(&store));
    let file = |name: &str| folder.join(name);
    for n in 0..6 {
        write(&file(&format!("a{n}")), &noise(n, 40_000));
    }
    let first = back_up_alone(&repository, folder).unwrap().snapshot.unwrap();
    for n in 0..5 {
        std::fs::remove_file(file(&format!("a{n}"))).unwrap();
    }
    write(&file("b"), &noise(20, 70_000));
    let second = back_up_alone(&repository, folder).unwrap().snapshot.unwrap();
    std::fs::remove_file(file("b")).unwrap();
    let mut counted = vec![];
    for n in 0..4 {
        write(&file(&format!("c{n}")), &noise(30 + n, 900));
        counted.push(back_up_alone(&repository, folder).unwrap().snapshot.unwrap());
    }
    // A generation that waits for a writer, which has ended since.
    repository.remove_snapshot(second, "test").unwrap();
    let mut writer = repository.open_writer("elsewhere", vec![], &longshore_engine::job::Job::new()).unwrap();
    prune(&repository, &PruneOptions { waste_percent: 100, ..options() }).unwrap();
    assert_eq!(names(&*store, "tombstones/").len(), 1);
    let marker = longshore_store::Key::new(format!("sessions/{}", writer.session())).unwrap();
    let bytes = store.get(&marker, 1 << 20).unwrap();
    writer.abort("gave up").unwrap();
    store.overwrite(&marker, bytes);
    repository.remove_snapshot(first, "test").unwrap();
    counted.sort();
    (store, counted)
}

fn assert_whole(store: &Arc<MemoryStore>, counted: &[SessionId], what: &str) {
    let mut left = whole(store).unwrap_or_else(|error| panic!("{what}: {error}"));
    left.sort();
    assert_eq!(left, counted, "{what}");
}

#[test]
fn no_call_of_a_prune_may_die_fail_or_be_lied_to_and_leave_harm() {
    let folder = tempfile::tempdir().unwrap();
    let (base, counted) = with_work(folder.path());
    let counting = Arc::new(Fault::new(base.fork(), |_: &Call<'_>| Effect::Pass));
    let report = prune(&open(Arc::<Fault<MemoryStore>>::clone(&counting)).unwrap(), &options()).unwrap();
    assert!(report.packs_deleted > 2 && report.packs_repacked > 0 && report.generations_done == 2, "{report:?}");
    assert!(report.tables_deleted > 0 && report.segments_deleted > 0, "{report:?}");
    let undisturbed = Arc::new(counting.inner().fork());
    assert_whole(&undisturbed, &counted, "undisturbed");
    assert_eq!(orphans(&undisturbed), Vec::<String>::new());
    let calls = counting.calls();
    assert!(calls > 60, "{calls}");
    let unavailable = StoreErrorKind::Unavailable;
    let mut tried = 0;
    for number in 0..calls {
        for effect in [
            Effect::StopBefore,
            Effect::StopAfter,
            Effect::StopTorn { keep_bytes: 100 },
            Effect::FailBefore(unavailable),
            Effect::FailAfter(unavailable),
            Effect::FailBefore(StoreErrorKind::NoSpace),
            Effect::FailBefore(StoreErrorKind::Denied),
            Effect::Torn { keep_bytes: 10 },
            Effect::Torn { keep_bytes: 200 },
            Effect::Cut { keep_bytes: 100 },
            Effect::Lose,
        ] {
            let what = format!("call {number}, {effect:?}");
            let plan = move |call: &Call<'_>| {
                // Opening reads the configuration and the slots, and a bit that turned on the way in is no fault of the store.
                if call.number == number { effect } else { Effect::Pass }
            };
            let faulty = Arc::new(Fault::new(base.fork(), plan));
            let outcome = open(Arc::<Fault<MemoryStore>>::clone(&faulty)).and_then(|repository| prune(&repository, &options()));
            if let Err(error) = &outcome {
                assert!(!error.message().is_empty(), "{what}");
            }
            let left = Arc::new(faulty.inner().fork());
            assert_whole(&left, &counted, &what);
            // Whoever prunes next needs no hand; what the fault left behind is gone after the ones that follow.
            for round in 0..3 {
                let repository = open(Arc::<MemoryStore>::clone(&left)).unwrap_or_else(|e| panic!("{what}: {e}"));
                prune(&repository, &options()).unwrap_or_else(|e| panic!("{what}, prune {round} after: {e}"));
                assert_whole(&left, &counted, &what);
            }
            assert_eq!(orphans(&left), Vec::<String>::new(), "{what}");
            if number % 7 == 0 {
                let repository = open(Arc::<MemoryStore>::clone(&left)).unwrap();
                let next =
                    back_up_alone(&repository, folder.path()).unwrap_or_else(|e| panic!("{what}: the next backup fails: {e}"));
                assert_eq!(next.exit_code, 0, "{what}");
            }
            tried += 1;
        }
    }
    println!("crash states of a prune: {tried}, calls: {calls}");
    assert_eq!(tried, calls * 11);
}

#[test]
fn a_tombstone_that_was_torn_is_put_right_and_backups_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let (base, counted) = with_work(folder.path());
    for prefix in ["tombstones/", "open/", "decisions/"] {
        let store = Arc::new(base.fork());
        let plan = move |call: &Call<'_>| match call.verb == Verb::PutNew && call.key.starts_with(prefix) {
            true => Effect::StopTorn { keep_bytes: 120 },
            false => Effect::Pass,
        };
        let faulty = Arc::new(Fault::new(Arc::clone(&store), plan));
        prune(&open(faulty).unwrap(), &options()).unwrap_err();
        let repository = open(Arc::<MemoryStore>::clone(&store)).unwrap();
        if prefix == "tombstones/" {
            let error = back_up_alone(&repository, folder.path()).unwrap_err();
            assert!(error.next_step().unwrap().contains("repo prune"), "{error}");
        }
        for _ in 0..3 {
            prune(&repository, &options()).unwrap();
            assert_whole(&store, &counted, prefix);
        }
        assert_eq!(orphans(&store), Vec::<String>::new(), "{prefix}");
        back_up_alone(&repository, folder.path()).unwrap();
    }
}

#[test]
fn a_prune_leaves_a_generation_of_whose_tombstone_a_part_lies_there_though_it_put_it_itself() {
    let folder = tempfile::tempdir().unwrap();
    let (base, counted) = with_work(folder.path());
    let store = Arc::new(base.fork());
    let inner = Arc::clone(&store);
    let plan = move |call: &Call<'_>| {
        if call.verb == Verb::PutNew && call.key.starts_with("tombstones/") {
            // The request landed in part; now it is sent again, and finds the key taken.
            inner.put_new(&Key::new(call.key).unwrap(), bytes::Bytes::from_static(b"a part")).unwrap();
        }
        Effect::Pass
    };
    let report = prune(&open(Arc::new(Fault::new(Arc::clone(&store), plan))).unwrap(), &options()).unwrap();
    // A writer that comes when somebody has ended this generation may rely on all that it named: it is left, and decides nothing.
    let left = names(&*store, "tombstones/");
    assert_eq!(left.len(), 1, "{report:?}");
    assert!(!names(&*store, "decisions/").contains(&left[0].replace("tombstones/", "decisions/")));
    for _ in 0..3 {
        prune(&open(Arc::<MemoryStore>::clone(&store)).unwrap(), &options()).unwrap();
        assert_whole(&store, &counted, "after it");
    }
    assert_eq!(orphans(&store), Vec::<String>::new());
}
