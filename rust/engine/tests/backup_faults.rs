//! A backup of a volume that fails under it: each call in turn, and files that do not hold still. What a snapshot has is right, what it has not is
//! named or gone, and nobody is told of success who has none.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test makes its own files and may fail loudly")]

mod common;

use common::portrait::{Seen, look};
use common::{backup_options, noise, open, secret};
use longshore_engine::ErrorKind;
use longshore_engine::backup::{BackupOptions, Summary, run};
use longshore_engine::job::Job;
use longshore_engine::repository::Repository;
use longshore_engine::repository::cache::Cache;
use longshore_engine::restore::{self, RestoreOptions};
use longshore_engine::seams::World;
use longshore_engine::volume::made_up::MadeUpFs;
use longshore_engine::volume::{Dir, Kind, Metadata, Time, VolumeErrorKind};
use longshore_format::id::SessionId;
use longshore_format::keys::Argon2Cost;
use longshore_store::{MemoryStore, Store};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

fn fill(root: &dyn Dir) {
    let metadata = |mode: u32, secs: i64| Metadata {
        mode,
        uid: 0,
        gid: 0,
        mtime: Time { secs, nanos: 5 },
        xattrs: vec![(b"user.a".to_vec(), b"1".to_vec())],
    };
    for name in [b"a", b"b"] {
        let dir = root.create_dir(name).unwrap();
        for f in 0..3u8 {
            let file = dir.create_file(&[b'f', b'0' + f]).unwrap();
            file.write_at(0, &noise(u64::from(f), 900 + 50 * usize::from(f))).unwrap();
            file.set_metadata(&metadata(0o640, 1000 + i64::from(f))).unwrap();
        }
        dir.create_symlink(b"link", b"f0").unwrap();
        dir.create_dir(b"below").unwrap().create_file(b"file").unwrap().write_at(0, b"content").unwrap();
        dir.set_metadata_self(&metadata(0o750, 2000)).unwrap();
    }
    root.create_file(b"large").unwrap().write_at(0, &noise(9, 300 << 10)).unwrap();
    root.create_special(b"pipe", Kind::Fifo, (0, 0)).unwrap();
    root.set_metadata_self(&metadata(0o711, 3000)).unwrap();
}

fn seen(fs: &MadeUpFs, name: &[u8]) -> Seen {
    let mut out = Seen::new();
    look(&*fs.root().open_dir(name).unwrap(), b"", &mut out);
    out
}

fn back_up(repository: &Repository, fs: &MadeUpFs, options: &BackupOptions) -> longshore_engine::Result<Summary> {
    run(repository, fs, &Arc::new(Job::new()), options)
}

/// What a snapshot holds, by restoring it elsewhere.
fn held(store: &Arc<MemoryStore>, snapshot: SessionId) -> Seen {
    let elsewhere = MadeUpFs::default();
    let options = RestoreOptions { workers: 0, ..RestoreOptions::new(snapshot, Path::new("/out")) };
    let repository = open(Arc::<MemoryStore>::clone(store)).unwrap();
    assert_eq!(restore::run(&repository, &elsewhere, &Arc::new(Job::new()), &options).unwrap().exit_code, 0);
    seen(&elsewhere, b"out")
}

fn is_at_or_below(path: &[u8], above: &[u8]) -> bool {
    let above = [b"/", above].concat();
    above == b"/" || path == above || path.starts_with(&[&above, &b"/"[..]].concat())
}

#[test]
fn whichever_call_of_the_volume_fails_what_is_missing_is_named() {
    let fs = MadeUpFs::default();
    fill(&*fs.root().create_dir(b"source").unwrap());
    let source = seen(&fs, b"source");
    let options = backup_options(Path::new("/source"), 0);
    // First with nothing known, then with a parent and its stat cache, then with a parent of which every file has changed.
    for round in ["first", "unchanged", "paranoid"] {
        let base = Arc::new(MemoryStore::new());
        let cache = tempfile::tempdir().unwrap();
        let at = |store: &Arc<MemoryStore>| {
            Repository::open(Arc::<MemoryStore>::clone(store), World::system(), &secret(), Cache::at(cache.path())).unwrap()
        };
        let memory = Arc::<MemoryStore>::clone(&base);
        Repository::init(memory, World::system(), &secret(), "", Argon2Cost::default(), Cache::none()).unwrap();
        let options = BackupOptions { paranoid: round == "paranoid", ..options.clone() };
        if round != "first" {
            back_up(&at(&base), &fs, &options).unwrap();
        }
        let calls = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&calls);
        fs.set_hook(Some(Arc::new(move |_| {
            counter.fetch_add(1, SeqCst);
            None
        })));
        back_up(&at(&Arc::new(base.fork())), &fs, &options).unwrap();
        fs.set_hook(None);
        let total = calls.load(SeqCst);
        assert!(total > 20, "{round}: {total}");
        let mut told = [0; 4];
        for kind in [VolumeErrorKind::Io, VolumeErrorKind::NotFound] {
            for nth in 0..total {
                let store = Arc::new(base.fork());
                let before = at(&store).snapshots().unwrap().0.len();
                let (left, name) = (AtomicU64::new(nth), Arc::new(Mutex::new("")));
                let failed = Arc::clone(&name);
                fs.set_hook(Some(Arc::new(move |call| {
                    let now = left.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_err();
                    let mut failed = failed.lock().unwrap();
                    (now && failed.is_empty()).then(|| {
                        *failed = call.call;
                        kind
                    })
                })));
                let outcome = back_up(&at(&store), &fs, &options);
                fs.set_hook(None);
                let what = format!("{round}, {kind:?} at call {nth} of {total} ({})", name.lock().unwrap());
                let summary = match outcome {
                    Ok(summary) => summary,
                    Err(error) => {
                        told[0] += 1;
                        assert_eq!(error.kind(), ErrorKind::Volume, "{what}: {error}");
                        assert_eq!(at(&store).snapshots().unwrap().0.len(), before, "{what}: nothing is committed");
                        continue;
                    }
                };
                let found = held(&store, summary.snapshot.unwrap());
                assert_eq!(summary.exit_code, if summary.lost.is_empty() { 0 } else { 3 }, "{what}");
                told[if summary.exit_code == 3 {
                    1
                } else if summary.vanished > 0 {
                    2
                } else {
                    3
                }] += 1;
                for (path, want) in &source {
                    let named = summary.lost.iter().any(|item| is_at_or_below(path, &item.path));
                    match found.get(path) {
                        // What is there is right; of a directory or link that is named, its attributes may be what was lost.
                        Some(got) => assert!(
                            got == want || named && (got.0, &got.4) == (want.0, &want.4),
                            "{what}: {} differs: {:?}",
                            String::from_utf8_lossy(path),
                            summary.lost
                        ),
                        None => assert!(
                            named || summary.vanished > 0,
                            "{what}: {} is missing and nobody says so: {:?}",
                            String::from_utf8_lossy(path),
                            summary.lost
                        ),
                    }
                }
                assert!(found.keys().all(|path| source.contains_key(path)), "{what}: more than there was");
                if kind != VolumeErrorKind::NotFound {
                    assert_eq!(summary.vanished, 0, "{what}");
                }
                // The next backup has everything again.
                let healed = back_up(&at(&store), &fs, &options).unwrap();
                assert!(healed.exit_code == 0 && held(&store, healed.snapshot.unwrap()) == source, "{what}: the next backup");
            }
        }
        assert!(told[0] > 0 && told[1] > 10 && told[2] > 0, "{round}: {told:?}");
    }
}

#[test]
fn a_file_that_never_holds_still_is_read_three_times_and_marked() {
    let fs = MadeUpFs::default();
    let root = fs.root().create_dir(b"source").unwrap();
    root.create_file(b"busy").unwrap().write_at(0, &noise(1, 5000)).unwrap();
    root.create_file(b"calm").unwrap().write_at(0, &noise(2, 5000)).unwrap();
    let store = Arc::new(MemoryStore::new());
    let memory: Arc<dyn Store> = Arc::<MemoryStore>::clone(&store);
    let repository = Repository::init(memory, World::system(), &secret(), "", Argon2Cost::default(), Cache::none()).unwrap();
    let busy = root.stat(b"busy").unwrap().inode;
    let reads = Arc::new(AtomicU64::new(0));
    // Whoever reads it finds it written to just after; `times`: for how long.
    let disturb = |times: u64| {
        let (counted, volume, inside) = (Arc::clone(&reads), fs.clone(), AtomicBool::new(false));
        counted.store(0, SeqCst);
        fs.set_hook(Some(Arc::new(move |call| {
            if call.call == "read file" && call.inode == busy && !inside.swap(true, SeqCst) {
                if counted.fetch_add(1, SeqCst) < times {
                    let dir = volume.root().open_dir(b"source").unwrap();
                    dir.open_file_for_update(b"busy").unwrap().write_at(4999, b"!").unwrap();
                }
                inside.store(false, SeqCst);
            }
            None
        })));
    };
    let options = backup_options(Path::new("/source"), 0);
    disturb(u64::MAX);
    let summary = back_up(&repository, &fs, &options).unwrap();
    let read = reads.load(SeqCst);
    fs.set_hook(None);
    assert_eq!(read, 3, "as often, and no more");
    assert_eq!((summary.exit_code, summary.changed.as_slice()), (0, &[b"busy".to_vec()][..]));
    // The mark makes the next backup read it though its times stand; once it holds still the mark goes.
    disturb(0);
    let next = back_up(&repository, &fs, &options).unwrap();
    assert_eq!((reads.load(SeqCst), next.changed.len(), next.counts.files_unchanged), (1, 0, 1));
    // It settles while it is read: no mark, and the last state.
    disturb(2);
    let settled = back_up(&repository, &fs, &BackupOptions { paranoid: true, ..options.clone() }).unwrap();
    fs.set_hook(None);
    assert_eq!((reads.load(SeqCst), settled.changed.len()), (3, 0));
    assert!(held(&store, settled.snapshot.unwrap()) == seen(&fs, b"source"));
    // Where that matters more than the backup, it is said by the exit code.
    disturb(u64::MAX);
    let strict = back_up(&repository, &fs, &BackupOptions { strict: true, paranoid: true, ..options }).unwrap();
    fs.set_hook(None);
    assert_eq!((strict.exit_code, strict.changed.len()), (3, 1));
}
