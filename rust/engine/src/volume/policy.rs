//! What a restore may give to an entry: a pure function from recorded metadata to allowed metadata.
//!
//! Holds [`RestorePolicy`] and its two usual forms. Promises that whatever it takes away is named in a [`Loss`], and that an owner
//! that no file can have is taken away always. Does not know whether the filesystem will accept what is left.

use super::{Kind, Loss, Metadata, OWNER_UNCHANGED};

/// What a restore may apply of the things that lend rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is one switch of an operator's")]
pub struct RestorePolicy {
    /// setuid and setgid on anything but directories. On a directory setgid is inheritance of the group, lends nobody a right, and
    /// volumes with an `fsGroup` live by it: it is always kept.
    pub allow_setuid: bool,
    /// Block and character devices.
    pub allow_devices: bool,
    /// `security.capability`.
    pub allow_capabilities: bool,
    /// `trusted.*`.
    pub allow_trusted_xattrs: bool,
    /// `security.*` but capabilities: labels of SELinux and other modules, integrity signatures.
    pub allow_selinux: bool,
    /// Owner and group. Without it everything belongs to who restores, and setuid and setgid go too.
    pub restore_owner: bool,
}

impl RestorePolicy {
    /// Everything that the caller may set: a restore on the command line, where who restores answers for the repository.
    #[must_use]
    pub const fn everything() -> Self {
        Self {
            allow_setuid: true,
            allow_devices: true,
            allow_capabilities: true,
            allow_trusted_xattrs: true,
            allow_selinux: true,
            restore_owner: true,
        }
    }

    /// The node agent's: it is root, the repository may hold what another tenant wrote, and the volume is handed to a pod. Owners
    /// and plain modes are kept, whatever lends rights beyond them is not: a pod that could not have made a device, a setuid-root
    /// program or a label by itself does not get one from its backup.
    #[must_use]
    pub const fn confined() -> Self {
        Self {
            allow_setuid: false,
            allow_devices: false,
            allow_capabilities: false,
            allow_trusted_xattrs: false,
            allow_selinux: false,
            restore_owner: true,
        }
    }

    /// Whether an entry of this kind may be made at all; the loss to name when not.
    ///
    /// # Errors
    /// The loss `special file` for a device that the policy forbids.
    pub fn admit(&self, kind: Kind) -> Result<(), Loss> {
        if matches!(kind, Kind::BlockDevice | Kind::CharDevice) && !self.allow_devices {
            return Err(loss("special file", "devices are not restored by policy"));
        }
        Ok(())
    }

    /// The metadata that may be applied, and what was taken away.
    #[must_use]
    pub fn filter(&self, metadata: &Metadata, kind: Kind) -> (Metadata, Vec<Loss>) {
        let mut allowed = metadata.clone();
        let mut losses = Vec::new();
        if !self.restore_owner {
            allowed.uid = OWNER_UNCHANGED;
            allowed.gid = OWNER_UNCHANGED;
            losses.push(loss("owner", "owners are not restored by policy"));
        } else if metadata.uid == OWNER_UNCHANGED || metadata.gid == OWNER_UNCHANGED {
            losses.push(loss("owner", "the recorded number is not one that a file can have"));
        }
        let owner_is_kept = losses.is_empty();
        if kind != Kind::Directory && allowed.mode & 0o6000 != 0 && !(self.allow_setuid && owner_is_kept) {
            allowed.mode &= !0o6000;
            losses.push(loss("setuid and setgid", "not restored by policy"));
        }
        allowed.xattrs.retain(|(name, _)| {
            let permitted = self.permits_xattr(name);
            if !permitted {
                losses.push(loss(&format!("xattr {}", String::from_utf8_lossy(name)), "not restored by policy"));
            }
            permitted
        });
        (allowed, losses)
    }

    fn permits_xattr(&self, name: &[u8]) -> bool {
        if name == b"security.capability" {
            self.allow_capabilities
        } else if name.starts_with(b"security.") {
            self.allow_selinux
        } else if name.starts_with(b"trusted.") {
            self.allow_trusted_xattrs
        } else {
            true
        }
    }
}

fn loss(what: &str, why: &str) -> Loss {
    Loss { what: what.to_owned(), why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Time;

    fn loaded() -> Metadata {
        let names: [&[u8]; 5] =
            [b"security.capability", b"security.selinux", b"system.posix_acl_access", b"trusted.x", b"user.x"];
        Metadata {
            mode: 0o7755,
            uid: 7,
            gid: 8,
            mtime: Time::default(),
            xattrs: names.iter().map(|name| (name.to_vec(), vec![1])).collect(),
        }
    }

    #[test]
    fn everything_is_everything() {
        let (allowed, losses) = RestorePolicy::everything().filter(&loaded(), Kind::File);
        assert_eq!(allowed, loaded());
        assert!(losses.is_empty());
    }

    #[test]
    fn confined_names_each_thing_it_drops() {
        let (allowed, losses) = RestorePolicy::confined().filter(&loaded(), Kind::File);
        assert_eq!(allowed.mode, 0o1755);
        assert_eq!((allowed.uid, allowed.gid), (7, 8));
        let kept: Vec<&[u8]> = allowed.xattrs.iter().map(|(name, _)| name.as_slice()).collect();
        assert_eq!(kept, [b"system.posix_acl_access".as_slice(), b"user.x"]);
        let named: Vec<&str> = losses.iter().map(|loss| loss.what.as_str()).collect();
        assert_eq!(named, ["setuid and setgid", "xattr security.capability", "xattr security.selinux", "xattr trusted.x"]);
    }

    #[test]
    fn a_directory_keeps_setgid() {
        let (allowed, _) = RestorePolicy::confined().filter(&loaded(), Kind::Directory);
        assert_eq!(allowed.mode, 0o7755);
    }

    #[test]
    fn without_owners_there_is_no_setuid_either() {
        let policy = RestorePolicy { restore_owner: false, ..RestorePolicy::everything() };
        let (allowed, losses) = policy.filter(&loaded(), Kind::File);
        assert_eq!((allowed.uid, allowed.gid, allowed.mode), (OWNER_UNCHANGED, OWNER_UNCHANGED, 0o1755));
        assert_eq!(losses.len(), 2);
    }

    #[test]
    fn a_forged_owner_is_named_and_lends_nothing() {
        let forged = Metadata { uid: OWNER_UNCHANGED, ..loaded() };
        let (allowed, losses) = RestorePolicy::everything().filter(&forged, Kind::File);
        assert_eq!(losses.first().map(|loss| loss.what.as_str()), Some("owner"));
        assert_eq!(allowed.mode, 0o1755);
    }

    #[test]
    fn devices_are_admitted_only_by_policy() {
        assert!(RestorePolicy::confined().admit(Kind::BlockDevice).is_err());
        assert!(RestorePolicy::confined().admit(Kind::Fifo).is_ok());
        assert!(RestorePolicy::everything().admit(Kind::CharDevice).is_ok());
    }
}
