//! Which repositories' caches give way when a folder of caches is full.
//!
//! All repositories of a machine share one folder and one limit. What belongs to the repository that was opened longest ago goes first,
//! whole: its index is of use only together. Promises that nothing but folders named like repositories is looked at, and that the
//! one in use stays. A process that still uses what is taken away loses time: mapped files stay until it ends. Does not know what lies
//! in a cache.

use crate::system;
use std::path::{Path, PathBuf};

/// What caches may take of the filesystem that they lie on.
const SHARE_OF_FILESYSTEM: u64 = 10;

/// The limit of a folder of caches: what was said, and at most a tenth of its filesystem.
pub(super) fn limit_bytes(base: &Path, said_bytes: u64) -> u64 {
    system::filesystem_bytes(base).map_or(said_bytes, |bytes| said_bytes.min(bytes / SHARE_OF_FILESYSTEM))
}

/// What lies in the folder beside the repository `own`.
pub(super) fn others_bytes(base: &Path, own: &str) -> u64 {
    others(base, own).iter().map(|folder| system::size_bytes(folder)).sum()
}

/// Takes others' caches away until `wanted_bytes` are free of them, or none is left. Returns what was freed.
pub(super) fn make_room(base: &Path, own: &str, wanted_bytes: u64) -> u64 {
    let mut folders: Vec<(i128, PathBuf)> =
        others(base, own).into_iter().map(|folder| (system::written_nanos(&folder).unwrap_or(i128::MIN), folder)).collect();
    folders.sort();
    let mut freed = 0;
    for (_, folder) in folders {
        if freed >= wanted_bytes {
            break;
        }
        let size = system::size_bytes(&folder);
        match system::remove_folder(&folder) {
            Ok(()) => {
                tracing::info!(folder = %folder.display(), size_bytes = size, "Removed the cache that was unused for longest");
                freed += size;
            }
            Err(error) => tracing::warn!(folder = %folder.display(), error = %error, "Cannot remove an unused cache"),
        }
    }
    freed
}

fn others(base: &Path, own: &str) -> Vec<PathBuf> {
    let is_repository = |name: &str| name.len() == 32 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let names = system::names(base).unwrap_or_default();
    names.iter().filter(|name| *name != own && is_repository(name)).map(|name| base.join(name)).collect()
}
