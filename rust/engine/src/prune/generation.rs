//! A generation's life: tombstone, open writers, decision, deletion. Any prune may carry on what another began.
//!
//! Promises the order of docs/format.md chapter 12: who has looked may delete only what the one decision of the generation names,
//! and a tombstone goes only when that is gone. What was torn or lost on the way ends in an empty decision, which deletes nothing.

use super::choose::Places;
use super::report::Why;
use super::{Prune, Rule, Sight, look};
use crate::error::{Error, Result};
use crate::repository::cursor::is_damage;
use crate::repository::{key, list, opened};
use longshore_format::generation::{Doomed, OpenWriters, Role, open_key, tombstone_key};
use longshore_format::id::{PackName, RandomName, SessionId, UsageName};
use longshore_format::limits;
use longshore_format::snapshot::snapshot_key;
use longshore_format::usage::{Usage, usage_key};
use longshore_store::Put;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::Ordering::Relaxed;

/// An object that is absent, damaged, or says something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told<T> {
    Absent,
    Unreadable,
    Says(T),
}

impl<T> Told<T> {
    pub(super) fn says(&self) -> Option<&T> {
        if let Self::Says(what) = self { Some(what) } else { None }
    }
}

/// A generation that is not done.
#[derive(Clone, Debug)]
pub(super) struct Generation {
    pub name: RandomName,
    tombstone: Told<Doomed>,
    open: Told<Vec<SessionId>>,
    decision: Told<Doomed>,
}

impl Generation {
    /// The packs that nobody may rely on for its sake.
    pub(super) fn packs(&self) -> impl Iterator<Item = &PackName> {
        [self.tombstone.says(), self.decision.says()].into_iter().flatten().flat_map(|doomed| &doomed.packs)
    }

    pub(super) fn tables(&self) -> impl Iterator<Item = &UsageName> {
        [self.tombstone.says(), self.decision.says()].into_iter().flatten().flat_map(|doomed| &doomed.tables)
    }

    /// Whether its decision cannot be read: then nobody knows what it deletes, and all of it has to go by other generations.
    pub(super) fn is_stuck(&self) -> bool {
        self.decision == Told::Unreadable
    }
}

/// Generations with their decisions.
pub(super) type Decided = Vec<(RandomName, Doomed)>;

impl Prune<'_> {
    fn told<T>(&mut self, text: String, mut decode: impl FnMut(&[u8], &mut Self) -> Result<T>) -> Result<Told<T>> {
        let repository = self.repository;
        let told = opened(
            || repository.get(text.clone(), limits::RECORD_BYTES_MAX),
            |read| match read {
                None => Ok(Told::Absent),
                Some(bytes) => Ok(Told::Says(decode(bytes, self)?)),
            },
        );
        match told {
            Err(error) if is_damage(&error) => {
                tracing::warn!(object = %text, error = %error, "Cannot read what a prune wrote");
                Ok(Told::Unreadable)
            }
            told => told,
        }
    }

    fn doomed(&mut self, role: Role, name: RandomName) -> Result<Told<Doomed>> {
        self.told(role.key(name), |bytes, prune| Ok(Doomed::decode(&prune.repository.keys, role, name, bytes, &mut prune.codec)?))
    }

    pub(super) fn open_of(&mut self, name: RandomName) -> Result<Told<Vec<SessionId>>> {
        self.told(open_key(name), |bytes, prune| {
            Ok(OpenWriters::decode(&prune.repository.keys, name, bytes, &mut prune.codec)?.sessions)
        })
    }

    /// All generations that are not done.
    pub(super) fn generations(&mut self) -> Result<Vec<Generation>> {
        let mut names = BTreeSet::new();
        for prefix in ["tombstones/", "open/"] {
            list(&*self.repository.store, prefix, |entry| {
                names.extend(entry.key.as_str().strip_prefix(prefix).and_then(|n| RandomName::from_hex(n).ok()));
                Ok(())
            })?;
        }
        let mut out = Vec::with_capacity(names.len());
        for name in names {
            let decision = self.doomed(Role::Decision, name)?;
            let open = self.open_of(name)?;
            self.memory.markers.extend(open.says().into_iter().flatten());
            // Last: who finds it gone knows that what it named is gone.
            let tombstone = self.doomed(Role::Tombstone, name)?;
            if tombstone != Told::Absent || open != Told::Absent {
                out.push(Generation { name, tombstone, open, decision });
            }
        }
        Ok(out)
    }

    /// Puts the one decision of a generation, and gives the one that holds: what lies there, whatever the store answered. It may have
    /// answered this one and not kept it, and another prune have put its own since.
    fn decide(&mut self, name: RandomName, decision: Doomed) -> Result<Told<Doomed>> {
        let told = self.put_doomed(Role::Decision, name, &decision)?;
        let holds = self.keeps(Rule::OneDecision) || told == Told::Absent;
        Ok(if holds { told } else { Told::Says(decision) })
    }

    /// Puts a tombstone or a decision, and reads what lies under its key then.
    fn put_doomed(&mut self, role: Role, name: RandomName, doomed: &Doomed) -> Result<Told<Doomed>> {
        let at = role.key(name);
        let bytes = doomed.encode(&self.repository.keys, role, name, self.repository.world.salt(), &mut self.codec)?;
        self.create(&at, bytes)?;
        let told = self.doomed(role, name)?;
        if told == Told::Absent {
            tracing::warn!(object = %at, "The store acknowledged an object that is not there");
        }
        Ok(told)
    }

    /// Step 3: the writers that are open now. The list that is there holds.
    fn put_open(&mut self, name: RandomName, writers: Option<Vec<SessionId>>, look: &look::Look) -> Result<Told<Vec<SessionId>>> {
        let sessions = match writers {
            Some(known) => known,
            None => self.open_writers(look)?,
        };
        let open = OpenWriters { sessions };
        let bytes = open.encode(&self.repository.keys, name, self.repository.world.salt(), &mut self.codec)?;
        match self.put(&open_key(name), bytes)? {
            Some(Put::Created) => Ok(Told::Says(open.sessions)),
            Some(Put::Exists) => self.open_of(name),
            // Lost, or the generation was ended by another.
            None => Ok(Told::Absent),
        }
    }

    /// The writers that have not ended. Who had when `earlier` was made has for good; the others are asked for one by one, as they are few
    /// beside all that ended in a repository's life.
    fn open_writers(&mut self, earlier: &look::Look) -> Result<Vec<SessionId>> {
        let mut open = Vec::new();
        for (session, marker) in look::markers(self.repository, &mut self.memory, &mut self.codec)? {
            if marker.kind() == 2 || earlier.has_ended(&session) {
                continue;
            }
            if self.repository.has(&snapshot_key(session))? {
                // The look that follows has to see it, too.
                self.memory.shown.insert(session);
            } else if !self.repository.is_removed(session)? {
                open.push(session);
            }
        }
        Ok(open)
    }

    /// Steps 3 and 4 of every generation that is there; what can be decided is.
    pub(super) fn carry_on(&mut self, sight: &mut Sight) -> Result<Decided> {
        let mut decided = Vec::new();
        let mut waiting = Vec::new();
        for mut generation in sight.generations.clone() {
            self.job.check()?;
            let name = generation.name;
            let lost = generation.tombstone == Told::Absent;
            if lost && generation.decision == Told::Absent && self.repository.has(&tombstone_key(name))? {
                return Err(look::short_listing(format!("a generation's tombstone is there and not listed: generation={name}")));
            }
            if generation.decision == Told::Absent && generation.open == Told::Absent && !lost {
                generation.open = self.put_open(name, None, &sight.look)?;
            }
            let is_whole = matches!((&generation.tombstone, &generation.open), (Told::Says(_), Told::Says(_)));
            if generation.decision == Told::Absent && !is_whole {
                // Torn or lost: it ends, and what it named is free for another.
                generation.decision = self.decide(name, Doomed::default())?;
            }
            match &generation.decision {
                Told::Says(decision) => decided.push((name, decision.clone())),
                Told::Unreadable => self.finish_stuck(&generation, sight)?,
                Told::Absent => waiting.push(generation),
            }
        }
        if waiting.is_empty() {
            return Ok(decided);
        }
        // What is needed now, after every `open/` was there.
        if self.keeps(Rule::LookAgain) {
            *sight = self.fresh(sight)?;
        }
        for generation in waiting {
            if let Some(decision) = self.try_decide(&generation, sight)? {
                decided.push((generation.name, decision));
            }
        }
        Ok(decided)
    }

    fn fresh(&mut self, sight: &mut Sight) -> Result<Sight> {
        // The last one goes first, for the room that it takes.
        sight.places = Places::default();
        let fresh = self.sight(Some(std::mem::take(&mut sight.look)))?;
        self.refuse_missing(&fresh)?;
        Ok(fresh)
    }

    /// Step 4 of one generation: what it deletes, when nobody has to be waited for.
    fn try_decide(&mut self, generation: &Generation, sight: &mut Sight) -> Result<Option<Doomed>> {
        let (Told::Says(tombstone), Told::Says(open)) = (&generation.tombstone, &generation.open) else { return Ok(None) };
        let open: Vec<SessionId> = open.iter().filter(|s| !sight.look.has_ended(s)).copied().collect();
        if self.keeps(Rule::WaitForWriters) && (!open.is_empty() || sight.look.has_unreadable()) {
            for session in open {
                let host = sight.look.markers.get(&session).map(|m| m.host().to_owned()).unwrap_or_default();
                if !self.report.waiting_for.iter().any(|(s, _)| *s == session) {
                    self.report.waiting_for.push((session, host));
                }
            }
            self.report.generations_waiting += 1;
            for pack in &tombstone.packs {
                self.verdicts.insert(*pack, Why::WaitsForWriters);
            }
            return Ok(None);
        }
        // All who were open have ended, and this look says so. Of whom it says otherwise it saw less than who asked before.
        let open = if self.keeps(Rule::WaitForWriters) { sight.look.sheltered() } else { BTreeSet::new() };
        let mine: HashSet<PackName> = tombstone.packs.iter().copied().filter(|pack| !open.contains(&pack.session)).collect();
        let mut off = if self.keeps(Rule::OtherTombstones) { sight.tombstoned() } else { mine.clone() };
        off.extend(&sight.spent);
        let packs = self.choose(sight, |row| mine.contains(&row.name), &off)?;
        let tables: Vec<UsageName> = match self.keeps(Rule::DoomedTables) {
            true => {
                let goes = |table: &&UsageName| !sight.look.names_table(table) && !open.contains(&table.session());
                tombstone.tables.iter().filter(goes).copied().collect()
            }
            false => tombstone.tables.clone(),
        };
        let decision = Doomed { packs: packs.into_iter().collect(), tables };
        match self.decide(generation.name, decision)? {
            Told::Says(decision) => Ok(Some(decision)),
            Told::Absent | Told::Unreadable => Ok(None),
        }
    }

    /// Steps 2 to 4 of a generation of this run's own.
    pub(super) fn open_generation(&mut self, sight: &mut Sight) -> Result<()> {
        let (packs, tables) = self.candidates(sight)?;
        self.note_candidates(sight, &packs);
        if self.options.dry_run || packs.is_empty() && tables.is_empty() {
            return Ok(());
        }
        let name = self.repository.world.name();
        let early = if self.keeps(Rule::TombstoneFirst) { None } else { Some(self.open_writers(&sight.look)?) };
        let doomed = Doomed { packs: packs.into_iter().collect(), tables: tables.into_iter().collect() };
        if self.put_doomed(Role::Tombstone, name, &doomed)?.says() != Some(&doomed) {
            // Lost, or carried on and ended by another prune since: there is nothing to decide here. Or a part of it lies there, after
            // which the request that was sent again found the key taken: whoever meets that may end it, and rely on what it named.
            return Ok(());
        }
        let open = self.put_open(name, early, &sight.look)?;
        let own = Generation { name, tombstone: Told::Says(doomed), open, decision: Told::Absent };
        if self.keeps(Rule::LookAgain) {
            *sight = self.fresh(sight)?;
        } else {
            sight.generations.push(own.clone());
        }
        let decided = self.try_decide(&own, sight)?;
        self.follow(decided.map(|d| (name, d)).into_iter().collect(), sight)
    }

    /// Steps 5 to 7.
    pub(super) fn follow(&mut self, decided: Decided, sight: &mut Sight) -> Result<()> {
        if decided.is_empty() {
            return Ok(());
        }
        let packs: BTreeSet<PackName> = decided.iter().flat_map(|(_, d)| &d.packs).copied().collect();
        let tables: BTreeSet<UsageName> = decided.iter().flat_map(|(_, d)| &d.tables).copied().collect();
        self.rewrite_index(sight, &packs)?;
        self.look_once_more(&packs, &tables)?;
        if !self.keeps(Rule::PacksGoFirst) {
            for (name, _) in &decided {
                self.repository.store.delete(&key(tombstone_key(*name))?)?;
            }
        }
        let mut refused: HashSet<String> = HashSet::new();
        for pack in &packs {
            self.job.check()?;
            if self.repository.delete(&pack.key())? {
                if let Some(size) = sight.sizes.remove(pack) {
                    self.report.packs_deleted += 1;
                    self.report.bytes_freed += size;
                    if self.verdicts.get(pack) == Some(&Why::WaitsForWriters) {
                        self.verdicts.insert(*pack, Why::Unneeded);
                    }
                    self.job.bytes_done.fetch_add(size, Relaxed);
                    self.job.files_done.fetch_add(1, Relaxed);
                }
            } else {
                self.verdicts.insert(*pack, Why::Refused);
                refused.insert(pack.key());
            }
        }
        for table in &tables {
            self.job.check()?;
            if self.repository.delete(&usage_key(*table))? {
                self.report.tables_deleted += 1;
            } else {
                refused.insert(usage_key(*table));
            }
        }
        for (name, decision) in decided {
            let kept = decision.packs.iter().any(|p| refused.contains(&p.key()))
                || decision.tables.iter().any(|t| refused.contains(&usage_key(*t)));
            if kept {
                self.report.generations_waiting += 1;
            } else {
                self.end(name)?;
                sight.generations.retain(|g| g.name != name);
            }
        }
        Ok(())
    }

    /// Step 6: that no snapshot which counts needs what is about to go, by its tables or by what a repair wrote down of it. It cannot, unless the
    /// store lied.
    fn look_once_more(&mut self, packs: &BTreeSet<PackName>, tables: &BTreeSet<UsageName>) -> Result<()> {
        if !self.keeps(Rule::LookAgain) {
            return Ok(());
        }
        let look = self.look(None)?;
        let mut sizes = self.list_packs()?;
        let (mut needed, damaged) = (look.counted_frames.clone(), look.repairs.damaged());
        for session in &look.counted {
            look.repairs.needs(*session).for_each(|usage| needed.merge(usage));
        }
        let find = |prune: &Self, sizes: &HashMap<PackName, u64>| {
            Places::find(&prune.index, sizes, &needed, &prune.distrusted, &damaged)
        };
        let places = find(self, &sizes);
        let mut lost = places.lost_without(|pack| packs.contains(pack));
        if !lost.is_empty() || !look.not_lost(places.missing(&needed)).is_empty() {
            drop(places);
            // A listing that leaves out what is about to go would leave nothing of it to be found.
            for pack in packs.iter().filter(|pack| !sizes.contains_key(pack)).copied().collect::<Vec<_>>() {
                self.job.check()?;
                sizes.extend(self.repository.size_of(&pack.key())?.map(|size| (pack, size)));
            }
            // The index may have been read long ago, and another prune have moved frames since: the headers say where to. Into a pack
            // that is about to go, perhaps.
            self.index_unlisted(&sizes)?;
            let places = find(self, &sizes);
            lost = places.lost_without(|pack| packs.contains(pack));
            if lost.is_empty() {
                self.refuse_missing_in(&look, &places)?;
            }
        }
        let table = tables.iter().find(|table| look.counts_table(table));
        let object = lost.first().map(PackName::key).or_else(|| table.map(|t| usage_key(*t)));
        match object {
            None => Ok(()),
            Some(object) => Err(look::refuse(Error::corrupt(format!(
                "a snapshot needs what a decision of a prune names: object={object}, packs={}",
                lost.len()
            )))
            .with_next_step(
                "nothing was deleted; the store hid something from an earlier prune: look with longshore repo check",
            )),
        }
    }

    /// Step 7.
    fn end(&mut self, name: RandomName) -> Result<()> {
        if self.repository.delete(&tombstone_key(name))? && self.repository.delete(&open_key(name))? {
            self.report.generations_done += 1;
        }
        Ok(())
    }

    /// A generation whose decision cannot be read ends when nothing that it named is left.
    fn finish_stuck(&mut self, generation: &Generation, sight: &Sight) -> Result<()> {
        if generation.tombstone == Told::Unreadable {
            let name = generation.name;
            self.report
                .damaged
                .push((tombstone_key(name), "neither it nor its decision can be read: what it names is unknown".into()));
            return Ok(());
        }
        let mut left = generation.packs().any(|pack| sight.sizes.contains_key(pack));
        for table in generation.tables() {
            left = left || self.repository.has(&usage_key(*table))?;
        }
        if left { Ok(()) } else { self.end(generation.name) }
    }

    /// Whether the headers of packs name the frames that are relied on to lie there; those that do not are distrusted from now on.
    pub(super) fn prove(&mut self, proofs: &BTreeMap<PackName, Usage>, sizes: &HashMap<PackName, u64>) -> Result<bool> {
        if !self.keeps(Rule::HeaderProof) {
            return Ok(true);
        }
        let mut good = true;
        for (pack, frames) in proofs {
            self.job.check()?;
            if self.proven.get(pack).is_some_and(|known| frames.frames().all(|frame| known.contains(frame))) {
                continue;
            }
            let size = sizes.get(pack).copied().unwrap_or(0);
            let mut held = Usage::new();
            match self.repository.pack_header(*pack, size, &mut self.codec) {
                Ok((_, rows)) => rows.iter().for_each(|frame| held.insert(frame.birth)),
                Err(error) if is_damage(&error) => {
                    tracing::warn!(pack = %pack, error = %error, "Cannot read the header of a pack that holds a copy");
                }
                Err(error) => return Err(error),
            }
            if !frames.frames().all(|frame| held.contains(frame)) {
                self.distrusted.insert(*pack);
                good = false;
            }
            self.proven.insert(*pack, held);
        }
        Ok(good)
    }
}
