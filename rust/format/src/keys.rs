//! The key tree: docs/format.md chapter 3. Room: `slots`, the key slots.
//!
//! Key bytes are wiped when dropped and never printed. Derivation is pure; salts come from the caller.

mod slots;

use crate::id::{ChunkId, ChunkKind, RepositoryId, UsageName};
use crate::{FORMAT_VERSION, FormatError, Result, seal};
use aws_lc_rs::aead::LessSafeKey;
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

pub use slots::{
    ARGON2_MEMORY_KIB_MAX, ARGON2_MEMORY_KIB_MIN, Argon2Cost, SlotInfo, Unlock, encode_slot, is_left_over, is_whole, open_slot,
    slot_info, slot_key, slot_repository,
};

/// The digit is a part of the label and says nothing of the format version.
const CONTEXT: &str = "longshore repository 0 ";

/// A repository's master key.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MasterKey([u8; 32]);

impl MasterKey {
    /// Wraps 32 random bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for export to a key slot only.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

/// A 64-byte derivation: a key and its commitment.
pub struct SubKey {
    bytes: [u8; 64],
}

impl SubKey {
    pub(crate) fn new(bytes: [u8; 64]) -> Self {
        Self { bytes }
    }

    /// What is stored in the clear and compared before anything is opened.
    #[must_use]
    pub fn commitment(&self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(&self.bytes[32..]);
        out
    }

    /// Refuses when the stored commitment is another key's.
    ///
    /// # Errors
    /// `WrongKey`.
    pub fn check(&self, commitment: &[u8], what: &'static str) -> Result<()> {
        aws_lc_rs::constant_time::verify_slices_are_equal(commitment, &self.bytes[32..]).map_err(|_| FormatError::WrongKey(what))
    }

    /// The cipher.
    ///
    /// # Errors
    /// `Library` when the key is refused; it never is.
    pub fn cipher(&self) -> Result<LessSafeKey> {
        seal::cipher(&self.bytes[..32])
    }
}

impl Drop for SubKey {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl fmt::Debug for SubKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SubKey(..)")
    }
}

/// Everything derived from one repository's master key, and the format version that its objects are written in.
#[derive(Clone, ZeroizeOnDrop)]
pub struct Keys {
    #[zeroize(skip)]
    repository: RepositoryId,
    version: u8,
    master: MasterKey,
    data_id: [u8; 32],
    tree_id: [u8; 32],
    list_id: [u8; 32],
    pack: [u8; 32],
    usage_name: [u8; 32],
    cut_data: [u8; 32],
    cut_tree: [u8; 32],
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.repository)
    }
}

impl Keys {
    /// Derives all keys of a repository of the newest version.
    #[must_use]
    pub fn derive(master: &MasterKey, repository: RepositoryId) -> Self {
        let key = |label| derive(master, repository, label);
        Self {
            repository,
            version: FORMAT_VERSION,
            master: master.clone(),
            data_id: key("chunk data"),
            tree_id: key("chunk tree"),
            list_id: key("chunk list"),
            pack: key("pack"),
            usage_name: key("usage name"),
            cut_data: key("cut data"),
            cut_tree: key("cut tree"),
        }
    }

    /// The repository that the keys belong to.
    #[must_use]
    pub fn repository(&self) -> RepositoryId {
        self.repository
    }

    /// The same keys, for a repository whose configuration bears this version.
    #[must_use]
    pub fn for_version(mut self, version: u8) -> Self {
        self.version = version;
        self
    }

    /// The format version of what is written with them.
    #[must_use]
    pub fn version(&self) -> u8 {
        self.version
    }

    /// The master key, to wrap it for another holder.
    #[must_use]
    pub fn master(&self) -> &MasterKey {
        &self.master
    }

    /// The id of a chunk.
    #[must_use]
    pub fn chunk_id(&self, kind: ChunkKind, plaintext: &[u8]) -> ChunkId {
        let key = match kind {
            ChunkKind::Data => &self.data_id,
            ChunkKind::Tree => &self.tree_id,
            ChunkKind::List => &self.list_id,
        };
        ChunkId(*blake3::keyed_hash(key, plaintext).as_bytes())
    }

    /// The name of a usage table.
    #[must_use]
    pub fn usage_name(&self, payload: &[u8]) -> UsageName {
        UsageName(*blake3::keyed_hash(&self.usage_name, payload).as_bytes())
    }

    /// The secret behind the cut points of files.
    #[must_use]
    pub fn cut_data(&self) -> &[u8; 32] {
        &self.cut_data
    }

    /// The secret behind the cut points of directories.
    #[must_use]
    pub fn cut_tree(&self) -> &[u8; 32] {
        &self.cut_tree
    }

    /// Checksum of a file in the local cache, which nothing else protects.
    #[must_use]
    pub fn cache_sum(&self, name: &[u8], bytes: &[u8]) -> [u8; 32] {
        let key = derive(&self.master, self.repository, "cache");
        let mut hasher = blake3::Hasher::new_keyed(&key);
        hasher.update(name);
        hasher.update(bytes);
        *hasher.finalize().as_bytes()
    }

    /// The key of a pack.
    #[must_use]
    pub fn pack(&self, salt: &[u8; 32], session: &[u8; 16], number: u32) -> SubKey {
        expand(&self.pack, &[salt, session, &number.to_le_bytes()])
    }

    /// The key of a sealed object.
    #[must_use]
    pub fn object(&self, label: &str, salt: &[u8; 32], object_key: &str) -> SubKey {
        let mut root = derive(&self.master, self.repository, label);
        let key = expand(&root, &[salt, object_key.as_bytes()]);
        root.zeroize();
        key
    }
}

fn derive(master: &MasterKey, repository: RepositoryId, label: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(&format!("{CONTEXT}{label}"));
    hasher.update(master.bytes());
    hasher.update(&repository.0);
    *hasher.finalize().as_bytes()
}

fn expand(key: &[u8; 32], parts: &[&[u8]]) -> SubKey {
    let mut hasher = blake3::Hasher::new_keyed(key);
    for part in parts {
        hasher.update(part);
    }
    let mut bytes = [0; 64];
    hasher.finalize_xof().fill(&mut bytes);
    SubKey::new(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::derive(&MasterKey::new([7; 32]), RepositoryId([9; 16]))
    }

    #[test]
    fn kinds_and_repositories_have_ids_of_their_own() {
        let other = Keys::derive(&MasterKey::new([7; 32]), RepositoryId([8; 16]));
        let ids = [
            keys().chunk_id(ChunkKind::Data, b"x"),
            keys().chunk_id(ChunkKind::Tree, b"x"),
            keys().chunk_id(ChunkKind::List, b"x"),
            other.chunk_id(ChunkKind::Data, b"x"),
        ];
        for (i, a) in ids.iter().enumerate() {
            assert!(ids[i + 1..].iter().all(|b| a != b));
        }
        assert_eq!(format!("{:?}", keys()), format!("Keys({})", "09".repeat(16)), "no key bytes in debug output");
    }
}
