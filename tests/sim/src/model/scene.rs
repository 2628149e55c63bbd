//! What meets in one exploration: who there is, what was there before, and what the store may do. Small enough to be gone through whole.

use super::state::{Frames, SESSIONS, Sessions, State, WRITERS, bit, frame};

/// Who meets whom.
#[derive(Clone, Copy, Debug)]
pub struct Scene {
    /// Its name in the table.
    pub name: &'static str,
    /// What is special about it.
    pub what: &'static str,
    /// Writers, and sessions that each may open one after the other.
    pub writers: u8,
    /// The same.
    pub attempts: u8,
    /// Chunks that each wants, as bits: 1 is A, 2 is B.
    pub wants: [u8; WRITERS],
    /// Prunes.
    pub prunes: u8,
    /// Whether there is a reader.
    pub reader: bool,
    /// The snapshot Y needs these frames of its own pack; the pack holds A and B, or A alone when nothing else is needed of it.
    pub(super) first: Frames,
    /// What the pack of Y holds.
    pub(super) first_made: Frames,
    /// What the pack of Z holds and Z needs; nothing: there is no Z.
    pub(super) second: Frames,
    /// Snapshots that users may delete.
    pub(super) removable: Sessions,
    /// Snapshots that the reader may choose.
    pub(super) readable: Sessions,
    /// Sessions may be judged dead at any time.
    pub fences: bool,
    /// A writer's sessions are backups one after the other, none of which adopts another.
    pub repeats: bool,
    /// Writers may die and be gone on from.
    pub dies: bool,
    /// Prunes move frames.
    pub moves: bool,
    /// Also out of packs of which all is needed.
    pub merges: bool,
    /// One commit may be late, or arrive twice.
    pub late: bool,
    /// One pack may arrive twice.
    pub packs_twice: bool,
    /// What the pack of Y holds lies in a pack of a prune, too, and Y's pack is under way once more.
    pub(super) copied: bool,
    /// Prunes that take the later of two equal packs first, as bits.
    pub(super) descends: u8,
    /// One tombstone may arrive twice.
    pub tombstones_twice: bool,
    /// One put may be answered and not kept.
    pub loses: bool,
    /// One listing of packs may leave one out.
    pub short_packs: bool,
    /// One listing of snapshots may leave one out, which is outside of what is promised.
    pub hides: bool,
    /// A segment says that a pack holds frames that are not in it.
    pub(super) lie: Option<(usize, Frames)>,
}

const A: Frames = frame(0, 0);
const B: Frames = frame(0, 1);

const PLAIN: Scene = Scene {
    name: "",
    what: "",
    writers: 0,
    attempts: 1,
    wants: [1, 1],
    prunes: 1,
    reader: false,
    first: A,
    first_made: A,
    second: 0,
    removable: bit(0),
    readable: bit(0),
    fences: false,
    repeats: false,
    dies: false,
    moves: false,
    merges: false,
    late: false,
    packs_twice: false,
    copied: false,
    descends: bit(1),
    tombstones_twice: false,
    loses: false,
    short_packs: false,
    hides: false,
    lie: None,
};

/// A writer beside two prunes, which move frames out of a pack that is dead in part and carry on one another's generations.
pub const PRUNES: Scene = Scene {
    name: "prunes",
    what: "a writer, two prunes that move frames and carry on, deletions, fences",
    writers: 1,
    prunes: 2,
    first_made: A | B,
    fences: true,
    moves: true,
    removable: bit(0),
    ..PLAIN
};

/// Two prunes alone: the same frame in several packs.
pub const COPIES: Scene = Scene {
    name: "copies",
    what: "two prunes that move, packs of two chunks, two snapshots that need different ones",
    prunes: 2,
    first: A | B,
    first_made: A | B,
    second: frame(1, 0),
    removable: bit(0) | bit(1),
    moves: true,
    merges: true,
    ..PLAIN
};

/// Two writers and a prune.
pub const WRITERS_MEET: Scene = Scene {
    name: "writers",
    what: "two writers of two chunks in common, a prune, deletions of all snapshots, fences",
    writers: 2,
    wants: [2, 3],
    fences: true,
    removable: bit(0) | bit(2) | bit(4),
    ..PLAIN
};

/// A writer that is fenced or dies, and goes on.
pub const RESUME: Scene = Scene {
    name: "resume",
    what: "a writer of two chunks that dies or is fenced and adopts its first session, a prune, late commits",
    writers: 1,
    attempts: 2,
    wants: [3, 0],
    fences: true,
    dies: true,
    late: true,
    removable: bit(0) | bit(2),
    ..PLAIN
};

/// Packs that arrive twice.
pub const PACKS_TWICE: Scene = Scene {
    name: "packs twice",
    what: "one pack arrives once more at any time: a writer that dies and adopts its first session, two prunes, fences",
    writers: 1,
    attempts: 2,
    wants: [2, 0],
    prunes: 2,
    fences: true,
    dies: true,
    packs_twice: true,
    removable: 0,
    ..PLAIN
};

/// Three prunes, and a pack that was deleted.
pub const COPY_AGAIN: Scene = Scene {
    name: "copy again",
    what: "a frame in two packs, one of which arrives once more at any time: three prunes that carry on",
    prunes: 3,
    copied: true,
    descends: bit(2),
    removable: 0,
    ..PLAIN
};

/// Tombstones that arrive twice.
pub const TOMBSTONES_TWICE: Scene = Scene {
    name: "tombstones twice",
    what: "one tombstone arrives once more at any time: a writer, two prunes, deletions",
    writers: 1,
    prunes: 2,
    tombstones_twice: true,
    ..PLAIN
};

/// A writer that backs up twice.
pub const REPEATS: Scene = Scene {
    name: "repeats",
    what: "two backups one after the other, two prunes that carry on, deletions of all snapshots",
    writers: 1,
    attempts: 2,
    prunes: 2,
    repeats: true,
    removable: bit(0) | bit(2),
    ..PLAIN
};

/// The same on a store that loses a put.
pub const LOSSY_REPEATS: Scene = Scene {
    name: "lossy repeats",
    what: "one put is answered and not kept: two backups one after the other, two prunes, deletions of all snapshots",
    loses: true,
    ..REPEATS
};

/// Two writers and two prunes.
pub const PAIRS: Scene = Scene {
    name: "pairs",
    what: "two writers of one chunk, two prunes that carry on, a deletion",
    writers: 2,
    prunes: 2,
    ..PLAIN
};

/// Everybody: too much to be gone through.
pub const CROWD: Scene = Scene {
    name: "crowd",
    what: "two writers of two chunks that die, are fenced and adopt, three prunes that move, a reader, late commits, deletions of all",
    writers: 2,
    attempts: 2,
    wants: [3, 3],
    prunes: 3,
    reader: true,
    first_made: A | B,
    second: frame(1, 1),
    removable: u8::MAX,
    readable: u8::MAX,
    fences: true,
    dies: true,
    late: true,
    moves: true,
    merges: true,
    ..PLAIN
};

/// A reader.
pub const READER: Scene = Scene {
    name: "reader",
    what: "a reader, a writer, a prune that moves, deletions",
    writers: 1,
    reader: true,
    first_made: A | B,
    moves: true,
    removable: bit(0) | bit(2),
    readable: bit(0) | bit(2),
    ..PLAIN
};

/// Commits that are late.
pub const LATE: Scene = Scene {
    name: "late",
    what: "a writer whose commit is late, arrives twice or unanswered, two prunes, deletions, fences",
    writers: 1,
    prunes: 2,
    late: true,
    fences: true,
    removable: bit(0) | bit(2),
    ..PLAIN
};

/// A store that answers a put and does not keep it.
pub const LOSSY: Scene = Scene {
    name: "lossy",
    what: "one put of anybody is answered and not kept: a writer, a reader, a prune, deletions, fences",
    writers: 1,
    reader: true,
    loses: true,
    fences: true,
    ..PLAIN
};

/// The same beside two writers.
pub const LOSSY_WRITERS: Scene = Scene {
    name: "lossy writers",
    what: "one put is answered and not kept: two writers, a prune, deletions",
    writers: 2,
    wants: [2, 2],
    loses: true,
    ..PLAIN
};

/// The same beside two prunes.
pub const LOSSY_PRUNES: Scene = Scene {
    name: "lossy prunes",
    what: "one put is answered and not kept: a writer, two prunes, deletions",
    writers: 1,
    prunes: 2,
    loses: true,
    ..PLAIN
};

/// An index that lies.
pub const LYING: Scene = Scene {
    name: "lying",
    what: "a segment says that a pack holds a copy which it does not: two prunes that rewrite the index, deletions",
    prunes: 2,
    second: frame(1, 0),
    removable: bit(1),
    lie: Some((1, A)),
    ..PLAIN
};

/// Short listings of packs.
pub const SHORT: Scene = Scene {
    name: "short",
    what: "one listing of packs leaves one out: a writer, two prunes that move, deletions",
    writers: 1,
    prunes: 2,
    short_packs: true,
    moves: true,
    first_made: A | B,
    ..PLAIN
};

/// A store that lies about snapshots, beyond what is promised: the last look saves what it can.
pub const HIDES: Scene = Scene {
    name: "hides",
    what: "one listing of snapshots leaves one out: a writer, a prune, deletions",
    writers: 1,
    hides: true,
    ..PLAIN
};

impl Scene {
    /// Whether the store does what a prune may call damage.
    pub(super) fn lies(&self) -> bool {
        self.short_packs || self.hides || self.loses
    }

    /// Where it begins.
    pub(super) fn begin(&self) -> State {
        let mut st = State::default();
        let store = &mut st.store;
        (store.committed, store.told, store.packs, store.tables) = (1, 1, 1, 1);
        (store.made[0], store.says[0], store.segments[0]) = (self.first_made, self.first, 1);
        if self.second != 0 {
            store.committed |= 2;
            store.told |= 2;
            store.packs |= 2;
            store.tables |= 2;
            store.segments[0] |= 2;
            (store.made[1], store.says[1], store.names[1]) = (self.second, self.second, 1);
        }
        if self.copied {
            store.packs |= bit(SESSIONS);
            store.made[SESSIONS] = self.first_made;
            store.segments[0] |= bit(SESSIONS);
            (store.adrift, store.spent) = (1, true);
        }
        store.lying = u16::from(self.lie.is_some());
        st
    }
}
