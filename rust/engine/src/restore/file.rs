//! Regular files: small ones whole, large ones in segments that several threads write at once.
//!
//! A file that is new is made under its own name; one that replaces another is written under a temporary name and renamed over it,
//! so the old content is there until the new one is whole. A file of the same size that has one name is compared chunk by chunk
//! first: equal content is left alone, and a large file is updated where it differs. Metadata comes last, through the descriptor.

use super::Context;
use super::crew::Crew;
use super::links::LinkNumber;
use super::pieces::{self, Piece};
use super::place::{Directory, name_losses};
use super::standing;
use super::tally::{LossKind, metadata_of};
use crate::error::{Error, Result};
use crate::repository::ahead::{Underway, Wanted};
use crate::repository::cursor::is_damage;
use crate::volume::{Dir, Kind, Metadata, Name, VolumeError, VolumeErrorKind, WriteFile};
use longshore_format::tree::{Entry, Item, Node, Owner};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Files longer than this are written in segments by several threads.
pub(super) const LARGE_BYTES: u64 = 8 << 20;
/// Bytes of a large file that one thread writes at a time.
const SEGMENT_BYTES: u64 = 4 << 20;
const DAMAGED_SUFFIX: &[u8] = b".longshore-damaged";

/// A file to be restored.
#[derive(Debug)]
pub(super) struct FileWork {
    pub entry: Entry,
    /// Its name was there when the directory was listed.
    pub exists: bool,
    /// Set when other names may be linked to it.
    pub link: Option<LinkNumber>,
    /// What it consists of, to be fetched ahead; none where it may be there already, or where a list of it cannot be read.
    pub pieces: Option<Vec<Piece>>,
}

/// What a worker does at a time.
#[derive(Debug)]
pub(super) enum Task {
    /// Small files by their directories, which are held until they are done.
    Batch { groups: Vec<(Arc<Directory>, Vec<FileWork>)>, underway: Option<Underway> },
    /// A part of a large file.
    Segment { file: Arc<Large>, pieces: Vec<Piece>, underway: Option<Underway> },
}

impl Task {
    /// Says what it needs to those who fetch.
    pub fn plan(&mut self, context: &Context, wait: bool) -> Result<()> {
        match self {
            Self::Batch { groups, underway } => {
                let files = groups.iter_mut().flat_map(|(_, files)| files);
                let mut chunks: Vec<&mut Wanted> =
                    files.flat_map(|file| file.pieces.iter_mut().flatten()).filter_map(|piece| piece.wanted.as_mut()).collect();
                *underway = Some(context.ahead.plan(&mut chunks, wait, || context.check())?);
            }
            Self::Segment { pieces, underway, .. } => *underway = Some(pieces::plan(context, pieces, wait)?),
        }
        Ok(())
    }
}

/// A large file while its segments are written.
#[derive(Debug)]
pub(super) struct Large {
    directory: Arc<Directory>,
    work: FileWork,
    size_bytes: u64,
    pub placed: Placed,
    remaining: AtomicUsize,
    pub written: AtomicBool,
    failed: Mutex<Option<Trouble>>,
}

/// A file open to be written, and under which name.
#[derive(Debug)]
pub(super) struct Placed {
    dir: Arc<dyn Dir>,
    pub file: Box<dyn WriteFile>,
    temporary: Option<Name>,
    /// It has old content, which is compared before it is replaced.
    pub in_place: bool,
    /// Nothing has the temporary name any more.
    settled: AtomicBool,
}

/// Why one file did not come back.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Its data is damaged or missing.
    Damaged(Error),
    /// The volume refused.
    Volume(VolumeError),
    /// The job cannot go on.
    Job(Error),
}

impl From<VolumeError> for Trouble {
    fn from(error: VolumeError) -> Self {
        Self::Volume(error)
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        if is_damage(&error) { Self::Damaged(error) } else { Self::Job(error) }
    }
}

pub(super) type Tried<T> = std::result::Result<T, Trouble>;

/// Names an item that the volume refused; a full volume ends the job.
pub(super) fn lose(context: &Context, directory: &Directory, name: &[u8], error: &VolumeError) -> Result<()> {
    if error.kind == VolumeErrorKind::NoSpace {
        let path = String::from_utf8_lossy(&directory.path(name)).into_owned();
        return Err(Error::from(error.clone())
            .while_doing(path)
            .with_next_step("make room on the volume and restore again; what is there already is compared, not fetched"));
    }
    context.job.items_lost.fetch_add(1, Relaxed);
    context.tally.lose(LossKind::Item, || directory.path(name), error.to_string());
    Ok(())
}

fn settle(context: &Context, directory: &Directory, name: &[u8], trouble: Trouble) -> Result<()> {
    match trouble {
        Trouble::Job(error) => Err(error),
        Trouble::Volume(error) => lose(context, directory, name, &error),
        Trouble::Damaged(error) => {
            context.job.items_lost.fetch_add(1, Relaxed);
            context.tally.lose(LossKind::Damaged, || directory.path(name), error.to_string());
            Ok(())
        }
    }
}

/// Counts a file that is whole.
pub(super) fn count_done(context: &Context, size_bytes: u64) {
    context.tally.files.fetch_add(1, Relaxed);
    context.tally.bytes_total.fetch_add(size_bytes, Relaxed);
    context.job.files_done.fetch_add(1, Relaxed);
    context.job.bytes_done.fetch_add(size_bytes, Relaxed);
}

/// Does a task.
pub(super) fn work(context: &Arc<Context>, task: Task) -> Result<()> {
    match task {
        Task::Batch { groups, underway } => {
            for (directory, files) in groups {
                for mut file in files {
                    context.check()?;
                    if let Err(trouble) = small(context, &directory, &mut file) {
                        settle(context, &directory, &file.entry.name, trouble)?;
                    }
                }
                directory.release(context);
            }
            drop(underway);
            Ok(())
        }
        Task::Segment { file, pieces, underway } => {
            // Damage in one segment is no reason to leave out the others when what can be read is to be kept.
            let ours = match &*file.failed.lock().unwrap_or_else(PoisonError::into_inner) {
                None => true,
                Some(Trouble::Damaged(_)) => context.options.keep_damaged,
                Some(_) => false,
            };
            if ours && let Err(trouble) = pieces::segment(context, &file, pieces) {
                match trouble {
                    Trouble::Job(error) => return Err(error),
                    trouble => file.fail(trouble),
                }
            }
            drop(underway);
            file.release(context)
        }
    }
}

pub(super) fn parts(entry: &Entry) -> (u64, &[Item]) {
    match &entry.node {
        Node::File { size_bytes, content } => (*size_bytes, content),
        _ => (0, &[]),
    }
}

fn small(context: &Context, directory: &Arc<Directory>, work: &mut FileWork) -> Tried<()> {
    let pieces = work.pieces.take();
    let work = &*work;
    let entry = &work.entry;
    let (size_bytes, _) = parts(entry);
    let dir = directory.open(context)?;
    if work.exists && standing::keep(context, directory, work, &*dir)? {
        return Ok(());
    }
    let placed = place(context, dir, entry, work.exists)?;
    let mut damage = None;
    let filled = pieces::fill(context, &placed, entry, pieces, &mut damage);
    finish(context, directory, work, size_bytes, &placed, filled.and(damage.map_or(Ok(()), Err)))
}

/// Makes the file under its name, or under a temporary one when something else has the name.
fn place(context: &Context, dir: Arc<dyn Dir>, entry: &Entry, exists: bool) -> Tried<Placed> {
    if !exists {
        match dir.create_file(&entry.name) {
            Ok(file) => return Ok(Placed { dir, file, temporary: None, in_place: false, settled: AtomicBool::new(false) }),
            Err(error) if error.kind == VolumeErrorKind::Exists => {}
            Err(error) => return Err(error.into()),
        }
    }
    if dir.stat(&entry.name).is_ok_and(|stat| stat.kind == Kind::Directory) {
        dir.remove_all(&entry.name)?;
        let file = dir.create_file(&entry.name)?;
        return Ok(Placed { dir, file, temporary: None, in_place: false, settled: AtomicBool::new(false) });
    }
    loop {
        let name = context.temporary.name();
        match dir.create_file(&name) {
            Ok(file) => return Ok(Placed { dir, file, temporary: Some(name), in_place: false, settled: AtomicBool::new(false) }),
            Err(error) if error.kind == VolumeErrorKind::Exists => context.check()?,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Metadata and the true name for a file that is whole; for one that is not, nothing is left that looks like it.
fn finish(
    context: &Context,
    directory: &Arc<Directory>,
    work: &FileWork,
    size_bytes: u64,
    placed: &Placed,
    outcome: Tried<()>,
) -> Tried<()> {
    let name = &work.entry.name;
    let there = placed.temporary.as_ref().unwrap_or(name);
    let outcome = outcome.and_then(|()| {
        let (allowed, dropped): (Metadata, _) = context.options.policy.filter(&metadata_of(&work.entry), Kind::File);
        let losses = placed.file.set_metadata(&allowed)?;
        if placed.temporary.is_some() {
            placed.dir.rename(there, name)?;
            placed.settled.store(true, Relaxed);
        }
        name_losses(context, directory, name, LossKind::Dropped, dropped);
        name_losses(context, directory, name, LossKind::Attribute, losses);
        whole(context, work, size_bytes);
        Ok(())
    });
    if let Err(trouble) = &outcome {
        let damaged = matches!(trouble, Trouble::Damaged(_));
        let kept = (damaged && context.options.keep_damaged) || placed.in_place;
        let aside = [name.as_slice(), DAMAGED_SUFFIX].concat();
        let cleared = if kept { placed.dir.rename(there, &aside) } else { placed.dir.remove_all(there) };
        placed.settled.store(true, Relaxed);
        if let Err(error) = cleared {
            context.tally.lose(
                LossKind::Item,
                || directory.path(there),
                format!("part of a file that is not whole stays here: {error}"),
            );
        }
    }
    outcome
}

pub(super) fn whole(context: &Context, work: &FileWork, size_bytes: u64) {
    if let Some(number) = work.link {
        context.linked.set(number);
    }
    count_done(context, size_bytes);
}

impl Drop for Placed {
    /// A job that ended early leaves no temporary names. Under its true name a new large file stays as far as it came: the next restore
    /// compares it and goes on from there.
    fn drop(&mut self) {
        if let Some(name) = self.temporary.take().filter(|_| !self.settled.load(Relaxed)) {
            let _ = self.dir.remove_all(&name);
        }
    }
}

impl Large {
    pub fn fail(&self, trouble: Trouble) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(trouble);
    }

    /// One segment less; the last one finishes the file.
    fn release(&self, context: &Context) -> Result<()> {
        if self.remaining.fetch_sub(1, Ordering::AcqRel) != 1 {
            return Ok(());
        }
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        if failed.is_none() && self.placed.in_place && !self.written.load(Relaxed) {
            context.tally.files_unchanged.fetch_add(1, Relaxed);
        }
        let outcome = finish(context, &self.directory, &self.work, self.size_bytes, &self.placed, failed.map_or(Ok(()), Err));
        if let Err(trouble) = outcome {
            settle(context, &self.directory, &self.work.entry.name, trouble)?;
        }
        self.directory.release(context);
        Ok(())
    }
}

/// Opens a large file and hands out its segments.
pub(super) fn start_large(context: &Arc<Context>, crew: &Crew, directory: &Arc<Directory>, work: FileWork) -> Result<()> {
    let (size_bytes, _) = parts(&work.entry);
    match standing::keep_large(context, directory, &work) {
        Ok(false) => {}
        Ok(true) => return Ok(()),
        Err(trouble) => return settle(context, directory, &work.entry.name, trouble),
    }
    let placed = match open_large(context, directory, &work, size_bytes) {
        Ok(placed) => placed,
        Err(trouble) => return settle(context, directory, &work.entry.name, trouble),
    };
    directory.hold();
    let file = Arc::new(Large {
        directory: Arc::clone(directory),
        size_bytes,
        placed,
        remaining: AtomicUsize::new(1),
        written: AtomicBool::new(false),
        failed: Mutex::new(None),
        work,
    });
    let (mut offset, mut pieces, mut bytes) = (0, Vec::new(), 0);
    let submit = |pieces: Vec<Piece>| {
        file.remaining.fetch_add(1, Ordering::AcqRel);
        crew.submit(context, Task::Segment { file: Arc::clone(&file), pieces, underway: None })
    };
    let (_, content) = parts(&file.work.entry);
    let segment_bytes = context.task_bytes_max.min(SEGMENT_BYTES);
    let mut ended = None;
    let index = context.reader.index();
    let visited = context.reader.for_each_item(content, Owner::File, &mut |item| {
        pieces.push(Piece::new(offset, item, Some(&*index).filter(|_| !file.placed.in_place)));
        offset += item.span();
        bytes += if matches!(item, Item::Data { .. }) { item.span() } else { 0 };
        if bytes >= segment_bytes || pieces.len() >= 4096 {
            bytes = 0;
            if let Err(error) = submit(std::mem::take(&mut pieces)) {
                ended = Some(error);
                return Ok(false);
            }
        }
        Ok(true)
    });
    if let Some(error) = ended {
        return Err(error);
    }
    match visited {
        Ok(_) => {}
        // A list that cannot be read: where the rest lies nobody knows.
        Err(error) if is_damage(&error) => file.fail(Trouble::Damaged(error)),
        Err(error) => return Err(error),
    }
    if !pieces.is_empty() {
        submit(pieces)?;
    }
    file.release(context)
}

fn open_large(context: &Context, directory: &Arc<Directory>, work: &FileWork, size_bytes: u64) -> Tried<Placed> {
    let dir = directory.open(context)?;
    let name = &work.entry.name;
    if work.exists
        && let Ok(stat) = dir.stat(name)
        && stat.kind == Kind::File
        && stat.size_bytes.abs_diff(size_bytes) <= size_bytes / 2
        && stat.links == 1
        && let Ok(file) = dir.open_file_for_update(name)
    {
        if stat.size_bytes != size_bytes {
            file.set_len(size_bytes)?;
        }
        return Ok(Placed { dir, file, temporary: None, in_place: true, settled: AtomicBool::new(false) });
    }
    let mut placed = place(context, dir, &work.entry, work.exists)?;
    placed.file.write_past_cache();
    if let Err(error) = placed.file.set_len(size_bytes) {
        let _ = placed.dir.remove_all(placed.temporary.as_ref().unwrap_or(name));
        return Err(error.into());
    }
    Ok(placed)
}
