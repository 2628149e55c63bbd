//! Crash states: each job of the engine, stopped or lied to at each of its calls.
//!
//! A job is first run undisturbed to count its calls of the store and its calls that write to the volume. Then it is run again for each
//! call and each effect: it dies before it, after it, in the middle of a put, or its answer is lost and it goes on. The oracle has
//! watched; afterwards everything must come right by itself. What a crash may leave is what the job sent, and prunes take it away.

use crate::draw::Draw;
use crate::link::{Call, Fate};
use crate::process::{Birth, Process};
use crate::scene::{BEGIN, FILE_BYTES_MAX, Scene, prune_options};
use crate::schedule::settle;
use crate::sea::Sea;
use crate::stage::{SECOND, Stage};
use crate::volume::Volume;
use longshore_engine::volume::VolumeErrorKind;
use longshore_engine::volume::made_up::MadeUpFs;
use longshore_store::StoreErrorKind;
use longshore_store::layers::Verb;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// What is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The first backup of a source.
    Backup,
    /// A backup that has a parent.
    Incremental,
    /// A prune with work of every kind.
    Prune,
    /// A restore.
    Restore,
    /// A check that reads everything.
    Check,
    /// The deletion of a snapshot.
    Delete,
    /// A key slot added, the old one taken away.
    KeyChange,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Backup, Self::Incremental, Self::Prune, Self::Restore, Self::Check, Self::Delete, Self::KeyChange];
}

pub(crate) fn run(
    operation: Operation,
    process: &Process,
    scene: &Scene,
    fresh: &Volume,
    fs: &MadeUpFs,
) -> longshore_engine::Result<()> {
    match operation {
        Operation::Backup => process.back_up(fresh, "fresh").map(drop),
        Operation::Incremental => process.back_up(&scene.volumes[0], "a").map(drop),
        Operation::Prune => process.prune(&prune_options()).map(drop),
        Operation::Restore => process.restore(&scene.counted[0], fs),
        Operation::Check => process.check(),
        Operation::Delete => process.delete(&scene.counted[0]),
        Operation::KeyChange => process.change_key(),
    }
}

/// How many states were tried, and what they left.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    /// Crash states.
    pub states: u64,
    /// Commits that a store kept in part, against its promise: prune names each and refuses, and deleting it cures all.
    pub torn_commits: u64,
}

/// One state: what befalls which call of the store, or before which write to the volume the process dies.
#[derive(Clone, Copy, Debug)]
pub enum State {
    /// A call of the store, and its fate.
    Call(u64, Fate),
    /// A write to the volume.
    Write(u64),
}

/// A job that has run, whole or not.
pub struct Ran {
    /// What it left.
    pub sea: Arc<Sea>,
    /// Its calls of the store, with their keys or prefixes.
    pub calls: Vec<(Verb, String)>,
    /// Its writes to the volume.
    pub writes: u64,
    /// What it said.
    pub outcome: longshore_engine::Result<()>,
}

/// Runs a job over a copy of `sea`, and lets one thing befall it.
pub fn once(
    sea: &Sea,
    seed: u64,
    state: Option<State>,
    job: impl FnOnce(&Process, &MadeUpFs) -> longshore_engine::Result<()>,
) -> Ran {
    let sea = sea.fork();
    let calls = Arc::new(Mutex::new(vec![]));
    let noted = Arc::clone(&calls);
    let birth = Birth::with(seed, move |call: &Call<'_>| {
        noted.lock().unwrap_or_else(PoisonError::into_inner).push((call.verb, call.key.to_owned()));
        let fate = match state {
            Some(State::Call(number, fate)) if number == call.number => fate,
            _ => Fate::Pass,
        };
        (SECOND / 1000, fate)
    });
    let process = Process::new(&sea, &Stage::alone(BEGIN), birth);
    let fs = MadeUpFs::default();
    let writes = Arc::new(AtomicU64::new(0));
    let (counter, link) = (Arc::clone(&writes), Arc::clone(&process.link));
    fs.set_hook(Some(Arc::new(move |call| {
        let changes = ["create", "write", "set", "allocate", "punch", "rename", "remove", "sync"];
        if !link.is_dead() && changes.iter().any(|verb| call.call.starts_with(verb)) {
            let number = counter.fetch_add(1, Relaxed);
            if matches!(state, Some(State::Write(target)) if target == number) {
                link.die();
            }
        }
        link.is_dead().then_some(VolumeErrorKind::Io)
    })));
    let outcome = job(&process, &fs);
    fs.set_hook(None);
    let calls = calls.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ran { sea, calls, writes: writes.load(Relaxed), outcome }
}

/// Every state of a job that ran undisturbed.
pub fn states(ran: &Ran, draw: &mut Draw) -> Vec<State> {
    let mut states: Vec<State> = (0..ran.writes).map(State::Write).collect();
    for (number, (verb, _)) in (0..).zip(&ran.calls) {
        let lost = Fate::FailAfter(StoreErrorKind::Unavailable);
        states.extend([Fate::DieBefore, Fate::DieAfter, lost].map(|fate| State::Call(number, fate)));
        if *verb == Verb::PutNew {
            states.push(State::Call(number, Fate::DieTorn(draw.below(300) as usize)));
        }
    }
    states
}

/// Tries every state of one operation on one scene.
///
/// # Errors
/// The first state that does harm.
pub fn play(scene: &Scene, operation: Operation, seed: u64) -> Result<Tried, String> {
    let mut draw = Draw::new(seed, 7);
    let fresh = Volume::random(&mut draw, 5, FILE_BYTES_MAX);
    let job = |process: &Process, fs: &MadeUpFs| run(operation, process, scene, &fresh, fs);
    let ran = once(&scene.sea, seed, None, job);
    ran.outcome.as_ref().map_err(|error| format!("{operation:?} undisturbed: {error}"))?;
    let mut tried = Tried::default();
    after(scene, &ran.sea, seed, &mut tried).map_err(|why| format!("{operation:?} undisturbed: {why}"))?;
    let states = states(&ran, &mut draw);
    for (number, state) in (0..).zip(states) {
        let ran = once(&scene.sea, seed, Some(state), job);
        if !matches!(operation, Operation::Prune | Operation::Delete) {
            only_sent(scene, &ran.sea).map_err(|why| format!("{operation:?}, {state:?}: {why}"))?;
        }
        after(scene, &ran.sea, number, &mut tried).map_err(|why| format!("{operation:?}, {state:?}: {why}"))?;
        tried.states += 1;
    }
    Ok(tried)
}

/// That a job which frees nothing left no garbage but what it sent itself.
fn only_sent(scene: &Scene, left: &Sea) -> Result<(), String> {
    let old = scene.sea.oracle(|ledger| ledger.garbage());
    let left = left.oracle(|ledger| ledger.garbage());
    match left.iter().find(|key| !old.contains(key) && scene.sea.has(key)) {
        Some(key) => Err(format!("what was there before it is needed by nobody any more: {key}")),
        None => Ok(()),
    }
}

/// What holds after a crash: nothing was violated, and everything comes right with nothing done by hand.
pub(crate) fn after(scene: &Scene, sea: &Arc<Sea>, seed: u64, tried: &mut Tried) -> Result<(), String> {
    let sound = |when: &str| sea.oracle(|ledger| ledger.violation().map_or(Ok(()), |what| Err(format!("{when}: {what}"))));
    sound("while it ran")?;
    let process = Process::new(sea, &Stage::alone(BEGIN + SECOND), Birth::quiet(seed ^ 0xaf7e));
    for session in sea.oracle(|ledger| ledger.unreadable()) {
        tried.torn_commits += 1;
        match process.prune(&prune_options()) {
            Err(error) if error.next_step().is_some_and(|step| step.contains(&session)) => {}
            other => return Err(format!("I4: a prune does not name a commit that was torn: {other:?}")),
        }
        process.back_up(&scene.volumes[1], "a").map_err(|error| format!("I4: a backup beside a torn commit: {error}"))?;
        process.delete(&session).map_err(|error| error.to_string())?;
    }
    settle(sea, &process, &scene.volumes[0])?;
    sound("afterwards")
}
