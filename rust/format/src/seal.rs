//! AES-256-GCM and the common form of sealed objects: docs/format.md chapter 4.
//!
//! Promises that associated data binds an object to its repository, type, version and name, and that the commitment is compared
//! before anything is opened.

use crate::envelope::{Codec, Compression};
use crate::id::RepositoryId;
use crate::keys::Keys;
use crate::wire::Reader;
use crate::{FORMAT_VERSION, FormatError, Result};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// First bytes of every object.
pub const MAGIC: &[u8; 8] = b"LONGSHOR";
/// Length of an authentication tag.
pub const TAG_BYTES: usize = 16;
const FIXED_BYTES: usize = 96;

pub(crate) fn cipher(key: &[u8]) -> Result<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, key).map(LessSafeKey::new).map_err(|_| FormatError::Library("set up a cipher"))
}

/// Encrypts `buffer[start..]` in place and appends the tag.
pub(crate) fn seal_in_place(key: &LessSafeKey, nonce: [u8; 12], aad: &[u8], buffer: &mut Vec<u8>, start: usize) -> Result<()> {
    let tag = key
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut buffer[start..])
        .map_err(|_| FormatError::Library("encrypt"))?;
    buffer.extend_from_slice(tag.as_ref());
    Ok(())
}

/// Decrypts `buffer` (ciphertext and tag) in place and returns the plaintext.
pub(crate) fn open_in_place<'a>(
    key: &LessSafeKey,
    nonce: [u8; 12],
    aad: &[u8],
    buffer: &'a mut [u8],
    what: &'static str,
) -> Result<&'a [u8]> {
    key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad), buffer)
        .map(|plain| &*plain)
        .map_err(|_| FormatError::corrupt(what, "seal does not hold"))
}

/// Decrypts `sealed` (ciphertext and tag) into `plain`, which is replaced.
pub(crate) fn open_into(
    key: &LessSafeKey,
    nonce: [u8; 12],
    aad: &[u8],
    sealed: &[u8],
    plain: &mut Vec<u8>,
    what: &'static str,
) -> Result<()> {
    let broken = || FormatError::corrupt(what, "seal does not hold");
    let (body, tag) = sealed.split_last_chunk::<TAG_BYTES>().ok_or_else(broken)?;
    // What is there is overwritten, so only what is missing has to be cleared.
    plain.resize(body.len(), 0);
    key.open_separate_gather(Nonce::assume_unique_for_key(nonce), Aad::from(aad), body, tag, plain).map_err(|_| broken())
}

/// Reads magic, type, version and the two zero bytes; gives the version.
pub(crate) fn read_head(reader: &mut Reader<'_>, object_type: u8) -> Result<u8> {
    if reader.take(8)? != MAGIC {
        return Err(reader.corrupt("it does not begin as an object of longshore"));
    }
    let found = reader.u8()?;
    if found != object_type {
        return Err(reader.corrupt(format!("object has another type: type={found}, expected={object_type}")));
    }
    let version = reader.u8()?;
    if version > FORMAT_VERSION {
        return Err(FormatError::Newer(format!("format version is unknown: version={version}, known={FORMAT_VERSION}")));
    }
    if reader.u16()? != 0 {
        return Err(reader.corrupt("reserved bytes are not zero"));
    }
    Ok(version)
}

/// The types of sealed objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObjectType {
    /// `config/<n>`
    Config,
    /// `sessions/<s>`
    Session,
    /// `index/<i>`
    Index,
    /// `usage/<u>`
    Usage,
    /// `snapshots/<s>`
    Snapshot,
    /// `removed/<s>`
    Removed,
    /// `tombstones/<g>`
    Tombstone,
    /// `open/<g>`
    Open,
    /// `decisions/<g>`
    Decision,
    /// `watches/<w>`
    Watch,
    /// `repairs/<r>`
    Repair,
}

impl ObjectType {
    fn number(self) -> u8 {
        match self {
            Self::Config => 1,
            Self::Session => 3,
            Self::Index => 5,
            Self::Usage => 6,
            Self::Snapshot => 7,
            Self::Removed => 8,
            Self::Tombstone => 9,
            Self::Open => 10,
            Self::Decision => 11,
            Self::Watch => 12,
            Self::Repair => 13,
        }
    }

    fn key_label(self) -> &'static str {
        match self {
            Self::Config => "object config",
            Self::Session => "object session",
            Self::Index => "object index",
            Self::Usage => "object usage",
            Self::Snapshot => "object snapshot",
            Self::Removed => "object removed",
            Self::Tombstone => "object tombstone",
            Self::Open => "object open",
            Self::Decision => "object decision",
            Self::Watch => "object watch",
            Self::Repair => "object repair",
        }
    }

    /// What errors call it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Config => "configuration",
            Self::Session => "session marker",
            Self::Index => "index segment",
            Self::Usage => "usage table",
            Self::Snapshot => "snapshot",
            Self::Removed => "removal",
            Self::Tombstone => "tombstone",
            Self::Open => "list of open writers",
            Self::Decision => "decision",
            Self::Watch => "watch",
            Self::Repair => "record of a repair",
        }
    }
}

/// Seals a payload as the object `object_key`; `clear` is readable without a key.
///
/// # Errors
/// `Library`, `TooLarge`.
pub fn seal_object(
    keys: &Keys,
    object_type: ObjectType,
    object_key: &str,
    salt: [u8; 32],
    clear: &[u8],
    payload: &[u8],
    codec: &mut Codec,
) -> Result<Vec<u8>> {
    let sub = keys.object(object_type.key_label(), &salt, object_key);
    let mut out = Vec::with_capacity(FIXED_BYTES + clear.len() + payload.len() / 2 + 64);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[object_type.number(), keys.version(), 0, 0]);
    out.extend_from_slice(&(clear.len() as u32).to_le_bytes());
    out.extend_from_slice(&keys.repository().0);
    out.extend_from_slice(&salt);
    out.extend_from_slice(&sub.commitment());
    out.extend_from_slice(clear);
    let mut aad = out.clone();
    aad.extend_from_slice(object_key.as_bytes());
    let start = out.len();
    codec.wrap(payload, Compression::Zstd(3), &mut out)?;
    seal_in_place(&sub.cipher()?, [0; 12], &aad, &mut out, start)?;
    Ok(out)
}

/// What an object says without a key.
#[derive(Clone, Copy, Debug)]
pub struct Clear<'a> {
    /// Its format version; not yet proven.
    pub version: u8,
    /// The repository that it says it belongs to; not yet proven.
    pub repository: RepositoryId,
    /// The clear part.
    pub clear: &'a [u8],
    salt: [u8; 32],
    body_start: usize,
}

/// Reads what an object says without a key.
///
/// # Errors
/// Corrupt, Newer.
pub fn read_clear(object_type: ObjectType, bytes: &[u8]) -> Result<Clear<'_>> {
    let mut reader = Reader::new(bytes, object_type.word());
    let version = read_head(&mut reader, object_type.number())?;
    let clear_len = reader.u32()? as usize;
    let repository = RepositoryId(reader.array()?);
    let salt = reader.array()?;
    reader.take(32)?;
    let clear = reader.take(clear_len)?;
    if clear_len > 0 && object_type != ObjectType::Config {
        return Err(reader.corrupt("unexpected clear part"));
    }
    Ok(Clear { version, repository, clear, salt, body_start: FIXED_BYTES + clear_len })
}

/// Opens a sealed object and returns its payload.
///
/// # Errors
/// `WrongKey` when it was sealed with another key or belongs to another repository, Corrupt, `TooLarge`.
pub fn open_object(
    keys: &Keys,
    object_type: ObjectType,
    object_key: &str,
    bytes: &[u8],
    limit: usize,
    codec: &mut Codec,
) -> Result<Vec<u8>> {
    let word = object_type.word();
    let clear = read_clear(object_type, bytes)?;
    if clear.repository != keys.repository() {
        return Err(FormatError::corrupt(word, format!("it belongs to another repository: repository={}", clear.repository)));
    }
    let sub = keys.object(object_type.key_label(), &clear.salt, object_key);
    sub.check(&bytes[64..96], word)?;
    let (head, body) = bytes.split_at(clear.body_start);
    let mut aad = head.to_vec();
    aad.extend_from_slice(object_key.as_bytes());
    let mut body = body.to_vec();
    let plain = open_in_place(&sub.cipher()?, [0; 12], &aad, &mut body, word)?;
    let mut payload = Vec::new();
    codec.unwrap(plain, limit, word, &mut payload)?;
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::MasterKey;

    fn keys(n: u8) -> Keys {
        Keys::derive(&MasterKey::new([n; 32]), RepositoryId([n; 16]))
    }

    #[test]
    fn an_object_opens_only_as_itself() {
        let mut codec = Codec::new().unwrap();
        let types = [
            ObjectType::Session,
            ObjectType::Index,
            ObjectType::Usage,
            ObjectType::Snapshot,
            ObjectType::Removed,
            ObjectType::Tombstone,
        ];
        for object_type in types {
            let bytes = seal_object(&keys(1), object_type, "a/1", [3; 32], b"", b"payload", &mut codec).unwrap();
            let mut open = |k: &Keys, t, name: &str, b: &[u8]| open_object(k, t, name, b, 100, &mut codec);
            assert_eq!(open(&keys(1), object_type, "a/1", &bytes).unwrap(), b"payload");
            assert!(open(&keys(1), object_type, "a/2", &bytes).is_err(), "another name");
            assert!(open(&keys(2), object_type, "a/1", &bytes).is_err(), "another repository");
            for other in types.into_iter().filter(|t| *t != object_type) {
                assert!(open(&keys(1), other, "a/1", &bytes).is_err(), "{object_type:?} opened as {other:?}");
                let mut disguised = bytes.clone();
                disguised[8] = other.number();
                assert!(open(&keys(1), other, "a/1", &disguised).is_err(), "{object_type:?} disguised as {other:?}");
            }
            for i in 0..bytes.len() {
                let mut bad = bytes.clone();
                bad[i] ^= 0x10;
                assert!(open(&keys(1), object_type, "a/1", &bad).is_err(), "byte {i} does not matter");
                assert!(open(&keys(1), object_type, "a/1", &bytes[..i]).is_err(), "cut at {i}");
            }
        }
    }
    #[test]
    fn an_object_bears_the_version_of_its_repository_and_opens_with_every_version_that_is_known() {
        let mut codec = Codec::new().unwrap();
        for version in 0..=FORMAT_VERSION {
            let old = keys(1).for_version(version);
            let mut bytes = seal_object(&old, ObjectType::Usage, "a/1", [3; 32], b"", b"payload", &mut codec).unwrap();
            assert_eq!((bytes[9], read_clear(ObjectType::Usage, &bytes).unwrap().version), (version, version));
            assert_eq!(open_object(&keys(1), ObjectType::Usage, "a/1", &bytes, 100, &mut codec).unwrap(), b"payload");
            bytes[9] = FORMAT_VERSION + 1;
            let refused = open_object(&keys(1), ObjectType::Usage, "a/1", &bytes, 100, &mut codec);
            assert!(matches!(refused, Err(FormatError::Newer(_))), "{refused:?}");
        }
    }
}
