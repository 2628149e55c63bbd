//! A repository: made, opened, its keys, and the objects behind its names.
//!
//! Holds [`Repository`], which is cheap to clone and used from many threads. Promises that one which exists is never given a new
//! key, and that every object is created once. Knows packs and snapshots as names and bytes; what a volume is it does not know.

pub mod ahead;
pub mod cache;
pub mod cursor;
mod eviction;
pub mod index;
mod init;
pub mod reader;
pub(crate) mod repairs;
pub mod session;
pub mod snapshots;

use crate::error::{Error, ErrorKind, Result};
use crate::seams::World;
use bytes::Bytes;
use cache::Cache;
use longshore_format::config::{Config, config_key, read_config_clear};
use longshore_format::envelope::Codec;
use longshore_format::id::{RandomName, RepositoryId, number_from_hex};
use longshore_format::keys::{self, Argon2Cost, Keys, SlotInfo, Unlock};
use longshore_format::limits;
use longshore_store::{Entry, Key, Put, Store, StoreErrorKind};
use std::sync::Arc;

/// Name and version, as written into what we make.
pub const PROGRAM: &str = concat!("longshore ", env!("CARGO_PKG_VERSION"));
const PAGE: usize = 1000;

/// An open repository.
#[derive(Clone, Debug)]
pub struct Repository {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) keys: Arc<Keys>,
    pub(crate) config: Arc<Config>,
    pub(crate) world: World,
    pub(crate) cache: Arc<Cache>,
    pub(crate) slot: RandomName,
}

/// A key slot and what it says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotRow {
    /// Its name.
    pub name: RandomName,
    /// What it says.
    pub info: SlotInfo,
}

pub(crate) fn key(text: impl Into<String>) -> Result<Key> {
    Ok(Key::new(text)?)
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
            Ok((number, config, slot_objects(&*store)?))
        };
        let (keys, config, slot) = opened(read, |(number, bytes, slots)| {
            let clear = read_config_clear(*number, bytes)?;
            let mut damaged = None;
            for (name, slot) in slots {
                // One that somebody began to make here, and that never counted.
                if keys::slot_repository(slot).is_ok_and(|repository| repository != clear.repository) {
                    continue;
                }
                match keys::open_slot(slot, *name, unlock) {
                    Ok(Some(master)) => {
                        let keys = Keys::derive(&master, clear.repository);
                        let config = Config::decode(&keys, *number, bytes, &mut Codec::new()?)?;
                        return Ok((keys, config, *name));
                    }
                    Ok(None) => {}
                    Err(error) => damaged = Some(error),
                }
            }
            if let Some(error) = damaged {
                return Err(Error::from(error).while_doing("no key slot opens, and one of them is damaged"));
            }
            let known = slots.len();
            let text = format!("this key opens none of the repository's slots: slots={known}, repository={}", store.describe());
            Err(Error::new(ErrorKind::WrongKey, text)
                .with_next_step("bring the key file or passphrase with which the repository was made, or one added later"))
        })?;
        let cache = Arc::new(cache.for_repository(config.repository));
        Ok(Self { store, keys: Arc::new(keys), config: Arc::new(config), world, cache, slot })
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

    /// What it was handed of the world.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Its key slots that their holders can open.
    ///
    /// # Errors
    /// What the store says. A damaged slot is left out, so that it never counts as a way in.
    pub fn slots(&self) -> Result<Vec<SlotRow>> {
        let mut rows = Vec::new();
        for (name, bytes) in slot_objects(&*self.store)? {
            let mut info = keys::slot_info(&self.keys, name, &bytes);
            // Damage on the way is no damage: what looks damaged is fetched once more before it is believed.
            if info.is_err()
                && let Ok(again) = self.store.get(&key(keys::slot_key(name))?, SLOT_BYTES_MAX)
            {
                info = keys::slot_info(&self.keys, name, &again);
            }
            if let Ok(info) = info {
                rows.push(SlotRow { name, info });
            }
        }
        Ok(rows)
    }

    /// Wraps the master key for one more holder.
    ///
    /// # Errors
    /// What the store says.
    pub fn add_slot(&self, unlock: &Unlock, label: &str, cost: Argon2Cost) -> Result<RandomName> {
        let name = self.world.name();
        let bytes = keys::encode_slot(&self.keys, name, unlock, self.world.salt(), cost, label)?;
        match self.put_certainly(&keys::slot_key(name), Bytes::from(bytes))? {
            Put::Created => Ok(name),
            Put::Exists => Err(Error::internal("a random slot name was taken")),
        }
    }

    /// Takes a slot away; the last one stays.
    ///
    /// # Errors
    /// `Usage` when it is absent or the last, or what the store says.
    pub fn remove_slot(&self, name: RandomName) -> Result<()> {
        let slots = self.slots()?;
        if !slots.iter().any(|s| s.name == name) {
            return Err(Error::new(ErrorKind::Usage, format!("there is no such key slot: slot={name}"))
                .with_next_step("list them with: longshore repo key list"));
        }
        if slots.len() == 1 {
            return Err(Error::new(
                ErrorKind::Usage,
                format!("this is the last key slot, without it nothing can be read: slot={name}"),
            )
            .with_next_step("add another with: longshore repo key add"));
        }
        self.store.delete(&key(keys::slot_key(name))?)?;
        Ok(())
    }

    /// Creates an object on whose being there safety rests, and looks whether it is: a store may acknowledge what it does not keep.
    ///
    /// # Errors
    /// Corrupt when it is not there, or what the store says.
    pub(crate) fn put_certainly(&self, text: &str, bytes: Bytes) -> Result<Put> {
        let at = key(text)?;
        let put = self.store.put_new(&at, bytes)?;
        match self.store.head(&at) {
            Err(error) if error.kind() == StoreErrorKind::NotFound => {
                Err(Error::corrupt(format!("the store acknowledged an object and does not have it: object={text}"))
                    .with_next_step("look for faults of the store, then run it again"))
            }
            Err(error) => Err(error.into()),
            Ok(_) => Ok(put),
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

/// No slot is longer.
const SLOT_BYTES_MAX: u64 = 4096;

fn slot_objects(store: &dyn Store) -> Result<Vec<(RandomName, Bytes)>> {
    let mut names = Vec::new();
    list(store, "keys/", |entry| {
        if let Some(name) = entry.key.as_str().strip_prefix("keys/").and_then(|n| RandomName::from_hex(n).ok()) {
            names.push((name, entry.key.clone()));
        }
        Ok(())
    })?;
    let mut out = Vec::with_capacity(names.len().min(limits::SLOTS_MAX));
    for (name, key) in names.into_iter().take(limits::SLOTS_MAX) {
        match store.get(&key, SLOT_BYTES_MAX) {
            Ok(bytes) => out.push((name, bytes)),
            Err(error) if error.kind() == StoreErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(out)
}
