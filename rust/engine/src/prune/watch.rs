//! Who is dead: sessions that prunes have watched without a change, and those of which the operator says so.
//!
//! A clock says here when to fence, and never what to delete: a writer that is fenced by mistake finds its commit key taken and
//! begins again. Holds no state but what it writes: what one prune saw the next one reads. A prune that refuses writes nothing of it: what it was
//! shown contradicts itself, and might leave out the very session that an older watch names.

use super::{Prune, Sight, look};
use crate::error::Result;
use crate::repository::cursor::is_damage;
use crate::repository::traces::Trace;
use crate::repository::{list, opened};
use longshore_format::generation::{Sighting, Watch, watch_key};
use longshore_format::id::{RandomName, SessionId};
use longshore_format::limits;
use longshore_format::session::session_key;
use longshore_format::snapshot::{SnapshotObject, public_id, snapshot_key};
use look::Marker;
use std::collections::{BTreeMap, BTreeSet};

/// So many prunes must have seen a session without a change.
const PRUNES: u64 = 3;

impl Prune<'_> {
    /// Fences what is dead, and refuses when a writer is gone without an end.
    pub(super) fn fence(&mut self) -> Result<()> {
        // Before the markers are listed: whoever is named here had begun.
        let (_, watched) = self.watches()?;
        let mut named: BTreeSet<SessionId> =
            watched.iter().filter(|(_, seen)| seen.kind == 1).map(|(session, _)| *session).collect();
        named.extend(self.named_as_open()?);
        self.memory.markers.extend(watched.keys());
        let markers = look::markers(self.repository, &mut self.memory, &mut self.codec)?;
        // Removals are kept for ever, and asked for one by one where an end is in doubt.
        let ended = self.repository.sessions_under("snapshots/")?;
        self.memory.show(&ended);
        let now = self.repository.world.clock.wall_nanos();
        for session in &named {
            if markers.contains_key(session) || ended.contains(session) {
                continue;
            }
            let trace = self.repository.trace_of(*session)?;
            if matches!(trace, Trace::Ended | Trace::Removed) {
                continue;
            }
            let text = format!("a writer that ran is neither listed nor ended: session={session}");
            // What it committed may come back. Once its end stands in that place, nothing can.
            if trace == Trace::Lost && self.repository.table_writers()?.contains(session) {
                return Err(look::short_listing(text).with_next_step(look::lost_step(&public_id(*session))));
            }
            if !self.must_fence(session) {
                let step = format!(
                    "nothing was deleted; if it was a backup that ended, bring the object back from a copy: snapshots/{session}; if its process is gone \
                     and it never ended, say so with --fence"
                );
                return Err(look::short_listing(text).with_next_step(step));
            }
            if !self.options.dry_run {
                self.abort(*session)?;
            }
        }
        for (session, marker) in &markers {
            if ended.contains(session) && marker.kind() != 2 {
                continue;
            }
            let dead = self.must_fence(session)
                || match watched.get(session) {
                    Some(seen) => self.is_dead(*session, marker, seen, now)?,
                    None => false,
                };
            if !dead || self.options.dry_run {
                continue;
            }
            if marker.kind() != 2 {
                if self.repository.is_removed(*session)? {
                    continue;
                }
                self.abort(*session)?;
            }
            // The end of a writer holds without it; a reader whose marker stays goes on to be spared.
            let is_gone = self.repository.delete(&session_key(*session))?;
            if is_gone || marker.kind() != 2 {
                tracing::warn!(session = %session, host = marker.host(), "Judged a session dead");
                self.report.fenced.push(*session);
            }
        }
        Ok(())
    }

    /// Writers that some generation waits for.
    fn named_as_open(&mut self) -> Result<Vec<SessionId>> {
        let mut generations = Vec::new();
        list(&*self.repository.store, "open/", |entry| {
            generations.extend(entry.key.as_str().strip_prefix("open/").and_then(|n| RandomName::from_hex(n).ok()));
            Ok(())
        })?;
        let mut out = Vec::new();
        for name in generations {
            out.extend(self.open_of(name)?.says().into_iter().flatten());
        }
        Ok(out)
    }

    fn must_fence(&self, session: &SessionId) -> bool {
        self.options.fence_now || self.options.fence.contains(session)
    }

    fn is_dead(&self, session: SessionId, marker: &Marker, seen: &Sighting, now: i64) -> Result<bool> {
        let (packs, bytes) = self.traces(session)?;
        let same = (seen.kind, seen.packs, seen.bytes) == (marker.kind(), packs, bytes);
        let age = i128::from(now) - i128::from(seen.since_nanos);
        Ok(same && seen.prunes >= PRUNES && age >= self.options.fence_after.as_nanos().min(i128::MAX as u128) as i128)
    }

    /// The commit key of a writer is taken: it can never commit.
    fn abort(&mut self, session: SessionId) -> Result<()> {
        let object =
            SnapshotObject::Aborted { nonce: self.repository.world.random16(), reason: "judged dead by a prune".to_owned() };
        let bytes = object.encode(&self.repository.keys, session, self.repository.world.salt(), &mut self.codec)?;
        // It may have committed this moment: then it has ended all the same.
        if self.put(&snapshot_key(session), bytes)?.is_none() && !self.repository.is_removed(session)? {
            return Err(crate::error::Error::corrupt(format!("the store does not keep the end of a session: session={session}"))
                .with_next_step("nothing was deleted; look for faults of the store, then prune again"));
        }
        Ok(())
    }

    /// Number and bytes of a session's packs.
    fn traces(&self, session: SessionId) -> Result<(u64, u64)> {
        let (mut packs, mut bytes) = (0, 0);
        list(&*self.repository.store, &format!("packs/{session}-"), |entry| {
            packs += 1;
            bytes += entry.size_bytes;
            Ok(())
        })?;
        Ok((packs, bytes))
    }

    /// Names of all watches, and what they say together.
    fn watches(&mut self) -> Result<(Vec<RandomName>, BTreeMap<SessionId, Sighting>)> {
        let mut names = Vec::new();
        list(&*self.repository.store, "watches/", |entry| {
            names.extend(entry.key.as_str().strip_prefix("watches/").and_then(|n| RandomName::from_hex(n).ok()));
            Ok(())
        })?;
        let mut all: BTreeMap<SessionId, Sighting> = BTreeMap::new();
        for name in &names {
            let repository = self.repository;
            let read = || repository.get(watch_key(*name), limits::RECORD_BYTES_MAX);
            let watch = opened(read, |read| match read {
                None => Ok(Watch::default()),
                Some(bytes) => Ok(Watch::decode(&repository.keys, *name, bytes, &mut self.codec)?),
            });
            let watch = match watch {
                Err(error) if is_damage(&error) => {
                    tracing::warn!(watch = %name, error = %error, "Cannot read what earlier prunes saw");
                    continue;
                }
                watch => watch?,
            };
            for seen in watch.sightings {
                let kept = all.entry(seen.session).or_insert(seen);
                if seen.prunes > kept.prunes {
                    *kept = seen;
                }
            }
        }
        Ok((names, all))
    }

    /// Writes down who runs, and clears away markers of sessions that have ended.
    pub(super) fn watch(&mut self, sight: &Sight) -> Result<()> {
        let (older, watched) = self.watches()?;
        let now = self.repository.world.clock.wall_nanos();
        let mut sightings = Vec::new();
        // Where one deletion is refused all are: there the marker of every writer that ever was is listed.
        let mut deletes = true;
        for (session, marker) in &sight.look.markers {
            self.job.check()?;
            if marker.kind() != 2 && sight.look.has_ended(session) {
                // A writer's own marker that it could not take away itself.
                deletes = deletes && self.repository.delete(&session_key(*session))?;
                continue;
            }
            let (packs, bytes) = self.traces(*session)?;
            let fresh = Sighting { session: *session, kind: marker.kind(), packs, bytes, prunes: 1, since_nanos: now };
            // First seen at a time that is still to come: a clock was ahead, and without this that session would not be judged before then.
            let known = watched
                .get(session)
                .filter(|seen| (seen.kind, seen.packs, seen.bytes) == (fresh.kind, packs, bytes) && seen.since_nanos <= now);
            sightings.push(known.map_or(fresh, |seen| Sighting { prunes: seen.prunes.saturating_add(1), ..*seen }));
        }
        if !sightings.is_empty() {
            let name = self.repository.world.name();
            let bytes = Watch { sightings }.encode(&self.repository.keys, name, self.repository.world.salt(), &mut self.codec)?;
            if self.put(&watch_key(name), bytes)?.is_none() {
                // What is known stays known: without it nobody would ever be judged dead.
                return Ok(());
            }
        }
        for name in older {
            if !self.repository.delete(&watch_key(name))? {
                break;
            }
        }
        Ok(())
    }
}
