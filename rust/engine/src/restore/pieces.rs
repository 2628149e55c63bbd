//! The content of files in pieces: what each needs, fetched ahead by plan, and put in its place.
//!
//! A file that is new is planned when it is met; of one that was there only what differs is planned, once that is known. Knows nothing
//! of names and metadata.

use super::Context;
use super::file::{Large, Placed, Tried, Trouble, parts};
use crate::error::{Error, Result};
use crate::repository::ahead::{Underway, Wanted};
use crate::repository::cursor::is_damage;
use crate::repository::index::Index;
use crate::volume::VolumeError;
use longshore_format::id::{ChunkId, ChunkKind};
use longshore_format::tree::{Entry, Item, Owner};
use std::sync::atomic::Ordering::Relaxed;

/// An item of a file, in its place.
#[derive(Debug)]
pub(super) struct Piece {
    offset: u64,
    item: Item,
    /// Its chunk, if it has one and that is to be fetched.
    pub wanted: Option<Wanted>,
}

impl Piece {
    pub fn new(offset: u64, item: &Item, index: Option<&Index>) -> Self {
        let wanted = match (item, index) {
            (Item::Data { id, .. }, Some(index)) => Some(want(index, id)),
            _ => None,
        };
        Self { offset, item: *item, wanted }
    }

    fn is_data(&self) -> bool {
        matches!(self.item, Item::Data { .. })
    }
}

/// A chunk with the place that it is best read from; one that is nowhere is asked of the reader, which tells why.
fn want(index: &Index, id: &ChunkId) -> Wanted {
    let found = index.find(id).or_else(|| index.find_all(id).into_iter().next());
    Wanted::new(*id, found.filter(|found| found.frame.kind == ChunkKind::Data))
}

/// What a file consists of, until a list of it that cannot be read.
fn pieces_until(context: &Context, content: &[Item]) -> Result<(Vec<Piece>, Option<Error>)> {
    let (index, mut offset, mut pieces) = (context.reader.index(), 0, Vec::new());
    let visited = context.reader.for_each_item(content, Owner::File, &mut |item| {
        pieces.push(Piece::new(offset, item, Some(&index)));
        offset += item.span();
        Ok(true)
    });
    match visited {
        Ok(_) => Ok((pieces, None)),
        Err(error) if is_damage(&error) => Ok((pieces, Some(error))),
        Err(error) => Err(error),
    }
}

/// What a file consists of, when all of its lists can be read.
pub(super) fn pieces(context: &Context, entry: &Entry) -> Result<Option<Vec<Piece>>> {
    let (_, content) = parts(entry);
    let (pieces, damage) = pieces_until(context, content)?;
    Ok(damage.is_none().then_some(pieces))
}

pub(super) fn plan(context: &Context, pieces: &mut [Piece], wait: bool) -> Result<Underway> {
    let mut chunks: Vec<&mut Wanted> = pieces.iter_mut().filter_map(|piece| piece.wanted.as_mut()).collect();
    context.ahead.plan(&mut chunks, wait, || context.check())
}

/// Writes a part of a large file: of one that was there, only what differs.
pub(super) fn segment(context: &Context, file: &Large, mut pieces: Vec<Piece>) -> Tried<()> {
    let mut underway = None;
    if file.placed.in_place {
        let mut differing = Vec::new();
        let (index, mut buffer) = (context.reader.index(), Vec::new());
        for mut piece in pieces {
            if let Item::Data { id, span } = &piece.item {
                context.check()?;
                buffer.resize(*span as usize, 0);
                let read = file.placed.file.read_at(piece.offset, &mut buffer)?;
                if read == buffer.len() && context.reader.repository().keys.chunk_id(ChunkKind::Data, &buffer) == *id {
                    context.tally.bytes_unchanged.fetch_add(*span, Relaxed);
                    continue;
                }
                piece.wanted = Some(want(&index, id));
            }
            differing.push(piece);
        }
        pieces = differing;
        underway = Some(plan(context, &mut pieces, false)?);
    } else {
        reserve(&file.placed, &pieces)?;
    }
    let mut gather = file.placed.file.gather();
    for piece in pieces {
        let wrote = put(context, &file.placed, piece, &mut |at, bytes| match &mut gather {
            Some(gather) => gather.write(at, bytes),
            None => file.placed.file.write_at(at, bytes),
        });
        match wrote {
            Ok(wrote) => {
                file.written.fetch_or(wrote, Relaxed);
            }
            Err(Trouble::Damaged(error)) if context.options.keep_damaged => file.fail(Trouble::Damaged(error)),
            Err(trouble) => return Err(trouble),
        }
    }
    if let Some(gather) = gather {
        gather.end()?;
    }
    drop(underway);
    Ok(())
}

/// Reserves room for each run of data, so that it lies together however it is written; holes stay holes.
fn reserve(placed: &Placed, pieces: &[Piece]) -> Tried<()> {
    for run in pieces.chunk_by(|a, b| a.is_data() == b.is_data()).filter(|run| run[0].is_data()) {
        placed.file.reserve(run[0].offset, run.iter().map(|piece| piece.item.span()).sum())?;
    }
    Ok(())
}

/// Puts all of a file in its place. Damage that is to be lived with goes into `damage`.
pub(super) fn fill(
    context: &Context,
    placed: &Placed,
    entry: &Entry,
    pieces: Option<Vec<Piece>>,
    damage: &mut Option<Trouble>,
) -> Tried<()> {
    let (size_bytes, content) = parts(entry);
    let (mut unread, mut underway) = (None, None);
    let pieces = match pieces {
        Some(pieces) => pieces,
        None => {
            let (mut pieces, damage) = pieces_until(context, content)?;
            underway = Some(plan(context, &mut pieces, false)?);
            unread = damage;
            pieces
        }
    };
    if unread.is_some() || !pieces.iter().all(|piece| matches!(piece.item, Item::Data { .. })) {
        placed.file.set_len(size_bytes)?;
    }
    for piece in pieces {
        match put(context, placed, piece, &mut |at, bytes| placed.file.write_at(at, bytes)) {
            Ok(_) => {}
            Err(Trouble::Damaged(error)) if context.options.keep_damaged => {
                damage.get_or_insert(Trouble::Damaged(error));
                placed.file.set_len(size_bytes)?;
            }
            Err(trouble) => return Err(trouble),
        }
    }
    drop(underway);
    unread.map_or(Ok(()), |error| Err(Trouble::Damaged(error)))
}

/// Writes bytes at an offset.
type Write<'a> = &'a mut dyn FnMut(u64, &[u8]) -> std::result::Result<(), VolumeError>;

/// Puts one item in its place, bytes by `write`; whether anything was written.
fn put(context: &Context, placed: &Placed, piece: Piece, write: Write<'_>) -> Tried<bool> {
    context.check()?;
    let (file, offset) = (&placed.file, piece.offset);
    match &piece.item {
        Item::Data { id, span } => {
            let wanted = piece.wanted.unwrap_or_else(|| Wanted::new(*id, None));
            context.ahead.with_chunk(&wanted, |chunk| {
                if chunk.len() as u64 != *span {
                    return Err(Trouble::Damaged(Error::corrupt(format!(
                        "chunk has another length than its file says: chunk={id}"
                    ))));
                }
                Ok(write(offset, chunk)?)
            })??;
            context.job.bytes_moved.fetch_add(*span, Relaxed);
            context.tally.bytes_written.fetch_add(*span, Relaxed);
            context.written.add(*span, context.options.flush_bytes);
            return Ok(true);
        }
        Item::Hole { span } if placed.in_place => file.punch_hole(offset, *span)?,
        // A new file has been given its length already: what nobody writes is a hole.
        Item::Hole { .. } => {}
        Item::Zeros { span } => file.allocate_zeros(offset, *span)?,
        Item::List { .. } | Item::Piece { .. } => {
            return Err(Trouble::Damaged(Error::corrupt("a file has an item of a directory")));
        }
    }
    Ok(false)
}
