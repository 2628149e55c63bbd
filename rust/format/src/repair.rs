//! What a repair found out and could not put right: `repairs/<r>`. docs/format.md chapters 11 and 12.
//!
//! Holds the record and its key. Everything in it asks to keep more or to rely on less, so that a record which is wrong costs room and
//! never data. Knows nothing of how damage is found.

use crate::envelope::Codec;
use crate::id::{ChunkId, PackName, SessionId, UsageName};
use crate::record::{RecordWriter, field_array, read_record};
use crate::seal::{self, ObjectType};
use crate::usage::Usage;
use crate::wire::Reader;
use crate::{FormatError, Keys, Result, limits};
use std::collections::{BTreeMap, BTreeSet};

/// The store key of a repair's record.
#[must_use]
pub fn repair_key(session: SessionId) -> String {
    format!("repairs/{session}")
}

/// The first 8 bytes of a chunk's id as a number, as the lookup of the index has them.
#[must_use]
pub fn chunk_prefix(id: &ChunkId) -> u64 {
    let mut head = [0; 8];
    head.copy_from_slice(&id.0[..8]);
    u64::from_be_bytes(head)
}

/// What one repair wrote down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repair {
    /// Snapshots that damage touched, each with frames that it needs besides what its tables say. They need not be there.
    pub needs: BTreeMap<SessionId, Usage>,
    /// Frames that lay nowhere whole: who misses them need not stop.
    pub lost: Usage,
    /// Usage tables that could not be read: `needs` speaks in their place.
    pub tables: BTreeSet<UsageName>,
    /// Beginnings of the ids of chunks that snapshots need and that were nowhere: a frame that holds one is needed when it comes.
    pub wanted: BTreeSet<u64>,
    /// Damaged packs, each with the frames that are damaged where they lie in it.
    pub damaged: BTreeMap<PackName, Usage>,
    /// When it was made, nanoseconds.
    pub at_nanos: i64,
    /// Host, for people.
    pub host: String,
}

const WHAT: &str = "record of a repair";

fn usage_of(mut reader: Reader<'_>, bytes_max: usize) -> Result<Usage> {
    let usage = Usage::take(&mut reader, bytes_max)?;
    reader.finish()?;
    Ok(usage)
}

impl Repair {
    /// Whether it says nothing that anybody must know.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.needs.is_empty()
            && self.lost.is_empty()
            && self.tables.is_empty()
            && self.wanted.is_empty()
            && self.damaged.is_empty()
    }

    /// Seals it.
    ///
    /// # Errors
    /// `TooLarge`, `Library`.
    pub fn encode(&self, keys: &Keys, session: SessionId, salt: [u8; 32], codec: &mut Codec) -> Result<Vec<u8>> {
        let mut record = RecordWriter::new();
        for (snapshot, usage) in &self.needs {
            let mut field = snapshot.0.to_vec();
            usage.put(&mut field);
            record.bytes(1, &field);
        }
        record.sv(2, self.at_nanos);
        record.bytes(3, &self.lost.payload());
        record.bytes(4, self.host.as_bytes());
        for table in &self.tables {
            record.bytes(5, &table.0);
        }
        if !self.wanted.is_empty() {
            let field: Vec<u8> = self.wanted.iter().flat_map(|prefix| prefix.to_be_bytes()).collect();
            record.bytes(7, &field);
        }
        for (pack, usage) in &self.damaged {
            let mut field = pack.session.0.to_vec();
            field.extend_from_slice(&pack.number.to_le_bytes());
            usage.put(&mut field);
            record.bytes(9, &field);
        }
        let payload = record.finish();
        if payload.len() > limits::REPAIR_BYTES_MAX {
            return Err(FormatError::TooLarge { what: WHAT, size: payload.len() as u64, limit: limits::REPAIR_BYTES_MAX as u64 });
        }
        seal::seal_object(keys, ObjectType::Repair, &repair_key(session), salt, b"", &payload, codec)
    }

    /// Opens it.
    ///
    /// # Errors
    /// Corrupt, Newer, `WrongKey`.
    pub fn decode(keys: &Keys, session: SessionId, bytes: &[u8], codec: &mut Codec) -> Result<Self> {
        let payload = seal::open_object(keys, ObjectType::Repair, &repair_key(session), bytes, limits::REPAIR_BYTES_MAX, codec)?;
        let mut repair = Self::default();
        read_record(&payload, WHAT, |tag, value| {
            let mut reader = Reader::new(value, WHAT);
            match tag {
                1 => {
                    let snapshot = SessionId(reader.array()?);
                    repair.needs.insert(snapshot, usage_of(reader, value.len())?);
                }
                2 => {
                    repair.at_nanos = reader.sv()?;
                    reader.finish()?;
                }
                3 => repair.lost = usage_of(reader, value.len())?,
                4 => repair.host = String::from_utf8_lossy(value).into_owned(),
                5 => {
                    repair.tables.insert(UsageName(field_array(value, WHAT)?));
                }
                7 => {
                    while !reader.is_empty() {
                        repair.wanted.insert(u64::from_be_bytes(reader.array()?));
                    }
                }
                9 => {
                    let pack = PackName { session: SessionId(reader.array()?), number: reader.u32()? };
                    repair.damaged.insert(pack, usage_of(reader, value.len())?);
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(repair)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::RepositoryId;
    use crate::keys::MasterKey;
    use crate::pack::BirthName;
    use proptest::prelude::*;

    fn usage(frames: &[(u8, u32)]) -> Usage {
        let mut usage = Usage::new();
        for (pack, ordinal) in frames {
            usage.insert(BirthName { pack: PackName { session: SessionId([*pack; 16]), number: 1 }, ordinal: *ordinal });
        }
        usage
    }

    proptest! {
        #[test]
        fn records_hold_what_was_put_in(
            needs in proptest::collection::btree_map(any::<[u8; 16]>(), proptest::collection::vec((0..3u8, 0..200u32), 0..9), 0..4),
            lost in proptest::collection::vec((0..3u8, 0..200u32), 0..9),
            tables in proptest::collection::btree_set(any::<[u8; 32]>(), 0..3),
            wanted in proptest::collection::btree_set(any::<u64>(), 0..20),
            damaged in proptest::collection::btree_map(0..9u8, proptest::collection::vec((0..3u8, 0..200u32), 0..9), 0..4),
            at_nanos: i64,
            flip: usize,
        ) {
            let keys = Keys::derive(&MasterKey::new([1; 32]), RepositoryId([2; 16]));
            let mut codec = Codec::new().unwrap();
            let repair = Repair {
                needs: needs.into_iter().map(|(s, frames)| (SessionId(s), usage(&frames))).collect(),
                lost: usage(&lost),
                tables: tables.into_iter().map(UsageName).collect(),
                wanted,
                damaged: damaged
                    .into_iter()
                    .map(|(s, frames)| (PackName { session: SessionId([s; 16]), number: 7 }, usage(&frames)))
                    .collect(),
                at_nanos,
                host: "here".into(),
            };
            let session = SessionId([9; 16]);
            let mut bytes = repair.encode(&keys, session, [3; 32], &mut codec).unwrap();
            prop_assert_eq!(&Repair::decode(&keys, session, &bytes, &mut codec).unwrap(), &repair);
            prop_assert!(Repair::decode(&keys, SessionId([8; 16]), &bytes, &mut codec).is_err());
            let at = flip % bytes.len();
            bytes[at] ^= 1;
            prop_assert!(Repair::decode(&keys, session, &bytes, &mut codec).is_err());
        }
    }
}
