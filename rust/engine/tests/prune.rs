//! A prune alone: what it frees, what it keeps, what it refuses.
//!
//! Over 500 lines because each rule that rare meetings alone show has its meeting staged here, on the same helpers.

#![expect(clippy::unwrap_used, reason = "a test makes its own files and may fail loudly")]

mod common;

use common::pruned::{back_up_alone, names, orphans, prune, small_packs, whole};
use common::{init_alike, noise, open, write};
use longshore_engine::ErrorKind;
use longshore_engine::prune::{PruneOptions, Rule, Rules, Why};
use longshore_engine::repository::{RESERVE_BYTES, RESERVE_KEY, Repository};
use longshore_engine::seams::World;
use longshore_format::envelope::Codec;
use longshore_format::generation::{Doomed, OpenWriters, Role, open_key};
use longshore_format::id::{PackName, RandomName, SessionId};
use longshore_format::usage::{Usage, usage_key};
use longshore_store::layers::{Call, Effect, Fault, Verb};
use longshore_store::{Key, MemoryStore, Store, StoreErrorKind, VirtualClock};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

fn memory() -> (Arc<MemoryStore>, Repository) {
    let store = Arc::new(MemoryStore::new());
    let repository = init_alike(Arc::<MemoryStore>::clone(&store));
    (store, repository)
}

fn backup(repository: &Repository, path: &Path) -> SessionId {
    back_up_alone(repository, path).unwrap().snapshot.unwrap()
}

/// Several files whose chunks go into one pack.
fn fill(folder: &Path, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        write(&folder.join(format!("f{seed}")), &noise(seed, 150_000));
    }
}

fn bytes_of_packs(store: &MemoryStore) -> u64 {
    store.list("packs/", None, 10_000).unwrap().entries.iter().map(|e| e.size_bytes).sum()
}

#[test]
fn what_a_deleted_snapshot_alone_needed_is_freed_in_one_run() {
    let folder = tempfile::tempdir().unwrap();
    let (store, repository) = memory();
    fill(folder.path(), 0..6);
    let first = backup(&repository, folder.path());
    for n in 0..6 {
        std::fs::remove_file(folder.path().join(format!("f{n}"))).unwrap();
    }
    fill(folder.path(), 10..12);
    let second = backup(&repository, folder.path());
    let before = bytes_of_packs(&store);
    let nothing = prune(&repository, &PruneOptions::default()).unwrap();
    assert_eq!((nothing.packs_deleted, nothing.bytes_freed, nothing.exit_code), (0, 0, 0), "everything is needed");
    repository.remove_snapshot(first, "test").unwrap();
    let report = prune(&repository, &PruneOptions::default()).unwrap();
    assert!(report.bytes_freed > 900_000 && report.packs_deleted >= 2, "{report:?}");
    assert_eq!(before - bytes_of_packs(&store), report.bytes_freed);
    assert_eq!(report.tables_deleted, 1);
    assert_eq!(whole(&store).unwrap(), [second]);
    assert_eq!(orphans(&store), Vec::<String>::new());
    assert_eq!(names(&*store, "decisions/").len(), 1, "the decision is kept");
    assert_eq!(names(&*store, "reserve"), ["reserve"]);
    let next = back_up_alone(&repository, folder.path()).unwrap();
    assert_eq!(next.counts.bytes_stored, 0, "the index is good");
}

#[test]
fn needed_frames_move_out_of_mostly_dead_packs_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let (store, repository) = memory();
    fill(folder.path(), 0..20);
    let first = backup(&repository, folder.path());
    for n in 0..18 {
        std::fs::remove_file(folder.path().join(format!("f{n}"))).unwrap();
    }
    let second = backup(&repository, folder.path());
    repository.remove_snapshot(first, "test").unwrap();
    let dry = prune(&repository, &PruneOptions { dry_run: true, ..small_packs() }).unwrap();
    assert!(dry.kept.get(&Why::Repacked).is_some_and(|kept| kept.packs >= 1), "{dry:?}");
    assert!(names(&*store, "tombstones/").is_empty() && names(&*store, "decisions/").is_empty(), "a dry run writes nothing");
    let report = prune(&repository, &small_packs()).unwrap();
    assert!(report.packs_repacked >= 1 && report.bytes_moved >= 300_000, "{report:?}");
    assert!(report.bytes_freed > 2_500_000, "{report:?}");
    assert_eq!(whole(&store).unwrap(), [second]);
    assert_eq!(orphans(&store), Vec::<String>::new());
    assert_eq!(back_up_alone(&repository, folder.path()).unwrap().counts.bytes_stored, 0, "moved frames are found");
    // Without any index the headers of the packs say the same.
    for name in names(&*store, "index/") {
        store.delete(&Key::new(name).unwrap()).unwrap();
    }
    assert_eq!(whole(&store).unwrap().len(), 2);
    let again = prune(&repository, &small_packs()).unwrap();
    assert_eq!((again.packs_deleted, again.packs_repacked), (0, 0), "{again:?}");
    assert!(!names(&*store, "index/").is_empty(), "the index is made again from what was needed");
    assert_eq!(whole(&store).unwrap().len(), 2);
}

/// Packs are deleted after their frames were moved into one, and the requests that put them land once more, and so does what named them;
/// then half of what they hold is needed no more.
fn copies_that_came_again() -> (Arc<MemoryStore>, Repository, String, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let (store, repository) = memory();
    let mut all = SessionId([0; 16]);
    for n in 0..12 {
        write(&folder.path().join(format!("f{n}")), &noise(n, 3000));
        all = backup(&repository, folder.path());
    }
    for n in 0..6 {
        std::fs::remove_file(folder.path().join(format!("f{n}"))).unwrap();
    }
    backup(&repository, folder.path());
    let (rows, _) = repository.snapshots().unwrap();
    for row in rows.iter().filter(|row| row.session != all && row.snapshot.parent != Some(all)) {
        repository.remove_snapshot(row.session, "test").unwrap();
    }
    let put = || names(&*store, "packs/").into_iter().chain(names(&*store, "index/"));
    let before: Vec<_> = put().map(|name| (name.clone(), store.get(&Key::new(name).unwrap(), 64 << 20).unwrap())).collect();
    prune(&repository, &PruneOptions::default()).unwrap();
    let packs = store.list("packs/", None, 99).unwrap().entries;
    let merged = packs.iter().max_by_key(|entry| entry.size_bytes).unwrap().key.as_str().to_owned();
    repository.remove_snapshot(all, "test").unwrap();
    let (mut came_again, left) = (vec![], put().collect::<Vec<_>>());
    for (name, bytes) in before.into_iter().filter(|(name, _)| !left.contains(name)) {
        store.put_new(&Key::new(name.clone()).unwrap(), bytes).unwrap();
        came_again.extend(name.starts_with("packs/").then_some(name));
    }
    assert!(came_again.len() >= 12, "{came_again:?}");
    (store, repository, merged, came_again)
}

#[test]
fn a_copy_in_a_pack_that_was_deleted_and_came_again_is_no_copy() {
    // So that nothing is moved: the fuller pack stays, and that is what came again.
    let as_it_lies = PruneOptions { waste_percent: 100, pack_size_bytes: 1000, ..PruneOptions::default() };
    for (rules, is_safe) in [(Rules::default(), true), (Rules::without(Rule::SpentPacks), false)] {
        let (store, repository, merged, came_again) = copies_that_came_again();
        let report = prune(&repository, &PruneOptions { rules, ..as_it_lies.clone() }).unwrap();
        let left = names(&*store, "packs/");
        assert_eq!(left.contains(&merged), is_safe, "{report:?}");
        assert_eq!(came_again.iter().all(|pack| !left.contains(pack)), is_safe, "{report:?}");
        whole(&store).unwrap();
    }
}

#[test]
fn no_more_is_moved_than_was_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let (store, repository) = memory();
    fill(folder.path(), 0..12);
    let first = backup(&repository, folder.path());
    for n in 0..10 {
        std::fs::remove_file(folder.path().join(format!("f{n}"))).unwrap();
    }
    backup(&repository, folder.path());
    repository.remove_snapshot(first, "test").unwrap();
    let report = prune(&repository, &PruneOptions { max_repack_bytes: Some(1000), ..small_packs() }).unwrap();
    assert!(report.bytes_moved <= 1000 && report.kept.contains_key(&Why::RepackLimit), "{report:?}");
    whole(&store).unwrap();
}

#[test]
fn small_packs_and_small_segments_are_merged() {
    let folder = tempfile::tempdir().unwrap();
    let (store, repository) = memory();
    for n in 0..12 {
        write(&folder.path().join(format!("f{n}")), &noise(n, 3000));
        backup(&repository, folder.path());
    }
    assert!(names(&*store, "packs/").len() >= 24 && names(&*store, "index/").len() == 12);
    let report = prune(&repository, &PruneOptions::default()).unwrap();
    assert!(names(&*store, "packs/").len() <= 4, "{report:?}");
    assert!(names(&*store, "index/").len() <= 2, "{report:?}");
    assert_eq!(whole(&store).unwrap().len(), 12);
    let again = prune(&repository, &PruneOptions::default()).unwrap();
    assert_eq!((again.packs_deleted, again.segments_written), (0, 0), "merged is merged: {again:?}");
}

#[test]
fn a_prune_never_waits_and_a_later_one_carries_its_generation_on() {
    let folder = tempfile::tempdir().unwrap();
    let (store, repository) = memory();
    fill(folder.path(), 0..3);
    let first = backup(&repository, folder.path());
    std::fs::remove_file(folder.path().join("f1")).unwrap();
    fill(folder.path(), 5..6);
    backup(&repository, folder.path());
    repository.remove_snapshot(first, "test").unwrap();
    let mut writer = repository.open_writer("elsewhere", vec![], &longshore_engine::job::Job::new()).unwrap();
    let report = prune(&repository, &PruneOptions::default()).unwrap();
    assert_eq!((report.packs_deleted, report.generations_waiting), (0, 1), "{report:?}");
    assert_eq!(report.waiting_for, [(writer.session(), "elsewhere".to_owned())]);
    assert!(report.kept.contains_key(&Why::WaitsForWriters));
    let again = prune(&repository, &PruneOptions::default()).unwrap();
    assert_eq!(
        (again.packs_deleted, again.generations_waiting),
        (0, 1),
        "no second generation is opened for the same: {again:?}"
    );
    writer.abort("done").unwrap();
    let last = prune(&repository, &PruneOptions::default()).unwrap();
    assert!(last.packs_deleted > 0 && last.generations_done == 1, "{last:?}");
    assert_eq!(orphans(&store), Vec::<String>::new());
    whole(&store).unwrap();
}

#[test]
fn a_writer_that_a_generation_waits_for_and_nobody_has_heard_of_since_is_named_until_it_is_fenced() {
    let folder = tempfile::tempdir().unwrap();
    let (store, repository) = memory();
    fill(folder.path(), 0..2);
    let gone = backup(&repository, folder.path());
    fill(folder.path(), 2..4);
    backup(&repository, folder.path());
    repository.remove_snapshot(gone, "test").unwrap();
    let writer = repository.open_writer("elsewhere", vec![], &longshore_engine::job::Job::new()).unwrap();
    assert_eq!(prune(&repository, &PruneOptions::default()).unwrap().generations_waiting, 1);
    // Its marker is lost, and what prunes remember of it.
    for prefix in ["sessions/", "watches/"] {
        for entry in store.list(prefix, None, 10).unwrap().entries {
            store.delete(&entry.key).unwrap();
        }
    }
    let error = prune(&repository, &PruneOptions::default()).unwrap_err();
    assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains(&writer.session().to_string()), "{error}");
    let fence = PruneOptions { fence: vec![writer.session()], ..PruneOptions::default() };
    assert!(prune(&repository, &fence).unwrap().packs_deleted > 0);
    assert_eq!(orphans(&store), Vec::<String>::new());
}

#[test]
fn a_fenced_writer_cannot_commit_and_holds_nothing_up() {
    let folder = tempfile::tempdir().unwrap();
    let (store, repository) = memory();
    fill(folder.path(), 0..3);
    let first = backup(&repository, folder.path());
    let mut writer = repository.open_writer("frozen", vec![], &longshore_engine::job::Job::new()).unwrap();
    repository.remove_snapshot(first, "test").unwrap();
    let now = PruneOptions { allow_empty: true, fence_now: true, ..PruneOptions::default() };
    let report = prune(&repository, &now).unwrap();
    assert_eq!(report.fenced, [writer.session()]);
    assert!(report.packs_deleted > 0, "{report:?}");
    let session = writer.session();
    assert_eq!(writer.abort("awake").unwrap(), longshore_engine::repository::session::Aborted::Nothing);
    assert!(!names(&*store, "snapshots/").is_empty() && names(&*store, &format!("sessions/{session}")).is_empty());
    assert_eq!(orphans(&store), Vec::<String>::new());
}

#[test]
fn what_a_reader_needs_stays_though_its_snapshot_was_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let (store, repository) = memory();
    fill(folder.path(), 0..3);
    let session = backup(&repository, folder.path());
    let (rows, _) = repository.snapshots().unwrap();
    let marker = repository.open_reader(session, &rows[0].snapshot.usage, "reader").unwrap();
    repository.remove_snapshot(session, "test").unwrap();
    let options = PruneOptions { allow_empty: true, ..PruneOptions::default() };
    let report = prune(&repository, &options).unwrap();
    assert_eq!((report.packs_deleted, report.tables_deleted, report.readers), (0, 0, 1), "{report:?}");
    drop(marker);
    let report = prune(&repository, &options).unwrap();
    assert!(report.packs_deleted >= 2 && report.tables_deleted == 1, "{report:?}");
    assert_eq!(orphans(&store), Vec::<String>::new());
}

#[test]
fn nothing_is_deleted_when_something_that_counts_is_missing_or_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let (base, repository) = memory();
    fill(folder.path(), 0..3);
    let first = backup(&repository, folder.path());
    fill(folder.path(), 3..5);
    let second = backup(&repository, folder.path());
    write(&folder.path().join("f9"), b"more");
    let third = backup(&repository, folder.path());
    repository.remove_snapshot(first, "test").unwrap();
    let before = |store: &MemoryStore| (names(store, "packs/"), names(store, "usage/"), names(store, "index/"));
    let spoil = |what: &str, change: &dyn Fn(&MemoryStore)| {
        let store = Arc::new(base.fork());
        change(&store);
        let there = before(&store);
        let error = prune(&open(Arc::<MemoryStore>::clone(&store)).unwrap(), &PruneOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
        assert!(error.next_step().is_some(), "{what}");
        assert_eq!(before(&store), there, "{what}: something was deleted");
    };
    let at = |name: &str| Key::new(name).unwrap();
    let snapshot = format!("snapshots/{second}");
    spoil("a snapshot that cannot be read", &|s| s.overwrite(&at(&snapshot), vec![0; 300].into()));
    spoil("a parent that is gone", &|s| s.delete(&at(&snapshot)).unwrap());
    for table in names(&*base, "usage/") {
        let counted =
            repository.snapshots().unwrap().0.iter().any(|row| row.snapshot.usage.iter().any(|u| format!("usage/{u}") == table));
        if counted {
            spoil("a usage table that is gone", &|s| s.delete(&at(&table)).unwrap());
            spoil("a usage table that cannot be read", &|s| s.overwrite(&at(&table), vec![7; 300].into()));
        }
    }
    let pack = names(&*base, &format!("packs/{third}-")).pop().unwrap();
    spoil("a pack that is gone", &|s| s.delete(&at(&pack)).unwrap());
    spoil("no pack at all", &|s| names(s, "packs/").iter().for_each(|p| s.delete(&at(p)).unwrap()));
    // Listings that are empty though nothing is gone.
    for prefix in ["snapshots/", "packs/", "keys/"] {
        let plan = move |call: &Call<'_>| match call.verb == Verb::List && call.key == prefix {
            true => Effect::Short { keep_entries: 0 },
            false => Effect::Pass,
        };
        let store = Arc::new(base.fork());
        let repository =
            open(Arc::<MemoryStore>::clone(&store)).unwrap().with_store(Arc::new(Fault::new(Arc::clone(&store), plan)));
        let error = prune(&repository, &PruneOptions::default()).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Usage), "{prefix}: {error}");
        assert_eq!(before(&store), before(&base), "{prefix}");
    }
    // Everything would go: only on a word.
    repository.remove_snapshot(second, "test").unwrap();
    repository.remove_snapshot(third, "test").unwrap();
    assert_eq!(prune(&repository, &PruneOptions::default()).unwrap_err().kind(), ErrorKind::Usage);
    let report = prune(&repository, &PruneOptions { allow_empty: true, ..PruneOptions::default() }).unwrap();
    assert!(report.packs_deleted > 0 && names(&*base, "packs/").is_empty());
}

#[test]
fn an_index_that_lies_about_a_copy_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (store, repository) = memory();
    fill(folder.path(), 0..3);
    backup(&repository, folder.path());
    let decoy = tempfile::tempdir().unwrap();
    fill(decoy.path(), 50..51);
    backup(&repository, decoy.path());
    // A segment that says of the second backup's pack that it holds every frame of the first one's.
    let mut codec = longshore_format::envelope::Codec::new().unwrap();
    let packs: Vec<_> = store.list("packs/", None, 100).unwrap().entries;
    let read = |at: usize, codec: &mut longshore_format::envelope::Codec| {
        let name = longshore_format::id::PackName::from_text(packs[at].key.as_str().strip_prefix("packs/").unwrap()).unwrap();
        (name, packs[at].size_bytes, repository.pack_header(name, packs[at].size_bytes, codec).unwrap())
    };
    let all: Vec<_> = (0..packs.len()).map(|at| read(at, &mut codec)).collect();
    let everything: Vec<_> = all.iter().flat_map(|(_, _, (_, frames))| frames.clone()).collect();
    for name in names(&*store, "index/") {
        store.delete(&Key::new(name).unwrap()).unwrap();
    }
    let mut lie = longshore_format::index::SegmentBuilder::new();
    for (name, size, (salt, _)) in &all {
        lie.add_pack(*name, *salt, *size, &everything);
    }
    let name = longshore_format::id::RandomName([3; 16]);
    let bytes =
        longshore_format::index::seal_segment(repository.keys(), name, [1; 32], &lie.payload().unwrap(), &mut codec).unwrap();
    store.put_new(&Key::new(format!("index/{name}")).unwrap(), bytes.into()).unwrap();
    for (options, is_safe) in [
        (PruneOptions::default(), true),
        (PruneOptions { rules: Rules::without(Rule::HeaderProof), ..PruneOptions::default() }, false),
    ] {
        let store = Arc::new(store.fork());
        let report = prune(&open(Arc::<MemoryStore>::clone(&store)).unwrap(), &options);
        for name in names(&*store, "index/") {
            store.delete(&Key::new(name).unwrap()).unwrap();
        }
        assert_eq!(whole(&store).is_ok_and(|left| left.len() == 2), is_safe, "{report:?}");
    }
}

#[test]
fn a_prune_that_slept_between_look_and_decision_follows_the_decision_that_was_made_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let (base, repository) = memory();
    fill(folder.path(), 0..8);
    let first = backup(&repository, folder.path());
    for n in 0..7 {
        std::fs::remove_file(folder.path().join(format!("f{n}"))).unwrap();
    }
    let second = backup(&repository, folder.path());
    repository.remove_snapshot(first, "test").unwrap();
    // What is needed lies twice: in a mostly dead pack, and in a copy whose prune died before it marked anything.
    let old = names(&*base, "packs/");
    let dies = |call: &Call<'_>| match call.verb == Verb::PutNew && call.key.starts_with("tombstones/") {
        true => Effect::StopBefore,
        false => Effect::Pass,
    };
    prune(&repository.with_store(Arc::new(Fault::new(Arc::clone(&base), dies))), &small_packs()).unwrap_err();
    let copy = names(&*base, "packs/").into_iter().find(|name| !old.contains(name)).unwrap();
    let dead =
        base.list(&format!("packs/{first}-"), None, 10).unwrap().entries.into_iter().max_by_key(|e| e.size_bytes).unwrap().key;
    let pack = |key: &str| PackName::from_text(key.strip_prefix("packs/").unwrap()).unwrap();
    let all = Rules::default();
    // Its own is not put, as the other one is there; or answered before that, and not kept.
    let ways = [(all, Effect::Pass, true), (all, Effect::Lose, true), (Rules::without(Rule::OneDecision), Effect::Pass, false)];
    for (rules, becomes, is_safe) in ways {
        let store = Arc::new(base.fork());
        mark(&store, &repository, 1, &Doomed { packs: vec![pack(&copy)], tables: vec![] });
        let plain = open(Arc::<MemoryStore>::clone(&store)).unwrap();
        let mut writer = plain.open_writer("beside", vec![], &longshore_engine::job::Job::new()).unwrap();
        let (beside, other, inner) = (plain.clone(), pack(dead.as_str()), Arc::clone(&store));
        let first_of_all = AtomicBool::new(true);
        let made = Arc::new(std::sync::Mutex::new(vec![]));
        let noted = Arc::clone(&made);
        let decision = format!("decisions/{}", RandomName([1; 16]));
        let for_mark = plain.clone();
        let keep_all = PruneOptions { waste_percent: 100, ..PruneOptions::default() };
        let plan = move |call: &Call<'_>| {
            if call.verb == Verb::PutNew && call.key == decision && first_of_all.swap(false, SeqCst) {
                // Asleep between look and decision: another generation names the other copy, and somebody carries both on.
                mark(&inner, &for_mark, 2, &Doomed { packs: vec![other], tables: vec![] });
                noted.lock().unwrap().push(prune(&beside, &keep_all).unwrap().generations_waiting);
                return becomes;
            }
            Effect::Pass
        };
        let slow = plain.with_store(Arc::new(Fault::new(Arc::clone(&store), plan)));
        let outcome = prune(&slow, &PruneOptions { rules, waste_percent: 100, ..PruneOptions::default() });
        assert_eq!(whole(&store).unwrap(), [second]);
        // The decision made meanwhile keeps the copy, as the other one may go at any time.
        assert_eq!(store.head(&Key::new(copy.as_str()).unwrap()).is_ok(), is_safe, "{becomes:?}: {outcome:?}");
        assert!(outcome.is_ok());
        writer.abort("done").unwrap();
        assert!(!made.lock().unwrap().is_empty(), "it never slept");
    }
}

/// What a generation of somebody else's names, with nobody to wait for.
fn mark(store: &MemoryStore, repository: &Repository, number: u8, doomed: &Doomed) {
    let (name, mut codec) = (RandomName([number; 16]), Codec::new().unwrap());
    let bytes = doomed.encode(repository.keys(), Role::Tombstone, name, [number; 32], &mut codec).unwrap();
    store.put_new(&Key::new(Role::Tombstone.key(name)).unwrap(), bytes.into()).unwrap();
    let bytes = OpenWriters::default().encode(repository.keys(), name, [number; 32], &mut codec).unwrap();
    store.put_new(&Key::new(open_key(name)).unwrap(), bytes.into()).unwrap();
}

/// Packs with what is needed of them copied into others, as a prune that died leaves it.
struct Copied {
    base: Arc<MemoryStore>,
    repository: Repository,
    snapshot: SessionId,
    old: Vec<PackName>,
    new: Vec<PackName>,
}

fn copied() -> Copied {
    let folder = tempfile::tempdir().unwrap();
    let (base, repository) = memory();
    fill(folder.path(), 0..2);
    backup(&repository, folder.path());
    let dies = |call: &Call<'_>| match call.verb == Verb::PutNew && call.key.starts_with("tombstones/") {
        true => Effect::StopBefore,
        false => Effect::Pass,
    };
    let packs = || -> Vec<PackName> {
        names(&*base, "packs/").iter().map(|n| PackName::from_text(n.strip_prefix("packs/").unwrap()).unwrap()).collect()
    };
    let old = packs();
    std::fs::remove_file(folder.path().join("f0")).unwrap();
    let first = repository.snapshots().unwrap().0[0].session;
    let snapshot = backup(&repository, folder.path());
    repository.remove_snapshot(first, "test").unwrap();
    // The keys of one repository in two hundred cut a file in so many chunks that it has a list of them. That stays in the old pack of trees, all of
    // which is needed then: nothing is moved out of it.
    let table = repository.snapshots().unwrap().0.into_iter().find(|row| row.session == snapshot).unwrap().snapshot.usage[0];
    let bytes = base.get(&Key::new(usage_key(table)).unwrap(), 1 << 20).unwrap();
    let usage = Usage::decode(repository.keys(), table, &bytes, &mut Codec::new().unwrap()).unwrap();
    if usage.packs().any(|pack| pack.session == first && pack.number > 0) {
        return copied();
    }
    prune(&repository.with_store(Arc::new(Fault::new(Arc::clone(&base), dies))), &small_packs()).unwrap_err();
    let new: Vec<PackName> = packs().into_iter().filter(|n| !old.contains(n) && n.session != snapshot).collect();
    assert!(!new.is_empty());
    Copied { base, repository, snapshot, old, new }
}

#[test]
fn two_generations_never_take_both_copies_and_a_table_that_is_needed_again_stays() {
    let Copied { base, repository, snapshot: second, old, new } = copied();
    let table = repository.snapshots().unwrap().0[0].snapshot.usage[0];
    let keep_all = |rules| PruneOptions { waste_percent: 100, rules, ..PruneOptions::default() };
    for (rule, one, other) in [
        (Rule::OtherTombstones, Doomed { packs: old, tables: vec![] }, Doomed { packs: new, tables: vec![] }),
        (Rule::DoomedTables, Doomed { packs: vec![], tables: vec![table] }, Doomed::default()),
    ] {
        for (rules, is_safe) in [(Rules::default(), true), (Rules::without(rule), false)] {
            let store = Arc::new(base.fork());
            mark(&store, &repository, 1, &one);
            mark(&store, &repository, 2, &other);
            let outcome = prune(&open(Arc::<MemoryStore>::clone(&store)).unwrap(), &keep_all(rules));
            // Without the rule the last look before deleting finds it, and nothing is deleted.
            assert_eq!(outcome.is_ok(), is_safe, "{rule:?}: {outcome:?}");
            assert_eq!(whole(&store).unwrap(), [second], "{rule:?}");
        }
    }
}

/// A prune knows of no frame that another one moved since: what it takes for empty may be the copy that stays.
#[test]
fn a_pack_that_no_segment_lists_is_asked_what_it_holds_before_it_goes() {
    let Copied { base, repository, snapshot, old, new } = copied();
    for name in names(&*base, "index/") {
        let bytes = base.get(&Key::new(name.as_str()).unwrap(), 1 << 20).unwrap();
        let id = RandomName::from_hex(name.strip_prefix("index/").unwrap()).unwrap();
        let payload = longshore_format::index::open_segment(repository.keys(), id, &bytes, &mut Codec::new().unwrap()).unwrap();
        let segment = longshore_format::index::Segment::new(payload).unwrap();
        if segment.packs().any(|row| row.size_bytes != 0 && new.contains(&row.name)) {
            base.delete(&Key::new(name).unwrap()).unwrap();
        }
    }
    let (one, other) = (Doomed { packs: old, tables: vec![] }, Doomed { packs: new.clone(), tables: vec![] });
    let decision =
        one.encode(repository.keys(), Role::Decision, RandomName([1; 16]), [9; 32], &mut Codec::new().unwrap()).unwrap();
    let key = Key::new(Role::Decision.key(RandomName([1; 16]))).unwrap();
    for (rules, is_safe) in [(Rules::default(), true), (Rules::without(Rule::KnownPacks), false)] {
        let options = PruneOptions { waste_percent: 100, rules, ..PruneOptions::default() };
        // Who knew where the frames lie now decided that the old packs go; this prune decides over the new ones.
        let store = Arc::new(base.fork());
        mark(&store, &repository, 1, &one);
        store.put_new(&key, decision.clone().into()).unwrap();
        mark(&store, &repository, 2, &other);
        let outcome = prune(&open(Arc::<MemoryStore>::clone(&store)).unwrap(), &options);
        // Without the rule the last look before deleting finds it, and nothing is deleted.
        assert_eq!(outcome.is_ok(), is_safe, "{outcome:?}");
        assert_eq!(whole(&store).unwrap(), [snapshot]);
        // The same while it chooses candidates: what lies in a tombstone besides, and nowhere else, is none.
        let store = Arc::new(base.fork());
        mark(&store, &repository, 1, &one);
        let options = PruneOptions { dry_run: true, ..options };
        let report = prune(&open(Arc::<MemoryStore>::clone(&store)).unwrap(), &options).unwrap();
        let goes = report.packs.iter().any(|row| new.contains(&row.name) && row.why.goes());
        assert_eq!(!goes, is_safe, "{report:?}");
    }
}

/// What was born in a pack is taken to lie there, header or not; a proof it is not, however often it is asked.
#[test]
fn a_pack_whose_header_is_damaged_is_no_proof_of_what_was_born_in_it() {
    let Copied { base, repository, snapshot, old, new } = copied();
    for pack in &old {
        let key = Key::new(pack.key()).unwrap();
        let mut bytes = base.get(&key, 1 << 30).unwrap().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        base.delete(&key).unwrap();
        base.put_new(&key, bytes.into()).unwrap();
    }
    mark(&base, &repository, 1, &Doomed { packs: new, tables: vec![] });
    let ends = |call: &Call<'_>| if call.number > 5000 { Effect::StopBefore } else { Effect::Pass };
    let options = PruneOptions { waste_percent: 100, ..PruneOptions::default() };
    prune(&repository.with_store(Arc::new(Fault::new(Arc::clone(&base), ends))), &options).unwrap();
    assert_eq!(whole(&base).unwrap(), [snapshot]);
}

#[test]
fn a_reader_that_begins_as_its_snapshot_goes_is_seen() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (base, repository) = memory();
    fill(folder.path(), 0..3);
    fill(other.path(), 7..8);
    let first = backup(&repository, folder.path());
    backup(&repository, other.path());
    repository.remove_snapshot(first, "test").unwrap();
    // A backup that comes to rest on what a tombstone names already: it began before.
    let (beside, once) = (repository.clone(), AtomicBool::new(true));
    let plan = move |call: &Call<'_>| {
        let is_commit = call.verb == Verb::PutNew && call.key.starts_with("snapshots/");
        if is_commit && once.swap(false, SeqCst) {
            assert_eq!(prune(&beside, &PruneOptions::default()).unwrap().generations_waiting, 1);
        }
        Effect::Pass
    };
    let writer = repository.with_store(Arc::new(Fault::new(Arc::<MemoryStore>::clone(&base), plan)));
    let read = backup(&writer, folder.path());
    let (rows, _) = repository.snapshots().unwrap();
    let usage = rows.into_iter().find(|row| row.session == read).unwrap().snapshot.usage;
    let before = names(&*base, "packs/");
    let lost = |rules: Rules, at: u64| {
        let store = Arc::new(base.fork());
        let plain = open(Arc::<MemoryStore>::clone(&store)).unwrap();
        let (beside, held, usage) = (plain.clone(), Arc::new(std::sync::Mutex::new(None)), usage.clone());
        let (marker, seen) = (Arc::clone(&held), AtomicU64::new(0));
        let plan = move |call: &Call<'_>| {
            let is_look = matches!(call.verb, Verb::List | Verb::Head)
                && (call.key.starts_with("snapshots/") || call.key.starts_with("removed/") || call.key.starts_with("sessions/"));
            if is_look && seen.fetch_add(1, SeqCst) == at {
                *marker.lock().unwrap() = Some(beside.open_reader(read, &usage, "beside").unwrap());
                beside.remove_snapshot(read, "beside").unwrap();
            }
            Effect::Pass
        };
        let slow = plain.with_store(Arc::new(Fault::new(Arc::clone(&store), plan)));
        prune(&slow, &PruneOptions { rules, ..PruneOptions::default() }).unwrap();
        let left = names(&*store, "packs/");
        held.lock().unwrap().is_some() && before.iter().any(|pack| !left.contains(pack))
    };
    assert!((0..24).all(|at| !lost(Rules::default(), at)), "all that is read stays");
    assert!((0..24).any(|at| lost(Rules::without(Rule::SnapshotsFirst), at)), "the order of a look matters");
}

#[test]
fn whoever_begins_while_packs_go_does_not_rely_on_them_and_who_began_before_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let again = tempfile::tempdir().unwrap();
    let (base, repository) = memory();
    fill(folder.path(), 0..3);
    fill(again.path(), 0..3);
    let first = backup(&repository, folder.path());
    std::fs::remove_file(folder.path().join("f0")).unwrap();
    std::fs::remove_file(folder.path().join("f1")).unwrap();
    std::fs::remove_file(folder.path().join("f2")).unwrap();
    fill(folder.path(), 7..8);
    backup(&repository, folder.path());
    repository.remove_snapshot(first, "test").unwrap();
    for (rules, is_safe) in [(Rules::default(), true), (Rules::without(Rule::PacksGoFirst), false)] {
        let store = Arc::new(base.fork());
        let plain = open(Arc::<MemoryStore>::clone(&store)).unwrap();
        let segments: Vec<_> = base.list("index/", None, 99).unwrap().entries.into_iter().map(|e| e.key).collect();
        let segments: Vec<_> = segments.into_iter().map(|key| (key.clone(), base.get(&key, 1 << 30).unwrap())).collect();
        let (beside, path, once) = (plain.clone(), again.path().to_owned(), AtomicBool::new(true));
        let plan = move |call: &Call<'_>| {
            let is_first = call.verb == Verb::Delete && call.key.starts_with("packs/");
            if is_first && once.swap(false, SeqCst) {
                // A slower prune puts index segments that still name what goes: a hint may be old.
                for (key, bytes) in &segments {
                    beside.store().put_new(key, bytes.clone()).unwrap();
                }
                // And the decision rots: what goes is then named by its tombstone alone.
                for name in names(&**beside.store(), "decisions/") {
                    let key = Key::new(name).unwrap();
                    beside.store().delete(&key).unwrap();
                    beside.store().put_new(&key, vec![7; 200].into()).unwrap();
                }
                back_up_alone(&beside, &path).unwrap();
            }
            Effect::Pass
        };
        let slow = plain.with_store(Arc::new(Fault::new(Arc::clone(&store), plan)));
        let outcome = prune(&slow, &PruneOptions { rules, ..PruneOptions::default() });
        assert_eq!(whole(&store).is_ok_and(|left| left.len() == 2), is_safe, "{outcome:?}");
    }
    for (rules, is_safe) in [(Rules::default(), true), (Rules::without(Rule::TombstoneFirst), false)] {
        let store = Arc::new(base.fork());
        let plain = open(Arc::<MemoryStore>::clone(&store)).unwrap();
        let (beside, kept) = (plain.clone(), Arc::new(std::sync::Mutex::new(vec![])));
        let opened = Arc::clone(&kept);
        // Opened in the moment before the tombstone is there: it has seen none.
        let plan = move |call: &Call<'_>| {
            if call.verb == Verb::PutNew && call.key.starts_with("tombstones/") {
                opened.lock().unwrap().push(beside.open_writer("beside", vec![], &longshore_engine::job::Job::new()).unwrap());
            }
            Effect::Pass
        };
        let slow = plain.with_store(Arc::new(Fault::new(Arc::clone(&store), plan)));
        let report = prune(&slow, &PruneOptions { rules, ..PruneOptions::default() }).unwrap();
        assert_eq!(report.packs_deleted == 0, is_safe, "what an open writer may rely on: {report:?}");
        assert_eq!(kept.lock().unwrap().len(), 1);
    }
}

#[test]
fn a_full_store_is_pruned_out_of_the_room_kept_back() {
    let folder = tempfile::tempdir().unwrap();
    let (store, repository) = memory();
    fill(folder.path(), 0..8);
    let first = backup(&repository, folder.path());
    for n in 0..7 {
        std::fs::remove_file(folder.path().join(format!("f{n}"))).unwrap();
    }
    let second = backup(&repository, folder.path());
    prune(&repository, &PruneOptions::default()).unwrap();
    repository.remove_snapshot(first, "test").unwrap();
    // Nothing fits while the reserve is there; what is freed makes room.
    let inner = Arc::clone(&store);
    let full = bytes_of_packs(&store);
    let plan = move |call: &Call<'_>| {
        let is_full = inner.head(&Key::new("reserve").unwrap()).is_ok() && bytes_of_packs(&inner) >= full;
        if call.verb == Verb::PutNew && is_full { Effect::FailBefore(StoreErrorKind::NoSpace) } else { Effect::Pass }
    };
    let tight = repository.with_store(Arc::new(Fault::new(Arc::clone(&store), plan)));
    let report = prune(&tight, &small_packs()).unwrap();
    assert!(report.used_reserve && report.packs_deleted + report.tables_deleted > 0, "{report:?}");
    assert_eq!(names(&*store, "reserve"), ["reserve"], "put back");
    prune(&tight, &small_packs()).unwrap();
    assert_eq!(whole(&store).unwrap(), [second]);
    assert_eq!(orphans(&store), Vec::<String>::new());
}

/// The repository on a store that takes nothing more once it holds so much as it does now.
fn filled_up(store: &Arc<MemoryStore>, repository: &Repository) -> Repository {
    let all = |store: &MemoryStore| store.list("", None, 10_000).unwrap().entries.iter().map(|e| e.size_bytes).sum::<u64>();
    let (inner, capacity) = (Arc::clone(store), all(store));
    let plan = move |call: &Call<'_>| match call.verb == Verb::PutNew && all(&inner) >= capacity {
        true => Effect::FailBefore(StoreErrorKind::NoSpace),
        false => Effect::Pass,
    };
    repository.with_store(Arc::new(Fault::new(Arc::clone(store), plan)))
}

#[test]
fn where_nothing_fits_snapshots_are_deleted_dead_writers_watched_and_room_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let (store, repository) = memory();
    fill(folder.path(), 0..8);
    let first = backup(&repository, folder.path());
    write(&folder.path().join("f0"), b"other");
    write(&folder.path().join("f1"), b"others");
    let second = backup(&repository, folder.path());
    prune(&repository, &PruneOptions::default()).unwrap();
    let writer = repository.open_writer("gone", vec![], &longshore_engine::job::Job::new()).unwrap();
    let tight = filled_up(&store, &repository);
    let refused = tight.open_writer("new", vec![], &longshore_engine::job::Job::new()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NoSpace);
    assert_eq!(names(&*store, "reserve"), ["reserve"], "it is not there for writers");
    // Nothing is to be freed yet: what is put is who may be dead.
    let watched = prune(&tight, &PruneOptions::default()).unwrap();
    assert!(watched.used_reserve && names(&*store, "watches/").len() == 1, "{watched:?}");
    let tight = filled_up(&store, &repository);
    tight.remove_snapshot(first, "test").unwrap();
    assert_eq!(names(&*store, "snapshots/"), [format!("snapshots/{second}")]);
    drop(writer);
    let report = prune(&tight, &PruneOptions { fence_now: true, ..small_packs() }).unwrap();
    assert!(report.packs_deleted + report.tables_deleted > 0, "{report:?}");
    prune(&tight, &PruneOptions { fence_now: true, ..small_packs() }).unwrap();
    assert_eq!(names(&*store, "reserve"), ["reserve"]);
    assert_eq!(whole(&store).unwrap(), [second]);
}

#[test]
fn as_much_room_is_kept_back_as_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let (store, repository) = memory();
    fill(folder.path(), 0..2);
    backup(&repository, folder.path());
    let tries = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&tries);
    let plan = move |call: &Call<'_>| match call.verb == Verb::PutNew && call.key == "reserve" && counted.fetch_add(1, SeqCst) < 2
    {
        true => Effect::FailBefore(StoreErrorKind::NoSpace),
        false => Effect::Pass,
    };
    let reserve = || store.head(&Key::new(RESERVE_KEY).unwrap()).unwrap();
    prune(&repository.with_store(Arc::new(Fault::new(Arc::clone(&store), plan))), &PruneOptions::default()).unwrap();
    assert_eq!((tries.load(SeqCst), reserve()), (3, RESERVE_BYTES[2] as u64));
    prune(&repository, &PruneOptions::default()).unwrap();
    assert_eq!(reserve(), RESERVE_BYTES[0] as u64, "as soon as there is more");
}

#[test]
fn a_store_that_refuses_to_delete_keeps_the_tombstone() {
    let folder = tempfile::tempdir().unwrap();
    let (store, repository) = memory();
    fill(folder.path(), 0..3);
    let first = backup(&repository, folder.path());
    write(&folder.path().join("f0"), b"other");
    write(&folder.path().join("f1"), b"others");
    backup(&repository, folder.path());
    repository.remove_snapshot(first, "test").unwrap();
    let plan = |call: &Call<'_>| match call.verb == Verb::Delete && call.key.starts_with("packs/") {
        true => Effect::FailBefore(StoreErrorKind::Denied),
        false => Effect::Pass,
    };
    let denied = repository.with_store(Arc::new(Fault::new(Arc::clone(&store), plan)));
    let report = prune(&denied, &small_packs()).unwrap();
    assert_eq!(report.packs_deleted, 0);
    assert!(report.kept.contains_key(&Why::Refused) && names(&*store, "tombstones/").len() == 1, "{report:?}");
    whole(&store).unwrap();
    let report = prune(&repository, &small_packs()).unwrap();
    assert!(report.packs_deleted > 0, "{report:?}");
    assert_eq!(orphans(&store), Vec::<String>::new());
    whole(&store).unwrap();
}

#[test]
fn a_store_that_refuses_every_deletion_ends_no_run() {
    let folder = tempfile::tempdir().unwrap();
    let (store, repository) = memory();
    let plan = |call: &Call<'_>| match call.verb == Verb::Delete {
        true => Effect::FailBefore(StoreErrorKind::Denied),
        false => Effect::Pass,
    };
    let denied = repository.with_store(Arc::new(Fault::new(Arc::clone(&store), plan)));
    fill(folder.path(), 0..3);
    let first = backup(&denied, folder.path());
    fill(folder.path(), 3..4);
    std::fs::remove_file(folder.path().join("f0")).unwrap();
    let second = backup(&denied, folder.path());
    let (rows, _) = repository.snapshots().unwrap();
    std::mem::forget(repository.open_reader(second, &rows[1].snapshot.usage, "here").unwrap());
    // The room kept back is smaller than it should be, and cannot be made anew.
    store.put_new(&Key::new(RESERVE_KEY).unwrap(), vec![1; 70_000].into()).unwrap();
    denied.remove_snapshot(first, "test").unwrap();
    assert_eq!(repository.snapshots().unwrap().0.len(), 1, "the removal holds");
    for round in 1..=3 {
        let report = prune(&denied, &small_packs()).unwrap();
        assert!(report.exit_code == 0 && report.kept.contains_key(&Why::Refused), "{report:?}");
        assert_eq!(names(&*store, "watches/").len(), round, "who runs is written down");
    }
    let fencing = PruneOptions { fence_now: true, ..small_packs() };
    assert!(prune(&denied, &fencing).unwrap().fenced.is_empty(), "the marker of a reader stays");
    assert_eq!(whole(&store).unwrap(), [second]);
    let report = prune(&repository, &fencing).unwrap();
    assert!(report.packs_deleted > 0 && report.fenced.len() == 1, "{report:?}");
    prune(&repository, &small_packs()).unwrap();
    assert_eq!(orphans(&store), Vec::<String>::new());
    assert_eq!((names(&*store, "snapshots/").len(), whole(&store).unwrap()), (1, vec![second]));
}

#[test]
fn a_damaged_needed_frame_stays_where_it_is_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (store, repository) = memory();
    fill(folder.path(), 0..8);
    let first = backup(&repository, folder.path());
    for n in 0..7 {
        std::fs::remove_file(folder.path().join(format!("f{n}"))).unwrap();
    }
    backup(&repository, folder.path());
    repository.remove_snapshot(first, "test").unwrap();
    // Every frame of the pack of data is damaged, its header is not.
    let packs = store.list(&format!("packs/{first}-"), None, 10).unwrap().entries;
    let data = packs.iter().max_by_key(|e| e.size_bytes).unwrap();
    let mut bytes = store.get(&data.key, 1 << 30).unwrap().to_vec();
    for at in (200..1_200_000).step_by(5000) {
        bytes[at] ^= 1;
    }
    store.overwrite(&data.key, bytes.into());
    let report = prune(&repository, &small_packs()).unwrap();
    assert_eq!(report.exit_code, 4, "{report:?}");
    assert_eq!(report.damaged[0].0, data.key.as_str());
    assert!(store.head(&data.key).is_ok(), "what may still be mended is kept");
}

#[test]
fn a_marker_left_by_a_dead_reader_goes_after_three_prunes_and_the_time_given() {
    let folder = tempfile::tempdir().unwrap();
    let (store, repository) = memory();
    fill(folder.path(), 0..2);
    let session = backup(&repository, folder.path());
    let (rows, _) = repository.snapshots().unwrap();
    std::mem::forget(repository.open_reader(session, &rows[0].snapshot.usage, "gone").unwrap());
    let writer = repository.open_writer("gone", vec![], &longshore_engine::job::Job::new()).unwrap();
    let options = PruneOptions { fence_after: std::time::Duration::ZERO, ..PruneOptions::default() };
    for round in 0..3 {
        let report = prune(&repository, &options).unwrap();
        assert!(report.fenced.is_empty(), "round {round}: {report:?}");
        assert_eq!(names(&*store, "watches/").len(), 1);
    }
    let long = prune(&repository, &PruneOptions::default()).unwrap();
    assert!(long.fenced.is_empty(), "seven days have not passed");
    let report = prune(&repository, &options).unwrap();
    assert_eq!(report.fenced.len(), 2, "{report:?}");
    assert!(names(&*store, "sessions/").is_empty() && names(&*store, "watches/").is_empty());
    drop(writer);
    // A writer that ran and is neither there nor ended: the listing is short, or it was tampered with.
    let lost = repository.open_writer("lost", vec![], &longshore_engine::job::Job::new()).unwrap();
    prune(&repository, &options).unwrap();
    store.delete(&Key::new(format!("sessions/{}", lost.session())).unwrap()).unwrap();
    assert_eq!(prune(&repository, &options).unwrap_err().kind(), ErrorKind::Corrupt);
    prune(&repository, &PruneOptions { fence_now: true, ..options }).unwrap();
    assert_eq!(orphans(&store), Vec::<String>::new());
}

#[test]
fn a_prune_whose_clock_is_years_ahead_keeps_no_dead_session_alive() {
    let folder = tempfile::tempdir().unwrap();
    let (store, repository) = memory();
    fill(folder.path(), 0..2);
    backup(&repository, folder.path());
    let writer = repository.open_writer("gone", vec![], &longshore_engine::job::Job::new()).unwrap();
    let on = |clock: &Arc<VirtualClock>| {
        repository.with_world(World { clock: Arc::<VirtualClock>::clone(clock), ..repository.world().clone() })
    };
    let day = std::time::Duration::from_secs(24 * 3600);
    let (ahead, right) = (Arc::new(VirtualClock::new()), Arc::new(VirtualClock::new()));
    ahead.advance(3650 * day);
    prune(&on(&ahead), &PruneOptions::default()).unwrap();
    for passed in 0..=7 {
        let report = prune(&on(&right), &PruneOptions::default()).unwrap();
        assert_eq!(report.fenced, if passed < 7 { vec![] } else { vec![writer.session()] }, "after {passed} days");
        right.advance(day);
    }
    assert!(names(&*store, "sessions/").is_empty());
}

#[test]
fn a_deletion_that_stopped_half_way_is_finished() {
    let folder = tempfile::tempdir().unwrap();
    let (store, repository) = memory();
    fill(folder.path(), 0..2);
    let first = backup(&repository, folder.path());
    fill(folder.path(), 2..4);
    let second = backup(&repository, folder.path());
    let stops = |call: &Call<'_>| match call.verb == Verb::Delete {
        true => Effect::StopBefore,
        false => Effect::Pass,
    };
    repository.with_store(Arc::new(Fault::new(Arc::clone(&store), stops))).remove_snapshot(first, "test").unwrap_err();
    assert_eq!(names(&*store, "snapshots/").len(), 2, "the record is still there");
    prune(&repository, &PruneOptions { dry_run: true, ..PruneOptions::default() }).unwrap();
    assert_eq!(names(&*store, "snapshots/").len(), 2, "a dry run deletes nothing");
    prune(&repository, &PruneOptions::default()).unwrap();
    assert_eq!(names(&*store, "snapshots/"), [format!("snapshots/{second}")]);
    assert_eq!(whole(&store).unwrap(), [second]);
}

#[test]
fn an_old_repository_lists_its_removals_once_and_sees_those_that_come_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let (store, repository) = memory();
    fill(folder.path(), 0..4);
    let made: Vec<SessionId> = (4..7)
        .map(|seed| {
            fill(folder.path(), seed..seed + 1);
            let made = backup(&repository, folder.path());
            std::fs::remove_file(folder.path().join(format!("f{seed}"))).unwrap();
            made
        })
        .collect();
    // That it is there is all that counts of a removal.
    for number in 0..1500_u32 {
        store.put_new(&Key::new(format!("removed/{number:032x}")).unwrap(), bytes::Bytes::from_static(b"gone")).unwrap();
    }
    repository.remove_snapshot(made[0], "test").unwrap();
    let listings = Arc::new(AtomicU64::new(0));
    let (counted, beside, removed_meanwhile) = (Arc::clone(&listings), repository.clone(), made[1]);
    let plan = move |call: &Call<'_>| {
        if call.verb == Verb::List && call.key == "removed/" {
            counted.fetch_add(1, Relaxed);
        }
        if call.verb == Verb::PutNew && call.key.starts_with("tombstones/") {
            beside.remove_snapshot(removed_meanwhile, "test").unwrap();
        }
        Effect::Pass
    };
    let report = prune(&repository.with_store(Arc::new(Fault::new(Arc::clone(&store), plan))), &PruneOptions::default()).unwrap();
    assert!(report.packs_deleted > 0, "{report:?}");
    assert_eq!(listings.load(Relaxed), 2, "two pages, each asked for once");
    assert_eq!(whole(&store).unwrap(), [made[2]]);
    prune(&repository, &PruneOptions::default()).unwrap();
    assert_eq!(orphans(&store), Vec::<String>::new());
}
