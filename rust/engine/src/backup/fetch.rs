//! Small files of a slow volume, read ahead.
//!
//! On a network filesystem or a cold disk a small file makes a worker wait many times longer for the volume than it has to do with the
//! bytes. So workers measure, for one batch in [`MEASURED`], how long they wait for a file (`slowness`). While that is long, batches pass
//! through fetchers before they come to a worker: more threads than processors, which open, read and look, and do nothing else. What
//! they bring is [`Fetched`], an open file in memory, and a worker reads it as it would have read the file.
//!
//! Promises that a fetched file is what was read between two looks at it; that what cannot be fetched, or finds no room in the share of
//! memory, is left to the worker, who meets for itself whatever is wrong with it; and that a fetcher waits for nobody but the volume and
//! the workers. Does not know what becomes of the bytes.

use super::crew::{Task, Tasks};
use super::file::{FileBatch, FileJob};
use super::lock;
use super::slowness::{Gauge, Watch};
use crate::error::{Error, Result};
use crate::packer::Sink;
use crate::seams::{Clock, Handle, Spawn};
use crate::volume::{Dir, Extent, Name, ReadFile, Stat, VolumeError, VolumeErrorKind};
use crossbeam_channel::{Receiver, Sender};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// Fetchers of one backup.
const FETCHERS: usize = 16;
/// Larger files are worth a worker's time.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Workers measure one batch of so many; each, while the volume may be slow.
const MEASURED: u32 = 8;
/// A worker's part in measuring.
#[derive(Debug, Default)]
pub(super) struct Measure {
    batches: u32,
    watch: Option<Watch>,
}

impl Measure {
    /// Begins a batch.
    pub fn begin(&mut self, clock: &Arc<dyn Clock>, gauge: &Gauge) {
        self.watch = (self.batches.is_multiple_of(MEASURED) || gauge.may_be_slow()).then(|| Watch::new(clock));
        self.batches = self.batches.wrapping_add(1);
    }

    /// Opens a file, watched when the batch is.
    pub fn open(&self, dir: &dyn Dir, name: &[u8]) -> std::result::Result<Arc<dyn ReadFile>, VolumeError> {
        let Some(watch) = &self.watch else { return dir.open_file(name) };
        let inner = watch.time(|| dir.open_file(name))?;
        Ok(Arc::new(Watched { inner, watch: watch.clone() }))
    }

    /// Ends a batch of so many files that were opened, of so many bytes.
    pub fn end(&mut self, gauge: &Gauge, files: u64, bytes: u64) {
        if let Some(watch) = self.watch.take() {
            gauge.note(watch.nanos(), files, bytes);
        }
    }
}

/// An open file whose calls are timed.
#[derive(Debug)]
struct Watched {
    inner: Arc<dyn ReadFile>,
    watch: Watch,
}

impl ReadFile for Watched {
    fn stat(&self) -> std::result::Result<Stat, VolumeError> {
        self.watch.time(|| self.inner.stat())
    }
    fn stat_before(&self) -> std::result::Result<Stat, VolumeError> {
        self.watch.time(|| self.inner.stat_before())
    }
    fn read_at(&self, offset_bytes: u64, buf: &mut [u8]) -> std::result::Result<usize, VolumeError> {
        self.watch.time(|| self.inner.read_at(offset_bytes, buf))
    }
    fn next_extent(&self, offset_bytes: u64) -> std::result::Result<Option<Extent>, VolumeError> {
        self.watch.time(|| self.inner.next_extent(offset_bytes))
    }
    fn xattrs(&self) -> std::result::Result<Vec<(Name, Vec<u8>)>, VolumeError> {
        self.watch.time(|| self.inner.xattrs())
    }
    fn read_once(&self, offset_bytes: u64, buf: &mut [u8]) -> std::result::Result<usize, VolumeError> {
        self.watch.time(|| self.inner.read_once(offset_bytes, buf))
    }
}

/// Bytes that may be fetched and not yet used.
#[derive(Debug)]
struct Room(AtomicU64);

/// A part of the room, given back when it is dropped.
#[derive(Debug)]
struct Taken {
    room: Arc<Room>,
    bytes: u64,
}

impl Room {
    fn take(self: &Arc<Self>, bytes: u64) -> Option<Taken> {
        self.0.fetch_update(Relaxed, Relaxed, |free| free.checked_sub(bytes)).ok()?;
        Some(Taken { room: Arc::clone(self), bytes })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.room.0.fetch_add(self.bytes, Relaxed);
    }
}

/// A small file as it was read: between `before` and `after`.
#[derive(Debug)]
pub(crate) struct Fetched {
    before: Stat,
    after: Stat,
    bytes: Vec<u8>,
    xattrs: std::result::Result<Vec<(Name, Vec<u8>)>, VolumeError>,
    looked: AtomicBool,
    _room: Taken,
}

impl ReadFile for Fetched {
    fn stat(&self) -> std::result::Result<Stat, VolumeError> {
        Ok(if self.looked.swap(true, Relaxed) { self.after.clone() } else { self.before.clone() })
    }
    fn read_at(&self, offset_bytes: u64, buf: &mut [u8]) -> std::result::Result<usize, VolumeError> {
        let from = usize::try_from(offset_bytes).map_or(self.bytes.len(), |from| from.min(self.bytes.len()));
        let got = buf.len().min(self.bytes.len() - from);
        buf[..got].copy_from_slice(&self.bytes[from..from + got]);
        Ok(got)
    }
    fn next_extent(&self, _: u64) -> std::result::Result<Option<Extent>, VolumeError> {
        Err(VolumeError { kind: VolumeErrorKind::Unsupported, call: "find extent", errno: None })
    }
    fn xattrs(&self) -> std::result::Result<Vec<(Name, Vec<u8>)>, VolumeError> {
        self.xattrs.clone()
    }
    fn read_once(&self, offset_bytes: u64, buf: &mut [u8]) -> std::result::Result<usize, VolumeError> {
        self.read_at(offset_bytes, buf)
    }
}

/// Reads a file that has no holes; none when anything is other than usual.
fn fetch(dir: &dyn Dir, job: &FileJob, room: &Arc<Room>) -> Option<Box<Fetched>> {
    let size = job.stat.size_bytes;
    if size > FILE_BYTES_MAX || job.stat.allocated_bytes < size || job.begun.is_some() {
        return None;
    }
    // What a name, a stat and an entry of a map take beside the bytes.
    let room = room.take(size + size_of::<Fetched>() as u64)?;
    let file = dir.open_file(&job.name).ok()?;
    let before = file.stat_before().ok()?;
    if before.size_bytes != size || before.allocated_bytes < size {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(size).ok()?];
    let got = file.read_once(0, &mut bytes).ok()?;
    let xattrs = file.xattrs();
    let after = file.stat().ok()?;
    bytes.truncate(got);
    Some(Box::new(Fetched { before, after, bytes, xattrs, looked: AtomicBool::new(false), _room: room }))
}

/// The fetchers of one backup; they are started when the volume is found to be slow.
pub(super) struct Fetchers {
    pub gauge: Arc<Gauge>,
    pub clock: Arc<dyn Clock>,
    spawn: Arc<dyn Spawn>,
    sink: Arc<Sink>,
    tasks: Arc<Tasks>,
    room: Arc<Room>,
    started: Mutex<Started>,
}

#[derive(Default)]
struct Started {
    queue: Option<Sender<FileBatch>>,
    threads: Vec<Box<dyn Handle>>,
    over: bool,
}

impl fmt::Debug for Fetchers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetchers").field("gauge", &self.gauge).finish_non_exhaustive()
    }
}

impl Fetchers {
    /// None yet. They put what they bring into `tasks`, and hold at most `bytes`.
    pub fn new(
        gauge: Arc<Gauge>,
        (clock, spawn): (Arc<dyn Clock>, Arc<dyn Spawn>),
        sink: Arc<Sink>,
        tasks: Arc<Tasks>,
        bytes: usize,
    ) -> Self {
        let room = Arc::new(Room(AtomicU64::new(bytes as u64)));
        Self { gauge, clock, spawn, sink, tasks, room, started: Mutex::default() }
    }

    /// Takes a batch while the volume is slow; else it comes back.
    pub fn offer(&self, batch: FileBatch) -> Result<Option<FileBatch>> {
        if !self.gauge.is_slow() || batch.files.iter().all(|job| job.stat.size_bytes > FILE_BYTES_MAX) {
            return Ok(Some(batch));
        }
        let Some(queue) = self.queue()? else { return Ok(Some(batch)) };
        queue.send(batch).map_err(|_| Error::internal("the fetchers are gone"))?;
        Ok(None)
    }

    fn queue(&self) -> Result<Option<Sender<FileBatch>>> {
        let mut started = lock(&self.started);
        if started.queue.is_none() && !started.over {
            tracing::info!(threads = FETCHERS, "The volume is slow, reading small files ahead");
            let (sender, receiver) = crossbeam_channel::bounded(FETCHERS);
            for n in 0..FETCHERS {
                let (receiver, tasks, room) = (receiver.clone(), Arc::clone(&self.tasks), Arc::clone(&self.room));
                let (sink, gauge, clock) = (Arc::clone(&self.sink), Arc::clone(&self.gauge), Arc::clone(&self.clock));
                let body = move || serve(&receiver, &tasks, &room, &sink, &gauge, &clock);
                let thread = self.spawn.spawn(&format!("fetch-{n}"), Box::new(body))?;
                started.threads.push(thread);
            }
            started.queue = Some(sender);
        }
        Ok(started.queue.clone())
    }

    /// Ends them, when all have handed on what they had; whether none panicked. Nobody offers any more.
    pub fn end(&self) -> bool {
        let threads = {
            let mut started = lock(&self.started);
            started.over = true;
            started.queue = None;
            std::mem::take(&mut started.threads)
        };
        let mut whole = true;
        for thread in threads {
            whole &= thread.join();
        }
        whole
    }
}

fn serve(batches: &Receiver<FileBatch>, tasks: &Tasks, room: &Arc<Room>, sink: &Sink, gauge: &Gauge, clock: &Arc<dyn Clock>) {
    for mut batch in batches {
        // After a failure the queue is drained, and workers throw away what comes.
        if sink.check().is_ok() {
            let (watch, mut files, mut bytes) = (Watch::new(clock), 0, 0);
            for job in &mut batch.files {
                job.fetched = watch.time(|| fetch(&*batch.node.dir, job, room));
                if let Some(fetched) = &job.fetched {
                    files += 1;
                    bytes += fetched.bytes.len() as u64;
                }
            }
            gauge.note(watch.nanos(), files, bytes);
        }
        let task = Task::Files(batch);
        let weight = task.weight();
        if tasks.send(task, weight).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_that_was_taken_comes_back() {
        let room = Arc::new(Room(AtomicU64::new(10)));
        let taken = room.take(7).unwrap();
        assert!(room.take(4).is_none() && room.take(3).is_some());
        drop(taken);
        assert!(room.take(10).is_some());
    }
}
