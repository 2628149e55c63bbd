//! Owner, mode, extended attributes and times of an entry, read and set.
//!
//! Promises the one order that keeps them all (owner, mode, xattrs, mode again, times), that what the filesystem refused or silently
//! did otherwise is named as a [`Loss`], and that setuid and setgid are never given to a file whose owner could not be given. ACLs
//! travel as `system.posix_acl_*`, capabilities as `security.capability`. Does not know what a policy allows.

use std::cell::RefCell;
use std::ffi::CString;
use std::os::fd::BorrowedFd;
use std::sync::OnceLock;

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::sys::{error, proc_error, proc_path, retry, stat_fd};
use crate::volume::{Kind, Loss, Metadata, Name, OWNER_UNCHANGED, Stat, VolumeError};

/// The kernel's bound of a list of names and of one value: with this much room neither call can say ERANGE.
const XATTR_BYTES_MAX: usize = 65_536;

/// setuid and setgid.
const SET_ID_BITS: u32 = 0o6000;

/// Whom a file belongs to that this process makes, in most directories: a look at it afterwards tells where that was wrong.
static OWN: OnceLock<(u32, u32)> = OnceLock::new();

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// How an entry is held while its metadata is read or set.
#[derive(Clone, Copy, Debug)]
pub(super) enum Access<'a> {
    /// Open to read or write.
    Fd(BorrowedFd<'a>),
    /// By an `O_PATH` handle: a link, a device, a FIFO, or something that we may not or should not open. What the kernel refuses on
    /// such a handle (chmod, xattrs) goes through [`proc_path`], with the calls that follow its magic link: they act on the pinned
    /// inode itself, also when that is a symbolic link.
    Handle(BorrowedFd<'a>),
}

impl<'a> Access<'a> {
    fn fd(self) -> BorrowedFd<'a> {
        match self {
            Self::Fd(fd) | Self::Handle(fd) => fd,
        }
    }

    fn list(self, buf: &mut [u8]) -> Result<usize, Errno> {
        retry(|| match self {
            Self::Fd(fd) => rustix::fs::flistxattr(fd, &mut *buf),
            Self::Handle(fd) => rustix::fs::listxattr(proc_path(fd), &mut *buf),
        })
    }

    fn get(self, name: &[u8], buf: &mut [u8]) -> Result<usize, Errno> {
        retry(|| match self {
            Self::Fd(fd) => rustix::fs::fgetxattr(fd, name, &mut *buf),
            Self::Handle(fd) => rustix::fs::getxattr(proc_path(fd), name, &mut *buf),
        })
    }

    fn set(self, name: &[u8], value: &[u8]) -> Result<(), Errno> {
        retry(|| match self {
            Self::Fd(fd) => rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()),
            Self::Handle(fd) => rustix::fs::setxattr(proc_path(fd), name, value, XattrFlags::empty()),
        })
    }

    fn remove(self, name: &[u8]) -> Result<(), Errno> {
        retry(|| match self {
            Self::Fd(fd) => rustix::fs::fremovexattr(fd, name),
            Self::Handle(fd) => rustix::fs::removexattr(proc_path(fd), name),
        })
    }

    fn chown(self, uid: Option<Uid>, gid: Option<Gid>) -> Result<(), Errno> {
        retry(|| match self {
            Self::Fd(fd) => rustix::fs::fchown(fd, uid, gid),
            Self::Handle(fd) => rustix::fs::chownat(fd, c"", uid, gid, AtFlags::EMPTY_PATH),
        })
    }

    fn chmod(self, mode: u32) -> Result<(), Errno> {
        let mode = Mode::from_raw_mode(mode);
        retry(|| match self {
            Self::Fd(fd) => rustix::fs::fchmod(fd, mode),
            Self::Handle(fd) => rustix::fs::chmod(proc_path(fd), mode),
        })
    }

    fn utimens(self, times: &Timestamps) -> Result<(), Errno> {
        retry(|| match self {
            Self::Fd(fd) => rustix::fs::futimens(fd, times),
            Self::Handle(fd) => rustix::fs::utimensat(fd, c"", times, AtFlags::EMPTY_PATH),
        })
    }
}

/// XFS shows its ACLs a second time, in its own encoding, to those who may see `trusted.*`; the portable name carries them already.
fn is_alias(name: &[u8]) -> bool {
    name.starts_with(b"trusted.SGI_ACL_")
}

/// All extended attributes, ascending by name. One that vanishes between list and value is not there; a filesystem without them
/// has none; one that cannot be read is an error, never left out.
pub(super) fn xattrs(access: Access<'_>) -> Result<Vec<(Name, Vec<u8>)>, VolumeError> {
    let fail = |call, errno| match access {
        Access::Fd(_) => error(call, errno),
        Access::Handle(_) => proc_error(call, errno),
    };
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(XATTR_BYTES_MAX, 0);
        let length_bytes = match access.list(buffer) {
            Ok(length_bytes) => length_bytes,
            Err(Errno::NOTSUP) => return Ok(Vec::new()),
            Err(errno) => return Err(fail("list xattrs", errno)),
        };
        let list = buffer.get(..length_bytes).unwrap_or_default();
        let mut names: Vec<Name> =
            list.split(|&byte| byte == 0).filter(|n| !n.is_empty() && !is_alias(n)).map(<[u8]>::to_vec).collect();
        names.sort_unstable();
        names.dedup();
        let mut found = Vec::with_capacity(names.len());
        for name in names {
            match access.get(&name, buffer) {
                Ok(length_bytes) => found.push((name, buffer.get(..length_bytes).unwrap_or_default().to_vec())),
                Err(Errno::NODATA) => {}
                Err(errno) => return Err(fail("read xattr", errno)),
            }
        }
        Ok(found)
    })
}

/// What a restore takes away when the snapshot does not have it: all that users and administrators put there. Labels of security
/// modules come by themselves and stay.
fn is_ours_to_remove(name: &[u8]) -> bool {
    name.starts_with(b"user.")
        || name.starts_with(b"trusted.")
        || name.starts_with(b"system.posix_acl_")
        || name == b"security.capability"
}

fn why(errno: Errno) -> String {
    std::io::Error::from_raw_os_error(errno.raw_os_error()).to_string()
}

fn xattr_label(name: &[u8]) -> String {
    format!("xattr {}", String::from_utf8_lossy(name))
}

/// Gives an entry its metadata; returns what it did not get.
///
/// # Errors
/// Only when the entry's state cannot be asked at all; every refusal of a single attribute is a [`Loss`].
pub(super) fn set(access: Access<'_>, metadata: &Metadata) -> Result<Vec<Loss>, VolumeError> {
    let mut losses = Vec::new();
    let before = stat_fd("set metadata", access.fd())?;
    if is_as_wanted(access, &before, metadata) {
        return Ok(losses);
    }

    let owner_given = set_owner(access, &before, metadata, &mut losses);
    let mut mode = metadata.mode & 0o7777;
    if !owner_given && before.kind != Kind::Directory && mode & SET_ID_BITS != 0 {
        mode &= !SET_ID_BITS;
        losses.push(Loss {
            what: "setuid and setgid".to_owned(),
            why: "they would lend the rights of another owner than the recorded one".to_owned(),
        });
    }
    if before.kind != Kind::Symlink {
        // Without privilege, `user.*` needs write permission even through an open descriptor: 0400 has to wait. And before the ACL
        // is there, its mask (the group's bits) must be: chmod first. What setting an ACL did to the mode, the second chmod mends.
        let passing = (mode & 0o777) | 0o600;
        let mut given = access.chmod(passing);
        set_xattrs(access, metadata, &mut losses);
        if passing != mode || has_acl(metadata) {
            given = access.chmod(mode);
        }
        if let Err(errno) = given {
            losses.push(Loss { what: "mode".to_owned(), why: why(errno) });
        }
    } else {
        set_xattrs(access, metadata, &mut losses);
    }
    let stamp = Timespec { tv_sec: metadata.mtime.secs, tv_nsec: metadata.mtime.nanos.into() };
    if let Err(errno) = access.utimens(&Timestamps { last_access: stamp, last_modification: stamp }) {
        losses.push(Loss { what: "times".to_owned(), why: why(errno) });
    }

    let after = stat_fd("set metadata", access.fd())?;
    name_silent_differences(&after, metadata, mode, &mut losses);
    Ok(losses)
}

/// Whether an entry surely has no attributes. Its last component is not followed, the directory is pinned, and nothing of it is read but
/// how long the list of names is.
pub(super) fn is_without_xattrs(dir: BorrowedFd<'_>, name: &[u8]) -> bool {
    let Ok(entry) = CString::new(name) else { return false };
    match longshore_kernels::xattr::list_bytes_at(dir, &entry) {
        Some(answer) => {
            answer.map_or_else(|error| error.raw_os_error() == Some(Errno::NOTSUP.raw_os_error()), |bytes| bytes == 0)
        }
        None => lists_nothing(dir, name),
    }
}

/// The same where the kernel takes no name beside a directory.
pub(super) fn lists_nothing(dir: BorrowedFd<'_>, name: &[u8]) -> bool {
    let Ok(path) = CString::new([proc_path(dir).as_bytes(), b"/", name].concat()) else { return false };
    // A name takes two bytes at least: with room for one, any is ERANGE.
    let mut room = [0; 1];
    matches!(retry(|| rustix::fs::llistxattr(&path, &mut room[..])), Ok(0) | Err(Errno::NOTSUP))
}

/// Whether files made in a directory get no ACL from it.
pub(super) fn gives_no_acl(dir: BorrowedFd<'_>) -> bool {
    let mut room = [0; 1];
    matches!(retry(|| rustix::fs::fgetxattr(dir, "system.posix_acl_default", &mut room[..])), Err(Errno::NODATA | Errno::NOTSUP))
}

/// Gives a file that was just made, and has no attributes, its metadata by the fewest calls: three, and one where the owner is another.
/// False: it must go the careful way, which also names what is refused.
pub(super) fn set_bare(fd: BorrowedFd<'_>, metadata: &Metadata) -> bool {
    let mode = metadata.mode & 0o7777;
    if !metadata.xattrs.is_empty() || mode & SET_ID_BITS != 0 {
        return false;
    }
    let access = Access::Fd(fd);
    let own = *OWN.get_or_init(|| (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()));
    let other = |wanted: u32, own: u32| wanted != OWNER_UNCHANGED && wanted != own;
    let uid = other(metadata.uid, own.0).then(|| Uid::from_raw(metadata.uid));
    let gid = other(metadata.gid, own.1).then(|| Gid::from_raw(metadata.gid));
    let stamp = Timespec { tv_sec: metadata.mtime.secs, tv_nsec: metadata.mtime.nanos.into() };
    ((uid.is_none() && gid.is_none()) || access.chown(uid, gid).is_ok())
        && access.chmod(mode).is_ok()
        && access.utimens(&Timestamps { last_access: stamp, last_modification: stamp }).is_ok()
        && stat_fd("set metadata", fd).is_ok_and(|after| metadata.is_of(&after))
}

/// Whether nothing needs to be set: what is equal already is not written, not even to the inode.
fn is_as_wanted(access: Access<'_>, now: &Stat, metadata: &Metadata) -> bool {
    metadata.is_of(now)
        && xattrs(access).is_ok_and(|current| {
            metadata.xattrs.iter().all(|wanted| current.contains(wanted))
                && current
                    .iter()
                    .all(|(name, _)| !is_ours_to_remove(name) || metadata.xattrs.iter().any(|(wanted, _)| wanted == name))
        })
}

fn has_acl(metadata: &Metadata) -> bool {
    metadata.xattrs.iter().any(|(name, _)| name.starts_with(b"system.posix_acl_access"))
}

/// Whether the entry has the recorded owner and group afterwards, or none was recorded.
fn set_owner(access: Access<'_>, before: &Stat, metadata: &Metadata, losses: &mut Vec<Loss>) -> bool {
    let want = |recorded: u32, current: u32| recorded != OWNER_UNCHANGED && recorded != current;
    let uid = want(metadata.uid, before.uid).then(|| Uid::from_raw(metadata.uid));
    let gid = want(metadata.gid, before.gid).then(|| Gid::from_raw(metadata.gid));
    if uid.is_none() && gid.is_none() {
        return true;
    }
    let Err(errno) = access.chown(uid, gid) else { return reads_back(access, metadata) };
    losses.push(Loss { what: "owner".to_owned(), why: why(errno) });
    if uid.is_some() && gid.is_some() {
        // An ordinary user may not give a file away but may give it to another of their groups.
        let _ = access.chown(None, gid);
    }
    false
}

fn reads_back(access: Access<'_>, metadata: &Metadata) -> bool {
    stat_fd("set owner", access.fd()).is_ok_and(|now| {
        (metadata.uid == OWNER_UNCHANGED || metadata.uid == now.uid)
            && (metadata.gid == OWNER_UNCHANGED || metadata.gid == now.gid)
    })
}

fn set_xattrs(access: Access<'_>, metadata: &Metadata, losses: &mut Vec<Loss>) {
    // Where what is there cannot be told, what is wanted can still be set.
    let current = xattrs(access).unwrap_or_default();
    for (name, _) in &current {
        if is_ours_to_remove(name) && !metadata.xattrs.iter().any(|(wanted, _)| wanted == name) {
            match access.remove(name) {
                Ok(()) | Err(Errno::NODATA) => {}
                Err(errno) => losses.push(Loss { what: xattr_label(name), why: format!("cannot remove: {}", why(errno)) }),
            }
        }
    }
    for (name, value) in &metadata.xattrs {
        if current.iter().any(|(have, content)| have == name && content == value) {
            continue;
        }
        if let Err(errno) = access.set(name, value) {
            losses.push(Loss { what: xattr_label(name), why: why(errno) });
        }
    }
}

/// Squashing exports and odd filesystems say yes and do nothing.
fn name_silent_differences(after: &Stat, metadata: &Metadata, mode: u32, losses: &mut Vec<Loss>) {
    let mut note = |what: &str, why: String| {
        if !losses.iter().any(|loss| loss.what == what) {
            losses.push(Loss { what: what.to_owned(), why });
        }
    };
    let uid = if metadata.uid == OWNER_UNCHANGED { after.uid } else { metadata.uid };
    let gid = if metadata.gid == OWNER_UNCHANGED { after.gid } else { metadata.gid };
    if (after.uid, after.gid) != (uid, gid) {
        note("owner", format!("the filesystem kept another: uid={}, gid={}", after.uid, after.gid));
    }
    if after.kind != Kind::Symlink && after.mode != mode {
        note("mode", format!("the filesystem kept another: mode={:04o}", after.mode));
    }
    if after.mtime != metadata.mtime {
        note("times", format!("the filesystem kept another: seconds={}, nanos={}", after.mtime.secs, after.mtime.nanos));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Time;

    /// A squashing export cannot be mounted in a unit test, so the state after it is made up.
    #[test]
    fn what_a_filesystem_kept_silently_is_named() {
        let time = Time { secs: 1, nanos: 0 };
        let after = Stat {
            kind: Kind::File,
            mode: 0o755,
            uid: 65_534,
            gid: 65_534,
            size_bytes: 0,
            allocated_bytes: 0,
            mtime: time,
            ctime: time,
            inode: 1,
            device: 1,
            links: 1,
            rdev: (0, 0),
        };
        let wanted =
            Metadata { mode: 0o750, uid: 1, gid: OWNER_UNCHANGED, mtime: Time { secs: 1, nanos: 5 }, xattrs: Vec::new() };
        let mut losses = vec![Loss { what: "mode".to_owned(), why: "said before".to_owned() }];
        name_silent_differences(&after, &wanted, wanted.mode, &mut losses);
        let named: Vec<&str> = losses.iter().map(|loss| loss.what.as_str()).collect();
        assert_eq!(named, ["mode", "owner", "times"]);

        let same = Metadata { mode: 0o755, uid: 65_534, gid: 65_534, mtime: time, xattrs: Vec::new() };
        let mut losses = Vec::new();
        name_silent_differences(&after, &same, same.mode, &mut losses);
        assert_eq!(losses, []);
    }
}
