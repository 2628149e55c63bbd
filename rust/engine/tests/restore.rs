//! Restores from end to end: into nothing, over something, in part, damaged, cancelled.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test makes its own files and may fail loudly")]

mod common;

use common::{assert_same, back_up, init, look, restore_with, varied_volume};
use longshore_engine::restore::RestoreOptions;
use longshore_store::MemoryStore;
use std::sync::Arc;

#[test]
fn a_volume_comes_back_whole_however_many_threads_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    std::fs::create_dir(&source).unwrap();
    varied_volume(&source);
    let repository = init(Arc::new(MemoryStore::new()));
    let snapshot = back_up(&repository, &source);
    for workers in [0, 1, 3] {
        let target = folder.path().join(format!("target-{workers}"));
        let summary = restore_with(&repository, &RestoreOptions { workers, ..RestoreOptions::new(snapshot, &target) }).unwrap();
        assert_eq!((summary.exit_code, &summary.losses), (0, &vec![]), "workers {workers}");
        assert_same(&source, &target);
        let files = look(&source).values().filter(|s| s.kind == 'f').count() as u64;
        assert_eq!(summary.files, files);
        // Over itself: nothing has to be written but what has holes or several names.
        let again = restore_with(&repository, &RestoreOptions { workers, ..RestoreOptions::new(snapshot, &target) }).unwrap();
        assert_eq!(again.exit_code, 0, "{:?}", again.losses);
        assert!(again.bytes_written < 1 << 20, "{again:?}");
        assert_same(&source, &target);
    }
}
