//! Writing a large new file past the page cache.
//!
//! What is restored fills memory with pages that nobody reads soon, and to find those pages costs more than all the rest of writing:
//! of a restore of 1.5 GB, 42 of 100 samples lay there. A second descriptor of the same file, opened `O_DIRECT`, takes all whole blocks of a
//! write; what is left at both ends goes through the cache, which the kernel keeps in step with the disk. Room is reserved before,
//! so that those ends lie beside the rest. Only on filesystems where this is known to pay; where anything is refused, plain writes
//! do. Does not know what is written.

use std::cell::RefCell;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

use super::sys::{error, proc_path, retry};
use crate::volume::VolumeError;

/// Writes this long are split.
const FROM_BYTES: usize = 128 << 10;
/// What one write to the disk takes at most.
const WRITE_BYTES: usize = 1 << 20;
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
        retry(|| rustix::fs::open(proc_path(fd).as_c_str(), flags, Mode::empty())).ok().map(Self)
    }

    /// Writes the whole blocks of `data`, through `plain` what is left of it.
    pub(super) fn write_at(
        &self,
        offset_bytes: u64,
        data: &[u8],
        plain: impl Fn(u64, &[u8]) -> Result<(), VolumeError>,
    ) -> Result<(), VolumeError> {
        let head = (offset_bytes.wrapping_neg() % ALIGN_BYTES as u64) as usize;
        if data.len() < FROM_BYTES.max(head) {
            return plain(offset_bytes, data);
        }
        let (first, rest) = data.split_at(head);
        let (blocks, last) = rest.split_at(rest.len() / ALIGN_BYTES * ALIGN_BYTES);
        if !first.is_empty() {
            plain(offset_bytes, first)?;
        }
        let mut at = offset_bytes.saturating_add(head as u64);
        ROOM.with_borrow_mut(|room| {
            room.resize(WRITE_BYTES + ALIGN_BYTES, 0);
            let start = room.as_ptr().align_offset(ALIGN_BYTES).min(ALIGN_BYTES);
            for piece in blocks.chunks(WRITE_BYTES) {
                let buffer = &mut room[start..start + piece.len()];
                buffer.copy_from_slice(piece);
                match retry(|| rustix::io::pwrite(&self.0, &*buffer, at)) {
                    Ok(written) if written == piece.len() => {}
                    // A part of it, or other places and lengths are wanted.
                    Ok(_) | Err(Errno::INVAL | Errno::NOTSUP) => plain(at, piece)?,
                    Err(errno) => return Err(error("write file", errno)),
                }
                at = at.saturating_add(piece.len() as u64);
            }
            Ok(())
        })?;
        if last.is_empty() { Ok(()) } else { plain(at, last) }
    }
}

/// Reserves room for a range that will be written; a filesystem that cannot is no fault, one that is full says so.
pub(super) fn reserve(fd: BorrowedFd<'_>, offset_bytes: u64, length_bytes: u64) -> Result<(), VolumeError> {
    match retry(|| rustix::fs::fallocate(fd, FallocateFlags::empty(), offset_bytes, length_bytes)) {
        Err(errno @ (Errno::NOSPC | Errno::DQUOT)) => Err(error("reserve room", errno)),
        _ => Ok(()),
    }
}
