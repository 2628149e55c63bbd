//! The whole engine on one thread: a made-up volume of one of everything into a store in memory, and back.
//!
//! Promises that nothing but the engine decides the work: no kernel calls for files, no second thread, no clock, no chance. What is left of
//! chance is the order of hash tables. Does not measure.

use crate::kernels::{Amount, Kernel, Work};
use crate::{Result, made};
use longshore_engine::backup::{self, BackupOptions, ParentChoice};
use longshore_engine::check::{self, CheckOptions};
use longshore_engine::job::Job;
use longshore_engine::packer::CompressionChoice;
use longshore_engine::repository::Repository;
use longshore_engine::repository::cache::Cache;
use longshore_engine::restore::{self, RestoreOptions};
use longshore_engine::seams::{SystemSpawn, World};
use longshore_engine::volume::made_up::MadeUpFs;
use longshore_engine::volume::{Dir, Fs};
use longshore_format::SessionId;
use longshore_format::keys::{Argon2Cost, Unlock};
use longshore_format::pack::VerifyUpload;
use longshore_store::{MemoryStore, SeededRng, Store, VirtualClock};
use std::path::PathBuf;
use std::sync::Arc;

const DIRECTORIES: u64 = 40;
const FILES_EACH: u64 = 50;
const TEXT_BYTES: usize = 2 << 20;
const PAGES_BYTES: usize = 4 << 20;
const NOISE_BYTES: usize = 2 << 20;

/// The whole engine, one entry for each kind of job.
pub const WHOLE: &[Kernel] = &[
    Kernel { name: "whole/first", amount: Amount::Items(FILES), make: first },
    Kernel { name: "whole/unchanged", amount: Amount::Items(FILES), make: unchanged },
    Kernel { name: "whole/restore", amount: Amount::Items(FILES), make: restored },
    Kernel { name: "whole/check", amount: Amount::Items(FILES), make: checked },
];
const FILES: u64 = DIRECTORIES * FILES_EACH + 3;

/// A repository in memory and the filesystem that it is about.
#[derive(Debug)]
pub struct Bench {
    /// The volume.
    pub fs: MadeUpFs,
    /// The repository.
    pub repository: Repository,
}

/// What a measured backup is asked for: everything on the calling thread, every check on.
#[must_use]
pub fn backup_options(workers: usize) -> BackupOptions {
    BackupOptions {
        path: PathBuf::from("/volume"),
        source: "measured".into(),
        host: "here".into(),
        tags: vec![],
        parent: ParentChoice::Auto,
        excludes: vec![],
        exclude_root_names: vec![],
        one_file_system: true,
        dry_run: false,
        strict: false,
        paranoid: false,
        workers,
        upload_threads: 0,
        memory_budget_bytes: 128 << 20,
        compression: CompressionChoice::Level(1),
        verify: VerifyUpload::Full,
    }
}

/// A new repository in a store.
///
/// # Errors
/// What the repository says.
pub fn repository(store: Arc<dyn Store>) -> Result<Repository> {
    let world = World { clock: Arc::new(VirtualClock::new()), rng: Arc::new(SeededRng::new(1)), spawn: Arc::new(SystemSpawn) };
    let cost = Argon2Cost::default();
    Ok(Repository::init(store, world, &Unlock::Secret([1; 32]), "", cost, Cache::none())?)
}

fn file(dir: &dyn Dir, name: &str, content: &[u8]) -> Result<()> {
    Ok(dir.create_file(name.as_bytes())?.write_at(0, content)?)
}

impl Bench {
    fn new() -> Result<Self> {
        let fs = MadeUpFs::default();
        let root = fs.create_root(&PathBuf::from("/volume"), longshore_engine::volume::RootOptions::default())?;
        let text = made::text(1, TEXT_BYTES);
        let mut chance = made::Chance::new(1);
        for directory in 0..DIRECTORIES {
            let dir = root.create_dir(format!("directory-{directory:03}").as_bytes())?;
            for number in 0..FILES_EACH {
                let length = (40 + chance.below(4000)) as usize;
                let start = chance.below((TEXT_BYTES - length) as u64) as usize;
                file(&*dir, &format!("file-{number:04}.txt"), &text[start..start + length])?;
            }
        }
        file(&*root, "text", &text)?;
        file(&*root, "pages", &made::pages(1, PAGES_BYTES))?;
        file(&*root, "noise", &made::noise(1, NOISE_BYTES))?;
        Ok(Self { fs, repository: repository(Arc::new(MemoryStore::new()))? })
    }

    fn back_up(&self) -> Result<SessionId> {
        let summary = backup::run(&self.repository, &self.fs, &Arc::new(Job::new()), &backup_options(0))?;
        if summary.exit_code != 0 {
            return Err("a backup of a volume in memory lost something".into());
        }
        summary.snapshot.ok_or_else(|| "a backup made no snapshot".into())
    }
}

fn first() -> Result<Work> {
    let bench = Bench::new()?;
    Ok(Box::new(move || bench.back_up().map(|session| u64::from(session.0[0]))))
}

fn unchanged() -> Result<Work> {
    let bench = Bench::new()?;
    bench.back_up()?;
    Ok(Box::new(move || bench.back_up().map(|session| u64::from(session.0[0]))))
}

fn restored() -> Result<Work> {
    let bench = Bench::new()?;
    let snapshot = bench.back_up()?;
    let mut round = 0;
    Ok(Box::new(move || {
        round += 1;
        let mut options = RestoreOptions::new(snapshot, format!("/restored-{round}"));
        options.workers = 0;
        options.fetch_threads = 0;
        let summary = restore::run(&bench.repository, &bench.fs, &Arc::new(Job::new()), &options)?;
        Ok(summary.files)
    }))
}

fn checked() -> Result<Work> {
    let bench = Bench::new()?;
    bench.back_up()?;
    Ok(Box::new(move || {
        let options = CheckOptions { read_percent: 100, workers: 0, ..CheckOptions::default() };
        let report = check::run(&bench.repository, &Arc::new(Job::new()), &options)?;
        if report.findings.is_empty() { Ok(1) } else { Err("a repository in memory is damaged".into()) }
    }))
}
