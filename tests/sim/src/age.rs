//! Years of life: hourly backups, daily retention and prune, a check each month, with faults and clocks that jump.
//!
//! One repository, one process after another. They remember what they opened, as processes do that share a cache; the monthly check and the
//! last prunes remember nothing. Some die, some stores fail, some clocks are years off; nothing is ever cured by hand.
//!
//! After each prune that ends well the oracle asks for what nobody needed when it began: only a writer that may still commit, or a
//! generation that waits for one, may hold it, and nothing is held for longer than [`HELD_MAX`]: every writer is either done or dead by then.
//! At the end nothing may be left that nobody needs.

use crate::draw::Draw;
use crate::link::{Call, Fate};
use crate::oracle::left::Spare;
use crate::process::{Birth, Process};
use crate::scene::{BEGIN, fresh, prune_options};
use crate::sea::Sea;
use crate::stage::{DAY, SECOND, Stage};
use crate::volume::Volume;
use longshore_engine::ErrorKind;
use longshore_engine::repository::cache::Cache;
use longshore_store::StoreErrorKind;
use longshore_store::layers::Verb;
use std::collections::BTreeMap;
use std::sync::Arc;

const HOUR: u64 = 3600 * SECOND;
const FILES: u64 = 8;
const FILE_BYTES_MAX: u64 = 4000;
/// Hourly snapshots that are kept.
const HOURLY: usize = 24;
/// Of the older ones, one a day is kept for so many.
const DAILY: usize = 7;
/// A writer that died is fenced after seven days and three prunes. What it sent goes then into a generation that waits for those who are open at
/// that moment, and are fenced as long after. Some prunes fail.
const HELD_MAX: u64 = 21 * DAY;

/// What became of the years.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lived {
    /// Backups begun.
    pub backups: u64,
    /// Of them, acknowledged.
    pub acknowledged: u64,
    /// Prunes begun.
    pub prunes: u64,
    /// Objects at the end.
    pub objects: u64,
    /// Of them, those that are kept for ever: removals.
    pub removals: u64,
    /// Decisions.
    pub decisions: u64,
    /// Ends of sessions that were given up.
    pub ends: u64,
    /// Most bytes that nobody needed and that were held for a dead writer when a prune had ended well.
    pub held_bytes_max: u64,
    /// Longest time for which anything was.
    pub held_nanos_max: u64,
}

/// What is held for dead writers, and since when.
#[derive(Debug, Default)]
struct Holds {
    since: BTreeMap<(String, u64), u64>,
    bytes_max: u64,
    nanos_max: u64,
}

impl Holds {
    /// That of what nobody needed before a prune nothing is left that nothing holds, and nothing that was held for long.
    fn after_prune(&mut self, sea: &Sea, before: &Spare, now: u64) -> Result<(), String> {
        let left: Vec<(String, u64, bool)> = sea.oracle(|ledger| {
            let stays = ledger.spare().into_iter().filter(|(key, birth)| before.get(key) == Some(birth));
            stays.map(|(key, birth)| (key.clone(), birth, ledger.is_held(&key))).collect()
        });
        let loose: Vec<&String> = left.iter().filter(|(_, _, is_held)| !is_held).map(|(key, ..)| key).collect();
        if !loose.is_empty() {
            return Err(format!("I5: nobody needs it, nothing holds it, and a prune left it: {loose:?}"));
        }
        self.bytes_max = self.bytes_max.max(left.iter().map(|(key, ..)| sea.size_bytes(key)).sum());
        let since = |key, birth| self.since.get(&(key, birth)).copied().unwrap_or(now);
        self.since = left.into_iter().map(|(key, birth, _)| ((key.clone(), birth), since(key, birth))).collect();
        let oldest = self.since.iter().min_by_key(|(_, since)| **since).map(|((key, _), since)| (key, now - since));
        let Some((key, held)) = oldest else { return Ok(()) };
        self.nanos_max = self.nanos_max.max(held);
        if held <= HELD_MAX {
            Ok(())
        } else {
            Err(format!("I5: nobody needs it, and prunes leave it for {} days: [{key:?}]", held / DAY))
        }
    }
}

fn birth(seed: u64, hour: u64, forgotten: Option<&'static str>) -> Birth {
    let mut draw = Draw::new(seed, hour << 8);
    let ten_years = (3652 * DAY) as i64;
    let skew_nanos = if draw.in_thousand(50) { draw.below(2 * ten_years as u64) as i64 - ten_years } else { 0 };
    let (mortal, fails) = (draw.in_thousand(30), draw.in_thousand(50));
    let plan = move |call: &Call<'_>| {
        let fate = match () {
            () if call.verb == Verb::Delete && forgotten.is_some_and(|folder| call.key.starts_with(folder)) => Fate::Lose,
            () if mortal && draw.in_thousand(30) => draw.one_of(&[Fate::DieBefore, Fate::DieAfter]),
            () if fails && draw.in_thousand(30) && call.verb == Verb::PutNew => Fate::Late(draw.magnitude(SECOND, 40 * DAY)),
            () if fails && draw.in_thousand(50) => Fate::FailAfter(StoreErrorKind::Unavailable),
            () => Fate::Pass,
        };
        (SECOND / 100, fate)
    };
    let seed = Draw::new(seed, hour << 8 | 1).number();
    Birth { seed, number: 0, skew_nanos, jump: (u64::MAX, 0), retries: true, plan: Box::new(plan) }
}

/// Lives so many hours.
///
/// # Errors
/// The first hour in which something does not hold.
pub fn live(seed: u64, hours: u64) -> Result<Lived, String> {
    live_how(seed, hours, None)
}

/// Lives so many hours with prunes and deletions that leave a folder as it is and do not know.
fn live_how(seed: u64, hours: u64, forgotten: Option<&'static str>) -> Result<Lived, String> {
    let stage = Stage::alone(BEGIN);
    let (sea, repository) = fresh(seed, &stage);
    let remembering = repository.with_cache(&Cache::in_memory());
    let mut volume = Volume::random(&mut Draw::new(seed, 1), FILES, FILE_BYTES_MAX);
    let (mut lived, mut kept) = (Lived::default(), Vec::<String>::new());
    let (mut draw, mut holds) = (Draw::new(seed, 2), Holds::default());
    for hour in 0..hours {
        stage.advance(HOUR);
        let process = |part: u64| {
            let forgotten = forgotten.filter(|_| part > 1);
            Process::new(&sea, &stage, birth(seed ^ part << 40, hour, forgotten)).at_home(&remembering)
        };
        volume.live(&mut draw, FILES, FILE_BYTES_MAX);
        lived.backups += 1;
        let writer = process(1);
        match writer.back_up(&volume, "a") {
            Ok(_) => lived.acknowledged += 1,
            Err(error) if !writer.link.was_disturbed() => return Err(format!("hour {hour}: I4: a backup: {error}")),
            Err(_) => {}
        }
        // Retention goes by what counts, acknowledged or not.
        sea.oracle(|ledger| {
            kept.retain(|session| ledger.counted().contains_key(session));
            let new: Vec<String> = ledger.counted().keys().filter(|session| !kept.contains(session)).cloned().collect();
            kept.extend(new);
        });
        if hour % 24 == 23 {
            // One a day of those that are no longer hourly, then none.
            let hourly = kept.len().saturating_sub(HOURLY);
            let old: Vec<String> = kept[..hourly].to_vec();
            let daily: Vec<&String> = old.iter().rev().step_by(24).take(DAILY).collect();
            let remover = process(2);
            for session in old.iter().filter(|session| !daily.contains(session)) {
                let _ = remover.delete(session);
            }
            lived.prunes += 1;
            let pruner = process(3);
            let before = sea.oracle(|ledger| ledger.spare());
            match pruner.prune(&prune_options()) {
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    return Err(format!("hour {hour}: I7: a prune finds something missing: {error}"));
                }
                Err(error) if !pruner.link.was_disturbed() => return Err(format!("hour {hour}: I4: a prune: {error}")),
                Err(_) => {}
                Ok(_) => holds.after_prune(&sea, &before, stage.now()).map_err(|why| format!("hour {hour}: {why}"))?,
            }
        }
        if hour % (24 * 30) == 24 * 30 - 1 {
            let quiet = Process::new(&sea, &stage, Birth::quiet(seed ^ hour)).at_home(&repository);
            quiet.check().map_err(|error| format!("hour {hour}: I1: a check: {error}"))?;
        }
        sea.oracle(|ledger| ledger.violation().map_or(Ok(()), |what| Err(format!("hour {hour}: {what}"))))?;
        if let Some(session) = sea.oracle(|ledger| ledger.lost().cloned()) {
            return Err(format!("hour {hour}: I1: an acknowledged snapshot does not count: {session}"));
        }
    }
    finish(&sea, &stage, seed, &repository, &volume)?;
    let count = |prefix: &str| sea.keys(prefix).len() as u64;
    (lived.objects, lived.removals, lived.decisions) = (count(""), count("removed/"), count("decisions/"));
    lived.ends = sea.oracle(|ledger| ledger.ends());
    (lived.held_bytes_max, lived.held_nanos_max) = (holds.bytes_max, holds.nanos_max);
    Ok(lived)
}

fn finish(
    sea: &Arc<Sea>,
    stage: &Arc<Stage>,
    seed: u64,
    repository: &longshore_engine::repository::Repository,
    volume: &Volume,
) -> Result<(), String> {
    sea.land(u64::MAX);
    let last = Process::new(sea, stage, Birth::quiet(seed ^ 0xe4d)).at_home(repository);
    crate::schedule::settle(sea, &last, volume).map_err(|why| format!("at the end: {why}"))?;
    // After the backup that follows, too.
    let left = crate::schedule::left(sea);
    if left.is_empty() { Ok(()) } else { Err(format!("at the end: I5: orphans: {left:?}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Long enough for writers to die, for prunes to fence them, and for anything that is held then to be held too long.
    const HOURS: u64 = 24 * 40;

    #[test]
    fn a_short_life_leaves_nothing() {
        let lived = live(1, HOURS).unwrap();
        assert!(lived.ends > 0 && lived.held_nanos_max > 5 * DAY && lived.held_bytes_max > 0, "nobody died: {lived:?}");
    }

    #[test]
    fn a_prune_that_forgets_one_kind_of_object_is_seen() {
        for folder in ["packs/", "usage/", "index/", "tombstones/", "open/", "sessions/", "watches/", "snapshots/"] {
            match live_how(1, HOURS, Some(folder)) {
                Ok(lived) => panic!("not seen: {folder}: {lived:?}"),
                Err(seen) => assert!(seen.contains("I5") && seen.contains(&format!("[\"{folder}")), "{folder}: {seen}"),
            }
        }
    }
}
