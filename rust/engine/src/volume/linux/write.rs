//! Regular files, open to write.
//!
//! Promises that a short write or a signal is never taken for a whole write, and that a range asked to be zero reads as zeros on
//! every filesystem. Does not make anything durable: one `sync_filesystem` at the end does.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::direct::{self, Direct};
use super::sys::{error, refusal, retry, stat_fd};
use super::{meta, read};
use crate::volume::{Gather, Loss, Metadata, VolumeError, VolumeErrorKind, WriteFile};

/// Zeros written at a time where the filesystem cannot make them itself.
static ZEROS: [u8; 65_536] = [0; 65_536];

/// A regular file of the kernel's, open to read and write.
#[derive(Debug)]
pub(super) struct LinuxWriteFile {
    fd: OwnedFd,
    direct: Option<Direct>,
    /// Nothing but what its making gave it: no attributes, our own owner.
    bare: AtomicBool,
}

impl LinuxWriteFile {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self { fd, direct: None, bare: AtomicBool::new(false) }
    }

    /// A file that was just made, where a directory gives its files nothing.
    pub(super) fn bare(fd: OwnedFd) -> Self {
        Self { bare: AtomicBool::new(true), ..Self::new(fd) }
    }

    fn write_zeros(&self, offset_bytes: u64, length_bytes: u64) -> Result<(), VolumeError> {
        let mut done = 0;
        while done < length_bytes {
            let step = usize::try_from(length_bytes - done).unwrap_or(ZEROS.len()).min(ZEROS.len());
            self.write_at(offset_bytes.saturating_add(done), ZEROS.get(..step).unwrap_or(&ZEROS))?;
            done += step as u64;
        }
        Ok(())
    }
}

impl WriteFile for LinuxWriteFile {
    fn write_past_cache(&mut self) {
        self.direct = Direct::open(self.fd.as_fd());
    }

    fn reserve(&self, offset_bytes: u64, length_bytes: u64) -> Result<(), VolumeError> {
        match &self.direct {
            Some(_) if length_bytes > 0 => direct::reserve(self.fd.as_fd(), offset_bytes, length_bytes),
            _ => Ok(()),
        }
    }

    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> Result<(), VolumeError> {
        let mut written = 0;
        while let Some(rest) = data.get(written..).filter(|rest| !rest.is_empty()) {
            let at =
                offset_bytes.checked_add(written as u64).ok_or_else(|| refusal("write file", VolumeErrorKind::Unsupported))?;
            match retry(|| rustix::io::pwrite(&self.fd, rest, at)).map_err(|errno| error("write file", errno))? {
                0 => return Err(refusal("write file", VolumeErrorKind::Io)),
                step => written += step,
            }
        }
        Ok(())
    }

    fn gather(&self) -> Option<Box<dyn Gather + '_>> {
        let direct = self.direct.as_ref()?;
        Some(Box::new(direct.gather(|at, part: &[u8]| self.write_at(at, part))))
    }

    fn read_at(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<usize, VolumeError> {
        read::read_at(self.fd.as_fd(), offset_bytes, buf)
    }

    fn set_len(&self, length_bytes: u64) -> Result<(), VolumeError> {
        // The kernel answers EINVAL beyond its signed offsets and EFBIG beyond the filesystem's.
        match retry(|| rustix::fs::ftruncate(&self.fd, length_bytes)) {
            Err(Errno::INVAL) => Err(refusal("set length", VolumeErrorKind::Unsupported)),
            other => other.map_err(|errno| error("set length", errno)),
        }
    }

    fn allocate_zeros(&self, offset_bytes: u64, length_bytes: u64) -> Result<(), VolumeError> {
        if length_bytes == 0 {
            return Ok(());
        }
        // Not plain fallocate: it leaves what an older file has there. ZERO_RANGE makes unwritten extents: reserved, not written.
        match retry(|| rustix::fs::fallocate(&self.fd, FallocateFlags::ZERO_RANGE, offset_bytes, length_bytes)) {
            Ok(()) => Ok(()),
            Err(Errno::NOTSUP | Errno::NOSYS) => self.write_zeros(offset_bytes, length_bytes),
            Err(errno) => Err(error("allocate", errno)),
        }
    }

    fn punch_hole(&self, offset_bytes: u64, length_bytes: u64) -> Result<(), VolumeError> {
        // A hole never makes a file longer; past the end there is nothing to punch, and the kernel says EFBIG far past it.
        let size_bytes = stat_fd("punch hole", self.fd.as_fd())?.size_bytes;
        let end_bytes = offset_bytes.saturating_add(length_bytes).min(size_bytes);
        let length_bytes = end_bytes.saturating_sub(offset_bytes);
        if length_bytes == 0 {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match retry(|| rustix::fs::fallocate(&self.fd, flags, offset_bytes, length_bytes)) {
            Ok(()) => Ok(()),
            Err(Errno::NOTSUP | Errno::NOSYS) => self.write_zeros(offset_bytes, length_bytes),
            Err(errno) => Err(error("punch hole", errno)),
        }
    }

    fn set_metadata(&self, metadata: &Metadata) -> Result<Vec<Loss>, VolumeError> {
        if self.bare.swap(false, Relaxed) && meta::set_bare(self.fd.as_fd(), metadata) {
            return Ok(Vec::new());
        }
        meta::set(meta::Access::Fd(self.fd.as_fd()), metadata)
    }
}
