//! A volume on this node, read and written relative to directory descriptors.
//!
//! Holds the [`Fs`] seam (everything the data path asks of a filesystem), the plain structs that cross it, and the Linux
//! implementation beneath. Promises that no call resolves outside the root that was opened, follows no symbolic or magic link,
//! and crosses no mount unless told to. It is the only room of the engine that makes path syscalls. Does not know what a chunk,
//! a tree or a snapshot is.

#[cfg(test)]
mod both_tests;
mod linux;
pub mod made_up;
mod names;
mod policy;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

pub use linux::{LinuxFs, raise_descriptor_limit};
pub use names::{IntoNames, Names, NamesBuilder};
pub use policy::RestorePolicy;

/// In [`Metadata`]: leave the owner (or the group) as it is. It is the kernel's own word for that, and no file's owner.
pub const OWNER_UNCHANGED: u32 = u32::MAX;

/// Bytes of a file name, symlink target or xattr name as the kernel holds them: any byte but NUL (and `/` in names).
pub type Name = Vec<u8>;

/// What kind of thing a directory entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A block device.
    BlockDevice,
    /// A character device.
    CharDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// Seconds and nanoseconds since 1970-01-01 UTC; `nanos` is below 10⁹ also for negative seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Whole seconds, may be negative.
    pub secs: i64,
    /// Nanoseconds past `secs`.
    pub nanos: u32,
}

/// What `statx` says about an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The entry's kind.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky: 12 bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes (of a symlink: of its target).
    pub size_bytes: u64,
    /// Bytes allocated on disk.
    pub allocated_bytes: u64,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the content or the inode.
    pub ctime: Time,
    /// Inode number.
    pub inode: u64,
    /// Number of the device that holds the entry.
    pub device: u64,
    /// Number of names that the inode has.
    pub links: u64,
    /// Major and minor number of a device file, else 0.
    pub rdev: (u32, u32),
}

/// What the restore gives an entry after its content is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Permission bits, 12 bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time; the access time is set to the same.
    pub mtime: Time,
    /// Extended attributes by full name (`user.…`, `system.posix_acl_access`, `security.capability`…).
    pub xattrs: Vec<(Name, Vec<u8>)>,
}

impl Metadata {
    /// Whether an entry in that state has this owner, mode and time; of attributes its state tells nothing.
    #[must_use]
    pub fn is_of(&self, now: &Stat) -> bool {
        let owner = |wanted: u32, has: u32| wanted == OWNER_UNCHANGED || wanted == has;
        now.mtime == self.mtime
            && owner(self.uid, now.uid)
            && owner(self.gid, now.gid)
            && (now.kind == Kind::Symlink || now.mode == self.mode & 0o7777)
    }
}

/// One attribute that could not be given to an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// What was lost: `owner`, `mode`, `times`, `xattr user.x`, `special file`…
    pub what: String,
    /// The kernel's reason or the policy's.
    pub why: String,
}

/// What a volume answers when it cannot do what it was asked, sorted by what the caller does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VolumeErrorKind {
    /// It is gone: vanished between listing and open.
    NotFound,
    /// We may not: name it and go on.
    Denied,
    /// It is another kind of thing now (a link or FIFO where a file was): treat it as changed.
    WrongKind,
    /// It lies on another filesystem, or the path would leave the root.
    OutsideRoot,
    /// It exists already.
    Exists,
    /// No room or over quota on the volume.
    NoSpace,
    /// The filesystem cannot do this (xattrs, devices…).
    Unsupported,
    /// The disk, or anything else.
    Io,
}

/// An error of a volume call, with the call's name and the kernel's error number where there is one.
#[derive(Clone, Debug)]
pub struct VolumeError {
    /// What the caller can do next.
    pub kind: VolumeErrorKind,
    /// The call, lower-case: `open file`, `set owner`.
    pub call: &'static str,
    /// The kernel's number, if the kernel said it.
    pub errno: Option<i32>,
}

impl fmt::Display for VolumeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.errno {
            Some(n) => write!(f, "cannot {}: {}", self.call, std::io::Error::from_raw_os_error(n)),
            None => write!(f, "cannot {}: {:?}", self.call, self.kind),
        }
    }
}

impl std::error::Error for VolumeError {}

/// How a root is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RootOptions {
    /// Refuse to enter other filesystems mounted below the root.
    pub one_file_system: bool,
}

/// A stretch of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins.
    pub offset_bytes: u64,
    /// How long it is.
    pub length_bytes: u64,
    /// Whether it is a hole (reads as zeros, takes no room).
    pub hole: bool,
}

/// A filesystem, handed in: the kernel's, or one made up by a seed.
#[allow(clippy::missing_errors_doc, reason = "VolumeErrorKind says it for all")]
pub trait Fs: Send + Sync + fmt::Debug {
    /// Opens the directory that everything else is relative to. The only call that takes a path.
    fn open_root(&self, path: &Path, options: RootOptions) -> Result<Box<dyn Dir>, VolumeError>;
    /// The same, made with mode 0700 if absent (its parent must exist).
    fn create_root(&self, path: &Path, options: RootOptions) -> Result<Box<dyn Dir>, VolumeError>;
}

/// An open directory. `name` is always a single component; anything else is refused with `OutsideRoot`.
#[allow(clippy::missing_errors_doc, reason = "VolumeErrorKind says it for all")]
pub trait Dir: Send + Sync + fmt::Debug {
    /// Names of all entries but `.` and `..`.
    fn names(&self) -> Result<Names, VolumeError>;
    /// The directory's own state.
    fn stat_self(&self) -> Result<Stat, VolumeError>;
    /// An entry's state; never follows a link, never mounts an automount.
    fn stat(&self, name: &[u8]) -> Result<Stat, VolumeError>;
    /// Opens a subdirectory.
    fn open_dir(&self, name: &[u8]) -> Result<Box<dyn Dir>, VolumeError>;
    /// Opens a regular file to read: never blocks on a FIFO, never follows a link, does not move the access time where it may.
    fn open_file(&self, name: &[u8]) -> Result<Arc<dyn ReadFile>, VolumeError>;
    /// Target of a symbolic link.
    fn read_link(&self, name: &[u8]) -> Result<Name, VolumeError>;
    /// Extended attributes of the directory itself, ascending by name.
    fn xattrs_self(&self) -> Result<Vec<(Name, Vec<u8>)>, VolumeError>;
    /// Extended attributes of an entry (of a link: of the link itself), ascending by name.
    fn xattrs(&self, name: &[u8], kind: Kind) -> Result<Vec<(Name, Vec<u8>)>, VolumeError>;
    /// Whether an entry of whatever kind surely has no extended attributes: cheaper than asking for them. False where it is not sure.
    fn is_without_xattrs(&self, name: &[u8]) -> bool {
        let _ = name;
        false
    }

    /// Creates a subdirectory with mode 0700 and opens it; `Exists` when any entry has the name.
    fn create_dir(&self, name: &[u8]) -> Result<Box<dyn Dir>, VolumeError>;
    /// Creates a regular file with mode 0600 to write; `Exists` when any entry has the name.
    fn create_file(&self, name: &[u8]) -> Result<Box<dyn WriteFile>, VolumeError>;
    /// Opens an existing regular file to write in place, without following links and without truncating it.
    fn open_file_for_update(&self, name: &[u8]) -> Result<Box<dyn WriteFile>, VolumeError>;
    /// Creates a symbolic link.
    fn create_symlink(&self, name: &[u8], target: &[u8]) -> Result<(), VolumeError>;
    /// Creates a device, FIFO or socket node with mode 0600.
    fn create_special(&self, name: &[u8], kind: Kind, rdev: (u32, u32)) -> Result<(), VolumeError>;
    /// Gives the entry `name` of this directory a second name `to_name` in `to`. Never follows a link.
    fn hard_link(&self, name: &[u8], to: &dyn Dir, to_name: &[u8]) -> Result<(), VolumeError>;
    /// Renames within this directory, replacing what was there (a directory only when empty).
    fn rename(&self, from: &[u8], to: &[u8]) -> Result<(), VolumeError>;
    /// Removes an entry, a directory with all that is in it; follows no link and crosses no mount. Absent: no error.
    fn remove_all(&self, name: &[u8]) -> Result<(), VolumeError>;
    /// Sets an entry's metadata without following links: owner, then mode, then xattrs, then times. Returns what was refused.
    fn set_metadata(&self, name: &[u8], kind: Kind, metadata: &Metadata) -> Result<Vec<Loss>, VolumeError>;
    /// The same for the directory itself.
    fn set_metadata_self(&self, metadata: &Metadata) -> Result<Vec<Loss>, VolumeError>;
    /// Makes everything written on this filesystem durable.
    fn sync_filesystem(&self) -> Result<(), VolumeError>;
    /// Holds the directory alone among those who ask for that, until this value is gone or its process. False: somebody else has it, or
    /// the filesystem cannot tell.
    fn hold_alone(&self) -> bool {
        true
    }
    /// The concrete type behind, so that two directories of one implementation can meet in `hard_link`.
    fn as_any(&self) -> &dyn std::any::Any;
}

/// A regular file, open to read.
#[allow(clippy::missing_errors_doc, reason = "VolumeErrorKind says it for all")]
pub trait ReadFile: Send + Sync + fmt::Debug {
    /// State through the open descriptor.
    fn stat(&self) -> Result<Stat, VolumeError>;
    /// The same file's state at some moment before anything was read from it; costs nothing where opening had to ask for it.
    fn stat_before(&self) -> Result<Stat, VolumeError> {
        self.stat()
    }
    /// Reads at an offset until `buf` is full or the file ends; returns how much was read.
    fn read_at(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<usize, VolumeError>;
    /// The next extent at or after `offset_bytes` (data or hole); `None` at the end of the file.
    fn next_extent(&self, offset_bytes: u64) -> Result<Option<Extent>, VolumeError>;
    /// Extended attributes through the open descriptor, ascending by name.
    fn xattrs(&self) -> Result<Vec<(Name, Vec<u8>)>, VolumeError>;
    /// The same as `read_at`, and leaves the page cache as it found it where the system can: what was in memory stays, what
    /// was not is gone again.
    fn read_once(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<usize, VolumeError>;
}

/// Writes to one file by one thread, in growing places. Nothing is written for certain before [`Gather::end`] has succeeded.
pub trait Gather {
    /// Takes all of `data`.
    fn write(&mut self, offset_bytes: u64, data: &[u8]) -> Result<(), VolumeError>;
    /// Writes what is still held.
    fn end(self: Box<Self>) -> Result<(), VolumeError>;
}

/// A regular file, open to write.
#[allow(clippy::missing_errors_doc, reason = "VolumeErrorKind says it for all")]
pub trait WriteFile: Send + Sync + fmt::Debug {
    /// Says that the file is new, large and not read soon: where it pays, what is written leaves no pages in memory.
    fn write_past_cache(&mut self) {}
    /// Says that all of a range is about to be written; `NoSpace` when there is no room for it.
    fn reserve(&self, offset_bytes: u64, length_bytes: u64) -> Result<(), VolumeError> {
        let _ = (offset_bytes, length_bytes);
        Ok(())
    }
    /// Writes all of `data` at an offset; many threads may write different places of one file.
    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> Result<(), VolumeError>;
    /// Many writes one behind another, where to gather them pays; `None`: [`WriteFile::write_at`] is as good.
    fn gather(&self) -> Option<Box<dyn Gather + '_>> {
        None
    }
    /// Reads back, for a restore in place; returns how much was read.
    fn read_at(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<usize, VolumeError>;
    /// Sets the length; what is added is a hole.
    fn set_len(&self, length_bytes: u64) -> Result<(), VolumeError>;
    /// Reserves room so that the range reads as zeros without being a hole; falls back to writing zeros.
    fn allocate_zeros(&self, offset_bytes: u64, length_bytes: u64) -> Result<(), VolumeError>;
    /// Makes the range a hole; falls back to writing zeros.
    fn punch_hole(&self, offset_bytes: u64, length_bytes: u64) -> Result<(), VolumeError>;
    /// Sets metadata through the descriptor: owner, mode, xattrs, times. Returns what was refused.
    fn set_metadata(&self, metadata: &Metadata) -> Result<Vec<Loss>, VolumeError>;
}
