//! A directory that the stat cache knows, beside what `statx` says now.
//!
//! Entries that are as their rows say are counted and left alone. Decides nothing of the others: they are looked at as in any directory.

use super::{Held, Level, Todo, Todos, Walker, Was};
use crate::backup::drift::times;
use crate::backup::patch::PreviousRows;
use crate::backup::rows::Rows;
use crate::backup::tree::{DirNode, HUGE_ENTRIES};
use crate::error::Result;
use crate::statcache::{Block, NOWHERE};
use crate::volume::{Dir, Kind, Names, Stat};
use longshore_format::tree::Entry;
use std::sync::atomic::Ordering::Relaxed;

/// One in so many entries may be other than its row says, for the others to be left as they are.
const KNOWN_SHARE: usize = 8;

/// A directory beside its block.
pub(super) struct Survey {
    /// The rows that its entries are as.
    rows: Rows,
    /// Entries that are as none, with the rows of their names.
    others: Vec<(usize, Option<usize>)>,
}

impl Walker {
    /// Compares every entry with its row. None when too many are not as that says, or when what the directory needs is no longer in the
    /// repository. Leaves in `stats` what it saw, in order, as far as it came.
    pub(super) fn survey(&self, dir: &dyn Dir, names: &Names, block: &Block<'_>, stats: &mut Vec<Stat>) -> Option<Survey> {
        let mut relied = self.relied.as_ref()?.borrow_mut();
        if names.len() > HUGE_ENTRIES {
            return None;
        }
        // Rows are written down from the first on that is not the one of its slot's number.
        let (mut rows, mut others, mut at) = (None::<Vec<u32>>, Vec::new(), 0);
        for (slot, name) in names.iter().enumerate() {
            while at < block.len() && block.name(at) < name {
                at += 1;
            }
            let row = (at < block.len() && block.name(at) == name).then_some(at);
            at += usize::from(row.is_some());
            let stat = dir.stat(name).ok()?;
            let kept = row.filter(|row| self.is_as_it_was(block, *row, &stat));
            stats.push(stat);
            if kept != Some(slot) && rows.is_none() {
                rows = Some((0..slot as u32).collect());
            }
            if let Some(rows) = &mut rows {
                rows.push(kept.map_or(NOWHERE, |row| row as u32));
            }
            if kept.is_none() {
                others.push((slot, row));
                if others.len() > names.len() / KNOWN_SHARE + 1 {
                    return None;
                }
            }
        }
        if rows.is_none() && names.len() < block.len() {
            rows = Some((0..names.len() as u32).collect());
        }
        let Some(mut rows) = rows else {
            return relied.rely_on(block.all_frames()).then_some(Survey { rows: Rows::All, others });
        };
        for (slot, row) in rows.iter_mut().enumerate().filter(|(_, row)| **row != NOWHERE) {
            if !relied.rely_on(block.frames(*row as usize)) {
                others.push((slot, Some(*row as usize)));
                *row = NOWHERE;
            }
        }
        others.sort_unstable();
        Some(Survey { rows: Rows::Some(rows), others })
    }

    /// Whether an entry is as its row says, and old enough.
    fn is_as_it_was(&self, block: &Block<'_>, row: usize, stat: &Stat) -> bool {
        let (row, (mtime, ctime)) = (block.row(row), times(stat));
        row.is(stat)
            && !self.test.is_fresh(mtime, ctime)
            && (stat.kind != Kind::Directory
                || row.child() != NOWHERE && !(self.options.one_file_system && stat.device != self.root_device))
    }

    /// Begins a directory that its block knows; only its directories and what is not as its row says remain to be looked at.
    pub(super) fn enter_known(
        &self,
        node: impl FnOnce(Rows, usize) -> DirNode,
        names: &Names,
        stats: Vec<Stat>,
        Survey { rows, others }: Survey,
        (stands, depth, room): (bool, u64, Option<Held>),
    ) -> Level {
        let (mut files, mut bytes, mut specials) = (0, 0, 0);
        let mut todo = Vec::new();
        let mut others = others.into_iter().peekable();
        for (slot, (name, stat)) in names.iter().zip(stats).enumerate() {
            let was = match (others.next_if(|(other, _)| *other == slot), rows.get(slot)) {
                (Some((_, Some(row))), _) => Was::Changed(row),
                (Some((_, None)), _) | (None, None) => Was::New,
                (None, Some(row)) => Was::Kept(row),
            };
            match (was, stat.kind) {
                (Was::Kept(_), Kind::File) => {
                    files += 1;
                    bytes += stat.size_bytes;
                }
                (Was::Kept(_), kind) if kind != Kind::Directory => specials += 1,
                _ => todo.push(Todo { slot, was, name: name.to_vec(), stat: Some(stat) }),
            }
        }
        let (notes, job) = (self.notes(), &self.crew.shared.job);
        for counter in [&notes.files, &notes.files_unchanged, &job.files_found, &job.files_done] {
            counter.fetch_add(files, Relaxed);
        }
        for counter in [&notes.bytes, &job.bytes_found, &job.bytes_done] {
            counter.fetch_add(bytes, Relaxed);
        }
        notes.others.fetch_add(specials, Relaxed);
        notes.directories.fetch_add(1, Relaxed);
        let is_all_kept = todo.iter().all(|todo| matches!(todo.was, Was::Kept(_)));
        let node = node(rows, todo.len());
        let run = self.interrupted().filter(|_| !is_all_kept);
        let resumed = run.map(|run| run.directory(&node.path)).unwrap_or_default();
        Level { todo: Todos::Some(todo.into_iter()), stands, resumed, ..Level::empty(node, depth, room) }
    }

    /// The entry that a known directory has in the parent snapshot in a row of its block.
    pub(super) fn previous_of(&self, level: &mut Level, row: usize) -> Result<Entry> {
        let shared = &self.crew.shared;
        let block = level.node.known.as_ref().and_then(|known| known.block()).ok_or_else(|| self.damaged())?;
        let rows = match &mut level.rows {
            Some(rows) => rows,
            none => {
                let previous = level.node.previous_entry().ok_or_else(|| self.damaged())?;
                none.insert(PreviousRows::new(shared, &previous, block.len())?)
            }
        };
        rows.take(shared, &block, row)
    }
}
