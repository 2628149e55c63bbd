//! Key slots, the master key wrapped for each holder, and key files: docs/format.md chapter 6.
//!
//! Promises that a slot of which any byte changed neither opens nor counts as a slot. Key bytes are wiped when dropped and never
//! printed. Salts come from the caller. Does not know the store.

use super::{Keys, MasterKey, SubKey, derive};
use crate::id::{ChunkId, RandomName, RepositoryId};
use crate::wire::{Reader, put_bytes};
use crate::{FormatError, Result, seal};
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

const SLOT_TYPE: u8 = 2;
const SLOT_FIXED_BYTES: usize = 160;
const SLOT_SUM_BYTES: usize = 32;
/// Where a slot names its repository.
const REPOSITORY_AT: usize = 16;
const KEY_FILE_PREFIX: &str = "longshore-key-1:";
/// What Argon2id may ask of a reader, in KiB.
pub const ARGON2_MEMORY_KIB_MAX: u32 = 4 << 20;
/// The least that a writer asks, in KiB.
pub const ARGON2_MEMORY_KIB_MIN: u32 = 64 << 10;
const ARGON2_PASSES_MAX: u32 = 64;
const ARGON2_LANES_MAX: u32 = 64;
const LABEL_BYTES_MAX: usize = 255;

/// What opens a key slot.
#[derive(Clone, ZeroizeOnDrop)]
pub enum Unlock {
    /// The 32 bytes of a key file.
    Secret([u8; 32]),
    /// A passphrase.
    Passphrase(Vec<u8>),
}

impl fmt::Debug for Unlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "Secret(..)",
            Self::Passphrase(_) => "Passphrase(..)",
        })
    }
}

impl Unlock {
    /// Reads the text of a key file: one line, `longshore-key-1:` and 64 hexadecimal digits.
    ///
    /// # Errors
    /// Corrupt when it is anything else.
    pub fn from_key_file(text: &str) -> Result<Self> {
        let wrong = || FormatError::corrupt("key file", "it must be one line: longshore-key-1: and 64 hexadecimal digits");
        let digits = text.trim_end_matches(['\n', '\r']).strip_prefix(KEY_FILE_PREFIX).ok_or_else(wrong)?;
        let id = ChunkId::from_hex(digits).map_err(|_| wrong())?;
        Ok(Self::Secret(id.0))
    }

    /// The text of a key file that holds `secret`.
    #[must_use]
    pub fn to_key_file(secret: &[u8; 32]) -> String {
        format!("{KEY_FILE_PREFIX}{}\n", ChunkId(*secret))
    }
}

/// How hard a passphrase is to guess: Argon2id's cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argon2Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Default for Argon2Cost {
    /// 64 MiB, 3 passes, 4 lanes: RFC 9106's second recommendation.
    fn default() -> Self {
        Self { memory_kib: ARGON2_MEMORY_KIB_MIN, passes: 3, lanes: 4 }
    }
}

/// What a slot says of itself without a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotInfo {
    /// Whether a passphrase opens it (else a secret).
    pub passphrase: bool,
    /// For people.
    pub label: String,
    /// The repository whose key it holds.
    pub repository: RepositoryId,
}

/// The store key of a slot.
#[must_use]
pub fn slot_key(slot: RandomName) -> String {
    format!("keys/{slot}")
}

fn stretch(unlock: &Unlock, salt: &[u8; 32], cost: Argon2Cost) -> Result<SubKey> {
    let mut bytes = [0; 64];
    match unlock {
        Unlock::Secret(secret) => {
            struct Length;
            impl aws_lc_rs::hkdf::KeyType for Length {
                fn len(&self) -> usize {
                    64
                }
            }
            aws_lc_rs::hkdf::Salt::new(aws_lc_rs::hkdf::HKDF_SHA256, salt)
                .extract(secret)
                .expand(&[b"longshore key slot 0"], Length)
                .and_then(|okm| okm.fill(&mut bytes))
                .map_err(|_| FormatError::Library("derive a slot's key"))?;
        }
        Unlock::Passphrase(passphrase) => {
            let params = argon2::Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(64))
                .map_err(|_| FormatError::corrupt("key slot", "argon2 parameters are out of range"))?;
            argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params)
                .hash_password_into(passphrase, salt, &mut bytes)
                .map_err(|_| FormatError::Library("stretch a passphrase"))?;
        }
    }
    Ok(SubKey::new(bytes))
}

/// Wraps the master key for one holder; the bytes go under [`slot_key`].
///
/// # Errors
/// `Corrupt` for a label or cost out of range, `Library`.
pub fn encode_slot(
    keys: &Keys,
    slot: RandomName,
    unlock: &Unlock,
    salt: [u8; 32],
    cost: Argon2Cost,
    label: &str,
) -> Result<Vec<u8>> {
    if label.len() > LABEL_BYTES_MAX {
        return Err(FormatError::TooLarge { what: "key slot label", size: label.len() as u64, limit: LABEL_BYTES_MAX as u64 });
    }
    let passphrase = matches!(unlock, Unlock::Passphrase(_));
    if matches!(unlock, Unlock::Passphrase(p) if p.is_empty()) {
        return Err(FormatError::corrupt("passphrase", "it is empty"));
    }
    let sub = stretch(unlock, &salt, cost)?;
    let mut out = Vec::with_capacity(SLOT_FIXED_BYTES + label.len() + 2);
    out.extend_from_slice(seal::MAGIC);
    out.extend_from_slice(&[SLOT_TYPE, keys.version, 0, 0]);
    out.extend_from_slice(&if passphrase { 2u32 } else { 1u32 }.to_le_bytes());
    out.extend_from_slice(&keys.repository.0);
    out.extend_from_slice(&salt);
    for number in if passphrase { [cost.memory_kib, cost.passes, cost.lanes] } else { [0; 3] } {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&sub.commitment());
    let mut aad = out.clone();
    aad.extend_from_slice(slot_key(slot).as_bytes());
    put_bytes(&mut aad, label.as_bytes());
    let start = out.len();
    out.extend_from_slice(keys.master.bytes());
    seal::seal_in_place(&sub.cipher()?, [0; 12], &aad, &mut out, start)?;
    put_bytes(&mut out, label.as_bytes());
    let sum = slot_sum(&keys.master, keys.repository, slot, &out);
    out.extend_from_slice(sum.as_bytes());
    Ok(out)
}

struct Slot<'a> {
    info: SlotInfo,
    before_sum: &'a [u8],
    sum: [u8; 32],
    salt: [u8; 32],
    cost: Argon2Cost,
    fixed: &'a [u8],
    label: &'a [u8],
}

fn parse_slot(bytes: &[u8]) -> Result<Slot<'_>> {
    let mut reader = Reader::new(bytes, "key slot");
    seal::read_head(&mut reader, SLOT_TYPE)?;
    let kind = reader.u32()?;
    let repository = RepositoryId(reader.array()?);
    let salt = reader.array()?;
    let cost = Argon2Cost { memory_kib: reader.u32()?, passes: reader.u32()?, lanes: reader.u32()? };
    let zero = reader.u32()?;
    let passphrase = match kind {
        1 if cost == (Argon2Cost { memory_kib: 0, passes: 0, lanes: 0 }) => false,
        2 => true,
        _ => return Err(reader.corrupt(format!("unknown kind or parameters: kind={kind}"))),
    };
    let beyond = cost.memory_kib > ARGON2_MEMORY_KIB_MAX || cost.passes > ARGON2_PASSES_MAX || cost.lanes > ARGON2_LANES_MAX;
    if zero != 0 || beyond {
        return Err(reader.corrupt("argon2 parameters are beyond the limit"));
    }
    reader.take(32 + 48)?;
    let label = reader.bytes_max(LABEL_BYTES_MAX)?;
    let sum = reader.array()?;
    reader.finish()?;
    let before_sum = &bytes[..bytes.len() - SLOT_SUM_BYTES];
    let text = String::from_utf8(label.to_vec()).map_err(|_| FormatError::corrupt("key slot", "label is not utf-8"))?;
    let info = SlotInfo { passphrase, label: text, repository };
    Ok(Slot { info, before_sum, sum, salt, cost, fixed: &bytes[..SLOT_FIXED_BYTES], label })
}

/// What a slot of an open repository says of itself: one that its holder can open.
///
/// # Errors
/// Corrupt when one of its bytes is not as it was written, or it holds another repository's key; Newer.
pub fn slot_info(keys: &Keys, slot: RandomName, bytes: &[u8]) -> Result<SlotInfo> {
    let parsed = parse_slot(bytes)?;
    if slot_sum(&keys.master, keys.repository, slot, parsed.before_sum) != parsed.sum {
        return Err(FormatError::corrupt("key slot", "its sum is not that of its bytes and this repository's key"));
    }
    Ok(parsed.info)
}

/// The repository that a slot says it belongs to; `None` when not even its beginning can be read.
#[must_use]
pub fn slot_repository(bytes: &[u8]) -> Option<RepositoryId> {
    let mut reader = Reader::new(bytes, "key slot");
    seal::read_head(&mut reader, SLOT_TYPE).ok()?;
    reader.u32().ok()?;
    reader.array().ok().map(RepositoryId)
}

/// Whether a slot has the form of one from its beginning to its end; who wrote it is not known by that.
#[must_use]
pub fn is_whole(bytes: &[u8]) -> bool {
    parse_slot(bytes).is_ok()
}

/// Whether a slot, whole or cut short, was left by somebody who began to make another repository here: it names that one, and is no
/// slot of this repository in which just that name is damaged.
#[must_use]
pub fn is_left_over(keys: &Keys, slot: RandomName, bytes: &[u8]) -> bool {
    if slot_repository(bytes).is_none_or(|named| named == keys.repository) {
        return false;
    }
    let mut ours = bytes.to_vec();
    ours[REPOSITORY_AT..REPOSITORY_AT + keys.repository.0.len()].copy_from_slice(&keys.repository.0);
    slot_info(keys, slot, &ours).is_err()
}

/// Opens a slot; `None` when it is for somebody else.
///
/// # Errors
/// Corrupt when the commitment fits but the seal does not.
pub fn open_slot(bytes: &[u8], slot: RandomName, unlock: &Unlock) -> Result<Option<MasterKey>> {
    let parsed = parse_slot(bytes)?;
    if parsed.info.passphrase != matches!(unlock, Unlock::Passphrase(_)) {
        return Ok(None);
    }
    let sub = stretch(unlock, &parsed.salt, parsed.cost)?;
    if sub.check(&parsed.fixed[80..112], "key slot").is_err() {
        return Ok(None);
    }
    let mut aad = parsed.fixed[..112].to_vec();
    aad.extend_from_slice(slot_key(slot).as_bytes());
    put_bytes(&mut aad, parsed.label);
    let mut wrapped = parsed.fixed[112..].to_vec();
    let plain = seal::open_in_place(&sub.cipher()?, [0; 12], &aad, &mut wrapped, "key slot")?;
    let mut master = [0; 32];
    master.copy_from_slice(plain);
    wrapped.zeroize();
    let master = MasterKey::new(master);
    if slot_sum(&master, parsed.info.repository, slot, parsed.before_sum) != parsed.sum {
        return Err(FormatError::corrupt("key slot", "its sum is not that of its bytes"));
    }
    Ok(Some(master))
}

/// The sum at the end of a slot, by which who holds the master key knows a whole slot without its holder's secret.
fn slot_sum(master: &MasterKey, repository: RepositoryId, slot: RandomName, before: &[u8]) -> blake3::Hash {
    let mut key = derive(master, repository, "key slot");
    let mut hasher = blake3::Hasher::new_keyed(&key);
    key.zeroize();
    hasher.update(before);
    hasher.update(slot_key(slot).as_bytes());
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::derive(&MasterKey::new([7; 32]), RepositoryId([9; 16]))
    }

    const CHEAP: Argon2Cost = Argon2Cost { memory_kib: 64, passes: 1, lanes: 1 };

    #[test]
    fn a_slot_opens_for_its_holder_alone() {
        let slot = RandomName([1; 16]);
        for (unlock, other) in [
            (Unlock::Secret([3; 32]), Unlock::Secret([4; 32])),
            (Unlock::Passphrase(b"right".to_vec()), Unlock::Passphrase(b"wrong".to_vec())),
        ] {
            let bytes = encode_slot(&keys(), slot, &unlock, [5; 32], CHEAP, "office safe").unwrap();
            assert_eq!(open_slot(&bytes, slot, &unlock).unwrap().unwrap().bytes(), &[7; 32]);
            assert!(open_slot(&bytes, slot, &other).unwrap().is_none());
            assert!(open_slot(&bytes, RandomName([2; 16]), &unlock).is_err(), "moved to another name");
            for i in 0..bytes.len() {
                let mut bad = bytes.clone();
                bad[i] ^= 1;
                assert!(!matches!(open_slot(&bad, slot, &unlock), Ok(Some(_))), "byte {i} does not matter");
            }
        }
    }

    #[test]
    fn who_holds_the_master_key_knows_a_whole_slot_of_somebody_else() {
        let slot = RandomName([1; 16]);
        let bytes = encode_slot(&keys(), slot, &Unlock::Secret([3; 32]), [5; 32], CHEAP, "office safe").unwrap();
        assert_eq!(slot_info(&keys(), slot, &bytes).unwrap().label, "office safe");
        assert!(slot_info(&keys(), RandomName([2; 16]), &bytes).is_err(), "moved to another name");
        let other = Keys::derive(&MasterKey::new([8; 32]), RepositoryId([9; 16]));
        assert!(slot_info(&other, slot, &bytes).is_err(), "holds another master key");
        for i in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[i] ^= 1;
            assert!(slot_info(&keys(), slot, &bad).is_err(), "byte {i} does not matter");
        }
    }

    #[test]
    fn a_slot_of_a_repository_never_finished_is_no_damaged_slot_of_this_one() {
        let slot = RandomName([1; 16]);
        let ours = encode_slot(&keys(), slot, &Unlock::Secret([3; 32]), [5; 32], CHEAP, "").unwrap();
        let other = Keys::derive(&MasterKey::new([8; 32]), RepositoryId([6; 16]));
        let left = encode_slot(&other, slot, &Unlock::Secret([3; 32]), [5; 32], CHEAP, "").unwrap();
        assert_eq!(slot_repository(&left), Some(RepositoryId([6; 16])));
        for length in 0..=left.len() {
            assert_eq!(is_left_over(&keys(), slot, &left[..length]), length >= 32, "{length}");
            assert!(!is_left_over(&keys(), slot, &ours[..length]), "{length}");
        }
        for i in 0..ours.len() {
            for wrong in [0, ours[i] ^ 1] {
                let mut bad = ours.clone();
                bad[i] = wrong;
                assert!(!is_left_over(&keys(), slot, &bad), "byte {i}: damage of ours passes for somebody else's slot");
            }
        }
    }

    #[test]
    fn key_files_are_one_line() {
        let text = Unlock::to_key_file(&[0xab; 32]);
        assert_eq!(text, format!("longshore-key-1:{}\n", "ab".repeat(32)));
        assert!(matches!(Unlock::from_key_file(&text), Ok(Unlock::Secret(s)) if s == [0xab; 32]));
        assert!(Unlock::from_key_file("password").is_err());
        assert!(Unlock::from_key_file(&format!("{text}{text}")).is_err());
    }
}
