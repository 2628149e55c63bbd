//! What a restore counts and names.

use crate::volume::{self, Kind, Metadata, OWNER_UNCHANGED, Time};
use longshore_format::tree::{Entry, Node};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// Most losses that a summary names; the rest is counted.
pub const LOSSES_NAMED_MAX: usize = 1000;

/// What kind of loss it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LossKind {
    /// Stored data is damaged or missing: the item is not there as it was.
    Damaged,
    /// The volume refused the item.
    Item,
    /// The volume refused an attribute.
    Attribute,
    /// The policy left something out on purpose.
    Dropped,
}

/// Something that was not restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// What kind.
    pub kind: LossKind,
    /// Path below the target.
    pub path: Vec<u8>,
    /// What and why.
    pub message: String,
}

/// What became of a restore.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RestoreSummary {
    /// Regular files that are there now, second names included.
    pub files: u64,
    /// Directories that are there now, the target not counted.
    pub directories: u64,
    /// Links, devices, FIFOs, sockets.
    pub others: u64,
    /// Lengths of all files.
    pub bytes_total: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Files whose content was there already.
    pub files_unchanged: u64,
    /// Bytes that stood already, and were neither fetched nor written.
    pub bytes_unchanged: u64,
    /// Of [`Self::files_unchanged`], where an earlier restore of the same snapshot into the same directory had not ended.
    pub files_resumed: u64,
    /// The same of [`Self::bytes_unchanged`].
    pub bytes_resumed: u64,
    /// Entries removed because the snapshot does not have them.
    pub extra_deleted: u64,
    /// Items and attributes that the volume refused.
    pub items_lost: u64,
    /// Items whose stored data is damaged or missing.
    pub items_damaged: u64,
    /// Attributes and items left out by policy.
    pub items_dropped: u64,
    /// The first of each kind, named.
    pub losses: Vec<Loss>,
    /// How long it took.
    pub seconds: f64,
    /// 0, 3 when something was lost, 4 when stored data is damaged.
    pub exit_code: i32,
}

/// Counters that all threads share.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub files: AtomicU64,
    pub directories: AtomicU64,
    pub others: AtomicU64,
    pub bytes_total: AtomicU64,
    pub bytes_written: AtomicU64,
    pub files_unchanged: AtomicU64,
    pub bytes_unchanged: AtomicU64,
    pub extra_deleted: AtomicU64,
    /// Files that a dead restore had left.
    pub leftovers: AtomicU64,
    counts: [AtomicU64; 4],
    losses: Mutex<[Vec<Loss>; 4]>,
}

impl Tally {
    /// Counts a loss, and names it when there is room.
    pub fn lose(&self, kind: LossKind, path: impl FnOnce() -> Vec<u8>, message: impl Into<String>) {
        self.counts[kind as usize].fetch_add(1, Relaxed);
        let named = &mut self.losses.lock().unwrap_or_else(PoisonError::into_inner)[kind as usize];
        if named.len() < LOSSES_NAMED_MAX {
            named.push(Loss { kind, path: path(), message: message.into() });
        }
    }

    pub fn summary(&self, strict: bool, resumed: bool, seconds: f64) -> RestoreSummary {
        let count = |kind: LossKind| self.counts[kind as usize].load(Relaxed);
        let (damaged, dropped) = (count(LossKind::Damaged), count(LossKind::Dropped));
        let lost = count(LossKind::Item) + count(LossKind::Attribute);
        let exit_code = if damaged > 0 {
            4
        } else if lost > 0 || (strict && dropped > 0) {
            3
        } else {
            0
        };
        let mut losses: Vec<Loss> =
            self.losses.lock().unwrap_or_else(PoisonError::into_inner).iter().flatten().cloned().collect();
        losses.sort_by(|a, b| (a.kind, &a.path, &a.message).cmp(&(b.kind, &b.path, &b.message)));
        let (files_unchanged, bytes_unchanged) = (self.files_unchanged.load(Relaxed), self.bytes_unchanged.load(Relaxed));
        RestoreSummary {
            files: self.files.load(Relaxed),
            directories: self.directories.load(Relaxed),
            others: self.others.load(Relaxed),
            bytes_total: self.bytes_total.load(Relaxed),
            bytes_written: self.bytes_written.load(Relaxed),
            files_unchanged,
            bytes_unchanged,
            files_resumed: if resumed { files_unchanged } else { 0 },
            bytes_resumed: if resumed { bytes_unchanged } else { 0 },
            extra_deleted: self.extra_deleted.load(Relaxed),
            items_lost: lost,
            items_damaged: damaged,
            items_dropped: dropped,
            losses,
            seconds,
            exit_code,
        }
    }
}

/// The kind of an entry as the volume calls it.
pub(super) fn kind_of(node: &Node) -> Kind {
    match node {
        Node::Directory { .. } => Kind::Directory,
        Node::File { .. } => Kind::File,
        Node::Symlink { .. } => Kind::Symlink,
        Node::BlockDevice { .. } => Kind::BlockDevice,
        Node::CharDevice { .. } => Kind::CharDevice,
        Node::Fifo => Kind::Fifo,
        Node::Socket => Kind::Socket,
    }
}

/// The recorded metadata of an entry.
pub(super) fn metadata_of(entry: &Entry) -> Metadata {
    Metadata {
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime: Time { secs: entry.mtime.secs, nanos: entry.mtime.nanos },
        xattrs: entry.xattrs.clone(),
    }
}

/// Metadata that changes nothing but the mode.
pub(super) fn with_mode(stat: &volume::Stat, mode: u32, xattrs: Vec<(Vec<u8>, Vec<u8>)>) -> Metadata {
    Metadata { mode, uid: OWNER_UNCHANGED, gid: OWNER_UNCHANGED, mtime: stat.mtime, xattrs }
}
