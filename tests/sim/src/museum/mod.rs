//! The museum: failures that cost others their data, made again in our engine or beneath it, to see that somebody notices.
//!
//! A *fault* befalls the engine from outside: it must be named or ridden out, and nothing is lost. A *mutant* is the bug itself, made by
//! a layer that does to the engine's calls what the bug would do: then the oracle, a check or a row must see it, and the same trial
//! without the mutant must be sound, else it proves nothing. Each entry says in a line what caught it.

mod faults;
mod mutants;

use crate::link::{Call, Fate, Plan};
use crate::process::{Birth, Process};
use crate::scene::{BEGIN, Scene};
use crate::sea::Sea;
use crate::stage::Stage;
use std::sync::Arc;

/// One of them.
#[derive(Debug)]
pub struct Entry {
    /// Its number in the collection.
    pub number: u8,
    /// Whose bug it was, and what went wrong.
    pub bug: &'static str,
    /// Makes it again: what caught it, or why it was not.
    pub visit: fn(&[Scene]) -> Result<String, String>,
}

/// All of them.
pub const ENTRIES: [Entry; 12] = [
    Entry { number: 1, bug: "restic#1589, a snapshot before its index", visit: mutants::commit_before_index },
    Entry { number: 2, bug: "restic#4612, a failed listing read as an empty one", visit: faults::empty_listings },
    Entry { number: 3, bug: "restic#4523, an encoder emits wrong bytes", visit: mutants::wrong_encoder },
    Entry { number: 4, bug: "restic#2452, a prune overlaps a writer that lost its lock", visit: mutants::fence_ignored },
    Entry { number: 7, bug: "kopia#4769, a pack that is needed has gone", visit: faults::pack_gone },
    Entry { number: 8, bug: "kopia#5150, no fsync", visit: mutants::sync_left_out },
    Entry { number: 9, bug: "rustic#392, a chunk that lies twice is judged unused", visit: faults::chunk_twice },
    Entry { number: 10, bug: "rustic#88, a repack stores wrong bytes", visit: mutants::repack_garbles },
    Entry { number: 11, bug: "rustic#249, a failed upload is not noticed", visit: faults::puts_lost },
    Entry { number: 12, bug: "borg#9748, a stale cache after an interrupted compaction", visit: faults::stale_cache },
    Entry { number: 13, bug: "borg 2, a full store taken for an unreadable file", visit: faults::store_full },
    Entry { number: 18, bug: "tarsnap#760, a failed allocation read as a clean scan", visit: faults::no_memory },
];

/// Where the seeds of visitors begin: far from those of the scenes, whose sessions they must not draw again.
const SEEDS: u64 = 1 << 40;

/// A process over a sea, with a plan.
fn born(sea: &Arc<Sea>, seed: u64, plan: impl Plan + 'static) -> Process {
    Process::new(sea, &Stage::alone(BEGIN), Birth::with(SEEDS + seed, plan))
}

/// One that nothing befalls.
fn quiet(sea: &Arc<Sea>, seed: u64) -> Process {
    Process::new(sea, &Stage::alone(BEGIN), Birth::quiet(SEEDS + seed))
}

/// A plan that gives some calls a fate.
fn fates(choose: impl Fn(&Call<'_>) -> Option<Fate> + Send + 'static) -> impl Plan + 'static {
    move |call: &Call<'_>| (1_000_000, choose(call).unwrap_or(Fate::Pass))
}

/// What the oracle has seen.
fn sound(sea: &Sea, when: &str) -> Result<(), String> {
    sea.oracle(|ledger| ledger.violation().map_or(Ok(()), |what| Err(format!("{when}: {what}"))))
}

/// The beginning of what was said, without the names that no reader knows.
fn brief(what: &str) -> String {
    what.split(": ").take(3).filter(|part| !part.contains('/')).collect::<Vec<_>>().join(": ")
}
