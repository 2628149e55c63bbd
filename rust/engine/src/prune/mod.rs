//! Frees what nobody needs, beside running backups, restores, checks and other prunes.
//!
//! [`run`] follows docs/format.md chapter 12: no lock, no exclusive phase, no clock that decides what is deleted, and it never waits:
//! what cannot be decided yet, a later prune carries on. Every state in which it can be stopped is finished by the next one.
//! Promises to delete nothing that a snapshot or a reader needs, and to refuse rather than guess. Marks come from usage tables;
//! trees are not read. Knows names, frames and bytes; what a file is it does not know.
//!
//! Rooms: `look` (what is needed, who runs), `sight` (a look and the packs that are there), `choose` (which packs may go), `generation` (tombstone to deletion), `repack` (needed frames
//! out of mostly dead packs), `segments` (the index), `watch` (who is dead), `report`, `rules` (what tests take away).
//! Memory: one bit a frame, a row a pack, one pack being copied; the index, mapped where there is a cache, else 32 bytes of it a frame; and
//! 16 bytes for each place of a frame that lies in several packs: 32 more for one that this run moves, and the 32 of its new place. Where a
//! repair has noted chunks as missed the index is held whole, 44 bytes a chunk more.

mod choose;
mod generation;
mod look;
mod memory;
mod repack;
mod report;
mod rules;
mod segments;
mod sight;
mod watch;

use crate::error::{Error, ErrorKind, Result};
use crate::job::{Job, Stage};
use crate::repository::index::{Hold, Index};
use crate::repository::{Repository, key, list};
use bytes::Bytes;
use choose::Row;
use generation::Generation;
use longshore_format::envelope::Codec;
use longshore_format::generation::DOOMED_NAMES_MAX;
use longshore_format::id::{PackName, RandomName, SessionId, UsageName};
use longshore_format::repair::repair_key;
use longshore_format::snapshot::snapshot_key;
use longshore_format::usage::Usage;
use longshore_store::Put;
use look::{Look, LookRules, look};
use memory::Memory;
#[cfg(feature = "testing")]
pub use repack::WRONG_REPACK;
pub use report::{Kept, PackRow, PruneReport, Why};
pub use rules::{Rule, Rules};
use sight::Sight;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How to prune.
#[derive(Clone, Debug)]
pub struct PruneOptions {
    /// Look and say what would be done; nothing is written.
    pub dry_run: bool,
    /// Snapshots that a dry run takes for deleted; without one they count.
    pub forget: Vec<SessionId>,
    /// Go on although no snapshot counts: everything goes.
    pub allow_empty: bool,
    /// Share of dead bytes from which a pack's needed frames are moved elsewhere.
    pub waste_percent: u8,
    /// Most bytes that are moved in this run; none: no bound.
    pub max_repack_bytes: Option<u64>,
    /// Size at which a pack is closed; packs of less than a quarter are merged when there are many.
    pub pack_size_bytes: usize,
    /// How long nothing of a session may have changed, over three prunes, before it is judged dead.
    pub fence_after: Duration,
    /// Judges every open session dead now.
    pub fence_now: bool,
    /// Sessions whose process is known to be gone.
    pub fence: Vec<SessionId>,
    /// Host, for people.
    pub host: String,
    /// What tests take away.
    pub rules: Rules,
}

impl Default for PruneOptions {
    fn default() -> Self {
        Self {
            dry_run: false,
            forget: vec![],
            allow_empty: false,
            waste_percent: 40,
            max_repack_bytes: None,
            pack_size_bytes: 16 << 20,
            fence_after: Duration::from_secs(7 * 24 * 3600),
            fence_now: false,
            fence: vec![],
            host: String::new(),
            rules: Rules::default(),
        }
    }
}

/// Prunes a repository.
///
/// # Errors
/// Corrupt when something that counts cannot be read or is missing: nothing was deleted then. `Usage` when no snapshot counts. `Unsupported` when the
/// store overwrites.
/// `Cancelled`, or what the store says; the next run finishes what this one began.
pub fn run(repository: &Repository, job: &Arc<Job>, options: &PruneOptions) -> Result<PruneReport> {
    let started = repository.world.clock.monotonic();
    job.enter(Stage::Preparing);
    if !options.dry_run {
        repository.ask_create_only()?;
    }
    let mut prune = Prune {
        repository,
        job,
        options,
        codec: Codec::new()?,
        index: Index::empty(),
        distrusted: HashSet::new(),
        proven: HashMap::new(),
        unstored: BTreeSet::new(),
        replaced: BTreeSet::new(),
        verdicts: HashMap::new(),
        rows: vec![],
        memory: Memory::default(),
        report: PruneReport::default(),
    };
    let outcome = prune.run();
    let restored = if options.dry_run { Ok(()) } else { repository.put_reserve() };
    job.enter(Stage::Finished);
    outcome?;
    restored?;
    let mut report = prune.report;
    report.seconds = repository.world.clock.monotonic().saturating_sub(started).as_secs_f64();
    report.finish();
    Ok(report)
}

/// One run.
struct Prune<'a> {
    repository: &'a Repository,
    job: &'a Arc<Job>,
    options: &'a PruneOptions,
    codec: Codec,
    index: Index,
    /// Packs whose header does not say what the index said.
    distrusted: HashSet<PackName>,
    /// Packs whose header was read and holds what is said.
    proven: HashMap<PackName, Usage>,
    /// Packs whose frames no stored segment lists.
    unstored: BTreeSet<PackName>,
    /// Segments that were deleted since the index was loaded.
    replaced: BTreeSet<RandomName>,
    /// What becomes of packs.
    verdicts: HashMap<PackName, Why>,
    /// The packs that were there at the beginning.
    rows: Vec<Row>,
    memory: Memory,
    report: PruneReport,
}

impl Prune<'_> {
    fn run(&mut self) -> Result<()> {
        self.refuse_what_cannot_be()?;
        self.fence()?;
        self.index = self.load_index()?;
        let mut sight = self.sight(None)?;
        self.count(&sight);
        if sight.look.counted.is_empty() && !sight.sizes.is_empty() && !self.options.allow_empty {
            return Err(Error::new(
                ErrorKind::Usage,
                format!("refusing to prune: no snapshot counts, everything would be deleted: packs={}", sight.sizes.len()),
            )
            .with_next_step("nothing was deleted; if this is meant, say so with --allow-empty"));
        }
        self.refuse_missing(&sight)?;
        self.job.enter(Stage::Running);
        if !self.options.dry_run {
            // What others began goes first: it may free the room that is needed below.
            let decided = self.carry_on(&mut sight)?;
            if !decided.is_empty() {
                self.follow(decided, &mut sight)?;
                sight = self.sight_again(sight)?;
            }
        }
        let moved = self.repack(&sight)?;
        if moved {
            sight = self.sight_again(sight)?;
        }
        self.open_generation(&mut sight)?;
        self.tell();
        if self.options.dry_run {
            return Ok(());
        }
        self.job.enter(Stage::Committing);
        self.rewrite_index(&sight, &BTreeSet::new())?;
        self.watch(&sight)?;
        self.finish_deletions(&sight)?;
        self.repository.clear_probes()?;
        self.forget_repairs(&sight)
    }

    /// Takes away the records of deleted snapshots that whoever deleted them did not live to take away.
    fn finish_deletions(&mut self, sight: &Sight) -> Result<()> {
        for session in sight.look.half_deleted() {
            self.job.check()?;
            // Where one deletion is refused all are: there every snapshot that ever was is listed.
            if !self.repository.delete(&snapshot_key(*session))? {
                break;
            }
        }
        Ok(())
    }

    /// Listings that can never be empty.
    fn refuse_what_cannot_be(&self) -> Result<()> {
        match self.repository.listed_empty()? {
            Some(prefix) => Err(look::short_listing(format!("a listing is empty that cannot be: prefix={prefix}"))),
            None => Ok(()),
        }
    }

    fn keeps(&self, rule: Rule) -> bool {
        self.options.rules.keeps(rule)
    }

    fn load_index(&self) -> Result<Index> {
        self.repository.load_segments(self.job, Hold::Frames)
    }

    fn look(&mut self, last: Option<&Look>) -> Result<Look> {
        let rules = LookRules {
            readers_count: self.keeps(Rule::ReadersCount),
            snapshots_first: self.keeps(Rule::SnapshotsFirst),
            forget: if self.options.dry_run { self.options.forget.clone() } else { vec![] },
        };
        look(self.repository, self.job, &rules, last, &mut self.memory)
    }

    /// Deletes what repairs wrote down of snapshots and packs that are all gone.
    fn forget_repairs(&mut self, sight: &Sight) -> Result<()> {
        for (session, repair) in &sight.look.repairs.known {
            let mut holds = repair.needs.keys().any(|snapshot| sight.look.is_of_use(snapshot));
            for pack in repair.damaged.keys() {
                holds = holds || sight.sizes.contains_key(pack) || self.repository.has(&pack.key())?;
            }
            if !holds {
                self.repository.delete(&repair_key(*session))?;
            }
        }
        Ok(())
    }

    /// Creates an object, when the store is full out of the room that is kept back, and looks whether it is there: a store may
    /// acknowledge what it does not keep. None: it is not there, or another prune has taken it away since.
    fn put(&mut self, text: &str, bytes: Vec<u8>) -> Result<Option<Put>> {
        let put = self.create(text, bytes)?;
        if self.repository.has(text)? {
            return Ok(Some(put));
        }
        tracing::warn!(object = %text, "The store acknowledged an object that is not there");
        Ok(None)
    }

    /// The same without the look, for who reads what is there.
    fn create(&mut self, text: &str, bytes: Vec<u8>) -> Result<Put> {
        let (put, used_reserve) = self.repository.put_out_of_reserve(&key(text)?, Bytes::from(bytes))?;
        self.report.used_reserve |= used_reserve;
        Ok(put)
    }

    fn count(&mut self, sight: &Sight) {
        self.rows.clone_from(&sight.places.rows);
        for generation in &sight.generations {
            self.verdicts.extend(generation.packs().map(|pack| (*pack, Why::WaitsForWriters)));
        }
        let sheltered = sight.look.sheltered();
        let in_use = sight.sizes.keys().filter(|pack| sheltered.contains(&pack.session));
        self.verdicts.extend(in_use.map(|pack| (*pack, Why::InUse)));
        let report = &mut self.report;
        report.snapshots = sight.look.counted.len() as u64;
        report.readers = sight.look.readers() as u64;
        report.packs_before = sight.sizes.len() as u64;
        report.bytes_before = sight.sizes.values().sum();
        report.bytes_needed = sight.places.rows.iter().map(|row| row.live_bytes).sum();
        self.job.bytes_found.store(report.bytes_before, Relaxed);
        self.job.files_found.store(report.packs_before, Relaxed);
    }

    /// Notes what becomes of the candidates, as far as it is known before they are decided.
    fn note_candidates(&mut self, sight: &Sight, packs: &BTreeSet<PackName>) {
        for pack in packs {
            if self.verdicts.get(pack) == Some(&Why::Repacked) {
                continue;
            }
            let row = sight.places.rows.binary_search_by_key(pack, |row| row.name).ok().map(|at| sight.places.rows[at]);
            let why = if row.is_some_and(|row| row.live_frames > 0) { Why::Duplicate } else { Why::Unneeded };
            self.verdicts.insert(*pack, why);
        }
    }

    /// Says of each pack that was there what becomes of it.
    fn tell(&mut self) {
        for row in std::mem::take(&mut self.rows) {
            let partly = if row.live_bytes < row.frames_bytes { Why::PartlyNeeded } else { Why::Needed };
            let partly = if row.damaged_frames > 0 { Why::Damaged } else { partly };
            let why = self.verdicts.get(&row.name).copied().unwrap_or(partly);
            self.report.tell(PackRow { name: row.name, size_bytes: row.size_bytes, live_bytes: row.live_bytes, why });
        }
    }

    /// The candidates of this run: what may go into its own tombstone.
    fn candidates(&mut self, sight: &mut Sight) -> Result<(BTreeSet<PackName>, BTreeSet<UsageName>)> {
        let sheltered = sight.look.sheltered();
        let (doomed, off) = (sight.tombstoned(), sight.off());
        let stuck: HashSet<PackName> =
            sight.generations.iter().filter(|g| g.is_stuck()).flat_map(Generation::packs).copied().collect();
        let may =
            |row: &Row| !sheltered.contains(&row.name.session) && (!doomed.contains(&row.name) || stuck.contains(&row.name));
        let mut packs = self.choose(sight, may, &off)?;
        // A session that began after the sessions were listed and ended before: its snapshot came after the look.
        let mut new = BTreeSet::new();
        for session in packs.iter().map(|pack| pack.session).collect::<BTreeSet<_>>() {
            if !sight.look.has_ended(&session) && self.repository.has(&snapshot_key(session))? {
                self.memory.shown.insert(session);
                new.insert(session);
            }
        }
        packs.retain(|pack| !new.contains(&pack.session));
        Ok((packs.into_iter().take(DOOMED_NAMES_MAX / 2).collect(), self.dead_tables(sight)?))
    }

    /// The packs among `may` that can go, because what is needed of them lies also in packs outside `off` that stay: proven.
    ///
    /// What lies in a pack has to be known for that. One that no segment lists may hold, moved there by another prune, the only copy
    /// that stays: it is asked for its header. Where that cannot be read it goes only when nothing at all depends on what is `off`.
    pub(super) fn choose(
        &mut self,
        sight: &mut Sight,
        may: impl Fn(&Row) -> bool,
        off: &HashSet<PackName>,
    ) -> Result<BTreeSet<PackName>> {
        if self.keeps(Rule::KnownPacks) {
            let unknown: Vec<PackName> =
                sight.places.rows.iter().filter(|row| !row.known && may(row)).map(|row| row.name).collect();
            if !unknown.is_empty() {
                self.index_headers(&unknown, &sight.sizes)?;
                sight.places = self.places(&sight.look, &sight.sizes)?;
            }
        }
        loop {
            let places = &sight.places;
            let is_safe = !self.keeps(Rule::KnownPacks)
                || places.lost_without(|pack| off.contains(pack)).is_empty()
                    && sight.look.not_lost(places.missing(&sight.look.needed)).is_empty();
            // A header that does not say what it should proves nothing, whatever was born in its pack.
            let no_proof: HashSet<PackName> = off.union(&self.distrusted).copied().collect();
            let choice = places.choose(|row| may(row) && (row.known || is_safe), &no_proof);
            if self.prove(&choice.proofs, &sight.sizes)? {
                return Ok(choice.packs);
            }
            sight.places = self.places(&sight.look, &sight.sizes)?;
            self.refuse_missing(sight)?;
        }
    }

    fn dead_tables(&self, sight: &Sight) -> Result<BTreeSet<UsageName>> {
        let pending: BTreeSet<UsageName> =
            sight.generations.iter().filter(|g| !g.is_stuck()).flat_map(Generation::tables).copied().collect();
        let mut dead = BTreeSet::new();
        list(&*self.repository.store, "usage/", |entry| {
            if let Some(name) = entry.key.as_str().strip_prefix("usage/").and_then(|n| UsageName::from_hex(n).ok())
                && !sight.look.names_table(&name)
                && !pending.contains(&name)
                && dead.len() < DOOMED_NAMES_MAX / 2
            {
                dead.insert(name);
            }
            Ok(())
        })?;
        Ok(dead)
    }
}
