//! The threads of a backup and the queue between them.
//!
//! Walkers (`walkers`) put tasks into a queue (`queue`); workers take them. Walkers wait for the workers, so memory stays bounded; workers
//! never wait for a walker. With no workers each task runs when it is put in.
//!
//! Who begins a long run of a large file invites the others (`windows`); who comes to a run that is over goes on with something else.

use super::fetch::Fetchers;
use super::file::{FileBatch, FileReader};
use super::queue::{Deserted, Next, Queue, Seat};
use super::slowness::Gauge;
use super::tree::{DirNode, Place, close_directory};
use super::windows::Run;
use super::{BackupOptions, Hints, Notes, lock};
use crate::error::{Error, Result};
use crate::job::Job;
use crate::journal::Journal;
use crate::packer::{PackOptions, Packer, Sink};
use crate::repository::reader::ChunkReader;
use crate::repository::session::Writer;
use crate::seams::{Clock, Handle};
use crate::statcache::{Recorder, StatCache};
use longshore_format::SessionId;
use longshore_format::tree::Entry;
use longshore_format::usage::Usage;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// A piece of work.
#[derive(Debug)]
pub(crate) enum Task {
    /// Files of one directory to read.
    Files(FileBatch),
    /// A directory whose entries are all known.
    Close(Arc<DirNode>),
}

impl Task {
    /// What it is to do, in files.
    pub fn weight(&self) -> usize {
        match self {
            Self::Files(batch) => batch.files.len(),
            Self::Close(_) => 1,
        }
    }
}

/// What waits for workers.
pub(super) type Tasks = Queue<Task, Arc<Run>>;

/// What one thread works with.
pub(crate) struct Worker {
    pub packer: Packer,
    pub files: FileReader,
    pub shared: Arc<Shared>,
    /// Where tasks come from and others are invited; none in a crew without threads.
    seat: Option<Seat<Task, Arc<Run>>>,
    threads: usize,
}

/// What all threads share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub job: Arc<Job>,
    pub notes: Arc<Notes>,
    pub reader: Arc<ChunkReader>,
    pub cut_tree: [u8; 32],
    pub root: Mutex<Option<(Entry, Place)>>,
    /// The stat cache of the parent, if there is one.
    pub cache: Option<Arc<StatCache>>,
    /// The one that is being made, if there is where to keep it.
    pub recorder: Option<Recorder>,
    /// What this run has read, and what an interrupted one had; none without a cache.
    pub journal: Option<Arc<Journal>>,
    /// What others say has changed, and since which snapshot it may be.
    pub hints: Arc<Hints>,
    pub parent: Option<SessionId>,
    /// When this run began.
    pub started_nanos: i64,
    /// Whether every file is read, whatever its times say.
    pub paranoid: bool,
    /// How long small files make one wait.
    pub gauge: Arc<Gauge>,
    pub clock: Arc<dyn Clock>,
    /// Taken back when the stat cache turns out not to be what it says.
    trust: Arc<AtomicBool>,
    usage: Mutex<Usage>,
}

impl Shared {
    /// Ends this attempt: the cache, or the trees that it speaks of, cannot be relied on. The next one does without.
    pub fn cache_damaged(&self, why: &str) -> Error {
        self.trust.store(false, Relaxed);
        Error::corrupt(format!("stat cache does not fit the parent snapshot: {why}"))
    }
}

/// What a crew is handed of what lies in the cache.
#[derive(Debug)]
pub(crate) struct Remembered {
    pub cache: Option<Arc<StatCache>>,
    pub recorder: Option<Recorder>,
    pub journal: Option<Arc<Journal>>,
    /// What others say has changed.
    pub hints: Arc<Hints>,
    /// The snapshot that is compared with.
    pub parent: Option<SessionId>,
    /// When this run began.
    pub started_nanos: i64,
    pub trust: Arc<AtomicBool>,
}

/// What walkers see of those who read, close directories and send.
pub(crate) struct Crew {
    pub shared: Arc<Shared>,
    pub sink: Arc<Sink>,
    queue: Option<Arc<Tasks>>,
    fetchers: Option<Fetchers>,
    inline: Mutex<Option<Worker>>,
}

/// The threads of one backup that do not walk.
pub(crate) struct Threads {
    crew: Arc<Crew>,
    workers: Vec<Box<dyn Handle>>,
    uploaders: Vec<Box<dyn Handle>>,
}

impl Worker {
    pub fn run(&mut self, task: Task) -> Result<()> {
        match task {
            Task::Files(batch) => super::file::read_batch(self, batch),
            Task::Close(node) => close_directory(self, node),
        }
    }

    /// How many threads may be at one run.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Tells the others of a run that they may help with.
    pub fn invite(&self, run: &Arc<Run>) {
        if let Some(seat) = &self.seat {
            seat.invite(run);
        }
    }

    fn serve(&mut self) {
        while let Some(next) = self.seat.as_mut().and_then(Seat::next) {
            // After a failure the queue is drained so that nobody waits for a worker that has given up.
            if self.packer.sink().check().is_err() {
                continue;
            }
            let done = match next {
                Next::Invitation(run) => run.work(self),
                Next::Task(task) => self.run(task),
            };
            if let Err(error) = done {
                self.packer.sink().fail(error);
            }
        }
    }
}

/// What a crew leaves when it has ended.
pub(super) struct Harvest {
    /// What its threads shared.
    pub shared: Arc<Shared>,
    /// The root directory.
    pub root: Entry,
    /// Where the root stands in the new stat cache.
    pub place: Place,
    /// Where the packs went.
    pub sink: Arc<Sink>,
    /// Frames of older packs that were relied on.
    pub usage: Usage,
}

impl Crew {
    pub fn start(
        writer: &Writer,
        job: &Arc<Job>,
        options: &BackupOptions,
        (pack_options, fetch_bytes): (PackOptions, usize),
        notes: Arc<Notes>,
        reader: Arc<ChunkReader>,
        remembered: Remembered,
    ) -> Result<Threads> {
        let repository = writer.repository();
        let (sink, packs) = Sink::new(writer, Arc::clone(job), pack_options);
        let shared = Arc::new(Shared {
            job: Arc::clone(job),
            notes,
            reader,
            cut_tree: *repository.keys.cut_tree(),
            root: Mutex::new(None),
            cache: remembered.cache,
            recorder: remembered.recorder,
            journal: remembered.journal,
            hints: remembered.hints,
            parent: remembered.parent,
            started_nanos: remembered.started_nanos,
            paranoid: options.paranoid,
            gauge: Arc::default(),
            clock: Arc::clone(&repository.world.clock),
            trust: remembered.trust,
            usage: Mutex::default(),
        });
        let mut crew = Self { shared, sink: Arc::clone(&sink), queue: None, fetchers: None, inline: Mutex::new(None) };
        if options.workers == 0 {
            *lock(&crew.inline) = Some(crew.worker(writer, None, 1)?);
            return Ok(Threads { crew: Arc::new(crew), workers: Vec::new(), uploaders: Vec::new() });
        }
        let queue = Queue::new(options.workers);
        let (world, gauge) = (&repository.world, Arc::clone(&crew.shared.gauge));
        let seams = (Arc::clone(&world.clock), Arc::clone(&world.spawn));
        crew.fetchers = Some(Fetchers::new(gauge, seams, Arc::clone(&sink), Arc::clone(&queue), fetch_bytes));
        crew.queue = Some(Arc::clone(&queue));
        let mut threads = Threads { crew: Arc::new(crew), workers: Vec::new(), uploaders: Vec::new() };
        let spawn = &repository.world.spawn;
        let seats: Vec<_> = (0..options.workers).map(|_| queue.seat()).collect();
        for (n, seat) in seats.into_iter().enumerate() {
            let mut worker = threads.crew.worker(writer, Some(seat), options.workers)?;
            threads.workers.push(spawn.spawn(
                &format!("backup-{n}"),
                Box::new(move || {
                    worker.serve();
                    worker.finish();
                }),
            )?);
        }
        if let Some(packs) = packs {
            for n in 0..pack_options.upload_threads {
                let (sink, packs) = (Arc::clone(&sink), packs.clone());
                threads.uploaders.push(spawn.spawn(&format!("upload-{n}"), Box::new(move || sink.serve(&packs)))?);
            }
        }
        Ok(threads)
    }

    fn worker(&self, writer: &Writer, seat: Option<Seat<Task, Arc<Run>>>, threads: usize) -> Result<Worker> {
        let repository = writer.repository();
        Ok(Worker {
            packer: Packer::new(Arc::clone(&self.sink))?,
            files: FileReader::new(&repository.keys, repository.config.cut)?,
            shared: Arc::clone(&self.shared),
            seat,
            threads,
        })
    }

    /// Puts a task in; waits while the queue is full.
    pub fn submit(&self, task: Task) -> Result<()> {
        let task = match (task, &self.fetchers) {
            (Task::Files(batch), Some(fetchers)) => match fetchers.offer(batch)? {
                Some(batch) => Task::Files(batch),
                None => return self.sink.check(),
            },
            (task, _) => task,
        };
        match &self.queue {
            Some(queue) => {
                let weight = task.weight();
                queue.send(task, weight).map_err(|Deserted| Error::internal("the workers are gone"))?;
                self.sink.check()
            }
            None => {
                let mut inline = lock(&self.inline);
                let Some(worker) = inline.as_mut() else { return Err(Error::internal("no worker is left")) };
                worker.run(task)
            }
        }
    }

    /// Whether the workers have less to do than they could.
    pub fn has_room(&self) -> bool {
        self.queue.as_ref().is_some_and(|queue| queue.has_few())
    }

    /// Adds frames of older packs that a walker relied on.
    pub fn add_usage(&self, usage: &Usage) {
        lock(&self.shared.usage).merge(usage);
    }

    /// A thread that should not have ended so.
    pub fn panicked() -> Error {
        Error::internal("a thread of the backup panicked").with_next_step("this is a bug of longshore, please report it")
    }
}

impl Threads {
    /// Where walkers put in what they find.
    pub fn crew(&self) -> &Arc<Crew> {
        &self.crew
    }

    /// Ends the threads, whatever the walk said.
    pub fn finish(self, walked: Result<()>) -> Result<Harvest> {
        let crew = self.crew;
        if let Err(error) = walked {
            crew.sink.fail(error);
        }
        if let Some(worker) = lock(&crew.inline).take() {
            worker.finish();
        }
        let mut whole = crew.fetchers.as_ref().is_none_or(Fetchers::end);
        if let Some(queue) = &crew.queue {
            queue.close();
        }
        for handle in self.workers {
            whole &= handle.join();
        }
        crew.sink.close();
        for handle in self.uploaders {
            whole &= handle.join();
        }
        if !whole {
            crew.sink.fail(Crew::panicked());
        }
        crew.sink.check()?;
        let (root, place) =
            lock(&crew.shared.root).take().ok_or_else(|| Error::internal("the walk ended and its root is not complete"))?;
        let usage = std::mem::take(&mut *lock(&crew.shared.usage));
        Ok(Harvest { shared: Arc::clone(&crew.shared), root, place, sink: Arc::clone(&crew.sink), usage })
    }
}

impl Worker {
    /// Sends what is open and adds what was relied on to what all relied on.
    fn finish(mut self) {
        if self.packer.sink().check().is_ok()
            && let Err(error) = self.packer.finish()
        {
            self.packer.sink().fail(error);
        }
        lock(&self.shared.usage).merge(&self.packer.into_usage());
    }
}
