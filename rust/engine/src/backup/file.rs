//! One file's bytes: read, cut, compared with what is known.
//!
//! Holes are not read, runs of zeros not stored. A file that changed while it was read is read again up to three times, then kept
//! and marked. Small files come in batches of one directory; a large one is read and cut by one thread, which hands its chunks to
//! others that are free to hash, compress and seal them: its cuts are the same whoever takes part.
//!
//! What was read goes into the journal: small files with their batch, a large one every [`PART_BYTES`]. Of a large file that an
//! interrupted run had begun and that is as it was, only those stretches are read whose chunks did not reach the store, and what comes behind.

use super::crew::{Pieces, Worker};
use super::drift::{ChangeTest, Content};
use super::tree::{DirNode, fold_content, settle};
use crate::chunker::{Cutter, ZERO_BLOCK_BYTES, is_zero, pages};
use crate::error::Result;
use crate::journal::{FilesRecord, ITEMS_MAX, Partial};
use crate::volume::{ReadFile, Stat, VolumeError, VolumeErrorKind};
use longshore_format::config::Cut;
use longshore_format::id::{ChunkId, ChunkKind};
use longshore_format::snapshot::LostReason;
use longshore_format::tree::{Entry, Item, Node};
use longshore_format::{Keys, limits};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

const READ_BYTES: usize = 2 << 20;
/// Runs of a file beyond this are shared among threads.
const SHARE_FROM_BYTES: u64 = 4 << 20;
const ATTEMPTS: usize = 3;
/// Bytes of a large file after which the journal is told how far it was read.
const PART_BYTES: u64 = 1 << 20;
/// Stands where another thread is still to say the id.
const NOT_YET_KNOWN: ChunkId = ChunkId([0; 32]);

/// Files of one directory, to be read by one worker.
#[derive(Debug)]
pub(crate) struct FileBatch {
    pub node: Arc<DirNode>,
    pub files: Vec<FileJob>,
}

/// One file to be read.
#[derive(Debug)]
pub(crate) struct FileJob {
    pub slot: usize,
    pub name: Vec<u8>,
    /// What the walk saw.
    pub stat: Stat,
    /// The same file in the parent, when there is one.
    pub previous: Option<Box<Entry>>,
}

/// Buffers and cutter of one thread.
#[derive(Debug)]
pub(crate) struct FileReader {
    cutter: Cutter,
    buffer: Vec<u8>,
    /// Whether the file at hand is cut into fixed blocks.
    paged: bool,
}

enum Outcome {
    Read { items: Vec<Item>, stat: Stat, changed: bool, xattrs: Vec<(Vec<u8>, Vec<u8>)>, xattr_error: Option<VolumeError> },
    Vanished,
    Lost(LostReason, String),
}

impl FileReader {
    pub fn new(keys: &Keys, cut: Cut) -> Result<Self> {
        Ok(Self { cutter: Cutter::new(keys, cut)?, buffer: Vec::new(), paged: false })
    }

    fn looks_paged(&mut self, file: &dyn ReadFile, stat: &Stat) -> std::result::Result<bool, VolumeError> {
        if stat.size_bytes < pages::FROM_BYTES {
            return Ok(false);
        }
        if self.buffer.len() < pages::BLOCK_BYTES {
            self.buffer.resize(pages::BLOCK_BYTES, 0);
        }
        let head = &mut self.buffer[..pages::BLOCK_BYTES];
        let got = file.read_once(0, head)?;
        Ok(pages::is_paged(&head[..got]))
    }
}

/// Reads a batch and settles each file in its directory.
pub(crate) fn read_batch(worker: &mut Worker, batch: FileBatch) -> Result<()> {
    let FileBatch { node, files } = batch;
    let shared = Arc::clone(&worker.shared);
    let mut record = shared.journal.as_ref().map(|journal| journal.files(&node.path));
    let note = |record: &mut Option<FilesRecord>| {
        if let (Some(journal), Some(record)) = (&shared.journal, record) {
            journal.note_files(record);
        }
    };
    for job in files {
        worker.packer.sink().check()?;
        if is_large(&job.stat) {
            note(&mut record);
        }
        let entry = read_one(worker, &node, &job, &mut record)?;
        settle(worker, &node, job.slot, entry, false)?;
    }
    note(&mut record);
    Ok(())
}

/// Whether the journal has a file in parts.
fn is_large(stat: &Stat) -> bool {
    stat.size_bytes > SHARE_FROM_BYTES
}

fn read_one(worker: &mut Worker, node: &DirNode, job: &FileJob, record: &mut Option<FilesRecord>) -> Result<Option<Entry>> {
    let path = node.path_of(&job.name);
    let outcome = capture(worker, node, job, &path)?;
    let shared = Arc::clone(&worker.shared);
    let (notes, progress) = (&shared.notes, &shared.job);
    progress.files_done.fetch_add(1, Relaxed);
    progress.bytes_done.fetch_add(job.stat.size_bytes, Relaxed);
    match outcome {
        Outcome::Vanished => {
            notes.vanished.fetch_add(1, Relaxed);
            Ok(None)
        }
        Outcome::Lost(reason, message) => {
            notes.lose(progress, reason, &path, message);
            Ok(None)
        }
        Outcome::Read { items, stat, changed, xattrs, xattr_error } => {
            if let Some(error) = &xattr_error {
                notes.lose(progress, LostReason::Other, &path, format!("extended attributes cannot be read: {error}"));
            }
            if changed {
                notes.change(&path);
            }
            notes.files.fetch_add(1, Relaxed);
            notes.bytes.fetch_add(items.iter().map(Item::span).sum(), Relaxed);
            if job.previous.is_some() { &notes.files_changed } else { &notes.files_new }.fetch_add(1, Relaxed);
            let size_bytes = items.iter().map(Item::span).sum();
            // What is to be looked at again anyway is not noted.
            let noted = !changed && xattr_error.is_none() && !is_large(&stat) && items.len() <= ITEMS_MAX;
            let content = fold_content(worker, items)?;
            let entry = super::tree::entry_of(&job.name, &stat, xattrs, changed, Node::File { size_bytes, content });
            if let (true, Some(record), Some(journal)) = (noted, record, &shared.journal)
                && record.push(&entry)
            {
                journal.note_files(record);
            }
            Ok(Some(entry))
        }
    }
}

fn lost(error: &VolumeError) -> Outcome {
    match error.kind {
        VolumeErrorKind::NotFound => Outcome::Vanished,
        VolumeErrorKind::WrongKind => {
            Outcome::Lost(LostReason::Other, "became another kind of thing while it was read".to_owned())
        }
        _ => Outcome::Lost(LostReason::Unreadable, error.to_string()),
    }
}

fn capture(worker: &mut Worker, node: &DirNode, job: &FileJob, path: &[u8]) -> Result<Outcome> {
    let file = match node.dir.open_file(&job.name) {
        Ok(file) => file,
        Err(error) => return Ok(lost(&error)),
    };
    let mut attempt = 0;
    let interrupted = worker.shared.journal.as_ref().and_then(|journal| journal.before());
    let mut begun = interrupted.filter(|_| is_large(&job.stat)).and_then(|run| run.partial(path));
    loop {
        attempt += 1;
        let before = match file.stat() {
            Ok(stat) => stat,
            Err(error) => return Ok(lost(&error)),
        };
        if before.size_bytes > limits::FILE_BYTES_MAX {
            return Ok(Outcome::Lost(
                LostReason::Other,
                format!("file is larger than the format takes: size_bytes={}", before.size_bytes),
            ));
        }
        let begun = begun.take().filter(|partial| stands(worker, partial, &before));
        let items = match read_content(worker, &*file, &before, path, begun)? {
            Ok(items) => items,
            Err(error) => return Ok(lost(&error)),
        };
        let after = match file.stat() {
            Ok(stat) => stat,
            Err(error) => return Ok(lost(&error)),
        };
        let same = before.size_bytes == after.size_bytes
            && before.mtime == after.mtime
            && before.ctime == after.ctime
            && items.iter().map(Item::span).sum::<u64>() == after.size_bytes;
        if same || attempt == ATTEMPTS {
            let (xattrs, xattr_error) = match file.xattrs() {
                Ok(xattrs) => (xattrs, None),
                Err(error) if error.kind == VolumeErrorKind::Unsupported => (Vec::new(), None),
                Err(error) => (Vec::new(), Some(error)),
            };
            return Ok(Outcome::Read { items, stat: after, changed: !same, xattrs, xattr_error });
        }
    }
}

/// Whether what an interrupted run read of a file is still what is there.
fn stands(worker: &Worker, partial: &Partial, now: &Stat) -> bool {
    let test = ChangeTest::new(Some(partial.started_nanos), worker.shared.started_nanos, worker.shared.paranoid);
    test.judge(&partial.facts, now, false) == Content::Stands
}

/// A file while it is read.
struct Reading<'a> {
    path: &'a [u8],
    stat: &'a Stat,
    items: Vec<Item>,
    /// Chunks that others take on.
    pieces: Arc<Pieces>,
    /// Items and bytes that the journal has.
    noted: (usize, u64),
    /// How far the file was read when it was told last.
    noted_at: u64,
}

impl Reading<'_> {
    /// Tells the journal what is known by now; without waiting for those who still work on a chunk of it.
    fn note(&mut self, worker: &mut Worker, at: u64, ends: bool) -> Result<()> {
        self.noted_at = at;
        let Some(journal) = worker.shared.journal.clone().filter(|_| is_large(self.stat)) else { return Ok(()) };
        for (place, found) in worker.known(&self.pieces)? {
            if let Some(Item::Data { id, .. }) = self.items.get_mut(place) {
                *id = found;
            }
        }
        let rest = &self.items[self.noted.0..];
        let waits = |item: &Item| item.id() == Some(NOT_YET_KNOWN);
        let known = &rest[..rest.iter().position(waits).unwrap_or(rest.len())];
        // A hole or zeros at the end may still grow.
        let count = if ends { known.len() } else { known.iter().rposition(|i| i.id().is_some()).map_or(0, |last| last + 1) };
        if count > 0 {
            journal.note_part(self.path, self.stat, worker.files.paged, self.noted.1, &known[..count]);
            self.noted = (self.noted.0 + count, self.noted.1 + known[..count].iter().map(Item::span).sum::<u64>());
        }
        Ok(())
    }
}

/// The items of a file as it is read now. The inner error is the volume's, the outer one ends the job.
fn read_content(
    worker: &mut Worker,
    file: &dyn ReadFile,
    stat: &Stat,
    path: &[u8],
    begun: Option<Partial>,
) -> Result<std::result::Result<Vec<Item>, VolumeError>> {
    if stat.size_bytes == 0 {
        // Pseudo files and growing ones may say 0 and hold bytes; what appears later belongs to the next backup.
        return Ok(Ok(Vec::new()));
    }
    let mut reading = Reading { path, stat, items: Vec::new(), pieces: Arc::default(), noted: (0, 0), noted_at: 0 };
    let mut at = 0u64;
    match begun.map_or(Ok(Ok(None)), |partial| go_on(worker, file, path, partial))? {
        Ok(Some(partial)) => {
            worker.files.paged = partial.paged;
            at = partial.bytes;
            (reading.noted, reading.noted_at) = ((partial.items.len(), at), at);
            reading.items = partial.items;
        }
        Ok(None) => {
            worker.files.paged = match worker.files.looks_paged(file, stat) {
                Ok(paged) => paged,
                Err(error) => return Ok(Err(error)),
            }
        }
        Err(error) => return Ok(Err(error)),
    }
    let sparse = stat.allocated_bytes < stat.size_bytes;
    while at < stat.size_bytes {
        let (hole, end) = if sparse {
            match file.next_extent(at) {
                Ok(Some(extent)) => (extent.hole, (extent.offset_bytes + extent.length_bytes).min(stat.size_bytes)),
                Ok(None) => break,
                Err(error) if error.kind == VolumeErrorKind::Unsupported => (false, stat.size_bytes),
                Err(error) => return Ok(Err(error)),
            }
        } else {
            (false, stat.size_bytes)
        };
        if end <= at {
            break;
        }
        if hole {
            push_span(&mut reading.items, Item::Hole { span: end - at });
            at = end;
            continue;
        }
        match read_run(worker, file, at, end, &mut reading)? {
            Ok(reached) => {
                let short = reached < end;
                at = reached;
                if short {
                    break;
                }
            }
            Err(error) => return Ok(Err(error)),
        }
    }
    for (place, found) in worker.collect(&reading.pieces)? {
        if let Some(Item::Data { id, .. }) = reading.items.get_mut(place) {
            *id = found;
        }
    }
    reading.note(worker, at, true)?;
    Ok(Ok(reading.items))
}

/// Takes over what an interrupted run read of a file, and reads what of that is not in the repository: its packs had not been sent.
/// None when the file turns out to be another.
fn go_on(
    worker: &mut Worker,
    file: &dyn ReadFile,
    path: &[u8],
    partial: Partial,
) -> Result<std::result::Result<Option<Partial>, VolumeError>> {
    let shared = Arc::clone(&worker.shared);
    let (mut at, mut kept, mut read, mut buffer) = (0u64, 0u64, 0u64, Vec::new());
    for item in &partial.items {
        let span = item.span();
        if let Item::Data { id, .. } = item {
            if worker.packer.rely_on(id) {
                kept += span;
            } else {
                worker.packer.sink().check()?;
                buffer.resize(usize::try_from(span).unwrap_or(0), 0);
                let got = match file.read_once(at, &mut buffer) {
                    Ok(got) => got,
                    Err(error) => return Ok(Err(error)),
                };
                shared.notes.bytes_read.fetch_add(got as u64, Relaxed);
                shared.job.bytes_moved.fetch_add(got as u64, Relaxed);
                read += got as u64;
                if got != buffer.len() || worker.packer.sink().chunk_id(ChunkKind::Data, &buffer) != *id {
                    tracing::info!(path = %String::from_utf8_lossy(path), "A file has other content than an interrupted run read, reading it again");
                    return Ok(Ok(None));
                }
                if worker.packer.take_on(id) {
                    worker.packer.write(ChunkKind::Data, *id, &buffer)?;
                }
            }
        }
        at += span;
    }
    let Node::File { size_bytes, .. } = partial.facts.node else { return Ok(Ok(None)) };
    shared.notes.bytes_resumed.fetch_add(kept, Relaxed);
    shared.notes.files_resumed.fetch_add(u64::from(read == 0 && at == size_bytes), Relaxed);
    Ok(Ok(Some(partial)))
}

/// Adds an item, joining it with a last one of the same kind that has no chunk.
fn push_span(items: &mut Vec<Item>, item: Item) {
    match (items.last_mut(), item) {
        (Some(Item::Hole { span }), Item::Hole { span: more }) | (Some(Item::Zeros { span }), Item::Zeros { span: more }) => {
            *span += more
        }
        _ => items.push(item),
    }
}

/// Reads and cuts the bytes from `start` to `end`; returns how far the file went.
fn read_run(
    worker: &mut Worker,
    file: &dyn ReadFile,
    start: u64,
    end: u64,
    reading: &mut Reading<'_>,
) -> Result<std::result::Result<u64, VolumeError>> {
    let mut buffer = std::mem::take(&mut worker.files.buffer);
    let result = read_run_into(worker, file, start, end, reading, &mut buffer);
    worker.files.buffer = buffer;
    result
}

fn read_run_into(
    worker: &mut Worker,
    file: &dyn ReadFile,
    start: u64,
    end: u64,
    reading: &mut Reading<'_>,
    buffer: &mut Vec<u8>,
) -> Result<std::result::Result<u64, VolumeError>> {
    let longest = worker.files.cutter.size_bytes_max();
    let large = end - start > SHARE_FROM_BYTES;
    // `buffer[head..fill]` is read and not yet cut; it begins at file offset `at`.
    let (mut head, mut fill, mut at, mut next) = (0usize, 0usize, start, start);
    let wanted = usize::try_from(end - start).unwrap_or(usize::MAX).min(READ_BYTES + longest);
    if buffer.len() < wanted {
        buffer.resize(wanted, 0);
    }
    let mut ended = false;
    loop {
        if !ended && fill - head < longest {
            buffer.copy_within(head..fill, 0);
            fill -= head;
            head = 0;
            let room = usize::try_from(end - next).unwrap_or(usize::MAX).min(buffer.len() - fill);
            let got = match file.read_once(next, &mut buffer[fill..fill + room]) {
                Ok(got) => got,
                Err(error) => return Ok(Err(error)),
            };
            worker.shared.notes.bytes_read.fetch_add(got as u64, Relaxed);
            worker.shared.job.bytes_moved.fetch_add(got as u64, Relaxed);
            if large {
                worker.packer.sink().check()?;
            }
            next += got as u64;
            fill += got;
            ended = got < room || next == end;
            if !ended && fill - head < longest {
                continue;
            }
        }
        if head == fill {
            return Ok(Ok(at));
        }
        let run = &buffer[head..fill];
        let window = &run[..run.len().min(longest)];
        let window_ends = ended && run.len() <= longest;
        let zeros = zero_block(window, at, window_ends);
        let length = if let Some((0, length)) = zeros {
            push_span(&mut reading.items, Item::Zeros { span: length as u64 });
            length
        } else {
            let length = match zeros {
                _ if worker.files.paged => window.len().min(pages::BLOCK_BYTES - (at % pages::BLOCK_BYTES as u64) as usize),
                Some((from, _)) => worker.files.cutter.first(&window[..from], true),
                None => worker.files.cutter.first(window, window_ends),
            };
            let chunk = &window[..length];
            let id = if large && worker.hand_on(reading.items.len(), chunk, &reading.pieces) {
                NOT_YET_KNOWN
            } else {
                let id = worker.packer.sink().chunk_id(ChunkKind::Data, chunk);
                if worker.packer.take_on(&id) {
                    worker.packer.write(ChunkKind::Data, id, chunk)?;
                }
                id
            };
            reading.items.push(Item::Data { id, span: length as u64 });
            length
        };
        head += length;
        at += length as u64;
        if at - reading.noted_at >= PART_BYTES {
            reading.note(worker, at, false)?;
        }
    }
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
