//! A store behind a pointer is a store: so layers can wrap a store that was chosen at run time.

use crate::{Key, Page, Put, Store, StoreError};
use bytes::Bytes;
use std::sync::Arc;

macro_rules! through {
    ($pointer:ty) => {
        impl<S: Store + ?Sized> Store for $pointer {
            fn put_new(&self, key: &Key, body: Bytes) -> Result<Put, StoreError> {
                (**self).put_new(key, body)
            }
            fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes, StoreError> {
                (**self).get(key, limit_bytes)
            }
            fn get_range(&self, key: &Key, offset_bytes: u64, length_bytes: u64) -> Result<Bytes, StoreError> {
                (**self).get_range(key, offset_bytes, length_bytes)
            }
            fn get_range_into(&self, key: &Key, offset_bytes: u64, out: &mut [u8]) -> Result<(), StoreError> {
                (**self).get_range_into(key, offset_bytes, out)
            }
            fn head(&self, key: &Key) -> Result<u64, StoreError> {
                (**self).head(key)
            }
            fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Page, StoreError> {
                (**self).list(prefix, after, limit)
            }
            fn delete(&self, key: &Key) -> Result<(), StoreError> {
                (**self).delete(key)
            }
            fn describe(&self) -> String {
                (**self).describe()
            }
        }
    };
}

through!(Arc<S>);
through!(Box<S>);
