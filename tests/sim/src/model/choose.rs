//! Which packs may go, as a prune chooses them: a pack of which each needed frame lies also in one that stays.
//!
//! Follows what docs/format.md chapter 12 says of candidates and decisions, in its own words: no line of the engine is in here.

use super::state::{Frames, PACKS, Packs, bit, bits};

/// What a choice is made on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ground {
    pub made: [Frames; PACKS],
    /// What a lying segment says of a pack besides what is in it.
    pub lie: Option<(usize, Frames)>,
    /// Packs of which it is known what they hold.
    pub known: Packs,
    pub listed: Packs,
    pub need: Frames,
    /// Packs in tombstones.
    pub off: Packs,
    /// Which of two equal packs is taken first.
    pub descending: bool,
    pub reads_headers: bool,
    pub proves_headers: bool,
}

impl Ground {
    fn holds(&self, pack: usize) -> Frames {
        let lie = self.lie.filter(|(of, _)| *of == pack && !self.proves_headers).map_or(0, |(_, frames)| frames);
        if self.known & self.listed & bit(pack) == 0 { 0 } else { self.made[pack] | lie }
    }

    /// Needed frames that lie in none of the packs that are known.
    pub fn missing(&self) -> Frames {
        self.need & !(0..PACKS).fold(0, |all, pack| all | self.holds(pack))
    }

    fn has_copy(&self, one: Frames, not: Packs) -> bool {
        bits(!not).any(|pack| self.holds(pack) & one != 0)
    }
}

fn each(frames: Frames) -> impl Iterator<Item = Frames> {
    (0..16).map(|at| 1 << at).filter(move |one| frames & one != 0)
}

/// The packs among `may` that can go. Headers that are read for it are known from then on.
pub(super) fn choose(ground: &mut Ground, may: Packs) -> Packs {
    if ground.reads_headers {
        ground.known |= ground.listed & may;
    }
    if ground.missing() != 0 {
        ground.known |= ground.listed;
    }
    let mut order: Vec<usize> = bits(may & ground.listed).collect();
    order.sort_by_key(|pack| {
        let live = (ground.holds(*pack) & ground.need).count_ones();
        (live * 1000 / ground.made[*pack].count_ones().max(1), if ground.descending { PACKS - pack } else { *pack })
    });
    let mut chosen = 0;
    for pack in order {
        let frames = ground.holds(pack) & ground.need;
        if each(frames).all(|one| ground.has_copy(one, ground.off | chosen | bit(pack))) {
            chosen |= bit(pack);
        }
    }
    chosen
}

/// Needed frames that lie in none of the known packs once `goes` are gone; where some are missing, all headers are read.
pub(super) fn lost(ground: &Ground, goes: Packs) -> Frames {
    let without = |ground: &Ground| each(ground.need).filter(|one| !ground.has_copy(*one, goes)).fold(0, |all, one| all | one);
    match without(ground) {
        0 => 0,
        _ => without(&Ground { known: ground.listed, ..*ground }),
    }
}
