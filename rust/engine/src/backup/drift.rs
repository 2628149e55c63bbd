//! The change test: whether a file's content is still what the parent snapshot has.
//!
//! Knows what was recorded and what `statx` says now, and nothing else: it opens no file. Promises that a file whose content may have
//! changed since it was read is told apart, as far as a kernel that keeps its clocks can tell. The grades, from the surest:
//!
//! | now, beside what was recorded | the content |
//! |---|---|
//! | all as it was, and older than the parent's start by more than a tick | stands |
//! | times not older than that | is read: a second write may hide in the tick of the first |
//! | another inode, all times as they were, in a directory that is as it was | stands: nothing was renamed there, so the filesystem has renumbered (a clone, another node) |
//! | another ctime, and with it another mode, owner, link or xattr | stands: the drift is explained |
//! | another ctime and nothing to explain it | is read: the mtime may have been set back |
//! | another size or mtime, another inode otherwise; marked changed or incomplete; paranoid | is read |

use crate::volume::{Stat, Time};
use longshore_format::tree::{self, Entry, Node};

/// A change in the same tick as the parent's look at a file would leave its times as they were. Kernels tick at 100 Hz or faster.
pub(super) const TICK_NANOS: i64 = 20_000_000;

/// What the times say of a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// It is as it was.
    Stands,
    /// It is as it was if the drift of the ctime is [`explained`].
    StandsIfExplained,
    /// Only reading tells.
    Unknown,
}

/// How to judge all files of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChangeTest {
    fresh_from_nanos: i64,
    now_nanos: i64,
    paranoid: bool,
}

fn nanos(secs: i64, nanos: u32) -> i64 {
    secs.saturating_mul(1_000_000_000).saturating_add(i64::from(nanos))
}

fn is(recorded: tree::Time, now: Time) -> bool {
    (recorded.secs, recorded.nanos) == (now.secs, now.nanos)
}

impl ChangeTest {
    /// Against a parent that began at `parent_started_nanos` (none: nothing stands), in a run that began at `now_nanos`.
    pub fn new(parent_started_nanos: Option<i64>, now_nanos: i64, paranoid: bool) -> Self {
        let fresh_from_nanos = parent_started_nanos.map_or(i64::MIN, |started| started.saturating_sub(TICK_NANOS));
        Self { fresh_from_nanos, now_nanos, paranoid }
    }

    /// The same rules against what an interrupted run noted that began at `started_nanos`.
    pub fn of_interrupted(&self, started_nanos: i64) -> Self {
        Self { fresh_from_nanos: started_nanos.saturating_sub(TICK_NANOS), ..*self }
    }

    /// Whether a second change may hide behind these times. An mtime ahead of this run was set by hand and tells nothing of when.
    pub fn is_fresh(&self, mtime: (i64, u32), ctime: (i64, u32)) -> bool {
        let (mtime, ctime) = (nanos(mtime.0, mtime.1), nanos(ctime.0, ctime.1));
        ctime >= self.fresh_from_nanos || (self.fresh_from_nanos..=self.now_nanos).contains(&mtime)
    }

    /// The grade of a file; `directory_stands`: the directory's own times are as recorded and old, so no name in it was given to
    /// another file.
    pub fn judge(&self, before: &Entry, now: &Stat, directory_stands: bool) -> Content {
        let Node::File { size_bytes, .. } = &before.node else { return Content::Unknown };
        let content_may_stand = !self.paranoid
            && !before.changed
            && !before.incomplete
            && *size_bytes == now.size_bytes
            && is(before.mtime, now.mtime)
            // What was recorded is asked, not what is now: the doubt is whether the parent read the last of the writes that bore this time.
            && !self.is_fresh((before.mtime.secs, before.mtime.nanos), (before.ctime.secs, before.ctime.nanos));
        let same_inode = before.inode == now.inode;
        match (content_may_stand, is(before.ctime, now.ctime)) {
            (true, true) if same_inode || directory_stands => Content::Stands,
            (true, false) if same_inode => Content::StandsIfExplained,
            _ => Content::Unknown,
        }
    }

    /// Whether a directory's own times are as recorded, and old: no name in it was added, removed or given to another file.
    pub fn directory_stands(&self, before: &Entry, now: &Stat) -> bool {
        is(before.mtime, now.mtime)
            && is(before.ctime, now.ctime)
            && !self.is_fresh((now.mtime.secs, now.mtime.nanos), (now.ctime.secs, now.ctime.nanos))
    }
}

/// Whether metadata that was recorded has changed, so that a new ctime needs no other reason.
pub(crate) fn explained(before: &Entry, now: &Stat, xattrs: &[(Vec<u8>, Vec<u8>)]) -> bool {
    before.mode != now.mode
        || before.uid != now.uid
        || before.gid != now.gid
        || before.link_device.is_some() != (now.links > 1)
        || before.xattrs != xattrs
}

/// When content and when anything of an entry was last changed, as (seconds, nanoseconds).
pub(super) fn times(stat: &Stat) -> ((i64, u32), (i64, u32)) {
    ((stat.mtime.secs, stat.mtime.nanos), (stat.ctime.secs, stat.ctime.nanos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Kind;

    /// When the parent began.
    const STARTED: i64 = 1_000_000_000_000_000_000;
    const OLD: Time = Time { secs: 900_000_000, nanos: 7 };
    const LATER: Time = Time { secs: 1_000_000_500, nanos: 0 };

    fn test() -> ChangeTest {
        ChangeTest::new(Some(STARTED), STARTED + 1_000_000_000_000, false)
    }

    fn stat() -> Stat {
        Stat {
            kind: Kind::File,
            mode: 0o644,
            uid: 1,
            gid: 2,
            size_bytes: 10,
            allocated_bytes: 4096,
            mtime: OLD,
            ctime: OLD,
            inode: 5,
            device: 6,
            links: 1,
            rdev: (0, 0),
        }
    }

    fn recorded(stat: &Stat) -> Entry {
        super::super::tree::entry_of(
            b"f",
            stat,
            Vec::new(),
            false,
            Node::File { size_bytes: stat.size_bytes, content: Vec::new() },
        )
    }

    fn at(nanos: i64) -> Time {
        Time { secs: nanos.div_euclid(1_000_000_000), nanos: nanos.rem_euclid(1_000_000_000) as u32 }
    }

    #[test]
    fn what_is_as_it_was_stands_and_nothing_stands_without_a_parent_or_in_paranoia() {
        let before = recorded(&stat());
        assert_eq!(test().judge(&before, &stat(), false), Content::Stands);
        assert_eq!(ChangeTest::new(None, STARTED, false).judge(&before, &stat(), true), Content::Unknown);
        assert_eq!(ChangeTest::new(Some(STARTED), STARTED, true).judge(&before, &stat(), true), Content::Unknown);
        let marked = Entry { changed: true, ..before.clone() };
        assert_eq!(test().judge(&marked, &stat(), true), Content::Unknown);
        let cut = Entry { incomplete: true, ..before };
        assert_eq!(test().judge(&cut, &stat(), true), Content::Unknown);
    }

    #[test]
    fn another_size_or_mtime_is_read() {
        let before = recorded(&stat());
        for now in [Stat { size_bytes: 11, ..stat() }, Stat { mtime: LATER, ..stat() }, Stat { mtime: at(-5), ..stat() }] {
            assert_eq!(test().judge(&before, &now, true), Content::Unknown, "{now:?}");
        }
    }

    #[test]
    fn a_ctime_alone_wants_an_explanation() {
        let before = recorded(&stat());
        let now = Stat { ctime: LATER, ..stat() };
        assert_eq!(test().judge(&before, &now, true), Content::StandsIfExplained);
        assert!(!explained(&before, &now, &[]), "an mtime set back after a write looks just so");
        for told in [
            Stat { mode: 0o600, ..now.clone() },
            Stat { uid: 9, ..now.clone() },
            Stat { gid: 9, ..now.clone() },
            Stat { links: 2, ..now.clone() },
        ] {
            assert!(explained(&before, &told, &[]), "{told:?}");
        }
        assert!(explained(&before, &now, &[(b"user.a".to_vec(), b"1".to_vec())]));
        // Beside another inode no explanation helps.
        assert_eq!(test().judge(&before, &Stat { inode: 8, uid: 9, ..now }, true), Content::Unknown);
    }

    #[test]
    fn what_was_fresh_when_it_was_recorded_is_read_whatever_explains_its_ctime_now() {
        for offset in [-TICK_NANOS, 0, TICK_NANOS] {
            let fresh = Stat { ctime: at(STARTED + offset), ..stat() };
            assert_eq!(test().judge(&recorded(&fresh), &fresh, true), Content::Unknown, "ctime {offset}");
            let chowned = Stat { uid: 9, ctime: at(STARTED + 1_000_000_000), ..fresh.clone() };
            assert_eq!(test().judge(&recorded(&fresh), &chowned, true), Content::Unknown, "chown {offset}");
            let written = Stat { mtime: at(STARTED + offset), ..stat() };
            assert_eq!(test().judge(&recorded(&written), &written, true), Content::Unknown, "mtime {offset}");
        }
        let just_older = Stat { ctime: at(STARTED - TICK_NANOS - 1), ..stat() };
        assert_eq!(test().judge(&recorded(&just_older), &just_older, false), Content::Stands);
        let ahead = Stat { mtime: at(STARTED + 2_000_000_000_000), ..stat() };
        assert_eq!(test().judge(&recorded(&ahead), &ahead, false), Content::Stands, "set by hand into the future");
    }

    #[test]
    fn another_inode_is_learned_only_where_the_directory_has_not_changed() {
        let before = recorded(&stat());
        let now = Stat { inode: 77, ..stat() };
        assert_eq!(test().judge(&before, &now, true), Content::Stands, "a clone renumbers");
        assert_eq!(test().judge(&before, &now, false), Content::Unknown, "another file may have taken the name");
        let directory = Stat { kind: Kind::Directory, ..stat() };
        let entry = super::super::tree::entry_of(b"d", &directory, Vec::new(), false, Node::Directory { content: Vec::new() });
        assert!(test().directory_stands(&entry, &Stat { inode: 3, ..directory.clone() }));
        assert!(!test().directory_stands(&entry, &Stat { mtime: LATER, ..directory.clone() }));
        assert!(!test().directory_stands(&entry, &Stat { ctime: LATER, ..directory }));
    }
}
