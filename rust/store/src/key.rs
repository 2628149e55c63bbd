//! A store key: the one form in which a name may reach a store.
//!
//! Promises that a [`Key`] cannot leave the repository's prefix: segments of `a-z 0-9 . _ -`, none empty, none beginning
//! with a dot, joined by single slashes. Does not know what any key means.

use crate::{StoreError, StoreErrorKind};
use std::fmt;

/// Longest key in bytes, prefix of the repository not counted.
pub const KEY_BYTES_MAX: usize = 200;

/// A checked store key, relative to the repository's prefix.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// Checks `text` and makes it a key.
    ///
    /// # Errors
    /// [`StoreErrorKind::InvalidKey`] if any rule of the module does not hold.
    pub fn new(text: impl Into<String>) -> Result<Self, StoreError> {
        let text = text.into();
        let good_segment = |s: &str| {
            !s.is_empty() && !s.starts_with('.') && s.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
        };
        if text.is_empty() || text.len() > KEY_BYTES_MAX || !text.split('/').all(good_segment) {
            return Err(StoreError::new(StoreErrorKind::InvalidKey, format!("not a valid object key: key={text:?}")));
        }
        Ok(Self(text))
    }

    /// The key's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
