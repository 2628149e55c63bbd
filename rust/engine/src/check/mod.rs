//! Whether a repository still holds what its snapshots need.
//!
//! Holds [`run`], which looks at everything, and [`verify_snapshot`], which reads what one snapshot needs. Promises to change nothing,
//! to believe no copy that this machine keeps, to blame an object only for damage that a second look confirms, and to name the
//! snapshots and files that damage hurts. One that was killed while it read data goes on where it ended, by its journal. Memory: one bit
//! a frame, a row a pack, 30 MB for trees that were found sound, 33 bytes a tree chunk of one snapshot below which something is hurt, and the
//! bytes being read. `packs` reads packs, `walk` goes through trees, `trees` says what a check asks of them, `lost` finds snapshots that are gone,
//! `sessions` what sessions and prunes wrote of themselves.

pub(crate) mod lost;
pub(crate) mod packs;
mod report;
mod sessions;
mod trees;
pub(crate) mod walk;

use crate::error::{Error, Result};
use crate::job::{Job, Stage};
use crate::journal::Checked;
use crate::repository::cursor::{as_damage, is_damage};
use crate::repository::index::Index;
use crate::repository::opened;
use crate::repository::reader::ChunkReader;
use crate::repository::repairs::Repairs;
use crate::repository::snapshots::SnapshotRow;
use crate::repository::{Repository, list};
use longshore_format::envelope::Codec;
use longshore_format::id::{PackName, SessionId};
use longshore_format::index::index_key;
use longshore_format::limits;
use longshore_format::repair::repair_key;
use longshore_format::usage::{Usage, usage_key};
pub use packs::Depth;
pub(crate) use report::Notes;
pub use report::{CheckReport, FINDINGS_NAMED_MAX, Finding, HURT_NAMED_MAX, HurtItem, Severity};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// One part of all packs. Which part a pack belongs to follows from its name alone: all parts together are all packs, each once, and
/// none changes its part while others come and go. Packs of one session go round the parts, so these are about equally large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Which, from 0.
    pub part: u32,
    /// How many there are.
    pub parts: u32,
}

impl Share {
    /// Whether a pack belongs to it.
    #[must_use]
    pub fn holds(&self, pack: PackName) -> bool {
        let session = u128::from_be_bytes(pack.session.0) % u128::from(self.parts.max(1));
        (session + u128::from(pack.number)) % u128::from(self.parts.max(1)) == u128::from(self.part)
    }
}

/// How to check.
#[derive(Clone, Debug)]
pub struct CheckOptions {
    /// Read the packs of this share, too; of a verify: of this share alone.
    pub share: Option<Share>,
    /// Read the frames of packs, too: none, all or a random part of the packs.
    pub read_percent: u8,
    /// Threads that read; 0: the calling thread.
    pub workers: usize,
    /// Bound of all buffers.
    pub memory_budget_bytes: usize,
    /// Host, for markers.
    pub host: String,
    /// Read what an interrupted run of the same question has read, too.
    pub fresh: bool,
    /// Of a verify: it is one of several that count together, so what it read is not read again until [`forget_journals`].
    pub keep_journal: bool,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self {
            share: None,
            read_percent: 0,
            workers: 2,
            memory_budget_bytes: 128 << 20,
            host: String::new(),
            fresh: false,
            keep_journal: false,
        }
    }
}

/// Looks at the whole repository.
///
/// # Errors
/// `Cancelled`, or what the store says. Damage is no error but found.
pub fn run(repository: &Repository, job: &Arc<Job>, options: &CheckOptions) -> Result<CheckReport> {
    let repository = &repository.asking_store();
    let clock = Arc::clone(&repository.world.clock);
    let started = clock.monotonic();
    job.enter(Stage::Preparing);
    let notes = Arc::new(Notes::default());
    if let Some(prefix) = repository.listed_empty()? {
        let message =
            "a listing is empty that cannot be: the store answers wrongly, and what else is said here may be wrong, too";
        notes.find(Severity::Error, prefix, message, vec![]);
    }
    slots(repository, &notes)?;
    sessions::look(repository, job, &notes, options.read_percent >= 100)?;
    let writers = repository.table_writers()?;
    let (rows, damaged) = repository.snapshots()?;
    for (session, error) in damaged {
        let name = longshore_format::snapshot::public_id(session);
        notes.find(Severity::Error, format!("snapshots/{session}"), error.to_string(), vec![name]);
    }
    let repairs = known_repairs(repository, &notes)?;
    let index = Arc::new(repository.load_index(job)?);
    for (segment, why) in &index.damaged {
        notes.find(Severity::Error, format!("index/{segment}"), why.clone(), vec![]);
    }
    let unindexed = compare_sizes(&index, &repairs, &notes);
    if !unindexed.is_empty() {
        repository.index_from_headers(&index, job, &mut Codec::new()?)?;
    }
    lost::look(repository, &writers, &rows, index.pack_sizes().keys(), &notes)?;
    if rows.is_empty() && notes.with(|report| report.errors) == 0 && !index.pack_sizes().is_empty() {
        let message = format!(
            "is empty, and packs are there: packs={}; if there should be snapshots, look for faults of the store; if all were deleted, \
             a prune frees the packs",
            index.pack_sizes().len()
        );
        notes.find(Severity::Warning, "snapshots/", message, vec![]);
    }
    job.enter(Stage::Running);
    let all: Vec<(PackName, u64)> = index.pack_sizes().iter().map(|(name, size)| (*name, *size)).collect();
    job.bytes_expected.store(all.iter().map(|(_, size)| *size).sum(), std::sync::atomic::Ordering::Relaxed);
    let is_read = |name: &PackName| draw(repository) < options.read_percent || options.share.is_some_and(|s| s.holds(*name));
    let depth = |name: &PackName| if is_read(name) { Depth::Ids } else { Depth::Header };
    let todo = all.into_iter().map(|(name, size)| (name, size, depth(&name))).collect();
    // A part that chance chooses is another one each time.
    let journal = match (options.read_percent, options.share) {
        (100.., _) => journal(repository, "check all", job, &notes, options),
        (0, Some(Share { part, parts })) => journal(repository, &format!("check {part}/{parts}"), job, &notes, options),
        _ => None,
    };
    let mut seen = packs::read(repository, &index, job, &notes, None, repairs.damaged(), todo, journal.as_ref(), options)?;
    compare_sums(&index, &seen, &notes);
    if !unindexed.is_empty() {
        let message = format!("in no index: a session that died, or one that runs now: packs={}", unindexed.len());
        notes.find(Severity::Warning, unindexed[0].key(), message, vec![]);
    }
    // Removed while we looked: no longer ours to judge.
    let still: BTreeSet<SessionId> = repository.snapshot_names()?;
    let rows: Vec<SnapshotRow> = rows.into_iter().filter(|row| still.contains(&row.session)).collect();
    let index = if repository.index_changed(&index)? {
        let mut lost = Usage::new();
        for row in &rows {
            job.check()?;
            // What is wrong with a table is said below.
            let (needed, _) = usage_tables(repository, row, &repairs, &Notes::default())?;
            needed.frames().filter(|frame| !seen.good.contains(*frame)).for_each(|frame| lost.insert(frame));
        }
        let read = index.pack_sizes().keys().copied().collect();
        moved(repository, index, &lost, read, &mut seen.good, Depth::Header, job, &notes, options)?
    } else {
        index
    };
    let indexed = if unindexed.is_empty() { Usage::new() } else { index.frames_of_stored_segments() };
    let mut unlisted: BTreeSet<PackName> = BTreeSet::new();
    for row in &rows {
        job.check()?;
        let (needed, _) = usage_tables(repository, row, &repairs, &notes)?;
        missing(row, &needed, &seen.good, &repairs, &notes);
        // What is whole of a damaged pack, or of one that a prune is about to delete, was moved and is indexed elsewhere.
        let damaged = repairs.damaged();
        let is_news = |pack: &PackName| unindexed.binary_search(pack).is_ok() && !damaged.contains_key(pack);
        let is_elsewhere = |pack: &PackName| needed.frames_of(*pack).all(|frame| indexed.contains(frame));
        unlisted.extend(needed.packs().filter(|pack| is_news(pack) && !is_elsewhere(pack)));
    }
    for pack in unlisted {
        notes.find(Severity::Error, pack.key(), "is needed and in no index: backups would store its chunks again", vec![]);
    }
    let reader = reader(repository, &index, job, options);
    trees::look(&reader, &rows, &seen.good, &notes)?;
    notes.with(|report| report.snapshots = rows.len() as u64);
    if notes.with(|report| report.errors > 0 || report.items_hurt > 0) {
        // A check has no marker: what was deleted while trees were read, a prune may have freed by then.
        let still = repository.snapshot_names()?;
        let gone = rows.iter().filter(|row| !still.contains(&row.session)).map(SnapshotRow::id).collect();
        notes.forget_snapshots(&gone);
    }
    journal.iter().for_each(|journal| journal.remove());
    job.enter(Stage::Finished);
    Ok(notes.finish(clock.monotonic().saturating_sub(started).as_secs_f64()))
}

/// Reads everything that one snapshot needs, pack by pack in large ranges; `ids` recomputes the id of every chunk, else only seals are
/// checked. Names the files that damage hurts.
///
/// # Errors
/// `SnapshotNotFound`, `Cancelled`, or what the store says.
pub fn verify_snapshot(
    repository: &Repository,
    session: SessionId,
    ids: bool,
    job: &Arc<Job>,
    options: &CheckOptions,
) -> Result<CheckReport> {
    let repository = &repository.asking_store();
    let clock = Arc::clone(&repository.world.clock);
    let started = clock.monotonic();
    job.enter(Stage::Preparing);
    let notes = Arc::new(Notes::default());
    let row = repository.find_snapshot(&session.to_string(), None).map_err(as_damage)?;
    let marker = repository.open_reader(row.session, &row.snapshot.usage, &options.host)?;
    let index = Arc::new(repository.load_index(job)?);
    let repairs = repository.repairs(&mut Codec::new()?)?;
    let (mut needed, tables_read) = usage_tables(repository, &row, &repairs, &notes)?;
    if repairs.want_chunks() {
        repository.index_from_headers(&index, job, &mut Codec::new()?)?;
        needed.merge(&repairs.found_again(&index));
    }
    let (mut todo, listed) = packs_with(&index, &needed);
    if listed != needed {
        repository.index_from_headers(&index, job, &mut Codec::new()?)?;
        todo = packs_with(&index, &needed).0;
    }
    job.enter(Stage::Running);
    job.bytes_expected.store(todo.values().sum(), std::sync::atomic::Ordering::Relaxed);
    let depth = if ids { Depth::Ids } else { Depth::Seals };
    // What is not read is taken for whole where it is said to lie; what a repair knows of it holds.
    let mut taken = Usage::new();
    if let Some(share) = options.share {
        todo.retain(|name, _| share.holds(*name));
        for place in index.segments().iter().flat_map(|segment| (0..).map_while(|row| segment.frame(row)).collect::<Vec<_>>()) {
            let is_there = index.pack_sizes().contains_key(&place.pack) && index.is_whole_pack(&place.pack);
            if needed.contains(place.birth) && !share.holds(place.pack) && is_there && !index.is_damaged_place(&place) {
                taken.insert(place.birth);
            }
        }
        job.bytes_expected.store(todo.values().sum(), std::sync::atomic::Ordering::Relaxed);
    }
    let read = todo.keys().copied().collect();
    let todo = todo.into_iter().map(|(name, size)| (name, size, depth)).collect();
    // Without all tables nobody knows what is needed: then everything in these packs, and the walk finds what else.
    let only = tables_read.then(|| Arc::new(needed.clone()));
    let share = options.share.unwrap_or(Share { part: 0, parts: 1 });
    let question = format!("verify {session} {depth:?} {}/{}", share.part, share.parts);
    let journal = journal(repository, &question, job, &notes, options);
    let mut good = packs::read(repository, &index, job, &notes, only, repairs.damaged(), todo, journal.as_ref(), options)?.good;
    good.merge(&taken);
    let index = moved(repository, index, &needed, read, &mut good, depth, job, &notes, options)?;
    let complete = missing(&row, &needed, &good, &repairs, &notes);
    let reader = reader(repository, &index, job, options);
    let clean = complete && tables_read && notes.with(|r| r.errors) == 0;
    if !clean || !ids {
        trees::look(&reader, std::slice::from_ref(&row), &good, &notes)?;
    }
    drop(marker);
    journal.iter().filter(|_| !options.keep_journal).for_each(|journal| journal.remove());
    notes.with(|report| report.snapshots = 1);
    job.enter(Stage::Finished);
    Ok(notes.finish(clock.monotonic().saturating_sub(started).as_secs_f64()))
}

/// Forgets what interrupted checks, verifies and repairs have read, and those that kept their journals.
pub fn forget_journals(repository: &Repository) {
    Checked::forget_all(repository);
}

/// The journal of a question; says what it goes on from.
pub(crate) fn journal(
    repository: &Repository,
    question: &str,
    job: &Job,
    notes: &Notes,
    options: &CheckOptions,
) -> Option<Arc<Checked>> {
    let journal = Arc::new(Checked::open(repository, question, options.fresh)?);
    if let Some((begun_nanos, packs)) = journal.before() {
        job.goes_on_from(begun_nanos, packs as u64);
        notes.with(|report| report.begun_nanos = begun_nanos);
        tracing::info!(begun_nanos = begun_nanos, packs = packs, "Going on from an interrupted run");
    }
    Some(journal)
}

/// Looks for needed frames that were not good where the index said: a prune may have moved them meanwhile. Gives the index in which
/// they were found at last. What is in a pack of those that were `read` already is lost; that a listing showed a pack is not enough, since the
/// index that was read before it may not say what is in it.
#[allow(clippy::too_many_arguments, reason = "all of it is what a check is made of")]
fn moved(
    repository: &Repository,
    mut index: Arc<Index>,
    needed: &Usage,
    mut read: BTreeSet<PackName>,
    good: &mut Usage,
    depth: Depth,
    job: &Arc<Job>,
    notes: &Arc<Notes>,
    options: &CheckOptions,
) -> Result<Arc<Index>> {
    loop {
        let mut lost = Usage::new();
        needed.frames().filter(|frame| !good.contains(*frame)).for_each(|frame| lost.insert(frame));
        if lost.is_empty() || !repository.index_changed(&index)? {
            return Ok(index);
        }
        let fresh = Arc::new(repository.load_index_and_headers(job)?);
        let mut todo = packs_with(&fresh, &lost).0;
        todo.retain(|name, _| read.insert(*name));
        index = fresh;
        if todo.is_empty() {
            return Ok(index);
        }
        let todo = todo.into_iter().map(|(name, size)| (name, size, depth)).collect();
        let known = HashMap::new();
        good.merge(&packs::read(repository, &index, job, notes, Some(Arc::new(lost)), known, todo, None, options)?.good);
    }
}

pub(crate) fn reader(repository: &Repository, index: &Arc<Index>, job: &Arc<Job>, options: &CheckOptions) -> ChunkReader {
    let budget = (options.memory_budget_bytes / 2).max(16 << 20);
    ChunkReader::new(repository.clone(), Arc::clone(index), Arc::clone(job), budget)
}

/// 0 to 99.
fn draw(repository: &Repository) -> u8 {
    let bytes = repository.world.random16();
    ((u16::from(bytes[0]) << 8 | u16::from(bytes[1])) % 100) as u8
}

pub(crate) fn slots(repository: &Repository, notes: &Notes) -> Result<()> {
    let mut listed = Vec::new();
    list(&*repository.store, "keys/", |entry| {
        listed.push(entry.key.as_str().to_owned());
        Ok(())
    })?;
    // Read after they were listed, so that one which somebody adds meanwhile is not missed among them.
    let good: BTreeSet<String> = repository.slots()?.into_iter().map(|slot| format!("keys/{}", slot.name)).collect();
    for name in listed.iter().filter(|name| !good.contains(*name)) {
        let (severity, message) = match repository.has(name)? {
            // Taken away meanwhile.
            false => continue,
            true if repository.is_left_over_slot(name)? => (
                Severity::Warning,
                "key slot of another repository, which somebody began to make here and did not finish: nobody needs it",
            ),
            true => (Severity::Error, "key slot is damaged: its holder cannot open the repository"),
        };
        notes.find(severity, name, message, vec![]);
    }
    Ok(())
}

/// Compares the listing of packs with what the index says of them; returns packs that no segment names.
fn compare_sizes(index: &Index, repairs: &Repairs, notes: &Notes) -> Vec<PackName> {
    let mut known = BTreeMap::new();
    for row in index.segments().iter().flat_map(|segment| segment.packs()) {
        if row.size_bytes != 0 {
            known.insert(row.name, row.size_bytes);
        }
    }
    for (name, said) in &known {
        match index.pack_sizes().get(name) {
            Some(size) if size != said => {
                let message = format!("has another length than the index says: size_bytes={size}, expected={said}");
                let known = repairs.known.values().any(|repair| repair.damaged.contains_key(name));
                notes.find(if known { Severity::Warning } else { Severity::Error }, name.key(), message, vec![]);
            }
            Some(_) => {}
            // Whether anybody needs it the usage tables tell.
            None => notes.find(Severity::Warning, name.key(), "is in the index and not in the store", vec![]),
        }
    }
    let mut unindexed: Vec<PackName> = index.pack_sizes().keys().filter(|name| !known.contains_key(name)).copied().collect();
    unindexed.sort();
    unindexed
}

/// What repairs know; a record that cannot be read is a finding.
fn known_repairs(repository: &Repository, notes: &Notes) -> Result<Repairs> {
    let repairs = repository.repairs(&mut Codec::new()?)?;
    for (session, error) in &repairs.unreadable {
        notes.find(Severity::Error, repair_key(*session), error.to_string(), vec![]);
    }
    Ok(repairs)
}

/// That each segment says of a pack what the pack's header says.
fn compare_sums(index: &Index, seen: &packs::Seen, notes: &Notes) {
    for (name, segment) in index.named_segments() {
        for (pack, said) in packs::sums(&segment) {
            if seen.sums.get(&pack).is_some_and(|sum| *sum != said) {
                let message = format!("says of a pack what its header does not: pack={pack}");
                notes.find(Severity::Error, index_key(name), message, vec![]);
            }
        }
    }
}

/// The packs, with their listed size, in which needed frames lie according to the index, and the frames that it knows.
fn packs_with(index: &Index, needed: &Usage) -> (BTreeMap<PackName, u64>, Usage) {
    let (mut out, mut known) = (BTreeMap::new(), Usage::new());
    for segment in index.segments() {
        for row in 0..segment.frame_count() {
            if let Some(frame) = u32::try_from(row).ok().and_then(|row| segment.frame(row))
                && needed.contains(frame.birth)
                && let Some(size) = index.pack_sizes().get(&frame.pack)
            {
                out.insert(frame.pack, *size);
                known.insert(frame.birth);
            }
        }
    }
    (out, known)
}

/// A snapshot's usage tables together with what repairs say in their place, and whether nothing is missing.
pub(crate) fn usage_tables(
    repository: &Repository,
    row: &SnapshotRow,
    repairs: &Repairs,
    notes: &Notes,
) -> Result<(Usage, bool)> {
    let (mut all, mut whole, mut codec) = (Usage::new(), true, Codec::new()?);
    for name in &row.snapshot.usage {
        let read = || repository.get(usage_key(*name), limits::USAGE_BYTES_MAX);
        let usage = opened(read, |read| match read {
            Some(bytes) => Ok(Usage::decode(&repository.keys, *name, bytes, &mut codec)?),
            None => Err(Error::corrupt("usage table is gone")),
        });
        match usage {
            Ok(usage) => all.merge(&usage),
            Err(error) if is_damage(&error) && repairs.speaks_for(name, row.session) => {
                notes.find(Severity::Warning, usage_key(*name), format!("{error}; a repair has made another"), vec![row.id()]);
            }
            Err(error) if is_damage(&error) => {
                whole = false;
                notes.find(Severity::Error, usage_key(*name), error.to_string(), vec![row.id()]);
            }
            Err(error) => return Err(error),
        }
    }
    repairs.needs(row.session).for_each(|usage| all.merge(usage));
    Ok((all, whole))
}

/// Whether every frame which a snapshot needs is good somewhere. Of those that a repair found nowhere only the trees tell whether
/// they are missed still: their chunks may have been stored again.
fn missing(row: &SnapshotRow, needed: &Usage, good: &Usage, repairs: &Repairs, notes: &Notes) -> bool {
    let mut lost: BTreeMap<PackName, u64> = BTreeMap::new();
    let mut complete = true;
    for frame in needed.frames().filter(|frame| !good.contains(*frame)) {
        complete = false;
        if repairs.is_lost(frame) {
            continue;
        }
        *lost.entry(frame.pack).or_default() += 1;
    }
    for (pack, frames) in &lost {
        let message = format!("frames that were written into this pack are needed, and damaged or nowhere: frames={frames}");
        notes.find(Severity::Error, pack.key(), message, vec![row.id()]);
    }
    complete
}
