//! What is counted of the local cache: a copy that serves is a hit; none, or one that is no good, is a miss.

#![expect(clippy::unwrap_used, reason = "a test makes its own files and may fail loudly")]

mod common;

use common::{backup_options, noise, read, secret, write};
use longshore_engine::backup;
use longshore_engine::job::Job;
use longshore_engine::repository::Repository;
use longshore_engine::repository::cache::Cache;
use longshore_engine::repository::lookups::{Kept, Lookups};
use longshore_engine::seams::World;
use longshore_engine::volume::LinuxFs;
use longshore_format::keys::Argon2Cost;
use longshore_store::{MemoryStore, Store};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Backs a volume up out of a process that has just begun; gives hits and misses of each kind.
fn counted(store: &Arc<dyn Store>, cache: Cache, volume: &Path) -> [(u64, u64); 4] {
    let lookups = Arc::new(Lookups::default());
    let cache = cache.counting(Arc::clone(&lookups));
    let repository = Repository::open(Arc::clone(store), World::system(), &secret(), cache).unwrap();
    backup::run(&repository, &LinuxFs, &Arc::new(Job::new()), &backup_options(volume, 0)).unwrap();
    Kept::ALL.map(|kept| (lookups.hits(kept), lookups.misses(kept)))
}

fn files_below(folder: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => waiting.push(path),
                false if path.parent().unwrap().ends_with(name) => found.push(path),
                false => {}
            }
        }
    }
    found
}

#[test]
fn what_the_cache_has_is_a_hit_and_what_it_has_not_or_has_damaged_is_a_miss() {
    let (folder, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(&volume.path().join("a"), &noise(1, 100_000));
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    Repository::init(Arc::clone(&store), World::system(), &secret(), "", Argon2Cost::default(), Cache::none()).unwrap();
    let with = || Cache::at(folder.path());
    let index = |counts: [(u64, u64); 4]| counts[Kept::Index as usize];
    let volumes = |counts: [(u64, u64); 4]| counts[Kept::Volume as usize];
    let snapshots = |counts: [(u64, u64); 4]| counts[Kept::Snapshots as usize];

    let first = counted(&store, with(), volume.path());
    assert_eq!(first, [(0, 0); 4], "there was nothing to look for");

    let second = counted(&store, with(), volume.path());
    assert_eq!((index(second), volumes(second)), ((1, 0), (1, 0)), "{second:?}");
    assert!(snapshots(second).0 > 0 || snapshots(second).1 > 0, "{second:?}");

    let without = counted(&store, Cache::none(), volume.path());
    assert_eq!(volumes(without), (0, 1), "{without:?}");
    assert!(index(without).0 == 0 && index(without).1 > 0, "{without:?}");
    assert!(snapshots(without).0 == 0 && snapshots(without).1 > 0, "{without:?}");

    let segments = files_below(folder.path(), "segments");
    assert!(!segments.is_empty());
    for path in &segments {
        let mut bytes = read(path);
        bytes[0] ^= 1;
        write(path, &bytes);
    }
    let damaged = counted(&store, with(), volume.path());
    assert!(index(damaged).1 >= segments.len() as u64, "{damaged:?}");
    let mended = counted(&store, with(), volume.path());
    assert_eq!(index(mended).1, 0, "{mended:?}");
}
