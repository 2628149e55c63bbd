//! The kernel's filesystem, seen through directory descriptors.
//!
//! Holds [`LinuxFs`] and its directories. Promises that after the root was opened no call takes a path of more than one component,
//! follows a link or waits for a FIFO, a device or a file's absent writer. Path lengths do not matter. Each open [`Dir`] is one
//! descriptor, each file one more; a walk that keeps only its current chain open needs as many as it is deep (see
//! [`raise_descriptor_limit`]). `remove_all` needs two at any depth. Does not know policy, order of a walk, or retries.

mod dir;
mod direct;
mod meta;
mod read;
mod sys;
#[cfg(test)]
mod tests;
mod write;

use std::any::Any;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{Dir, Fs, Kind, Loss, Metadata, Name, Names, ReadFile, RootOptions, Stat, VolumeError, VolumeErrorKind, WriteFile};

pub use sys::raise_descriptor_limit;
use sys::{check_component, error, handle, open_beneath, open_beneath_noatime, refusal, retry, stat_at, stat_fd};

/// The kernel's filesystem.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinuxFs;

impl Fs for LinuxFs {
    /// The path is the operator's or the kubelet's, not the tenant's: links on the way to the root are followed.
    fn open_root(&self, path: &Path, options: RootOptions) -> Result<Box<dyn Dir>, VolumeError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = match retry(|| rustix::fs::open(path, flags | OFlags::NOATIME, Mode::empty())) {
            Err(Errno::PERM) => retry(|| rustix::fs::open(path, flags, Mode::empty())),
            other => other,
        };
        let fd = fd.map_err(|errno| error("open root", errno))?;
        Ok(Box::new(LinuxDir::new(fd, !options.one_file_system)))
    }

    fn create_root(&self, path: &Path, options: RootOptions) -> Result<Box<dyn Dir>, VolumeError> {
        match retry(|| rustix::fs::mkdir(path, Mode::RWXU)) {
            Ok(()) | Err(Errno::EXIST) => self.open_root(path, options),
            Err(errno) => Err(error("create root", errno)),
        }
    }
}

/// An open directory of the kernel's.
#[derive(Debug)]
struct LinuxDir {
    fd: OwnedFd,
    cross_mounts: bool,
    /// A listing moves the descriptor's one offset: two at once would each get half.
    listing: Mutex<()>,
    /// Files made in it get no ACL from it; asked when the first is made.
    gives_no_acl: OnceLock<bool>,
}

impl LinuxDir {
    fn new(fd: OwnedFd, cross_mounts: bool) -> Self {
        Self { fd, cross_mounts, listing: Mutex::new(()), gives_no_acl: OnceLock::new() }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// A handle on an entry that must be of the kind that the caller saw.
    fn handle_of_kind(&self, call: &'static str, name: &[u8], kind: Kind) -> Result<OwnedFd, VolumeError> {
        let (fd, stat) = handle(call, self.fd(), name, self.cross_mounts)?;
        if stat.kind == kind { Ok(fd) } else { Err(refusal(call, VolumeErrorKind::WrongKind)) }
    }
}

impl Dir for LinuxDir {
    fn names(&self) -> Result<Names, VolumeError> {
        let _one_at_a_time = self.listing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        dir::names(self.fd())
    }

    fn stat_self(&self) -> Result<Stat, VolumeError> {
        stat_fd("stat directory", self.fd())
    }

    fn stat(&self, name: &[u8]) -> Result<Stat, VolumeError> {
        check_component("stat", name)?;
        stat_at("stat", self.fd(), name)
    }

    fn open_dir(&self, name: &[u8]) -> Result<Box<dyn Dir>, VolumeError> {
        check_component("open directory", name)?;
        let fd = open_beneath_noatime(self.fd(), name, OFlags::RDONLY | OFlags::DIRECTORY, self.cross_mounts)
            .map_err(|errno| error("open directory", errno))?;
        Ok(Box::new(Self::new(fd, self.cross_mounts)))
    }

    fn open_file(&self, name: &[u8]) -> Result<Arc<dyn ReadFile>, VolumeError> {
        let (fd, pinned) = read::open_regular("open file", self.fd(), name, OFlags::RDONLY, self.cross_mounts)?;
        Ok(Arc::new(read::LinuxReadFile::new(fd, pinned)))
    }

    fn read_link(&self, name: &[u8]) -> Result<Name, VolumeError> {
        check_component("read link", name)?;
        match retry(|| rustix::fs::readlinkat(self.fd(), name, Vec::new())) {
            Ok(target) => Ok(target.into_bytes()),
            Err(Errno::INVAL) => Err(refusal("read link", VolumeErrorKind::WrongKind)),
            Err(errno) => Err(error("read link", errno)),
        }
    }

    fn xattrs_self(&self) -> Result<Vec<(Name, Vec<u8>)>, VolumeError> {
        meta::xattrs(meta::Access::Fd(self.fd()))
    }

    fn xattrs(&self, name: &[u8], kind: Kind) -> Result<Vec<(Name, Vec<u8>)>, VolumeError> {
        let fd = self.handle_of_kind("read xattrs", name, kind)?;
        meta::xattrs(meta::Access::Handle(fd.as_fd()))
    }

    fn is_without_xattrs(&self, name: &[u8]) -> bool {
        check_component("read xattrs", name).is_ok() && meta::is_without_xattrs(self.fd(), name)
    }

    fn create_dir(&self, name: &[u8]) -> Result<Box<dyn Dir>, VolumeError> {
        check_component("create directory", name)?;
        retry(|| rustix::fs::mkdirat(self.fd(), name, Mode::RWXU)).map_err(|errno| error("create directory", errno))?;
        self.open_dir(name)
    }

    fn create_file(&self, name: &[u8]) -> Result<Box<dyn WriteFile>, VolumeError> {
        check_component("create file", name)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOCTTY;
        let fd = open_beneath(self.fd(), name, flags, Mode::RUSR | Mode::WUSR, self.cross_mounts)
            .map_err(|errno| error("create file", errno))?;
        let bare = *self.gives_no_acl.get_or_init(|| meta::gives_no_acl(self.fd()));
        Ok(Box::new(if bare { write::LinuxWriteFile::bare(fd) } else { write::LinuxWriteFile::new(fd) }))
    }

    fn open_file_for_update(&self, name: &[u8]) -> Result<Box<dyn WriteFile>, VolumeError> {
        let (fd, _) = read::open_regular("open file to write", self.fd(), name, OFlags::RDWR, self.cross_mounts)?;
        Ok(Box::new(write::LinuxWriteFile::new(fd)))
    }

    fn create_symlink(&self, name: &[u8], target: &[u8]) -> Result<(), VolumeError> {
        check_component("create link", name)?;
        if target.is_empty() || target.contains(&0) {
            return Err(refusal("create link", VolumeErrorKind::Unsupported));
        }
        retry(|| rustix::fs::symlinkat(target, self.fd(), name)).map_err(|errno| error("create link", errno))
    }

    fn create_special(&self, name: &[u8], kind: Kind, rdev: (u32, u32)) -> Result<(), VolumeError> {
        check_component("create special file", name)?;
        let (file_type, device) = match kind {
            Kind::BlockDevice => (FileType::BlockDevice, rustix::fs::makedev(rdev.0, rdev.1)),
            Kind::CharDevice => (FileType::CharacterDevice, rustix::fs::makedev(rdev.0, rdev.1)),
            Kind::Fifo => (FileType::Fifo, 0),
            Kind::Socket => (FileType::Socket, 0),
            Kind::Directory | Kind::File | Kind::Symlink => {
                return Err(refusal("create special file", VolumeErrorKind::WrongKind));
            }
        };
        retry(|| rustix::fs::mknodat(self.fd(), name, file_type, Mode::RUSR | Mode::WUSR, device))
            .map_err(|errno| error("create special file", errno))
    }

    fn hard_link(&self, name: &[u8], to: &dyn Dir, to_name: &[u8]) -> Result<(), VolumeError> {
        const CALL: &str = "create hard link";
        check_component(CALL, name)?;
        check_component(CALL, to_name)?;
        let Some(to) = to.as_any().downcast_ref::<Self>() else {
            return Err(refusal(CALL, VolumeErrorKind::OutsideRoot));
        };
        // By name, since linking a descriptor (`AT_EMPTY_PATH`) asks for CAP_DAC_READ_SEARCH. The name may be given to another inode
        // between the look and the link, so what was linked is looked at again, and taken away when it is not the one.
        let (source, before) = handle(CALL, self.fd(), name, self.cross_mounts)?;
        retry(|| rustix::fs::linkat(self.fd(), name, to.fd(), to_name, AtFlags::empty())).map_err(|errno| error(CALL, errno))?;
        let after = stat_at(CALL, to.fd(), to_name)?;
        drop(source);
        if (after.device, after.inode) == (before.device, before.inode) {
            return Ok(());
        }
        let _ = rustix::fs::unlinkat(to.fd(), to_name, AtFlags::empty());
        Err(refusal(CALL, VolumeErrorKind::WrongKind))
    }

    fn rename(&self, from: &[u8], to: &[u8]) -> Result<(), VolumeError> {
        check_component("rename", from)?;
        check_component("rename", to)?;
        retry(|| rustix::fs::renameat(self.fd(), from, self.fd(), to)).map_err(|errno| error("rename", errno))
    }

    fn remove_all(&self, name: &[u8]) -> Result<(), VolumeError> {
        check_component("remove", name)?;
        dir::remove_all(self.fd(), name)
    }

    fn set_metadata(&self, name: &[u8], kind: Kind, metadata: &Metadata) -> Result<Vec<Loss>, VolumeError> {
        let fd = self.handle_of_kind("set metadata", name, kind)?;
        meta::set(meta::Access::Handle(fd.as_fd()), metadata)
    }

    fn set_metadata_self(&self, metadata: &Metadata) -> Result<Vec<Loss>, VolumeError> {
        meta::set(meta::Access::Fd(self.fd()), metadata)
    }

    fn sync_filesystem(&self) -> Result<(), VolumeError> {
        // Not repeated after a failure: the kernel reports a lost page once, and a second call would say that all is well.
        rustix::fs::syncfs(self.fd()).map_err(|errno| error("sync filesystem", errno))
    }

    fn hold_alone(&self) -> bool {
        retry(|| rustix::fs::flock(self.fd(), rustix::fs::FlockOperation::NonBlockingLockExclusive)).is_ok()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
