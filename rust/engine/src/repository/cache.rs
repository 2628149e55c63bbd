//! The local cache: sealed objects of the store, and index segments opened for mapping.
//!
//! Holds copies of immutable objects by their key, in a folder of its own per repository, files 0600. Losing any of it costs time
//! only: every reader checks seals, and what exists is always asked of the store. All works with none ([`Cache::none`]). The caches of all
//! repositories take at most their limit: for what no longer fits those of others give way (`eviction`), then it is not kept; and what
//! the repository no longer lists is forgotten when its index is loaded. Beside the folder, records of snapshots that were opened are
//! remembered in memory, at most [`RECORDS_MAX`]: each repository lists many, of sessions that were given up long ago among them; and what
//! decisions name.

use super::eviction;
use super::lookups::{Kept, Lookups};
use super::spent::Spent;
use crate::system::{Draft, Log, Named, touch, written_nanos};
use longshore_format::id::{RepositoryId, SessionId};
use longshore_format::snapshot::SnapshotObject;
use longshore_kernels::map::Map;
use longshore_store::{Key, Store};
use longshore_store::{LocalSettings, LocalStore};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where copies of objects are kept on this machine.
#[derive(Debug, Default)]
pub struct Cache {
    base: Option<PathBuf>,
    /// Of all repositories together.
    limit_bytes: u64,
    used_bytes: AtomicU64,
    /// What those of others took when they were last looked at.
    others_bytes: AtomicU64,
    store: Option<LocalStore>,
    folder: Option<PathBuf>,
    /// Opened records of snapshots; none: it remembers nothing.
    records: Option<Mutex<HashMap<SessionId, Arc<SnapshotObject>>>>,
    /// What decisions named that were read.
    spent: Mutex<Arc<Spent>>,
    lookups: Arc<Lookups>,
}

/// Most records of snapshots that are remembered in memory.
pub const RECORDS_MAX: usize = 16 << 10;
/// A record that names more items than this is opened each time it is asked for.
const RECORD_ITEMS_MAX: usize = 16;

/// What a cache may take when nobody says otherwise.
pub const LIMIT_BYTES: u64 = 5 << 30;

impl Cache {
    /// No cache.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// A cache below `base`.
    #[must_use]
    pub fn at(base: impl AsRef<Path>) -> Self {
        Self { base: Some(base.as_ref().to_owned()), limit_bytes: LIMIT_BYTES, ..Self::in_memory() }
    }

    /// A cache without a folder: what was opened is remembered as long as this value lives, and nothing else is kept.
    #[must_use]
    pub fn in_memory() -> Self {
        Self { records: Some(Mutex::default()), ..Self::default() }
    }

    /// The same, counting into these.
    #[must_use]
    pub fn counting(self, lookups: Arc<Lookups>) -> Self {
        Self { lookups, ..self }
    }

    /// Counts whether something that was looked for was had without the store.
    pub(crate) fn note(&self, kept: Kept, hit: bool) {
        self.lookups.note(kept, hit);
    }

    /// The same with another limit for all repositories together.
    #[must_use]
    pub fn with_limit(self, limit_bytes: u64) -> Self {
        Self { limit_bytes, ..self }
    }

    pub(crate) fn for_repository(&self, repository: RepositoryId) -> Self {
        let records = || self.records.as_ref().map(|_| Mutex::default());
        let lookups = || Arc::clone(&self.lookups);
        let Some(base) = &self.base else { return Self { records: records(), lookups: lookups(), ..Self::none() } };
        let folder = base.join(repository.to_string());
        match LocalStore::open(&folder, LocalSettings { create: true, ..LocalSettings::default() }) {
            Ok(store) => {
                let mut used_bytes = 0;
                let _ = super::list(&store, "", |entry| {
                    used_bytes += entry.size_bytes;
                    Ok(())
                });
                if let Err(error) = touch(&folder) {
                    tracing::debug!(error = %error, "Cannot say that a cache is in use");
                }
                let cache = Self {
                    base: self.base.clone(),
                    limit_bytes: eviction::limit_bytes(base, self.limit_bytes),
                    used_bytes: AtomicU64::new(used_bytes),
                    others_bytes: AtomicU64::new(eviction::others_bytes(base, &repository.to_string())),
                    store: Some(store),
                    folder: Some(folder),
                    records: records(),
                    spent: Mutex::default(),
                    lookups: lookups(),
                };
                // What was kept under a larger limit, or by several processes at once.
                let _ = cache.fits();
                cache
            }
            Err(error) => {
                tracing::warn!(error = %error, "Cannot use the cache folder");
                Self { base: self.base.clone(), records: records(), lookups: lookups(), ..Self::default() }
            }
        }
    }

    // No code panics while it holds the lock, so a poisoned map is still a whole one.
    fn records(&self) -> Option<MutexGuard<'_, HashMap<SessionId, Arc<SnapshotObject>>>> {
        Some(self.records.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The record of a session, when it was opened before. Objects never change, so it is what opening it again would give.
    pub(crate) fn record(&self, session: SessionId) -> Option<Arc<SnapshotObject>> {
        self.records()?.get(&session).cloned()
    }

    /// Remembers an opened record.
    pub(crate) fn remember(&self, session: SessionId, record: &Arc<SnapshotObject>) {
        let items = match &**record {
            SnapshotObject::Committed(snapshot) => snapshot.lost.len() + snapshot.changed.len() + snapshot.usage.len(),
            SnapshotObject::Aborted { .. } => 0,
        };
        if let Some(mut records) = self.records()
            && items <= RECORD_ITEMS_MAX
            && records.len() < RECORDS_MAX
        {
            records.insert(session, Arc::clone(record));
        }
    }

    /// Forgets the records of sessions that are not listed any more.
    pub(crate) fn retain_records(&self, listed: &BTreeSet<SessionId>) {
        if let Some(mut records) = self.records()
            && records.len() > listed.len()
        {
            records.retain(|session, _| listed.contains(session));
        }
    }

    /// How many records are remembered.
    pub(crate) fn records_known(&self) -> usize {
        self.records().map_or(0, |records| records.len())
    }

    /// What is known of decisions. A cache that remembers nothing knows none.
    pub(crate) fn spent(&self) -> Arc<Spent> {
        Arc::clone(&self.spent.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Remembers what more of them said. Of two at once one is forgotten, and read again.
    pub(crate) fn remember_spent(&self, spent: &Arc<Spent>) {
        if self.records.is_some() {
            *self.spent.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(spent);
        }
    }

    /// A copy of an object, if there is one.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<bytes::Bytes> {
        self.store.as_ref()?.get(&Key::new(key).ok()?, 512 << 20).ok()
    }

    /// Keeps a copy; failing to is no error.
    pub fn put(&self, key: &str, bytes: &[u8]) {
        if let (Some(store), Ok(key)) = (&self.store, Key::new(key)) {
            let size = bytes.len() as u64;
            self.used_bytes.fetch_add(size, Relaxed);
            if !self.fits() || store.put_new(&key, bytes::Bytes::copy_from_slice(bytes)).is_err() {
                self.used_bytes.fetch_sub(size, Relaxed);
            }
        }
    }

    /// Whether all stays within the limit; others give way before it does not.
    fn fits(&self) -> bool {
        let over = || {
            let used = self.used_bytes.load(Relaxed).saturating_add(self.others_bytes.load(Relaxed));
            used.saturating_sub(self.limit_bytes)
        };
        if over() > 0
            && self.others_bytes.load(Relaxed) > 0
            && let (Some(base), Some(own)) = (&self.base, self.own_name())
        {
            // A sixteenth more, so that not every copy has to ask for room again.
            eviction::make_room(base, &own, over().saturating_add(self.limit_bytes / 16));
            self.others_bytes.store(eviction::others_bytes(base, &own), Relaxed);
        }
        over() == 0
    }

    /// Whether anything that is put is kept.
    pub(crate) fn has_folder(&self) -> bool {
        self.store.is_some()
    }

    fn own_name(&self) -> Option<String> {
        Some(self.folder.as_ref()?.file_name()?.to_str()?.to_owned())
    }

    /// Forgets a copy.
    pub fn delete(&self, key: &str) {
        if let (Some(store), Ok(key)) = (&self.store, Key::new(key)) {
            let size = store.head(&key).unwrap_or(0);
            if store.delete(&key).is_ok() {
                self.used_bytes.fetch_sub(size, Relaxed);
            }
        }
    }

    /// Maps a copy into memory.
    #[must_use]
    pub fn map(&self, key: &str) -> Option<Map> {
        let key = Key::new(key).ok()?;
        Map::open(&self.folder.as_ref()?.join(key.as_str())).ok()
    }

    /// A file without a name in the cache's folder; none without a cache.
    pub(crate) fn draft(&self, unique: &str) -> Option<Draft> {
        Draft::new(self.folder.as_ref()?, unique).ok()
    }

    /// Begins the file of a key of the form `folder/name`, which takes the place of an older one when it is whole.
    pub(crate) fn replace(&self, folder: &str, name: &str, unique: &str) -> Option<Named> {
        Named::new(&self.folder.as_ref()?.join(folder), name, unique).ok()
    }

    /// Opens the log of a key of the form `folder/name`; none without a cache, or when another process has it.
    pub(crate) fn log(&self, folder: &str, name: &str) -> Option<Log> {
        match Log::open(&self.folder.as_ref()?.join(folder), name) {
            Ok(log) => log,
            Err(error) => {
                tracing::debug!(folder = folder, error = %error, "Cannot open a log in the cache");
                None
            }
        }
    }

    /// When the file of a key was last written to, in nanoseconds since 1970; none when there is none.
    pub(crate) fn written_nanos(&self, key: &str) -> Option<i128> {
        written_nanos(&self.folder.as_ref()?.join(key)).ok()
    }

    /// Bytes that it may still take.
    pub(crate) fn room_bytes(&self) -> u64 {
        self.limit_bytes.saturating_sub(self.used_bytes.load(Relaxed)).saturating_sub(self.others_bytes.load(Relaxed))
    }

    /// Keys kept under a prefix.
    #[must_use]
    pub fn keys(&self, prefix: &str) -> Vec<Key> {
        let Some(store) = &self.store else { return Vec::new() };
        let mut out = Vec::new();
        let _ = super::list(store, prefix, |entry| {
            out.push(entry.key.clone());
            Ok(())
        });
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_keeps_no_more_than_its_limit_and_gives_room_back() {
        let folder = tempfile::tempdir().unwrap();
        let repository = RepositoryId([1; 16]);
        let cache = Cache::at(folder.path()).with_limit(250).for_repository(repository);
        for name in ["a/1", "a/2", "a/3"] {
            cache.put(name, &[7; 100]);
        }
        assert_eq!(cache.keys("a/").len(), 2);
        assert!(cache.get("a/3").is_none() && cache.map("a/1").is_some());
        cache.delete("a/1");
        cache.put("a/3", &[7; 100]);
        assert!(cache.get("a/3").is_some());
        let again = Cache::at(folder.path()).with_limit(250).for_repository(repository);
        again.put("a/4", &[7; 100]);
        assert!(again.get("a/4").is_none(), "what lies there from before counts");
        assert!(Cache::none().for_repository(repository).get("a/1").is_none());
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test lays a stranger's file beside")]
    fn the_repository_that_was_unused_for_longest_gives_way() {
        let folder = tempfile::tempdir().unwrap();
        let at = |n: u8| Cache::at(folder.path()).with_limit(1600).for_repository(RepositoryId([n; 16]));
        for n in 1..=4 {
            let cache = at(n);
            for name in ["a/1", "b/c/2", "3"] {
                cache.put(name, &[n; 100]);
            }
        }
        std::fs::write(folder.path().join("notes"), [0; 5000]).unwrap();
        let seconds = |n: u8, seconds: i64| {
            let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: 0 };
            let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
            let path = folder.path().join(RepositoryId([n; 16]).to_string());
            rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::empty()).unwrap();
        };
        for (n, at) in [(1, 40), (2, 10), (3, 30), (4, 20)] {
            seconds(n, at);
        }
        let cache = at(4);
        assert!(cache.room_bytes() == 400);
        cache.put("4", &[4; 450]);
        let held = |n: u8| folder.path().join(RepositoryId([n; 16]).to_string()).exists();
        // 50 bytes and a sixteenth of 1600 are wanted; 300 are got from the oldest.
        assert_eq!([held(1), held(2), held(3), held(4)], [true, false, true, true]);
        assert_eq!(cache.get("4").unwrap().len(), 450);
        // All of the others together are not enough.
        cache.put("5", &[4; 1000]);
        assert_eq!([held(1), held(3), held(4)], [false, false, true]);
        assert!(cache.get("5").is_none() && cache.get("a/1").is_some());
        assert!(folder.path().join("notes").exists(), "what is no cache is not ours");
        // A smaller limit than what lies there.
        at(1).put("1", &[1; 100]);
        drop(Cache::at(folder.path()).with_limit(120).for_repository(RepositoryId([1; 16])));
        assert_eq!([held(1), held(4)], [true, false]);
    }

    #[test]
    fn a_cache_takes_at_most_a_tenth_of_its_filesystem() {
        let folder = tempfile::tempdir().unwrap();
        let disk = rustix::fs::statvfs(folder.path()).unwrap();
        let cache = Cache::at(folder.path()).with_limit(u64::MAX).for_repository(RepositoryId([1; 16]));
        assert_eq!(cache.room_bytes(), disk.f_blocks * disk.f_frsize / 10);
    }
}
