//! A process of the simulation: the engine with a clock, chance and a way to the store of its own, and the jobs that it can be told.
//!
//! Each job tells the oracle what it is about to do and what it says it did. Everything runs on the thread that calls.

use crate::link::{Link, Plan};
use crate::sea::Sea;
use crate::stage::{SimClock, SimRng, Stage};
use crate::volume::{ROOT, Tree, Volume, difference, look};
use longshore_engine::backup::{self, BackupOptions, ParentChoice};
use longshore_engine::check::{self, CheckOptions, CheckReport};
use longshore_engine::job::Job;
use longshore_engine::packer::CompressionChoice;
use longshore_engine::prune::{self, PruneOptions, PruneReport};
use longshore_engine::repair::{self, RepairOptions, RepairReport};
use longshore_engine::repository::Repository;
use longshore_engine::repository::cache::Cache;
use longshore_engine::restore::{self, RestoreOptions, RestoreSummary};
use longshore_engine::seams::{SystemSpawn, World};
use longshore_engine::volume::made_up::MadeUpFs;
use longshore_engine::volume::{Fs, RootOptions};
use longshore_engine::{Error, ErrorKind, Result};
use longshore_format::id::{RandomName, SessionId};
use longshore_format::keys::{Argon2Cost, Unlock};
use longshore_format::pack::VerifyUpload;
use longshore_store::layers::{Retry, RetrySettings};
use longshore_store::{Key, MemoryStore, Store};
use std::path::Path;
use std::sync::Arc;

/// The secret of every simulated repository.
pub const SECRET: [u8; 32] = [1; 32];

/// The secret that takes its place when the key is changed.
pub const NEW_SECRET: [u8; 32] = [2; 32];

/// A process.
#[derive(Debug)]
pub struct Process {
    /// Its way to the store.
    pub link: Arc<Link>,
    /// The store that it shares.
    pub sea: Arc<Sea>,
    world: World,
    number: usize,
    store: Arc<dyn Store>,
    repository: Option<Repository>,
    verify: VerifyUpload,
}

/// How a process is born.
pub struct Birth {
    /// Chooses its randomness.
    pub seed: u64,
    /// Its place on the stage.
    pub number: usize,
    /// How far its clock is ahead.
    pub skew_nanos: i64,
    /// When its wall jumps, and how far.
    pub jump: (u64, i64),
    /// Whether what is unavailable is tried again, as in production.
    pub retries: bool,
    /// What becomes of its calls.
    pub plan: Box<dyn Plan>,
}

impl Birth {
    /// A process that nothing happens to.
    #[must_use]
    pub fn quiet(seed: u64) -> Self {
        Self::with(seed, |_: &crate::link::Call<'_>| (1_000_000, crate::link::Fate::Pass))
    }

    /// The only process of a stage, without retries.
    pub fn with(seed: u64, plan: impl Plan + 'static) -> Self {
        Self { seed, number: 0, skew_nanos: 0, jump: (0, 0), retries: false, plan: Box::new(plan) }
    }
}

impl Process {
    /// A process that has not opened the repository yet.
    #[must_use]
    pub fn new(sea: &Arc<Sea>, stage: &Arc<Stage>, birth: Birth) -> Self {
        let clock = Arc::new(SimClock::new(Arc::clone(stage), birth.number, birth.skew_nanos, birth.jump));
        let rng = Arc::new(SimRng::new(birth.seed, birth.number as u64));
        let world = World { clock, rng, spawn: Arc::new(SystemSpawn) };
        let link = Link::new(Arc::clone(sea), Arc::clone(stage), birth.number, birth.plan);
        let store: Arc<dyn Store> = if birth.retries {
            let settings = RetrySettings::default();
            Arc::new(Retry::new(Arc::clone(&link), settings, Arc::clone(&world.clock), Arc::clone(&world.rng)))
        } else {
            Arc::<Link>::clone(&link)
        };
        Self { link, sea: Arc::clone(sea), world, number: birth.number, store, repository: None, verify: VerifyUpload::Full }
    }

    /// The same with a repository that was opened before the curtain rose.
    #[must_use]
    pub fn at_home(mut self, opened: &Repository) -> Self {
        let world = self.world.clone();
        self.repository = Some(opened.with_world(world).with_store(Arc::clone(&self.store)));
        self
    }

    /// The same over another store; what that tells the sea, the oracle sees.
    #[must_use]
    pub fn over(self, store: Arc<dyn Store>) -> Self {
        Self { store, ..self }
    }

    /// The same, which looks at its packs in another way before it sends them.
    #[must_use]
    pub fn verifying(self, verify: VerifyUpload) -> Self {
        Self { verify, ..self }
    }

    /// The same, which opens the repository by its own calls and keeps a cache in a folder.
    ///
    /// # Errors
    /// What the engine says.
    pub fn with_cache(mut self, folder: &Path) -> Result<Self> {
        let (store, world) = (Arc::clone(&self.store), self.world.clone());
        self.repository = Some(Repository::open(store, world, &Unlock::Secret(SECRET), Cache::at(folder))?);
        Ok(self)
    }

    /// Makes a repository.
    ///
    /// # Errors
    /// What the engine says.
    pub fn init(&self) -> Result<Repository> {
        let cost = Argon2Cost::default();
        Repository::init(Arc::clone(&self.store), self.world.clone(), &Unlock::Secret(SECRET), "", cost, Cache::none())
    }

    /// The repository, opened by its own calls unless it was before.
    ///
    /// # Errors
    /// What the engine says.
    pub fn repository(&self) -> Result<Repository> {
        let open = |secret| Repository::open(Arc::clone(&self.store), self.world.clone(), &Unlock::Secret(secret), Cache::none());
        match &self.repository {
            Some(repository) => Ok(repository.clone()),
            None => match open(SECRET) {
                Err(error) if error.kind() == ErrorKind::WrongKey => open(NEW_SECRET),
                opened => opened,
            },
        }
    }

    /// Backs a volume up, and tells the oracle.
    ///
    /// # Errors
    /// What the engine says.
    pub fn back_up(&self, volume: &Volume, source: &str) -> Result<String> {
        let options = BackupOptions {
            path: ROOT.into(),
            source: source.to_owned(),
            host: format!("host {}", self.number),
            tags: vec![],
            parent: ParentChoice::Auto,
            excludes: vec![],
            exclude_root_names: vec![],
            one_file_system: true,
            dry_run: false,
            strict: false,
            paranoid: false,
            workers: 0,
            upload_threads: 0,
            memory_budget_bytes: 64 << 20,
            compression: CompressionChoice::Level(1),
            verify: self.verify,
        };
        let summary = backup::run(&self.repository()?, &volume.fs, &Arc::new(Job::new()), &options)?;
        let session = summary.snapshot.ok_or_else(|| Error::internal("a backup without snapshot"))?.to_string();
        self.sea.oracle(|ledger| {
            if summary.exit_code != 0 {
                ledger.violated(format!("I3: a backup says it lost items of a sound volume: {:?}", summary.lost));
            }
            ledger.acknowledge(&session, volume.truth());
        });
        Ok(session)
    }

    /// Prunes.
    ///
    /// # Errors
    /// What the engine says.
    pub fn prune(&self, options: &PruneOptions) -> Result<PruneReport> {
        let report = prune::run(&self.repository()?, &Arc::new(Job::new()), options)?;
        let moved = |row: &&prune::PackRow| row.why == prune::Why::Repacked && row.live_bytes > 0 && is_wasteful(row, options);
        self.sea.note_moved(report.packs.iter().filter(moved).count() as u64);
        Ok(report)
    }

    /// Deletes a snapshot.
    ///
    /// # Errors
    /// What the engine says.
    pub fn delete(&self, session: &str) -> Result<()> {
        let repository = self.repository()?;
        self.sea.oracle(|ledger| ledger.intend(session));
        repository.remove_snapshot(session_id(session), "simulator")
    }

    /// Checks everything, every byte of it.
    ///
    /// # Errors
    /// What the engine says; Corrupt also when it finds damage.
    pub fn check(&self) -> Result<()> {
        let options = CheckOptions { read_percent: 100, workers: 0, memory_budget_bytes: 32 << 20, ..CheckOptions::default() };
        let report = check::run(&self.repository()?, &Arc::new(Job::new()), &options)?;
        match report.exit_code {
            0 => Ok(()),
            _ => Err(Error::corrupt(format!("a check finds damage: {:?} {:?}", report.findings, report.hurt))),
        }
    }

    /// How this process checks.
    #[must_use]
    pub fn check_options(&self) -> CheckOptions {
        CheckOptions {
            workers: 0,
            memory_budget_bytes: 32 << 20,
            host: format!("host {}", self.number),
            ..CheckOptions::default()
        }
    }

    /// Checks, and tells what it finds.
    ///
    /// # Errors
    /// What the engine says.
    pub fn look_over(&self, options: &CheckOptions) -> Result<CheckReport> {
        check::run(&self.repository()?, &Arc::new(Job::new()), options)
    }

    /// Reads what a snapshot needs, with `ids` the content of frames, too.
    ///
    /// # Errors
    /// What the engine says.
    pub fn verify(&self, session: &str, ids: bool) -> Result<CheckReport> {
        let options = self.check_options();
        check::verify_snapshot(&self.repository()?, session_id(session), ids, &Arc::new(Job::new()), &options)
    }

    /// Repairs, reading every frame.
    ///
    /// # Errors
    /// What the engine says.
    pub fn repair(&self) -> Result<RepairReport> {
        self.repair_reading(true)
    }

    /// Repairs, reading every frame or headers alone.
    ///
    /// # Errors
    /// What the engine says.
    pub fn repair_reading(&self, read_data: bool) -> Result<RepairReport> {
        let options = RepairOptions { read_data, workers: 0, pack_size_bytes: 32 << 10, ..RepairOptions::default() };
        repair::run(&self.repository()?, &Arc::new(Job::new()), &options)
    }

    /// Gives the repository another key slot and takes the old one away.
    ///
    /// # Errors
    /// What the engine says.
    pub fn change_key(&self) -> Result<()> {
        let repository = self.repository()?;
        // Who adds a key has it, and has written it down, before its slot is there.
        self.sea.oracle(|ledger| ledger.hand_out(NEW_SECRET));
        repository.add_slot(&Unlock::Secret(NEW_SECRET), "new", Argon2Cost::default())?;
        self.take_away(&repository, repository.slot())
    }

    /// Adds a key of its own, and tells the oracle: the slot by which the repository was opened, the secret, and its slot.
    ///
    /// # Errors
    /// What the engine says.
    pub fn add_key(&self) -> Result<(RandomName, [u8; 32], String)> {
        let (repository, secret) = (self.repository()?, [100 + self.number as u8; 32]);
        self.sea.oracle(|ledger| ledger.hand_out(secret));
        let slot = repository.add_slot(&Unlock::Secret(secret), "new", Argon2Cost::default())?.to_string();
        Ok((repository.slot(), secret, slot))
    }

    /// Opens the repository by its own calls.
    ///
    /// # Errors
    /// What the engine says.
    pub fn open_anew(&self, secret: [u8; 32]) -> Result<Repository> {
        Repository::open(Arc::clone(&self.store), self.world.clone(), &Unlock::Secret(secret), Cache::none())
    }

    /// Takes a key slot away, and tells the oracle before.
    ///
    /// # Errors
    /// What the engine says.
    pub fn take_away(&self, repository: &Repository, slot: RandomName) -> Result<()> {
        self.sea.oracle(|ledger| ledger.give_up(&slot.to_string()));
        repository.remove_slot(slot)
    }

    /// What a snapshot of a damaged repository still gives back.
    ///
    /// # Errors
    /// What the engine says when it gives back nothing.
    pub fn salvage(&self, session: &str) -> Result<Tree> {
        let fs = MadeUpFs::default();
        self.restore_how(session, &fs)?;
        Ok(look(&*fs.open_root(Path::new("restored"), RootOptions::default())?))
    }

    fn restore_how(&self, session: &str, fs: &MadeUpFs) -> Result<RestoreSummary> {
        let options = RestoreOptions {
            workers: 0,
            fetch_threads: 0,
            memory_budget_bytes: 32 << 20,
            ..RestoreOptions::new(session_id(session), "restored")
        };
        restore::run(&self.repository()?, fs, &Arc::new(Job::new()), &options)
    }

    /// Restores a snapshot into `fs`; when it says that all is well, compares with what the snapshot held when it was committed.
    ///
    /// # Errors
    /// What the engine says; Corrupt also when it says that something was not restored.
    pub fn restore(&self, session: &str, fs: &MadeUpFs) -> Result<()> {
        let truth = self.sea.oracle(|ledger| ledger.counted().get(session).cloned());
        let summary = self.restore_how(session, fs)?;
        if summary.exit_code != 0 {
            return Err(Error::corrupt(format!("a restore is not whole: {summary:?}")));
        }
        let root = fs.open_root(Path::new("restored"), RootOptions::default())?;
        let found = look(&*root);
        self.sea.oracle(|ledger| match &truth {
            None => ledger.violated(format!("I1: a snapshot was restored that never counted: {session}")),
            Some(counted) => {
                if let Some(what) = difference(&counted.tree, &found) {
                    ledger.violated(format!("I1: snapshot {session} was restored as something else: {what}"));
                }
            }
        });
        Ok(())
    }
}

/// Whether so much of a pack is dead that it is rewritten for that, not because it is small: head, header and tail, at most
/// [`PACK_FRAME_BYTES`] of these small packs, count for neither.
fn is_wasteful(row: &prune::PackRow, options: &PruneOptions) -> bool {
    let dead = row.size_bytes.saturating_sub(row.live_bytes + PACK_FRAME_BYTES);
    dead > 0 && dead * 100 >= row.size_bytes * u64::from(options.waste_percent)
}

/// What of a small pack is not frames.
const PACK_FRAME_BYTES: u64 = 2 << 10;

/// A session by its digits.
#[must_use]
pub fn session_id(digits: &str) -> SessionId {
    SessionId::from_hex(digits).expect("32 digits")
}

/// What is at a key, in memory.
#[must_use]
pub fn bytes_at(store: &MemoryStore, key: &str) -> bytes::Bytes {
    store.get(&Key::new(key).expect("a key"), 1 << 30).expect("an object that is there")
}
