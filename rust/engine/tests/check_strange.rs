//! Checks of repositories with what does not belong to them, and over listings that cannot be.

#![expect(clippy::unwrap_used, reason = "a test makes its own files and may fail loudly")]

mod common;

use common::{back_up, init, noise, open, write};
use longshore_engine::ErrorKind;
use longshore_engine::check::{self, CheckOptions, CheckReport, Severity};
use longshore_engine::job::Job;
use longshore_format::envelope::{Codec, Compression};
use longshore_format::id::{ChunkKind, PackName, RandomName, SessionId};
use longshore_format::index::{SegmentBuilder, index_key, seal_segment};
use longshore_format::pack::PackWriter;
use longshore_store::layers::{Call, Effect, Fault, Verb};
use longshore_store::{Key, MemoryStore, Store};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

struct Case {
    _folder: tempfile::TempDir,
    store: Arc<MemoryStore>,
    snapshot: SessionId,
}

impl Case {
    fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("file"), &noise(seed, 300_000));
        let store = Arc::new(MemoryStore::new());
        let snapshot = back_up(&init(Arc::clone(&store) as _), folder.path());
        Self { _folder: folder, store, snapshot }
    }

    fn keys(&self, prefix: &str) -> Vec<Key> {
        self.store.list(prefix, None, 1000).unwrap().entries.into_iter().map(|entry| entry.key).collect()
    }

    /// Lays objects of another store beside ours.
    fn take(&self, other: &Self, prefix: &str) -> Vec<String> {
        let keys = other.keys(prefix);
        for key in &keys {
            self.store.put_new(key, other.store.get(key, 1 << 30).unwrap()).unwrap();
        }
        keys.into_iter().map(|key| key.as_str().to_owned()).collect()
    }

    fn check(&self) -> CheckReport {
        check_through(Arc::clone(&self.store) as _)
    }

    fn verify(&self) -> CheckReport {
        let repository = open(Arc::clone(&self.store) as _).unwrap();
        check::verify_snapshot(&repository, self.snapshot, true, &Arc::new(Job::new()), &options()).unwrap()
    }
}

fn options() -> CheckOptions {
    CheckOptions { read_percent: 100, workers: 0, ..CheckOptions::default() }
}

fn check_through(store: Arc<dyn Store>) -> CheckReport {
    check::run(&open(store).unwrap(), &Arc::new(Job::new()), &options()).unwrap()
}

fn errors(report: &CheckReport) -> Vec<&str> {
    report.findings.iter().filter(|f| f.severity == Severity::Error).map(|f| f.object.as_str()).collect()
}

#[test]
fn an_index_of_another_repository_is_named_and_hurts_nobody() {
    let (ours, theirs) = (Case::new(1), Case::new(2));
    let segments = ours.take(&theirs, "index/");
    let report = ours.check();
    assert_eq!((errors(&report), report.items_hurt, report.exit_code), (segments.iter().map(String::as_str).collect(), 0, 4));
    // What the snapshot needs is all there.
    let verified = ours.verify();
    assert_eq!((verified.exit_code, &verified.findings, verified.bytes_read > 300_000), (0, &vec![], true));
}

#[test]
fn packs_of_another_repository_are_named_and_hurt_nobody() {
    let (ours, theirs) = (Case::new(1), Case::new(2));
    let segments = ours.take(&theirs, "index/");
    let packs = ours.take(&theirs, "packs/");
    let report = ours.check();
    for object in segments.iter().chain(&packs) {
        assert!(errors(&report).contains(&object.as_str()), "{object}: {:?}", report.findings);
    }
    assert_eq!((report.items_hurt, report.exit_code), (0, 4));
    let verified = ours.verify();
    assert_eq!((verified.exit_code, &verified.findings), (0, &vec![]));
}

#[test]
fn an_index_of_ours_that_names_packs_of_another_repository_is_not_believed() {
    let (ours, theirs) = (Case::new(1), Case::new(2));
    let packs = ours.take(&theirs, "packs/");
    let repository = open(Arc::clone(&ours.store) as _).unwrap();
    let (mut codec, world) = (Codec::new().unwrap(), repository.world().clone());
    // One that says where our file lies: in their packs.
    let body = noise(1, 300_000);
    let mut builder = SegmentBuilder::new();
    for pack in &packs {
        let name = PackName::from_text(pack.strip_prefix("packs/").unwrap()).unwrap();
        let mut forged = PackWriter::new(repository.keys(), name, world.salt(), Vec::new()).unwrap();
        let id = repository.keys().chunk_id(ChunkKind::Data, &body[..1000]);
        forged.push(ChunkKind::Data, &body[..1000], vec![(id, 1000)], Compression::None, &mut codec).unwrap();
        let done = forged.finish(&mut codec).unwrap();
        let size = ours.store.head(&Key::new(pack.as_str()).unwrap()).unwrap();
        builder.add_pack(done.name, done.salt, size, &done.frames);
    }
    // And packs that are nowhere.
    let absent = PackName { session: SessionId([9; 16]), number: 0 };
    let mut gone = PackWriter::new(repository.keys(), absent, world.salt(), Vec::new()).unwrap();
    let id = repository.keys().chunk_id(ChunkKind::Data, b"nowhere");
    gone.push(ChunkKind::Data, b"nowhere", vec![(id, 7)], Compression::None, &mut codec).unwrap();
    let done = gone.finish(&mut codec).unwrap();
    builder.add_pack(done.name, done.salt, done.bytes.len() as u64, &done.frames);
    let segment = RandomName([3; 16]);
    let sealed = seal_segment(repository.keys(), segment, world.salt(), &builder.payload().unwrap(), &mut codec).unwrap();
    ours.store.put_new(&Key::new(index_key(segment)).unwrap(), sealed.into()).unwrap();
    let report = ours.check();
    for pack in &packs {
        let about = report.findings.iter().filter(|f| f.object == *pack && f.severity == Severity::Error);
        assert!(about.clone().any(|f| f.message.starts_with("header: ")), "{pack}: {:?}", report.findings);
    }
    let nowhere = report.findings.iter().find(|f| f.object == absent.key()).unwrap();
    assert_eq!((nowhere.severity, nowhere.message.as_str()), (Severity::Warning, "is in the index and not in the store"));
    assert_eq!((report.items_hurt, report.exit_code), (0, 4));
    let verified = ours.verify();
    assert_eq!((verified.exit_code, &verified.findings), (0, &vec![]));
}

/// A store whose listing of a prefix is empty once it is told to be.
fn short(case: &Case, prefix: &'static str, is_short: &Arc<AtomicBool>) -> Arc<dyn Store> {
    let is_short = Arc::clone(is_short);
    let plan = move |call: &Call<'_>| {
        let hit = call.verb == Verb::List && call.key == prefix && is_short.load(SeqCst);
        if hit { Effect::Short { keep_entries: 0 } } else { Effect::Pass }
    };
    Arc::new(Fault::new(case.store.fork(), plan))
}

#[test]
fn a_listing_that_is_empty_is_never_taken_for_all_being_well() {
    let case = Case::new(1);
    let told = |prefix: &'static str| {
        let is_short = Arc::new(AtomicBool::new(false));
        let repository = open(short(&case, prefix, &is_short)).unwrap();
        is_short.store(true, SeqCst);
        let report = check::run(&repository, &Arc::new(Job::new()), &options()).unwrap();
        let verified = check::verify_snapshot(&repository, case.snapshot, true, &Arc::new(Job::new()), &options()).unwrap();
        (report.exit_code, report.findings[0].clone(), verified.exit_code)
    };
    for prefix in ["config/", "keys/"] {
        let (code, first, _) = told(prefix);
        assert_eq!((code, first.severity, first.object.as_str()), (4, Severity::Error, prefix));
        assert!(first.message.contains("a listing is empty that cannot be"), "{first:?}");
    }
    let (code, first, verified) = told("packs/");
    assert_eq!((code, first.severity, verified), (4, Severity::Error, 4));
    assert!(first.message.contains("damaged or nowhere") && !first.snapshots.is_empty(), "{first:?}");
    // The data is there, and a verify finds it by the headers of packs; backups would store it again.
    let (code, first, verified) = told("index/");
    assert_eq!((code, first.severity, verified), (4, Severity::Error, 0));
    assert!(first.message.contains("is needed and in no index"), "{first:?}");
    let (code, first, verified) = told("snapshots/");
    let object = format!("snapshots/{}", case.snapshot);
    assert_eq!((code, first.severity, &first.object, verified), (4, Severity::Error, &object, 0));
    assert!(first.message.contains("the store's listing leaves it out"), "{first:?}");
}

#[test]
fn a_repository_whose_configuration_or_keys_are_not_listed_does_not_open() {
    let case = Case::new(1);
    for (prefix, kind) in [("config/", ErrorKind::RepositoryNotFound), ("keys/", ErrorKind::WrongKey)] {
        let error = open(short(&case, prefix, &Arc::new(AtomicBool::new(true)))).unwrap_err();
        assert_eq!(error.kind(), kind, "{prefix}: {error}");
    }
}

#[test]
fn a_repository_that_is_new_has_no_findings() {
    let store = Arc::new(MemoryStore::new());
    init(Arc::clone(&store) as _);
    let report = check_through(store);
    assert_eq!((report.exit_code, report.findings), (0, vec![]));
}
