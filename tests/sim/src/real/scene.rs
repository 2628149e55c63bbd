//! Repositories with a past in real folders, from which trials begin: made once, copied for each trial.
//!
//! A scene has a volume that has changed since its last backup, one that was never backed up, snapshots that count, and one that was deleted and
//! whose packs wait for a prune; in every other scene a prune has begun with them.

use super::jobs::{Manner, Task, run};
use super::place::{Place, Sight, copy, fill, live, scratch};
use crate::draw::Draw;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tempfile::TempDir;

/// Length of the large file of every other scene: two packs of a backup with threads.
const LARGE_BYTES: usize = 5 << 20;
/// Other files of a volume.
const FILES: u64 = 24;

/// A repository with a past.
#[derive(Debug)]
pub struct Scene {
    folder: TempDir,
    /// What was backed up, by snapshot.
    pub truths: BTreeMap<String, Sight>,
    /// Snapshots that were deleted.
    pub deleted: Vec<String>,
}

impl Scene {
    /// The place itself: nothing is to be done in it.
    #[must_use]
    pub fn place(&self) -> Place {
        Place(self.folder.path().to_owned())
    }

    /// The volume of source `a`, which has changed since its last backup.
    #[must_use]
    pub fn volume(&self) -> PathBuf {
        self.folder.path().join("volume")
    }

    /// A volume that was never backed up.
    #[must_use]
    pub fn fresh(&self) -> PathBuf {
        self.folder.path().join("fresh")
    }

    /// Makes one.
    ///
    /// # Errors
    /// What the engine or the filesystem says.
    pub fn new(seed: u64) -> Result<Self, String> {
        let (folder, mut draw) = (scratch(), Draw::new(seed, 1));
        let mut scene = Self { folder, truths: BTreeMap::new(), deleted: vec![] };
        scene.live(seed, &mut draw)?;
        Ok(scene)
    }

    fn live(&mut self, seed: u64, draw: &mut Draw) -> Result<(), String> {
        let disk = |error: std::io::Error| format!("a scene cannot be made: {error}");
        let (place, volume, fresh) = (self.place(), self.volume(), self.fresh());
        let act = |task: &Task| run(&place, task, Manner::QUIET).map_err(|error| format!("a scene cannot be made: {error}"));
        let large = if seed.is_multiple_of(2) { LARGE_BYTES } else { 0 };
        fill(&volume, draw, FILES, large).map_err(disk)?;
        fill(&fresh, draw, FILES, large).map_err(disk)?;
        act(&Task::Init)?;
        for _ in 0..3 {
            // A file of this moment is looked at again by the next backup.
            std::thread::sleep(std::time::Duration::from_millis(20));
            let made = act(&Task::Backup(volume.clone(), "a".to_owned()))?.snapshot.ok_or("a backup without snapshot")?;
            self.truths.insert(made.clone(), Sight::of(&volume).map_err(disk)?);
            self.deleted.push(made);
            live(&volume, draw).map_err(disk)?;
        }
        self.deleted.truncate(1);
        self.truths.remove(&self.deleted[0]);
        run(&place, &Task::Delete(self.deleted[0].clone()), Manner::QUIET).map_err(|error| error.to_string())?;
        if seed % 4 < 2 {
            act(&Task::Prune)?;
        }
        Ok(())
    }

    /// A copy of repository and cache, to be spoilt.
    ///
    /// # Errors
    /// As the filesystem.
    pub fn copy(&self) -> std::io::Result<(TempDir, Place)> {
        let folder = scratch();
        let place = Place(folder.path().to_owned());
        copy(&self.place().repository(), &place.repository())?;
        copy(&self.place().cache(), &place.cache())?;
        Ok((folder, place))
    }

    /// One of the snapshots that count.
    #[must_use]
    pub fn any(&self, draw: &mut Draw) -> String {
        let at = draw.below(self.truths.len() as u64) as usize;
        self.truths.keys().nth(at).cloned().unwrap_or_default()
    }
}
