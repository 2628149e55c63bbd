//! Puts a damaged repository right as far as that can be done, and writes down what cannot.
//!
//! [`run`] is a writer by docs/format.md chapter 12: it takes a marker first, makes every object once, and ends its session; so it runs beside
//! backups, restores and prunes. Promises to be safe when it is wrong: it adds packs, index segments and one record, the record asks
//! others only to keep more or to rely on less, and nothing is deleted but index segments and records of repairs that cannot be read
//! or of which all that holds stands elsewhere. What is damaged stays until no snapshot needs it; a prune takes it away then.
//! Every state in which it can be stopped is finished by the next run.
//!
//! What is healed: the index, from the headers of packs; usage tables, from trees; headers, from the index. Chunks that are lost are
//! known as such from then on, so that the next backup whose source has them stores them again, and then they belong to the old
//! snapshots, too.
//!
//! Rooms: `salvage` (what is added), `trees` (whom damage hurts), `report`. Memory: one bit a frame, a row a pack, the index, the chunks
//! that are missed.

mod report;
mod salvage;
mod trees;

use crate::check::walk::Sound;
use crate::check::{self, CheckOptions, Depth, Notes, Severity, packs};
use crate::error::{Error, Result};
use crate::job::{Job, Stage};
use crate::journal::Checked;
use crate::repository::cursor::is_damage;
use crate::repository::index::Index;
use crate::repository::repairs::Repairs;
use crate::repository::snapshots::SnapshotRow;
use crate::repository::{Repository, key, list, opened};
use bytes::Bytes;
use longshore_format::envelope::Codec;
use longshore_format::generation::{Doomed, Role, open_key, tombstone_key};
use longshore_format::id::{PackName, RandomName, SessionId, UsageName};
use longshore_format::index::index_key;
use longshore_format::limits;
use longshore_format::repair::{Repair, repair_key};
use longshore_format::snapshot::public_id;
use longshore_format::usage::{Usage, usage_key};
pub use report::RepairReport;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// How often packs are read again because a prune moved frames meanwhile, and snapshots walked again because trees turned out damaged.
const ROUNDS: usize = 8;

/// How to repair.
#[derive(Clone, Debug)]
pub struct RepairOptions {
    /// Say what would be done; nothing is written.
    pub dry_run: bool,
    /// Read every frame, not only headers: finds what rots at rest.
    pub read_data: bool,
    /// Threads that read; 0: the calling thread.
    pub workers: usize,
    /// Bound of all buffers.
    pub memory_budget_bytes: usize,
    /// Size at which a pack is closed.
    pub pack_size_bytes: usize,
    /// Host, for people.
    pub host: String,
    /// Read what an interrupted run has read, too.
    pub fresh: bool,
}

impl Default for RepairOptions {
    fn default() -> Self {
        Self {
            dry_run: false,
            read_data: false,
            workers: 2,
            memory_budget_bytes: 128 << 20,
            pack_size_bytes: 16 << 20,
            host: String::new(),
            fresh: false,
        }
    }
}

/// What was seen of packs and snapshots.
struct Found {
    index: Arc<Index>,
    seen: packs::Seen,
    rows: Vec<SnapshotRow>,
    /// Of each snapshot, what its readable tables name, and the tables that cannot be read.
    tables: Vec<(Usage, Vec<UsageName>)>,
    needed: Usage,
}

/// One run.
struct Repairing<'a> {
    repository: &'a Repository,
    job: &'a Arc<Job>,
    options: &'a RepairOptions,
    session: SessionId,
    codec: Codec,
    notes: Arc<Notes>,
    repairs: Repairs,
    out: salvage::Out,
    /// All frames that the index knows in packs without a header: nobody is to rely on them there.
    spoilt: BTreeMap<PackName, Usage>,
    /// Those of them that are not what the index says.
    stuck: Usage,
    report: RepairReport,
    /// Of a repair that reads everything.
    journal: Option<Arc<Checked>>,
}

/// Repairs a repository.
///
/// # Errors
/// `Cancelled`, or what the store says; the next run finishes what this one began. Damage is no error but put right or reported.
pub fn run(repository: &Repository, job: &Arc<Job>, options: &RepairOptions) -> Result<RepairReport> {
    let repository = &repository.asking_store();
    let clock = Arc::clone(&repository.world.clock);
    let started = clock.monotonic();
    job.enter(Stage::Preparing);
    if let Some(prefix) = repository.listed_empty()? {
        return Err(Error::corrupt(format!("a listing is empty that cannot be: prefix={prefix}"))
            .with_next_step("nothing was changed; the store's listing is short: look for faults of the store, then try again"));
    }
    let mut writer = if options.dry_run { None } else { Some(repository.open_bare_writer(&options.host)?) };
    let mut repairing = Repairing {
        repository,
        job,
        options,
        session: writer.as_ref().map_or_else(|| repository.world.session(), crate::repository::session::Writer::session),
        codec: Codec::new()?,
        notes: Arc::new(Notes::default()),
        repairs: Repairs::default(),
        out: salvage::Out::default(),
        spoilt: BTreeMap::new(),
        stuck: Usage::new(),
        report: RepairReport::default(),
        journal: None,
    };
    let outcome = repairing.run(writer.as_ref());
    if let Some(writer) = &mut writer {
        let why = outcome.as_ref().err().map_or("this was a repair, which makes no snapshot", Error::message);
        // The marker that stays is fenced by a prune, as that of any writer that died.
        if let Err(error) = writer.abort(why) {
            tracing::warn!(session = %writer.session(), error = %error, "Cannot mark the session as ended");
        }
    }
    job.enter(Stage::Finished);
    outcome?;
    repairing.journal.iter().for_each(|journal| journal.remove());
    let checked = repairing.notes.finish(0.0);
    let mut report = repairing.report;
    report.exit_code = if report.is_lossless() && checked.items_hurt == 0 { 0 } else { 4 };
    report.take(checked, options.dry_run, clock.monotonic().saturating_sub(started).as_secs_f64());
    Ok(report)
}

impl Repairing<'_> {
    fn run(&mut self, writer: Option<&crate::repository::session::Writer>) -> Result<()> {
        if !self.options.dry_run {
            self.settle_tombstones()?;
        }
        self.repairs = self.repository.repairs(&mut self.codec)?;
        let mut found = self.look()?;
        self.job.enter(Stage::Running);
        self.salvage(&mut found)?;
        let wrong = self.wrong_segments(&found);
        for (segment, packs) in &wrong {
            let message = format!("says of packs what is not so: packs={}", packs.len());
            self.notes.find(Severity::Error, index_key(*segment), message, vec![]);
        }
        let record = self.judge(&mut found)?;
        self.shelter(&found, &record)?;
        self.job.enter(Stage::Committing);
        let old_segments = self.index(&found, &wrong)?;
        if let Some(writer) = writer {
            writer.prove(self.sent(), &Usage::new())?;
        }
        self.record(record)?;
        self.report.segments_deleted = old_segments.len() as u64;
        if !self.options.dry_run {
            for name in old_segments {
                self.job.check()?;
                self.repository.delete(&index_key(name))?;
            }
        }
        Ok(())
    }

    /// A tombstone that cannot be read stops backups, and a prune ends it; but a prune stops at other damage. So it is ended here, as
    /// a prune does it: by an empty decision, which deletes nothing.
    fn settle_tombstones(&mut self) -> Result<()> {
        let mut names = Vec::new();
        list(&*self.repository.store, "tombstones/", |entry| {
            names.extend(entry.key.as_str().strip_prefix("tombstones/").and_then(|n| RandomName::from_hex(n).ok()));
            Ok(())
        })?;
        for name in names {
            self.job.check()?;
            let told = self.doomed(Role::Tombstone, name);
            match told {
                Ok(_) => continue,
                Err(error) if is_damage(&error) => {
                    self.notes.find(Severity::Warning, tombstone_key(name), error.to_string(), vec![]);
                }
                Err(error) => return Err(error),
            }
            let empty = Doomed::default();
            let salt = self.repository.world.salt();
            let bytes = empty.encode(&self.repository.keys, Role::Decision, name, salt, &mut self.codec)?;
            self.repository.store.put_new(&key(Role::Decision.key(name))?, Bytes::from(bytes))?;
            // What lies there holds, whatever the store answered: a prune follows a decision that was there, and where this one was
            // not kept the next one may name anything, so the tombstone stays.
            let held = match self.doomed(Role::Decision, name) {
                Err(error) if !is_damage(&error) => return Err(error),
                held => held.ok().flatten(),
            };
            if held.is_some_and(|held| held.is_empty()) && self.repository.delete(&tombstone_key(name))? {
                self.repository.delete(&open_key(name))?;
            }
        }
        Ok(())
    }

    fn doomed(&mut self, role: Role, name: RandomName) -> Result<Option<Doomed>> {
        let read = || self.repository.get(role.key(name), limits::RECORD_BYTES_MAX);
        opened(read, |read| match read {
            None => Ok(None),
            Some(bytes) => Ok(Some(Doomed::decode(&self.repository.keys, role, name, bytes, &mut self.codec)?)),
        })
    }

    /// Reads what is there. Frames that a prune moved meanwhile are looked for again.
    fn look(&mut self) -> Result<Found> {
        let mut rounds = 0;
        loop {
            rounds += 1;
            self.notes = Arc::new(Notes::default());
            self.report = RepairReport::default();
            check::slots(self.repository, &self.notes)?;
            self.report.slots_damaged = self.notes.with(|report| report.errors);
            let writers = self.repository.table_writers()?;
            let (rows, damaged) = self.repository.snapshots()?;
            self.report.snapshots = rows.len() as u64;
            self.report.snapshots_damaged = damaged.len() as u64;
            for (session, error) in damaged {
                let message = format!("{error}; if it does not come back, give it up with: longshore volume delete");
                self.notes.find(Severity::Error, format!("snapshots/{session}"), message, vec![public_id(session)]);
            }
            for (session, error) in &self.repairs.unreadable {
                self.notes.find(Severity::Error, repair_key(*session), error.to_string(), vec![]);
            }
            let index = Arc::new(self.repository.load_index_and_headers(self.job)?);
            for (segment, why) in &index.damaged {
                self.notes.find(Severity::Error, index_key(*segment), why.clone(), vec![]);
            }
            let packs = index.pack_sizes().keys();
            self.report.snapshots_lost = check::lost::look(self.repository, &writers, &rows, packs, &self.notes)?;
            let seen = self.read_packs(&index)?;
            // Tables after packs: what is named by a table was there when it was written.
            let (mut tables, mut needed) = (Vec::with_capacity(rows.len()), Usage::new());
            for row in &rows {
                self.job.check()?;
                let (own, unreadable) = self.own_tables(row)?;
                needed.merge(&own);
                tables.push((own, unreadable));
            }
            let is_whole = needed.frames().all(|frame| seen.good.contains(frame));
            if is_whole || rounds >= ROUNDS || !self.repository.index_changed(&index)? {
                return Ok(Found { index, seen, rows, tables, needed });
            }
        }
    }

    /// Leaves out those that miss something and were deleted meanwhile: a prune may have taken it. Whether there were any. Asks for each removal by
    /// its name, for what a listing of snapshots leaves out is not deleted.
    fn leave_out_deleted(&mut self, found: &mut Found) -> Result<bool> {
        let mut gone = BTreeSet::new();
        for (row, (own, unreadable)) in found.rows.iter().zip(&found.tables) {
            let misses = !unreadable.is_empty() || own.frames().any(|frame| !found.seen.good.contains(frame));
            if misses && self.repository.is_removed(row.session)? {
                gone.insert(row.id());
            }
        }
        if gone.is_empty() {
            return Ok(false);
        }
        let (rows, tables) = (std::mem::take(&mut found.rows), std::mem::take(&mut found.tables));
        (found.rows, found.tables) = rows.into_iter().zip(tables).filter(|(row, _)| !gone.contains(&row.id())).unzip();
        found.needed = Usage::new();
        found.tables.iter().for_each(|(own, _)| found.needed.merge(own));
        self.notes.forget_snapshots(&gone);
        Ok(true)
    }

    fn read_packs(&mut self, index: &Arc<Index>) -> Result<packs::Seen> {
        // Of what an unreadable record knew nothing is left: it is looked for everywhere.
        let all = self.options.read_data || !self.repairs.unreadable.is_empty();
        let depth = if all { Depth::Ids } else { Depth::Header };
        let todo: Vec<(PackName, u64, Depth)> = index.pack_sizes().iter().map(|(name, size)| (*name, *size, depth)).collect();
        self.job.bytes_expected.store(todo.iter().map(|(_, size, _)| *size).sum(), Relaxed);
        let options = CheckOptions {
            workers: self.options.workers,
            memory_budget_bytes: self.options.memory_budget_bytes,
            host: self.options.host.clone(),
            fresh: self.options.fresh,
            ..CheckOptions::default()
        };
        if all && self.journal.is_none() {
            self.journal = check::journal(self.repository, "repair all", self.job, &self.notes, &options);
        }
        let journal = self.journal.as_ref();
        if let Some((begun_nanos, _)) = journal.and_then(|journal| journal.before()) {
            self.notes.with(|report| report.begun_nanos = begun_nanos);
        }
        packs::read(self.repository, index, self.job, &self.notes, None, self.repairs.damaged(), todo, journal, &options)
    }

    fn own_tables(&mut self, row: &SnapshotRow) -> Result<(Usage, Vec<UsageName>)> {
        let (mut own, mut unreadable) = (Usage::new(), Vec::new());
        for name in &row.snapshot.usage {
            let read = || self.repository.get(usage_key(*name), limits::USAGE_BYTES_MAX);
            let table = opened(read, |read| match read {
                Some(bytes) => Ok(Usage::decode(&self.repository.keys, *name, bytes, &mut self.codec)?),
                None => Err(Error::corrupt("usage table is gone")),
            });
            match table {
                Ok(table) => own.merge(&table),
                Err(error) if is_damage(&error) => {
                    self.notes.find(Severity::Error, usage_key(*name), error.to_string(), vec![row.id()]);
                    unreadable.push(*name);
                }
                Err(error) => return Err(error),
            }
        }
        Ok((own, unreadable))
    }

    /// Whom damage touches, and what has to be written down of it.
    fn judge(&mut self, found: &mut Found) -> Result<Repair> {
        let mut record = Repair { damaged: self.damaged_places(found), ..Repair::default() };
        for (pack, frames) in std::mem::take(&mut self.spoilt) {
            record.damaged.entry(pack).or_default().merge(&frames);
        }
        let options = CheckOptions { memory_budget_bytes: self.options.memory_budget_bytes, ..CheckOptions::default() };
        let reader = check::reader(self.repository, &found.index, self.job, &options);
        let (mut told, mut rounds): (BTreeMap<SessionId, trees::Told>, usize) = (BTreeMap::new(), 0);
        loop {
            rounds += 1;
            record.lost = lost(found, &record.damaged);
            told.clear();
            self.notes.forget_hurt();
            let mut rotten = BTreeMap::new();
            let touched: Vec<(&SnapshotRow, &Usage, bool)> = found
                .rows
                .iter()
                .zip(&found.tables)
                .map(|(row, (own, unreadable))| (row, own, unreadable.is_empty()))
                .filter(|(_, own, has_tables)| !has_tables || own.meets(&record.lost))
                .collect();
            let tables = common_tables(&touched);
            let mut common = trees::Common { tables: &tables, sound: Sound::default() };
            for (row, own, has_tables) in touched {
                self.job.check()?;
                self.job.at(row.id().as_bytes());
                let mut asked = trees::look(&reader, row, own, has_tables, &found.seen.good, &mut common, &self.notes)?;
                rotten.append(&mut asked.rotten);
                told.insert(row.session, asked);
            }
            if self.leave_out_deleted(found)? {
                continue;
            }
            for ((pack, _), birth) in &rotten {
                found.seen.good.remove(*birth);
                record.damaged.entry(*pack).or_default().insert(*birth);
            }
            // What was asked before these were known to be damaged may have been answered out of them.
            if rotten.is_empty() || rounds >= ROUNDS {
                break;
            }
        }
        record.lost = lost(found, &record.damaged);
        for (pack, frames) in &mut record.damaged {
            // What a pack without a header held is unknown; if anything of it is missed, it may lie there.
            if found.seen.headless.contains(pack) {
                record.lost.frames_of(*pack).for_each(|frame| frames.insert(frame));
            }
        }
        self.note_missing(found, &record);
        self.write_needs(found, told, &mut record);
        Ok(record)
    }

    /// Where something damaged lies, and packs that are damaged otherwise.
    fn damaged_places(&self, found: &Found) -> BTreeMap<PackName, Usage> {
        let mut damaged = found.seen.damaged.clone();
        for pack in &found.seen.headless {
            let frames = damaged.entry(*pack).or_default();
            // Once known, and nothing can be read that says otherwise.
            for repair in self.repairs.known.values() {
                if let Some(known) = repair.damaged.get(pack) {
                    known.frames().filter(|frame| !found.seen.good.contains(*frame)).for_each(|frame| frames.insert(frame));
                }
            }
        }
        damaged
    }

    fn note_missing(&mut self, found: &Found, record: &Repair) {
        let mut by_pack: BTreeMap<PackName, u64> = BTreeMap::new();
        record.lost.frames().for_each(|frame| *by_pack.entry(frame.pack).or_default() += 1);
        for (pack, frames) in &by_pack {
            let mut of_pack = Usage::new();
            record.lost.frames_of(*pack).for_each(|frame| of_pack.insert(frame));
            let hurt = found.rows.iter().zip(&found.tables).filter(|(_, (own, _))| own.meets(&of_pack));
            let names = hurt.map(|(row, _)| row.id()).collect();
            let what = if found.index.pack_sizes().contains_key(pack) { "are damaged" } else { "are lost with it" };
            self.notes.find(
                Severity::Error,
                pack.key(),
                format!("frames that were written into it {what}: frames={frames}"),
                names,
            );
        }
        self.report.packs_damaged = record.damaged.len() as u64;
        self.report.frames_lost = record.lost.len();
    }

    /// What touched snapshots need from now on.
    fn write_needs(&mut self, found: &Found, told: BTreeMap<SessionId, trees::Told>, record: &mut Repair) {
        let is_cut = told.values().any(|told| told.is_cut);
        for (row, (_, unreadable)) in found.rows.iter().zip(&found.tables) {
            let Some(told) = told.get(&row.session) else { continue };
            let mut needs = told.needs.clone();
            if told.is_cut {
                // What lies below a tree that is lost is unknown: what an earlier repair knew of it holds on, and when the snapshot has no
                // table either, everything that is there may belong to it.
                self.repairs.needs(row.session).for_each(|known| needs.merge(known));
                if !unreadable.is_empty() {
                    needs.merge(&found.seen.good);
                }
            }
            record.needs.insert(row.session, needs);
            record.tables.extend(unreadable);
            record.wanted.extend(&told.wanted);
        }
        if is_cut {
            self.repairs.known.values().for_each(|known| record.wanted.extend(&known.wanted));
        }
        self.report.snapshots_touched = record.needs.len() as u64;
        self.report.tables_rebuilt = record.tables.len() as u64;
        self.report.chunks_missing = record.wanted.len() as u64;
    }

    /// Writes down what was found, and deletes what earlier repairs wrote: the new record says all of it that still holds.
    fn record(&mut self, mut record: Repair) -> Result<()> {
        // When and where it was made is no news.
        let says_it = |known: &Repair| {
            let same = Repair { at_nanos: known.at_nanos, host: known.host.clone(), ..record.clone() };
            *known == same
        };
        let kept = self.repairs.known.iter().find(|(_, known)| says_it(known)).map(|(session, _)| *session);
        let is_news = kept.is_none();
        self.report.recorded = is_news && !record.is_empty();
        if self.options.dry_run {
            return Ok(());
        }
        let mut old: BTreeSet<SessionId> = self.repairs.unreadable.iter().map(|(session, _)| *session).collect();
        old.extend(self.repairs.known.keys().filter(|session| Some(**session) != kept));
        if self.report.recorded {
            record.at_nanos = self.repository.world.clock.wall_nanos();
            record.host.clone_from(&self.options.host);
            let bytes = record.encode(&self.repository.keys, self.session, self.repository.world.salt(), &mut self.codec)?;
            let at = key(repair_key(self.session))?;
            self.repository.store.put_new(&at, Bytes::from(bytes))?;
            // A store may acknowledge what it does not keep, and older records go on the strength of this one.
            self.repository.store.head(&at)?;
        }
        for session in old {
            self.repository.delete(&repair_key(session))?;
        }
        Ok(())
    }
}

/// The frames that the tables of all snapshots name which have theirs.
fn common_tables(rows: &[(&SnapshotRow, &Usage, bool)]) -> Usage {
    let mut all = rows.iter().filter(|(.., has_tables)| *has_tables).map(|(_, own, _)| *own);
    let mut common = all.next().cloned().unwrap_or_default();
    all.for_each(|own| common.intersect(own));
    common
}

/// Frames that somebody needs or a pack should hold, and that lie nowhere whole.
fn lost(found: &Found, damaged: &BTreeMap<PackName, Usage>) -> Usage {
    let mut lost = Usage::new();
    let all = std::iter::once(&found.needed).chain(damaged.values());
    all.flat_map(Usage::frames).filter(|frame| !found.seen.good.contains(*frame)).for_each(|frame| lost.insert(frame));
    lost
}
