//! What is there, and what of it is as it was.
//!
//! Each walker goes over its part of the volume (`walkers`) without recursion, names ascending, and merges each directory with the same
//! directory of the parent snapshot. Where the stat cache knows a directory, no entry is made of what `statx` says the same of: only what
//! has changed, and what lies below, is looked at (`known`). A file whose content stands by the change test (`drift`) is not opened,
//! provided that every chunk of it is in a listed pack. Nor is one that an interrupted run had read and stored, by the same test.
//!
//! Rooms: `threads` (who walks), `known` (a directory that the stat cache knows).
//!
//! Over 500 lines because the walk decides here, entry by entry, between all that it may know of one: cache, parent, interrupted run.

mod known;
pub(crate) mod threads;

use super::crew::{Crew, Task};
use super::drift::{ChangeTest, Content, explained, times};
use super::exclude::Excludes;
use super::file::{FileBatch, FileJob};
use super::patch::PreviousRows;
use super::pieces::cut_parts;
use super::proof::{Proof, Relied};
use super::slowness::{Gauge, timed};
use super::tree::{DirNode, HUGE_ENTRIES, Known, Place, Settled, close_quiet, entry_of, join, rely_on_content};
use super::walkers::{Pool, Room};
use super::{BackupOptions, Notes};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{Interrupted, Partial, ReadFiles, Recorded};
use crate::packer::Packer;
use crate::repository::cursor::{EntryCursor, Step};
use crate::repository::reader::ChunkReader;
use crate::seams::Spawn;
use crate::statcache::{self, NOWHERE};
use crate::volume::{Dir, Kind, Name, Names, Stat, VolumeError, VolumeErrorKind};
use longshore_format::limits;
use longshore_format::snapshot::LostReason;
use longshore_format::tree::{Entry, Item, Node, Owner};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::{Deref, Range};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

/// Files in a batch, and their bytes: enough to make handing over cheap, few enough to keep all workers busy.
const BATCH_FILES: usize = 64;
const BATCH_BYTES: u64 = 1 << 20;
/// Listing a name takes as long as copying so many bytes.
const NAME_BYTES_WORTH: u64 = 2 << 10;

/// Extended attributes by name.
type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// What is known of an entry before it is looked at.
#[derive(Clone, Copy)]
enum Was {
    /// What the parent snapshot has by that name, if anything.
    Ask,
    /// It is as this row of the directory's block says.
    Kept(usize),
    /// It is other than this row of the directory's block says.
    Changed(usize),
    /// The directory's block has nothing by that name.
    New,
}

/// An entry to look at.
struct Todo {
    slot: usize,
    was: Was,
    name: Vec<u8>,
    /// What was seen of it already.
    stat: Option<Stat>,
}

/// The entries of a directory, or of a part of one, that are still to be looked at.
enum Todos {
    /// All of a range of its names, with what was seen of the first of them already.
    Names { names: Arc<Names>, first: usize, range: Range<usize>, stats: std::vec::IntoIter<Stat> },
    /// These.
    Some(std::vec::IntoIter<Todo>),
}

impl Iterator for Todos {
    type Item = Todo;

    fn next(&mut self) -> Option<Todo> {
        match self {
            Self::Some(todo) => todo.next(),
            Self::Names { names, first, range, stats } => {
                let at = range.next()?;
                Some(Todo { slot: at - *first, was: Was::Ask, name: names.get(at)?.to_vec(), stat: stats.next() })
            }
        }
    }
}

struct Level {
    node: Arc<DirNode>,
    todo: Todos,
    /// Entries of the parent.
    previous: Previous,
    /// The same of a known directory, by row; none before one is asked for.
    rows: Option<PreviousRows>,
    /// What is still to come of a huge directory.
    huge: Option<Huge>,
    /// Files of it that an interrupted run had read.
    resumed: ReadFiles,
    /// Its own times are as recorded, so no name in it was given to another file.
    stands: bool,
    batch: Vec<FileJob>,
    batch_bytes: u64,
    /// How many directories are above it.
    depth: u64,
    /// That it, or what is below it, goes beyond its walker's share.
    _room: Option<Held>,
}

/// A huge directory, while one of its parts is walked.
struct Huge {
    node: Arc<DirNode>,
    names: Arc<Names>,
    /// How many of them the parts have had.
    taken: usize,
    /// The number of names in each part, and the number of the next one.
    parts: std::vec::IntoIter<usize>,
    number: usize,
}

/// The entries of a directory in the parent snapshot, each with its place among them: all, or of a huge one those that are next.
#[derive(Default)]
struct Previous {
    next: VecDeque<(usize, Entry)>,
    rest: Option<EntryCursor>,
    read: usize,
}

/// A directory that changes hands before it is opened.
#[derive(Debug)]
struct Below {
    node: Arc<DirNode>,
    slot: usize,
    row: Option<usize>,
    name: Vec<u8>,
    stat: Stat,
    previous: Option<Box<Entry>>,
    depth: u64,
}

/// The pool's room in the hands of a walker, who needs it once.
struct Held {
    _room: Room<Below>,
    has_room: Rc<Cell<bool>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.has_room.set(false);
    }
}

/// What all walkers know.
struct Walk {
    crew: Arc<Crew>,
    excludes: Arc<Excludes>,
    options: BackupOptions,
    test: ChangeTest,
    root_device: u64,
    proof: Option<Arc<Proof>>,
    pool: Arc<Pool<Below>>,
    walkers: usize,
    /// Whether nobody ever walks beside the first.
    alone: bool,
    /// How many entries of a directory each of them may have without the room, and how deep it may be.
    share: (u64, u64),
    /// How long the volume makes them wait for a listing or for the state of an entry.
    gauge: Gauge,
    spawn: Arc<dyn Spawn>,
    others: Mutex<threads::Others>,
}

/// One thread that walks.
struct Walker {
    walk: Arc<Walk>,
    relied: Option<RefCell<Relied>>,
    /// Its own view of what may be relied on; it never writes.
    packer: RefCell<Packer>,
    has_room: Rc<Cell<bool>>,
    share: (u64, u64),
}

impl Level {
    fn empty(node: DirNode, depth: u64, room: Option<Held>) -> Self {
        Self {
            node: Arc::new(node),
            todo: Todos::Some(Vec::new().into_iter()),
            previous: Previous::default(),
            rows: None,
            huge: None,
            resumed: ReadFiles::default(),
            stands: false,
            batch: Vec::new(),
            batch_bytes: 0,
            depth,
            _room: room,
        }
    }
}

impl Previous {
    /// The entry of a name, when there is one; names come ascending.
    fn find(&mut self, reader: &ChunkReader, name: &[u8]) -> Result<Option<(usize, Entry)>> {
        loop {
            match self.next.front() {
                Some((_, entry)) if entry.name.as_slice() < name => drop(self.next.pop_front()),
                Some((_, entry)) if entry.name == name => return Ok(self.next.pop_front()),
                Some(_) => return Ok(None),
                None => {
                    let Some(cursor) = &mut self.rest else { return Ok(None) };
                    match cursor.step(reader)? {
                        Step::Entry(entry) => {
                            self.next.push_back((self.read, *entry));
                            self.read += 1;
                        }
                        Step::Damaged(error) => {
                            tracing::warn!(error = %error, "Cannot read a part of a directory of the parent snapshot, reading its files instead");
                        }
                        Step::End => self.rest = None,
                    }
                }
            }
        }
    }
}

/// How many entries a directory has in the parent snapshot.
/// Attributes of an entry; of most entries one call tells that there are none.
fn xattrs_of(dir: &dyn Dir, name: &[u8], kind: Kind) -> std::result::Result<Vec<(Name, Vec<u8>)>, VolumeError> {
    if dir.is_without_xattrs(name) { Ok(Vec::new()) } else { dir.xattrs(name, kind) }
}

fn entries_in(entry: &Entry) -> u64 {
    match &entry.node {
        Node::Directory { content } => content.iter().map(Item::span).fold(0, u64::saturating_add),
        _ => 0,
    }
}

/// What is known of a directory before it is entered, most of it from the last backup.
struct Before {
    /// Its entry there.
    previous: Option<Box<Entry>>,
    /// Its block in the stat cache.
    known: Option<Known>,
    /// How many directories are above it.
    depth: u64,
}

impl Deref for Walker {
    type Target = Walk;

    fn deref(&self) -> &Walk {
        &self.walk
    }
}

impl Walker {
    fn new(walk: &Arc<Walk>, share: (u64, u64)) -> Result<Self> {
        Ok(Self {
            walk: Arc::clone(walk),
            relied: walk.proof.as_ref().map(|proof| RefCell::new(Relied::new(proof))),
            packer: RefCell::new(Packer::new(Arc::clone(&walk.crew.sink))?),
            has_room: Rc::default(),
            share,
        })
    }

    /// Walks what is below a directory, and then what others give away.
    fn run(self, first: Option<Level>) -> Result<()> {
        let mut levels: Vec<Level> = first.into_iter().collect();
        loop {
            while let Some(level) = levels.last_mut() {
                self.crew.sink.check()?;
                match level.todo.next() {
                    Some(todo) => {
                        if let Some(below) = self.visit(level, todo)? {
                            levels.push(below);
                        }
                    }
                    None => {
                        if !self.next_part(level)?
                            && let Some(done) = levels.pop()
                        {
                            self.leave(done)?;
                        }
                    }
                }
            }
            let Some(below) = self.pool.take() else { break };
            self.crew.sink.check()?;
            levels.extend(self.open(below)?);
        }
        if let Some(relied) = &self.relied {
            self.crew.add_usage(&relied.borrow().usage());
        }
        self.crew.add_usage(&self.packer.borrow().usage);
        Ok(())
    }

    fn notes(&self) -> &Notes {
        &self.walk.crew.shared.notes
    }

    fn interrupted(&self) -> Option<&Interrupted> {
        self.crew.shared.journal.as_ref().and_then(|journal| journal.before()).filter(|_| !self.options.paranoid)
    }

    /// Whether a directory of so many entries, so deep, is within this walker's share.
    fn is_within_share(&self, entries: u64, depth: u64) -> bool {
        let (entries_max, levels_max) = self.share;
        self.alone || self.has_room.get() || entries <= entries_max && depth <= levels_max
    }

    fn lose(&self, path: &[u8], error: &VolumeError, doing: &str) {
        self.notes().lose(&self.crew.shared.job, LostReason::Unreadable, path, format!("{doing}: {error}"));
    }

    /// Begins a directory. `None` when it cannot be listed; then it is named as lost.
    fn enter(
        &self,
        dir: Box<dyn Dir>,
        path: Vec<u8>,
        name: &[u8],
        stat: &Stat,
        above: Option<(Arc<DirNode>, usize)>,
        Before { mut previous, mut known, depth }: Before,
    ) -> Result<Option<Level>> {
        self.crew.shared.job.at(&path);
        let block = known.as_ref().and_then(|known| known.cache.block(known.number));
        let before = block.map_or(0, |block| block.len() as u64).max(previous.as_deref().map_or(0, entries_in));
        let (mut names, mut room) = (None, None);
        if self.is_within_share(before, depth) {
            names = Some(self.list(&*dir)?);
        }
        if names.as_ref().is_none_or(|names| names.as_ref().is_ok_and(|names| !self.is_within_share(names.len() as u64, depth))) {
            room = self.pool.try_room();
            if room.is_none() {
                // Nothing of it is kept while somebody else has the room.
                names = None;
                room = self.pool.room();
            }
            if room.is_none() {
                self.crew.sink.check()?;
                return Err(Error::internal("the walk was ended by another walker, who does not say why"));
            }
            self.has_room.set(true);
        }
        let room = room.map(|room| Held { _room: room, has_room: Rc::clone(&self.has_room) });
        let mut names = match names.map_or_else(|| self.list(&*dir), Ok)? {
            Ok(names) => names,
            Err(error) => {
                self.lose(&path, &error, "directory cannot be listed");
                return Ok(None);
            }
        };
        if !self.excludes.is_empty() {
            names.retain(|n| !self.excludes.leaves_out(&join(&path, n), n));
        }
        let dir: Arc<dyn Dir> = Arc::from(dir);
        let mut stats = Vec::new();
        match (&known, block) {
            (Some(known), Some(block)) => {
                // What was not compared by the row of the directory above is compared here.
                let own_is = previous.as_deref().is_none_or(|before| {
                    statcache::is_as_recorded(before, stat) && !self.test.is_fresh(times(stat).0, times(stat).1)
                });
                let (survey, nanos) = self.timed(|| self.survey(&*dir, &names, &block, &mut stats));
                self.gauge.note(nanos, stats.len() as u64, 0);
                if let Some(survey) = survey {
                    let (mut own, mut stands) = (None, true);
                    if let (false, Some(before)) = (own_is, previous.as_deref()) {
                        own = Some(self.own_entry(&*dir, &path, name, stat));
                        stands = self.test.directory_stands(before, stat);
                    }
                    let node = |rows, waiting| DirNode::known(dir, path, above, own, previous, known.clone(), rows, waiting);
                    return Ok(Some(self.enter_known(node, &names, stats, survey, (stands, depth, room))));
                }
                if previous.is_none() {
                    previous = Some(Box::new(block.own().ok_or_else(|| self.damaged())?));
                }
            }
            (Some(_), None) if previous.is_none() => return Err(self.damaged()),
            _ => known = None,
        }
        let is_huge =
            names.len() > HUGE_ENTRIES || previous.as_deref().is_some_and(|entry| entries_in(entry) > HUGE_ENTRIES as u64);
        if is_huge {
            known = None;
        }
        let previous_entries = if is_huge { None } else { self.previous_entries(previous.as_deref())? };
        let own = self.own_entry(&*dir, &path, name, stat);
        self.notes().directories.fetch_add(1, Relaxed);
        let stands = previous.as_deref().is_some_and(|before| self.test.directory_stands(before, stat));
        let resumed = self.interrupted().map(|run| run.directory(&path)).unwrap_or_default();
        if is_huge {
            let parts = cut_parts(&self.crew.shared.cut_tree, &names);
            let rest = previous.as_deref().filter(|entry| matches!(entry.node, Node::Directory { .. })).map(EntryCursor::new);
            let node = Arc::new(DirNode::huge(dir, path, above, own, parts.len() + 1, previous));
            // An empty part goes before the others, so that the level always has one.
            let first = DirNode::part(&node, 0, 0);
            let huge = Huge { node, names: Arc::new(names), taken: 0, parts: parts.into_iter(), number: 1 };
            let previous = Previous { rest, ..Previous::default() };
            return Ok(Some(Level { huge: Some(huge), previous, resumed, stands, ..Level::empty(first, depth, room) }));
        }
        let count = previous_entries.as_ref().map(VecDeque::len);
        let node = DirNode::new(dir, path, above, own, names.len(), previous.zip(count), known);
        let todo = Todos::Names { first: 0, range: 0..names.len(), names: Arc::new(names), stats: stats.into_iter() };
        let previous = Previous { next: previous_entries.unwrap_or_default(), ..Previous::default() };
        Ok(Some(Level { todo, previous, resumed, stands, ..Level::empty(node, depth, room) }))
    }

    /// Goes on to the next part of a huge directory. False: there is none.
    fn next_part(&self, level: &mut Level) -> Result<bool> {
        self.send_batch(level)?;
        let Some(huge) = &mut level.huge else { return Ok(false) };
        let Some(count) = huge.parts.next() else { return Ok(false) };
        let part = Arc::new(DirNode::part(&huge.node, huge.number, count));
        huge.number += 1;
        let first = huge.taken;
        huge.taken += count;
        let names = Arc::clone(&huge.names);
        level.todo = Todos::Names { names, first, range: first..huge.taken, stats: Vec::new().into_iter() };
        let done = std::mem::replace(&mut level.node, part);
        self.release(&done)?;
        Ok(true)
    }

    fn damaged(&self) -> Error {
        self.crew.shared.cache_damaged("a directory's block is damaged")
    }

    /// A directory's own entry as it is now, still without content.
    fn own_entry(&self, dir: &dyn Dir, path: &[u8], name: &[u8], stat: &Stat) -> Entry {
        let (xattrs, incomplete) = self.xattrs_or_none(path, dir.xattrs_self());
        Entry { incomplete, ..entry_of(name, stat, xattrs, false, Node::Directory { content: Vec::new() }) }
    }

    /// What was read of extended attributes, and whether some are missing: they are named as lost then, and the entry is incomplete, so that
    /// the next backup asks again whatever its times say.
    fn xattrs_or_none(&self, path: &[u8], read: std::result::Result<Xattrs, VolumeError>) -> (Xattrs, bool) {
        match read {
            Ok(xattrs) => (xattrs, false),
            Err(error) if error.kind == VolumeErrorKind::Unsupported => (Vec::new(), false),
            Err(error) => {
                let message = format!("extended attributes cannot be read: {error}");
                self.notes().lose(&self.crew.shared.job, LostReason::Other, path, message);
                (Vec::new(), true)
            }
        }
    }

    /// The entries of a directory in the parent snapshot; none when they cannot be read, and then all below is read afresh.
    fn previous_entries(&self, previous: Option<&Entry>) -> Result<Option<VecDeque<(usize, Entry)>>> {
        let Some(previous) = previous.filter(|e| matches!(e.node, Node::Directory { .. })) else { return Ok(None) };
        let mut entries = VecDeque::new();
        let read = self.crew.shared.reader.for_each_entry(previous, &mut |entry| {
            entries.push_back((entries.len(), entry));
            Ok(true)
        });
        match read {
            Ok(_) => Ok(Some(entries)),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                tracing::warn!(error = %error, "Cannot read a directory of the parent snapshot, reading its files instead");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn timed<T>(&self, work: impl FnOnce() -> T) -> (T, u64) {
        timed(&*self.crew.shared.clock, work)
    }

    fn list(&self, dir: &dyn Dir) -> Result<std::result::Result<Names, VolumeError>> {
        let (names, nanos) = self.timed(|| dir.names());
        let count = names.as_ref().map_or(0, Names::len) as u64;
        self.gauge.note(nanos, 1, count * NAME_BYTES_WORTH);
        self.walk.hurry()?;
        Ok(names)
    }

    /// The state of an entry; of each directory's first it is measured how long that takes.
    fn look(&self, level: &Level, slot: usize, name: &[u8]) -> std::result::Result<Stat, VolumeError> {
        if slot > 0 {
            return level.node.dir.stat(name);
        }
        let (stat, nanos) = self.timed(|| level.node.dir.stat(name));
        self.gauge.note(nanos, 1, 0);
        stat
    }

    fn visit(&self, level: &mut Level, todo: Todo) -> Result<Option<Level>> {
        let Todo { slot, was, name, stat } = todo;
        let (row, previous) = match was {
            Was::Ask => level.previous.find(&self.crew.shared.reader, &name)?.unzip(),
            Was::Kept(row) => (Some(row), None),
            Was::Changed(row) => (Some(row), Some(self.previous_of(level, row)?)),
            Was::New => (None, None),
        };
        let path = level.node.path_of(&name);
        if name.len() > limits::NAME_BYTES_MAX {
            self.notes().lose(&self.crew.shared.job, LostReason::NameTooLong, &path, "name is longer than the format takes");
            return self.put(&level.node, slot, None, false).map(|()| None);
        }
        let stat = match stat.map_or_else(|| self.look(level, slot, &name), Ok) {
            Ok(stat) => stat,
            Err(error) => {
                if error.kind == VolumeErrorKind::NotFound {
                    self.notes().vanished.fetch_add(1, Relaxed);
                } else {
                    self.lose(&path, &error, "cannot be looked at");
                }
                return self.put(&level.node, slot, None, false).map(|()| None);
            }
        };
        match stat.kind {
            Kind::Directory => self.visit_directory(level, (slot, row), name, path, stat, previous),
            Kind::File => self.visit_file(level, (slot, row), name, &path, stat, previous).map(|()| None),
            _ => self.visit_other(level, slot, &name, &path, &stat, previous.as_ref()).map(|()| None),
        }
    }

    fn visit_directory(
        &self,
        level: &mut Level,
        (slot, row): (usize, Option<usize>),
        name: Vec<u8>,
        path: Vec<u8>,
        stat: Stat,
        previous: Option<Entry>,
    ) -> Result<Option<Level>> {
        if self.options.one_file_system && stat.device != self.root_device {
            // The mount point is kept, empty; what is mounted there belongs to somebody else.
            let entry = entry_of(&name, &stat, Vec::new(), false, Node::Directory { content: Vec::new() });
            let same = previous.as_ref() == Some(&entry);
            self.notes().directories.fetch_add(1, Relaxed);
            return self.put(&level.node, slot, Some(Settled::new(entry)), same).map(|()| None);
        }
        let (node, previous, depth) = (Arc::clone(&level.node), previous.map(Box::new), level.depth + 1);
        let mut below = Below { node, slot, row, name, stat, previous, depth };
        // While the workers have enough to do they are what the backup waits for, and neighbours are better read one after another.
        if self.pool.is_wanted() && depth <= self.share.1 && self.crew.has_room() {
            match self.pool.offer(below) {
                None => return Ok(None),
                Some(back) => below = back,
            }
        }
        self.open_at(below, path)
    }

    /// Begins a directory that was given away.
    fn open(&self, below: Below) -> Result<Option<Level>> {
        let path = below.node.path_of(&below.name);
        self.open_at(below, path)
    }

    fn open_at(&self, below: Below, path: Vec<u8>) -> Result<Option<Level>> {
        let Below { node, slot, row, name, stat, previous, depth } = below;
        let dir = match node.dir.open_dir(&name) {
            Ok(dir) => dir,
            Err(error) => {
                match error.kind {
                    VolumeErrorKind::NotFound => {
                        self.notes().vanished.fetch_add(1, Relaxed);
                    }
                    _ => self.lose(&path, &error, "directory cannot be opened"),
                }
                return self.put(&node, slot, None, false).map(|()| None);
            }
        };
        let known = row.and_then(|row| {
            let known = node.known.as_ref()?;
            let block = known.block()?;
            let number = block.row(row).child();
            (block.name(row) == name && number != NOWHERE).then(|| Known { cache: Arc::clone(&known.cache), number })
        });
        match self.enter(dir, path, &name, &stat, Some((Arc::clone(&node), slot)), Before { previous, known, depth })? {
            Some(below) => Ok(Some(below)),
            None => self.put(&node, slot, None, false).map(|()| None),
        }
    }

    fn visit_file(
        &self,
        level: &mut Level,
        (slot, row): (usize, Option<usize>),
        name: Vec<u8>,
        path: &[u8],
        stat: Stat,
        previous: Option<Entry>,
    ) -> Result<()> {
        let job = &self.crew.shared.job;
        job.files_found.fetch_add(1, Relaxed);
        job.bytes_found.fetch_add(stat.size_bytes, Relaxed);
        if let Some(before) = &previous
            && let Some(entry) = self.unchanged(level, row, &name, path, &stat, before)?
        {
            let notes = self.notes();
            notes.files.fetch_add(1, Relaxed);
            notes.files_unchanged.fetch_add(1, Relaxed);
            notes.bytes.fetch_add(stat.size_bytes, Relaxed);
            job.files_done.fetch_add(1, Relaxed);
            job.bytes_done.fetch_add(stat.size_bytes, Relaxed);
            let same = *before == entry.entry;
            return self.put(&level.node, slot, Some(entry), same);
        }
        let mut begun = None;
        if let Some(entry) = self.resumed(level, &name, path, &stat, &mut begun)? {
            let notes = self.notes();
            notes.files.fetch_add(1, Relaxed);
            notes.bytes.fetch_add(stat.size_bytes, Relaxed);
            if previous.is_some() { &notes.files_changed } else { &notes.files_new }.fetch_add(1, Relaxed);
            notes.files_resumed.fetch_add(1, Relaxed);
            notes.bytes_resumed.fetch_add(stat.size_bytes, Relaxed);
            job.files_done.fetch_add(1, Relaxed);
            job.bytes_done.fetch_add(stat.size_bytes, Relaxed);
            return self.put(&level.node, slot, Some(Settled::new(entry)), false);
        }
        level.batch_bytes += stat.size_bytes;
        level.batch.push(FileJob { slot, name, stat, previous: previous.map(Box::new), begun, fetched: None });
        if level.batch.len() >= BATCH_FILES || level.batch_bytes >= BATCH_BYTES {
            self.send_batch(level)?;
        }
        Ok(())
    }

    /// The entry of a file that an interrupted run had read, when it is as it was then and all of it is in the repository. Where a part
    /// is missing, `begun` says what it consists of.
    fn resumed(
        &self,
        level: &mut Level,
        name: &[u8],
        path: &[u8],
        stat: &Stat,
        begun: &mut Option<Box<Partial>>,
    ) -> Result<Option<Entry>> {
        let Some(run) = self.interrupted() else { return Ok(None) };
        let Some(Recorded { entry: before, started_nanos }) = level.resumed.take(run, name) else { return Ok(None) };
        let xattrs = match self.test.of_interrupted(started_nanos).judge(&before, stat, false) {
            Content::Stands => before.xattrs.clone(),
            Content::StandsIfExplained => match xattrs_of(&*level.node.dir, name, Kind::File) {
                Ok(xattrs) if explained(&before, stat, &xattrs) => xattrs,
                _ => return Ok(None),
            },
            Content::Unknown => return Ok(None),
        };
        let Node::File { content, .. } = &before.node else { return Ok(None) };
        if !self.rely_on(content)? {
            tracing::debug!(path = %String::from_utf8_lossy(path), "The interrupted run had not stored all of a file, reading the rest");
            *begun = Partial::of_file(before, started_nanos).map(Box::new);
            return Ok(None);
        }
        Ok(Some(entry_of(name, stat, xattrs, false, before.node)))
    }

    /// The file's entry with the parent's content, when it need not be read.
    fn unchanged(
        &self,
        level: &Level,
        row: Option<usize>,
        name: &[u8],
        path: &[u8],
        stat: &Stat,
        before: &Entry,
    ) -> Result<Option<Settled>> {
        let Node::File { size_bytes, content } = &before.node else { return Ok(None) };
        let node = Node::File { size_bytes: *size_bytes, content: content.clone() };
        let entry = match self.test.judge(before, stat, level.stands) {
            Content::Unknown => return Ok(None),
            Content::Stands => entry_of(name, stat, before.xattrs.clone(), false, node),
            Content::StandsIfExplained => {
                let xattrs = match xattrs_of(&*level.node.dir, name, Kind::File) {
                    Ok(xattrs) => xattrs,
                    Err(error) if error.kind == VolumeErrorKind::Unsupported => Vec::new(),
                    Err(_) => return Ok(None),
                };
                if !explained(before, stat, &xattrs) {
                    return Ok(None);
                }
                entry_of(name, stat, xattrs, false, node)
            }
        };
        if let (Some(row), Some(known), Some(relied)) = (row, &level.node.known, &self.relied)
            && let Some(block) = known.block()
            && block.name(row) == name
            && relied.borrow_mut().rely_on(block.frames(row))
        {
            return Ok(Some(Settled { entry, kept: Some(row), place: Place::None }));
        }
        if self.rely_on(content)? {
            Ok(Some(Settled::new(entry)))
        } else {
            tracing::info!(path = %String::from_utf8_lossy(path), "A chunk of an unchanged file is not in the repository, reading the file again");
            Ok(None)
        }
    }

    fn visit_other(
        &self,
        level: &mut Level,
        slot: usize,
        name: &[u8],
        path: &[u8],
        stat: &Stat,
        previous: Option<&Entry>,
    ) -> Result<()> {
        let node = match stat.kind {
            Kind::Symlink => match level.node.dir.read_link(name) {
                Ok(target) => Node::Symlink { target },
                Err(error) => {
                    match error.kind {
                        VolumeErrorKind::NotFound => {
                            self.notes().vanished.fetch_add(1, Relaxed);
                        }
                        _ => self.lose(path, &error, "symbolic link cannot be read"),
                    }
                    return self.put(&level.node, slot, None, false);
                }
            },
            Kind::BlockDevice => Node::BlockDevice { major: stat.rdev.0, minor: stat.rdev.1 },
            Kind::CharDevice => Node::CharDevice { major: stat.rdev.0, minor: stat.rdev.1 },
            Kind::Fifo => Node::Fifo,
            _ => Node::Socket,
        };
        let known = previous.filter(|e| {
            (e.ctime.secs, e.ctime.nanos) == (stat.ctime.secs, stat.ctime.nanos) && e.inode == stat.inode && !e.incomplete
        });
        let (xattrs, incomplete) = match known {
            Some(entry) => (entry.xattrs.clone(), false),
            None => self.xattrs_or_none(path, xattrs_of(&*level.node.dir, name, stat.kind)),
        };
        self.notes().others.fetch_add(1, Relaxed);
        let entry = Entry { incomplete, ..entry_of(name, stat, xattrs, false, node) };
        let same = previous == Some(&entry);
        self.put(&level.node, slot, Some(Settled::new(entry)), same)
    }

    /// Relies on all chunks of a file.
    fn rely_on(&self, content: &[Item]) -> Result<bool> {
        rely_on_content(&mut self.packer.borrow_mut(), &self.crew.shared.reader, content, Owner::File)
    }

    /// Settles an entry from the walk. The hold of a level that is still walked keeps its directory from being complete here.
    fn put(&self, node: &Arc<DirNode>, slot: usize, entry: Option<Settled>, same: bool) -> Result<()> {
        if !node.put(slot, entry, same) {
            return Ok(());
        }
        self.close(node)
    }

    fn send_batch(&self, level: &mut Level) -> Result<()> {
        if level.batch.is_empty() {
            return Ok(());
        }
        let files = std::mem::take(&mut level.batch);
        level.batch_bytes = 0;
        self.crew.shared.job.at(&level.node.path);
        self.crew.submit(Task::Files(FileBatch { node: Arc::clone(&level.node), files }))
    }

    fn leave(&self, mut level: Level) -> Result<()> {
        self.send_batch(&mut level)?;
        self.release(&level.node)?;
        level.huge.map_or(Ok(()), |huge| self.release(&huge.node))
    }

    /// Lets go of the walk's own hold on a directory.
    fn release(&self, node: &Arc<DirNode>) -> Result<()> {
        if !node.release() {
            return Ok(());
        }
        self.close(node)
    }

    fn close(&self, node: &Arc<DirNode>) -> Result<()> {
        match close_quiet(&self.crew.shared, Arc::clone(node))? {
            Some(node) => self.crew.submit(Task::Close(node)),
            None => Ok(()),
        }
    }
}
