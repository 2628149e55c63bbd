//! Listings that leave something out, under a prune: whatever a store hides, nothing goes that somebody may rely on, and the next prune goes on.

#![expect(clippy::unwrap_used, reason = "a test makes its own files and may fail loudly")]

mod common;

use bytes::Bytes;
use common::pruned::{back_up_alone, names, orphans, prune, read_directory, small_packs, whole};
use common::{init, noise, open, write};
use longshore_engine::ErrorKind;
use longshore_engine::job::Job;
use longshore_engine::prune::PruneOptions;
use longshore_engine::repair::{self, RepairOptions};
use longshore_engine::repository::Repository;
use longshore_engine::repository::reader::ChunkReader;
use longshore_engine::repository::session::{ReaderMarker, Writer};
use longshore_engine::repository::snapshots::SnapshotRow;
use longshore_format::envelope::Codec;
use longshore_format::generation::{Doomed, Role};
use longshore_format::id::{PackName, RandomName, SessionId};
use longshore_format::snapshot::public_id;
use longshore_store::layers::{Call, Effect, Fault, Verb};
use longshore_store::{Key, MemoryStore, Page, Put, Store, StoreError, StoreErrorKind};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

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
                is_readable(&store, &stage.read).unwrap_or_else(|error| panic!("{what}: the reader misses {error}"));
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
    // Whose marker a watch or an open list names is asked for by that name, and stands in no prune's way.
    assert!(!told.contains_key("sessions/"), "{told:#?}");
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
    let id = public_id(stage.newest);
    let error = prune(&repository, &PruneOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.message().contains("a reader names a snapshot that is neither listed nor deleted"), "{error}");
    assert!(error.next_step().unwrap().contains(&format!("longshore volume delete {id}")), "{error:?}");
    assert_eq!(names(&*stage.store, "packs/"), packs);
    // The way out that it names, and no other way to it.
    let mut nobody = stage.newest;
    nobody.0[15] ^= 1;
    for other in [&id[..12], &public_id(nobody)] {
        assert_eq!(repository.delete_snapshot(other, "test").unwrap_err().kind(), ErrorKind::SnapshotNotFound, "{other}");
    }
    assert_eq!(repository.delete_snapshot(&id, "test").unwrap(), stage.newest);
    prune(&repository, &PruneOptions::default()).unwrap();
    assert_eq!(repository.delete_snapshot(&id, "test").unwrap_err().kind(), ErrorKind::SnapshotNotFound, "it is done");
}

#[test]
fn a_reader_that_an_earlier_prune_saw_is_asked_for_when_no_listing_shows_it() {
    let mut stage = staged(false);
    let writing: Vec<String> = names(&*stage.store, "sessions/")
        .into_iter()
        .filter(|name| {
            // The reader alone is left; the writer that gave up took its own away.
            stage.store.head(&Key::new(name.as_str()).unwrap()).is_ok()
        })
        .collect();
    assert_eq!(writing.len(), 1);
    let plan = |call: &Call<'_>| match call.verb == Verb::List && call.key == "sessions/" {
        true => Effect::Short { keep_entries: 0 },
        false => Effect::Pass,
    };
    let repository = open(Arc::<MemoryStore>::clone(&stage.store)).unwrap();
    let hidden = repository.with_store(Arc::new(Fault::new(Arc::clone(&stage.store), plan)));
    assert_eq!(prune(&hidden, &PruneOptions::default()).unwrap().readers, 1);
    is_readable(&stage.store, &stage.read).unwrap();
    // One that has ended is missed by nobody.
    stage._reader = repository.open_reader(stage.newest, &[], "another").unwrap();
    assert!(prune(&repository, &PruneOptions::default()).unwrap().packs_deleted > 0);
}

/// A generation of somebody else's, which is decided: these packs go.
fn decide(store: &MemoryStore, repository: &Repository, packs: Vec<PackName>) {
    let (name, doomed) = (RandomName([5; 16]), Doomed { packs, tables: vec![] });
    for role in [Role::Tombstone, Role::Decision] {
        let bytes = doomed.encode(repository.keys(), role, name, [5; 32], &mut Codec::new().unwrap()).unwrap();
        store.put_new(&Key::new(role.key(name)).unwrap(), bytes.into()).unwrap();
    }
}

#[test]
fn the_last_look_stops_a_decision_over_what_a_listing_hides_or_a_record_of_a_repair_alone_names() {
    let folder = tempfile::tempdir().unwrap();
    let base = Arc::new(MemoryStore::new());
    let repository = init(Arc::<MemoryStore>::clone(&base));
    write(&folder.path().join("f"), &noise(1, 30_000));
    let needed = backup(&repository, folder.path());
    let packs = names(&*base, "packs/");
    let doomed = || packs.iter().map(|name| PackName::from_text(name.strip_prefix("packs/").unwrap()).unwrap()).collect();
    for (is_hidden, is_mended) in [(false, false), (true, false), (false, true), (true, true)] {
        let store = Arc::new(base.fork());
        if is_mended {
            // Its tables are gone, and a repair says in their place what it needs.
            for name in names(&*store, "usage/") {
                store.overwrite(&Key::new(name).unwrap(), vec![7; 300].into());
            }
            let options = RepairOptions { workers: 0, ..RepairOptions::default() };
            let report = repair::run(&open(Arc::<MemoryStore>::clone(&store)).unwrap(), &Arc::new(Job::new()), &options).unwrap();
            assert!(report.recorded && report.exit_code == 0, "{report:?}");
        }
        decide(&store, &repository, doomed());
        // The first listing of packs shows them, so that the prune follows what was decided.
        let asked = AtomicU64::new(0);
        let plan = move |call: &Call<'_>| match call.verb == Verb::List && call.key == "packs/" {
            true if asked.fetch_add(1, SeqCst) > 0 && is_hidden => Effect::Short { keep_entries: 0 },
            _ => Effect::Pass,
        };
        let hidden = open(Arc::<MemoryStore>::clone(&store)).unwrap().with_store(Arc::new(Fault::new(Arc::clone(&store), plan)));
        let error = prune(&hidden, &PruneOptions::default()).unwrap_err();
        let what = format!("is_hidden={is_hidden}, is_mended={is_mended}: {error}");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}");
        assert!(error.message().contains("a snapshot needs what a decision of a prune names"), "{what}");
        let left = names(&*store, "packs/");
        assert!(packs.iter().all(|pack| left.contains(pack)), "{what}");
        let row = repository.snapshots().unwrap().0.into_iter().find(|row| row.session == needed).unwrap();
        is_readable(&store, &row).unwrap();
    }
}

#[test]
fn a_writer_that_one_listing_showed_is_waited_for_whatever_the_next_leaves_out() {
    let stage = staged(true);
    let shown = open(Arc::<MemoryStore>::clone(&stage.store)).unwrap();
    let rows = shown.snapshots().unwrap().0;
    let old = rows.iter().find(|row| row.session != stage.newest).unwrap();
    shown.remove_snapshot(old.session, "test").unwrap();
    // The one that fences is whole: what follows is a look, the one at what waits, the list of open writers, and the look after it.
    for which in 1..=5 {
        let store = Arc::new(stage.store.fork());
        let asked = AtomicU64::new(0);
        let plan = move |call: &Call<'_>| match call.verb == Verb::List && call.key == "sessions/" {
            true if asked.fetch_add(1, SeqCst) == which => Effect::Short { keep_entries: 0 },
            _ => Effect::Pass,
        };
        let hidden = open(Arc::<MemoryStore>::clone(&store)).unwrap();
        let report = prune(&hidden.with_store(Arc::new(Fault::new(Arc::clone(&store), plan))), &small_packs()).unwrap();
        assert_eq!((report.packs_deleted, report.tables_deleted), (0, 0), "listing {which}: {report:?}");
        assert_eq!(names(&*store, "open/").len(), 2, "listing {which}: a generation of its own waits");
    }
}

/// A store that leaves one snapshot out of every listing from when it is told to, and does something before a call.
#[derive(Debug)]
struct Hides {
    inner: Arc<MemoryStore>,
    hidden: Mutex<Option<String>>,
}

impl Store for Hides {
    fn put_new(&self, key: &Key, body: Bytes) -> Result<Put, StoreError> {
        self.inner.put_new(key, body)
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
        let mut page = self.inner.list(prefix, after, limit)?;
        let hidden = self.hidden.lock().unwrap().clone();
        page.entries.retain(|entry| hidden.as_ref().is_none_or(|hidden| entry.key.as_str() != hidden));
        Ok(page)
    }
    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.inner.delete(key)
    }
    fn describe(&self) -> String {
        self.inner.describe()
    }
}

/// A prune beside a backup that commits between its look and its tombstone, whose marker stays, and whose snapshot no listing shows from
/// then on. `dies`: the prune does after its list of open writers, and another one carries on.
fn beside_a_commit_that_no_listing_shows(dies: bool) {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    let repository = init(Arc::<MemoryStore>::clone(&store));
    let mut made = Vec::new();
    for round in 0..3 {
        write(&folder.path().join("f"), &noise(round, 3000));
        made.push(backup(&repository, folder.path()));
    }
    repository.remove_snapshot(made[0], "test").unwrap();
    write(&folder.path().join("f"), &noise(9, 3000));
    let hides = Arc::new(Hides { inner: Arc::clone(&store), hidden: Mutex::new(None) });
    let (hiding, path, listed) = (Arc::clone(&hides), folder.path().to_owned(), AtomicU64::new(0));
    let base = Arc::clone(&store);
    let plan = move |call: &Call<'_>| {
        if dies && call.key.starts_with("decisions/") && call.verb == Verb::PutNew {
            return Effect::StopBefore;
        }
        // The listing that its own tombstone comes from.
        if call.verb == Verb::List && call.key == "usage/" && listed.fetch_add(1, SeqCst) == 1 {
            let keeps_marker = |call: &Call<'_>| match call.verb == Verb::Delete {
                true => Effect::FailBefore(StoreErrorKind::Denied),
                false => Effect::Pass,
            };
            let own = open(Arc::<MemoryStore>::clone(&base)).unwrap();
            let session = backup(&own.with_store(Arc::new(Fault::new(Arc::clone(&base), keeps_marker))), &path);
            *hiding.hidden.lock().unwrap() = Some(format!("snapshots/{session}"));
        }
        Effect::Pass
    };
    let pruning = repository.with_store(Arc::new(Fault::new(Arc::<Hides>::clone(&hides), plan)));
    let refused = prune(&pruning, &PruneOptions::default()).unwrap_err();
    if dies {
        // To this one nobody said that the session had committed: it takes it for a writer, until it asks on its own account.
        let refused = prune(&open(Arc::<Hides>::clone(&hides)).unwrap(), &PruneOptions::default()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
        assert!(!names(&*store, "decisions/").is_empty(), "it carried on");
    } else {
        assert!(refused.message().contains("neither listed nor deleted"), "{refused}");
    }
    *hides.hidden.lock().unwrap() = None;
    assert_eq!(whole(&store).unwrap().len(), 3);
    for _ in 0..3 {
        prune(&open(Arc::<MemoryStore>::clone(&store)).unwrap(), &PruneOptions::default()).unwrap();
    }
    assert_eq!((whole(&store).unwrap().len(), names(&*store, "tombstones/").len()), (3, 0));
}

#[test]
fn what_a_prune_was_told_is_there_it_misses_where_a_listing_leaves_it_out() {
    beside_a_commit_that_no_listing_shows(false);
}

#[test]
fn a_table_of_a_session_that_is_not_seen_to_have_ended_stays_whoever_carries_on() {
    beside_a_commit_that_no_listing_shows(true);
}
