//! The row of resumed runs: a backup or a restore is killed when it has moved so many bytes, up to three times, and then let go.
//!
//! What all its runs together read from the volume, or wrote to it, beyond its length, was moved again: by the kernel's count, and the
//! engine's own count of its last run must agree with that. For each kill it is at most 5 % of the volume, or one
//! pack for each thread. The volume is so large that 5 % of it are more than a backup ever has underway in so much memory, on so many threads: the
//! engine says how much that is. The result must be that of the undisturbed run: the root directory of the snapshot, chunk for chunk, or the
//! directory that was restored.

use super::jobs::{Manner, Task, Told, backup_options, run};
use super::kill::victim;
use super::ledger::{ledger, objects};
use super::place::{Place, Sight, copy, fill, scratch};
use super::watched::{self, Io, Ran};
use crate::draw::Draw;
use crate::oracle::format::Reader;
use crate::process::SECRET;
use crate::volume::content;
use std::path::PathBuf;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
/// Threads of a run.
const WORKERS: usize = 2;
/// Files of 1 MiB, beside two large ones and small ones.
const FILES: u64 = 100;
const LARGE_BYTES: usize = 272 << 20;
/// What a process reads or writes beside the volume differs from run to run by less than twice what an undisturbed one does, and this: its
/// few lines of output.
const LINES_BYTES: u64 = 64 << 10;

/// What trials share: a volume, a repository that has nothing in it, one that has the volume, and how undisturbed runs went.
#[derive(Debug)]
pub struct Resumes {
    victim: PathBuf,
    _folder: TempDir,
    volume: PathBuf,
    sight: Sight,
    volume_bytes: u64,
    empty: Place,
    made: Place,
    session: String,
    root: String,
    undisturbed: [Io; 2],
}

/// What a seed found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Resumed {
    /// Kills.
    pub kills: u64,
    /// Bytes that were moved again.
    pub again_bytes: u64,
    /// Whether it was a restore.
    pub restores: bool,
}

impl Resumed {
    /// What a kill cost, on average of this seed: of several only the sum is known.
    #[must_use]
    pub fn of_each_bytes(&self) -> u64 {
        self.again_bytes / self.kills.max(1)
    }
}

fn disk(error: std::io::Error) -> String {
    format!("the folder of a trial: {error}")
}

fn words(place: &Place, task: &Task) -> Vec<String> {
    let mut words = vec![place.0.to_string_lossy().into_owned(), WORKERS.to_string()];
    words.extend(task.words());
    words
}

/// The root directory of a snapshot, chunk for chunk.
fn root(place: &Place, session: &str) -> Result<String, String> {
    let keys = objects(&place.repository(), "keys").map_err(disk)?;
    let reader = keys.iter().find_map(|(key, slot)| Reader::from_slot(key, slot, &SECRET)).ok_or("no slot opens")?;
    let bytes = std::fs::read(place.repository().join("snapshots").join(session)).map_err(disk)?;
    let snapshot = reader.snapshot(session, &bytes).ok_or("a snapshot cannot be read")?;
    Ok(format!("{:?}", snapshot.root.map(|root| root.content)))
}

impl Resumes {
    /// Makes the volume, and runs undisturbed.
    ///
    /// # Errors
    /// What the engine or the filesystem says.
    pub fn new() -> Result<Self, String> {
        let (folder, victim) = (scratch(), victim()?);
        let volume = folder.path().join("volume");
        fill(&volume, &mut Draw::new(1, 1), 200, LARGE_BYTES).map_err(disk)?;
        std::fs::write(volume.join("another"), content(1, LARGE_BYTES)).map_err(disk)?;
        for number in 0..FILES {
            std::fs::write(volume.join(format!("a/m{number}")), content(4 + 3 * number, MIB as usize)).map_err(disk)?;
        }
        // A file of this moment is read again by whoever goes on.
        std::thread::sleep(std::time::Duration::from_millis(50));
        let sight = Sight::of(&volume).map_err(disk)?;
        let [empty, made] = ["empty", "made"].map(|name| Place(folder.path().join(name)));
        std::fs::create_dir(&empty.0).map_err(disk)?;
        run(&empty, &Task::Init, Manner::QUIET).map_err(|error| error.to_string())?;
        copy(&empty.0, &made.0).map_err(disk)?;
        let volume_bytes = sight.bytes();
        let undisturbed = [Io::default(); 2];
        let (session, root) = (String::new(), String::new());
        let mut out = Self { victim, _folder: folder, volume, sight, volume_bytes, empty, made, session, root, undisturbed };
        let backup = watched::run(&out.victim, &words(&out.made, &out.backup()), |_| false)?;
        out.session = Told::of(&backup.said).and_then(|told| told.snapshot).ok_or("a backup without snapshot")?;
        out.root = self::root(&out.made, &out.session)?;
        let restore = watched::run(&out.victim, &words(&out.made, &Task::Restore(out.session.clone())), |_| false)?;
        std::fs::remove_dir_all(out.made.target()).map_err(disk)?;
        out.undisturbed = [backup.io, restore.io];
        Ok(out)
    }

    fn backup(&self) -> Task {
        Task::Backup(self.volume.clone(), "a".to_owned())
    }

    /// One seed: up to three kills, and the run that goes on to the end.
    ///
    /// # Errors
    /// What does not hold.
    pub fn play(&self, seed: u64) -> Result<Resumed, String> {
        let mut draw = Draw::new(seed, 12);
        let folder = scratch();
        let place = Place(folder.path().to_owned());
        let restores = draw.in_thousand(500);
        let (from, task) = match restores {
            false => (&self.empty, self.backup()),
            true => (&self.made, Task::Restore(self.session.clone())),
        };
        copy(&from.repository(), &place.repository()).map_err(disk)?;
        copy(&from.cache(), &place.cache()).map_err(disk)?;
        let (mut all, mut found) = (Io::default(), Resumed { restores, ..Resumed::default() });
        let moved = |io: Io| if restores { io.written_bytes } else { io.read_bytes };
        for _ in 0..=draw.below(3) {
            let until = draw.below(self.volume_bytes * 19 / 20);
            let ran = watched::run(&self.victim, &words(&place, &task), |io| moved(io) >= until)?;
            all += ran.io;
            if !ran.killed {
                return self.ended(&place, restores, &ran, all, found);
            }
            found.kills += 1;
        }
        let last = watched::run(&self.victim, &words(&place, &task), |_| false)?;
        all += last.io;
        self.ended(&place, restores, &last, all, found)
    }

    fn ended(&self, place: &Place, restores: bool, last: &Ran, all: Io, mut found: Resumed) -> Result<Resumed, String> {
        let told = Told::of(&last.said).ok_or("a run ended well and said nothing")?;
        let (volume, undisturbed) = (self.volume_bytes, self.undisturbed[usize::from(restores)]);
        let (all_bytes, once_bytes, last_bytes) = match restores {
            false => (all.read_bytes, undisturbed.read_bytes, last.io.read_bytes),
            true => (all.written_bytes, undisturbed.written_bytes, last.io.written_bytes),
        };
        let what = if restores { "restore" } else { "backup" };
        // Of the run that ended it is known what of it was the volume's.
        found.again_bytes = (all_bytes - last_bytes + told.moved_bytes).saturating_sub(volume);
        let underway = backup_options(self.volume.clone(), "a", Manner { workers: WORKERS, ..Manner::QUIET }).underway();
        let (share, beside) = (volume / 20, once_bytes.saturating_sub(volume) + LINES_BYTES);
        if share < underway.bytes() {
            return Err(format!("5 % of the volume are less than a backup has underway: {share} of {underway:?}"));
        }
        let allowed = found.kills * (share.max(underway.pack_bytes * WORKERS as u64) + beside);
        if found.again_bytes > allowed {
            let again = found.again_bytes;
            return Err(format!(
                "a {what} moved more than it may again: bytes={again}, allowed={allowed}, kills={}",
                found.kills
            ));
        }
        if found.kills > 0 && told.moved_bytes.abs_diff(last_bytes) > 2 * beside {
            return Err(format!("a {what} says that it moved {} bytes, and the kernel {last_bytes}", told.moved_bytes));
        }
        if !restores {
            if told.moved_bytes + told.resumed_bytes != volume {
                return Err(format!("a backup read and took over less or more than there is: {told:?}, volume_bytes={volume}"));
            }
            let session = told.snapshot.ok_or("a backup without snapshot")?;
            if root(place, &session)? != self.root {
                return Err("a resumed backup has another root than an undisturbed one".to_owned());
            }
            let mut ledger = ledger(&place.repository(), &[])?;
            ledger.acknowledge(&session, &self.sight.tree);
            return ledger.violation().map_or(Ok(found), |what| Err(what.to_owned()));
        }
        let difference = self.sight.difference(&Sight::of(&place.target()).map_err(disk)?);
        difference.map_or(Ok(found), |what| Err(format!("I1: a resumed restore: {what}")))
    }
}
