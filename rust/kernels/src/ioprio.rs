//! The class of a thread's reads and writes, as `ioprio_set(2)` has it: no library has a safe face for it.
//!
//! Promises to concern the calling thread alone, and the threads that it starts from then on. The kernel keeps it; whether a disk's
//! scheduler looks at it (BFQ and mq-deadline do, none does not) nobody here knows.

use std::io;

const WHO_PROCESS: libc::c_int = 1;
const THIS_THREAD: libc::c_int = 0;
const CLASS_SHIFT: u32 = 13;

/// A class below what a thread has by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Served like others, last among them: the lowest of its eight levels.
    BestEffort,
    /// Served when nobody else wants the disk.
    Idle,
}

impl Class {
    const fn value(self) -> libc::c_int {
        match self {
            Self::BestEffort => (2 << CLASS_SHIFT) | 7,
            Self::Idle => 3 << CLASS_SHIFT,
        }
    }
}

/// Takes a class for the calling thread.
///
/// # Errors
/// When the system refuses, as a seccomp profile may.
pub fn take(class: Class) -> io::Result<()> {
    // SAFETY: the call takes three integers and touches no memory of ours.
    let answer = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, THIS_THREAD, class.value()) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What the calling thread has, as the kernel writes it: the class from bit 13 on, the level below.
///
/// # Errors
/// When the system refuses.
pub fn raw() -> io::Result<i32> {
    // SAFETY: the call takes two integers and touches no memory of ours.
    let answer = unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, THIS_THREAD) };
    i32::try_from(answer).ok().filter(|value| *value >= 0).ok_or_else(io::Error::last_os_error)
}
