//! What a check asks of the trees of snapshots: whether each can be read, and whether every chunk that they name is good somewhere.

use super::Notes;
use super::walk::{Claim, Sound, Visit, walk};
use crate::error::Result;
use crate::repository::reader::ChunkReader;
use crate::repository::snapshots::SnapshotRow;
use bytes::Bytes;
use longshore_format::id::{ChunkId, ChunkKind};
use longshore_format::usage::Usage;

struct Asking<'a> {
    reader: &'a ChunkReader,
    good: &'a Usage,
}

/// Walks all snapshots; `good`: the frames that are whole.
pub(super) fn look(reader: &ChunkReader, rows: &[SnapshotRow], good: &Usage, notes: &Notes) -> Result<()> {
    let mut sound = Sound::default();
    rows.iter().try_for_each(|row| walk(reader, row, Some(&mut sound), &mut Asking { reader, good }, notes))
}

impl Visit for Asking<'_> {
    fn read(&mut self, kind: ChunkKind, id: &ChunkId) -> Result<(Bytes, Claim)> {
        Ok((self.reader.chunk(kind, id)?, Claim::Sound))
    }

    fn data(&mut self, id: &ChunkId, length_bytes: u64) -> Claim {
        let mut claim = Claim::Missed;
        self.reader.index().each_place(id, |place| {
            if u64::from(place.length_bytes) == length_bytes && self.good.contains(place.frame.birth) {
                claim = Claim::Sound;
            }
            claim == Claim::Sound
        });
        claim
    }

    fn cut(&mut self) {}
}
