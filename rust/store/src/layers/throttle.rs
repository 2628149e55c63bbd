//! Holds traffic to so many bytes a second, up and down apart.
//!
//! A token bucket that may go into debt: a body is sent whole once earlier debt is paid, then is debt itself. So over any time t at
//! most rate × (t + 1 s) and one body go through, however many stores share the rate. A rate can change while requests wait: they look
//! again four times a second. Who is cancelled waits no more; what it still asks is let through and paid by those who follow.

use crate::{Clock, Key, Page, Put, Store, StoreError};
use bytes::Bytes;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const LOOK_AGAIN: Duration = Duration::from_millis(250);
const BURST_SECONDS: f64 = 1.0;

/// A rate in bytes a second, shared by all that it bounds together and changed while it is used; zero is no limit.
#[derive(Debug, Default)]
pub struct Rate {
    bytes_per_second: AtomicU64,
    debt: Mutex<Debt>,
}

#[derive(Debug, Default)]
struct Debt {
    /// Bytes sent and not yet paid for; may be above the burst by one body for each caller.
    bytes: f64,
    /// When it was last settled.
    settled: Option<Duration>,
}

impl Rate {
    /// A rate to begin with.
    #[must_use]
    pub fn new(bytes_per_second: u64) -> Arc<Self> {
        Arc::new(Self { bytes_per_second: AtomicU64::new(bytes_per_second), debt: Mutex::default() })
    }

    /// From now on.
    pub fn set(&self, bytes_per_second: u64) {
        self.bytes_per_second.store(bytes_per_second, Ordering::Relaxed);
    }

    /// What holds now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.bytes_per_second.load(Ordering::Relaxed)
    }

    fn debt(&self) -> MutexGuard<'_, Debt> {
        self.debt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until earlier debt is paid, then takes on `bytes`.
    #[allow(clippy::cast_precision_loss, reason = "an error of one part in 2^53 of a rate is none")]
    fn pass(&self, bytes: u64, clock: &dyn Clock, cancelled: &AtomicBool) {
        loop {
            let rate = self.get() as f64;
            let wait = {
                let mut debt = self.debt();
                let now = clock.monotonic();
                let paid = rate * now.saturating_sub(debt.settled.unwrap_or(now)).as_secs_f64();
                let left = (debt.bytes - paid).max(0.0);
                let owed = left - rate * BURST_SECONDS;
                debt.settled = Some(now);
                if rate == 0.0 || owed <= 0.0 || cancelled.load(Ordering::Relaxed) {
                    // Without a limit nothing is owed, so that a limit set later begins fresh.
                    debt.bytes = if rate == 0.0 { 0.0 } else { left + bytes as f64 };
                    return;
                }
                debt.bytes = left;
                owed / rate
            };
            // At least a millisecond: a pause that rounds to nothing would never end on a clock that only sleeping turns.
            clock.sleep(Duration::from_secs_f64(wait.clamp(0.001, LOOK_AGAIN.as_secs_f64())));
        }
    }

    /// Takes on what turned out to have gone through.
    #[allow(clippy::cast_precision_loss, reason = "an error of one part in 2^53 of a rate is none")]
    fn owe(&self, bytes: u64) {
        if self.get() > 0 {
            self.debt().bytes += bytes as f64;
        }
    }
}

/// A store with a bounded rate.
#[derive(Debug)]
pub struct Throttle<S> {
    inner: S,
    up: Arc<Rate>,
    down: Arc<Rate>,
    clock: Arc<dyn Clock>,
    cancelled: Arc<AtomicBool>,
}

impl<S: Store> Throttle<S> {
    /// Bounds what goes up and what comes down; keep the rates to change them. All stores that share a rate have the same clock.
    pub fn new(inner: S, up: Arc<Rate>, down: Arc<Rate>, clock: Arc<dyn Clock>) -> Self {
        Self { inner, up, down, clock, cancelled: Arc::default() }
    }

    /// Ends waiting within a quarter of a second once `cancelled` is set.
    #[must_use]
    pub fn with_cancel(mut self, cancelled: Arc<AtomicBool>) -> Self {
        self.cancelled = cancelled;
        self
    }

    fn pass(&self, rate: &Rate, bytes: u64) {
        rate.pass(bytes, &*self.clock, &self.cancelled);
    }
}

impl<S: Store> Store for Throttle<S> {
    fn put_new(&self, key: &Key, body: Bytes) -> Result<Put, StoreError> {
        self.pass(&self.up, body.len() as u64);
        self.inner.put_new(key, body)
    }

    fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes, StoreError> {
        self.pass(&self.down, 0);
        let body = self.inner.get(key, limit_bytes)?;
        // Its length is known only now: the next one pays.
        self.down.owe(body.len() as u64);
        Ok(body)
    }

    fn get_range(&self, key: &Key, offset_bytes: u64, length_bytes: u64) -> Result<Bytes, StoreError> {
        // Bounded: a length from a forged index must not block the bucket for a year; the store refuses it anyway.
        self.pass(&self.down, length_bytes.min(1 << 26));
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
