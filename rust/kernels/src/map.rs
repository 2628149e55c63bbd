//! A file mapped read-only.
//!
//! A [`Map`] is for files that nobody changes after they are complete: cached index segments, which are made under a temporary
//! name and renamed. If somebody truncates one all the same, touching the lost pages ends the process with SIGBUS, which is why
//! only files in the cache's own folder, mode 0600, are ever mapped.

use std::io;
use std::path::Path;

/// A read-only map of a whole file.
#[derive(Debug)]
pub struct Map(memmap2::Mmap);

impl Map {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// What the system says; an empty file cannot be mapped.
    #[expect(
        clippy::disallowed_methods,
        reason = "a map needs a descriptor, and this crate may not know the rooms that open files"
    )]
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = std::fs::File::open(path)?;
        // SAFETY: the map is read-only and private to this process; the module's opening says why no one changes the file meanwhile.
        unsafe { memmap2::Mmap::map(&file) }.map(Self)
    }
}

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests make their own files")]
    use super::*;

    #[test]
    fn a_map_equals_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let bytes: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(Map::open(&path).unwrap().as_ref(), &bytes[..]);
        std::fs::write(&path, b"").unwrap();
        assert!(Map::open(&path).map(|m| m.as_ref().is_empty()).unwrap_or(true));
        assert!(Map::open(&folder.path().join("absent")).is_err());
    }
}
