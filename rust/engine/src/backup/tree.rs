//! Directories, bottom-up.
//!
//! A [`DirNode`] waits until each of its entries is settled (by the walk or by a worker), then whoever settled the last one closes
//! it: its entries become pieces, pieces a content, and the content an entry of the directory above. A directory whose entries
//! are all those of the parent snapshot takes over the parent's content without being encoded again; one that the stat cache knows takes over
//! the pieces in which nothing has changed (`patch`).
//!
//! A huge directory closes in parts, so that no more of its entries are in memory than a part has. A part ends behind a name at which
//! a piece ends anyway, so the pieces are those that the whole directory would have been cut into.

use super::crew::{Shared, Worker};
use super::lock;
use super::patch::{Patched, patch};
use super::pieces::{encode_pieces, fit, fold_content};
use super::rows::{Recorded, Rows, record};
use crate::error::{Error, Result};
use crate::packer::Packer;
use crate::repository::reader::ChunkReader;
use crate::statcache::{Block, StatCache};
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

/// Entries by slot; none where one was to be.
pub(super) type Changed = BTreeMap<usize, Option<Settled>>;

#[derive(Debug)]
enum Slots {
    All(Vec<Option<Settled>>),
    /// Of a known directory: only what is not as its row says, and what was to be an entry and is none.
    Changed(Changed),
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
    /// Of a known directory.
    rows: Rows,
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
            rows: Rows::All,
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
            rows: Rows::All,
            is_part: true,
            slots: Mutex::new(Slots::All((0..entries).map(|_| None).collect())),
            waiting: AtomicUsize::new(entries + 1),
            same: AtomicBool::new(false),
        }
    }

    /// A directory of which `rows` are as its block says, but perhaps for directories among them; `waiting` others and directories are
    /// still to be settled. `own`: its own entry, when that is not as it was.
    #[expect(clippy::too_many_arguments, reason = "what `enter` has found, handed on")]
    pub fn known(
        dir: Arc<dyn Dir>,
        path: Vec<u8>,
        above: Option<(Arc<Self>, usize)>,
        own: Option<Entry>,
        previous: Option<Box<Entry>>,
        known: Known,
        rows: Rows,
        waiting: usize,
    ) -> Self {
        Self {
            dir,
            path,
            above,
            same: AtomicBool::new(own.is_none() && matches!(rows, Rows::All)),
            own: Mutex::new(own),
            previous,
            previous_entries: 0,
            known: Some(known),
            rows,
            is_part: false,
            slots: Mutex::new(Slots::Changed(BTreeMap::new())),
            waiting: AtomicUsize::new(waiting + 1),
        }
    }

    /// Whether slots of it are as its block says, without having been settled.
    pub fn is_known(&self) -> bool {
        matches!(*lock(&self.slots), Slots::Changed(_))
    }

    /// Whether nothing in it, nor below, has changed, by its block alone. Only of a complete directory.
    pub fn is_quiet(&self) -> bool {
        self.is_known() && self.same.load(Ordering::Acquire)
    }

    /// Whether an entry that is the same as in the parent snapshot needs no word: its row says it all.
    pub fn keeps(&self, slot: usize) -> bool {
        self.is_known() && self.rows.get(slot).is_some()
    }

    /// What a known directory was found to be, once it is complete: its own entry if that has changed, its rows, and what is not as they say.
    pub(super) fn take_known(&self) -> Option<(Option<Entry>, &Rows, Changed)> {
        match &mut *lock(&self.slots) {
            Slots::Changed(changed) => Some((lock(&self.own).take(), &self.rows, std::mem::take(changed))),
            _ => None,
        }
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
                if !same || self.rows.get(slot).is_none() {
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
    while node.is_quiet() {
        let place = node.known.as_ref().map_or(Place::None, |known| Place::Old(known.number));
        let damaged = || shared.cache_damaged("a directory's block can no longer be read");
        let Some((above, slot)) = &node.above else {
            *lock(&shared.root) = Some((node.previous_entry().ok_or_else(damaged)?, place));
            return Ok(None);
        };
        let entry = if above.keeps(*slot) { None } else { Some(node.previous_entry().ok_or_else(damaged)?) };
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
        let (mut own, previous, recorded) = match patch(worker, &open)? {
            Some(Patched { own, previous, record }) => (own, Some(previous), Recorded::Rows(record)),
            None => {
                let (mut own, mut entries) = entries_of(&open)?;
                // A block of the cache is made in memory, and a huge directory has none.
                let (content, recorded) = match open.take_parts() {
                    Some(pieces) => (fold_content(worker, pieces)?, Recorded::None),
                    None => {
                        let content = match take_over(worker, &open, entries.len())? {
                            Some(content) => content,
                            None => {
                                let pieces = encode_pieces(worker, &open, &mut entries)?;
                                fold_content(worker, pieces)?
                            }
                        };
                        (content, Recorded::Entries(entries))
                    }
                };
                own.node = Node::Directory { content };
                (own, open.previous.as_deref().cloned(), recorded)
            }
        };
        let same = previous.as_ref() == Some(&own);
        if open.above.is_none() {
            fit(worker, &open, &mut own);
        }
        let place = record(worker, &open, &own, recorded);
        match &open.above {
            None => {
                *lock(&worker.shared.root) = Some((own, place));
                return Ok(());
            }
            Some((above, slot)) => {
                // A known directory above keeps only what has changed; what is the same and stands in another block has changed there.
                if !above.put(*slot, Some(Settled { entry: own, kept: None, place }), same && !above.is_known()) {
                    return Ok(());
                }
                node = Arc::clone(above);
            }
        }
    }
}

/// A complete directory's own entry and its entries in order.
fn entries_of(node: &DirNode) -> Result<(Entry, Vec<Settled>)> {
    let own = lock(&node.own).take().ok_or_else(|| Error::internal("a directory was closed twice"))?;
    let entries = if let Slots::All(slots) = &mut *lock(&node.slots) { std::mem::take(slots) } else { Vec::new() };
    Ok((own, entries.into_iter().flatten().collect()))
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
