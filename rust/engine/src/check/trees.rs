//! The trees of snapshots: whether each can be read, and whether every chunk that they name is good somewhere.
//!
//! A tree or list chunk says the same wherever it stands, so each is walked once; only when damage is known is each snapshot walked
//! for itself, so that all that are hurt are named. No recursion over depth.

use super::Notes;
use crate::error::{Error, Result};
use crate::repository::cursor::is_damage;
use crate::repository::reader::ChunkReader;
use crate::repository::snapshots::SnapshotRow;
use longshore_format::id::{ChunkId, ChunkKind};
use longshore_format::limits;
use longshore_format::tree::{Entries, Item, Node, Owner, decode_list};
use longshore_format::usage::Usage;
use std::collections::HashSet;
use std::vec::IntoIter;

struct Level {
    items: IntoIter<Item>,
    path: Vec<u8>,
    lists: usize,
}

struct Walk<'a> {
    reader: &'a ChunkReader,
    good: &'a Usage,
    notes: &'a Notes,
    seen: HashSet<ChunkId>,
    snapshot: String,
    stack: Vec<Level>,
}

/// Walks all snapshots. `clean`: no damage is known so far.
pub(super) fn walk(reader: &ChunkReader, rows: &[SnapshotRow], good: &Usage, clean: bool, notes: &Notes) -> Result<()> {
    let mut walk = Walk { reader, good, notes, seen: HashSet::new(), snapshot: String::new(), stack: Vec::new() };
    for row in rows {
        if !clean {
            walk.seen.clear();
        }
        walk.snapshot = row.id();
        if let Node::Directory { content } = &row.snapshot.root.node {
            walk.stack.push(Level { items: content.clone().into_iter(), path: Vec::new(), lists: 0 });
        }
        walk.run()?;
    }
    Ok(())
}

impl Walk<'_> {
    fn run(&mut self) -> Result<()> {
        while let Some(level) = self.stack.last_mut() {
            self.reader.check()?;
            let Some(item) = level.items.next() else {
                self.stack.pop();
                continue;
            };
            let (path, lists) = (level.path.clone(), level.lists);
            if item.id().is_some_and(|id| self.seen.contains(&id)) {
                continue;
            }
            let done = match item {
                Item::Piece { id, span } => self.piece(&path, &id, span),
                Item::List { id, span } => self.list(&path, &id, span, lists),
                _ => Err(Error::corrupt("a directory has an item of a file")),
            };
            match done {
                Ok(()) => {
                    self.seen.extend(item.id());
                    self.notes.with(|report| report.trees += 1);
                }
                Err(error) if is_damage(&error) => {
                    let message = format!("some entries of this directory cannot be read: {error}");
                    self.notes.hurt(&self.snapshot, path, message);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn list(&mut self, path: &[u8], id: &ChunkId, span: u64, lists: usize) -> Result<()> {
        if lists >= limits::LIST_DEPTH_MAX {
            return Err(Error::corrupt("lists are nested too deeply"));
        }
        let bytes = self.reader.chunk(ChunkKind::List, id)?;
        let items = decode_list(&bytes, Owner::Directory, span)?.into_iter();
        self.stack.push(Level { items, path: path.to_vec(), lists: lists + 1 });
        Ok(())
    }

    fn piece(&mut self, path: &[u8], id: &ChunkId, span: u64) -> Result<()> {
        let bytes = self.reader.chunk(ChunkKind::Tree, id)?;
        let mut count = 0;
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
                Node::File { content, .. } => self.file(&below, content)?,
                _ => {}
            }
        }
        if count == span { Ok(()) } else { Err(Error::corrupt("a piece has another number of entries than its directory says")) }
    }

    /// Every chunk of a file, and the lists that name them.
    fn file(&self, path: &[u8], content: &[Item]) -> Result<()> {
        let (mut lost, mut first) = (0u64, None);
        let visited = self.reader.for_each_item(content, Owner::File, &mut |item| {
            if let Item::Data { id, span } = item {
                let places = self.reader.index().find_all(id);
                let fine =
                    places.iter().any(|place| u64::from(place.length_bytes) == *span && self.good.contains(place.frame.birth));
                if !fine {
                    lost += span;
                    first.get_or_insert(*id);
                }
            }
            Ok(true)
        });
        match visited {
            Ok(_) => {}
            Err(error) if is_damage(&error) => self.notes.hurt(&self.snapshot, path.to_vec(), error.to_string()),
            Err(error) => return Err(error),
        }
        if let Some(first) = first {
            self.notes.hurt(
                &self.snapshot,
                path.to_vec(),
                format!("data is damaged or missing: bytes={lost}, first_chunk={first}"),
            );
        }
        Ok(())
    }
}
