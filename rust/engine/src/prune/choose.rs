//! Which packs may go: from what is needed and from what the index says lies where.
//!
//! A function of its inputs. Promises that for every needed frame a pack stays that is listed, holds it, and is neither in a
//! tombstone nor chosen. Reads no pack and no store; what it was told of moved frames is proven by its caller from headers.
//! Memory: a row a pack, two bits a needed frame, and 12 bytes for each place of a frame that lies in several packs, 16 while packs are
//! chosen: after a repack that is two places for each frame that was moved.

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
#[derive(Debug, Default)]
pub(super) struct Places {
    /// By name.
    pub rows: Vec<Row>,
    /// Needed frames that lie in several packs.
    shared: Shared,
    /// Needed frames that are damaged in a pack and lie elsewhere, too, by row.
    spoilt: HashMap<u32, Vec<BirthName>>,
    found: Usage,
}

/// What was chosen.
#[derive(Debug, Default)]
pub(super) struct Choice {
    pub packs: BTreeSet<PackName>,
    /// Packs that stay in place of chosen ones, and the frames that they must hold.
    pub proofs: BTreeMap<PackName, Usage>,
}

/// The places of frames that lie in several packs.
#[derive(Debug, Default)]
struct Shared {
    /// Their birth packs, ascending.
    births: Vec<PackName>,
    /// Of each place its birth pack's number there, its ordinal, its pack's row; ascending.
    places: Vec<[u32; 3]>,
}

impl Shared {
    /// Those that `add` gives, of frames of a set; `places`: how many there are.
    fn of(frames: &Usage, places: usize, add: impl FnOnce(&mut dyn FnMut(BirthName, usize))) -> Self {
        let mut shared = Self { births: frames.packs().collect(), places: Vec::with_capacity(places) };
        let Self { births, places } = &mut shared;
        add(&mut |birth, row| {
            if let Ok(number) = births.binary_search(&birth.pack) {
                places.push([number as u32, birth.ordinal, row as u32]);
            }
        });
        places.sort_unstable();
        shared
    }

    /// The rows of the packs in which a frame lies; none when that is one or none.
    fn rows(&self, birth: &BirthName) -> impl Iterator<Item = usize> {
        let number = self.births.binary_search(&birth.pack).map_or(u32::MAX, |number| number as u32);
        let from = self.places.partition_point(|place| (place[0], place[1]) < (number, birth.ordinal));
        self.places[from..].iter().take_while(move |place| place[..2] == [number, birth.ordinal]).map(|place| place[2] as usize)
    }

    /// Of each frame its places.
    fn by_frame(&self) -> impl Iterator<Item = &[[u32; 3]]> {
        self.places.chunk_by(|a, b| a[..2] == b[..2])
    }

    /// The places by row, and where those of each row begin.
    fn by_row(&self, rows: usize) -> ByRow {
        let mut ends = vec![0; rows + 1];
        self.places.iter().for_each(|place| ends[place[2] as usize + 1] += 1);
        for row in 0..rows {
            ends[row + 1] += ends[row];
        }
        let (mut next, mut places) = (ends.clone(), vec![0; self.places.len()]);
        for (at, place) in self.places.iter().enumerate() {
            let place_of_row = &mut next[place[2] as usize];
            places[*place_of_row as usize] = at as u32;
            *place_of_row += 1;
        }
        ByRow { ends, places }
    }
}

struct ByRow {
    ends: Vec<u32>,
    places: Vec<u32>,
}

impl ByRow {
    fn frames<'a>(&'a self, row: usize, shared: &'a Shared) -> impl Iterator<Item = BirthName> + 'a {
        let own = &self.places[self.ends[row] as usize..self.ends[row + 1] as usize];
        own.iter().map(|at| {
            let [number, ordinal, _] = shared.places[*at as usize];
            BirthName { pack: shared.births[number as usize], ordinal }
        })
    }
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
        let (mut found, mut twice, mut copies) = (Usage::new(), Usage::new(), 0);
        each_frame(index, &mut rows, distrusted, damaged, |_, row, birth, stored_bytes, is_needed_here| {
            row.frames_bytes += stored_bytes;
            if is_needed_here && needed.contains(birth) {
                row.live_bytes += stored_bytes;
                row.live_frames += 1;
                if found.contains(birth) {
                    twice.insert(birth);
                    copies += 1;
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
        let mut shared = Shared::default();
        if !twice.is_empty() {
            for row in &mut rows {
                row.known = false;
            }
            let places = copies + twice.len() as usize;
            shared = Shared::of(&twice, places, |add| {
                each_frame(index, &mut rows, distrusted, damaged, |at, row, birth, _, is_needed_here| {
                    if is_needed_here && twice.contains(birth) {
                        row.shared_frames += 1;
                        add(birth, at);
                    }
                });
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
        let by_row = self.shared.by_row(self.rows.len());
        let mut choice = Choice::default();
        for at in order {
            let row = &self.rows[at as usize];
            if row.live_frames > row.shared_frames {
                continue;
            }
            let stays = |birth: BirthName| {
                let mut holders = self.shared.rows(&birth).map(|holder| self.rows[holder].name);
                let other = holders.find(|name| *name != row.name && !off.contains(name) && !choice.packs.contains(name));
                other.map(|name| (name, birth))
            };
            let spoilt = self.spoilt.get(&at).into_iter().flatten().copied();
            let proofs: Option<Vec<_>> = by_row.frames(at as usize, &self.shared).chain(spoilt).map(stays).collect();
            if let Some(proofs) = proofs {
                choice.packs.insert(row.name);
                for (pack, birth) in proofs {
                    choice.proofs.entry(pack).or_default().insert(birth);
                }
            }
        }
        // A pack may have been a proof before it was chosen itself only if it is chosen no more.
        choice
    }

    /// Packs among those that go with needed frames that lie in no known pack that stays.
    pub(super) fn lost_without(&self, goes: impl Fn(&PackName) -> bool) -> Vec<PackName> {
        let mut lost = Vec::new();
        let mut stays = vec![0; self.rows.len()];
        for places in self.shared.by_frame() {
            if places.iter().any(|place| !goes(&self.rows[place[2] as usize].name)) {
                places.iter().for_each(|place| stays[place[2] as usize] += 1);
            }
        }
        for (at, row) in self.rows.iter().enumerate() {
            if goes(&row.name) && row.live_frames > stays[at] {
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
        let mut holders = self.shared.rows(birth).map(|holder| self.rows[holder].name);
        holders.any(|name| name != *from && !off.contains(&name) && !leaving.contains(&name))
    }
}

/// Calls `visit` with each frame of each listed pack and its row once, from the first segment that lists the pack with its size.
fn each_frame(
    index: &Index,
    rows: &mut [Row],
    distrusted: &HashSet<PackName>,
    damaged: &HashMap<PackName, Usage>,
    mut visit: impl FnMut(usize, &mut Row, BirthName, u64, bool),
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
            visit(at, &mut rows[at], frame.birth, u64::from(frame.stored_bytes), is_held);
        }
    }
}
