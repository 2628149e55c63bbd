//! The walk through the tree: makes directories, links and special files, and hands files to the workers.
//!
//! Goes in tree order, which is the order in which a backup wrote, so that reads are neighbours. Small files travel in batches of
//! neighbours (two threads that create in one directory wait for one another in the kernel), large ones in segments; what a batch or a
//! segment needs is planned when it is handed over, and fetched while those before it are written. Without workers
//! everything happens here. Recursion over depth there is none.

use super::Context;
use super::file::{self, FileWork, Task};
use super::links::Links;
use super::pieces;
use super::place::{self, Directory, OPEN_DIRECTORIES_MAX, name_losses};
use super::tally::{LossKind, kind_of, metadata_of};
use super::temporary::sweep;
use crate::error::{Error, Result};
use crate::repository::ahead::Ahead;
use crate::repository::cursor::{EntryCursor, Step};
use crate::volume::{Dir, Kind, Name, VolumeError, VolumeErrorKind};
use crossbeam_channel::Sender;
use longshore_format::pack::BirthName;
use longshore_format::tree::{Entry, Node};
use std::collections::HashSet;
use std::iter::Peekable;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::vec::IntoIter;

/// Most files that travel together; their bytes are bounded by the budget.
const BATCH_FILES_MAX: usize = 512;
/// Directories from which they may come: each is a descriptor.
const BATCH_DIRECTORIES_MAX: usize = 16;
/// Tasks that wait for a worker, per worker.
const QUEUE_PER_WORKER: usize = 4;
/// Levels whose piece of a directory stays in memory while the walk is further below.
const PIECES_KEPT: usize = 64;

/// Where tasks go.
pub(super) struct Crew {
    sender: Option<Sender<Task>>,
    handles: Vec<Box<dyn crate::seams::Handle>>,
    ahead: Ahead,
}

impl Crew {
    fn start(context: &Arc<Context>) -> Result<Self> {
        let workers = context.options.workers;
        if workers == 0 {
            return Ok(Self { sender: None, handles: Vec::new(), ahead: context.ahead.clone() });
        }
        let (sender, receiver) = crossbeam_channel::bounded::<Task>(workers * QUEUE_PER_WORKER);
        let mut crew = Self { sender: Some(sender), handles: Vec::with_capacity(workers), ahead: context.ahead.clone() };
        for number in 0..workers {
            let (shared, receiver) = (Arc::clone(context), receiver.clone());
            let body = Box::new(move || {
                while let Ok(task) = receiver.recv() {
                    // After a failure the queue is only emptied, so that nobody waits at its end.
                    if let Err(error) = shared.check().and_then(|()| file::work(&shared, task)) {
                        shared.fail(error);
                    }
                }
            });
            let spawn = &context.reader.repository().world.spawn;
            match spawn.spawn(&format!("restore-{number}"), body) {
                Ok(handle) => crew.handles.push(handle),
                Err(error) if crew.handles.is_empty() => return Err(error),
                Err(error) => {
                    tracing::warn!(error = %error, "Restoring with fewer threads");
                    break;
                }
            }
        }
        crew.start_fetching(context);
        Ok(crew)
    }

    fn start_fetching(&mut self, context: &Context) {
        for number in 0..context.options.fetch_threads {
            self.ahead.open();
            let ahead = self.ahead.clone();
            let spawn = &context.reader.repository().world.spawn;
            match spawn.spawn(&format!("restore-fetch-{number}"), Box::new(move || ahead.serve())) {
                Ok(handle) => self.handles.push(handle),
                Err(error) => {
                    tracing::warn!(error = %error, "Fetching with fewer threads");
                    if number == 0 {
                        self.ahead.close();
                    }
                    return;
                }
            }
        }
    }

    /// Plans what the task needs, and hands it to a worker.
    pub fn submit(&self, context: &Arc<Context>, mut task: Task) -> Result<()> {
        task.plan(context, self.sender.is_some())?;
        match &self.sender {
            None => file::work(context, task),
            Some(sender) => {
                context.check()?;
                sender.send(task).map_err(|_| Error::internal("all threads of the restore have ended"))
            }
        }
    }

    fn finish(mut self) -> Result<()> {
        self.sender = None;
        self.ahead.close();
        let ended = self.handles.drain(..).map(crate::seams::Handle::join).fold(true, |all, one| all & one);
        if ended { Ok(()) } else { Err(Error::internal("a thread of the restore panicked")) }
    }
}

/// A directory that the walk is in.
struct Level {
    directory: Arc<Directory>,
    cursor: EntryCursor,
    /// What was there before, ascending; what the snapshot has not is passed by.
    existing: Peekable<IntoIter<Name>>,
    may_delete: bool,
}

/// Counts what a restore would do.
pub(super) fn count(context: &Context, top: &Entry) -> Result<()> {
    let start = if matches!(top.node, Node::Directory { .. }) { EntryCursor::new(top) } else { EntryCursor::only(top.clone()) };
    let mut stack = vec![(start, top.name.clone())];
    while let Some((cursor, _)) = stack.last_mut() {
        context.check()?;
        match cursor.step(&context.reader)? {
            Step::End => {
                stack.pop();
            }
            Step::Damaged(error) => {
                let path = || stack.iter().skip(1).map(|(_, name)| name.as_slice()).collect::<Vec<_>>().join(&b'/');
                context.tally.lose(LossKind::Damaged, path, format!("some entries of this directory cannot be read: {error}"));
            }
            Step::Entry(entry) => match &entry.node {
                Node::Directory { .. } => {
                    cursor.rest();
                    context.tally.directories.fetch_add(1, Relaxed);
                    stack.push((EntryCursor::new(&entry), entry.name));
                }
                Node::File { size_bytes, .. } => {
                    context.tally.files.fetch_add(1, Relaxed);
                    context.tally.bytes_total.fetch_add(*size_bytes, Relaxed);
                }
                _ => {
                    context.tally.others.fetch_add(1, Relaxed);
                }
            },
        }
    }
    Ok(())
}

/// Restores `top` into the root: the contents of a directory, or anything else under its name.
pub(super) fn run(context: &Arc<Context>, root: &Arc<Directory>, top: Entry) -> Result<()> {
    let crew = Crew::start(context)?;
    let mut links = Links::default();
    let walked = Walk { context, crew: &crew, links: &mut links, stack: Vec::new(), pending: Pending::default() }.run(root, top);
    if let Err(error) = &walked {
        context.fail(error.clone());
    }
    let joined = crew.finish();
    walked?;
    joined?;
    context.check()?;
    links.make(context)?;
    root.release(context);
    Ok(())
}

struct Walk<'a> {
    context: &'a Arc<Context>,
    crew: &'a Crew,
    links: &'a mut Links,
    stack: Vec<Level>,
    pending: Pending,
}

/// Small files on their way to a worker: neighbours, so that the frames which they share are opened once.
#[derive(Default)]
struct Pending {
    groups: Vec<(Arc<Directory>, Vec<FileWork>)>,
    files: usize,
    bytes: u64,
    frames: HashSet<BirthName>,
    frame_bytes: u64,
}

/// What keeps the walk from going on, or only from one item.
enum Refused {
    Job(Error),
    Item(VolumeError),
}

impl From<VolumeError> for Refused {
    fn from(error: VolumeError) -> Self {
        Self::Item(error)
    }
}

impl Walk<'_> {
    fn run(mut self, root: &Arc<Directory>, top: Entry) -> Result<()> {
        let whole = matches!(top.node, Node::Directory { .. });
        let target = |error: VolumeError| Error::from(error).while_doing("target");
        let dir = root.open(self.context).map_err(target)?;
        let existing = sweep(self.context, &*dir, dir.names().map_err(target)?);
        let cursor = if whole { EntryCursor::new(&top) } else { EntryCursor::only(top) };
        self.stack.push(Level {
            directory: Arc::clone(root),
            cursor,
            existing: existing.into_iter().peekable(),
            may_delete: whole && self.context.options.delete_extra,
        });
        while let Some(level) = self.stack.last_mut() {
            self.context.check()?;
            match level.cursor.step(&self.context.reader)? {
                Step::Entry(entry) => self.entry(*entry)?,
                Step::Damaged(error) => {
                    // Which of the names that are there belong to the lost entries nobody knows.
                    level.may_delete = false;
                    let message = format!("some entries of this directory cannot be read: {error}");
                    self.context.tally.lose(LossKind::Damaged, || level.directory.path(b""), message);
                }
                Step::End => self.leave()?,
            }
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        let Some(mut level) = self.stack.pop() else { return Ok(()) };
        if level.may_delete {
            for name in level.existing.by_ref() {
                delete_extra(self.context, &level.directory, &name);
            }
        }
        if self.stack.is_empty() {
            // The root is released when the links are made.
            return self.flush();
        }
        if self.context.open_directories.load(Relaxed) > OPEN_DIRECTORIES_MAX {
            level.directory.close(self.context);
        }
        level.directory.release(self.context);
        Ok(())
    }

    /// Hands over the small files that were gathered.
    fn flush(&mut self) -> Result<()> {
        if self.pending.groups.is_empty() {
            return Ok(());
        }
        let groups = std::mem::take(&mut self.pending).groups;
        self.crew.submit(self.context, Task::Batch { groups, underway: None })
    }

    /// Gathers a small file with its neighbours.
    fn gather(&mut self, directory: &Arc<Directory>, mut work: FileWork, size_bytes: u64) -> Result<()> {
        if !work.exists {
            work.pieces = pieces::pieces(self.context, &work.entry)?;
        }
        let pending = &mut self.pending;
        pending.files += 1;
        pending.bytes += size_bytes;
        for wanted in work.pieces.iter().flatten().filter_map(|piece| piece.wanted.as_ref()) {
            if let Some(found) = &wanted.found
                && pending.frames.insert(found.frame.birth)
            {
                pending.frame_bytes += u64::from(found.frame.payload_bytes);
            }
        }
        match pending.groups.last_mut() {
            Some((last, files)) if Arc::ptr_eq(last, directory) => files.push(work),
            _ => {
                directory.hold();
                pending.groups.push((Arc::clone(directory), vec![work]));
            }
        }
        let limit = self.context.task_bytes_max;
        let full = pending.files >= BATCH_FILES_MAX || pending.bytes >= limit || pending.frame_bytes >= limit;
        if full || pending.groups.len() >= BATCH_DIRECTORIES_MAX { self.flush() } else { Ok(()) }
    }

    fn entry(&mut self, entry: Entry) -> Result<()> {
        let (context, depth) = (self.context, self.stack.len());
        let Some(level) = self.stack.last_mut() else { return Ok(()) };
        let mut exists = false;
        while let Some(name) = level.existing.next_if(|name| *name <= entry.name) {
            if name == entry.name {
                exists = true;
            } else if level.may_delete {
                delete_extra(context, &level.directory, &name);
            }
        }
        context.job.at(&entry.name);
        let directory = Arc::clone(&level.directory);
        if matches!(entry.node, Node::Directory { .. }) {
            if depth > PIECES_KEPT {
                level.cursor.rest();
            }
            return match self.enter(&directory, &entry, exists) {
                Ok(()) => Ok(()),
                Err(Refused::Job(error)) => Err(error),
                Err(Refused::Item(error)) => file::lose(context, &directory, &entry.name, &error),
            };
        }
        let link = match self.links.meet(&directory, &entry) {
            None => None,
            Some(Some(first)) => Some(first),
            // A later name of a file: made at the end.
            Some(None) => return self.links.defer(context, &directory, entry, exists),
        };
        let work = FileWork { entry, exists, link, pieces: None };
        let Node::File { size_bytes, .. } = work.entry.node else {
            return other(context, &directory, &work);
        };
        context.job.files_found.fetch_add(1, Relaxed);
        context.job.bytes_found.fetch_add(size_bytes, Relaxed);
        if size_bytes > file::LARGE_BYTES {
            return file::start_large(context, self.crew, &directory, work);
        }
        self.gather(&directory, work, size_bytes)
    }

    fn enter(&mut self, parent: &Arc<Directory>, entry: &Entry, exists: bool) -> std::result::Result<(), Refused> {
        let context = self.context;
        let above = parent.open(context)?;
        let (dir, fresh) = open_or_make(&*above, &entry.name, exists)?;
        let existing = if fresh {
            Vec::new()
        } else {
            place::make_writable(&*dir);
            sweep(context, &*dir, dir.names()?)
        };
        let directory = Directory::child(context, parent, entry.name.clone(), dir, metadata_of(entry));
        context.tally.directories.fetch_add(1, Relaxed);
        if context.open_directories.load(Relaxed) > OPEN_DIRECTORIES_MAX {
            let near = self.stack.len().saturating_sub(OPEN_DIRECTORIES_MAX / 4);
            for level in &self.stack[..near] {
                level.directory.close(context);
            }
        }
        self.stack.push(Level {
            directory,
            cursor: EntryCursor::new(entry),
            existing: existing.into_iter().peekable(),
            may_delete: context.options.delete_extra,
        });
        context.check().map_err(Refused::Job)
    }
}

fn delete_extra(context: &Context, directory: &Arc<Directory>, name: &[u8]) {
    match directory.open(context).and_then(|dir| dir.remove_all(name)) {
        Ok(()) => {
            context.tally.extra_deleted.fetch_add(1, Relaxed);
        }
        Err(error) => context.tally.lose(LossKind::Item, || directory.path(name), format!("not in the snapshot, and {error}")),
    }
}

/// Opens the directory `name`, or makes it, in place of anything else that has the name. Also says whether it is new.
fn open_or_make(above: &dyn Dir, name: &[u8], exists: bool) -> std::result::Result<(Arc<dyn Dir>, bool), VolumeError> {
    if !exists {
        match above.create_dir(name) {
            Ok(dir) => return Ok((Arc::from(dir), true)),
            Err(error) if error.kind == VolumeErrorKind::Exists => {}
            Err(error) => return Err(error),
        }
    }
    let stat = above.stat(name)?;
    if stat.kind != Kind::Directory {
        above.remove_all(name)?;
        return Ok((Arc::from(above.create_dir(name)?), true));
    }
    let dir = match above.open_dir(name) {
        Err(error) if error.kind == VolumeErrorKind::Denied => {
            // Ours perhaps, and closed to ourselves.
            let xattrs = above.xattrs(name, Kind::Directory)?;
            above.set_metadata(name, Kind::Directory, &super::tally::with_mode(&stat, stat.mode | 0o700, xattrs))?;
            above.open_dir(name)?
        }
        other => other?,
    };
    Ok((Arc::from(dir), false))
}

/// A link, device, FIFO or socket.
pub(super) fn other(context: &Context, directory: &Arc<Directory>, work: &FileWork) -> Result<()> {
    let entry = &work.entry;
    let kind = kind_of(&entry.node);
    if let Err(loss) = context.options.policy.admit(kind) {
        name_losses(context, directory, &entry.name, LossKind::Dropped, vec![loss]);
        return Ok(());
    }
    let made = directory.open(context).and_then(|dir| {
        make_other(&*dir, entry, work.exists)?;
        let (allowed, dropped) = context.options.policy.filter(&metadata_of(entry), kind);
        name_losses(context, directory, &entry.name, LossKind::Dropped, dropped);
        dir.set_metadata(&entry.name, kind, &allowed)
    });
    match made {
        Ok(losses) => {
            name_losses(context, directory, &entry.name, LossKind::Attribute, losses);
            if let Some(link) = &work.link {
                link.done.store(true, Relaxed);
            }
            context.tally.others.fetch_add(1, Relaxed);
            Ok(())
        }
        Err(error) => file::lose(context, directory, &entry.name, &error),
    }
}

fn make_other(dir: &dyn Dir, entry: &Entry, exists: bool) -> std::result::Result<(), VolumeError> {
    let make = || match &entry.node {
        Node::Symlink { target } => dir.create_symlink(&entry.name, target),
        Node::BlockDevice { major, minor } | Node::CharDevice { major, minor } => {
            dir.create_special(&entry.name, kind_of(&entry.node), (*major, *minor))
        }
        node => dir.create_special(&entry.name, kind_of(node), (0, 0)),
    };
    if !exists {
        match make() {
            Err(error) if error.kind == VolumeErrorKind::Exists => {}
            other => return other,
        }
    }
    dir.remove_all(&entry.name)?;
    make()
}
