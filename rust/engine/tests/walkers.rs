//! Several walkers on one volume: what they make is what one makes, and however one of them ends the others end too.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test makes its own files and may fail loudly")]

mod common;

use common::counted::{CountedFs, Listing};
use common::{backup_options, init, noise, open};
use longshore_engine::ErrorKind;
use longshore_engine::backup::{self, BackupOptions, ParentChoice};
use longshore_engine::job::Job;
use longshore_engine::volume::{Fs, LinuxFs};
use longshore_store::MemoryStore;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const DIRECTORIES: usize = 400;

/// Directories of files, in directories, and a chain of them.
fn volume(root: &Path) {
    for n in 0..DIRECTORIES {
        let dir = root.join(format!("{:02}/{n:03}", n / 20));
        std::fs::create_dir_all(&dir).unwrap();
        for file in 0..3 {
            std::fs::write(dir.join(format!("{file}")), noise((n * 3 + file) as u64, 200 + n)).unwrap();
        }
    }
    let deep: std::path::PathBuf = (0..60).map(|n| format!("down-{n}")).collect();
    std::fs::create_dir_all(root.join(&deep)).unwrap();
    std::fs::write(root.join(deep).join("end"), b"end").unwrap();
}

/// Threads that have listed a directory, by name, each with which.
type Listed = Arc<Mutex<BTreeMap<String, Vec<Vec<u8>>>>>;

/// A filesystem that goes slowly until a second thread lists directories too, and then does `then` on such a thread.
fn watched(then: impl Fn() + Send + Sync + 'static) -> (CountedFs<LinuxFs>, Listed) {
    let (mut fs, listed) = (CountedFs::new(LinuxFs), Listed::default());
    let seen = Arc::clone(&listed);
    fs.listing = Listing(Arc::new(move |name| {
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        let threads = {
            let mut seen = seen.lock().unwrap();
            seen.entry(thread.clone()).or_default().push(name.to_vec());
            seen.len()
        };
        if threads == 1 {
            std::thread::sleep(Duration::from_millis(5));
        } else if thread.starts_with("walk-") {
            then();
        }
    }));
    (fs, listed)
}

#[test]
fn what_several_walkers_make_is_what_one_makes() {
    let folder = tempfile::tempdir().unwrap();
    volume(folder.path());
    let store = Arc::new(MemoryStore::new());
    init(Arc::clone(&store) as _);
    let repository = open(store).unwrap();
    // Everything is read again each time, and ids are those of one key: the same bytes are the same root.
    let root_of = |fs: &dyn Fs, workers| {
        let options = BackupOptions { parent: ParentChoice::None, ..backup_options(folder.path(), workers) };
        let summary = backup::run(&repository, fs, &Arc::new(Job::new()), &options).unwrap();
        assert_eq!(summary.exit_code, 0);
        let (rows, _) = repository.snapshots().unwrap();
        let row = rows.into_iter().find(|row| Some(row.session) == summary.snapshot).unwrap();
        let counts = summary.counts;
        (row.snapshot.root, [counts.files, counts.directories, counts.bytes, counts.files_new, counts.bytes_read])
    };
    let alone = root_of(&LinuxFs, 0);
    assert_eq!(alone.1[0], 3 * DIRECTORIES as u64 + 1);
    for workers in [2, 5] {
        let (fs, listed) = watched(|| {});
        assert_eq!(root_of(&fs, workers), alone, "{workers} workers");
        let listed = listed.lock().unwrap();
        // As slow as it is at first, it may be walked by more than there are workers.
        assert!(listed.len() >= 2, "{workers} workers: {:?}", listed.keys());
        let all: Vec<_> = listed.values().flatten().collect();
        assert_eq!(all.len(), all.iter().collect::<BTreeSet<_>>().len(), "none is listed twice");
        assert_eq!(all.len() as u64, alone.1[1]);
    }
}

#[test]
fn a_walker_that_panics_or_is_cancelled_ends_the_backup_and_nobody_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    volume(folder.path());
    let attempt = |fs: &dyn Fs, job: &Arc<Job>| {
        let store = Arc::new(MemoryStore::new());
        init(Arc::clone(&store) as _);
        let repository = open(store).unwrap();
        let error = backup::run(&repository, fs, job, &backup_options(folder.path(), 3)).unwrap_err();
        assert!(repository.snapshots().unwrap().0.is_empty());
        error
    };
    let error = attempt(&watched(|| panic!("as a test asks")).0, &Arc::new(Job::new()));
    assert_eq!((error.kind(), error.message()), (ErrorKind::Internal, "a thread of the backup panicked"));
    let job = Arc::new(Job::new());
    let cancelled = Arc::clone(&job);
    let error = attempt(&watched(move || cancelled.cancel()).0, &job);
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}
