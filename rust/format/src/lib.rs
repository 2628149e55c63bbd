//! Bytes and structs of a Longshore repository, as docs/format.md lays them down.
//!
//! Holds encoders and decoders, key derivation and sealing. Promises that no decoder panics, allocates beyond a limit of
//! docs/format.md chapter 13, or accepts what its encoder could not have made. Knows no file, socket, clock, thread or source of
//! randomness: salts and nonces are handed in.

pub mod config;
pub mod envelope;
pub mod generation;
pub mod id;
pub mod index;
pub mod keys;
pub mod limits;
pub mod pack;
pub mod record;
pub mod repair;
pub mod seal;
pub mod session;
pub mod snapshot;
pub mod tree;
pub mod usage;
pub mod wire;

pub use id::{ChunkId, ChunkKind, PackName, RepositoryId, SessionId, UsageName};
pub use keys::{Keys, MasterKey};

/// The newest format version: what a new repository has. This crate reads and writes all of them, each repository in its own.
pub const FORMAT_VERSION: u8 = 1;

/// Features by number, as docs/format.md chapter 15 reserves them. This version knows none as required.
pub const KNOWN_FEATURES: &[u16] = &[];

/// Why bytes could not be decoded, opened or made, sorted by what the caller does next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The bytes are not what the format allows: damaged or forged.
    #[error("{what} is damaged: {why}")]
    Corrupt {
        /// Which structure.
        what: &'static str,
        /// What does not hold.
        why: String,
    },
    /// Made by a newer version, or with a feature that this version does not know.
    #[error("repository needs a newer version of longshore: {0}")]
    Newer(String),
    /// The key does not open this.
    #[error("wrong key for {0}")]
    WrongKey(&'static str),
    /// A length or count is beyond what the format allows.
    #[error("{what} is too large: size={size}, limit={limit}")]
    TooLarge {
        /// Which structure.
        what: &'static str,
        /// What it would be.
        size: u64,
        /// What is allowed.
        limit: u64,
    },
    /// The cryptographic or compression library refused; a bug or a lack of memory.
    #[error("cannot {0}")]
    Library(&'static str),
}

impl FormatError {
    /// Shorthand for [`FormatError::Corrupt`].
    #[must_use]
    pub fn corrupt(what: &'static str, why: impl Into<String>) -> Self {
        Self::Corrupt { what, why: why.into() }
    }
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, FormatError>;
