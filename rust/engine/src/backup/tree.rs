//! Directories, bottom-up.
//!
//! A [`DirNode`] waits until each of its entries is settled (by the walk or by a worker), then whoever settled the last one closes
//! it: its entries become pieces, pieces a content, and the content an entry of the directory above. A directory whose entries
//! are all those of the parent snapshot takes over the parent's content without being encoded again.
//!
//! A huge directory closes in parts, so that no more of its entries are in memory than a part has. A part ends behind a name at which
//! a piece ends anyway, so the pieces are those that the whole directory would have been cut into.

use super::crew::{Shared, Worker};
use super::lock;
use super::pieces::{encode_pieces, fit, fold_content};
use crate::error::{Error, Result};
use crate::packer::Packer;
use crate::repository::cursor::is_damage;
use crate::repository::reader::ChunkReader;
use crate::statcache::{Block, DirectoryRecord, NOWHERE, Needs, StatCache};
use crate::volume::{Dir, Stat};
use longshore_format::id::ChunkKind;
use longshore_format::tree::{Entry, Item, Node, Owner, Time};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// A directory with more entries than this, now or in the parent snapshot, is huge. A settled entry takes about 300 bytes until its directory
/// closes, and 250 more while the stat cache is written, so this many take 70 MB.
pub(super) const HUGE_ENTRIES: usize = 1 << 17;

/// A directory's block in the stat cache.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub cache: Arc<StatCache>,
    pub number: u32,
}

impl Known {
    /// The block, whose sum was checked when the directory was entered.
    pub fn block(&self) -> Option<Block<'_>> {
        self.cache.block_again(self.number)
    }
}

/// Where the stat cache has, or will have, what belongs to a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nowhere.
    None,
    /// In the cache that this backup began with, by block.
    Old(u32),
    /// In the one that it makes.
    New(u32),
}

/// A settled entry.
#[derive(Debug)]
pub(crate) struct Settled {
    pub entry: Entry,
    /// The row of the directory's block whose content this entry kept.
    pub kept: Option<usize>,
    /// Of a directory.
    pub place: Place,
}

impl Settled {
    /// An entry that has nothing in the cache.
    pub fn new(entry: Entry) -> Self {
        Self { entry, kept: None, place: Place::None }
    }
}

#[derive(Debug)]
enum Slots {
    All(Vec<Option<Settled>>),
    /// Of a quiet directory: only what has changed, and what was an entry and is none.
    Changed(BTreeMap<usize, Option<Settled>>),
    /// Of a huge directory: the pieces of each part.
    Parts(Vec<Vec<Item>>),
}

/// A directory on its way to becoming a tree.
#[derive(Debug)]
pub(crate) struct DirNode {
    pub dir: Arc<dyn Dir>,
    pub path: Vec<u8>,
    /// The directory above and the slot there; none for the root. Of a part: the directory, and the number of the part.
    pub above: Option<(Arc<DirNode>, usize)>,
    /// Its own entry, still without content.
    pub own: Mutex<Option<Entry>>,
    /// Its own entry in the parent snapshot.
    pub previous: Option<Box<Entry>>,
    /// Number of entries that the parent snapshot has, to see whether one is missing now.
    pub previous_entries: usize,
    /// What the stat cache has of it.
    pub known: Option<Known>,
    is_part: bool,
    slots: Mutex<Slots>,
    /// Entries not settled yet, and one for the walk itself.
    waiting: AtomicUsize,
    /// Whether all that was settled is as it was in the parent snapshot.
    same: AtomicBool,
}

impl DirNode {
    pub fn new(
        dir: Arc<dyn Dir>,
        path: Vec<u8>,
        above: Option<(Arc<Self>, usize)>,
        own: Entry,
        entries: usize,
        previous: Option<(Box<Entry>, usize)>,
        known: Option<Known>,
    ) -> Self {
        let (previous, previous_entries) = previous.map_or((None, 0), |(entry, count)| (Some(entry), count));
        Self {
            dir,
            path,
            above,
            own: Mutex::new(Some(own)),
            same: AtomicBool::new(previous.is_some()),
            previous,
            previous_entries,
            known,
            is_part: false,
            slots: Mutex::new(Slots::All((0..entries).map(|_| None).collect())),
            waiting: AtomicUsize::new(entries + 1),
        }
    }

    /// A huge directory, whose entries are settled in [`DirNode::part`]s.
    pub fn huge(
        dir: Arc<dyn Dir>,
        path: Vec<u8>,
        above: Option<(Arc<Self>, usize)>,
        own: Entry,
        parts: usize,
        previous: Option<Box<Entry>>,
    ) -> Self {
        let slots = Mutex::new(Slots::Parts(vec![Vec::new(); parts]));
        Self { slots, ..Self::new(dir, path, above, own, parts, previous.map(|entry| (entry, 0)), None) }
    }

    /// Some entries of a huge directory.
    pub fn part(of: &Arc<Self>, number: usize, entries: usize) -> Self {
        Self {
            dir: Arc::clone(&of.dir),
            path: of.path.clone(),
            above: Some((Arc::clone(of), number)),
            own: Mutex::new(None),
            previous: None,
            previous_entries: 0,
            known: None,
            is_part: true,
            slots: Mutex::new(Slots::All((0..entries).map(|_| None).collect())),
            waiting: AtomicUsize::new(entries + 1),
            same: AtomicBool::new(false),
        }
    }

    /// A directory that is as its block says, but perhaps for some of its `directories`.
    pub fn quiet(
        dir: Arc<dyn Dir>,
        path: Vec<u8>,
        above: Option<(Arc<Self>, usize)>,
        previous: Option<Box<Entry>>,
        known: Known,
        directories: usize,
    ) -> Self {
        Self {
            dir,
            path,
            above,
            own: Mutex::new(None),
            same: AtomicBool::new(true),
            previous,
            previous_entries: 0,
            known: Some(known),
            is_part: false,
            slots: Mutex::new(Slots::Changed(BTreeMap::new())),
            waiting: AtomicUsize::new(directories + 1),
        }
    }

    /// Whether it was found as its block says.
    pub fn is_quiet(&self) -> bool {
        matches!(*lock(&self.slots), Slots::Changed(_))
    }

    /// Whether nothing in it, nor below, has changed. Only of a complete quiet directory.
    pub fn is_same(&self) -> bool {
        self.same.load(Ordering::Acquire)
    }

    /// Its entry in the parent snapshot, from there or from the cache.
    pub fn previous_entry(&self) -> Option<Entry> {
        match (&self.previous, &self.known) {
            (Some(entry), _) => Some((**entry).clone()),
            (None, Some(known)) => known.block()?.own(),
            (None, None) => None,
        }
    }

    /// Path of an entry from the volume's root, without a leading slash.
    pub fn path_of(&self, name: &[u8]) -> Vec<u8> {
        if self.path.is_empty() { name.to_vec() } else { [&self.path[..], b"/", name].concat() }
    }

    /// Puts an entry into its slot (`None`: it is not part of the snapshot). Whether the directory is now complete.
    pub fn put(&self, slot: usize, entry: Option<Settled>, same: bool) -> bool {
        if !same {
            self.same.store(false, Ordering::Relaxed);
        }
        match &mut *lock(&self.slots) {
            Slots::All(slots) => {
                if let Some(place) = slots.get_mut(slot) {
                    *place = entry;
                }
            }
            Slots::Changed(slots) => {
                if !same {
                    slots.insert(slot, entry);
                }
            }
            Slots::Parts(_) => {}
        }
        self.release()
    }

    /// The pieces of all parts of a huge directory.
    fn take_parts(&self) -> Option<Vec<Item>> {
        match &mut *lock(&self.slots) {
            Slots::Parts(parts) => Some(std::mem::take(parts).into_iter().flatten().collect()),
            _ => None,
        }
    }

    /// Puts the pieces of a part into their place. Whether the directory is now complete.
    fn put_part(&self, number: usize, pieces: Vec<Item>) -> bool {
        if let Slots::Parts(parts) = &mut *lock(&self.slots)
            && let Some(place) = parts.get_mut(number)
        {
            *place = pieces;
        }
        self.release()
    }

    /// Takes one off what is waited for. Whether that was the last.
    pub fn release(&self) -> bool {
        self.waiting.fetch_sub(1, Ordering::AcqRel) == 1
    }
}

/// An entry from what `statx` said.
pub(crate) fn entry_of(name: &[u8], stat: &Stat, xattrs: Vec<(Vec<u8>, Vec<u8>)>, changed: bool, node: Node) -> Entry {
    let directory = matches!(node, Node::Directory { .. });
    Entry {
        name: name.to_vec(),
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        mtime: Time { secs: stat.mtime.secs, nanos: stat.mtime.nanos },
        ctime: Time { secs: stat.ctime.secs, nanos: stat.ctime.nanos },
        inode: stat.inode,
        link_device: (stat.links > 1 && !directory).then_some(stat.device),
        changed,
        incomplete: false,
        xattrs,
        node,
    }
}

/// Settles an entry and closes its directory, and those above, when it was the last.
pub(crate) fn settle(worker: &mut Worker, node: &Arc<DirNode>, slot: usize, entry: Option<Entry>, same: bool) -> Result<()> {
    if node.put(slot, entry.map(Settled::new), same) { close_directory(worker, Arc::clone(node)) } else { Ok(()) }
}

/// Ends a quiet directory in and below which nothing has changed, and those above that it ends; the first that is not such a one
/// and is complete comes back, to be closed.
pub(crate) fn close_quiet(shared: &Shared, node: Arc<DirNode>) -> Result<Option<Arc<DirNode>>> {
    let mut node = node;
    while node.is_quiet() && node.is_same() {
        let place = node.known.as_ref().map_or(Place::None, |known| Place::Old(known.number));
        let damaged = || shared.cache_damaged("a directory's block can no longer be read");
        let Some((above, slot)) = &node.above else {
            *lock(&shared.root) = Some((node.previous_entry().ok_or_else(damaged)?, place));
            return Ok(None);
        };
        let entry = if above.is_quiet() { None } else { Some(node.previous_entry().ok_or_else(damaged)?) };
        if !above.put(*slot, entry.map(|entry| Settled { entry, kept: None, place }), true) {
            return Ok(None);
        }
        let above = Arc::clone(above);
        node = above;
    }
    Ok(Some(node))
}

/// Closes a complete directory, and those above that it completes.
pub(crate) fn close_directory(worker: &mut Worker, node: Arc<DirNode>) -> Result<()> {
    let mut node = node;
    loop {
        let Some(open) = close_quiet(&worker.shared, node)? else { return Ok(()) };
        if let (true, Some((whole, number))) = (open.is_part, &open.above) {
            let Slots::All(slots) = std::mem::replace(&mut *lock(&open.slots), Slots::All(Vec::new())) else { return Ok(()) };
            let mut entries: Vec<Settled> = slots.into_iter().flatten().collect();
            let pieces = encode_pieces(worker, &open, &mut entries)?;
            if !whole.put_part(*number, pieces) {
                return Ok(());
            }
            node = Arc::clone(whole);
            continue;
        }
        let (mut own, mut entries, previous) = entries_of(worker, &open)?;
        let parts = open.take_parts();
        let is_huge = parts.is_some();
        let content = match parts {
            Some(pieces) => fold_content(worker, pieces)?,
            None => match take_over(worker, &open, entries.len())? {
                Some(content) => content,
                None => {
                    let pieces = encode_pieces(worker, &open, &mut entries)?;
                    fold_content(worker, pieces)?
                }
            },
        };
        own.node = Node::Directory { content };
        let same = previous.as_ref() == Some(&own);
        if open.above.is_none() {
            fit(worker, &open, &mut own);
        }
        // A block of the cache is made in memory, and a huge directory has none.
        let place = if is_huge { Place::None } else { record(worker, &open, &own, &entries) };
        match &open.above {
            None => {
                *lock(&worker.shared.root) = Some((own, place));
                return Ok(());
            }
            Some((above, slot)) => {
                // A quiet directory above keeps only what has changed; what is the same and stands in another block has changed there.
                if !above.put(*slot, Some(Settled { entry: own, kept: None, place }), same && !above.is_quiet()) {
                    return Ok(());
                }
                node = Arc::clone(above);
            }
        }
    }
}

/// A complete directory's own entry, its entries in order, and its entry in the parent.
fn entries_of(worker: &mut Worker, node: &DirNode) -> Result<(Entry, Vec<Settled>, Option<Entry>)> {
    let mut changed = {
        let mut slots = lock(&node.slots);
        match &mut *slots {
            Slots::Changed(changed) => std::mem::take(changed),
            open => {
                let own = lock(&node.own).take().ok_or_else(|| Error::internal("a directory was closed twice"))?;
                let entries = if let Slots::All(slots) = open { std::mem::take(slots) } else { Vec::new() };
                return Ok((own, entries.into_iter().flatten().collect(), node.previous.as_deref().cloned()));
            }
        }
    };
    let shared = Arc::clone(&worker.shared);
    let damaged = |why: &str| shared.cache_damaged(why);
    let previous = node.previous_entry().ok_or_else(|| damaged("a directory's block can no longer be read"))?;
    let known = node.known.as_ref().ok_or_else(|| damaged("a quiet directory is not in the cache"))?;
    let block = known.block().ok_or_else(|| damaged("a directory's block can no longer be read"))?;
    let (mut entries, mut at) = (Vec::with_capacity(block.len()), 0);
    let read = shared.reader.for_each_entry(&previous, &mut |entry| {
        if at >= block.len() || block.name(at) != entry.name {
            return Err(Error::corrupt("a directory has other entries than the cache says"));
        }
        match changed.remove(&at) {
            Some(other) => entries.extend(other),
            None => {
                let child = block.row(at).child();
                let place = if child == NOWHERE { Place::None } else { Place::Old(child) };
                entries.push(Settled { entry, kept: Some(at), place });
            }
        }
        at += 1;
        Ok(true)
    });
    match read {
        Ok(_) if at == block.len() => {
            Ok((Entry { node: Node::Directory { content: Vec::new() }, ..previous.clone() }, entries, Some(previous)))
        }
        Ok(_) => Err(damaged("a directory has fewer entries than the cache says")),
        Err(error) if is_damage(&error) => Err(damaged(error.message())),
        Err(error) => Err(error),
    }
}

/// Puts a directory into the stat cache that is being made.
fn record(worker: &Worker, node: &DirNode, own: &Entry, entries: &[Settled]) -> Place {
    let Some(recorder) = &worker.shared.recorder else { return Place::None };
    let block = node.known.as_ref().and_then(|known| Some((&*known.cache, known.block()?)));
    let mut directory = DirectoryRecord::default();
    for settled in entries {
        let child = match (settled.place, &worker.shared.cache) {
            (Place::New(number), _) => number,
            (Place::Old(number), Some(cache)) => recorder.take_over(cache, number),
            _ => NOWHERE,
        };
        let needs = match (&settled.entry.node, settled.kept, &block) {
            (Node::File { .. }, Some(row), Some((cache, block))) => Some(Needs::Kept(cache, block, row)),
            (Node::File { content, .. }, _, _) => Some(Needs::Content(content, Owner::File)),
            _ => None,
        };
        directory.push(&settled.entry, child, needs);
    }
    if let Node::Directory { content } = &own.node {
        directory.need(&Needs::Content(content, Owner::Directory));
    }
    match recorder.record(&directory, own) {
        NOWHERE => Place::None,
        number => Place::New(number),
    }
}

/// The parent's content when every entry is as it was and every chunk of it is still there.
fn take_over(worker: &mut Worker, node: &DirNode, entries: usize) -> Result<Option<Vec<Item>>> {
    let Some(previous) = &node.previous else { return Ok(None) };
    let Node::Directory { content } = &previous.node else { return Ok(None) };
    if !node.same.load(Ordering::Acquire) || entries != node.previous_entries {
        return Ok(None);
    }
    let reader = Arc::clone(&worker.shared.reader);
    Ok(rely_on_content(&mut worker.packer, &reader, content, Owner::Directory)?.then(|| content.clone()))
}

/// Relies on every chunk of a content, lists and what they name. False when one is not there.
pub(crate) fn rely_on_content(packer: &mut Packer, reader: &ChunkReader, content: &[Item], owner: Owner) -> Result<bool> {
    let mut whole = true;
    let mut lists = Vec::new();
    for item in content {
        if let Some(id) = item.id() {
            whole &= packer.rely_on(&id);
        }
        if let Item::List { id, span } = item {
            lists.push((*id, *span));
        }
    }
    if !whole {
        return Ok(false);
    }
    for (id, span) in lists {
        // A list that does not open makes the file be read again: what is damaged heals while the source has it.
        let inner = match reader.chunk(ChunkKind::List, &id) {
            Ok(bytes) => longshore_format::tree::decode_list(&bytes, owner, span).ok(),
            Err(error) if error.kind() == crate::error::ErrorKind::Corrupt => None,
            Err(error) => return Err(error),
        };
        match inner {
            Some(inner) if rely_on_content(packer, reader, &inner, owner)? => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// The path of a name in the directory at `path`.
pub(super) fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}
