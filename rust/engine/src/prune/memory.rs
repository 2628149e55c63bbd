//! What the looks of one prune remember of one another.
//!
//! Promises to remember only what stays true once it was, so that a later look may refuse what contradicts it: a removal is never taken back, an aborted
//! session never commits, and what a listing showed is there until somebody deletes it.
//! Memory: 16 bytes for each session that was listed or asked for.

use crate::error::Result;
use crate::job::Job;
use crate::repository::{PAGE, Repository};
use longshore_format::id::SessionId;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What one more page of a listing may cost in single lookups: S3 asks twelve times the price, and five to ten times the time.
const LOOKUPS_A_PAGE: usize = 10;

/// What the looks of one prune remember of one another. Only what stays true once it was: a removal is never taken back, and an aborted session
/// never commits.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Removals that the last listing of them showed; none: they were not listed yet.
    listed: Option<Arc<BTreeSet<SessionId>>>,
    /// Removals that were asked for one by one since.
    pub(super) since: BTreeSet<SessionId>,
    pub(super) aborted: BTreeSet<SessionId>,
    /// Sessions that a look met and that were not removed then.
    met: BTreeSet<SessionId>,
    /// Everything under `snapshots/` that some listing of this prune showed: it is shown again, or deleted.
    pub(super) shown: BTreeSet<SessionId>,
    /// Sessions that were there and that no listing showed: committed a moment ago, perhaps, and then the next look shows them.
    pub(super) unlisted: BTreeSet<SessionId>,
    /// Sessions whose markers some listing showed, or that a list of open writers or the watch of an earlier prune names, until they are gone.
    pub(super) markers: BTreeSet<SessionId>,
}

impl Memory {
    /// Removals are kept for ever, and each look has to know those of what is listed, and of what was met before. It asks for these one by
    /// one where that costs less than listing all removals again. Of a session that nobody has met it may then not know the removal: that
    /// session counts as open, which keeps more.
    pub(super) fn removals(&mut self, repository: &Repository, job: &Job, listed: &BTreeSet<SessionId>) -> Result<Removed> {
        if let Some(all) = &self.listed {
            let is_new =
                |session: &SessionId| !all.contains(session) && !self.since.contains(session) && !self.aborted.contains(session);
            let asked: BTreeSet<SessionId> = listed.union(&self.met).copied().filter(is_new).collect();
            if asked.len() <= LOOKUPS_A_PAGE * all.len().div_ceil(PAGE) {
                for session in asked {
                    job.check()?;
                    if repository.is_removed(session)? {
                        self.since.insert(session);
                    }
                }
                return Ok(Removed { listed: Arc::clone(all), since: self.since.clone() });
            }
        }
        let all = Arc::new(repository.sessions_under("removed/")?);
        self.since.clear();
        self.listed = Some(Arc::clone(&all));
        Ok(Removed { listed: all, since: BTreeSet::new() })
    }

    /// Remembers what a listing of `snapshots/` showed.
    pub(super) fn show(&mut self, listed: &BTreeSet<SessionId>) {
        self.shown.extend(listed);
    }

    /// Remembers whom a look met and did not find removed: its successor asks what became of them.
    pub(super) fn meet(&mut self, sessions: impl Iterator<Item = SessionId>) {
        self.met.extend(sessions);
    }
}

/// Sessions whose snapshots were deleted.
#[derive(Clone, Debug, Default)]
pub(super) struct Removed {
    listed: Arc<BTreeSet<SessionId>>,
    pub(super) since: BTreeSet<SessionId>,
}

impl Removed {
    pub(super) fn contains(&self, session: &SessionId) -> bool {
        self.listed.contains(session) || self.since.contains(session)
    }
}
