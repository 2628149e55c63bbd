//! Frames that somebody will need soon: planned, fetched in ranges, opened once.
//!
//! A reader that knows its next chunks hands them to [`Ahead::plan`]: their frames are brought into the order in which they lie,
//! neighbours become one range, and each range is fetched once, by a thread of the fetching crew or by whoever needs it first. A frame
//! that several plans of one window share is fetched and opened once for all of them. Promises that every byte handed out hashes to
//! the id that was asked for; whatever goes wrong on this road is asked of [`ChunkReader`] again, which knows other places, reloads the
//! index and says the final word. Memory: fetched bytes within the window, opened frames as long as a plan holds them, two pools of
//! buffers. What the chunks are for it does not know.

use super::cursor::is_damage;
use super::index::Found;
use super::reader::{ChunkReader, FRAME_STORED_BYTES_MAX};
use crate::error::{Error, Result};
use longshore_format::id::{ChunkId, ChunkKind, PackName};
use longshore_format::index::FramePlace;
use longshore_format::limits;
use longshore_format::pack::BirthName;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

/// Bytes fetched in one request: at 50 ms a request and eight at once this is 335 MB/s.
const RANGE_BYTES_MAX: u64 = 2 << 20;
/// Bytes between two wanted frames that are fetched along rather than asked for around.
const GAP_BYTES_MAX: u64 = 128 << 10;
/// Frames kept for the next plan, and their bytes. A backup's threads take turns, so neighbours lie in a few open frames at once.
const RECENT_FRAMES_MAX: usize = 4;
const RECENT_BYTES_MAX: usize = 4 << 20;
/// Free buffers kept, of each of the two kinds.
const POOL_BYTES_MAX: usize = 8 << 20;
/// How often somebody who waits looks whether the job is over.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A chunk that will be needed, and what of it was planned.
#[derive(Debug)]
pub struct Wanted {
    /// Its id.
    pub id: ChunkId,
    /// Where the index said it lies, until it was planned.
    pub found: Option<Found>,
    frame: Option<Arc<Frame>>,
    offset_bytes: u32,
    length_bytes: u32,
}

impl Wanted {
    /// A chunk, with the place that the index gives; none: whoever reads it asks everywhere.
    #[must_use]
    pub fn new(id: ChunkId, found: Option<Found>) -> Self {
        Self { id, found, frame: None, offset_bytes: 0, length_bytes: 0 }
    }
}

/// A pack, where a range begins and ends in it, and its frames, each with the chunks that want it.
type Span = (PackName, u64, u64, Vec<(FramePlace, Vec<usize>)>);

/// Buffers that go round: a fresh one of this size costs a page fault for every 4 KiB.
#[derive(Debug, Default)]
struct Pool(Mutex<(Vec<Vec<u8>>, usize)>);

impl Pool {
    fn take(&self) -> Vec<u8> {
        let mut pool = lock(&self.0);
        let buffer = pool.0.pop().unwrap_or_default();
        pool.1 -= buffer.capacity();
        buffer
    }

    fn give(&self, buffer: Vec<u8>) {
        let mut pool = lock(&self.0);
        if pool.1 + buffer.capacity() <= POOL_BYTES_MAX {
            pool.1 += buffer.capacity();
            pool.0.push(buffer);
        }
    }
}

#[derive(Debug)]
enum Fetch {
    Todo,
    UnderWay,
    Here(Vec<u8>),
    Failed(Error),
    /// Every frame in it was opened or given up.
    Over,
}

/// Neighbouring frames of one pack, fetched by one request.
#[derive(Debug)]
struct Range {
    shared: Arc<Shared>,
    pack: PackName,
    start: u64,
    length: u64,
    state: Mutex<Fetch>,
    landed: Condvar,
    /// Frames that may still ask for their bytes.
    frames: AtomicUsize,
}

#[derive(Debug)]
struct Frame {
    range: Arc<Range>,
    place: FramePlace,
    payload: OnceLock<Result<Vec<u8>>>,
}

#[derive(Debug, Default)]
struct Window {
    bytes: u64,
    plans: usize,
}

#[derive(Debug)]
struct Shared {
    reader: Arc<ChunkReader>,
    ranges: Pool,
    payloads: Pool,
    window: Mutex<Window>,
    freed: Condvar,
    window_bytes_max: u64,
    /// Frames that some plan holds.
    known: Mutex<HashMap<BirthName, Weak<Frame>>>,
    /// The last frames of the last plan: the next one often begins in them.
    recent: Mutex<Vec<Arc<Frame>>>,
    queue: Mutex<(VecDeque<Arc<Range>>, bool)>,
    queued: Condvar,
}

/// Fetches and opens what was planned; shared by all threads of a job.
#[derive(Clone, Debug)]
pub struct Ahead(Arc<Shared>);

/// Counts a plan as under way until dropped, so that a window is never waited for in vain.
#[derive(Debug)]
pub struct Underway(Arc<Shared>);

impl Drop for Underway {
    fn drop(&mut self) {
        lock(&self.0.window).plans -= 1;
        self.0.freed.notify_all();
    }
}

impl Ahead {
    /// Reads ahead of `reader`; at most `window_bytes_max` are fetched and not yet opened.
    #[must_use]
    pub fn new(reader: Arc<ChunkReader>, window_bytes_max: u64) -> Self {
        Self(Arc::new(Shared {
            reader,
            ranges: Pool::default(),
            payloads: Pool::default(),
            window: Mutex::default(),
            freed: Condvar::new(),
            window_bytes_max,
            known: Mutex::default(),
            recent: Mutex::default(),
            queue: Mutex::default(),
            queued: Condvar::new(),
        }))
    }

    /// Plans chunks of data. `wait`: not before the window has room for their ranges, or nothing else is under way.
    ///
    /// # Errors
    /// What `check` says while it waits.
    pub fn plan(&self, chunks: &mut [&mut Wanted], wait: bool, check: impl Fn() -> Result<()>) -> Result<Underway> {
        let mut missing: BTreeMap<(PackName, u64), (FramePlace, Vec<usize>)> = BTreeMap::new();
        let mut known = lock(&self.0.known);
        for (number, chunk) in chunks.iter_mut().enumerate() {
            let Some(found) = chunk.found.take() else { continue };
            (chunk.offset_bytes, chunk.length_bytes) = (found.offset_bytes, found.length_bytes);
            let place = found.frame;
            match known.get(&place.birth).and_then(Weak::upgrade) {
                Some(frame) => chunk.frame = Some(frame),
                // What no pack can hold is left to the reader, which says so.
                None if place.offset_bytes > limits::PACK_BYTES_MAX || place.stored_bytes as usize > FRAME_STORED_BYTES_MAX => {}
                None => missing.entry((place.pack, place.offset_bytes)).or_insert_with(|| (place, Vec::new())).1.push(number),
            }
        }
        let mut spans: Vec<Span> = Vec::new();
        for ((pack, start), (place, numbers)) in missing {
            let end = start + u64::from(place.stored_bytes);
            match spans.last_mut() {
                Some((last, from, to, frames))
                    if *last == pack && start <= *to + GAP_BYTES_MAX && end.saturating_sub(*from) <= RANGE_BYTES_MAX =>
                {
                    *to = end.max(*to);
                    frames.push((place, numbers));
                }
                _ => spans.push((pack, start, end, vec![(place, numbers)])),
            }
        }
        let mut ranges = Vec::with_capacity(spans.len());
        for (pack, start, end, frames) in spans {
            let range = Arc::new(Range {
                shared: Arc::clone(&self.0),
                pack,
                start,
                length: end - start,
                state: Mutex::new(Fetch::Todo),
                landed: Condvar::new(),
                frames: AtomicUsize::new(frames.len()),
            });
            for (place, numbers) in frames {
                let frame = Arc::new(Frame { range: Arc::clone(&range), place, payload: OnceLock::new() });
                known.insert(place.birth, Arc::downgrade(&frame));
                for number in numbers {
                    chunks[number].frame = Some(Arc::clone(&frame));
                }
            }
            ranges.push(range);
        }
        drop(known);
        self.keep_recent(chunks);
        let bytes: u64 = ranges.iter().map(|range| range.length).sum();
        let mut window = lock(&self.0.window);
        while wait && window.plans > 0 && window.bytes + bytes > self.0.window_bytes_max {
            window = self.0.freed.wait_timeout(window, LOOK_AGAIN).unwrap_or_else(PoisonError::into_inner).0;
            if let Err(error) = check() {
                // It is given back when the frames are, so it has to be taken even now.
                window.bytes += bytes;
                return Err(error);
            }
        }
        window.bytes += bytes;
        window.plans += 1;
        drop(window);
        let mut queue = lock(&self.0.queue);
        if queue.1 {
            queue.0.extend(ranges);
            self.0.queued.notify_all();
        }
        Ok(Underway(Arc::clone(&self.0)))
    }

    fn keep_recent(&self, chunks: &[&mut Wanted]) {
        let (mut recent, mut bytes) = (Vec::<Arc<Frame>>::new(), 0);
        for frame in chunks.iter().rev().filter_map(|chunk| chunk.frame.as_ref()) {
            if recent.iter().any(|kept| Arc::ptr_eq(kept, frame)) {
                continue;
            }
            bytes += frame.place.payload_bytes as usize;
            if recent.len() >= RECENT_FRAMES_MAX || bytes > RECENT_BYTES_MAX {
                break;
            }
            recent.push(Arc::clone(frame));
        }
        let before = std::mem::replace(&mut *lock(&self.0.recent), recent);
        drop(before);
    }

    /// Hands a chunk's verified plaintext to `visit`.
    ///
    /// # Errors
    /// Corrupt when no place of it opens, or what the store says.
    pub fn with_chunk<T>(&self, chunk: &Wanted, visit: impl FnOnce(&[u8]) -> T) -> Result<T> {
        if let Some(frame) = &chunk.frame {
            match frame.payload() {
                Ok(payload) => {
                    let start = chunk.offset_bytes as usize;
                    if let Some(bytes) = payload.get(start..start + chunk.length_bytes as usize)
                        && self.0.reader.repository().keys.chunk_id(ChunkKind::Data, bytes) == chunk.id
                    {
                        return Ok(visit(bytes));
                    }
                }
                Err(error) if is_damage(error) => {}
                Err(error) => return Err(error.clone()),
            }
        }
        self.0.reader.chunk(ChunkKind::Data, &chunk.id).map(|bytes| visit(&bytes))
    }

    /// Lets [`Ahead::serve`] run: without it, whoever needs a range fetches it.
    pub fn open(&self) {
        lock(&self.0.queue).1 = true;
    }

    /// Fetches what is planned, in that order, until [`Ahead::close`]; run by each fetching thread.
    pub fn serve(&self) {
        loop {
            let mut queue = lock(&self.0.queue);
            let range = loop {
                if let Some(range) = queue.0.pop_front() {
                    break range;
                }
                if !queue.1 {
                    return;
                }
                queue = self.0.queued.wait(queue).unwrap_or_else(PoisonError::into_inner);
            };
            drop(queue);
            if self.0.reader.check().is_ok() {
                range.fetch();
            }
        }
    }

    /// Ends the fetching threads, and lets go of what is kept; what nobody fetched is fetched by who needs it.
    pub fn close(&self) {
        let kept = std::mem::take(&mut *lock(&self.0.recent));
        drop(kept);
        let mut queue = lock(&self.0.queue);
        queue.1 = false;
        queue.0.clear();
        self.0.queued.notify_all();
    }
}

impl Range {
    /// Fetches it, unless somebody else has or does.
    fn fetch(&self) {
        let mut state = lock(&self.state);
        if !matches!(*state, Fetch::Todo) || self.frames.load(Ordering::Acquire) == 0 {
            return;
        }
        *state = Fetch::UnderWay;
        drop(state);
        let mut buffer = self.shared.ranges.take();
        let done = self.shared.reader.read_range(self.pack, self.start, self.length, &mut buffer);
        let mut state = lock(&self.state);
        *state = match done {
            Ok(()) if self.frames.load(Ordering::Acquire) > 0 => Fetch::Here(buffer),
            Ok(()) => {
                self.shared.ranges.give(buffer);
                Fetch::Over
            }
            Err(error) => Fetch::Failed(error),
        };
        self.landed.notify_all();
    }

    /// Copies a frame's sealed bytes.
    fn copy(&self, place: &FramePlace, out: &mut Vec<u8>) -> Result<()> {
        self.fetch();
        let mut state = lock(&self.state);
        while matches!(*state, Fetch::UnderWay) {
            state = self.landed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        out.clear();
        match &*state {
            Fetch::Here(bytes) => {
                let start = (place.offset_bytes - self.start) as usize;
                let part = bytes.get(start..start + place.stored_bytes as usize);
                out.extend_from_slice(part.ok_or_else(|| Error::internal("a frame lies outside its range"))?);
                Ok(())
            }
            Fetch::Failed(error) => Err(error.clone()),
            _ => Err(Error::internal("a range was given up before its frames")),
        }
    }

    /// One frame less asks for its bytes; with the last one they go.
    fn settle(&self) {
        if self.frames.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        lock(&self.shared.window).bytes -= self.length;
        self.shared.freed.notify_all();
        let mut state = lock(&self.state);
        if matches!(*state, Fetch::UnderWay) {
            // Who fetches sees that nobody waits.
            return;
        }
        if let Fetch::Here(buffer) = std::mem::replace(&mut *state, Fetch::Over) {
            self.shared.ranges.give(buffer);
        }
    }
}

impl Frame {
    fn payload(&self) -> &Result<Vec<u8>> {
        self.payload.get_or_init(|| {
            let shared = &self.range.shared;
            let mut payload = shared.payloads.take();
            let opened = shared.reader.open_with(&self.place, |stored| self.range.copy(&self.place, stored), &mut payload);
            self.range.settle();
            opened.map(|()| payload)
        })
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        let shared = &self.range.shared;
        let mut known = lock(&shared.known);
        // A younger frame of this name may stand there.
        if known.get(&self.place.birth).is_some_and(|weak| weak.strong_count() == 0) {
            known.remove(&self.place.birth);
        }
        drop(known);
        match self.payload.take() {
            Some(Ok(payload)) => shared.payloads.give(payload),
            Some(Err(_)) => {}
            None => self.range.settle(),
        }
    }
}
