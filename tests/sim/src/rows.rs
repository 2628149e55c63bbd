//! The rows of the table: what each tries, how much of it, and what must come out.
//!
//! A row is cut into shares of whole seeds, so that processes can divide it; what a share found is a [`Found`], which is also how a share
//! reports to the program that started it. Does not know processes.

use crate::crash::{self, Operation};
use crate::disk::Loss;
use crate::model::trial::{Expected, trials};
use crate::power::Power;
use crate::real::kill::Kills;
use crate::real::resume::Resumes;
use crate::real::strace;
use crate::rot::{self, Rot};
use crate::scene::Scene;
use crate::stage::DAY;
use crate::{age, making, model, museum, repair, schedule};
use longshore_engine::prune::{Rule, Rules};
use rustix::time::{ClockId, clock_gettime};
use std::any::Any;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Scenes that schedules and crashes begin from.
const SCENES: u64 = 8;
/// As many again, for some seeds, have files with frames of their own.
const NOISY_SCENES: u64 = 3;
/// How often prunes moved what is needed out of a pack of which a part is dead.
const MOVED: &str = "packs moved out of, for what is dead in them";

/// Schedules from this number on are those of the numbers below, all begun from scenes with packs that die in part.
const PARTS: u64 = 1_000_000_000;

/// Whether a seed begins from a scene with packs that die in part. Seeds of tests/sim/seeds.txt are begun by the same rule.
const fn is_noisy(seed: u64) -> bool {
    matches!(seed % 7, 3 | 5)
}

const fn scene_number(seed: u64) -> u64 {
    if is_noisy(seed) { SCENES + seed % NOISY_SCENES } else { seed % SCENES }
}

/// The scene that a schedule begins from, and the number that it is played by.
const fn begun(seed: u64) -> (u64, u64) {
    match seed.checked_sub(PARTS) {
        Some(seed) => (SCENES + seed % NOISY_SCENES, seed),
        None => (scene_number(seed), seed),
    }
}

fn scene_numbered(number: u64) -> Scene {
    if number < SCENES { Scene::new(number) } else { Scene::noisy(number) }
}

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// Crash states, and what they leave.
    Crash,
    /// Schedules.
    Schedule,
    /// Schedules that are run twice.
    Replay,
    /// Years.
    Age,
    /// Rules of the protocol taken away.
    Rules,
    /// The protocol as a model.
    Model,
    /// Damage at rest.
    Rot,
    /// Crash states of repairs.
    Repair,
    /// Power cuts.
    Power,
    /// Bugs of others.
    Museum,
    /// Real processes, killed.
    Kill,
    /// Real processes, killed and gone on from.
    Resume,
}

impl Row {
    /// Whether it works on real folders.
    fn is_real(self) -> bool {
        matches!(self, Self::Kill | Self::Resume)
    }
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// What is tried.
    pub row: Row,
    /// Its name in `SEED=` and `ROW=`.
    pub name: &'static str,
    /// What it says.
    pub what: &'static str,
    /// Least number of trials in `make sim` and in `make sim-long`.
    pub least: [u64; 2],
    /// Seeds that are run for it.
    pub seeds: [u64; 2],
    /// What one trial is called.
    pub unit: &'static str,
}

const fn line(row: Row, name: &'static str, what: &'static str, least: [u64; 2], seeds: [u64; 2], unit: &'static str) -> Line {
    Line { row, name, what, least, seeds, unit }
}

/// The table.
pub const TABLE: [Line; 12] = [
    line(
        Row::Crash,
        "crash",
        "crash states: every store call and volume write × before, after, answer lost, torn × 8 operations",
        [60_000, 1_000_000],
        [86, 1440],
        "states",
    ),
    line(
        Row::Schedule,
        "schedule",
        "schedules: backups × prunes × restore × delete × check × verify × repair × keys, pauses to a month, skew ± 10 years, faults",
        [20_000, 1_000_000],
        [20_000, 1_000_000],
        "schedules",
    ),
    line(Row::Replay, "replay", "a seed replays call for call", [100, 1000], [100, 1000], "schedules run twice"),
    line(
        Row::Age,
        "age",
        "age: hourly backups, daily retention and prune, monthly check, faults, clock jumps",
        [8_760, 87_600],
        [1, 1],
        "backups",
    ),
    line(Row::Rules, "rules", "rules of the protocol taken away, seen by schedules", [RULES, RULES], [RULES, RULES], "rules"),
    line(
        Row::Model,
        "model",
        "model of the protocol: every order of every call of writers, readers, prunes and deletions; then without each rule",
        [11_000_000, 80_000_000],
        [TRIALS, TRIALS],
        "states",
    ),
    line(
        Row::Kill,
        "kill",
        "real processes killed at the N-th syscall: init, backup, prune, restore, check, repair, delete, key change",
        [100, 20_000],
        [110, 20_000],
        "kills",
    ),
    line(
        Row::Resume,
        "resume",
        "backups and restores go on after SIGKILL: what they move again, and the result",
        [20, 200],
        [18, 180],
        "kills",
    ),
    line(
        Row::Power,
        "power",
        "power cuts of a folder: backup, deletion, prune, repair; unsynced bytes and names lost in any order",
        [500, 5_000],
        [500, 5_000],
        "cuts",
    ),
    line(
        Row::Rot,
        "rot",
        "every byte of a small repository flipped, zeroed, cut",
        [49_000, 786_000],
        [ROT_BYTES, ROT_BYTES],
        "mutations",
    ),
    line(
        Row::Repair,
        "repair",
        "crash states of repair: every store call × before, after, answer lost, torn, on damaged repositories",
        [6_000, 120_000],
        [40, 800],
        "states",
    ),
    line(
        Row::Museum,
        "museum",
        "museum of failures: bugs of others, made again as faults and mutants, each caught",
        [museum::ENTRIES.len() as u64; 2],
        [museum::ENTRIES.len() as u64; 2],
        "entries",
    ),
];

/// Bytes of the repository of the row of rot, at most: a share that finds more says so.
const ROT_BYTES: u64 = 280_000;
/// Of so many bytes `make sim` damages one.
const ROT_STEP: u64 = 16;

/// Rules that schedules can show; the others have tests of their own in rust/engine/tests/prune.rs.
const SHOWN: [Rule; 3] = [Rule::WaitForWriters, Rule::LookAgain, Rule::ReadersCount];
const RULES: u64 = SHOWN.len() as u64;
/// Explorations of the model.
const TRIALS: u64 = (model::trial::SCENES.len() + model::trial::WITHOUT.len()) as u64;
/// Most that ten years may take of a processor: what one of the last of them costs is what an old repository does.
const AGE_CPU_SECONDS_MAX: u64 = 600;
/// Schedules among which a rule's absence must show.
const RULE_SEEDS: u64 = 3000;

/// What a share of a row found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Trials.
    pub tried: u64,
    /// Seeds that violate something, with what.
    pub violations: Vec<(u64, String)>,
    /// What it has to say, a line each.
    pub said: Vec<String>,
    /// Why nothing was tried, when a tool is not there.
    pub skipped: Option<String>,
    /// Other numbers, summed over shares.
    pub sums: Vec<(&'static str, u64)>,
    /// Others, of which the largest counts.
    pub mosts: Vec<(&'static str, u64)>,
}

impl Found {
    fn sum(&mut self, name: &'static str, number: u64) {
        match self.sums.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += number,
            None => self.sums.push((name, number)),
        }
    }

    fn most(&mut self, name: &'static str, number: u64) {
        match self.mosts.iter_mut().find(|(known, _)| *known == name) {
            Some((_, most)) => *most = number.max(*most),
            None => self.mosts.push((name, number)),
        }
    }

    /// As lines, to be read by who started the share.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = format!("tried {}\n", self.tried);
        for (seed, what) in &self.violations {
            let _ = writeln!(out, "violation {seed} {}", what.replace('\n', " "));
        }
        for line in &self.said {
            let _ = writeln!(out, "said 0 {}", line.replace('\n', " "));
        }
        if let Some(why) = &self.skipped {
            let _ = writeln!(out, "skipped 0 {why}");
        }
        for (name, number) in &self.sums {
            let _ = writeln!(out, "sum {number} {name}");
        }
        for (name, number) in &self.mosts {
            let _ = writeln!(out, "most {number} {name}");
        }
        out
    }
}

/// Most violations that a share looks for: a broken engine breaks every seed.
const VIOLATIONS_MAX: usize = 5;

/// What rows of real processes make once.
#[derive(Debug, Default)]
struct Real {
    kills: Option<Kills>,
    resumes: Option<Resumes>,
}

/// Runs the seeds `share.0`, `share.0 + share.1`, … of a row; `long` chooses its size.
#[must_use]
pub fn run(line: &Line, long: bool, share: (u64, u64)) -> Found {
    let mut found = Found::default();
    if line.row == Row::Kill
        && let Some(why) = strace::missing()
    {
        // Where everything is promised to be there, a tool that is not is a failure.
        match std::env::var("CI").is_ok_and(|ci| ci == "true") {
            true => found.violations.push((0, why)),
            false => found.skipped = Some(why),
        }
        return found;
    }
    let seeds = (share.0..line.seeds[usize::from(long)]).step_by(share.1 as usize);
    if line.row == Row::Rot {
        rot(seeds, long, &mut found);
        return found;
    }
    if line.row == Row::Power {
        let alone = line.seeds[0] == share.1;
        if let Err(what) = power(seeds, (!alone).then_some(share), &mut found) {
            found.violations.push((0, what));
        }
        return found;
    }
    let mut real = Real::default();
    let scenes: Vec<Scene> = if matches!(line.row, Row::Age | Row::Model) || line.row.is_real() {
        vec![]
    } else {
        (0..SCENES + NOISY_SCENES).map(scene_numbered).collect()
    };
    for seed in seeds {
        // Who panics, the engine's own threads apart, is told with its seed like any other.
        let tried = catch_unwind(AssertUnwindSafe(|| one(line, long, seed, &scenes, &mut real, &mut found)));
        if let Err(what) = tried.unwrap_or_else(|panic| Err(format!("panicked: {}", said_by(&*panic)))) {
            found.violations.push((seed, what));
            if found.violations.len() >= VIOLATIONS_MAX {
                break;
            }
        }
    }
    found
}

fn said_by(panic: &dyn Any) -> &str {
    panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("with no text")
}

fn one(line: &Line, long: bool, seed: u64, scenes: &[Scene], real: &mut Real, found: &mut Found) -> Result<(), String> {
    let scene = |seed: u64| &scenes[scene_number(seed) as usize];
    let begin = |seed: u64| {
        let (number, seed) = begun(seed);
        (&scenes[number as usize], seed)
    };
    let scheduled = |seed: u64, rules: Rules| {
        let (scene, seed) = begin(seed);
        schedule::play(scene, seed, rules)
    };
    match line.row {
        Row::Crash => {
            let before = scene(seed).sea.moved();
            for operation in Operation::ALL {
                let tried = crash::play(scene(seed), operation, seed)?;
                found.tried += tried.states;
                found.sum("torn commits named and cured", tried.torn_commits);
            }
            found.tried += making::play(seed)?;
            let moved = scene(seed).sea.moved() - before;
            if is_noisy(seed) && moved == 0 {
                return Err("no prune moved anything out of a pack of which a part is dead".to_owned());
            }
            found.sum(MOVED, moved);
        }
        Row::Museum => {
            let entry = &museum::ENTRIES[seed as usize];
            let caught = (entry.visit)(&scenes[..SCENES as usize])
                .map_err(|why| format!("entry {}, {}: not caught: {why}", entry.number, entry.bug))?;
            found.tried += 1;
            found.said.push(format!("museum {:>2}  {}: {caught}", entry.number, entry.bug));
        }
        Row::Repair => {
            let tried = repair::play(scene(seed), seed)?;
            found.tried += tried.states;
            found.sum("torn ends named and cured", tried.torn_ends);
            found.sum("repositories that lost something", tried.lossy);
        }
        Row::Schedule => {
            let before = begin(seed).0.sea.moved();
            let outcome = scheduled(seed, Rules::default())?;
            found.tried += 1;
            found.sum(MOVED, begin(seed).0.sea.moved() - before);
            found.sum("store calls", outcome.calls);
            found.sum("commits", outcome.commits);
        }
        Row::Replay => {
            let [first, second] = [(); 2].map(|()| scheduled(seed, Rules::default()).map(|o| (o.calls, o.trace)));
            if first? != second? {
                return Err("two runs of one seed differ".to_owned());
            }
            found.tried += 1;
        }
        Row::Age => {
            let lived = age::live(seed, line.least[usize::from(long)])?;
            found.tried += lived.backups;
            found.sum("acknowledged", lived.acknowledged);
            found.sum("prunes", lived.prunes);
            found.sum("objects at the end", lived.objects);
            found.sum("of them removals", lived.removals);
            found.sum("decisions", lived.decisions);
            found.sum("ends of sessions given up", lived.ends);
            found.sum("orphans", 0);
            found.sum("bytes held for dead writers at most", lived.held_bytes_max);
            found.sum("days at most", lived.held_nanos_max / DAY);
            let seconds = clock_gettime(ClockId::ProcessCPUTime).tv_sec.unsigned_abs();
            found.sum("CPU-seconds", seconds);
            if seconds > AGE_CPU_SECONDS_MAX {
                return Err(format!("it took too much of a processor: seconds={seconds}, seconds_max={AGE_CPU_SECONDS_MAX}"));
            }
        }
        Row::Rules => {
            let rule = SHOWN[(seed % RULES) as usize];
            let seen = (0..RULE_SEEDS).find(|seed| scheduled(*seed, Rules::without(rule)).is_err());
            let seen = seen.ok_or_else(|| format!("{rule:?} is not missed in {RULE_SEEDS} schedules"))?;
            found.tried += 1;
            found.sum("schedules until they showed", seen + 1);
        }
        Row::Model => {
            let trial = trials()[seed as usize];
            let explored = trial.run(long);
            found.said.push(format!("model  {}", trial.judge(&explored)?));
            match trial.without {
                None => {
                    found.tried += explored.states;
                    found.sum("states of the store, each ended by prunes", explored.stores);
                }
                Some((_, Expected::Shows)) => found.sum("rules whose absence shows", 1),
                Some((_, Expected::Spared(_))) => found.sum("second belts", 1),
            }
        }
        Row::Kill => {
            let kills = match &mut real.kills {
                Some(kills) => kills,
                none => none.insert(Kills::new()?),
            };
            found.tried += kills.play(seed)?;
        }
        Row::Resume => {
            let resumes = match &real.resumes {
                Some(resumes) => resumes,
                None => real.resumes.insert(Resumes::new()?),
            };
            let resumed = resumes.play(seed)?;
            found.tried += resumed.kills;
            found.sum("runs gone on from", 1);
            found.sum("MiB moved again", resumed.again_bytes >> 20);
            let of_each =
                if resumed.restores { "KiB at most for a kill of a restore" } else { "KiB at most for a kill of a backup" };
            found.most(of_each, resumed.of_each_bytes() >> 10);
        }
        Row::Rot | Row::Power => {}
    }
    Ok(())
}

/// Damages these bytes; unless `long`, one of each [`ROT_STEP`], at every remainder in turn.
fn rot(bytes: impl Iterator<Item = u64>, long: bool, found: &mut Found) {
    let rot = Rot::new();
    if rot.bytes() > ROT_BYTES {
        found.violations.push((0, format!("the repository has grown beyond the bytes that are damaged: {}", rot.bytes())));
    }
    let mut tried = rot::Tried::default();
    for byte in bytes.filter(|byte| long || byte % ROT_STEP == byte / ROT_STEP % ROT_STEP) {
        if let Err(what) = rot.play(byte, &mut tried) {
            found.violations.push((byte, what));
            if found.violations.len() >= VIOLATIONS_MAX {
                break;
            }
        }
    }
    found.tried = tried.mutations;
    found.sum("named", tried.found);
    found.sum("without effect", tried.irrelevant);
    found.sum("under prunes and a backup, too", tried.lived);
}

/// Seeds of power cuts from here on are moments: twice the moment, and one when nothing is lost that was not synced.
const MOMENTS: u64 = 1_000_000;

/// Cuts the power as these seeds say, and with a share at each moment of it, too.
fn power(seeds: impl Iterator<Item = u64>, share: Option<(u64, u64)>, found: &mut Found) -> Result<(), String> {
    let power = Power::record(&std::env::current_exe().map_err(|error| error.to_string())?)?;
    let moments = share.map(|(part, parts)| (MOMENTS + part..MOMENTS + 2 * power.moments()).step_by(parts as usize));
    for seed in seeds.chain(moments.into_iter().flatten()) {
        let (moment, loss) = match seed.checked_sub(MOMENTS) {
            None => power.draw(seed),
            Some(twice) => (twice / 2, if twice % 2 == 0 { Loss::All } else { Loss::Nothing }),
        };
        match power.cut(moment, loss, &|_, _| false) {
            Err(what) => found.violations.push((seed, format!("call {moment}, {loss:?}: {what}"))),
            Ok(()) if seed < MOMENTS => found.tried += 1,
            Ok(()) => found.sum("of every moment, all or nothing unsynced lost", 1),
        }
        if found.violations.len() >= VIOLATIONS_MAX {
            break;
        }
    }
    Ok(())
}

/// The scene that a schedule begins from, made anew, and the number that it is played by.
#[must_use]
pub fn scene_of(seed: u64) -> (Scene, u64) {
    let (number, seed) = begun(seed);
    (scene_numbered(number), seed)
}
