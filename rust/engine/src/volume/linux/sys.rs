//! The few forms in which this room talks to the kernel: how a name is opened, how a state is asked, how an errno is sorted.
//!
//! Promises that every open of a name goes through `openat2` with `RESOLVE_BENEATH | NO_SYMLINKS | NO_MAGICLINKS` (and `NO_XDEV`
//! where mounts must not be crossed), and that a name is one component. Does not know what the caller wants the descriptor for.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags, StatxTimestamp};
use rustix::io::Errno;
use rustix::path::DecInt;
use rustix::process::{Pid, Resource, Rlimit, getpid, getrlimit, setrlimit};

use crate::volume::{Kind, Stat, Time, VolumeError, VolumeErrorKind};

/// `openat2` says `EAGAIN` when a rename ran beside it and it cannot vouch for the answer; a tenant may rename for ever.
const RESOLVE_ATTEMPTS_MAX: u32 = 64;

/// Sorts a kernel's refusal by what the caller does next.
///
/// `ESTALE` is `Io`, not `NotFound`: a network mount that went away says it for every file, and a whole volume must not pass as
/// "vanished, therefore not part of the snapshot".
pub(super) fn error(call: &'static str, errno: Errno) -> VolumeError {
    let kind = match errno {
        Errno::NOENT => VolumeErrorKind::NotFound,
        Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::TXTBSY => VolumeErrorKind::Denied,
        Errno::LOOP | Errno::NOTDIR | Errno::ISDIR | Errno::NXIO => VolumeErrorKind::WrongKind,
        Errno::XDEV => VolumeErrorKind::OutsideRoot,
        Errno::EXIST | Errno::NOTEMPTY => VolumeErrorKind::Exists,
        Errno::NOSPC | Errno::DQUOT => VolumeErrorKind::NoSpace,
        Errno::NOTSUP | Errno::NOSYS | Errno::NAMETOOLONG | Errno::MLINK | Errno::FBIG => VolumeErrorKind::Unsupported,
        _ => VolumeErrorKind::Io,
    };
    VolumeError { kind, call, errno: Some(errno.raw_os_error()) }
}

/// An error that the kernel did not say.
pub(super) fn refusal(call: &'static str, kind: VolumeErrorKind) -> VolumeError {
    VolumeError { kind, call, errno: None }
}

/// Refuses everything that is not exactly one component: empty, `.`, `..`, anything with `/` (a trailing one follows links) or NUL.
pub(super) fn check_component(call: &'static str, name: &[u8]) -> Result<(), VolumeError> {
    let single = !name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/') && !name.contains(&0);
    if single { Ok(()) } else { Err(refusal(call, VolumeErrorKind::OutsideRoot)) }
}

/// Repeats a call that a signal interrupted.
pub(super) fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Opens one component beneath `dir`. `name` was checked.
pub(super) fn open_beneath(
    dir: BorrowedFd<'_>,
    name: &[u8],
    flags: OFlags,
    mode: Mode,
    cross_mounts: bool,
) -> Result<OwnedFd, Errno> {
    let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    if !cross_mounts {
        resolve |= ResolveFlags::NO_XDEV;
    }
    let mut attempts = 0;
    loop {
        match rustix::fs::openat2(dir, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, mode, resolve) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if attempts < RESOLVE_ATTEMPTS_MAX => attempts += 1,
            other => return other,
        }
    }
}

/// The same with `O_NOATIME`, and without where the kernel keeps that for the owner.
pub(super) fn open_beneath_noatime(
    dir: BorrowedFd<'_>,
    name: &[u8],
    flags: OFlags,
    cross_mounts: bool,
) -> Result<OwnedFd, Errno> {
    match open_beneath(dir, name, flags | OFlags::NOATIME, Mode::empty(), cross_mounts) {
        Err(Errno::PERM) => open_beneath(dir, name, flags, Mode::empty(), cross_mounts),
        other => other,
    }
}

/// The path under which procfs shows a descriptor of ours.
///
/// It is the one path with a magic link that this room uses. It is safe because the link is not read as text: the kernel jumps to
/// the very inode that the descriptor pins, which was opened beneath the root without links, so nobody can make it lead elsewhere.
pub(super) fn proc_path(fd: BorrowedFd<'_>) -> CString {
    CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap_or_default()
}

/// Opens once more what a descriptor of ours pins, by the magic link of [`proc_path`].
///
/// Looked up below a handle on `/proc/self/fd` that is kept: walking there anew costs 1.1 of the 5.7 µs that it takes to open a small
/// file. A handle shows the descriptors of the process that opened it, so a forked child goes the long way.
pub(super) fn reopen(fd: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd, Errno> {
    static SHOWN: OnceLock<Option<Shown>> = OnceLock::new();
    let shown = SHOWN.get_or_init(|| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = retry(|| rustix::fs::open(c"/proc/self/fd", flags, Mode::empty())).ok()?;
        Some(Shown { process: getpid(), handle })
    });
    reopen_by(shown.as_ref(), fd, flags)
}

/// `/proc/self/fd`, and whose it is.
struct Shown {
    process: Pid,
    handle: OwnedFd,
}

fn reopen_by(shown: Option<&Shown>, fd: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd, Errno> {
    match shown {
        Some(Shown { process, handle }) if *process == getpid() => {
            let name = DecInt::from_fd(fd);
            retry(|| rustix::fs::openat(handle, name.as_c_str(), flags, Mode::empty()))
        }
        _ => {
            let path = proc_path(fd);
            retry(|| rustix::fs::open(path.as_c_str(), flags, Mode::empty()))
        }
    }
}

/// An errno of a call on [`proc_path`]: `ENOENT` says that procfs is absent, never that the file vanished.
pub(super) fn proc_error(call: &'static str, errno: Errno) -> VolumeError {
    if errno == Errno::NOENT {
        return VolumeError { kind: VolumeErrorKind::Unsupported, call, errno: Some(errno.raw_os_error()) };
    }
    error(call, errno)
}

/// State of an entry, without following a link or mounting an automount, from the attribute cache where the filesystem has one.
pub(super) fn stat_at(call: &'static str, dir: BorrowedFd<'_>, name: &[u8]) -> Result<Stat, VolumeError> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let raw = retry(|| rustix::fs::statx(dir, name, flags, StatxFlags::BASIC_STATS)).map_err(|errno| error(call, errno))?;
    convert(call, &raw)
}

/// State through a descriptor (`O_PATH` too), as fresh as `stat` would give it.
pub(super) fn stat_fd(call: &'static str, fd: BorrowedFd<'_>) -> Result<Stat, VolumeError> {
    let raw =
        retry(|| rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)).map_err(|errno| error(call, errno))?;
    convert(call, &raw)
}

fn convert(call: &'static str, raw: &Statx) -> Result<Stat, VolumeError> {
    let kind = match FileType::from_raw_mode(u32::from(raw.stx_mode)) {
        FileType::Directory => Kind::Directory,
        FileType::RegularFile => Kind::File,
        FileType::Symlink => Kind::Symlink,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::CharacterDevice => Kind::CharDevice,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        _ => return Err(refusal(call, VolumeErrorKind::Unsupported)),
    };
    let is_device = matches!(kind, Kind::BlockDevice | Kind::CharDevice);
    Ok(Stat {
        kind,
        mode: u32::from(raw.stx_mode) & 0o7777,
        uid: raw.stx_uid,
        gid: raw.stx_gid,
        size_bytes: raw.stx_size,
        allocated_bytes: raw.stx_blocks.saturating_mul(512),
        mtime: time(raw.stx_mtime),
        ctime: time(raw.stx_ctime),
        inode: raw.stx_ino,
        device: rustix::fs::makedev(raw.stx_dev_major, raw.stx_dev_minor),
        links: u64::from(raw.stx_nlink),
        rdev: if is_device { (raw.stx_rdev_major, raw.stx_rdev_minor) } else { (0, 0) },
    })
}

fn time(raw: StatxTimestamp) -> Time {
    Time { secs: raw.tv_sec, nanos: raw.tv_nsec.min(999_999_999) }
}

/// An `O_PATH` handle on an entry of any kind, and its state: opening it has no effect on a device or FIFO and never blocks.
pub(super) fn handle(
    call: &'static str,
    dir: BorrowedFd<'_>,
    name: &[u8],
    cross_mounts: bool,
) -> Result<(OwnedFd, Stat), VolumeError> {
    check_component(call, name)?;
    let fd = open_beneath(dir, name, OFlags::PATH, Mode::empty(), cross_mounts).map_err(|errno| error(call, errno))?;
    let stat = stat_fd(call, fd.as_fd())?;
    Ok((fd, stat))
}

/// Lets this process hold as many descriptors as the hard limit allows; returns the soft limit before and after.
///
/// Every open directory is one descriptor, so a walk that keeps its chain open needs depth + a few: the customary 1 024 do not
/// reach depth 3 000. To be called once, when a process starts.
pub fn raise_descriptor_limit() -> (Option<u64>, Option<u64>) {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    (limit.current, if raised.is_ok() { limit.maximum } else { limit.current })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::process::{Command, Stdio};

    #[test]
    fn a_descriptor_is_opened_again_whoever_showed_descriptors_first() {
        let folder = tempfile::tempdir().unwrap();
        let (mine, its) = (folder.path().join("mine"), folder.path().join("its"));
        let file = File::create(&mine).unwrap();
        let mut child = Command::new("sleep")
            .arg("1000")
            .stdin(File::create(&its).unwrap())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let shown = |process: Pid| {
            let path = format!("/proc/{}/fd", process.as_raw_nonzero());
            let handle = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
            Shown { process, handle }
        };
        let inode = |fd: BorrowedFd<'_>| stat_fd("test", fd).unwrap().inode;
        let of_child = shown(Pid::from_child(&child));
        // What the child shows under our number is nothing, or a file of its own.
        for shown in [None, Some(of_child), Some(shown(getpid()))] {
            let again = reopen_by(shown.as_ref(), file.as_fd(), OFlags::RDONLY).unwrap();
            assert_eq!(inode(again.as_fd()), inode(file.as_fd()));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
