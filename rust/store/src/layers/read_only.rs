//! Refuses writes before they reach the store.
//!
//! Promises that nothing behind it is put or deleted through it. Does not know why: a read-only location, a rescue, a drill.

use crate::{Key, Page, Put, Store, StoreError, StoreErrorKind};
use bytes::Bytes;

/// A store that can only be read.
#[derive(Debug)]
pub struct ReadOnly<S>(S);

impl<S: Store> ReadOnly<S> {
    /// Protects `inner`.
    pub fn new(inner: S) -> Self {
        Self(inner)
    }

    fn refused(&self, key: &Key) -> StoreError {
        StoreError::new(
            StoreErrorKind::Denied,
            format!("store was opened for reading only: key={key}, store={}", self.0.describe()),
        )
    }
}

impl<S: Store> Store for ReadOnly<S> {
    fn put_new(&self, key: &Key, _body: Bytes) -> Result<Put, StoreError> {
        Err(self.refused(key))
    }

    fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes, StoreError> {
        self.0.get(key, limit_bytes)
    }

    fn get_range(&self, key: &Key, offset_bytes: u64, length_bytes: u64) -> Result<Bytes, StoreError> {
        self.0.get_range(key, offset_bytes, length_bytes)
    }

    fn get_range_into(&self, key: &Key, offset_bytes: u64, out: &mut [u8]) -> Result<(), StoreError> {
        self.0.get_range_into(key, offset_bytes, out)
    }

    fn head(&self, key: &Key) -> Result<u64, StoreError> {
        self.0.head(key)
    }

    fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Page, StoreError> {
        self.0.list(prefix, after, limit)
    }

    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        Err(self.refused(key))
    }

    fn describe(&self) -> String {
        self.0.describe()
    }
}
