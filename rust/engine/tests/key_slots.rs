//! Two who take key slots away at once, over every order of their store calls.
//!
//! Each stands in a thread that waits at every call until it is let on, so an order is a list of choices, and all of them are gone
//! through depth first. Two calls that only read come out the same in either order: of such neighbours one order is tried.

#![expect(clippy::unwrap_used, reason = "a test makes its own files and may fail loudly")]

mod common;

use common::pruned::names;
use common::{init, open, secret};
use longshore_engine::ErrorKind;
use longshore_engine::repository::Repository;
use longshore_engine::repository::cache::Cache;
use longshore_engine::seams::World;
use longshore_format::keys::{Argon2Cost, Unlock};
use longshore_store::MemoryStore;
use longshore_store::layers::{Call, Effect, Fault, Verb};
use std::sync::{Arc, Condvar, Mutex};

const SECOND: Unlock = Unlock::Secret([2; 32]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Runs,
    Asks { writes: bool },
    Done,
}

#[derive(Debug)]
struct Turns {
    at: Mutex<[At; 2]>,
    changed: Condvar,
}

impl Turns {
    fn become_and_wait(&self, who: usize, what: At) {
        let mut at = self.at.lock().unwrap();
        at[who] = what;
        self.changed.notify_all();
        drop(self.changed.wait_while(at, |at| matches!(at[who], At::Asks { .. })).unwrap());
    }

    /// Who asks when nobody runs, and whether they write.
    fn asking(&self) -> Vec<(usize, bool)> {
        let at = self.changed.wait_while(self.at.lock().unwrap(), |at| at.contains(&At::Runs)).unwrap();
        let asks = |(who, at): (usize, &At)| if let At::Asks { writes } = at { Some((who, *writes)) } else { None };
        at.iter().enumerate().filter_map(asks).collect()
    }

    fn let_on(&self, who: usize) {
        self.at.lock().unwrap()[who] = At::Runs;
        self.changed.notify_all();
    }
}

/// One order: takes the choices that are given, then the first of each, and writes down how many there were.
fn run(store: &Arc<MemoryStore>, taken: &mut Vec<(usize, usize)>) -> [Result<(), ErrorKind>; 2] {
    let turns = Arc::new(Turns { at: Mutex::new([At::Runs; 2]), changed: Condvar::new() });
    let repository = open(Arc::<MemoryStore>::clone(store)).unwrap();
    let slots: Vec<_> = repository.slots().unwrap().iter().map(|row| row.name).collect();
    let mut out = [Ok(()); 2];
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|who| {
                let (turns, waits) = (Arc::clone(&turns), Arc::clone(&turns));
                let plan = move |call: &Call<'_>| {
                    let writes = matches!(call.verb, Verb::PutNew | Verb::Delete);
                    waits.become_and_wait(who, At::Asks { writes });
                    Effect::Pass
                };
                let own = repository.with_store(Arc::new(Fault::new(Arc::clone(store), plan)));
                let slot = slots[who];
                scope.spawn(move || {
                    let done = own.remove_slot(slot).map_err(|error| error.kind());
                    turns.become_and_wait(who, At::Done);
                    done
                })
            })
            .collect();
        let (mut step, mut last): (usize, Option<(usize, bool)>) = (0, None);
        loop {
            let asking = turns.asking();
            if asking.is_empty() {
                break;
            }
            let is_twin = |next: (usize, bool)| last.is_some_and(|(who, writes)| who > next.0 && !writes && !next.1);
            let fresh: Vec<_> = asking.iter().copied().filter(|next| !is_twin(*next)).collect();
            let choices = if fresh.is_empty() { asking } else { fresh };
            if step == taken.len() {
                taken.push((0, choices.len()));
            }
            let next = choices[taken[step].0];
            turns.let_on(next.0);
            (last, step) = (Some(next), step + 1);
        }
        for (who, thread) in threads.into_iter().enumerate() {
            out[who] = thread.join().unwrap();
        }
    });
    out
}

#[test]
fn of_two_that_take_the_last_two_slots_away_at_once_one_is_told_and_its_slot_stays() {
    let base = Arc::new(MemoryStore::new());
    init(Arc::<MemoryStore>::clone(&base)).add_slot(&SECOND, "", Argon2Cost::default()).unwrap();
    let (mut taken, mut orders, mut put_back): (Vec<(usize, usize)>, u64, u64) = (vec![], 0, 0);
    loop {
        let store = Arc::new(base.fork());
        let done = run(&store, &mut taken);
        orders += 1;
        assert!(done.contains(&Err(ErrorKind::Usage)), "{done:?}, {taken:?}");
        let left = names(&*store, "keys/").len();
        assert_eq!(left, done.iter().filter(|done| done.is_err()).count(), "{done:?}, {taken:?}");
        put_back += u64::from(left == 2);
        let opens =
            |unlock: &Unlock| Repository::open(Arc::<MemoryStore>::clone(&store), World::system(), unlock, Cache::none()).is_ok();
        assert!(opens(&secret()) || opens(&SECOND), "{done:?}, {taken:?}");
        // The next order: the last choice that has another.
        while taken.pop_if(|(choice, of)| *choice + 1 == *of).is_some() {}
        let Some((choice, _)) = taken.last_mut() else { break };
        *choice += 1;
    }
    println!("orders: {orders}, in which both were put back: {put_back}");
    assert!(orders > 100 && put_back > 0, "{orders} {put_back}");
}
