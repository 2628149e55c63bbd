//! Writing a large new file past the page cache.
//!
//! What is restored fills memory with pages that nobody reads soon, and to find those pages costs more than all the rest of writing:
//! of a restore of 1.5 GB, 42 of 100 samples lay there. A second descriptor of the same file, opened `O_DIRECT`, takes all whole blocks.
//! The pieces of a file follow one another at any places: they are gathered into windows of a mebibyte, so that what begins or
//! ends inside a block is only the two ends of a run. Those go through the cache, which the kernel keeps in step with the disk, and
//! each of them waits for all other writers of the file. Room is reserved before, so that the ends lie beside the rest. Only on
//! filesystems where this is known to pay; where anything is refused, plain writes do. Does not know what is written.

use std::cell::RefCell;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;

use super::sys::{error, refusal, reopen, retry};
use crate::volume::{Gather, VolumeError, VolumeErrorKind};

/// Shorter runs are written plainly.
const FROM_BYTES: usize = 128 << 10;
/// What one write to the disk takes at most; a multiple of [`ALIGN_BYTES`].
const WINDOW_BYTES: usize = 1 << 20;
/// A multiple of what any disk asks of memory, places and lengths.
const ALIGN_BYTES: usize = 4096;
/// ext2, ext3 and ext4; XFS. A network filesystem would wait for its server at each write.
const FILESYSTEMS: [u64; 2] = [0xEF53, 0x5846_5342];

thread_local! {
    static ROOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The second descriptor.
#[derive(Debug)]
pub(super) struct Direct(OwnedFd);

impl Direct {
    /// Opens it for a file of ours; none where that would not pay or is refused.
    pub(super) fn open(fd: BorrowedFd<'_>) -> Option<Self> {
        let kind = rustix::fs::fstatfs(fd).ok()?.f_type;
        if !FILESYSTEMS.contains(&u64::try_from(kind).ok()?) {
            return None;
        }
        let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::NOCTTY | OFlags::CLOEXEC;
        reopen(fd, flags).ok().map(Self)
    }

    /// Begins a run of writes; `plain` writes what is no whole block.
    pub(super) fn gather<P: Fn(u64, &[u8]) -> Result<(), VolumeError>>(&self, plain: P) -> Window<'_, P> {
        let mut room = ROOM.take();
        room.resize(WINDOW_BYTES + ALIGN_BYTES, 0);
        let base = room.as_ptr().align_offset(ALIGN_BYTES).min(ALIGN_BYTES);
        Window { direct: self, plain, room, base, start_bytes: 0, length: 0 }
    }

    fn write(&self, mut at: u64, data: &[u8], plain: impl Fn(u64, &[u8]) -> Result<(), VolumeError>) -> Result<(), VolumeError> {
        let head = (at.wrapping_neg() % ALIGN_BYTES as u64) as usize;
        if data.len() < FROM_BYTES.max(head) {
            return plain(at, data);
        }
        let (first, rest) = data.split_at(head);
        let (blocks, last) = rest.split_at(rest.len() / ALIGN_BYTES * ALIGN_BYTES);
        if !first.is_empty() {
            plain(at, first)?;
        }
        at = at.saturating_add(head as u64);
        match retry(|| rustix::io::pwrite(&self.0, blocks, at)) {
            Ok(written) if written == blocks.len() => {}
            // A part of it, or other places and lengths are wanted.
            Ok(_) | Err(Errno::INVAL | Errno::NOTSUP) => plain(at, blocks)?,
            Err(errno) => return Err(error("write file", errno)),
        }
        at = at.saturating_add(blocks.len() as u64);
        if last.is_empty() { Ok(()) } else { plain(at, last) }
    }
}

/// What is held of a run: bytes that follow one another, all within one window of the file.
pub(super) struct Window<'a, P> {
    direct: &'a Direct,
    plain: P,
    room: Vec<u8>,
    /// Where in `room` memory is aligned as the disk wants it.
    base: usize,
    start_bytes: u64,
    length: usize,
}

impl<P: Fn(u64, &[u8]) -> Result<(), VolumeError>> Window<'_, P> {
    fn flush(&mut self) -> Result<(), VolumeError> {
        // A byte lies as far behind an aligned place in memory as in the file.
        let from = self.base + (self.start_bytes % WINDOW_BYTES as u64) as usize;
        let held = &self.room[from..from + self.length];
        self.length = 0;
        if held.is_empty() { Ok(()) } else { self.direct.write(self.start_bytes, held, &self.plain) }
    }
}

impl<P: Fn(u64, &[u8]) -> Result<(), VolumeError>> Gather for Window<'_, P> {
    fn write(&mut self, offset_bytes: u64, mut data: &[u8]) -> Result<(), VolumeError> {
        let mut at = offset_bytes;
        while !data.is_empty() {
            if self.length > 0 && at != self.start_bytes.saturating_add(self.length as u64) {
                self.flush()?;
            }
            if self.length == 0 {
                self.start_bytes = at;
            }
            let within = (at % WINDOW_BYTES as u64) as usize;
            let (now, rest) = data.split_at(data.len().min(WINDOW_BYTES - within));
            self.room[self.base + within..][..now.len()].copy_from_slice(now);
            self.length += now.len();
            at = at.checked_add(now.len() as u64).ok_or_else(|| refusal("write file", VolumeErrorKind::Unsupported))?;
            data = rest;
            if at.is_multiple_of(WINDOW_BYTES as u64) {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn end(mut self: Box<Self>) -> Result<(), VolumeError> {
        self.flush()
    }
}

impl<P> Drop for Window<'_, P> {
    /// The memory goes to the next run of this thread.
    fn drop(&mut self) {
        ROOM.set(std::mem::take(&mut self.room));
    }
}

/// Reserves room for a range that will be written; a filesystem that cannot is no fault, one that is full says so.
pub(super) fn reserve(fd: BorrowedFd<'_>, offset_bytes: u64, length_bytes: u64) -> Result<(), VolumeError> {
    match retry(|| rustix::fs::fallocate(fd, FallocateFlags::empty(), offset_bytes, length_bytes)) {
        Err(errno @ (Errno::NOSPC | Errno::DQUOT)) => Err(error("reserve room", errno)),
        _ => Ok(()),
    }
}
