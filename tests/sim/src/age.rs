//! Years of life: hourly backups, daily retention and prune, a check each month, with faults and clocks that jump.
//!
//! One repository, one process after another. They remember what they opened, as processes do that share a cache; the monthly check and the
//! last prunes remember nothing. Some die, some stores fail, some clocks are years off; nothing is ever cured by hand. At the end
//! nothing may be left that nobody needs.

use crate::draw::Draw;
use crate::link::{Call, Fate};
use crate::process::{Birth, Process};
use crate::scene::{BEGIN, fresh, prune_options};
use crate::sea::Sea;
use crate::stage::{DAY, SECOND, Stage};
use crate::volume::Volume;
use longshore_engine::ErrorKind;
use longshore_engine::repository::cache::Cache;
use longshore_store::StoreErrorKind;
use longshore_store::layers::Verb;
use std::sync::Arc;

const HOUR: u64 = 3600 * SECOND;
const FILES: u64 = 8;
const FILE_BYTES_MAX: u64 = 4000;
/// Hourly snapshots that are kept.
const HOURLY: usize = 24;
/// Of the older ones, one a day is kept for so many.
const DAILY: usize = 7;

/// What became of the years.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lived {
    /// Backups begun.
    pub backups: u64,
    /// Of them, acknowledged.
    pub acknowledged: u64,
    /// Prunes begun.
    pub prunes: u64,
    /// Objects at the end, those that are kept for ever among them.
    pub objects: u64,
}

fn birth(seed: u64, hour: u64) -> Birth {
    let mut draw = Draw::new(seed, hour << 8);
    let ten_years = (3652 * DAY) as i64;
    let skew_nanos = if draw.in_thousand(50) { draw.below(2 * ten_years as u64) as i64 - ten_years } else { 0 };
    let (mortal, fails) = (draw.in_thousand(30), draw.in_thousand(50));
    let plan = move |call: &Call<'_>| {
        let fate = match () {
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
    let stage = Stage::alone(BEGIN);
    let (sea, repository) = fresh(seed, &stage);
    let remembering = repository.with_cache(&Cache::in_memory());
    let mut volume = Volume::random(&mut Draw::new(seed, 1), FILES, FILE_BYTES_MAX);
    let (mut lived, mut kept) = (Lived::default(), Vec::<String>::new());
    let mut draw = Draw::new(seed, 2);
    for hour in 0..hours {
        stage.advance(HOUR);
        let process = |part: u64| Process::new(&sea, &stage, birth(seed ^ part << 40, hour)).at_home(&remembering);
        volume.live(&mut draw, FILES, FILE_BYTES_MAX);
        lived.backups += 1;
        let writer = process(1);
        match writer.back_up(&volume, "a") {
            Ok(session) => {
                lived.acknowledged += 1;
                kept.push(session);
            }
            Err(error) if !writer.link.was_disturbed() => return Err(format!("hour {hour}: I4: a backup: {error}")),
            Err(_) => {}
        }
        if hour % 24 == 23 {
            // One a day of those that are no longer hourly, then none.
            let hourly = kept.len().saturating_sub(HOURLY);
            let old: Vec<String> = kept[..hourly].to_vec();
            let daily: Vec<&String> = old.iter().rev().step_by(24).take(DAILY).collect();
            let remover = process(2);
            for session in old.iter().filter(|session| !daily.contains(session)) {
                let _ = remover.delete(session);
                kept.retain(|other| other != session);
            }
            lived.prunes += 1;
            let pruner = process(3);
            match pruner.prune(&prune_options()) {
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    return Err(format!("hour {hour}: I7: a prune finds something missing: {error}"));
                }
                Err(error) if !pruner.link.was_disturbed() => return Err(format!("hour {hour}: I4: a prune: {error}")),
                _ => {}
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
    lived.objects = sea.keys("").len() as u64;
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
    crate::schedule::settle(sea, &last, volume).map_err(|why| format!("at the end: {why}"))
}
