//! What the journal of an interrupted run says of a path.
//!
//! [`read`] goes over the file once, checks each record's sum and keeps only where paths stand. Everything else is read when somebody
//! asks, and checked again. Promises that nothing is told that a run of this repository did not write of this volume; whether it still
//! holds is for the change test and the index to say.

use super::places::{Places, hash};
use super::records::{Left, RECORD_BYTES_MAX};
use super::{KIND_FILES, KIND_PART, KIND_SESSION};
use crate::chunker::Profile;
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

/// Files of one directory that were read to their ends, for who asks for them in the order of their names.
///
/// Each record is of files that followed one another, so only those that are about to be asked for are held: a directory of a million files
/// takes the first name of each record.
#[derive(Debug, Default)]
pub(crate) struct ReadFiles {
    path: Vec<u8>,
    /// The first name in each record that was not opened yet, and its place; the next one last.
    records: Vec<(Vec<u8>, u64)>,
    /// What opened ones hold, with the place of its record.
    files: BTreeMap<Vec<u8>, (u64, Recorded)>,
}

impl ReadFiles {
    /// What was read of a file; names must be asked for ascending. Of a name that stands there twice the later one holds.
    pub fn take(&mut self, run: &Interrupted, name: &[u8]) -> Option<Recorded> {
        while let Some((_, at)) = self.records.pop_if(|(first, _)| first.as_slice() <= name) {
            let (Some(body), Some(started_nanos)) = (run.left.body(at), run.started(at)) else { continue };
            for entry in files_of(&body, &self.path).into_iter().flatten().map_while(Result::ok) {
                if self.files.get(&entry.name).is_none_or(|(other, _)| *other < at) {
                    self.files.insert(entry.name.clone(), (at, Recorded { entry, started_nanos }));
                }
            }
        }
        while let Some(first) = self.files.first_entry()
            && first.key().as_slice() < name
        {
            first.remove();
        }
        self.files.remove(name).map(|(_, recorded)| recorded)
    }
}

/// The entries of a record of files, if it is of this directory.
fn files_of<'a>(body: &'a [u8], path: &[u8]) -> Option<Entries<'a>> {
    let mut fields = Reader::new(body.get(1..).unwrap_or_default(), "journal");
    let is_its = fields.bytes_max(RECORD_BYTES_MAX).is_ok_and(|found| found == path);
    is_its.then(|| Entries::new(fields.rest(), b""))
}

/// A file as far as it was read.
#[derive(Debug)]
pub(crate) struct Partial {
    /// What `statx` said of it; neither name nor content.
    pub facts: Entry,
    /// Whether it was cut into fixed blocks.
    pub profile: Profile,
    /// What it consists of.
    pub items: Vec<Item>,
    /// How far that goes.
    pub bytes: u64,
    /// When the run began that read its beginning.
    pub started_nanos: i64,
}

impl Partial {
    /// A small file, which was read to its end.
    pub fn of_file(mut entry: Entry, started_nanos: i64) -> Option<Self> {
        let Node::File { content, .. } = &mut entry.node else { return None };
        let items = std::mem::take(content);
        let is_flat = items.iter().all(|item| matches!(item, Item::Data { .. } | Item::Hole { .. } | Item::Zeros { .. }));
        let bytes = items.iter().map(Item::span).sum();
        is_flat.then_some(Self { facts: entry, profile: Profile::Usual, items, bytes, started_nanos })
    }
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

    /// Small files of a directory that were read to their ends.
    pub fn directory(&self, path: &[u8]) -> ReadFiles {
        let first = |at: u64| files_of(&self.left.body(at)?, path)?.next()?.ok().map(|entry| (entry.name, at));
        let mut records: Vec<_> = self.places.find(hash(KIND_FILES, path)).into_iter().filter_map(first).collect();
        records.sort_unstable_by(|a, b| b.cmp(a));
        ReadFiles { path: path.to_vec(), records, files: BTreeMap::new() }
    }

    /// A large file as far as it was read: the last beginning, and what follows it without a gap.
    pub fn partial(&self, path: &[u8]) -> Option<Partial> {
        let mut found: Option<Partial> = None;
        for at in self.places.find(hash(KIND_PART, path)) {
            let Some(body) = self.left.body(at) else { continue };
            let Some((from, next)) = self.started(at).and_then(|started| part(&body, path, started)) else { continue };
            match &mut found {
                _ if from == 0 => found = Some(next),
                Some(partial) if from == partial.bytes && partial.facts == next.facts && partial.profile == next.profile => {
                    next.items.into_iter().for_each(|item| push_span(&mut partial.items, item));
                    partial.bytes += next.bytes;
                }
                _ => {}
            }
        }
        found
    }
}

/// Adds an item, joining it with a last one of the same kind that has no chunk.
pub(crate) fn push_span(items: &mut Vec<Item>, item: Item) {
    match (items.last_mut(), item) {
        (Some(Item::Hole { span }), Item::Hole { span: more }) | (Some(Item::Zeros { span }), Item::Zeros { span: more }) => {
            *span += more
        }
        _ => items.push(item),
    }
}

/// A stretch, and where it begins; none when it is of another path.
fn part(body: &[u8], path: &[u8], started_nanos: i64) -> Option<(u64, Partial)> {
    let mut fields = Reader::new(body.get(1..)?, "journal");
    if fields.bytes_max(RECORD_BYTES_MAX).ok()? != path {
        return None;
    }
    let profile = Profile::numbered(fields.u8().ok()?)?;
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
    Some((from, Partial { facts, profile, items, bytes, started_nanos }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Journal;
    use crate::repository::Repository;
    use crate::repository::cache::Cache;
    use crate::seams::World;
    use longshore_format::keys::{Argon2Cost, Unlock};
    use longshore_store::MemoryStore;
    use std::sync::Arc;

    fn entry(n: u64, mode: u32) -> Entry {
        Entry {
            name: format!("{n:06}").into_bytes(),
            mode,
            uid: 0,
            gid: 0,
            mtime: tree::Time { secs: 0, nanos: 0 },
            ctime: tree::Time { secs: 0, nanos: 0 },
            inode: n,
            link_device: None,
            changed: false,
            incomplete: false,
            xattrs: Vec::new(),
            node: Node::File { size_bytes: 0, content: Vec::new() },
        }
    }

    #[test]
    fn files_of_a_large_directory_are_found_and_few_of_them_are_held() {
        let folder = tempfile::tempdir().unwrap();
        let (store, secret) = (Arc::new(MemoryStore::new()), Unlock::Secret([1; 32]));
        let repository =
            Repository::init(store, World::system(), &secret, "", Argon2Cost::default(), Cache::at(folder.path())).unwrap();
        let first = Journal::open(&repository, "volume", "name").unwrap();
        first.note_session(SessionId([1; 16]), 10);
        let write = |journal: &Journal, from: u64, count: u64, mode| {
            let mut record = journal.files(b"d");
            for n in from..from + count {
                let _ = record.push(&entry(n, mode));
            }
            journal.note_files(&mut record);
        };
        // Several threads: not in order. Every seventh file was not read.
        for batch in [3, 1, 0, 2, 5, 4, 99, 7] {
            write(&first, batch * 70, 63, 1);
        }
        let mut other = first.files(b"e");
        other.push(&entry(35, 7));
        first.note_files(&mut other);
        drop(first);
        let second = Journal::open(&repository, "volume", "name").unwrap();
        second.note_session(SessionId([2; 16]), 20);
        // Of other bounds, over what was read before and what was not.
        write(&second, 50, 40, 2);
        drop(second);
        let third = Journal::open(&repository, "volume", "name").unwrap();
        let run = third.before().unwrap();
        let mut read = run.directory(b"d");
        let mut held = 0;
        for n in 0..8000 {
            let name = entry(n, 0).name;
            let taken = read.take(run, &name);
            held = held.max(read.files.len());
            let expected = match n {
                50..90 => Some((2, 20)),
                _ if [0, 1, 2, 3, 4, 5, 7, 99].contains(&(n / 70)) && n % 70 < 63 => Some((1, 10)),
                _ => None,
            };
            assert_eq!(taken.as_ref().map(|t| (t.entry.mode, t.started_nanos)), expected, "{n}");
            assert!(taken.is_none_or(|t| t.entry.inode == n));
        }
        assert!(held < 130, "{held} of 529 are held at once");
        // Who asks for few names finds them, too, and holds no more.
        let mut read = run.directory(b"d");
        let few = [(10, Some(1)), (66, Some(2)), (67 + 70 * 3, None), (70 * 5, Some(1)), (98 * 70, None), (99 * 70 + 5, Some(1))];
        for (n, mode) in few {
            assert_eq!(read.take(run, &entry(n, 0).name).map(|t| t.entry.mode), mode, "{n}");
            assert!(read.files.len() < 130, "{} are held at {n}", read.files.len());
        }
        assert!(run.directory(b"f").take(run, b"000000").is_none());
    }
}
