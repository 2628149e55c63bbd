//! The rows of the table: what each tries, how much of it, and what must come out.
//!
//! A row is cut into shares of whole seeds, so that processes can divide it; what a share found is a [`Found`], which is also how a share
//! reports to the program that started it. Does not know processes.

use crate::crash::{self, Operation};
use crate::scene::Scene;
use crate::{age, schedule};
use longshore_engine::prune::{Rule, Rules};
use std::fmt::Write;

/// Scenes that schedules and crashes begin from.
const SCENES: u64 = 8;

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
    /// What other rooms must build first.
    NotYet,
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
pub const TABLE: [Line; 11] = [
    line(
        Row::Crash,
        "crash",
        "crash states: every store call and volume write × before, after, answer lost, torn × 7 operations",
        [60_000, 1_000_000],
        [94, 1580],
        "states",
    ),
    line(
        Row::Schedule,
        "schedule",
        "schedules: backups × prunes × restore × delete, pauses to a month, skew ± 10 years, faults",
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
    line(Row::NotYet, "kill", "real SIGKILLs at the N-th syscall", [100, 20_000], [0, 0], "kills"),
    line(Row::NotYet, "power", "power cuts of a local repository", [500, 5_000], [0, 0], "cuts"),
    line(Row::NotYet, "rot", "every byte of a small repository flipped, zeroed, cut", [49_000, 786_000], [0, 0], "mutations"),
    line(Row::NotYet, "resume", "resume after random kills", [20, 200], [0, 0], "kills"),
    line(Row::NotYet, "repair", "crash states and power cuts of repair", [1, 1], [0, 0], "states"),
    line(Row::NotYet, "museum", "museum of failures", [12, 12], [0, 0], "entries"),
];

/// Rules that schedules can show; the others have tests of their own in rust/engine/tests/prune.rs.
const SHOWN: [Rule; 4] = [Rule::WaitForWriters, Rule::LookAgain, Rule::ReadersCount, Rule::SnapshotsFirst];
const RULES: u64 = SHOWN.len() as u64;
/// Schedules among which a rule's absence must show.
const RULE_SEEDS: u64 = 3000;

/// What a share of a row found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Trials.
    pub tried: u64,
    /// Seeds that violate something, with what.
    pub violations: Vec<(u64, String)>,
    /// Other numbers, summed over shares.
    pub sums: Vec<(&'static str, u64)>,
}

impl Found {
    fn sum(&mut self, name: &'static str, number: u64) {
        match self.sums.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += number,
            None => self.sums.push((name, number)),
        }
    }

    /// As lines, to be read by who started the share.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = format!("tried {}\n", self.tried);
        for (seed, what) in &self.violations {
            let _ = writeln!(out, "violation {seed} {}", what.replace('\n', " "));
        }
        for (name, number) in &self.sums {
            let _ = writeln!(out, "sum {number} {name}");
        }
        out
    }
}

/// Most violations that a share looks for: a broken engine breaks every seed.
const VIOLATIONS_MAX: usize = 5;

/// Runs the seeds `share.0`, `share.0 + share.1`, … of a row; `long` chooses its size.
#[must_use]
pub fn run(line: &Line, long: bool, share: (u64, u64)) -> Found {
    let mut found = Found::default();
    let seeds = (share.0..line.seeds[usize::from(long)]).step_by(share.1 as usize);
    let scenes: Vec<Scene> = if line.row == Row::Age { vec![] } else { (0..SCENES).map(Scene::new).collect() };
    for seed in seeds {
        if let Err(what) = one(line, long, seed, &scenes, &mut found) {
            found.violations.push((seed, what));
            if found.violations.len() >= VIOLATIONS_MAX {
                break;
            }
        }
    }
    found
}

fn one(line: &Line, long: bool, seed: u64, scenes: &[Scene], found: &mut Found) -> Result<(), String> {
    let scene = |seed: u64| &scenes[(seed % SCENES) as usize];
    match line.row {
        Row::Crash => {
            for operation in Operation::ALL {
                let tried = crash::play(scene(seed), operation, seed)?;
                found.tried += tried.states;
                found.sum("torn commits named and cured", tried.torn_commits);
            }
        }
        Row::Schedule => {
            let outcome = schedule::play(scene(seed), seed, Rules::default())?;
            found.tried += 1;
            found.sum("store calls", outcome.calls);
            found.sum("commits", outcome.commits);
        }
        Row::Replay => {
            let [first, second] =
                [(); 2].map(|()| schedule::play(scene(seed), seed, Rules::default()).map(|o| (o.calls, o.trace)));
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
        }
        Row::Rules => {
            let rule = SHOWN[(seed % RULES) as usize];
            let seen = (0..RULE_SEEDS).find(|seed| schedule::play(scene(*seed), *seed, Rules::without(rule)).is_err());
            let seen = seen.ok_or_else(|| format!("{rule:?} is not missed in {RULE_SEEDS} schedules"))?;
            found.tried += 1;
            found.sum("schedules until they showed", seen + 1);
        }
        Row::NotYet => {}
    }
    Ok(())
}

/// The scene from which a seed begins.
#[must_use]
pub fn scene_of(seed: u64) -> Scene {
    Scene::new(seed % SCENES)
}
