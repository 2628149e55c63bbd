//! Long bodies written past the page cache.
//!
//! A pack is not read again soon, and the pages it would fill are taken from what runs beside us. They also cost more than the copy:
//! of a first backup of 1.5 GB, 1.2 of 12 seconds of processor time went into them. Promises that what is counted as written has
//! its right length, and that a filesystem that wants none of this gets plain writes instead. Does not know keys, nor how the file
//! gets its name; syncing it is still the caller's.

use super::retry_interrupted;
use rustix::fd::BorrowedFd;
use rustix::fs::{OFlags, SeekFrom};
use rustix::io::Errno;

/// Bodies this long are worth it.
pub(super) const FROM_BYTES: usize = 1 << 20;
/// What one write takes at most.
const WRITE_BYTES: usize = 1 << 20;
/// A multiple of what any disk asks of memory, places and lengths.
const ALIGN_BYTES: usize = 4096;

/// How one aligned piece is written; tests choose what a filesystem answers.
pub(super) type Write = fn(BorrowedFd<'_>, &[u8], u64) -> Result<usize, Errno>;

/// Writes the beginning of `body` into an empty file, and leaves the file's position behind it.
///
/// Returns how many bytes that were: all, or fewer where the filesystem does not take such writes.
pub(super) fn write(fd: BorrowedFd<'_>, body: &[u8], write: Write) -> Result<usize, Errno> {
    let Ok(flags) = rustix::fs::fcntl_getfl(fd) else { return Ok(0) };
    if rustix::fs::fcntl_setfl(fd, flags | OFlags::DIRECT).is_err() {
        return Ok(0);
    }
    let mut room = vec![0_u8; WRITE_BYTES + ALIGN_BYTES];
    let start = room.as_ptr().align_offset(ALIGN_BYTES).min(ALIGN_BYTES);
    let buffer = &mut room[start..start + WRITE_BYTES];
    let mut done = 0;
    for piece in body.chunks(WRITE_BYTES) {
        let whole = piece.len().next_multiple_of(ALIGN_BYTES);
        buffer[..piece.len()].copy_from_slice(piece);
        buffer[piece.len()..whole].fill(0);
        match retry_interrupted(|| write(fd, &buffer[..whole], done as u64)) {
            Ok(count) if count == whole => done += piece.len(),
            // A part of it, or other places and lengths are wanted: plain writes take the rest.
            Ok(_) | Err(Errno::INVAL | Errno::OPNOTSUPP) => break,
            Err(error) => return Err(error),
        }
    }
    rustix::fs::fcntl_setfl(fd, flags)?;
    // The last piece was filled up with zeros, or one was written in part.
    rustix::fs::ftruncate(fd, done as u64)?;
    rustix::fs::seek(fd, SeekFrom::Start(done as u64))?;
    Ok(done)
}
