//! A walk over the trees of snapshots, which check and repair share: each chunk that a tree names is shown to who asks.
//!
//! [`Walk`] reads trees and lists; a [`Visit`] says what became of a chunk. Promises that all who are hurt are named, in each snapshot and
//! at each path, as long as the report has room for names. A tree or list says the same wherever it stands, so one of which everything was
//! found sound is not gone into again, for no snapshot: [`Sound`]. Looking at many snapshots costs what their distinct subtrees cost, and
//! for each snapshot the way to what is hurt. No recursion over directories.
//!
//! Memory: [`SOUND_MAX`] subtrees, and of the snapshot at hand 33 bytes a tree chunk that is not sound.

use super::{HURT_NAMED_MAX, Notes};
use crate::error::{Error, Result};
use crate::repository::cursor::is_damage;
use crate::repository::reader::ChunkReader;
use crate::repository::snapshots::SnapshotRow;
use bytes::Bytes;
use longshore_format::id::{ChunkId, ChunkKind};
use longshore_format::limits;
use longshore_format::tree::{Entries, Item, Node, Owner, decode_list};
use std::collections::HashMap;
use std::sync::Arc;
use std::vec::IntoIter;

/// Most subtrees that are remembered as sound: 30 MB.
const SOUND_MAX: usize = 7 << 16;

/// What became of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It lies nowhere whole.
    Missed,
    /// It is whole; whoever else names it has to be told, too.
    Whole,
    /// It is whole, and nothing more is to be said of it for any snapshot.
    Sound,
}

/// Who is shown the chunks of a snapshot.
pub(crate) trait Visit {
    /// Reads a tree or list chunk, and says what became of it.
    fn read(&mut self, kind: ChunkKind, id: &ChunkId) -> Result<(Bytes, Claim)>;
    /// A chunk of a file.
    fn data(&mut self, id: &ChunkId, length_bytes: u64) -> Claim;
    /// What some tree or list names stays unknown.
    fn cut(&mut self);
}

/// A tree or list chunk together with all that its meaning depends on: of an honest repository that is the id alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Known {
    id: ChunkId,
    span: u64,
    lists: u8,
    is_files: bool,
}

/// Trees and lists below which every chunk was found sound, themselves included.
///
/// When there are too many, those stay that were dearest to prove. What is let go costs less than [`Sound::least`] look-ups to prove again,
/// each time that it is met.
#[derive(Debug, Default)]
pub(crate) struct Sound {
    costs: HashMap<Known, u32>,
    least: u32,
}

impl Sound {
    fn cost(&self, known: &Known) -> Option<u64> {
        self.costs.get(known).map(|cost| u64::from(*cost))
    }

    fn insert(&mut self, known: Known, cost: u64) {
        let cost = u32::try_from(cost).unwrap_or(u32::MAX);
        if self.costs.len() >= SOUND_MAX {
            while self.costs.len() > SOUND_MAX / 2 {
                self.least = self.least.max(1).saturating_mul(2);
                self.costs.retain(|_, cost| *cost >= self.least);
                if self.least == u32::MAX {
                    *self = Self::default();
                }
            }
        }
        if cost >= self.least {
            self.costs.insert(known, cost);
        }
    }
}

enum Step {
    Items {
        items: IntoIter<Item>,
        path: Arc<[u8]>,
        lists: usize,
    },
    /// All that a tree or list names was shown; how things stood before.
    Shown(Known, Tally),
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    /// Chunks that are not sound.
    doubts: u64,
    /// Items that are hurt.
    hurt: u64,
    /// Look-ups, those included that were spared.
    cost: u64,
}

struct Walk<'a, V> {
    reader: &'a ChunkReader,
    notes: &'a Notes,
    visitor: &'a mut V,
    sound: Option<&'a mut Sound>,
    snapshot: String,
    stack: Vec<Step>,
    /// What of this snapshot was gone into and is not sound, and whether anything in it is hurt.
    unsound: HashMap<ChunkId, bool>,
    tally: Tally,
    trees: u64,
    lookups: u64,
}

/// Walks one snapshot. `sound`: what it shares with others; without, it is shown everything.
pub(crate) fn walk<V: Visit>(
    reader: &ChunkReader,
    row: &SnapshotRow,
    sound: Option<&mut Sound>,
    visitor: &mut V,
    notes: &Notes,
) -> Result<()> {
    let mut walk = Walk {
        reader,
        notes,
        visitor,
        sound,
        snapshot: row.id(),
        stack: Vec::new(),
        unsound: HashMap::new(),
        tally: Tally::default(),
        trees: 0,
        lookups: 0,
    };
    if let Node::Directory { content } = &row.snapshot.root.node {
        walk.stack.push(Step::Items { items: content.clone().into_iter(), path: Arc::default(), lists: 0 });
    }
    let walked = walk.run();
    notes.with(|report| {
        report.trees += walk.trees;
        report.lookups += walk.lookups;
    });
    walked
}

impl<V: Visit> Walk<'_, V> {
    fn run(&mut self) -> Result<()> {
        while let Some(step) = self.stack.last_mut() {
            self.reader.check()?;
            let (item, path, lists) = match step {
                Step::Items { items, path, lists } => match items.next() {
                    Some(item) => (item, Arc::clone(path), *lists),
                    None => {
                        self.stack.pop();
                        continue;
                    }
                },
                Step::Shown(known, before) => {
                    let (known, before) = (*known, *before);
                    self.stack.pop();
                    self.settle(known, before);
                    continue;
                }
            };
            match self.item(&item, &path, lists) {
                Ok(()) => {}
                Err(error) if is_damage(&error) => {
                    self.visitor.cut();
                    self.hurt(path.to_vec(), format!("some entries of this directory cannot be read: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn hurt(&mut self, path: Vec<u8>, message: String) {
        self.tally.doubts += 1;
        self.tally.hurt += 1;
        self.notes.hurt(&self.snapshot, path, message);
    }

    /// Whether a tree or list need not be gone into.
    fn is_spared(&mut self, known: &Known) -> bool {
        if let Some(cost) = self.sound.as_ref().and_then(|sound| sound.cost(known)) {
            self.tally.cost = self.tally.cost.saturating_add(cost);
            return true;
        }
        match self.unsound.get(&known.id) {
            // At another path others are hurt, and each time that this is gone into somebody is named: so it ends.
            Some(true) if self.notes.with(|report| report.hurt.len() < HURT_NAMED_MAX) => false,
            Some(hurts) => {
                self.tally.doubts += 1;
                self.tally.hurt += u64::from(*hurts);
                true
            }
            None => false,
        }
    }

    fn settle(&mut self, known: Known, before: Tally) {
        match &mut self.sound {
            Some(sound) if self.tally.doubts == before.doubts => sound.insert(known, self.tally.cost - before.cost),
            _ => {
                self.unsound.insert(known.id, self.tally.hurt > before.hurt);
            }
        }
    }

    fn read(&mut self, kind: ChunkKind, id: &ChunkId) -> Result<Bytes> {
        self.count();
        let (bytes, claim) = self.visitor.read(kind, id)?;
        self.tally.doubts += u64::from(claim != Claim::Sound);
        Ok(bytes)
    }

    fn count(&mut self) {
        self.tally.cost = self.tally.cost.saturating_add(1);
        self.lookups += 1;
    }

    /// An item of a directory.
    fn item(&mut self, item: &Item, path: &Arc<[u8]>, lists: usize) -> Result<()> {
        let (Item::Piece { id, span } | Item::List { id, span }) = *item else {
            return Err(Error::corrupt("a directory has an item of a file"));
        };
        let known = Known { id, span, lists: u8::try_from(lists).unwrap_or(u8::MAX), is_files: false };
        if self.is_spared(&known) {
            return Ok(());
        }
        self.stack.push(Step::Shown(known, self.tally));
        if matches!(item, Item::Piece { .. }) {
            self.piece(path, &id, span)?;
        } else if lists >= limits::LIST_DEPTH_MAX {
            return Err(nested_too_deeply());
        } else {
            let items = decode_list(&self.read(ChunkKind::List, &id)?, Owner::Directory, span)?.into_iter();
            self.stack.push(Step::Items { items, path: Arc::clone(path), lists: lists + 1 });
        }
        self.trees += 1;
        Ok(())
    }

    fn piece(&mut self, path: &[u8], id: &ChunkId, span: u64) -> Result<()> {
        let bytes = self.read(ChunkKind::Tree, id)?;
        let mut count = 0;
        for entry in Entries::new(&bytes, b"") {
            let entry = entry?;
            count += 1;
            match entry.node {
                Node::Directory { content } => {
                    let path = below(path, &entry.name).into();
                    self.stack.push(Step::Items { items: content.into_iter(), path, lists: 0 });
                }
                Node::File { content, .. } => self.file(path, &entry.name, &content)?,
                _ => {}
            }
        }
        if count == span { Ok(()) } else { Err(Error::corrupt("a piece has another number of entries than its directory says")) }
    }

    /// Every chunk of a file, and the lists that name them.
    fn file(&mut self, path: &[u8], name: &[u8], content: &[Item]) -> Result<()> {
        let mut lost = (0, None);
        let message = match self.items(content, 0, &mut lost) {
            Ok(()) => lost.1.map(|first| format!("data is damaged or missing: bytes={}, first_chunk={first}", lost.0)),
            Err(error) if is_damage(&error) => {
                self.visitor.cut();
                Some(error.to_string())
            }
            Err(error) => return Err(error),
        };
        if let Some(message) = message {
            self.hurt(below(path, name), message);
        }
        Ok(())
    }

    fn items(&mut self, items: &[Item], lists: usize, lost: &mut (u64, Option<ChunkId>)) -> Result<()> {
        if lists > limits::LIST_DEPTH_MAX {
            return Err(nested_too_deeply());
        }
        // A list that cannot be read does not keep its neighbours from being shown.
        let mut damage = None;
        for item in items {
            match item {
                Item::Data { id, span } => {
                    self.count();
                    let claim = self.visitor.data(id, *span);
                    self.tally.doubts += u64::from(claim != Claim::Sound);
                    if claim == Claim::Missed {
                        lost.0 += span;
                        lost.1.get_or_insert(*id);
                    }
                }
                Item::List { id, span } => {
                    let known = Known { id: *id, span: *span, lists: lists as u8, is_files: true };
                    if let Some(cost) = self.sound.as_ref().and_then(|sound| sound.cost(&known)) {
                        self.tally.cost = self.tally.cost.saturating_add(cost);
                        continue;
                    }
                    self.reader.check()?;
                    let before = self.tally;
                    let shown = self
                        .read(ChunkKind::List, id)
                        .and_then(|bytes| self.items(&decode_list(&bytes, Owner::File, *span)?, lists + 1, lost));
                    match (shown, &mut self.sound) {
                        (Ok(()), Some(sound)) if self.tally.doubts == before.doubts => {
                            sound.insert(known, self.tally.cost - before.cost)
                        }
                        (Ok(()), _) => {}
                        (Err(error), _) if is_damage(&error) => damage = Some(error),
                        (Err(error), _) => return Err(error),
                    }
                }
                _ => {}
            }
        }
        damage.map_or(Ok(()), Err)
    }
}

fn nested_too_deeply() -> Error {
    Error::corrupt("lists are nested too deeply")
}

fn below(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(number: u64) -> Known {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_le_bytes());
        Known { id: ChunkId(id), span: 1, lists: 0, is_files: false }
    }

    #[test]
    fn of_too_many_sound_subtrees_those_stay_that_were_dearest_to_prove() {
        let mut sound = Sound::default();
        for number in 0..4 * SOUND_MAX as u64 {
            // Every hundredth stands for a hundred others.
            sound.insert(known(number), if number.is_multiple_of(100) { 100 } else { 1 });
            assert!(sound.costs.len() <= SOUND_MAX);
        }
        assert!((0..4 * SOUND_MAX as u64).step_by(100).all(|number| sound.cost(&known(number)) == Some(100)));
        assert_eq!(sound.cost(&known(1)), None);
        // What is equally dear is all let go, and the memory goes on.
        for number in 0..2 * SOUND_MAX as u64 {
            sound.insert(known(1 << 40 | number), u64::MAX);
            assert!(sound.costs.len() <= SOUND_MAX);
        }
        assert!(!sound.costs.is_empty());
    }
}
