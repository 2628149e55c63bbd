//! One directory of two hundred thousand entries, in bounded memory. A process of its own: what it measures is its own peak.

#![expect(clippy::unwrap_used, reason = "a test makes its own files and may fail loudly")]

mod common;

use common::memory::{anonymous_bytes, peak_while};
use common::{backup_options, init, open, secret};
use longshore_engine::backup::{self, Summary};
use longshore_engine::job::Job;
use longshore_engine::repository::Repository;
use longshore_engine::repository::cache::Cache;
use longshore_engine::restore::{self, RestoreOptions};
use longshore_engine::seams::World;
use longshore_engine::volume::Dir;
use longshore_engine::volume::made_up::MadeUpFs;
use longshore_store::{LocalSettings, LocalStore, Store};
use std::path::Path;
use std::sync::Arc;

const ENTRIES: u64 = 200_000;
/// As many are closed at once, not in parts.
const SMALL_ENTRIES: u64 = 130_000;
const FILE_BYTES: u64 = 60;
/// Beyond what the process has before. Measured: 93 MiB at most, nearly all of it what any tree of so many files takes.
const BOUND_BYTES: u64 = 120 << 20;

fn name(n: u64) -> Vec<u8> {
    format!("entry {:08x}", n.wrapping_mul(0x9e37_79b9) & 0xffff_ffff).into_bytes()
}

fn assert_equal(source: &dyn Dir, target: &dyn Dir) {
    let names = source.names().unwrap();
    assert!(names == target.names().unwrap());
    let content = |dir: &dyn Dir, name: &[u8]| {
        let mut bytes = vec![0; FILE_BYTES as usize + 1];
        let length = dir.open_file(name).unwrap().read_at(0, &mut bytes).unwrap();
        bytes.truncate(length);
        (bytes, dir.stat(name).unwrap().mtime)
    };
    for name in names.iter().filter(|name| name.starts_with(b"entry")) {
        assert!(content(source, name) == content(target, name), "{}", String::from_utf8_lossy(name));
    }
}

#[test]
fn a_directory_of_two_hundred_thousand_entries_takes_little_memory_and_a_change_in_it_little_room() {
    let folders = tempfile::tempdir().unwrap();
    let fs = MadeUpFs::default();
    let volume = fs.root().create_dir(b"source").unwrap();
    let huge = volume.create_dir(b"huge").unwrap();
    for n in 0..ENTRIES {
        fs.create_seeded_file(&*huge, &name(n), n, FILE_BYTES).unwrap();
    }
    huge.create_dir(b"below").unwrap().create_file(b"file").unwrap().write_at(0, b"content").unwrap();
    let store = LocalStore::open(folders.path().join("store"), LocalSettings { create: true, ..LocalSettings::default() });
    let store: Arc<dyn Store> = Arc::new(store.unwrap());
    drop(init(Arc::clone(&store)));
    let repository = || -> Repository {
        Repository::open(Arc::clone(&store), World::system(), &secret(), Cache::at(folders.path().join("cache"))).unwrap()
    };
    let back_up = || -> Summary {
        let mut options = backup_options(Path::new("/source"), 2);
        options.memory_budget_bytes = 64 << 20;
        let summary = backup::run(&repository(), &fs, &Arc::new(Job::new()), &options).unwrap();
        assert_eq!(summary.exit_code, 0, "{:?}", summary.lost);
        summary
    };
    let before = anonymous_bytes();
    let mut peaks = Vec::new();
    let mut measured = |what: &str| {
        let (summary, peak) = peak_while(back_up);
        peaks.push((what.to_owned(), (peak - before) >> 20));
        summary
    };
    assert_eq!(measured("first").counts.files_new, ENTRIES + 1);
    let unchanged = measured("unchanged");
    assert_eq!((unchanged.counts.files_unchanged, unchanged.counts.bytes_read), (ENTRIES + 1, 0));
    assert_eq!(unchanged.counts.bytes_stored, 0, "no tree is stored again");
    huge.remove_all(&name(77)).unwrap();
    huge.remove_all(&name(78)).unwrap();
    fs.create_seeded_file(&*huge, &name(78), 1 << 40, FILE_BYTES).unwrap();
    huge.create_file(b"one more").unwrap();
    let changed = measured("changed");
    let counts = &changed.counts;
    assert_eq!((counts.files, counts.files_unchanged, counts.bytes_read), (ENTRIES + 1, ENTRIES - 1, FILE_BYTES));
    assert!(counts.bytes_stored < 128 << 10, "bytes_stored={}", counts.bytes_stored);
    eprintln!("peaks in MiB: {peaks:?}");
    assert!(peaks.iter().all(|(_, peak)| peak << 20 < BOUND_BYTES), "{peaks:?}");
    let target = |summary: &Summary, target: &str| {
        let options =
            RestoreOptions { sync: false, ..RestoreOptions::new(summary.snapshot.unwrap(), Path::new("/").join(target)) };
        let repository = open(Arc::clone(&store)).unwrap();
        assert_eq!(restore::run(&repository, &fs, &Arc::new(Job::new()), &options).unwrap().exit_code, 0);
        fs.root().open_dir(target.as_bytes()).unwrap().open_dir(b"huge").unwrap()
    };
    assert_equal(&*huge, &*target(&changed, "huge"));
    // Its pieces are those that it has when it is closed at once.
    for n in SMALL_ENTRIES..ENTRIES {
        huge.remove_all(&name(n)).unwrap();
    }
    let last_in_parts = back_up();
    let at_once = back_up();
    assert_eq!((at_once.counts.bytes_stored, at_once.counts.files_unchanged), (0, SMALL_ENTRIES + 1));
    huge.create_file(b"the last").unwrap();
    let stored = back_up().counts.bytes_stored;
    assert!(stored > 0 && stored < 128 << 10, "bytes_stored={stored}");
    huge.remove_all(b"the last").unwrap();
    assert!(last_in_parts.counts.bytes_stored > 1 << 20, "so few entries are other pieces");
    assert_equal(&*huge, &*target(&at_once, "small"));
}
