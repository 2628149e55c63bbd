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

    /// Checks the beginning of a key, as a listing takes it: empty, or whole segments and a slash, or whole segments and a part of one.
    ///
    /// # Errors
    /// [`StoreErrorKind::InvalidKey`] if no key can begin so.
    pub fn check_prefix(prefix: &str) -> Result<(), StoreError> {
        let whole = prefix.strip_suffix('/').unwrap_or(prefix);
        if prefix.is_empty() || Self::new(whole).is_ok() {
            return Ok(());
        }
        Err(StoreError::new(StoreErrorKind::InvalidKey, format!("no object key can begin so: prefix={prefix:?}")))
    }

    /// The key's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

// Sound because a key is ordered, compared and hashed as its text.
impl std::borrow::Borrow<str> for Key {
    fn borrow(&self) -> &str {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_what_could_leave_the_prefix() {
        for bad in [
            "", "/", "a/", "/a", "a//b", ".", "..", "a/../b", "a/.b", ".tmp/x", "A", "a b", "a\\b", "a\0", "a%2fb", "\u{e9}",
            "a:b",
        ] {
            assert_eq!(Key::new(bad).unwrap_err().kind(), StoreErrorKind::InvalidKey, "{bad:?}");
        }
        assert!(Key::new("a".repeat(KEY_BYTES_MAX)).is_ok());
        assert!(Key::new("a".repeat(KEY_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn takes_prefixes_that_a_key_can_begin_with() {
        for good in ["", "packs/", "packs", "packs/ab", "a/b/"] {
            assert!(Key::check_prefix(good).is_ok(), "{good:?}");
        }
        for bad in ["/", "//", "a//", "../", "a/.", ".tmp/", "P", "a/../"] {
            assert!(Key::check_prefix(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_key_never_holds_a_step_outside(text in "[a-c./\\\\A _-]{0,12}") {
            if let Ok(key) = Key::new(text.clone()) {
                prop_assert_eq!(key.as_str(), text.as_str());
                prop_assert!(!text.starts_with('/') && !text.ends_with('/'));
                prop_assert!(text.split('/').all(|s| !s.is_empty() && !s.starts_with('.')));
                prop_assert!(!text.contains(['\\', 'A', ' ']));
                prop_assert!(Key::check_prefix(&text).is_ok());
            }
        }
    }
}
