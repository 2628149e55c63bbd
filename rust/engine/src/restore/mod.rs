//! A snapshot, or a part of it, laid back into a directory.
//!
//! Holds options, summary and [`run`]; `walk` goes through the tree and hands out work to a `crew`, `file` and `pieces` write content, `links` makes second
//! names, `place` knows open directories, `temporary` names what is not whole. Promises: every byte written was verified against its chunk id; nothing is touched
//! outside the target; what could not be restored is named; a file with damaged chunks is never left under its name as if it were
//! whole. Memory does not grow with files or their size: reader caches within the budget, a bounded queue, at most
//! [`place::OPEN_DIRECTORIES_MAX`] open directories. Of files with several names, a row each is the exception.
//!
//! A damaged file: what stood under its name before stays; with nothing there nothing is left, unless `keep_damaged` asks for what
//! could be read, zeros elsewhere, under `NAME.longshore-damaged`. A large file that was being updated in place and turns out to be
//! damaged is moved aside to that name in any case. A job that fails or is cancelled leaves no temporary names, but large files as far
//! as they came. So the target is the restore's journal: the next one into it compares what stands chunk by chunk, fetches and writes
//! only the rest, and removes what one that was killed left under temporary names.

mod crew;
mod durable;
mod file;
mod links;
mod pieces;
mod place;
mod standing;
mod tally;
mod temporary;
mod walk;

use crate::error::{Error, ErrorKind, Result};
use crate::job::{Job, Stage};
use crate::repository::Repository;
use crate::repository::ahead::Ahead;
use crate::repository::cursor::as_damage;
use crate::repository::reader::ChunkReader;
use crate::volume::{Dir, Fs, RestorePolicy, RootOptions};
use longshore_format::id::{RandomName, SessionId};
use longshore_format::tree::{Entry, Node};
use place::Directory;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use tally::Tally;
pub use tally::{Loss, LossKind, RestoreSummary};
use temporary::Temporary;

/// What the reader of trees may keep; data goes by [`Ahead`].
const READER_BYTES_MAX: usize = 24 << 20;
/// Sealed bytes that are fetched ahead of those who write.
const WINDOW_BYTES_MAX: u64 = 24 << 20;
/// Opened bytes that a worker may hold at once, whatever the budget.
const TASK_BYTES_MAX: u64 = 8 << 20;
/// With less a worker has no use; where a quarter of the budget has less for each there are fewer workers. Measured in 64 MiB, of 64 that were
/// asked for: 131 MiB with all of them, 72 MiB with 16.
const TASK_BYTES_MIN: usize = 1 << 20;

/// What to restore, where, and how.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is one switch of an operator's")]
pub struct RestoreOptions {
    /// Which snapshot.
    pub snapshot: SessionId,
    /// Path in it, components joined by slashes; empty: all of it.
    pub path: Vec<u8>,
    /// Directory in which the contents are laid; made when absent.
    pub target: PathBuf,
    /// Remove what the snapshot does not have. Not done where a directory's entries could not all be read, nor for the path of a file.
    pub delete_extra: bool,
    /// What may be applied of the things that lend rights.
    pub policy: RestorePolicy,
    /// Threads that write files; 0: everything on the calling thread.
    pub workers: usize,
    /// Threads that fetch ahead of them: a folder's disk is busy with one, a bucket's latency wants more. Not used without workers.
    pub fetch_threads: usize,
    /// Bound of all buffers.
    pub memory_budget_bytes: usize,
    /// Host, for the reader's marker.
    pub host: String,
    /// Give the target the mode, owner, times and xattrs of what is restored in it.
    pub restore_root_metadata: bool,
    /// Read the trees, write nothing.
    pub dry_run: bool,
    /// Count what the policy dropped as lost.
    pub strict: bool,
    /// Make everything durable before success is said.
    pub sync: bool,
    /// Bytes written between two times that what was written is made durable, beside the end.
    pub flush_bytes: u64,
    /// Keep what can be read of damaged files, under another name.
    pub keep_damaged: bool,
    /// Take a file that has the recorded length and modification time for unchanged, without reading it.
    pub trust_times: bool,
}

impl RestoreOptions {
    /// All of a snapshot, with everything that may be set, on two workers.
    #[must_use]
    pub fn new(snapshot: SessionId, target: impl Into<PathBuf>) -> Self {
        Self {
            snapshot,
            path: Vec::new(),
            target: target.into(),
            delete_extra: false,
            policy: RestorePolicy::everything(),
            workers: 2,
            fetch_threads: 1,
            memory_budget_bytes: 128 << 20,
            host: String::new(),
            restore_root_metadata: true,
            dry_run: false,
            strict: false,
            sync: true,
            flush_bytes: durable::FLUSH_BYTES,
            keep_damaged: false,
            trust_times: false,
        }
    }
}

/// What all threads of one restore share.
#[derive(Debug)]
struct Context {
    reader: Arc<ChunkReader>,
    ahead: Ahead,
    /// Opened bytes that one task may hold.
    task_bytes_max: u64,
    job: Arc<Job>,
    options: RestoreOptions,
    tally: Tally,
    stopping: AtomicBool,
    fatal: std::sync::Mutex<Option<Error>>,
    open_directories: AtomicUsize,
    temporary: Temporary,
    linked: links::Whole,
    written: durable::Written,
    /// Whether what dead restores left may be removed.
    sweeps: bool,
}

impl Context {
    fn check(&self) -> Result<()> {
        self.job.check()?;
        if self.stopping.load(Relaxed) { Err(Error::internal("the restore has ended already")) } else { Ok(()) }
    }

    /// Ends the job; the first reason is the one that is told.
    fn fail(&self, error: Error) {
        self.stopping.store(true, Relaxed);
        let mut fatal = self.fatal.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        fatal.get_or_insert(error);
    }
}

/// Restores.
///
/// # Errors
/// `SnapshotNotFound`, `PathNotFound`, `NoSpace` naming the file, `Volume` when the target cannot be opened or made durable,
/// `Cancelled`, Corrupt when the snapshot itself cannot be read, or what the store says. Damaged and refused items are no error but
/// counted and named in the summary, whose `exit_code` says it.
pub fn run(repository: &Repository, fs: &dyn Fs, job: &Arc<Job>, options: &RestoreOptions) -> Result<RestoreSummary> {
    restore(repository, fs, job, options).map_err(as_damage)
}

fn restore(repository: &Repository, fs: &dyn Fs, job: &Arc<Job>, options: &RestoreOptions) -> Result<RestoreSummary> {
    let clock = Arc::clone(&repository.world.clock);
    let started = clock.monotonic();
    job.enter(Stage::Preparing);
    let row = repository.find_snapshot(&options.snapshot.to_string(), None)?;
    let marker = repository.open_reader(row.session, &row.snapshot.usage, &options.host)?;
    let index = Arc::new(repository.load_index(job)?);
    let budget = options.memory_budget_bytes.max(32 << 20);
    let options = &RestoreOptions { workers: options.workers.min(budget / 4 / TASK_BYTES_MIN), ..options.clone() };
    let reader = ChunkReader::new(repository.clone(), index, Arc::clone(job), (budget / 4).min(READER_BYTES_MAX));
    let reader = Arc::new(reader);
    let entry = reader.entry_at(&row.snapshot.root, &options.path)?;
    let root: Option<Arc<dyn Dir>> = match options.dry_run {
        true => None,
        false => {
            let root = fs.create_root(&options.target, RootOptions::default()).map_err(|error| {
                Error::from(error)
                    .while_doing(format_args!("target {}", options.target.display()))
                    .with_next_step("give a directory whose parent exists")
            })?;
            Some(Arc::from(root))
        }
    };
    let context = Arc::new(Context {
        ahead: Ahead::new(Arc::clone(&reader), (budget as u64 / 4).min(WINDOW_BYTES_MAX)),
        task_bytes_max: (budget as u64 / 4 / options.workers.max(1) as u64).min(TASK_BYTES_MAX),
        reader,
        job: Arc::clone(job),
        options: options.clone(),
        tally: Tally::default(),
        stopping: AtomicBool::new(false),
        fatal: std::sync::Mutex::new(None),
        open_directories: AtomicUsize::new(0),
        temporary: Temporary::new(repository),
        linked: links::Whole::default(),
        written: durable::Written::default(),
        sweeps: root.as_ref().is_some_and(|root| root.hold_alone()),
    });
    if options.path.iter().all(|b| *b == b'/') {
        job.bytes_expected.store(row.snapshot.counts.bytes, Relaxed);
        job.files_expected.store(row.snapshot.counts.files, Relaxed);
    }
    job.enter(Stage::Running);
    let mut begun = None;
    match root {
        None => walk::count(&context, &entry)?,
        Some(root) => {
            begun = Begun::note(repository, &*root, options);
            write(&context, root, entry)?;
        }
    }
    drop(marker);
    let resumed = begun.is_some_and(|begun| begun.end(repository));
    let leftovers = context.tally.leftovers.load(Relaxed);
    if leftovers > 0 {
        tracing::info!(files = leftovers, "Removed unfinished files of a restore that had died");
    }
    job.enter(Stage::Finished);
    let seconds = clock.monotonic().saturating_sub(started).as_secs_f64();
    Ok(context.tally.summary(options.strict, resumed, seconds))
}

/// A note in the cache that a restore is under way, there until it has ended well. It decides nothing but what the summary calls taken from an
/// interrupted run: what stands is told by the target itself.
struct Begun {
    key: String,
    before: bool,
}

impl Begun {
    fn note(repository: &Repository, root: &dyn Dir, options: &RestoreOptions) -> Option<Self> {
        let stat = root.stat_self().ok()?;
        let mut name = options.snapshot.0.to_vec();
        name.extend_from_slice(&stat.device.to_le_bytes());
        name.extend_from_slice(&stat.inode.to_le_bytes());
        name.extend_from_slice(&options.path);
        let sum = repository.keys.cache_sum(b"restore target", &name);
        let key = format!("restores/{}", RandomName(sum[..16].try_into().ok()?));
        let before = repository.cache.get(&key).is_some();
        if !before {
            repository.cache.put(&key, b"begun");
        }
        Some(Self { key, before })
    }

    /// Takes the note away; whether there was one before.
    fn end(self, repository: &Repository) -> bool {
        repository.cache.delete(&self.key);
        self.before
    }
}

fn write(context: &Arc<Context>, root: Arc<dyn Dir>, entry: Entry) -> Result<()> {
    let is_directory = matches!(entry.node, Node::Directory { .. });
    let metadata = (is_directory && context.options.restore_root_metadata).then(|| tally::metadata_of(&entry));
    if metadata.is_some() {
        place::make_writable(&*root);
    }
    let top = Directory::root(Arc::clone(&root), metadata);
    let flushing = durable::Flushing::start(context, &root);
    let outcome = walk::run(context, &top, entry);
    drop(flushing);
    if let Err(error) = outcome {
        context.fail(error);
    }
    let fatal = context.fatal.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    if let Some(error) = fatal {
        return Err(if context.job.is_cancelled() { Error::new(ErrorKind::Cancelled, "the job was cancelled") } else { error });
    }
    if context.options.sync {
        context.job.enter(Stage::Committing);
        root.sync_filesystem().map_err(durable::not_durable)?;
    }
    Ok(())
}
