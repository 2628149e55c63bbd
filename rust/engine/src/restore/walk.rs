//! The walk through the tree: makes directories, links and special files, and hands files to the workers.
//!
//! Goes in tree order, which is the order in which a backup wrote, so that reads are neighbours. Small files travel in batches of
//! neighbours (two threads that create in one directory wait for one another in the kernel), large ones in segments; what a batch or a
//! segment needs is planned when it is handed over, and fetched while those before it are written. Without workers
//! everything happens here. Recursion over depth there is none.

use super::Context;
use super::crew::Crew;
use super::file::{self, FileWork, Task};
use super::links::{LaterName, Links, Meeting};
use super::pieces;
use super::place::{self, Directory, OPEN_DIRECTORIES_MAX, name_losses};
use super::standing;
use super::tally::{LossKind, kind_of, metadata_of};
use super::temporary::sweep;
use crate::error::{Error, Result};
use crate::repository::cursor::{EntryCursor, Step};
use crate::volume::{Dir, IntoNames, Kind, Names, VolumeError, VolumeErrorKind};
use longshore_format::pack::BirthName;
use longshore_format::tree::{Entry, Node};
use std::collections::HashSet;
use std::iter::Peekable;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Most files that travel together; their bytes are bounded by the budget.
const BATCH_FILES_MAX: usize = 512;
/// Directories from which they may come: each is a descriptor.
const BATCH_DIRECTORIES_MAX: usize = 16;
/// Levels whose piece of a directory stays in memory while the walk is further below.
const PIECES_KEPT: usize = 64;

/// A directory that the walk is in.
struct Level {
    directory: Arc<Directory>,
    cursor: EntryCursor,
    /// What was there before, ascending; what the snapshot has not is passed by.
    existing: Peekable<IntoNames>,
    may_delete: bool,
    /// Its row among the directories that hold first names of files with several.
    links_row: Option<u32>,
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
    let mut walk = Walk { context, crew: &crew, links: Links::default(), stack: Vec::new(), pending: Pending::default() };
    let walked = walk.run(root, top);
    let links = walk.links;
    if let Err(error) = &walked {
        context.fail(error.clone());
    }
    let joined = crew.finish();
    walked?;
    joined?;
    context.check()?;
    links.release(context);
    root.release(context);
    Ok(())
}

struct Walk<'a> {
    context: &'a Arc<Context>,
    crew: &'a Crew,
    links: Links,
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
    fn run(&mut self, root: &Arc<Directory>, top: Entry) -> Result<()> {
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
            links_row: None,
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
            // The root is released when all is done.
            self.make_links(true)?;
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
        if let Node::File { size_bytes, .. } = entry.node {
            context.job.files_found.fetch_add(1, Relaxed);
            context.job.bytes_found.fetch_add(size_bytes, Relaxed);
        }
        let link = match self.links.meet(&directory, &mut level.links_row, &entry) {
            Meeting::Only => None,
            Meeting::First(number) => Some(number),
            Meeting::Later(number) => {
                let later = LaterName { number, directory, entry, exists };
                if Links::is_due(context, number) {
                    return self.link(later);
                }
                self.links.wait(later);
                return if self.links.is_full() { self.make_links(false) } else { Ok(()) };
            }
        };
        self.write(&directory, FileWork { entry, exists, link, pieces: None })
    }

    /// Writes anything but a directory.
    fn write(&mut self, directory: &Arc<Directory>, work: FileWork) -> Result<()> {
        match work.entry.node {
            Node::File { size_bytes, .. } if size_bytes > file::LARGE_BYTES => {
                file::start_large(self.context, self.crew, directory, work)
            }
            Node::File { size_bytes, .. } => self.gather(directory, work, size_bytes),
            _ => other(self.context, directory, &work),
        }
    }

    /// Makes names that wait: where their files are whole, and all when that is too few.
    fn make_links(&mut self, all: bool) -> Result<()> {
        if !all {
            self.link_each(false)?;
            if !self.links.is_half_full() {
                return Ok(());
            }
        }
        if self.links.is_waiting() {
            self.flush()?;
            self.crew.settle(self.context)?;
            self.link_each(true)?;
        }
        Ok(())
    }

    fn link_each(&mut self, all: bool) -> Result<()> {
        for later in self.links.take(self.context, all) {
            self.context.check()?;
            let directory = Arc::clone(&later.directory);
            self.link(later)?;
            directory.release(self.context);
        }
        Ok(())
    }

    /// Makes a later name: as a link, or, where that cannot be, as a file of its own.
    fn link(&mut self, later: LaterName) -> Result<()> {
        let (context, made) = (self.context, self.links.make(self.context, &later));
        let LaterName { directory, entry, exists, .. } = later;
        match made {
            Ok(()) => {
                if let Node::File { size_bytes, .. } = entry.node {
                    file::count_done(context, size_bytes);
                } else {
                    context.tally.others.fetch_add(1, Relaxed);
                }
                Ok(())
            }
            Err(error) if error.kind == VolumeErrorKind::NoSpace => file::lose(context, &directory, &entry.name, &error),
            Err(error) => {
                context.tally.lose(LossKind::Attribute, || directory.path(&entry.name), format!("hard link: {error}"));
                self.write(&directory, FileWork { entry, exists, link: None, pieces: None })
            }
        }
    }

    fn enter(&mut self, parent: &Arc<Directory>, entry: &Entry, exists: bool) -> std::result::Result<(), Refused> {
        let context = self.context;
        let above = parent.open(context)?;
        let (dir, fresh) = open_or_make(&*above, &entry.name, exists)?;
        let existing = if fresh {
            Names::default()
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
            links_row: None,
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
        let seen = if work.exists { standing::other(&*dir, entry) } else { None };
        if seen.is_none() {
            make_other(&*dir, entry, work.exists)?;
        }
        let (allowed, dropped) = context.options.policy.filter(&metadata_of(entry), kind);
        name_losses(context, directory, &entry.name, LossKind::Dropped, dropped);
        match seen {
            Some(seen) if standing::needs_nothing(&*dir, &entry.name, &seen, &allowed) => Ok(Vec::new()),
            _ => dir.set_metadata(&entry.name, kind, &allowed),
        }
    });
    match made {
        Ok(losses) => {
            name_losses(context, directory, &entry.name, LossKind::Attribute, losses);
            if let Some(number) = work.link {
                context.linked.set(number);
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
