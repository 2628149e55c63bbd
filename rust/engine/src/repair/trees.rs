//! The trees of one snapshot that damage touches: who is hurt, which frames the snapshot needs now, and which chunks it misses.
//!
//! Every chunk that the trees name is looked for among the frames that are whole. One that lies in a frame of the snapshot's own tables
//! is accounted for; one that lies elsewhere makes that frame needed; one that lies nowhere is missed. No recursion over directories.
//! Files that several snapshots have in common are looked up once. Memory: 64 bytes a distinct tree chunk, 8 a missed chunk, one bit a
//! frame.

use crate::check::Notes;
use crate::error::{Error, Result};
use crate::repository::cursor::is_damage;
use crate::repository::reader::ChunkReader;
use crate::repository::snapshots::SnapshotRow;
use bytes::Bytes;
use longshore_format::id::{ChunkId, ChunkKind};
use longshore_format::index::FramePlace;
use longshore_format::limits;
use longshore_format::repair::chunk_prefix;
use longshore_format::tree::{Entries, Item, Node, Owner, decode_list};
use longshore_format::usage::Usage;
use std::collections::{BTreeSet, HashSet};
use std::vec::IntoIter;

/// What a snapshot's trees told.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Frames that it needs and that its own tables do not name, or not as whole.
    pub needs: Usage,
    /// Chunks that lie nowhere.
    pub wanted: BTreeSet<u64>,
    /// Some tree or list could not be read: what it names is unknown.
    pub is_cut: bool,
    /// Frames of trees and lists that turned out damaged.
    pub rotten: Vec<FramePlace>,
}

/// What walks of several snapshots share, so that what they have in common is looked up once.
pub(super) struct Common<'a> {
    /// The frames that the tables of all of them name.
    pub tables: &'a Usage,
    /// Trees and lists of which every chunk of a file lies whole in such a frame: nothing in them is missed by any of them.
    pub plain: HashSet<ChunkId>,
}

struct Level {
    items: IntoIter<Item>,
    path: Vec<u8>,
    lists: usize,
}

/// What became of a chunk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// It lies nowhere whole.
    Missed,
    /// It is whole somewhere.
    Whole,
    /// It is whole in a frame that all tables name.
    Plain,
}

struct Walk<'a, 'b> {
    reader: &'a ChunkReader,
    good: &'a Usage,
    own: &'a Usage,
    notes: &'a Notes,
    snapshot: String,
    seen: HashSet<ChunkId>,
    stack: Vec<Level>,
    told: Told,
    common: &'a mut Common<'b>,
    /// What is in common holds for this snapshot, too: none of its tables is lost.
    has_tables: bool,
}

/// Walks one snapshot; `own`: what its readable tables name, `good`: the frames that are whole. Without `has_tables` some are lost.
pub(super) fn walk(
    reader: &ChunkReader,
    row: &SnapshotRow,
    own: &Usage,
    has_tables: bool,
    good: &Usage,
    common: &mut Common<'_>,
    notes: &Notes,
) -> Result<Told> {
    let mut walk = Walk {
        reader,
        good,
        own,
        notes,
        snapshot: row.id(),
        seen: HashSet::new(),
        stack: Vec::new(),
        told: Told::default(),
        common,
        has_tables,
    };
    if let Node::Directory { content } = &row.snapshot.root.node {
        walk.stack.push(Level { items: content.clone().into_iter(), path: Vec::new(), lists: 0 });
    }
    walk.run()?;
    Ok(walk.told)
}

impl Walk<'_, '_> {
    fn run(&mut self) -> Result<()> {
        while let Some(level) = self.stack.last_mut() {
            self.reader.check()?;
            let Some(item) = level.items.next() else {
                self.stack.pop();
                continue;
            };
            let (path, lists) = (level.path.clone(), level.lists);
            if item.id().is_some_and(|id| !self.seen.insert(id)) {
                continue;
            }
            let done = match item {
                Item::Piece { id, span } => self.piece(&path, &id, span),
                Item::List { id, span } => self.list(&path, &id, span, lists),
                _ => Err(Error::corrupt("a directory has an item of a file")),
            };
            match done {
                Ok(()) => {}
                Err(error) if is_damage(&error) => {
                    self.told.is_cut = true;
                    self.notes.hurt(&self.snapshot, path, format!("some entries of this directory cannot be read: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Accounts for a chunk. `length_bytes`: what it must have.
    fn claim(&mut self, kind: ChunkKind, id: &ChunkId, length_bytes: Option<u64>) -> Claim {
        let index = self.reader.index();
        let (mut covered, mut first, mut is_common) = (false, None, false);
        index.each_place(id, |place| {
            let birth = place.frame.birth;
            let fits = place.frame.kind == kind && length_bytes.is_none_or(|length| length == u64::from(place.length_bytes));
            if fits && self.good.contains(birth) && !self.told.rotten.contains(&place.frame) {
                covered |= self.own.contains(birth);
                is_common |= self.common.tables.contains(birth);
                // Of several the one on which a writer would rely: it is in no tombstone.
                if first.is_none() || index.is_usable(&place.frame.pack) {
                    first = Some(birth);
                }
            }
            covered && is_common
        });
        match first {
            Some(birth) if !covered => self.told.needs.insert(birth),
            Some(_) => {}
            None => {
                self.told.wanted.insert(chunk_prefix(id));
            }
        }
        match (first, is_common) {
            (None, _) => Claim::Missed,
            (Some(_), true) => Claim::Plain,
            (Some(_), false) => Claim::Whole,
        }
    }

    /// Reads a tree or list chunk and accounts for it.
    fn read(&mut self, kind: ChunkKind, id: &ChunkId) -> Result<Bytes> {
        let bytes = self.reader.chunk(kind, id);
        if matches!(&bytes, Err(error) if is_damage(error)) {
            // Headers said that it is whole, and it is not.
            let places = self.reader.index().find_all(id);
            let good = self.good;
            self.told.rotten.extend(places.into_iter().map(|found| found.frame).filter(|frame| good.contains(frame.birth)));
        }
        self.claim(kind, id, None);
        bytes
    }

    fn list(&mut self, path: &[u8], id: &ChunkId, span: u64, lists: usize) -> Result<()> {
        if lists >= limits::LIST_DEPTH_MAX {
            return Err(Error::corrupt("lists are nested too deeply"));
        }
        let items = decode_list(&self.read(ChunkKind::List, id)?, Owner::Directory, span)?.into_iter();
        self.stack.push(Level { items, path: path.to_vec(), lists: lists + 1 });
        Ok(())
    }

    fn piece(&mut self, path: &[u8], id: &ChunkId, span: u64) -> Result<()> {
        let bytes = self.read(ChunkKind::Tree, id)?;
        let (mut count, mut is_plain) = (0, true);
        let is_known = self.has_tables && self.common.plain.contains(id);
        for entry in Entries::new(&bytes, b"") {
            let entry = entry?;
            count += 1;
            let mut below = path.to_vec();
            if !below.is_empty() {
                below.push(b'/');
            }
            below.extend_from_slice(&entry.name);
            match &entry.node {
                Node::Directory { content } => {
                    self.stack.push(Level { items: content.clone().into_iter(), path: below, lists: 0 })
                }
                Node::File { content, .. } if !is_known => is_plain &= self.file(below, content)?,
                _ => {}
            }
        }
        if count != span {
            return Err(Error::corrupt("a piece has another number of entries than its directory says"));
        }
        if is_plain && self.has_tables {
            self.common.plain.insert(*id);
        }
        Ok(())
    }

    /// A file's chunks and lists; whether all are plain.
    fn file(&mut self, path: Vec<u8>, content: &[Item]) -> Result<bool> {
        let mut lost = (0, None);
        let is_plain = match self.items(content, 0, &mut lost) {
            Ok(is_plain) => is_plain,
            Err(error) if is_damage(&error) => {
                self.told.is_cut = true;
                self.notes.hurt(&self.snapshot, path, error.to_string());
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        if let (bytes, Some(first)) = lost {
            let message = format!("data is damaged or missing: bytes={bytes}, first_chunk={first}");
            self.notes.hurt(&self.snapshot, path, message);
        }
        Ok(is_plain)
    }

    fn items(&mut self, items: &[Item], depth: usize, lost: &mut (u64, Option<ChunkId>)) -> Result<bool> {
        if depth > limits::LIST_DEPTH_MAX {
            return Err(Error::corrupt("lists are nested too deeply"));
        }
        // A list that cannot be read does not keep its neighbours from being accounted for.
        let (mut damage, mut is_plain) = (None, true);
        for item in items {
            match item {
                Item::Data { id, span } => {
                    let claim = self.claim(ChunkKind::Data, id, Some(*span));
                    is_plain &= claim == Claim::Plain;
                    if claim == Claim::Missed {
                        lost.0 += span;
                        lost.1.get_or_insert(*id);
                    }
                }
                // What it names is plain; it is accounted for itself, as it may be read well out of a place that will not stay.
                Item::List { id, .. } if self.has_tables && self.common.plain.contains(id) => {
                    is_plain &= self.claim(ChunkKind::List, id, None) == Claim::Plain;
                }
                Item::List { id, span } => {
                    self.reader.check()?;
                    let done = self.read(ChunkKind::List, id).and_then(|bytes| {
                        let inner = decode_list(&bytes, Owner::File, *span)?;
                        self.items(&inner, depth + 1, lost)
                    });
                    match done {
                        Ok(is_known) => {
                            is_plain &= is_known;
                            if is_known && self.has_tables {
                                self.common.plain.insert(*id);
                            }
                        }
                        Err(error) if is_damage(&error) => damage = Some(error),
                        Err(error) => return Err(error),
                    }
                }
                _ => {}
            }
        }
        damage.map_or(Ok(is_plain), Err)
    }
}
