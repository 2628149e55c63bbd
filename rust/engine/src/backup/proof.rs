//! What the repository still has of what the stat cache says is needed.
//!
//! Frames are named by birth. One counts as there when its birth pack is listed, in no tombstone and as long as the index says, or when
//! the index says that it was moved to such a pack. What was relied on is kept as a bit a frame, for the usage tables; each walker has bits
//! of its own.

use crate::repository::index::Index;
use crate::statcache::{StatCache, birth};
use longshore_format::id::PackName;
use longshore_format::limits;
use longshore_format::usage::Usage;
use std::collections::HashSet;
use std::sync::Arc;

/// Proves frames by the rows of one cache.
#[derive(Debug)]
pub(crate) struct Proof {
    cache: Arc<StatCache>,
    whole: Vec<bool>,
    /// Frames of packs that are not whole, where they lie in others.
    moved: Usage,
    /// Frames that a repair found damaged and that lie nowhere else.
    lost: Usage,
}

/// What one walker relied on.
#[derive(Debug)]
pub(crate) struct Relied {
    proof: Arc<Proof>,
    bits: Vec<Vec<u64>>,
}

impl Proof {
    /// Against an index that was loaded after the session's marker was made.
    pub fn new(cache: &Arc<StatCache>, index: &Index) -> Self {
        let segments = index.segments();
        let listed: HashSet<PackName> = segments
            .iter()
            .flat_map(|segment| segment.packs())
            .filter(|pack| pack.size_bytes != 0 && index.is_usable(&pack.name))
            .map(|pack| pack.name)
            .collect();
        let whole: Vec<bool> = cache.packs().iter().map(|pack| listed.contains(pack)).collect();
        let mut moved = Usage::new();
        let damaged = index.damaged_frames();
        if whole.contains(&false) || !damaged.is_empty() {
            for segment in &segments {
                for frame in (0..).map_while(|row| segment.frame(row)) {
                    if frame.birth.pack != frame.pack && listed.contains(&frame.pack) && !index.is_damaged_place(&frame) {
                        moved.insert(frame.birth);
                    }
                }
            }
        }
        let mut lost = Usage::new();
        damaged.frames().filter(|frame| !moved.contains(*frame)).for_each(|frame| lost.insert(frame));
        Self { cache: Arc::clone(cache), whole, moved, lost }
    }

    /// Whether a frame is there.
    fn has(&self, frame: (u32, u32)) -> bool {
        let is_in = |frames: &Usage| birth(self.cache.packs(), frame).is_some_and(|birth| frames.contains(birth));
        let there = match self.whole.get(frame.0 as usize) {
            Some(true) => self.lost.is_empty() || !is_in(&self.lost),
            Some(false) => is_in(&self.moved),
            None => false,
        };
        there && frame.1 < limits::PACK_FRAMES_MAX as u32
    }
}

impl Relied {
    /// Nothing yet.
    pub fn new(proof: &Arc<Proof>) -> Self {
        Self { proof: Arc::clone(proof), bits: vec![Vec::new(); proof.whole.len()] }
    }

    /// Whether all these frames are there; those that are count as needed from now on.
    pub fn rely_on(&mut self, frames: impl Iterator<Item = (u32, u32)>) -> bool {
        let mut last = None;
        for frame in frames {
            if last.replace(frame) == Some(frame) {
                continue;
            }
            let (pack, ordinal) = (frame.0 as usize, frame.1);
            if !self.proof.has(frame) {
                return false;
            }
            let (word, bit) = ((ordinal / 64) as usize, ordinal % 64);
            let Some(bits) = self.bits.get_mut(pack) else { return false };
            if bits.len() <= word {
                bits.resize(word + 1, 0);
            }
            bits[word] |= 1 << bit;
        }
        true
    }

    /// What was relied on.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::new();
        for (pack, bits) in self.bits.iter().enumerate() {
            for (word, bits) in bits.iter().enumerate() {
                for bit in (0..64).filter(|bit| bits >> bit & 1 == 1) {
                    if let Some(birth) = birth(self.proof.cache.packs(), (pack as u32, word as u32 * 64 + bit)) {
                        usage.insert(birth);
                    }
                }
            }
        }
        usage
    }
}
