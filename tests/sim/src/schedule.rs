//! One schedule: backups, prunes, restores and a deletion beside one another, in an order, with pauses, skewed clocks and faults that a
//! seed chooses.
//!
//! The oracle watches every call. Afterwards all faults end, what is under way lands, and prunes that follow must work with nothing done by
//! hand, change nothing that counts, and leave nothing that nobody needs; then a backup must work.

use crate::draw::Draw;
use crate::link::{Call, Fate};
use crate::process::{Birth, Process, bytes_at};
use crate::roles::{Part, crew, keepers};
use crate::scene::{BEGIN, Scene, prune_options};
use crate::sea::Sea;
use crate::stage::{DAY, SECOND, Stage};
use longshore_engine::prune::{PruneOptions, Rules};
use longshore_engine::volume::made_up::MadeUpFs;
use longshore_store::StoreErrorKind;
use longshore_store::layers::Verb;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// A moment at which all may die is drawn among so many calls: most schedules have fewer than this.
const CUT_TURNS: u64 = 600;

/// How a run went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Calls of the store.
    pub calls: u64,
    /// A hash of all that happened.
    pub trace: u64,
    /// Backups acknowledged while others ran.
    pub commits: u64,
}

/// What a seed decides for all processes of a schedule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    mortal: bool,
    store_fails: bool,
    lists_short: bool,
    /// Listings leave out what is named elsewhere. What names it has to be shown: never together with the one before.
    lists_hide: bool,
    /// Listings show what was deleted.
    lists_stale: bool,
    pub(crate) puts_lost: bool,
    pub(crate) fences: bool,
}

impl Weather {
    pub(crate) fn of(seed: u64) -> Self {
        let mut draw = Draw::new(seed, 3);
        let mut often = |times| draw.in_thousand(times);
        let (mortal, store_fails, lists_short) = (often(350), often(350), often(200));
        let (puts_lost, fences) = (often(200), often(300));
        let mut draw = Draw::new(seed, 6);
        let (lists_hide, lists_stale) = (draw.in_thousand(200) && !lists_short, draw.in_thousand(150));
        Self { mortal, store_fails, lists_short, lists_hide, lists_stale, puts_lost, fences }
    }

    /// Whether a prune may meet a listing that it has to refuse.
    pub(crate) fn lists_wrongly(self) -> bool {
        self.lists_short || self.lists_hide
    }
}

/// Whether a store that promises whole objects or none may leave a beginning of this one. A commit is one request everywhere.
fn may_tear(key: &str) -> bool {
    // A decision that was torn over a tombstone that was torn leaves a generation of which nobody can tell what it meant: docs/reliability.md,
    // what is not covered. The row of crashes tears decisions over whole tombstones.
    // What a repair was torn over is its row's.
    !["snapshots/", "config/", "keys/", "decisions/", "repairs/"].iter().any(|whole| key.starts_with(whole))
}

fn fate(draw: &mut Draw, weather: Weather, call: &Call<'_>) -> Fate {
    if weather.mortal && draw.in_thousand(4) {
        let torn = call.verb == Verb::PutNew && may_tear(call.key);
        return match draw.below(3) {
            0 => Fate::DieBefore,
            1 if torn => Fate::DieTorn(draw.below(200) as usize),
            _ => Fate::DieAfter,
        };
    }
    let writes = matches!(call.verb, Verb::PutNew | Verb::Delete);
    if weather.store_fails && draw.in_thousand(40) {
        return match draw.below(4) {
            0 => Fate::FailBefore(StoreErrorKind::Unavailable),
            1 if writes => Fate::Late(draw.magnitude(SECOND / 1000, 30 * DAY)),
            2 if call.verb == Verb::PutNew && may_tear(call.key) => Fate::Torn(draw.below(200) as usize),
            _ => Fate::FailAfter(StoreErrorKind::Unavailable),
        };
    }
    if weather.puts_lost && call.verb == Verb::PutNew && draw.in_thousand(60) {
        return Fate::Lose;
    }
    if weather.lists_short && call.verb == Verb::List && draw.in_thousand(150) {
        return Fate::Short(draw.number());
    }
    if weather.lists_hide && call.verb == Verb::List && draw.in_thousand(200) {
        return Fate::Hide(draw.number());
    }
    if weather.lists_stale && call.verb == Verb::List && draw.in_thousand(200) {
        return Fate::Stale(draw.number());
    }
    Fate::Pass
}

/// A process of a schedule: how long its calls take, when it pauses, what befalls it.
fn birth(seed: u64, number: usize, weather: Weather) -> Birth {
    let mut draw = Draw::new(seed, 100 + number as u64);
    let ten_years = (3652 * DAY) as i64;
    let skew = |draw: &mut Draw| draw.below(2 * ten_years as u64) as i64 - ten_years;
    let skew_nanos = skew(&mut draw);
    let jump = (BEGIN + draw.magnitude(SECOND, 60 * DAY), skew(&mut draw));
    let pace = draw.magnitude(SECOND / 1000, 10 * SECOND);
    let plan = move |call: &Call<'_>| {
        let pause = match draw.in_thousand(25) {
            true => draw.magnitude(SECOND, 30 * DAY),
            false => draw.below(2 * pace) + 1,
        };
        (pause, fate(&mut draw, weather, call))
    };
    Birth { seed, number, skew_nanos, jump, retries: true, plan: Box::new(plan) }
}

/// Runs one schedule.
///
/// # Errors
/// What it violates.
pub fn play(scene: &Scene, seed: u64, rules: Rules) -> Result<Outcome, String> {
    play_heard(scene, seed, rules, None)
}

/// The same, with every call in words.
///
/// # Errors
/// What it violates.
pub fn play_heard(scene: &Scene, seed: u64, rules: Rules, heard: Option<&mut Vec<String>>) -> Result<Outcome, String> {
    let sea = scene.sea.fork();
    let weather = Weather::of(seed);
    let mut draw = Draw::new(seed, 4);
    let mut roles = crew(&mut draw);
    let spread = draw.magnitude(SECOND / 1000, 10 * DAY);
    let mut wake: Vec<u64> = roles.iter().map(|_| BEGIN + draw.below(spread)).collect();
    // Drawn apart, so that the others do what they would without them.
    let mut draw = Draw::new(seed, 5);
    let keepers = keepers(&mut draw);
    wake.extend(keepers.iter().map(|_| BEGIN + draw.below(spread)));
    roles.extend(keepers);
    sea.cut_at([draw.below(CUT_TURNS)]);
    let stage = Stage::new(BEGIN, wake);
    if heard.is_some() {
        stage.listen();
        stage.tell(0, &format!("{weather:?} {roles:?}"));
    }
    let processes: Vec<Process> = (0..roles.len())
        .map(|number| Process::new(&sea, &stage, birth(seed, number, weather)).at_home(&scene.repository))
        .collect();
    let before = sea.oracle(|ledger| ledger.counted().len());
    std::thread::scope(|scope| {
        for (number, (process, role)) in processes.iter().zip(&roles).enumerate() {
            let (stage, draw) = (&stage, Draw::new(seed, 200 + number as u64));
            scope.spawn(move || {
                stage.enter(number);
                let part = Part { scene, process, weather, draw, rules };
                let done = catch_unwind(AssertUnwindSafe(|| part.act(*role)));
                if done.is_err() {
                    process.sea.oracle(|ledger| ledger.violated("the engine panicked".to_owned()));
                }
                stage.leave(number);
            });
        }
    });
    let calls = processes.iter().map(|process| process.link.calls()).sum();
    let commits = sea.oracle(|ledger| ledger.counted().len()).saturating_sub(before) as u64;
    let trace = stage.trace();
    let after = Stage::alone(stage.now() + 31 * DAY);
    if heard.is_some() {
        after.listen();
    }
    let ended = end(scene, &sea, seed, &after);
    if let Some(heard) = heard {
        *heard = [stage.told(), after.told()].concat();
    }
    ended.map(|()| Outcome { calls, trace, commits })
}

/// Faults are over: everything must come right by itself.
fn end(scene: &Scene, sea: &Arc<Sea>, seed: u64, stage: &Arc<Stage>) -> Result<(), String> {
    sea.land(u64::MAX);
    let sound = |when: &str| sea.oracle(|ledger| ledger.violation().map_or(Ok(()), |what| Err(format!("{when}: {what}"))));
    sound("while they ran")?;
    for (moment, cut) in sea.taken() {
        let process = Process::new(&cut, &Stage::alone(moment + DAY), Birth::quiet(seed ^ 0xc07)).at_home(&scene.repository);
        settle(&cut, &process, &scene.volumes[0]).map_err(|why| format!("if all had died after {moment} ns: {why}"))?;
    }
    settle(sea, &Process::new(sea, stage, Birth::quiet(seed ^ 0xe4d)).at_home(&scene.repository), &scene.volumes[0])?;
    sound("afterwards")
}

/// Objects that nobody needs, when nobody runs and prunes have followed. What stays all the same is said in docs/reliability.md.
#[must_use]
pub fn left(sea: &Sea) -> Vec<String> {
    let keys = sea.keys("");
    let mut left = sea.oracle(|ledger| ledger.spare_of(&keys));
    left.retain(|key, _| {
        let (folder, name) = key.split_once('/').unwrap_or_default();
        match folder {
            // A generation whose decision was torn names what may be needed, and stays until that is not.
            "tombstones" | "open" => !sea.oracle(|ledger| ledger.is_stuck(name)),
            // By which the store is asked what it does with a key that is taken.
            "probe" => name != "create-only",
            _ => true,
        }
    });
    left.into_keys().collect()
}

/// That some key which was handed out opens the repository.
pub(crate) fn opens(sea: &Sea) -> Result<(), String> {
    let slots: Vec<_> = sea.keys("keys/").into_iter().map(|key| (bytes_at(sea.objects(), &key), key)).collect();
    match sea.oracle(|ledger| slots.iter().any(|(slot, key)| ledger.opens(key, slot))) {
        true => Ok(()),
        false => Err(format!("I1: no key that was handed out opens the repository: slots={}", slots.len())),
    }
}

/// Prunes and a backup with nothing done by hand, after which nothing is left that nobody needs.
///
/// # Errors
/// What does not hold.
pub fn settle(sea: &Arc<Sea>, process: &Process, volume: &crate::volume::Volume) -> Result<(), String> {
    opens(sea)?;
    let counted = |sea: &Sea| sea.oracle(|ledger| ledger.counted().keys().cloned().collect::<Vec<_>>());
    let before = counted(sea);
    for round in 0..3 {
        let options = PruneOptions { fence_now: true, ..prune_options() };
        process.prune(&options).map_err(|error| format!("I4: prune {round} afterwards: {error}"))?;
    }
    if counted(sea) != before {
        return Err("I7: the prunes afterwards changed what counts".to_owned());
    }
    if let Some(session) = sea.oracle(|ledger| ledger.lost().cloned()) {
        return Err(format!("I1: an acknowledged snapshot does not count: {session}"));
    }
    let left = left(sea);
    if !left.is_empty() {
        return Err(format!("I5: left behind: {left:?}"));
    }
    if let Some(session) = before.first() {
        process.restore(session, &MadeUpFs::default()).map_err(|error| format!("I1: a restore afterwards: {error}"))?;
    }
    process.back_up(volume, "a").map_err(|error| format!("I4: a backup afterwards: {error}"))?;
    Ok(())
}
