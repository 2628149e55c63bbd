//! Directories, bottom-up.
//!
//! A [`DirNode`] waits until each of its entries is settled (by the walk or by a worker), then whoever settled the last one closes
//! it: its entries become pieces, pieces a content, and the content an entry of the directory above. A directory whose entries
//! are all those of the parent snapshot takes over the parent's content without being encoded again.

use super::crew::Worker;
use super::lock;
use crate::error::{Error, Result};
use crate::packer::Packer;
use crate::repository::reader::ChunkReader;
use crate::volume::{Dir, Stat};
use longshore_format::id::ChunkKind;
use longshore_format::limits;
use longshore_format::snapshot::LostReason;
use longshore_format::tree::{Entry, Item, Node, Owner, Time};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Most items in an entry; more go into list chunks.
const INLINE_ITEMS_MAX: usize = 64;
const LIST_ITEMS_MAX: usize = 4096;
const LIST_CUT: u32 = 256;
const PIECE_CUT: u32 = 128;
const PIECE_BYTES_MAX: usize = 128 << 10;

/// A directory on its way to becoming a tree.
#[derive(Debug)]
pub(crate) struct DirNode {
    pub dir: Box<dyn Dir>,
    pub path: Vec<u8>,
    /// The directory above and the slot there; none for the root.
    pub above: Option<(Arc<DirNode>, usize)>,
    /// Its own entry, still without content.
    pub own: Mutex<Option<Entry>>,
    /// Its own entry in the parent snapshot.
    pub previous: Option<Box<Entry>>,
    /// Number of entries that the parent snapshot has, to see whether one is missing now.
    pub previous_entries: usize,
    slots: Mutex<Vec<Option<Entry>>>,
    /// Entries not settled yet, and one for the walk itself.
    waiting: AtomicUsize,
    /// Whether all that was settled is as it was in the parent snapshot.
    same: AtomicBool,
}

impl DirNode {
    pub fn new(
        dir: Box<dyn Dir>,
        path: Vec<u8>,
        above: Option<(Arc<Self>, usize)>,
        own: Entry,
        entries: usize,
        previous: Option<(Box<Entry>, usize)>,
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
            slots: Mutex::new((0..entries).map(|_| None).collect()),
            waiting: AtomicUsize::new(entries + 1),
        }
    }

    /// Path of an entry from the volume's root, without a leading slash.
    pub fn path_of(&self, name: &[u8]) -> Vec<u8> {
        if self.path.is_empty() { name.to_vec() } else { [&self.path[..], b"/", name].concat() }
    }

    /// Puts an entry into its slot (`None`: it is not part of the snapshot). Whether the directory is now complete.
    pub fn put(&self, slot: usize, entry: Option<Entry>, same: bool) -> bool {
        if !same {
            self.same.store(false, Ordering::Relaxed);
        }
        if entry.is_some()
            && let Some(place) = lock(&self.slots).get_mut(slot)
        {
            *place = entry;
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
    if node.put(slot, entry, same) { close_directory(worker, Arc::clone(node)) } else { Ok(()) }
}

/// Closes a complete directory, and those above that it completes.
pub(crate) fn close_directory(worker: &mut Worker, node: Arc<DirNode>) -> Result<()> {
    let mut node = node;
    loop {
        let entries: Vec<Entry> = std::mem::take(&mut *lock(&node.slots)).into_iter().flatten().collect();
        let mut own = lock(&node.own).take().ok_or_else(|| Error::internal("a directory was closed twice"))?;
        let taken_over = take_over(worker, &node, entries.len())?;
        let content = match taken_over {
            Some(content) => content,
            None => {
                let pieces = encode_pieces(worker, &node, entries)?;
                fold_content(worker, pieces)?
            }
        };
        own.node = Node::Directory { content };
        let same = node.previous.as_deref() == Some(&own);
        match &node.above {
            None => {
                fit(worker, &node, &mut own);
                *lock(&worker.shared.root) = Some(own);
                return Ok(());
            }
            Some((above, slot)) => {
                if !above.put(*slot, Some(own), same) {
                    return Ok(());
                }
                let above = Arc::clone(above);
                node = above;
            }
        }
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

fn first_u32(hash: &[u8; 32]) -> u32 {
    u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]])
}

/// Takes the xattrs off an entry that the format would refuse with them, and names them as lost.
fn fit(worker: &Worker, node: &DirNode, entry: &mut Entry) {
    let bytes: usize = entry.xattrs.iter().map(|(name, value)| name.len() + value.len() + 16).sum();
    // What is not xattrs is at most a name, a target and 64 items: far below the limit.
    let long = |(name, value): &(Vec<u8>, Vec<u8>)| {
        name.len() > limits::XATTR_NAME_BYTES_MAX || value.len() > limits::XATTR_VALUE_BYTES_MAX
    };
    if bytes > limits::ENTRY_BYTES_MAX / 2 || entry.xattrs.len() > limits::XATTRS_MAX || entry.xattrs.iter().any(long) {
        let message =
            format!("extended attributes are larger than the format takes: xattrs={}, bytes={bytes}", entry.xattrs.len());
        worker.shared.notes.lose(&worker.shared.job, LostReason::Other, &node.path_of(&entry.name), message);
        entry.xattrs.clear();
    }
}

fn encode_pieces(worker: &mut Worker, node: &DirNode, mut entries: Vec<Entry>) -> Result<Vec<Item>> {
    for entry in &mut entries {
        fit(worker, node, entry);
    }
    let (mut pieces, mut piece, mut scratch, mut count) = (Vec::new(), Vec::new(), Vec::new(), 0u64);
    for (at, entry) in entries.iter().enumerate() {
        entry.encode(&mut scratch, &mut piece);
        count += 1;
        let cut = first_u32(blake3::keyed_hash(&worker.shared.cut_tree, &entry.name).as_bytes()).is_multiple_of(PIECE_CUT);
        if cut || piece.len() >= PIECE_BYTES_MAX || at + 1 == entries.len() {
            let (id, _) = worker.packer.store(ChunkKind::Tree, &piece)?;
            pieces.push(Item::Piece { id, span: count });
            piece.clear();
            count = 0;
        }
    }
    Ok(pieces)
}

/// Puts items into list chunks until few enough are left to stand in an entry.
pub(crate) fn fold_content(worker: &mut Worker, mut items: Vec<Item>) -> Result<Vec<Item>> {
    while items.len() > INLINE_ITEMS_MAX {
        let (mut lists, mut list, mut span, mut count) = (Vec::new(), Vec::new(), 0u64, 0usize);
        for (at, item) in items.iter().enumerate() {
            item.encode(&mut list);
            span += item.span();
            count += 1;
            let cut = item.id().is_some_and(|id| first_u32(&id.0).is_multiple_of(LIST_CUT));
            if cut || count == LIST_ITEMS_MAX || at + 1 == items.len() {
                let (id, _) = worker.packer.store(ChunkKind::List, &list)?;
                lists.push(Item::List { id, span });
                list.clear();
                (span, count) = (0, 0);
            }
        }
        items = lists;
    }
    Ok(items)
}
