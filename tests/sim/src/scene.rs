//! Repositories with a past, from which runs begin: made once, forked for each run.
//!
//! A scene has snapshots that count, one that was deleted and whose packs wait for a prune, and volumes that want again what only
//! the deleted one had: so that a writer meets chunks which are about to go.

use crate::draw::Draw;
use crate::oracle::Ledger;
use crate::oracle::format::Reader;
use crate::process::{Birth, Process, SECRET, bytes_at};
use crate::sea::Sea;
use crate::stage::{DAY, Stage};
use crate::volume::Volume;
use longshore_engine::prune::PruneOptions;
use longshore_engine::repository::Repository;
use std::sync::Arc;

/// The moment at which runs begin.
pub const BEGIN: u64 = 100 * DAY;
/// Files of a small volume.
const FILES: u64 = 6;
/// Files of a noisy one that have frames of their own.
const NOISY_FILES: u64 = 3;
/// Longest file of a small volume, in bytes.
pub const FILE_BYTES_MAX: u64 = 9000;

/// A repository with a past.
#[derive(Debug)]
pub struct Scene {
    /// Its store.
    pub sea: Arc<Sea>,
    /// It, opened.
    pub repository: Repository,
    /// Volumes that want again what was deleted.
    pub volumes: Vec<Volume>,
    /// Snapshots that count.
    pub counted: Vec<String>,
}

/// How prunes of small repositories are told to work.
#[must_use]
pub fn prune_options() -> PruneOptions {
    PruneOptions { pack_size_bytes: 32 << 10, waste_percent: 20, allow_empty: true, ..PruneOptions::default() }
}

/// A store with a repository that has just been made, watched by the oracle.
#[must_use]
pub fn fresh(seed: u64, stage: &Arc<Stage>) -> (Arc<Sea>, Repository) {
    let sea = Sea::new();
    let repository = Process::new(&sea, stage, Birth::quiet(seed)).init().expect("a repository can be made");
    let slot = sea.keys("keys/").remove(0);
    let reader = Reader::from_slot(&slot, &bytes_at(sea.objects(), &slot), &SECRET).expect("a slot opens by docs/format.md");
    sea.watch(Ledger::new(reader));
    (sea, repository)
}

impl Scene {
    /// Makes one whose small files share frames.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with(seed, 0)
    }

    /// Makes one with files that have frames of their own, so that packs die in part.
    #[must_use]
    pub fn noisy(seed: u64) -> Self {
        Self::with(seed, NOISY_FILES)
    }

    fn with(seed: u64, noisy_files: u64) -> Self {
        let stage = Stage::alone(BEGIN - 10 * DAY);
        let (sea, repository) = fresh(seed, &stage);
        let mut draw = Draw::new(seed, 1);
        // Of a number that no trial has: who draws what another drew makes its session's name again.
        let past = if noisy_files > 0 { seed | 1 << 40 } else { seed + 1 };
        let process = Process::new(&sea, &stage, Birth::quiet(past)).at_home(&repository);
        let mut volume = Volume::random(&mut draw, FILES, FILE_BYTES_MAX);
        (0..noisy_files).for_each(|number| volume.put_noise(number, seed + number));
        let mut old = Draw::new(seed, 2);
        let mut made = vec![process.back_up(&volume, "a").expect("a backup")];
        if draw.in_thousand(500) {
            process.prune(&prune_options()).expect("a prune");
        }
        for turn in 0..=draw.below(3) {
            stage.advance(DAY);
            if noisy_files > 0 {
                volume.put_noise(turn % noisy_files, seed + 100 + turn);
            }
            volume.live(&mut draw, FILES, FILE_BYTES_MAX);
            volume.live(&mut draw, FILES, FILE_BYTES_MAX);
            made.push(process.back_up(&volume, "a").expect("a backup"));
        }
        if draw.in_thousand(500) {
            process.prune(&prune_options()).expect("a prune");
        }
        process.delete(&made.remove(0)).expect("a deletion");
        if made.len() > 2 {
            process.delete(&made.remove(0)).expect("a deletion");
        }
        // What the first snapshot had, with a few other files.
        let mut volumes = Vec::new();
        for _ in 0..2 {
            let mut again = Volume::random(&mut Draw::new(seed, 1), FILES, FILE_BYTES_MAX);
            (0..noisy_files).for_each(|number| again.put_noise(number, seed + number));
            again.live(&mut old, FILES, FILE_BYTES_MAX);
            volumes.push(again);
        }
        sea.oracle(|ledger| assert_eq!(ledger.violation(), None));
        Self { sea, repository, volumes, counted: made }
    }
}
