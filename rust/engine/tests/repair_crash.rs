//! A repair that dies, fails or is lied to at each of its store calls in turn, and repairs beside backups, prunes and one another.
//!
//! After each, no snapshot has lost anything that it had before; the repair that follows works with nothing done by hand and comes to the
//! same end as an undisturbed one. The repair has everything to do: an index segment that is damaged, a lost usage table, a pack whose header is
//! damaged, one with a rotten frame, one that is gone, a tombstone that cannot be read.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test makes its own files and may fail loudly")]

mod common;

use bytes::Bytes;
use common::pruned::{back_up_alone, names, prune};
use common::{init, look, noise, open, restore_with, write};
use longshore_engine::check::{CheckOptions, run as check};
use longshore_engine::job::Job;
use longshore_engine::prune::PruneOptions;
use longshore_engine::repair::{self, RepairOptions, RepairReport};
use longshore_engine::restore::RestoreOptions;
use longshore_format::id::SessionId;
use longshore_store::layers::{Call, Effect, Fault, Verb};
use longshore_store::{Key, MemoryStore, Store, StoreErrorKind};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

type Files = BTreeMap<PathBuf, [u8; 32]>;

fn mend(store: Arc<dyn Store>) -> longshore_engine::Result<RepairReport> {
    let options = RepairOptions { read_data: true, workers: 0, pack_size_bytes: 96 << 10, ..RepairOptions::default() };
    repair::run(&open(store)?, &Arc::new(Job::new()), &options)
}

/// A copy of a store that answers the puts below a prefix and does not keep them.
fn losing(base: &MemoryStore, prefix: &'static str) -> Arc<Fault<MemoryStore>> {
    let lost = move |call: &Call<'_>| match call.verb == Verb::PutNew && call.key.starts_with(prefix) {
        true => Effect::Lose,
        false => Effect::Pass,
    };
    Arc::new(Fault::new(base.fork(), lost))
}

fn options() -> PruneOptions {
    PruneOptions { pack_size_bytes: 96 << 10, ..PruneOptions::default() }
}

fn largest(store: &MemoryStore, prefix: &str) -> (Key, Bytes) {
    let entries = store.list(prefix, None, 1000).unwrap().entries;
    let key = entries.into_iter().max_by_key(|entry| entry.size_bytes).unwrap().key;
    let body = store.get(&key, 1 << 30).unwrap();
    (key, body)
}

fn flip(store: &MemoryStore, key: &Key, body: &Bytes, at: usize) {
    let mut bad = body.to_vec();
    bad[at] ^= 1;
    store.overwrite(key, Bytes::from(bad));
}

/// What each snapshot gives back.
fn restored(folder: &Path, store: &Arc<MemoryStore>) -> BTreeMap<SessionId, Files> {
    let repository = open(Arc::<MemoryStore>::clone(store)).unwrap();
    let mut out = BTreeMap::new();
    for row in repository.snapshots().unwrap().0 {
        let target = folder.join("target");
        let options = RestoreOptions { sync: false, ..RestoreOptions::new(row.session, &target) };
        restore_with(&repository, &options).unwrap();
        out.insert(row.session, look(&target).into_iter().filter_map(|(path, seen)| Some((path, seen.content?))).collect());
        let _ = std::fs::remove_dir_all(&target);
    }
    out
}

/// A repository of five sessions with damage of every kind; the volume that is still there.
fn damaged(folder: &Path) -> (Arc<MemoryStore>, PathBuf) {
    let store = Arc::new(MemoryStore::new());
    let repository = init(Arc::<MemoryStore>::clone(&store));
    let source = folder.join("source");
    std::fs::create_dir(&source).unwrap();
    let mut packs = vec![];
    for session in 0..5u64 {
        for file in 0..3 {
            write(&source.join(format!("s{session}f{file}")), &noise(session * 10 + file, 30_000 + 100 * file as usize));
        }
        let made = back_up_alone(&repository, &source).unwrap().snapshot.unwrap();
        packs.push(largest(&store, &format!("packs/{made}-")));
    }
    // The header, a frame, and all of it.
    let (key, body) = &packs[0];
    flip(&store, key, body, body.len() - 40);
    let (key, body) = &packs[1];
    flip(&store, key, body, body.len() / 4);
    store.delete(&packs[2].0).unwrap();
    let (table, _) = largest(&store, "usage/");
    store.delete(&table).unwrap();
    let index = names(&*store, "index/");
    let other = Key::new(index.iter().find(|name| names_pack(&store, name, &packs[3].0)).unwrap().clone()).unwrap();
    let body = store.get(&other, 1 << 30).unwrap();
    flip(&store, &other, &body, body.len() / 2);
    store.overwrite(&Key::new(format!("tombstones/{}", "7".repeat(32))).unwrap(), Bytes::from_static(b"torn"));
    (store, source)
}

/// Whether a segment lists a pack.
fn names_pack(store: &Arc<MemoryStore>, segment: &str, pack: &Key) -> bool {
    let without = Arc::new(store.fork());
    for name in names(&**store, "index/").into_iter().filter(|name| name != segment) {
        without.delete(&Key::new(name).unwrap()).unwrap();
    }
    let index = open(without).unwrap().load_index(&Job::new()).unwrap();
    !index.is_empty() && {
        let alone = Arc::new(store.fork());
        let _ = alone.delete(&Key::new(segment).unwrap());
        let bytes = store.get(&Key::new(segment).unwrap(), 1 << 30).unwrap();
        let repository = open(alone).unwrap();
        let name = longshore_format::id::RandomName::from_hex(segment.strip_prefix("index/").unwrap()).unwrap();
        let mut codec = longshore_format::envelope::Codec::new().unwrap();
        let payload = longshore_format::index::open_segment(repository.keys(), name, &bytes, &mut codec).unwrap();
        let segment = longshore_format::index::Segment::new(payload).unwrap();
        segment.packs().any(|row| row.name.key() == pack.as_str())
    }
}

#[test]
fn no_call_of_a_repair_may_die_fail_or_be_lied_to_and_leave_harm() {
    let folder = tempfile::tempdir().unwrap();
    let (base, source) = damaged(folder.path());
    let before = restored(folder.path(), &base);
    let counting = Arc::new(Fault::new(base.fork(), |_: &Call<'_>| Effect::Pass));
    let undisturbed = mend(Arc::<Fault<MemoryStore>>::clone(&counting)).unwrap();
    assert!(undisturbed.frames_moved > 0 && undisturbed.tables_rebuilt > 0 && undisturbed.chunks_missing > 0, "{undisturbed:?}");
    assert!(undisturbed.segments_deleted > 0 && undisturbed.packs_indexed > 0 && undisturbed.recorded, "{undisturbed:?}");
    assert_eq!((undisturbed.exit_code, undisturbed.snapshots), (4, 5));
    assert_eq!(restored(folder.path(), &Arc::new(counting.inner().fork())), before);
    let calls = counting.calls();
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
            Effect::Torn { keep_bytes: 200 },
            Effect::Cut { keep_bytes: 100 },
            Effect::Lose,
        ] {
            let what = format!("call {number}, {effect:?}");
            let plan = move |call: &Call<'_>| if call.number == number { effect } else { Effect::Pass };
            let faulty = Arc::new(Fault::new(base.fork(), plan));
            let outcome = mend(Arc::<Fault<MemoryStore>>::clone(&faulty));
            assert!(!matches!(&outcome, Ok(report) if report.exit_code == 0), "{what}: {outcome:?}");
            let left = Arc::new(faulty.inner().fork());
            let report = mend(Arc::<MemoryStore>::clone(&left)).unwrap_or_else(|e| panic!("{what}: the next repair fails: {e}"));
            assert_eq!(
                (report.exit_code, report.items_hurt, report.snapshots_touched),
                (4, undisturbed.items_hurt, undisturbed.snapshots_touched),
                "{what}"
            );
            let repository = open(Arc::<MemoryStore>::clone(&left)).unwrap();
            // A store that tears what it creates once may have torn the end of the session: nobody can tell it from a lost snapshot.
            for (torn, _) in repository.snapshots().unwrap().1 {
                assert!(matches!(effect, Effect::StopTorn { .. } | Effect::Torn { .. } | Effect::Cut { .. }), "{what}");
                repository.delete_snapshot(&torn.to_string(), "test").unwrap();
            }
            prune(&repository, &PruneOptions { fence_now: true, ..options() }).unwrap_or_else(|e| panic!("{what}: prune: {e}"));
            if number % 9 == 0 {
                assert_eq!(restored(folder.path(), &left), before, "{what}");
                back_up_alone(&repository, &source).unwrap_or_else(|e| panic!("{what}: the next backup fails: {e}"));
                let options = CheckOptions { read_percent: 100, workers: 0, ..CheckOptions::default() };
                let found = check(&repository, &Arc::new(Job::new()), &options).unwrap();
                assert_eq!(found.items_hurt, undisturbed_after(&base, &source), "{what}: {:?} {:?}", found.findings, found.hurt);
            }
            tried += 1;
        }
    }
    println!("crash states of a repair: {tried}, calls: {calls}");
    assert_eq!(tried, calls * 10);
}

/// Items that stay hurt after a repair and a backup that nobody disturbed.
fn undisturbed_after(base: &Arc<MemoryStore>, source: &Path) -> u64 {
    static KNOWN: Mutex<Option<u64>> = Mutex::new(None);
    *KNOWN.lock().unwrap().get_or_insert_with(|| {
        let store = Arc::new(base.fork());
        mend(Arc::<MemoryStore>::clone(&store)).unwrap();
        let repository = open(Arc::<MemoryStore>::clone(&store)).unwrap();
        back_up_alone(&repository, source).unwrap();
        let options = CheckOptions { read_percent: 100, workers: 0, ..CheckOptions::default() };
        let found = check(&repository, &Arc::new(Job::new()), &options).unwrap();
        // All data is in the source still, and no tree was damaged.
        assert_eq!((found.exit_code, found.items_hurt), (0, 0), "{:?} {:?}", found.findings, found.hurt);
        found.items_hurt
    })
}

/// Runs something else at one call of a repair.
fn beside(base: &Arc<MemoryStore>, number: u64, other: impl Fn(&Arc<MemoryStore>) + Send + Sync + 'static) -> Arc<MemoryStore> {
    let shared = Arc::new(base.fork());
    let inner = Arc::clone(&shared);
    let plan = move |call: &Call<'_>| {
        if call.number == number {
            other(&inner);
        }
        Effect::Pass
    };
    // What runs beside it may end it with an error; never with harm.
    let _ = mend(Arc::new(Fault::new(Arc::clone(&shared), plan)));
    shared
}

#[test]
fn backups_prunes_and_repairs_may_run_at_any_call_of_a_repair() {
    let folder = tempfile::tempdir().unwrap();
    let (base, source) = damaged(folder.path());
    let before = restored(folder.path(), &base);
    let counting = Arc::new(Fault::new(base.fork(), |_: &Call<'_>| Effect::Pass));
    mend(Arc::<Fault<MemoryStore>>::clone(&counting)).unwrap();
    let calls = counting.calls();
    // Once damage is known a prune does not refuse: so it has work at every call of the repairs that follow.
    let known = Arc::new(base.fork());
    mend(Arc::<MemoryStore>::clone(&known)).unwrap();
    let repository = open(Arc::<MemoryStore>::clone(&known)).unwrap();
    back_up_alone(&repository, &source).unwrap();
    let last = repository.snapshots().unwrap().0.pop().unwrap().session;
    repository.remove_snapshot(last, "test").unwrap();
    let healed = restored(folder.path(), &known);
    let mut tried = 0;
    for number in (0..calls).step_by(3) {
        let what = format!("call {number}");
        for fence_now in [false, true] {
            let store = beside(&known, number, move |store| {
                let repository = open(Arc::<MemoryStore>::clone(store)).unwrap();
                for _ in 0..2 {
                    prune(&repository, &PruneOptions { fence_now, waste_percent: 1, ..options() }).unwrap();
                }
            });
            assert_eq!(restored(folder.path(), &store), healed, "{what}: prunes, fence_now={fence_now}");
            mend(Arc::<MemoryStore>::clone(&store)).unwrap();
            let repository = open(Arc::<MemoryStore>::clone(&store)).unwrap();
            for _ in 0..2 {
                prune(&repository, &PruneOptions { fence_now: true, ..options() }).unwrap_or_else(|e| panic!("{what}: {e}"));
            }
            assert_eq!(restored(folder.path(), &store), healed, "{what}: prunes, after another repair");
            tried += 1;
        }
        let volume = source.clone();
        let store = beside(&base, number, move |store| {
            let repository = open(Arc::<MemoryStore>::clone(store)).unwrap();
            // A tombstone that cannot be read stops it before the repair has ended that.
            let _ = back_up_alone(&repository, &volume);
        });
        mend(Arc::<MemoryStore>::clone(&store)).unwrap();
        let repository = open(Arc::<MemoryStore>::clone(&store)).unwrap();
        prune(&repository, &options()).unwrap_or_else(|e| panic!("{what}: {e}"));
        back_up_alone(&repository, &source).unwrap();
        let checked =
            check(&repository, &Arc::new(Job::new()), &CheckOptions { read_percent: 100, workers: 0, ..CheckOptions::default() })
                .unwrap();
        assert_eq!(checked.exit_code, 0, "{what}: a backup beside it: {:?} {:?}", checked.findings, checked.hurt);
        let store = beside(&base, number, |store| {
            mend(Arc::<MemoryStore>::clone(store)).unwrap();
        });
        mend(Arc::<MemoryStore>::clone(&store)).unwrap();
        assert_eq!(restored(folder.path(), &store), before, "{what}: a repair beside it");
        assert_eq!(names(&*store, "repairs/").len(), 1, "{what}");
        tried += 2;
    }
    println!("repairs beside others: {tried}");
}

#[test]
fn a_repair_that_the_store_will_not_let_delete_still_repairs() {
    let folder = tempfile::tempdir().unwrap();
    let (base, source) = damaged(folder.path());
    let plan = |call: &Call<'_>| {
        if call.verb == Verb::Delete { Effect::FailBefore(StoreErrorKind::Denied) } else { Effect::Pass }
    };
    let store = Arc::new(Fault::new(base.fork(), plan));
    assert_eq!(mend(Arc::<Fault<MemoryStore>>::clone(&store)).unwrap().exit_code, 4);
    let left = Arc::new(store.inner().fork());
    mend(Arc::<MemoryStore>::clone(&left)).unwrap();
    back_up_alone(&open(Arc::<MemoryStore>::clone(&left)).unwrap(), &source).unwrap();
    let healed = restored(folder.path(), &left);
    assert!(healed.values().all(|files| !files.is_empty()));
}

#[test]
fn a_tombstone_that_cannot_be_read_stays_until_the_decision_that_ends_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let (base, _) = damaged(folder.path());
    let store = losing(&base, "decisions/");
    mend(Arc::<Fault<MemoryStore>>::clone(&store)).unwrap();
    let left = Arc::new(store.inner().fork());
    let stays = |store: &Arc<MemoryStore>| (names(&**store, "tombstones/").len(), names(&**store, "decisions/").len());
    assert_eq!(stays(&left), (1, 0));
    mend(Arc::<MemoryStore>::clone(&left)).unwrap();
    assert_eq!(stays(&left), (0, 1));
}

#[test]
fn a_repair_takes_no_segment_away_when_what_it_puts_in_its_place_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (base, _) = damaged(folder.path());
    let store = losing(&base, "index/");
    assert_eq!(mend(Arc::<Fault<MemoryStore>>::clone(&store)).unwrap_err().kind(), longshore_engine::ErrorKind::Corrupt);
    let left = Arc::new(store.inner().fork());
    assert_eq!(names(&*left, "index/"), names(&*base, "index/"));
    let undisturbed = restored(folder.path(), &base);
    mend(Arc::<MemoryStore>::clone(&left)).unwrap();
    assert_eq!(restored(folder.path(), &left), undisturbed);
}
