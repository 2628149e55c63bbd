//! Rides out a store that cannot answer for a while: the only place that retries.
//!
//! Only [`StoreErrorKind::Unavailable`] is retried, after a pause that doubles and is drawn at random from its upper half, until the
//! budget of the call is spent. A put whose answer was lost may have taken effect; so when a later try finds the object there, it
//! is read and compared: the same bytes mean [`Put::Created`]. Two callers that put the same bytes under one key may therefore both
//! be told so; who must know the winner puts a nonce into the body, as every session does.
//!
//! Reads of which the body was cut are tried once more, as cuts also happen on the way. Does not know time but by [`Clock`].

use super::Verb;
use crate::{Clock, Key, Page, Put, Rng, Store, StoreError, StoreErrorKind};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetrySettings {
    /// No retry begins later than this after a call began.
    pub budget: Duration,
    /// Longest pause before the first retry.
    pub first_pause: Duration,
    /// Longest pause before any retry.
    pub longest_pause: Duration,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            budget: Duration::from_secs(15 * 60),
            first_pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(20),
        }
    }
}

/// A store that tries again.
#[derive(Debug)]
pub struct Retry<S> {
    inner: S,
    settings: RetrySettings,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    cancelled: Arc<AtomicBool>,
}

/// Failures of one put after which each try first looks whether the object is there. S3 servers refuse a create-only put of a key that
/// exists before they have read its body, and may close the connection on it: the client never hears why, and would put until its
/// budget is spent. Not sooner: most failures are cured by one more try, and a look is a request.
const LOOK_AFTER_FAILURES: u32 = 3;

/// Between two looks at the cancel flag.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

impl<S: Store> Retry<S> {
    /// Retries what `inner` cannot do now.
    pub fn new(inner: S, settings: RetrySettings, clock: Arc<dyn Clock>, rng: Arc<dyn Rng>) -> Self {
        Self { inner, settings, clock, rng, cancelled: Arc::new(AtomicBool::new(false)) }
    }

    /// Ends waiting within a quarter of a second once `cancelled` is set; the call then returns its last error.
    #[must_use]
    pub fn with_cancel(mut self, cancelled: Arc<AtomicBool>) -> Self {
        self.cancelled = cancelled;
        self
    }

    fn pause(&self, failures: u32) -> Duration {
        let whole = self.settings.first_pause.saturating_mul(1_u32 << failures.min(20)).min(self.settings.longest_pause);
        let mut random = [0_u8; 2];
        self.rng.fill(&mut random);
        let half = whole / 2;
        half + half.mul_f64(f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX))
    }

    /// Waits before the next try; false when there is to be none.
    fn wait(&self, began: Duration, failures: u32, verb: Verb, at: &str, error: &StoreError) -> bool {
        // A store that names a time is believed, within the longest that we would ever wait by ourselves, three times over.
        let asked = error.retry_after().unwrap_or_default().min(self.settings.longest_pause * 3);
        let pause = self.pause(failures).max(asked);
        let spent = self.clock.monotonic().saturating_sub(began);
        if spent + pause > self.settings.budget || self.cancelled.load(Ordering::Relaxed) {
            return false;
        }
        tracing::warn!(verb = verb.name(), key = at, failures = failures + 1, pause_ms = pause.as_millis(), error = %error, "Store unavailable, retrying");
        let mut left = pause;
        while !left.is_zero() {
            if self.cancelled.load(Ordering::Relaxed) {
                return false;
            }
            let slice = left.min(LOOK_AGAIN);
            self.clock.sleep(slice);
            left -= slice;
        }
        true
    }

    fn again<T>(&self, verb: Verb, at: &str, mut call: impl FnMut(u32) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let began = self.clock.monotonic();
        let mut failures = 0;
        loop {
            match call(failures) {
                Err(error) if error.is_retryable() && self.wait(began, failures, verb, at, &error) => failures += 1,
                other => return other,
            }
        }
    }

    fn read<T>(&self, verb: Verb, key: &Key, mut call: impl FnMut() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut cut = false;
        self.again(verb, key.as_str(), |_| match call() {
            Err(e) if e.kind() == StoreErrorKind::Truncated && !cut => {
                cut = true;
                tracing::warn!(verb = verb.name(), key = %key, error = %e, "Object came cut, reading once more");
                call()
            }
            other => other,
        })
    }

    /// Whether the object that was found is the one that an earlier try put.
    fn is_own(&self, key: &Key, body: &Bytes) -> Result<bool, StoreError> {
        match self.inner.get(key, body.len() as u64) {
            Ok(found) => Ok(found == *body),
            Err(e) => match e.kind() {
                StoreErrorKind::TooLarge | StoreErrorKind::Truncated => Ok(false),
                _ => Err(e),
            },
        }
    }
}

/// To be put again.
fn came_and_went(key: &Key) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, format!("object came and went during a put: key={key}"))
}

impl<S: Store> Store for Retry<S> {
    fn put_new(&self, key: &Key, body: Bytes) -> Result<Put, StoreError> {
        // Once something is seen to be there it stays to be compared, and is not put again: each request more is one more that can fail.
        let mut there = false;
        self.again(Verb::PutNew, key.as_str(), |failures| {
            let look = if failures >= LOOK_AFTER_FAILURES && !there { Some(self.inner.head(key)) } else { None };
            let put = match look {
                None if there => Put::Exists,
                Some(Ok(_)) => Put::Exists,
                // The store does not even answer this.
                Some(Err(e)) if e.is_retryable() => return Err(e),
                _ => self.inner.put_new(key, body.clone())?,
            };
            if put == Put::Created || failures == 0 {
                return Ok(put);
            }
            there = true;
            match self.is_own(key, &body) {
                Ok(own) => Ok(if own { Put::Created } else { Put::Exists }),
                Err(error) => {
                    there = error.kind() != StoreErrorKind::NotFound;
                    Err(if there { error } else { came_and_went(key) })
                }
            }
        })
    }

    fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes, StoreError> {
        self.read(Verb::Get, key, || self.inner.get(key, limit_bytes))
    }

    fn get_range(&self, key: &Key, offset_bytes: u64, length_bytes: u64) -> Result<Bytes, StoreError> {
        self.read(Verb::GetRange, key, || self.inner.get_range(key, offset_bytes, length_bytes))
    }

    fn get_range_into(&self, key: &Key, offset_bytes: u64, out: &mut [u8]) -> Result<(), StoreError> {
        self.read(Verb::GetRange, key, || self.inner.get_range_into(key, offset_bytes, out))
    }

    fn head(&self, key: &Key) -> Result<u64, StoreError> {
        self.again(Verb::Head, key.as_str(), |_| self.inner.head(key))
    }

    fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Page, StoreError> {
        self.again(Verb::List, prefix, |_| self.inner.list(prefix, after, limit))
    }

    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.again(Verb::Delete, key.as_str(), |_| self.inner.delete(key))
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
