//! The key slots of a repository: read, added, taken away.
//!
//! Promises that a slot of another repository, left where somebody began to make one and died, is no way in, no damage, and never takes
//! the place of a slot that is one. Knows that by the repository that each slot names; whose key it holds its sum proves.

use super::{Repository, key, list};
use crate::error::{Error, ErrorKind, Result};
use bytes::Bytes;
use longshore_format::id::{RandomName, RepositoryId, SessionId};
use longshore_format::keys::{self, Argon2Cost, Keys, SlotInfo, Unlock};
use longshore_format::limits;
use longshore_store::{Put, Store, StoreErrorKind};

/// No slot is longer.
const SLOT_BYTES_MAX: u64 = 4096;

/// A key slot and what it says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotRow {
    /// Its name.
    pub name: RandomName,
    /// What it says.
    pub info: SlotInfo,
}

/// What lies under `keys/`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SlotObjects {
    /// Slots that name the repository, or of which not even that can be read.
    own: Vec<(RandomName, Bytes)>,
    /// Slots that name another one.
    others: Vec<(RandomName, Bytes)>,
}

impl SlotObjects {
    /// Reads them, a bounded number; where there is no configuration, all are slots of others.
    ///
    /// # Errors
    /// What the store says.
    pub(super) fn read(store: &dyn Store, repository: Option<RepositoryId>) -> Result<Self> {
        let mut names = Vec::new();
        list(store, "keys/", |entry| {
            if let Some(name) = entry.key.as_str().strip_prefix("keys/").and_then(|n| RandomName::from_hex(n).ok())
                && names.len() < limits::SLOTS_LISTED_MAX
            {
                names.push((name, entry.key.clone()));
            }
            Ok(())
        })?;
        let mut out = Self::default();
        for (name, key) in names {
            if out.own.len() == limits::SLOTS_MAX {
                break;
            }
            let bytes = match store.get(&key, SLOT_BYTES_MAX) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == StoreErrorKind::NotFound => continue,
                Err(error) => return Err(error.into()),
            };
            let is_own = keys::slot_repository(&bytes).is_none_or(|named| Some(named) == repository);
            if is_own { &mut out.own } else { &mut out.others }.push((name, bytes));
        }
        Ok(out)
    }

    /// A slot that the holder of `unlock` began to make a repository with, and its keys. To be asked where there is no configuration.
    pub(super) fn begun(&self, unlock: &Unlock) -> Option<(RandomName, Keys)> {
        self.others.iter().find_map(|(name, bytes)| {
            let master = keys::open_slot(bytes, *name, unlock).ok().flatten()?;
            Some((*name, Keys::derive(&master, keys::slot_repository(bytes)?)))
        })
    }

    /// Opens the first slot that `unlock` opens, and with its keys what `then` makes of them.
    ///
    /// # Errors
    /// `WrongKey` when there is none, Corrupt when one is damaged that might be it, and what `then` says.
    pub(super) fn open<T>(
        &self,
        store: &dyn Store,
        repository: RepositoryId,
        unlock: &Unlock,
        then: impl FnOnce(Keys) -> Result<T>,
    ) -> Result<(T, RandomName)> {
        let mut damaged = None;
        for (name, bytes) in &self.own {
            match keys::open_slot(bytes, *name, unlock) {
                Ok(Some(master)) => return Ok((then(Keys::derive(&master, repository))?, *name)),
                Ok(None) => {}
                Err(error) => damaged = Some(error),
            }
        }
        // A slot in which just the repository's name is damaged looks like somebody else's until it is opened.
        for (name, bytes) in self.others.iter().filter(|(_, bytes)| keys::is_whole(bytes)) {
            damaged = keys::open_slot(bytes, *name, unlock).err().or(damaged);
        }
        if let Some(error) = damaged {
            return Err(Error::from(error).while_doing("no key slot opens, and one of them is damaged"));
        }
        if self.own.is_empty() && !self.others.is_empty() {
            let others = self.others.len();
            let text =
                format!("no key slot belongs to the configuration: slots_of_others={others}, repository={}", store.describe());
            return Err(Error::corrupt(text).with_next_step("restore config/ and keys/ from a copy of the repository"));
        }
        let known = self.own.len();
        let text = format!("this key opens none of the repository's slots: slots={known}, repository={}", store.describe());
        Err(Error::new(ErrorKind::WrongKey, text)
            .with_next_step("bring the key file or passphrase with which the repository was made, or one added later"))
    }
}

impl Repository {
    /// Its key slots that their holders can open.
    ///
    /// # Errors
    /// What the store says. A damaged slot is left out, so that it never counts as a way in.
    pub fn slots(&self) -> Result<Vec<SlotRow>> {
        let mut rows = Vec::new();
        let found = SlotObjects::read(&*self.store, Some(self.id()))?;
        for (name, bytes) in found.own.into_iter().chain(found.others) {
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

    /// Whether the slot under a store key was left by somebody who began to make another repository here.
    ///
    /// # Errors
    /// What the store says.
    pub(crate) fn is_left_over_slot(&self, text: &str) -> Result<bool> {
        let Some(name) = text.strip_prefix("keys/").and_then(|n| RandomName::from_hex(n).ok()) else { return Ok(false) };
        let bytes = self.get(text.to_owned(), SLOT_BYTES_MAX as usize)?;
        Ok(bytes.is_some_and(|bytes| keys::is_left_over(&self.keys, name, &bytes)))
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

    /// Takes a slot away; the last one stays, also of several that are taken away at once, whoever of them is killed: each says first which
    /// one it takes, and goes on only when there is another that nobody has said this of. Who is told that it is the last may find that two were,
    /// and that both stay.
    ///
    /// # Errors
    /// `Usage` when it is absent or the last, or what the store says.
    pub fn remove_slot(&self, name: RandomName) -> Result<()> {
        let slots = self.slots()?;
        if !slots.iter().any(|slot| slot.name == name) {
            return Err(Error::new(ErrorKind::Usage, format!("there is no such key slot: slot={name}"))
                .with_next_step("list them with: longshore repo key list"));
        }
        if !self.another_stays(&slots, name)? {
            return Err(last_slot(name));
        }
        self.put_removal(SessionId(name.0), "key slot")?;
        // Of two who say it at once at least one comes to see what the other has said.
        if !self.another_stays(&self.slots()?, name)? {
            return Err(last_slot(name).while_doing("another key slot is being taken away, and this one stays"));
        }
        if self.delete(&keys::slot_key(name))? {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::StoreDenied,
            format!("the store refuses to delete the key slot, which still opens the repository: slot={name}"),
        )
        .with_next_step("delete the object with an account that may, then look with: longshore repo key list"))
    }

    /// Whether there is another slot, which nobody takes away.
    fn another_stays(&self, slots: &[SlotRow], name: RandomName) -> Result<bool> {
        for slot in slots.iter().filter(|slot| slot.name != name) {
            if !self.is_removed(SessionId(slot.name.0))? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn last_slot(name: RandomName) -> Error {
    Error::new(ErrorKind::Usage, format!("this is the last key slot, without it nothing can be read: slot={name}"))
        .with_next_step("add another with: longshore repo key add")
}
