//! Checks, and what restores do with the same damage: every object of a repository deleted, flipped, cut in turn.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test makes its own files and may fail loudly"
)]

mod common;

use bytes::Bytes;
use common::{back_up, init, look, noise, open, restore_with, write};
use longshore_engine::ErrorKind;
use longshore_engine::browse::{Browser, ListOptions};
use longshore_engine::check::{CheckOptions, CheckReport, Share, run, verify_snapshot};
use longshore_engine::job::Job;
use longshore_engine::repository::Repository;
use longshore_engine::repository::cache::Cache;
use longshore_engine::restore::{LossKind, RestoreOptions};
use longshore_format::id::{PackName, SessionId};
use longshore_store::layers::{Call, Effect, Fault, Verb};
use longshore_store::{Key, MemoryStore, Store};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Two directories, files in frames of their own and in common ones, a file with a list.
fn volume(root: &Path) {
    for d in 0..3u64 {
        std::fs::create_dir(root.join(format!("d{d}"))).unwrap();
        for f in 0..8 {
            write(&root.join(format!("d{d}/f{f}")), &noise(d * 10 + f, 2000 + 100 * f as usize));
        }
    }
    write(&root.join("large"), &noise(99, 3 << 20));
}

fn check(repository: &Repository, read_percent: u8) -> longshore_engine::Result<CheckReport> {
    run(repository, &Arc::new(Job::new()), &CheckOptions { read_percent, ..CheckOptions::default() })
}

fn verify(repository: &Repository, session: SessionId, ids: bool) -> CheckReport {
    verify_snapshot(repository, session, ids, &Arc::new(Job::new()), &CheckOptions::default()).unwrap()
}

fn keys(store: &MemoryStore) -> Vec<(Key, Bytes)> {
    let mut out = Vec::new();
    for prefix in ["config/", "keys/", "packs/", "index/", "usage/", "snapshots/", "sessions/"] {
        let page = store.list(prefix, None, 1000).unwrap();
        assert!(!page.more);
        out.extend(page.entries.into_iter().map(|e| (e.key.clone(), store.get(&e.key, 1 << 30).unwrap())));
    }
    out
}

struct Case {
    folder: tempfile::TempDir,
    store: Arc<MemoryStore>,
    snapshot: SessionId,
    files: BTreeMap<PathBuf, [u8; 32]>,
}

impl Case {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        std::fs::create_dir(&source).unwrap();
        volume(&source);
        let store = Arc::new(MemoryStore::new());
        let snapshot = back_up(&init(Arc::clone(&store) as _), &source);
        let files = look(&source).into_iter().filter_map(|(path, seen)| Some((path, seen.content?))).collect();
        Self { folder, store, snapshot, files }
    }

    /// Restores from a store and returns the paths that did not come back; those that did are equal, and the others are named.
    fn lost(&self, store: Arc<dyn Store>, number: usize) -> Result<Vec<PathBuf>, ErrorKind> {
        let target = self.folder.path().join(format!("target-{number}"));
        let repository = open(store).map_err(|e| e.kind())?;
        let outcome = restore_with(&repository, &RestoreOptions { sync: false, ..RestoreOptions::new(self.snapshot, &target) });
        let found = if target.exists() { look(&target) } else { BTreeMap::new() };
        for (path, seen) in &found {
            if let Some(content) = seen.content {
                assert_eq!(self.files.get(path), Some(&content), "wrong bytes in {path:?}");
            }
        }
        let _ = std::fs::remove_dir_all(&target);
        let summary = outcome.map_err(|e| e.kind())?;
        let lost: Vec<PathBuf> = self.files.keys().filter(|path| !found.contains_key(*path)).cloned().collect();
        for path in &lost {
            let named = summary.losses.iter().any(|loss| {
                let at = String::from_utf8_lossy(&loss.path).into_owned();
                loss.kind == LossKind::Damaged && (at.is_empty() || path.starts_with(&at))
            });
            assert!(named, "{path:?} is lost and not named: {:?}", summary.losses);
        }
        assert_eq!(summary.exit_code, if summary.items_damaged > 0 { 4 } else { 0 });
        assert!(lost.is_empty() || summary.exit_code == 4);
        Ok(lost)
    }
}

#[test]
fn a_whole_repository_has_no_findings() {
    let case = Case::new();
    let repository = open(Arc::clone(&case.store) as _).unwrap();
    for percent in [0, 100] {
        let report = check(&repository, percent).unwrap();
        assert_eq!((report.exit_code, &report.findings), (0, &vec![]));
        assert_eq!((report.frames_read > 0, report.snapshots), (percent == 100, 1));
        assert!(report.trees > 0);
    }
    for ids in [false, true] {
        let report = verify(&repository, case.snapshot, ids);
        assert_eq!((report.exit_code, &report.findings), (0, &vec![]));
        assert!(report.bytes_read > 3 << 20, "{report:?}");
    }
    // Nothing stays behind: no marker of a reader.
    assert!(case.store.list("sessions/", None, 10).unwrap().entries.is_empty());
}

#[test]
fn damage_of_any_object_is_found_named_and_never_restored() {
    let case = Case::new();
    let mut number = 0;
    let mut hurt = 0;
    // One that has copies of everything on its own machine, from before the damage.
    let folder = tempfile::tempdir().unwrap();
    let cached = open(Arc::clone(&case.store) as _).unwrap().with_cache(&Cache::at(folder.path()));
    assert_eq!((cached.snapshots().unwrap().0.len(), cached.load_index(&Job::new()).unwrap().damaged.len()), (1, 0));
    for (key, body) in keys(&case.store) {
        for damage in ["delete", "flip start", "flip middle", "flip end", "cut", "empty"] {
            number += 1;
            let store = case.store.fork();
            let flip = |at: usize| {
                let mut out = body.to_vec();
                out[at] ^= 0x10;
                Bytes::from(out)
            };
            match damage {
                "delete" => store.delete(&key).unwrap(),
                "flip start" => store.overwrite(&key, flip(body.len().min(40) - 1)),
                "flip middle" => store.overwrite(&key, flip(body.len() / 2)),
                "flip end" => store.overwrite(&key, flip(body.len() - 40)),
                "cut" => store.overwrite(&key, body.slice(..body.len() * 3 / 4)),
                _ => store.overwrite(&key, Bytes::new()),
            }
            let store: Arc<dyn Store> = Arc::new(store);
            let what = format!("{damage} of {key}");
            let lost = case.lost(Arc::clone(&store), number);
            let report = match open(Arc::clone(&store)) {
                Ok(repository) => check(&repository, 100).unwrap_or_else(|e| panic!("{what}: {e}")),
                Err(error) => {
                    // Without configuration or any slot nothing can be said but that.
                    assert!(key.as_str().starts_with("config/") || key.as_str().starts_with("keys/"), "{what}: {error}");
                    let expected =
                        [ErrorKind::RepositoryNotFound, ErrorKind::WrongKey, ErrorKind::Corrupt, ErrorKind::NewerFormat];
                    assert!(expected.contains(&error.kind()), "{what}: {error}");
                    assert_eq!(lost.unwrap_err(), error.kind(), "{what}");
                    continue;
                }
            };
            if damage == "delete" && key.as_str().starts_with("snapshots/") {
                assert_eq!(lost, Err(ErrorKind::SnapshotNotFound), "{what}");
                continue;
            }
            assert_eq!(report.exit_code, 4, "{what}: nothing found");
            let with_copies = check(&cached.with_store(Arc::clone(&store)), 100).unwrap();
            assert_eq!(with_copies.findings, report.findings, "{what}: copies hide it");
            if key.as_str().starts_with("index/") || key.as_str().starts_with("usage/") {
                assert_eq!(lost, Ok(vec![]), "{what}: the packs hold everything");
                assert_eq!(report.items_hurt, 0, "{what}");
            }
            match lost {
                Ok(lost) => {
                    hurt += usize::from(!lost.is_empty());
                    for path in &lost {
                        let named = report.hurt.iter().any(|item| {
                            let at = String::from_utf8_lossy(&item.path).into_owned();
                            at.is_empty() || path.starts_with(&at)
                        });
                        assert!(named, "{what}: {path:?} is lost and the check does not name it: {:?}", report.hurt);
                    }
                }
                Err(kind) => assert!(
                    key.as_str().starts_with("snapshots/") && kind == ErrorKind::SnapshotNotFound
                        || matches!(kind, ErrorKind::Corrupt | ErrorKind::NewerFormat),
                    "{what}: {kind:?}"
                ),
            }
        }
    }
    assert!(number > 20 && hurt > 5, "{number} cases, {hurt} with losses");
}

#[test]
fn every_flipped_bit_of_a_pack_is_found_or_hurts_nothing() {
    let case = Case::new();
    let pack = case.store.list("packs/", None, 10).unwrap().entries;
    for (number, entry) in pack.iter().enumerate() {
        let body = case.store.get(&entry.key, 1 << 30).unwrap();
        let step = (body.len() / 40).max(1);
        for at in (0..body.len()).step_by(step).chain([body.len() - 1]) {
            let mut bad = body.to_vec();
            bad[at] ^= 1;
            case.store.overwrite(&entry.key, Bytes::from(bad));
            let repository = open(Arc::clone(&case.store) as _).unwrap();
            let report = check(&repository, 100).unwrap();
            let lost = case.lost(Arc::clone(&case.store) as _, 1000 + number).unwrap();
            assert!(report.exit_code == 4 || lost.is_empty(), "byte {at} of {}: {lost:?}", entry.key);
            let full = verify(&repository, case.snapshot, true);
            assert!(full.exit_code == 4 || lost.is_empty(), "byte {at} of {}: {lost:?}", entry.key);
        }
        case.store.overwrite(&entry.key, body);
    }
}

#[test]
fn damage_on_the_way_is_fetched_again_and_blamed_on_nobody() {
    let case = Case::new();
    for nth in 0..40 {
        let plan = move |call: &Call<'_>| {
            if call.verb == Verb::GetRange && call.nth == nth { Effect::Flip { bit: 8000 + 77 * nth } } else { Effect::Pass }
        };
        let store: Arc<dyn Store> = Arc::new(Fault::new(case.store.fork(), plan));
        assert_eq!(case.lost(store, nth as usize), Ok(vec![]), "range {nth}");
        let store: Arc<dyn Store> = Arc::new(Fault::new(case.store.fork(), plan));
        let report = check(&open(store).unwrap(), 100).unwrap();
        assert_eq!((report.exit_code, &report.findings), (0, &vec![]), "range {nth}");
    }
}

#[test]
fn a_store_that_does_not_answer_ends_a_restore_with_that() {
    let case = Case::new();
    let plan = |call: &Call<'_>| {
        let dead = call.verb == Verb::GetRange && call.nth >= 1;
        if dead { Effect::FailBefore(longshore_store::StoreErrorKind::Unavailable) } else { Effect::Pass }
    };
    assert_eq!(case.lost(Arc::new(Fault::new(case.store.fork(), plan)), 0), Err(ErrorKind::StoreUnavailable));
}

#[test]
fn entries_are_listed_found_and_streamed() {
    let case = Case::new();
    let repository = open(Arc::clone(&case.store) as _).unwrap();
    let browser = Browser::open(&repository, case.snapshot, "here", &Arc::new(Job::new())).unwrap();
    let names = |path: &[u8], recursive: bool, pattern: &str| {
        let options = ListOptions { recursive, pattern: pattern.into() };
        let mut listing = browser.list(path, &options).unwrap();
        let mut out = Vec::new();
        loop {
            let page = listing.page(3).unwrap();
            if page.is_empty() {
                return out;
            }
            out.extend(page.into_iter().map(|row| String::from_utf8(row.path).unwrap()));
        }
    };
    assert_eq!(names(b"", false, ""), ["d0", "d1", "d2", "large"]);
    assert_eq!(names(b"/d1/", false, "").len(), 8);
    assert_eq!(names(b"d1/f3", false, ""), ["d1/f3"]);
    assert_eq!(names(b"", true, "f[01]"), ["d0/f0", "d0/f1", "d1/f0", "d1/f1", "d2/f0", "d2/f1"]);
    assert_eq!(names(b"", true, "d2/*7"), ["d2/f7"]);
    assert_eq!(names(b"", true, "").len(), 28);
    let mut bytes = Vec::new();
    let mut sink = |part: &[u8]| {
        bytes.extend_from_slice(part);
        Ok(())
    };
    assert_eq!(browser.cat(b"large", &mut sink).unwrap(), 3 << 20);
    assert_eq!(bytes, noise(99, 3 << 20));
    assert_eq!(browser.stat(b"d0/none").unwrap_err().kind(), ErrorKind::PathNotFound);
    assert_eq!(browser.cat(b"d0", &mut |_| Ok(())).unwrap_err().kind(), ErrorKind::Usage);
    assert_eq!(browser.stat(b"large").unwrap().size_bytes, 3 << 20);
}

#[test]
fn every_pack_is_read_once_in_a_round_of_shares() {
    let case = Case::new();
    let repository = open(Arc::clone(&case.store) as _).unwrap();
    // More packs, of more sessions.
    let source = case.folder.path().join("source");
    for n in 0..6u64 {
        write(&source.join("more"), &noise(1000 + n, 300_000));
        back_up(&repository, &source);
    }
    let packs: Vec<Key> = case.store.list("packs/", None, 1000).unwrap().entries.into_iter().map(|e| e.key).collect();
    for parts in [1, 3, 20] {
        let read = |part: u32, options: CheckOptions| {
            let touched = Arc::new(std::sync::Mutex::new(std::collections::BTreeSet::new()));
            let seen = Arc::clone(&touched);
            let plan = move |call: &Call<'_>| {
                if call.verb == Verb::GetRange && call.key.starts_with("packs/") {
                    seen.lock().unwrap().insert(call.key.to_owned());
                }
                Effect::Pass
            };
            let store: Arc<dyn Store> = Arc::new(Fault::new(case.store.fork(), plan));
            let options = CheckOptions { share: Some(Share { part, parts }), ..options };
            let report = verify_snapshot(&open(store).unwrap(), case.snapshot, true, &Arc::new(Job::new()), &options).unwrap();
            assert_eq!((report.exit_code, &report.findings), (0, &vec![]));
            let touched = touched.lock().unwrap().clone();
            (touched, report.frames_read)
        };
        let (mut all, mut frames) = (std::collections::BTreeSet::new(), 0);
        for part in 0..parts {
            let (touched, read) = read(part, CheckOptions::default());
            for pack in touched {
                assert!(all.insert(pack), "a pack was read in two parts of {parts}");
            }
            frames += read;
        }
        let whole = verify(&repository, case.snapshot, true);
        assert_eq!(frames, whole.frames_read, "{parts} parts");
        assert_eq!(all.len() as u64, whole.packs, "{parts} parts");
        // Damage is found by the part that holds it, of whatever snapshot.
        let mut found = 0;
        for part in 0..parts {
            let store = Arc::new(case.store.fork());
            let body = store.get(&packs[0], 1 << 30).unwrap();
            let mut bad = body.to_vec();
            bad[body.len() / 2] ^= 1;
            store.overwrite(&packs[0], Bytes::from(bad));
            let options = CheckOptions { share: Some(Share { part, parts }), ..CheckOptions::default() };
            let report = run(&open(store as _).unwrap(), &Arc::new(Job::new()), &options).unwrap();
            found += u32::from(report.exit_code == 4);
        }
        assert_eq!(found, 1, "{parts} parts");
    }
}

#[test]
fn packs_of_one_session_are_shared_out_evenly() {
    for (seed, parts) in [(1u8, 20u32), (77, 7), (255, 3)] {
        let packs = (0..parts * 10).map(|number| PackName { session: SessionId([seed; 16]), number });
        let mut sizes = vec![0; parts as usize];
        for pack in packs {
            let holders: Vec<u32> = (0..parts).filter(|part| Share { part: *part, parts }.holds(pack)).collect();
            assert_eq!(holders.len(), 1);
            sizes[holders[0] as usize] += 1;
        }
        assert!(sizes.iter().all(|size| *size == 10), "{sizes:?}");
    }
}
