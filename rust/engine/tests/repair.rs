//! Repair after damage of every kind: what is whole restores, what is not is named, the next backup heals it for every snapshot, and
//! then everything is clean and stays so, also when the backup that healed is deleted and prunes have run.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test makes its own files and may fail loudly")]

mod common;

use bytes::Bytes;
use common::pruned::{back_up_alone, names, prune, whole};
use common::{init, look, noise, open, restore_with, write};
use longshore_engine::ErrorKind;
use longshore_engine::check::{CheckOptions, CheckReport, run as check_run, verify_snapshot};
use longshore_engine::job::Job;
use longshore_engine::prune::{PruneOptions, Why};
use longshore_engine::repair::{self, RepairOptions, RepairReport};
use longshore_engine::repository::Repository;
use longshore_engine::repository::cache::Cache;
use longshore_engine::restore::RestoreOptions;
use longshore_format::id::SessionId;
use longshore_store::layers::{Call, Effect, Fault, Verb};
use longshore_store::{Key, MemoryStore, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

fn mend(repository: &Repository, read_data: bool) -> longshore_engine::Result<RepairReport> {
    let options = RepairOptions { read_data, workers: 0, pack_size_bytes: 96 << 10, ..RepairOptions::default() };
    repair::run(repository, &Arc::new(Job::new()), &options)
}

fn check(repository: &Repository) -> CheckReport {
    check_run(repository, &Arc::new(Job::new()), &CheckOptions { read_percent: 100, workers: 0, ..CheckOptions::default() })
        .unwrap()
}

fn small() -> PruneOptions {
    PruneOptions { pack_size_bytes: 96 << 10, ..PruneOptions::default() }
}

type Files = BTreeMap<PathBuf, [u8; 32]>;

fn files(root: &Path) -> Files {
    look(root).into_iter().filter_map(|(path, seen)| Some((path, seen.content?))).collect()
}

/// Two snapshots of one volume: the second has one file more, and another under a new name. So the source still has all content of both,
/// and all trees of the second.
struct Case {
    folder: tempfile::TempDir,
    store: Arc<MemoryStore>,
    snapshots: Vec<(SessionId, Files)>,
}

impl Case {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        for d in 0..3u64 {
            std::fs::create_dir_all(source.join(format!("d{d}"))).unwrap();
            for f in 0..6 {
                write(&source.join(format!("d{d}/f{f}")), &noise(d * 10 + f, 2000 + 100 * f as usize));
            }
        }
        write(&source.join("large"), &noise(99, 3 << 19));
        let store = Arc::new(MemoryStore::new());
        let repository = init(Arc::<MemoryStore>::clone(&store));
        let first = back_up_alone(&repository, &source).unwrap().snapshot.unwrap();
        let first = (first, files(&source));
        write(&source.join("d1/g"), &noise(50, 200_000));
        std::fs::rename(source.join("d2/f0"), source.join("d2/h")).unwrap();
        let second = back_up_alone(&repository, &source).unwrap().snapshot.unwrap();
        let second = (second, files(&source));
        Self { folder, store, snapshots: vec![first, second] }
    }

    fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    fn fork(&self) -> Arc<MemoryStore> {
        Arc::new(self.store.fork())
    }

    /// Paths of a snapshot that do not come back; those that do are equal.
    fn lost(&self, store: &Arc<MemoryStore>, snapshot: SessionId, expected: &Files) -> Result<BTreeSet<PathBuf>, String> {
        let target = self.folder.path().join("target");
        let repository = open(Arc::<MemoryStore>::clone(store)).map_err(|e| e.to_string())?;
        let outcome = restore_with(&repository, &RestoreOptions { sync: false, ..RestoreOptions::new(snapshot, &target) });
        let found = if target.exists() { files(&target) } else { Files::new() };
        let _ = std::fs::remove_dir_all(&target);
        outcome.map_err(|e| e.to_string())?;
        for (path, content) in &found {
            assert_eq!(expected.get(path), Some(content), "wrong bytes in {path:?}");
        }
        Ok(expected.keys().filter(|path| !found.contains_key(*path)).cloned().collect())
    }
}

fn objects(store: &MemoryStore, prefix: &str) -> Vec<(Key, Bytes)> {
    let page = store.list(prefix, None, 1000).unwrap();
    page.entries.into_iter().map(|e| (e.key.clone(), store.get(&e.key, 1 << 30).unwrap())).collect()
}

const DAMAGE: [&str; 7] = ["delete", "flip start", "flip middle", "flip end", "cut", "empty", "swap"];

fn damage(store: &MemoryStore, key: &Key, body: &Bytes, other: &Bytes, how: &str) {
    let flip = |at: usize| {
        let mut out = body.to_vec();
        out[at] ^= 0x10;
        store.overwrite(key, Bytes::from(out));
    };
    match how {
        "delete" => store.delete(key).unwrap(),
        "flip start" => flip(body.len().min(40) - 1),
        "flip middle" => flip(body.len() / 2),
        "flip end" => flip(body.len() - 40),
        "cut" => store.overwrite(key, body.slice(..body.len() * 3 / 4)),
        "swap" => store.overwrite(key, other.clone()),
        _ => store.overwrite(key, Bytes::new()),
    }
}

/// Repair, restore, heal, check, prune, and all of that once more.
fn recovers(case: &Case, store: &Arc<MemoryStore>, what: &str) -> usize {
    let repository = open(Arc::<MemoryStore>::clone(store)).unwrap();
    let before: Vec<String> =
        ["snapshots/", "removed/", "packs/", "usage/", "keys/"].iter().flat_map(|p| names(&**store, p)).collect();
    let rehearsed = repair::run(
        &repository,
        &Arc::new(Job::new()),
        &RepairOptions { dry_run: true, read_data: true, workers: 0, ..RepairOptions::default() },
    )
    .unwrap_or_else(|e| panic!("{what}: dry run: {e}"));
    let written: Vec<String> =
        ["snapshots/", "removed/", "packs/", "usage/", "keys/"].iter().flat_map(|p| names(&**store, p)).collect();
    assert_eq!(before, written, "{what}: a dry run wrote");
    let report = mend(&repository, true).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!((report.exit_code, report.items_hurt), (rehearsed.exit_code, rehearsed.items_hurt), "{what}");
    let after = names(&**store, "");
    for name in &before {
        assert!(after.contains(name), "{what}: a repair deleted {name}");
    }
    // What is whole comes back, what does not is named, and nothing is lost with 0.
    let mut hurt = 0;
    for (snapshot, expected) in &case.snapshots {
        let lost = case.lost(store, *snapshot, expected).unwrap_or_else(|e| panic!("{what}: {e}"));
        let id = longshore_format::snapshot::public_id(*snapshot);
        for path in &lost {
            let named = report.hurt.iter().any(|item| {
                let at = String::from_utf8_lossy(&item.path).into_owned();
                item.snapshot == id && (at.is_empty() || path.starts_with(&at))
            });
            assert!(named, "{what}: {path:?} of {id} is lost and not named: {:?}", report.hurt);
        }
        hurt += lost.len();
    }
    assert!(hurt == 0 || report.exit_code == 4, "{what}: {hurt} lost and {report:?}");
    assert_eq!(report.exit_code == 4, report.items_hurt > 0, "{what}: {report:?}");
    let found = check(&repository);
    assert_eq!((found.exit_code, found.items_hurt), (report.exit_code, report.items_hurt), "{what}: {:?}", found.findings);
    // A prune goes on, and takes nothing that is left.
    prune(&repository, &small()).unwrap_or_else(|e| panic!("{what}: prune after the repair: {e}"));
    // The next backup stores what is missing again.
    let healer = back_up_alone(&repository, &case.source()).unwrap_or_else(|e| panic!("{what}: backup: {e}")).snapshot.unwrap();
    // A tree of the first snapshot that is lost is in the source no more; everything else is.
    let first = longshore_format::snapshot::public_id(case.snapshots[0].0);
    let is_cut = report.hurt.iter().any(|item| item.snapshot == first && item.message.contains("entries of this directory"));
    let healed = |when: &str| {
        let mut left = 0;
        for (at, (snapshot, expected)) in case.snapshots.iter().enumerate() {
            let lost = case.lost(store, *snapshot, expected).unwrap();
            if at == 1 || !is_cut {
                assert_eq!(lost, BTreeSet::new(), "{what}: {when}");
            }
            left += lost.len();
            let options = CheckOptions { workers: 0, ..CheckOptions::default() };
            let found = verify_snapshot(&repository, *snapshot, true, &Arc::new(Job::new()), &options).unwrap();
            assert_eq!(
                (found.exit_code, found.items_hurt),
                if lost.is_empty() { (0, 0) } else { (4, found.items_hurt) },
                "{what}: {when}: verify: {:?} {:?}",
                found.findings,
                found.hurt
            );
        }
        let found = check(&open(Arc::<MemoryStore>::clone(store)).unwrap());
        assert_eq!(found.exit_code, if left == 0 { 0 } else { 4 }, "{what}: {when}: {:?} {:?}", found.findings, found.hurt);
        left
    };
    let left = healed("after the backup");
    repository.remove_snapshot(healer, "test").unwrap();
    for _ in 0..3 {
        prune(&repository, &small()).unwrap_or_else(|e| panic!("{what}: prune after the healing: {e}"));
    }
    assert_eq!(healed("after the healing snapshot was pruned"), left, "{what}");
    let again = mend(&repository, true).unwrap();
    assert_eq!((again.exit_code == 4, again.chunks_missing > 0), (left > 0, left > 0), "{what}: {again:?}");
    for _ in 0..3 {
        prune(&repository, &small()).unwrap();
    }
    assert_eq!(healed("after a second repair"), left, "{what}");
    // Nothing of it stays when the snapshots go.
    for (snapshot, _) in &case.snapshots {
        repository.remove_snapshot(*snapshot, "test").unwrap();
    }
    let nothing = tempfile::tempdir().unwrap();
    back_up_alone(&repository, nothing.path()).unwrap();
    for _ in 0..4 {
        prune(&repository, &small()).unwrap();
    }
    assert_eq!(common::pruned::orphans(store), Vec::<String>::new(), "{what}");
    assert_eq!(names(&**store, "repairs/"), Vec::<String>::new(), "{what}");
    hurt
}

#[test]
fn packs_index_and_usage_lost_in_any_way_recover() {
    let case = Case::new();
    let (mut tried, mut hurt) = (0, 0);
    for prefix in ["packs/", "index/", "usage/"] {
        let all = objects(&case.store, prefix);
        for (at, (key, body)) in all.iter().enumerate() {
            for how in DAMAGE {
                let store = case.fork();
                damage(&store, key, body, &all[(at + 1) % all.len()].1, how);
                let lost = recovers(&case, &store, &format!("{how} of {key}"));
                assert!(prefix == "packs/" || lost == 0, "{how} of {key}: {lost} files lost, and the packs hold all of them");
                hurt += usize::from(lost > 0);
                tried += 1;
            }
        }
    }
    println!("damaged objects: {tried}, with losses: {hurt}");
    assert!(tried > 50 && hurt > 8, "{tried} {hurt}");
}

#[test]
fn copies_on_this_machine_hide_no_damage_from_a_repair() {
    let case = Case::new();
    let folder = tempfile::tempdir().unwrap();
    let cached = open(Arc::<MemoryStore>::clone(&case.store)).unwrap().with_cache(&Cache::at(folder.path()));
    cached.snapshots().unwrap();
    cached.load_index(&Job::new()).unwrap();
    for prefix in ["index/", "snapshots/"] {
        let all = objects(&case.store, prefix);
        let (key, body) = &all[0];
        let store = case.fork();
        damage(&store, key, body, body, "flip middle");
        let rehearse = |repository: &Repository| {
            let options = RepairOptions { dry_run: true, workers: 0, ..RepairOptions::default() };
            repair::run(repository, &Arc::new(Job::new()), &options).unwrap().findings
        };
        let found = rehearse(&open(Arc::<MemoryStore>::clone(&store)).unwrap());
        assert!(found.iter().any(|finding| finding.object == key.as_str()), "{key}: {found:?}");
        assert_eq!(rehearse(&cached.with_store(store)), found);
    }
}

#[test]
fn a_whole_repository_is_left_as_it_is() {
    let case = Case::new();
    let store = case.fork();
    let before = names(&*store, "");
    let report = mend(&open(Arc::<MemoryStore>::clone(&store)).unwrap(), true).unwrap();
    assert_eq!((report.exit_code, &report.findings, report.recorded), (0, &vec![], false));
    let after: Vec<String> = names(&*store, "").into_iter().filter(|name| !before.contains(name)).collect();
    // The end of its own session, as for every writer that makes no snapshot.
    assert_eq!(after.len(), 1, "{after:?}");
    assert!(after[0].starts_with("snapshots/"), "{after:?}");
}

#[test]
fn index_and_usage_all_gone_are_made_again() {
    let case = Case::new();
    let store = case.fork();
    for prefix in ["index/", "usage/"] {
        for (key, _) in objects(&store, prefix) {
            store.delete(&key).unwrap();
        }
    }
    let repository = open(Arc::<MemoryStore>::clone(&store)).unwrap();
    let error = prune(&repository, &small()).unwrap_err();
    assert!(error.next_step().unwrap().contains("repo repair"), "{error}");
    assert_eq!(recovers(&case, &store, "no index, no usage"), 0);
}

#[test]
fn a_tree_and_the_tables_lost_together_keep_all_that_may_be_needed() {
    let case = Case::new();
    let store = case.fork();
    for (key, _) in objects(&store, "usage/") {
        store.delete(&key).unwrap();
    }
    // Packs that hold no data: the smallest of each session.
    let packs = objects(&store, "packs/");
    let (key, _) = packs.iter().min_by_key(|(_, body)| body.len()).unwrap();
    store.delete(key).unwrap();
    recovers(&case, &store, "a tree pack and all tables");
}

#[test]
fn damaged_snapshots_slots_and_markers_are_named_and_left_alone() {
    let case = Case::new();
    for how in DAMAGE {
        let store = case.fork();
        let all = objects(&store, "snapshots/");
        damage(&store, &all[0].0, &all[0].1, &all[1].1, how);
        let repository = open(Arc::<MemoryStore>::clone(&store)).unwrap();
        let report = mend(&repository, false).unwrap();
        if how == "delete" {
            assert_eq!(report.snapshots, 1);
            continue;
        }
        assert_eq!((report.exit_code, report.snapshots_damaged), (4, 1), "{how}");
        assert!(names(&*store, "snapshots/").contains(&all[0].0.to_string()));
        let error = prune(&repository, &small()).unwrap_err();
        assert!(error.next_step().unwrap().contains("volume delete"), "{error}");
        let broken = SessionId::from_hex(all[0].0.as_str().strip_prefix("snapshots/").unwrap()).unwrap();
        repository.delete_snapshot(&broken.to_string(), "test").unwrap();
        prune(&repository, &small()).unwrap();
        assert_eq!(whole(&store).unwrap().len(), 1, "{how}");
    }
    let store = case.fork();
    let repository = open(Arc::<MemoryStore>::clone(&store)).unwrap();
    let slot = repository.add_slot(&longshore_format::keys::Unlock::Secret([9; 32]), "other", Default::default()).unwrap();
    let key = Key::new(format!("keys/{slot}")).unwrap();
    let body = store.get(&key, 1 << 20).unwrap();
    damage(&store, &key, &body, &body, "flip middle");
    let report = mend(&repository, false).unwrap();
    assert_eq!((report.exit_code, report.slots_damaged), (4, 1));
    store.overwrite(&key, body);
    let writer = repository.open_writer("elsewhere", vec![], &Job::new()).unwrap();
    let key = Key::new(format!("sessions/{}", writer.session())).unwrap();
    store.overwrite(&key, Bytes::from_static(b"nonsense"));
    assert_eq!(mend(&repository, false).unwrap().exit_code, 0);
    assert!(names(&*store, "sessions/").contains(&key.to_string()));
}

#[test]
fn a_record_that_cannot_be_read_is_made_again() {
    let case = Case::new();
    let packs = objects(&case.store, "packs/");
    let (key, body) = packs.iter().max_by_key(|(_, body)| body.len()).unwrap();
    for how in DAMAGE {
        let store = case.fork();
        damage(&store, key, body, body, "flip middle");
        let repository = open(Arc::<MemoryStore>::clone(&store)).unwrap();
        assert_eq!(mend(&repository, true).unwrap().exit_code, 4);
        let records = objects(&store, "repairs/");
        assert_eq!(records.len(), 1);
        let other = objects(&store, "usage/").remove(0).1;
        damage(&store, &records[0].0, &records[0].1, &other, how);
        if how != "delete" {
            let error = prune(&repository, &small()).unwrap_err();
            assert!(error.next_step().unwrap().contains("repo repair"), "{error}");
            // It does not say that data is to be read: what the record knew is looked for all the same.
            assert_eq!(mend(&repository, false).unwrap().exit_code, 4, "{how}");
            assert!(!names(&*store, "repairs/").contains(&records[0].0.to_string()), "{how}");
        }
        recovers(&case, &store, &format!("{how} of a record"));
    }
}

#[test]
fn a_damaged_pack_stays_as_it_is_while_somebody_needs_it() {
    let case = Case::new();
    let store = case.fork();
    let packs = objects(&store, "packs/");
    let (key, body) = packs.iter().max_by_key(|(_, body)| body.len()).unwrap();
    damage(&store, key, body, body, "flip middle");
    let repository = open(Arc::<MemoryStore>::clone(&store)).unwrap();
    mend(&repository, true).unwrap();
    for _ in 0..3 {
        let report = prune(&repository, &PruneOptions { waste_percent: 1, ..small() }).unwrap();
        assert_eq!((report.exit_code, report.kept.get(&Why::Damaged).map(|kept| kept.packs)), (0, Some(1)), "{report:?}");
    }
    // It came back from a copy: then nothing was lost.
    store.overwrite(key, body.clone());
    let report = mend(&repository, false).unwrap();
    assert_eq!((report.exit_code, report.frames_lost, report.recorded), (0, 0, false), "{report:?}");
    assert_eq!(names(&*store, "repairs/"), Vec::<String>::new());
    assert_eq!(check(&repository).exit_code, 0);
}

#[test]
fn damage_on_the_way_is_blamed_on_nobody() {
    let case = Case::new();
    for nth in 0..60 {
        let plan = move |call: &Call<'_>| {
            if call.verb == Verb::GetRange && call.nth == nth { Effect::Flip { bit: 8000 + 77 * nth } } else { Effect::Pass }
        };
        let store: Arc<dyn Store> = Arc::new(Fault::new(case.store.fork(), plan));
        let report = mend(&open(store).unwrap(), true).unwrap();
        assert_eq!((report.exit_code, &report.findings, report.recorded), (0, &vec![], false), "range {nth}");
    }
}

#[test]
fn a_segment_that_a_prune_writes_into_another_before_it_is_looked_for_is_put_once_more() {
    let case = Case::new();
    for (times, ends_well) in [(1, true), (2, true), (u64::MAX, false)] {
        let store = case.fork();
        for (key, _) in objects(&store, "index/") {
            store.delete(&key).unwrap();
        }
        let (own, looked) = (Arc::clone(&store), AtomicU64::new(0));
        let plan = move |call: &Call<'_>| {
            if call.verb == Verb::Head && call.key.starts_with("index/") && looked.fetch_add(1, SeqCst) < times {
                own.delete(&Key::new(call.key).unwrap()).unwrap();
            }
            Effect::Pass
        };
        let repository = open(Arc::<MemoryStore>::clone(&store)).unwrap();
        match mend(&repository.with_store(Arc::new(Fault::new(Arc::clone(&store), plan))), false) {
            Ok(report) => assert!(ends_well && report.segments_written > 0, "{times}: {report:?}"),
            Err(error) => assert!(!ends_well && error.kind() == ErrorKind::Corrupt, "{times}: {error}"),
        }
        assert_eq!(!objects(&store, "index/").is_empty(), ends_well);
    }
}

#[test]
fn what_a_repair_finds_where_a_prune_has_decided_to_delete_is_moved_and_no_prune_stops_at_it() {
    let (folder, store) = (tempfile::tempdir().unwrap(), Arc::new(MemoryStore::new()));
    let repository = init(Arc::<MemoryStore>::clone(&store));
    (0..6).for_each(|n| write(&folder.path().join(format!("f{n}")), &noise(n, 40_000)));
    let first = back_up_alone(&repository, folder.path()).unwrap().snapshot.unwrap();
    let old = names(&*store, "packs/");
    // Nothing is needed any more, and the prune that has decided so sleeps.
    repository.remove_snapshot(first, "test").unwrap();
    let dies = |call: &Call<'_>| match call.verb == Verb::Delete && call.key.starts_with("packs/") {
        true => Effect::StopBefore,
        false => Effect::Pass,
    };
    let options = PruneOptions { allow_empty: true, ..small() };
    prune(&repository.with_store(Arc::new(Fault::new(Arc::clone(&store), dies))), &options).unwrap_err();
    // The same content comes again, is stored again, and is lost.
    let again = back_up_alone(&repository, folder.path()).unwrap().snapshot.unwrap();
    for pack in ["00000000", "00000001"].map(|number| format!("packs/{again}-{number}")) {
        store.delete(&Key::new(pack).unwrap()).unwrap();
    }
    assert_eq!(names(&*store, "packs/"), old);
    let report = mend(&repository, false).unwrap();
    assert_eq!((report.chunks_missing, report.exit_code, report.recorded), (0, 0, true), "{report:?}");
    for _ in 0..2 {
        prune(&open(Arc::<MemoryStore>::clone(&store)).unwrap(), &small()).unwrap();
    }
    assert!(names(&*store, "packs/").iter().all(|pack| !old.contains(pack)), "they are gone, as was decided");
    assert_eq!(whole(&store).unwrap().len(), 1);
    assert_eq!(check(&repository).exit_code, 0);
}
