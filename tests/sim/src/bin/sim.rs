//! `make sim`: prints the table, and fails when a row falls short.
//!
//! Divides each row over as many processes as there are processors, each on a processor of its own: turns are then passed without a word
//! between two of them. `sim [--long] [--row NAME]` prints the table; `sim --seed NAME:N` replays one seed and prints every call,
//! `sim --seed NAME:N..M` runs those from N on before M, and says which fail.

use longshore_engine::prune::Rules;
use longshore_sim::model::trial::trials;
use longshore_sim::rows::{Found, Line, Row, TABLE, run, scene_of};
use longshore_sim::{power, schedule};
use longshore_store::{Clock, SystemClock};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// Seeds that once failed: `name seed  why`, run before everything else.
const KEPT: &str = include_str!("../../seeds.txt");

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody reads on: then nobody misses it.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let after = |flag: &str| arguments.iter().position(|a| a == flag).and_then(|at| arguments.get(at + 1)).cloned();
    let long = arguments.iter().any(|a| a == "--long");
    if let Some(share) = after("--share") {
        return share_of(&share, long);
    }
    if let Some(seed) = after("--seed") {
        return replay(&seed);
    }
    for (flag, ripe) in [("--act", false), ("--ripe", true)] {
        if let Some(folder) = after(flag) {
            power::act(Path::new(&folder), ripe, say);
            return ExitCode::SUCCESS;
        }
    }
    if let Some(folder) = after("--prune") {
        return ExitCode::from(u8::from(power::prune(Path::new(&folder)).is_err()));
    }
    let only = after("--row");
    let is_known = |name: &String| TABLE.iter().any(|line| line.name == *name);
    if arguments.len() != usize::from(long) + 2 * usize::from(only.is_some()) || only.as_ref().is_some_and(|name| !is_known(name))
    {
        let names: Vec<&str> = TABLE.iter().map(|line| line.name).collect();
        say(&format!("sim [--long] [--row NAME], sim --seed NAME:N, sim --seed NAME:N..M; rows: {}", names.join(", ")));
        return ExitCode::from(2);
    }
    table(long, only.as_deref())
}

/// One process's part of a row: `name:part:parts`.
fn share_of(text: &str, long: bool) -> ExitCode {
    let mut parts = text.split(':');
    let name = parts.next().unwrap_or_default();
    let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok());
    let (Some(line), Some(part), Some(all)) = (TABLE.iter().find(|line| line.name == name), number(), number()) else {
        return ExitCode::from(2);
    };
    let mut processor = rustix::thread::CpuSet::new();
    processor.set(part as usize);
    // Only faster so: elsewhere than on the first processors it goes on wherever it is.
    let _ = rustix::thread::sched_setaffinity(None, &processor);
    let found = run(line, long, (part, all));
    let _ = std::io::stdout().write_all(found.text().as_bytes());
    ExitCode::SUCCESS
}

fn replay(text: &str) -> ExitCode {
    let parsed = text.split_once(':').and_then(|(name, seeds)| match seeds.split_once("..") {
        Some((first, end)) => Some((name, first.parse().ok()?, Some(end.parse().ok()?))),
        None => Some((name, seeds.parse().ok()?, None)),
    });
    let Some((name, seed, end)) = parsed else {
        say("SEED is the name of a row and a number, or two: SEED=schedule:28, SEED=schedule:28..40");
        return ExitCode::from(2);
    };
    let Some(line) = TABLE.iter().find(|line| line.name == name) else {
        say("no row has this name");
        return ExitCode::from(2);
    };
    if let Some(end) = end {
        let found = run(&Line { seeds: [end; 2], ..*line }, line.row == Row::Rot, (seed, 1));
        say(&found.text());
        return ExitCode::from(u8::from(!found.violations.is_empty()));
    }
    if line.row == Row::Schedule {
        let mut heard = vec![];
        let (scene, seed) = scene_of(seed);
        let outcome = schedule::play_heard(&scene, seed, Rules::default(), Some(&mut heard));
        say(&heard.join("\n"));
        say(&format!("{outcome:?}"));
        return ExitCode::from(u8::from(outcome.is_err()));
    }
    if line.row == Row::Model {
        let Some(trial) = usize::try_from(seed).ok().and_then(|seed| trials().get(seed).copied()) else {
            say("SEED=model:N has an N for each scene and each rule, and this is none of them");
            return ExitCode::from(2);
        };
        let explored = trial.run(true);
        for (number, step) in explored.violation.iter().flat_map(|(_, way)| way).enumerate() {
            say(&format!("{:>3}  {step}", number + 1));
        }
        let judged = trial.judge(&explored);
        say(judged.as_ref().unwrap_or_else(|wrong| wrong));
        return ExitCode::from(u8::from(judged.is_err()));
    }
    let one = Line { seeds: [seed + 1; 2], ..*line };
    // A seed of rot is a byte, and in the long run each is one.
    let found = run(&one, line.row == Row::Rot, (seed, seed + 1));
    say(&found.text());
    ExitCode::from(u8::from(!found.violations.is_empty()))
}

/// Runs a row in as many processes as there are processors.
fn divide(line: &Line, long: bool, processors: u64) -> Result<(Found, Vec<String>), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let children: Vec<_> = (0..processors)
        .map(|part| {
            let mut command = Command::new(&program);
            command.args(["--share", &format!("{}:{part}:{processors}", line.name)]).stdout(Stdio::piped());
            // Contexts of zstd are made by the hundred thousand: their memory is kept, not asked of the kernel each time.
            command.env("MALLOC_MMAP_THRESHOLD_", "67108864").env("MALLOC_TRIM_THRESHOLD_", "268435456");
            if long {
                command.arg("--long");
            }
            command.spawn().map_err(|error| error.to_string())
        })
        .collect::<Result<_, _>>()?;
    let (mut found, mut sums) = (Found::default(), Vec::<(String, u64)>::new());
    for mut child in children {
        let lines = child.stdout.take().map(|out| BufReader::new(out).lines()).into_iter().flatten();
        for said in lines.map_while(Result::ok) {
            let mut words = said.splitn(3, ' ');
            let (word, number, rest) = (words.next(), words.next().and_then(|n| n.parse().ok()).unwrap_or(0), words.next());
            match word {
                Some("tried") => found.tried += number,
                Some("said") => say(rest.unwrap_or_default()),
                Some("skipped") => found.skipped = rest.map(str::to_owned),
                Some("violation") => found.violations.push((number, rest.unwrap_or_default().to_owned())),
                word => match sums.iter_mut().find(|(name, _)| Some(name.as_str()) == rest) {
                    Some((_, most)) if word == Some("most") => *most = number.max(*most),
                    Some((_, sum)) => *sum += number,
                    None => sums.push((rest.unwrap_or_default().to_owned(), number)),
                },
            }
        }
        if !child.wait().map_err(|error| error.to_string())?.success() {
            found.violations.push((0, "a process of the simulation ended badly".to_owned()));
        }
    }
    Ok((found, sums.into_iter().map(|(name, sum)| format!("{sum} {name}")).collect()))
}

fn table(long: bool, only: Option<&str>) -> ExitCode {
    let processors = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let (mut rows, mut good) = (vec![], true);
    if only.is_none() {
        good &= keep(&mut rows);
    }
    for line in TABLE.iter().filter(|line| only.is_none_or(|name| name == line.name)) {
        let least = line.least[usize::from(long)];
        let began = SystemClock.monotonic();
        let (found, sums) = divide(line, long, processors)
            .unwrap_or_else(|error| (Found { violations: vec![(0, error)], ..Found::default() }, vec![]));
        for (seed, what) in &found.violations {
            say(&format!("{}:{seed}: {what}\n    again: make sim SEED={}:{seed}", line.name, line.name));
        }
        if let Some(why) = &found.skipped {
            rows.push(format!("{:<8} {:>9}  {}: {why}", line.name, "skipped", line.what));
            say(rows.last().map_or("", String::as_str));
            good &= !long;
            continue;
        }
        let held = found.violations.is_empty() && found.tried >= least;
        good &= held;
        rows.push(format!(
            "{:<8} {:>9}  {}: {} {} (at least {least}), {} violations, {:.0} s{}",
            line.name,
            if held { "held" } else { "FAILED" },
            line.what,
            found.tried,
            line.unit,
            found.violations.len(),
            (SystemClock.monotonic() - began).as_secs_f64(),
            sums.iter().map(|sum| format!(", {sum}")).collect::<String>(),
        ));
        say(rows.last().map_or("", String::as_str));
    }
    say(&format!("\n{}", rows.join("\n")));
    ExitCode::from(u8::from(!good))
}

/// The seeds that once failed.
fn keep(rows: &mut Vec<String>) -> bool {
    let mut failed = 0;
    let kept: Vec<(&str, u64)> = KEPT
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?, words.next()?.parse().ok()?))
        })
        .collect();
    for (name, seed) in &kept {
        let Some(line) = TABLE.iter().find(|line| line.name == *name) else { continue };
        let found = run(&Line { seeds: [seed + 1; 2], ..*line }, false, (*seed, seed + 1));
        for (_, what) in &found.violations {
            failed += 1;
            say(&format!("{name}:{seed}, which was mended once: {what}"));
        }
    }
    let word = if failed == 0 { "held" } else { "FAILED" };
    rows.push(format!("{:<8} {word:>9}  seeds that failed once: {} run, {failed} violations", "kept", kept.len()));
    failed == 0
}
