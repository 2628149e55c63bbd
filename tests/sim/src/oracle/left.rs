//! What is left in a store that nobody needs, and what keeps it there.
//!
//! Every object of a store is needed by a snapshot that counts, or kept for ever, or spare: docs/reliability.md has the table. What is spare
//! when a prune begins is gone when it has ended well, unless a writer that may still commit, or a generation that waits for one, holds it.
//! When no writer is left nothing holds anything. A pack is spare, too, when each frame of it that is needed lies also in a pack that
//! stays. How much of a pack is dead is not asked here: a prune leaves it until that is worth a move.

use super::Ledger;
use super::format::Birth;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Folders of which nothing is ever deleted.
pub const FOR_EVER: [&str; 4] = ["config", "keys", "removed", "decisions"];
/// The room that is kept back, an object without folder.
const RESERVE: &str = "reserve";
/// By it the store is asked whether it creates an object only when its key is free: it stays. Other objects beside it are spare.
const PROBE: &str = "create-only";

/// Spare objects, each with the number of its birth: one that comes again is another.
pub type Spare = BTreeMap<String, u64>;

fn folder_and_name(key: &str) -> (&str, &str) {
    key.split_once('/').unwrap_or(("", key))
}

impl Ledger {
    /// Packs of which no snapshot needs a frame, and usage tables that none names.
    #[must_use]
    pub fn garbage(&self) -> Vec<String> {
        let needed = self.needed();
        let packs = self.packs.iter().filter(|(_, frames)| !frames.iter().any(|frame| needed.contains(&frame.birth)));
        let mut out: Vec<String> = packs.map(|(key, _)| key.clone()).collect();
        out.extend(self.torn.iter().cloned());
        let tables = self.tables();
        out.extend(self.usage.keys().filter(|t| !tables.contains(t)).map(|t| format!("usage/{t}")));
        out
    }

    /// Tables that snapshots name.
    fn tables(&self) -> BTreeSet<&String> {
        self.counted.values().flat_map(|counted| &counted.usage).collect()
    }

    fn needed(&self) -> BTreeSet<Birth> {
        let mut needed: BTreeSet<Birth> =
            self.tables().iter().filter_map(|t| self.usage.get(*t)).flat_map(|t| t.iter().copied()).collect();
        for repair in self.repairs.values() {
            let counts = repair.needs.iter().filter(|(snapshot, _)| self.counted.contains_key(*snapshot));
            needed.extend(counts.flat_map(|(_, births)| births));
        }
        let wanted: BTreeSet<&[u8; 8]> = self.repairs.values().flat_map(|repair| &repair.wanted).collect();
        if !wanted.is_empty() {
            let is_wanted =
                |frame: &super::ReadFrame| frame.chunks.iter().any(|(id, _)| wanted.iter().any(|w| id.starts_with(&w[..])));
            let frames = self.packs.values().flat_map(|frames| frames.iter());
            needed.extend(frames.filter(|frame| is_wanted(frame)).map(|frame| frame.birth));
        }
        needed
    }

    /// Whether a writer may still commit, as far as the repository says.
    fn is_open(&self, session: &String) -> bool {
        self.writers.contains_key(session) && !self.listed.contains(session) && !self.removed.contains(session)
    }

    fn waits(&self, generation: &str) -> bool {
        self.stuck.contains(generation)
            || self.tombstones.contains_key(generation)
                && self.open.get(generation).is_some_and(|o| o.iter().any(|s| self.is_open(s)))
    }

    /// Packs each needed frame of which lies also in a pack that stays: one in no tombstone.
    fn doubles(&self) -> BTreeSet<&String> {
        let needed = self.needed();
        let doomed: BTreeSet<&String> = self.tombstones.values().flatten().collect();
        let staying = || self.packs.iter().filter(|(key, _)| !doomed.contains(key));
        let mut holders: HashMap<Birth, u32> = HashMap::new();
        for birth in staying().flat_map(|(_, frames)| frames.iter().map(|frame| frame.birth).collect::<BTreeSet<_>>()) {
            *holders.entry(birth).or_default() += 1;
        }
        let lies_elsewhere = |birth: &Birth| holders.get(birth).is_some_and(|n| *n > 1);
        let is_double = |frames: &[super::ReadFrame]| {
            let mut births = frames.iter().map(|frame| frame.birth).filter(|birth| needed.contains(birth)).peekable();
            births.peek().is_some() && births.all(|birth| lies_elsewhere(&birth))
        };
        staying().filter(|(_, frames)| is_double(frames)).map(|(key, _)| key).collect()
    }

    /// What nobody needs.
    #[must_use]
    pub fn spare(&self) -> Spare {
        self.spare_of(self.births.keys())
    }

    /// What nobody needs of these keys, be they objects that were shown or not.
    #[must_use]
    pub fn spare_of<'a>(&self, keys: impl IntoIterator<Item = &'a String>) -> Spare {
        let (garbage, doubles): (BTreeSet<String>, _) = (self.garbage().into_iter().collect(), self.doubles());
        let is_spare = |key: &String| {
            let (folder, name) = folder_and_name(key);
            match folder {
                "" => name != RESERVE,
                "probe" => name != PROBE,
                // Torn tables are not among those that could be read.
                "usage" => garbage.contains(key) || !self.usage.contains_key(name),
                "packs" => garbage.contains(key) || doubles.contains(key),
                "snapshots" => self.removed.contains(name),
                // What a repair wrote down stays as long as a snapshot that it speaks of counts, or a pack is there that it calls damaged.
                "repairs" => self.repairs.get(name).is_none_or(|repair| {
                    !repair.needs.keys().any(|snapshot| self.counted.contains_key(snapshot))
                        && !repair.damaged.iter().any(|pack| self.packs.contains_key(pack) || self.torn.contains(pack))
                }),
                "index" => {
                    let packs = self.segments.get(name);
                    packs.is_none_or(|packs| packs.is_empty() || packs.iter().any(|pack| !self.packs.contains_key(pack)))
                }
                folder => !FOR_EVER.contains(&folder),
            }
        };
        let birth = |key: &String| (key.clone(), self.births.get(key).copied().unwrap_or_default());
        keys.into_iter().filter(|key| is_spare(key)).map(birth).collect()
    }

    /// Writers that may still commit.
    pub fn open_writers(&self) -> impl Iterator<Item = &String> {
        self.writers.keys().filter(|writer| self.is_open(writer))
    }

    /// Ends of sessions that were given up: they are kept for ever, as are removals and decisions.
    #[must_use]
    pub fn ends(&self) -> u64 {
        (self.listed.len() - self.counted.len()) as u64
    }

    /// Whether an open writer, or a generation that waits for one, keeps what is spare.
    #[must_use]
    pub fn is_held(&self, key: &str) -> bool {
        let (folder, name) = folder_and_name(key);
        let in_tombstone = || self.tombstones.iter().any(|(generation, names)| names.contains(key) && self.waits(generation));
        match folder {
            "packs" => {
                let session = name.get(..32).unwrap_or_default().to_owned();
                let mut open = self.writers.iter().filter(|(writer, _)| self.is_open(writer));
                in_tombstone() || open.any(|(writer, adopts)| *writer == session || adopts.contains(&session))
            }
            "usage" => in_tombstone(),
            "sessions" => self.is_open(&name.to_owned()),
            "tombstones" | "open" => self.waits(name),
            // Each prune writes a watch of its own, or needs none.
            _ => false,
        }
    }
}
