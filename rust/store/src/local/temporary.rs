//! Temporary files: where an object is written before it gets its name.
//!
//! They lie in `.tmp/` (no key begins with a dot, so a listing never shows them) and are locked with `flock` for as long as their
//! writer lives. A writer that was killed leaves one behind, unlocked; the first put of a later store removes it. A live writer's
//! file is locked, so it stays. Where locks may be local to a machine (network filesystems) only files that are a day older than a
//! file made now are removed; and were one removed under a writer all the same, its link fails and nothing is lost but time.

use super::errno::failed;
use super::{LocalStore, dir, direct, retry_interrupted};
use crate::{Key, StoreError, StoreErrorKind};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::sync::atomic::Ordering;

const FOLDER: &str = ".tmp";
const PREFIX: &str = "put-";
const STALE_SECONDS: i64 = 24 * 60 * 60;

/// A file without its final name; removed when dropped.
pub(super) struct Temporary {
    folder: OwnedFd,
    name: String,
    fd: OwnedFd,
}

/// Makes an empty, locked file.
pub(super) fn create(store: &LocalStore, key: &Key) -> Result<Temporary, StoreError> {
    let fail = |e| failed("cannot make a temporary file", e, key, &store.path);
    let folder = open_folder(store.root.as_fd()).map_err(fail)?;
    // A sweeper may take the lock, and the file with it, between our open and our lock: then another one.
    for _ in 0..16 {
        let name = format!("{PREFIX}{}-{}", store.writer, store.counter.fetch_add(1, Ordering::Relaxed));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd =
            retry_interrupted(|| rustix::fs::openat(&folder, name.as_str(), flags, Mode::RUSR | Mode::WUSR)).map_err(fail)?;
        let temporary = Temporary { folder: folder.try_clone().map_err(|e| fail(io_errno(&e)))?, name, fd };
        match rustix::fs::flock(&temporary.fd, FlockOperation::NonBlockingLockExclusive) {
            // No locks here: the age alone protects it.
            Ok(()) | Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOLCK) => {}
            Err(_) => continue,
        }
        if rustix::fs::fstat(&temporary.fd).map_err(fail)?.st_nlink > 0 {
            return Ok(temporary);
        }
    }
    Err(StoreError::new(StoreErrorKind::Unavailable, format!("temporary files vanish as soon as they are made: key={key}")))
}

impl Temporary {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn folder(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Writes the whole body; `direct` says how past the page cache.
    pub(super) fn write(&self, body: &[u8], direct: Option<direct::Write>) -> Result<(), Errno> {
        let done = match direct {
            Some(write) if body.len() >= direct::FROM_BYTES => direct::write(self.fd(), body, write)?,
            _ => 0,
        };
        let mut body = &body[done..];
        while !body.is_empty() {
            match rustix::io::write(&self.fd, body) {
                Ok(0) => return Err(Errno::IO),
                Ok(count) => body = &body[count..],
                Err(Errno::INTR) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone already after a rename; one that stays is swept later.
        let _ = rustix::fs::unlinkat(&self.folder, self.name.as_str(), AtFlags::empty());
    }
}

fn open_folder(root: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    match dir::step(root, FOLDER) {
        Err(Errno::NOENT) => {
            match rustix::fs::mkdirat(root, FOLDER, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e),
            }
            dir::step(root, FOLDER)
        }
        other => other,
    }
}

/// Removes what dead writers left. Never fails: what cannot be removed stays.
pub(super) fn sweep(root: BorrowedFd<'_>, network: bool) {
    let Ok(folder) = dir::step(root, FOLDER) else { return };
    let Ok(entries) = Dir::read_from(&folder) else { return };
    let names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str().ok().filter(|name| name.starts_with(PREFIX)).map(str::to_owned))
        .collect();
    if names.is_empty() {
        return;
    }
    // The filesystem's own clock, not ours: the modification time of a file made now.
    let newest_stale = if network { now_on(&folder).map(|now| now - STALE_SECONDS) } else { Some(i64::MAX) };
    for name in names {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(fd) = rustix::fs::openat(&folder, name.as_str(), flags, Mode::empty()) else { continue };
        let Ok(stat) = rustix::fs::fstat(&fd) else { continue };
        let stale = newest_stale.is_some_and(|newest| stat.st_mtime <= newest);
        if !stale || rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        // Under the lock, so that a writer that has just made the file sees that it is gone.
        if rustix::fs::unlinkat(&folder, name.as_str(), AtFlags::empty()).is_ok() {
            tracing::info!(file = %name, size_bytes = stat.st_size, "Removed temporary file of a dead writer");
        }
    }
}

fn now_on(folder: &OwnedFd) -> Option<i64> {
    let mut random = [0_u8; 8];
    crate::Rng::fill(&crate::SystemRng, &mut random);
    let name = format!("now-{:016x}", u64::from_le_bytes(random));
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(folder, name.as_str(), flags, Mode::RUSR | Mode::WUSR).ok()?;
    let now = rustix::fs::fstat(&fd).ok().map(|stat| stat.st_mtime);
    let _ = rustix::fs::unlinkat(folder, name.as_str(), AtFlags::empty());
    now
}

fn io_errno(e: &std::io::Error) -> Errno {
    Errno::from_io_error(e).unwrap_or(Errno::IO)
}
