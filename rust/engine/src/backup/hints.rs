//! What somebody outside knows of what may have changed in files since the parent snapshot: changed-block tracking, a filesystem's own
//! differences.
//!
//! Hints serve one purpose: bytes of a file that is to be read anyway are left unread where a hint says that they are as they were. They are
//! taken for the parent snapshot that they name alone, for a file that is still exactly what it was when its hint was taken, and for content
//! that the parent had whole; a chunk that is not in the repository is read whatever a hint says. Any other hint is ignored, counted and told.
//! A file without a hint is read as if there were none. That a hint is true nobody can see: who gives one answers for it.

use super::Notes;
use super::drift::TICK_NANOS;
use crate::volume::Stat;
use longshore_format::SessionId;
use longshore_format::tree::{Entry, Item, Node};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

/// Hints of one backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// Since which snapshot they say what changed.
    pub since: Option<SessionId>,
    /// When whoever made them had asked what changed, by this machine's clock.
    pub taken_nanos: i64,
    /// Hints that were given and could not be understood: they count as ignored.
    pub unreadable: u64,
    /// By path from the volume's root, without a leading slash.
    pub files: BTreeMap<Vec<u8>, FileHint>,
}

/// What may have changed in one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileHint {
    /// Its length, before it was asked what changed.
    pub size_bytes: u64,
    /// Its modification time, likewise.
    pub mtime_nanos: i64,
    /// Its change time, likewise.
    pub ctime_nanos: i64,
    /// Offset and length of each range outside of which nothing has changed.
    pub ranges: Vec<(u64, u64)>,
}

fn nanos(secs: i64, nanos: u32) -> Option<i64> {
    secs.checked_mul(1_000_000_000)?.checked_add(i64::from(nanos))
}

impl FileHint {
    /// Its ranges in order and joined; none when one of them is not in the file.
    fn ordered(&self) -> Option<Vec<(u64, u64)>> {
        let mut ends = Vec::with_capacity(self.ranges.len());
        for (offset, length) in &self.ranges {
            ends.push((*offset, offset.checked_add(*length).filter(|end| *end <= self.size_bytes)?));
        }
        ends.retain(|(start, end)| start < end);
        ends.sort_unstable();
        let mut joined: Vec<(u64, u64)> = Vec::with_capacity(ends.len());
        for (start, end) in ends {
            match joined.last_mut() {
                Some((_, last)) if start <= *last => *last = end.max(*last),
                _ => joined.push((start, end)),
            }
        }
        Some(joined)
    }
}

/// What of a file may have changed: from offset to end, ascending, apart.
pub(crate) type Dirty = Vec<(u64, u64)>;

impl Hints {
    /// What of a file may differ from what the parent has, if that is told and can be relied on.
    pub(super) fn dirty(
        &self,
        notes: &Notes,
        parent: Option<SessionId>,
        path: &[u8],
        now: &Stat,
        before: Option<&Entry>,
    ) -> Option<Dirty> {
        let hint = self.files.get(path)?;
        let told = match self.judge(hint, parent, now, before) {
            Ok(dirty) => return Some(dirty),
            Err(why) => why,
        };
        notes.hints_ignored.fetch_add(1, Relaxed);
        tracing::warn!(path = %String::from_utf8_lossy(path), reason = told, "A hint is ignored, its file is read");
        None
    }

    fn judge(
        &self,
        hint: &FileHint,
        parent: Option<SessionId>,
        now: &Stat,
        before: Option<&Entry>,
    ) -> Result<Dirty, &'static str> {
        if self.since.is_none() || self.since != parent {
            return Err("it is since another snapshot than the one that is compared with");
        }
        let Some(before) = before else { return Err("the file is not in the snapshot that is compared with") };
        if !matches!(before.node, Node::File { .. }) || before.inode != now.inode {
            return Err("the snapshot that is compared with has another file under this name");
        }
        if before.changed || before.incomplete {
            return Err("the snapshot that is compared with has not all of the file as it was");
        }
        let times = (nanos(now.mtime.secs, now.mtime.nanos), nanos(now.ctime.secs, now.ctime.nanos));
        if hint.size_bytes != now.size_bytes || times != (Some(hint.mtime_nanos), Some(hint.ctime_nanos)) {
            return Err("the file has changed since it was taken");
        }
        // A write after the question, in the same tick of the clock, would leave the time as it is.
        if hint.ctime_nanos.saturating_add(TICK_NANOS) >= self.taken_nanos {
            return Err("the file was written to just when it was taken");
        }
        hint.ordered().ok_or("a range is not in the file")
    }
}

/// Goes through the parent's items and says of each what of it is to be read.
#[derive(Debug)]
pub(super) struct Ranges {
    dirty: Dirty,
    next: usize,
}

impl Ranges {
    pub fn new(dirty: Dirty) -> Self {
        Self { dirty, next: 0 }
    }

    /// The first range, as offset and end, that touches `from..to`, widened to multiples of `block`. Offsets asked for only grow.
    pub fn within(&mut self, from: u64, to: u64, block: u64) -> Option<(u64, u64)> {
        let wide = |(start, end): (u64, u64)| (start - start % block, end.next_multiple_of(block));
        while self.dirty.get(self.next).is_some_and(|range| wide(*range).1 <= from) {
            self.next += 1;
        }
        let (start, end) = wide(*self.dirty.get(self.next)?);
        (start < to).then_some((start.max(from), end.min(to)))
    }
}

/// Whether an item of the parent, which begins at `at`, looks like one that a file cut by pages has.
pub(super) fn is_paged_item(item: &Item, at: u64, block: u64) -> bool {
    at.is_multiple_of(block) && item.span() <= block
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(size_bytes: u64, ranges: &[(u64, u64)]) -> FileHint {
        FileHint { size_bytes, ranges: ranges.to_vec(), ..FileHint::default() }
    }

    #[test]
    fn ranges_are_put_in_order_and_joined_and_none_may_leave_the_file() {
        assert_eq!(
            hint(100, &[(50, 10), (0, 0), (10, 5), (12, 8), (20, 1), (90, 10)]).ordered(),
            Some(vec![(10, 21), (50, 60), (90, 100)])
        );
        assert_eq!(hint(100, &[]).ordered(), Some(vec![]));
        for bad in [(90, 11), (101, 0), (u64::MAX, 1), (1, u64::MAX)] {
            assert_eq!(hint(100, &[(0, 1), bad]).ordered(), None, "{bad:?}");
        }
    }

    #[test]
    fn what_touches_an_item_is_found_in_one_pass() {
        let mut ranges = Ranges::new(vec![(5, 7), (9, 20), (30, 31)]);
        assert_eq!(ranges.within(0, 5, 1), None);
        assert_eq!(ranges.within(5, 8, 1), Some((5, 7)));
        assert_eq!(ranges.within(7, 10, 1), Some((9, 10)));
        assert_eq!(ranges.within(10, 15, 1), Some((10, 15)));
        assert_eq!(ranges.within(15, 30, 1), Some((15, 20)));
        assert_eq!(ranges.within(20, 30, 1), None);
        assert_eq!(ranges.within(20, 40, 16), Some((20, 32)));
        assert_eq!(ranges.within(32, 40, 16), None);
    }
}
