//! A store in memory, for tests and simulations.
//!
//! Promises what [`Store`] promises, durability meaning "as long as this value lives". Does not know faults: wrap it for those.
//! As a folder and some S3 servers do, it refuses a key that lies below another key.

use crate::{Entry, Key, Page, Put, Store, StoreError, StoreErrorKind};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Objects in a sorted map. Clone the `Arc` around it to share it.
#[derive(Default)]
pub struct MemoryStore {
    objects: Mutex<BTreeMap<Key, Bytes>>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces what lies under `key`, or makes it: for tests that damage an object at rest.
    pub fn overwrite(&self, key: &Key, body: Bytes) {
        self.lock().insert(key.clone(), body);
    }

    /// A copy of all objects (the bodies are shared): the state a crash would leave.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self { objects: Mutex::new(self.lock().clone()) }
    }

    // No code panics while it holds the lock, so a poisoned map is still a whole one.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Bytes>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn body(&self, key: &Key) -> Result<Bytes, StoreError> {
        self.lock()
            .get(key)
            .cloned()
            .ok_or_else(|| StoreError::new(StoreErrorKind::NotFound, format!("no such object: key={key}, store=memory")))
    }
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStore").field("objects", &self.lock().len()).finish()
    }
}

impl Store for MemoryStore {
    fn put_new(&self, key: &Key, body: Bytes) -> Result<Put, StoreError> {
        let mut objects = self.lock();
        if objects.contains_key(key) {
            return Ok(Put::Exists);
        }
        let folder = format!("{key}/");
        let next = objects.range::<str, _>((Bound::Included(folder.as_str()), Bound::Unbounded)).next();
        let below = next.is_some_and(|(other, _)| other.as_str().starts_with(&folder));
        let above = key.as_str().match_indices('/').any(|(at, _)| objects.contains_key(&key.as_str()[..at]));
        if below || above {
            return Err(StoreError::new(
                StoreErrorKind::InvalidKey,
                format!("one object's key is a folder of another's: key={key}"),
            ));
        }
        // Bytes may be a slice of a caller's larger buffer; a store owns its copy.
        objects.insert(key.clone(), Bytes::copy_from_slice(&body));
        Ok(Put::Created)
    }

    fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes, StoreError> {
        let body = self.body(key)?;
        if body.len() as u64 > limit_bytes {
            return Err(StoreError::new(
                StoreErrorKind::TooLarge,
                format!("object is longer than its limit: key={key}, size_bytes={}, limit_bytes={limit_bytes}", body.len()),
            ));
        }
        Ok(body)
    }

    fn get_range(&self, key: &Key, offset_bytes: u64, length_bytes: u64) -> Result<Bytes, StoreError> {
        let body = self.body(key)?;
        let end = offset_bytes.checked_add(length_bytes).filter(|&end| end <= body.len() as u64);
        let range = end.and_then(|end| Some(usize::try_from(offset_bytes).ok()?..usize::try_from(end).ok()?));
        range.map(|range| body.slice(range)).ok_or_else(|| {
            StoreError::new(
                StoreErrorKind::Truncated,
                format!(
                    "object ends before the range: key={key}, offset_bytes={offset_bytes}, length_bytes={length_bytes}, size_bytes={}",
                    body.len()
                ),
            )
        })
    }

    fn head(&self, key: &Key) -> Result<u64, StoreError> {
        Ok(self.body(key)?.len() as u64)
    }

    fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Page, StoreError> {
        Key::check_prefix(prefix)?;
        let objects = self.lock();
        let start = match after {
            Some(after) if after.as_str() >= prefix => Bound::Excluded(after.as_str()),
            _ => Bound::Included(prefix),
        };
        let mut rest = objects
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|(key, _)| key.as_str().starts_with(prefix))
            .map(|(key, body)| Entry { key: key.clone(), size_bytes: body.len() as u64 });
        let entries = rest.by_ref().take(limit.max(1)).collect();
        Ok(Page { entries, more: rest.next().is_some() })
    }

    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.lock().remove(key);
        Ok(())
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn conforms() {
        crate::suite::assert_conforms(&|_| Arc::new(MemoryStore::new()));
    }

    #[test]
    fn a_fork_is_apart() {
        let store = MemoryStore::new();
        let key = Key::new("a").unwrap();
        let fork = store.fork();
        assert_eq!(store.put_new(&key, Bytes::from_static(b"1")).unwrap(), Put::Created);
        assert_eq!(fork.head(&key).unwrap_err().kind(), StoreErrorKind::NotFound);
    }
}
