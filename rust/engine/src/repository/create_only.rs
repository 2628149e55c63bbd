//! Whether the store still creates an object only when its key is free.
//!
//! Asked in full when a repository is made (`init`). Here it is asked again, in one request where the answer is what it should be: a bucket may have
//! moved behind something that drops the condition, and then a commit overwrites a fence. Promises to blame a store only when it was seen to
//! overwrite what was seen to be there: a put that was lost, or is refused, tells nothing and stops nobody.

use super::{Repository, key};
use crate::error::{Error, Result};
use bytes::Bytes;
use longshore_store::{Key, Put, StoreError, StoreErrorKind};

/// The object that is put for that. It stays: the next one finds it there.
pub const PROBE_KEY: &str = "probe/create-only";
/// For so long the answer of one store is believed on one machine.
const BELIEVED_NANOS: i64 = 24 * 3600 * 1_000_000_000;

impl Repository {
    /// The same where this machine has not asked this store within a day. Without a cache it asks each time.
    ///
    /// # Errors
    /// As [`Repository::ask_create_only`].
    pub(crate) fn ask_create_only_daily(&self) -> Result<()> {
        let (now, place) = (self.world.clock.wall_nanos(), self.store.describe());
        let is_young = |at: i64| (0..BELIEVED_NANOS).contains(&now.saturating_sub(at));
        let told = self.cache.get(PROBE_KEY);
        let told = told.as_deref().and_then(|told| std::str::from_utf8(told).ok()).and_then(|told| told.split_once(' '));
        if told.is_some_and(|(at, of)| of == place && at.parse().is_ok_and(is_young)) {
            return Ok(());
        }
        if self.ask_create_only()? {
            self.cache.delete(PROBE_KEY);
            self.cache.put(PROBE_KEY, format!("{now} {place}").as_bytes());
        }
        Ok(())
    }

    /// Asks the store. Whether it has told: one that refuses the object, has no room for it or loses it has not.
    ///
    /// # Errors
    /// `Unsupported` when it overwrites what is there, or what the store says.
    pub(crate) fn ask_create_only(&self) -> Result<bool> {
        let at = key(PROBE_KEY)?;
        let body = || Bytes::from([self.world.random16(), self.world.random16()].concat());
        let first = body();
        match self.try_put(&at, &first)? {
            Some(Put::Exists) => return Ok(true),
            // It was free, or was written over.
            Some(Put::Created) if self.lies_there(&at)?.as_ref() == Some(&first) => {}
            _ => return Ok(false),
        }
        let second = body();
        match self.try_put(&at, &second)? {
            Some(Put::Exists) => return Ok(true),
            Some(Put::Created) if self.lies_there(&at)? == Some(second) => {}
            _ => return Ok(false),
        }
        let text = format!(
            "store overwrites objects that it should create only when their key is free: object={at}, store={}",
            self.store.describe()
        );
        Err(Error::from(StoreError::new(StoreErrorKind::Unsupported, text)).with_next_step(
            "nothing was changed; something between here and the store drops the condition If-None-Match: reach the store without it, or have it passed on",
        ))
    }

    /// None: the store refuses it, or has no room.
    fn try_put(&self, at: &Key, body: &Bytes) -> Result<Option<Put>> {
        match self.store.put_new(at, body.clone()) {
            Err(error) if matches!(error.kind(), StoreErrorKind::Denied | StoreErrorKind::NoSpace) => {
                tracing::debug!(error = %error, "Cannot ask the store whether it creates an object only when its key is free");
                Ok(None)
            }
            put => Ok(Some(put?)),
        }
    }

    fn lies_there(&self, at: &Key) -> Result<Option<Bytes>> {
        self.get(at.as_str().to_owned(), 1 << 10)
    }

    /// Deletes what else lies where stores are asked: of the making of a repository that died.
    ///
    /// # Errors
    /// What the store says.
    pub(crate) fn clear_probes(&self) -> Result<()> {
        let mut left = Vec::new();
        super::list(&*self.store, "probe/", |entry| {
            left.extend((entry.key.as_str() != PROBE_KEY).then(|| entry.key.to_string()));
            Ok(())
        })?;
        for text in left {
            if !self.delete(&text)? {
                break;
            }
        }
        Ok(())
    }
}
