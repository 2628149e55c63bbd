//! Backups with a stat cache beside backups without: never another snapshot, only less work.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test makes its own files and may fail loudly")]

mod common;

use common::{assert_same, backup_options, noise, read, restore_with, secret, varied_volume, write};
use longshore_engine::backup::{self, BackupOptions, ParentChoice, Summary};
use longshore_engine::job::Job;
use longshore_engine::repository::Repository;
use longshore_engine::repository::cache::Cache;
use longshore_engine::restore::RestoreOptions;
use longshore_engine::seams::World;
use longshore_engine::volume::LinuxFs;
use longshore_format::envelope::Codec;
use longshore_format::id::SessionId;
use longshore_format::keys::Argon2Cost;
use longshore_format::tree::Entry;
use longshore_format::usage::{Usage, usage_key};
use longshore_store::layers::{Call, Effect, Fault, Verb};
use longshore_store::{Key, MemoryStore, Store};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

struct Bench {
    store: Arc<dyn Store>,
    cache: tempfile::TempDir,
    volume: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        Repository::init(Arc::clone(&store), World::system(), &secret(), "", Argon2Cost::default(), Cache::none()).unwrap();
        Self { store, cache: tempfile::tempdir().unwrap(), volume: tempfile::tempdir().unwrap() }
    }

    fn open(&self) -> Repository {
        Repository::open(Arc::clone(&self.store), World::system(), &secret(), Cache::at(self.cache.path())).unwrap()
    }

    fn back_up(&self, workers: usize) -> Summary {
        let options = backup_options(self.volume.path(), workers);
        let summary = backup::run(&self.open(), &LinuxFs, &Arc::new(Job::new()), &options).unwrap();
        assert_eq!(summary.exit_code, 0, "{:?}", summary.lost);
        summary
    }

    fn assert_restores(&self, snapshot: SessionId) {
        let target = tempfile::tempdir().unwrap();
        let options = RestoreOptions::new(snapshot, target.path());
        restore_with(&self.open(), &options).unwrap();
        assert_same(self.volume.path(), target.path());
    }

    fn without_cache(&self) -> Summary {
        let repository = Repository::open(Arc::clone(&self.store), World::system(), &secret(), Cache::none()).unwrap();
        backup::run(&repository, &LinuxFs, &Arc::new(Job::new()), &backup_options(self.volume.path(), 0)).unwrap()
    }

    /// Reads everything, and takes nothing over from any other snapshot.
    fn afresh(&self) -> Summary {
        let repository = Repository::open(Arc::clone(&self.store), World::system(), &secret(), Cache::none()).unwrap();
        let options = BackupOptions { parent: ParentChoice::None, ..backup_options(self.volume.path(), 0) };
        backup::run(&repository, &LinuxFs, &Arc::new(Job::new()), &options).unwrap()
    }

    fn root(&self, snapshot: Option<SessionId>) -> Entry {
        let (rows, _) = self.open().snapshots().unwrap();
        rows.into_iter().find(|row| Some(row.session) == snapshot).unwrap().snapshot.root
    }

    fn usage(&self, snapshot: Option<SessionId>) -> Usage {
        let repository = self.open();
        let (rows, _) = repository.snapshots().unwrap();
        let row = rows.iter().find(|row| Some(row.session) == snapshot).unwrap();
        let mut all = Usage::new();
        for name in &row.snapshot.usage {
            let bytes = self.store.get(&Key::new(usage_key(*name)).unwrap(), 1 << 24).unwrap();
            all.merge(&Usage::decode(repository.keys(), *name, &bytes, &mut Codec::new().unwrap()).unwrap());
        }
        all
    }

    /// The one stat cache that lies in the cache folder.
    fn file(&self) -> PathBuf {
        let found = find(self.cache.path(), "stat");
        let mut files: Vec<_> = std::fs::read_dir(found).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "nothing is left beside it: {files:?}");
        files.remove(0)
    }
}

/// A change of the volume, and what it is called.
type Step<'a> = (&'static str, Box<dyn Fn() + 'a>);

fn find(below: &Path, name: &str) -> PathBuf {
    let repository = std::fs::read_dir(below).unwrap().map(|e| e.unwrap().path()).find(|p| p.is_dir()).unwrap();
    repository.join(name)
}

fn settle() {
    std::thread::sleep(Duration::from_millis(50));
}

/// Files in two directories below the root, one in the root; their times are old.
fn small_volume(root: &Path) {
    for name in ["a", "b/c"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
        write(&root.join(name).join("f"), &noise(name.len() as u64, 3000));
    }
    write(&root.join("top"), b"top");
    settle();
}

#[test]
fn whatever_changes_the_snapshot_is_the_one_that_a_backup_without_a_cache_makes() {
    for workers in [0, 2] {
        let bench = Bench::new();
        let root = bench.volume.path();
        varied_volume(root);
        settle();
        bench.back_up(workers);
        let steps: Vec<Step> = vec![
            ("nothing", Box::new(|| {})),
            ("content", Box::new(|| write(&root.join("d0/e/f3"), b"other"))),
            ("new file", Box::new(|| write(&root.join("d1/e/new"), &noise(77, 9000)))),
            ("removed", Box::new(|| std::fs::remove_file(root.join("d1/e/f7")).unwrap())),
            ("mode", Box::new(|| mode(&root.join("d3/e/f3"), 0o444))),
            ("directory's mode", Box::new(|| mode(&root.join("empty"), 0o711))),
            ("new directory", Box::new(|| std::fs::create_dir(root.join("d0/e/deep")).unwrap())),
            ("directory moved", Box::new(|| std::fs::rename(root.join("d0/e/deep"), root.join("moved")).unwrap())),
            ("directory gone", Box::new(|| std::fs::remove_dir(root.join("moved")).unwrap())),
            (
                "link's target",
                Box::new(|| {
                    std::fs::remove_file(root.join("d1/absolute")).unwrap();
                    std::os::unix::fs::symlink("/etc/shadow", root.join("d1/absolute")).unwrap();
                }),
            ),
            (
                "same size, mtime set back",
                Box::new(|| {
                    let path = root.join("d2/e/f9");
                    let length = read(&path).len();
                    let before = std::fs::metadata(&path).unwrap().modified().unwrap();
                    write(&path, &noise(1234, length));
                    std::fs::File::options().write(true).open(&path).unwrap().set_modified(before).unwrap();
                }),
            ),
            ("nothing again", Box::new(|| {})),
        ];
        for (what, step) in steps {
            step();
            settle();
            let with = bench.back_up(workers);
            bench.assert_restores(with.snapshot.unwrap());
            let again = bench.back_up(workers);
            assert_eq!(again.counts.bytes_read, 0, "{what}");
            let without = bench.without_cache();
            assert_eq!(bench.root(again.snapshot), bench.root(without.snapshot), "{what}");
            assert_eq!(bench.root(with.snapshot), bench.root(without.snapshot), "{what}");
            assert_eq!(bench.usage(again.snapshot), bench.usage(without.snapshot), "{what}, workers {workers}");
            let counts =
                |s: &Summary| (s.counts.files, s.counts.directories, s.counts.others, s.counts.bytes, s.counts.files_unchanged);
            assert_eq!(counts(&again), counts(&without), "{what}");
        }
    }
}

/// A directory of many pieces, of which some are kept and some are not: at its ends and in the middle, with entries that come, go and change,
/// and directories among them.
#[test]
fn of_a_large_directory_with_a_few_changes_the_pieces_are_those_of_the_whole() {
    let bench = Bench::new();
    let big = bench.volume.path().join("big");
    let name = |n: u64| format!("entry-{:04}", n * 7 % 9000);
    std::fs::create_dir(&big).unwrap();
    for n in 0..1200 {
        write(&big.join(name(n)), &n.to_le_bytes());
    }
    for n in 0..6 {
        let below = big.join(format!("entry-{:04}-directory", n * 1500));
        std::fs::create_dir_all(below.join("deeper")).unwrap();
        write(&below.join("deeper/file"), b"in a directory");
    }
    settle();
    bench.back_up(2);
    let mut chance = 7u64;
    let mut below = move |bound: u64| {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (chance >> 33) % bound
    };
    let check = |what: &str, workers| {
        settle();
        let with = bench.back_up(workers);
        assert_eq!(bench.root(with.snapshot), bench.root(bench.afresh().snapshot), "{what}");
        let without = bench.without_cache();
        let counts = |s: &Summary| (s.counts.files, s.counts.directories, s.counts.bytes, s.counts.files_unchanged);
        let again = bench.back_up(2);
        assert_eq!((again.counts.bytes_read, counts(&again)), (0, counts(&without)), "{what}");
        assert_eq!(bench.usage(again.snapshot), bench.usage(without.snapshot), "{what}");
    };
    // Where the last piece ends with the directory it goes on when something follows, and ends elsewhere when its last entry goes.
    for n in 0..4 {
        write(&big.join(format!("zzz-{n}")), b"behind all others");
        check("behind all others", n);
    }
    std::fs::remove_file(big.join("zzz-3")).unwrap();
    check("the last one gone", 0);
    for round in 0..10u64 {
        for _ in 0..=below(4) {
            let path = big.join(name(below(1200)));
            match (round + below(3)) % 6 {
                0 => write(&path, format!("written in round {round}").as_bytes()),
                1 => drop(std::fs::remove_file(&path)),
                2 => write(&big.join(format!("{}-{round}", name(below(9000)))), b"new"),
                3 => write(&big.join(format!("a-{round}")), b"before all others"),
                4 => write(&big.join(format!("entry-{:04}-directory/deeper/file", below(6) * 1500)), &round.to_le_bytes()),
                _ => mode(&big, 0o700 + (round as u32 & 7)),
            }
        }
        check(&format!("round {round}"), round as usize % 3);
    }
    bench.assert_restores(bench.back_up(2).snapshot.unwrap());
}

#[test]
fn an_unchanged_volume_costs_no_tree_and_no_content() {
    let bench = Bench::new();
    varied_volume(bench.volume.path());
    settle();
    bench.back_up(2);
    let made = std::fs::read(bench.file()).unwrap();
    let ranges = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&ranges);
    let watch = Fault::new(Arc::clone(&bench.store), move |call: &Call<'_>| {
        if call.verb == Verb::GetRange {
            seen.fetch_add(1, Relaxed);
        }
        Effect::Pass
    });
    let repository = bench.open().with_store(Arc::new(watch));
    let summary = backup::run(&repository, &LinuxFs, &Arc::new(Job::new()), &backup_options(bench.volume.path(), 2)).unwrap();
    assert_eq!((summary.counts.bytes_read, summary.counts.bytes_stored, summary.counts.files_new), (0, 0, 0));
    assert_eq!(ranges.load(Relaxed), 0, "nothing of any pack is fetched");
    assert_eq!(std::fs::read(bench.file()).unwrap(), made, "the cache serves as it is");
}

#[test]
fn a_cache_that_is_damaged_changes_nothing() {
    let bench = Bench::new();
    small_volume(bench.volume.path());
    bench.back_up(0);
    let plain = bench.without_cache();
    let (root, usage) = (bench.root(plain.snapshot), bench.usage(plain.snapshot));
    let good = std::fs::read(bench.file()).unwrap();
    let check = |bytes: &[u8], what: &str| {
        write(&bench.file(), bytes);
        let got = bench.back_up(0);
        assert_eq!(bench.root(got.snapshot), root, "{what}");
        assert_eq!(bench.usage(got.snapshot), usage, "{what}");
        assert_eq!(got.counts.bytes_read, 0, "{what}: the parent still tells what is unchanged");
        // Only a few snapshots, so that listing them stays cheap.
        bench.open().remove_snapshot(got.snapshot.unwrap(), "test").unwrap();
    };
    // Each byte in turn is tried where the file is read; here a backup each, so some from all parts of it.
    for at in (0..good.len()).step_by(good.len() / 24) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        check(&bad, &format!("byte {at} of {}", good.len()));
    }
    for length in [0, 1, 39, good.len() / 2, good.len() - 1] {
        check(&good[..length], &format!("cut to {length}"));
    }
    check(&[&good[..], b"more"].concat(), "longer");
}

#[test]
fn a_cache_of_another_time_another_volume_or_another_repository_is_none() {
    let bench = Bench::new();
    small_volume(bench.volume.path());
    bench.back_up(0);
    let old = std::fs::read(bench.file()).unwrap();
    write(&bench.volume.path().join("a/f"), b"changed");
    settle();
    bench.back_up(0);
    write(&bench.file(), &old);
    let stale = bench.back_up(0);
    assert_eq!(bench.root(stale.snapshot), bench.root(bench.without_cache().snapshot), "an older state of the same volume");
    let other = Bench::new();
    small_volume(other.volume.path());
    other.back_up(0);
    write(&bench.file(), &std::fs::read(other.file()).unwrap());
    let foreign = bench.back_up(0);
    assert_eq!(bench.root(foreign.snapshot), bench.root(bench.without_cache().snapshot), "another repository's");
    bench.assert_restores(foreign.snapshot.unwrap());
}

#[test]
fn what_the_cache_says_is_needed_is_looked_for_in_the_store_each_time() {
    let bench = Bench::new();
    small_volume(bench.volume.path());
    bench.back_up(0);
    for entry in bench.store.list("packs/", None, 100).unwrap().entries {
        bench.store.delete(&entry.key).unwrap();
    }
    let healed = bench.back_up(0);
    assert_eq!(healed.counts.files_unchanged, 0);
    bench.assert_restores(healed.snapshot.unwrap());
    assert_eq!(bench.back_up(0).counts.bytes_read, 0, "the new frames are known");
}

#[test]
fn the_cache_is_for_its_owner_alone() {
    use std::os::unix::fs::MetadataExt;
    let bench = Bench::new();
    small_volume(bench.volume.path());
    bench.back_up(0);
    assert_eq!(std::fs::metadata(bench.file()).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(std::fs::metadata(bench.file().parent().unwrap()).unwrap().mode() & 0o7777, 0o700);
}

fn mode(path: &Path, bits: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(bits)).unwrap();
}
