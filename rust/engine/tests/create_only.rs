//! A store that began to overwrite: prunes and backups refuse. One that tells nothing stops nobody, and one that was asked is not asked again for a day.

#![expect(clippy::unwrap_used, reason = "a test makes its own files and may fail loudly")]

mod common;

use bytes::Bytes;
use common::pruned::{back_up_alone, names, prune, whole};
use common::{init, noise, open, write};
use longshore_engine::ErrorKind;
use longshore_engine::job::Job;
use longshore_engine::prune::PruneOptions;
use longshore_engine::repair::{self, RepairOptions};
use longshore_engine::repository::cache::Cache;
use longshore_engine::repository::{PROBE_KEY, Repository};
use longshore_engine::seams::World;
use longshore_store::layers::{Call, Effect, Fault, Verb};
use longshore_store::{Key, MemoryStore, Page, Put, Store, StoreError, StoreErrorKind, VirtualClock};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

/// Something in between that drops the condition.
#[derive(Debug)]
struct Overwrites(Arc<MemoryStore>);

impl Store for Overwrites {
    fn put_new(&self, key: &Key, body: Bytes) -> Result<Put, StoreError> {
        self.0.overwrite(key, body);
        Ok(Put::Created)
    }
    fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes, StoreError> {
        self.0.get(key, limit_bytes)
    }
    fn get_range(&self, key: &Key, offset_bytes: u64, length_bytes: u64) -> Result<Bytes, StoreError> {
        self.0.get_range(key, offset_bytes, length_bytes)
    }
    fn head(&self, key: &Key) -> Result<u64, StoreError> {
        self.0.head(key)
    }
    fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Page, StoreError> {
        self.0.list(prefix, after, limit)
    }
    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.0.delete(key)
    }
    fn describe(&self) -> String {
        "gateway".to_owned()
    }
}

struct Case {
    folder: tempfile::TempDir,
    store: Arc<MemoryStore>,
    repository: Repository,
}

fn case() -> Case {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    let repository = init(Arc::<MemoryStore>::clone(&store));
    for seed in 0..2 {
        write(&folder.path().join("file"), &noise(seed, 3000));
        back_up_alone(&repository, folder.path()).unwrap();
    }
    let first = repository.snapshots().unwrap().0[0].session;
    repository.remove_snapshot(first, "test").unwrap();
    Case { folder, store, repository }
}

#[test]
fn a_store_that_overwrites_since_it_was_moved_is_refused_by_backups_prunes_and_repairs() {
    for was_asked in [true, false] {
        let case = case();
        if !was_asked {
            case.store.delete(&Key::new(PROBE_KEY).unwrap()).unwrap();
        }
        let there = || names(&*case.store, "").into_iter().filter(|name| name != PROBE_KEY).collect::<Vec<_>>();
        let before = there();
        let moved = case.repository.with_store(Arc::new(Overwrites(Arc::clone(&case.store))));
        let errors = [
            back_up_alone(&moved, case.folder.path()).unwrap_err(),
            prune(&moved, &PruneOptions::default()).unwrap_err(),
            repair::run(&moved, &Arc::new(Job::new()), &RepairOptions { workers: 0, ..RepairOptions::default() }).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            assert!(error.next_step().unwrap().contains("If-None-Match"), "{error:?}");
        }
        assert_eq!(there(), before, "no marker, no pack, nothing gone");
        // Who only looks is told what there is.
        prune(&moved, &PruneOptions { dry_run: true, ..PruneOptions::default() }).unwrap();
        assert_eq!(whole(&case.store).unwrap().len(), 1);
        assert!(prune(&case.repository, &PruneOptions::default()).unwrap().packs_deleted > 0, "and the old way is open");
    }
}

#[test]
fn a_store_that_loses_or_refuses_what_it_is_asked_with_stops_nobody() {
    let is_asked = |call: &Call<'_>| call.verb == Verb::PutNew && call.key == PROBE_KEY;
    for effect in [
        Effect::Lose,
        Effect::FailBefore(StoreErrorKind::Denied),
        Effect::FailBefore(StoreErrorKind::NoSpace),
        Effect::Cut { keep_bytes: 7 },
    ] {
        // The first put of it, the second, or each.
        for which in [Some(0), Some(1), None] {
            let case = case();
            case.store.delete(&Key::new(PROBE_KEY).unwrap()).unwrap();
            let asked = AtomicU64::new(0);
            let plan = move |call: &Call<'_>| match is_asked(call) {
                true if which.is_none_or(|which| which == asked.fetch_add(1, SeqCst)) => effect,
                _ => Effect::Pass,
            };
            let strange = case.repository.with_store(Arc::new(Fault::new(Arc::clone(&case.store), plan)));
            back_up_alone(&strange, case.folder.path()).unwrap();
            assert!(prune(&strange, &PruneOptions::default()).unwrap().packs_deleted > 0, "{effect:?} {which:?}");
        }
    }
}

#[test]
fn it_is_asked_in_one_request_a_day_and_each_time_where_nothing_is_remembered() {
    let case = case();
    let kept = tempfile::tempdir().unwrap();
    let requests = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&requests);
    let plan = move |call: &Call<'_>| {
        counted.fetch_add(u64::from(call.key.starts_with("probe/")), SeqCst);
        Effect::Pass
    };
    let counting = case.repository.with_store(Arc::new(Fault::new(Arc::clone(&case.store), plan)));
    let clock = Arc::new(VirtualClock::new());
    clock.advance(Duration::from_secs(400 * 24 * 3600));
    let on = |clock: &Arc<VirtualClock>| World { clock: Arc::<VirtualClock>::clone(clock), ..counting.world().clone() };
    let backup = |repository: &Repository| {
        requests.store(0, SeqCst);
        back_up_alone(repository, case.folder.path()).unwrap();
        requests.load(SeqCst)
    };
    assert_eq!([backup(&counting), backup(&counting)], [1, 1], "without a cache");
    let cached = || counting.with_world(on(&clock)).with_cache(&Cache::at(kept.path()));
    assert_eq!([backup(&cached()), backup(&cached())], [1, 0]);
    clock.advance(Duration::from_secs(24 * 3600));
    assert_eq!([backup(&cached()), backup(&cached())], [1, 0], "a day later");
    let behind = Arc::new(VirtualClock::new());
    assert_eq!(
        backup(&counting.with_world(on(&behind)).with_cache(&Cache::at(kept.path()))),
        1,
        "what is dated in the future is not believed"
    );
    // Reached another way it is asked again, at once.
    let moved = cached().with_store(Arc::new(Overwrites(Arc::clone(&case.store))));
    assert_eq!(back_up_alone(&moved, case.folder.path()).unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn a_prune_takes_away_what_the_making_of_a_repository_left() {
    let case = case();
    for name in ["probe/00112233445566778899aabbccddeeff", "probe/x"] {
        case.store.put_new(&Key::new(name).unwrap(), Bytes::from_static(b"left")).unwrap();
    }
    prune(&case.repository, &PruneOptions::default()).unwrap();
    assert_eq!(names(&*case.store, "probe/"), [PROBE_KEY]);
    back_up_alone(&open(Arc::<MemoryStore>::clone(&case.store)).unwrap(), case.folder.path()).unwrap();
}
