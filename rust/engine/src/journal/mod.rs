//! The run journal: what a running backup has read, for the run that follows if this one is killed.
//!
//! One log for each volume in the cache folder, held by one process at a time. It says which sessions wrote, and of each file that was
//! read to its end, or of a large one as far as it was read, what `statx` said and of which chunks it consists. **It is a hint about the
//! volume, and never a proof about the repository**: who goes on from it looks at the file again by the change test, and relies on a chunk only
//! when it lies in a pack that was listed after the new session's marker was made. So no order between journal and packs is needed, records may
//! be lost at will, and nothing waits for the disk but a sync every [`SYNC_EVERY`], which bounds what a power cut costs.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | magic, its last two digits the version |
//! | 32 | salt, random |
//! | 32 | keyed sum of both and of the volume's identity: a journal of another repository or volume does not open |
//! | then records | `u32` length, 16 bytes of the keyed sum of salt, place and body, the body: `u8` kind and its fields |
//!
//! What follows a record that does not fit its sum is a torn tail: it is cut off and written over. A run that goes on from another
//! appends to the same file, so a volume whose backup is killed many times still reads each file once.
//!
//! Rooms: `places` (where in the journal a path stands), `resume` (what it says of a path). Knows nothing of threads and snapshots.

mod places;
mod resume;

use crate::repository::Repository;
use crate::system::Log;
use crate::volume::Stat;
use longshore_format::Keys;
use longshore_format::id::SessionId;
use longshore_format::tree::{Entry, Item};
use longshore_format::wire::{put_bytes, put_uv};
use longshore_store::Clock;
use resume::read;
pub(crate) use resume::{Interrupted, Partial, Recorded};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const MAGIC: &[u8; 8] = b"LSJRNL01";
/// The part of the magic that all versions share.
const MAGIC_ANY: &[u8; 6] = b"LSJRNL";
const SALT_BYTES: usize = 32;
const HEAD_BYTES: usize = MAGIC.len() + SALT_BYTES + 32;
const SUM_BYTES: usize = 16;
const RECORD_HEAD_BYTES: usize = 4 + SUM_BYTES;
/// A longer record is not written, and not believed.
const RECORD_BYTES_MAX: usize = 16 << 20;
const KIND_SESSION: u8 = 1;
const KIND_FILES: u8 = 2;
const KIND_PART: u8 = 3;
/// What a power cut may cost beside the last packs: at most so long a stretch of the run is read again.
const SYNC_EVERY: Duration = Duration::from_secs(10);
/// Sessions in one journal; a volume whose backup was killed so often begins with a new one.
const SESSIONS_MAX: usize = 256;
/// A journal that nobody wrote to for so long is of a volume that is gone.
const KEPT_NANOS: i128 = 30 * 24 * 3600 * 1_000_000_000;
const FOLDER: &str = "journal";

/// The journal of one running backup.
#[derive(Debug)]
pub(crate) struct Journal {
    log: Arc<Log>,
    keys: Arc<Keys>,
    clock: Arc<dyn Clock>,
    salt: [u8; SALT_BYTES],
    end: Mutex<End>,
    length_bytes_max: u64,
    /// The disk refused or the room is used up: nothing more is written.
    ended: AtomicBool,
    before: Option<Interrupted>,
}

#[derive(Debug)]
struct End {
    at: u64,
    synced: Duration,
}

fn head_sum(keys: &Keys, salt: &[u8], source: &str) -> [u8; 32] {
    keys.cache_sum(b"run journal", &[&MAGIC[..], salt, source.as_bytes()].concat())
}

fn record_sum(keys: &Keys, salt: &[u8; SALT_BYTES], at: u64, body: &[u8]) -> [u8; SUM_BYTES] {
    let mut name = [0; SALT_BYTES + 8];
    name[..SALT_BYTES].copy_from_slice(salt);
    name[SALT_BYTES..].copy_from_slice(&at.to_le_bytes());
    let mut out = [0; SUM_BYTES];
    out.copy_from_slice(&keys.cache_sum(&name, body)[..SUM_BYTES]);
    out
}

/// The salt of a journal of this repository and volume, or why it is none.
fn open_head(log: &Log, keys: &Keys, source: &str) -> Result<[u8; SALT_BYTES], &'static str> {
    let mut head = [0; HEAD_BYTES];
    if log.read_exact_at(&mut head, 0).is_err() || !head.starts_with(MAGIC_ANY) {
        return Err("it is no journal");
    }
    if !head.starts_with(MAGIC) {
        return Err("it is of another version of longshore");
    }
    let mut salt = [0; SALT_BYTES];
    salt.copy_from_slice(&head[MAGIC.len()..MAGIC.len() + SALT_BYTES]);
    match head[MAGIC.len() + SALT_BYTES..] == head_sum(keys, &salt, source) {
        true => Ok(salt),
        false => Err("it is of another volume or repository, or damaged"),
    }
}

impl Journal {
    /// Takes the journal of a volume. None without a cache, or when another backup of the volume has it. What stands in it from an
    /// interrupted run is read; what is not of this volume, version and repository is not, and is written over.
    pub fn open(repository: &Repository, source: &str, name: &str) -> Option<Self> {
        let log = repository.cache.log(FOLDER, name)?;
        forget_old(repository, name);
        let keys = Arc::clone(&repository.keys);
        let before = match log.length() {
            Ok(0) => None,
            Ok(length) => match open_head(&log, &keys, source) {
                Ok(salt) => Some((salt, length)),
                Err(why) => {
                    tracing::warn!(why = why, "Cannot go on from an interrupted run, its journal is left aside");
                    None
                }
            },
            Err(_) => return None,
        };
        let log = Arc::new(log);
        let draft = || repository.cache.draft(&repository.world.name().to_string());
        let before = before.map(|(salt, length)| read(&log, &keys, salt, length, draft));
        let mut journal = Self {
            log,
            keys,
            clock: Arc::clone(&repository.world.clock),
            salt: [0; SALT_BYTES],
            end: Mutex::new(End { at: 0, synced: repository.world.clock.monotonic() }),
            length_bytes_max: repository.cache.room_bytes(),
            ended: AtomicBool::new(false),
            before: None,
        };
        match before.filter(|read| (1..SESSIONS_MAX).contains(&read.sessions().len())) {
            Some(read) => {
                journal.salt = read.salt();
                // Its own length counts as used already.
                journal.length_bytes_max = journal.length_bytes_max.saturating_add(read.end());
                journal.end = Mutex::new(End { at: read.end(), synced: journal.clock.monotonic() });
                journal.log.cut(read.end()).ok()?;
                journal.before = Some(read);
            }
            None => journal.begin(repository.world.salt(), source)?,
        }
        Some(journal)
    }

    /// Writes an empty journal in place of what is there.
    fn begin(&mut self, salt: [u8; SALT_BYTES], source: &str) -> Option<()> {
        self.log.cut(0).ok()?;
        let head = [&MAGIC[..], &salt, &head_sum(&self.keys, &salt, source)].concat();
        self.log.write_all_at(&head, 0).ok()?;
        (self.salt, self.before) = (salt, None);
        self.end = Mutex::new(End { at: head.len() as u64, synced: self.clock.monotonic() });
        Some(())
    }

    /// Forgets what an earlier run wrote: it has committed after all.
    pub fn forget(&mut self, salt: [u8; SALT_BYTES], source: &str) {
        if self.begin(salt, source).is_none() {
            self.ended.store(true, Relaxed);
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
        self.append(&body);
        if self.log.sync().is_err() {
            self.ended.store(true, Relaxed);
        }
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
        self.append(&body);
    }

    /// Notes a stretch of a large file, from `from_bytes` on. A stretch from 0 begins the file anew.
    pub fn note_part(&self, path: &[u8], stat: &Stat, paged: bool, from_bytes: u64, items: &[Item]) {
        let mut body = vec![KIND_PART];
        put_bytes(&mut body, path);
        body.push(u8::from(paged));
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
        self.append(&body);
    }

    fn append(&self, body: &[u8]) {
        if self.ended.load(Relaxed) || body.len() > RECORD_BYTES_MAX {
            return;
        }
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let mut record = Vec::with_capacity(RECORD_HEAD_BYTES + body.len());
        record.extend_from_slice(&(body.len() as u32).to_le_bytes());
        record.extend_from_slice(&record_sum(&self.keys, &self.salt, end.at, body));
        record.extend_from_slice(body);
        let length = record.len() as u64;
        if end.at + length > self.length_bytes_max || self.log.write_all_at(&record, end.at).is_err() {
            tracing::debug!("Cannot note what was read, a run after this one reads it again if this one is killed");
            self.ended.store(true, Relaxed);
            return;
        }
        end.at += length;
        let now = self.clock.monotonic();
        if now.saturating_sub(end.synced) >= SYNC_EVERY {
            end.synced = now;
            drop(end);
            let _ = self.log.sync();
        }
    }

    /// Removes it: what it says is in a snapshot that counts.
    pub fn remove(&self) {
        if let Err(error) = self.log.remove() {
            tracing::debug!(error = %error, "Cannot remove the journal of a run that is done");
        }
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

/// Removes journals of volumes that are no longer backed up.
fn forget_old(repository: &Repository, own: &str) {
    let now = i128::from(repository.world.clock.wall_nanos());
    for key in repository.cache.keys(&format!("{FOLDER}/")) {
        let Some(name) = key.as_str().strip_prefix(FOLDER).and_then(|name| name.strip_prefix('/')).filter(|name| *name != own)
        else {
            continue;
        };
        // Its age first: to hold the journal of another volume, be it for a moment, might keep its backup from going on.
        let is_old = repository.cache.written_nanos(key.as_str()).is_some_and(|written| now - written > KEPT_NANOS);
        if is_old && let Some(log) = repository.cache.log(FOLDER, name) {
            let _ = log.remove();
        }
    }
}
