//! The making of a repository, stopped or lied to at each of its calls, and raced.
//!
//! Afterwards somebody else comes to the same place: makes the repository, or opens the one that is there. Exactly one is there, nobody
//! lends a hand, and a backup of it restores. Does not tear the configuration: docs/reliability.md, what is assumed of a store.

use crate::crash::State;
use crate::draw::Draw;
use crate::link::{Call, Fate};
use crate::oracle::Ledger;
use crate::oracle::format::Reader;
use crate::process::{Birth, Process, SECRET, bytes_at};
use crate::scene::{BEGIN, FILE_BYTES_MAX};
use crate::schedule::settle;
use crate::sea::Sea;
use crate::stage::{SECOND, Stage};
use crate::volume::Volume;
use longshore_engine::repository::Repository;
use longshore_engine::volume::made_up::MadeUpFs;
use longshore_engine::{ErrorKind, Result as EngineResult};
use longshore_format::id::RepositoryId;
use longshore_store::StoreErrorKind;
use longshore_store::layers::Verb;
use std::sync::{Arc, Mutex, PoisonError};

/// Tries every state of one making, and one race; how many states.
///
/// # Errors
/// The first that does harm.
pub fn play(seed: u64) -> Result<u64, String> {
    let mut draw = Draw::new(seed, 11);
    let volume = Volume::random(&mut draw, 4, FILE_BYTES_MAX);
    let (_, calls, outcome) = make(seed, None);
    outcome.map_err(|error| format!("Init undisturbed: {error}"))?;
    let mut tried = 0;
    for (number, (verb, key)) in (0..).zip(&calls) {
        let mut fates = vec![Fate::DieBefore, Fate::DieAfter, Fate::FailAfter(StoreErrorKind::Unavailable)];
        if *verb == Verb::PutNew {
            fates.push(Fate::Lose);
            if !key.starts_with("config/") {
                fates.push(Fate::DieTorn(draw.below(300) as usize));
            }
        }
        for fate in fates {
            let (sea, _, outcome) = make(seed, Some((number, fate)));
            after(&sea, seed, outcome, &volume).map_err(|why| format!("Init, {:?}: {why}", State::Call(number, fate)))?;
            tried += 1;
        }
    }
    race(seed, &volume).map_err(|why| format!("two that make one repository: {why}"))?;
    Ok(tried + 1)
}

type Made = (Arc<Sea>, Vec<(Verb, String)>, EngineResult<Repository>);

fn make(seed: u64, befalls: Option<(u64, Fate)>) -> Made {
    let sea = Sea::new();
    let calls = Arc::new(Mutex::new(vec![]));
    let noted = Arc::clone(&calls);
    let birth = Birth::with(seed, move |call: &Call<'_>| {
        noted.lock().unwrap_or_else(PoisonError::into_inner).push((call.verb, call.key.to_owned()));
        let fate = befalls.filter(|(number, _)| *number == call.number).map_or(Fate::Pass, |(_, fate)| fate);
        (SECOND / 1000, fate)
    });
    let outcome = Process::new(&sea, &Stage::alone(BEGIN), birth).init();
    let calls = calls.lock().unwrap_or_else(PoisonError::into_inner).clone();
    (sea, calls, outcome)
}

/// Somebody else comes; nothing is done by hand.
fn after(sea: &Arc<Sea>, seed: u64, outcome: EngineResult<Repository>, volume: &Volume) -> Result<(), String> {
    let process = Process::new(sea, &Stage::alone(BEGIN + SECOND), Birth::quiet(seed ^ 0x1217));
    let was_there = sea.has("config/00000000");
    if outcome.is_ok() && !was_there {
        return Err("I3: it says that it made a repository, and there is none".to_owned());
    }
    match process.init() {
        Ok(_) if was_there => return Err("a second repository was made over the first".to_owned()),
        Ok(_) => {}
        Err(error) if was_there && error.kind() == ErrorKind::RepositoryExists => {}
        Err(error) => return Err(format!("I4: the next making: {error}")),
    }
    lives(sea, &process, volume)
}

/// The repository opens, and what is backed up into it restores.
fn lives(sea: &Arc<Sea>, process: &Process, volume: &Volume) -> Result<(), String> {
    let opened = process.repository().map_err(|error| format!("I4: it does not open: {error}"))?;
    let slot = format!("keys/{}", opened.slot());
    let reader =
        Reader::from_slot(&slot, &bytes_at(sea.objects(), &slot), &SECRET).ok_or("its slot does not open by docs/format.md")?;
    sea.watch(Ledger::new(reader));
    settle(sea, process, volume)?;
    let session = sea.oracle(|ledger| ledger.counted().keys().next().cloned()).ok_or("I1: the backup does not count")?;
    process.restore(&session, &MadeUpFs::default()).map_err(|error| format!("I1: a restore afterwards: {error}"))?;
    sea.oracle(|ledger| ledger.violation().map_or(Ok(()), |what| Err(what.to_owned())))
}

/// Two make a repository at one place, call by call beside one another.
fn race(seed: u64, volume: &Volume) -> Result<(), String> {
    let (sea, stage) = (Sea::new(), Stage::new(BEGIN, vec![BEGIN; 2]));
    let born = |number: usize| {
        let mut draw = Draw::new(seed, 300 + number as u64);
        let plan = move |_: &Call<'_>| (draw.below(SECOND), Fate::Pass);
        let birth = Birth { number, ..Birth::with(seed, plan) };
        Process::new(&sea, &stage, birth)
    };
    let made: Vec<Option<RepositoryId>> = std::thread::scope(|scope| {
        let threads: Vec<_> = [born(0), born(1)]
            .into_iter()
            .enumerate()
            .map(|(number, process)| {
                let stage = &stage;
                scope.spawn(move || {
                    stage.enter(number);
                    let made = process.init();
                    stage.leave(number);
                    match made {
                        Ok(made) => Ok(Some(made.id())),
                        Err(error) if error.kind() == ErrorKind::RepositoryExists => Ok(None),
                        Err(error) => Err(format!("I4: {error}")),
                    }
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err("the engine panicked".to_owned())))
            .collect::<Vec<_>>()
    })
    .into_iter()
    .collect::<Result<_, String>>()?;
    // With one key the second may finish what the first began: then both have the same.
    let ids: Vec<RepositoryId> = made.iter().flatten().copied().collect();
    if ids.is_empty() || ids.iter().any(|id| *id != ids[0]) {
        return Err(format!("who says that it made what: {made:?}"));
    }
    if sea.keys("keys/").len() != 1 {
        return Err("I5: the loser left its slot".to_owned());
    }
    let process = Process::new(&sea, &Stage::alone(stage.now()), Birth::quiet(seed ^ 0x1217));
    let opened = process.repository().map_err(|error| format!("I4: it does not open: {error}"))?;
    if opened.id() != ids[0] {
        return Err("who says that it made the repository made another one".to_owned());
    }
    lives(&sea, &process, volume)
}
