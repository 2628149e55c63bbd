//! Snapshots by name: listed, found, removed.
//!
//! A snapshot counts when it is listed, committed and not removed. Opened records are remembered in the local cache, which can make
//! a listing faster and never wrong: what is listed is asked of the store each time. Removals are kept for ever, so who wants one
//! snapshot asks for its removal alone, and the listing of all of them is left to who wants all snapshots.

use super::lookups::Kept;
use super::traces::Trace;
use super::{PAGE, Repository, key, list, opened};
use crate::error::{Error, ErrorKind, Result};
use bytes::Bytes;
use longshore_format::envelope::Codec;
use longshore_format::id::{SNAPSHOT_ID_PREFIX, SessionId};
use longshore_format::limits;
use longshore_format::session::{Removal, SessionKind, SessionMarker, removed_key, session_key};
use longshore_format::snapshot::{Snapshot, SnapshotObject, public_id, snapshot_key};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A snapshot and its name.
#[derive(Clone, Debug)]
pub struct SnapshotRow {
    /// The session that made it.
    pub session: SessionId,
    /// What it says.
    pub snapshot: Snapshot,
}

impl SnapshotRow {
    /// The identifier that users see.
    #[must_use]
    pub fn id(&self) -> String {
        public_id(self.session)
    }
}

/// Snapshots that count, oldest first, and those that cannot be opened.
pub type Snapshots = (Vec<SnapshotRow>, Vec<(SessionId, Error)>);

fn committed(session: SessionId, object: &SnapshotObject) -> Option<SnapshotRow> {
    match object {
        SnapshotObject::Committed(snapshot) => Some(SnapshotRow { session, snapshot: (**snapshot).clone() }),
        SnapshotObject::Aborted { .. } => None,
    }
}

/// Whoever is dated later than this after now was made by a clock that was ahead.
const AHEAD_NANOS: i64 = 3600 * 1_000_000_000;

/// When a snapshot of this source began.
fn started_of(object: &SnapshotObject, source: &str) -> Option<i64> {
    match object {
        SnapshotObject::Committed(snapshot) if snapshot.source == source => Some(snapshot.started_nanos),
        _ => None,
    }
}

impl Repository {
    pub(crate) fn sessions_under(&self, folder: &str) -> Result<BTreeSet<SessionId>> {
        self.sessions_beginning(folder, "")
    }

    fn sessions_beginning(&self, folder: &str, digits: &str) -> Result<BTreeSet<SessionId>> {
        // A listing is in order, and a set is made of what is in order without a search for each.
        let mut out = Vec::new();
        list(&*self.store, &format!("{folder}{digits}"), |entry| {
            out.extend(entry.key.as_str().strip_prefix(folder).and_then(|n| SessionId::from_hex(n).ok()));
            Ok(())
        })?;
        Ok(out.into_iter().collect())
    }

    /// Names of all snapshots that are listed and not removed; some may turn out to be aborted sessions.
    pub(crate) fn snapshot_names(&self) -> Result<BTreeSet<SessionId>> {
        let removed = self.sessions_under("removed/")?;
        let mut listed = self.sessions_under("snapshots/")?;
        listed.retain(|s| !removed.contains(s));
        Ok(listed)
    }

    pub(crate) fn snapshot_object(&self, session: SessionId, codec: &mut Codec) -> Result<Option<Arc<SnapshotObject>>> {
        if !self.asks_store
            && let Some(object) = self.cache.record(session)
        {
            self.cache.note(Kept::Snapshots, true);
            return Ok(Some(object));
        }
        let object = self.read_snapshot_object(session, codec)?.map(Arc::new);
        if let Some(object) = &object {
            self.cache.remember(session, object);
        }
        Ok(object)
    }

    fn read_snapshot_object(&self, session: SessionId, codec: &mut Codec) -> Result<Option<SnapshotObject>> {
        let text = snapshot_key(session);
        if !self.asks_store
            && let Some(bytes) = self.cache.get(&text)
            && let Ok(object) = SnapshotObject::decode(&self.keys, session, &bytes, codec)
        {
            self.cache.note(Kept::Snapshots, true);
            return Ok(Some(object));
        }
        if !self.asks_store {
            self.cache.note(Kept::Snapshots, false);
        }
        opened(
            || self.get(text.clone(), limits::RECORD_BYTES_MAX),
            |read| {
                let Some(bytes) = read else { return Ok(None) };
                let object = SnapshotObject::decode(&self.keys, session, bytes, codec)?;
                self.cache.put(&text, bytes);
                Ok(Some(object))
            },
        )
    }

    /// All snapshots that count, oldest first. Damaged ones are returned as errors beside them, by name.
    ///
    /// # Errors
    /// What the store says.
    pub fn snapshots(&self) -> Result<Snapshots> {
        let mut codec = Codec::new()?;
        let (mut rows, mut damaged) = (Vec::new(), Vec::new());
        let names = self.snapshot_names()?;
        self.cache.retain_records(&names);
        for session in names {
            match self.snapshot_object(session, &mut codec) {
                Ok(object) => rows.extend(object.and_then(|object| committed(session, &object))),
                Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::WrongKey | ErrorKind::NewerFormat) => {
                    damaged.push((session, error));
                }
                Err(error) => return Err(error),
            }
        }
        rows.sort_by_key(|row| (row.snapshot.started_nanos, row.session));
        Ok((rows, damaged))
    }

    /// Whether a snapshot is dated so late that this machine's clock, or that of who made it, is wrong.
    fn is_ahead(&self, started_nanos: i64) -> bool {
        started_nanos > self.world.clock.wall_nanos().saturating_add(AHEAD_NANOS)
    }

    /// The newest snapshot of a source that counts, as far as it can be read; one that is dated in the future only when there is no other.
    /// Does not list removals unless that is less than what it
    /// would read for want of them: a store that refuses deletions lists all snapshots that ever were.
    ///
    /// # Errors
    /// What the store says.
    pub(crate) fn newest_of(&self, source: &str) -> Result<Option<SnapshotRow>> {
        let mut listed = self.sessions_under("snapshots/")?;
        self.cache.retain_records(&listed);
        if listed.len() > self.cache.records_known() + PAGE {
            let removed = self.sessions_under("removed/")?;
            listed.retain(|session| !removed.contains(session));
        }
        let mut codec = Codec::new()?;
        let mut found = Vec::new();
        for session in listed {
            match self.snapshot_object(session, &mut codec) {
                Ok(Some(object)) => found.extend(started_of(&object, source).map(|started| (started, session, object))),
                Ok(None) => {}
                Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::WrongKey | ErrorKind::NewerFormat) => {}
                Err(error) => return Err(error),
            }
        }
        found.sort_by_key(|(started, session, _)| (!self.is_ahead(*started), *started, *session));
        let ahead: Vec<SessionId> =
            found.iter().filter(|(started, ..)| self.is_ahead(*started)).map(|(_, session, _)| *session).collect();
        while let Some((started, session, object)) = found.pop() {
            if !self.is_removed(session)? {
                if !self.is_ahead(started) {
                    self.tell_ahead(ahead);
                }
                return Ok(committed(session, &object));
            }
        }
        Ok(None)
    }

    /// Names snapshots that were passed over.
    fn tell_ahead(&self, ahead: Vec<SessionId>) {
        for session in ahead {
            if self.is_removed(session).is_ok_and(|is_removed| !is_removed) {
                tracing::warn!(snapshot = %public_id(session), "Passed over a snapshot that is dated in the future, look at the clocks");
            }
        }
    }

    /// One snapshot by its identifier, a unique prefix of it, or `latest` among one source: the newest that is not dated in the future,
    /// when there is one.
    ///
    /// # Errors
    /// `SnapshotNotFound`; `Ambiguous` naming the candidates.
    pub fn find_snapshot(&self, wanted: &str, source: Option<&str>) -> Result<SnapshotRow> {
        if wanted == "latest" {
            return self.latest(source);
        }
        let digits = wanted.strip_prefix(SNAPSHOT_ID_PREFIX).unwrap_or(wanted);
        let not_found = || {
            Error::new(ErrorKind::SnapshotNotFound, format!("there is no such snapshot: snapshot={wanted}"))
                .with_next_step("list them with: longshore volume list")
        };
        if digits.is_empty() || digits.len() > 32 || !digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(not_found());
        }
        let mut codec = Codec::new()?;
        let mut found = Vec::new();
        for session in self.sessions_beginning("snapshots/", digits)? {
            let row =
                self.snapshot_object(session, &mut codec).map(|object| object.and_then(|object| committed(session, &object)));
            // What was removed is none, readable or not; what was aborted needs no asking.
            if !matches!(row, Ok(None)) && !self.is_removed(session)? {
                found.extend(row?);
            }
        }
        if found.len() > 1 {
            let names: Vec<_> = found.iter().take(5).map(SnapshotRow::id).collect();
            return Err(Error::new(
                ErrorKind::Ambiguous,
                format!("several snapshots begin so: snapshot={wanted}, found={}", names.join(" ")),
            )
            .with_next_step("give more digits"));
        }
        found.pop().ok_or_else(not_found)
    }

    fn latest(&self, source: Option<&str>) -> Result<SnapshotRow> {
        let (mut rows, _) = self.snapshots()?;
        if let Some(source) = source {
            rows.retain(|row| row.snapshot.source == source);
        }
        let sources: BTreeSet<&str> = rows.iter().map(|row| row.snapshot.source.as_str()).collect();
        if sources.len() > 1 {
            let names: Vec<_> = sources.into_iter().take(20).collect();
            return Err(Error::new(
                ErrorKind::Ambiguous,
                format!("the repository holds several sources: sources={}", names.join(", ")),
            )
            .with_next_step("choose one with --source"));
        }
        // Oldest first: those that are dated in the future stand at the end.
        let ahead = rows.iter().rev().take_while(|row| self.is_ahead(row.snapshot.started_nanos)).count();
        if ahead < rows.len() {
            self.tell_ahead(rows.split_off(rows.len() - ahead).iter().map(|row| row.session).collect());
        }
        rows.pop().ok_or_else(|| {
            let which = source.map(|s| format!(": source={s}")).unwrap_or_default();
            Error::new(ErrorKind::SnapshotNotFound, format!("there is no snapshot yet{which}"))
                .with_next_step("make one with: longshore volume backup")
        })
    }

    /// Deletes a snapshot by its identifier or a unique prefix; gives its session. One that cannot be read, or that is gone and that a
    /// younger one or a reader's marker names, or of which a usage table is there, can be given up by its whole identifier.
    ///
    /// # Errors
    /// As [`Repository::find_snapshot`].
    pub fn delete_snapshot(&self, wanted: &str, by: &str) -> Result<SessionId> {
        let whole = SessionId::from_hex(wanted.strip_prefix(SNAPSHOT_ID_PREFIX).unwrap_or(wanted)).ok();
        let session = match (self.find_snapshot(wanted, None), whole) {
            (Ok(row), _) => row.session,
            (Err(error), Some(session)) => {
                let (rows, damaged) = self.snapshots()?;
                let is_damaged = damaged.iter().any(|(name, _)| *name == session);
                let is_named = || rows.iter().any(|row| row.snapshot.parent == Some(session));
                let is_missed = !self.is_removed(session)?
                    && (is_named() || self.is_lost_writer(session)? || self.is_lost_and_read(session)?);
                if !is_damaged && !is_missed {
                    return Err(error);
                }
                session
            }
            (Err(error), None) => return Err(error),
        };
        self.remove_snapshot(session, by)?;
        Ok(session)
    }

    /// Whether a session wrote a usage table that is there, and nothing else of it is.
    fn is_lost_writer(&self, session: SessionId) -> Result<bool> {
        Ok(self.table_writers()?.contains(&session) && self.trace_of(session)? == Trace::Lost)
    }

    /// Whether a reader's marker names a snapshot of which nothing is there.
    fn is_lost_and_read(&self, snapshot: SessionId) -> Result<bool> {
        let (mut codec, mut is_read) = (Codec::new()?, false);
        for session in self.sessions_under("sessions/")? {
            // One that cannot be read names nobody.
            if let Some(bytes) = self.get(session_key(session), limits::RECORD_BYTES_MAX)?
                && let Ok(marker) = SessionMarker::decode(&self.keys, session, &bytes, &mut codec)
            {
                is_read |= matches!(marker.kind, SessionKind::Reader { snapshot: read, .. } if read == snapshot);
            }
        }
        Ok(is_read && self.trace_of(snapshot)? == Trace::Lost)
    }

    /// Deletes a snapshot: the removal first, which is what counts, then the object; where the store refuses that, a prune finishes it.
    /// Data is freed by a later prune. Works where the store is full, out of the room that a prune has kept back.
    ///
    /// # Errors
    /// What the store says.
    pub fn remove_snapshot(&self, session: SessionId, by: &str) -> Result<()> {
        self.put_removal(session, by)?;
        self.delete(&snapshot_key(session))?;
        Ok(())
    }

    /// Says of a snapshot, or of a key slot, that it is taken away. That stays.
    pub(crate) fn put_removal(&self, session: SessionId, by: &str) -> Result<()> {
        let removal = Removal { at_nanos: self.world.clock.wall_nanos(), by: by.to_owned() };
        let bytes = removal.encode(&self.keys, session, self.world.salt(), &mut Codec::new()?)?;
        let at = key(removed_key(session))?;
        self.put_out_of_reserve(&at, Bytes::from(bytes))?;
        self.is_kept(&at)
    }

    /// Whether a snapshot was removed.
    pub(crate) fn is_removed(&self, session: SessionId) -> Result<bool> {
        self.has(&removed_key(session))
    }
}
