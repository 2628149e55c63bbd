//! What all threads of a backup count and name, for its summary.

use super::lock;
use crate::job::Job;
use longshore_format::snapshot::{Counts, ITEMS_NAMED_MAX, LostItem, LostReason};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// What all threads of a backup note.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub lost: Mutex<Vec<LostItem>>,
    pub changed: Mutex<Vec<Vec<u8>>>,
    /// Bytes of paths and messages named so far: a snapshot's record has a limit, and paths have none.
    named_bytes: AtomicUsize,
    pub items_lost: AtomicU64,
    pub items_changed: AtomicU64,
    pub vanished: AtomicU64,
    pub files: AtomicU64,
    pub directories: AtomicU64,
    pub others: AtomicU64,
    pub bytes: AtomicU64,
    pub files_new: AtomicU64,
    pub files_changed: AtomicU64,
    pub files_unchanged: AtomicU64,
    pub bytes_read: AtomicU64,
    pub files_resumed: AtomicU64,
    pub bytes_resumed: AtomicU64,
    pub hints_used: AtomicU64,
    pub hints_ignored: AtomicU64,
    pub bytes_hinted: AtomicU64,
}

impl Notes {
    pub fn lose(&self, job: &Job, reason: LostReason, path: &[u8], message: impl Into<String>) {
        self.items_lost.fetch_add(1, Relaxed);
        job.items_lost.fetch_add(1, Relaxed);
        let message = message.into();
        let mut lost = lock(&self.lost);
        if lost.len() < ITEMS_NAMED_MAX && self.has_room(path.len() + message.len()) {
            lost.push(LostItem { reason, path: path.to_vec(), message });
        }
    }

    pub fn change(&self, path: &[u8]) {
        self.items_changed.fetch_add(1, Relaxed);
        let mut changed = lock(&self.changed);
        if changed.len() < ITEMS_NAMED_MAX && self.has_room(path.len()) {
            changed.push(path.to_vec());
        }
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.named_bytes.fetch_add(bytes, Relaxed) + bytes <= NAMED_BYTES_MAX
    }

    pub fn counts(&self, bytes_stored: u64) -> Counts {
        Counts {
            files: self.files.load(Relaxed),
            directories: self.directories.load(Relaxed),
            others: self.others.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            files_new: self.files_new.load(Relaxed),
            files_changed: self.files_changed.load(Relaxed),
            files_unchanged: self.files_unchanged.load(Relaxed),
            bytes_read: self.bytes_read.load(Relaxed),
            bytes_stored,
            items_lost: self.items_lost.load(Relaxed),
            items_changed: self.items_changed.load(Relaxed),
        }
    }
}

/// What the names of lost and changed items may take in a snapshot's record of at most 16 MiB.
const NAMED_BYTES_MAX: usize = 4 << 20;
