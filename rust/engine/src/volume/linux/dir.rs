//! Listing a directory and removing one.
//!
//! Promises that a listing is whole or an error, and that a removal stays on the tree it began in: it opens each directory beneath
//! the one before without links or mounts, and goes up by `..` only when that is the directory it came from. A listing holds one
//! directory's names in memory, [`LISTING_BYTES_MAX`] at most. Does not know what the names are for.

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, RawDir, SeekFrom};
use rustix::io::Errno;

use super::sys::{error, open_beneath_noatime, refusal, retry, stat_fd};
use crate::volume::{Name, Names, NamesBuilder, VolumeError, VolumeErrorKind};

/// Room for one `getdents64`: a call returns some 8 000 names of usual length.
const BUFFER_BYTES: usize = 256 * 1024;

/// Bound of one directory's names in memory, bookkeeping included: about 33 million names of 24 bytes.
const LISTING_BYTES_MAX: usize = 1 << 30;

/// How often a directory that fills up again while it is removed is emptied before it counts as an error.
const REMOVE_ATTEMPTS_MAX: u32 = 16;

thread_local! {
    static BUFFER: RefCell<Vec<MaybeUninit<u8>>> = const { RefCell::new(Vec::new()) };
}

/// All names but `.` and `..`, ascending, each once. The caller sees to it that nobody else moves the descriptor's offset.
pub(super) fn names(fd: BorrowedFd<'_>) -> Result<Names, VolumeError> {
    const CALL: &str = "list directory";
    rustix::fs::seek(fd, SeekFrom::Start(0)).map_err(|errno| error(CALL, errno))?;
    let mut names = NamesBuilder::default();
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(BUFFER_BYTES, MaybeUninit::uninit());
        let mut entries = RawDir::new(fd, buffer);
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(error(CALL, errno)),
            };
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            if name.is_empty() || name.contains(&b'/') {
                // A filesystem that makes such a name is broken or hostile (FUSE); nothing about this directory can be trusted.
                return Err(refusal(CALL, VolumeErrorKind::Io));
            }
            if !names.push(name) || names.held_bytes() > LISTING_BYTES_MAX {
                return Err(refusal(CALL, VolumeErrorKind::Unsupported));
            }
        }
        Ok(())
    })?;
    // A directory that is being changed may list one name twice: it is there once.
    Ok(names.finish())
}

/// A directory on the way down: what it is, its name in the one above, and what is still to be removed in it.
struct Level {
    identity: (u64, u64),
    name: Name,
    todo: Names,
    attempts: u32,
}

fn identity(fd: BorrowedFd<'_>) -> Result<(u64, u64), VolumeError> {
    let stat = stat_fd("remove", fd)?;
    Ok((stat.device, stat.inode))
}

/// Removes one entry that may be a directory only if it is empty. `Ok(false)`: it is a directory with something in it.
fn remove_one(dir: BorrowedFd<'_>, name: &[u8]) -> Result<bool, VolumeError> {
    match retry(|| rustix::fs::unlinkat(dir, name, AtFlags::empty())) {
        Ok(()) | Err(Errno::NOENT) => return Ok(true),
        // Linux says EISDIR; POSIX and some network filesystems say EPERM, which may also mean what it says.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(Errno::BUSY) => return Err(refusal("remove mount point", VolumeErrorKind::OutsideRoot)),
        Err(errno) => return Err(error("remove", errno)),
    }
    match retry(|| rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(Errno::NOTDIR) => Err(error("remove", Errno::PERM)),
        Err(Errno::BUSY) => Err(refusal("remove mount point", VolumeErrorKind::OutsideRoot)),
        Err(errno) => Err(error("remove directory", errno)),
    }
}

/// Removes an entry with all that is in it; absent is no error.
///
/// Holds two descriptors at any depth. The first thing that cannot be removed ends it with that error.
pub(super) fn remove_all(root: BorrowedFd<'_>, name: &[u8]) -> Result<(), VolumeError> {
    if remove_one(root, name)? {
        return Ok(());
    }
    let root_identity = identity(root)?;
    let mut levels: Vec<Level> = Vec::new();
    let mut current: OwnedFd = match enter(root, name)? {
        Some(fd) => fd,
        None => return Ok(()),
    };
    levels.push(level(&current, name)?);
    while let Some(top) = levels.last_mut() {
        if let Some(child) = top.todo.pop() {
            if remove_one(current.as_fd(), &child)? {
                continue;
            }
            if let Some(fd) = enter(current.as_fd(), &child)? {
                current = fd;
                levels.push(level(&current, &child)?);
            }
            continue;
        }
        // Everything that was listed is gone: go up, then remove the directory itself.
        let parent_identity = levels.iter().rev().nth(1).map_or(root_identity, |above| above.identity);
        let parent = up(current.as_fd(), parent_identity)?;
        let Some(done) = levels.last_mut() else { break };
        if remove_one(parent.as_fd(), &done.name)? {
            levels.pop();
            current = parent;
            continue;
        }
        // Somebody put something in meanwhile.
        done.attempts += 1;
        if done.attempts > REMOVE_ATTEMPTS_MAX {
            return Err(error("remove directory", Errno::NOTEMPTY));
        }
        let again = enter(parent.as_fd(), &done.name)?;
        match again {
            Some(fd) => {
                done.identity = identity(fd.as_fd())?;
                done.todo = names(fd.as_fd())?;
                current = fd;
            }
            None => {
                levels.pop();
                current = parent;
            }
        }
    }
    Ok(())
}

fn level(fd: &OwnedFd, name: &[u8]) -> Result<Level, VolumeError> {
    Ok(Level { identity: identity(fd.as_fd())?, name: name.to_vec(), todo: names(fd.as_fd())?, attempts: 0 })
}

/// Opens a directory to empty it; `None` when it vanished. Never crosses a mount, whatever the root allows.
fn enter(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Option<OwnedFd>, VolumeError> {
    match open_beneath_noatime(dir, name, OFlags::RDONLY | OFlags::DIRECTORY, false) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(error("remove", errno)),
    }
}

/// The directory above, if it is still the one that the walk came from: a tenant may have moved the child elsewhere meanwhile.
fn up(dir: BorrowedFd<'_>, expected: (u64, u64)) -> Result<OwnedFd, VolumeError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let parent = retry(|| rustix::fs::openat(dir, c"..", flags, Mode::empty())).map_err(|errno| error("remove", errno))?;
    if identity(parent.as_fd())? == expected { Ok(parent) } else { Err(refusal("remove", VolumeErrorKind::OutsideRoot)) }
}
