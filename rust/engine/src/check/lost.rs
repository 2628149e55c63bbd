//! Whether snapshots are gone that nobody deleted.
//!
//! What is listed under `snapshots/` cannot tell. Usage tables name the session that wrote them, snapshots their parents, readers what they read, and packs the session that stored
//! them, which is a prune's only where something was deleted or given up before. Promises to name no snapshot that is being made or deleted meanwhile.

use super::report::{Notes, Severity};
use crate::error::Result;
use crate::repository::Repository;
use crate::repository::snapshots::SnapshotRow;
use crate::repository::traces::Trace;
use longshore_format::envelope::Codec;
use longshore_format::id::{PackName, SessionId};
use longshore_format::limits;
use longshore_format::session::{SessionKind, SessionMarker, session_key};
use longshore_format::snapshot::{public_id, snapshot_key};
use std::collections::BTreeSet;

/// Names what is gone; `writers` of usage tables were listed before the snapshots of `rows`, and `packs` at any time.
pub(crate) fn look<'a>(
    repository: &Repository,
    writers: &BTreeSet<SessionId>,
    rows: &[SnapshotRow],
    packs: impl Iterator<Item = &'a PackName>,
    notes: &Notes,
) -> Result<u64> {
    let listed = repository.sessions_under("snapshots/")?;
    let removed = repository.sessions_under("removed/")?;
    let parents = rows.iter().filter_map(|row| row.snapshot.parent);
    let named: BTreeSet<SessionId> = writers.iter().copied().chain(parents).chain(named_by_readers(repository)?).collect();
    let (mut unlisted, mut lost) = (vec![], 0);
    for session in named.into_iter().filter(|session| !listed.contains(session) && !removed.contains(session)) {
        match repository.trace_of(session)? {
            Trace::Open | Trace::Removed => {}
            Trace::Ended => unlisted.push(session),
            Trace::Lost => {
                lost += 1;
                let id = public_id(session);
                let message = format!(
                    "the snapshot is neither there nor deleted, and something names it: bring the object back from a copy, or give the \
                     snapshot up with: longshore volume delete {id}"
                );
                notes.find(Severity::Error, snapshot_key(session), message, vec![id]);
            }
        }
    }
    // What was committed a moment ago is listed by now.
    let listed = if unlisted.is_empty() { listed } else { repository.sessions_under("snapshots/")? };
    for session in unlisted {
        if !listed.contains(&session) && repository.trace_of(session)? == Trace::Ended {
            let message = "is there, and the store's listing leaves it out: look for faults of the store";
            notes.find(Severity::Error, snapshot_key(session), message, vec![public_id(session)]);
        }
    }
    if lost > 0 || !listed.is_empty() || !removed.is_empty() {
        return Ok(lost);
    }
    for session in packs.map(|pack| pack.session).collect::<BTreeSet<_>>() {
        if repository.trace_of(session)? == Trace::Lost {
            let message = format!(
                "is empty, nothing was ever deleted, and packs are there that nobody is writing: session={session}; the store's listing \
                 is wrong, or all snapshots are gone: bring them back from a copy"
            );
            notes.find(Severity::Error, "snapshots/", message, vec![]);
            return Ok(1);
        }
    }
    Ok(0)
}

/// The snapshots that readers' markers name.
fn named_by_readers(repository: &Repository) -> Result<BTreeSet<SessionId>> {
    let (keys, mut codec, mut named) = (&*repository.keys, Codec::new()?, BTreeSet::new());
    for session in repository.sessions_under("sessions/")? {
        // One that cannot be read names nobody, and is told of elsewhere.
        if let Some(bytes) = repository.get(session_key(session), limits::RECORD_BYTES_MAX)?
            && let Ok(SessionMarker { kind: SessionKind::Reader { snapshot, .. }, .. }) =
                SessionMarker::decode(keys, session, &bytes, &mut codec)
        {
            named.insert(snapshot);
        }
    }
    Ok(named)
}
