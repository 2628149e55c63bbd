//! Looking into a snapshot: entries listed page by page, found by pattern, a file's bytes streamed.
//!
//! Holds [`Browser`], an open snapshot with its reader's marker, and [`Listing`], a walk that is pulled, so that a caller of any
//! language asks for the next page when it wants one. Rows are frozen copies. What is damaged is named and passed by. Memory does
//! not grow with the snapshot.

use crate::error::{Error, ErrorKind, Result};
use crate::job::Job;
use crate::repository::Repository;
use crate::repository::cursor::{EntryCursor, Step, as_damage};
use crate::repository::reader::ChunkReader;
use crate::repository::session::ReaderMarker;
use crate::repository::snapshots::SnapshotRow;
use globset::{GlobBuilder, GlobMatcher};
use longshore_format::id::{ChunkKind, SessionId};
use longshore_format::tree::{Entry, Item, Node, Owner, Time};
use std::sync::Arc;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// An entry as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryRow {
    /// Path from the snapshot's root, without a leading slash; the root's is empty.
    pub path: Vec<u8>,
    /// `directory`, `file`, `symlink`, `block-device`, `char-device`, `fifo`, `socket`.
    pub kind: &'static str,
    /// Permission bits, 12 bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length of a file, else 0.
    pub size_bytes: u64,
    /// Modification time.
    pub mtime: Time,
    /// Inode number when it was read.
    pub inode: u64,
    /// Whether other names of the same file are in the snapshot.
    pub linked: bool,
    /// Target of a symbolic link.
    pub target: Option<Vec<u8>>,
    /// Major and minor number of a device.
    pub device: Option<(u32, u32)>,
    /// Names and lengths of its extended attributes.
    pub xattrs: Vec<(Vec<u8>, u64)>,
    /// It changed while it was read.
    pub changed: bool,
    /// Some of its content could not be read and is zeros, or its extended attributes are left out.
    pub incomplete: bool,
}

impl EntryRow {
    fn new(path: Vec<u8>, entry: &Entry) -> Self {
        let (kind, size_bytes, target, device) = match &entry.node {
            Node::Directory { .. } => ("directory", 0, None, None),
            Node::File { size_bytes, .. } => ("file", *size_bytes, None, None),
            Node::Symlink { target } => ("symlink", 0, Some(target.clone()), None),
            Node::BlockDevice { major, minor } => ("block-device", 0, None, Some((*major, *minor))),
            Node::CharDevice { major, minor } => ("char-device", 0, None, Some((*major, *minor))),
            Node::Fifo => ("fifo", 0, None, None),
            Node::Socket => ("socket", 0, None, None),
        };
        Self {
            path,
            kind,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            size_bytes,
            mtime: entry.mtime,
            inode: entry.inode,
            linked: entry.link_device.is_some(),
            target,
            device,
            xattrs: entry.xattrs.iter().map(|(name, value)| (name.clone(), value.len() as u64)).collect(),
            changed: entry.changed,
            incomplete: entry.incomplete,
        }
    }
}

/// Which entries a listing shows.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Also what lies below subdirectories.
    pub recursive: bool,
    /// Only entries whose name (or, when the pattern has a slash, whose path) matches; empty: all.
    pub pattern: String,
}

/// An open snapshot.
#[derive(Debug)]
pub struct Browser {
    reader: Arc<ChunkReader>,
    row: SnapshotRow,
    marker: Arc<ReaderMarker>,
}

impl Browser {
    /// Opens a snapshot to look into it.
    ///
    /// # Errors
    /// `SnapshotNotFound`, Corrupt, or what the store says.
    pub fn open(repository: &Repository, snapshot: SessionId, host: &str, job: &Arc<Job>) -> Result<Self> {
        let row = repository.find_snapshot(&snapshot.to_string(), None).map_err(as_damage)?;
        let marker = repository.open_reader(row.session, &row.snapshot.usage, host)?;
        let index = Arc::new(repository.load_index(job)?);
        let reader = Arc::new(ChunkReader::new(repository.clone(), index, Arc::clone(job), 32 << 20));
        Ok(Self { reader, row, marker: Arc::new(marker) })
    }

    /// The snapshot.
    #[must_use]
    pub fn row(&self) -> &SnapshotRow {
        &self.row
    }

    /// The entry at a path.
    ///
    /// # Errors
    /// `PathNotFound`, Corrupt, or what the store says.
    pub fn stat(&self, path: &[u8]) -> Result<EntryRow> {
        let entry = self.reader.entry_at(&self.row.snapshot.root, path)?;
        Ok(EntryRow::new(normal(path), &entry))
    }

    /// The entries of a directory, or the one entry of anything else.
    ///
    /// # Errors
    /// `PathNotFound`, `Usage` for a pattern that is none, Corrupt, or what the store says.
    pub fn list(&self, path: &[u8], options: &ListOptions) -> Result<Listing> {
        let entry = self.reader.entry_at(&self.row.snapshot.root, path)?;
        let pattern = match options.pattern.as_str() {
            "" => None,
            text => Some((compile(text)?, text.contains('/'))),
        };
        let path = normal(path);
        let (cursor, at) = if matches!(entry.node, Node::Directory { .. }) {
            (EntryCursor::new(&entry), path)
        } else {
            let above = path.iter().rposition(|b| *b == b'/').map_or(&[][..], |slash| &path[..slash]);
            (EntryCursor::only(entry), above.to_vec())
        };
        Ok(Listing {
            reader: Arc::clone(&self.reader),
            _marker: Arc::clone(&self.marker),
            stack: vec![(cursor, at)],
            recursive: options.recursive,
            pattern,
            damaged: Vec::new(),
        })
    }

    /// Streams a file's bytes into `sink`, holes as zeros.
    ///
    /// # Errors
    /// `PathNotFound`; `Usage` when it is no file; Corrupt, after everything before the damage went into the sink; what the store
    /// and the sink say.
    pub fn cat(&self, path: &[u8], sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<u64> {
        let entry = self.reader.entry_at(&self.row.snapshot.root, path)?;
        let Node::File { size_bytes, content } = &entry.node else {
            return Err(Error::new(ErrorKind::Usage, format!("only files have content: path={}", String::from_utf8_lossy(path))));
        };
        self.reader.for_each_item(content, Owner::File, &mut |item| {
            match item {
                Item::Data { id, span } => {
                    let chunk = self.reader.chunk(ChunkKind::Data, id)?;
                    if chunk.len() as u64 != *span {
                        return Err(Error::corrupt(format!("chunk has another length than its file says: chunk={id}")));
                    }
                    sink(&chunk)?;
                }
                other => {
                    let mut left = other.span();
                    while left > 0 {
                        self.reader.check()?;
                        let step = left.min(ZEROS.len() as u64);
                        sink(&ZEROS[..step as usize])?;
                        left -= step;
                    }
                }
            }
            Ok(true)
        })?;
        Ok(*size_bytes)
    }
}

fn normal(path: &[u8]) -> Vec<u8> {
    let names: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|n| !n.is_empty() && *n != b".").collect();
    names.join(&b'/')
}

fn compile(pattern: &str) -> Result<GlobMatcher> {
    let glob = GlobBuilder::new(pattern).literal_separator(true).build();
    glob.map(|g| g.compile_matcher())
        .map_err(|error| Error::new(ErrorKind::Usage, format!("not a pattern: pattern={pattern}, reason={}", error.kind())))
}

/// A walk through entries that is pulled; keeps the snapshot open while it lives.
#[derive(Debug)]
pub struct Listing {
    reader: Arc<ChunkReader>,
    _marker: Arc<ReaderMarker>,
    stack: Vec<(EntryCursor, Vec<u8>)>,
    recursive: bool,
    pattern: Option<(GlobMatcher, bool)>,
    /// Directories of which some entries could not be read, and why.
    pub damaged: Vec<(Vec<u8>, Error)>,
}

impl Listing {
    /// Up to `limit` more rows; fewer only at the end.
    ///
    /// # Errors
    /// What the store says, `Cancelled`.
    pub fn page(&mut self, limit: usize) -> Result<Vec<EntryRow>> {
        let mut rows = Vec::new();
        while rows.len() < limit {
            let Some((cursor, at)) = self.stack.last_mut() else { break };
            match cursor.step(&self.reader)? {
                Step::End => {
                    self.stack.pop();
                }
                Step::Damaged(error) => self.damaged.push((at.clone(), error)),
                Step::Entry(entry) => {
                    let mut path = at.clone();
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(&entry.name);
                    if self.pattern.as_ref().is_none_or(|(glob, whole)| matches(glob, if *whole { &path } else { &entry.name })) {
                        rows.push(EntryRow::new(path.clone(), &entry));
                    }
                    if self.recursive && matches!(entry.node, Node::Directory { .. }) {
                        cursor.rest();
                        self.stack.push((EntryCursor::new(&entry), path));
                    }
                }
            }
        }
        Ok(rows)
    }
}

fn matches(glob: &GlobMatcher, bytes: &[u8]) -> bool {
    use std::os::unix::ffi::OsStrExt;
    glob.is_match(std::ffi::OsStr::from_bytes(bytes))
}
