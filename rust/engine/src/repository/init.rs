//! Making a repository.
//!
//! Two objects make one: a key slot, then the configuration, which counts. Promises that nothing of a repository that is there is touched,
//! that of several who make one at once one wins and no slot of a repository that counts is taken away, and that what was stopped
//! in between is in nobody's way: with the same key it is finished, since the slot holds all that the configuration needs; with another one
//! a new one is made beside it.

use super::slots::SlotObjects;
use super::{Repository, key, not_kept};
use crate::error::{Error, ErrorKind, Result};
use crate::repository::PROGRAM;
use crate::repository::cache::Cache;
use crate::seams::World;
use bytes::Bytes;
use longshore_format::config::{Config, Cut, config_key, read_config_clear};
use longshore_format::envelope::Codec;
use longshore_format::id::{RandomName, RepositoryId};
use longshore_format::keys::{self, Argon2Cost, Keys, MasterKey, Unlock};
use longshore_format::limits;
use longshore_store::{Put, Store, StoreErrorKind};
use std::sync::Arc;

/// What only a repository that was finished has. Key slots alone are none.
const SIGNS: [&str; 12] = [
    "config/",
    "sessions/",
    "packs/",
    "index/",
    "usage/",
    "snapshots/",
    "removed/",
    "tombstones/",
    "open/",
    "decisions/",
    "watches/",
    "repairs/",
];

impl Repository {
    /// Makes a repository whose master key is wrapped for `unlock`, or finishes making one that was stopped.
    ///
    /// # Errors
    /// `RepositoryExists` when there is one; nothing is touched then. `Unsupported` when the store cannot create an object only if it
    /// is absent.
    pub fn init(
        store: Arc<dyn Store>,
        world: World,
        unlock: &Unlock,
        label: &str,
        cost: Argon2Cost,
        cache: Cache,
    ) -> Result<Self> {
        for prefix in SIGNS {
            if !store.list(prefix, None, 1)?.entries.is_empty() {
                return Err(exists(&*store, prefix));
            }
        }
        let begun = SlotObjects::read(&*store, None)?.begun(unlock);
        longshore_store::probe(&*store, &*world.rng)?;
        let made = begun.is_none();
        // The slot goes first: a configuration without any slot could never be opened, a slot without a configuration is inert.
        let (slot, keys) = match begun {
            Some(begun) => {
                tracing::info!("Finishing a repository whose making was stopped");
                begun
            }
            None => {
                let keys = Keys::derive(&MasterKey::new(world.salt()), RepositoryId(world.random16()));
                let slot = world.name();
                let bytes = keys::encode_slot(&keys, slot, unlock, world.salt(), cost, label)?;
                let at = key(keys::slot_key(slot))?;
                store.put_new(&at, Bytes::from(bytes))?;
                store.head(&at)?;
                (slot, keys)
            }
        };
        let config = Config {
            number: 0,
            repository: keys.repository(),
            cut: Cut::default(),
            created_nanos: world.clock.wall_nanos(),
            program: PROGRAM.to_owned(),
        };
        let bytes = config.encode(&keys, world.salt(), &mut Codec::new()?)?;
        // Whatever the answer was, what lies there decides: an answer may have been lost, or somebody finished what this one began.
        let put = store.put_new(&key(config_key(0))?, Bytes::from(bytes))?;
        if maker(&*store)? != keys.repository() {
            if made {
                remove_own(&*store, slot);
            }
            return Err(exists(&*store, "config/"));
        }
        if put == Put::Exists {
            // Somebody else may have written the configuration that counts.
            return Self::open(store, world, unlock, cache);
        }
        let cache = Arc::new(cache.for_repository(config.repository));
        Ok(Self { store, keys: Arc::new(keys), config: Arc::new(config), world, cache, slot, asks_store: false })
    }
}

fn exists(store: &dyn Store, what: &str) -> Error {
    Error::new(
        ErrorKind::RepositoryExists,
        format!("a repository is already there: found={what}, repository={}", store.describe()),
    )
    .with_next_step("open it with its key, or choose another place")
}

/// The repository that the configuration belongs to.
fn maker(store: &dyn Store) -> Result<RepositoryId> {
    let at = key(config_key(0))?;
    match store.get(&at, limits::RECORD_BYTES_MAX as u64) {
        Ok(bytes) => Ok(read_config_clear(0, &bytes)?.repository),
        Err(error) if error.kind() == StoreErrorKind::NotFound => Err(not_kept(&at)),
        Err(error) => Err(error.into()),
    }
}

/// Takes the slot of a repository that never came to be away; when that fails it stays, and does no harm.
fn remove_own(store: &dyn Store, slot: RandomName) {
    if let Err(error) = key(keys::slot_key(slot)).and_then(|at| Ok(store.delete(&at)?)) {
        tracing::warn!(slot = %slot, error = %error, "Could not remove the key slot of a repository that was not made");
    }
}
