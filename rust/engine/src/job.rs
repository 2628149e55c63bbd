//! A running job as others see it: counters, stage, cancel flag.
//!
//! Counters are relaxed atomics, polled from outside; the engine never calls back. Setting the cancel flag ends the job at its next
//! step with [`ErrorKind::Cancelled`].

use crate::error::{Error, ErrorKind, Result};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering::Relaxed};

/// What a job is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Opening the repository, looking for the parent.
    Preparing = 0,
    /// Moving bytes.
    Running = 1,
    /// Writing what makes the work count.
    Committing = 2,
    /// Over.
    Finished = 3,
}

/// Counters and the cancel flag of one job.
#[derive(Debug, Default)]
pub struct Job {
    cancel: AtomicBool,
    stage: AtomicU8,
    /// Files known so far.
    pub files_found: AtomicU64,
    /// Files done.
    pub files_done: AtomicU64,
    /// Bytes of all files known so far.
    pub bytes_found: AtomicU64,
    /// Bytes of files done, read or not.
    pub bytes_done: AtomicU64,
    /// Bytes read from the volume, or written to it.
    pub bytes_moved: AtomicU64,
    /// Bytes sent to the store, or fetched from it.
    pub bytes_stored: AtomicU64,
    /// What an earlier run suggests for `bytes_found`, 0 when unknown.
    pub bytes_expected: AtomicU64,
    /// The same for `files_found`.
    pub files_expected: AtomicU64,
    /// Items lost so far.
    pub items_lost: AtomicU64,
    /// When the interrupted run began from which this one goes on, in nanoseconds since 1970; 0: it goes on from none.
    begun_nanos: AtomicI64,
    /// Packs that were read then.
    packs_known: AtomicU64,
    current: Mutex<Vec<u8>>,
}

/// A consistent enough copy of the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields of Job")]
pub struct Progress {
    pub stage: Stage,
    pub files_total: u64,
    pub files_done: u64,
    pub bytes_total: u64,
    pub bytes_done: u64,
    pub bytes_moved: u64,
    pub bytes_stored: u64,
    pub items_lost: u64,
    pub begun_nanos: i64,
    pub packs_known: u64,
}

impl Job {
    /// A new job.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks it to stop.
    pub fn cancel(&self) {
        self.cancel.store(true, Relaxed);
    }

    /// Whether it was asked to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancel.load(Relaxed)
    }

    /// Ends a step early when the job was asked to stop.
    ///
    /// # Errors
    /// `Cancelled`.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::new(ErrorKind::Cancelled, "the job was cancelled")) } else { Ok(()) }
    }

    /// Says what it is doing.
    pub fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Relaxed);
    }

    /// Says that it goes on from an interrupted run.
    pub fn goes_on_from(&self, begun_nanos: i64, packs: u64) {
        self.packs_known.store(packs, Relaxed);
        self.begun_nanos.store(begun_nanos, Relaxed);
    }

    /// Names the item being worked on, for people.
    pub fn at(&self, path: &[u8]) {
        if let Ok(mut current) = self.current.try_lock() {
            current.clear();
            current.extend_from_slice(path);
        }
    }

    /// The item being worked on.
    #[must_use]
    pub fn current(&self) -> Vec<u8> {
        self.current.lock().map(|c| c.clone()).unwrap_or_default()
    }

    /// The counters as they are now.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let stage = match self.stage.load(Relaxed) {
            0 => Stage::Preparing,
            1 => Stage::Running,
            2 => Stage::Committing,
            _ => Stage::Finished,
        };
        let expected = |found: u64, expected: u64| if stage == Stage::Running { found.max(expected) } else { found };
        Progress {
            stage,
            files_total: expected(self.files_found.load(Relaxed), self.files_expected.load(Relaxed)),
            files_done: self.files_done.load(Relaxed),
            bytes_total: expected(self.bytes_found.load(Relaxed), self.bytes_expected.load(Relaxed)),
            bytes_done: self.bytes_done.load(Relaxed),
            bytes_moved: self.bytes_moved.load(Relaxed),
            bytes_stored: self.bytes_stored.load(Relaxed),
            items_lost: self.items_lost.load(Relaxed),
            begun_nanos: self.begun_nanos.load(Relaxed),
            packs_known: self.packs_known.load(Relaxed),
        }
    }
}
