//! A store under pressure: it is asked less at once, and left alone for as long as it asks. And limits that several share.

use super::tests::{Crowd, rush};
use super::*;
use crate::{Clock, Key, MemoryStore, Page, Put, SeededRng, Store, StoreError, StoreErrorKind, VirtualClock};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Refuses what is more than `most` at once, as a store under pressure does.
#[derive(Debug)]
struct Pressed {
    inner: MemoryStore,
    most: usize,
    now: AtomicUsize,
    refused: AtomicUsize,
}

impl Store for Pressed {
    fn put_new(&self, key: &Key, body: Bytes) -> Result<Put, StoreError> {
        self.inner.put_new(key, body)
    }
    fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes, StoreError> {
        let many = self.now.fetch_add(1, Ordering::SeqCst) >= self.most;
        std::thread::sleep(Duration::from_millis(2));
        self.now.fetch_sub(1, Ordering::SeqCst);
        if many {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(StoreError::new(StoreErrorKind::Unavailable, "slow down"));
        }
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

#[test]
fn a_limit_that_adapts_grows_while_it_is_answered_and_halves_when_it_is_refused() {
    let crowd = |most: usize| {
        let pressed = Pressed { inner: MemoryStore::new(), most, now: AtomicUsize::new(0), refused: AtomicUsize::new(0) };
        pressed.put_new(&Key::new("a").unwrap(), Bytes::from_static(b"x")).unwrap();
        let permits = Permits::adaptive(2, 16);
        let store = Arc::new(Limit::new(pressed, Arc::clone(&permits)));
        let threads: Vec<_> = (0..16)
            .map(|_| {
                let store = Arc::clone(&store);
                std::thread::spawn(move || {
                    for _ in 0..40 {
                        let _ = store.get(&Key::new("a").unwrap(), 10);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        permits
    };
    let glad = crowd(100);
    assert!(glad.allowed() >= 12, "{}", glad.allowed());
    let pressed = crowd(4);
    assert!(pressed.allowed() <= 8, "{}", pressed.allowed());
    let permits = Permits::adaptive(8, 16);
    let refusing = Fault::new(MemoryStore::new(), |_: &Call<'_>| Effect::FailBefore(StoreErrorKind::Unavailable));
    let lone = Limit::new(refusing, Arc::clone(&permits));
    for expected in [4, 2, 1, 1] {
        assert!(lone.head(&Key::new("a").unwrap()).is_err());
        assert_eq!(permits.allowed(), expected);
    }
}

#[test]
fn a_store_that_names_a_time_is_left_alone_for_so_long() {
    #[derive(Debug)]
    struct Busy(MemoryStore, AtomicUsize);
    impl Store for Busy {
        fn put_new(&self, key: &Key, body: Bytes) -> Result<Put, StoreError> {
            self.0.put_new(key, body)
        }
        fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes, StoreError> {
            self.0.get(key, limit_bytes)
        }
        fn get_range(&self, key: &Key, offset_bytes: u64, length_bytes: u64) -> Result<Bytes, StoreError> {
            self.0.get_range(key, offset_bytes, length_bytes)
        }
        fn head(&self, _: &Key) -> Result<u64, StoreError> {
            if self.1.fetch_add(1, Ordering::SeqCst) == 0 {
                let error = StoreError::new(StoreErrorKind::Unavailable, "slow down");
                return Err(error.with_retry_after(Some(Duration::from_secs(30))));
            }
            Ok(1)
        }
        fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Page, StoreError> {
            self.0.list(prefix, after, limit)
        }
        fn delete(&self, key: &Key) -> Result<(), StoreError> {
            self.0.delete(key)
        }
        fn describe(&self) -> String {
            self.0.describe()
        }
    }
    let clock = Arc::new(VirtualClock::new());
    let busy = Busy(MemoryStore::new(), AtomicUsize::new(0));
    let retry = Retry::new(busy, RetrySettings::default(), Arc::clone(&clock) as _, Arc::new(SeededRng::new(1)));
    assert_eq!(retry.head(&Key::new("a").unwrap()).unwrap(), 1);
    assert!(clock.monotonic() >= Duration::from_secs(30), "{:?}", clock.monotonic());
}

#[test]
fn those_who_share_a_rate_keep_to_it_together() {
    let clock = Arc::new(VirtualClock::new());
    let (rate, memory) = (Rate::new(1000), Arc::new(MemoryStore::new()));
    memory.put_new(&Key::new("a").unwrap(), Bytes::from(vec![0; 500])).unwrap();
    let stores: Vec<_> = (0..5).map(|_| Throttle::new(memory.clone(), Rate::new(0), rate.clone(), clock.clone())).collect();
    for n in 0..30 {
        stores[n % 5].get_range(&Key::new("a").unwrap(), 0, 500).unwrap();
    }
    let took = clock.monotonic().as_secs_f64();
    assert!((13.0..=15.0).contains(&took), "took {took} s");
}

#[test]
fn who_is_cancelled_waits_no_more() {
    let clock = Arc::new(VirtualClock::new());
    let cancelled = Arc::new(AtomicBool::new(false));
    let rate = Rate::new(1);
    let store = Throttle::new(MemoryStore::new(), rate.clone(), Rate::new(0), clock.clone()).with_cancel(cancelled.clone());
    store.put_new(&Key::new("a").unwrap(), Bytes::from(vec![0; 1000])).unwrap();
    cancelled.store(true, Ordering::Relaxed);
    store.put_new(&Key::new("b").unwrap(), Bytes::from(vec![0; 1000])).unwrap();
    assert_eq!(clock.monotonic(), Duration::ZERO);
    // What it sent is paid by the next.
    let next = Throttle::new(MemoryStore::new(), rate, Rate::new(0), clock.clone());
    next.put_new(&Key::new("a").unwrap(), Bytes::new()).unwrap();
    assert_eq!(clock.monotonic().as_secs(), 1999);
}

#[test]
fn stores_that_share_limits_are_bounded_together_and_zero_lifts_the_bound() {
    let (crowd, limits) = (Arc::new(Crowd::default()), Limits::default());
    let both = || {
        std::thread::scope(|scope| {
            for _ in 0..2 {
                // A layer of its own for each, as repositories have.
                scope.spawn(|| rush(&limits.of_requests(crowd.clone())));
            }
        });
        crowd.most.swap(0, Ordering::SeqCst)
    };
    limits.set_requests(2);
    assert_eq!(both(), 2);
    limits.set_requests(0);
    assert!(both() > 2, "24 threads, no bound");
}
