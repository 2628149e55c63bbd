//! What a writer does when others act beside it: tombstones, fences, lost answers, removed parents, damaged index segments.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test makes its own files and may fail loudly")]

use longshore_engine::ErrorKind;
use longshore_engine::backup::{BackupOptions, ParentChoice, Summary, run};
use longshore_engine::job::Job;
use longshore_engine::packer::CompressionChoice;
use longshore_engine::repository::Repository;
use longshore_engine::repository::cache::Cache;
use longshore_engine::seams::World;
use longshore_engine::volume::LinuxFs;
use longshore_format::envelope::Codec;
use longshore_format::generation::{Doomed, Role};
use longshore_format::id::{PackName, RandomName, SessionId, UsageName};
use longshore_format::keys::{Argon2Cost, Unlock};
use longshore_format::pack::VerifyUpload;
use longshore_format::snapshot::SnapshotObject;
use longshore_format::usage::{Usage, usage_key};
use longshore_store::layers::{Call, Effect, Fault, Verb};
use longshore_store::{Key, MemoryStore, Store, StoreErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

fn options(path: &Path) -> BackupOptions {
    BackupOptions {
        path: path.to_owned(),
        source: "test".into(),
        host: "here".into(),
        tags: vec![],
        parent: ParentChoice::Auto,
        excludes: vec![],
        exclude_root_names: vec![],
        one_file_system: true,
        dry_run: false,
        strict: false,
        paranoid: false,
        workers: 2,
        upload_threads: 1,
        memory_budget_bytes: 64 << 20,
        compression: CompressionChoice::Auto,
        verify: VerifyUpload::Full,
    }
}

fn backup(repository: &Repository, path: &Path) -> longshore_engine::Result<Summary> {
    run(repository, &LinuxFs, &Arc::new(Job::new()), &options(path))
}

fn volume() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for n in 0..20u8 {
        std::fs::write(folder.path().join(format!("f{n}")), blake3::hash(&[n]).as_bytes().repeat(50 * usize::from(n) + 1))
            .unwrap();
    }
    std::thread::sleep(std::time::Duration::from_millis(40));
    folder
}

fn init(store: Arc<dyn Store>) -> Repository {
    Repository::init(store, World::system(), &Unlock::Secret([1; 32]), "", Argon2Cost::default(), Cache::none()).unwrap()
}

fn packs(store: &dyn Store) -> Vec<PackName> {
    let entries = store.list("packs/", None, 1000).unwrap().entries;
    entries.iter().map(|e| PackName::from_text(e.key.as_str().strip_prefix("packs/").unwrap()).unwrap()).collect()
}

fn needed_packs(repository: &Repository, session: SessionId) -> Vec<PackName> {
    let (rows, _) = repository.snapshots().unwrap();
    let row = rows.iter().find(|row| row.session == session).unwrap();
    let name = row.snapshot.usage[0];
    let bytes = repository.store().get(&Key::new(usage_key(name)).unwrap(), 1 << 20).unwrap();
    Usage::decode(repository.keys(), name, &bytes, &mut Codec::new().unwrap()).unwrap().packs().collect()
}

#[test]
fn a_pack_under_a_tombstone_is_not_relied_on() {
    let folder = volume();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = init(Arc::clone(&store));
    backup(&repository, folder.path()).unwrap();
    let doomed = packs(&*store);
    let generation = RandomName([7; 16]);
    let bytes = Doomed { packs: doomed.clone(), tables: vec![] }
        .encode(repository.keys(), Role::Tombstone, generation, [1; 32], &mut Codec::new().unwrap())
        .unwrap();
    store.put_new(&Key::new(format!("tombstones/{generation}")).unwrap(), bytes.into()).unwrap();
    let second = backup(&repository, folder.path()).unwrap();
    let needed = needed_packs(&repository, second.snapshot.unwrap());
    assert!(!needed.is_empty() && needed.iter().all(|pack| !doomed.contains(pack)), "needs {needed:?}");
    for pack in doomed {
        store.delete(&Key::new(pack.key()).unwrap()).unwrap();
    }
    let third = backup(&repository, folder.path()).unwrap();
    assert_eq!(third.counts.bytes_read, 0, "everything is still there without the packs that were pruned");
}

#[test]
fn what_a_decision_ever_named_is_not_relied_on_should_it_be_there_again() {
    let folder = volume();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = init(Arc::clone(&store));
    let first = backup(&repository, folder.path()).unwrap().snapshot.unwrap();
    let decided = |generation: u8, packs: Vec<PackName>, tables: Vec<UsageName>| {
        let generation = RandomName([generation; 16]);
        let bytes = Doomed { packs, tables }
            .encode(repository.keys(), Role::Decision, generation, [1; 32], &mut Codec::new().unwrap())
            .unwrap();
        store.put_new(&Key::new(format!("decisions/{generation}")).unwrap(), bytes.into()).unwrap();
    };
    let tables = |session| {
        let (rows, _) = repository.snapshots().unwrap();
        rows.into_iter().find(|row| row.session == session).unwrap().snapshot.usage
    };
    let same = backup(&repository, folder.path()).unwrap().snapshot.unwrap();
    assert_eq!(tables(same)[..1], tables(first), "a table of equal content is named again");
    assert_eq!(tables(same).len(), 2, "beside an empty one of its own");
    decided(1, vec![], tables(first));
    let other = backup(&repository, folder.path()).unwrap();
    assert_ne!(
        tables(other.snapshot.unwrap()),
        tables(first),
        "a table that was deleted is nobody's, whoever put it there again"
    );
    assert_eq!(other.counts.bytes_stored, 0, "its packs were not");
    let spent = packs(&*store);
    decided(2, spent.clone(), vec![]);
    let anew = backup(&repository, folder.path()).unwrap();
    let needed = needed_packs(&repository, anew.snapshot.unwrap());
    assert!(!needed.is_empty() && needed.iter().all(|pack| !spent.contains(pack)), "needs {needed:?}");
    // One that cannot be read says nothing.
    store.put_new(&Key::new(format!("decisions/{}", RandomName([3; 16]))).unwrap(), vec![7; 200].into()).unwrap();
    assert_eq!(backup(&repository, folder.path()).unwrap().counts.bytes_stored, 0);
}

#[test]
fn each_decision_is_read_once() {
    let folder = volume();
    let cache = tempfile::tempdir().unwrap();
    let inner = Arc::new(MemoryStore::new());
    init(Arc::<MemoryStore>::clone(&inner));
    let read = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&read);
    let plan = move |call: &Call<'_>| {
        if call.verb == Verb::Get && call.key.starts_with("decisions/") {
            count.fetch_add(1, Ordering::SeqCst);
        }
        Effect::Pass
    };
    let store: Arc<dyn Store> = Arc::new(Fault::new(Arc::<MemoryStore>::clone(&inner), plan));
    let open = |cache: Cache| Repository::open(Arc::clone(&store), World::system(), &Unlock::Secret([1; 32]), cache).unwrap();
    let kept = open(Cache::at(cache.path()));
    for generation in 0..5 {
        let generation = RandomName([generation; 16]);
        let bytes =
            Doomed::default().encode(kept.keys(), Role::Decision, generation, [1; 32], &mut Codec::new().unwrap()).unwrap();
        inner.put_new(&Key::new(format!("decisions/{generation}")).unwrap(), bytes.into()).unwrap();
    }
    backup(&kept, folder.path()).unwrap();
    assert_eq!(read.swap(0, Ordering::SeqCst), 5);
    backup(&kept, folder.path()).unwrap();
    backup(&open(Cache::at(cache.path())), folder.path()).unwrap();
    assert_eq!(read.swap(0, Ordering::SeqCst), 0, "a copy of each is kept");
    let remembers = open(Cache::in_memory());
    backup(&remembers, folder.path()).unwrap();
    backup(&remembers, folder.path()).unwrap();
    assert_eq!(read.load(Ordering::SeqCst), 5, "without a folder they are remembered");
}

#[test]
fn a_fenced_writer_begins_again_and_adopts_what_it_sent() {
    let folder = volume();
    let inner = Arc::new(MemoryStore::new());
    let repository = init(Arc::<MemoryStore>::clone(&inner));
    let keys = repository.keys().clone();
    let fenced = Arc::new(AtomicBool::new(false));
    let (target, once) = (Arc::clone(&inner), Arc::clone(&fenced));
    // Somebody takes the session's commit key the moment before it commits.
    let plan = move |call: &Call<'_>| {
        if call.verb == Verb::PutNew
            && let Some(session) = call.key.strip_prefix("snapshots/")
            && !once.swap(true, Ordering::SeqCst)
        {
            let session = SessionId::from_hex(session).unwrap();
            let note = SnapshotObject::Aborted { nonce: [9; 16], reason: "fenced".into() };
            let bytes = note.encode(&keys, session, [3; 32], &mut Codec::new().unwrap()).unwrap();
            target.put_new(&Key::new(call.key).unwrap(), bytes.into()).unwrap();
        }
        Effect::Pass
    };
    let store: Arc<dyn Store> = Arc::new(Fault::new(Arc::<MemoryStore>::clone(&inner), plan));
    let repository = Repository::open(store, World::system(), &Unlock::Secret([1; 32]), Cache::none()).unwrap();
    let summary = backup(&repository, folder.path()).unwrap();
    assert!(fenced.load(Ordering::SeqCst));
    let (rows, _) = repository.snapshots().unwrap();
    assert_eq!(
        rows.iter().map(|r| Some(r.session)).collect::<Vec<_>>(),
        [summary.snapshot],
        "one snapshot counts, the later one"
    );
    assert_eq!(summary.counts.bytes_stored, 0, "what the fenced session sent is used");
    assert!(inner.list("sessions/", None, 10).unwrap().entries.is_empty());
}

#[test]
fn a_commit_whose_answer_was_lost_is_found_and_counts() {
    let folder = volume();
    let inner = Arc::new(MemoryStore::new());
    init(Arc::<MemoryStore>::clone(&inner));
    let plan = |call: &Call<'_>| {
        let commit = call.verb == Verb::PutNew && call.key.starts_with("snapshots/");
        if commit && call.nth < 100 && call.number < 1000 { Effect::FailAfter(StoreErrorKind::Unavailable) } else { Effect::Pass }
    };
    let asked = Arc::new(AtomicBool::new(false));
    let once = Arc::clone(&asked);
    let plan = move |call: &Call<'_>| {
        let effect = plan(call);
        if effect != Effect::Pass && once.swap(true, Ordering::SeqCst) { Effect::Pass } else { effect }
    };
    let store: Arc<dyn Store> = Arc::new(Fault::new(Arc::<MemoryStore>::clone(&inner), plan));
    let repository = Repository::open(store, World::system(), &Unlock::Secret([1; 32]), Cache::none()).unwrap();
    let summary = backup(&repository, folder.path()).unwrap();
    assert!(asked.load(Ordering::SeqCst));
    assert_eq!(repository.snapshots().unwrap().0.len(), 1);
    assert!(summary.snapshot.is_some());
}

#[test]
fn a_damaged_or_missing_index_segment_is_made_up_for_by_pack_headers() {
    let folder = volume();
    let inner = Arc::new(MemoryStore::new());
    let repository = init(Arc::<MemoryStore>::clone(&inner));
    backup(&repository, folder.path()).unwrap();
    let segment = inner.list("index/", None, 10).unwrap().entries[0].key.clone();
    let bytes = inner.get(&segment, 1 << 20).unwrap();
    let mut damaged = bytes.to_vec();
    damaged[200] ^= 1;
    inner.overwrite(&segment, damaged.into());
    let second = backup(&repository, folder.path()).unwrap();
    assert_eq!(second.counts.bytes_read, 0, "headers say where everything lies");
    inner.delete(&segment).unwrap();
    let job = Arc::new(Job::new());
    let index = Arc::new(repository.load_index(&job).unwrap());
    assert!(index.is_empty());
    let reader = longshore_engine::repository::reader::ChunkReader::new(repository.clone(), index, job, 1 << 20);
    let (rows, _) = repository.snapshots().unwrap();
    let mut names = 0;
    reader
        .for_each_entry(&rows[0].snapshot.root, &mut |_| {
            names += 1;
            Ok(true)
        })
        .unwrap();
    assert_eq!(names, 20);
}

#[test]
fn a_removed_parent_is_no_parent_and_a_repository_never_gets_a_second_key() {
    let folder = volume();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = init(Arc::clone(&store));
    let first = backup(&repository, folder.path()).unwrap();
    repository.remove_snapshot(first.snapshot.unwrap(), "test").unwrap();
    let second = backup(&repository, folder.path()).unwrap();
    assert_eq!(second.parent, None);
    assert_eq!(repository.snapshots().unwrap().0.len(), 1);
    let found = repository.find_snapshot(&format!("ls0-{}", first.snapshot.unwrap()), None);
    assert_eq!(found.unwrap_err().kind(), ErrorKind::SnapshotNotFound);
    let before = store.list("", None, 1000).unwrap().entries;
    let again =
        Repository::init(Arc::clone(&store), World::system(), &Unlock::Secret([2; 32]), "", Argon2Cost::default(), Cache::none());
    assert_eq!(again.unwrap_err().kind(), ErrorKind::RepositoryExists);
    let wrong = Repository::open(Arc::clone(&store), World::system(), &Unlock::Secret([2; 32]), Cache::none());
    assert_eq!(wrong.unwrap_err().kind(), ErrorKind::WrongKey);
    assert_eq!(store.list("", None, 1000).unwrap().entries, before, "nothing was touched");
}

#[test]
fn who_wants_one_snapshot_does_not_list_all_that_were_ever_deleted() {
    let folder = volume();
    let inner = Arc::new(MemoryStore::new());
    init(Arc::<MemoryStore>::clone(&inner));
    let (listed, read) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (removals, records) = (Arc::clone(&listed), Arc::clone(&read));
    let plan = move |call: &Call<'_>| {
        removals.fetch_or(call.verb == Verb::List && call.key.starts_with("removed"), Ordering::SeqCst);
        records.fetch_add(u64::from(call.verb == Verb::Get && call.key.starts_with("snapshots/")), Ordering::SeqCst);
        Effect::Pass
    };
    let store: Arc<dyn Store> = Arc::new(Fault::new(Arc::<MemoryStore>::clone(&inner), plan));
    let open = |cache| Repository::open(Arc::clone(&store), World::system(), &Unlock::Secret([1; 32]), cache).unwrap();
    let repository = open(Cache::in_memory());
    let made: Vec<SessionId> = (0..3).map(|_| backup(&repository, folder.path()).unwrap().snapshot.unwrap()).collect();
    // A store that refuses deletions goes on to list what was removed.
    let key = Key::new(format!("snapshots/{}", made[2])).unwrap();
    let kept = inner.get(&key, 1 << 20).unwrap();
    repository.remove_snapshot(made[2], "test").unwrap();
    inner.put_new(&key, kept).unwrap();
    for repository in [&repository, &open(Cache::none())] {
        let gone = repository.find_snapshot(&made[2].to_string(), None);
        assert_eq!(gone.unwrap_err().kind(), ErrorKind::SnapshotNotFound);
        assert_eq!(repository.find_snapshot(&made[1].to_string()[..9], None).unwrap().session, made[1]);
    }
    read.store(0, Ordering::SeqCst);
    let summary = backup(&repository, folder.path()).unwrap();
    assert_eq!(summary.parent, Some(made[1]), "the newest that was not removed");
    assert_eq!(read.load(Ordering::SeqCst), 1, "its own commit alone: the others were opened before");
    assert!(!listed.load(Ordering::SeqCst), "removals were listed");
    assert_eq!(repository.snapshots().unwrap().0.len(), 3);
    assert!(listed.load(Ordering::SeqCst));
}
