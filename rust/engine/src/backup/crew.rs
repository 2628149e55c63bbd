//! The threads of a backup and the queue between them.
//!
//! Walkers (`walkers`) put tasks in; workers take them. The queue is short, so walkers wait for the workers and memory stays bounded; workers
//! never wait for a walker. With no workers each task runs when it is put in.
//!
//! Chunks of large files go from the worker that reads to whoever is free, by a second queue that workers look at first. Nobody
//! waits for it: what does not fit into it the reader does itself, and before a reader waits for what others took it empties the
//! queue. So each chunk that is waited for is in the hands of a running worker, which waits for nothing but the store.

use super::file::{FileBatch, FileReader};
use super::tree::{DirNode, Place, close_directory};
use super::{BackupOptions, Hints, Notes, lock};
use crate::error::{Error, Result};
use crate::job::Job;
use crate::journal::Journal;
use crate::packer::{PackOptions, Packer, Sink};
use crate::repository::reader::ChunkReader;
use crate::repository::session::Writer;
use crate::seams::Handle;
use crate::statcache::{Recorder, StatCache};
use crossbeam_channel::{Receiver, Sender};
use longshore_format::id::ChunkKind;
use longshore_format::tree::Entry;
use longshore_format::usage::Usage;
use longshore_format::{ChunkId, SessionId};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// A piece of work.
#[derive(Debug)]
pub(crate) enum Task {
    /// Files of one directory to read.
    Files(FileBatch),
    /// A directory whose entries are all known.
    Close(Arc<DirNode>),
    /// No more: one for each worker, behind everything else.
    Stop,
}

/// A chunk of a large file, on its way to another thread. However it ends, its file hears of it.
#[derive(Debug)]
pub(crate) struct Piece {
    place: usize,
    bytes: Vec<u8>,
    id: Option<ChunkId>,
    file: Arc<Pieces>,
}

/// The chunks of one large file that were handed on.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    state: Mutex<Handed>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Handed {
    waiting: usize,
    /// Ids by place; none where a thread failed.
    ids: Vec<(usize, Option<ChunkId>)>,
}

impl Drop for Piece {
    fn drop(&mut self) {
        let mut state = lock(&self.file.state);
        state.waiting -= 1;
        state.ids.push((self.place, self.id));
        self.file.ended.notify_all();
    }
}

/// The queue of pieces, and buffers that were used.
#[derive(Clone, Debug)]
pub(crate) struct Handing {
    pieces: (Sender<Piece>, Receiver<Piece>),
    buffers: (Sender<Vec<u8>>, Receiver<Vec<u8>>),
}

impl Handing {
    fn new(workers: usize) -> Self {
        Self { pieces: crossbeam_channel::bounded(workers), buffers: crossbeam_channel::bounded(2 * workers) }
    }
}

/// What one thread works with.
pub(crate) struct Worker {
    pub packer: Packer,
    pub files: FileReader,
    pub shared: Arc<Shared>,
    /// Where chunks may be handed on; none in a crew without threads.
    handing: Option<Handing>,
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
    sender: Option<Sender<Task>>,
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
            Task::Stop => Ok(()),
        }
    }

    /// Hands a chunk to another thread when there is room in the queue. Whether it did.
    pub fn hand_on(&self, place: usize, bytes: &[u8], file: &Arc<Pieces>) -> bool {
        let Some(handing) = self.handing.as_ref().filter(|handing| !handing.pieces.0.is_full()) else { return false };
        let mut buffer = handing.buffers.1.try_recv().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(bytes);
        lock(&file.state).waiting += 1;
        // Another reader may have filled the queue meanwhile.
        match handing.pieces.0.try_send(Piece { place, bytes: buffer, id: None, file: Arc::clone(file) }) {
            Ok(()) => true,
            Err(refused) => {
                let piece = refused.into_inner();
                drop(piece);
                lock(&file.state).ids.retain(|(at, _)| *at != place);
                false
            }
        }
    }

    /// Does what of a file's chunks nobody has begun with, and gives the ids that are known by now, by place. Waits for nobody.
    pub fn known(&mut self, file: &Pieces) -> Result<Vec<(usize, ChunkId)>> {
        self.empty_queue(file)?;
        let mut state = lock(&file.state);
        // What a thread failed at stays, for `collect` to find.
        let (known, failed) = std::mem::take(&mut state.ids).into_iter().partition::<Vec<_>, _>(|(_, id)| id.is_some());
        state.ids = failed;
        Ok(known.into_iter().filter_map(|(place, id)| Some((place, id?))).collect())
    }

    fn empty_queue(&mut self, file: &Pieces) -> Result<()> {
        while let Some(handing) = &self.handing
            && lock(&file.state).waiting > 0
            && let Ok(piece) = handing.pieces.1.try_recv()
        {
            self.take(piece)?;
        }
        Ok(())
    }

    /// Waits for what was handed on of a file and gives ids by place.
    pub fn collect(&mut self, file: &Pieces) -> Result<Vec<(usize, ChunkId)>> {
        self.empty_queue(file)?;
        let mut state = lock(&file.state);
        while state.waiting > 0 {
            state = file.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let ids = std::mem::take(&mut state.ids);
        drop(state);
        self.packer.sink().check()?;
        let whole = ids.into_iter().map(|(place, id)| id.map(|id| (place, id))).collect::<Option<Vec<_>>>();
        whole.ok_or_else(|| Error::internal("a thread of the backup lost a chunk"))
    }

    fn take(&mut self, mut piece: Piece) -> Result<()> {
        let id = self.packer.sink().chunk_id(ChunkKind::Data, &piece.bytes);
        if self.packer.take_on(&id) {
            self.packer.write(ChunkKind::Data, id, &piece.bytes)?;
        }
        piece.id = Some(id);
        if let Some(handing) = &self.handing {
            let _ = handing.buffers.0.try_send(std::mem::take(&mut piece.bytes));
        }
        Ok(())
    }

    fn serve(&mut self, tasks: &Receiver<Task>, pieces: &Receiver<Piece>) {
        loop {
            // After a failure the queues are drained so that nobody waits for a worker that has given up.
            let done = crossbeam_channel::select_biased! {
                recv(pieces) -> piece => match piece {
                    Ok(piece) if self.packer.sink().check().is_ok() => self.take(piece),
                    _ => Ok(()),
                },
                recv(tasks) -> task => match task {
                    Ok(Task::Stop) | Err(_) => break,
                    Ok(task) if self.packer.sink().check().is_ok() => self.run(task),
                    Ok(_) => Ok(()),
                },
            };
            if let Err(error) = done {
                self.packer.sink().fail(error);
            }
        }
        // Others may still read large files, and hand on what they cut until they come here too.
        self.handing = None;
        for piece in pieces {
            if self.packer.sink().check().is_ok()
                && let Err(error) = self.take(piece)
            {
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
        pack_options: PackOptions,
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
            trust: remembered.trust,
            usage: Mutex::default(),
        });
        let mut crew = Self { shared, sink: Arc::clone(&sink), sender: None, inline: Mutex::new(None) };
        if options.workers == 0 {
            *lock(&crew.inline) = Some(crew.worker(writer, None)?);
            return Ok(Threads { crew: Arc::new(crew), workers: Vec::new(), uploaders: Vec::new() });
        }
        let (sender, receiver) = crossbeam_channel::bounded(2 * options.workers);
        crew.sender = Some(sender);
        let mut threads = Threads { crew: Arc::new(crew), workers: Vec::new(), uploaders: Vec::new() };
        let handing = Handing::new(options.workers);
        let spawn = &repository.world.spawn;
        for n in 0..options.workers {
            let mut worker = threads.crew.worker(writer, Some(handing.clone()))?;
            let (receiver, pieces) = (receiver.clone(), handing.pieces.1.clone());
            threads.workers.push(spawn.spawn(
                &format!("backup-{n}"),
                Box::new(move || {
                    worker.serve(&receiver, &pieces);
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

    fn worker(&self, writer: &Writer, handing: Option<Handing>) -> Result<Worker> {
        let repository = writer.repository();
        Ok(Worker {
            packer: Packer::new(Arc::clone(&self.sink))?,
            files: FileReader::new(&repository.keys, repository.config.cut)?,
            shared: Arc::clone(&self.shared),
            handing,
        })
    }

    /// Puts a task in; waits while the queue is full.
    pub fn submit(&self, task: Task) -> Result<()> {
        match &self.sender {
            Some(sender) => {
                sender.send(task).map_err(|_| Error::internal("the workers are gone"))?;
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
        self.sender.as_ref().is_some_and(|sender| !sender.is_full())
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
        if let Some(sender) = &crew.sender {
            for _ in 0..self.workers.len() {
                let _ = sender.send(Task::Stop);
            }
        }
        let mut whole = true;
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
