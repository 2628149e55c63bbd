//! A backup that dies, fails or is lied to at each of its store calls in turn.
//!
//! After each, the repository is opened as another process would: every snapshot that counts must be whole, an acknowledged one must
//! count, and the next backup must work with nothing done by hand.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test makes its own files and may fail loudly"
)]

use longshore_engine::backup::{BackupOptions, ParentChoice, run};
use longshore_engine::job::Job;
use longshore_engine::packer::CompressionChoice;
use longshore_engine::repository::Repository;
use longshore_engine::repository::cache::Cache;
use longshore_engine::repository::reader::ChunkReader;
use longshore_engine::seams::World;
use longshore_engine::volume::LinuxFs;
use longshore_format::id::ChunkKind;
use longshore_format::keys::{Argon2Cost, Unlock};
use longshore_format::pack::VerifyUpload;
use longshore_format::tree::{Entry, Item, Node, Owner};
use longshore_store::layers::{Call, Effect, Fault, Verb};
use longshore_store::{MemoryStore, Store, StoreErrorKind};
use std::path::Path;
use std::sync::Arc;

const KEY: Unlock = Unlock::Secret([1; 32]);

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
        workers: 0,
        upload_threads: 0,
        memory_budget_bytes: 64 << 20,
        compression: CompressionChoice::Auto,
        verify: VerifyUpload::Full,
    }
}

fn open(store: Arc<dyn Store>) -> longshore_engine::Result<Repository> {
    Repository::open(store, World::system(), &KEY, Cache::none())
}

fn backup(store: Arc<dyn Store>, path: &Path) -> longshore_engine::Result<longshore_engine::backup::Summary> {
    run(&open(store)?, &LinuxFs, &Arc::new(Job::new()), &options(path))
}

/// Reads all that a snapshot names; the number of files.
fn read_whole(reader: &ChunkReader, directory: &Entry) -> longshore_engine::Result<u64> {
    let mut files = 0;
    let mut below = Vec::new();
    reader.for_each_entry(directory, &mut |entry| {
        match &entry.node {
            Node::Directory { .. } => below.push(entry),
            Node::File { content, .. } => {
                files += 1;
                reader.for_each_item(content, Owner::File, &mut |item| {
                    if let Item::Data { id, .. } = item {
                        reader.chunk(ChunkKind::Data, id)?;
                    }
                    Ok(true)
                })?;
            }
            _ => {}
        }
        Ok(true)
    })?;
    for directory in below {
        files += read_whole(reader, &directory)?;
    }
    Ok(files)
}

/// Names of all snapshots that count, each of which must be whole.
fn whole_snapshots(store: &MemoryStore, what: &str, torn: bool) -> Vec<String> {
    let repository = open(Arc::new(store.fork())).unwrap_or_else(|e| panic!("{what}: cannot open: {e}"));
    let (rows, damaged) = repository.snapshots().unwrap();
    // A store that tears a put breaks its promise; what it tore is named, and harms nothing else.
    assert!(damaged.len() <= usize::from(torn), "{what}: {damaged:?}");
    let job = Arc::new(Job::new());
    let index = Arc::new(repository.load_index(&job).unwrap());
    let reader = ChunkReader::new(repository.clone(), index, job, 8 << 20);
    for row in &rows {
        let files = read_whole(&reader, &row.snapshot.root).unwrap_or_else(|e| panic!("{what}: snapshot is not whole: {e}"));
        assert_eq!(files, row.snapshot.counts.files, "{what}");
    }
    rows.iter().map(longshore_engine::repository::snapshots::SnapshotRow::id).collect()
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed * 2 + 1;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

#[test]
fn no_call_of_a_backup_may_die_fail_or_lie_and_leave_harm() {
    let folder = tempfile::tempdir().unwrap();
    for n in 0..12u64 {
        let dir = folder.path().join(format!("d{}", n % 3));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(format!("f{n}")), noise(n, (n * 900) as usize)).unwrap();
    }
    std::thread::sleep(std::time::Duration::from_millis(40));
    let base = Arc::new(MemoryStore::new());
    Repository::init(Arc::<MemoryStore>::clone(&base), World::system(), &KEY, "", Argon2Cost::default(), Cache::none()).unwrap();
    backup(Arc::<MemoryStore>::clone(&base), folder.path()).unwrap();
    std::fs::write(folder.path().join("d1/f4"), noise(99, 1 << 20)).unwrap();
    std::fs::write(folder.path().join("new"), noise(98, 5000)).unwrap();
    let before = whole_snapshots(&base, "before", false);
    assert_eq!(before.len(), 1);

    let counting = Arc::new(Fault::new(base.fork(), |_: &Call<'_>| Effect::Pass));
    backup(Arc::<Fault<MemoryStore>>::clone(&counting), folder.path()).unwrap();
    let calls = counting.calls();
    assert!(calls > 15, "{calls}");

    let unavailable = StoreErrorKind::Unavailable;
    let mut tried = 0;
    for number in 0..calls {
        for effect in [
            Effect::StopBefore,
            Effect::StopAfter,
            Effect::StopTorn { keep_bytes: 10 },
            Effect::FailBefore(unavailable),
            Effect::FailAfter(unavailable),
            Effect::FailBefore(StoreErrorKind::NoSpace),
            Effect::Torn { keep_bytes: 100 },
            Effect::Cut { keep_bytes: 100 },
            Effect::Lose,
        ] {
            let what = format!("call {number}, {effect:?}");
            // Silent lies of the store about what no listing proves (markers, snapshots, usage) are outside what a writer can see.
            let silent = matches!(effect, Effect::Cut { .. } | Effect::Lose);
            let plan = move |call: &Call<'_>| {
                let proven = call.key.starts_with("packs/") || call.key.starts_with("index/");
                if call.number == number && (!silent || call.verb != Verb::PutNew || proven) { effect } else { Effect::Pass }
            };
            let torn = matches!(effect, Effect::Torn { .. } | Effect::StopTorn { .. });
            let store = base.fork();
            let faulty = Arc::new(Fault::new(store, plan));
            let outcome = backup(Arc::<Fault<MemoryStore>>::clone(&faulty), folder.path());
            let left = Arc::new(faulty.inner().fork());
            let after = whole_snapshots(&left, &what, torn);
            assert!(after.contains(&before[0]), "{what}: an older snapshot is gone");
            if let Ok(summary) = &outcome {
                assert_eq!(after.len(), 2, "{what}: acknowledged and not there: {:?}", summary.snapshot);
            }
            let next = backup(Arc::<MemoryStore>::clone(&left), folder.path())
                .unwrap_or_else(|e| panic!("{what}: the next backup fails: {e}"));
            assert_eq!(next.exit_code, 0, "{what}");
            assert!(whole_snapshots(&left, &what, torn).len() > after.len(), "{what}");
            tried += 1;
        }
    }
    assert_eq!(tried, calls * 9);
    println!("crash states: {tried}");
}
