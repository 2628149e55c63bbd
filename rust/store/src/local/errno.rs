//! Errors of the system, sorted by what the caller does next.

use crate::{Key, StoreError, StoreErrorKind};
use rustix::io::Errno;
use std::path::Path;

/// What a caller does after `errno` on an object of the repository.
pub(super) fn kind(errno: Errno) -> StoreErrorKind {
    match errno {
        Errno::NOENT => StoreErrorKind::NotFound,
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG => StoreErrorKind::NoSpace,
        Errno::ACCESS | Errno::PERM | Errno::ROFS => StoreErrorKind::Denied,
        // A server of files that is away or was restarted, or a machine short of something.
        Errno::STALE
        | Errno::TIMEDOUT
        | Errno::AGAIN
        | Errno::NOMEM
        | Errno::MFILE
        | Errno::NFILE
        | Errno::HOSTDOWN
        | Errno::HOSTUNREACH => StoreErrorKind::Unavailable,
        _ => StoreErrorKind::Io,
    }
}

/// An error that names what was done to which object where.
pub(super) fn failed(what: &str, errno: Errno, key: &Key, folder: &Path) -> StoreError {
    StoreError::new(kind(errno), format!("{what}: key={key}, folder={}", folder.display())).with_source(errno)
}

/// Whether a directory's sync failed only because this filesystem has no such call; those write names at once, or not on demand.
pub(super) fn no_sync_needed(errno: Errno) -> bool {
    matches!(errno, Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)
}
