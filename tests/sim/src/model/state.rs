//! What there is in the model: the objects of a store as bits, and what each process remembers between two of its calls.
//!
//! A chunk is A or B. A frame is a chunk and the pack in which it was born, and is named so for life: bit `2 × pack + chunk`. A pack belongs
//! to the session of its number; the last two are written by prunes out of others' frames. Promises that two states are equal when nobody can
//! tell them apart: what a process needs no more it forgets, and the marker of a session that has ended counts as gone. Knows no rule.

use std::hash::{Hash, Hasher};

/// Bits of packs.
pub(super) type Packs = u8;
/// Bits of frames.
pub(super) type Frames = u16;
/// Bits of sessions, which are also those of snapshots and of the usage tables that they write.
pub(super) type Sessions = u8;

/// The first two made the snapshots that are there; then two for each writer.
pub(super) const SESSIONS: usize = 6;
/// One a session, then those of prunes.
pub(super) const PACKS: usize = SESSIONS + MOVERS;
/// Prunes that may move frames.
pub(super) const MOVERS: usize = 2;
pub(super) const WRITERS: usize = 2;
pub(super) const PRUNES: usize = 3;
/// The prune that is run to the end, alone, to see what a state leaves behind.
pub(super) const LAST: usize = PRUNES;
/// The segment that was there, one a session of a writer, one a prune that moves, one a prune that rewrites.
pub(super) const SEGMENTS: usize = 1 + 2 * WRITERS + MOVERS + PRUNES + 1;
pub(super) const CHUNKS: usize = 2;

pub(super) const fn bit(at: usize) -> u8 {
    1 << at
}

pub(super) fn bits(mask: u8) -> impl Iterator<Item = usize> {
    (0..8).filter(move |at| mask & bit(*at) != 0)
}

/// The session of a writer's attempt.
pub(super) const fn session(writer: usize, attempt: u8) -> usize {
    2 + 2 * writer + attempt as usize
}

/// The frame of a chunk born in a pack.
pub(super) const fn frame(pack: usize, chunk: usize) -> Frames {
    1 << (2 * pack + chunk)
}

/// All frames of a chunk.
pub(super) fn frames_of(chunk: usize) -> Frames {
    (0..SESSIONS).fold(0, |all, pack| all | frame(pack, chunk))
}

/// The segment that a prune writes for what it moved, and the one that it rewrites the index into.
pub(super) const fn moved_segment(prune: usize) -> usize {
    1 + 2 * WRITERS + prune
}

pub(super) const fn new_segment(prune: usize) -> usize {
    1 + 2 * WRITERS + MOVERS + prune
}

/// What a tombstone or a decision names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Doomed {
    pub packs: Packs,
    pub tables: Sessions,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Generation {
    pub tombstone: Option<Doomed>,
    pub open: Option<Sessions>,
    pub decision: Option<Doomed>,
}

impl Generation {
    pub fn is_live(&self) -> bool {
        self.tombstone.is_some() || self.open.is_some()
    }

    /// What nobody may rely on for its sake, as a prune reads it.
    pub fn off(&self) -> Packs {
        match self.is_live() {
            true => self.tombstone.unwrap_or_default().packs | self.decision.unwrap_or_default().packs,
            false => 0,
        }
    }
}

/// The objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Store {
    pub packs: Packs,
    /// What each pack was made of, there or not.
    pub made: [Frames; PACKS],
    pub committed: Sessions,
    pub aborted: Sessions,
    pub removed: Sessions,
    /// Commits that are under way although their writer has given them up, or that are sent twice.
    pub flying: Sessions,
    /// Packs and tombstones that are sent twice, of which the second has not arrived.
    pub adrift: Packs,
    pub adrift_tombstone: Option<(u8, Doomed)>,
    /// Snapshots of which somebody was told that they count.
    pub told: Sessions,
    /// The usage table that a session's snapshot names.
    pub names: [u8; SESSIONS],
    pub tables: Sessions,
    /// What each table says.
    pub says: [Frames; SESSIONS],
    pub markers: Sessions,
    /// The marker of the reader: the snapshot that it reads.
    pub reader: Option<u8>,
    pub generations: [Generation; PRUNES + 1],
    /// Packs that a segment lists.
    pub segments: [Packs; SEGMENTS],
    /// Segments that say of a pack what is not so.
    pub lying: u16,
    /// The store's one fault has been.
    pub spent: bool,
}

impl Store {
    /// Sessions that can no longer commit.
    pub fn ended(&self) -> Sessions {
        self.committed | self.aborted | self.removed
    }

    pub fn counted(&self) -> Sessions {
        self.committed & !self.removed
    }

    pub fn open_writers(&self) -> Sessions {
        self.markers & !self.ended()
    }

    /// What a snapshot needs.
    pub fn needs(&self, snapshot: usize) -> Frames {
        self.says[self.names[snapshot] as usize]
    }

    pub fn needed(&self, snapshots: Sessions) -> Frames {
        bits(snapshots).fold(0, |all, snapshot| all | self.needs(snapshot))
    }

    /// Frames that lie in these packs.
    pub fn frames(&self, packs: Packs) -> Frames {
        bits(packs).fold(0, |all, pack| all | self.made[pack])
    }

    pub fn indexed(&self) -> Packs {
        self.segments.iter().fold(0, |all, packs| all | packs)
    }

    /// Packs and tables of all decisions that ever were.
    pub fn decided(&self) -> Doomed {
        let all = self.generations.iter().filter_map(|g| g.decision);
        all.fold(Doomed::default(), |a, b| Doomed { packs: a.packs | b.packs, tables: a.tables | b.tables })
    }

    /// Packs and tables of all tombstones.
    pub fn tombstoned(&self) -> Doomed {
        let all = self.generations.iter().filter_map(|g| g.tombstone);
        all.fold(Doomed::default(), |a, b| Doomed { packs: a.packs | b.packs, tables: a.tables | b.tables })
    }
}

/// Where a writer is: the call that comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum WriterAt {
    #[default]
    Marker,
    EndAdopted,
    Tombstones,
    Index,
    Packs,
    LateMarker,
    Pack,
    Segment,
    Usage,
    Commit,
    LatePack,
    GiveUp,
    Done,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Writer {
    pub at: WriterAt,
    pub attempt: u8,
    pub dead: Doomed,
    pub known: Packs,
    pub listed: Packs,
    pub need: Frames,
    /// Chunks that it stores anew, as bits.
    pub fresh: u8,
    pub table: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum ReaderAt {
    #[default]
    Choose,
    Marker,
    Look,
    Reads,
    Done,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Reader {
    pub at: ReaderAt,
    pub snapshot: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum PruneAt {
    #[default]
    Index,
    Choose,
    PutMoved,
    IndexMoved,
    Tombstone,
    ListOpen,
    Open,
    LookFirst,
    LookSecond,
    LookThird,
    Tombstones,
    Packs,
    Decide,
    ReadDecision,
    Rewrite,
    DropSegments,
    LastLook,
    Delete,
    EndTombstone,
    EndOpen,
    Done,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Prune {
    pub at: PruneAt,
    /// The generation that it is at, if any.
    pub generation: u8,
    /// Packs of which some segment that it read says what they hold, or whose header it read.
    pub known: Packs,
    /// Segments that it read.
    pub segments: u16,
    /// One of them lies.
    pub lied_to: bool,
    pub listed: Sessions,
    pub removed: Sessions,
    /// The reader's snapshot, where markers are looked at too early.
    pub reader: Option<u8>,
    /// Writers that it waits for.
    pub open: Sessions,
    pub need: Frames,
    /// Usage tables that are needed.
    pub tables: Sessions,
    pub off: Packs,
    pub packs: Packs,
    /// What it means to delete: of the tombstone, then of the decision.
    pub doomed: Doomed,
    pub moved: Frames,
}

/// A state of everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub store: Store,
    pub writers: [Writer; WRITERS],
    pub reader: Reader,
    pub prunes: [Prune; PRUNES + 1],
    /// A prune has told of damage.
    pub refused: bool,
}

/// Sixty-four bits of a state. With n states the chance that two of them are taken for one is about n² / 2⁶⁵.
pub(super) fn digest(what: &impl Hash) -> u64 {
    let mut hasher = Fold(0x243F_6A88_85A3_08D3);
    what.hash(&mut hasher);
    hasher.finish()
}

// Few words, not many fields: most of an exploration's time goes into digests.

impl Hash for Generation {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let Self { tombstone, open, decision } = *self;
        let there = u8::from(tombstone.is_some()) | u8::from(open.is_some()) << 1 | u8::from(decision.is_some()) << 2;
        let (tombstone, decision) = (tombstone.unwrap_or_default(), decision.unwrap_or_default());
        let open = open.unwrap_or_default();
        hasher.write_u64(u64::from_le_bytes([
            there,
            open,
            tombstone.packs,
            tombstone.tables,
            decision.packs,
            decision.tables,
            0,
            0,
        ]));
    }
}

impl Hash for Writer {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let Self { at, attempt, dead, known, listed, need, fresh, table } = *self;
        let need = need.to_le_bytes();
        hasher.write_u64(u64::from_le_bytes([at as u8, attempt, dead.packs, dead.tables, known, listed, fresh, table]));
        hasher.write_u64(u64::from_le_bytes([need[0], need[1], 0, 0, 0, 0, 0, 0]));
    }
}

impl Hash for Prune {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let Self {
            at,
            generation,
            known,
            segments,
            lied_to,
            listed,
            removed,
            reader,
            open,
            need,
            tables,
            off,
            packs,
            doomed,
            moved,
        } = *self;
        let (segments, need, moved) = (segments.to_le_bytes(), need.to_le_bytes(), moved.to_le_bytes());
        let reader = reader.map_or(u8::MAX, |snapshot| snapshot);
        hasher.write_u64(u64::from_le_bytes([at as u8, generation, known, u8::from(lied_to), listed, removed, reader, open]));
        hasher.write_u64(u64::from_le_bytes([tables, off, packs, doomed.packs, doomed.tables, 0, segments[0], segments[1]]));
        hasher.write_u64(u64::from_le_bytes([need[0], need[1], moved[0], moved[1], 0, 0, 0, 0]));
    }
}

struct Fold(u64);

impl Fold {
    fn mix(&mut self, word: u64) {
        let wide = u128::from(self.0 ^ word) * u128::from(0x9E37_79B9_7F4A_7C15_u64);
        self.0 = (wide as u64) ^ ((wide >> 64) as u64).rotate_left(23).wrapping_add(0x1319_8A2E_0370_7344);
    }
}

impl Hasher for Fold {
    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.mix(u64::from(byte) | 0x100);
    }

    fn write_u16(&mut self, word: u16) {
        self.mix(u64::from(word) | 0x1_0000);
    }

    fn write_u64(&mut self, word: u64) {
        self.mix(word);
    }

    fn write_isize(&mut self, word: isize) {
        self.mix(word as u64 | 1 << 40);
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        let mut last = Self(self.0);
        last.mix(0xA409_3822_299F_31D0);
        last.0.max(1)
    }
}
