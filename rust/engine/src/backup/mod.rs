//! A volume into a snapshot.
//!
//! [`run`] opens a writer session, walks the volume on the calling thread and others, hands files and finished directories to workers, and
//! commits. Promises the commit order of docs/format.md chapter 12, that nothing counts unless [`Summary::snapshot`] is returned,
//! and that every item that was not captured is named. With no workers everything runs on the calling thread, in an order that
//! depends only on what it is handed. A backup that is killed is gone on from by the next one of the same volume, through the journal.
//!
//! Rooms: `walk` (what is there), `walkers` (who walks what), `drift` (what of it is unchanged), `crew` (threads and their queue), `file` (one file's bytes), `windows` (a run of them), `fetch` (small ones of a slow volume, read ahead), `slowness` (whether it is), `tree`
//! (directories, bottom-up), `patch` (those the stat cache knows), `rows` (what stands there) and `pieces` (how they are stored), `proof` (what is still in the repository), `hints` (what others say has changed), `exclude`, `shares` (of memory).

mod crew;
mod drift;
mod exclude;
mod fetch;
mod file;
mod hints;
mod notes;
mod patch;
mod pieces;
mod proof;
mod queue;
mod rows;
mod shares;
mod slowness;
mod tree;
mod walk;
mod walkers;
mod windows;

use crate::error::{Error, ErrorKind, Result};
use crate::job::{Job, Stage};
use crate::journal::Journal;
use crate::packer::{CompressionChoice, PackOptions, Sink};
use crate::repository::lookups::Kept;
use crate::repository::reader::ChunkReader;
use crate::repository::session::{Aborted, Commit, Fate, Writer};
use crate::repository::snapshots::SnapshotRow;
use crate::repository::{PROGRAM, Repository};
use crate::statcache::{Recorder, StatCache};
use crate::volume::{Fs, RootOptions};
use crew::Harvest;
use crew::Remembered;
use exclude::Excludes;
pub use hints::{FileHint, Hints};
use longshore_format::SessionId;
use longshore_format::pack::VerifyUpload;
use longshore_format::snapshot::{Counts, LostItem, Snapshot};
use longshore_format::usage::Usage;
use notes::Notes;
use shares::Shares;
pub use shares::Underway;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// Which snapshot to compare with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ParentChoice {
    /// The newest of the same source.
    #[default]
    Auto,
    /// None: everything is read.
    None,
    /// This one.
    Snapshot(SessionId),
}

/// What to back up and how.
#[derive(Clone, Debug)]
pub struct BackupOptions {
    /// The volume's directory.
    pub path: PathBuf,
    /// Volume identity.
    pub source: String,
    /// Host or node, for people.
    pub host: String,
    /// Tags, ascending by key.
    pub tags: Vec<(String, String)>,
    /// Which snapshot to compare with.
    pub parent: ParentChoice,
    /// Patterns of what to leave out.
    pub excludes: Vec<String>,
    /// Names left out directly below the root.
    pub exclude_root_names: Vec<Vec<u8>>,
    /// Stay on the root's filesystem.
    pub one_file_system: bool,
    /// Read and compare, store nothing.
    pub dry_run: bool,
    /// Files that changed while they were read make the exit code 3.
    pub strict: bool,
    /// Read every file, whatever its times say.
    pub paranoid: bool,
    /// Threads that read, compress and seal; 0: the calling thread does all.
    pub workers: usize,
    /// Threads that send.
    pub upload_threads: usize,
    /// What buffers and packs may take together.
    pub memory_budget_bytes: usize,
    /// How to compress.
    pub compression: CompressionChoice,
    /// What is checked before a pack is sent.
    pub verify: VerifyUpload,
}

/// What a backup did.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The snapshot; none for a dry run.
    pub snapshot: Option<SessionId>,
    /// What it was compared with.
    pub parent: Option<SessionId>,
    /// Counts.
    pub counts: Counts,
    /// Entries that vanished between listing and opening; not part of the snapshot.
    pub vanished: u64,
    /// Files that an interrupted run had read, of which nothing was read again. They count as new or changed all the same.
    pub files_resumed: u64,
    /// Bytes that an interrupted run had read, and this one did not.
    pub bytes_resumed: u64,
    /// Files of which only a part was read, as a hint said.
    pub hints_used: u64,
    /// Hints that could not be relied on; their files were read.
    pub hints_ignored: u64,
    /// Bytes that were not read because of hints.
    pub bytes_hinted: u64,
    /// Items not captured, the first [`ITEMS_NAMED_MAX`](longshore_format::snapshot::ITEMS_NAMED_MAX).
    pub lost: Vec<LostItem>,
    /// Items marked changed, the first [`ITEMS_NAMED_MAX`](longshore_format::snapshot::ITEMS_NAMED_MAX).
    pub changed: Vec<Vec<u8>>,
    /// 0, or 3 when items were lost (with `strict`, or changed).
    pub exit_code: u8,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a process may hold open where nobody says.
const DESCRIPTORS_USUAL: u64 = 1024;

/// How often a fenced session may begin again before the operator is asked.
const FENCED_RETRIES: usize = 3;

/// Backs a volume up.
///
/// # Errors
/// When nothing was committed: the volume's root cannot be read, the store or the repository failed, the job was cancelled.
pub fn run(repository: &Repository, fs: &dyn Fs, job: &Arc<Job>, options: &BackupOptions) -> Result<Summary> {
    run_with_hints(repository, fs, job, options, &Arc::default())
}

/// The same with what others know of what has changed. A paranoid backup listens to nobody.
///
/// # Errors
/// As [`run`].
pub fn run_with_hints(
    repository: &Repository,
    fs: &dyn Fs,
    job: &Arc<Job>,
    options: &BackupOptions,
    hints: &Arc<Hints>,
) -> Result<Summary> {
    let hints = if options.paranoid { Arc::default() } else { Arc::clone(hints) };
    // A deep volume holds a descriptor for each directory on the way down.
    let descriptors = crate::volume::raise_descriptor_limit().1.unwrap_or(DESCRIPTORS_USUAL);
    let excludes = Arc::new(Excludes::new(&options.excludes, &options.exclude_root_names)?);
    let given = &Given { excludes, hints, descriptors };
    let mut adopts = Vec::new();
    let trust = Arc::new(AtomicBool::new(!options.paranoid));
    for _ in 0..FENCED_RETRIES {
        let trusted = trust.load(Relaxed);
        match attempt(repository, fs, job, options, given, &adopts, &trust) {
            Err(error) if trusted && !trust.load(Relaxed) && !options.paranoid => {
                tracing::warn!(error = %error, "Beginning again without the stat cache");
            }
            Err(error) => return Err(error),
            Ok(Attempt::Done(summary)) => return Ok(*summary),
            Ok(Attempt::Fenced(session)) => {
                tracing::warn!(session = %session, "A prune fenced this backup, beginning again");
                adopts.push(session);
            }
        }
    }
    Err(Error::new(ErrorKind::StoreUnavailable, "the backup was fenced by a prune each time it tried to commit")
        .with_next_step("let the prune end, then run the backup again"))
}

/// What every attempt is given, made ready.
struct Given {
    excludes: Arc<Excludes>,
    hints: Arc<Hints>,
    descriptors: u64,
}

enum Attempt {
    Done(Box<Summary>),
    Fenced(SessionId),
}

fn attempt(
    repository: &Repository,
    fs: &dyn Fs,
    job: &Arc<Job>,
    options: &BackupOptions,
    given: &Given,
    adopts: &[SessionId],
    trust: &Arc<AtomicBool>,
) -> Result<Attempt> {
    job.enter(Stage::Preparing);
    let started_nanos = repository.world.clock.wall_nanos();
    let root = fs.open_root(&options.path, RootOptions { one_file_system: options.one_file_system }).map_err(|error| {
        Error::from(error)
            .while_doing(format_args!("volume cannot be opened: path={}", options.path.display()))
            .with_next_step("check that the directory exists and may be read")
    })?;
    let journal = if options.dry_run { None } else { open_journal(repository, options)? };
    let mut writer = if options.dry_run {
        Writer::rehearse(repository, job)?
    } else {
        open_writer(repository, job, options, adopts, journal.as_ref(), started_nanos)?
    };
    let journal = journal.map(|(journal, _)| Arc::new(journal));
    let result: Result<Attempt> = (|| {
        let parent = choose_parent(repository, options)?;
        let hints = Arc::clone(&given.hints);
        let remembered = Remembered {
            hints,
            parent: parent.as_ref().map(|row| row.session),
            ..remember(repository, options, parent.as_ref(), trust, journal.clone(), started_nanos)
        };
        let (summary, sink, usage, learned) =
            capture(&writer, root, job, options, given, parent.as_ref(), started_nanos, remembered)?;
        if options.dry_run {
            return Ok(Attempt::Done(Box::new(summary.0)));
        }
        job.enter(Stage::Committing);
        let root = summary.1.clone();
        let done = commit(&mut writer, job, options, summary, &sink, usage, started_nanos)?;
        if let (Attempt::Done(_), Some(journal)) = (&done, &journal) {
            journal.remove();
        }
        learned.keep(repository, options, &root);
        Ok(done)
    })();
    if let Err(error) = &result
        && !options.dry_run
    {
        match writer.abort(error.message()) {
            Ok(Aborted::Nothing) => {}
            Ok(Aborted::HadCommitted) => {
                tracing::warn!(session = %writer.session(), "The commit had arrived although its answer was lost")
            }
            Err(other) => tracing::warn!(session = %writer.session(), error = %other, "Cannot mark the session as given up"),
        }
    }
    job.enter(Stage::Finished);
    result
}

/// The volume's journal, and the sessions of interrupted runs that have not ended yet.
fn open_journal(repository: &Repository, options: &BackupOptions) -> Result<Option<(Journal, Vec<SessionId>)>> {
    let Some(mut journal) = Journal::open(repository, &options.source, &stat_cache_name(repository, options)) else {
        return Ok(None);
    };
    // The journal was in nobody's hands, so every process that wrote it is gone.
    let mut open = Vec::new();
    for session in journal.sessions() {
        match repository.fate(session)? {
            Fate::Open => open.push(session),
            Fate::Aborted => {}
            Fate::Committed => {
                journal.forget(repository.world.salt(), &options.source);
                break;
            }
        }
    }
    Ok(Some((journal, open)))
}

fn open_writer(
    repository: &Repository,
    job: &Job,
    options: &BackupOptions,
    adopts: &[SessionId],
    journal: Option<&(Journal, Vec<SessionId>)>,
    started_nanos: i64,
) -> Result<Writer> {
    let (session, mut adopts, mut ends) = (repository.world.session(), adopts.to_vec(), &[][..]);
    if let Some((journal, open)) = journal {
        let earlier = journal.sessions();
        if !earlier.is_empty() {
            tracing::info!(runs = earlier.len(), "Going on from an interrupted backup");
        }
        adopts.extend(earlier);
        adopts.sort_unstable();
        adopts.dedup();
        ends = open;
        journal.note_session(session, started_nanos);
    }
    repository.open_writer_as(session, &options.host, adopts, ends, job)
}

fn choose_parent(repository: &Repository, options: &BackupOptions) -> Result<Option<SnapshotRow>> {
    match &options.parent {
        ParentChoice::None => Ok(None),
        ParentChoice::Snapshot(session) => {
            let wanted = session.to_string();
            repository.find_snapshot(&wanted, None).map(Some)
        }
        ParentChoice::Auto => repository.newest_of(&options.source),
    }
}

/// The name of a source's stat cache in the cache folder.
fn stat_cache_name(repository: &Repository, options: &BackupOptions) -> String {
    let sum = repository.keys.cache_sum(b"stat cache source", options.source.as_bytes());
    sum[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The stat cache of the parent, and a recorder of the next.
fn remember(
    repository: &Repository,
    options: &BackupOptions,
    parent: Option<&SnapshotRow>,
    trust: &Arc<AtomicBool>,
    journal: Option<Arc<Journal>>,
    started_nanos: i64,
) -> Remembered {
    let cache = parent.filter(|_| trust.load(Relaxed)).and_then(|row| {
        let map = repository.cache.map(&format!("stat/{}", stat_cache_name(repository, options)))?;
        StatCache::open(map, &repository.keys, &row.snapshot.root).map(Arc::new)
    });
    if parent.is_some() {
        // A first backup has nothing to look for.
        repository.cache.note(Kept::Volume, cache.is_some());
    }
    let recorder = if options.dry_run { None } else { repository.cache.draft(&repository.world.name().to_string()) };
    let trust = Arc::clone(trust);
    Remembered {
        cache,
        recorder: recorder.map(Recorder::new),
        journal,
        hints: Arc::default(),
        parent: None,
        started_nanos,
        trust,
    }
}

/// What this backup has learned of the volume, for the next.
struct Learned {
    shared: Arc<crew::Shared>,
    place: tree::Place,
}

impl Learned {
    /// Puts it into the cache; without, the next backup is slower.
    fn keep(&self, repository: &Repository, options: &BackupOptions, root: &longshore_format::tree::Entry) {
        let (tree::Place::New(number), Some(recorder)) = (self.place, &self.shared.recorder) else { return };
        let name = stat_cache_name(repository, options);
        let Some(file) = repository.cache.replace("stat", &name, &repository.world.name().to_string()) else { return };
        if let Err(error) = recorder.publish(number, root, &self.shared.reader, file) {
            tracing::debug!(error = %error, "Cannot keep the stat cache");
        }
    }
}

type Captured = (Summary, longshore_format::tree::Entry);

#[expect(clippy::too_many_arguments, reason = "one caller, and each is a thing of its own")]
fn capture(
    writer: &Writer,
    root: Box<dyn crate::volume::Dir>,
    job: &Arc<Job>,
    options: &BackupOptions,
    given: &Given,
    parent: Option<&SnapshotRow>,
    started_nanos: i64,
    remembered: Remembered,
) -> Result<(Captured, Arc<Sink>, Usage, Learned)> {
    if let Some(row) = parent {
        job.bytes_expected.store(row.snapshot.counts.bytes, Relaxed);
        job.files_expected.store(row.snapshot.counts.files, Relaxed);
    }
    job.enter(Stage::Running);
    let shares = Shares::of(options.memory_budget_bytes, options.workers, options.upload_threads);
    let options = &BackupOptions { workers: shares.workers, ..options.clone() };
    let pack_options = PackOptions {
        pack_size_bytes: shares.pack_size_bytes,
        compression: options.compression,
        verify: options.verify,
        upload_threads: shares.upload_threads,
        dry_run: options.dry_run,
    };
    let notes = Arc::new(Notes::default());
    let reader = Arc::new(ChunkReader::of_trees(
        writer.repository().clone(),
        Arc::clone(&writer.index),
        Arc::clone(job),
        shares.reader_bytes,
    ));
    let threads = crew::Crew::start(
        writer,
        job,
        options,
        (pack_options, shares.fetch_bytes),
        Arc::clone(&notes),
        Arc::clone(&reader),
        remembered,
    )?;
    let spawn = &writer.repository().world.spawn;
    let walked = walk::threads::walk(
        threads.crew(),
        (spawn, shares.slow_walkers),
        root,
        &given.excludes,
        parent,
        options,
        (started_nanos, given.descriptors),
    );
    let Harvest { shared, root, place, sink, usage } = threads.finish(walked)?;
    sink.finish()?;
    let counts = notes.counts(sink.bytes_stored.load(Relaxed));
    let mut lost = std::mem::take(&mut *lock(&notes.lost));
    lost.sort_by(|a, b| a.path.cmp(&b.path));
    let mut changed = std::mem::take(&mut *lock(&notes.changed));
    changed.sort();
    let incomplete = counts.items_lost > 0 || options.strict && counts.items_changed > 0;
    let summary = Summary {
        snapshot: None,
        parent: parent.map(|row| row.session),
        counts,
        vanished: notes.vanished.load(Relaxed),
        files_resumed: notes.files_resumed.load(Relaxed),
        bytes_resumed: notes.bytes_resumed.load(Relaxed),
        hints_used: notes.hints_used.load(Relaxed),
        hints_ignored: notes.hints_ignored.load(Relaxed) + shared.hints.unreadable,
        bytes_hinted: notes.bytes_hinted.load(Relaxed),
        lost,
        changed,
        exit_code: if incomplete { 3 } else { 0 },
    };
    Ok(((summary, root), sink, usage, Learned { shared, place }))
}

fn commit(
    writer: &mut Writer,
    job: &Job,
    options: &BackupOptions,
    (mut summary, root): Captured,
    sink: &Sink,
    mut usage: Usage,
    started_nanos: i64,
) -> Result<Attempt> {
    sink.add_own_frames(&mut usage);
    let tables = writer.put_usage(&usage)?;
    if let Err(error) = writer.prove(&sink.sent(), &usage) {
        // A fence lets a prune take the packs of who was fenced: then it is no fault of the store.
        return match writer.repository().fate(writer.session()) {
            Ok(Fate::Aborted) => Ok(Attempt::Fenced(writer.session())),
            _ => Err(error),
        };
    }
    job.check()?;
    let repository = writer.repository().clone();
    let snapshot = Snapshot {
        nonce: writer.nonce(),
        root,
        usage: tables,
        source: options.source.clone(),
        parent: summary.parent,
        tags: options.tags.clone(),
        started_nanos,
        ended_nanos: repository.world.clock.wall_nanos(),
        host: options.host.clone(),
        path: options.path.as_os_str().as_bytes().to_vec(),
        program: PROGRAM.to_owned(),
        counts: summary.counts,
        lost: summary.lost.clone(),
        changed: summary.changed.clone(),
    };
    let committed = match writer.commit(snapshot) {
        Ok(committed) => committed,
        // Nobody knows whether it arrived. Giving up tells: either the abort lands and nothing counts, or the commit is found.
        Err(error) => match writer.abort(error.message()) {
            Ok(Aborted::HadCommitted) => Commit::Done,
            _ => return Err(error),
        },
    };
    match committed {
        Commit::Done => {
            summary.snapshot = Some(writer.session());
            Ok(Attempt::Done(Box::new(summary)))
        }
        Commit::Fenced(_) => Ok(Attempt::Fenced(writer.session())),
    }
}
