//! What of a directory stands in the stat cache: which rows of the old one its entries are as, and its rows in the new one.

use super::crew::Worker;
use super::tree::{DirNode, Place, Settled};
use crate::statcache::{Block, DirectoryRecord, NOWHERE, Needs, Recorder, StatCache};
use longshore_format::tree::{Entry, Node, Owner};

/// Which rows of the block the slots of a known directory are, as far as they are as those say.
#[derive(Debug)]
pub(crate) enum Rows {
    /// Each slot is the row of its number.
    All,
    /// The row of each slot; [`NOWHERE`] for one that is not as any row says.
    Some(Vec<u32>),
}

impl Rows {
    /// The row that a slot is as.
    pub fn get(&self, slot: usize) -> Option<usize> {
        match self {
            Self::All => Some(slot),
            Self::Some(rows) => rows.get(slot).filter(|row| **row != NOWHERE).map(|row| *row as usize),
        }
    }

    /// Number of slots, of a block of so many rows.
    pub fn len(&self, block: usize) -> usize {
        match self {
            Self::All => block,
            Self::Some(rows) => rows.len(),
        }
    }
}

/// What the new stat cache is to have of a directory.
pub(super) enum Recorded {
    None,
    /// These rows.
    Rows(DirectoryRecord),
    /// Rows of these entries.
    Entries(Vec<Settled>),
}

/// Puts a directory into the stat cache that is being made.
pub(super) fn record(worker: &Worker, node: &DirNode, own: &Entry, recorded: Recorded) -> Place {
    let Some(recorder) = &worker.shared.recorder else { return Place::None };
    let mut directory = match recorded {
        Recorded::None => return Place::None,
        Recorded::Rows(rows) => rows,
        Recorded::Entries(entries) => {
            let block = node.known.as_ref().and_then(|known| Some((&*known.cache, known.block()?)));
            let mut rows = DirectoryRecord::default();
            entries.iter().for_each(|settled| record_entry(worker, recorder, &mut rows, settled, block.as_ref()));
            rows
        }
    };
    if let Node::Directory { content } = &own.node {
        directory.need(&Needs::Content(content, Owner::Directory));
    }
    match recorder.record(&directory, own) {
        NOWHERE => Place::None,
        number => Place::New(number),
    }
}

/// Adds the row of an entry; `block`: that of its directory, of which it may have kept a row's content.
pub(super) fn record_entry(
    worker: &Worker,
    recorder: &Recorder,
    rows: &mut DirectoryRecord,
    settled: &Settled,
    block: Option<&(&StatCache, Block<'_>)>,
) {
    let child = match (settled.place, &worker.shared.cache) {
        (Place::New(number), _) => number,
        (Place::Old(number), Some(cache)) => recorder.take_over(cache, number),
        _ => NOWHERE,
    };
    let needs = match (&settled.entry.node, settled.kept, block) {
        (Node::File { .. }, Some(row), Some((cache, block))) => Some(Needs::Kept(cache, block, row)),
        (Node::File { content, .. }, _, _) => Some(Needs::Content(content, Owner::File)),
        _ => None,
    };
    rows.push(&settled.entry, child, needs);
}
