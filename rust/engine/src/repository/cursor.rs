//! A directory's entries, one at a time: for walks that must not recurse.
//!
//! Holds [`EntryCursor`], which reads list and tree chunks as they are needed and goes on behind one that is damaged. Keeps one piece
//! in memory, or none after [`EntryCursor::rest`]. Knows nothing of what is done with an entry.

use super::reader::ChunkReader;
use crate::error::{Error, ErrorKind, Result};
use longshore_format::id::{ChunkId, ChunkKind};
use longshore_format::limits;
use longshore_format::tree::{Entry, Item, Node, Owner, decode_list};
use longshore_format::wire::Reader;
use std::vec::IntoIter;

/// What a cursor came upon.
#[derive(Debug)]
pub enum Step {
    /// The next entry.
    Entry(Box<Entry>),
    /// A piece that cannot be read: its entries, or the rest of them, are lost. The walk goes on behind it.
    Damaged(Error),
    /// There are no more.
    End,
}

#[derive(Debug)]
struct Piece {
    id: ChunkId,
    span: u64,
    bytes: Option<Vec<u8>>,
    at: usize,
    count: u64,
}

/// Reads the entries of one directory in order.
#[derive(Debug)]
pub struct EntryCursor {
    lists: Vec<IntoIter<Item>>,
    piece: Option<Piece>,
    last: Vec<u8>,
    only: Option<Box<Entry>>,
}

/// Whether an error says that stored bytes are bad, so that other things may still be read.
pub(crate) fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::WrongKey | ErrorKind::NewerFormat)
}

/// In a repository that was opened, an object that its key does not open is damaged or forged; nobody brought a wrong key.
pub(crate) fn as_damage(error: Error) -> Error {
    if error.kind() != ErrorKind::WrongKey {
        return error;
    }
    Error::corrupt(format!("an object does not open with the repository's own key, it is damaged: {error}"))
        .with_next_step("find what it hurts with: longshore repo check")
}

impl EntryCursor {
    /// The entries of `directory`; of anything else: none.
    #[must_use]
    pub fn new(directory: &Entry) -> Self {
        let items = match &directory.node {
            Node::Directory { content } => content.clone(),
            _ => Vec::new(),
        };
        Self { lists: vec![items.into_iter()], piece: None, last: Vec::new(), only: None }
    }

    /// One entry alone.
    #[must_use]
    pub fn only(entry: Entry) -> Self {
        Self { lists: Vec::new(), piece: None, last: Vec::new(), only: Some(Box::new(entry)) }
    }

    /// Lets go of memory until the next step: the walk is elsewhere for a while.
    pub fn rest(&mut self) {
        if let Some(piece) = &mut self.piece {
            piece.bytes = None;
        }
    }

    /// The next entry, damage, or the end.
    ///
    /// # Errors
    /// What the store says, `Cancelled`.
    pub fn step(&mut self, reader: &ChunkReader) -> Result<Step> {
        if let Some(entry) = self.only.take() {
            return Ok(Step::Entry(entry));
        }
        match self.try_step(reader) {
            Ok(Some(entry)) => Ok(Step::Entry(Box::new(entry))),
            Ok(None) => Ok(Step::End),
            Err(error) if is_damage(&error) => {
                self.piece = None;
                Ok(Step::Damaged(error))
            }
            Err(error) => Err(error),
        }
    }

    fn try_step(&mut self, reader: &ChunkReader) -> Result<Option<Entry>> {
        loop {
            if let Some(piece) = &mut self.piece {
                if piece.bytes.is_none() {
                    // A copy: a slice would pin the whole frame.
                    piece.bytes = Some(reader.chunk(ChunkKind::Tree, &piece.id)?.to_vec());
                }
                let rest = piece.bytes.as_deref().and_then(|b| b.get(piece.at..)).unwrap_or_default();
                if rest.is_empty() {
                    let (count, span) = (piece.count, piece.span);
                    self.piece = None;
                    if count != span {
                        return Err(Error::corrupt("a piece has another number of entries than its directory says"));
                    }
                    continue;
                }
                let mut wire = Reader::new(rest, "tree");
                let bytes = wire.bytes_max(limits::ENTRY_BYTES_MAX)?;
                let entry = Entry::decode_bare(bytes, false)?;
                if entry.name <= self.last {
                    return Err(Error::corrupt("entries of a directory are out of order"));
                }
                piece.at += rest.len() - wire.rest().len();
                piece.count += 1;
                self.last.clone_from(&entry.name);
                return Ok(Some(entry));
            }
            let depth = self.lists.len();
            let Some(list) = self.lists.last_mut() else { return Ok(None) };
            match list.next() {
                None => {
                    self.lists.pop();
                }
                Some(Item::Piece { id, span }) => self.piece = Some(Piece { id, span, bytes: None, at: 0, count: 0 }),
                Some(Item::List { id, span }) => {
                    if depth > limits::LIST_DEPTH_MAX {
                        return Err(Error::corrupt("lists are nested too deeply"));
                    }
                    let bytes = reader.chunk(ChunkKind::List, &id)?;
                    self.lists.push(decode_list(&bytes, Owner::Directory, span)?.into_iter());
                }
                Some(_) => return Err(Error::corrupt("a directory has an item of a file")),
            }
        }
    }
}
