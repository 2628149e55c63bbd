//! Listings that leave something out, under a prune: whatever a store hides, nothing goes that somebody may rely on, and the next prune goes on.

#![expect(clippy::unwrap_used, reason = "a test makes its own files and may fail loudly")]

mod common;

use common::pruned::{back_up_alone, names, orphans, prune, read_directory, small_packs, whole};
use common::{init, noise, open, write};
use longshore_engine::ErrorKind;
use longshore_engine::job::Job;
use longshore_engine::prune::PruneOptions;
use longshore_engine::repository::Repository;
use longshore_engine::repository::reader::ChunkReader;
use longshore_engine::repository::session::{ReaderMarker, Writer};
use longshore_engine::repository::snapshots::SnapshotRow;
use longshore_format::id::SessionId;
use longshore_store::layers::{Call, Effect, Fault, Verb};
use longshore_store::{Key, MemoryStore, Store, StoreErrorKind};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

const PREFIXES: [&str; 11] = [
    "config/",
    "keys/",
    "snapshots/",
    "removed/",
    "sessions/",
    "tombstones/",
    "open/",
    "decisions/",
    "watches/",
    "usage/",
    "index/",
];

/// A store in which everything that a prune lists stands: a generation that has ended, one that waits for a writer or would if it had not just ended, a
/// reader whose snapshot was deleted, and watches of both.
struct Stage {
    store: Arc<MemoryStore>,
    // Only so that they are not over.
    _writer: Option<Writer>,
    _reader: ReaderMarker,
    read: SnapshotRow,
    newest: SessionId,
}

fn backup(repository: &Repository, path: &Path) -> SessionId {
    back_up_alone(repository, path).unwrap().snapshot.unwrap()
}

/// `is_writing`: the writer runs still, and no generation can be decided.
fn staged(is_writing: bool) -> Stage {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    let repository = init(Arc::<MemoryStore>::clone(&store));
    let mut made = Vec::new();
    for round in 0..5 {
        for n in 0..3 {
            write(&folder.path().join(format!("f{n}")), &noise(10 * round + n, 3000));
        }
        made.push(backup(&repository, folder.path()));
    }
    repository.remove_snapshot(made[0], "test").unwrap();
    let first = prune(&repository, &PruneOptions::default()).unwrap();
    assert!(first.packs_deleted > 0, "{first:?}");
    let mut writer = repository.open_writer("slow", vec![], &Job::new()).unwrap();
    let rows = repository.snapshots().unwrap().0;
    let read = rows.into_iter().find(|row| row.session == made[2]).unwrap();
    let reader = repository.open_reader(made[2], &read.snapshot.usage, "reader").unwrap();
    for session in [made[1], made[2]] {
        repository.remove_snapshot(session, "test").unwrap();
    }
    let waits = prune(&repository, &PruneOptions::default()).unwrap();
    assert_eq!(waits.packs_deleted, 0, "{waits:?}");
    if !is_writing {
        writer.abort("it gave up").unwrap();
    }
    for prefix in PREFIXES {
        assert!(!names(&*store, prefix).is_empty(), "{prefix}");
    }
    Stage { store, _writer: is_writing.then_some(writer), _reader: reader, read, newest: made[4] }
}

/// For each name under a prefix a listing that leaves out that one alone.
fn one_hidden(store: &Arc<MemoryStore>, prefix: &'static str) -> Vec<(String, Effect)> {
    let all = names(&**store, prefix);
    let shown = |seed| names(&Fault::new(Arc::clone(store), move |_: &Call<'_>| Effect::Hide { seed }), prefix);
    let hides = |name: &String, seed| {
        let shown = shown(seed);
        !shown.contains(name) && shown.len() + 1 == all.len()
    };
    all.iter().map(|name| (name.clone(), Effect::Hide { seed: (0..).find(|seed| hides(name, *seed)).unwrap() })).collect()
}

/// What a reader of a snapshot needs is there.
fn is_readable(store: &Arc<MemoryStore>, row: &SnapshotRow) -> longshore_engine::Result<u64> {
    let repository = open(Arc::<MemoryStore>::clone(store))?;
    let job = Arc::new(Job::new());
    let index = Arc::new(repository.load_index_and_headers(&job)?);
    read_directory(&ChunkReader::new(repository, index, job, 8 << 20), &row.snapshot.root)
}

#[test]
fn whatever_a_listing_leaves_out_where_nobody_writes_nothing_goes_that_is_needed() {
    let stage = staged(false);
    let store = Arc::new(stage.store.fork());
    let report = prune(&open(Arc::<MemoryStore>::clone(&store)).unwrap(), &PruneOptions::default()).unwrap();
    assert!(report.packs_deleted > 0, "nothing keeps a prune from deleting here: {report:?}");
    let (mut refused, mut deleted) = (0, 0);
    for prefix in PREFIXES.into_iter().chain(["packs/"]) {
        let there = names(&*stage.store, prefix).len();
        let short = [0, there / 2, there - 1].map(|keep_entries| (format!("but {keep_entries}"), Effect::Short { keep_entries }));
        for (hidden, effect) in one_hidden(&stage.store, prefix).into_iter().chain(short) {
            for which in [None, Some(0), Some(1), Some(2), Some(3), Some(4)] {
                let store = Arc::new(stage.store.fork());
                let asked = AtomicU64::new(0);
                let plan = move |call: &Call<'_>| match call.verb == Verb::List && call.key == prefix {
                    true if which.is_none_or(|which| which == asked.fetch_add(1, SeqCst)) => effect,
                    _ => Effect::Pass,
                };
                let short = open(Arc::<MemoryStore>::clone(&store)).unwrap();
                let what = format!("{prefix}, without {hidden} in listing {which:?}");
                match prune(&short.with_store(Arc::new(Fault::new(Arc::clone(&store), plan))), &PruneOptions::default()) {
                    Ok(report) => deleted += report.packs_deleted,
                    Err(error) => {
                        refused += 1;
                        assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Usage), "{what}: {error}");
                        assert!(error.next_step().is_some(), "{what}: {error}");
                    }
                }
                assert_eq!(whole(&store).unwrap_or_else(|error| panic!("{what}: {error}")).len(), 2, "{what}");
                // Nothing names a reader whose marker no listing shows: that is beyond what is promised.
                if prefix != "sessions/" {
                    is_readable(&store, &stage.read).unwrap_or_else(|error| panic!("{what}: the reader misses {error}"));
                }
                let shown = open(Arc::<MemoryStore>::clone(&store)).unwrap();
                for _ in 0..3 {
                    prune(&shown, &PruneOptions { fence_now: true, ..small_packs() })
                        .unwrap_or_else(|e| panic!("{what}, then: {e}"));
                }
                assert_eq!(orphans(&store), Vec::<String>::new(), "{what}");
            }
        }
    }
    assert!(refused > 10 && deleted > 10, "refused={refused}, deleted={deleted}");
}

#[test]
fn whatever_a_listing_leaves_out_nothing_goes_that_somebody_may_rely_on() {
    let stage = staged(true);
    let packs: BTreeSet<String> = names(&*stage.store, "packs/").into_iter().collect();
    let tables: BTreeSet<String> = names(&*stage.store, "usage/").into_iter().collect();
    let mut told: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut refused = 0;
    for prefix in PREFIXES.into_iter().chain(["packs/"]) {
        let there = names(&*stage.store, prefix).len();
        // Of all its listings, and of each.
        for which in [None, Some(0), Some(1), Some(2), Some(3), Some(4)] {
            for kept in [0, there / 2, there.saturating_sub(1)] {
                let store = Arc::new(stage.store.fork());
                let asked = AtomicU64::new(0);
                let plan = move |call: &Call<'_>| {
                    if call.verb != Verb::List || call.key != prefix {
                        return Effect::Pass;
                    }
                    let nth = asked.fetch_add(1, SeqCst);
                    match which.is_none_or(|which| which == nth) {
                        true => Effect::Short { keep_entries: kept },
                        false => Effect::Pass,
                    }
                };
                let hidden = open(Arc::<MemoryStore>::clone(&store)).unwrap();
                let hidden = hidden.with_store(Arc::new(Fault::new(Arc::clone(&store), plan)));
                let what = format!("{prefix}, {kept} of {there} in listing {which:?}");
                if let Err(error) = prune(&hidden, &PruneOptions::default()) {
                    refused += 1;
                    assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Usage), "{what}: {error}");
                    assert!(error.next_step().is_some(), "{what}: {error}");
                    told.entry(prefix).or_default().insert(error.message().to_owned());
                }
                // All that lay there when the writer began, and what the reader reads.
                let left = |prefix| names(&*store, prefix).into_iter().collect::<BTreeSet<_>>();
                assert!(packs.is_subset(&left("packs/")), "{what}: packs went");
                assert!(tables.is_subset(&left("usage/")), "{what}: usage tables went");
                whole(&store).unwrap_or_else(|error| panic!("{what}: {error}"));
                // Where all is shown again the work goes on, and nothing is left of it.
                let shown = open(Arc::<MemoryStore>::clone(&store)).unwrap();
                for _ in 0..3 {
                    prune(&shown, &PruneOptions { fence_now: true, ..small_packs() })
                        .unwrap_or_else(|e| panic!("{what}, then: {e}"));
                }
                assert_eq!(whole(&store).unwrap().len(), 2, "{what}");
                assert_eq!(orphans(&store), Vec::<String>::new(), "{what}");
            }
        }
    }
    let says = |prefix: &str, text: &str| told.get(prefix).is_some_and(|all| all.iter().any(|one| one.contains(text)));
    assert!(says("sessions/", "a writer that ran is neither listed nor ended"), "{told:#?}");
    assert!(says("packs/", "frames that snapshots need lie in no pack"), "{told:#?}");
    assert!(says("snapshots/", "a session that wrote a usage table is there and not listed"), "{told:#?}");
    for prefix in ["config/", "keys/"] {
        assert!(says(prefix, "a listing is empty that cannot be"), "{told:#?}");
    }
    assert!(refused > 10, "{refused}: {told:#?}");
}

#[test]
fn a_tombstone_that_is_there_and_cannot_be_got_stops_a_prune() {
    let stage = staged(true);
    let before = names(&*stage.store, "");
    let plan = |call: &Call<'_>| match call.verb == Verb::Get && call.key.starts_with("tombstones/") {
        true => Effect::FailBefore(StoreErrorKind::NotFound),
        false => Effect::Pass,
    };
    let repository = open(Arc::<MemoryStore>::clone(&stage.store)).unwrap();
    let hidden = repository.with_store(Arc::new(Fault::new(Arc::clone(&stage.store), plan)));
    let error = prune(&hidden, &PruneOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.message().contains("a generation's tombstone is there and not listed"), "{error}");
    assert_eq!(names(&*stage.store, ""), before);
    prune(&repository, &PruneOptions::default()).unwrap();
}

#[test]
fn a_snapshot_that_a_reader_names_and_nobody_deleted_is_missed() {
    let stage = staged(true);
    let repository = open(Arc::<MemoryStore>::clone(&stage.store)).unwrap();
    let rows = repository.snapshots().unwrap().0;
    let newest = rows.iter().find(|row| row.session == stage.newest).unwrap();
    let _reader = repository.open_reader(stage.newest, &newest.snapshot.usage, "another").unwrap();
    // With the tables that name it, too.
    let own = names(&*stage.store, "usage/").into_iter().filter(|name| name.ends_with(&stage.newest.to_string()));
    for name in own.chain([format!("snapshots/{}", stage.newest)]) {
        stage.store.delete(&Key::new(name).unwrap()).unwrap();
    }
    let packs = names(&*stage.store, "packs/");
    let error = prune(&repository, &PruneOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.message().contains("a reader names a snapshot that is neither listed nor deleted"), "{error}");
    assert!(error.next_step().is_some());
    assert_eq!(names(&*stage.store, "packs/"), packs);
}
