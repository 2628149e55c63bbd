//! Two who take key slots away at once, over every order of their store calls, and with one of them killed at any of its calls.
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
use longshore_store::layers::{Call, Effect, Fault, Verb};
use longshore_store::{MemoryStore, StoreErrorKind};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
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

/// One order: takes the choices that are given, then the first of each, and writes down how many there were. Who `dies` does so before the call
/// of that number.
fn run(store: &Arc<MemoryStore>, dies: Option<(usize, u64)>, taken: &mut Vec<(usize, usize)>) -> [Result<(), ErrorKind>; 2] {
    let turns = Arc::new(Turns { at: Mutex::new([At::Runs; 2]), changed: Condvar::new() });
    let repository = open(Arc::<MemoryStore>::clone(store)).unwrap();
    let slots: Vec<_> = repository.slots().unwrap().iter().map(|row| row.name).collect();
    let mut out = [Ok(()); 2];
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|who| {
                let (turns, waits) = (Arc::clone(&turns), Arc::clone(&turns));
                let calls = AtomicU64::new(0);
                let plan = move |call: &Call<'_>| {
                    let number = calls.fetch_add(1, SeqCst);
                    if dies.is_some_and(|(dead, from)| dead == who && number >= from) {
                        return Effect::FailBefore(StoreErrorKind::Io);
                    }
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

/// Every order; what is to be said of each is told who ended how, what is left, and the order.
fn all_orders(
    dies: Option<(usize, u64)>,
    mut judge: impl FnMut(&Arc<MemoryStore>, [Result<(), ErrorKind>; 2], usize, &[(usize, usize)]),
) {
    let base = Arc::new(MemoryStore::new());
    init(Arc::<MemoryStore>::clone(&base)).add_slot(&SECOND, "", Argon2Cost::default()).unwrap();
    let mut taken: Vec<(usize, usize)> = vec![];
    loop {
        let store = Arc::new(base.fork());
        let done = run(&store, dies, &mut taken);
        let opens =
            |unlock: &Unlock| Repository::open(Arc::<MemoryStore>::clone(&store), World::system(), unlock, Cache::none()).is_ok();
        assert!(opens(&secret()) || opens(&SECOND), "{dies:?}, {done:?}, {taken:?}");
        judge(&store, done, names(&*store, "keys/").len(), &taken);
        // The next order: the last choice that has another.
        while taken.pop_if(|(choice, of)| *choice + 1 == *of).is_some() {}
        let Some((choice, _)) = taken.last_mut() else { break };
        *choice += 1;
    }
}

#[test]
fn of_two_that_take_the_last_two_slots_away_at_once_one_is_told_and_its_slot_stays() {
    let (mut orders, mut both_stay) = (0, 0);
    all_orders(None, |store, done, left, taken| {
        orders += 1;
        assert!(done.contains(&Err(ErrorKind::Usage)), "{done:?}, {taken:?}");
        assert_eq!(left, done.iter().filter(|done| done.is_err()).count(), "{done:?}, {taken:?}");
        both_stay += u64::from(left == 2);
        // Whatever became of them, with one more key the others can be taken away.
        let repository = open(Arc::<MemoryStore>::clone(store))
            .or_else(|_| Repository::open(Arc::<MemoryStore>::clone(store), World::system(), &SECOND, Cache::none()));
        let repository = repository.unwrap();
        let more = repository.add_slot(&Unlock::Secret([3; 32]), "", Argon2Cost::default()).unwrap();
        for slot in repository.slots().unwrap().iter().filter(|slot| slot.name != more) {
            repository.remove_slot(slot.name).unwrap();
        }
        assert_eq!(names(&**store, "keys/"), [format!("keys/{more}")]);
    });
    println!("orders: {orders}, in which both stay: {both_stay}");
    assert!(orders > 100 && both_stay > 0, "{orders} {both_stay}");
}

#[test]
fn who_dies_while_slots_are_taken_away_takes_nobody_the_last_way_in() {
    let (mut orders, mut most) = (0, 0);
    for (who, from) in (0..2).flat_map(|who| (0..16).map(move |from| (who, from))) {
        all_orders(Some((who, from)), |_, done, _, _| {
            orders += 1;
            // Of one who dies too late for it nothing is learned.
            most = most.max(if done[who] == Err(ErrorKind::Usage) || done[who].is_ok() { 0 } else { from });
        });
    }
    println!("orders: {orders}, deaths before call {most} at the latest");
    assert!(orders > 500 && most > 6, "{orders} {most}");
}

#[test]
fn a_store_that_refuses_to_delete_a_slot_is_told_of() {
    let store = Arc::new(MemoryStore::new());
    let repository = init(Arc::<MemoryStore>::clone(&store));
    let second = repository.add_slot(&SECOND, "", Argon2Cost::default()).unwrap();
    let refuses = |call: &Call<'_>| match call.verb {
        Verb::Delete => Effect::FailBefore(StoreErrorKind::Denied),
        _ => Effect::Pass,
    };
    let denied = repository.with_store(Arc::new(Fault::new(Arc::clone(&store), refuses))).remove_slot(second).unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::StoreDenied, "{denied}");
    assert!(denied.message().contains("still opens the repository") && denied.next_step().is_some(), "{denied}");
    assert_eq!(names(&*store, "keys/").len(), 2);
    // An account that may finishes it.
    repository.remove_slot(second).unwrap();
    assert_eq!(names(&*store, "keys/").len(), 1);
}
