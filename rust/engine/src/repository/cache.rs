//! The local cache: sealed objects of the store, and index segments opened for mapping.
//!
//! Holds copies of immutable objects by their key, in a folder of its own per repository, files 0600. Losing any of it costs time
//! only: every reader checks seals, and what exists is always asked of the store. All works with none ([`Cache::none`]). It takes at most
//! its limit: what no longer fits is not kept, and what the repository no longer lists is forgotten when its index is loaded.

use crate::system::{Draft, Log, Named, written_nanos};
use longshore_format::id::RepositoryId;
use longshore_kernels::map::Map;
use longshore_store::{Key, Store};
use longshore_store::{LocalSettings, LocalStore};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Where copies of objects are kept on this machine.
#[derive(Debug, Default)]
pub struct Cache {
    base: Option<PathBuf>,
    limit_bytes: u64,
    used_bytes: AtomicU64,
    store: Option<LocalStore>,
    folder: Option<PathBuf>,
}

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
        Self { base: Some(base.as_ref().to_owned()), limit_bytes: LIMIT_BYTES, ..Self::default() }
    }

    /// The same with another limit for each repository.
    #[must_use]
    pub fn with_limit(self, limit_bytes: u64) -> Self {
        Self { limit_bytes, ..self }
    }

    pub(crate) fn for_repository(&self, repository: RepositoryId) -> Self {
        let Some(base) = &self.base else { return Self::none() };
        let folder = base.join(repository.to_string());
        match LocalStore::open(&folder, LocalSettings { create: true, ..LocalSettings::default() }) {
            Ok(store) => {
                let mut used_bytes = 0;
                let _ = super::list(&store, "", |entry| {
                    used_bytes += entry.size_bytes;
                    Ok(())
                });
                let used_bytes = AtomicU64::new(used_bytes);
                Self {
                    base: self.base.clone(),
                    limit_bytes: self.limit_bytes,
                    used_bytes,
                    store: Some(store),
                    folder: Some(folder),
                }
            }
            Err(error) => {
                tracing::warn!(error = %error, "Cannot use the cache folder");
                Self { base: self.base.clone(), ..Self::default() }
            }
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
            if self.used_bytes.fetch_add(size, Relaxed) + size > self.limit_bytes
                || store.put_new(&key, bytes::Bytes::copy_from_slice(bytes)).is_err()
            {
                self.used_bytes.fetch_sub(size, Relaxed);
            }
        }
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
        self.limit_bytes.saturating_sub(self.used_bytes.load(Relaxed))
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
}
