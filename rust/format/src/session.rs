//! Session markers and removals: docs/format.md chapter 11.

use crate::envelope::Codec;
use crate::id::{SessionId, UsageName};
use crate::record::{RecordWriter, field_array, field_sv, field_text, field_uv, read_record};
use crate::seal::{self, ObjectType};
use crate::{FormatError, Keys, Result, limits};

/// What a session does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionKind {
    /// Writes; may use the packs of earlier, ended sessions.
    Writer {
        /// Those sessions.
        adopts: Vec<SessionId>,
    },
    /// Reads one snapshot.
    Reader {
        /// The snapshot.
        snapshot: SessionId,
        /// What it needs.
        usage: Vec<UsageName>,
    },
}

/// A session's marker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionMarker {
    /// What it does.
    pub kind: SessionKind,
    /// Number of the configuration under which it was opened.
    pub config: u32,
    /// When, nanoseconds; for people.
    pub started_nanos: i64,
    /// Host and process; for people.
    pub host: String,
}

/// The store key of a marker.
#[must_use]
pub fn session_key(session: SessionId) -> String {
    format!("sessions/{session}")
}

/// The store key of a removal.
#[must_use]
pub fn removed_key(session: SessionId) -> String {
    format!("removed/{session}")
}

impl SessionMarker {
    /// Seals it.
    ///
    /// # Errors
    /// `Library`.
    pub fn encode(&self, keys: &Keys, session: SessionId, salt: [u8; 32], codec: &mut Codec) -> Result<Vec<u8>> {
        let mut record = RecordWriter::new();
        record.uv(1, if matches!(self.kind, SessionKind::Writer { .. }) { 1 } else { 2 });
        record.sv(2, self.started_nanos).uv(3, u64::from(self.config)).bytes(4, self.host.as_bytes());
        match &self.kind {
            SessionKind::Writer { adopts } => {
                for session in adopts {
                    record.bytes(5, &session.0);
                }
            }
            SessionKind::Reader { snapshot, usage } => {
                record.bytes(7, &snapshot.0);
                for name in usage {
                    record.bytes(9, &name.0);
                }
            }
        }
        seal::seal_object(keys, ObjectType::Session, &session_key(session), salt, b"", &record.finish(), codec)
    }

    /// Opens it.
    ///
    /// # Errors
    /// Corrupt, Newer, `WrongKey`.
    pub fn decode(keys: &Keys, session: SessionId, bytes: &[u8], codec: &mut Codec) -> Result<Self> {
        let what = "session marker";
        let payload =
            seal::open_object(keys, ObjectType::Session, &session_key(session), bytes, limits::RECORD_BYTES_MAX, codec)?;
        let (mut kind, mut adopts, mut snapshot, mut usage) = (0, Vec::new(), None, Vec::new());
        let (mut config, mut started_nanos, mut host) = (0, 0, String::new());
        read_record(&payload, what, |tag, value| {
            match tag {
                1 => kind = field_uv(value, what)?,
                2 => started_nanos = field_sv(value, what)?,
                3 => {
                    config = u32::try_from(field_uv(value, what)?).map_err(|_| FormatError::corrupt(what, "number overflows"))?
                }
                4 => host = field_text(value, what)?,
                5 => adopts.push(SessionId(field_array(value, what)?)),
                7 => snapshot = Some(SessionId(field_array(value, what)?)),
                9 => usage.push(UsageName(field_array(value, what)?)),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let kind = match (kind, snapshot) {
            (1, None) => SessionKind::Writer { adopts },
            (2, Some(snapshot)) => SessionKind::Reader { snapshot, usage },
            _ => return Err(FormatError::corrupt(what, "its kind and its fields do not fit")),
        };
        Ok(Self { kind, config, started_nanos, host })
    }
}

/// The note that a snapshot is deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// When, nanoseconds; for people.
    pub at_nanos: i64,
    /// By whom; for people.
    pub by: String,
}

impl Removal {
    /// Seals it.
    ///
    /// # Errors
    /// `Library`.
    pub fn encode(&self, keys: &Keys, session: SessionId, salt: [u8; 32], codec: &mut Codec) -> Result<Vec<u8>> {
        let mut record = RecordWriter::new();
        record.sv(2, self.at_nanos).bytes(4, self.by.as_bytes());
        seal::seal_object(keys, ObjectType::Removed, &removed_key(session), salt, b"", &record.finish(), codec)
    }

    /// Opens it.
    ///
    /// # Errors
    /// Corrupt, Newer, `WrongKey`.
    pub fn decode(keys: &Keys, session: SessionId, bytes: &[u8], codec: &mut Codec) -> Result<Self> {
        let what = "removal";
        let payload =
            seal::open_object(keys, ObjectType::Removed, &removed_key(session), bytes, limits::RECORD_BYTES_MAX, codec)?;
        let mut removal = Self { at_nanos: 0, by: String::new() };
        read_record(&payload, what, |tag, value| {
            match tag {
                2 => removal.at_nanos = field_sv(value, what)?,
                4 => removal.by = field_text(value, what)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(removal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::RepositoryId;
    use crate::keys::MasterKey;

    #[test]
    fn markers_and_removals_round_trip() {
        let keys = Keys::derive(&MasterKey::new([1; 32]), RepositoryId([2; 16]));
        let mut codec = Codec::new().unwrap();
        let s = SessionId([3; 16]);
        let kinds = [
            SessionKind::Writer { adopts: vec![SessionId([4; 16]), SessionId([5; 16])] },
            SessionKind::Reader { snapshot: SessionId([6; 16]), usage: vec![UsageName([7; 32])] },
        ];
        for kind in kinds {
            let marker = SessionMarker { kind, config: 2, started_nanos: -9, host: "h".into() };
            let bytes = marker.encode(&keys, s, [1; 32], &mut codec).unwrap();
            assert_eq!(SessionMarker::decode(&keys, s, &bytes, &mut codec).unwrap(), marker);
        }
        let removal = Removal { at_nanos: 5, by: "cli".into() };
        let bytes = removal.encode(&keys, s, [1; 32], &mut codec).unwrap();
        assert_eq!(Removal::decode(&keys, s, &bytes, &mut codec).unwrap(), removal);
    }
}
