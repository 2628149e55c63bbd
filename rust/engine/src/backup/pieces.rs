//! How a directory's entries become pieces, and many items lists.
//!
//! Cuts by names and by what items name, so that a change moves few of them. Knows nothing of where entries come from.

use super::crew::Worker;
use super::tree::{DirNode, Settled};
use crate::error::Result;
use crate::volume::Names;
use longshore_format::id::ChunkKind;
use longshore_format::limits;
use longshore_format::snapshot::LostReason;
use longshore_format::tree::{Entry, Item};

/// Most items in an entry; more go into list chunks.
const INLINE_ITEMS_MAX: usize = 64;
const LIST_ITEMS_MAX: usize = 4096;
const LIST_CUT: u32 = 256;
const PIECE_CUT: u32 = 128;
const PIECE_BYTES_MAX: usize = 128 << 10;
/// Fewest entries in a part of a huge directory.
const PART_ENTRIES: usize = 8 << 10;

/// Cuts the names of a huge directory into parts; the number of names in each.
pub(super) fn cut_parts(cut_tree: &[u8; 32], names: &Names) -> Vec<usize> {
    let (mut parts, mut start) = (Vec::new(), 0);
    while start < names.len() {
        let (count, ends) = (names.len(), |at: &usize| names.get(*at).is_some_and(|name| ends_piece(cut_tree, name)));
        let end = (start + PART_ENTRIES - 1..count).find(ends).map_or(count, |last| last + 1);
        parts.push(end - start);
        start = end;
    }
    parts
}

pub(super) fn ends_piece(cut_tree: &[u8; 32], name: &[u8]) -> bool {
    first_u32(blake3::keyed_hash(cut_tree, name).as_bytes()).is_multiple_of(PIECE_CUT)
}

fn first_u32(hash: &[u8; 32]) -> u32 {
    u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]])
}

/// Takes the xattrs off an entry that the format would refuse with them, and names them as lost.
pub(super) fn fit(worker: &Worker, node: &DirNode, entry: &mut Entry) {
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
        entry.incomplete = true;
    }
}

/// Stores the entries of a directory, or of a part of one; the items that name them.
pub(super) fn encode_pieces(worker: &mut Worker, node: &DirNode, entries: &mut [Settled]) -> Result<Vec<Item>> {
    for settled in &mut *entries {
        fit(worker, node, &mut settled.entry);
    }
    let mut pieces = PieceWriter::default();
    for Settled { entry, .. } in entries.iter() {
        pieces.push(worker, entry)?;
    }
    pieces.end(worker)
}

/// Stores entries in order of name as pieces.
#[derive(Debug, Default)]
pub(super) struct PieceWriter {
    pieces: Vec<Item>,
    piece: Vec<u8>,
    scratch: Vec<u8>,
    count: u64,
}

impl PieceWriter {
    /// Adds an entry.
    pub fn push(&mut self, worker: &mut Worker, entry: &Entry) -> Result<()> {
        entry.encode(&mut self.scratch, &mut self.piece);
        self.count += 1;
        if ends_piece(&worker.shared.cut_tree, &entry.name) || self.piece.len() >= PIECE_BYTES_MAX {
            self.cut(worker)?;
        }
        Ok(())
    }

    fn cut(&mut self, worker: &mut Worker) -> Result<()> {
        let (id, _) = worker.packer.store(ChunkKind::Tree, &self.piece)?;
        self.pieces.push(Item::Piece { id, span: self.count });
        self.piece.clear();
        self.count = 0;
        Ok(())
    }

    /// Whether a piece ends here, so that the next entry begins one.
    pub fn is_between(&self) -> bool {
        self.count == 0
    }

    /// Adds a piece that is stored already. Only between two.
    pub fn keep(&mut self, piece: Item) {
        self.pieces.push(piece);
    }

    /// Ends the last piece; all of them.
    pub fn end(mut self, worker: &mut Worker) -> Result<Vec<Item>> {
        if !self.is_between() {
            self.cut(worker)?;
        }
        Ok(self.pieces)
    }
}

/// Puts items into list chunks until few enough are left to stand in an entry.
pub(super) fn fold_content(worker: &mut Worker, mut items: Vec<Item>) -> Result<Vec<Item>> {
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
