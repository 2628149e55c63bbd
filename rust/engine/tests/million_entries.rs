//! One directory of a million entries, out and out again unchanged: nothing lost, the progress told is true, and memory grows with the names
//! alone. A process of its own: what it measures is its own peak. What changes and restores of large directories cost holds `huge_directory.rs`.

mod common;

use common::memory::{anonymous_bytes, peak_while};
use common::{backup_options, init, secret};
use longshore_engine::backup::{self, Summary};
use longshore_engine::job::Job;
use longshore_engine::repository::Repository;
use longshore_engine::repository::cache::Cache;
use longshore_engine::seams::World;
use longshore_engine::volume::made_up::MadeUpFs;
use longshore_store::{LocalSettings, LocalStore, Store};
use std::path::Path;
use std::sync::Arc;

const ENTRIES: u64 = 1_000_000;
const FILE_BYTES: u64 = 40;
/// Beyond what the process has before. Measured: 71 MiB, 17 of them names; 642 where entries all stay until the end.
const BOUND_BYTES: u64 = 100 << 20;

#[test]
fn a_directory_of_a_million_entries_takes_memory_for_its_names_alone() {
    let folders = tempfile::tempdir().unwrap();
    let fs = MadeUpFs::default();
    let huge = fs.root().create_dir(b"source").unwrap();
    for n in 0..ENTRIES {
        let name = format!("entry {:08x}", n.wrapping_mul(0x9e37_79b9) & 0xffff_ffff);
        fs.create_seeded_file(&*huge, name.as_bytes(), n, FILE_BYTES).unwrap();
    }
    let store = LocalStore::open(folders.path().join("store"), LocalSettings { create: true, ..LocalSettings::default() });
    let store: Arc<dyn Store> = Arc::new(store.unwrap());
    drop(init(Arc::clone(&store)));
    let back_up = || -> Summary {
        let cache = Cache::at(folders.path().join("cache"));
        let repository = Repository::open(Arc::clone(&store), World::system(), &secret(), cache).unwrap();
        let mut options = backup_options(Path::new("/source"), 2);
        options.memory_budget_bytes = 64 << 20;
        let job = Arc::new(Job::new());
        let summary = backup::run(&repository, &fs, &job, &options).unwrap();
        assert_eq!(summary.exit_code, 0, "{:?}", summary.lost);
        assert_eq!(job.progress().bytes_done, ENTRIES * FILE_BYTES);
        summary
    };
    let before = anonymous_bytes();
    let (first, first_peak) = peak_while(back_up);
    assert_eq!((first.counts.files_new, first.counts.bytes_read), (ENTRIES, ENTRIES * FILE_BYTES));
    let (again, again_peak) = peak_while(back_up);
    assert_eq!((again.counts.files_unchanged, again.counts.bytes_read, again.counts.bytes_stored), (ENTRIES, 0, 0));
    let peaks = [first_peak, again_peak].map(|peak| peak.saturating_sub(before));
    eprintln!("peaks in MiB: {:?}", peaks.map(|peak| peak >> 20));
    assert!(peaks.iter().all(|peak| *peak < BOUND_BYTES), "{peaks:?}");
}
