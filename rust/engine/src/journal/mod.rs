//! The run journal: what a running backup has read, for the run that follows if this one is killed.
//!
//! One log for each volume. It says which sessions wrote, and of each file that was read to its end, or of a large one as far as it was
//! read, what `statx` said and of which chunks it consists. **It is a hint about the volume, and never a proof about the repository**: who
//! goes on from it looks at the file again by the change test, and relies on a chunk only when it lies in a pack that was listed after
//! the new session's marker was made. So no order between journal and packs is needed, and records may be lost at will. The body of a
//! record is a `u8` kind and its fields. A run that goes on from another appends to the same file, so a volume whose backup is killed
//! many times still reads each file once.
//!
//! Rooms: `records` (the file), `places` (where in the journal a path stands), `resume` (what it says of a path), `checked` (the same for
//! checks: which packs were read and are good). Knows nothing of threads and snapshots.

mod checked;
mod places;
mod records;
mod resume;

use crate::chunker::Profile;
use crate::repository::Repository;
use crate::volume::Stat;
pub(crate) use checked::Checked;
use longshore_format::id::SessionId;
use longshore_format::tree::{Entry, Item};
use longshore_format::wire::{put_bytes, put_uv};
use records::{Records, SALT_BYTES};
use resume::read;
pub(crate) use resume::{Interrupted, Partial, ReadFiles, Recorded, push_span};

const MAGIC: &[u8; 8] = b"LSJRNL01";
const KIND_SESSION: u8 = 1;
const KIND_FILES: u8 = 2;
const KIND_PART: u8 = 3;
/// Sessions in one journal; a volume whose backup was killed so often begins with a new one.
const SESSIONS_MAX: usize = 256;

/// The journal of one running backup.
#[derive(Debug)]
pub(crate) struct Journal {
    records: Records,
    before: Option<Interrupted>,
}

impl Journal {
    /// Takes the journal of a volume. None without a cache, or when another backup of the volume has it. What stands in it from an
    /// interrupted run is read; what is not of this volume, version and repository is not, and is written over.
    pub fn open(repository: &Repository, source: &str, name: &str) -> Option<Self> {
        let (mut records, left) = Records::open(repository, MAGIC, source, name)?;
        let draft = || repository.cache.draft(&repository.world.name().to_string());
        let before = left.map(|left| read(left, draft));
        match before.filter(|read| (1..SESSIONS_MAX).contains(&read.sessions().len())) {
            Some(read) => {
                records.go_on(read.left(), read.end())?;
                Some(Self { records, before: Some(read) })
            }
            None => {
                records.begin(repository.world.salt(), source)?;
                Some(Self { records, before: None })
            }
        }
    }

    /// Forgets what an earlier run wrote: it has committed after all.
    pub fn forget(&mut self, salt: [u8; SALT_BYTES], source: &str) {
        self.before = None;
        if self.records.begin(salt, source).is_none() {
            self.records.end();
        }
    }

    /// Sessions of the interrupted runs, oldest first.
    pub fn sessions(&self) -> Vec<SessionId> {
        self.before.as_ref().map(Interrupted::sessions).unwrap_or_default()
    }

    /// What the interrupted runs left, if there were any.
    pub fn before(&self) -> Option<&Interrupted> {
        self.before.as_ref()
    }

    /// Says that a session writes from now on. To be called before its marker is made, so that no session is ever forgotten.
    pub fn note_session(&self, session: SessionId, started_nanos: i64) {
        let mut body = vec![KIND_SESSION];
        body.extend_from_slice(&session.0);
        body.extend_from_slice(&started_nanos.to_le_bytes());
        self.records.append(&body);
        self.records.sync();
    }

    /// Begins a record of files of one directory that were read to their ends.
    pub fn files(&self, directory: &[u8]) -> FilesRecord {
        FilesRecord { directory: directory.to_vec(), entries: Vec::new(), scratch: Vec::new() }
    }

    /// Notes what a record has gathered, and empties it.
    pub fn note_files(&self, record: &mut FilesRecord) {
        if record.entries.is_empty() {
            return;
        }
        let mut body = vec![KIND_FILES];
        put_bytes(&mut body, &record.directory);
        body.extend_from_slice(&record.entries);
        record.entries.clear();
        self.records.append(&body);
    }

    /// Notes a stretch of a large file, from `from_bytes` on: it may begin in the middle of zeros. A stretch from 0 begins the file anew.
    pub fn note_part(&self, path: &[u8], stat: &Stat, profile: Profile, from_bytes: u64, items: &[Item]) {
        let mut body = vec![KIND_PART];
        put_bytes(&mut body, path);
        body.push(profile.number());
        for number in [stat.size_bytes, stat.inode, stat.mtime.secs as u64, stat.ctime.secs as u64] {
            body.extend_from_slice(&number.to_le_bytes());
        }
        for number in [stat.mtime.nanos, stat.ctime.nanos] {
            body.extend_from_slice(&number.to_le_bytes());
        }
        put_uv(&mut body, from_bytes);
        put_uv(&mut body, items.iter().map(Item::span).sum());
        for item in items {
            item.encode(&mut body);
        }
        self.records.append(&body);
    }

    /// Removes it: what it says is in a snapshot that counts.
    pub fn remove(&self) {
        self.records.remove();
    }
}

/// Files of one directory on their way into the journal.
#[derive(Debug)]
pub(crate) struct FilesRecord {
    directory: Vec<u8>,
    entries: Vec<u8>,
    scratch: Vec<u8>,
}

/// Items that an entry in the journal may have; a file with more is noted in stretches.
pub(crate) const ITEMS_MAX: usize = 64;
/// Bytes at which a record of files is worth a write.
const FILES_RECORD_BYTES: usize = 64 << 10;

impl FilesRecord {
    /// Adds a file, names ascending. Whether the record is full.
    pub fn push(&mut self, entry: &Entry) -> bool {
        entry.encode(&mut self.scratch, &mut self.entries);
        self.entries.len() >= FILES_RECORD_BYTES
    }
}
