//! A small repository that holds an object of every kind, whole and left behind: what the row of rot damages byte by byte.
//!
//! Two key slots, snapshots of two volumes with all kinds of entries, a deleted one, packs that prunes rewrote, a record of a repair whose
//! damage a backup has healed, a generation that ended, one that waits for a writer that died, the watch on it, and what a restore that
//! died left. Made the same each time.

use crate::draw::Draw;
use crate::link::{Call, Fate};
use crate::portrait::Portrait;
use crate::process::{Birth, NEW_SECRET, Process, bytes_at};
use crate::scene::{BEGIN, fresh, prune_options};
use crate::sea::Sea;
use crate::stage::{DAY, Stage};
use crate::volume::Volume;
use bytes::Bytes;
use longshore_engine::prune::PruneOptions;
use longshore_engine::repository::Repository;
use longshore_engine::volume::made_up::MadeUpFs;
use longshore_format::keys::{Argon2Cost, Unlock};
use longshore_store::Key;
use longshore_store::layers::Verb;
use std::collections::BTreeMap;
use std::sync::Arc;

/// First segments of all keys under which it holds something.
pub const KINDS: [&str; 13] = [
    "config",
    "keys",
    "sessions",
    "packs",
    "index",
    "usage",
    "snapshots",
    "removed",
    "tombstones",
    "open",
    "decisions",
    "watches",
    "repairs",
];

/// The repository.
#[derive(Debug)]
pub struct Relic {
    /// Its store.
    pub sea: Arc<Sea>,
    /// It, opened with its first key.
    pub repository: Repository,
    /// What each snapshot that counts held.
    pub held: BTreeMap<String, Portrait>,
    /// A volume that shares much with what is stored.
    pub volume: Volume,
}

fn dies_at(verb: Verb, prefix: &'static str) -> impl FnMut(&Call<'_>) -> (u64, Fate) + Send + 'static {
    move |call: &Call<'_>| {
        (1_000_000, if call.verb == verb && call.key.starts_with(prefix) { Fate::DieBefore } else { Fate::Pass })
    }
}

impl Relic {
    /// Makes it.
    #[must_use]
    pub fn new() -> Self {
        let stage = Stage::alone(BEGIN - 20 * DAY);
        let (sea, repository) = fresh(4, &stage);
        let seed = &mut 0;
        let mut process = |plan: Box<dyn crate::link::Plan>| {
            *seed += 1;
            stage.advance(DAY);
            Process::new(&sea, &stage, Birth { plan, ..Birth::quiet(*seed) }).at_home(&repository)
        };
        let mut quiet = || process(Box::new(|_: &Call<'_>| (1_000_000, Fate::Pass)));
        quiet().repository().unwrap().add_slot(&Unlock::Secret(NEW_SECRET), "second", Argon2Cost::default()).unwrap();
        let mut draw = Draw::new(4, 1);
        let mut volume = Volume::new();
        for file in 0..8 {
            volume.put(&format!("d{}/f{file}", file % 2), draw.below(1 << 30) * 3 + 1, 13_000 + 900 * file);
        }
        volume.adorn();
        // Long enough for a frame of its own: when it has gone, the other frames of its pack are moved.
        volume.put("gone", 7, 140_000);
        let mut held = BTreeMap::new();
        let first = quiet().back_up(&volume, "a").unwrap();
        let mut made = vec![];
        volume.remove("gone");
        for turn in 0..2 {
            volume.live(&mut draw, 8, 20_000);
            volume.put("d1/f3", 1000 + 3 * turn, 9000);
            volume.put("new", 3 * turn + 1, 17_000);
            let session = quiet().back_up(&volume, "a").unwrap();
            held.insert(session.clone(), volume.portrait());
            made.push(session);
        }
        let mut other = Volume::random(&mut draw, 3, 9000);
        other.put("large", 5, 26_000);
        held.insert(quiet().back_up(&other, "b").unwrap(), other.portrait());
        quiet().delete(&first).unwrap();
        let mut moved = 0;
        for _ in 0..2 {
            moved += quiet().prune(&PruneOptions { waste_percent: 1, ..prune_options() }).unwrap().packs_repacked;
        }
        assert!(moved > 0, "no frame was moved");
        // A frame that rots, is found by a repair, and stored again by a backup whose source still has it.
        let packs = sea.keys(&format!("packs/{}-", made[1]));
        let (pack, body) = packs.iter().map(|key| (key, bytes_at(sea.objects(), key))).max_by_key(|(_, b)| b.len()).unwrap();
        let mut rotten = body.to_vec();
        rotten[body.len() / 3] ^= 4;
        sea.objects().overwrite(&Key::new(pack.as_str()).unwrap(), Bytes::from(rotten));
        let report = quiet().repair().unwrap();
        assert!(report.recorded && report.frames_lost > 0, "{report:?}");
        held.insert(quiet().back_up(&volume, "a").unwrap(), volume.portrait());
        // Who dies: a writer before its commit, a reader in the middle.
        volume.put("never", 8, 9000);
        process(Box::new(dies_at(Verb::PutNew, "snapshots/"))).back_up(&volume, "a").unwrap_err();
        process(Box::new(dies_at(Verb::GetRange, "packs/"))).restore(&made[0], &MadeUpFs::default()).unwrap_err();
        let gone = made.remove(0);
        let mut quiet = || process(Box::new(|_: &Call<'_>| (1_000_000, Fate::Pass)));
        quiet().delete(&gone).unwrap();
        held.remove(&gone);
        quiet().prune(&prune_options()).unwrap();
        sea.oracle(|ledger| assert_eq!(ledger.violation(), None));
        for kind in KINDS {
            assert!(!sea.keys(&format!("{kind}/")).is_empty(), "nothing under {kind}/");
        }
        Self { sea, repository, held, volume }
    }

    /// Keys and lengths of all objects whose bytes mean something: not those of the reserve, which are random and never read.
    #[must_use]
    pub fn objects(&self) -> Vec<(String, u64)> {
        let keys = self.sea.keys("").into_iter().filter(|key| key != "reserve");
        keys.map(|key| (key.clone(), self.sea.size_bytes(&key))).collect()
    }
}

impl Default for Relic {
    fn default() -> Self {
        Self::new()
    }
}
