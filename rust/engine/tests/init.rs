//! Making a repository that is stopped, fails or is lied to at each of its store calls: the next who makes it has one, with the same key or
//! with another, and nothing done by hand.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may fail loudly")]

use longshore_engine::repository::Repository;
use longshore_engine::repository::cache::Cache;
use longshore_engine::seams::World;
use longshore_engine::{ErrorKind, Result};
use longshore_format::keys::{Argon2Cost, Unlock};
use longshore_store::layers::{Call, Effect, Fault, Verb};
use longshore_store::{Key, MemoryStore, Store, StoreErrorKind};
use std::sync::Arc;

const KEYS: [Unlock; 2] = [Unlock::Secret([1; 32]), Unlock::Secret([2; 32])];

fn init(store: Arc<dyn Store>, key: &Unlock) -> Result<Repository> {
    Repository::init(store, World::system(), key, "", Argon2Cost::default(), Cache::none())
}

fn open(store: &Arc<MemoryStore>, key: &Unlock) -> Result<Repository> {
    Repository::open(Arc::<MemoryStore>::clone(store), World::system(), key, Cache::none())
}

/// Whether somebody who makes the repository now, or finds it made, has it.
fn ends_well(base: &Arc<MemoryStore>, first: &Unlock, second: &Unlock) -> bool {
    match init(Arc::<MemoryStore>::clone(base), second) {
        Ok(made) => {
            open(base, second).unwrap().id() == made.id() && made.slots().unwrap().iter().any(|row| row.name == made.slot())
        }
        // Then the first one's counts.
        Err(error) if error.kind() == ErrorKind::RepositoryExists => open(base, first).is_ok(),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn what_was_stopped_is_in_nobodys_way() {
    let counter = Arc::new(Fault::new(Arc::new(MemoryStore::new()), |_: &Call<'_>| Effect::Pass));
    init(Arc::<Fault<Arc<MemoryStore>>>::clone(&counter), &KEYS[0]).unwrap();
    for number in 0..counter.calls() {
        let lost = StoreErrorKind::Unavailable;
        for effect in [Effect::StopBefore, Effect::StopAfter, Effect::FailBefore(lost), Effect::FailAfter(lost)] {
            for second in &KEYS {
                let base = Arc::new(MemoryStore::new());
                let store = Fault::new(
                    Arc::clone(&base),
                    move |call: &Call<'_>| {
                        if call.number == number { effect } else { Effect::Pass }
                    },
                );
                let made = init(Arc::new(store), &KEYS[0]);
                assert!(made.is_err() || open(&base, &KEYS[0]).is_ok(), "{number} {effect:?}: made, and not there");
                assert!(ends_well(&base, &KEYS[0], second), "{number} {effect:?} {second:?}");
            }
        }
    }
}

#[test]
fn of_two_who_finish_one_repository_both_have_it() {
    // Somebody with the same key finishes it between the first one's slot and its configuration.
    let base = Arc::new(MemoryStore::new());
    let beside = Arc::clone(&base);
    let store = Fault::new(Arc::clone(&base), move |call: &Call<'_>| {
        if call.verb == Verb::PutNew && call.key.starts_with("config/") {
            init(Arc::<MemoryStore>::clone(&beside), &KEYS[0]).unwrap();
        }
        Effect::Pass
    });
    let first = init(Arc::new(store), &KEYS[0]).unwrap();
    assert_eq!(open(&base, &KEYS[0]).unwrap().id(), first.id());
    assert!(base.head(&Key::new(format!("keys/{}", first.slot())).unwrap()).is_ok());
}
