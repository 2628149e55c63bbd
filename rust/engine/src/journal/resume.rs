//! What the journal of an interrupted run says of a path.
//!
//! [`read`] goes over the file once, checks each record's sum and keeps only where paths stand. Everything else is read when somebody
//! asks, and checked again. Promises that nothing is told that a run of this repository did not write of this volume; whether it still
//! holds is for the change test and the index to say.

use super::places::{Places, hash};
use super::records::{Left, RECORD_BYTES_MAX};
use super::{KIND_FILES, KIND_PART, KIND_SESSION};
use crate::system::Draft;
use longshore_format::id::SessionId;
use longshore_format::limits;
use longshore_format::tree::{self, Entries, Entry, Item, Node, Owner, decode_list};
use longshore_format::wire::Reader;
use std::collections::BTreeMap;

/// The journal of an interrupted run.
#[derive(Debug)]
pub(crate) struct Interrupted {
    left: Left,
    /// From which place on they wrote, their names, when they began.
    sessions: Vec<(u64, SessionId, i64)>,
    places: Places,
    end: u64,
}

/// A file that was read to its end.
#[derive(Debug)]
pub(crate) struct Recorded {
    /// What it was.
    pub entry: Entry,
    /// When the run began that read it.
    pub started_nanos: i64,
}

/// A large file as far as it was read.
#[derive(Debug)]
pub(crate) struct Partial {
    /// What `statx` said of it; neither name nor content.
    pub facts: Entry,
    /// Whether it was cut into fixed blocks.
    pub paged: bool,
    /// What it consists of.
    pub items: Vec<Item>,
    /// How far that goes.
    pub bytes: u64,
    /// When the run began that read its beginning.
    pub started_nanos: i64,
}

/// Reads all records up to the first that is torn.
pub(super) fn read(left: Left, draft: impl Fn() -> Option<Draft>) -> Interrupted {
    let (mut sessions, mut places) = (Vec::new(), Places::default());
    let end = left.scan(|at, body| {
        let mut fields = Reader::new(body.get(1..).unwrap_or_default(), "journal");
        match body.first() {
            Some(&KIND_SESSION) => {
                if let (Ok(session), Ok(started)) = (fields.array(), fields.array()) {
                    sessions.push((at, SessionId(session), i64::from_le_bytes(started)));
                }
            }
            Some(kind @ (&KIND_FILES | &KIND_PART)) => {
                if let Ok(path) = fields.bytes_max(RECORD_BYTES_MAX) {
                    places.push(hash(*kind, path), at, &draft);
                }
            }
            _ => {}
        }
    });
    places.finish();
    Interrupted { left, sessions, places, end }
}

impl Interrupted {
    pub(super) fn left(&self) -> &Left {
        &self.left
    }

    /// Where the last whole record ends.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn sessions(&self) -> Vec<SessionId> {
        self.sessions.iter().map(|(_, session, _)| *session).collect()
    }

    fn started(&self, at: u64) -> Option<i64> {
        self.sessions.iter().rev().find(|(from, _, _)| *from < at).map(|(_, _, started)| *started)
    }

    /// Small files of a directory that were read to their ends, by name. Of a name that stands there twice the later one holds.
    pub fn directory(&self, path: &[u8]) -> BTreeMap<Vec<u8>, Recorded> {
        let mut files = BTreeMap::new();
        for at in self.places.find(hash(KIND_FILES, path)) {
            let (Some(body), Some(started_nanos)) = (self.left.body(at), self.started(at)) else { continue };
            let mut fields = Reader::new(body.get(1..).unwrap_or_default(), "journal");
            if fields.bytes_max(RECORD_BYTES_MAX).is_ok_and(|found| found == path) {
                for entry in Entries::new(fields.rest(), b"").map_while(Result::ok) {
                    files.insert(entry.name.clone(), Recorded { entry, started_nanos });
                }
            }
        }
        files
    }

    /// A large file as far as it was read: the last beginning, and what follows it without a gap.
    pub fn partial(&self, path: &[u8]) -> Option<Partial> {
        let mut found: Option<Partial> = None;
        for at in self.places.find(hash(KIND_PART, path)) {
            let Some(body) = self.left.body(at) else { continue };
            let Some((from, next)) = self.started(at).and_then(|started| part(&body, path, started)) else { continue };
            match &mut found {
                _ if from == 0 => found = Some(next),
                Some(partial) if from == partial.bytes && partial.facts == next.facts && partial.paged == next.paged => {
                    partial.items.extend(next.items);
                    partial.bytes += next.bytes;
                }
                _ => {}
            }
        }
        found
    }
}

/// A stretch, and where it begins; none when it is of another path.
fn part(body: &[u8], path: &[u8], started_nanos: i64) -> Option<(u64, Partial)> {
    let mut fields = Reader::new(body.get(1..)?, "journal");
    if fields.bytes_max(RECORD_BYTES_MAX).ok()? != path {
        return None;
    }
    let paged = fields.u8().ok()? != 0;
    let (size_bytes, inode) = (fields.u64().ok()?, fields.u64().ok()?);
    let (mtime, ctime) = (fields.u64().ok()? as i64, fields.u64().ok()? as i64);
    let (mtime_nanos, ctime_nanos) = (fields.u32().ok()?, fields.u32().ok()?);
    let from = fields.uv_max(limits::FILE_BYTES_MAX).ok()?;
    let bytes = fields.uv_max(limits::FILE_BYTES_MAX).ok()?;
    let items = decode_list(fields.rest(), Owner::File, bytes).ok()?;
    if from.checked_add(bytes).is_none_or(|end| end > size_bytes) || items.iter().any(|item| matches!(item, Item::List { .. })) {
        return None;
    }
    let facts = Entry {
        name: Vec::new(),
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: tree::Time { secs: mtime, nanos: mtime_nanos },
        ctime: tree::Time { secs: ctime, nanos: ctime_nanos },
        inode,
        link_device: None,
        changed: false,
        incomplete: false,
        xattrs: Vec::new(),
        node: Node::File { size_bytes, content: Vec::new() },
    };
    Some((from, Partial { facts, paged, items, bytes, started_nanos }))
}
