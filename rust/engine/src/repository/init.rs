//! Making a repository.
//!
//! Two objects make one: a key slot, then the configuration, which counts. Promises that nothing of a repository that is there is touched,
//! that of several who make one at once one wins and no slot of a repository that counts is taken away, and that what was stopped
//! in between is in nobody's way: with the same key it is finished, since the slot holds all that the configuration needs; with another one
//! a new one is made beside it.

use super::{Repository, key, read_config, slot_objects};
use crate::error::{Error, ErrorKind, Result};
use crate::repository::PROGRAM;
use crate::repository::cache::Cache;
use crate::seams::World;
use bytes::Bytes;
use longshore_format::config::{Config, Cut, config_key, read_config_clear};
use longshore_format::envelope::Codec;
use longshore_format::id::{RandomName, RepositoryId};
use longshore_format::keys::{self, Argon2Cost, Keys, MasterKey, Unlock};
use longshore_store::{Put, Store};
use std::sync::Arc;

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
        for prefix in ["config/", "packs/", "snapshots/"] {
            if !store.list(prefix, None, 1)?.entries.is_empty() {
                return Err(exists(&*store, prefix));
            }
        }
        let begun = begun(&*store, unlock)?;
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
        if store.put_new(&key(config_key(0))?, Bytes::from(bytes))? == Put::Exists {
            // Somebody finished what this one began, or an answer was lost: then the slot is that of a repository that counts.
            let there = read_config(&*store)?.map(|(number, bytes)| read_config_clear(number, &bytes)).transpose()?;
            if there.is_some_and(|clear| clear.repository == keys.repository()) {
                return Self::open(store, world, unlock, cache);
            }
            if made {
                let _ = store.delete(&key(keys::slot_key(slot))?);
            }
            return Err(exists(&*store, "config/"));
        }
        let cache = Arc::new(cache.for_repository(config.repository));
        Ok(Self { store, keys: Arc::new(keys), config: Arc::new(config), world, cache, slot })
    }
}

fn exists(store: &dyn Store, what: &str) -> Error {
    Error::new(
        ErrorKind::RepositoryExists,
        format!("a repository is already there: found={what}, repository={}", store.describe()),
    )
    .with_next_step("open it with its key, or choose another place")
}

/// A slot of a repository that was never finished, and what it holds. To be asked where there is no configuration: slots that another key
/// began are inert, and those who hold it find that the configuration is not theirs.
fn begun(store: &dyn Store, unlock: &Unlock) -> Result<Option<(RandomName, Keys)>> {
    for (slot, bytes) in slot_objects(store)? {
        if let Ok(Some(master)) = keys::open_slot(&bytes, slot, unlock) {
            return Ok(Some((slot, Keys::derive(&master, keys::slot_repository(&bytes)?))));
        }
    }
    Ok(None)
}
