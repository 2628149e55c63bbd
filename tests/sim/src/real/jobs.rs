//! One job of the engine on a real folder, as a process does it: `victim` and the runs that follow it.
//!
//! Opens everything afresh each time, so that nothing is known but what lies on the disk. What it was asked and how it went are lines of text: [`Task::words`],
//! [`Told`]. Does not look at what came of it.

use super::place::Place;
use crate::process::{NEW_SECRET, SECRET, session_id};
use longshore_engine::backup::{self, BackupOptions, ParentChoice};
use longshore_engine::check::{self, CheckOptions};
use longshore_engine::job::Job;
use longshore_engine::packer::CompressionChoice;
use longshore_engine::prune::{self, PruneOptions};
use longshore_engine::repair::{self, RepairOptions};
use longshore_engine::repository::Repository;
use longshore_engine::repository::cache::Cache;
use longshore_engine::restore::{self, RestoreOptions};
use longshore_engine::seams::World;
use longshore_engine::volume::LinuxFs;
use longshore_engine::{Error, ErrorKind, Result};
use longshore_format::keys::{Argon2Cost, Unlock};
use longshore_format::pack::VerifyUpload;
use longshore_store::{Clock, LocalSettings, LocalStore, Store, SystemClock};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What a process is told to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Make a repository.
    Init,
    /// Back up a directory as a source.
    Backup(PathBuf, String),
    /// Free what nobody needs.
    Prune,
    /// Restore a snapshot into the place's target.
    Restore(String),
    /// Check every byte.
    Check,
    /// Put a damaged index right.
    Repair,
    /// Delete a snapshot.
    Delete(String),
    /// Give the repository another key and take the old one away.
    KeyChange,
}

impl Task {
    /// As words of a command line.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        match self {
            Self::Init => vec!["init".to_owned()],
            Self::Backup(volume, source) => vec!["backup".to_owned(), volume.to_string_lossy().into_owned(), source.clone()],
            Self::Prune => vec!["prune".to_owned()],
            Self::Restore(session) => vec!["restore".to_owned(), session.clone()],
            Self::Check => vec!["check".to_owned()],
            Self::Repair => vec!["repair".to_owned()],
            Self::Delete(session) => vec!["delete".to_owned(), session.clone()],
            Self::KeyChange => vec!["key-change".to_owned()],
        }
    }

    /// Of the words of a command line.
    #[must_use]
    pub fn of(words: &[String]) -> Option<Self> {
        let word = |at: usize| words.get(at).cloned();
        Some(match words.first()?.as_str() {
            "init" => Self::Init,
            "backup" => Self::Backup(word(1)?.into(), word(2)?),
            "prune" => Self::Prune,
            "restore" => Self::Restore(word(1)?),
            "check" => Self::Check,
            "repair" => Self::Repair,
            "delete" => Self::Delete(word(1)?),
            "key-change" => Self::KeyChange,
            _ => return None,
        })
    }
}

/// How a process does its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    /// Threads beside the first.
    pub workers: usize,
    /// Days that its clock is ahead of the machine's.
    pub days: u64,
}

impl Manner {
    /// Alone, today.
    pub const QUIET: Self = Self { workers: 0, days: 0 };
}

/// What a process says when it is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The snapshot that it made.
    pub snapshot: Option<String>,
    /// Bytes that it read from the volume, or wrote to it.
    pub moved_bytes: u64,
    /// Bytes that an interrupted run had moved before it.
    pub resumed_bytes: u64,
}

impl Told {
    /// As lines.
    #[must_use]
    pub fn text(&self) -> String {
        let snapshot = self.snapshot.as_ref().map(|session| format!("snapshot {session}\n")).unwrap_or_default();
        format!("{snapshot}moved {}\nresumed {}\n", self.moved_bytes, self.resumed_bytes)
    }

    /// Of lines; none when the process did not come so far.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        let after = |word: &str| text.lines().find_map(|line| line.strip_prefix(word)).map(str::to_owned);
        let number = |word: &str| after(word)?.parse().ok();
        Some(Self { snapshot: after("snapshot "), moved_bytes: number("moved ")?, resumed_bytes: number("resumed ")? })
    }
}

/// The machine's clock, so many days ahead.
#[derive(Debug)]
struct Ahead(u64);

impl Clock for Ahead {
    fn monotonic(&self) -> Duration {
        SystemClock.monotonic()
    }

    fn wall_nanos(&self) -> i64 {
        SystemClock.wall_nanos() + (self.0 * crate::stage::DAY) as i64
    }

    fn sleep(&self, duration: Duration) {
        SystemClock.sleep(duration);
    }
}

/// The repository of a place, opened with the old key or the new one.
///
/// # Errors
/// What the engine says.
pub fn open(place: &Place, manner: Manner) -> Result<Repository> {
    let world = World { clock: Arc::new(Ahead(manner.days)), ..World::system() };
    let store = LocalStore::open(place.repository(), LocalSettings::default())?;
    let (store, cache): (Arc<dyn Store>, _) = (Arc::new(store), || Cache::at(place.cache()));
    match Repository::open(Arc::clone(&store), world.clone(), &Unlock::Secret(SECRET), cache()) {
        Err(error) if error.kind() == ErrorKind::WrongKey => Repository::open(store, world, &Unlock::Secret(NEW_SECRET), cache()),
        opened => opened,
    }
}

/// How a directory is backed up: small packs come of little memory.
pub(super) fn backup_options(volume: PathBuf, source: &str, manner: Manner) -> BackupOptions {
    BackupOptions {
        path: volume,
        source: source.to_owned(),
        host: "victim".to_owned(),
        tags: vec![],
        parent: ParentChoice::Auto,
        excludes: vec![],
        exclude_root_names: vec![],
        one_file_system: true,
        dry_run: false,
        strict: true,
        paranoid: false,
        workers: manner.workers,
        upload_threads: manner.workers,
        memory_budget_bytes: 64 << 20,
        compression: CompressionChoice::Level(1),
        verify: VerifyUpload::Full,
    }
}

fn whole(exit_code: i32, what: &dyn std::fmt::Debug) -> Result<()> {
    match exit_code {
        0 => Ok(()),
        _ => Err(Error::corrupt(format!("it did not end well: {what:?}"))),
    }
}

/// Does a task.
///
/// # Errors
/// What the engine says; Corrupt, too, when it says that not all went well.
pub fn run(place: &Place, task: &Task, manner: Manner) -> Result<Told> {
    if *task == Task::Init {
        let store = LocalStore::open(place.repository(), LocalSettings { create: true, ..LocalSettings::default() })?;
        let (cost, cache) = (Argon2Cost::default(), Cache::at(place.cache()));
        Repository::init(Arc::new(store), World::system(), &Unlock::Secret(SECRET), "", cost, cache)?;
        return Ok(Told::default());
    }
    let (repository, job) = (open(place, manner)?, Arc::new(Job::new()));
    match task {
        Task::Init => {}
        Task::Backup(volume, source) => {
            let done = backup::run(&repository, &LinuxFs, &job, &backup_options(volume.clone(), source, manner))?;
            whole(done.exit_code.into(), &done.lost)?;
            let (moved_bytes, resumed_bytes) = (done.counts.bytes_read, done.bytes_resumed);
            return Ok(Told { snapshot: done.snapshot.map(|session| session.to_string()), moved_bytes, resumed_bytes });
        }
        Task::Prune => {
            let options = PruneOptions { pack_size_bytes: 256 << 10, waste_percent: 20, ..PruneOptions::default() };
            prune::run(&repository, &job, &options)?;
        }
        Task::Restore(session) => {
            let options = RestoreOptions {
                workers: manner.workers,
                memory_budget_bytes: 32 << 20,
                delete_extra: true,
                ..RestoreOptions::new(session_id(session), place.target())
            };
            let done = restore::run(&repository, &LinuxFs, &job, &options)?;
            whole(done.exit_code, &done.losses)?;
            return Ok(Told { snapshot: None, moved_bytes: done.bytes_written, resumed_bytes: done.bytes_resumed });
        }
        Task::Check => {
            let options = CheckOptions { read_percent: 100, workers: manner.workers, ..CheckOptions::default() };
            let report = check::run(&repository, &job, &options)?;
            whole(report.exit_code, &report.findings)?;
        }
        Task::Repair => {
            let options = RepairOptions { workers: manner.workers, ..RepairOptions::default() };
            let report = repair::run(&repository, &job, &options)?;
            whole(report.exit_code, &report)?;
        }
        Task::Delete(session) => repository.remove_snapshot(session_id(session), "victim")?,
        Task::KeyChange => {
            repository.add_slot(&Unlock::Secret(NEW_SECRET), "new", Argon2Cost::default())?;
            repository.remove_slot(repository.slot())?;
        }
    }
    Ok(Told::default())
}
