//! A session: a writer's steps from marker to commit, and a reader's marker. docs/format.md chapter 12.
//!
//! The order of calls is the order of the protocol; [`Writer`] makes it hard to leave one out: its packs can only be proven and
//! committed by the value that opened the session. Knows nothing of files.

use super::index::Index;
use super::{Repository, key, list, opened};
use crate::error::{Error, ErrorKind, Result};
use crate::job::Job;
use bytes::Bytes;
use longshore_format::envelope::Codec;
use longshore_format::id::{PackName, SessionId, UsageName};
use longshore_format::index::{SegmentBuilder, index_key, seal_segment};
use longshore_format::limits;
use longshore_format::session::{SessionKind, SessionMarker, session_key};
use longshore_format::snapshot::{Snapshot, SnapshotObject, snapshot_key};
use longshore_format::usage::{Usage, usage_key};
use longshore_store::{Put, StoreErrorKind};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Chunks at which a segment for adopted packs is sent: 4 MiB of segment.
const ADOPTED_SEGMENT_CHUNKS: usize = 64 << 10;

/// An open writer session.
#[derive(Debug)]
pub struct Writer {
    repository: Repository,
    session: SessionId,
    nonce: [u8; 16],
    /// What may be relied on, read after the marker was made.
    pub index: Arc<Index>,
    /// Sessions whose packs it may go on from.
    adopts: Vec<SessionId>,
    ended: bool,
}

/// What became of a session whose process is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It may still commit, as far as the repository knows.
    Open,
    /// It can never commit.
    Aborted,
    /// It has, or had: a snapshot that was deleted since counts as such.
    Committed,
}

/// What became of a commit.
#[derive(Debug)]
pub enum Commit {
    /// The snapshot counts.
    Done,
    /// Somebody fenced this session: nothing of it counts.
    Fenced(String),
}

impl Repository {
    /// Steps 1 to 3: the marker, tombstones, index, packs.
    ///
    /// # Errors
    /// What the store says; a store that may only be read is refused here, by its own error, and one that overwrites as `Unsupported`.
    pub fn open_writer(&self, host: &str, adopts: Vec<SessionId>, job: &Job) -> Result<Writer> {
        self.open_writer_as(self.world.session(), host, adopts, &[], job)
    }

    /// The same under a name that was drawn before. `ends` are sessions whose processes are known to be gone: they are ended once the marker that
    /// adopts them is there, so that at no time their packs are nobody's.
    ///
    /// # Errors
    /// As [`Repository::open_writer`].
    pub fn open_writer_as(
        &self,
        session: SessionId,
        host: &str,
        adopts: Vec<SessionId>,
        ends: &[SessionId],
        job: &Job,
    ) -> Result<Writer> {
        self.ask_create_only_daily()?;
        self.put_marker(session, SessionKind::Writer { adopts: adopts.clone() }, host)?;
        let prepare = || {
            ends.iter().try_for_each(|session| self.end_session(*session))?;
            let index = self.load_index_to_write(job)?;
            if let Some(error) = &index.unknown_dead {
                return Err(error.clone());
            }
            self.index_adopted(&index, &adopts, job)?;
            Ok(index)
        };
        match prepare() {
            Ok(index) => Ok(Writer {
                repository: self.clone(),
                session,
                nonce: self.world.random16(),
                index: Arc::new(index),
                adopts,
                ended: false,
            }),
            Err(error) => {
                let _ = Writer {
                    repository: self.clone(),
                    session,
                    nonce: self.world.random16(),
                    index: Arc::new(Index::empty()),
                    adopts,
                    ended: false,
                }
                .abort(&error.to_string());
                Err(error)
            }
        }
    }

    /// What the repository says of a session. A commit that nobody can read counts as one.
    pub(crate) fn fate(&self, session: SessionId) -> Result<Fate> {
        match self.snapshot_object(session, &mut Codec::new()?) {
            Ok(Some(object)) if matches!(*object, SnapshotObject::Aborted { .. }) => Ok(Fate::Aborted),
            Ok(None) if !self.is_removed(session)? => Ok(Fate::Open),
            Ok(_) => Ok(Fate::Committed),
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::WrongKey | ErrorKind::NewerFormat) => {
                Ok(Fate::Committed)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes the commit key of a session whose process is gone, and its marker. It may have committed all the same: then it has ended too.
    fn end_session(&self, session: SessionId) -> Result<()> {
        let reason = "its process ended before it committed; a later run went on from there".to_owned();
        let object = SnapshotObject::Aborted { nonce: self.world.random16(), reason };
        let bytes = object.encode(&self.keys, session, self.world.salt(), &mut Codec::new()?)?;
        self.put_certainly(&snapshot_key(session), Bytes::from(bytes))?;
        if let Err(error) = self.store.delete(&key(session_key(session))?)
            && error.kind() != StoreErrorKind::NotFound
        {
            tracing::debug!(error = %error, "Cannot delete the marker of a session that is gone");
        }
        Ok(())
    }

    /// Writes segments for packs of adopted sessions that stand in none, from the headers of those packs: what is in them can then be relied on,
    /// and readers will find it. A pack whose header does not open was cut short, and is left to a prune.
    fn index_adopted(&self, index: &Index, adopts: &[SessionId], job: &Job) -> Result<()> {
        let mut codec = Codec::new()?;
        let mut builder = SegmentBuilder::new();
        let put = |builder: &mut SegmentBuilder, codec: &mut Codec| {
            let (name, payload) = (self.world.name(), std::mem::take(builder).payload()?);
            let bytes = seal_segment(&self.keys, name, self.world.salt(), &payload, codec)?;
            self.store.put_new(&key(index_key(name))?, Bytes::from(bytes))?;
            index.add_segment(self.keep_segment(name, payload)?);
            Ok::<_, Error>(())
        };
        for (name, size) in index.unnamed_packs_of(adopts) {
            job.check()?;
            match self.pack_header(name, size, &mut codec) {
                Ok((salt, frames)) => builder.add_pack(name, salt, size, &frames),
                Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::WrongKey) => {
                    tracing::warn!(pack = %name, error = %error, "Cannot read the header of a pack of the interrupted run");
                }
                Err(error) => return Err(error),
            }
            if builder.chunks() >= ADOPTED_SEGMENT_CHUNKS {
                put(&mut builder, &mut codec)?;
            }
        }
        if builder.is_empty() { Ok(()) } else { put(&mut builder, &mut codec) }
    }

    /// A writer's marker alone, for one who reads tombstones and index by himself. What he never commits he must abort.
    pub(crate) fn open_bare_writer(&self, host: &str) -> Result<Writer> {
        self.ask_create_only_daily()?;
        let session = self.world.session();
        self.put_marker(session, SessionKind::Writer { adopts: vec![] }, host)?;
        let (index, nonce) = (Arc::new(Index::empty()), self.world.random16());
        Ok(Writer { repository: self.clone(), session, nonce, index, adopts: vec![], ended: false })
    }

    /// A reader's marker: made, then the removal looked for. The marker goes when the value is dropped.
    ///
    /// A store that may only be read, or that is full, gets no marker (docs/format.md chapter 12).
    ///
    /// # Errors
    /// `SnapshotNotFound` when the snapshot was removed.
    pub fn open_reader(&self, snapshot: SessionId, usage: &[UsageName], host: &str) -> Result<ReaderMarker> {
        let session = self.world.session();
        let marker = match self.put_marker(session, SessionKind::Reader { snapshot, usage: usage.to_vec() }, host) {
            Ok(()) => ReaderMarker { repository: self.clone(), session: Some(session) },
            // Read-only or full: reading must work all the same. Not out of the room kept back: writers would fill what that leaves.
            Err(error) if error.kind() == ErrorKind::StoreDenied => {
                tracing::debug!(error = %error, "Reading without a marker");
                ReaderMarker { repository: self.clone(), session: None }
            }
            Err(error) if error.kind() == ErrorKind::NoSpace => {
                tracing::warn!(error = %error, "No room for a reader's marker, delete nothing that is being read");
                ReaderMarker { repository: self.clone(), session: None }
            }
            Err(error) => return Err(error),
        };
        if self.is_removed(snapshot)? {
            return Err(Error::new(ErrorKind::SnapshotNotFound, format!("the snapshot was deleted: snapshot={snapshot}")));
        }
        Ok(marker)
    }

    fn put_marker(&self, session: SessionId, kind: SessionKind, host: &str) -> Result<()> {
        let marker = SessionMarker {
            kind,
            config: self.config.number,
            started_nanos: self.world.clock.wall_nanos(),
            host: host.to_owned(),
        };
        let bytes = marker.encode(&self.keys, session, self.world.salt(), &mut Codec::new()?)?;
        match self.put_certainly(&session_key(session), Bytes::from(bytes))? {
            Put::Created => Ok(()),
            Put::Exists => Err(Error::internal("a random session name was taken")),
        }
    }
}

/// Keeps a prune from deleting what is being read.
#[derive(Debug)]
pub struct ReaderMarker {
    repository: Repository,
    session: Option<SessionId>,
}

impl Drop for ReaderMarker {
    fn drop(&mut self) {
        if let Some(session) = self.session
            && let Ok(object) = key(session_key(session))
            && let Err(error) = self.repository.store.delete(&object)
        {
            tracing::debug!(error = %error, "Cannot delete a reader's marker");
        }
    }
}

impl Writer {
    /// A writer that looks and never writes: for a dry run. It takes no marker, so it may not commit.
    ///
    /// # Errors
    /// What the store says.
    pub fn rehearse(repository: &Repository, job: &Job) -> Result<Self> {
        let index = Arc::new(repository.load_index_to_write(job)?);
        Ok(Self {
            repository: repository.clone(),
            session: repository.world.session(),
            nonce: [0; 16],
            index,
            adopts: vec![],
            ended: true,
        })
    }

    /// The session's name, which is also the snapshot's.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// The nonce that the snapshot must bear.
    #[must_use]
    pub fn nonce(&self) -> [u8; 16] {
        self.nonce
    }

    /// The repository.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Puts a usage table, or finds one of equal content that may be relied on and puts an empty one beside it; gives the names for the
    /// snapshot.
    ///
    /// One of them always bears this session's name: by that a prune misses the snapshot, should its object be lost.
    ///
    /// # Errors
    /// What the store says.
    pub fn put_usage(&self, usage: &Usage) -> Result<Vec<UsageName>> {
        let repository = &self.repository;
        let mut codec = Codec::new()?;
        let seal =
            |usage: &Usage, codec: &mut Codec| usage.encode(&repository.keys, self.session, repository.world.salt(), codec);
        let (name, bytes) = seal(usage, &mut codec)?;
        let text = usage_key(name);
        let mut found = Vec::new();
        // Listed after the marker was made and in no tombstone read since: a prune that deletes it waits for this session. One of
        // another length was cut short or packed otherwise.
        list(&*repository.store, &text[..text.len() - 32], |entry| {
            let other = entry.key.as_str().strip_prefix("usage/").and_then(|n| UsageName::from_hex(n).ok());
            found.extend(other.filter(|other| entry.size_bytes == bytes.len() as u64 && !self.index.is_dead_table(other)));
            Ok(())
        })?;
        for other in found {
            // A name says what should be in it; what a snapshot comes to rest on is read.
            if let Some(there) = repository.get(usage_key(other), limits::USAGE_BYTES_MAX)?
                && Usage::decode(&repository.keys, other, &there, &mut codec).is_ok()
            {
                let (own, bytes) = seal(&Usage::new(), &mut codec)?;
                return Ok(vec![other, self.put_table(own, bytes)?]);
            }
        }
        Ok(vec![self.put_table(name, bytes)?])
    }

    fn put_table(&self, name: UsageName, bytes: Vec<u8>) -> Result<UsageName> {
        let text = usage_key(name);
        match self.repository.put_certainly(&text, Bytes::from(bytes))? {
            Put::Created => Ok(name),
            // Nobody else writes under this session's name, and an answer that was lost reads as created: an earlier try was torn.
            Put::Exists => Err(Error::corrupt(format!("the store kept a part of a usage table: object={text}"))
                .with_next_step("nothing was committed; look for faults of the store, then run the backup again")),
        }
    }

    /// Step 5: that every own pack is in the store with the length that was sent, and every pack of an adopted session that `usage` names
    /// with the length that was listed when the session began.
    ///
    /// # Errors
    /// Corrupt naming the first that is not: the store lost an acknowledged object.
    pub fn prove(&self, sent: &BTreeMap<PackName, u64>, usage: &Usage) -> Result<()> {
        let mut left = sent.clone();
        for name in usage.packs().filter(|name| self.adopts.contains(&name.session) && self.index.is_usable(name)) {
            left.extend(self.index.pack_sizes().get(&name).map(|size| (name, *size)));
        }
        let sessions: BTreeSet<SessionId> = left.keys().map(|name| name.session).collect();
        for session in sessions {
            list(&*self.repository.store, &format!("packs/{session}-"), |entry| {
                if let Some(name) = entry.key.as_str().strip_prefix("packs/").and_then(|n| PackName::from_text(n).ok())
                    && left.get(&name) == Some(&entry.size_bytes)
                {
                    left.remove(&name);
                }
                Ok(())
            })?;
        }
        match left.first_key_value() {
            None => Ok(()),
            Some((name, size)) => Err(Error::corrupt(format!(
                "the store acknowledged a pack that it does not list: pack={name}, size_bytes={size}, missing={}",
                left.len()
            ))
            .with_next_step("nothing was committed; look for faults of the store, then run the backup again")),
        }
    }

    /// Step 6: the commit; step 7 follows when it is done.
    ///
    /// # Errors
    /// What the store says. Then nobody knows yet whether it counts; [`Writer::abort`] finds out.
    pub fn commit(&mut self, snapshot: Snapshot) -> Result<Commit> {
        let object = SnapshotObject::Committed(Box::new(snapshot));
        self.put_snapshot(&object)
    }

    /// What lies where this session commits.
    fn read_own(&self) -> Result<Option<SnapshotObject>> {
        let repository = &self.repository;
        let read = || repository.get(snapshot_key(self.session), limits::RECORD_BYTES_MAX);
        opened(read, |there| match there {
            None => Ok(None),
            Some(there) => Ok(Some(SnapshotObject::decode(&repository.keys, self.session, there, &mut Codec::new()?)?)),
        })
    }

    fn put_snapshot(&mut self, object: &SnapshotObject) -> Result<Commit> {
        let repository = &self.repository;
        let mut codec = Codec::new()?;
        let bytes = object.encode(&repository.keys, self.session, repository.world.salt(), &mut codec)?;
        repository.store.put_new(&key(snapshot_key(self.session))?, Bytes::from(bytes))?;
        // Whatever it answered: a store may acknowledge what it does not keep, and nothing is told that is not so.
        let there = self.read_own()?;
        #[cfg(feature = "testing")]
        let there = if FENCE_UNSEEN.load(std::sync::atomic::Ordering::Relaxed) { Some(object.clone()) } else { there };
        let outcome = match there {
            None => {
                let session = self.session;
                return Err(Error::corrupt(format!(
                    "the store acknowledged the snapshot and does not have it: snapshot={session}"
                ))
                .with_next_step("nothing was committed; look for faults of the store, then run the backup again"));
            }
            Some(there) if there.nonce() == self.nonce && there == *object => Commit::Done,
            Some(SnapshotObject::Aborted { reason, .. }) => Commit::Fenced(reason),
            // Our own commit, after which we tried to abort: it counts.
            Some(SnapshotObject::Committed(there)) if there.nonce == self.nonce => Commit::Done,
            Some(SnapshotObject::Committed(_)) => {
                return Err(Error::corrupt("another writer committed under this session's name"));
            }
        };
        self.ended = true;
        if let Err(error) = repository.store.delete(&key(session_key(self.session))?)
            && error.kind() != StoreErrorKind::NotFound
        {
            // A refused DELETE of one's own marker is no error: an append-only store.
            tracing::debug!(error = %error, "Cannot delete the session's marker");
        }
        Ok(outcome)
    }

    /// Gives up: nothing of the session counts afterwards. When it turns out that an earlier, unanswered commit had arrived, says so.
    ///
    /// # Errors
    /// What the store says; the marker then stays, and whoever prunes later fences the session.
    pub fn abort(&mut self, reason: &str) -> Result<Aborted> {
        if self.ended {
            return Ok(Aborted::Nothing);
        }
        let object = SnapshotObject::Aborted { nonce: self.nonce, reason: reason.to_owned() };
        let repository = &self.repository;
        let mut codec = Codec::new()?;
        let bytes = object.encode(&repository.keys, self.session, repository.world.salt(), &mut codec)?;
        repository.store.put_new(&key(snapshot_key(self.session))?, Bytes::from(bytes))?;
        let outcome = match self.read_own()? {
            None => return Err(Error::corrupt("the store does not keep that the session was given up")),
            Some(SnapshotObject::Committed(snapshot)) if snapshot.nonce == self.nonce => Aborted::HadCommitted,
            Some(_) => Aborted::Nothing,
        };
        self.ended = true;
        let _ = repository.store.delete(&key(session_key(self.session))?);
        Ok(outcome)
    }
}

/// Lets every writer of the process believe that what it sent is its commit, whatever lies there, as writers have done that lost a lock.
#[cfg(feature = "testing")]
pub static FENCE_UNSEEN: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// What giving up found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aborted {
    /// Nothing counts.
    Nothing,
    /// The commit had arrived although its answer was lost.
    HadCommitted,
}
