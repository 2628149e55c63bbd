//! What can go wrong in a store, sorted by what the caller does next.
//!
//! Holds [`StoreError`]; does not know which object mattered to whom.

use std::fmt;
use std::time::Duration;

/// What the caller can do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// No such object: reload what named it.
    NotFound,
    /// The store did not answer, or answered that it cannot now: try again later. The effect of a put or delete is unknown.
    Unavailable,
    /// The store refuses these credentials or this operation: an operator must act.
    Denied,
    /// No room, or over quota: an operator must act.
    NoSpace,
    /// The object is shorter than what was asked for: it is damaged.
    Truncated,
    /// The object is longer than the caller's limit: it is damaged or not ours.
    TooLarge,
    /// The text is no key: a bug or a forged name.
    InvalidKey,
    /// The place cannot do what the repository needs (create-only puts, say): choose another.
    Unsupported,
    /// The settings are wrong: an operator must act.
    InvalidSettings,
    /// The device or the server answered with an error that none of the above describes.
    Io,
}

impl StoreErrorKind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::NotFound,
        Self::Unavailable,
        Self::Denied,
        Self::NoSpace,
        Self::Truncated,
        Self::TooLarge,
        Self::InvalidKey,
        Self::Unsupported,
        Self::InvalidSettings,
        Self::Io,
    ];

    /// Its place in [`StoreErrorKind::ALL`].
    #[must_use]
    pub const fn number(self) -> usize {
        self as usize
    }

    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Unavailable => "unavailable",
            Self::Denied => "denied",
            Self::NoSpace => "no_space",
            Self::Truncated => "truncated",
            Self::TooLarge => "too_large",
            Self::InvalidKey => "invalid_key",
            Self::Unsupported => "unsupported",
            Self::InvalidSettings => "invalid_settings",
            Self::Io => "io",
        }
    }
}

/// An error of a store.
#[derive(Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    retry_after: Option<Duration>,
}

impl StoreError {
    /// A new error; `message` is lower-case, variables last, and holds no secret.
    #[must_use]
    pub fn new(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None, retry_after: None }
    }

    /// The same with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same with the time that the store asked to be left alone.
    #[must_use]
    pub fn with_retry_after(mut self, retry_after: Option<Duration>) -> Self {
        self.retry_after = retry_after;
        self
    }

    /// How long the store asked to be left alone, if it said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// What the caller can do next.
    #[must_use]
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later without anybody acting.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, StoreErrorKind::Unavailable)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let source = self.source.as_ref()?;
        Some(&**source)
    }
}
