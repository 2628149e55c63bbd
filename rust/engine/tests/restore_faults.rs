//! A restore on a filesystem that refuses: each call in turn fails, and success is never said of what is not there.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test makes its own files and may fail loudly")]

mod common;

use common::portrait::{Seen, look};
use common::{backup_options, init, noise};
use longshore_engine::ErrorKind;
use longshore_engine::job::Job;
use longshore_engine::repository::Repository;
use longshore_engine::restore::{RestoreOptions, RestoreSummary, run};
use longshore_engine::volume::made_up::MadeUpFs;
use longshore_engine::volume::{Dir, Kind, Metadata, Time, VolumeErrorKind};
use longshore_format::id::SessionId;
use longshore_store::MemoryStore;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

fn fill(root: &dyn Dir) {
    let metadata = |mode: u32, secs: i64| Metadata { mode, uid: 0, gid: 0, mtime: Time { secs, nanos: 5 }, xattrs: vec![] };
    for name in [b"a", b"b"] {
        let dir = root.create_dir(name).unwrap();
        for f in 0..3u8 {
            let file = dir.create_file(&[b'f', b'0' + f]).unwrap();
            file.write_at(0, &noise(u64::from(f), 900 + 50 * usize::from(f))).unwrap();
            file.set_metadata(&metadata(0o640, 1000 + i64::from(f))).unwrap();
        }
        dir.create_symlink(b"link", b"f0").unwrap();
        let again = root.open_dir(name).unwrap();
        dir.hard_link(b"f1", &*again, b"second").unwrap();
        dir.set_metadata_self(&metadata(0o750, 2000)).unwrap();
    }
    root.create_file(b"large").unwrap().write_at(0, &noise(9, 9 << 20)).unwrap();
    root.create_special(b"pipe", Kind::Fifo, (0, 0)).unwrap();
    root.set_metadata_self(&metadata(0o711, 3000)).unwrap();
}

fn seen(fs: &MadeUpFs, name: &[u8]) -> Seen {
    let mut out = Seen::new();
    if let Ok(dir) = fs.root().open_dir(name) {
        look(&*dir, b"", &mut out);
    }
    out
}

fn restore(repository: &Repository, fs: &MadeUpFs, snapshot: SessionId, name: &str) -> longshore_engine::Result<RestoreSummary> {
    let options = RestoreOptions { workers: 0, ..RestoreOptions::new(snapshot, Path::new("/").join(name)) };
    run(repository, fs, &Arc::new(Job::new()), &options)
}

#[test]
fn whichever_call_fails_no_wrong_file_and_no_false_success() {
    let fs = MadeUpFs::default();
    let root = fs.root();
    fill(&*root.create_dir(b"source").unwrap());
    let repository = init(Arc::new(MemoryStore::new()));
    let backup = longshore_engine::backup::run(&repository, &fs, &Arc::new(Job::new()), &backup_options(Path::new("/source"), 0));
    let snapshot = backup.unwrap().snapshot.unwrap();
    let source = seen(&fs, b"source");
    // An old state lies in the target of every second round.
    let prepare = |name: &str, old: bool| {
        let dir = root.create_dir(name.as_bytes()).unwrap();
        if old {
            dir.create_dir(b"large").unwrap().create_file(b"x").unwrap();
            let a = dir.create_dir(b"a").unwrap();
            a.create_file(b"f0").unwrap().write_at(0, &[1; 900]).unwrap();
            a.create_symlink(b"f2", b"/etc").unwrap();
            dir.create_file(b"b").unwrap();
        }
    };
    for old in [false, true] {
        prepare("count", old);
        let calls = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&calls);
        fs.set_hook(Some(Arc::new(move |_| {
            counter.fetch_add(1, SeqCst);
            None
        })));
        assert_eq!(restore(&repository, &fs, snapshot, "count").unwrap().exit_code, 0);
        fs.set_hook(None);
        assert!(seen(&fs, b"count") == source, "old state there: {old}");
        root.remove_all(b"count").unwrap();
        let total = calls.load(SeqCst);
        assert!(total > 60, "{total}");
        let mut told = [0; 3];
        for kind in [VolumeErrorKind::Io, VolumeErrorKind::Denied, VolumeErrorKind::NoSpace] {
            for nth in 0..total {
                prepare("target", old);
                let (left, name) = (Arc::new(AtomicU64::new(nth)), Arc::new(std::sync::Mutex::new("")));
                let failed = Arc::clone(&name);
                fs.set_hook(Some(Arc::new(move |call| {
                    let now = left.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_err();
                    let mut failed = failed.lock().unwrap();
                    (now && failed.is_empty()).then(|| {
                        *failed = call.call;
                        kind
                    })
                })));
                let outcome = restore(&repository, &fs, snapshot, "target");
                fs.set_hook(None);
                let what = format!("{kind:?} at call {nth} of {total} ({}), old state there: {old}", name.lock().unwrap());
                let found = seen(&fs, b"target");
                match outcome {
                    Ok(summary) if summary.exit_code == 0 => {
                        told[0] += 1;
                        assert!(found == source, "{what}: said to be whole");
                    }
                    Ok(summary) => {
                        told[1] += 1;
                        assert_eq!(summary.exit_code, 3, "{what}");
                        assert!(!summary.losses.is_empty(), "{what}");
                        for (path, want) in &source {
                            let named = summary.losses.iter().any(|loss| {
                                let at = [b"/", loss.path.as_slice()].concat();
                                loss.path.is_empty() || path == &at || path.starts_with(&[&at, &b"/"[..]].concat())
                            });
                            let links_differ = found.get(path).is_some_and(|got| got.3 != want.3);
                            assert!(
                                named || links_differ || found.get(path) == Some(want),
                                "{what}: {} differs and is not named: {:?}",
                                String::from_utf8_lossy(path),
                                summary.losses
                            );
                        }
                    }
                    Err(error) => {
                        told[2] += 1;
                        assert!(matches!(error.kind(), ErrorKind::Volume | ErrorKind::NoSpace), "{what}: {error}");
                    }
                }
                root.remove_all(b"target").unwrap();
            }
        }
        // Few calls may fail without a word: a look at what is there, for the most part.
        assert!(told[0] > 0 && told[1] > 50 && told[2] > 50, "{told:?}");
    }
}
