//! Limits that several jobs share, in made-up time: what all of them send stays within one rate, and a rate that is changed or lifted
//! while they wait holds from then on. Nobody sleeps: the clock is turned by those who would.

#![expect(clippy::unwrap_used, reason = "a test makes its own files and may fail loudly")]

mod common;

use bytes::Bytes;
use common::{backup_options, init};
use longshore_engine::backup::{self, BackupOptions, ParentChoice};
use longshore_engine::job::Job;
use longshore_engine::volume::made_up::MadeUpFs;
use longshore_store::layers::Limits;
use longshore_store::{Clock, Key, MemoryStore, Page, Put, Store, StoreError, VirtualClock};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const MIB: u64 = 1 << 20;
const BURST_SECONDS: f64 = 1.0;

type Deed = Box<dyn FnOnce() + Send>;

/// A clock that does something when it has come to a time.
struct Agenda {
    clock: VirtualClock,
    deeds: Mutex<Vec<(Duration, Deed)>>,
}

impl std::fmt::Debug for Agenda {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.clock.fmt(f)
    }
}

impl Clock for Agenda {
    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }
    fn wall_nanos(&self) -> i64 {
        self.clock.wall_nanos()
    }
    fn sleep(&self, duration: Duration) {
        self.clock.sleep(duration);
        let now = self.monotonic();
        let due: Vec<_> = {
            let mut deeds = self.deeds.lock().unwrap();
            deeds.extract_if(.., |(at, _)| *at <= now).collect()
        };
        due.into_iter().for_each(|(_, deed)| deed());
    }
}

/// A store below the limits, which notes when each body came and how long it is.
#[derive(Debug)]
struct Noted {
    inner: Arc<MemoryStore>,
    clock: Arc<dyn Clock>,
    bodies: Arc<Mutex<Vec<(f64, u64)>>>,
}

impl Store for Noted {
    fn put_new(&self, key: &Key, body: Bytes) -> Result<Put, StoreError> {
        self.bodies.lock().unwrap().push((self.clock.monotonic().as_secs_f64(), body.len() as u64));
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

/// Runs jobs at once, each of a volume and a repository of its own with these limits, and gives what came into their stores and when.
fn run(jobs: u64, volume_bytes: u64, workers: usize, limits: &Limits, clock: &Arc<dyn Clock>) -> Vec<(f64, u64)> {
    let bodies = Arc::new(Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for n in 0..jobs {
            let (clock, bodies) = (Arc::clone(clock), Arc::clone(&bodies));
            scope.spawn(move || {
                let fs = MadeUpFs::default();
                let root = fs.root().create_dir(b"source").unwrap();
                fs.create_seeded_file(&*root, b"noise", n, volume_bytes).unwrap();
                // What a repository is born with is sent before anything is limited, and is not noted.
                let inner = Arc::new(MemoryStore::new());
                let repository = init(Arc::<MemoryStore>::clone(&inner));
                let store = Arc::new(Noted { inner, clock: Arc::clone(&clock), bodies });
                let repository = repository.with_store(Arc::new(limits.of_traffic(limits.of_requests(store), clock)));
                let options = BackupOptions {
                    memory_budget_bytes: 64 << 20,
                    parent: ParentChoice::None,
                    ..backup_options(Path::new("/source"), workers)
                };
                let summary = backup::run(&repository, &fs, &Arc::new(Job::new()), &options).unwrap();
                assert_eq!((summary.exit_code, summary.counts.bytes_read), (0, volume_bytes));
            });
        }
    });
    let mut bodies = std::mem::take(&mut *bodies.lock().unwrap());
    bodies.sort_by(|a, b| a.0.total_cmp(&b.0));
    bodies
}

fn sum(bodies: &[(f64, u64)], from: f64, to: f64) -> f64 {
    bodies.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, bytes)| *bytes as f64).sum()
}

fn longest(bodies: &[(f64, u64)]) -> f64 {
    bodies.iter().map(|(_, bytes)| *bytes).max().unwrap() as f64
}

#[test]
fn three_jobs_together_keep_to_the_rate_that_one_has_alone() {
    let rate = (2 * MIB) as f64;
    for jobs in [1, 3] {
        let (limits, clock): (_, Arc<dyn Clock>) = (Limits::default(), Arc::new(VirtualClock::new()));
        limits.set_traffic(2 * MIB, 0);
        let bodies = run(jobs, 48 * MIB, 2, &limits, &clock);
        let one = longest(&bodies);
        // Up to any moment, not only in the end.
        let mut sent = 0.0;
        for (at, bytes) in &bodies {
            sent += *bytes as f64;
            assert!(sent <= rate * (at + BURST_SECONDS) + one, "jobs={jobs} at={at} sent={sent} one={one}");
        }
        assert!(sent > (jobs * 48 * MIB) as f64, "noise is stored whole: sent={sent}");
        // And nobody waits longer than the rate asks for.
        let took = clock.monotonic().as_secs_f64();
        assert!(took <= 1.5 * sent / rate, "jobs={jobs} took={took} sent={sent}");
    }
}

#[test]
fn a_rate_that_is_raised_and_lifted_while_jobs_wait_holds_at_once() {
    const SLOW: u64 = 1 << 10;
    const FAST: u64 = 2 * MIB;
    let limits = Limits::default();
    limits.set_traffic(SLOW, 0);
    let (raised, lifted) = (limits.clone(), limits.clone());
    let clock = Arc::new(Agenda {
        clock: VirtualClock::new(),
        deeds: Mutex::new(vec![
            (Duration::from_secs(100), Box::new(move || raised.set_traffic(FAST, 0))),
            (Duration::from_secs(130), Box::new(move || lifted.set_traffic(0, 0))),
        ]),
    });
    let bodies = run(2, 96 * MIB, 2, &limits, &(Arc::clone(&clock) as Arc<dyn Clock>));
    let one = longest(&bodies);
    // A job's first words are small, and its first pack goes out against a debt of hours.
    let before = sum(&bodies, 1.0, 100.0);
    assert!(before <= SLOW as f64 * 100.0 + one, "before={before} one={one}");
    let while_fast = sum(&bodies, 100.0, 130.0);
    assert!(while_fast <= FAST as f64 * 31.0 + one, "while_fast={while_fast}");
    assert!(while_fast >= FAST as f64 * 30.0 / 2.0 - one, "while_fast={while_fast}");
    let (last, total) = (bodies.last().unwrap().0, sum(&bodies, 0.0, f64::MAX));
    assert!(total > (2 * 96 * MIB) as f64);
    // All the rest at once: each who waited looks again within a quarter of a second.
    assert!(total - before - while_fast > (64 * MIB) as f64, "before={before} while_fast={while_fast} total={total}");
    assert!((130.0..135.0).contains(&last), "last={last}");
}
