//! Bounds how many requests are under way at once.
//!
//! Promises that never more than `max` calls are inside the store, and that a permit comes back however its call ends. One that
//! adapts begins with few: while all that are allowed are used and answered, one more is allowed each round; a store that cannot now
//! (`SlowDown`, 503, no answer) halves them, once a round. So a link with a long round trip is filled, and a store that is pressed by
//! many is not pressed harder. Permits may be shared by many stores, which are then bounded together. Does not promise an order among
//! those who wait.

use crate::{Key, Page, Put, Store, StoreError};
use bytes::Bytes;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
struct State {
    max: usize,
    /// Of `max`, those that are allowed now.
    allowed: f64,
    adapts: bool,
    busy: usize,
    /// Answers still to come of requests that were sent before the last halving: they say nothing new.
    stale: usize,
}

/// Permits for requests, shared by all that they bound together and changed while they are used.
#[derive(Debug)]
pub struct Permits {
    state: Mutex<State>,
    freed: Condvar,
}

/// A store that serves so many requests at once and no more.
#[derive(Debug)]
pub struct Limit<S> {
    inner: S,
    permits: Arc<Permits>,
}

struct Permit<'a>(&'a Permits);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.lock().busy -= 1;
        self.0.freed.notify_one();
    }
}

impl Permits {
    /// At most `max` requests at once; zero counts as one.
    #[must_use]
    pub fn new(max: usize) -> Arc<Self> {
        Self::starting(max, max, false)
    }

    /// At most `max` requests at once, and as many of them as the store answers gladly, `first` to begin with.
    #[must_use]
    pub fn adaptive(first: usize, max: usize) -> Arc<Self> {
        Self::starting(first, max, true)
    }

    fn starting(first: usize, max: usize, adapts: bool) -> Arc<Self> {
        let max = max.max(1);
        let state = State { max, allowed: first.clamp(1, max) as f64, adapts, busy: 0, stale: 0 };
        Arc::new(Self { state: Mutex::new(state), freed: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the bound; requests under way go on.
    pub fn set_max(&self, max: usize) {
        let mut state = self.lock();
        state.max = max.max(1);
        state.allowed = if state.adapts { state.allowed.min(state.max as f64) } else { state.max as f64 };
        drop(state);
        self.freed.notify_all();
    }

    /// Requests that are allowed at once now.
    #[must_use]
    pub fn allowed(&self) -> usize {
        self.lock().allowed as usize
    }

    fn take(&self) -> Permit<'_> {
        let state = self.lock();
        let mut state = self.freed.wait_while(state, |s| s.busy >= s.allowed as usize).unwrap_or_else(PoisonError::into_inner);
        state.busy += 1;
        Permit(self)
    }

    /// Learns from an answer, while its permit is still held.
    fn learn(&self, is_pressed: bool) {
        let mut state = self.lock();
        if !state.adapts {
            return;
        }
        let fresh = state.stale == 0;
        state.stale = state.stale.saturating_sub(1);
        if is_pressed {
            if fresh {
                state.allowed = (state.allowed / 2.0).max(1.0);
                state.stale = state.busy.saturating_sub(1);
                tracing::debug!(allowed = state.allowed as usize, "Store is pressed, asking it less at once");
            }
        } else if fresh && state.busy >= state.allowed as usize {
            state.allowed = (state.allowed + 1.0 / state.allowed).min(state.max as f64);
        }
    }
}

impl<S: Store> Limit<S> {
    /// Bounds its requests by these permits; keep them to change the bound, hand them to others to share it.
    pub fn new(inner: S, permits: Arc<Permits>) -> Self {
        Self { inner, permits }
    }

    fn within<T>(&self, call: impl FnOnce(&S) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let permit = self.permits.take();
        let answer = call(&self.inner);
        self.permits.learn(answer.as_ref().is_err_and(StoreError::is_retryable));
        drop(permit);
        // One may have become allowed beside the one that came back.
        self.permits.freed.notify_one();
        answer
    }
}

impl<S: Store> Store for Limit<S> {
    fn put_new(&self, key: &Key, body: Bytes) -> Result<Put, StoreError> {
        self.within(|inner| inner.put_new(key, body))
    }

    fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes, StoreError> {
        self.within(|inner| inner.get(key, limit_bytes))
    }

    fn get_range(&self, key: &Key, offset_bytes: u64, length_bytes: u64) -> Result<Bytes, StoreError> {
        self.within(|inner| inner.get_range(key, offset_bytes, length_bytes))
    }

    fn head(&self, key: &Key) -> Result<u64, StoreError> {
        self.within(|inner| inner.head(key))
    }

    fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Page, StoreError> {
        self.within(|inner| inner.list(prefix, after, limit))
    }

    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.within(|inner| inner.delete(key))
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
