//! Bounds how many requests are under way at once.
//!
//! Promises that never more than `max` calls are inside the store, and that a permit comes back however its call ends. Does not
//! promise an order among those who wait.

use crate::{Key, Page, Put, Store, StoreError};
use bytes::Bytes;
use std::sync::{Condvar, Mutex, PoisonError};

#[derive(Debug)]
struct State {
    max: usize,
    busy: usize,
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
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).busy -= 1;
        self.0.freed.notify_one();
    }
}

impl<S: Store> Limit<S> {
    /// At most `max` requests at once; zero counts as one.
    pub fn new(inner: S, max: usize) -> Self {
        Self { inner, state: Mutex::new(State { max: max.max(1), busy: 0 }), freed: Condvar::new() }
    }

    /// Changes the bound; requests under way go on.
    pub fn set_max(&self, max: usize) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).max = max.max(1);
        self.freed.notify_all();
    }

    fn permit(&self) -> Permit<'_, S> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.freed.wait_while(state, |s| s.busy >= s.max).unwrap_or_else(PoisonError::into_inner);
        state.busy += 1;
        Permit(self)
    }
}

impl<S: Store> Store for Limit<S> {
    fn put_new(&self, key: &Key, body: Bytes) -> Result<Put, StoreError> {
        let _permit = self.permit();
        self.inner.put_new(key, body)
    }

    fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes, StoreError> {
        let _permit = self.permit();
        self.inner.get(key, limit_bytes)
    }

    fn get_range(&self, key: &Key, offset_bytes: u64, length_bytes: u64) -> Result<Bytes, StoreError> {
        let _permit = self.permit();
        self.inner.get_range(key, offset_bytes, length_bytes)
    }

    fn head(&self, key: &Key) -> Result<u64, StoreError> {
        let _permit = self.permit();
        self.inner.head(key)
    }

    fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Page, StoreError> {
        let _permit = self.permit();
        self.inner.list(prefix, after, limit)
    }

    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let _permit = self.permit();
        self.inner.delete(key)
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
