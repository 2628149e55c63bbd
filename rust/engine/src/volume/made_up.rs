//! A filesystem that exists only in memory, for tests, simulations and measurements.
//!
//! Promises what [`Fs`] promises, deterministically: the same calls in the same order give the same inode numbers and times. A hook is
//! asked before each call and may fail it, or change the tree as a tenant would. Large contents may be made up from a seed and take
//! no room. Does not check permissions, knows one mount and one owner (nobody is refused), never runs full, and keeps the content of
//! removed files as long as it lives, so that a file may be read after its name is gone.

mod node;

use std::collections::HashMap;
use std::fmt;
use std::path::{Component, Path};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use node::Node;

use super::{
    Dir, Extent, Fs, Kind, Loss, Metadata, Name, Names, OWNER_UNCHANGED, ReadFile, RootOptions, Stat, Time, VolumeError,
    VolumeErrorKind, WriteFile,
};

/// Contents are kept in blocks of this size; what was never written is a hole.
pub const BLOCK_BYTES: u64 = 4096;
/// The device number of everything in here.
pub const DEVICE: u64 = 0xfade;
const ROOT: u64 = 1;
/// 2020-09-13: where the clock of a made-up filesystem starts; each change moves it on by a microsecond.
const EPOCH_SECS: i64 = 1_600_000_000;

/// A call that is about to be made.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Its name as in [`VolumeError::call`].
    pub call: &'static str,
    /// The entry that it names; empty for calls on an open directory or file.
    pub name: &'a [u8],
    /// The inode of the directory or file that it is made on.
    pub inode: u64,
    /// The offset of a read or write, else 0.
    pub offset_bytes: u64,
}

/// Asked before each call; `Some` fails it. It holds no lock, so it may change the filesystem through directories of its own (whose
/// calls ask it again).
pub type Hook = Arc<dyn Fn(Call<'_>) -> Option<VolumeErrorKind> + Send + Sync>;

/// A filesystem in memory. Clones are the same filesystem.
#[derive(Clone)]
pub struct MadeUpFs {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    hook: Mutex<Option<Hook>>,
}

struct State {
    nodes: HashMap<u64, Node>,
    changes: u64,
}

impl fmt::Debug for MadeUpFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MadeUpFs").finish_non_exhaustive()
    }
}

impl Default for MadeUpFs {
    fn default() -> Self {
        let mut state = State { nodes: HashMap::new(), changes: 0 };
        let now = state.tick();
        state.nodes.insert(ROOT, Node::new(ROOT, Kind::Directory, 0o755, now));
        Self { shared: Arc::new(Shared { state: Mutex::new(state), hook: Mutex::new(None) }) }
    }
}

impl MadeUpFs {
    /// Sets what is asked before each call, or takes it away.
    pub fn set_hook(&self, hook: Option<Hook>) {
        *self.shared.hook.lock().unwrap_or_else(PoisonError::into_inner) = hook;
    }

    /// Opens the root of everything.
    #[must_use]
    pub fn root(&self) -> Box<dyn Dir> {
        Box::new(MadeUpDir { shared: Arc::clone(&self.shared), inode: ROOT })
    }

    /// Makes a file whose content is made up from a seed: incompressible, of any length, without room.
    ///
    /// # Errors
    /// As [`Dir::create_file`].
    pub fn create_seeded_file(&self, dir: &dyn Dir, name: &[u8], seed: u64, length_bytes: u64) -> Result<(), VolumeError> {
        dir.create_file(name)?.set_len(length_bytes)?;
        let inode = dir.stat(name)?.inode;
        let mut state = self.shared.lock();
        let blocks = length_bytes.div_ceil(BLOCK_BYTES);
        let node = state.node("create seeded file", inode)?;
        node.seeded = Some((seed, blocks));
        node.stat.allocated_bytes = blocks * BLOCK_BYTES;
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, call: Call<'_>) -> Result<(), VolumeError> {
        let hook = self.hook.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match hook.and_then(|hook| hook(call)) {
            Some(kind) => Err(refusal(call.call, kind)),
            None => Ok(()),
        }
    }
}

fn refusal(call: &'static str, kind: VolumeErrorKind) -> VolumeError {
    VolumeError { kind, call, errno: None }
}

impl State {
    fn tick(&mut self) -> Time {
        self.changes += 1;
        let secs = i64::try_from(self.changes / 1_000_000).unwrap_or_default();
        let nanos = u32::try_from(self.changes % 1_000_000).unwrap_or_default() * 1_000;
        Time { secs: EPOCH_SECS.saturating_add(secs), nanos }
    }

    fn node(&mut self, call: &'static str, inode: u64) -> Result<&mut Node, VolumeError> {
        self.nodes.get_mut(&inode).ok_or_else(|| refusal(call, VolumeErrorKind::Io))
    }

    fn child(&mut self, call: &'static str, dir: u64, name: &[u8]) -> Result<u64, VolumeError> {
        let found = self.node(call, dir)?.entries.get(name).copied();
        found.ok_or_else(|| refusal(call, VolumeErrorKind::NotFound))
    }

    /// Gives an inode a name. A directory that was removed takes no new ones.
    fn enter(&mut self, call: &'static str, dir: u64, name: &[u8], inode: u64) -> Result<(), VolumeError> {
        let now = self.tick();
        let parent = self.node(call, dir)?;
        if parent.stat.links == 0 {
            return Err(refusal(call, VolumeErrorKind::NotFound));
        }
        if parent.entries.contains_key(name) {
            return Err(refusal(call, VolumeErrorKind::Exists));
        }
        parent.entries.insert(name.to_vec(), inode);
        parent.stat.mtime = now;
        parent.stat.ctime = now;
        Ok(())
    }

    fn create(&mut self, call: &'static str, dir: u64, name: &[u8], kind: Kind, mode: u32) -> Result<u64, VolumeError> {
        let inode = self.nodes.len() as u64 + ROOT;
        self.enter(call, dir, name, inode)?;
        let now = self.tick();
        self.nodes.insert(inode, Node::new(inode, kind, mode, now));
        Ok(inode)
    }

    fn remove(&mut self, call: &'static str, dir: u64, name: &[u8]) -> Result<(), VolumeError> {
        let now = self.tick();
        let parent = self.node(call, dir)?;
        let Some(inode) = parent.entries.remove(name) else { return Ok(()) };
        parent.stat.mtime = now;
        parent.stat.ctime = now;
        let mut doomed = vec![inode];
        while let Some(inode) = doomed.pop() {
            let node = self.node(call, inode)?;
            node.stat.links = node.stat.links.saturating_sub(1);
            node.stat.ctime = now;
            doomed.extend(std::mem::take(&mut node.entries).into_values());
        }
        Ok(())
    }

    fn set_metadata(&mut self, inode: u64, metadata: &Metadata) -> Result<Vec<Loss>, VolumeError> {
        let now = self.tick();
        let node = self.node("set metadata", inode)?;
        if metadata.uid != OWNER_UNCHANGED {
            node.stat.uid = metadata.uid;
        }
        if metadata.gid != OWNER_UNCHANGED {
            node.stat.gid = metadata.gid;
        }
        if node.stat.kind != Kind::Symlink {
            node.stat.mode = metadata.mode & 0o7777;
        }
        node.xattrs = metadata.xattrs.iter().cloned().collect();
        node.stat.mtime = metadata.mtime;
        node.stat.ctime = now;
        Ok(Vec::new())
    }
}

impl Fs for MadeUpFs {
    fn open_root(&self, path: &Path, _options: RootOptions) -> Result<Box<dyn Dir>, VolumeError> {
        let mut dir = self.root();
        for component in path.components() {
            if let Component::Normal(name) = component {
                dir = dir.open_dir(name.as_encoded_bytes())?;
            }
        }
        Ok(dir)
    }

    fn create_root(&self, path: &Path, options: RootOptions) -> Result<Box<dyn Dir>, VolumeError> {
        let Some(name) = path.file_name() else { return self.open_root(path, options) };
        let parent = self.open_root(path.parent().unwrap_or(path), options)?;
        match parent.create_dir(name.as_encoded_bytes()) {
            Err(error) if error.kind == VolumeErrorKind::Exists => parent.open_dir(name.as_encoded_bytes()),
            other => other,
        }
    }
}

#[derive(Clone)]
struct MadeUpDir {
    shared: Arc<Shared>,
    inode: u64,
}

impl fmt::Debug for MadeUpDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MadeUpDir").field("inode", &self.inode).finish_non_exhaustive()
    }
}

impl MadeUpDir {
    /// Checks the name, asks the hook, and only then takes the lock.
    fn begin(&self, call: &'static str, name: &[u8]) -> Result<MutexGuard<'_, State>, VolumeError> {
        let single = !name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/') && !name.contains(&0);
        if !single {
            return Err(refusal(call, VolumeErrorKind::OutsideRoot));
        }
        if name.len() > 255 {
            return Err(refusal(call, VolumeErrorKind::Unsupported));
        }
        self.shared.ask(Call { call, name, inode: self.inode, offset_bytes: 0 })?;
        Ok(self.shared.lock())
    }

    fn begin_self(&self, call: &'static str) -> Result<MutexGuard<'_, State>, VolumeError> {
        self.shared.ask(Call { call, name: b"", inode: self.inode, offset_bytes: 0 })?;
        Ok(self.shared.lock())
    }

    fn find(&self, call: &'static str, name: &[u8], kind: Kind) -> Result<u64, VolumeError> {
        let mut state = self.begin(call, name)?;
        let inode = state.child(call, self.inode, name)?;
        if state.node(call, inode)?.stat.kind == kind {
            return Ok(inode);
        }
        Err(refusal(call, VolumeErrorKind::WrongKind))
    }

    fn file(&self, inode: u64) -> MadeUpFile {
        MadeUpFile { shared: Arc::clone(&self.shared), inode }
    }
}

impl Dir for MadeUpDir {
    fn names(&self) -> Result<Names, VolumeError> {
        const CALL: &str = "list directory";
        Ok(self.begin_self(CALL)?.node(CALL, self.inode)?.entries.keys().collect())
    }

    fn stat_self(&self) -> Result<Stat, VolumeError> {
        const CALL: &str = "stat directory";
        Ok(self.begin_self(CALL)?.node(CALL, self.inode)?.stat.clone())
    }

    fn stat(&self, name: &[u8]) -> Result<Stat, VolumeError> {
        let mut state = self.begin("stat", name)?;
        let inode = state.child("stat", self.inode, name)?;
        Ok(state.node("stat", inode)?.stat.clone())
    }

    fn open_dir(&self, name: &[u8]) -> Result<Box<dyn Dir>, VolumeError> {
        let inode = self.find("open directory", name, Kind::Directory)?;
        Ok(Box::new(Self { shared: Arc::clone(&self.shared), inode }))
    }

    fn open_file(&self, name: &[u8]) -> Result<Arc<dyn ReadFile>, VolumeError> {
        Ok(Arc::new(self.file(self.find("open file", name, Kind::File)?)))
    }

    fn read_link(&self, name: &[u8]) -> Result<Name, VolumeError> {
        let inode = self.find("read link", name, Kind::Symlink)?;
        Ok(self.shared.lock().node("read link", inode)?.target.clone())
    }

    fn xattrs_self(&self) -> Result<Vec<(Name, Vec<u8>)>, VolumeError> {
        const CALL: &str = "list xattrs";
        Ok(self.begin_self(CALL)?.node(CALL, self.inode)?.xattrs())
    }

    fn xattrs(&self, name: &[u8], kind: Kind) -> Result<Vec<(Name, Vec<u8>)>, VolumeError> {
        let inode = self.find("read xattrs", name, kind)?;
        Ok(self.shared.lock().node("read xattrs", inode)?.xattrs())
    }

    fn create_dir(&self, name: &[u8]) -> Result<Box<dyn Dir>, VolumeError> {
        const CALL: &str = "create directory";
        let inode = self.begin(CALL, name)?.create(CALL, self.inode, name, Kind::Directory, 0o700)?;
        Ok(Box::new(Self { shared: Arc::clone(&self.shared), inode }))
    }

    fn create_file(&self, name: &[u8]) -> Result<Box<dyn WriteFile>, VolumeError> {
        const CALL: &str = "create file";
        let inode = self.begin(CALL, name)?.create(CALL, self.inode, name, Kind::File, 0o600)?;
        Ok(Box::new(self.file(inode)))
    }

    fn open_file_for_update(&self, name: &[u8]) -> Result<Box<dyn WriteFile>, VolumeError> {
        Ok(Box::new(self.file(self.find("open file to write", name, Kind::File)?)))
    }

    fn create_symlink(&self, name: &[u8], target: &[u8]) -> Result<(), VolumeError> {
        const CALL: &str = "create link";
        let mut state = self.begin(CALL, name)?;
        if target.is_empty() || target.contains(&0) {
            return Err(refusal(CALL, VolumeErrorKind::Unsupported));
        }
        let inode = state.create(CALL, self.inode, name, Kind::Symlink, 0o777)?;
        let node = state.node(CALL, inode)?;
        node.target = target.to_vec();
        node.stat.size_bytes = target.len() as u64;
        Ok(())
    }

    fn create_special(&self, name: &[u8], kind: Kind, rdev: (u32, u32)) -> Result<(), VolumeError> {
        const CALL: &str = "create special file";
        let mut state = self.begin(CALL, name)?;
        if matches!(kind, Kind::Directory | Kind::File | Kind::Symlink) {
            return Err(refusal(CALL, VolumeErrorKind::WrongKind));
        }
        let inode = state.create(CALL, self.inode, name, kind, 0o600)?;
        if matches!(kind, Kind::BlockDevice | Kind::CharDevice) {
            state.node(CALL, inode)?.stat.rdev = rdev;
        }
        Ok(())
    }

    fn hard_link(&self, name: &[u8], to: &dyn Dir, to_name: &[u8]) -> Result<(), VolumeError> {
        const CALL: &str = "create hard link";
        let Some(to) = to.as_any().downcast_ref::<Self>().filter(|to| Arc::ptr_eq(&to.shared, &self.shared)) else {
            return Err(refusal(CALL, VolumeErrorKind::OutsideRoot));
        };
        drop(to.begin(CALL, to_name)?);
        let mut state = self.begin(CALL, name)?;
        let inode = state.child(CALL, self.inode, name)?;
        if state.child(CALL, to.inode, to_name).is_err() && state.node(CALL, inode)?.stat.kind == Kind::Directory {
            return Err(refusal(CALL, VolumeErrorKind::Denied));
        }
        state.enter(CALL, to.inode, to_name, inode)?;
        let now = state.tick();
        let node = state.node(CALL, inode)?;
        node.stat.links += 1;
        node.stat.ctime = now;
        Ok(())
    }

    fn rename(&self, from: &[u8], to: &[u8]) -> Result<(), VolumeError> {
        drop(self.begin("rename", to)?);
        let mut state = self.begin("rename", from)?;
        let moved = state.child("rename", self.inode, from)?;
        if let Ok(replaced) = state.child("rename", self.inode, to) {
            if replaced == moved {
                return Ok(());
            }
            let moved_is_dir = state.node("rename", moved)?.stat.kind == Kind::Directory;
            let node = state.node("rename", replaced)?;
            if moved_is_dir != (node.stat.kind == Kind::Directory) {
                return Err(refusal("rename", VolumeErrorKind::WrongKind));
            }
            if !node.entries.is_empty() {
                return Err(refusal("rename", VolumeErrorKind::Exists));
            }
            state.remove("rename", self.inode, to)?;
        }
        state.node("rename", self.inode)?.entries.remove(from);
        state.enter("rename", self.inode, to, moved)
    }

    fn remove_all(&self, name: &[u8]) -> Result<(), VolumeError> {
        self.begin("remove", name)?.remove("remove", self.inode, name)
    }

    fn set_metadata(&self, name: &[u8], kind: Kind, metadata: &Metadata) -> Result<Vec<Loss>, VolumeError> {
        let inode = self.find("set metadata", name, kind)?;
        self.shared.lock().set_metadata(inode, metadata)
    }

    fn set_metadata_self(&self, metadata: &Metadata) -> Result<Vec<Loss>, VolumeError> {
        self.begin_self("set metadata")?.set_metadata(self.inode, metadata)
    }

    fn sync_filesystem(&self) -> Result<(), VolumeError> {
        self.begin_self("sync filesystem").map(drop)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

#[derive(Clone)]
struct MadeUpFile {
    shared: Arc<Shared>,
    inode: u64,
}

impl fmt::Debug for MadeUpFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MadeUpFile").field("inode", &self.inode).finish_non_exhaustive()
    }
}

impl MadeUpFile {
    /// Asks the hook, then works on the file at a new point in time.
    fn with<T>(&self, call: &'static str, offset_bytes: u64, work: impl FnOnce(&mut Node, Time) -> T) -> Result<T, VolumeError> {
        self.shared.ask(Call { call, name: b"", inode: self.inode, offset_bytes })?;
        let mut state = self.shared.lock();
        let now = state.tick();
        Ok(work(state.node(call, self.inode)?, now))
    }
}

impl ReadFile for MadeUpFile {
    fn stat(&self) -> Result<Stat, VolumeError> {
        self.with("stat open file", 0, |node, _| node.stat.clone())
    }

    fn read_at(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<usize, VolumeError> {
        self.with("read file", offset_bytes, |node, _| node.read(offset_bytes, buf))
    }

    fn next_extent(&self, offset_bytes: u64) -> Result<Option<Extent>, VolumeError> {
        self.with("find extents", offset_bytes, |node, _| node.next_extent(offset_bytes))
    }

    fn xattrs(&self) -> Result<Vec<(Name, Vec<u8>)>, VolumeError> {
        self.with("list xattrs", 0, |node, _| node.xattrs())
    }

    fn read_once(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<usize, VolumeError> {
        ReadFile::read_at(self, offset_bytes, buf)
    }
}

impl WriteFile for MadeUpFile {
    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> Result<(), VolumeError> {
        if offset_bytes.checked_add(data.len() as u64).is_none_or(|end| i64::try_from(end).is_err()) {
            return Err(refusal("write file", VolumeErrorKind::Unsupported));
        }
        self.with("write file", offset_bytes, |node, now| node.write(offset_bytes, data.len() as u64, Some(data), now))
    }

    fn read_at(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<usize, VolumeError> {
        ReadFile::read_at(self, offset_bytes, buf)
    }

    fn set_len(&self, length_bytes: u64) -> Result<(), VolumeError> {
        if i64::try_from(length_bytes).is_err() {
            return Err(refusal("set length", VolumeErrorKind::Unsupported));
        }
        self.with("set length", 0, |node, now| node.set_len(length_bytes, now))
    }

    fn allocate_zeros(&self, offset_bytes: u64, length_bytes: u64) -> Result<(), VolumeError> {
        self.with("allocate", offset_bytes, |node, now| node.write(offset_bytes, length_bytes, None, now))
    }

    fn punch_hole(&self, offset_bytes: u64, length_bytes: u64) -> Result<(), VolumeError> {
        self.with("punch hole", offset_bytes, |node, now| node.punch(offset_bytes, length_bytes, now))
    }

    fn set_metadata(&self, metadata: &Metadata) -> Result<Vec<Loss>, VolumeError> {
        self.shared.ask(Call { call: "set metadata", name: b"", inode: self.inode, offset_bytes: 0 })?;
        self.shared.lock().set_metadata(self.inode, metadata)
    }
}
