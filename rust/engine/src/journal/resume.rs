//! What the journal of an interrupted run says of a path.
//!
//! [`read`] goes over the file once, checks each record's sum and keeps only where paths stand. Everything else is read when somebody
//! asks, and checked again. Promises that nothing is told that a run of this repository did not write of this volume; whether it still
//! holds is for the change test and the index to say.

use super::places::{Places, hash};
use super::{HEAD_BYTES, KIND_FILES, KIND_PART, KIND_SESSION, RECORD_BYTES_MAX, RECORD_HEAD_BYTES, SALT_BYTES, record_sum};
use crate::system::{Draft, Log};
use longshore_format::id::SessionId;
use longshore_format::tree::{self, Entries, Entry, Item, Node, Owner, decode_list};
use longshore_format::wire::Reader;
use longshore_format::{Keys, limits};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of the journal that are read at a time.
const READ_BYTES: u64 = 1 << 20;

/// The journal of an interrupted run.
#[derive(Debug)]
pub(crate) struct Interrupted {
    log: Arc<Log>,
    keys: Arc<Keys>,
    salt: [u8; SALT_BYTES],
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
pub(super) fn read(
    log: &Arc<Log>,
    keys: &Arc<Keys>,
    salt: [u8; SALT_BYTES],
    length: u64,
    draft: impl Fn() -> Option<Draft>,
) -> Interrupted {
    let mut read = Interrupted {
        log: Arc::clone(log),
        keys: Arc::clone(keys),
        salt,
        sessions: Vec::new(),
        places: Places::default(),
        end: HEAD_BYTES as u64,
    };
    let mut window = Window { log, length, start: 0, bytes: Vec::new() };
    while let Some((at, body)) = next(&mut window, keys, &salt, read.end) {
        read.end = at + (RECORD_HEAD_BYTES + body.len()) as u64;
        let mut fields = Reader::new(body.get(1..).unwrap_or_default(), "journal");
        match body.first() {
            Some(&KIND_SESSION) => {
                if let (Ok(session), Ok(started)) = (fields.array(), fields.array()) {
                    read.sessions.push((at, SessionId(session), i64::from_le_bytes(started)));
                }
            }
            Some(kind @ (&KIND_FILES | &KIND_PART)) => {
                if let Ok(path) = fields.bytes_max(RECORD_BYTES_MAX) {
                    read.places.push(hash(*kind, path), at, &draft);
                }
            }
            _ => {}
        }
    }
    if read.end < length {
        tracing::info!(kept_bytes = read.end, length_bytes = length, "The journal of an interrupted run ends in a torn record");
    }
    read.places.finish();
    read
}

/// A stretch of the file in memory.
struct Window<'a> {
    log: &'a Log,
    length: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    fn get(&mut self, at: u64, count: usize) -> Option<&[u8]> {
        let end = at.checked_add(count as u64).filter(|end| *end <= self.length)?;
        if at < self.start || end > self.start + self.bytes.len() as u64 {
            let wanted = (count as u64).max(READ_BYTES).min(self.length - at);
            self.bytes.resize(usize::try_from(wanted).ok()?, 0);
            self.start = at;
            if self.log.read_exact_at(&mut self.bytes, at).is_err() {
                self.bytes.clear();
                return None;
            }
        }
        let from = (at - self.start) as usize;
        self.bytes.get(from..from + count)
    }
}

fn next<'a>(window: &'a mut Window<'_>, keys: &Keys, salt: &[u8; SALT_BYTES], at: u64) -> Option<(u64, &'a [u8])> {
    let head: [u8; RECORD_HEAD_BYTES] = window.get(at, RECORD_HEAD_BYTES)?.try_into().ok()?;
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    if length > RECORD_BYTES_MAX {
        return None;
    }
    let body = window.get(at + RECORD_HEAD_BYTES as u64, length)?;
    (head[4..] == record_sum(keys, salt, at, body)).then_some((at, body))
}

impl Interrupted {
    pub(super) fn salt(&self) -> [u8; SALT_BYTES] {
        self.salt
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

    fn body(&self, at: u64) -> Option<Vec<u8>> {
        let mut window = Window { log: &self.log, length: self.end, start: 0, bytes: Vec::new() };
        let mut head = [0; 4];
        self.log.read_exact_at(&mut head, at).ok()?;
        let length = u32::from_le_bytes(head) as usize;
        if length > RECORD_BYTES_MAX {
            return None;
        }
        // One read for head and body.
        let all = RECORD_HEAD_BYTES + length;
        window.bytes.resize(all, 0);
        window.start = at;
        self.log.read_exact_at(&mut window.bytes, at).ok()?;
        next(&mut window, &self.keys, &self.salt, at).map(|(_, body)| body.to_vec())
    }

    /// Small files of a directory that were read to their ends, by name. Of a name that stands there twice the later one holds.
    pub fn directory(&self, path: &[u8]) -> BTreeMap<Vec<u8>, Recorded> {
        let mut files = BTreeMap::new();
        for at in self.places.find(hash(KIND_FILES, path)) {
            let (Some(body), Some(started_nanos)) = (self.body(at), self.started(at)) else { continue };
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
            let Some(body) = self.body(at) else { continue };
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
