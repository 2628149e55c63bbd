//! Bounds how many requests are under way at once.
//!
//! Promises that never more than `max` calls are inside the store, and that a permit comes back however its call ends. One that
//! adapts begins with few: while all that are allowed are used and answered, one more is allowed each round; a store that cannot now
//! (`SlowDown`, 503, no answer) halves them, once a round. So a link with a long round trip is filled, and a store that is pressed by
//! many is not pressed harder. Does not promise an order among those who wait.

use crate::{Key, Page, Put, Store, StoreError};
use bytes::Bytes;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

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

/// A store that serves so many requests at once and no more.
#[derive(Debug)]
pub struct Limit<S> {
    inner: S,
    state: Mutex<State>,
    freed: Condvar,
}

struct Permit<'a, S>(&'a Limit<S>);

impl<S> Drop for Permit<'_, S> {
    fn drop(&mut self) {
        self.0.lock().busy -= 1;
        self.0.freed.notify_one();
    }
}

impl<S> Limit<S> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Store> Limit<S> {
    /// At most `max` requests at once; zero counts as one.
    pub fn new(inner: S, max: usize) -> Self {
        Self::starting(inner, max, max, false)
    }

    /// At most `max` requests at once, and as many of them as the store answers gladly, `first` to begin with.
    pub fn adaptive(inner: S, first: usize, max: usize) -> Self {
        Self::starting(inner, first, max, true)
    }

    fn starting(inner: S, first: usize, max: usize, adapts: bool) -> Self {
        let max = max.max(1);
        let state = State { max, allowed: first.clamp(1, max) as f64, adapts, busy: 0, stale: 0 };
        Self { inner, state: Mutex::new(state), freed: Condvar::new() }
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
    pub fn allowed(&self) -> usize {
        self.lock().allowed as usize
    }

    fn permit(&self) -> Permit<'_, S> {
        let state = self.lock();
        let mut state = self.freed.wait_while(state, |s| s.busy >= s.allowed as usize).unwrap_or_else(PoisonError::into_inner);
        state.busy += 1;
        Permit(self)
    }

    fn within<T>(&self, call: impl FnOnce(&S) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let permit = self.permit();
        let answer = call(&self.inner);
        let mut state = self.lock();
        if state.adapts {
            let fresh = state.stale == 0;
            state.stale = state.stale.saturating_sub(1);
            if answer.as_ref().is_err_and(StoreError::is_retryable) {
                if fresh {
                    state.allowed = (state.allowed / 2.0).max(1.0);
                    state.stale = state.busy.saturating_sub(1);
                    tracing::debug!(allowed = state.allowed as usize, "Store is pressed, asking it less at once");
                }
            } else if fresh && state.busy >= state.allowed as usize {
                state.allowed = (state.allowed + 1.0 / state.allowed).min(state.max as f64);
            }
        }
        drop(state);
        drop(permit);
        // One may have become allowed beside the one that came back.
        self.freed.notify_one();
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
