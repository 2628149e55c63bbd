//! Goes through all states of a scene, breadth first, so that what is found first is found on a shortest way.
//!
//! Of a state that was seen it keeps 64 bits, and how it was come by: 20 bytes with the room that the table needs. Promises to say when it did not see all.

use super::finish::finish;
use super::play::Play;
use super::rule::Kept;
use super::scene::Scene;
use super::state::{ReaderAt, State, bit, bits, digest};
use super::tell::{self, Step, Who};
use crate::draw::Draw;

/// The purpose of what a walk draws.
const WALKS: u64 = 0x3a1c;

/// What was found in one scene.
#[derive(Clone, Debug, Default)]
pub struct Explored {
    /// States.
    pub states: u64,
    /// Different states of the store, each of which was finished by prunes that nothing disturbs.
    pub stores: u64,
    /// Length of the longest of the shortest ways to a state.
    pub depth: u32,
    /// Whether there were more states than it was allowed.
    pub cut: bool,
    /// What is wrong, and each step on the way to it.
    pub violation: Option<(String, Vec<String>)>,
}

/// A set of 64-bit numbers, none of them zero.
struct Seen {
    slots: Vec<u64>,
    held: usize,
}

impl Seen {
    fn new() -> Self {
        Self { slots: vec![0; 1 << 12], held: 0 }
    }

    fn place(slots: &[u64], number: u64) -> usize {
        let mut at = number as usize & (slots.len() - 1);
        while slots[at] != 0 && slots[at] != number {
            at = (at + 1) & (slots.len() - 1);
        }
        at
    }

    /// Whether it was new.
    fn add(&mut self, number: u64) -> bool {
        if self.held * 3 > self.slots.len() * 2 {
            let mut more = vec![0; self.slots.len() * 2];
            for old in self.slots.iter().filter(|old| **old != 0) {
                let at = Self::place(&more, *old);
                more[at] = *old;
            }
            self.slots = more;
        }
        let at = Self::place(&self.slots, number);
        let is_new = self.slots[at] == 0;
        self.slots[at] = number;
        self.held += usize::from(is_new);
        is_new
    }
}

/// What a state breaks.
pub(super) fn broken(st: &State, scene: &Scene) -> Option<String> {
    let store = &st.store;
    let there = store.frames(store.packs);
    for s in bits(store.counted()) {
        let gone = store.needs(s) & !there;
        if gone != 0 {
            return Some(format!("snapshot {} counts and its frames are gone: {}", tell::name(s), tell::frames(gone)));
        }
        if store.tables & bit(usize::from(store.names[s])) == 0 {
            return Some(format!("snapshot {} counts and its usage table is gone", tell::name(s)));
        }
    }
    let lost = store.told & !store.committed & !store.removed;
    if let Some(s) = bits(lost).next() {
        return Some(format!("somebody was told that snapshot {} counts, and it does not", tell::name(s)));
    }
    let read = usize::from(st.reader.snapshot);
    if st.reader.at == ReaderAt::Reads && store.needs(read) & !there != 0 {
        return Some(format!("snapshot {} is being read and its frames are gone", tell::name(read)));
    }
    (st.refused && !scene.lies()).then(|| "a prune tells of damage, though the store did all that it must".to_owned())
}

/// Explores a scene without a rule, or with all; at most so many states.
#[must_use]
pub fn explore(scene: &Scene, kept: Kept, states_max: usize) -> Explored {
    let mut play = Play { scene, kept, out: Vec::new() };
    let (mut seen, mut stores) = (Seen::new(), Seen::new());
    let begin = scene.begin();
    seen.add(digest(&begin));
    // How each state was come by: the number of the one before, and of the step out of it.
    let mut from: Vec<(u32, u16)> = vec![(0, 0)];
    let mut front = vec![(0_u32, begin)];
    let mut found = Explored::default();
    while !front.is_empty() && found.violation.is_none() {
        let mut next = Vec::new();
        'layer: for (number, st) in &front {
            play.steps(st);
            for (step, (to, _)) in play.out.iter().enumerate() {
                if !seen.add(digest(to)) {
                    continue;
                }
                from.push((*number, step as u16));
                let wrong = broken(to, scene).or_else(|| match stores.add(digest(&to.store)) {
                    true if !scene.hides => finish(&to.store, scene, kept).err(),
                    _ => None,
                });
                if let Some(what) = wrong {
                    found.violation = Some((what, way(scene, kept, &from)));
                    break 'layer;
                }
                next.push((from.len() as u32 - 1, *to));
            }
            if from.len() >= states_max {
                found.cut = true;
                break 'layer;
            }
        }
        found.depth += 1;
        if found.cut {
            break;
        }
        front = next;
    }
    (found.states, found.stores) = (seen.held as u64, stores.held as u64);
    found
}

/// Most steps of one walk.
const WALK_STEPS: usize = 400;

/// Goes through a scene that is too large by so many random ways, each the same for the same number.
#[must_use]
pub fn wander(scene: &Scene, kept: Kept, walks: u64) -> Explored {
    let mut play = Play { scene, kept, out: Vec::new() };
    let (mut seen, mut stores) = (Seen::new(), Seen::new());
    let mut found = Explored { cut: true, ..Explored::default() };
    for walk in 0..walks {
        let mut draw = Draw::new(walk, WALKS);
        let (mut st, mut told) = (scene.begin(), Vec::new());
        for _ in 0..WALK_STEPS {
            play.steps(&st);
            let Some((to, step)) = pick(&play.out, &mut draw) else { break };
            st = to;
            told.push(step);
            found.depth = found.depth.max(told.len() as u32);
            if !seen.add(digest(&st)) {
                continue;
            }
            let wrong = broken(&st, scene).or_else(|| match stores.add(digest(&st.store)) {
                true => finish(&st.store, scene, kept).err(),
                false => None,
            });
            if let Some(what) = wrong {
                found.violation = Some((what, told.iter().map(Step::to_string).collect()));
                break;
            }
        }
        if found.violation.is_some() {
            break;
        }
    }
    (found.states, found.stores) = (seen.held as u64, stores.held as u64);
    found
}

/// A step; those of users, fences and the store, which can always come, are taken seldom.
fn pick(steps: &[(State, Step)], draw: &mut Draw) -> Option<(State, Step)> {
    let last = steps.len().checked_sub(1)?;
    let mut at = 0;
    for _ in 0..4 {
        at = draw.below(last as u64 + 1) as usize;
        if matches!(steps[at].1.who, Who::Reader | Who::Writer(_) | Who::Prune(_)) {
            break;
        }
    }
    Some(steps[at])
}

/// The steps to the state that was found last.
fn way(scene: &Scene, kept: Kept, from: &[(u32, u16)]) -> Vec<String> {
    let mut at = from.len() - 1;
    let mut steps = Vec::new();
    while at != 0 {
        steps.push(from[at].1);
        at = from[at].0 as usize;
    }
    let mut play = Play { scene, kept, out: Vec::new() };
    let mut st = scene.begin();
    let mut told = Vec::new();
    for step in steps.iter().rev() {
        play.steps(&st);
        let (to, step) = play.out[usize::from(*step)];
        told.push(step.to_string());
        st = to;
    }
    told
}
