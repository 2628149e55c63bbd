//! Bytes by key.
//!
//! Holds the [`Store`] trait, what it promises, and the stores and layers behind it. Has never heard of a chunk, a pack or a
//! key that encrypts: it sees names and bytes.
//!
//! What every store and every layer promises (the conformance suite checks each line):
//! - [`Store::put_new`] creates an object whole or not at all, and never replaces one. Of several callers that race for one
//!   key, exactly one is told [`Put::Created`].
//! - When it returns [`Put::Created`] the object is durable and visible to every later `get`, `head` and `list`.
//! - [`Store::get`] and [`Store::get_range`] return exactly the bytes that were put, or an error; never a prefix of them.
//! - [`Store::list`] shows every object whose `put_new` returned before the listing began, in ascending byte order of its key.
//! - [`Store::delete`] of an absent key succeeds.
//! - No call retries by itself except the layer named for it, and no call blocks for ever.

pub mod cloud;
mod error;
mod key;
pub mod layers;
mod local;
mod memory;
mod open;
mod probe;
mod shared;
mod simulated;
#[cfg(any(test, feature = "testing"))]
pub mod suite;
mod system;

pub use error::{StoreError, StoreErrorKind};
pub use key::{KEY_BYTES_MAX, Key};
pub use local::{LocalSettings, LocalStore};
pub use memory::MemoryStore;
pub use open::{OpenSettings, open};
pub use probe::{ProbeReport, probe};
pub use simulated::{SeededRng, VirtualClock};
pub use system::{SystemClock, SystemRng};

use bytes::Bytes;
use std::fmt;
use std::time::Duration;

/// What became of a create-only put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The object was made by this call.
    Created,
    /// An object was there before; it is untouched.
    Exists,
}

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where the object lies.
    pub key: Key,
    /// Its length in bytes.
    pub size_bytes: u64,
}

/// A page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Ascending by key.
    pub entries: Vec<Entry>,
    /// Whether keys after the last one remain; go on with `after` set to the last key of this page.
    pub more: bool,
}

/// Where objects are kept by key. Object-safe; every method may block; all are called from many threads at once.
///
/// # Errors
/// Every method says by [`StoreErrorKind`] what the caller can do next.
#[allow(clippy::missing_errors_doc, reason = "said once for the whole trait")]
pub trait Store: Send + Sync + fmt::Debug {
    /// Creates an object; never replaces one.
    fn put_new(&self, key: &Key, body: Bytes) -> Result<Put, StoreError>;

    /// Reads a whole object. Longer than `limit_bytes`: [`StoreErrorKind::TooLarge`], before it is read.
    fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes, StoreError>;

    /// Reads exactly `length_bytes` from `offset_bytes`. An object too short for that is [`StoreErrorKind::Truncated`].
    fn get_range(&self, key: &Key, offset_bytes: u64, length_bytes: u64) -> Result<Bytes, StoreError>;

    /// The same into a buffer whose length says how much, for callers that use one again and again. After an error it holds anything.
    fn get_range_into(&self, key: &Key, offset_bytes: u64, out: &mut [u8]) -> Result<(), StoreError> {
        let bytes = self.get_range(key, offset_bytes, out.len() as u64)?;
        if bytes.len() != out.len() {
            return Err(StoreError::new(StoreErrorKind::Truncated, format!("range came cut: key={key}")));
        }
        out.copy_from_slice(&bytes);
        Ok(())
    }

    /// Length of an object in bytes.
    fn head(&self, key: &Key) -> Result<u64, StoreError>;

    /// Up to `limit` objects whose key begins with `prefix`, after the key `after`, ascending.
    fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Page, StoreError>;

    /// Deletes an object; an absent one is no error.
    fn delete(&self, key: &Key) -> Result<(), StoreError>;

    /// Where this is, for messages; never holds a secret.
    fn describe(&self) -> String;
}

/// Time, handed in. Nothing that decides what is deleted may ask it.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Time since some fixed moment; never goes back.
    fn monotonic(&self) -> Duration;
    /// Nanoseconds since 1970-01-01 UTC; may jump.
    fn wall_nanos(&self) -> i64;
    /// Waits.
    fn sleep(&self, duration: Duration);
}

/// Randomness, handed in. Production uses the operating system's.
pub trait Rng: Send + Sync + fmt::Debug {
    /// Fills `out` with unpredictable bytes.
    fn fill(&self, out: &mut [u8]);
}
