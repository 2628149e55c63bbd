//! A volume that takes what is restored to it and keeps nothing: what a restore takes of memory and time without a disk that could hold it.
//!
//! Counts files and bytes. Promises that everything is taken and nothing is there afterwards, so that every entry is new.

use longshore_engine::volume::{
    Dir, Fs, Kind, Loss, Metadata, Name, Names, ReadFile, RootOptions, Stat, Time, VolumeError, VolumeErrorKind, WriteFile,
};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

type Answer<T> = std::result::Result<T, VolumeError>;

fn absent<T>(call: &'static str) -> Answer<T> {
    Err(VolumeError { kind: VolumeErrorKind::NotFound, call, errno: None })
}

/// What was taken.
#[derive(Debug, Default)]
pub struct Taken {
    /// Files made.
    pub files: AtomicU64,
    /// Bytes written to them.
    pub bytes: AtomicU64,
}

/// Such a volume.
#[derive(Clone, Debug, Default)]
pub struct Nowhere(pub Arc<Taken>);

impl Nowhere {
    fn root(&self) -> Box<dyn Dir> {
        Box::new(self.clone())
    }
}

impl Fs for Nowhere {
    fn open_root(&self, _: &Path, _: RootOptions) -> Answer<Box<dyn Dir>> {
        Ok(self.root())
    }

    fn create_root(&self, _: &Path, _: RootOptions) -> Answer<Box<dyn Dir>> {
        Ok(self.root())
    }
}

impl Dir for Nowhere {
    fn names(&self) -> Answer<Names> {
        Ok(Names::default())
    }

    fn stat_self(&self) -> Answer<Stat> {
        let time = Time { secs: 1_700_000_000, nanos: 0 };
        Ok(Stat {
            kind: Kind::Directory,
            mode: 0o700,
            uid: 0,
            gid: 0,
            size_bytes: 0,
            allocated_bytes: 0,
            mtime: time,
            ctime: time,
            inode: 1,
            device: 1,
            links: 2,
            rdev: (0, 0),
        })
    }

    fn stat(&self, _: &[u8]) -> Answer<Stat> {
        absent("stat")
    }

    fn open_dir(&self, _: &[u8]) -> Answer<Box<dyn Dir>> {
        Ok(self.root())
    }

    fn open_file(&self, _: &[u8]) -> Answer<Arc<dyn ReadFile>> {
        absent("open file")
    }

    fn read_link(&self, _: &[u8]) -> Answer<Name> {
        absent("read link")
    }

    fn xattrs_self(&self) -> Answer<Vec<(Name, Vec<u8>)>> {
        Ok(vec![])
    }

    fn xattrs(&self, _: &[u8], _: Kind) -> Answer<Vec<(Name, Vec<u8>)>> {
        Ok(vec![])
    }

    fn create_dir(&self, _: &[u8]) -> Answer<Box<dyn Dir>> {
        Ok(self.root())
    }

    fn create_file(&self, _: &[u8]) -> Answer<Box<dyn WriteFile>> {
        self.0.files.fetch_add(1, Relaxed);
        Ok(Box::new(self.clone()))
    }

    fn open_file_for_update(&self, _: &[u8]) -> Answer<Box<dyn WriteFile>> {
        absent("open file")
    }

    fn create_symlink(&self, _: &[u8], _: &[u8]) -> Answer<()> {
        Ok(())
    }

    fn create_special(&self, _: &[u8], _: Kind, _: (u32, u32)) -> Answer<()> {
        Ok(())
    }

    fn hard_link(&self, _: &[u8], _: &dyn Dir, _: &[u8]) -> Answer<()> {
        Ok(())
    }

    fn rename(&self, _: &[u8], _: &[u8]) -> Answer<()> {
        Ok(())
    }

    fn remove_all(&self, _: &[u8]) -> Answer<()> {
        Ok(())
    }

    fn set_metadata(&self, _: &[u8], _: Kind, _: &Metadata) -> Answer<Vec<Loss>> {
        Ok(vec![])
    }

    fn set_metadata_self(&self, _: &Metadata) -> Answer<Vec<Loss>> {
        Ok(vec![])
    }

    fn sync_filesystem(&self) -> Answer<()> {
        Ok(())
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

impl WriteFile for Nowhere {
    fn write_at(&self, _: u64, data: &[u8]) -> Answer<()> {
        self.0.bytes.fetch_add(data.len() as u64, Relaxed);
        Ok(())
    }

    fn read_at(&self, _: u64, _: &mut [u8]) -> Answer<usize> {
        Ok(0)
    }

    fn set_len(&self, _: u64) -> Answer<()> {
        Ok(())
    }

    fn allocate_zeros(&self, _: u64, _: u64) -> Answer<()> {
        Ok(())
    }

    fn punch_hole(&self, _: u64, _: u64) -> Answer<()> {
        Ok(())
    }

    fn set_metadata(&self, _: &Metadata) -> Answer<Vec<Loss>> {
        Ok(vec![])
    }
}
