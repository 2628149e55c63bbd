//! Holds traffic to so many bytes a second, up and down apart.
//!
//! A token bucket that may go into debt: a body is sent whole once earlier debt is paid, then is debt itself. So over any time t at
//! most rate × (t + 1 s) and one body go through. A rate can change while requests wait: they look again four times a second.

use crate::{Clock, Key, Page, Put, Store, StoreError};
use bytes::Bytes;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const LOOK_AGAIN: Duration = Duration::from_millis(250);
const BURST_SECONDS: f64 = 1.0;

/// A rate in bytes a second that can be changed while it is used; zero is no limit.
#[derive(Debug, Default)]
pub struct Rate(AtomicU64);

impl Rate {
    /// A rate to begin with.
    #[must_use]
    pub fn new(bytes_per_second: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(bytes_per_second)))
    }

    /// From now on.
    pub fn set(&self, bytes_per_second: u64) {
        self.0.store(bytes_per_second, Ordering::Relaxed);
    }

    /// What holds now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Bucket {
    rate: Arc<Rate>,
    // Bytes sent and not yet paid for; may be above the burst by one body for each caller. And when it was last settled.
    debt: Mutex<(f64, Duration)>,
}

impl Bucket {
    fn new(rate: Arc<Rate>, clock: &dyn Clock) -> Self {
        Self { rate, debt: Mutex::new((0.0, clock.monotonic())) }
    }

    /// Waits until earlier debt is paid, then takes on `bytes`.
    #[allow(clippy::cast_precision_loss, reason = "an error of one part in 2^53 of a rate is none")]
    fn pass(&self, bytes: u64, clock: &dyn Clock) {
        loop {
            let rate = self.rate.get() as f64;
            let wait = {
                let mut guard = self.debt.lock().unwrap_or_else(PoisonError::into_inner);
                let now = clock.monotonic();
                let paid = rate * now.saturating_sub(guard.1).as_secs_f64();
                let debt = (guard.0 - paid).max(0.0);
                let owed = debt - rate * BURST_SECONDS;
                if rate == 0.0 || owed <= 0.0 {
                    // Without a limit nothing is owed, so that a limit set later begins fresh.
                    *guard = (if rate == 0.0 { 0.0 } else { debt + bytes as f64 }, now);
                    return;
                }
                *guard = (debt, now);
                owed / rate
            };
            // At least a millisecond: a pause that rounds to nothing would never end on a clock that only sleeping turns.
            clock.sleep(Duration::from_secs_f64(wait.clamp(0.001, LOOK_AGAIN.as_secs_f64())));
        }
    }
}

/// A store with a bounded rate.
#[derive(Debug)]
pub struct Throttle<S> {
    inner: S,
    up: Bucket,
    down: Bucket,
    clock: Arc<dyn Clock>,
}

impl<S: Store> Throttle<S> {
    /// Bounds what goes up and what comes down; keep the rates to change them.
    pub fn new(inner: S, up: Arc<Rate>, down: Arc<Rate>, clock: Arc<dyn Clock>) -> Self {
        Self { inner, up: Bucket::new(up, &*clock), down: Bucket::new(down, &*clock), clock }
    }
}

impl<S: Store> Store for Throttle<S> {
    fn put_new(&self, key: &Key, body: Bytes) -> Result<Put, StoreError> {
        self.up.pass(body.len() as u64, &*self.clock);
        self.inner.put_new(key, body)
    }

    fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes, StoreError> {
        self.down.pass(0, &*self.clock);
        let body = self.inner.get(key, limit_bytes)?;
        // Its length is known only now: the next one pays.
        let mut debt = self.down.debt.lock().unwrap_or_else(PoisonError::into_inner);
        if self.down.rate.get() > 0 {
            #[allow(clippy::cast_precision_loss, reason = "an error of one part in 2^53 of a rate is none")]
            {
                debt.0 += body.len() as f64;
            }
        }
        drop(debt);
        Ok(body)
    }

    fn get_range(&self, key: &Key, offset_bytes: u64, length_bytes: u64) -> Result<Bytes, StoreError> {
        // Bounded: a length from a forged index must not block the bucket for a year; the store refuses it anyway.
        self.down.pass(length_bytes.min(1 << 26), &*self.clock);
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
