//! The row of kills: a process is killed at one of its calls of the kernel, and everything must come right by itself.
//!
//! Each trial is a copy of a scene, one job in a process of its own, and a call at which it is killed. What it left is looked at by the oracle; then
//! the same job is run again, a backup of another volume, and prunes over twelve days, with nothing done by hand and nothing
//! fenced by anybody. After that all that was acknowledged must be there and restore equal, and nothing that nobody needs.

use super::jobs::{self, Manner, Task, Told};
use super::ledger::ledger;
use super::place::{Place, Sight, copy, unfinished};
use super::scene::Scene;
use super::strace::{self, Calls, End, SETS};
use crate::draw::Draw;
use longshore_engine::ErrorKind;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Scenes that trials begin from.
const SCENES: u64 = 4;
/// Days of the prunes that follow: a session that does not change is judged dead after three prunes and seven days.
const PRUNE_DAYS: [u64; 7] = [0, 3, 6, 9, 10, 11, 12];
/// A thread makes more or fewer calls from run to run: so often another call is chosen when the process came to its end.
const AGAIN: usize = 32;

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Init,
    Backup,
    Incremental,
    Prune,
    Restore,
    Check,
    Repair,
    Delete,
    KeyChange,
}

const KINDS: [Kind; 9] = [
    Kind::Init,
    Kind::Backup,
    Kind::Incremental,
    Kind::Prune,
    Kind::Restore,
    Kind::Check,
    Kind::Repair,
    Kind::Delete,
    Kind::KeyChange,
];

/// What trials share: scenes, and how many calls each job makes.
#[derive(Debug)]
pub struct Kills {
    victim: PathBuf,
    scenes: BTreeMap<u64, Scene>,
    counts: BTreeMap<(u64, Kind, usize), [Calls; 2]>,
}

/// One trial, set up.
struct Trial<'a> {
    scene: &'a Scene,
    kind: Kind,
    task: Task,
    place: Place,
    workers: usize,
    intended: Vec<String>,
}

impl Kills {
    /// Nothing is made yet.
    ///
    /// # Errors
    /// When the program of which processes are made is not beside this one.
    pub fn new() -> Result<Self, String> {
        Ok(Self { victim: victim()?, scenes: BTreeMap::new(), counts: BTreeMap::new() })
    }

    /// One seed: one kill, and what follows it. How many kills there were.
    ///
    /// # Errors
    /// What does not hold.
    pub fn play(&mut self, seed: u64) -> Result<u64, String> {
        let mut draw = Draw::new(seed, 11);
        let number = draw.below(SCENES);
        if let std::collections::btree_map::Entry::Vacant(free) = self.scenes.entry(number) {
            free.insert(Scene::new(number)?);
        }
        let (kind, workers, set) = (draw.one_of(&KINDS), draw.one_of(&[0, 2]), draw.below(2) as usize);
        let scene = &self.scenes[&number];
        let choice = draw.number();
        let counts = match self.counts.get(&(number, kind, workers)) {
            Some(counts) => counts,
            None => {
                let (folder, trial) = Trial::new(scene, kind, workers, choice)?;
                let counts = strace::count(&self.victim, &trial.words(), &folder.path().join("calls"))?;
                self.counts.entry((number, kind, workers)).or_insert(counts)
            }
        };
        let mut calls = counts[set].clone();
        let mut missed = vec![];
        while missed.len() < AGAIN && calls.sum() > 0 {
            let (_folder, mut trial) = Trial::new(scene, kind, workers, choice)?;
            let (name, at) = calls.nth(draw.below(calls.sum())).map(|(name, at)| (name.to_owned(), at)).expect("one of them");
            let (end, said) = strace::kill(&self.victim, &trial.words(), &name, at)?;
            let named = |why: String| format!("{kind:?} of scene {number}, {workers} workers, {name} {at}, {end:?}: {why}");
            trial.after(Told::of(&said)).map_err(named)?;
            match end {
                End::Killed => return Ok(1),
                End::Done => calls.leave_out(&name, at),
            }
            missed.push(format!("{name} {at}"));
        }
        let set = SETS[set];
        Err(format!("{kind:?} of scene {number}, {workers} workers: it came to its end before each call, {set}: {missed:?}"))
    }
}

/// The program of which processes are made: it is built with this one.
///
/// # Errors
/// When it is not there.
pub fn victim() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let victim = own.with_file_name("victim");
    if victim.is_file() { Ok(victim) } else { Err(format!("there is no {}; build the package whole", victim.display())) }
}

/// Damages the index in one of three ways.
fn damage(place: &Place, choice: u64) -> std::io::Result<()> {
    for (number, entry) in std::fs::read_dir(place.repository().join("index"))?.enumerate() {
        let path = entry?.path();
        match choice % 3 {
            0 => std::fs::remove_file(path)?,
            1 if number % 2 == 0 => std::fs::remove_file(path)?,
            _ => {
                let bytes = std::fs::read(&path)?;
                std::fs::remove_file(&path)?;
                std::fs::write(&path, &bytes[..bytes.len() / 2])?;
            }
        }
    }
    Ok(())
}

/// Names of the key slots: one that is taken away is removed as a snapshot is.
fn slots(place: &Place) -> Result<Vec<String>, String> {
    let slots = super::ledger::objects(&place.repository(), "keys").map_err(disk)?;
    Ok(slots.into_iter().filter_map(|(key, _)| Some(key.split_once('/')?.1.to_owned())).collect())
}

fn disk(error: std::io::Error) -> String {
    format!("the folder of a trial: {error}")
}

impl<'a> Trial<'a> {
    fn new(scene: &'a Scene, kind: Kind, workers: usize, choice: u64) -> Result<(tempfile::TempDir, Self), String> {
        let (folder, place) = scene.copy().map_err(disk)?;
        let session = scene.any(&mut Draw::new(choice, 1));
        let task = match kind {
            Kind::Init => Task::Init,
            Kind::Backup => Task::Backup(scene.fresh(), "fresh".to_owned()),
            Kind::Incremental => Task::Backup(scene.volume(), "a".to_owned()),
            Kind::Prune => Task::Prune,
            Kind::Restore => Task::Restore(session.clone()),
            Kind::Check => Task::Check,
            Kind::Repair => Task::Repair,
            Kind::Delete => Task::Delete(session.clone()),
            Kind::KeyChange => Task::KeyChange,
        };
        let mut intended = scene.deleted.clone();
        match kind {
            Kind::Init => {
                std::fs::remove_dir_all(place.repository()).map_err(disk)?;
                std::fs::remove_dir_all(place.cache()).map_err(disk)?;
            }
            // Over something else, or into nothing.
            Kind::Restore if choice.is_multiple_of(2) => copy(&scene.fresh(), &place.target()).map_err(disk)?,
            Kind::Repair => damage(&place, choice).map_err(disk)?,
            Kind::Delete => intended.push(session),
            Kind::KeyChange => intended.extend(slots(&place)?),
            _ => {}
        }
        Ok((folder, Self { scene, kind, task, place, workers, intended }))
    }

    fn words(&self) -> Vec<String> {
        let mut words = vec![self.place.0.to_string_lossy().into_owned(), self.workers.to_string()];
        words.extend(self.task.words());
        words
    }

    fn run(&self, task: &Task, days: u64) -> Result<Told, String> {
        let done = jobs::run(&self.place, task, Manner { workers: 0, days });
        done.map_err(|error| format!("I4: {task:?} afterwards: {error}"))
    }

    /// What must hold after the kill.
    fn after(&mut self, told: Option<Told>) -> Result<(), String> {
        let mut truths = self.scene.truths.clone();
        if self.kind == Kind::Init {
            truths.clear();
        } else {
            self.sound(&truths, told.as_ref().and_then(|told| told.snapshot.as_ref()))
                .map_err(|why| format!("as it was left: {why}"))?;
        }
        if self.kind == Kind::KeyChange {
            // One that the killed change had added goes by the next one.
            self.intended.extend(slots(&self.place)?);
        }
        self.again(&mut truths)?;
        let fresh = Task::Backup(self.scene.fresh(), "another".to_owned());
        let made = self.run(&fresh, 0)?.snapshot.unwrap_or_default();
        truths.insert(made, Sight::of(&self.scene.fresh()).map_err(disk)?);
        for day in PRUNE_DAYS {
            self.run(&Task::Prune, day)?;
        }
        self.nothing_left(&truths)?;
        let target = self.place.target();
        for (session, truth) in &truths {
            self.run(&Task::Restore(session.clone()), 0)?;
            restored(session, truth, &target)?;
        }
        let left = unfinished(&self.place.repository()).and_then(|mut left| {
            left.extend(unfinished(&self.place.cache())?);
            Ok(left)
        });
        match left.map_err(disk)?.first() {
            Some(path) => Err(format!("I5: an unfinished file is left: {}", path.display())),
            None => Ok(()),
        }
    }

    /// Nothing that counts is torn, and nothing that was acknowledged is gone.
    fn sound(&self, truths: &BTreeMap<String, Sight>, said: Option<&String>) -> Result<(), String> {
        let mut ledger = ledger(&self.place.repository(), &self.intended)?;
        for (session, truth) in truths {
            ledger.acknowledge(session, &truth.tree);
        }
        let volume = if self.kind == Kind::Backup { self.scene.fresh() } else { self.scene.volume() };
        let made: Vec<String> = ledger.counted().keys().filter(|session| !truths.contains_key(*session)).cloned().collect();
        for session in made.iter().chain(said) {
            ledger.acknowledge(session, &Sight::of(&volume).map_err(disk)?.tree);
        }
        ledger.violation().map_or(Ok(()), |what| Err(what.to_owned()))
    }

    /// The same job, now to its end.
    fn again(&self, truths: &mut BTreeMap<String, Sight>) -> Result<(), String> {
        match &self.task {
            Task::Init => match jobs::run(&self.place, &self.task, Manner::QUIET) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::RepositoryExists => {}
                Err(error) => return Err(format!("I4: {:?} afterwards: {error}", self.task)),
            },
            Task::Backup(volume, _) => {
                let made = self.run(&self.task, 0)?.snapshot.unwrap_or_default();
                truths.insert(made, Sight::of(volume).map_err(disk)?);
            }
            Task::Restore(session) => {
                self.run(&self.task, 0)?;
                restored(session, &truths[session], &self.place.target())?;
            }
            Task::Delete(session) => {
                truths.remove(session);
                self.run(&self.task, 0)?;
            }
            Task::KeyChange => {
                self.run(&self.task, 0)?;
            }
            Task::Prune | Task::Check | Task::Repair => drop(self.run(&self.task, 0)?),
        }
        Ok(())
    }

    fn nothing_left(&self, truths: &BTreeMap<String, Sight>) -> Result<(), String> {
        let folder = self.place.repository();
        let mut ledger = ledger(&folder, &self.intended)?;
        for (session, truth) in truths {
            ledger.acknowledge(session, &truth.tree);
        }
        if let Some(what) = ledger.violation() {
            return Err(format!("afterwards: {what}"));
        }
        let mut left = ledger.garbage();
        for prefix in ["tombstones", "open", "sessions", "watches"] {
            left.extend(super::ledger::objects(&folder, prefix).map_err(disk)?.into_iter().map(|(key, _)| key));
        }
        if left.is_empty() { Ok(()) } else { Err(format!("I5: left behind: {left:?}")) }
    }
}

/// Whether a target holds a snapshot.
fn restored(session: &str, truth: &Sight, target: &Path) -> Result<(), String> {
    let difference = truth.difference(&Sight::of(target).map_err(disk)?);
    difference.map_or(Ok(()), |what| Err(format!("I1: snapshot {session} was restored as something else: {what}")))
}
