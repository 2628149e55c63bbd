//! Room that is kept back, so that what makes room works where nothing fits any more: deleting a snapshot, and pruning.
//!
//! It is an object of random bytes. Who may use it deletes it when the store is full and asks again; a prune puts it back at its end, as large as
//! there is room for. Writers of data never use it: they would fill what it leaves, and nobody could make room then. Knows nothing of what is put.

use super::{Repository, key};
use crate::error::Result;
use bytes::Bytes;
use longshore_store::{Key, Put, StoreErrorKind};

/// Its key.
pub const RESERVE_KEY: &str = "reserve";
/// Its size where there is room, and what is tried where there is less. A removal, a tombstone and a decision take some hundred bytes each.
pub const RESERVE_BYTES: [usize; 4] = [4 << 20, 1 << 20, 256 << 10, 64 << 10];

impl Repository {
    /// Creates an object, where the store is full out of the room that is kept back. Whether that was needed.
    ///
    /// # Errors
    /// What the store says; `NoSpace` when there is none kept back, or not enough.
    pub(crate) fn put_out_of_reserve(&self, at: &Key, body: Bytes) -> Result<(Put, bool)> {
        match self.store.put_new(at, body.clone()) {
            Err(error) if error.kind() == StoreErrorKind::NoSpace => {
                tracing::warn!("The store is full, using the room that was kept back");
                if !self.delete(RESERVE_KEY)? {
                    return Err(error.into());
                }
                Ok((self.store.put_new(at, body)?, true))
            }
            done => Ok((done?, false)),
        }
    }

    /// Keeps room back for the next time the store is full: what is there when it is as large as it should be, else as much as fits.
    ///
    /// # Errors
    /// What the store says; a store that has no room, or refuses, is no error.
    pub(crate) fn put_reserve(&self) -> Result<()> {
        let at = key(RESERVE_KEY)?;
        let there = match self.store.head(&at) {
            Ok(size_bytes) => size_bytes,
            Err(error) if error.kind() == StoreErrorKind::NotFound => 0,
            Err(error) => return Err(error.into()),
        };
        if there >= RESERVE_BYTES[0] as u64 {
            return Ok(());
        }
        if there > 0 && !self.delete(RESERVE_KEY)? {
            return Ok(());
        }
        for size_bytes in RESERVE_BYTES {
            let mut bytes = vec![0; size_bytes];
            self.world.rng.fill(&mut bytes);
            match self.store.put_new(&at, Bytes::from(bytes)) {
                Err(error) if error.kind() == StoreErrorKind::NoSpace => {
                    tracing::warn!(size_bytes, error = %error, "Cannot keep so much room back");
                }
                Err(error) if error.kind() == StoreErrorKind::Denied => {
                    tracing::warn!(error = %error, "Cannot keep room back");
                    break;
                }
                done => return done.map(|_| ()).map_err(Into::into),
            }
        }
        Ok(())
    }
}
