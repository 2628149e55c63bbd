//! A store in a folder.
//!
//! Promises: an object appears under its name only when it is whole and on disk. It is written to a file in `.tmp/`, that file is
//! synced, then linked to its name (which fails when the name is taken), then the directory is synced. Where hard links do not
//! exist, `renameat2(RENAME_NOREPLACE)` does the same; a filesystem with neither is refused, at the first put. Files have mode
//! 0600, directories 0700. Every call is relative to the root's descriptor and follows no symbolic link below it.
//!
//! A failed sync is final: what the kernel could not write it may have dropped, and a second sync would report success over the
//! loss. From then on this store refuses every put; a new process, after an operator looked, starts again.
//!
//! A delete is not synced: a power loss may bring a deleted object back, whole. Nothing above may depend on more.
//!
//! Does not know: what is in the objects, nor who else writes to the folder. Any number of processes may.

mod dir;
mod direct;
mod errno;
mod listing;
mod temporary;

use crate::{Key, Page, Put, Rng, Store, StoreError, StoreErrorKind, SystemRng};
use bytes::Bytes;
use errno::{failed, no_sync_needed};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// How a folder is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalSettings {
    /// Make the folder, and its parents, when it is absent; else an absent folder is [`StoreErrorKind::NotFound`].
    pub create: bool,
    /// Touch nothing: no entry is made and removed before a listing on a network filesystem. For readers only: a listing may then be
    /// as old as the client's cache.
    pub read_only: bool,
}

/// The calls whose failures tests must be able to choose.
struct Calls {
    sync: fn(BorrowedFd<'_>) -> Result<(), Errno>,
    link: fn(BorrowedFd<'_>, &str, BorrowedFd<'_>, &str) -> Result<(), Errno>,
    rename: fn(BorrowedFd<'_>, &str, BorrowedFd<'_>, &str) -> Result<(), Errno>,
    write_direct: direct::Write,
}

const CALLS: Calls = Calls {
    sync: |fd| retry_interrupted(|| rustix::fs::fsync(fd)),
    link: |from, old, to, new| rustix::fs::linkat(from, old, to, new, AtFlags::empty()),
    rename: |from, old, to, new| rustix::fs::renameat_with(from, old, to, new, RenameFlags::NOREPLACE),
    write_direct: |fd, bytes, offset| rustix::io::pwrite(fd, bytes, offset),
};

/// A folder.
pub struct LocalStore {
    root: OwnedFd,
    path: PathBuf,
    settings: LocalSettings,
    /// Other machines may change the folder, and this one may see their changes late.
    network: bool,
    calls: Calls,
    /// Set when a sync failed.
    distrusted: AtomicBool,
    /// Names of this store's temporary files begin with it; random, so that no two stores ever share a name.
    writer: String,
    counter: AtomicU64,
    /// Directories known to be on disk with all their parents.
    durable: Mutex<HashSet<String>>,
    swept: AtomicBool,
}

impl LocalStore {
    /// Opens the folder at `path`.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotFound`] if it is absent and `settings.create` is not set, [`StoreErrorKind::InvalidSettings`] if it is no
    /// folder, else what the system says.
    pub fn open(path: impl AsRef<Path>, settings: LocalSettings) -> Result<Self, StoreError> {
        let path = path.as_ref();
        if settings.create {
            dir::create_with_parents(path)?;
        }
        let root = dir::open_root(path)?;
        let mut random = [0_u8; 8];
        SystemRng.fill(&mut random);
        Ok(Self {
            network: dir::is_network(root.as_fd()),
            root,
            path: path.to_path_buf(),
            settings,
            calls: CALLS,
            distrusted: AtomicBool::new(false),
            writer: random.iter().map(|b| format!("{b:02x}")).collect(),
            counter: AtomicU64::new(0),
            durable: Mutex::new(HashSet::new()),
            swept: AtomicBool::new(false),
        })
    }

    fn sync(&self, fd: BorrowedFd<'_>, key: &Key) -> Result<(), StoreError> {
        (self.calls.sync)(fd).map_err(|e| {
            self.distrusted.store(true, Ordering::SeqCst);
            let kind = if errno::kind(e) == StoreErrorKind::NoSpace { StoreErrorKind::NoSpace } else { StoreErrorKind::Io };
            StoreError::new(
                kind,
                format!("sync failed, what was written may be lost; check the disk, then start again: key={key}"),
            )
            .with_source(e)
        })
    }

    fn sync_directory(&self, fd: BorrowedFd<'_>, key: &Key) -> Result<(), StoreError> {
        match (self.calls.sync)(fd) {
            Ok(()) => Ok(()),
            Err(e) if no_sync_needed(e) => Ok(()),
            Err(e) => {
                self.distrusted.store(true, Ordering::SeqCst);
                Err(StoreError::new(
                    StoreErrorKind::Io,
                    format!("directory sync failed, the object may be lost; check the disk, then start again: key={key}"),
                )
                .with_source(e))
            }
        }
    }

    /// The directory of `key` and the last part of its name; `None` when a directory on the way is absent.
    fn parent<'a>(&self, key: &'a Key) -> Result<Option<(OwnedFd, &'a str)>, StoreError> {
        let (folder, name) = key.as_str().rsplit_once('/').unwrap_or(("", key.as_str()));
        match dir::descend(self.root.as_fd(), folder) {
            Ok(fd) => Ok(Some((fd, name))),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(e) => Err(failed("cannot open a folder of the repository", e, key, &self.path)),
        }
    }

    /// As `parent`, making what is absent, and certain that all of it is on disk.
    fn durable_parent<'a>(&self, key: &'a Key) -> Result<(OwnedFd, &'a str), StoreError> {
        let (folder, name) = key.as_str().rsplit_once('/').unwrap_or(("", key.as_str()));
        let known = self.durable.lock().unwrap_or_else(PoisonError::into_inner).contains(folder);
        if known {
            // It may have been removed behind our back: then it is made again below.
            if let Ok(fd) = dir::descend(self.root.as_fd(), folder) {
                return Ok((fd, name));
            }
        }
        let mut fd = dir::descend(self.root.as_fd(), "").map_err(|e| failed("cannot open the repository", e, key, &self.path))?;
        for part in folder.split('/').filter(|part| !part.is_empty()) {
            match rustix::fs::mkdirat(&fd, part, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(failed("cannot make a folder of the repository", e, key, &self.path)),
            }
            // Also when it was there: whoever made it may have died before the sync.
            self.sync_directory(fd.as_fd(), key)?;
            fd = dir::step(fd.as_fd(), part).map_err(|e| match e {
                Errno::NOTDIR => one_is_folder_of_other(key),
                e => failed("cannot open a folder of the repository", e, key, &self.path),
            })?;
        }
        self.durable.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.to_owned());
        Ok((fd, name))
    }

    fn open_object(&self, key: &Key) -> Result<(OwnedFd, u64), StoreError> {
        let missing =
            || StoreError::new(StoreErrorKind::NotFound, format!("no such object: key={key}, folder={}", self.path.display()));
        let Some((parent, name)) = self.parent(key)? else { return Err(missing()) };
        // NONBLOCK: a FIFO in our place must not hang us.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match retry_interrupted(|| rustix::fs::openat(&parent, name, flags, Mode::empty())) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Err(missing()),
            Err(e) => return Err(failed("cannot open an object", e, key, &self.path)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(|e| failed("cannot look at an object", e, key, &self.path))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok((fd, u64::try_from(stat.st_size).unwrap_or(0))),
            FileType::Directory => Err(missing()),
            _ => {
                Err(StoreError::new(StoreErrorKind::Io, format!("not a regular file: key={key}, folder={}", self.path.display())))
            }
        }
    }

    fn read(&self, fd: &OwnedFd, key: &Key, offset_bytes: u64, length_bytes: u64) -> Result<Bytes, StoreError> {
        let length = usize::try_from(length_bytes).map_err(|_| {
            StoreError::new(
                StoreErrorKind::TooLarge,
                format!("range does not fit in memory: key={key}, length_bytes={length_bytes}"),
            )
        })?;
        let mut out = vec![0_u8; length];
        self.read_into(fd, key, offset_bytes, &mut out)?;
        Ok(Bytes::from(out))
    }

    fn read_into(&self, fd: &OwnedFd, key: &Key, offset_bytes: u64, out: &mut [u8]) -> Result<(), StoreError> {
        let mut filled = 0;
        while filled < out.len() {
            match rustix::io::pread(fd, &mut out[filled..], offset_bytes + filled as u64) {
                Ok(0) => return Err(cut_short(key, offset_bytes, out.len() as u64, offset_bytes + filled as u64)),
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                Err(e) => return Err(failed("cannot read an object", e, key, &self.path)),
            }
        }
        Ok(())
    }

    /// The name was taken: by our own link whose answer an NFS server lost, by an object, or by something else?
    fn taken(&self, parent: &OwnedFd, name: &str, key: &Key, own: &rustix::fs::Stat) -> Result<Put, StoreError> {
        let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => {
                return Err(StoreError::new(
                    StoreErrorKind::Unavailable,
                    format!("object came and went during a put: key={key}"),
                ));
            }
            Err(e) => return Err(failed("cannot look at an object", e, key, &self.path)),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            FileType::Directory => return Err(one_is_folder_of_other(key)),
            _ => {
                return Err(StoreError::new(
                    StoreErrorKind::Io,
                    format!("not a regular file: key={key}, folder={}", self.path.display()),
                ));
            }
        }
        // Whoever made it may have died before this sync; "exists" must mean that it will still be there after a power loss.
        self.sync_directory(parent.as_fd(), key)?;
        Ok(if (stat.st_dev, stat.st_ino) == (own.st_dev, own.st_ino) { Put::Created } else { Put::Exists })
    }
}

impl Store for LocalStore {
    fn put_new(&self, key: &Key, body: Bytes) -> Result<Put, StoreError> {
        if self.distrusted.load(Ordering::SeqCst) {
            return Err(StoreError::new(
                StoreErrorKind::Io,
                format!(
                    "a sync failed before, nothing more is written; check the disk, then start again: key={key}, folder={}",
                    self.path.display()
                ),
            ));
        }
        if !self.swept.swap(true, Ordering::SeqCst) {
            temporary::sweep(self.root.as_fd(), self.network);
        }
        let (parent, name) = self.durable_parent(key)?;
        let temporary = temporary::create(self, key)?;
        // Over a network each such write would wait for the server.
        let direct = (!self.network).then_some(self.calls.write_direct);
        let written = temporary.write(&body, direct).map_err(|e| failed("cannot write an object", e, key, &self.path));
        let own = written.and_then(|()| {
            self.sync(temporary.fd(), key)?;
            rustix::fs::fstat(temporary.fd()).map_err(|e| failed("cannot look at an object", e, key, &self.path))
        })?;
        let linked = match (self.calls.link)(temporary.folder(), temporary.name(), parent.as_fd(), name) {
            // What filesystems without hard links answer.
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => {
                (self.calls.rename)(temporary.folder(), temporary.name(), parent.as_fd(), name)
            }
            other => other,
        };
        match linked {
            Ok(()) => self.sync_directory(parent.as_fd(), key).map(|()| Put::Created),
            Err(Errno::EXIST) => self.taken(&parent, name, key, &own),
            Err(Errno::NOENT) => Err(StoreError::new(
                StoreErrorKind::Unavailable,
                format!("temporary file or folder vanished during a put: key={key}, folder={}", self.path.display()),
            )),
            Err(e @ (Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)) => Err(StoreError::new(
                StoreErrorKind::Unsupported,
                format!(
                    "filesystem has neither hard links nor rename without replacing; choose another for the repository: folder={}",
                    self.path.display()
                ),
            )
            .with_source(e)),
            Err(e @ Errno::XDEV) => Err(StoreError::new(
                StoreErrorKind::Unsupported,
                format!("repository must lie on one filesystem: key={key}, folder={}", self.path.display()),
            )
            .with_source(e)),
            Err(e) => Err(failed("cannot name an object", e, key, &self.path)),
        }
    }

    fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes, StoreError> {
        let (fd, size_bytes) = self.open_object(key)?;
        if size_bytes > limit_bytes {
            return Err(StoreError::new(
                StoreErrorKind::TooLarge,
                format!("object is longer than its limit: key={key}, size_bytes={size_bytes}, limit_bytes={limit_bytes}"),
            ));
        }
        self.read(&fd, key, 0, size_bytes)
    }

    fn get_range(&self, key: &Key, offset_bytes: u64, length_bytes: u64) -> Result<Bytes, StoreError> {
        let (fd, size_bytes) = self.open_object(key)?;
        // Before the buffer is made: the length may come from a forged index.
        if offset_bytes.checked_add(length_bytes).is_none_or(|end| end > size_bytes) {
            return Err(cut_short(key, offset_bytes, length_bytes, size_bytes));
        }
        self.read(&fd, key, offset_bytes, length_bytes)
    }

    fn get_range_into(&self, key: &Key, offset_bytes: u64, out: &mut [u8]) -> Result<(), StoreError> {
        let (fd, size_bytes) = self.open_object(key)?;
        if offset_bytes.checked_add(out.len() as u64).is_none_or(|end| end > size_bytes) {
            return Err(cut_short(key, offset_bytes, out.len() as u64, size_bytes));
        }
        self.read_into(&fd, key, offset_bytes, out)
    }

    fn head(&self, key: &Key) -> Result<u64, StoreError> {
        self.open_object(key).map(|(_, size_bytes)| size_bytes)
    }

    fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Page, StoreError> {
        listing::list(self, prefix, after, limit.max(1))
    }

    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let Some((parent, name)) = self.parent(key)? else { return Ok(()) };
        match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            // A folder is no object: the key is absent.
            Err(Errno::ISDIR) => Ok(()),
            Err(e) => Err(failed("cannot delete an object", e, key, &self.path)),
        }
    }

    fn describe(&self) -> String {
        format!("file://{}", self.path.display())
    }
}

impl std::fmt::Debug for LocalStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalStore").field("path", &self.path).field("network", &self.network).finish_non_exhaustive()
    }
}

fn one_is_folder_of_other(key: &Key) -> StoreError {
    StoreError::new(StoreErrorKind::InvalidKey, format!("one object's key is a folder of another's: key={key}"))
}

fn cut_short(key: &Key, offset_bytes: u64, length_bytes: u64, size_bytes: u64) -> StoreError {
    StoreError::new(
        StoreErrorKind::Truncated,
        format!(
            "object ends before the range: key={key}, offset_bytes={offset_bytes}, length_bytes={length_bytes}, size_bytes={size_bytes}"
        ),
    )
}

fn retry_interrupted<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests;
