//! The conformance suite: what every store and every layer must do, as cases that run on any of them.
//!
//! Promises to be strict where a repository's safety rests on it and silent elsewhere. Each case gets a fresh, empty store. Does
//! not know which store it runs on, so it cannot be kind to one.

use crate::{Entry, Key, Put, Store, StoreError, StoreErrorKind};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Barrier};

/// Why a case did not hold.
#[derive(Debug)]
pub struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<StoreError> for Failure {
    fn from(e: StoreError) -> Self {
        Self(format!("unexpected error: {e}, kind={:?}", e.kind()))
    }
}

type Outcome = Result<(), Failure>;
type Case = (&'static str, fn(&Arc<dyn Store>) -> Outcome);

macro_rules! check {
    ($holds:expr, $($text:tt)+) => {
        if !$holds {
            return Err(Failure(format!($($text)+)));
        }
    };
}

/// All cases by name.
pub const CASES: &[Case] = &[
    ("returns what was put", returns_what_was_put),
    ("never replaces", never_replaces),
    ("one of sixteen racers creates", one_of_sixteen_racers_creates),
    ("refuses what is over the limit", refuses_what_is_over_the_limit),
    ("returns exact ranges", returns_exact_ranges),
    ("says which object is absent", says_which_object_is_absent),
    ("deletes", deletes),
    ("lists in order, page by page", lists_in_order_page_by_page),
    ("lists by any prefix", lists_by_any_prefix),
    ("lists what was just put and not what was just deleted", lists_what_was_just_put),
    ("holds a large object", holds_a_large_object),
    ("serves many threads", serves_many_threads),
    ("describes itself", describes_itself),
];

/// Runs every case on a store that `fresh` makes for it; `fresh` gets a short name, fit for a prefix, that is its own for each case.
pub fn run(fresh: &dyn Fn(&str) -> Arc<dyn Store>) -> Vec<(&'static str, Outcome)> {
    CASES.iter().enumerate().map(|(n, (name, case))| (*name, case(&fresh(&format!("case-{n:02}"))))).collect()
}

/// As [`run`], for a test.
///
/// # Panics
/// If any case fails, naming all that did.
pub fn assert_conforms(fresh: &dyn Fn(&str) -> Arc<dyn Store>) {
    let failed: Vec<String> =
        run(fresh).into_iter().filter_map(|(name, outcome)| outcome.err().map(|e| format!("{name}: {e}"))).collect();
    assert!(failed.is_empty(), "{} of {} cases failed:\n{}", failed.len(), CASES.len(), failed.join("\n"));
}

/// All entries below `prefix`, by pages of `limit`, after checking each page.
///
/// # Errors
/// If the store fails, a page is too long, out of order or endless.
pub fn list_all(store: &dyn Store, prefix: &str, limit: usize) -> Result<Vec<Entry>, Failure> {
    let mut all: Vec<Entry> = Vec::new();
    loop {
        let page = store.list(prefix, all.last().map(|e| &e.key), limit)?;
        check!(page.entries.len() <= limit, "page is too long: entries={}, limit={limit}", page.entries.len());
        check!(!page.more || !page.entries.is_empty(), "page is empty though more remains: prefix={prefix}");
        for entry in page.entries {
            check!(entry.key.as_str().starts_with(prefix), "entry is outside the prefix: key={}, prefix={prefix}", entry.key);
            let rises = all.last().is_none_or(|last| last.key < entry.key);
            check!(rises, "listing does not ascend: key={}, last={:?}", entry.key, all.last());
            all.push(entry);
        }
        if !page.more {
            return Ok(all);
        }
    }
}

fn kind<T: fmt::Debug>(result: Result<T, StoreError>, wanted: StoreErrorKind) -> Outcome {
    match result {
        Err(e) if e.kind() == wanted => Ok(()),
        other => Err(Failure(format!("wrong result: wanted={wanted:?}, got={other:?}"))),
    }
}

// Not compressible, not periodic in a power of two, different for each seed: a shifted or swapped range is seen.
fn body(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

fn returns_what_was_put(store: &Arc<dyn Store>) -> Outcome {
    for (n, length) in [0_usize, 1, 4095, 4096, 100_003].into_iter().enumerate() {
        let (key, content) = (Key::new(format!("packs/object-{n}.x_y"))?, body(n as u64, length));
        check!(store.put_new(&key, content.clone())? == Put::Created, "fresh key was said to exist: key={key}");
        check!(store.get(&key, length as u64)? == content, "object differs: key={key}");
        check!(store.head(&key)? == length as u64, "length differs: key={key}");
    }
    let top = Key::new("top")?;
    check!(store.put_new(&top, Bytes::from_static(b"t"))? == Put::Created, "fresh key was said to exist: key={top}");
    check!(store.get(&top, u64::MAX)? == "t", "object differs under the widest limit: key={top}");
    let deep = Key::new("a/b/c/d/e")?;
    check!(store.put_new(&deep, Bytes::from_static(b"d"))? == Put::Created, "fresh key was said to exist: key={deep}");
    check!(store.get(&deep, 1)? == "d", "object differs: key={deep}");
    Ok(())
}

fn never_replaces(store: &Arc<dyn Store>) -> Outcome {
    let key = Key::new("snapshots/s")?;
    check!(store.put_new(&key, body(1, 1000))? == Put::Created, "fresh key was said to exist");
    for (seed, length) in [(2, 1000), (3, 10), (4, 2000), (5, 0)] {
        check!(
            store.put_new(&key, body(seed, length))? == Put::Exists,
            "second put did not say that the object exists: length={length}"
        );
        check!(store.get(&key, 1000)? == body(1, 1000), "object was replaced: length={length}");
    }
    store.delete(&key)?;
    check!(store.put_new(&key, body(6, 7))? == Put::Created, "deleted key cannot be made again");
    check!(store.get(&key, 7)? == body(6, 7), "object made again differs");
    Ok(())
}

fn one_of_sixteen_racers_creates(store: &Arc<dyn Store>) -> Outcome {
    for round in 0..4 {
        let key = Key::new(format!("snapshots/race-{round}"))?;
        let barrier = Barrier::new(16);
        let results: Vec<Result<Put, StoreError>> = std::thread::scope(|scope| {
            let (key, barrier) = (&key, &barrier);
            let racers: Vec<_> = (0..16_u64)
                .map(|n| {
                    scope.spawn(move || {
                        barrier.wait();
                        store.put_new(key, body(n, 5000))
                    })
                })
                .collect();
            racers.into_iter().filter_map(|racer| racer.join().ok()).collect()
        });
        check!(results.len() == 16, "a racer died");
        let won: Vec<u64> = (0..16_u64).zip(&results).filter(|(_, r)| matches!(r, Ok(Put::Created))).map(|(n, _)| n).collect();
        // A store may refuse for now while another's put is under way; it may not say that two created.
        let strange = results.iter().any(|r| r.as_ref().is_err_and(|e| e.kind() != StoreErrorKind::Unavailable));
        check!(won.len() == 1 && !strange, "not exactly one racer created: created={won:?}, results={results:?}");
        check!(store.get(&key, 5000)? == body(won[0], 5000), "object is not the winner's: winner={}", won[0]);
    }
    Ok(())
}

fn refuses_what_is_over_the_limit(store: &Arc<dyn Store>) -> Outcome {
    let key = Key::new("index/i")?;
    store.put_new(&key, body(1, 5000))?;
    kind(store.get(&key, 4999), StoreErrorKind::TooLarge)?;
    kind(store.get(&key, 0), StoreErrorKind::TooLarge)?;
    check!(store.get(&key, 5000)?.len() == 5000, "object of just the limit was refused");
    Ok(())
}

fn returns_exact_ranges(store: &Arc<dyn Store>) -> Outcome {
    let (key, whole) = (Key::new("packs/p")?, body(7, 10_000));
    store.put_new(&key, whole.clone())?;
    for (offset, length) in [(0, 10_000), (0, 1), (9_999, 1), (123, 4_567), (5_000, 5_000), (0, 0), (10_000, 0)] {
        let got = store.get_range(&key, offset as u64, length as u64)?;
        check!(got == whole.slice(offset..offset + length), "range differs: offset={offset}, length={length}");
        let mut into = vec![9; length];
        store.get_range_into(&key, offset as u64, &mut into)?;
        check!(into == got, "range into a buffer differs: offset={offset}, length={length}");
    }
    for (offset, length) in [
        (0, 10_001),
        (9_999, 2),
        (10_000, 1),
        (20_000, 1),
        (10_001, 0),
        (0, u64::MAX),
        (u64::MAX, 1),
        (1, u64::MAX),
        (0, 1 << 40),
    ] {
        kind(store.get_range(&key, offset, length), StoreErrorKind::Truncated)
            .map_err(|e| Failure(format!("{e}, offset={offset}, length={length}")))?;
    }
    Ok(())
}

fn says_which_object_is_absent(store: &Arc<dyn Store>) -> Outcome {
    store.put_new(&Key::new("packs/there")?, body(1, 1))?;
    for absent in ["packs/absent", "absent", "nowhere/absent", "packs"] {
        let key = Key::new(absent)?;
        kind(store.get(&key, 10), StoreErrorKind::NotFound)?;
        kind(store.get_range(&key, 0, 1), StoreErrorKind::NotFound)?;
        kind(store.get_range(&key, 0, 0), StoreErrorKind::NotFound)?;
        kind(store.head(&key), StoreErrorKind::NotFound)?;
        let text = store.head(&key).err().map(|e| e.to_string()).unwrap_or_default();
        check!(text.contains(absent), "error does not name the object: key={absent}, text={text}");
    }
    Ok(())
}

fn deletes(store: &Arc<dyn Store>) -> Outcome {
    let (gone, kept) = (Key::new("packs/gone")?, Key::new("packs/gone-not")?);
    for key in [&gone, &kept] {
        store.put_new(key, body(1, 10))?;
    }
    store.delete(&gone)?;
    store.delete(&gone)?;
    store.delete(&Key::new("nowhere/at/all")?)?;
    store.delete(&Key::new("packs")?)?;
    kind(store.get(&gone, 10), StoreErrorKind::NotFound)?;
    check!(store.get(&kept, 10)? == body(1, 10), "a neighbour was deleted");
    Ok(())
}

// Names whose order as bytes differs from the order of a walk that sorts names one directory at a time.
const NAMES: [&str; 24] = [
    "a/b",
    "a/b-c",
    "a/c/d",
    "a/c.d",
    "a/c-d",
    "a/c0",
    "a-b",
    "a.b",
    "a0",
    "a_b",
    "b/b/b",
    "b/b-b",
    "b/b.b/c",
    "b0/a",
    "b-/a",
    "b./a",
    "c",
    "packs/00/a",
    "packs/00-a",
    "packs/0",
    "packs/z",
    "z/1",
    "z/10",
    "z/2",
];

fn lists_in_order_page_by_page(store: &Arc<dyn Store>) -> Outcome {
    check!(list_all(&**store, "", 10)?.is_empty(), "fresh store is not empty");
    let mut model: BTreeMap<String, u64> = BTreeMap::new();
    for (n, name) in NAMES.iter().enumerate().rev() {
        store.put_new(&Key::new(*name)?, body(n as u64, n))?;
        model.insert((*name).to_owned(), n as u64);
    }
    let wanted: Vec<(String, u64)> = model.into_iter().collect();
    for limit in [1, 2, 3, 5, 23, 24, 25, 5000] {
        let got: Vec<(String, u64)> =
            list_all(&**store, "", limit)?.into_iter().map(|e| (e.key.as_str().to_owned(), e.size_bytes)).collect();
        check!(got == wanted, "listing differs: limit={limit}, got={got:?}, wanted={wanted:?}");
    }
    // `after` need not exist, nor lie below the prefix.
    for after in ["0", "a", "a/b", "a/c", "a/c.", "a/zz", "b", "packs", "packs/00", "packs/00/b", "z/2", "zz"] {
        for prefix in ["", "a/", "a/c", "packs/", "z"] {
            let page = store.list(prefix, Some(&Key::new(after)?), 1000)?;
            let got: Vec<&str> = page.entries.iter().map(|e| e.key.as_str()).collect();
            let wanted: Vec<&str> =
                wanted.iter().map(|(k, _)| k.as_str()).filter(|k| *k > after && k.starts_with(prefix)).collect();
            check!(
                got == wanted && !page.more,
                "listing differs: after={after}, prefix={prefix}, got={got:?}, wanted={wanted:?}"
            );
        }
    }
    Ok(())
}

fn lists_by_any_prefix(store: &Arc<dyn Store>) -> Outcome {
    for name in NAMES {
        store.put_new(&Key::new(name)?, Bytes::new())?;
    }
    for prefix in [
        "", "a", "a/", "a/c", "a/c/", "a/c/d", "a/c/d/", "b", "b/b", "b/b/b", "b/b.", "b/b.b/", "packs/0", "packs/00", "none",
        "none/", "none/x",
    ] {
        let got: Vec<String> = list_all(&**store, prefix, 3)?.into_iter().map(|e| e.key.as_str().to_owned()).collect();
        let mut wanted: Vec<String> =
            NAMES.iter().filter(|name| name.starts_with(prefix)).map(|name| (*name).to_owned()).collect();
        wanted.sort();
        check!(got == wanted, "listing differs: prefix={prefix}, got={got:?}, wanted={wanted:?}");
    }
    for bad in ["/", "../", "a/../b", ".tmp/", "A"] {
        kind(store.list(bad, None, 10), StoreErrorKind::InvalidKey)?;
    }
    Ok(())
}

fn lists_what_was_just_put(store: &Arc<dyn Store>) -> Outcome {
    for n in 0..20 {
        let key = Key::new(format!("sessions/{n:02}"))?;
        store.put_new(&key, body(n, 3))?;
        let listed = list_all(&**store, "sessions/", 7)?;
        check!(
            listed.len() == 1 && listed[0].key == key,
            "listing does not show just what is there: key={key}, listed={listed:?}"
        );
        store.delete(&key)?;
        check!(list_all(&**store, "sessions/", 7)?.is_empty(), "listing shows what was deleted: key={key}");
    }
    Ok(())
}

fn holds_a_large_object(store: &Arc<dyn Store>) -> Outcome {
    let (key, content) = (Key::new("packs/large")?, body(9, (16 << 20) + 5));
    check!(store.put_new(&key, content.clone())? == Put::Created, "fresh key was said to exist");
    check!(store.head(&key)? == content.len() as u64, "length differs");
    let (offset, length) = (8 << 20, 3 << 20);
    check!(store.get_range(&key, offset as u64, length as u64)? == content.slice(offset..offset + length), "range differs");
    check!(store.get(&key, 32 << 20)? == content, "object differs");
    Ok(())
}

fn serves_many_threads(store: &Arc<dyn Store>) -> Outcome {
    let outcomes: Vec<Option<Outcome>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8_u64)
            .map(|thread| {
                scope.spawn(move || -> Outcome {
                    for n in 0..12_u64 {
                        let key = Key::new(format!("packs/{thread}-{n:02}"))?;
                        let content = body(thread * 100 + n, 3000 + usize::try_from(n).unwrap_or(0));
                        check!(store.put_new(&key, content.clone())? == Put::Created, "fresh key was said to exist: key={key}");
                        check!(store.get(&key, 1 << 20)? == content, "object differs: key={key}");
                        if n % 3 == 0 {
                            store.delete(&key)?;
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().ok()).collect()
    });
    for outcome in outcomes {
        outcome.unwrap_or_else(|| Err(Failure("a thread died".to_owned())))?;
    }
    let listed = list_all(&**store, "packs/", 10)?.len();
    check!(listed == 8 * 8, "listing differs from what is there: listed={listed}, wanted=64");
    Ok(())
}

fn describes_itself(store: &Arc<dyn Store>) -> Outcome {
    check!(!store.describe().is_empty(), "description is empty");
    check!(!format!("{store:?}").is_empty(), "debug text is empty");
    Ok(())
}
