//! A store that watches how packs are read: how much of which, by how many at once, and how much of what it gave out is still held.

use bytes::Bytes;
use longshore_store::{Key, Page, Put, Store, StoreError};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Bytes read of each pack.
    pub packs: Mutex<BTreeMap<String, u64>>,
    /// Most readers of packs that were in the store at once.
    pub readers_max: AtomicUsize,
    /// Bytes given out that somebody holds, now and at most.
    pub held_bytes: AtomicU64,
    pub held_bytes_max: AtomicU64,
}

/// See above.
#[derive(Debug)]
pub struct Watched {
    inner: Arc<dyn Store>,
    pub seen: Arc<Seen>,
    /// Readers of packs wait until so many are there at once, which they need to be once only.
    meet: usize,
    readers: Mutex<usize>,
    met: Condvar,
}

struct Held(Bytes, Arc<Seen>);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.1.held_bytes.fetch_sub(self.0.len() as u64, SeqCst);
    }
}

/// Whoever waits so long for others waits in vain.
const PATIENCE: Duration = Duration::from_secs(20);

impl Watched {
    pub fn new(inner: Arc<dyn Store>, meet: usize) -> Self {
        Self { inner, seen: Arc::default(), meet, readers: Mutex::new(0), met: Condvar::new() }
    }

    fn watch(&self, key: &Key, read: impl FnOnce() -> Result<Bytes, StoreError>) -> Result<Bytes, StoreError> {
        let mut readers = self.readers.lock().unwrap();
        *readers += 1;
        self.seen.readers_max.fetch_max(*readers, SeqCst);
        self.met.notify_all();
        let few = |_: &mut usize| self.seen.readers_max.load(SeqCst) < self.meet;
        let (mut readers, _) = self.met.wait_timeout_while(readers, PATIENCE, few).unwrap();
        *readers -= 1;
        drop(readers);
        let bytes = read()?;
        *self.seen.packs.lock().unwrap().entry(key.as_str().to_owned()).or_default() += bytes.len() as u64;
        let held = self.seen.held_bytes.fetch_add(bytes.len() as u64, SeqCst) + bytes.len() as u64;
        self.seen.held_bytes_max.fetch_max(held, SeqCst);
        Ok(Bytes::from_owner(Held(bytes, Arc::clone(&self.seen))))
    }
}

impl Store for Watched {
    fn put_new(&self, key: &Key, body: Bytes) -> Result<Put, StoreError> {
        self.inner.put_new(key, body)
    }
    fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes, StoreError> {
        self.inner.get(key, limit_bytes)
    }
    fn get_range(&self, key: &Key, offset_bytes: u64, length_bytes: u64) -> Result<Bytes, StoreError> {
        if !key.as_str().starts_with("packs/") {
            return self.inner.get_range(key, offset_bytes, length_bytes);
        }
        self.watch(key, || self.inner.get_range(key, offset_bytes, length_bytes))
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
