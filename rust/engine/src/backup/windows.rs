//! A run of bytes of one file: read, cut, and handed to the packers.
//!
//! A run goes window by window. A short one is one window. Of a long one whoever is free takes the next: threads read their windows at
//! the same time, cut them in turn, each behind what the window before left over, and hash, compress and seal what they cut at the same
//! time again. So a window's bytes stay with one processor from the read to the frame, and the cuts are the same whoever takes part.
//! Cutting runs at the speed of memory; what waits for its turn is ready to be cut.
//!
//! Promises that nobody runs further ahead of the first unfinished window than there are threads, so that the journal, which is told
//! of each window when the packers have it, is never far behind; and that who waits, waits for a thread that is at work, which
//! waits for nothing but the volume and the store. Does not know where a run comes from: the whole file, a stretch between holes, or
//! what a hint names.

use super::crew::Worker;
use super::lock;
use crate::chunker::{Cutters, Profile, ZERO_BLOCK_BYTES, is_zero};
use crate::error::{Error, Result};
use crate::journal::{Journal, push_span};
use crate::volume::{ReadFile, Stat, VolumeError};
use longshore_format::ChunkId;
use longshore_format::id::ChunkKind;
use longshore_format::tree::Item;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// How much is read at once.
const WINDOW_BYTES: usize = 2 << 20;
/// The longest chunk of the usual cut.
pub(super) const CHUNK_BYTES_MAX: usize = 1 << 20;
/// What a worker reads into, for that cut: a window, and before it what the last one left over.
pub(super) const BUFFER_BYTES: usize = WINDOW_BYTES + CHUNK_BYTES_MAX;
/// Longer runs are shared among threads, and files noted in parts.
const SHARE_FROM_BYTES: u64 = 4 << 20;
/// Bytes in short runs of a large file after which the journal is told how far it was read.
const PART_BYTES: u64 = 1 << 20;
/// Stands where a thread is still to say the id.
const NOT_YET_KNOWN: ChunkId = ChunkId([0; 32]);

/// Whether the journal has a file in parts.
pub(super) fn is_large(stat: &Stat) -> bool {
    stat.size_bytes > SHARE_FROM_BYTES
}

/// A file while it is read.
#[derive(Debug)]
pub(super) struct Reading {
    path: Vec<u8>,
    pub stat: Stat,
    /// How it is cut.
    pub profile: Profile,
    pub items: Vec<Item>,
    noted: Noted,
    /// How far the file was read when it was told last.
    noted_at: u64,
}

/// What the journal has of a file.
#[derive(Clone, Copy, Debug, Default)]
struct Noted {
    /// Items.
    items: usize,
    /// Of the one that follows, zeros that may still grow.
    grown_bytes: u64,
    /// All bytes.
    bytes: u64,
}

impl Noted {
    fn all(items: &[Item], bytes: u64) -> Self {
        let growing = items.last().filter(|last| last.id().is_none()).map(Item::span);
        Self { items: items.len() - usize::from(growing.is_some()), grown_bytes: growing.unwrap_or(0), bytes }
    }
}

impl Reading {
    /// Nothing of a file yet.
    pub fn new(path: &[u8], stat: &Stat) -> Self {
        let path = if is_large(stat) { path.to_vec() } else { Vec::new() };
        Self { path, stat: stat.clone(), profile: Profile::default(), items: Vec::new(), noted: Noted::default(), noted_at: 0 }
    }

    /// Takes over what an interrupted run read, up to an offset. The journal has it.
    pub fn go_on_from(&mut self, items: Vec<Item>, at: u64) {
        (self.noted, self.noted_at) = (Noted::all(&items, at), at);
        self.items = items;
    }

    /// Tells the journal what is known when an offset is reached.
    pub fn note(&mut self, journal: Option<&Journal>, at: u64) {
        self.noted_at = at;
        let Some(journal) = journal.filter(|_| is_large(&self.stat)) else { return };
        let known = self.items.iter().skip(self.noted.items).take_while(|item| item.id() != Some(NOT_YET_KNOWN));
        let mut stretch: Vec<Item> = known.copied().collect();
        let until = self.noted.items + stretch.len();
        if let Some(Item::Hole { span } | Item::Zeros { span }) = stretch.first_mut() {
            *span -= self.noted.grown_bytes;
        }
        stretch.retain(|item| item.span() > 0);
        if !stretch.is_empty() {
            journal.note_part(&self.path, &self.stat, self.profile, self.noted.bytes, &stretch);
            let bytes = self.noted.bytes + stretch.iter().map(Item::span).sum::<u64>();
            self.noted = Noted::all(&self.items[..until], bytes);
        }
    }
}

/// Reads and cuts the bytes from `start` to `end`; returns how far the file went. The inner error is the volume's, the outer one ends
/// the job.
pub(super) fn read_run(
    worker: &mut Worker,
    file: &Arc<dyn ReadFile>,
    start: u64,
    end: u64,
    reading: &mut Reading,
) -> Result<std::result::Result<u64, VolumeError>> {
    if end - start > WINDOW_BYTES as u64 {
        return read_windows(worker, file, start, end, reading);
    }
    let length = (end - start) as usize;
    let mut buffer = std::mem::take(&mut worker.files.buffer);
    if buffer.len() < length {
        buffer.resize(length, 0);
    }
    let done = (|| {
        let got = match read_window(worker, &**file, start, &mut buffer[..length]) {
            Ok(got) => got,
            Err(error) => return Ok(Err(error)),
        };
        let mut head = 0;
        while head < got {
            let (found, length) = cut_one(&worker.files.cutters, reading.profile, &buffer[head..got], start + head as u64, true);
            match found {
                Found::Zeros => push_span(&mut reading.items, Item::Zeros { span: length as u64 }),
                Found::Chunk => {
                    let id = pack(worker, &buffer[head..head + length])?;
                    reading.items.push(Item::Data { id, span: length as u64 });
                }
            }
            head += length;
        }
        let at = start + got as u64;
        if at - reading.noted_at >= PART_BYTES {
            reading.note(worker.shared.journal.as_deref(), at);
        }
        Ok(Ok(at))
    })();
    worker.files.buffer = buffer;
    done
}

fn read_window(worker: &Worker, file: &dyn ReadFile, at: u64, into: &mut [u8]) -> std::result::Result<usize, VolumeError> {
    let got = file.read_once(at, into)?;
    worker.shared.notes.bytes_read.fetch_add(got as u64, Relaxed);
    worker.shared.job.bytes_moved.fetch_add(got as u64, Relaxed);
    Ok(got)
}

fn pack(worker: &mut Worker, chunk: &[u8]) -> Result<ChunkId> {
    let id = worker.packer.sink().chunk_id(ChunkKind::Data, chunk);
    if worker.packer.take_on(&id) {
        worker.packer.write(ChunkKind::Data, id, chunk)?;
    }
    Ok(id)
}

enum Found {
    Zeros,
    Chunk,
}

/// What `run` begins with, and its length. `run` begins at file offset `at`. When the run goes on behind it (`ended` is false) and it is
/// shorter than the longest chunk, the answer is final only as far as [`sure_until`].
fn cut_one(cutters: &Cutters, profile: Profile, run: &[u8], at: u64, ended: bool) -> (Found, usize) {
    let longest = cutters.size_bytes_max();
    let window = &run[..run.len().min(longest)];
    let window_ends = ended && run.len() <= longest;
    match zero_block(window, at, window_ends) {
        Some((0, length)) => (Found::Zeros, length),
        Some((from, _)) => (Found::Chunk, cutters.first(profile, &window[..from], at, true)),
        None => (Found::Chunk, cutters.first(profile, window, at, window_ends || window.len() < longest)),
    }
}

/// How long what `run` begins with may be for that not to depend on the bytes behind it: the next block may turn out to be one of zeros.
fn sure_until(longest: usize, run: &[u8], at: u64) -> usize {
    let beyond = ((at + run.len() as u64) % ZERO_BLOCK_BYTES as u64) as usize;
    if run.len() >= longest { longest } else { run.len().saturating_sub(beyond.max(1)) }
}

/// Offset in the window of the first whole block of zeros, and its length.
fn zero_block(window: &[u8], at: u64, ended: bool) -> Option<(usize, usize)> {
    let block = ZERO_BLOCK_BYTES as u64;
    let first = ((block - at % block) % block) as usize;
    (first..window.len())
        .step_by(ZERO_BLOCK_BYTES)
        .map(|from| (from, ZERO_BLOCK_BYTES.min(window.len() - from)))
        .filter(|(_, length)| *length == ZERO_BLOCK_BYTES || ended)
        .find(|(from, length)| is_zero(&window[*from..from + length]))
}

/// A long run, shared by whoever reads it.
#[derive(Debug)]
pub(super) struct Run {
    file: Arc<dyn ReadFile>,
    start: u64,
    end: u64,
    profile: Profile,
    /// How many windows may be underway.
    ahead_max: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    reading: Option<Reading>,
    /// The first window that nobody has taken.
    next: u64,
    /// The window whose turn it is to be cut.
    turn: u64,
    /// All windows before this one are with the packers; and which of those behind it.
    done: u64,
    done_beyond: BTreeSet<u64>,
    /// Threads that have a window.
    busy: usize,
    /// How far it is cut, and what of the window before is not.
    at: u64,
    rest: Vec<u8>,
    /// Nothing more is to be taken or cut: the file ended, or a thread failed.
    over: bool,
    refused: Option<VolumeError>,
    broken: bool,
}

/// A window in the hands of a thread.
struct Hand<'a> {
    run: &'a Run,
    window: u64,
    whole: bool,
}

impl Drop for Hand<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.run.state);
        state.busy -= 1;
        if self.whole {
            let state = &mut *state;
            state.done_beyond.insert(self.window);
            while state.done_beyond.remove(&state.done) {
                state.done += 1;
            }
        } else {
            state.over = true;
            state.broken = true;
        }
        self.run.changed.notify_all();
    }
}

fn read_windows(
    worker: &mut Worker,
    file: &Arc<dyn ReadFile>,
    start: u64,
    end: u64,
    reading: &mut Reading,
) -> Result<std::result::Result<u64, VolumeError>> {
    let lent = std::mem::replace(reading, Reading::new(&[], &reading.stat));
    let run = Arc::new(Run {
        file: Arc::clone(file),
        start,
        end,
        profile: lent.profile,
        ahead_max: worker.threads() as u64 + 1,
        state: Mutex::new(State {
            reading: Some(lent),
            next: 0,
            turn: 0,
            done: 0,
            done_beyond: BTreeSet::new(),
            busy: 0,
            at: start,
            rest: Vec::new(),
            over: false,
            refused: None,
            broken: false,
        }),
        changed: Condvar::new(),
    });
    if end - start > SHARE_FROM_BYTES {
        worker.invite(&run);
    }
    let worked = run.work(worker);
    let mut state = lock(&run.state);
    // Nothing is left to take: what others have in hand ends by itself.
    while state.busy > 0 {
        state = run.wait(state);
    }
    let lent = state.reading.take().ok_or_else(|| Error::internal("a file that was read has no items"))?;
    *reading = lent;
    let (at, refused, broken) = (state.at, state.refused.take(), state.broken);
    drop(state);
    worked?;
    worker.packer.sink().check()?;
    if broken {
        return Err(Error::internal("a thread of the backup lost a part of a file"));
    }
    Ok(refused.map_or(Ok(at), Err))
}

impl Run {
    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn windows(&self) -> u64 {
        (self.end - self.start).div_ceil(WINDOW_BYTES as u64)
    }

    /// The next window, when there is one.
    fn take(&self) -> Option<Hand<'_>> {
        let mut state = lock(&self.state);
        loop {
            if state.over || state.next == self.windows() {
                return None;
            }
            if state.next < state.done + self.ahead_max {
                let window = state.next;
                state.next += 1;
                state.busy += 1;
                return Some(Hand { run: self, window, whole: false });
            }
            state = self.wait(state);
        }
    }

    /// Takes windows and reads them until none is left.
    pub fn work(&self, worker: &mut Worker) -> Result<()> {
        let mut buffer = std::mem::take(&mut worker.files.buffer);
        let mut cuts = Vec::new();
        let done = (|| {
            while let Some(mut hand) = self.take() {
                worker.packer.sink().check()?;
                self.read(worker, &mut hand, &mut buffer, &mut cuts)?;
                hand.whole = true;
            }
            Ok(())
        })();
        worker.files.buffer = buffer;
        done
    }

    fn read(
        &self,
        worker: &mut Worker,
        hand: &mut Hand<'_>,
        buffer: &mut Vec<u8>,
        cuts: &mut Vec<(Found, Range<usize>)>,
    ) -> Result<()> {
        let longest = worker.files.cutters.size_bytes_max();
        if buffer.len() < longest + WINDOW_BYTES {
            buffer.resize(longest + WINDOW_BYTES, 0);
        }
        let offset = self.start + hand.window * WINDOW_BYTES as u64;
        let wanted = (self.end - offset).min(WINDOW_BYTES as u64) as usize;
        let got = read_window(worker, &*self.file, offset, &mut buffer[longest..longest + wanted]);
        let mut state = lock(&self.state);
        while state.turn != hand.window && !state.over {
            state = self.wait(state);
        }
        if state.turn != hand.window {
            // The file ended before this window, or nobody asks any more.
            return Ok(());
        }
        let got = match got {
            Ok(got) => got,
            Err(error) => {
                state.refused = Some(error);
                state.over = true;
                return Ok(());
            }
        };
        let mut rest = std::mem::take(&mut state.rest);
        let mut at = state.at;
        drop(state);
        let mut head = longest - rest.len();
        buffer[head..longest].copy_from_slice(&rest);
        let fill = longest + got;
        let ended = got < wanted || offset + got as u64 == self.end;
        cuts.clear();
        while head < fill {
            let run = &buffer[head..fill];
            let (found, length) = cut_one(&worker.files.cutters, self.profile, run, at, ended);
            if !ended && length > sure_until(longest, run, at) {
                break;
            }
            cuts.push((found, head..head + length));
            head += length;
            at += length as u64;
        }
        rest.clear();
        rest.extend_from_slice(&buffer[head..fill]);
        let mut state = lock(&self.state);
        let Some(reading) = state.reading.as_mut() else { return Err(Error::internal("a file is read by nobody")) };
        let first = reading.items.len();
        for (found, range) in &*cuts {
            let span = range.len() as u64;
            match found {
                Found::Zeros => push_span(&mut reading.items, Item::Zeros { span }),
                Found::Chunk => reading.items.push(Item::Data { id: NOT_YET_KNOWN, span }),
            }
        }
        (state.rest, state.at) = (rest, at);
        state.turn += 1;
        state.over |= ended;
        self.changed.notify_all();
        drop(state);
        let mut ids = Vec::with_capacity(cuts.len());
        for (found, range) in cuts {
            if matches!(found, Found::Chunk) {
                ids.push(pack(worker, &buffer[range.clone()])?);
            }
        }
        let mut state = lock(&self.state);
        let Some(reading) = state.reading.as_mut() else { return Err(Error::internal("a file is read by nobody")) };
        // Zeros may have joined those that the window before ended with, and then their item stands before `first`.
        let places = reading.items[first..].iter_mut().filter_map(|item| match item {
            Item::Data { id, .. } => Some(id),
            _ => None,
        });
        places.zip(ids).for_each(|(place, id)| *place = id);
        reading.note(worker.shared.journal.as_deref(), at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_format::config::Cut;
    use longshore_format::{Keys, MasterKey, RepositoryId};

    #[test]
    fn the_first_zero_block_is_found_where_blocks_lie() {
        let mut run = vec![1; 3 * ZERO_BLOCK_BYTES];
        run[ZERO_BLOCK_BYTES..2 * ZERO_BLOCK_BYTES].fill(0);
        assert_eq!(zero_block(&run, 0, false), Some((ZERO_BLOCK_BYTES, ZERO_BLOCK_BYTES)));
        // One byte on, the same zeros fill no block of the file.
        assert_eq!(zero_block(&run, 1, false), None);
        let short = vec![0; 10];
        assert_eq!((zero_block(&short, 0, false), zero_block(&short, 0, true)), (None, Some((0, 10))));
    }

    #[test]
    fn what_is_sure_does_not_depend_on_what_follows() {
        let cutters = Cutters::new(&Keys::derive(&MasterKey::new([1; 32]), RepositoryId([2; 16])), Cut::default()).unwrap();
        let (longest, zeros) = (cutters.size_bytes_max(), 5 * ZERO_BLOCK_BYTES);
        // One byte over and over is cut nowhere, so what is drawn before the zeros decides; and where it cuts among the first of
        // them, that does not hold, for they are a block of their own.
        let mut run = vec![0x55; zeros + ZERO_BLOCK_BYTES];
        run[zeros..].fill(0);
        let mut missed = 0;
        // One draw of some thousands cuts there, and number 6695 does.
        for draw in 6_600..6_800u32 {
            blake3::Hasher::new().update(&draw.to_le_bytes()).finalize_xof().fill(&mut run[zeros - 56..zeros]);
            let whole = cut_one(&cutters, Profile::Usual, &run, 0, false).1;
            for seen in [zeros - 1, zeros, zeros + 1000, run.len() - 1] {
                let length = cut_one(&cutters, Profile::Usual, &run[..seen], 0, false).1;
                let sure = length <= sure_until(longest, &run[..seen], 0);
                assert!(!sure || length == whole, "{draw}: {length} of {seen} instead of {whole}");
                missed += u32::from(!sure && length < seen);
            }
        }
        assert!(missed > 0, "no cut among the zeros was drawn");
    }
}
