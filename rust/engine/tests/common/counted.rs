//! A filesystem that notes what is read of its files, and tells of directories that are listed, of writes, and of what is made durable.

use longshore_engine::volume::{
    Dir, Extent, Fs, Kind, Loss, Metadata, Name, Names, ReadFile, RootOptions, Stat, VolumeError, WriteFile,
};
use std::any::Any;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

type Tried<T> = Result<T, VolumeError>;

/// What was read: of which file, from where, how much.
pub type Reads = Arc<Mutex<Vec<(Name, u64, u64)>>>;

/// Is called with the name of each directory that is to be listed, on the thread that lists it.
#[derive(Clone)]
pub struct Listing(pub Arc<Tell>);
type Tell = dyn Fn(&[u8]) + Send + Sync;

impl fmt::Debug for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listing")
    }
}

/// Is called with the bytes that were written before, on the thread that writes next.
#[derive(Clone)]
pub struct Writing(pub Arc<dyn Fn(u64) + Send + Sync>);

impl fmt::Debug for Writing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writing")
    }
}

/// Is asked before everything is made durable, on the thread that asks for it; may refuse.
#[derive(Clone)]
pub struct Syncing(pub Arc<Answer>);
type Answer = dyn Fn() -> Tried<()> + Send + Sync;

impl fmt::Debug for Syncing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Syncing")
    }
}

/// Counts what goes through it to another filesystem.
#[derive(Debug)]
pub struct CountedFs<F> {
    pub inner: F,
    pub reads: Reads,
    pub written: Arc<AtomicU64>,
    pub listing: Listing,
    pub writing: Writing,
    pub syncing: Syncing,
}

impl<F> CountedFs<F> {
    pub fn new(inner: F) -> Self {
        Self {
            inner,
            reads: Reads::default(),
            written: Arc::default(),
            listing: Listing(Arc::new(|_| {})),
            writing: Writing(Arc::new(|_| {})),
            syncing: Syncing(Arc::new(|| Ok(()))),
        }
    }

    /// Bytes read since this was asked last.
    pub fn take_read(&self) -> u64 {
        std::mem::take(&mut *self.reads.lock().unwrap()).iter().map(|(_, _, bytes)| bytes).sum()
    }

    /// The reads since this was asked last.
    pub fn take_reads(&self) -> Vec<(Name, u64, u64)> {
        std::mem::take(&mut *self.reads.lock().unwrap())
    }

    /// Bytes written since this was asked last.
    pub fn take_written(&self) -> u64 {
        self.written.swap(0, SeqCst)
    }

    fn dir(&self, inner: Box<dyn Dir>) -> Box<dyn Dir> {
        Box::new(CountedDir {
            inner,
            name: Name::new(),
            reads: Arc::clone(&self.reads),
            written: Arc::clone(&self.written),
            listing: self.listing.clone(),
            writing: self.writing.clone(),
            syncing: self.syncing.clone(),
        })
    }
}

impl<F: Fs> Fs for CountedFs<F> {
    fn open_root(&self, path: &Path, options: RootOptions) -> Tried<Box<dyn Dir>> {
        self.inner.open_root(path, options).map(|dir| self.dir(dir))
    }
    fn create_root(&self, path: &Path, options: RootOptions) -> Tried<Box<dyn Dir>> {
        self.inner.create_root(path, options).map(|dir| self.dir(dir))
    }
}

#[derive(Debug)]
struct CountedDir {
    inner: Box<dyn Dir>,
    name: Name,
    reads: Reads,
    written: Arc<AtomicU64>,
    listing: Listing,
    writing: Writing,
    syncing: Syncing,
}

impl CountedDir {
    fn below(&self, name: &[u8], inner: Box<dyn Dir>) -> Box<dyn Dir> {
        Box::new(Self {
            inner,
            name: name.to_vec(),
            reads: Arc::clone(&self.reads),
            written: Arc::clone(&self.written),
            listing: self.listing.clone(),
            writing: self.writing.clone(),
            syncing: self.syncing.clone(),
        })
    }
    fn out(&self, inner: Box<dyn WriteFile>) -> Box<dyn WriteFile> {
        Box::new(CountedWrite { inner, written: Arc::clone(&self.written), writing: self.writing.clone() })
    }
}

impl Dir for CountedDir {
    fn names(&self) -> Tried<Names> {
        (self.listing.0)(&self.name);
        self.inner.names()
    }
    fn stat_self(&self) -> Tried<Stat> {
        self.inner.stat_self()
    }
    fn stat(&self, name: &[u8]) -> Tried<Stat> {
        self.inner.stat(name)
    }
    fn open_dir(&self, name: &[u8]) -> Tried<Box<dyn Dir>> {
        self.inner.open_dir(name).map(|dir| self.below(name, dir))
    }
    fn open_file(&self, name: &[u8]) -> Tried<Arc<dyn ReadFile>> {
        let inner = self.inner.open_file(name)?;
        Ok(Arc::new(CountedRead { inner, name: name.to_vec(), reads: Arc::clone(&self.reads) }))
    }
    fn read_link(&self, name: &[u8]) -> Tried<Name> {
        self.inner.read_link(name)
    }
    fn xattrs_self(&self) -> Tried<Vec<(Name, Vec<u8>)>> {
        self.inner.xattrs_self()
    }
    fn xattrs(&self, name: &[u8], kind: Kind) -> Tried<Vec<(Name, Vec<u8>)>> {
        self.inner.xattrs(name, kind)
    }
    fn is_without_xattrs(&self, name: &[u8]) -> bool {
        self.inner.is_without_xattrs(name)
    }
    fn create_dir(&self, name: &[u8]) -> Tried<Box<dyn Dir>> {
        self.inner.create_dir(name).map(|dir| self.below(name, dir))
    }
    fn create_file(&self, name: &[u8]) -> Tried<Box<dyn WriteFile>> {
        self.inner.create_file(name).map(|file| self.out(file))
    }
    fn open_file_for_update(&self, name: &[u8]) -> Tried<Box<dyn WriteFile>> {
        self.inner.open_file_for_update(name).map(|file| self.out(file))
    }
    fn create_symlink(&self, name: &[u8], target: &[u8]) -> Tried<()> {
        self.inner.create_symlink(name, target)
    }
    fn create_special(&self, name: &[u8], kind: Kind, rdev: (u32, u32)) -> Tried<()> {
        self.inner.create_special(name, kind, rdev)
    }
    fn hard_link(&self, name: &[u8], to: &dyn Dir, to_name: &[u8]) -> Tried<()> {
        self.inner.hard_link(name, to, to_name)
    }
    fn rename(&self, from: &[u8], to: &[u8]) -> Tried<()> {
        self.inner.rename(from, to)
    }
    fn remove_all(&self, name: &[u8]) -> Tried<()> {
        self.inner.remove_all(name)
    }
    fn set_metadata(&self, name: &[u8], kind: Kind, metadata: &Metadata) -> Tried<Vec<Loss>> {
        self.inner.set_metadata(name, kind, metadata)
    }
    fn set_metadata_self(&self, metadata: &Metadata) -> Tried<Vec<Loss>> {
        self.inner.set_metadata_self(metadata)
    }
    fn sync_filesystem(&self) -> Tried<()> {
        (self.syncing.0)()?;
        self.inner.sync_filesystem()
    }
    fn as_any(&self) -> &dyn Any {
        self.inner.as_any()
    }
}

#[derive(Debug)]
struct CountedRead {
    inner: Arc<dyn ReadFile>,
    name: Name,
    reads: Reads,
}

impl CountedRead {
    fn note(&self, offset: u64, got: usize) -> usize {
        self.reads.lock().unwrap().push((self.name.clone(), offset, got as u64));
        got
    }
}

impl ReadFile for CountedRead {
    fn stat(&self) -> Tried<Stat> {
        self.inner.stat()
    }
    fn read_at(&self, offset_bytes: u64, buf: &mut [u8]) -> Tried<usize> {
        self.inner.read_at(offset_bytes, buf).map(|got| self.note(offset_bytes, got))
    }
    fn next_extent(&self, offset_bytes: u64) -> Tried<Option<Extent>> {
        self.inner.next_extent(offset_bytes)
    }
    fn xattrs(&self) -> Tried<Vec<(Name, Vec<u8>)>> {
        self.inner.xattrs()
    }
    fn read_once(&self, offset_bytes: u64, buf: &mut [u8]) -> Tried<usize> {
        self.inner.read_once(offset_bytes, buf).map(|got| self.note(offset_bytes, got))
    }
}

#[derive(Debug)]
struct CountedWrite {
    inner: Box<dyn WriteFile>,
    written: Arc<AtomicU64>,
    writing: Writing,
}

impl WriteFile for CountedWrite {
    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> Tried<()> {
        (self.writing.0)(self.written.fetch_add(data.len() as u64, SeqCst));
        self.inner.write_at(offset_bytes, data)
    }
    fn read_at(&self, offset_bytes: u64, buf: &mut [u8]) -> Tried<usize> {
        self.inner.read_at(offset_bytes, buf)
    }
    fn set_len(&self, length_bytes: u64) -> Tried<()> {
        self.inner.set_len(length_bytes)
    }
    fn allocate_zeros(&self, offset_bytes: u64, length_bytes: u64) -> Tried<()> {
        self.inner.allocate_zeros(offset_bytes, length_bytes)
    }
    fn punch_hole(&self, offset_bytes: u64, length_bytes: u64) -> Tried<()> {
        self.inner.punch_hole(offset_bytes, length_bytes)
    }
    fn set_metadata(&self, metadata: &Metadata) -> Tried<Vec<Loss>> {
        self.inner.set_metadata(metadata)
    }
}
