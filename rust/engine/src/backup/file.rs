//! One file's bytes: read, cut, compared with what is known.
//!
//! Holes are not read, runs of zeros not stored. A file that changed while it was read is read again up to three times, then kept
//! and marked. Small files come in batches of one directory; a large one is read by whoever is free (`windows`).
//!
//! What was read goes into the journal: small files with their batch, a large one in parts (`windows`). Of a file that an interrupted
//! run had begun and that is as it was, only those stretches are read whose chunks did not reach the store, and what comes behind. So the end
//! of many a file, which waits in an open frame for others, does not make all of each be read again.
//! Of a file with a hint that can be relied on, only those chunks of the parent are read that the hint touches.

use super::crew::Worker;
use super::drift::{ChangeTest, Content};
use super::fetch::{Fetched, Measure};
use super::hints::{Dirty, Ranges, is_paged_item};
use super::pieces::fold_content;
use super::tree::{DirNode, settle};
use super::windows::{Reading, is_large, read_run};
use crate::chunker::{Cutters, Profile, ZERO_BLOCK_BYTES, pages};
use crate::error::Result;
use crate::journal::{FilesRecord, ITEMS_MAX, Partial, push_span};
use crate::repository::cursor::is_damage;
use crate::volume::{ReadFile, Stat, VolumeError, VolumeErrorKind};
use longshore_format::config::Cut;
use longshore_format::id::ChunkKind;
use longshore_format::snapshot::LostReason;
use longshore_format::tree::{Entry, Item, Node, Owner};
use longshore_format::{Keys, limits};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

const ATTEMPTS: usize = 3;

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
    /// A small file as an interrupted run read it, when some of that did not reach the store.
    pub begun: Option<Box<Partial>>,
    /// The file as a fetcher read it.
    pub fetched: Option<Box<Fetched>>,
}

/// Buffers and cutter of one thread.
#[derive(Debug)]
pub(crate) struct FileReader {
    pub cutters: Cutters,
    pub buffer: Vec<u8>,
    measure: Measure,
}

enum Outcome {
    Read { items: Vec<Item>, stat: Stat, changed: bool, xattrs: Vec<(Vec<u8>, Vec<u8>)>, xattr_error: Option<VolumeError> },
    Vanished,
    Lost(LostReason, String),
}

impl FileReader {
    pub fn new(keys: &Keys, cut: Cut) -> Result<Self> {
        Ok(Self { cutters: Cutters::new(keys, cut)?, buffer: Vec::new(), measure: Measure::default() })
    }

    fn profile_of(&mut self, file: &dyn ReadFile, stat: &Stat) -> std::result::Result<Profile, VolumeError> {
        if stat.size_bytes < pages::FROM_BYTES {
            return Ok(Profile::Usual);
        }
        if self.buffer.len() < pages::BLOCK_BYTES {
            self.buffer.resize(pages::BLOCK_BYTES, 0);
        }
        let head = &mut self.buffer[..pages::BLOCK_BYTES];
        let got = file.read_once(0, head)?;
        Ok(Profile::of(&head[..got]))
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
    let fetched = files.iter().any(|job| job.fetched.is_some());
    let small = || files.iter().filter(|job| !is_large(&job.stat)).map(|job| job.stat.size_bytes);
    let (count, bytes) = (small().count() as u64, small().sum());
    if !fetched && count == files.len() as u64 {
        worker.files.measure.begin(&shared.clock, &shared.gauge);
    }
    for mut job in files {
        worker.packer.sink().check()?;
        if is_large(&job.stat) {
            note(&mut record);
        }
        let entry = read_one(worker, &node, &mut job, &mut record)?;
        settle(worker, &node, job.slot, entry, false)?;
    }
    worker.files.measure.end(&shared.gauge, count, bytes);
    note(&mut record);
    Ok(())
}

fn read_one(worker: &mut Worker, node: &DirNode, job: &mut FileJob, record: &mut Option<FilesRecord>) -> Result<Option<Entry>> {
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
            let mut entry = super::tree::entry_of(&job.name, &stat, xattrs, changed, Node::File { size_bytes, content });
            entry.incomplete = xattr_error.is_some();
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

fn capture(worker: &mut Worker, node: &DirNode, job: &mut FileJob, path: &[u8]) -> Result<Outcome> {
    let mut fetched = job.fetched.is_some();
    let mut file: Arc<dyn ReadFile> = match job.fetched.take() {
        Some(fetched) => Arc::from(fetched as Box<dyn ReadFile>),
        None => match worker.files.measure.open(&*node.dir, &job.name) {
            Ok(file) => file,
            Err(error) => return Ok(lost(&error)),
        },
    };
    let mut attempt = 0;
    let interrupted = worker.shared.journal.as_ref().and_then(|journal| journal.before());
    let large = || interrupted.filter(|_| is_large(&job.stat))?.partial(path);
    let mut begun = job.begun.take().map(|begun| *begun).or_else(large);
    loop {
        attempt += 1;
        let before = match if attempt == 1 { file.stat_before() } else { file.stat() } {
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
        // What happens to the file from here on no hint knows.
        let hint = if attempt == 1 && begun.is_none() { hint_of(worker, path, &before, job) } else { None };
        let Read { items, left_unread } = match read_content(worker, &file, &before, path, begun, hint)? {
            Ok(read) => read,
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
            if let Some(bytes) = left_unread {
                worker.shared.notes.hints_used.fetch_add(1, Relaxed);
                worker.shared.notes.bytes_hinted.fetch_add(bytes, Relaxed);
            }
            let (xattrs, xattr_error) = match file.xattrs() {
                Ok(xattrs) => (xattrs, None),
                Err(error) if error.kind == VolumeErrorKind::Unsupported => (Vec::new(), None),
                Err(error) => (Vec::new(), Some(error)),
            };
            return Ok(Outcome::Read { items, stat: after, changed: !same, xattrs, xattr_error });
        }
        if std::mem::take(&mut fetched) {
            // It stays what it was.
            file = match node.dir.open_file(&job.name) {
                Ok(file) => file,
                Err(error) => return Ok(lost(&error)),
            };
        }
    }
}

/// The file in the parent, and what of it may differ now.
fn hint_of<'a>(worker: &Worker, path: &[u8], now: &Stat, job: &'a FileJob) -> Option<(&'a [Item], Dirty)> {
    let (shared, previous) = (&worker.shared, job.previous.as_deref());
    let dirty = shared.hints.dirty(&shared.notes, shared.parent, path, now, previous)?;
    match &previous?.node {
        Node::File { content, .. } => Some((content, dirty)),
        _ => None,
    }
}

/// Whether what an interrupted run read of a file is still what is there.
fn stands(worker: &Worker, partial: &Partial, now: &Stat) -> bool {
    let test = ChangeTest::new(Some(partial.started_nanos), worker.shared.started_nanos, worker.shared.paranoid);
    test.judge(&partial.facts, now, false) == Content::Stands
}

/// What came of reading a file.
struct Read {
    items: Vec<Item>,
    /// Bytes that were left unread for a hint; none without one.
    left_unread: Option<u64>,
}

/// How far a stretch was read. The inner error is the volume's, the outer one ends the job.
type Reached = Result<std::result::Result<u64, VolumeError>>;

/// The items of a file as it is read now. The inner error is the volume's, the outer one ends the job.
fn read_content(
    worker: &mut Worker,
    file: &Arc<dyn ReadFile>,
    stat: &Stat,
    path: &[u8],
    begun: Option<Partial>,
    hint: Option<(&[Item], Dirty)>,
) -> Result<std::result::Result<Read, VolumeError>> {
    if stat.size_bytes == 0 {
        // Pseudo files and growing ones may say 0 and hold bytes; what appears later belongs to the next backup.
        return Ok(Ok(Read { items: Vec::new(), left_unread: None }));
    }
    let mut left_unread = None;
    let mut reading = Reading::new(path, stat);
    let mut at = 0u64;
    match begun.map_or(Ok(Ok(None)), |partial| go_on(worker, file, path, partial))? {
        Ok(Some(partial)) => {
            reading.profile = partial.profile;
            at = partial.bytes;
            reading.go_on_from(partial.items, at);
        }
        Ok(None) if hint.is_some() => {}
        Ok(None) => {
            reading.profile = match worker.files.profile_of(&**file, stat) {
                Ok(profile) => profile,
                Err(error) => return Ok(Err(error)),
            }
        }
        Err(error) => return Ok(Err(error)),
    }
    let reached = match hint {
        Some((content, dirty)) => read_hinted(worker, file, content, dirty, &mut reading, left_unread.insert(0))?,
        None => read_stretch(worker, file, at, stat.size_bytes, &mut reading)?,
    };
    match reached {
        Ok(reached) => at = reached,
        Err(error) => return Ok(Err(error)),
    }
    reading.note(worker.shared.journal.as_deref(), at);
    Ok(Ok(Read { items: reading.items, left_unread }))
}

/// Reads what lies between two offsets, holes left out; how far the file went.
fn read_stretch(worker: &mut Worker, file: &Arc<dyn ReadFile>, start: u64, stop: u64, reading: &mut Reading) -> Reached {
    let sparse = reading.stat.allocated_bytes < reading.stat.size_bytes;
    let mut at = start;
    while at < stop {
        let (hole, end) = if sparse {
            match file.next_extent(at) {
                Ok(Some(extent)) => (extent.hole, (extent.offset_bytes + extent.length_bytes).min(stop)),
                Ok(None) => break,
                Err(error) if error.kind == VolumeErrorKind::Unsupported => (false, stop),
                Err(error) => return Ok(Err(error)),
            }
        } else {
            (false, stop)
        };
        if end <= at {
            break;
        }
        if hole {
            push_span(&mut reading.items, Item::Hole { span: end - at });
            at = end;
            continue;
        }
        match read_run(worker, file, at, end, reading)? {
            Ok(reached) => {
                at = reached;
                if reached < end {
                    break;
                }
            }
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(at))
}

/// A walk over the items that the parent has of a file.
struct Hinted<'a> {
    file: &'a Arc<dyn ReadFile>,
    reading: &'a mut Reading,
    ranges: Ranges,
    /// Where the item at hand begins.
    at: u64,
    /// Where a stretch begins that is to be read before what comes next is taken over.
    unread_from: Option<u64>,
    /// Whether all chunks so far lie as fixed blocks do; none before the first.
    paged: Option<bool>,
}

impl Hinted<'_> {
    /// Reads what is to be read up to an offset. Whether the file went that far.
    fn catch_up(&mut self, worker: &mut Worker, to: u64) -> Result<std::result::Result<bool, VolumeError>> {
        let Some(from) = self.unread_from.take() else { return Ok(Ok(true)) };
        self.reading.profile = match self.paged {
            Some(true) if self.reading.stat.size_bytes >= pages::FROM_BYTES => Profile::Pages,
            Some(_) => Profile::Usual,
            None => match worker.files.profile_of(&**self.file, &self.reading.stat) {
                Ok(profile) => profile,
                Err(error) => return Ok(Err(error)),
            },
        };
        Ok(read_stretch(worker, self.file, from, to, self.reading)?.map(|reached| reached == to))
    }

    /// Takes an item over, or notes that it is to be read; whether the file goes on.
    fn take(
        &mut self,
        worker: &mut Worker,
        item: &Item,
        left_unread: &mut u64,
    ) -> Result<std::result::Result<bool, VolumeError>> {
        let (size_bytes, end) = (self.reading.stat.size_bytes, self.at + item.span());
        let mut at = self.at;
        if let Item::Data { id, span } = item {
            self.paged = Some(self.paged != Some(false) && is_paged_item(item, at, pages::BLOCK_BYTES as u64));
            if end > size_bytes || self.ranges.within(at, end, 1).is_some() || !worker.packer.rely_on(id) {
                self.unread_from.get_or_insert(at);
            } else {
                match self.catch_up(worker, at)? {
                    Ok(true) => {}
                    other => return Ok(other),
                }
                self.reading.items.push(*item);
                *left_unread += span;
            }
        } else {
            // Holes and zeros may be long: only what a hint touches of them is read.
            let stop = end.min(size_bytes);
            while at < stop {
                let (from, to) = self.ranges.within(at, stop, ZERO_BLOCK_BYTES as u64).unwrap_or((stop, stop));
                if at < from {
                    match self.catch_up(worker, at)? {
                        Ok(true) => {}
                        other => return Ok(other),
                    }
                    let span = from - at;
                    let same = if matches!(item, Item::Hole { .. }) { Item::Hole { span } } else { Item::Zeros { span } };
                    push_span(&mut self.reading.items, same);
                }
                if from < to {
                    self.unread_from.get_or_insert(from);
                }
                at = to;
            }
        }
        self.at = end;
        Ok(Ok(end < size_bytes))
    }
}

/// Takes over what the parent has of a file, and reads what is in `dirty`, what lies behind, and what the repository has not.
fn read_hinted(
    worker: &mut Worker,
    file: &Arc<dyn ReadFile>,
    content: &[Item],
    dirty: Dirty,
    reading: &mut Reading,
    left_unread: &mut u64,
) -> Reached {
    let (size_bytes, reader) = (reading.stat.size_bytes, Arc::clone(&worker.shared.reader));
    let mut hinted = Hinted { file, reading, ranges: Ranges::new(dirty), at: 0, unread_from: None, paged: None };
    let (mut refused, mut short) = (None, false);
    let visited = reader.for_each_item(content, Owner::File, &mut |item| {
        match hinted.take(worker, item, left_unread)? {
            Ok(goes_on) => {
                short = !goes_on && hinted.at < size_bytes;
                return Ok(goes_on);
            }
            Err(error) => refused = Some(error),
        }
        Ok(false)
    });
    if let Some(error) = refused {
        return Ok(Err(error));
    }
    if short {
        return Ok(Ok(hinted.at));
    }
    match visited {
        Ok(_) => {}
        // What a list that cannot be read speaks of is read from the file.
        Err(error) if is_damage(&error) => {
            tracing::warn!(error = %error, "Cannot read a list of the parent snapshot, reading the file instead")
        }
        Err(error) => return Err(error),
    }
    if hinted.at < size_bytes {
        let at = hinted.at;
        hinted.unread_from.get_or_insert(at);
    }
    match hinted.catch_up(worker, size_bytes)? {
        Ok(true) => Ok(Ok(size_bytes)),
        Ok(false) => Ok(Ok(hinted.at)),
        Err(error) => Ok(Err(error)),
    }
}

/// Takes over what an interrupted run read of a file, and reads what of that is not in the repository: its packs had not been sent.
/// None when the file turns out to be another.
fn go_on(
    worker: &mut Worker,
    file: &Arc<dyn ReadFile>,
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
        } else if matches!(item, Item::Zeros { .. }) {
            kept += span;
        }
        at += span;
    }
    let Node::File { size_bytes, .. } = partial.facts.node else { return Ok(Ok(None)) };
    shared.notes.bytes_resumed.fetch_add(kept, Relaxed);
    shared.notes.files_resumed.fetch_add(u64::from(read == 0 && at == size_bytes), Relaxed);
    Ok(Ok(Some(partial)))
}
