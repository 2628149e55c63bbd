//! A log of records that a killed run leaves to the one that follows.
//!
//! One file in the cache folder, held by one process at a time.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | magic, its last two digits the version |
//! | 32 | salt, random |
//! | 32 | keyed sum of both and of what the log is about: one of another repository, volume or question does not open |
//! | then records | `u32` length, 16 bytes of the keyed sum of salt, place and body, the body |
//!
//! What follows a record that does not fit its sum is a torn tail: it is cut off and written over. Promises that no record is told that
//! was not written into this very file by who has the repository's key. Nothing waits for the disk but a sync every [`SYNC_EVERY`], and
//! a record that cannot be written is left out, with all that would follow. What records mean it does not know.

use crate::repository::Repository;
use crate::system::Log;
use longshore_format::Keys;
use longshore_store::Clock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Bytes of a magic that say which kind of log it is; the version follows.
const KIND_BYTES: usize = 6;
const MAGIC_BYTES: usize = 8;
pub(super) const SALT_BYTES: usize = 32;
pub(super) const HEAD_BYTES: usize = MAGIC_BYTES + SALT_BYTES + 32;
const SUM_BYTES: usize = 16;
pub(super) const RECORD_HEAD_BYTES: usize = 4 + SUM_BYTES;
/// A longer record is not written, and not believed.
pub(super) const RECORD_BYTES_MAX: usize = 16 << 20;
/// What a power cut may cost beside the last packs: at most so long a stretch of the run is done again.
const SYNC_EVERY: Duration = Duration::from_secs(10);
/// Bytes of the log that are read at a time.
const READ_BYTES: u64 = 1 << 20;
/// A log that nobody wrote to for so long is of something that is gone.
const KEPT_NANOS: i128 = 30 * 24 * 3600 * 1_000_000_000;
pub(super) const FOLDER: &str = "journal";

/// The log of one run.
#[derive(Debug)]
pub(super) struct Records {
    log: Arc<Log>,
    keys: Arc<Keys>,
    clock: Arc<dyn Clock>,
    magic: &'static [u8; MAGIC_BYTES],
    salt: [u8; SALT_BYTES],
    end: Mutex<End>,
    length_bytes_max: u64,
    /// The disk refused or the room is used up: nothing more is written.
    ended: AtomicBool,
}

#[derive(Debug)]
struct End {
    at: u64,
    synced: Duration,
}

/// The log of an interrupted run, as it was found.
#[derive(Clone, Debug)]
pub(super) struct Left {
    log: Arc<Log>,
    keys: Arc<Keys>,
    salt: [u8; SALT_BYTES],
    length: u64,
}

fn head_sum(keys: &Keys, magic: &[u8; MAGIC_BYTES], salt: &[u8], about: &str) -> [u8; 32] {
    keys.cache_sum(b"run journal", &[&magic[..], salt, about.as_bytes()].concat())
}

fn record_sum(keys: &Keys, salt: &[u8; SALT_BYTES], at: u64, body: &[u8]) -> [u8; SUM_BYTES] {
    let mut name = [0; SALT_BYTES + 8];
    name[..SALT_BYTES].copy_from_slice(salt);
    name[SALT_BYTES..].copy_from_slice(&at.to_le_bytes());
    let mut out = [0; SUM_BYTES];
    out.copy_from_slice(&keys.cache_sum(&name, body)[..SUM_BYTES]);
    out
}

/// The salt of a log that is about this, or why it is none.
fn open_head(log: &Log, keys: &Keys, magic: &[u8; MAGIC_BYTES], about: &str) -> Result<[u8; SALT_BYTES], &'static str> {
    let mut head = [0; HEAD_BYTES];
    if log.read_exact_at(&mut head, 0).is_err() || head[..KIND_BYTES] != magic[..KIND_BYTES] {
        return Err("it is no journal");
    }
    if !head.starts_with(magic) {
        return Err("it is of another version of longshore");
    }
    let mut salt = [0; SALT_BYTES];
    salt.copy_from_slice(&head[MAGIC_BYTES..MAGIC_BYTES + SALT_BYTES]);
    match head[MAGIC_BYTES + SALT_BYTES..] == head_sum(keys, magic, &salt, about) {
        true => Ok(salt),
        false => Err("it is of something else or of another repository, or damaged"),
    }
}

impl Records {
    /// Takes a log, and gives what stands in it. None without a cache, or when another process has it. One that is about something else,
    /// of another version or of another repository is told of and written over. To be followed by [`Records::go_on`] or [`Records::begin`].
    pub fn open(
        repository: &Repository,
        magic: &'static [u8; MAGIC_BYTES],
        about: &str,
        name: &str,
    ) -> Option<(Self, Option<Left>)> {
        let log = Arc::new(repository.cache.log(FOLDER, name)?);
        forget_old(repository, name);
        let keys = Arc::clone(&repository.keys);
        let length = log.length().ok()?;
        let left = match (length, open_head(&log, &keys, magic, about)) {
            (0, _) => None,
            (_, Ok(salt)) => Some(Left { log: Arc::clone(&log), keys: Arc::clone(&keys), salt, length }),
            (_, Err(why)) => {
                tracing::warn!(why = why, "Cannot go on from an interrupted run, its journal is left aside");
                None
            }
        };
        let clock = Arc::clone(&repository.world.clock);
        let records = Self {
            log,
            keys,
            magic,
            salt: [0; SALT_BYTES],
            end: Mutex::new(End { at: 0, synced: clock.monotonic() }),
            clock,
            length_bytes_max: repository.cache.room_bytes(),
            ended: AtomicBool::new(false),
        };
        Some((records, left))
    }

    /// Adds to what an interrupted run left, after its last whole record.
    pub fn go_on(&mut self, left: &Left, end: u64) -> Option<()> {
        self.salt = left.salt;
        // Its own length counts as used already.
        self.length_bytes_max = self.length_bytes_max.saturating_add(end);
        self.end = Mutex::new(End { at: end, synced: self.clock.monotonic() });
        self.log.cut(end).ok()
    }

    /// Begins with an empty log in place of what is there.
    pub fn begin(&mut self, salt: [u8; SALT_BYTES], about: &str) -> Option<()> {
        self.log.cut(0).ok()?;
        let head = [&self.magic[..], &salt, &head_sum(&self.keys, self.magic, &salt, about)].concat();
        self.log.write_all_at(&head, 0).ok()?;
        self.salt = salt;
        self.end = Mutex::new(End { at: head.len() as u64, synced: self.clock.monotonic() });
        Some(())
    }

    /// Adds a record.
    pub fn append(&self, body: &[u8]) {
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
            self.end();
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

    /// Makes what was added durable; a log for which that cannot be done ends.
    pub fn sync(&self) {
        if self.log.sync().is_err() {
            self.end();
        }
    }

    /// Writes nothing more.
    pub fn end(&self) {
        self.ended.store(true, Relaxed);
    }

    /// Removes it: what it says is no longer needed.
    pub fn remove(&self) {
        if let Err(error) = self.log.remove() {
            tracing::debug!(error = %error, "Cannot remove the journal of a run that is done");
        }
    }
}

impl Left {
    /// Gives every record with its place, up to the first that is torn; tells where the last whole one ends.
    pub fn scan(&self, mut each: impl FnMut(u64, &[u8])) -> u64 {
        let mut end = HEAD_BYTES as u64;
        let mut window = Window { log: &self.log, length: self.length, start: 0, bytes: Vec::new() };
        while let Some(body) = window.record(&self.keys, &self.salt, end) {
            each(end, body);
            end += (RECORD_HEAD_BYTES + body.len()) as u64;
        }
        if end < self.length {
            tracing::info!(
                kept_bytes = end,
                length_bytes = self.length,
                "The journal of an interrupted run ends in a torn record"
            );
        }
        end
    }

    /// The record at a place, which [`Left::scan`] gave, checked again.
    pub fn body(&self, at: u64) -> Option<Vec<u8>> {
        let mut head = [0; 4];
        self.log.read_exact_at(&mut head, at).ok()?;
        let length = u32::from_le_bytes(head) as usize;
        if length > RECORD_BYTES_MAX {
            return None;
        }
        // One read for head and body.
        let mut window = Window { log: &self.log, length: self.length, start: at, bytes: vec![0; RECORD_HEAD_BYTES + length] };
        self.log.read_exact_at(&mut window.bytes, at).ok()?;
        window.record(&self.keys, &self.salt, at).map(<[u8]>::to_vec)
    }
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

    fn record(&mut self, keys: &Keys, salt: &[u8; SALT_BYTES], at: u64) -> Option<&[u8]> {
        let head: [u8; RECORD_HEAD_BYTES] = self.get(at, RECORD_HEAD_BYTES)?.try_into().ok()?;
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if length > RECORD_BYTES_MAX {
            return None;
        }
        let body = self.get(at + RECORD_HEAD_BYTES as u64, length)?;
        (head[4..] == record_sum(keys, salt, at, body)).then_some(body)
    }
}

/// Logs beside one's own.
pub(super) fn others(repository: &Repository, own: &str) -> Vec<String> {
    let names = repository.cache.keys(&format!("{FOLDER}/"));
    let names = names.iter().filter_map(|key| key.as_str().strip_prefix(FOLDER)?.strip_prefix('/'));
    names.filter(|name| *name != own).map(str::to_owned).collect()
}

/// Removes the logs of what nobody runs any more.
fn forget_old(repository: &Repository, own: &str) {
    let now = i128::from(repository.world.clock.wall_nanos());
    for name in others(repository, own) {
        // Its age first: to hold the log of another run, be it for a moment, might keep that one from going on.
        let written = repository.cache.written_nanos(&format!("{FOLDER}/{name}"));
        if written.is_some_and(|written| now - written > KEPT_NANOS) {
            forget(repository, &name);
        }
    }
}

/// Removes a log that nobody holds.
pub(super) fn forget(repository: &Repository, name: &str) {
    if let Some(log) = repository.cache.log(FOLDER, name) {
        let _ = log.remove();
    }
}
