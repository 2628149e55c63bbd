//! What is there of a session: whether the one that wrote something runs still, has ended, was deleted, or is lost.
//!
//! A usage table bears the name of the session that wrote it, and backups alone write them. Such a session has its marker until it has ended, from then
//! on `snapshots/<s>`, and once that is deleted `removed/<s>` for ever; each is there before the one before it goes (docs/format.md chapter 12). One
//! of which none is there has lost its snapshot, and of the newest snapshot nothing else tells: no younger one names it.

use super::{Repository, list};
use crate::error::Result;
use longshore_format::id::{SessionId, UsageName};
use longshore_format::session::session_key;
use longshore_format::snapshot::snapshot_key;
use std::collections::BTreeSet;

/// What became of a session that had begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trace {
    /// Its marker is there.
    Open,
    /// It has committed, or was given up or fenced.
    Ended,
    /// Its snapshot was deleted.
    Removed,
    /// Nothing of it is there.
    Lost,
}

impl Repository {
    /// The sessions whose usage tables are listed. Who compares them with other listings makes those afterwards: a session that writes a table
    /// has begun, and what ends in between leaves a trace that is asked for.
    pub(crate) fn table_writers(&self) -> Result<BTreeSet<SessionId>> {
        let mut out = BTreeSet::new();
        list(&*self.store, "usage/", |entry| {
            let name = entry.key.as_str().strip_prefix("usage/").and_then(|n| UsageName::from_hex(n).ok());
            out.extend(name.map(|name| name.session()));
            Ok(())
        })?;
        Ok(out)
    }

    /// What is there of a session that had begun. Asked in the order in which it comes and goes, so that what ends or is deleted meanwhile is not
    /// taken for lost.
    pub(crate) fn trace_of(&self, session: SessionId) -> Result<Trace> {
        if self.has(&session_key(session))? {
            return Ok(Trace::Open);
        }
        if self.has(&snapshot_key(session))? {
            return Ok(Trace::Ended);
        }
        Ok(if self.is_removed(session)? { Trace::Removed } else { Trace::Lost })
    }
}
