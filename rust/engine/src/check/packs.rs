//! Packs, read by several threads: headers, seals, chunk ids.
//!
//! Gives back the frames that are good as a set of birth names, and the places that are not. A frame that fails is read once more
//! before it counts as damaged. What a repair knows to be damaged is looked at like everything else, and told as a warning. Of a pack whose
//! frames an interrupted run read already only the header is read.
//!
//! Memory: each thread has [`LIGHT_BYTES`] of the budget. A pack that may need more, for its frames are large or its header is, is read
//! while nobody else reads: so it costs what it costs, at most once.

use super::{CheckOptions, Notes, Severity};
use crate::error::{Error, Result};
use crate::job::Job;
use crate::journal::Checked;
use crate::repository::cursor::is_damage;
use crate::repository::index::Index;
use crate::repository::{Repository, key};
use longshore_format::envelope::Codec;
use longshore_format::id::{ChunkId, PackName};
use longshore_format::index::Segment;
use longshore_format::pack::{BirthName, Frame, PackKey, check_chunks};
use longshore_format::repair::chunk_prefix;
use longshore_format::usage::Usage;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Bytes fetched in one request.
const RANGE_BYTES_MAX: u64 = 8 << 20;
/// Bytes between two wanted frames that are fetched along rather than left out.
const GAP_BYTES_MAX: u64 = 512 << 10;

/// What a thread may hold: a range, a frame as it is stored, its payload, and the header. Packs with frames of up to 8 MiB need no more.
const LIGHT_BYTES: u64 = 24 << 20;
/// A header of this length is opened beside others: it unfolds to about three times as much.
const LIGHT_HEADER_BYTES: u32 = 2 << 20;

/// How deeply a pack is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// Its header.
    Header,
    /// The seals of its frames, too.
    Seals,
    /// Frames are decompressed and every chunk's id is recomputed.
    Ids,
}

/// What reading packs found.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Frames that are whole somewhere.
    pub good: Usage,
    /// Frames that are damaged where they lie, by the pack in which they lie there.
    pub damaged: BTreeMap<PackName, Usage>,
    /// Packs whose header cannot be read.
    pub headless: BTreeSet<PackName>,
    /// Of each header, the sum that the index must have of the pack.
    pub sums: HashMap<PackName, u64>,
}

struct Shared {
    repository: Repository,
    index: Arc<Index>,
    job: Arc<Job>,
    notes: Arc<Notes>,
    only: Option<Arc<Usage>>,
    known: HashMap<PackName, Usage>,
    seen: Mutex<Seen>,
    fatal: Mutex<Option<Error>>,
    todo: Mutex<Vec<(PackName, u64, Depth)>>,
    journal: Option<Arc<Checked>>,
    /// Held by all who read packs that need little; alone by one that reads a pack that needs much.
    together: RwLock<()>,
}

/// What can be said of a pack.
enum Tried<T> {
    Done(T),
    /// It needs more memory than there is for one thread.
    Heavy,
}

/// Reads packs. `only`: look at no frame that is not in it. `known`: what repairs know to be damaged, which is told as a warning.
/// `journal`: what interrupted runs read of these packs, and where it is noted what this one reads.
#[expect(clippy::too_many_arguments, reason = "all of it is what reading is made of")]
pub(crate) fn read(
    repository: &Repository,
    index: &Arc<Index>,
    job: &Arc<Job>,
    notes: &Arc<Notes>,
    only: Option<Arc<Usage>>,
    known: HashMap<PackName, Usage>,
    mut todo: Vec<(PackName, u64, Depth)>,
    journal: Option<&Arc<Checked>>,
    options: &CheckOptions,
) -> Result<Seen> {
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
        known,
        seen: Mutex::default(),
        fatal: Mutex::new(None),
        todo: Mutex::new(todo),
        journal: journal.cloned(),
        together: RwLock::default(),
    });
    let affordable = options.memory_budget_bytes / LIGHT_BYTES as usize;
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
    Ok(std::mem::take(&mut *lock(&shared.seen)))
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
        let together = self.together.read().unwrap_or_else(PoisonError::into_inner);
        if let Tried::Done(()) = self.try_pack(name, size, depth, false, codec)? {
            return Ok(());
        }
        drop(together);
        let _alone = self.together.write().unwrap_or_else(PoisonError::into_inner);
        self.try_pack(name, size, depth, true, codec).map(|_| ())
    }

    /// Reads a pack; what needs much only when `alone`, and then nothing was noted before.
    fn try_pack(&self, name: PackName, size: u64, depth: Depth, alone: bool, codec: &mut Codec) -> Result<Tried<()>> {
        let mut frames = match self.header(name, size, alone, codec) {
            Ok(Tried::Done(frames)) => frames,
            Ok(Tried::Heavy) => return Ok(Tried::Heavy),
            Err(error) if is_damage(&error) => {
                if self.is_gone(name)? {
                    return Ok(Tried::Done(()));
                }
                let frames = self.frames_by_index(name);
                if !alone && need_bytes(&frames) > LIGHT_BYTES {
                    return Ok(Tried::Heavy);
                }
                lock(&self.seen).headless.insert(name);
                self.doubt();
                self.notes.find(self.severity(&name), name.key(), format!("header: {error}"), vec![]);
                // What the header would have said is only believed when the seals hold.
                self.frames(name, &frames, if depth == Depth::Header { Depth::Seals } else { depth }, codec)?;
                return Ok(Tried::Done(()));
            }
            Err(error) => return Err(error),
        };
        if !alone && need_bytes(&frames) > LIGHT_BYTES {
            return Ok(Tried::Heavy);
        }
        lock(&self.seen).sums.insert(name, sum(&frames));
        if let Some(only) = &self.only {
            frames.retain(|frame| only.contains(frame.birth));
        }
        if depth > Depth::Header {
            self.frames_once(name, size, &frames, depth, codec)?;
            return Ok(Tried::Done(()));
        }
        // A header says nothing against what was once found damaged.
        let known = self.known.get(&name);
        let (doubtful, fine): (Vec<Frame>, Vec<Frame>) =
            frames.into_iter().partition(|frame| known.is_some_and(|known| known.contains(frame.birth)));
        let mut seen = lock(&self.seen);
        fine.iter().for_each(|frame| seen.good.insert(frame.birth));
        drop(seen);
        self.frames(name, &doubtful, Depth::Ids, codec)?;
        Ok(Tried::Done(()))
    }

    /// Frames of a pack, unless an interrupted run read the same ones.
    fn frames_once(&self, name: PackName, size: u64, frames: &[Frame], depth: Depth, codec: &mut Codec) -> Result<()> {
        let sum = sum(frames);
        if self.journal.as_ref().is_some_and(|journal| journal.knows(name, size, sum)) {
            let mut seen = lock(&self.seen);
            frames.iter().for_each(|frame| seen.good.insert(frame.birth));
            drop(seen);
            self.notes.with(|report| {
                report.packs_resumed += 1;
                report.bytes_resumed += frames.iter().map(|frame| u64::from(frame.stored_bytes)).sum::<u64>();
            });
            return Ok(());
        }
        if self.frames(name, frames, depth, codec)?
            && let Some(journal) = self.journal.as_ref().filter(|_| !frames.is_empty())
        {
            journal.note(name, size, sum);
        }
        Ok(())
    }

    /// Damage is here: what was read before it came says nothing.
    fn doubt(&self) {
        match &self.journal {
            Some(journal) => journal.doubt(&self.repository),
            None => Checked::forget_all(&self.repository),
        }
    }

    fn header(&self, name: PackName, size: u64, alone: bool, codec: &mut Codec) -> Result<Tried<Vec<Frame>>> {
        let mut last = None;
        let most = if alone { u32::MAX } else { LIGHT_HEADER_BYTES };
        for _ in 0..2 {
            match self.repository.pack_header_within(name, size, most, codec) {
                Ok(Some((_, frames))) => return Ok(Tried::Done(frames)),
                Ok(None) => return Ok(Tried::Heavy),
                Err(error) if is_damage(&error) => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::internal("a header was neither read nor refused")))
    }

    /// What a repair wrote down is no news.
    fn severity(&self, name: &PackName) -> Severity {
        if self.known.contains_key(name) { Severity::Warning } else { Severity::Error }
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

    /// Frames of one pack, ascending by place, in ranges; whether all were read and are good.
    fn frames(&self, name: PackName, frames: &[Frame], depth: Depth, codec: &mut Codec) -> Result<bool> {
        let mut all_good = true;
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
                    Ok(()) => lock(&self.seen).good.insert(frame.birth),
                    Err(error) if is_damage(&error) => {
                        if range.is_err() && self.is_gone(name)? {
                            return Ok(false);
                        }
                        all_good = false;
                        self.doubt();
                        let message = format!("frame {} at {}: {error}", frame.birth.ordinal, frame.offset_bytes);
                        let severity = match self.known.get(&name).is_some_and(|known| known.contains(frame.birth)) {
                            true => Severity::Warning,
                            false => Severity::Error,
                        };
                        self.notes.find(severity, name.key(), message, vec![]);
                        lock(&self.seen).damaged.entry(name).or_default().insert(frame.birth);
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
        Ok(all_good)
    }
}

/// Bytes that reading these frames takes at once.
fn need_bytes(frames: &[Frame]) -> u64 {
    let row = size_of::<(ChunkId, u32)>() as u64;
    let header: u64 = frames.iter().map(|frame| size_of::<Frame>() as u64 + frame.chunks.len() as u64 * row).sum();
    let stored = frames.iter().map(|frame| u64::from(frame.stored_bytes)).max().unwrap_or(0);
    let payload = |frame: &Frame| match frame.chunks.len() {
        // Known from the index alone: what it unfolds to is not said.
        0 => u64::from(frame.stored_bytes) * 2,
        _ => frame.chunks.iter().map(|(_, length)| u64::from(*length)).sum(),
    };
    header + stored.max(RANGE_BYTES_MAX) + stored + frames.iter().map(payload).max().unwrap_or(0)
}

/// A number that is equal when two lists say the same of a pack, whatever their order: accidents are found, forgeries have seals
/// against them.
fn sum(frames: &[Frame]) -> u64 {
    let mut total = 0u64;
    for frame in frames {
        let place = frame_part(frame.birth, frame.offset_bytes, frame.stored_bytes);
        total = total.wrapping_add(place);
        let mut at = 0u32;
        for (id, length) in &frame.chunks {
            total = total.wrapping_add(chunk_part(place, chunk_prefix(id), at, *length));
            at = at.wrapping_add(*length);
        }
    }
    total
}

fn mix(value: u64) -> u64 {
    let value = (value ^ value >> 32).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (value ^ value >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9)
}

fn frame_part(birth: BirthName, offset_bytes: u64, stored_bytes: u32) -> u64 {
    let session = u128::from_le_bytes(birth.pack.session.0);
    let name =
        mix(session as u64) ^ mix((session >> 64) as u64) ^ mix(u64::from(birth.pack.number) << 32 | u64::from(birth.ordinal));
    mix(name ^ mix(offset_bytes << 32 ^ u64::from(stored_bytes)))
}

fn chunk_part(place: u64, prefix: u64, at: u32, length: u32) -> u64 {
    mix(place ^ mix(prefix) ^ mix(u64::from(at) << 32 | u64::from(length)))
}

/// What a segment says of each pack that it lists, as [`Seen::sums`] has it.
pub(crate) fn sums<B: AsRef<[u8]>>(segment: &Segment<B>) -> HashMap<PackName, u64> {
    let mut out: HashMap<PackName, u64> = segment.packs().filter(|row| row.size_bytes != 0).map(|row| (row.name, 0)).collect();
    let mut add = |pack: PackName, part: u64| {
        if let Some(total) = out.get_mut(&pack) {
            *total = total.wrapping_add(part);
        }
    };
    let mut places: Vec<(PackName, u64)> = Vec::with_capacity(segment.frame_count());
    for frame in (0..).map_while(|row| segment.frame(row)) {
        let part = frame_part(frame.birth, frame.offset_bytes, frame.stored_bytes);
        add(frame.pack, part);
        places.push((frame.pack, part));
    }
    for row in 0..segment.len() {
        let place = segment.place(row);
        if let Some((pack, part)) = places.get(place.frame as usize) {
            add(*pack, chunk_part(*part, chunk_prefix(&segment.id(row)), place.offset_bytes, place.length_bytes));
        }
    }
    out
}
