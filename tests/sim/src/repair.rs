//! Crash states of repairs: a damaged repository, and a repair of it that is stopped or lied to at each of its calls.
//!
//! What a scene holds is damaged at rest in several ways that a seed chooses: packs gone, rotten or without a header, index segments and
//! usage tables gone or rotten, a tombstone of which nothing can be read. Whatever befalls the repair, the next one ends by itself, what
//! could be read before can be read still, and prunes and a backup work; what the backup's source still has is whole again. The oracle
//! does not know of the damage: it judges what is done, and believes of what is damaged that it is whole.

use crate::crash::{State, once, states};
use crate::draw::Draw;
use crate::link::Fate;
use crate::process::{Birth, Process, bytes_at};
use crate::scene::{BEGIN, Scene, prune_options};
use crate::sea::Sea;
use crate::stage::{SECOND, Stage};
use crate::volume::{Tree, difference};
use bytes::Bytes;
use longshore_engine::prune::PruneOptions;
use longshore_engine::volume::made_up::MadeUpFs;
use longshore_store::{Key, Store};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How many states were tried.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    /// States.
    pub states: u64,
    /// Of them, with the repair's own end torn: a prune names it and refuses, and deleting it cures all.
    pub torn_ends: u64,
    /// 1 when the damage cost some file.
    pub lossy: u64,
}

/// What each snapshot gives back.
type Readable = BTreeMap<String, Tree>;

fn readable(sea: &Arc<Sea>, sessions: &[String]) -> Readable {
    let process = Process::new(sea, &Stage::alone(BEGIN), Birth::quiet(0x4ead_ab1e));
    sessions.iter().map(|session| (session.clone(), process.salvage(session).unwrap_or_default())).collect()
}

/// Nothing where an earlier damage cut the object before that byte.
fn flip(body: &mut [u8], at: usize, bits: u8) {
    if let Some(byte) = body.get_mut(at) {
        *byte ^= bits;
    }
}

/// A copy of a scene's store, damaged as a seed says.
fn damaged(scene: &Scene, draw: &mut Draw) -> (Arc<Sea>, Vec<String>) {
    let sea = scene.sea.fork();
    let mut what = vec![];
    for _ in 0..2 + draw.below(3) {
        let kind = draw.one_of(&["packs/", "packs/", "index/", "usage/", "tombstones/"]);
        let text = match kind {
            "tombstones/" => format!("tombstones/{:032x}", draw.number()),
            kind => {
                let keys = sea.keys(kind);
                let Some(key) = keys.get(draw.below(keys.len().max(1) as u64) as usize) else { continue };
                key.clone()
            }
        };
        let key = Key::new(text.as_str()).expect("a key");
        let mut body = if sea.has(&text) { bytes_at(sea.objects(), &text).to_vec() } else { b"torn".to_vec() };
        let length = body.len();
        let how = if kind == "tombstones/" { 4 } else { draw.below(4) };
        match how {
            0 => sea.objects().delete(&key).expect("a deletion from memory"),
            // The header of a pack, or the tag of a sealed object.
            1 => flip(&mut body, length.saturating_sub(30), 1),
            2 => flip(&mut body, draw.below(length.max(1) as u64) as usize, 8),
            3 => body.truncate(draw.below(length.max(1) as u64) as usize),
            _ => {}
        }
        if how > 0 {
            sea.objects().overwrite(&key, Bytes::from(body));
        }
        sea.oracle(|ledger| ledger.damage(&text));
        what.push(format!("{text} in way {how}"));
    }
    (sea, what)
}

/// Tries every state of a repair of one damaged scene.
///
/// # Errors
/// The first state that does harm.
pub fn play(scene: &Scene, seed: u64) -> Result<Tried, String> {
    let mut draw = Draw::new(seed, 0x4e9);
    let (base, what) = damaged(scene, &mut draw);
    let before = readable(&base, &scene.counted);
    let whole = readable(&scene.sea.fork(), &scene.counted);
    let mut tried = Tried { lossy: u64::from(before != whole), ..Tried::default() };
    let job = |process: &Process, _: &MadeUpFs| process.repair().map(drop);
    let ran = once(&base, seed, None, job);
    let fail = |state: &str, why: &str| format!("{state}, damaged: {what:?}: {why}");
    if let Err(error) = &ran.outcome {
        return Err(fail("undisturbed", &error.to_string()));
    }
    after(scene, &ran.sea, seed, &before, &mut tried).map_err(|why| fail("undisturbed", &why))?;
    // A decision torn over a tombstone of which nothing can be read: docs/reliability.md, what is not covered.
    let is_covered = |state: &State| {
        let State::Call(number, Fate::DieTorn(_)) = state else { return true };
        !ran.calls[*number as usize].1.starts_with("decisions/")
    };
    for (number, state) in (0..).zip(states(&ran, &mut draw).into_iter().filter(is_covered)) {
        let ran = once(&base, seed, Some(state), job);
        after(scene, &ran.sea, number, &before, &mut tried).map_err(|why| fail(&format!("{state:?}"), &why))?;
        tried.states += 1;
    }
    Ok(tried)
}

/// That each snapshot still gives back what it gave.
fn still(sea: &Arc<Sea>, before: &Readable, when: &str) -> Result<(), String> {
    let sessions: Vec<String> = before.keys().cloned().collect();
    for (session, is) in readable(sea, &sessions) {
        let kept: Tree = is.into_iter().filter(|(path, _)| before[&session].contains_key(path)).collect();
        if let Some(what) = difference(&before[&session], &kept) {
            return Err(format!("I1: {when} snapshot {session} gives back less: {what}"));
        }
    }
    Ok(())
}

fn after(scene: &Scene, sea: &Arc<Sea>, seed: u64, before: &Readable, tried: &mut Tried) -> Result<(), String> {
    let sound = |when: &str| sea.oracle(|ledger| ledger.violation().map_or(Ok(()), |what| Err(format!("{when}: {what}"))));
    sound("while it ran")?;
    let process = Process::new(sea, &Stage::alone(BEGIN + SECOND), Birth::quiet(seed ^ 0x9a1));
    process.repair().map_err(|error| format!("I4: the next repair: {error}"))?;
    still(sea, before, "after the next repair")?;
    for session in sea.oracle(|ledger| ledger.unreadable()) {
        tried.torn_ends += 1;
        match process.prune(&prune_options()) {
            Err(error) if error.next_step().is_some_and(|step| step.contains(&session)) => {}
            other => return Err(format!("I4: a prune does not name an end that was torn: {other:?}")),
        }
        process.delete(&session).map_err(|error| error.to_string())?;
    }
    for round in 0..3 {
        let options = PruneOptions { fence_now: true, ..prune_options() };
        process.prune(&options).map_err(|error| format!("I4: prune {round} afterwards: {error}"))?;
    }
    still(sea, before, "after prunes")?;
    let session = process.back_up(&scene.volumes[0], "a").map_err(|error| format!("I4: a backup afterwards: {error}"))?;
    process.restore(&session, &MadeUpFs::default()).map_err(|error| format!("I1: the backup afterwards: {error}"))?;
    let mut left = vec![];
    for prefix in ["tombstones/", "open/", "sessions/", "watches/"] {
        let is_stuck = |key: &String| sea.oracle(|ledger| ledger.is_stuck(key.trim_start_matches(prefix)));
        left.extend(sea.keys(prefix).into_iter().filter(|key| !is_stuck(key)));
    }
    if !left.is_empty() {
        return Err(format!("I5: left behind: {left:?}"));
    }
    sound("afterwards")
}
