//! Packs, read by several threads: headers, seals, chunk ids.
//!
//! Gives back the frames that are good as a set of birth names. A frame that fails is read once more before it counts as damaged.

use super::{CheckOptions, Notes, Severity};
use crate::error::{Error, Result};
use crate::job::Job;
use crate::repository::cursor::is_damage;
use crate::repository::index::Index;
use crate::repository::{Repository, key};
use longshore_format::envelope::Codec;
use longshore_format::id::PackName;
use longshore_format::pack::{Frame, PackKey, check_chunks};
use longshore_format::usage::Usage;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes fetched in one request.
const RANGE_BYTES_MAX: u64 = 8 << 20;
/// Bytes between two wanted frames that are fetched along rather than left out.
const GAP_BYTES_MAX: u64 = 512 << 10;

/// How deeply a pack is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Its header.
    Header,
    /// The seals of its frames, too.
    Seals,
    /// Frames are decompressed and every chunk's id is recomputed.
    Ids,
}

struct Shared {
    repository: Repository,
    index: Arc<Index>,
    job: Arc<Job>,
    notes: Arc<Notes>,
    only: Option<Arc<Usage>>,
    good: Mutex<Usage>,
    fatal: Mutex<Option<Error>>,
    todo: Mutex<Vec<(PackName, u64, Depth)>>,
}

/// Reads packs; returns the frames that are good. `only`: look at no frame that is not in it.
pub(super) fn read(
    repository: &Repository,
    index: &Arc<Index>,
    job: &Arc<Job>,
    notes: &Arc<Notes>,
    only: Option<Arc<Usage>>,
    mut todo: Vec<(PackName, u64, Depth)>,
    options: &CheckOptions,
) -> Result<Usage> {
    notes.with(|report| {
        report.packs += todo.len() as u64;
        report.pack_bytes += todo.iter().map(|(_, size, _)| *size).sum::<u64>();
    });
    // Taken from the end.
    todo.sort_by_key(|(name, ..)| std::cmp::Reverse(*name));
    let shared = Arc::new(Shared {
        repository: repository.clone(),
        index: Arc::clone(index),
        job: Arc::clone(job),
        notes: Arc::clone(notes),
        only,
        good: Mutex::new(Usage::new()),
        fatal: Mutex::new(None),
        todo: Mutex::new(todo),
    });
    let affordable = options.memory_budget_bytes / (64 << 20);
    let mut handles = Vec::new();
    for number in 0..options.workers.min(affordable.max(1)) {
        let shared = Arc::clone(&shared);
        let body = Box::new(move || shared.work());
        match repository.world.spawn.spawn(&format!("check-{number}"), body) {
            Ok(handle) => handles.push(handle),
            Err(error) => tracing::warn!(error = %error, "Checking with fewer threads"),
        }
    }
    if handles.is_empty() {
        shared.work();
    }
    let ended = handles.into_iter().map(crate::seams::Handle::join).fold(true, |all, one| all & one);
    if let Some(error) = lock(&shared.fatal).take() {
        return Err(error);
    }
    if !ended {
        return Err(Error::internal("a thread of the check panicked"));
    }
    let good = std::mem::take(&mut *lock(&shared.good));
    Ok(good)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn work(&self) {
        let mut codec = match Codec::new() {
            Ok(codec) => codec,
            Err(error) => {
                lock(&self.fatal).get_or_insert(error.into());
                return;
            }
        };
        loop {
            let next = lock(&self.todo).pop();
            let Some((name, size, depth)) = next else { return };
            if let Err(error) = self.job.check().and_then(|()| self.pack(name, size, depth, &mut codec)) {
                lock(&self.fatal).get_or_insert(error);
                lock(&self.todo).clear();
                return;
            }
            self.job.bytes_done.fetch_add(size, Relaxed);
        }
    }

    fn pack(&self, name: PackName, size: u64, depth: Depth, codec: &mut Codec) -> Result<()> {
        let mut frames = match self.header(name, size, codec) {
            Ok(frames) => frames,
            Err(error) if is_damage(&error) => {
                if self.is_gone(name)? {
                    return Ok(());
                }
                self.notes.find(Severity::Error, name.key(), format!("header: {error}"), vec![]);
                let frames = self.frames_by_index(name);
                // What the header would have said is only believed when the seals hold.
                return self.frames(name, &frames, if depth == Depth::Header { Depth::Seals } else { depth }, codec);
            }
            Err(error) => return Err(error),
        };
        if let Some(only) = &self.only {
            frames.retain(|frame| only.contains(frame.birth));
        }
        if depth == Depth::Header {
            let mut good = lock(&self.good);
            frames.iter().for_each(|frame| good.insert(frame.birth));
            return Ok(());
        }
        self.frames(name, &frames, depth, codec)
    }

    fn header(&self, name: PackName, size: u64, codec: &mut Codec) -> Result<Vec<Frame>> {
        let mut last = None;
        for _ in 0..2 {
            match self.repository.pack_header(name, size, codec) {
                Ok((_, frames)) => return Ok(frames),
                Err(error) if is_damage(&error) => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::internal("a header was neither read nor refused")))
    }

    /// A prune may have deleted it since it was listed; then its frames are elsewhere, or not needed.
    fn is_gone(&self, name: PackName) -> Result<bool> {
        match self.repository.store.head(&key(name.key())?) {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == longshore_store::StoreErrorKind::NotFound => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    fn frames_by_index(&self, name: PackName) -> Vec<Frame> {
        let mut out = std::collections::BTreeMap::new();
        for segment in self.index.segments() {
            for row in 0..segment.frame_count() {
                if let Some(place) = u32::try_from(row).ok().and_then(|row| segment.frame(row))
                    && place.pack == name
                    && self.only.as_ref().is_none_or(|only| only.contains(place.birth))
                {
                    let frame = Frame {
                        birth: place.birth,
                        birth_salt: place.birth_salt,
                        kind: place.kind,
                        offset_bytes: place.offset_bytes,
                        stored_bytes: place.stored_bytes,
                        chunks: Vec::new(),
                    };
                    out.insert(place.offset_bytes, frame);
                }
            }
        }
        out.into_values().collect()
    }

    /// Frames of one pack, ascending by place, in ranges.
    fn frames(&self, name: PackName, frames: &[Frame], depth: Depth, codec: &mut Codec) -> Result<()> {
        let object = key(name.key())?;
        let (mut scratch, mut payload) = (Vec::new(), Vec::new());
        let mut keys: Option<(PackName, Arc<PackKey>)> = None;
        let mut at = 0;
        while at < frames.len() {
            self.job.check()?;
            let start = frames[at].offset_bytes;
            let mut end = start + u64::from(frames[at].stored_bytes);
            let mut until = at + 1;
            while let Some(next) = frames.get(until) {
                let next_end = next.offset_bytes + u64::from(next.stored_bytes);
                if next.offset_bytes > end + GAP_BYTES_MAX || next_end > start + RANGE_BYTES_MAX {
                    break;
                }
                end = next_end.max(end);
                until += 1;
            }
            let range = self.repository.store.get_range(&object, start, end - start);
            for frame in &frames[at..until] {
                let from = (frame.offset_bytes - start) as usize;
                let stored = range.as_ref().ok().and_then(|r| r.get(from..from + frame.stored_bytes as usize));
                let birth = frame.birth.pack;
                let pack_key = match &keys {
                    Some((pack, found)) if *pack == birth => Arc::clone(found),
                    _ => {
                        let derived = Arc::new(PackKey::derive(&self.repository.keys, birth, &frame.birth_salt)?);
                        keys = Some((birth, Arc::clone(&derived)));
                        derived
                    }
                };
                let mut open = |stored: &[u8]| -> Result<()> {
                    scratch.clear();
                    scratch.extend_from_slice(stored);
                    if depth == Depth::Seals {
                        return Ok(pack_key.check_frame(frame.birth.ordinal, &mut scratch)?);
                    }
                    pack_key.open_frame(frame.birth.ordinal, &mut scratch, codec, &mut payload)?;
                    if frame.chunks.is_empty() { Ok(()) } else { Ok(check_chunks(&self.repository.keys, frame, &payload)?) }
                };
                let first = stored.map_or_else(|| Err(Error::corrupt("was not read")), &mut open);
                let outcome = first.or_else(|_| {
                    // Once more: only damage that stays is damage.
                    let alone = self.repository.store.get_range(&object, frame.offset_bytes, u64::from(frame.stored_bytes))?;
                    open(&alone)
                });
                match outcome {
                    Ok(()) => lock(&self.good).insert(frame.birth),
                    Err(error) if is_damage(&error) => {
                        if range.is_err() && self.is_gone(name)? {
                            return Ok(());
                        }
                        let message = format!("frame {} at {}: {error}", frame.birth.ordinal, frame.offset_bytes);
                        self.notes.find(Severity::Error, name.key(), message, vec![]);
                    }
                    Err(error) => return Err(error),
                }
            }
            self.notes.with(|report| {
                report.frames_read += (until - at) as u64;
                report.bytes_read += end - start;
            });
            self.job.bytes_stored.fetch_add(end - start, Relaxed);
            at = until;
        }
        Ok(())
    }
}
