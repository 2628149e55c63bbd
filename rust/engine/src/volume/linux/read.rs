//! Regular files, open to read.
//!
//! Promises that an open never waits and never touches anything but a regular file: the name is first pinned by an `O_PATH` handle,
//! whose opening has no effect on a FIFO's writer or a device's driver, its kind is checked, and only then is that very inode opened.
//! Does not know whether the content changed meanwhile.

use std::io::IoSliceMut;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustix::fs::{Advice, Mode, OFlags, SeekFrom};
use rustix::io::{Errno, ReadWriteFlags};

use super::meta;
use super::sys::{error, handle, open_beneath, refusal, reopen, retry, stat_fd};
use crate::volume::{Extent, Kind, Name, ReadFile, Stat, VolumeError, VolumeErrorKind};

/// Shorter reads are not dropped from memory: the calls cost more than their few pages.
const DROP_FROM_BYTES: usize = 128 << 10;
/// In `LinuxReadFile::ahead`: nothing was read once yet; nothing was asked for.
const NOT_BEGUN: u64 = u64::MAX;
const NOT_ASKED: u64 = u64::MAX - 1;

/// How often `next_extent` looks again when a file's holes move between its two questions.
const EXTENT_ATTEMPTS_MAX: u32 = 8;

/// Opens a regular file with `access` (`RDONLY` or `RDWR`), anything else is `WrongKind`; with its state as it was pinned.
pub(super) fn open_regular(
    call: &'static str,
    dir: BorrowedFd<'_>,
    name: &[u8],
    access: OFlags,
    cross_mounts: bool,
) -> Result<(OwnedFd, Stat), VolumeError> {
    let (pinned, stat) = handle(call, dir, name, cross_mounts)?;
    if stat.kind != Kind::File {
        return Err(refusal(call, VolumeErrorKind::WrongKind));
    }
    let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let flags = if access == OFlags::RDONLY { flags | OFlags::NOATIME } else { flags };
    let pinned = pinned.as_fd();
    let mut opened = reopen(pinned, flags);
    if opened.as_ref().err() == Some(&Errno::PERM) {
        opened = reopen(pinned, flags - OFlags::NOATIME);
    }
    if opened.as_ref().err() == Some(&Errno::AGAIN) {
        // Somebody holds a lease on the file (Samba does). It is a regular file, so this waits for `fs.lease-break-time` at most.
        opened = reopen(pinned, flags - OFlags::NONBLOCK - OFlags::NOATIME);
    }
    match opened {
        Ok(fd) => Ok((fd, stat)),
        Err(Errno::NOENT) => open_without_proc(call, dir, name, flags, cross_mounts, &stat).map(|fd| (fd, stat)),
        Err(errno) => Err(error(call, errno)),
    }
}

/// Where procfs is absent: opens by name once more and checks afterwards that it is the same inode.
fn open_without_proc(
    call: &'static str,
    dir: BorrowedFd<'_>,
    name: &[u8],
    flags: OFlags,
    cross_mounts: bool,
    pinned: &Stat,
) -> Result<OwnedFd, VolumeError> {
    let flags = flags - OFlags::NOATIME;
    let fd = open_beneath(dir, name, flags, Mode::empty(), cross_mounts).map_err(|errno| error(call, errno))?;
    let stat = stat_fd(call, fd.as_fd())?;
    if stat.kind == Kind::File && (stat.device, stat.inode) == (pinned.device, pinned.inode) {
        return Ok(fd);
    }
    Err(refusal(call, VolumeErrorKind::WrongKind))
}

/// Fills `buf` from an offset; less than `buf` only at the file's end.
pub(super) fn read_at(fd: BorrowedFd<'_>, offset_bytes: u64, buf: &mut [u8]) -> Result<usize, VolumeError> {
    fill(fd, offset_bytes, buf, ReadWriteFlags::empty())
}

/// The same with flags; with `NOWAIT` it ends early where it would wait.
fn fill(fd: BorrowedFd<'_>, offset_bytes: u64, buf: &mut [u8], flags: ReadWriteFlags) -> Result<usize, VolumeError> {
    let mut filled = 0;
    while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let at = offset_bytes.checked_add(filled as u64).ok_or_else(|| refusal("read file", VolumeErrorKind::Unsupported))?;
        let read = if flags.is_empty() {
            retry(|| rustix::io::pread(fd, &mut *rest, at))
        } else {
            retry(|| rustix::io::preadv2(fd, &mut [IoSliceMut::new(rest)], at, flags))
        };
        match read {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(Errno::AGAIN) if flags == ReadWriteFlags::NOWAIT => break,
            Err(errno) => return Err(error("read file", errno)),
        }
    }
    Ok(filled)
}

/// A regular file of the kernel's, open to read.
#[derive(Debug)]
pub(super) struct LinuxReadFile {
    fd: OwnedFd,
    pinned: Stat,
    /// Where the window begins that `read_once` has asked the kernel to read ahead.
    ahead: AtomicU64,
}

impl LinuxReadFile {
    pub(super) fn new(fd: OwnedFd, pinned: Stat) -> Self {
        Self { fd, pinned, ahead: AtomicU64::new(NOT_BEGUN) }
    }

    fn data_to_end(&self, offset_bytes: u64, hole: bool) -> Result<Option<Extent>, VolumeError> {
        let size_bytes = self.stat()?.size_bytes;
        Ok((offset_bytes < size_bytes).then(|| Extent { offset_bytes, length_bytes: size_bytes - offset_bytes, hole }))
    }
}

impl ReadFile for LinuxReadFile {
    fn stat(&self) -> Result<Stat, VolumeError> {
        stat_fd("stat open file", self.fd.as_fd())
    }

    fn stat_before(&self) -> Result<Stat, VolumeError> {
        Ok(self.pinned.clone())
    }

    fn read_at(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<usize, VolumeError> {
        read_at(self.fd.as_fd(), offset_bytes, buf)
    }

    fn next_extent(&self, offset_bytes: u64) -> Result<Option<Extent>, VolumeError> {
        const CALL: &str = "find extents";
        for _ in 0..EXTENT_ATTEMPTS_MAX {
            let data = match retry(|| rustix::fs::seek(&self.fd, SeekFrom::Data(offset_bytes))) {
                Ok(data) => data,
                Err(Errno::NXIO) => return self.data_to_end(offset_bytes, true),
                Err(Errno::INVAL | Errno::NOTSUP) => return self.data_to_end(offset_bytes, false),
                Err(errno) => return Err(error(CALL, errno)),
            };
            if data > offset_bytes {
                return Ok(Some(Extent { offset_bytes, length_bytes: data - offset_bytes, hole: true }));
            }
            match retry(|| rustix::fs::seek(&self.fd, SeekFrom::Hole(offset_bytes))) {
                Ok(hole) if hole > offset_bytes => {
                    return Ok(Some(Extent { offset_bytes, length_bytes: hole - offset_bytes, hole: false }));
                }
                // The data just seen was punched or cut off: look again.
                Ok(_) | Err(Errno::NXIO) => {}
                Err(errno) => return Err(error(CALL, errno)),
            }
        }
        self.data_to_end(offset_bytes, false)
    }

    fn xattrs(&self) -> Result<Vec<(Name, Vec<u8>)>, VolumeError> {
        meta::xattrs(meta::Access::Fd(self.fd.as_fd()))
    }

    fn read_once(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<usize, VolumeError> {
        // RWF_DONTCACHE would say it in one call, but ext4 of Linux 6.18 takes the flag and keeps the pages.
        let fd = self.fd.as_fd();
        let window = buf.len() as u64;
        if buf.len() < DROP_FROM_BYTES {
            return read_at(fd, offset_bytes, buf);
        }
        let asked = self.ahead.swap(NOT_ASKED, Relaxed);
        if asked == NOT_BEGUN {
            // The kernel's own reading ahead would bring in what nobody could tell from the owner's pages.
            let _ = rustix::fs::fadvise(fd, 0, None, Advice::Random);
        }
        // What can be read without waiting was in memory before, and stays. Asking starts to read what is not: where this thread is held up
        // until that has ended, these pages stay as well.
        let cached = if asked == offset_bytes { 0 } else { fill(fd, offset_bytes, buf, ReadWriteFlags::NOWAIT).unwrap_or(0) };
        let rest = buf.get_mut(cached..).unwrap_or_default();
        let read = if rest.is_empty() { 0 } else { read_at(fd, offset_bytes + cached as u64, rest)? };
        if let (Some(next), Some(length)) = (offset_bytes.checked_add(window), NonZeroU64::new(window))
            && (cached + read) as u64 == window
            && fill(fd, next, &mut [0], ReadWriteFlags::NOWAIT).is_ok_and(|there| there == 0)
        {
            // The first page of the next window speaks for all of it.
            let _ = rustix::fs::fadvise(fd, next, Some(length), Advice::WillNeed);
            self.ahead.store(next, Relaxed);
        }
        if let Some(length) = NonZeroU64::new(read as u64) {
            let _ = rustix::fs::fadvise(fd, offset_bytes + cached as u64, Some(length), Advice::DontNeed);
        }
        Ok(cached + read)
    }
}
