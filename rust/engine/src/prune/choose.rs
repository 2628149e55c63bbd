//! Which packs may go: from what is needed and from what the index says lies where.
//!
//! A function of its inputs. Promises that for every needed frame a pack stays that is listed, holds it, and is neither in a
//! tombstone nor chosen. Reads no pack and no store; what it was told of moved frames is proven by its caller from headers.
//! Memory: a row a pack, two bits a needed frame, and a list for frames that lie in several packs.

use crate::repository::index::Index;
use longshore_format::id::{ChunkKind, PackName};
use longshore_format::pack::BirthName;
use longshore_format::usage::Usage;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// What is known of one listed pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub name: PackName,
    pub size_bytes: u64,
    /// Whether its frames are known; else all that is known is its name.
    pub known: bool,
    /// Whether it holds data, not trees or lists.
    pub is_data: bool,
    pub frames_bytes: u64,
    pub live_bytes: u64,
    pub live_frames: u32,
    /// Needed frames that are damaged here and lie nowhere else: as long as they are needed, it stays as it is.
    pub damaged_frames: u32,
    /// Needed frames that lie in several packs.
    shared_frames: u32,
}

impl Row {
    pub(super) fn dead_bytes(&self) -> u64 {
        self.frames_bytes - self.live_bytes
    }
}

/// Where needed frames lie.
#[derive(Debug)]
pub(super) struct Places {
    /// By name.
    pub rows: Vec<Row>,
    /// Needed frames that lie in several packs, by row.
    shared: BTreeMap<BirthName, Vec<u32>>,
    /// Needed frames that are damaged in a pack and lie elsewhere, too, by row.
    spoilt: HashMap<u32, Vec<BirthName>>,
    found: Usage,
}

/// What was chosen.
#[derive(Debug, Default)]
pub(super) struct Choice {
    pub packs: BTreeSet<PackName>,
    /// Packs that stay in place of chosen ones, and the frames that they must hold.
    pub proofs: BTreeMap<PackName, Vec<BirthName>>,
}

impl Places {
    /// Goes through the index once; `distrusted` packs hold nothing but what was born in them, and `damaged` ones not what is damaged
    /// there: that is no copy of anything, but it may be all that is left.
    pub(super) fn find(
        index: &Index,
        sizes: &HashMap<PackName, u64>,
        needed: &Usage,
        distrusted: &HashSet<PackName>,
        damaged: &HashMap<PackName, Usage>,
    ) -> Self {
        let mut rows: Vec<Row> = sizes
            .iter()
            .map(|(name, size)| Row {
                name: *name,
                size_bytes: *size,
                known: false,
                is_data: false,
                frames_bytes: 0,
                live_bytes: 0,
                live_frames: 0,
                damaged_frames: 0,
                shared_frames: 0,
            })
            .collect();
        rows.sort_unstable_by_key(|row| row.name);
        let (mut found, mut twice) = (Usage::new(), Usage::new());
        each_frame(index, &mut rows, distrusted, damaged, |row, birth, stored_bytes, is_needed_here| {
            row.frames_bytes += stored_bytes;
            if is_needed_here && needed.contains(birth) {
                row.live_bytes += stored_bytes;
                row.live_frames += 1;
                if found.contains(birth) {
                    twice.insert(birth);
                }
                found.insert(birth);
            }
        });
        let mut spoilt: HashMap<u32, Vec<BirthName>> = HashMap::new();
        for (pack, frames) in damaged {
            let Ok(at) = rows.binary_search_by_key(pack, |row| row.name) else { continue };
            for frame in frames.frames().filter(|frame| needed.contains(*frame)) {
                if found.contains(frame) {
                    // It goes only when who holds the other copy stays.
                    twice.insert(frame);
                    spoilt.entry(at as u32).or_default().push(frame);
                } else {
                    rows[at].damaged_frames += 1;
                    rows[at].live_frames += 1;
                }
            }
        }
        let mut shared: BTreeMap<BirthName, Vec<u32>> = BTreeMap::new();
        if !twice.is_empty() {
            let names: Vec<PackName> = rows.iter().map(|row| row.name).collect();
            for row in &mut rows {
                row.known = false;
            }
            each_frame(index, &mut rows, distrusted, damaged, |row, birth, _, is_needed_here| {
                if is_needed_here && twice.contains(birth) {
                    row.shared_frames += 1;
                    let at = names.binary_search(&row.name).unwrap_or_default();
                    shared.entry(birth).or_default().push(at as u32);
                }
            });
        }
        Self { rows, shared, spoilt, found }
    }

    /// Frames of `needed` that no known pack holds.
    pub(super) fn missing(&self, needed: &Usage) -> Vec<BirthName> {
        needed.frames().filter(|frame| !self.found.contains(*frame)).collect()
    }

    /// The packs among `may` whose needed frames all lie in packs that are neither in `off` nor chosen.
    ///
    /// One whose frames are not known counts as if it held none: who lets it in answers for that ([`super::Prune::choose`]). Those with the least to lose are chosen first, so that of two packs with the same frame the fuller one stays.
    pub(super) fn choose(&self, may: impl Fn(&Row) -> bool, off: &HashSet<PackName>) -> Choice {
        let mut order: Vec<u32> = (0..self.rows.len() as u32).filter(|at| may(&self.rows[*at as usize])).collect();
        order.sort_unstable_by_key(|at| {
            let row = &self.rows[*at as usize];
            (row.live_bytes.saturating_mul(1000) / row.frames_bytes.max(1), row.size_bytes, row.name)
        });
        let mut by_row: HashMap<u32, Vec<BirthName>> = HashMap::new();
        for (birth, holders) in &self.shared {
            for at in holders {
                by_row.entry(*at).or_default().push(*birth);
            }
        }
        for (at, frames) in &self.spoilt {
            by_row.entry(*at).or_default().extend(frames);
        }
        let mut choice = Choice::default();
        for at in order {
            let row = &self.rows[at as usize];
            if row.live_frames > row.shared_frames {
                continue;
            }
            let stays = |birth: &BirthName| {
                let holders = self.shared.get(birth).map_or(&[][..], Vec::as_slice);
                let other = holders
                    .iter()
                    .map(|h| self.rows[*h as usize].name)
                    .find(|name| *name != row.name && !off.contains(name) && !choice.packs.contains(name));
                other.map(|name| (name, *birth))
            };
            let frames = by_row.get(&at).map_or(&[][..], Vec::as_slice);
            let proofs: Option<Vec<_>> = frames.iter().map(stays).collect();
            if let Some(proofs) = proofs {
                choice.packs.insert(row.name);
                for (pack, birth) in proofs {
                    choice.proofs.entry(pack).or_default().push(birth);
                }
            }
        }
        // A pack may have been a proof before it was chosen itself only if it is chosen no more.
        choice
    }

    /// Packs among those that go with needed frames that lie in no known pack that stays.
    pub(super) fn lost_without(&self, goes: impl Fn(&PackName) -> bool) -> Vec<PackName> {
        let mut lost = Vec::new();
        let mut by_row: HashMap<u32, u32> = HashMap::new();
        for holders in self.shared.values() {
            if holders.iter().any(|h| !goes(&self.rows[*h as usize].name)) {
                for h in holders {
                    *by_row.entry(*h).or_default() += 1;
                }
            }
        }
        for (at, row) in self.rows.iter().enumerate() {
            if goes(&row.name) && row.live_frames > by_row.get(&(at as u32)).copied().unwrap_or(0) {
                lost.push(row.name);
            }
        }
        lost
    }

    /// Whether a needed frame lies in another pack than `from` that is neither in `off` nor in `leaving`.
    pub(super) fn lies_elsewhere(
        &self,
        birth: &BirthName,
        from: &PackName,
        off: &HashSet<PackName>,
        leaving: &BTreeSet<PackName>,
    ) -> bool {
        self.shared.get(birth).is_some_and(|holders| {
            holders.iter().map(|h| self.rows[*h as usize].name).any(|n| n != *from && !off.contains(&n) && !leaving.contains(&n))
        })
    }
}

/// Calls `visit` with each frame of each listed pack once, from the first segment that lists the pack with its size.
fn each_frame(
    index: &Index,
    rows: &mut [Row],
    distrusted: &HashSet<PackName>,
    damaged: &HashMap<PackName, Usage>,
    mut visit: impl FnMut(&mut Row, BirthName, u64, bool),
) {
    let mut taken: HashMap<PackName, usize> = HashMap::new();
    for (number, segment) in index.segments().iter().enumerate() {
        for row in segment.packs().filter(|row| row.size_bytes != 0) {
            if let Ok(at) = rows.binary_search_by_key(&row.name, |r| r.name)
                && rows[at].size_bytes == row.size_bytes
            {
                taken.entry(row.name).or_insert(number);
            }
        }
        for row in 0..segment.frame_count() {
            let Some(frame) = u32::try_from(row).ok().and_then(|row| segment.frame(row)) else { continue };
            if taken.get(&frame.pack) != Some(&number) {
                continue;
            }
            let Ok(at) = rows.binary_search_by_key(&frame.pack, |r| r.name) else { continue };
            rows[at].known = true;
            rows[at].is_data = frame.kind == ChunkKind::Data;
            let is_own = frame.birth.pack == frame.pack;
            let is_whole = !damaged.get(&frame.pack).is_some_and(|frames| frames.contains(frame.birth));
            let is_held = is_whole && (is_own || !distrusted.contains(&frame.pack));
            visit(&mut rows[at], frame.birth, u64::from(frame.stored_bytes), is_held);
        }
    }
}
