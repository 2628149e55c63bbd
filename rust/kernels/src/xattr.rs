//! `listxattrat(2)`: names of an entry's extended attributes by its directory and name, without a handle. Linux has it since 6.13; no
//! library has a safe face for it.
//!
//! Promises to follow no link. Where the kernel lacks it, or a seccomp profile keeps it away, it is asked once and never again.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The same on every architecture.
const SYS_LISTXATTRAT: libc::c_long = 465;

static ABSENT: AtomicBool = AtomicBool::new(false);

/// How many bytes the names of an entry's attributes take; `None` where that cannot be asked.
///
/// # Errors
/// What the kernel says of this entry.
pub fn list_bytes_at(dir: BorrowedFd<'_>, name: &CStr) -> Option<io::Result<usize>> {
    if ABSENT.load(Relaxed) {
        return None;
    }
    let (nowhere, no_room): (*mut libc::c_char, libc::size_t) = (std::ptr::null_mut(), 0);
    // SAFETY: the name ends in a NUL and outlives the call, and with room for nothing the kernel writes nothing.
    let answer =
        unsafe { libc::syscall(SYS_LISTXATTRAT, dir.as_raw_fd(), name.as_ptr(), libc::AT_SYMLINK_NOFOLLOW, nowhere, no_room) };
    if let Ok(bytes) = usize::try_from(answer) {
        return Some(Ok(bytes));
    }
    let error = io::Error::last_os_error();
    if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) {
        ABSENT.store(true, Relaxed);
        return None;
    }
    Some(Err(error))
}
