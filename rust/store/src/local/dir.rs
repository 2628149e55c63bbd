//! Directories: opening them step by step without following links, and making the repository's own.

use super::errno;
use super::retry_interrupted;
use crate::{StoreError, StoreErrorKind};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use std::path::{Path, PathBuf};

const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens one directory below `parent`; a symbolic link is [`Errno::NOTDIR`].
pub(super) fn step(parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    retry_interrupted(|| rustix::fs::openat(parent, name, FLAGS | OFlags::NOFOLLOW, Mode::empty()))
        .map_err(|e| if e == Errno::LOOP { Errno::NOTDIR } else { e })
}

/// Opens the directory `folder` (segments joined by slashes, checked by the caller; empty: `root` itself) below `root`.
pub(super) fn descend(root: BorrowedFd<'_>, folder: &str) -> Result<OwnedFd, Errno> {
    let mut parts = folder.split('/').filter(|part| !part.is_empty());
    let mut fd = match parts.next() {
        None => return step(root, "."),
        Some(first) => step(root, first)?,
    };
    for part in parts {
        fd = step(fd.as_fd(), part)?;
    }
    Ok(fd)
}

/// Opens the repository's folder; the operator may have reached it through links.
pub(super) fn open_root(path: &Path) -> Result<OwnedFd, StoreError> {
    retry_interrupted(|| rustix::fs::openat(CWD, path, FLAGS, Mode::empty())).map_err(|e| {
        let kind = if e == Errno::NOTDIR { StoreErrorKind::InvalidSettings } else { errno::kind(e) };
        StoreError::new(kind, format!("cannot open the repository's folder: folder={}", path.display())).with_source(e)
    })
}

/// Makes `path` and its absent parents, each synced into its parent.
pub(super) fn create_with_parents(path: &Path) -> Result<(), StoreError> {
    let fail = |at: &Path, e: Errno| {
        StoreError::new(errno::kind(e), format!("cannot make the repository's folder: folder={}", at.display())).with_source(e)
    };
    let mut absent: Vec<PathBuf> = Vec::new();
    let mut at = path;
    loop {
        match rustix::fs::stat(at) {
            Ok(_) => break,
            Err(Errno::NOENT) => absent.push(at.to_path_buf()),
            Err(e) => return Err(fail(at, e)),
        }
        match at.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => at = parent,
            _ => break,
        }
    }
    for folder in absent.iter().rev() {
        match rustix::fs::mkdir(folder, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(fail(folder, e)),
        }
        let parent = folder.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let synced = open_root(parent).map(|fd| retry_interrupted(|| rustix::fs::fsync(&fd)))?;
        match synced {
            Err(e) if !errno::no_sync_needed(e) => return Err(fail(folder, e)),
            _ => {}
        }
    }
    Ok(())
}

/// Whether other machines may change this filesystem behind the kernel's caches.
pub(super) fn is_network(root: BorrowedFd<'_>) -> bool {
    // From linux/magic.h: NFS, SMB, CIFS, SMB2, FUSE, Ceph, 9P, Lustre, GPFS, AFS (two), OCFS2, GFS2, BeeGFS. FUSE may be local; then
    // the cost is two cheap calls a listing.
    const NETWORK: [u32; 14] = [
        0x6969,
        0x517b,
        0xff53_4d42,
        0xfe53_4d42,
        0x6573_5546,
        0x00c3_6400,
        0x0102_1997,
        0x0bd0_0bd0,
        0x4750_4653,
        0x5346_414f,
        0x6b41_4653,
        0x7461_636f,
        0x0116_1970,
        0x1983_0326,
    ];
    // An unknown filesystem is treated as the worse kind.
    rustix::fs::fstatfs(root)
        .map_or(true, |stat| u32::try_from(stat.f_type & 0xffff_ffff).is_ok_and(|magic| NETWORK.contains(&magic)))
}
