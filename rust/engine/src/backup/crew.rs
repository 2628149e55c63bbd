//! The threads of a backup and the queue between them.
//!
//! One walker (the calling thread) puts tasks in; workers take them. The queue is short, so the walker waits for the workers and
//! memory stays bounded; a worker never waits for the queue: what it cannot hand on it does itself. With no workers each task runs
//! when it is put in.

use super::file::{FileBatch, FileReader};
use super::tree::{DirNode, close_directory, rely_on_content};
use super::{BackupOptions, Notes, lock};
use crate::error::{Error, Result};
use crate::job::Job;
use crate::packer::{PackOptions, Packer, Sink};
use crate::repository::reader::ChunkReader;
use crate::repository::session::Writer;
use crate::seams::Handle;
use crossbeam_channel::{Receiver, Sender};
use longshore_format::ChunkId;
use longshore_format::id::ChunkKind;
use longshore_format::tree::{Entry, Item, Owner};
use longshore_format::usage::Usage;
use std::sync::{Arc, Mutex};

/// A piece of work.
#[derive(Debug)]
pub(crate) enum Task {
    /// Files of one directory to read.
    Files(FileBatch),
    /// A directory whose entries are all known.
    Close(Arc<DirNode>),
    /// A chunk that this session has taken on.
    Chunk(ChunkId, Vec<u8>),
    /// No more: one for each worker, behind everything else.
    Stop,
}

/// What one thread works with.
pub(crate) struct Worker {
    pub packer: Packer,
    pub files: FileReader,
    pub shared: Arc<Shared>,
    /// Where chunks may be handed on; none in a crew without threads.
    pub queue: Option<Sender<Task>>,
}

/// What all threads share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub job: Arc<Job>,
    pub notes: Arc<Notes>,
    pub reader: Arc<ChunkReader>,
    pub cut_tree: [u8; 32],
    pub root: Mutex<Option<Entry>>,
    usage: Mutex<Usage>,
}

/// The threads of one backup.
pub(crate) struct Crew {
    pub shared: Arc<Shared>,
    pub sink: Arc<Sink>,
    sender: Option<Sender<Task>>,
    inline: Mutex<Option<Worker>>,
    /// The walk's own view of what may be relied on; it never writes.
    walk: Mutex<Packer>,
    workers: Vec<Box<dyn Handle>>,
    uploaders: Vec<Box<dyn Handle>>,
}

impl Worker {
    pub fn run(&mut self, task: Task) -> Result<()> {
        match task {
            Task::Files(batch) => super::file::read_batch(self, batch),
            Task::Close(node) => close_directory(self, node),
            Task::Chunk(id, bytes) => self.packer.write(ChunkKind::Data, id, &bytes),
            Task::Stop => Ok(()),
        }
    }

    /// Hands a chunk to another thread when one is free to take it, else writes it here.
    pub fn hand_on(&mut self, id: ChunkId, bytes: &[u8]) -> Result<()> {
        if let Some(queue) = &self.queue
            && queue.is_empty()
            && queue.try_send(Task::Chunk(id, bytes.to_vec())).is_ok()
        {
            return Ok(());
        }
        self.packer.write(ChunkKind::Data, id, bytes)
    }

    fn serve(&mut self, receiver: &Receiver<Task>) {
        for task in receiver {
            if matches!(task, Task::Stop) {
                break;
            }
            // After a failure the queue is drained so that the walker never waits for a worker that has given up.
            if self.packer.sink().check().is_ok()
                && let Err(error) = self.run(task)
            {
                self.packer.sink().fail(error);
            }
        }
    }
}

impl Crew {
    pub fn start(
        writer: &Writer,
        job: &Arc<Job>,
        options: &BackupOptions,
        pack_options: PackOptions,
        notes: Arc<Notes>,
        reader: Arc<ChunkReader>,
    ) -> Result<Self> {
        let repository = writer.repository();
        let (sink, packs) = Sink::new(writer, Arc::clone(job), pack_options);
        let shared = Arc::new(Shared {
            job: Arc::clone(job),
            notes,
            reader,
            cut_tree: *repository.keys.cut_tree(),
            root: Mutex::new(None),
            usage: Mutex::default(),
        });
        let mut crew = Self {
            shared: Arc::clone(&shared),
            sink: Arc::clone(&sink),
            sender: None,
            inline: Mutex::new(None),
            walk: Mutex::new(Packer::new(Arc::clone(&sink))?),
            workers: Vec::new(),
            uploaders: Vec::new(),
        };
        if options.workers == 0 {
            *lock(&crew.inline) = Some(crew.worker(writer, None)?);
            return Ok(crew);
        }
        let (sender, receiver) = crossbeam_channel::bounded(2 * options.workers);
        crew.sender = Some(sender.clone());
        let spawn = &repository.world.spawn;
        for n in 0..options.workers {
            // Workers hold senders of their own queue, so its end is told by `Stop`, not by the last sender's end. A worker hands a chunk
            // on only while the queue is empty, so none ever stands behind the stops.
            let mut worker = crew.worker(writer, Some(sender.clone()))?;
            let receiver = receiver.clone();
            crew.workers.push(spawn.spawn(
                &format!("backup-{n}"),
                Box::new(move || {
                    worker.serve(&receiver);
                    worker.finish();
                }),
            )?);
        }
        if let Some(packs) = packs {
            for n in 0..pack_options.upload_threads {
                let (sink, packs) = (Arc::clone(&sink), packs.clone());
                crew.uploaders.push(spawn.spawn(&format!("upload-{n}"), Box::new(move || sink.serve(&packs)))?);
            }
        }
        Ok(crew)
    }

    fn worker(&self, writer: &Writer, queue: Option<Sender<Task>>) -> Result<Worker> {
        let repository = writer.repository();
        Ok(Worker {
            packer: Packer::new(Arc::clone(&self.sink))?,
            files: FileReader::new(&repository.keys, repository.config.cut)?,
            shared: Arc::clone(&self.shared),
            queue,
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

    /// Relies on all chunks of a file from the walking thread.
    pub fn rely_on(&self, content: &[Item]) -> Result<bool> {
        rely_on_content(&mut lock(&self.walk), &self.shared.reader, content, Owner::File)
    }

    /// Ends the threads, whatever the walk said, and gives the root, the sink and the frames of older packs that were relied on.
    pub fn finish(self, walked: Result<()>) -> Result<(Entry, Arc<Sink>, Usage)> {
        if let Err(error) = walked {
            self.sink.fail(error);
        }
        if let Some(worker) = lock(&self.inline).take() {
            worker.finish();
        }
        if let Some(sender) = &self.sender {
            for _ in 0..self.workers.len() {
                let _ = sender.send(Task::Stop);
            }
        }
        let mut whole = true;
        for handle in self.workers {
            whole &= handle.join();
        }
        self.sink.close();
        for handle in self.uploaders {
            whole &= handle.join();
        }
        if !whole {
            self.sink.fail(
                Error::internal("a thread of the backup panicked").with_next_step("this is a bug of longshore, please report it"),
            );
        }
        self.sink.check()?;
        let root =
            lock(&self.shared.root).take().ok_or_else(|| Error::internal("the walk ended and its root is not complete"))?;
        let mut usage = std::mem::take(&mut *lock(&self.shared.usage));
        usage.merge(&lock(&self.walk).usage);
        Ok((root, self.sink, usage))
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
