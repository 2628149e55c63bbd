//! What is needed, and who is running: one look at a repository, in the order on which a prune's safety rests.
//!
//! Snapshots are listed first, then removals, then sessions (docs/format.md chapter 12). So a reader whose snapshot this look does
//! not count has either put the marker that the look sees, or will find the removal and stop. Promises to refuse rather than guess:
//! whatever counts and cannot be read, and whatever is named and not there, is an error, and nothing is deleted on it. Usage tables name the sessions that
//! wrote them, and are listed before all else; and what an earlier look of the same prune was shown may not be missing.
//! Memory: a few names a snapshot, 16 bytes a removal, one bit a frame.

use super::memory::{Memory, Removed};
use crate::error::{Error, ErrorKind, Result};
use crate::job::Job;
use crate::repository::cursor::{as_damage, is_damage};
use crate::repository::repairs::Repairs;
use crate::repository::traces::Trace;
use crate::repository::{Repository, opened};
use longshore_format::envelope::Codec;
use longshore_format::id::{SessionId, UsageName};
use longshore_format::limits;
use longshore_format::pack::BirthName;
use longshore_format::session::{SessionKind, SessionMarker, session_key};
use longshore_format::snapshot::{SnapshotObject, public_id, snapshot_key};
use longshore_format::usage::{CONTENT_BYTES, Usage, usage_key};
use std::collections::{BTreeMap, BTreeSet};

/// How often a look begins again because something was deleted under it.
const ROUNDS: usize = 20;

/// A session's marker as the look read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    Writer {
        adopts: Vec<SessionId>,
        host: String,
    },
    Reader {
        snapshot: SessionId,
        usage: Vec<UsageName>,
        host: String,
    },
    /// Nobody can tell what it is: it counts as an open writer and as a reader of everything.
    Unreadable,
}

impl Marker {
    pub(super) fn kind(&self) -> u64 {
        match self {
            Self::Writer { .. } => 1,
            Self::Reader { .. } => 2,
            Self::Unreadable => 0,
        }
    }

    pub(super) fn host(&self) -> &str {
        match self {
            Self::Writer { host, .. } | Self::Reader { host, .. } => host,
            Self::Unreadable => "",
        }
    }
}

/// What one look saw.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// Everything under `snapshots/`.
    listed: BTreeSet<SessionId>,
    removed: Removed,
    /// Snapshots that count.
    pub counted: BTreeSet<SessionId>,
    /// All markers, those of ended sessions included.
    pub markers: BTreeMap<SessionId, Marker>,
    /// What repairs wrote down.
    pub repairs: Repairs,
    counted_tables: BTreeSet<UsageName>,
    reader_tables: BTreeSet<UsageName>,
    /// Frames that snapshots need.
    pub counted_frames: Usage,
    /// Frames that snapshots or readers need.
    pub needed: Usage,
}

impl Look {
    /// Whether a writer can no longer commit.
    pub(super) fn has_ended(&self, session: &SessionId) -> bool {
        self.listed.contains(session) || self.removed.contains(session)
    }

    /// Sessions that write and have not ended; those that nobody can read among them.
    pub(super) fn open_writers(&self) -> BTreeSet<SessionId> {
        let open = self.markers.iter().filter(|(s, m)| !matches!(m, Marker::Reader { .. }) && !self.has_ended(s));
        open.map(|(session, _)| *session).collect()
    }

    /// Sessions whose packs are left alone: open ones, and those that open ones adopt.
    pub(super) fn sheltered(&self) -> BTreeSet<SessionId> {
        let mut out = self.open_writers();
        for marker in self.markers.iter().filter(|(s, _)| !self.has_ended(s)).map(|(_, marker)| marker) {
            if let Marker::Writer { adopts, .. } = marker {
                out.extend(adopts);
            }
        }
        out
    }

    /// Whether some marker may be that of a reader whose needs nobody can tell.
    pub(super) fn has_unreadable(&self) -> bool {
        self.markers.iter().any(|(s, m)| *m == Marker::Unreadable && !self.has_ended(s))
    }

    /// Whether a usage table is named by what counts or what reads.
    pub(super) fn names_table(&self, table: &UsageName) -> bool {
        self.counted_tables.contains(table) || self.reader_tables.contains(table)
    }

    /// Whether a snapshot that counts names a usage table.
    pub(super) fn counts_table(&self, table: &UsageName) -> bool {
        self.counted_tables.contains(table)
    }

    /// Whether a snapshot counts, or somebody reads it still.
    pub(super) fn is_of_use(&self, snapshot: &SessionId) -> bool {
        self.counted.contains(snapshot)
            || self.markers.values().any(|m| matches!(m, Marker::Reader { snapshot: read, .. } if read == snapshot))
    }

    /// Without those that a repair found nowhere: that they are missing is known.
    pub(super) fn not_lost(&self, mut frames: Vec<BirthName>) -> Vec<BirthName> {
        frames.retain(|frame| !self.repairs.is_lost(*frame));
        frames
    }

    /// Snapshots that were deleted and are listed still: whoever deleted them did not live to take them away.
    pub(super) fn half_deleted(&self) -> impl Iterator<Item = &SessionId> {
        self.listed.iter().filter(|session| self.removed.contains(session))
    }

    pub(super) fn readers(&self) -> usize {
        self.markers.values().filter(|m| matches!(m, Marker::Reader { .. })).count()
    }
}

/// The look was overtaken: begin again.
struct Overtaken;

type Tried<T> = std::result::Result<T, Seen>;

enum Seen {
    Overtaken,
    Failed(Error),
}

impl From<Error> for Seen {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Overtaken> for Seen {
    fn from(_: Overtaken) -> Self {
        Self::Overtaken
    }
}

/// How a look is made; a mutant of the test build leaves out what keeps it safe.
#[derive(Clone, Debug)]
pub(super) struct LookRules {
    pub readers_count: bool,
    pub snapshots_first: bool,
    /// Snapshots that a dry run takes for deleted.
    pub forget: Vec<SessionId>,
}

/// Looks once; `last` spares reading the usage tables again when the same ones are named, `memory` listing the removals again.
pub(super) fn look(
    repository: &Repository,
    job: &Job,
    rules: &LookRules,
    last: Option<&Look>,
    memory: &mut Memory,
) -> Result<Look> {
    let mut codec = Codec::new()?;
    for _ in 0..ROUNDS {
        job.check()?;
        match try_look(repository, job, rules, last, memory, &mut codec) {
            Ok(look) => return Ok(look),
            Err(Seen::Failed(error)) => return Err(error),
            Err(Seen::Overtaken) => {}
        }
    }
    Err(Error::new(ErrorKind::StoreUnavailable, "snapshots were deleted each time a prune looked at them")
        .with_next_step("nothing was deleted by this prune; run it again later"))
}

fn try_look(
    repository: &Repository,
    job: &Job,
    rules: &LookRules,
    last: Option<&Look>,
    memory: &mut Memory,
    codec: &mut Codec,
) -> Tried<Look> {
    let mut look = Look::default();
    let writers = repository.table_writers()?;
    if rules.snapshots_first {
        look.listed = repository.sessions_under("snapshots/")?;
        look.removed = memory.removals(repository, job, &look.listed)?;
        look.markers = markers(repository, memory, codec)?;
    } else {
        look.markers = markers(repository, memory, codec)?;
        look.removed = Memory::default().removals(repository, job, &look.listed)?;
        look.listed = repository.sessions_under("snapshots/")?;
    }
    let marked = look.markers.iter().map(|(session, marker)| match marker {
        Marker::Reader { snapshot, .. } => snapshot,
        _ => session,
    });
    memory.meet(look.listed.iter().chain(marked).filter(|session| !look.removed.contains(session)).copied());
    contradict_nothing(repository, &look, memory)?;
    look.removed.since.extend(&rules.forget);
    // After the sessions: a repair that has ended is seen, and its record with it.
    look.repairs = repository.repairs(codec)?;
    if let Some((session, error)) = look.repairs.unreadable.first() {
        let what = format!("what a repair wrote down cannot be read: repair={session}");
        return Err(refuse(as_damage(error.clone()).while_doing(what)).with_next_step(REPAIR_STEP).into());
    }
    let mut parents = BTreeMap::new();
    let mut tables: BTreeMap<UsageName, SessionId> = BTreeMap::new();
    for session in look.listed.iter().filter(|session| !look.removed.contains(session)) {
        job.check()?;
        match repository.snapshot_object(*session, codec) {
            Ok(Some(object)) => {
                if let SnapshotObject::Committed(snapshot) = &*object {
                    look.counted.insert(*session);
                    parents.extend(snapshot.parent.map(|parent| (parent, *session)));
                    tables.extend(snapshot.usage.iter().map(|table| (*table, *session)));
                } else {
                    memory.aborted.insert(*session);
                }
            }
            Ok(None) => return Err(gone(repository, *session, snapshot_key(*session))?),
            Err(error) if is_damage(&error) => {
                let id = public_id(*session);
                return Err(refuse(as_damage(error).while_doing(format_args!("a snapshot cannot be read: snapshot={id}")))
                    .with_next_step(format!("nothing was deleted; if it is lost, say so with: longshore volume delete {id}"))
                    .into());
            }
            Err(error) => return Err(error.into()),
        }
    }
    for (parent, child) in parents {
        if !look.has_ended(&parent) && !repository.is_removed(parent)? {
            let text = format!(
                "a snapshot names a parent that is neither listed nor deleted: snapshot={}, parent={}",
                public_id(child),
                public_id(parent)
            );
            return Err(short_listing(text).into());
        }
    }
    miss_nobody(repository, &writers, &look, memory)?;
    look.counted_tables = tables.keys().copied().collect();
    let readers: Vec<_> = match rules.readers_count {
        true => look
            .markers
            .iter()
            .filter_map(|(s, m)| if let Marker::Reader { snapshot, usage, .. } = m { Some((*s, *snapshot, usage)) } else { None })
            .collect(),
        false => vec![],
    };
    let mut wanted: BTreeMap<UsageName, SessionId> = BTreeMap::new();
    for (reader, snapshot, usage) in &readers {
        if !look.has_ended(snapshot) {
            if repository.has(&snapshot_key(*snapshot))? {
                return Err(Seen::Overtaken);
            }
            // Its snapshot may have gone between the two listings.
            if !repository.is_removed(*snapshot)? {
                let id = public_id(*snapshot);
                let text =
                    format!("a reader names a snapshot that is neither listed nor deleted: session={reader}, snapshot={id}");
                return Err(refuse(Error::corrupt(text)).with_next_step(lost_step(&id)).into());
            }
        }
        wanted.extend(usage.iter().map(|table| (*table, *snapshot)));
    }
    look.reader_tables = wanted.keys().copied().collect();
    if let Some(last) = last
        && last.counted_tables == look.counted_tables
        && last.reader_tables == look.reader_tables
        && last.repairs.known.keys().eq(look.repairs.known.keys())
    {
        look.counted_frames = last.counted_frames.clone();
        look.needed = last.needed.clone();
        return Ok(look);
    }
    // Those that only bear a session's name say nothing, and there is one for each backup that changed nothing.
    let nothing = Usage::new().content_name(&repository.keys);
    let speaks = |table: &UsageName| table.0[..CONTENT_BYTES] != nothing;
    for (table, session) in tables.iter().filter(|(table, _)| speaks(table)) {
        job.check()?;
        match read_table(repository, *table, codec) {
            Ok(Some(usage)) => look.counted_frames.merge(&usage),
            Ok(None) if look.repairs.speaks_for(table, *session) => {}
            Err(error) if is_damage(&error) && look.repairs.speaks_for(table, *session) => {}
            Ok(None) => return Err(gone(repository, *session, usage_key(*table))?),
            Err(error) => return Err(error.into()),
        }
    }
    look.needed = look.counted_frames.clone();
    for session in &look.counted {
        look.repairs.needs(*session).for_each(|usage| look.needed.merge(usage));
    }
    for (table, snapshot) in wanted.iter().filter(|(table, _)| speaks(table) && !tables.contains_key(*table)) {
        match read_table(repository, *table, codec) {
            Ok(Some(usage)) => look.needed.merge(&usage),
            // A reader of a snapshot that was repaired: what it needs stands in the record, as long as there is one.
            Ok(None) if look.repairs.speaks_for(table, *snapshot) => {
                look.repairs.needs(*snapshot).for_each(|usage| look.needed.merge(usage));
            }
            Err(error) if is_damage(&error) && look.repairs.speaks_for(table, *snapshot) => {
                look.repairs.needs(*snapshot).for_each(|usage| look.needed.merge(usage));
            }
            // The marker was put when the snapshot was long gone, and its reader is about to see that.
            Ok(None) if look.removed.contains(snapshot) => {}
            Ok(None) => return Err(gone(repository, *snapshot, usage_key(*table))?),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(look)
}

/// That what this prune was shown before is shown still, unless it was deleted: nothing else takes it away. The removal is asked for after the listing that
/// leaves the snapshot out, and was put before the snapshot went, so one that is deleted meanwhile is none of these.
fn contradict_nothing(repository: &Repository, look: &Look, memory: &mut Memory) -> Tried<()> {
    for session in memory.shown.iter().filter(|session| !look.has_ended(session)) {
        if repository.is_removed(*session)? {
            memory.since.insert(*session);
            continue;
        }
        let id = public_id(*session);
        let text = format!("a snapshot that was listed a moment ago is neither listed nor deleted: snapshot={id}");
        if repository.has(&snapshot_key(*session))? {
            return Err(short_listing(text).into());
        }
        let step = format!(
            "nothing was deleted; bring the object back from a copy: snapshots/{session}; who goes on without it prunes again, and gives it up \
             where that refuses, too, with: longshore volume delete {id}"
        );
        return Err(refuse(Error::corrupt(text)).with_next_step(step).into());
    }
    memory.show(&look.listed);
    Ok(())
}

/// That each session of which there is a usage table is seen as what it is: open, ended or deleted.
fn miss_nobody(repository: &Repository, writers: &BTreeSet<SessionId>, look: &Look, memory: &mut Memory) -> Tried<()> {
    let mut lost = Vec::new();
    for session in writers.iter().filter(|session| !look.has_ended(session) && !look.markers.contains_key(session)) {
        match repository.trace_of(*session)? {
            Trace::Removed => {
                memory.since.insert(*session);
            }
            Trace::Open | Trace::Ended if memory.unlisted.insert(*session) => return Err(Seen::Overtaken),
            Trace::Open | Trace::Ended => {
                let text = format!("a session that wrote a usage table is there and not listed: session={session}");
                return Err(short_listing(text).into());
            }
            Trace::Lost => lost.push(*session),
        }
    }
    let Some(first) = lost.first() else { return Ok(()) };
    let id = public_id(*first);
    let text = format!(
        "a snapshot of which there is a usage table is neither there nor deleted: snapshot={id}, object={}, snapshots={}",
        snapshot_key(*first),
        lost.len()
    );
    Err(refuse(Error::corrupt(text)).with_next_step(lost_step(&id)).into())
}

/// What an operator does about a snapshot whose object is gone.
pub(super) fn lost_step(id: &str) -> String {
    format!("nothing was deleted; bring the object back from a copy, or give the snapshot up with: longshore volume delete {id}")
}

/// Something that counts was not there: either its snapshot was deleted just now, or it is lost.
fn gone(repository: &Repository, session: SessionId, object: String) -> Tried<Seen> {
    if repository.is_removed(session)? {
        return Ok(Seen::Overtaken);
    }
    let id = public_id(session);
    Ok(Seen::Failed(
        refuse(Error::corrupt(format!("an object that a snapshot needs is gone: object={object}, snapshot={id}")))
            .with_next_step(REPAIR_STEP),
    ))
}

/// What an operator does about damage that a prune stops at.
pub(super) const REPAIR_STEP: &str =
    "nothing was deleted; see what it hurts with longshore repo check, then put right what can be with: longshore repo repair";

pub(super) fn refuse(error: Error) -> Error {
    error.while_doing("refusing to prune")
}

pub(super) fn short_listing(text: String) -> Error {
    refuse(Error::corrupt(text)).with_next_step(
        "nothing was deleted; the store's listing is short or something was deleted behind our back: look with longshore repo check",
    )
}

fn read_table(repository: &Repository, name: UsageName, codec: &mut Codec) -> Result<Option<Usage>> {
    let read = || repository.get(usage_key(name), limits::USAGE_BYTES_MAX);
    let table = opened(read, |read| match read {
        None => Ok(None),
        Some(bytes) => Ok(Some(Usage::decode(&repository.keys, name, bytes, codec)?)),
    });
    table.map_err(|error| match is_damage(&error) {
        true => refuse(as_damage(error).while_doing(format_args!("a usage table cannot be read: table={name}")))
            .with_next_step(REPAIR_STEP),
        false => error,
    })
}

/// Every marker that is listed, and those that are there of whom this prune has heard before: a listing may leave out what an earlier one showed.
pub(super) fn markers(repository: &Repository, memory: &mut Memory, codec: &mut Codec) -> Result<BTreeMap<SessionId, Marker>> {
    let mut out = BTreeMap::new();
    memory.markers.extend(repository.sessions_under("sessions/")?);
    for session in memory.markers.clone() {
        let read = || repository.get(session_key(session), limits::RECORD_BYTES_MAX);
        let marker = opened(read, |read| match read {
            None => Ok(None),
            Some(bytes) => Ok(Some(SessionMarker::decode(&repository.keys, session, bytes, codec)?)),
        });
        match marker {
            Ok(None) => {
                memory.markers.remove(&session);
            }
            Ok(Some(SessionMarker { kind: SessionKind::Writer { adopts }, host, .. })) => {
                out.insert(session, Marker::Writer { adopts, host });
            }
            Ok(Some(SessionMarker { kind: SessionKind::Reader { snapshot, usage }, host, .. })) => {
                out.insert(session, Marker::Reader { snapshot, usage, host });
            }
            Err(error) if is_damage(&error) => {
                tracing::warn!(session = %session, error = %error, "Cannot read a session's marker");
                out.insert(session, Marker::Unreadable);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(out)
}
