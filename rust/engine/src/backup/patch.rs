//! A directory that the stat cache knows, of which some entries have changed.
//!
//! Its entries in the parent snapshot lie in pieces, and the pieces follow the rows of its block. A piece all of whose rows are as they were is
//! neither read nor encoded again; of the others, entries that are as they were come from there. Promises the very pieces that the whole
//! directory would be cut into. Whatever of the parent cannot be read, or is not what the cache says, ends the attempt: the next one
//! does without the cache.

use super::crew::{Shared, Worker};
use super::pieces::{PieceWriter, ends_piece, fit, fold_content};
use super::rows::{Rows, record_entry};
use super::tree::{Changed, DirNode};
use crate::error::{Error, Result};
use crate::repository::cursor::is_damage;
use crate::statcache::{Block, DirectoryRecord, NOWHERE};
use longshore_format::ChunkId;
use longshore_format::id::ChunkKind;
use longshore_format::tree::{Entries, Entry, Item, Node, Owner};

/// A piece of a directory in the parent snapshot.
#[derive(Clone, Copy, Debug)]
struct Piece {
    id: ChunkId,
    /// The row of its first entry.
    first: usize,
    rows: usize,
}

/// Entries of a directory in the parent snapshot, by row; the pieces in which nobody asks for one are not read.
#[derive(Debug, Default)]
pub(super) struct PreviousRows {
    pieces: Vec<Piece>,
    /// The number of the piece that was read last, and its entries.
    read: Option<(usize, Vec<Option<Entry>>)>,
}

impl PreviousRows {
    /// Of a directory whose block has so many rows.
    pub fn new(shared: &Shared, previous: &Entry, rows: usize) -> Result<Self> {
        let Node::Directory { content } = &previous.node else { return Err(Error::internal("not a directory")) };
        let (mut pieces, mut first) = (Vec::new(), 0);
        let listed = shared.reader.for_each_item(content, Owner::Directory, &mut |item| {
            let Item::Piece { id, span } = item else { return Err(Error::corrupt("a directory has an item of a file")) };
            let count = usize::try_from(*span).unwrap_or(usize::MAX);
            pieces.push(Piece { id: *id, first, rows: count });
            first = first.saturating_add(count);
            Ok(true)
        });
        told(shared, listed)?;
        if first == rows {
            Ok(Self { pieces, read: None })
        } else {
            Err(shared.cache_damaged("a directory has another number of entries than the cache says"))
        }
    }

    /// The number of the piece in which a row lies.
    fn number(&self, row: usize) -> usize {
        self.pieces.partition_point(|piece| piece.first + piece.rows <= row)
    }

    /// The entry of a row. Each can be had once for each time that its piece is come to.
    pub fn take(&mut self, shared: &Shared, block: &Block<'_>, row: usize) -> Result<Entry> {
        let number = self.number(row);
        if self.read.as_ref().is_none_or(|(read, _)| *read != number) {
            let piece = *self.pieces.get(number).ok_or_else(|| shared.cache_damaged("a row lies behind the last piece"))?;
            self.read = Some((number, told(shared, read_piece(shared, &piece, block))?));
        }
        let entry = self.read.as_mut().and_then(|(_, entries)| {
            let piece = self.pieces.get(number)?;
            entries.get_mut(row.checked_sub(piece.first)?)?.take()
        });
        entry.ok_or_else(|| Error::internal("an entry of a directory was asked for twice"))
    }
}

/// What cannot be read of the parent is a fault of the cache: it led here.
fn told<T>(shared: &Shared, read: Result<T>) -> Result<T> {
    read.map_err(|error| if is_damage(&error) { shared.cache_damaged(error.message()) } else { error })
}

fn read_piece(shared: &Shared, piece: &Piece, block: &Block<'_>) -> Result<Vec<Option<Entry>>> {
    let bytes = shared.reader.chunk(ChunkKind::Tree, &piece.id)?;
    let before = piece.first.checked_sub(1).map_or(&b""[..], |row| block.name(row));
    let mut entries = Vec::with_capacity(piece.rows.min(bytes.len()));
    for entry in Entries::new(&bytes, before) {
        let entry = entry?;
        if entries.len() == piece.rows || block.name(piece.first + entries.len()) != entry.name {
            return Err(Error::corrupt("a directory has other entries than the cache says"));
        }
        entries.push(Some(entry));
    }
    if entries.len() == piece.rows {
        Ok(entries)
    } else {
        Err(Error::corrupt("a piece has another number of entries than its directory says"))
    }
}

/// What a known directory has become.
pub(super) struct Patched {
    pub own: Entry,
    pub previous: Entry,
    /// Its rows in the new cache.
    pub record: DirectoryRecord,
}

/// The content of a complete directory that the cache knows. None: it is another.
pub(super) fn patch(worker: &mut Worker, node: &DirNode) -> Result<Option<Patched>> {
    let Some((own, rows, mut changed)) = node.take_known() else { return Ok(None) };
    let shared = std::sync::Arc::clone(&worker.shared);
    let damaged = |why: &str| shared.cache_damaged(why);
    let previous = node.previous_entry().ok_or_else(|| damaged("a directory's block can no longer be read"))?;
    let known = node.known.as_ref().ok_or_else(|| damaged("a known directory is not in the cache"))?;
    let block = known.block().ok_or_else(|| damaged("a directory's block can no longer be read"))?;
    for settled in changed.values_mut().flatten() {
        fit(worker, node, &mut settled.entry);
    }
    let mut before = PreviousRows::new(&shared, &previous, block.len())?;
    let (mut pieces, mut record) = (PieceWriter::default(), DirectoryRecord::default());
    let keep = |record: &mut DirectoryRecord, row: usize| {
        let Some(recorder) = &shared.recorder else { return };
        let child = match block.row(row).child() {
            NOWHERE => NOWHERE,
            child => recorder.take_over(&known.cache, child),
        };
        record.keep(&known.cache, &block, row, child);
    };
    let (slots, mut slot) = (rows.len(block.len()), 0);
    while slot < slots {
        if pieces.is_between()
            && let Some(piece) = whole_piece(&shared, &before, &block, rows, &changed, slot..slots)
            && worker.packer.rely_on(&piece.id)
        {
            pieces.keep(Item::Piece { id: piece.id, span: piece.rows as u64 });
            (piece.first..piece.first + piece.rows).for_each(|row| keep(&mut record, row));
            slot += piece.rows;
            continue;
        }
        match (changed.remove(&slot), rows.get(slot)) {
            (Some(Some(settled)), _) => {
                pieces.push(worker, &settled.entry)?;
                if let Some(recorder) = &shared.recorder {
                    record_entry(worker, recorder, &mut record, &settled, Some(&(&*known.cache, block)));
                }
            }
            (Some(None), _) => {}
            (None, Some(row)) => {
                pieces.push(worker, &before.take(&shared, &block, row)?)?;
                keep(&mut record, row);
            }
            (None, None) => return Err(Error::internal("an entry of a complete directory was never settled")),
        }
        slot += 1;
    }
    let pieces = pieces.end(worker)?;
    let content = fold_content(worker, pieces)?;
    let own = Entry { node: Node::Directory { content }, ..own.unwrap_or_else(|| previous.clone()) };
    Ok(Some(Patched { own, previous, record }))
}

/// The piece that begins with the first of these slots, when all its rows are there, as they were and next to each other, and it would end
/// where it does: behind a name that ends pieces, by its length, or with the directory.
fn whole_piece(
    shared: &Shared,
    before: &PreviousRows,
    block: &Block<'_>,
    rows: &Rows,
    changed: &Changed,
    slots: std::ops::Range<usize>,
) -> Option<Piece> {
    let row = rows.get(slots.start)?;
    let number = before.number(row);
    let piece = before.pieces.get(number).filter(|piece| piece.first == row && piece.rows > 0)?;
    let (end, last) = (slots.start.checked_add(piece.rows)?, piece.first + piece.rows - 1);
    // Rows ascend with slots, so as many slots as rows between the same two are all of them.
    let is_whole = end <= slots.end && rows.get(end - 1) == Some(last) && changed.range(slots.start..end).next().is_none();
    // The last piece ends where the directory ended; not there, if something follows now.
    let ends = number + 1 < before.pieces.len() || end == slots.end || ends_piece(&shared.cut_tree, block.name(last));
    (is_whole && ends).then_some(*piece)
}
