//! Names: of chunks, sessions, packs, usage tables, repositories, and how they are written as store keys.

use crate::{FormatError, Result};
use std::fmt;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $bytes:expr, $what:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $bytes]);

        impl $name {
            /// Reads it from exactly as many lower-case hexadecimal digits as it needs.
            ///
            /// # Errors
            /// Corrupt for anything else.
            pub fn from_hex(text: &str) -> Result<Self> {
                let mut out = [0; $bytes];
                if text.len() != $bytes * 2 {
                    return Err(FormatError::corrupt($what, format!("wrong length of hexadecimal name: name={text:?}")));
                }
                for (i, pair) in text.as_bytes().chunks_exact(2).enumerate() {
                    match (nibble(pair[0]), nibble(pair[1])) {
                        (Some(high), Some(low)) => out[i] = high << 4 | low,
                        _ => return Err(FormatError::corrupt($what, format!("not a hexadecimal name: name={text:?}"))),
                    }
                }
                Ok(Self(out))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut text = [0; $bytes * 2];
                for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
                    pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
                }
                f.write_str(str::from_utf8(&text).map_err(|_| fmt::Error)?)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

id_type!(
    /// Keyed hash of a chunk's plaintext.
    ChunkId, 32, "chunk id"
);
id_type!(
    /// A session: one running writer or reader; also the name of the snapshot that it commits.
    SessionId, 16, "session id"
);
id_type!(
    /// A repository.
    RepositoryId, 16, "repository id"
);
id_type!(
    /// A usage table, by its content.
    UsageName, 32, "usage name"
);
id_type!(
    /// An index segment or a key slot.
    RandomName, 16, "random name"
);

impl UsageName {
    /// The session that wrote the table.
    #[must_use]
    pub fn session(&self) -> SessionId {
        let mut session = [0; 16];
        session.copy_from_slice(&self.0[16..]);
        SessionId(session)
    }
}

/// What a chunk holds; ids of different kinds are made with different keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChunkKind {
    /// Bytes of a file.
    Data,
    /// Entries of a directory.
    Tree,
    /// Items of a content.
    List,
}

impl ChunkKind {
    /// Its number on the wire.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Tree => 2,
            Self::List => 3,
        }
    }

    /// The kind of a number.
    ///
    /// # Errors
    /// Corrupt for an unknown one.
    pub fn from_number(number: u8) -> Result<Self> {
        match number {
            1 => Ok(Self::Data),
            2 => Ok(Self::Tree),
            3 => Ok(Self::List),
            _ => Err(FormatError::corrupt("frame kind", format!("unknown number: number={number}"))),
        }
    }
}

/// A pack: the session that wrote it and a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackName {
    /// The session.
    pub session: SessionId,
    /// The number.
    pub number: u32,
}

impl PackName {
    /// Reads the part of a store key behind `packs/`.
    ///
    /// # Errors
    /// Corrupt when it is no pack's name.
    pub fn from_text(text: &str) -> Result<Self> {
        let wrong = || FormatError::corrupt("pack name", format!("not a pack name: name={text:?}"));
        let (session, number) = text.split_once('-').ok_or_else(wrong)?;
        Ok(Self { session: SessionId::from_hex(session)?, number: number_from_hex(number).ok_or_else(wrong)? })
    }

    /// Its store key.
    #[must_use]
    pub fn key(&self) -> String {
        format!("packs/{self}")
    }
}

impl fmt::Display for PackName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:08x}", self.session, self.number)
    }
}

/// Reads the eight lower-case hexadecimal digits of a number in a key.
#[must_use]
pub fn number_from_hex(text: &str) -> Option<u32> {
    if text.len() == 8 && text.bytes().all(|b| nibble(b).is_some()) { u32::from_str_radix(text, 16).ok() } else { None }
}

/// What stands before the digits of a snapshot's public identifier.
pub const SNAPSHOT_ID_PREFIX: &str = "ls0-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_others_are_refused() {
        let pack = PackName { session: SessionId([0xab; 16]), number: 0x1f };
        assert_eq!(pack.key(), format!("packs/{}-0000001f", "ab".repeat(16)));
        assert_eq!(PackName::from_text(&pack.to_string()).unwrap(), pack);
        for bad in
            ["", "ab-1", &format!("{}-0000001F", "ab".repeat(16)), &format!("{}-000001f", "ab".repeat(16)), &"AB".repeat(16)]
        {
            assert!(PackName::from_text(bad).is_err(), "{bad}");
        }
        assert!(SessionId::from_hex(&"AB".repeat(16)).is_err());
        assert!(number_from_hex("+0000001").is_none());
    }
}
