//! A repository: opened, and the objects behind its names; made by `init`, its keys in `slots`.
//!
//! Holds [`Repository`], which is cheap to clone and used from many threads. Promises that one which exists is never given a new
//! key, and that every object is created once. Knows packs and snapshots as names and bytes; what a volume is it does not know.

pub mod ahead;
pub mod cache;
mod create_only;
pub mod cursor;
mod eviction;
mod header;
mod held;
pub mod index;
mod init;
mod kept;
pub mod lookups;
pub mod reader;
pub(crate) mod repairs;
mod reserve;
pub mod session;
mod slots;
pub mod snapshots;
mod spent;
pub(crate) mod traces;

pub use create_only::PROBE_KEY;
pub use reserve::{RESERVE_BYTES, RESERVE_KEY};
pub use slots::SlotRow;

use crate::error::{Error, ErrorKind, Result};
use crate::seams::World;
use bytes::Bytes;
use cache::Cache;
use longshore_format::config::{Config, config_key, read_config_clear};
use longshore_format::envelope::Codec;
use longshore_format::id::{RandomName, RepositoryId, number_from_hex};
use longshore_format::keys::{Keys, Unlock};
use longshore_format::limits;
use longshore_store::{Entry, Key, Put, Store, StoreErrorKind};
use slots::SlotObjects;
use std::sync::Arc;

/// Name and version, as written into what we make.
pub const PROGRAM: &str = concat!("longshore ", env!("CARGO_PKG_VERSION"));
/// Most objects that one page of a listing shows.
pub(crate) const PAGE: usize = 1000;

/// An open repository.
#[derive(Clone, Debug)]
pub struct Repository {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) keys: Arc<Keys>,
    pub(crate) config: Arc<Config>,
    pub(crate) world: World,
    pub(crate) cache: Arc<Cache>,
    pub(crate) slot: RandomName,
    /// Copies on this machine stand for nothing.
    pub(crate) asks_store: bool,
}

pub(crate) fn key(text: impl Into<String>) -> Result<Key> {
    Ok(Key::new(text)?)
}

/// A put was acknowledged, and a look finds nothing.
fn not_kept(at: &Key) -> Error {
    Error::corrupt(format!("the store acknowledged an object and does not have it: object={at}"))
        .with_next_step("run it again; where it says the same again, the store loses what it is given")
}

/// Calls `visit` with every object under `prefix`, page by page.
pub(crate) fn list(store: &dyn Store, prefix: &str, mut visit: impl FnMut(&Entry) -> Result<()>) -> Result<()> {
    let mut after: Option<Key> = None;
    loop {
        let page = store.list(prefix, after.as_ref(), PAGE)?;
        for entry in &page.entries {
            visit(entry)?;
        }
        match page.entries.last() {
            Some(last) if page.more => after = Some(last.key.clone()),
            _ => return Ok(()),
        }
    }
}

fn newest_config(store: &dyn Store) -> Result<Option<u32>> {
    let mut newest = None;
    list(store, "config/", |entry| {
        newest = entry.key.as_str().strip_prefix("config/").and_then(number_from_hex).max(newest);
        Ok(())
    })?;
    Ok(newest)
}

fn read_config(store: &dyn Store) -> Result<Option<(u32, Bytes)>> {
    let Some(number) = newest_config(store)? else { return Ok(None) };
    Ok(Some((number, store.get(&key(config_key(number))?, limits::RECORD_BYTES_MAX as u64)?)))
}

/// Opens what was read, and reads it once more when it does not open: a bit may have turned on the way, and only damage that stays
/// is blamed on the object. The same bytes twice are not opened twice.
pub(crate) fn opened<B: PartialEq, T>(read: impl Fn() -> Result<B>, mut open: impl FnMut(&B) -> Result<T>) -> Result<T> {
    let first = read()?;
    match open(&first) {
        Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::WrongKey | ErrorKind::NewerFormat) => {
            let again = read()?;
            if again == first { Err(error) } else { open(&again) }
        }
        done => done,
    }
}

fn not_found(store: &dyn Store) -> Error {
    Error::new(ErrorKind::RepositoryNotFound, format!("there is no repository here: repository={}", store.describe()))
        .with_next_step("check the address, or make one with: longshore repo init")
}

impl Repository {
    /// Opens the repository in a store.
    ///
    /// # Errors
    /// `RepositoryNotFound`, `WrongKey`, `NewerFormat`, Corrupt, or what the store says.
    pub fn open(store: Arc<dyn Store>, world: World, unlock: &Unlock, cache: Cache) -> Result<Self> {
        let read = || {
            let (number, config) = read_config(&*store)?.ok_or_else(|| not_found(&*store))?;
            let clear = read_config_clear(number, &config);
            let slots = clear
                .as_ref()
                .map_or_else(|_| Ok(SlotObjects::default()), |clear| SlotObjects::read(&*store, Some(clear.repository)));
            Ok((number, config, slots?))
        };
        let ((keys, config), slot) = opened(read, |(number, bytes, slots)| {
            let clear = read_config_clear(*number, bytes)?;
            slots.open(&*store, clear.repository, unlock, |keys| {
                let keys = keys.for_version(clear.version);
                let config = Config::decode(&keys, *number, bytes, &mut Codec::new()?)?;
                Ok((keys, config))
            })
        })?;
        let cache = Arc::new(cache.for_repository(config.repository));
        Ok(Self { store, keys: Arc::new(keys), config: Arc::new(config), world, cache, slot, asks_store: false })
    }

    /// Whether a store holds a repository, without a key.
    ///
    /// # Errors
    /// What the store says; `NewerFormat` and Corrupt from the configuration's clear part.
    pub fn exists(store: &dyn Store) -> Result<bool> {
        opened(
            || read_config(store),
            |found| match found {
                None => Ok(false),
                Some((number, bytes)) => Ok(read_config_clear(*number, bytes).map(|_| true)?),
            },
        )
    }

    /// The repository's id.
    #[must_use]
    pub fn id(&self) -> RepositoryId {
        self.config.repository
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The key slot that was opened with the key, or made for it.
    #[must_use]
    pub fn slot(&self) -> RandomName {
        self.slot
    }

    /// Its keys.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The store behind it.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The same repository, its store seen through another layer.
    #[must_use]
    pub fn with_store(&self, store: Arc<dyn Store>) -> Self {
        Self { store, ..self.clone() }
    }

    /// The same repository in the hands of another process, with a clock and chance of its own.
    #[must_use]
    pub fn with_world(&self, world: World) -> Self {
        Self { world, ..self.clone() }
    }

    /// The same repository with another cache.
    #[must_use]
    pub fn with_cache(&self, cache: &Cache) -> Self {
        Self { cache: Arc::new(cache.for_repository(self.config.repository)), ..self.clone() }
    }

    /// The same repository for who has to know what the store holds, not what it held when this machine kept a copy of it.
    pub(crate) fn asking_store(&self) -> Self {
        Self { asks_store: true, ..self.clone() }
    }

    /// A prefix whose listing is empty and cannot be: the store's answer is short.
    pub(crate) fn listed_empty(&self) -> Result<Option<&'static str>> {
        for prefix in ["config/", "keys/"] {
            if self.store.list(prefix, None, 1)?.entries.is_empty() {
                return Ok(Some(prefix));
            }
        }
        Ok(None)
    }

    /// Whether an object is there.
    pub(crate) fn has(&self, text: &str) -> Result<bool> {
        Ok(self.size_of(text)?.is_some())
    }

    /// How long an object is, when it is there.
    pub(crate) fn size_of(&self, text: &str) -> Result<Option<u64>> {
        match self.store.head(&key(text)?) {
            Ok(size) => Ok(Some(size)),
            Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What it was handed of the world.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Creates an object on whose being there safety rests, and looks whether it is: a store may acknowledge what it does not keep.
    ///
    /// # Errors
    /// Corrupt when it is not there, or what the store says.
    pub(crate) fn put_certainly(&self, text: &str, bytes: Bytes) -> Result<Put> {
        let at = key(text)?;
        let put = self.store.put_new(&at, bytes)?;
        self.is_kept(&at).map(|()| put)
    }

    fn is_kept(&self, at: &Key) -> Result<()> {
        match self.store.head(at) {
            Err(error) if error.kind() == StoreErrorKind::NotFound => Err(not_kept(at)),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(()),
        }
    }

    /// Whether an object is gone now; the store may refuse.
    pub(crate) fn delete(&self, text: &str) -> Result<bool> {
        match self.store.delete(&key(text)?) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(true),
            Err(error) if error.kind() == StoreErrorKind::Denied => {
                tracing::warn!(object = %text, error = %error, "The store refuses to delete");
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn get(&self, text: String, limit_bytes: usize) -> Result<Option<Bytes>> {
        match self.store.get(&key(text)?, (limit_bytes + limits::STORED_EXTRA_BYTES_MAX) as u64) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
