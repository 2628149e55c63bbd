//! Usage tables: which frames a snapshot needs, by birth name. docs/format.md chapter 11.

use crate::envelope::Codec;
use crate::id::{PackName, SessionId, UsageName};
use crate::pack::BirthName;
use crate::seal::{self, ObjectType};
use crate::wire::{Reader, put_uv};
use crate::{FormatError, Keys, Result, limits};
use std::collections::BTreeMap;

/// Bytes of a table's name that are made from its content.
pub const CONTENT_BYTES: usize = 16;

/// A set of frames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    packs: BTreeMap<PackName, Vec<u8>>,
}

/// The store key of a usage table.
#[must_use]
pub fn usage_key(name: UsageName) -> String {
    format!("usage/{name}")
}

fn content_name(keys: &Keys, payload: &[u8]) -> [u8; CONTENT_BYTES] {
    let mut out = [0; CONTENT_BYTES];
    out.copy_from_slice(&keys.usage_name(payload).0[..CONTENT_BYTES]);
    out
}

impl Usage {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a frame.
    pub fn insert(&mut self, frame: BirthName) {
        let bits = self.packs.entry(frame.pack).or_default();
        let (byte, bit) = ((frame.ordinal / 8) as usize, frame.ordinal % 8);
        if bits.len() <= byte {
            bits.resize(byte + 1, 0);
        }
        bits[byte] |= 1 << bit;
    }

    /// Keeps the frames that another set has, too.
    pub fn intersect(&mut self, other: &Self) {
        self.packs.retain(|pack, bits| {
            let Some(others) = other.packs.get(pack) else { return false };
            bits.truncate(others.len());
            for (a, b) in bits.iter_mut().zip(others) {
                *a &= b;
            }
            while bits.last() == Some(&0) {
                bits.pop();
            }
            !bits.is_empty()
        });
    }

    /// Takes a frame out.
    pub fn remove(&mut self, frame: BirthName) {
        let Some(bits) = self.packs.get_mut(&frame.pack) else { return };
        if let Some(byte) = bits.get_mut((frame.ordinal / 8) as usize) {
            *byte &= !(1 << (frame.ordinal % 8));
        }
        // The last byte has a bit, as the form of a table wants it.
        while bits.last() == Some(&0) {
            bits.pop();
        }
        if bits.is_empty() {
            self.packs.remove(&frame.pack);
        }
    }

    /// Whether a frame is in the set.
    #[must_use]
    pub fn contains(&self, frame: BirthName) -> bool {
        self.packs
            .get(&frame.pack)
            .and_then(|bits| bits.get((frame.ordinal / 8) as usize))
            .is_some_and(|byte| byte >> (frame.ordinal % 8) & 1 == 1)
    }

    /// Adds all frames of another set.
    pub fn merge(&mut self, other: &Self) {
        for (pack, bits) in &other.packs {
            let own = self.packs.entry(*pack).or_default();
            if own.len() < bits.len() {
                own.resize(bits.len(), 0);
            }
            for (a, b) in own.iter_mut().zip(bits) {
                *a |= b;
            }
        }
    }

    /// The birth packs of all frames, ascending.
    pub fn packs(&self) -> impl Iterator<Item = PackName> + '_ {
        self.packs.keys().copied()
    }

    /// All frames, ascending.
    pub fn frames(&self) -> impl Iterator<Item = BirthName> + '_ {
        self.packs.iter().flat_map(|(pack, bits)| {
            (0..bits.len() as u32 * 8)
                .filter(|k| bits[(k / 8) as usize] >> (k % 8) & 1 == 1)
                .map(|ordinal| BirthName { pack: *pack, ordinal })
        })
    }

    /// All frames that were born in one pack, ascending.
    pub fn frames_of(&self, pack: PackName) -> impl Iterator<Item = BirthName> + '_ {
        let bits = self.packs.get(&pack).map_or(&[][..], Vec::as_slice);
        (0..bits.len() as u32 * 8)
            .filter(|k| bits[(k / 8) as usize] >> (k % 8) & 1 == 1)
            .map(move |ordinal| BirthName { pack, ordinal })
    }

    /// Whether two sets have a frame in common.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        let (few, many) = if self.packs.len() <= other.packs.len() { (self, other) } else { (other, self) };
        few.packs
            .iter()
            .any(|(pack, bits)| many.packs.get(pack).is_some_and(|others| bits.iter().zip(others).any(|(a, b)| a & b != 0)))
    }

    /// Number of frames.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.packs.values().flatten().map(|byte| u64::from(byte.count_ones())).sum()
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packs.is_empty()
    }

    /// Its bytes, as a table's payload and within other records.
    pub(crate) fn payload(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        put_uv(out, self.packs.len() as u64);
        for (pack, bits) in &self.packs {
            out.extend_from_slice(&pack.session.0);
            out.extend_from_slice(&pack.number.to_le_bytes());
            let last = bits.last().copied().unwrap_or(0);
            put_uv(out, (bits.len() as u64 * 8).saturating_sub(u64::from(last.leading_zeros())));
            out.extend_from_slice(bits);
        }
    }

    /// The beginning of the names of all tables with this content.
    #[must_use]
    pub fn content_name(&self, keys: &Keys) -> [u8; CONTENT_BYTES] {
        content_name(keys, &self.payload())
    }

    /// Seals the table and names it by its content and the session that writes it.
    ///
    /// # Errors
    /// `TooLarge`, `Library`.
    pub fn encode(&self, keys: &Keys, session: SessionId, salt: [u8; 32], codec: &mut Codec) -> Result<(UsageName, Vec<u8>)> {
        let payload = self.payload();
        if payload.len() > limits::USAGE_BYTES_MAX {
            return Err(FormatError::TooLarge {
                what: "usage table",
                size: payload.len() as u64,
                limit: limits::USAGE_BYTES_MAX as u64,
            });
        }
        let mut name = [0; 32];
        name[..CONTENT_BYTES].copy_from_slice(&content_name(keys, &payload));
        name[CONTENT_BYTES..].copy_from_slice(&session.0);
        let name = UsageName(name);
        let bytes = seal::seal_object(keys, ObjectType::Usage, &usage_key(name), salt, b"", &payload, codec)?;
        Ok((name, bytes))
    }

    /// Opens a table and checks its name.
    ///
    /// # Errors
    /// Corrupt, `WrongKey`.
    pub fn decode(keys: &Keys, name: UsageName, bytes: &[u8], codec: &mut Codec) -> Result<Self> {
        let payload = seal::open_object(keys, ObjectType::Usage, &usage_key(name), bytes, limits::USAGE_BYTES_MAX, codec)?;
        if content_name(keys, &payload)[..] != name.0[..CONTENT_BYTES] {
            return Err(FormatError::corrupt("usage table", "its content has another name"));
        }
        let mut reader = Reader::new(&payload, "usage table");
        let usage = Self::take(&mut reader, payload.len())?;
        reader.finish()?;
        Ok(usage)
    }

    /// Reads what [`Usage::put`] wrote, out of at most `bytes_max` bytes.
    pub(crate) fn take(reader: &mut Reader<'_>, bytes_max: usize) -> Result<Self> {
        let count = reader.len_max(bytes_max / 21)?;
        let mut packs = BTreeMap::new();
        let mut last = None;
        for _ in 0..count {
            let pack = PackName { session: SessionId(reader.array()?), number: reader.u32()? };
            if last.is_some_and(|l| l >= pack) {
                return Err(reader.corrupt("packs are out of order"));
            }
            last = Some(pack);
            let bits = reader.len_max(limits::PACK_FRAMES_MAX)?;
            let bytes = reader.take(bits.div_ceil(8))?.to_vec();
            if bits == 0 || bytes[(bits - 1) / 8] >> ((bits - 1) % 8) != 1 {
                return Err(reader.corrupt("the last bit of a pack is not set or bits stand behind it"));
            }
            packs.insert(pack, bytes);
        }
        Ok(Self { packs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::RepositoryId;
    use crate::keys::MasterKey;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn tables_hold_what_was_put_in(frames in proptest::collection::btree_set((0..3u8, 0..3u32, 0..300u32), 0..60)) {
            let keys = Keys::derive(&MasterKey::new([1; 32]), RepositoryId([2; 16]));
            let mut codec = Codec::new().unwrap();
            let names: BTreeSet<BirthName> = frames
                .into_iter()
                .map(|(s, number, ordinal)| BirthName { pack: PackName { session: SessionId([s; 16]), number }, ordinal })
                .collect();
            let mut usage = Usage::new();
            for name in &names {
                usage.insert(*name);
            }
            prop_assert_eq!(usage.len(), names.len() as u64);
            let session = SessionId([5; 16]);
            let (name, bytes) = usage.encode(&keys, session, [3; 32], &mut codec).unwrap();
            prop_assert_eq!(&name.0[..CONTENT_BYTES], &usage.content_name(&keys)[..]);
            prop_assert_eq!(&name.0[CONTENT_BYTES..], &session.0[..]);
            let back = Usage::decode(&keys, name, &bytes, &mut codec).unwrap();
            prop_assert_eq!(back.frames().collect::<BTreeSet<_>>(), names);
            prop_assert_eq!(&back, &usage);
            let (other, bytes) = usage.encode(&keys, SessionId([6; 16]), [3; 32], &mut codec).unwrap();
            prop_assert_ne!(other, name, "a name is never made twice");
            prop_assert!(Usage::decode(&keys, name, &bytes, &mut codec).is_err(), "bound to its name");
        }
    }

    #[test]
    fn frames_leave_and_sets_meet() {
        let frame = |pack: u8, ordinal: u32| BirthName { pack: PackName { session: SessionId([pack; 16]), number: 0 }, ordinal };
        let set = |frames: &[(u8, u32)]| {
            let mut usage = Usage::new();
            frames.iter().for_each(|(pack, ordinal)| usage.insert(frame(*pack, *ordinal)));
            usage
        };
        let mut usage = set(&[(1, 0), (1, 20), (2, 5)]);
        usage.remove(frame(1, 20));
        usage.remove(frame(2, 5));
        usage.remove(frame(3, 5));
        // Equal to one that never had them, so that its table has the same form.
        assert_eq!(usage, set(&[(1, 0)]));
        let mut usage = set(&[(1, 0), (1, 3), (1, 20), (2, 5), (3, 1)]);
        usage.intersect(&set(&[(1, 3), (1, 4), (2, 6), (3, 1), (4, 1)]));
        assert_eq!(usage, set(&[(1, 3), (3, 1)]));
        assert!(usage.meets(&set(&[(2, 1), (3, 1)])) && !usage.meets(&set(&[(1, 4), (2, 1), (3, 0)])));
        assert_eq!(usage.frames_of(frame(1, 0).pack).collect::<Vec<_>>(), [frame(1, 3)]);
    }
}
