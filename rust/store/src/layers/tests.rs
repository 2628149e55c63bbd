//! Layers: each conforms, and each does what it is there for.

use super::*;
use crate::{
    Clock, Key, MemoryStore, Page, ProbeReport, Put, SeededRng, Store, StoreError, StoreErrorKind, VirtualClock, probe, suite,
};
use bytes::Bytes;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn retry<S: Store>(inner: S) -> (Retry<S>, Arc<VirtualClock>) {
    let clock = Arc::new(VirtualClock::new());
    (Retry::new(inner, RetrySettings::default(), clock.clone(), Arc::new(SeededRng::new(1))), clock)
}

#[test]
fn every_layer_conforms() {
    let clock = || Arc::new(VirtualClock::new());
    suite::assert_conforms(&|_| Arc::new(retry(MemoryStore::new()).0));
    suite::assert_conforms(&|_| Arc::new(Limit::new(MemoryStore::new(), Permits::new(2))));
    suite::assert_conforms(&|_| Arc::new(Throttle::new(MemoryStore::new(), Rate::new(1 << 20), Rate::new(1 << 20), clock())));
    suite::assert_conforms(&|_| Arc::new(Count::new(MemoryStore::new(), Arc::default())));
    suite::assert_conforms(&|_| Arc::new(Fault::new(MemoryStore::new(), Script::new())));
    // The stack as production wires it, behind a pointer.
    suite::assert_conforms(&|_| {
        let base: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let retrying = retry(Limit::new(Count::new(base, Arc::default()), Permits::new(4))).0;
        Arc::new(Throttle::new(retrying, Rate::new(0), Rate::new(0), clock()))
    });
}

#[test]
fn a_read_only_store_reads_as_the_store_does_and_writes_nothing() {
    let counts = Arc::new(Counts::default());
    let store = ReadOnly::new(Count::new(MemoryStore::new(), counts.clone()));
    assert_eq!(store.put_new(&key("a"), Bytes::new()).unwrap_err().kind(), StoreErrorKind::Denied);
    assert_eq!(store.delete(&key("a")).unwrap_err().kind(), StoreErrorKind::Denied);
    assert_eq!(counts.requests(), 0, "a refused write must not reach the store");
    let memory = Arc::new(MemoryStore::new());
    memory.put_new(&key("a"), Bytes::from_static(b"xyz")).unwrap();
    let store = ReadOnly::new(memory);
    assert_eq!((store.get(&key("a"), 9).unwrap(), store.get_range(&key("a"), 1, 1).unwrap()), ("xyz".into(), "y".into()));
    assert_eq!((store.head(&key("a")).unwrap(), store.list("", None, 9).unwrap().entries.len()), (3, 1));
}

#[test]
fn a_store_that_fails_three_calls_of_ten_conforms_behind_retry() {
    // Over all seeds: each alone draws too few calls for its ratio to mean much.
    let (asked, reached) = (Arc::new(Counts::default()), Arc::new(Counts::default()));
    for seed in 0..20 {
        suite::assert_conforms(&|_| {
            let fault = Fault::new(MemoryStore::new(), random_failures(seed, 300));
            Arc::new(Count::new(retry(Count::new(fault, reached.clone())).0, asked.clone()))
        });
    }
    let (asked, reached) = (asked.requests(), reached.requests());
    assert!(reached > asked * 12 / 10, "the faults did not happen: asked={asked}, reached={reached}");
    assert!(reached * 10 <= asked * 16, "too many requests: asked={asked}, reached={reached}");
}

#[test]
fn a_lost_answer_is_told_from_a_stranger() {
    let put = |before: Option<&'static [u8]>, effect: Effect| {
        let memory = MemoryStore::new();
        if let Some(body) = before {
            memory.put_new(&key("snapshots/s"), Bytes::from_static(body)).unwrap();
        }
        retry(Fault::new(memory, Script::new().on(Verb::PutNew, 0, effect)))
            .0
            .put_new(&key("snapshots/s"), Bytes::from_static(b"mine"))
            .unwrap()
    };
    let lost = Effect::FailAfter(StoreErrorKind::Unavailable);
    assert_eq!(put(None, lost), Put::Created, "our own object");
    assert_eq!(put(None, Effect::FailBefore(StoreErrorKind::Unavailable)), Put::Created, "nothing had landed");
    assert_eq!(put(Some(b"other"), lost), Put::Exists, "another's, longer");
    assert_eq!(put(Some(b"mini"), lost), Put::Exists, "another's of the same length");
    assert_eq!(put(None, Effect::Torn { keep_bytes: 2 }), Put::Exists, "a torn one is not what we put");
    // Without a lost answer the bytes are not asked for: who put it is not us.
    assert_eq!(put(Some(b"mine"), Effect::Pass), Put::Exists);
}

#[test]
fn a_put_that_is_refused_unheard_because_it_already_took_effect_ends() {
    // A server may refuse a create-only put before it has read the body and close the connection on it; the client sees a reset each time.
    let put = |before: Option<&'static [u8]>| {
        let memory = MemoryStore::new();
        if let Some(body) = before {
            memory.put_new(&key("a"), Bytes::from_static(body)).unwrap();
        }
        let first = AtomicBool::new(true);
        let fault = Fault::new(memory, move |call: &Call<'_>| match call.verb {
            Verb::PutNew if first.swap(false, Ordering::Relaxed) => Effect::FailAfter(StoreErrorKind::Unavailable),
            Verb::PutNew => Effect::FailBefore(StoreErrorKind::Unavailable),
            _ => Effect::Pass,
        });
        let counts = Arc::new(Counts::default());
        let answer = retry(Count::new(fault, counts.clone())).0.put_new(&key("a"), Bytes::from_static(b"mine"));
        (answer.map_err(|e| e.kind()), counts.requests())
    };
    assert_eq!(put(None), (Ok(Put::Created), 5), "three puts, then a look and a comparison");
    assert_eq!(put(Some(b"longer")), (Ok(Put::Exists), 5), "another's");
}

#[test]
fn what_was_seen_to_be_there_is_compared_until_it_answers_and_not_put_again() {
    let memory = MemoryStore::new();
    let (puts, gets) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let fault = Fault::new(memory, move |call: &Call<'_>| match call.verb {
        Verb::PutNew if puts.fetch_add(1, Ordering::Relaxed) == 0 => Effect::FailAfter(StoreErrorKind::Unavailable),
        Verb::Get if gets.fetch_add(1, Ordering::Relaxed) < 6 => Effect::FailBefore(StoreErrorKind::Unavailable),
        _ => Effect::Pass,
    });
    let counts = Arc::new(Counts::default());
    let store = retry(Count::new(fault, counts.clone())).0;
    assert_eq!(store.put_new(&key("a"), Bytes::from_static(b"mine")).unwrap(), Put::Created);
    assert_eq!(counts.requests(), 9, "two puts, and seven comparisons of which the last is answered");
}

#[test]
fn only_what_may_pass_is_retried() {
    for kind in [
        StoreErrorKind::NotFound,
        StoreErrorKind::Denied,
        StoreErrorKind::NoSpace,
        StoreErrorKind::TooLarge,
        StoreErrorKind::InvalidKey,
        StoreErrorKind::Unsupported,
        StoreErrorKind::InvalidSettings,
        StoreErrorKind::Io,
    ] {
        let counts = Arc::new(Counts::default());
        let fault = Fault::new(MemoryStore::new(), move |_: &Call<'_>| Effect::FailBefore(kind));
        let (store, clock) = retry(Count::new(fault, counts.clone()));
        assert_eq!(store.put_new(&key("a"), Bytes::new()).unwrap_err().kind(), kind);
        assert_eq!(store.get(&key("a"), 1).unwrap_err().kind(), kind);
        assert_eq!(store.list("", None, 1).unwrap_err().kind(), kind);
        assert_eq!((counts.requests(), clock.monotonic()), (3, Duration::ZERO), "{kind:?}");
    }
}

#[test]
fn a_cut_read_is_tried_once_more() {
    for (cuts, wanted) in [(1_u64, Ok(Bytes::from_static(b"xyz"))), (2, Err(StoreErrorKind::Truncated))] {
        for verb in [Verb::Get, Verb::GetRange] {
            let memory = MemoryStore::new();
            memory.put_new(&key("a"), Bytes::from_static(b"xyz")).unwrap();
            let plan = (0..cuts).fold(Script::new(), |plan, n| plan.on(verb, n, Effect::FailAfter(StoreErrorKind::Truncated)));
            let store = retry(Fault::new(memory, plan)).0;
            let got = if verb == Verb::Get { store.get(&key("a"), 9) } else { store.get_range(&key("a"), 0, 3) };
            assert_eq!(got.map_err(|e| e.kind()), wanted, "{verb} cut {cuts} times");
        }
    }
}

#[test]
fn an_outage_is_ridden_out_within_the_budget_and_no_longer() {
    let outage = |minutes: u64, budget: Duration| {
        let clock = Arc::new(VirtualClock::new());
        let inner = clock.clone();
        let fault = Fault::new(MemoryStore::new(), move |_: &Call<'_>| {
            if inner.monotonic() < Duration::from_secs(minutes * 60) {
                Effect::FailBefore(StoreErrorKind::Unavailable)
            } else {
                Effect::Pass
            }
        });
        let counts = Arc::new(Counts::default());
        let settings = RetrySettings { budget, ..RetrySettings::default() };
        let store = Retry::new(Count::new(fault, counts.clone()), settings, clock.clone(), Arc::new(SeededRng::new(3)));
        let result = store.put_new(&key("a"), Bytes::new()).map_err(|e| e.kind());
        (result, clock.monotonic(), counts.requests())
    };
    let default = RetrySettings::default().budget;
    let (result, _, requests) = outage(14, default);
    assert_eq!(result, Ok(Put::Created));
    assert!(requests < 120, "pauses must grow: requests={requests}");
    let (result, waited, _) = outage(30, default);
    assert_eq!(result, Err(StoreErrorKind::Unavailable));
    assert!(waited <= default && waited > default * 9 / 10, "{waited:?}");
    assert_eq!(outage(30, Duration::from_secs(3600)).0, Ok(Put::Created));
}

#[test]
fn pauses_differ_between_callers() {
    let waited = |seed| {
        let clock = Arc::new(VirtualClock::new());
        let fault =
            Fault::new(MemoryStore::new(), Script::new().on(Verb::PutNew, 0, Effect::FailBefore(StoreErrorKind::Unavailable)));
        let store = Retry::new(fault, RetrySettings::default(), clock.clone(), Arc::new(SeededRng::new(seed)));
        store.put_new(&key("a"), Bytes::new()).unwrap();
        clock.monotonic()
    };
    assert_eq!(waited(1), waited(1));
    assert_ne!(waited(1), waited(2), "callers that failed together must not come back together");
}

#[test]
fn a_cancelled_job_stops_waiting() {
    let cancelled = Arc::new(AtomicBool::new(false));
    let (flag, clock) = (cancelled.clone(), Arc::new(VirtualClock::new()));
    let fault = Fault::new(MemoryStore::new(), move |call: &Call<'_>| {
        flag.store(call.number >= 8, Ordering::Relaxed);
        Effect::FailBefore(StoreErrorKind::Unavailable)
    });
    let store = Retry::new(fault, RetrySettings::default(), clock.clone(), Arc::new(SeededRng::new(1))).with_cancel(cancelled);
    assert_eq!(store.head(&key("a")).unwrap_err().kind(), StoreErrorKind::Unavailable);
    assert!(clock.monotonic() < Duration::from_secs(60), "{:?}", clock.monotonic());
}

/// Waits inside each call until told to go on, and knows how many are inside.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    inside: AtomicUsize,
    pub(super) most: AtomicUsize,
}

impl Store for Crowd {
    fn put_new(&self, _: &Key, _: Bytes) -> Result<Put, StoreError> {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(inside, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(3));
        self.inside.fetch_sub(1, Ordering::SeqCst);
        Err(StoreError::new(StoreErrorKind::Io, "crowd fails always"))
    }
    fn get(&self, key: &Key, _: u64) -> Result<Bytes, StoreError> {
        self.put_new(key, Bytes::new()).map(|_| Bytes::new())
    }
    fn get_range(&self, key: &Key, _: u64, _: u64) -> Result<Bytes, StoreError> {
        self.get(key, 0)
    }
    fn head(&self, key: &Key) -> Result<u64, StoreError> {
        self.get(key, 0).map(|_| 0)
    }
    fn list(&self, _: &str, _: Option<&Key>, _: usize) -> Result<Page, StoreError> {
        self.get(&Key::new("a")?, 0).map(|_| Page::default())
    }
    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.get(key, 0).map(|_| ())
    }
    fn describe(&self) -> String {
        "crowd".to_owned()
    }
}

pub(super) fn rush(store: &Limit<Arc<Crowd>>) {
    std::thread::scope(|scope| {
        for n in 0..12 {
            scope.spawn(move || {
                let key = Key::new("a").unwrap();
                for _ in 0..4 {
                    match n % 6 {
                        0 => drop(store.put_new(&key, Bytes::new())),
                        1 => drop(store.get(&key, 0)),
                        2 => drop(store.get_range(&key, 0, 0)),
                        3 => drop(store.head(&key)),
                        4 => drop(store.list("", None, 1)),
                        _ => drop(store.delete(&key)),
                    }
                }
            });
        }
    });
}

#[test]
fn no_more_requests_at_once_than_allowed_and_failures_give_their_permit_back() {
    let crowd = Arc::new(Crowd::default());
    let permits = Permits::new(3);
    let store = Limit::new(crowd.clone(), permits.clone());
    rush(&store);
    assert_eq!(crowd.most.swap(0, Ordering::SeqCst), 3);
    permits.set_max(1);
    rush(&store);
    assert_eq!(crowd.most.swap(0, Ordering::SeqCst), 1);
    permits.set_max(5);
    rush(&store);
    assert_eq!(crowd.most.load(Ordering::SeqCst), 5);
}

#[test]
fn traffic_keeps_to_its_rate() {
    let clock = Arc::new(VirtualClock::new());
    let (up, down) = (Rate::new(1000), Rate::new(0));
    let store = Throttle::new(MemoryStore::new(), up.clone(), down.clone(), clock.clone());
    for n in 0..30 {
        store.put_new(&key(&format!("a{n}")), Bytes::from(vec![0; 500])).unwrap();
    }
    // 15 000 bytes at 1000 a second, of which a second's worth and one body go ahead of time.
    let took = clock.monotonic().as_secs_f64();
    assert!((13.0..=15.0).contains(&took), "took {took} s");
    store.get(&key("a0"), 500).unwrap();
    assert!((clock.monotonic().as_secs_f64() - took).abs() < 1e-9, "reading is not bounded");
    down.set(500);
    let before = clock.monotonic();
    for n in 0..20 {
        let name = key(&format!("a{n}"));
        if n % 2 == 0 {
            store.get(&name, 500).unwrap()
        } else {
            store.get_range(&name, 0, 500).unwrap()
        };
    }
    let took = (clock.monotonic() - before).as_secs_f64();
    assert!((17.0..=20.0).contains(&took), "took {took} s");
}

/// A clock that changes a rate while somebody sleeps.
#[derive(Debug)]
struct Meddler(VirtualClock, Arc<Rate>, Mutex<u32>);

impl Clock for Meddler {
    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
    fn wall_nanos(&self) -> i64 {
        self.0.wall_nanos()
    }
    fn sleep(&self, duration: Duration) {
        let mut sleeps = self.2.lock().unwrap();
        *sleeps += 1;
        if *sleeps == 4 {
            self.1.set(0);
        }
        self.0.sleep(duration);
    }
}

#[test]
fn a_new_rate_reaches_those_who_wait() {
    let rate = Rate::new(1);
    let clock = Arc::new(Meddler(VirtualClock::new(), rate.clone(), Mutex::new(0)));
    let store = Throttle::new(MemoryStore::new(), rate, Rate::new(0), clock.clone());
    store.put_new(&key("a"), Bytes::from(vec![0; 1000])).unwrap();
    store.put_new(&key("b"), Bytes::from(vec![0; 1000])).unwrap();
    assert_eq!(clock.monotonic(), Duration::from_secs(1), "a thousand seconds of debt, forgiven after four looks");
}

#[test]
fn faults_do_what_they_say() {
    let run = |plan: Script| Fault::new(MemoryStore::new(), plan);
    let body = || Bytes::from_static(b"\x00\x00\x00\x00");

    let store = run(Script::new().on(Verb::PutNew, 0, Effect::Lose).on(Verb::Delete, 0, Effect::Lose));
    assert_eq!(store.put_new(&key("a"), body()).unwrap(), Put::Created);
    assert!(store.inner().head(&key("a")).is_err());
    store.put_new(&key("a"), body()).unwrap();
    store.delete(&key("a")).unwrap();
    assert!(store.inner().head(&key("a")).is_ok());

    let store = run(Script::new().on(Verb::PutNew, 0, Effect::Flip { bit: 9 }).on(Verb::Get, 1, Effect::Flip { bit: 33 }));
    store.put_new(&key("a"), body()).unwrap();
    assert_eq!(store.get(&key("a"), 9).unwrap()[..], [0, 2, 0, 0]);
    assert_eq!(store.get(&key("a"), 9).unwrap()[..], [2, 2, 0, 0]);

    let store = run(Script::new().on(Verb::PutNew, 0, Effect::Cut { keep_bytes: 3 }).on(
        Verb::GetRange,
        0,
        Effect::Cut { keep_bytes: 1 },
    ));
    assert_eq!(store.put_new(&key("a"), body()).unwrap(), Put::Created);
    assert_eq!((store.head(&key("a")).unwrap(), store.get_range(&key("a"), 0, 3).unwrap().len()), (3, 1));

    let store = run(Script::new()
        .on(Verb::List, 0, Effect::Short { keep_entries: 2 })
        .on(Verb::List, 1, Effect::Hide { seed: 5 })
        .on(Verb::List, 2, Effect::Hide { seed: 5 }));
    for n in 0..40 {
        store.put_new(&key(&format!("a{n:02}")), body()).unwrap();
    }
    let page = store.list("", None, 10).unwrap();
    assert_eq!((page.entries.len(), page.more), (2, false));
    let (once, twice) = (store.list("", None, 100).unwrap(), store.list("", None, 100).unwrap());
    assert!(once == twice && (5..35).contains(&once.entries.len()), "{}", once.entries.len());
    assert_eq!(store.calls_of(Verb::List), 3);
}

#[test]
fn a_process_can_die_at_every_call() {
    // What a small writer does; the oracle: whatever it said was done is there, and what it did after its death is not.
    let work = |store: &Fault<MemoryStore>| {
        let mut done = Vec::new();
        for n in 0..3 {
            let name = key(&format!("packs/{n}"));
            if store.put_new(&name, Bytes::from_static(b"body")).is_ok() {
                done.push(name);
            }
            drop(store.list("", None, 9));
        }
        done
    };
    let whole = Fault::new(MemoryStore::new(), Script::new());
    work(&whole);
    let calls = whole.calls();
    assert_eq!(calls, 6);
    for at in 0..calls {
        for effect in [Effect::StopBefore, Effect::StopAfter, Effect::StopTorn { keep_bytes: 2 }] {
            let store =
                Fault::new(MemoryStore::new(), move |call: &Call<'_>| if call.number == at { effect } else { Effect::Pass });
            let done = work(&store);
            assert!(store.is_stopped());
            assert_eq!(done.len() as u64, at.div_ceil(2), "at {at}: {effect:?}");
            let there = store.inner().list("packs/", None, 9).unwrap().entries;
            let landed = usize::from(at % 2 == 0 && effect != Effect::StopBefore);
            assert_eq!(there.len(), done.len() + landed, "at {at}: {effect:?}");
            for entry in &there {
                let torn = !done.contains(&entry.key) && effect == Effect::StopTorn { keep_bytes: 2 };
                assert_eq!(entry.size_bytes, if torn { 2 } else { 4 }, "at {at}: {effect:?}");
            }
        }
    }
}

#[test]
fn counts_what_happened() {
    let counts = Arc::new(Counts::default());
    let store = Count::new(MemoryStore::new(), counts.clone());
    store.put_new(&key("a"), Bytes::from_static(b"12345")).unwrap();
    store.get(&key("a"), 9).unwrap();
    store.get_range(&key("a"), 1, 2).unwrap();
    store.get(&key("b"), 9).unwrap_err();
    store.delete(&key("a")).unwrap();
    assert_eq!(counts.verb(Verb::Get), VerbCounts { requests: 2, errors: 1, bytes: 5 });
    assert_eq!((counts.requests(), counts.bytes_up(), counts.bytes_down()), (5, 5, 7));
}

/// A store that knows nothing of create-only, as some servers and emulators do; `honest` says so at least.
#[derive(Debug)]
struct Overwriting {
    inner: MemoryStore,
    says: Put,
}

impl Store for Overwriting {
    fn put_new(&self, key: &Key, body: Bytes) -> Result<Put, StoreError> {
        let there = self.inner.head(key).is_ok();
        self.inner.overwrite(key, body);
        Ok(if there { self.says } else { Put::Created })
    }
    fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes, StoreError> {
        self.inner.get(key, limit_bytes)
    }
    fn get_range(&self, key: &Key, offset_bytes: u64, length_bytes: u64) -> Result<Bytes, StoreError> {
        self.inner.get_range(key, offset_bytes, length_bytes)
    }
    fn head(&self, key: &Key) -> Result<u64, StoreError> {
        self.inner.head(key)
    }
    fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Page, StoreError> {
        self.inner.list(prefix, after, limit)
    }
    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.inner.delete(key)
    }
    fn describe(&self) -> String {
        "overwriting".to_owned()
    }
}

#[test]
fn the_probe_finds_stores_that_cannot_hold_a_repository() {
    let rng = SeededRng::new(7);
    let memory = MemoryStore::new();
    assert_eq!(probe(&memory, &rng).unwrap(), ProbeReport { can_delete: true });
    assert!(memory.list("", None, 9).unwrap().entries.is_empty(), "the probe leaves nothing");
    for says in [Put::Created, Put::Exists] {
        let store = Overwriting { inner: MemoryStore::new(), says };
        assert_eq!(probe(&store, &rng).unwrap_err().kind(), StoreErrorKind::Unsupported, "{store:?}");
        assert!(store.list("", None, 9).unwrap().entries.is_empty(), "nor when it fails");
    }
    let appending = Fault::new(MemoryStore::new(), Script::new().on(Verb::Delete, 0, Effect::FailBefore(StoreErrorKind::Denied)));
    assert_eq!(probe(&appending, &rng).unwrap(), ProbeReport { can_delete: false });
    for (verb, effect) in [
        (Verb::GetRange, Effect::Flip { bit: 3 }),
        (Verb::Get, Effect::Flip { bit: 3 }),
        (Verb::PutNew, Effect::Cut { keep_bytes: 60 }),
        (Verb::Delete, Effect::Lose),
    ] {
        let store = Fault::new(MemoryStore::new(), Script::new().on(verb, 0, effect));
        assert_eq!(probe(&store, &rng).unwrap_err().kind(), StoreErrorKind::Unsupported, "{verb}: {effect:?}");
    }
    let blind =
        Fault::new(
            MemoryStore::new(),
            |call: &Call<'_>| {
                if call.verb == Verb::List { Effect::Short { keep_entries: 0 } } else { Effect::Pass }
            },
        );
    assert_eq!(probe(&blind, &rng).unwrap_err().kind(), StoreErrorKind::Unsupported);
}
