//! Snapshots and aborted sessions: docs/format.md chapter 10.

use crate::envelope::Codec;
use crate::id::{SNAPSHOT_ID_PREFIX, SessionId, UsageName};
use crate::record::{RecordWriter, field_array, field_sv, field_text, field_uv, read_record};
use crate::seal::{self, ObjectType};
use crate::tree::Entry;
use crate::wire::{Reader, put_bytes, put_uv};
use crate::{FormatError, Keys, Result, limits};

/// Most lost or changed items that a snapshot names.
pub const ITEMS_NAMED_MAX: usize = 1000;

/// Counts of one backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it; docs/format.md chapter 10, tag 16")]
pub struct Counts {
    pub files: u64,
    pub directories: u64,
    pub others: u64,
    pub bytes: u64,
    pub files_new: u64,
    pub files_changed: u64,
    pub files_unchanged: u64,
    pub bytes_read: u64,
    pub bytes_stored: u64,
    pub items_lost: u64,
    pub items_changed: u64,
}

impl Counts {
    fn numbers(&self) -> [u64; 11] {
        [
            self.files,
            self.directories,
            self.others,
            self.bytes,
            self.files_new,
            self.files_changed,
            self.files_unchanged,
            self.bytes_read,
            self.bytes_stored,
            self.items_lost,
            self.items_changed,
        ]
    }

    fn from_numbers(n: [u64; 11]) -> Self {
        Self {
            files: n[0],
            directories: n[1],
            others: n[2],
            bytes: n[3],
            files_new: n[4],
            files_changed: n[5],
            files_unchanged: n[6],
            bytes_read: n[7],
            bytes_stored: n[8],
            items_lost: n[9],
            items_changed: n[10],
        }
    }
}

/// Why an item was not captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LostReason {
    /// It could not be opened or read.
    Unreadable,
    /// Reading stopped in the middle; what was read is kept, the rest is zeros.
    CutShort,
    /// Its name is longer than the format takes.
    NameTooLong,
    /// Anything else.
    Other,
}

impl LostReason {
    fn number(self) -> u64 {
        match self {
            Self::Unreadable => 1,
            Self::CutShort => 2,
            Self::NameTooLong => 3,
            Self::Other => 4,
        }
    }

    fn from_number(number: u64) -> Self {
        match number {
            1 => Self::Unreadable,
            2 => Self::CutShort,
            3 => Self::NameTooLong,
            _ => Self::Other,
        }
    }
}

/// An item that was not captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostItem {
    /// Why, sorted.
    pub reason: LostReason,
    /// Path from the root, without a leading slash.
    pub path: Vec<u8>,
    /// Why, in words.
    pub message: String,
}

/// A committed snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Drawn by the writer.
    pub nonce: [u8; 16],
    /// The root directory.
    pub root: Entry,
    /// Tables that name every frame it needs.
    pub usage: Vec<UsageName>,
    /// Volume identity.
    pub source: String,
    /// Parent, if any.
    pub parent: Option<SessionId>,
    /// Tags, ascending.
    pub tags: Vec<(String, String)>,
    /// When it began, nanoseconds.
    pub started_nanos: i64,
    /// When it ended, nanoseconds.
    pub ended_nanos: i64,
    /// Host or node.
    pub host: String,
    /// Path that was read.
    pub path: Vec<u8>,
    /// Program and version.
    pub program: String,
    /// Counts.
    pub counts: Counts,
    /// Items not captured, at most [`ITEMS_NAMED_MAX`].
    pub lost: Vec<LostItem>,
    /// Items marked changed, at most [`ITEMS_NAMED_MAX`].
    pub changed: Vec<Vec<u8>>,
}

/// What lies under `snapshots/<s>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotObject {
    /// A snapshot.
    Committed(Box<Snapshot>),
    /// The session was given up or fenced.
    Aborted {
        /// Drawn by who aborted it.
        nonce: [u8; 16],
        /// Why.
        reason: String,
    },
}

/// The store key of a snapshot.
#[must_use]
pub fn snapshot_key(session: SessionId) -> String {
    format!("snapshots/{session}")
}

/// The identifier that users see.
#[must_use]
pub fn public_id(session: SessionId) -> String {
    format!("{SNAPSHOT_ID_PREFIX}{session}")
}

impl SnapshotObject {
    /// The nonce of who wrote it.
    #[must_use]
    pub fn nonce(&self) -> [u8; 16] {
        match self {
            Self::Committed(snapshot) => snapshot.nonce,
            Self::Aborted { nonce, .. } => *nonce,
        }
    }

    /// Seals it; the bytes go under [`snapshot_key`].
    ///
    /// # Errors
    /// `TooLarge`, `Library`.
    pub fn encode(&self, keys: &Keys, session: SessionId, salt: [u8; 32], codec: &mut Codec) -> Result<Vec<u8>> {
        let mut record = RecordWriter::new();
        match self {
            Self::Aborted { nonce, reason } => {
                record.uv(1, 2).bytes(3, nonce).bytes(22, reason.as_bytes());
            }
            Self::Committed(s) => s.fields(&mut record),
        }
        let payload = record.finish();
        if payload.len() > limits::RECORD_BYTES_MAX {
            return Err(FormatError::TooLarge {
                what: "snapshot",
                size: payload.len() as u64,
                limit: limits::RECORD_BYTES_MAX as u64,
            });
        }
        seal::seal_object(keys, ObjectType::Snapshot, &snapshot_key(session), salt, b"", &payload, codec)
    }

    /// Opens it.
    ///
    /// # Errors
    /// Corrupt, Newer, `WrongKey`.
    pub fn decode(keys: &Keys, session: SessionId, bytes: &[u8], codec: &mut Codec) -> Result<Self> {
        let payload =
            seal::open_object(keys, ObjectType::Snapshot, &snapshot_key(session), bytes, limits::RECORD_BYTES_MAX, codec)?;
        let what = "snapshot";
        let (mut state, mut nonce, mut root, mut reason) = (0, None, None, String::new());
        let mut s = Blank::default();
        read_record(&payload, what, |tag, value| {
            match tag {
                1 => state = field_uv(value, what)?,
                2 => s.parent = Some(SessionId(field_array(value, what)?)),
                3 => nonce = Some(field_array(value, what)?),
                4 => s.tags.push(decode_tag(value)?),
                5 => root = Some(Entry::decode_bare(value, true)?),
                6 => s.started_nanos = field_sv(value, what)?,
                7 => s.usage.push(UsageName(field_array(value, what)?)),
                8 => s.ended_nanos = field_sv(value, what)?,
                9 => s.source = field_text(value, what)?,
                10 => s.host = field_text(value, what)?,
                12 => s.path = value.to_vec(),
                14 => s.program = field_text(value, what)?,
                16 => s.counts = decode_counts(value)?,
                18 => s.lost.push(decode_lost(value)?),
                20 => s.changed.push(value.to_vec()),
                22 => reason = field_text(value, what)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let nonce = nonce.ok_or_else(|| FormatError::corrupt(what, "its nonce is missing"))?;
        match (state, root) {
            (2, _) => Ok(Self::Aborted { nonce, reason }),
            (1, Some(root)) => {
                if !matches!(root.node, crate::tree::Node::Directory { .. }) {
                    return Err(FormatError::corrupt(what, "its root is no directory"));
                }
                Ok(Self::Committed(Box::new(s.into_snapshot(nonce, root))))
            }
            (1, None) => Err(FormatError::corrupt(what, "its root is missing")),
            _ => Err(FormatError::Newer(format!("snapshot has an unknown state: state={state}"))),
        }
    }
}

#[derive(Default)]
struct Blank {
    usage: Vec<UsageName>,
    source: String,
    parent: Option<SessionId>,
    tags: Vec<(String, String)>,
    started_nanos: i64,
    ended_nanos: i64,
    host: String,
    path: Vec<u8>,
    program: String,
    counts: Counts,
    lost: Vec<LostItem>,
    changed: Vec<Vec<u8>>,
}

impl Blank {
    fn into_snapshot(self, nonce: [u8; 16], root: Entry) -> Snapshot {
        Snapshot {
            nonce,
            root,
            usage: self.usage,
            source: self.source,
            parent: self.parent,
            tags: self.tags,
            started_nanos: self.started_nanos,
            ended_nanos: self.ended_nanos,
            host: self.host,
            path: self.path,
            program: self.program,
            counts: self.counts,
            lost: self.lost,
            changed: self.changed,
        }
    }
}

impl Snapshot {
    fn fields(&self, record: &mut RecordWriter) {
        record.uv(1, 1);
        if let Some(parent) = self.parent {
            record.bytes(2, &parent.0);
        }
        record.bytes(3, &self.nonce);
        for (key, value) in &self.tags {
            let mut field = Vec::new();
            put_bytes(&mut field, key.as_bytes());
            put_bytes(&mut field, value.as_bytes());
            record.bytes(4, &field);
        }
        let mut root = Vec::new();
        self.root.encode_bare(&mut root);
        record.bytes(5, &root).sv(6, self.started_nanos);
        for name in &self.usage {
            record.bytes(7, &name.0);
        }
        record.sv(8, self.ended_nanos).bytes(9, self.source.as_bytes()).bytes(10, self.host.as_bytes());
        record.bytes(12, &self.path).bytes(14, self.program.as_bytes());
        let mut counts = Vec::new();
        for number in self.counts.numbers() {
            put_uv(&mut counts, number);
        }
        record.bytes(16, &counts);
        for item in self.lost.iter().take(ITEMS_NAMED_MAX) {
            let mut field = Vec::new();
            put_uv(&mut field, item.reason.number());
            put_bytes(&mut field, &item.path);
            put_bytes(&mut field, item.message.as_bytes());
            record.bytes(18, &field);
        }
        for path in self.changed.iter().take(ITEMS_NAMED_MAX) {
            record.bytes(20, path);
        }
    }
}

fn decode_tag(value: &[u8]) -> Result<(String, String)> {
    let mut reader = Reader::new(value, "tag");
    let key = field_text(reader.bytes_max(value.len())?, "tag")?;
    let text = field_text(reader.bytes_max(value.len())?, "tag")?;
    reader.finish()?;
    Ok((key, text))
}

fn decode_counts(value: &[u8]) -> Result<Counts> {
    let mut reader = Reader::new(value, "counts");
    let mut numbers = [0; 11];
    for number in &mut numbers {
        *number = reader.uv()?;
    }
    reader.finish()?;
    Ok(Counts::from_numbers(numbers))
}

fn decode_lost(value: &[u8]) -> Result<LostItem> {
    let mut reader = Reader::new(value, "lost item");
    let reason = LostReason::from_number(reader.uv()?);
    let path = reader.bytes_max(value.len())?.to_vec();
    let message = field_text(reader.bytes_max(value.len())?, "lost item")?;
    reader.finish()?;
    Ok(LostItem { reason, path, message })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::RepositoryId;
    use crate::keys::MasterKey;
    use crate::tree::{Node, Time};

    #[test]
    fn snapshots_and_aborts_round_trip_under_their_own_key_only() {
        let keys = Keys::derive(&MasterKey::new([1; 32]), RepositoryId([2; 16]));
        let mut codec = Codec::new().unwrap();
        let root = Entry {
            name: vec![],
            mode: 0o755,
            uid: 1,
            gid: 2,
            mtime: Time { secs: -1, nanos: 5 },
            ctime: Time::default(),
            inode: 2,
            link_device: None,
            changed: false,
            incomplete: false,
            xattrs: vec![(b"user.x".to_vec(), vec![1])],
            node: Node::Directory { content: vec![] },
        };
        let committed = SnapshotObject::Committed(Box::new(Snapshot {
            nonce: [7; 16],
            root,
            usage: vec![UsageName([1; 32]), UsageName([2; 32])],
            source: "pvc/a/b".into(),
            parent: Some(SessionId([4; 16])),
            tags: vec![("a".into(), "b".into())],
            started_nanos: 10,
            ended_nanos: -1,
            host: "node".into(),
            path: vec![b'/', 0xff],
            program: "longshore".into(),
            counts: Counts { files: 1, items_changed: 9, ..Counts::default() },
            lost: vec![LostItem { reason: LostReason::CutShort, path: b"x/y".to_vec(), message: "m".into() }],
            changed: vec![b"z".to_vec()],
        }));
        let aborted = SnapshotObject::Aborted { nonce: [8; 16], reason: "cancelled".into() };
        for object in [committed, aborted] {
            let bytes = object.encode(&keys, SessionId([5; 16]), [6; 32], &mut codec).unwrap();
            assert_eq!(SnapshotObject::decode(&keys, SessionId([5; 16]), &bytes, &mut codec).unwrap(), object);
            assert!(SnapshotObject::decode(&keys, SessionId([6; 16]), &bytes, &mut codec).is_err());
        }
    }
}
