//! What a prune writes beside packs and index: tombstones, open writers, decisions, watches. docs/format.md chapters 11 and 12.
//!
//! Holds the four records and their keys. Knows nothing of when they are written, nor of what they decide.

use crate::envelope::Codec;
use crate::id::{PackName, RandomName, SessionId, UsageName};
use crate::record::{RecordWriter, field_array, read_record};
use crate::seal::{self, ObjectType};
use crate::wire::{Reader, put_sv, put_uv};
use crate::{Keys, Result, limits};

/// The store key of a tombstone.
#[must_use]
pub fn tombstone_key(generation: RandomName) -> String {
    format!("tombstones/{generation}")
}

/// The store key of a generation's open writers.
#[must_use]
pub fn open_key(generation: RandomName) -> String {
    format!("open/{generation}")
}

/// The store key of a decision.
#[must_use]
pub fn decision_key(generation: RandomName) -> String {
    format!("decisions/{generation}")
}

/// The store key of a watch.
#[must_use]
pub fn watch_key(watch: RandomName) -> String {
    format!("watches/{watch}")
}

/// What a [`Doomed`] says of the things it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// They may be deleted.
    Tombstone,
    /// They are deleted: final.
    Decision,
}

impl Role {
    /// The store key for a generation.
    #[must_use]
    pub fn key(self, generation: RandomName) -> String {
        match self {
            Self::Tombstone => tombstone_key(generation),
            Self::Decision => decision_key(generation),
        }
    }

    fn object_type(self) -> ObjectType {
        match self {
            Self::Tombstone => ObjectType::Tombstone,
            Self::Decision => ObjectType::Decision,
        }
    }
}

/// Packs and usage tables that a prune may delete, or deletes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doomed {
    /// Packs.
    pub packs: Vec<PackName>,
    /// Usage tables.
    pub tables: Vec<UsageName>,
}

/// Most names in one [`Doomed`]: they fit its limit whatever they are.
pub const DOOMED_NAMES_MAX: usize = 400_000;

impl Doomed {
    /// Whether it names nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packs.is_empty() && self.tables.is_empty()
    }

    /// Seals it.
    ///
    /// # Errors
    /// `Library`.
    pub fn encode(&self, keys: &Keys, role: Role, generation: RandomName, salt: [u8; 32], codec: &mut Codec) -> Result<Vec<u8>> {
        let mut record = RecordWriter::new();
        for pack in &self.packs {
            let mut field = pack.session.0.to_vec();
            field.extend_from_slice(&pack.number.to_le_bytes());
            record.bytes(1, &field);
        }
        for table in &self.tables {
            record.bytes(3, &table.0);
        }
        seal::seal_object(keys, role.object_type(), &role.key(generation), salt, b"", &record.finish(), codec)
    }

    /// Opens it.
    ///
    /// # Errors
    /// Corrupt, Newer, `WrongKey`.
    pub fn decode(keys: &Keys, role: Role, generation: RandomName, bytes: &[u8], codec: &mut Codec) -> Result<Self> {
        let what = role.object_type().word();
        let payload = seal::open_object(keys, role.object_type(), &role.key(generation), bytes, limits::RECORD_BYTES_MAX, codec)?;
        let mut doomed = Self::default();
        read_record(&payload, what, |tag, value| {
            match tag {
                1 => {
                    let mut reader = Reader::new(value, what);
                    doomed.packs.push(PackName { session: SessionId(reader.array()?), number: reader.u32()? });
                    reader.finish()?;
                }
                3 => doomed.tables.push(UsageName(field_array(value, what)?)),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(doomed)
    }
}

/// The writers that a generation waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenWriters {
    /// Their sessions.
    pub sessions: Vec<SessionId>,
}

impl OpenWriters {
    /// Seals it.
    ///
    /// # Errors
    /// `Library`.
    pub fn encode(&self, keys: &Keys, generation: RandomName, salt: [u8; 32], codec: &mut Codec) -> Result<Vec<u8>> {
        let mut record = RecordWriter::new();
        for session in &self.sessions {
            record.bytes(1, &session.0);
        }
        seal::seal_object(keys, ObjectType::Open, &open_key(generation), salt, b"", &record.finish(), codec)
    }

    /// Opens it.
    ///
    /// # Errors
    /// Corrupt, Newer, `WrongKey`.
    pub fn decode(keys: &Keys, generation: RandomName, bytes: &[u8], codec: &mut Codec) -> Result<Self> {
        let what = ObjectType::Open.word();
        let payload = seal::open_object(keys, ObjectType::Open, &open_key(generation), bytes, limits::RECORD_BYTES_MAX, codec)?;
        let mut sessions = Vec::new();
        read_record(&payload, what, |tag, value| {
            if tag == 1 {
                sessions.push(SessionId(field_array(value, what)?));
            }
            Ok(tag == 1)
        })?;
        Ok(Self { sessions })
    }
}

/// What prunes have seen of one running session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// The session.
    pub session: SessionId,
    /// What its marker says: 1 writer, 2 reader; 0 when nobody can read it.
    pub kind: u64,
    /// Number of its packs.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many prunes saw it so.
    pub prunes: u64,
    /// When the first of them did, nanoseconds.
    pub since_nanos: i64,
}

/// Sessions that a prune found running.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// What was seen of each.
    pub sightings: Vec<Sighting>,
}

impl Watch {
    /// Seals it.
    ///
    /// # Errors
    /// `Library`.
    pub fn encode(&self, keys: &Keys, watch: RandomName, salt: [u8; 32], codec: &mut Codec) -> Result<Vec<u8>> {
        let mut record = RecordWriter::new();
        for seen in &self.sightings {
            let mut field = seen.session.0.to_vec();
            put_uv(&mut field, seen.kind);
            put_uv(&mut field, seen.packs);
            put_uv(&mut field, seen.bytes);
            put_uv(&mut field, seen.prunes);
            put_sv(&mut field, seen.since_nanos);
            record.bytes(1, &field);
        }
        seal::seal_object(keys, ObjectType::Watch, &watch_key(watch), salt, b"", &record.finish(), codec)
    }

    /// Opens it.
    ///
    /// # Errors
    /// Corrupt, Newer, `WrongKey`.
    pub fn decode(keys: &Keys, watch: RandomName, bytes: &[u8], codec: &mut Codec) -> Result<Self> {
        let what = ObjectType::Watch.word();
        let payload = seal::open_object(keys, ObjectType::Watch, &watch_key(watch), bytes, limits::RECORD_BYTES_MAX, codec)?;
        let mut sightings = Vec::new();
        read_record(&payload, what, |tag, value| {
            if tag == 1 {
                let mut reader = Reader::new(value, what);
                sightings.push(Sighting {
                    session: SessionId(reader.array()?),
                    kind: reader.uv()?,
                    packs: reader.uv()?,
                    bytes: reader.uv()?,
                    prunes: reader.uv()?,
                    since_nanos: reader.sv()?,
                });
                reader.finish()?;
            }
            Ok(tag == 1)
        })?;
        Ok(Self { sightings })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::RepositoryId;
    use crate::keys::MasterKey;
    use proptest::prelude::*;

    fn keys() -> Keys {
        Keys::derive(&MasterKey::new([1; 32]), RepositoryId([2; 16]))
    }

    proptest! {
        #[test]
        fn what_is_doomed_round_trips_under_its_own_role_alone(
            packs in proptest::collection::vec((any::<[u8; 16]>(), any::<u32>()), 0..20),
            tables in proptest::collection::vec(any::<[u8; 32]>(), 0..20),
            name: [u8; 16],
        ) {
            let mut codec = Codec::new().unwrap();
            let doomed = Doomed {
                packs: packs.into_iter().map(|(s, number)| PackName { session: SessionId(s), number }).collect(),
                tables: tables.into_iter().map(UsageName).collect(),
            };
            let name = RandomName(name);
            for (role, other) in [(Role::Tombstone, Role::Decision), (Role::Decision, Role::Tombstone)] {
                let bytes = doomed.encode(&keys(), role, name, [3; 32], &mut codec).unwrap();
                prop_assert_eq!(&Doomed::decode(&keys(), role, name, &bytes, &mut codec).unwrap(), &doomed);
                prop_assert!(Doomed::decode(&keys(), other, name, &bytes, &mut codec).is_err());
                prop_assert!(Doomed::decode(&keys(), role, RandomName([0xff; 16]), &bytes, &mut codec).is_err());
            }
        }

        #[test]
        fn open_writers_and_watches_round_trip(
            rows in proptest::collection::vec((any::<[u8; 16]>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<i64>()), 0..20),
            name: [u8; 16],
        ) {
            let mut codec = Codec::new().unwrap();
            let name = RandomName(name);
            let open = OpenWriters { sessions: rows.iter().map(|row| SessionId(row.0)).collect() };
            let bytes = open.encode(&keys(), name, [3; 32], &mut codec).unwrap();
            prop_assert_eq!(OpenWriters::decode(&keys(), name, &bytes, &mut codec).unwrap(), open);
            let sightings = rows.into_iter().map(|(s, packs, bytes, prunes, since_nanos)| {
                Sighting { session: SessionId(s), kind: prunes, packs, bytes, prunes, since_nanos }
            });
            let watch = Watch { sightings: sightings.collect() };
            let bytes = watch.encode(&keys(), name, [3; 32], &mut codec).unwrap();
            prop_assert_eq!(Watch::decode(&keys(), name, &bytes, &mut codec).unwrap(), watch);
        }
    }

    #[test]
    fn a_full_list_of_what_is_doomed_fits_its_limit() {
        let per_table = 32 + 2;
        assert!(DOOMED_NAMES_MAX * per_table <= limits::RECORD_BYTES_MAX);
    }
}
