//! A step in words that a person reads.

use super::state::{CHUNKS, Frames, PACKS, Packs, SESSIONS, Sessions, bits, frame};
use std::fmt;

/// Who takes a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Store,
    User,
    Fence,
    Reader,
    Writer(usize),
    Prune(usize),
}

/// On what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum On {
    None,
    Snapshot(usize),
    Session(usize),
    Sessions(Sessions),
    Packs(Packs),
    Tables(Sessions),
    Doomed(Packs, Sessions),
    Moved(usize, Frames),
    Frames(Frames),
    Generation(usize),
}

/// One step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub who: Who,
    pub text: &'static str,
    pub on: On,
}

/// Two sessions of the past, two of each writer, and what prunes write.
const NAMES: [&str; PACKS] = ["Y", "Z", "a1", "a2", "b1", "b2", "m1", "m2"];

fn list(mask: u8) -> String {
    let names: Vec<&str> = bits(mask).map(|at| NAMES[at]).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}

pub(super) fn frames(mask: Frames) -> String {
    let of = |pack: usize| (0..CHUNKS).filter(move |chunk| mask & frame(pack, *chunk) != 0).map(move |chunk| (pack, chunk));
    let names: Vec<String> =
        (0..SESSIONS).flat_map(of).map(|(pack, chunk)| format!("{}-of-{}", ["A", "B"][chunk], NAMES[pack])).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}

pub(super) fn name(session: usize) -> &'static str {
    NAMES[session]
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = match self.who {
            Who::Store => "the store".to_owned(),
            Who::User => "a user".to_owned(),
            Who::Fence => "a fence".to_owned(),
            Who::Reader => "the reader".to_owned(),
            Who::Writer(number) => format!("writer {}", ["a", "b"][number]),
            Who::Prune(number) => format!("prune {}", number + 1),
        };
        write!(out, "{who:<10} {}", self.text)?;
        match self.on {
            On::None => Ok(()),
            On::Snapshot(at) => write!(out, ": snapshot {}", name(at)),
            On::Session(at) => write!(out, ": session {}", name(at)),
            On::Sessions(mask) => write!(out, ": {}", list(mask)),
            On::Packs(mask) => write!(out, ": packs {}", list(mask)),
            On::Tables(mask) => write!(out, ": table {}", list(mask)),
            On::Doomed(packs, 0) => write!(out, ": packs {}", list(packs)),
            On::Doomed(packs, tables) => write!(out, ": packs {}, tables {}", list(packs), list(tables)),
            On::Moved(pack, moved) => write!(out, ": pack {} with {}", name(pack), frames(moved)),
            On::Frames(mask) => write!(out, ": {}", frames(mask)),
            On::Generation(at) => write!(out, ": that of prune {}", at + 1),
        }
    }
}
