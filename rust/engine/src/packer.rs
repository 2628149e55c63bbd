//! Chunks into frames, frames into packs, packs into the store and the index.
//!
//! [`Sink`] is shared by all threads of a writing job: it knows which chunks this session has taken on, numbers packs, sends them
//! and indexes what was sent. A [`Packer`] belongs to one thread: it owns open frames and packs and the contexts to compress and
//! seal. Promises that no pack is sent before it was opened again from the bytes to be sent, and that nothing is indexed before it
//! was sent. Knows nothing of files.

use crate::error::{Error, Result};
use crate::job::Job;
use crate::repository::index::Index;
use crate::repository::session::Writer;
use crate::repository::{Repository, key};
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender};
use longshore_format::envelope::{Codec, Compression};
use longshore_format::id::{ChunkId, ChunkKind, PackName};
use longshore_format::index::{SegmentBuilder, index_key, seal_segment};
use longshore_format::pack::{self, BirthName, FinishedPack, PackWriter, VerifyUpload};
use longshore_format::usage::Usage;
use longshore_store::Put;
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Payload at which an open frame of files' data is closed: 1 MiB stores 1.6 % less than half of it, and one small file still costs
/// little to read.
pub(crate) const FRAME_BYTES: usize = 1 << 20;
/// The same for trees, of which a listing or the restore of one file reads single ones.
const TREE_FRAME_BYTES: usize = 512 << 10;
/// Chunks this long are tested by a sample; below it the test costs more than it saves.
const SAMPLE_FROM_BYTES: usize = 32 << 10;
const SAMPLE_BYTES: usize = 4096;
/// Chunks at which a segment of the index is sent: 4 MiB of segment.
const SEGMENT_CHUNKS: usize = 64 << 10;
/// Chunks at which a frame is closed, and a pack: of files of a few bytes, that shrink besides, a pack of full length would hold a million,
/// and what is kept of each until it is indexed takes 200 bytes.
const FRAME_CHUNKS: usize = 4 << 10;
const PACK_CHUNKS: usize = 16 << 10;
/// Trees are read alone; packs of them are kept small so that reading one costs little.
const TREE_PACK_BYTES: usize = 4 << 20;
const SHARDS: usize = 64;

/// How payloads are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CompressionChoice {
    /// The level follows the slowest stage; incompressible data is stored raw.
    #[default]
    Auto,
    /// This level; incompressible data is stored raw.
    Level(i32),
    /// All raw.
    None,
}

/// Settings of a writing job.
#[derive(Clone, Copy, Debug)]
pub struct PackOptions {
    /// How long a pack of data may get.
    pub pack_size_bytes: usize,
    /// How to compress.
    pub compression: CompressionChoice,
    /// What is checked before a pack is sent.
    pub verify: VerifyUpload,
    /// Threads that send; 0: the thread that closes a pack sends it.
    pub upload_threads: usize,
    /// Nothing is sent or stored.
    pub dry_run: bool,
}

/// What all threads of a writing job share.
#[derive(Debug)]
pub struct Sink {
    repository: Repository,
    session: longshore_format::SessionId,
    /// What may be relied on.
    pub index: Arc<Index>,
    job: Arc<Job>,
    options: PackOptions,
    next_pack: AtomicU32,
    claimed: Vec<Mutex<HashSet<ChunkId>>>,
    sent: Mutex<BTreeMap<PackName, (u64, u32)>>,
    segment: Mutex<SegmentBuilder>,
    queue: RwLock<Option<Sender<FinishedPack>>>,
    buffers: (Sender<Vec<u8>>, Receiver<Vec<u8>>),
    failure: Mutex<Option<Error>>,
    /// Sealed bytes so far.
    pub bytes_stored: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sink {
    /// A sink for a session; the receiver, if any, is for the threads that call [`Sink::serve`].
    #[must_use]
    pub fn new(writer: &Writer, job: Arc<Job>, options: PackOptions) -> (Arc<Self>, Option<Receiver<FinishedPack>>) {
        let (sender, receiver) = if options.upload_threads > 0 {
            let (s, r) = crossbeam_channel::bounded(1);
            (Some(s), Some(r))
        } else {
            (None, None)
        };
        let sink = Self {
            repository: writer.repository().clone(),
            session: writer.session(),
            index: Arc::clone(&writer.index),
            job,
            options,
            next_pack: AtomicU32::new(0),
            claimed: (0..SHARDS).map(|_| Mutex::default()).collect(),
            sent: Mutex::default(),
            segment: Mutex::default(),
            queue: RwLock::new(sender),
            buffers: crossbeam_channel::bounded(options.upload_threads + 1),
            failure: Mutex::new(None),
            bytes_stored: AtomicU64::new(0),
        };
        (Arc::new(sink), receiver)
    }

    /// Sends packs until all senders are gone; run by each upload thread.
    pub fn serve(&self, receiver: &Receiver<FinishedPack>) {
        for pack in receiver {
            if lock(&self.failure).is_none()
                && let Err(error) = self.send(pack)
            {
                self.fail(error);
            }
        }
    }

    /// The id of a chunk.
    #[must_use]
    pub fn chunk_id(&self, kind: ChunkKind, bytes: &[u8]) -> ChunkId {
        self.repository.keys.chunk_id(kind, bytes)
    }

    /// Notes the first failure; every thread meets it at its next step.
    pub fn fail(&self, error: Error) {
        let mut failure = lock(&self.failure);
        if failure.is_none() {
            *failure = Some(error);
        }
    }

    /// Ends a step early when the job was cancelled or has failed elsewhere.
    ///
    /// # Errors
    /// The first failure, or `Cancelled`.
    pub fn check(&self) -> Result<()> {
        self.job.check()?;
        lock(&self.failure).clone().map_or(Ok(()), Err)
    }

    /// Whether the caller is the first of this session to hold the chunk, and must write it.
    fn claim(&self, id: &ChunkId) -> bool {
        lock(&self.claimed[id.0[31] as usize % SHARDS]).insert(*id)
    }

    fn is_claimed(&self, id: &ChunkId) -> bool {
        lock(&self.claimed[id.0[31] as usize % SHARDS]).contains(id)
    }

    fn pack_name(&self) -> PackName {
        PackName { session: self.session, number: self.next_pack.fetch_add(1, Relaxed) }
    }

    fn buffer(&self) -> Vec<u8> {
        self.buffers.1.try_recv().unwrap_or_default()
    }

    fn hand_over(&self, pack: FinishedPack) -> Result<()> {
        let queue = self.queue.read().unwrap_or_else(PoisonError::into_inner).clone();
        match queue {
            Some(queue) => {
                queue.send(pack).map_err(|_| Error::internal("the upload threads are gone"))?;
                self.check()
            }
            None => self.send(pack),
        }
    }

    fn send(&self, pack: FinishedPack) -> Result<()> {
        let size = pack.bytes.len() as u64;
        if !self.options.dry_run {
            let body = Bytes::from(pack.bytes);
            match self.repository.store.put_new(&key(pack.name.key())?, body.clone())? {
                Put::Created => {}
                Put::Exists => {
                    return Err(Error::internal(format!(
                        "a pack of this session was there before it was sent: pack={}",
                        pack.name
                    )));
                }
            }
            if let Ok(buffer) = body.try_into_mut() {
                let _ = self.buffers.0.try_send(buffer.into());
            }
            self.index.add_own_pack(pack.name);
            lock(&self.sent).insert(pack.name, (size, pack.births));
            let full = {
                let mut segment = lock(&self.segment);
                segment.add_pack(pack.name, pack.salt, size, &pack.frames);
                if segment.chunks() >= SEGMENT_CHUNKS { Some(std::mem::take(&mut *segment)) } else { None }
            };
            if let Some(segment) = full {
                self.send_segment(segment)?;
            }
        }
        self.bytes_stored.fetch_add(size, Relaxed);
        self.job.bytes_stored.fetch_add(size, Relaxed);
        Ok(())
    }

    fn send_segment(&self, builder: SegmentBuilder) -> Result<()> {
        let name = self.repository.world.name();
        let payload = builder.payload()?;
        let bytes = seal_segment(&self.repository.keys, name, self.repository.world.salt(), &payload, &mut Codec::new()?)?;
        let size = bytes.len() as u64;
        self.repository.store.put_new(&key(index_key(name))?, Bytes::from(bytes))?;
        self.bytes_stored.fetch_add(size, Relaxed);
        self.job.bytes_stored.fetch_add(size, Relaxed);
        let segment = self.repository.keep_segment(name, payload)?;
        let ids: Vec<ChunkId> = (0..segment.len()).map(|row| segment.id(row)).collect();
        self.index.add_segment(segment);
        // The segment answers for them from now on, so memory does not grow with what was written.
        for id in ids {
            lock(&self.claimed[id.0[31] as usize % SHARDS]).remove(&id);
        }
        Ok(())
    }

    /// Sends the last segment. All packers must be finished and all upload threads have ended.
    ///
    /// # Errors
    /// The first failure of any thread.
    pub fn finish(&self) -> Result<()> {
        self.check()?;
        let rest = std::mem::take(&mut *lock(&self.segment));
        if rest.is_empty() { Ok(()) } else { self.send_segment(rest) }
    }

    /// Names and sizes of all packs that were sent.
    #[must_use]
    pub fn sent(&self) -> BTreeMap<PackName, u64> {
        lock(&self.sent).iter().map(|(name, (size, _))| (*name, *size)).collect()
    }

    /// Adds all frames of the session's own packs to `usage`.
    pub fn add_own_frames(&self, usage: &mut Usage) {
        for (name, (_, births)) in lock(&self.sent).iter() {
            for ordinal in 0..*births {
                usage.insert(BirthName { pack: *name, ordinal });
            }
        }
    }

    /// Drops the queue's sender, so that the upload threads end.
    pub fn close(&self) {
        *self.queue.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether packs wait to be sent: the store is the slowest stage.
    fn is_store_slowest(&self) -> bool {
        self.queue.read().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(|q| !q.is_empty())
    }
}

#[derive(Debug, Default)]
struct OpenFrame {
    payload: Vec<u8>,
    chunks: Vec<(ChunkId, u32)>,
}

/// One thread's open frames and packs.
#[derive(Debug)]
pub struct Packer {
    sink: Arc<Sink>,
    codec: Codec,
    /// Data, trees, lists.
    frames: [OpenFrame; 3],
    /// Of data; of trees and lists.
    packs: [Option<PackWriter>; 2],
    /// Frames of older packs that this thread relied on.
    pub usage: Usage,
    scratch: (Vec<u8>, Vec<u8>),
}

fn slot(kind: ChunkKind) -> usize {
    match kind {
        ChunkKind::Data => 0,
        ChunkKind::Tree => 1,
        ChunkKind::List => 2,
    }
}

impl Packer {
    /// A packer for one thread.
    ///
    /// # Errors
    /// Internal when memory is short.
    pub fn new(sink: Arc<Sink>) -> Result<Self> {
        Ok(Self {
            sink,
            codec: Codec::new()?,
            frames: Default::default(),
            packs: [None, None],
            usage: Usage::new(),
            scratch: Default::default(),
        })
    }

    /// The frames of older packs that were relied on.
    #[must_use]
    pub fn into_usage(self) -> Usage {
        self.usage
    }

    /// The sink behind.
    #[must_use]
    pub fn sink(&self) -> &Arc<Sink> {
        &self.sink
    }

    /// Relies on a chunk without having its bytes: whether some listed pack, or this session, has it.
    pub fn rely_on(&mut self, id: &ChunkId) -> bool {
        match self.sink.index.find(id) {
            Some(found) => {
                self.usage.insert(found.frame.birth);
                true
            }
            None => self.sink.is_claimed(id),
        }
    }

    /// Stores a chunk unless it is known. Returns its id, and whether it is new.
    ///
    /// # Errors
    /// What sealing or sending says.
    pub fn store(&mut self, kind: ChunkKind, bytes: &[u8]) -> Result<(ChunkId, bool)> {
        let id = self.sink.repository.keys.chunk_id(kind, bytes);
        if self.rely_on(&id) || !self.sink.claim(&id) {
            return Ok((id, false));
        }
        self.write(kind, id, bytes)?;
        Ok((id, true))
    }

    /// Takes on a chunk so that another thread may write it: whether the caller must see to that.
    pub fn take_on(&mut self, id: &ChunkId) -> bool {
        !self.rely_on(id) && self.sink.claim(id)
    }

    /// Writes a chunk that was taken on.
    ///
    /// # Errors
    /// What sealing or sending says.
    pub fn write(&mut self, kind: ChunkKind, id: ChunkId, bytes: &[u8]) -> Result<()> {
        let noise = kind == ChunkKind::Data && bytes.len() >= SAMPLE_FROM_BYTES && self.is_noise(bytes)?;
        let full = if kind == ChunkKind::Data { FRAME_BYTES } else { TREE_FRAME_BYTES };
        if bytes.len() >= full || noise {
            let compression = if noise { Compression::None } else { self.compression() };
            return self.push(kind, bytes, vec![(id, bytes.len() as u32)], compression);
        }
        let frame = &mut self.frames[slot(kind)];
        frame.payload.extend_from_slice(bytes);
        frame.chunks.push((id, bytes.len() as u32));
        if frame.payload.len() >= full || frame.chunks.len() >= FRAME_CHUNKS { self.close_frame(kind) } else { Ok(()) }
    }

    fn compression(&self) -> Compression {
        match self.sink.options.compression {
            CompressionChoice::None => Compression::None,
            CompressionChoice::Level(level) => Compression::Zstd(level),
            // While packs wait for the store, time is free. Else it is the compressor that everybody waits for.
            CompressionChoice::Auto if self.sink.is_store_slowest() => Compression::Zstd(3),
            CompressionChoice::Auto => Compression::Quick,
        }
    }

    /// Whether three samples do not shrink at a fast level.
    fn is_noise(&mut self, bytes: &[u8]) -> Result<bool> {
        if self.sink.options.compression == CompressionChoice::None {
            return Ok(true);
        }
        for at in [0, bytes.len() / 2 - SAMPLE_BYTES / 2, bytes.len() - SAMPLE_BYTES] {
            if self.codec.estimate(&bytes[at..at + SAMPLE_BYTES])? < SAMPLE_BYTES - SAMPLE_BYTES / 32 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn close_frame(&mut self, kind: ChunkKind) -> Result<()> {
        let frame = &mut self.frames[slot(kind)];
        if frame.chunks.is_empty() {
            return Ok(());
        }
        let payload = std::mem::take(&mut frame.payload);
        let chunks = std::mem::take(&mut frame.chunks);
        let compression = self.compression();
        let done = self.push(kind, &payload, chunks, compression);
        let frame = &mut self.frames[slot(kind)];
        frame.payload = payload;
        frame.payload.clear();
        done
    }

    fn push(&mut self, kind: ChunkKind, payload: &[u8], chunks: Vec<(ChunkId, u32)>, compression: Compression) -> Result<()> {
        let which = usize::from(kind != ChunkKind::Data);
        if self.packs[which].is_none() {
            self.sink.check()?;
            let repository = &self.sink.repository;
            let fresh = PackWriter::new(&repository.keys, self.sink.pack_name(), repository.world.salt(), self.sink.buffer())?;
            self.packs[which] = Some(fresh);
        }
        let Some(writer) = self.packs[which].as_mut() else { return Err(Error::internal("no pack is open")) };
        writer.push(kind, payload, chunks, compression, &mut self.codec)?;
        // A pack of data is closed when one more frame might not fit: its size is what memory was shared out for.
        let size = self.sink.options.pack_size_bytes;
        let limit = if which == 0 { size.saturating_sub(FRAME_BYTES) } else { size.min(TREE_PACK_BYTES) };
        if writer.size_bytes() >= limit || writer.chunks() >= PACK_CHUNKS { self.close_pack(which) } else { Ok(()) }
    }

    fn close_pack(&mut self, which: usize) -> Result<()> {
        let Some(writer) = self.packs[which].take() else { return Ok(()) };
        let pack = writer.finish(&mut self.codec)?;
        let (stored, payload) = &mut self.scratch;
        pack::verify(&self.sink.repository.keys, &pack, self.sink.options.verify, &mut self.codec, stored, payload).map_err(
            |error| {
                Error::from(error)
                    .while_doing("a pack did not pass its check before it was sent, nothing of it was stored")
                    .with_next_step("memory or processor may be failing: test the machine, then run the backup again")
            },
        )?;
        self.sink.hand_over(pack)
    }

    /// Closes and sends everything that is open.
    ///
    /// # Errors
    /// What sealing or sending says.
    pub fn finish(&mut self) -> Result<()> {
        for kind in [ChunkKind::Data, ChunkKind::Tree, ChunkKind::List] {
            self.close_frame(kind)?;
        }
        for which in 0..2 {
            self.close_pack(which)?;
        }
        Ok(())
    }
}
