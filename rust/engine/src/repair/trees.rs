//! What a repair asks of the trees of snapshots that damage touches: which frames a snapshot needs now, and which chunks it misses.
//!
//! Every chunk that the trees name is looked for among the frames that are whole. One that lies in a frame of the snapshot's own tables
//! is accounted for; one that lies elsewhere makes that frame needed; one that lies nowhere is missed. What lies in frames that the tables
//! of all these snapshots name is sound: it is looked up once for all. Memory: as the walk's, 8 bytes a missed chunk, one bit a frame.

use crate::check::Notes;
use crate::check::walk::{Claim, Sound, Visit, walk};
use crate::error::Result;
use crate::repository::cursor::is_damage;
use crate::repository::reader::ChunkReader;
use crate::repository::snapshots::SnapshotRow;
use bytes::Bytes;
use longshore_format::id::{ChunkId, ChunkKind, PackName};
use longshore_format::index::FramePlace;
use longshore_format::pack::BirthName;
use longshore_format::repair::chunk_prefix;
use longshore_format::usage::Usage;
use std::collections::{BTreeMap, BTreeSet};

/// What a snapshot's trees told.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Frames that it needs and that its own tables do not name, or not as whole.
    pub needs: Usage,
    /// Chunks that lie nowhere.
    pub wanted: BTreeSet<u64>,
    /// Some tree or list could not be read: what it names is unknown.
    pub is_cut: bool,
    /// Frames of trees and lists that turned out damaged, by pack and offset there.
    pub rotten: BTreeMap<(PackName, u64), BirthName>,
}

/// What walks of several snapshots share. It holds as long as no frame turns out damaged that was taken for whole.
pub(super) struct Common<'a> {
    /// The frames that the tables of all of them name.
    pub tables: &'a Usage,
    /// Subtrees of which every chunk lies whole in such a frame: nothing in them is missed, or needed beyond the tables, by any of them.
    pub sound: Sound,
}

struct Asking<'a> {
    reader: &'a ChunkReader,
    good: &'a Usage,
    own: &'a Usage,
    common: &'a Usage,
    told: Told,
}

/// Walks one snapshot; `own`: what its readable tables name, `good`: the frames that are whole. Without `has_tables` some are lost, so
/// that what is common says nothing of it.
pub(super) fn look(
    reader: &ChunkReader,
    row: &SnapshotRow,
    own: &Usage,
    has_tables: bool,
    good: &Usage,
    common: &mut Common<'_>,
    notes: &Notes,
) -> Result<Told> {
    let mut asking = Asking { reader, good, own, common: common.tables, told: Told::default() };
    walk(reader, row, has_tables.then_some(&mut common.sound), &mut asking, notes)?;
    Ok(asking.told)
}

fn at(frame: &FramePlace) -> (PackName, u64) {
    (frame.pack, frame.offset_bytes)
}

impl Asking<'_> {
    /// Accounts for a chunk. `length_bytes`: what it must have.
    fn claim(&mut self, kind: ChunkKind, id: &ChunkId, length_bytes: Option<u64>) -> Claim {
        let index = self.reader.index();
        let (mut covered, mut first, mut is_common) = (false, None, false);
        index.each_place(id, |place| {
            let birth = place.frame.birth;
            let fits = place.frame.kind == kind && length_bytes.is_none_or(|length| length == u64::from(place.length_bytes));
            if fits && self.good.contains(birth) && !self.told.rotten.contains_key(&at(&place.frame)) {
                covered |= self.own.contains(birth);
                is_common |= self.common.contains(birth);
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
            (Some(_), true) => Claim::Sound,
            (Some(_), false) => Claim::Whole,
        }
    }
}

impl Visit for Asking<'_> {
    fn read(&mut self, kind: ChunkKind, id: &ChunkId) -> Result<(Bytes, Claim)> {
        let bytes = self.reader.chunk(kind, id);
        if matches!(&bytes, Err(error) if is_damage(error)) {
            // Headers said that it is whole, and it is not.
            let places = self.reader.index().find_all(id);
            let good = places.iter().filter(|found| self.good.contains(found.frame.birth));
            self.told.rotten.extend(good.map(|found| (at(&found.frame), found.frame.birth)));
        }
        // Also one that is read well: it may have been read out of a place that will not stay.
        let claim = self.claim(kind, id, None);
        Ok((bytes?, claim))
    }

    fn data(&mut self, id: &ChunkId, length_bytes: u64) -> Claim {
        self.claim(ChunkKind::Data, id, Some(length_bytes))
    }

    fn cut(&mut self) {
        self.told.is_cut = true;
    }
}
