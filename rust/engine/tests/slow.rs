//! Sources and stores slower than the engine, one processor and sixty-four: no more is underway than the budget allows, what is told of the
//! progress is true, and whoever could be at work is. What is slow waits for an event and not for a time.

#![expect(clippy::unwrap_used, reason = "a test makes its own files and may fail loudly")]

mod common;

use bytes::Bytes;
use common::counted::{CountedFs, Reads};
use common::{backup_options, init};
use longshore_engine::backup::{self, BackupOptions, ParentChoice, Summary};
use longshore_engine::job::Job;
use longshore_engine::volume::made_up::MadeUpFs;
use longshore_store::{Key, MemoryStore, Page, Put, Store, StoreError};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

const MIB: u64 = 1 << 20;
const BUDGET_BYTES: usize = 64 << 20;
const FILES: u64 = 12;
const FILE_BYTES: u64 = 16 * MIB;
const TOTAL_BYTES: u64 = FILES * FILE_BYTES;
/// Whoever waits so long for others waits in vain: what is asserted then fails.
const PATIENCE: Duration = Duration::from_secs(30);

fn volume(fs: &MadeUpFs) {
    let root = fs.root().create_dir(b"source").unwrap();
    for n in 0..FILES {
        fs.create_seeded_file(&*root, format!("file {n}").as_bytes(), n, FILE_BYTES).unwrap();
    }
}

fn options(workers: usize) -> BackupOptions {
    BackupOptions {
        memory_budget_bytes: BUDGET_BYTES,
        parent: ParentChoice::None,
        ..backup_options(Path::new("/source"), workers)
    }
}

fn sum(reads: &Reads) -> u64 {
    reads.lock().unwrap().iter().map(|(_, _, bytes)| bytes).sum()
}

/// What is told of the progress never runs ahead of what was read.
fn assert_true(job: &Job, reads: &Reads) {
    let done = job.progress().bytes_done;
    let read = sum(reads);
    assert!(done <= read, "told {done} of {read} that were read");
}

/// A store that takes a pack only when everybody who reads has come to a stand, as they must when nothing is taken.
#[derive(Debug)]
struct Slow {
    inner: Arc<MemoryStore>,
    reads: Reads,
    job: Arc<Job>,
    taken_bytes: AtomicU64,
    underway_bytes_max: AtomicU64,
}

impl Slow {
    /// Waits until nothing more is read. On a machine too busy for that it waits too short a time, which finds less and accuses nobody.
    fn come_to_a_stand(&self) {
        let (mut before, mut still) = (sum(&self.reads), 0);
        while still < 20 {
            std::thread::sleep(Duration::from_millis(2));
            let now = sum(&self.reads);
            still = if now == before { still + 1 } else { 0 };
            before = now;
        }
    }
}

impl Store for Slow {
    fn put_new(&self, key: &Key, body: Bytes) -> Result<Put, StoreError> {
        if key.as_str().starts_with("packs/") {
            self.come_to_a_stand();
            assert_true(&self.job, &self.reads);
            let read = sum(&self.reads);
            self.underway_bytes_max.fetch_max(read - self.taken_bytes.load(SeqCst).min(read), SeqCst);
            self.taken_bytes.fetch_add(body.len() as u64, SeqCst);
        }
        self.inner.put_new(key, body)
    }
    fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes, StoreError> {
        self.inner.get(key, limit_bytes)
    }
    fn get_range(&self, key: &Key, offset_bytes: u64, length_bytes: u64) -> Result<Bytes, StoreError> {
        self.inner.get_range(key, offset_bytes, length_bytes)
    }
    fn head(&self, key: &Key) -> Result<u64, StoreError> {
        self.inner.head(key)
    }
    fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Page, StoreError> {
        self.inner.list(prefix, after, limit)
    }
    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.inner.delete(key)
    }
    fn describe(&self) -> String {
        self.inner.describe()
    }
}

fn into_a_slow_store(workers: usize) -> (Summary, u64) {
    let fs = CountedFs::new(MadeUpFs::default());
    volume(&fs.inner);
    let job = Arc::new(Job::new());
    let slow = Arc::new(Slow {
        inner: Arc::default(),
        reads: Arc::clone(&fs.reads),
        job: Arc::clone(&job),
        taken_bytes: AtomicU64::new(0),
        underway_bytes_max: AtomicU64::new(0),
    });
    let repository = init(Arc::<Slow>::clone(&slow));
    let summary = backup::run(&repository, &fs, &job, &options(workers)).unwrap();
    assert_eq!((summary.exit_code, summary.counts.bytes_read), (0, TOTAL_BYTES), "{:?}", summary.lost);
    assert_eq!(job.progress().bytes_done, TOTAL_BYTES);
    (summary, slow.underway_bytes_max.load(SeqCst))
}

#[test]
fn a_store_slower_than_everything_holds_the_readers_within_the_budget() {
    for workers in [1, 2, 64] {
        let (_, underway) = into_a_slow_store(workers);
        let bound = options(workers).underway().bytes();
        assert!(bound < BUDGET_BYTES as u64, "the bound is beyond the budget: {bound}");
        assert!(underway <= bound, "workers={workers} underway={underway} bound={bound}");
        // It does go ahead of the store while it may.
        assert!(underway > 8 * MIB, "workers={workers} underway={underway}");
    }
}

#[test]
fn a_source_slower_than_the_engine_is_read_by_all_threads_at_once() {
    const WORKERS: usize = 4;
    let fs = CountedFs::new(MadeUpFs::default());
    volume(&fs.inner);
    let job = Arc::new(Job::new());
    // Each read waits until all threads are in one: those who read one after another never are.
    let (inside, met) = (Arc::new((Mutex::new(0), Condvar::new())), Arc::new(AtomicUsize::new(0)));
    let (at, most, its_job, reads) = (Arc::clone(&inside), Arc::clone(&met), Arc::clone(&job), Arc::clone(&fs.reads));
    let in_vain = AtomicBool::new(false);
    fs.inner.set_hook(Some(Arc::new(move |call| {
        if call.call == "read file" {
            assert_true(&its_job, &reads);
            let mut now = at.0.lock().unwrap();
            *now += 1;
            most.fetch_max(*now, SeqCst);
            at.1.notify_all();
            let few = |_: &mut usize| most.load(SeqCst) < WORKERS && !in_vain.load(SeqCst);
            let (mut now, waited) = at.1.wait_timeout_while(now, PATIENCE, few).unwrap();
            *now -= 1;
            in_vain.fetch_or(waited.timed_out(), SeqCst);
        }
        None
    })));
    let repository = init(Arc::new(MemoryStore::new()));
    let roomy = BackupOptions { memory_budget_bytes: 256 << 20, ..options(WORKERS) };
    let summary = backup::run(&repository, &fs, &job, &roomy).unwrap();
    assert_eq!((summary.exit_code, summary.counts.bytes_read), (0, TOTAL_BYTES), "{:?}", summary.lost);
    assert_eq!(met.load(SeqCst), WORKERS, "so many were in the source at once at most");
}

#[test]
fn one_thread_and_sixty_four_make_the_same_snapshot() {
    let fs = MadeUpFs::default();
    volume(&fs);
    let repository = init(Arc::new(MemoryStore::new()));
    let roots = [1, 64, 0].map(|workers| {
        // With room for all of them: in less there are fewer.
        let options = BackupOptions { memory_budget_bytes: 4 << 30, ..options(workers) };
        assert!(options.underway().packs >= workers as u64);
        let summary = backup::run(&repository, &fs, &Arc::new(Job::new()), &options).unwrap();
        assert_eq!((summary.exit_code, summary.counts.bytes_read), (0, TOTAL_BYTES));
        let id = longshore_format::snapshot::public_id(summary.snapshot.unwrap());
        (repository.find_snapshot(&id, None).unwrap().snapshot.root, summary.counts.bytes_stored)
    });
    let first_stored = roots[0].1;
    assert!(first_stored > TOTAL_BYTES, "noise is stored whole");
    for (root, stored) in &roots[1..] {
        assert!(root == &roots[0].0, "other chunks or other trees");
        assert!(*stored < 64 << 10, "stored={stored}");
    }
}
