//! The local cache: sealed objects of the store, and index segments opened for mapping.
//!
//! Holds copies of immutable objects by their key, in a folder of its own per repository, files 0600. Losing any of it costs time
//! only: every reader checks seals, and what exists is always asked of the store. All works with none ([`Cache::none`]).

use longshore_format::id::RepositoryId;
use longshore_kernels::map::Map;
use longshore_store::{Key, Store};
use longshore_store::{LocalSettings, LocalStore};
use std::path::{Path, PathBuf};

/// Where copies of objects are kept on this machine.
#[derive(Debug, Default)]
pub struct Cache {
    base: Option<PathBuf>,
    store: Option<LocalStore>,
    folder: Option<PathBuf>,
}

impl Cache {
    /// No cache.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// A cache below `base`.
    #[must_use]
    pub fn at(base: impl AsRef<Path>) -> Self {
        Self { base: Some(base.as_ref().to_owned()), store: None, folder: None }
    }

    pub(crate) fn for_repository(&self, repository: RepositoryId) -> Self {
        let Some(base) = &self.base else { return Self::none() };
        let folder = base.join(repository.to_string());
        match LocalStore::open(&folder, LocalSettings { create: true, ..LocalSettings::default() }) {
            Ok(store) => Self { base: self.base.clone(), store: Some(store), folder: Some(folder) },
            Err(error) => {
                tracing::warn!(error = %error, "Cannot use the cache folder");
                Self { base: self.base.clone(), store: None, folder: None }
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
            let _ = store.put_new(&key, bytes::Bytes::copy_from_slice(bytes));
        }
    }

    /// Forgets a copy.
    pub fn delete(&self, key: &str) {
        if let (Some(store), Ok(key)) = (&self.store, Key::new(key)) {
            let _ = store.delete(&key);
        }
    }

    /// Maps a copy into memory.
    #[must_use]
    pub fn map(&self, key: &str) -> Option<Map> {
        let key = Key::new(key).ok()?;
        Map::open(&self.folder.as_ref()?.join(key.as_str())).ok()
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
