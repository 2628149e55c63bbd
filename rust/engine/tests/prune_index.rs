//! A prune without a cache holds no chunks of the index: it reads a segment once more when it writes it anew. What becomes of one that
//! cannot be read then, or is gone.

#![expect(clippy::unwrap_used, reason = "a test makes its own files and may fail loudly")]

mod common;

use common::pruned::{back_up_alone, names, orphans, prune, small_packs, whole};
use common::{init, noise, open, write};
use longshore_engine::ErrorKind;
use longshore_store::layers::{Call, Effect, Fault, Retry, RetrySettings, Verb};
use longshore_store::{Key, MemoryStore, Store, StoreErrorKind, SystemClock, SystemRng};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

/// Three snapshots, of which the first was deleted: there is something to free, and a segment that says so.
fn stage() -> (tempfile::TempDir, Arc<MemoryStore>) {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    let repository = init(Arc::<MemoryStore>::clone(&store));
    let mut snapshots = Vec::new();
    for turn in 0..3 {
        (0..6).for_each(|n| write(&folder.path().join(format!("f{n}")), &noise(10 * turn + n, 40_000)));
        snapshots.push(back_up_alone(&repository, folder.path()).unwrap().snapshot.unwrap());
    }
    repository.remove_snapshot(snapshots[0], "test").unwrap();
    (folder, store)
}

/// The next prune cleans up, every snapshot is whole, and the index knows all chunks.
fn is_well(folder: &tempfile::TempDir, store: &Arc<MemoryStore>) {
    let repository = open(Arc::<MemoryStore>::clone(store)).unwrap();
    (0..2).for_each(|_| drop(prune(&repository, &small_packs()).unwrap()));
    assert_eq!(whole(store).unwrap().len(), 2);
    assert_eq!(orphans(store), Vec::<String>::new());
    assert_eq!(back_up_alone(&repository, folder.path()).unwrap().counts.bytes_stored, 0);
}

#[test]
fn a_segment_that_is_gone_or_rots_before_it_is_read_again_is_left_to_the_next_prune() {
    for effect in [Effect::Flip { bit: 999 }, Effect::FailBefore(StoreErrorKind::NotFound)] {
        let (folder, store) = stage();
        let before = names(&*store, "index/");
        let (reads, again): (Mutex<HashMap<String, u64>>, Arc<AtomicU64>) = Default::default();
        let count = Arc::clone(&again);
        let plan = move |call: &Call<'_>| {
            if call.verb != Verb::Get || !call.key.starts_with("index/") {
                return Effect::Pass;
            }
            let mut reads = reads.lock().unwrap();
            let nth = reads.entry(call.key.to_owned()).and_modify(|n| *n += 1).or_insert(0);
            count.fetch_add(u64::from(*nth > 0), SeqCst);
            if *nth > 0 { effect } else { Effect::Pass }
        };
        let faulty = open(Arc::new(Fault::new(Arc::clone(&store), plan))).unwrap();
        let report = prune(&faulty, &small_packs()).unwrap();
        assert!(report.packs_deleted > 0 && again.load(SeqCst) > 0, "{report:?}");
        let after = names(&*store, "index/");
        assert!(before.iter().all(|name| after.contains(name)), "{effect:?}: {before:?}, {after:?}");
        is_well(&folder, &store);
    }
}

#[test]
fn a_store_that_does_not_give_a_segment_again_ends_the_prune() {
    let (folder, store) = stage();
    let reads: Mutex<HashMap<String, u64>> = Mutex::default();
    let plan = move |call: &Call<'_>| {
        let mut reads = reads.lock().unwrap();
        let nth = reads.entry(call.key.to_owned()).and_modify(|n| *n += 1).or_insert(0);
        let is_again = call.verb == Verb::Get && call.key.starts_with("index/") && *nth > 0;
        if is_again { Effect::FailBefore(StoreErrorKind::Unavailable) } else { Effect::Pass }
    };
    let faulty = open(Arc::new(Fault::new(Arc::clone(&store), plan))).unwrap();
    assert_eq!(prune(&faulty, &small_packs()).unwrap_err().kind(), ErrorKind::StoreUnavailable);
    is_well(&folder, &store);
}

#[test]
fn segments_stay_when_those_that_replace_them_are_not_kept() {
    let (folder, store) = (tempfile::tempdir().unwrap(), Arc::new(MemoryStore::new()));
    let repository = init(Arc::<MemoryStore>::clone(&store));
    for turn in 0..9 {
        write(&folder.path().join(format!("f{turn}")), &noise(turn, 40_000));
        back_up_alone(&repository, folder.path()).unwrap();
    }
    // So many small ones are merged.
    let before = names(&*store, "index/");
    let lost = |call: &Call<'_>| match call.verb == Verb::PutNew && call.key.starts_with("index/") {
        true => Effect::Lose,
        false => Effect::Pass,
    };
    let report = prune(&repository.with_store(Arc::new(Fault::new(Arc::clone(&store), lost))), &small_packs()).unwrap();
    assert_eq!((report.segments_written, report.segments_deleted), (0, 0), "{report:?}");
    assert_eq!(names(&*store, "index/"), before);
    let report = prune(&repository, &small_packs()).unwrap();
    assert!(report.segments_written > 0 && names(&*store, "index/").len() < before.len(), "{report:?}");
    assert_eq!(whole(&store).unwrap().len(), 9);
    assert_eq!(back_up_alone(&repository, folder.path()).unwrap().counts.bytes_stored, 0);
}

#[test]
fn packs_that_a_listing_leaves_out_and_that_are_there_stay_in_the_index() {
    let mut pruned = 0;
    for (which, keep_entries) in (0..5).flat_map(|which| (0..8).map(move |keep| (which, keep))) {
        let (folder, store) = stage();
        let asked = AtomicU64::new(0);
        let plan = move |call: &Call<'_>| match call.verb == Verb::List && call.key == "packs/" {
            true if asked.fetch_add(1, SeqCst) == which => Effect::Short { keep_entries },
            _ => Effect::Pass,
        };
        let short = open(Arc::new(Fault::new(Arc::clone(&store), plan))).unwrap();
        match prune(&short, &small_packs()) {
            Ok(_) => pruned += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}"),
        }
        let aside: Arc<MemoryStore> = Arc::new(store.fork());
        let stored = back_up_alone(&open(aside).unwrap(), folder.path()).unwrap().counts.bytes_stored;
        assert_eq!(stored, 0, "listing {which} of {keep_entries}: the index knows chunks no more that are there");
        is_well(&folder, &store);
    }
    assert!(pruned > 10, "{pruned}");
}

#[test]
fn segments_stay_when_those_that_replace_them_are_kept_in_part() {
    let (folder, store) = (tempfile::tempdir().unwrap(), Arc::new(MemoryStore::new()));
    let repository = init(Arc::<MemoryStore>::clone(&store));
    for turn in 0..9 {
        write(&folder.path().join(format!("f{turn}")), &noise(turn, 40_000));
        back_up_alone(&repository, folder.path()).unwrap();
    }
    let before = names(&*store, "index/");
    let torn = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&torn);
    let tears = move |call: &Call<'_>| match call.verb == Verb::PutNew && call.key.starts_with("index/") {
        true => {
            counted.fetch_add(1, SeqCst);
            Effect::Torn { keep_bytes: 100 }
        }
        false => Effect::Pass,
    };
    // Whoever tries again finds the key taken.
    let faulty = Fault::new(Arc::clone(&store), tears);
    let again = Retry::new(faulty, RetrySettings::default(), Arc::new(SystemClock), Arc::new(SystemRng));
    let report = prune(&open(Arc::new(again)).unwrap(), &small_packs()).unwrap();
    assert!(torn.load(SeqCst) > 0 && report.segments_deleted == 0, "{report:?}");
    let after = names(&*store, "index/");
    assert!(before.iter().all(|name| after.contains(name)), "{before:?} {after:?}");
    prune(&repository, &small_packs()).unwrap();
    assert_eq!(whole(&store).unwrap().len(), 9);
    assert_eq!(back_up_alone(&repository, folder.path()).unwrap().counts.bytes_stored, 0);
}

/// Two kinds of neighbours whose segments a copy that went wrong lays among ours: a repository with other keys, and a fork of this
/// one that moved what both need, and whose segments open with our keys and name packs that were never here.
#[test]
fn segments_of_another_repository_free_nothing_of_ours_and_nobody_relies_on_them() {
    for is_fork in [false, true] {
        let (folder, store) = (tempfile::tempdir().unwrap(), Arc::new(MemoryStore::new()));
        let file = |n: u64, content: u64| write(&folder.path().join(format!("f{n}")), &noise(content, 40_000));
        let repository = init(Arc::<MemoryStore>::clone(&store));
        (0..10).for_each(|n| file(n, n));
        let first = back_up_alone(&repository, folder.path()).unwrap().snapshot.unwrap();
        (0..8).for_each(|n| file(n, 20 + n));
        back_up_alone(&repository, folder.path()).unwrap();
        repository.remove_snapshot(first, "test").unwrap();

        let other = Arc::new(if is_fork { store.fork() } else { MemoryStore::new() });
        let theirs =
            if is_fork { open(Arc::<MemoryStore>::clone(&other)).unwrap() } else { init(Arc::<MemoryStore>::clone(&other)) };
        if is_fork {
            let report = prune(&theirs, &small_packs()).unwrap();
            assert!(report.bytes_moved > 0, "{report:?}");
        }
        // Both go on with the same volume, so what the other's segments name is what ours needs next.
        file(9, 99);
        back_up_alone(&theirs, folder.path()).unwrap();
        let ours = names(&*store, "index/");
        let alien: Vec<_> = names(&*other, "index/").into_iter().filter(|name| !ours.contains(name)).collect();
        for name in &alien {
            let key = Key::new(name.clone()).unwrap();
            store.put_new(&key, other.get(&key, 1 << 30).unwrap()).unwrap();
        }
        assert!(!alien.is_empty());

        let aside = Arc::new(store.fork());
        let stored = back_up_alone(&open(Arc::<MemoryStore>::clone(&aside)).unwrap(), folder.path()).unwrap();
        assert!(stored.counts.bytes_stored >= 40_000, "{is_fork}: {:?}", stored.counts);
        assert_eq!(whole(&aside).unwrap().len(), 2, "{is_fork}");

        let repository = open(Arc::<MemoryStore>::clone(&store)).unwrap();
        let report = prune(&repository, &small_packs()).unwrap();
        assert!(report.packs_deleted > 0 && report.bytes_moved > 0, "{is_fork}: {report:?}");
        assert_eq!(whole(&store).unwrap().len(), 1, "{is_fork}");
        let stored = back_up_alone(&repository, folder.path()).unwrap();
        assert!(stored.counts.bytes_stored >= 40_000, "{is_fork}: {:?}", stored.counts);
        (0..2).for_each(|_| drop(prune(&repository, &small_packs()).unwrap()));
        assert!(names(&*store, "index/").iter().all(|name| !alien.contains(name)), "{is_fork}: a prune takes them away");
        assert_eq!((whole(&store).unwrap().len(), orphans(&store)), (2, Vec::<String>::new()), "{is_fork}");
        assert_eq!(back_up_alone(&repository, folder.path()).unwrap().counts.bytes_stored, 0, "{is_fork}");
    }
}
