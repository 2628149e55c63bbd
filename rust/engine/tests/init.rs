//! A repository whose making dies, fails or is lied to at each of its store calls in turn, and is raced.
//!
//! After each, somebody else makes a repository at the same place, or finds that it is made: exactly one is there, its key opens it, and
//! a backup of it restores, with nothing done by hand.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test makes its own files and may fail loudly")]

mod common;

use bytes::Bytes;
use common::{assert_same, back_up, noise, restore_with};
use longshore_engine::check::{self, CheckOptions, Severity};
use longshore_engine::job::Job;
use longshore_engine::repository::Repository;
use longshore_engine::repository::cache::Cache;
use longshore_engine::restore::RestoreOptions;
use longshore_engine::seams::World;
use longshore_engine::{ErrorKind, Result};
use longshore_format::keys::{Argon2Cost, Unlock};
use longshore_store::layers::{Call, Effect, Fault, Verb};
use longshore_store::{Key, MemoryStore, Page, Put, Store, StoreError, StoreErrorKind};
use std::path::Path;
use std::sync::{Arc, Mutex};

const FIRST: Unlock = Unlock::Secret([1; 32]);
const SECOND: Unlock = Unlock::Secret([2; 32]);

fn make(store: Arc<dyn Store>, unlock: &Unlock) -> Result<Repository> {
    Repository::init(store, World::system(), unlock, "", Argon2Cost::default(), Cache::none())
}

fn open(store: &Arc<MemoryStore>, unlock: &Unlock) -> Result<Repository> {
    Repository::open(Arc::<MemoryStore>::clone(store), World::system(), unlock, Cache::none())
}

fn names(store: &MemoryStore, prefix: &str) -> Vec<String> {
    store.list(prefix, None, 2000).unwrap().entries.iter().map(|entry| entry.key.to_string()).collect()
}

fn volume() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for n in 0..3u64 {
        std::fs::write(folder.path().join(format!("f{n}")), noise(n, 4000 + n as usize)).unwrap();
    }
    std::thread::sleep(std::time::Duration::from_millis(40));
    folder
}

/// A backup there and back, and a check of all.
fn works(repository: &Repository, path: &Path, what: &str) {
    let snapshot = back_up(repository, path);
    let target = tempfile::tempdir().unwrap();
    let restored = restore_with(repository, &RestoreOptions::new(snapshot, target.path().join("out"))).unwrap();
    assert_eq!(restored.exit_code, 0, "{what}");
    assert_same(path, &target.path().join("out"));
    let report = check::run(repository, &Arc::new(Job::new()), &CheckOptions { read_percent: 100, ..CheckOptions::default() });
    let report = report.unwrap();
    assert_eq!(report.exit_code, 0, "{what}: {:?}", report.findings);
}

#[test]
fn a_making_that_dies_at_any_call_is_gone_on_from_by_anybody() {
    let volume = volume();
    let counting = Arc::new(Fault::new(MemoryStore::new(), |_: &Call<'_>| Effect::Pass));
    make(Arc::<Fault<MemoryStore>>::clone(&counting), &FIRST).unwrap();
    let calls = counting.calls();
    assert!(calls > 20, "{calls}");
    let (mut left, mut made) = (0, 0);
    for number in 0..calls {
        let lost = Effect::FailAfter(StoreErrorKind::Unavailable);
        for effect in [Effect::StopBefore, Effect::StopAfter, Effect::StopTorn { keep_bytes: 100 }, Effect::Lose, lost] {
            // The one who dies has the same key as the next, as agents of one cluster do, or another.
            for next in [&FIRST, &SECOND] {
                let what = format!("call {number}, {effect:?}, {next:?}");
                let store = Arc::new(MemoryStore::new());
                let plan = move |call: &Call<'_>| match effect {
                    _ if call.number != number => Effect::Pass,
                    // A configuration is there whole or not at all.
                    Effect::StopTorn { .. } if call.key.starts_with("config/") => Effect::StopBefore,
                    effect => effect,
                };
                let first = make(Arc::new(Fault::new(Arc::<MemoryStore>::clone(&store), plan)), &FIRST);
                let was_made = Repository::exists(&*store).unwrap();
                assert!(first.is_err() || was_made, "{what}");
                let repository = if was_made {
                    made += 1;
                    let before = names(&store, "");
                    let error = make(Arc::<MemoryStore>::clone(&store) as _, next).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::RepositoryExists, "{what}");
                    assert_eq!(names(&store, ""), before, "{what}: nothing is touched");
                    open(&store, &FIRST).unwrap()
                } else {
                    left += usize::from(!names(&store, "keys/").is_empty());
                    let error = open(&store, next).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::RepositoryNotFound, "{what}");
                    let made = make(Arc::<MemoryStore>::clone(&store) as _, next).unwrap_or_else(|e| panic!("{what}: {e}"));
                    let opened = open(&store, next).unwrap_or_else(|e| panic!("{what}: {e}"));
                    assert_eq!(opened.id(), made.id(), "{what}");
                    opened
                };
                assert_eq!(names(&store, "config/"), ["config/00000000"], "{what}");
                assert_eq!(repository.slots().unwrap().len(), 1, "{what}");
                if names(&store, "keys/").len() > 1 || was_made {
                    works(&repository, volume.path(), &what);
                }
            }
        }
    }
    assert!(left >= 8 && made >= 4, "left={left}, made={made}");
}

#[test]
fn of_two_that_make_a_repository_one_does_and_the_other_says_so() {
    let calls = {
        let counting = Arc::new(Fault::new(MemoryStore::new(), |_: &Call<'_>| Effect::Pass));
        make(Arc::<Fault<MemoryStore>>::clone(&counting), &FIRST).unwrap();
        counting.calls()
    };
    let mut lost = 0;
    for number in 0..calls {
        // The second does all of its work just before one call of the first.
        let store = Arc::new(MemoryStore::new());
        let second = Arc::new(Mutex::new(None));
        let (inner, noted) = (Arc::clone(&store), Arc::clone(&second));
        let plan = move |call: &Call<'_>| {
            if call.number == number {
                *noted.lock().unwrap() = Some(make(Arc::<MemoryStore>::clone(&inner) as _, &SECOND));
            }
            Effect::Pass
        };
        let first = make(Arc::new(Fault::new(Arc::<MemoryStore>::clone(&store), plan)), &FIRST);
        let second: Result<Repository> = second.lock().unwrap().take().unwrap();
        let (winner, loser, key) = match (first, second) {
            (Ok(winner), Err(loser)) => (winner, loser, &FIRST),
            (Err(loser), Ok(winner)) => (winner, loser, &SECOND),
            other => panic!("call {number}: {other:?}"),
        };
        lost += usize::from(matches!(key, Unlock::Secret([2, ..])));
        assert_eq!(loser.kind(), ErrorKind::RepositoryExists, "call {number}: {loser}");
        assert_eq!(open(&store, key).unwrap().id(), winner.id(), "call {number}");
        assert_eq!(names(&store, "config/").len(), 1, "call {number}");
        assert_eq!(names(&store, "keys/"), [format!("keys/{}", winner.slot())], "call {number}: the loser took its slot away");
    }
    assert!(lost > 10 && lost < calls as usize, "{lost} of {calls}");
}

/// A store that does each put of a configuration twice and gives the second answer, as who sends again what was done already.
#[derive(Debug)]
struct Twice(Arc<MemoryStore>);

impl Store for Twice {
    fn put_new(&self, key: &Key, body: Bytes) -> std::result::Result<Put, StoreError> {
        if key.as_str().starts_with("config/") {
            self.0.put_new(key, body.clone())?;
        }
        self.0.put_new(key, body)
    }

    fn get(&self, key: &Key, limit_bytes: u64) -> std::result::Result<Bytes, StoreError> {
        self.0.get(key, limit_bytes)
    }

    fn get_range(&self, key: &Key, offset_bytes: u64, length_bytes: u64) -> std::result::Result<Bytes, StoreError> {
        self.0.get_range(key, offset_bytes, length_bytes)
    }

    fn head(&self, key: &Key) -> std::result::Result<u64, StoreError> {
        self.0.head(key)
    }

    fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> std::result::Result<Page, StoreError> {
        self.0.list(prefix, after, limit)
    }

    fn delete(&self, key: &Key) -> std::result::Result<(), StoreError> {
        self.0.delete(key)
    }

    fn describe(&self) -> String {
        self.0.describe()
    }
}

#[test]
fn who_is_told_that_its_own_configuration_is_there_keeps_its_slot() {
    let store = Arc::new(MemoryStore::new());
    let made = make(Arc::new(Twice(Arc::clone(&store))), &FIRST).unwrap();
    assert_eq!(open(&store, &FIRST).unwrap().id(), made.id());
}

/// A slot of a repository that was never finished, left in `store`.
fn leave_slot(store: &Arc<MemoryStore>, unlock: &Unlock) {
    let plan = |call: &Call<'_>| if call.key.starts_with("config/0") { Effect::StopBefore } else { Effect::Pass };
    make(Arc::new(Fault::new(Arc::<MemoryStore>::clone(store), plan)), unlock).unwrap_err();
}

#[test]
fn slots_that_were_left_take_no_room_open_nothing_and_are_no_damage() {
    let store = Arc::new(MemoryStore::new());
    for n in 0..100 {
        leave_slot(&store, &Unlock::Secret([100 + n; 32]));
    }
    leave_slot(&store, &SECOND);
    let repository = make(Arc::<MemoryStore>::clone(&store) as _, &FIRST).unwrap();
    assert_eq!(open(&store, &FIRST).unwrap().id(), repository.id());
    assert_eq!(open(&store, &SECOND).unwrap_err().kind(), ErrorKind::WrongKey, "a slot that was left is no way in");
    assert_eq!(repository.slots().unwrap().len(), 1);
    assert_eq!(repository.remove_slot(repository.slot()).unwrap_err().kind(), ErrorKind::Usage, "it is the last");
    let report = check::run(&repository, &Arc::new(Job::new()), &CheckOptions::default()).unwrap();
    assert_eq!(report.exit_code, 0, "{:?}", report.findings);
    let told =
        report.findings.iter().filter(|finding| finding.severity == Severity::Warning && finding.object.starts_with("keys/"));
    assert_eq!(told.count(), 101);
    repository.add_slot(&SECOND, "", Argon2Cost::default()).unwrap();
    repository.remove_slot(repository.slot()).unwrap();
    assert_eq!(open(&store, &SECOND).unwrap().id(), repository.id());
    assert_eq!(open(&store, &FIRST).unwrap_err().kind(), ErrorKind::WrongKey);
    assert_eq!(names(&store, "keys/").len(), 102, "nobody takes what was left away");
}

#[test]
fn a_slot_in_which_only_the_name_of_the_repository_is_damaged_is_damage() {
    let store = Arc::new(MemoryStore::new());
    let repository = make(Arc::<MemoryStore>::clone(&store) as _, &FIRST).unwrap();
    let beside = repository.add_slot(&SECOND, "", Argon2Cost::default()).unwrap();
    let at = Key::new(format!("keys/{}", repository.slot())).unwrap();
    let mut bytes = store.get(&at, 4096).unwrap().to_vec();
    bytes[20] ^= 4;
    store.overwrite(&at, bytes.into());
    assert_eq!(open(&store, &FIRST).unwrap_err().kind(), ErrorKind::Corrupt);
    let report = check::run(&open(&store, &SECOND).unwrap(), &Arc::new(Job::new()), &CheckOptions::default()).unwrap();
    assert_eq!(report.exit_code, 4, "{:?}", report.findings);
    // When no slot of it is left at all, nobody is told to bring another key.
    store.delete(&Key::new(format!("keys/{beside}")).unwrap()).unwrap();
    assert_eq!(open(&store, &SECOND).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn what_a_finished_repository_left_is_never_built_upon() {
    let volume = volume();
    let whole = Arc::new(MemoryStore::new());
    let repository = make(Arc::<MemoryStore>::clone(&whole) as _, &FIRST).unwrap();
    back_up(&repository, volume.path());
    for kept in ["packs/", "index/", "usage/", "snapshots/"] {
        let store = whole.fork();
        for name in names(&store, "") {
            if !name.starts_with(kept) && !name.starts_with("keys/") {
                store.delete(&Key::new(name).unwrap()).unwrap();
            }
        }
        let store = Arc::new(store);
        let before = names(&store, "");
        let error = make(Arc::<MemoryStore>::clone(&store) as _, &FIRST).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RepositoryExists, "{kept}");
        assert_eq!(names(&store, ""), before, "{kept}");
    }
}

#[test]
fn of_two_who_finish_one_repository_both_have_it() {
    // Somebody with the same key finishes it between the first one's slot and its configuration.
    let base = Arc::new(MemoryStore::new());
    let beside = Arc::clone(&base);
    let store = Fault::new(Arc::clone(&base), move |call: &Call<'_>| {
        if call.verb == Verb::PutNew && call.key.starts_with("config/") {
            make(Arc::<MemoryStore>::clone(&beside), &FIRST).unwrap();
        }
        Effect::Pass
    });
    let first = make(Arc::new(store), &FIRST).unwrap();
    assert_eq!(open(&base, &FIRST).unwrap().id(), first.id());
    assert!(base.head(&Key::new(format!("keys/{}", first.slot())).unwrap()).is_ok());
}

#[test]
fn a_store_that_cannot_create_without_replacing_is_refused_and_left_empty() {
    let store = Arc::new(MemoryStore::new());
    let plan = |call: &Call<'_>| match call.verb == Verb::PutNew {
        true => Effect::FailBefore(StoreErrorKind::Unsupported),
        false => Effect::Pass,
    };
    let error = make(Arc::new(Fault::new(Arc::<MemoryStore>::clone(&store), plan)), &FIRST).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert_eq!(names(&store, ""), Vec::<String>::new());
}
