//! A restore of directories deeper than the process may have descriptors.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test makes its own files and may fail loudly")]

mod common;

use common::{back_up, init, restore_with};
use longshore_engine::restore::RestoreOptions;
use longshore_engine::volume::{Fs, LinuxFs, RootOptions};
use longshore_store::MemoryStore;
use std::sync::Arc;

#[test]
fn a_chain_of_three_thousand_directories_needs_few_descriptors() {
    const DEPTH: usize = 3000;
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("source"), folder.path().join("target"));
    std::fs::create_dir(&source).unwrap();
    let mut dir = LinuxFs.open_root(&source, RootOptions::default()).unwrap();
    for depth in 0..DEPTH {
        if depth % 100 == 0 {
            dir.create_file(b"file").unwrap().write_at(0, &depth.to_string().into_bytes()).unwrap();
        }
        let below = dir.create_dir(b"d").unwrap();
        dir = below;
    }
    let repository = init(Arc::new(MemoryStore::new()));
    let snapshot = back_up(&repository, &source);
    // The limit is the process's, which is why this test has a file of its own.
    let maximum = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let few = rustix::process::Rlimit { current: Some(700), maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, few).unwrap();
    for workers in [0, 2] {
        let summary = restore_with(&repository, &RestoreOptions { workers, ..RestoreOptions::new(snapshot, &target) }).unwrap();
        assert_eq!((summary.exit_code, summary.directories, summary.files), (0, DEPTH as u64, 30), "{summary:?}");
    }
    let mut pair = [&source, &target].map(|path| LinuxFs.open_root(path, RootOptions::default()).unwrap());
    for depth in 0..DEPTH {
        let [a, b] = pair.each_ref().map(|dir| (dir.names().unwrap(), dir.stat_self().unwrap()));
        assert_eq!((a.0, a.1.mode, a.1.mtime), (b.0, b.1.mode, b.1.mtime), "at depth {depth}");
        pair = pair.map(|dir| dir.open_dir(b"d").unwrap());
    }
    drop(pair);
    for path in [&source, &target] {
        LinuxFs.open_root(path, RootOptions::default()).unwrap().remove_all(b"d").unwrap();
    }
}
