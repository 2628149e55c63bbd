//! A restore that was killed at any call is gone on from by the next one into the same target: what stands is neither fetched nor
//! written again, what was left under temporary names is gone, and what is a tenant's stays.
//!
//! "Killed" is a filesystem on which from one call on nothing more happens, not even a removal.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test makes its own files and may fail loudly")]

mod common;

use common::counted::CountedFs;
use common::{assert_same, back_up, backup_options, init, noise, restore_with, secret, varied_volume, write};
use longshore_engine::job::Job;
use longshore_engine::repository::Repository;
use longshore_engine::repository::cache::Cache;
use longshore_engine::restore::{RestoreOptions, RestoreSummary, run};
use longshore_engine::seams::World;
use longshore_engine::volume::made_up::{Call, MadeUpFs};
use longshore_engine::volume::{Dir, Kind, LinuxFs, VolumeErrorKind};
use longshore_format::id::SessionId;
use longshore_store::layers::{Count, Counts};
use longshore_store::{MemoryStore, Store};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

const LARGE_BYTES: u64 = 20 << 20;
const SMALL_BYTES: u64 = 100_000;
const FILES: u64 = 12;
const ALL_BYTES: u64 = LARGE_BYTES + FILES * SMALL_BYTES;
const TENANTS: [&[u8]; 3] =
    [b".longshore-restore-", b".longshore-restore-0123456789ab-7", b".longshore-restore-0123456789ab-0123456789abcdef-0"];

type Seen = BTreeMap<Vec<u8>, (Kind, u32, u64, Vec<u8>)>;

fn look(dir: &dyn Dir, path: &[u8], out: &mut Seen) {
    for name in dir.names().unwrap() {
        let stat = dir.stat(&name).unwrap();
        let below = [path, b"/", &name].concat();
        let mut bytes = vec![];
        if stat.kind == Kind::File {
            bytes.resize(stat.size_bytes as usize, 0);
            dir.open_file(&name).unwrap().read_at(0, &mut bytes).unwrap();
        } else {
            look(&*dir.open_dir(&name).unwrap(), &below, out);
        }
        out.insert(below, (stat.kind, stat.mode, stat.size_bytes, blake3::hash(&bytes).as_bytes().to_vec()));
    }
}

fn seen(fs: &MadeUpFs, name: &[u8]) -> Seen {
    let mut out = Seen::new();
    look(&*fs.root().open_dir(name).unwrap(), b"", &mut out);
    out
}

struct Bench {
    fs: CountedFs<MadeUpFs>,
    repository: Repository,
    counts: Arc<Counts>,
    snapshot: SessionId,
    _cache: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let fs = MadeUpFs::default();
        let source = fs.root().create_dir(b"source").unwrap();
        for name in [b"a", b"b"] {
            let dir = source.create_dir(name).unwrap();
            for n in 0..FILES / 2 {
                let file = dir.create_file(format!("f{n}").as_bytes()).unwrap();
                file.write_at(0, &noise(n + u64::from(name[0]) * 100, SMALL_BYTES as usize)).unwrap();
            }
        }
        source.create_file(b"large").unwrap().write_at(0, &noise(9, LARGE_BYTES as usize)).unwrap();
        let (store, counts) = (Arc::new(MemoryStore::new()), Arc::new(Counts::default()));
        let snapshot = init(Arc::<MemoryStore>::clone(&store));
        let options = backup_options(Path::new("/source"), 0);
        let snapshot = longshore_engine::backup::run(&snapshot, &fs, &Arc::new(Job::new()), &options).unwrap().snapshot.unwrap();
        let counted: Arc<dyn Store> = Arc::new(Count::new(store, Arc::clone(&counts)));
        let cache = tempfile::tempdir().unwrap();
        let repository = Repository::open(counted, World::system(), &secret(), Cache::at(cache.path())).unwrap();
        Self { fs: CountedFs::new(fs), repository, counts, snapshot, _cache: cache }
    }

    fn restore(&self, job: &Arc<Job>) -> longshore_engine::Result<RestoreSummary> {
        let options = RestoreOptions { workers: 0, ..RestoreOptions::new(self.snapshot, "/target") };
        run(&self.repository, &self.fs, job, &options)
    }

    /// A target with other content under the names of all small files, so that each is written under a temporary one first.
    fn target(&self) {
        let target = self.fs.inner.root().create_dir(b"target").unwrap();
        for name in [b"a", b"b"] {
            let dir = target.create_dir(name).unwrap();
            for n in 0..FILES / 2 {
                dir.create_file(format!("f{n}").as_bytes()).unwrap().write_at(0, b"old").unwrap();
            }
            for tenant in TENANTS {
                dir.create_file(tenant).unwrap().write_at(0, b"mine").unwrap();
            }
        }
    }

    /// Restores until the `nth` call of the filesystem. What was written.
    fn killed(&self, nth: u64) -> u64 {
        let (job, calls, dead) = (Arc::new(Job::new()), AtomicU64::new(0), AtomicBool::new(false));
        let cancel = Arc::clone(&job);
        self.fs.take_written();
        self.fs.inner.set_hook(Some(Arc::new(move |_: Call<'_>| {
            if calls.fetch_add(1, SeqCst) == nth {
                dead.store(true, SeqCst);
                cancel.cancel();
            }
            dead.load(SeqCst).then_some(VolumeErrorKind::Io)
        })));
        self.restore(&job).unwrap_err();
        self.fs.inner.set_hook(None);
        self.fs.take_written()
    }

    fn calls(&self) -> u64 {
        self.target();
        let calls = Arc::new(Mutex::new(0));
        let counter = Arc::clone(&calls);
        self.fs.inner.set_hook(Some(Arc::new(move |_: Call<'_>| {
            *counter.lock().unwrap() += 1;
            None
        })));
        let summary = self.restore(&Arc::new(Job::new())).unwrap();
        assert_eq!((summary.files_resumed, summary.bytes_resumed), (0, 0));
        self.fs.inner.set_hook(None);
        self.fs.inner.root().remove_all(b"target").unwrap();
        *calls.lock().unwrap()
    }
}

#[test]
fn a_restore_that_dies_at_any_call_is_gone_on_from_and_leaves_nothing() {
    let bench = Bench::new();
    let mut source = seen(&bench.fs.inner, b"source");
    for (dir, tenant) in ["/a/", "/b/"].iter().flat_map(|dir| TENANTS.map(|tenant| (dir, tenant))) {
        let hash = blake3::hash(b"mine").as_bytes().to_vec();
        source.insert([dir.as_bytes(), tenant].concat(), (Kind::File, 0o600, 4, hash));
    }
    let calls = bench.calls();
    assert!(calls > 150, "{calls}");
    let (mut left, mut resumed) = (0, 0);
    for nth in 4..calls - 1 {
        bench.target();
        let before = bench.killed(nth);
        let leftovers = seen(&bench.fs.inner, b"target").keys().filter(|path| !source.contains_key(*path)).count();
        left += leftovers;
        let fetched = bench.counts.bytes_down();
        let summary = bench.restore(&Arc::new(Job::new())).unwrap();
        assert_eq!(summary.exit_code, 0, "call {nth}: {:?}", summary.losses);
        assert!(seen(&bench.fs.inner, b"target") == source, "call {nth}");
        let (written, fetched) = (bench.fs.take_written(), bench.counts.bytes_down() - fetched);
        assert_eq!(written, summary.bytes_written, "call {nth}");
        // At most the file that was under way is written again, or of a large one what was under way of it.
        assert!(before + written <= ALL_BYTES + (4 << 20), "call {nth}: {before} + {written} of {ALL_BYTES}");
        assert!(fetched <= written + (3 << 20), "call {nth}: {fetched} fetched for {written}");
        assert_eq!(summary.bytes_resumed + written, ALL_BYTES, "call {nth}");
        resumed += summary.bytes_resumed;
        // The next one has nothing to go on from.
        assert_eq!(bench.restore(&Arc::new(Job::new())).unwrap().files_resumed, 0, "call {nth}");
        bench.fs.inner.root().remove_all(b"target").unwrap();
    }
    println!("calls: {calls}, files left by the dead: {left}, bytes not written again: {resumed}");
    assert!(left > 40 && resumed > 20 * ALL_BYTES, "{left} {resumed}");
}

#[test]
fn while_another_restore_holds_the_target_nothing_of_it_is_removed() {
    let (volume, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(&volume.path().join("a"), b"content");
    let repository = init(Arc::new(MemoryStore::new()));
    let snapshot = back_up(&repository, volume.path());
    // A name as a restore makes it, got from one that dies over an old file.
    let fs = MadeUpFs::default();
    let dir = fs.root().create_dir(b"target").unwrap();
    dir.create_file(b"a").unwrap().write_at(0, b"old").unwrap();
    let job = Arc::new(Job::new());
    let cancel = Arc::clone(&job);
    fs.set_hook(Some(Arc::new(move |call: Call<'_>| {
        let dead = job_is_dead(&cancel, call);
        dead.then_some(VolumeErrorKind::Io)
    })));
    let options = RestoreOptions { workers: 0, ..RestoreOptions::new(snapshot, "/target") };
    run(&repository, &fs, &job, &options).unwrap_err();
    fs.set_hook(None);
    let name = dir.names().unwrap().into_iter().find(|name| name.starts_with(b".longshore-restore-")).unwrap();
    let left = target.path().join(String::from_utf8(name).unwrap());
    write(&left, b"half");
    let held = std::fs::File::open(target.path()).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    let options = RestoreOptions::new(snapshot, target.path());
    restore_with(&repository, &options).unwrap();
    assert!(left.exists());
    drop(held);
    // Another repository's key did not make it.
    let other = init(Arc::new(MemoryStore::new()));
    let theirs = back_up(&other, volume.path());
    restore_with(&other, &RestoreOptions::new(theirs, target.path())).unwrap();
    assert!(left.exists());
    // A directory of that name is nobody's temporary file.
    std::fs::remove_file(&left).unwrap();
    std::fs::create_dir(&left).unwrap();
    restore_with(&repository, &options).unwrap();
    assert!(left.exists());
    std::fs::remove_dir(&left).unwrap();
    write(&left, b"half");
    restore_with(&repository, &options).unwrap();
    assert!(!left.exists());
}

/// From the first write of content on.
fn job_is_dead(job: &Job, call: Call<'_>) -> bool {
    if call.call == "write file" {
        job.cancel();
    }
    job.is_cancelled()
}

#[test]
fn everything_that_stands_is_left_alone_with_holes_zeros_and_links() {
    let (volume, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    varied_volume(volume.path());
    let repository = init(Arc::new(MemoryStore::new()));
    let snapshot = back_up(&repository, volume.path());
    let options = RestoreOptions::new(snapshot, target.path());
    let fs = CountedFs::new(LinuxFs);
    let first = run(&repository, &fs, &Arc::new(Job::new()), &options).unwrap();
    assert!(first.bytes_written > 0 && fs.take_written() == first.bytes_written);
    let second = run(&repository, &fs, &Arc::new(Job::new()), &options).unwrap();
    assert_eq!((second.bytes_written, fs.take_written()), (0, 0), "{second:?}");
    assert_same(volume.path(), target.path());
    // Holes that were filled with zeros are holes again.
    let dense = std::fs::OpenOptions::new().write(true).open(target.path().join("sparse")).unwrap();
    rustix::io::pwrite(&dense, &vec![0; 4 << 20], 0).unwrap();
    drop(dense);
    run(&repository, &fs, &Arc::new(Job::new()), &options).unwrap();
    assert_eq!(fs.take_written(), 0);
    assert_same(volume.path(), target.path());
}
