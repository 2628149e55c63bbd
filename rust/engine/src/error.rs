//! The engine's one error, sorted by what the caller does next.
//!
//! The list of kinds only grows; the Python side has an exception for each, and a test holds both together.

use crate::volume::{VolumeError, VolumeErrorKind};
use longshore_format::FormatError;
use longshore_store::{StoreError, StoreErrorKind};
use std::fmt;

/// What the caller can do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no repository here.
    RepositoryNotFound,
    /// There is one already, or part of one.
    RepositoryExists,
    /// No slot opens with this secret or passphrase.
    WrongKey,
    /// A newer version made this.
    NewerFormat,
    /// No such snapshot.
    SnapshotNotFound,
    /// No such path in the snapshot.
    PathNotFound,
    /// Several snapshots fit.
    Ambiguous,
    /// Something in the repository is damaged or missing.
    Corrupt,
    /// The store does not answer: try again later.
    StoreUnavailable,
    /// The store refuses.
    StoreDenied,
    /// No room, in the store or on the volume.
    NoSpace,
    /// The store or filesystem cannot do what is needed.
    Unsupported,
    /// The volume cannot be read or written.
    Volume,
    /// What was asked for is wrong.
    Usage,
    /// The job was cancelled.
    Cancelled,
    /// A bug.
    Internal,
}

impl ErrorKind {
    /// All kinds, for the test that holds both languages together.
    pub const ALL: &'static [Self] = &[
        Self::RepositoryNotFound,
        Self::RepositoryExists,
        Self::WrongKey,
        Self::NewerFormat,
        Self::SnapshotNotFound,
        Self::PathNotFound,
        Self::Ambiguous,
        Self::Corrupt,
        Self::StoreUnavailable,
        Self::StoreDenied,
        Self::NoSpace,
        Self::Unsupported,
        Self::Volume,
        Self::Usage,
        Self::Cancelled,
        Self::Internal,
    ];

    /// Its stable word, equal on the Python side.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::RepositoryNotFound => "repository-not-found",
            Self::RepositoryExists => "repository-exists",
            Self::WrongKey => "wrong-key",
            Self::NewerFormat => "newer-format",
            Self::SnapshotNotFound => "snapshot-not-found",
            Self::PathNotFound => "path-not-found",
            Self::Ambiguous => "ambiguous",
            Self::Corrupt => "corrupt",
            Self::StoreUnavailable => "store-unavailable",
            Self::StoreDenied => "store-denied",
            Self::NoSpace => "no-space",
            Self::Unsupported => "unsupported",
            Self::Volume => "volume",
            Self::Usage => "usage",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal",
        }
    }
}

/// An error of the engine.
#[derive(Clone, Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    next_step: Option<String>,
}

/// Result of the engine.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A new error; `message` is lower-case, variables last, and holds no secret.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), next_step: None }
    }

    /// The same with what an operator should do.
    #[must_use]
    pub fn with_next_step(mut self, next_step: impl Into<String>) -> Self {
        self.next_step = Some(next_step.into());
        self
    }

    /// The same with what was being done in front of the message.
    #[must_use]
    pub fn while_doing(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Something in the repository is damaged.
    #[must_use]
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    /// A bug.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// What the caller can do next.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message without the next step.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What an operator should do.
    #[must_use]
    pub fn next_step(&self) -> Option<&str> {
        self.next_step.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let kind = match error.kind() {
            StoreErrorKind::NotFound | StoreErrorKind::Truncated | StoreErrorKind::TooLarge => ErrorKind::Corrupt,
            StoreErrorKind::Denied => ErrorKind::StoreDenied,
            StoreErrorKind::NoSpace => ErrorKind::NoSpace,
            StoreErrorKind::Unsupported => ErrorKind::Unsupported,
            StoreErrorKind::InvalidSettings => ErrorKind::Usage,
            StoreErrorKind::InvalidKey => ErrorKind::Internal,
            _ => ErrorKind::StoreUnavailable,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<FormatError> for Error {
    fn from(error: FormatError) -> Self {
        let kind = match &error {
            FormatError::Newer(_) => ErrorKind::NewerFormat,
            FormatError::WrongKey(_) => ErrorKind::WrongKey,
            FormatError::Library(_) => ErrorKind::Internal,
            _ => ErrorKind::Corrupt,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<VolumeError> for Error {
    fn from(error: VolumeError) -> Self {
        let kind = match error.kind {
            VolumeErrorKind::NoSpace => ErrorKind::NoSpace,
            _ => ErrorKind::Volume,
        };
        Self::new(kind, error.to_string())
    }
}
