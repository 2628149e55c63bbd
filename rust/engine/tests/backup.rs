//! A backup from end to end on the memory store and the made-up filesystem, with and without threads.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test makes its own files and may fail loudly")]

use longshore_engine::backup::{BackupOptions, ParentChoice, run};
use longshore_engine::job::Job;
use longshore_engine::packer::{CompressionChoice, PackOptions, Packer, Sink};
use longshore_engine::repository::Repository;
use longshore_engine::repository::cache::Cache;
use longshore_engine::seams::World;
use longshore_engine::volume::LinuxFs;
use longshore_format::ChunkKind;
use longshore_format::keys::{Argon2Cost, Unlock};
use longshore_format::pack::VerifyUpload;
use longshore_format::usage::Usage;
use longshore_store::{Key, MemoryStore, Store};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn options(path: &Path, workers: usize) -> BackupOptions {
    BackupOptions {
        path: PathBuf::from(path),
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
        workers,
        upload_threads: 2,
        memory_budget_bytes: 128 << 20,
        compression: CompressionChoice::Auto,
        verify: VerifyUpload::Full,
    }
}

fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut state = u64::from(seed) * 2 + 1;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

fn tree(root: &Path) {
    for d in 0..5 {
        let dir = root.join(format!("d{d}/e"));
        std::fs::create_dir_all(&dir).unwrap();
        for f in 0..40u32 {
            std::fs::write(dir.join(format!("f{f}")), noise(d * 100 + f, (f * f * 7) as usize)).unwrap();
        }
    }
    std::fs::write(root.join("large"), noise(7, 9 << 20)).unwrap();
    let mut holes = vec![0; 1 << 20];
    holes.extend(noise(8, 200_000));
    holes.extend(vec![0; 300_000]);
    std::fs::write(root.join("zeros"), holes).unwrap();
    std::os::unix::fs::symlink("nowhere", root.join("link")).unwrap();
}

fn init(store: &Arc<dyn Store>) -> Repository {
    Repository::init(Arc::clone(store), World::system(), &Unlock::Secret([1; 32]), "", Argon2Cost::default(), Cache::none())
        .unwrap()
}

#[test]
fn a_second_backup_of_an_unchanged_volume_reads_nothing_and_shares_everything() {
    for workers in [0, 1, 3] {
        let folder = tempfile::tempdir().unwrap();
        tree(folder.path());
        std::thread::sleep(std::time::Duration::from_millis(50));
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let repository = init(&store);
        let fs: Box<dyn longshore_engine::volume::Fs> = Box::new(LinuxFs);
        let first = run(&repository, &*fs, &Arc::new(Job::new()), &options(folder.path(), workers)).unwrap();
        assert_eq!((first.exit_code, first.counts.files, first.counts.directories), (0, 202, 11), "workers {workers}");
        assert!(first.counts.bytes_read > 9 << 20);
        let second = run(&repository, &*fs, &Arc::new(Job::new()), &options(folder.path(), workers)).unwrap();
        assert_eq!(second.parent, first.snapshot);
        assert_eq!(second.counts.bytes_read, 0, "workers {workers}");
        assert_eq!(second.counts.files_unchanged, 202);
        assert_eq!(second.counts.bytes_stored, 0, "not even a tree is written again");
        let (rows, damaged) = repository.snapshots().unwrap();
        assert_eq!((rows.len(), damaged.len()), (2, 0));
        let tables = rows.iter().flat_map(|row| &row.snapshot.usage).copied().collect::<BTreeSet<_>>();
        let empty = tables.iter().filter(|table| table.0[..16] == Usage::new().content_name(repository.keys())).count();
        assert_eq!((tables.len(), empty), (2, 1), "equal needs are one table, and what bears the second one's name is empty");
        assert!(store.list("sessions/", None, 10).unwrap().entries.is_empty(), "markers are gone");
    }
}

#[test]
fn what_threads_make_equals_what_one_thread_makes() {
    let folder = tempfile::tempdir().unwrap();
    tree(folder.path());
    let roots: Vec<_> = [0, 4]
        .into_iter()
        .map(|workers| {
            let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
            // The same keys in both repositories, so that ids can be compared.
            let repository = init(&store);
            let fs: Box<dyn longshore_engine::volume::Fs> = Box::new(LinuxFs);
            run(&repository, &*fs, &Arc::new(Job::new()), &options(folder.path(), workers)).unwrap();
            let (rows, _) = repository.snapshots().unwrap();
            (rows[0].snapshot.counts.bytes, rows[0].snapshot.counts.files, rows[0].snapshot.root.mtime)
        })
        .collect();
    assert_eq!(roots[0], roots[1]);
}

#[test]
fn a_chunk_that_is_gone_from_the_store_is_read_and_stored_again() {
    let folder = tempfile::tempdir().unwrap();
    tree(folder.path());
    std::thread::sleep(std::time::Duration::from_millis(50));
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = init(&store);
    let fs: Box<dyn longshore_engine::volume::Fs> = Box::new(LinuxFs);
    run(&repository, &*fs, &Arc::new(Job::new()), &options(folder.path(), 2)).unwrap();
    let packs = store.list("packs/", None, 1000).unwrap().entries;
    for entry in packs {
        store.delete(&entry.key).unwrap();
    }
    let second = run(&repository, &*fs, &Arc::new(Job::new()), &options(folder.path(), 2)).unwrap();
    assert_eq!(second.counts.files_unchanged, 0, "the trees are gone too");
    assert!(second.counts.bytes_stored > 9 << 20);
}

#[test]
fn a_lost_pack_is_found_before_the_commit() {
    #[derive(Debug)]
    struct Forgetful(MemoryStore);
    impl Store for Forgetful {
        fn put_new(&self, key: &Key, body: bytes::Bytes) -> Result<longshore_store::Put, longshore_store::StoreError> {
            if key.as_str().ends_with("-00000001") { Ok(longshore_store::Put::Created) } else { self.0.put_new(key, body) }
        }
        fn get(&self, key: &Key, limit: u64) -> Result<bytes::Bytes, longshore_store::StoreError> {
            self.0.get(key, limit)
        }
        fn get_range(&self, key: &Key, at: u64, length: u64) -> Result<bytes::Bytes, longshore_store::StoreError> {
            self.0.get_range(key, at, length)
        }
        fn head(&self, key: &Key) -> Result<u64, longshore_store::StoreError> {
            self.0.head(key)
        }
        fn list(
            &self,
            prefix: &str,
            after: Option<&Key>,
            limit: usize,
        ) -> Result<longshore_store::Page, longshore_store::StoreError> {
            self.0.list(prefix, after, limit)
        }
        fn delete(&self, key: &Key) -> Result<(), longshore_store::StoreError> {
            self.0.delete(key)
        }
        fn describe(&self) -> String {
            "forgetful".into()
        }
    }
    let folder = tempfile::tempdir().unwrap();
    tree(folder.path());
    let store: Arc<dyn Store> = Arc::new(Forgetful(MemoryStore::new()));
    let repository = init(&store);
    let failed = run(&repository, &LinuxFs, &Arc::new(Job::new()), &options(folder.path(), 2)).unwrap_err();
    assert_eq!(failed.kind(), longshore_engine::ErrorKind::Corrupt);
    let (rows, _) = repository.snapshots().unwrap();
    assert!(rows.is_empty());
    assert_eq!(store.list("snapshots/", None, 10).unwrap().entries.len(), 1, "the session is marked as given up");
}

#[test]
fn a_cancelled_backup_leaves_no_snapshot_and_no_marker() {
    let folder = tempfile::tempdir().unwrap();
    tree(folder.path());
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = init(&store);
    let job = Arc::new(Job::new());
    job.cancel();
    let failed = run(&repository, &LinuxFs, &job, &options(folder.path(), 2)).unwrap_err();
    assert_eq!(failed.kind(), longshore_engine::ErrorKind::Cancelled);
    assert!(repository.snapshots().unwrap().0.is_empty());
    assert!(store.list("sessions/", None, 10).unwrap().entries.is_empty());
}

/// Backs `content` up as a file, then `changed` in its place; gives the bytes stored by each run.
fn stored_twice(name: &str, content: &[u8], changed: &[u8]) -> (u64, u64) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = init(&store);
    let mut both = [content, changed].into_iter().map(|bytes| {
        std::fs::write(&path, bytes).unwrap();
        let done = run(&repository, &LinuxFs, &Arc::new(Job::new()), &options(folder.path(), 2)).unwrap();
        (done.counts.bytes_read >= bytes.len() as u64).then_some(done.counts.bytes_stored).unwrap()
    });
    (both.next().unwrap(), both.next().unwrap())
}

#[test]
fn twenty_insertions_into_a_large_file_store_little_of_it() {
    let content = noise(21, 128 << 20);
    let mut changed = content.clone();
    // From the back, so that the places are those of the first state.
    for n in (0..20usize).rev() {
        let at = (n * 6_710_000 + (n * n * 7919) % 100_000).min(content.len());
        changed.splice(at..at, noise(n as u32, 1 + n * 37));
    }
    let (first, second) = stored_twice("large", &content, &changed);
    assert!(first >= 128 << 20, "noise does not shrink: {first}");
    assert!(second * 100 <= first * 15, "{second} of {first}");
}

#[test]
fn pages_changed_in_place_store_little_of_a_database_and_more_of_an_unknown_file() {
    let mut content = noise(22, 64 << 20);
    content[..16].copy_from_slice(b"SQLite format 3\0");
    let mut changed = content.clone();
    for page in (0..(64 << 20) / 4096).step_by(100) {
        changed[page * 4096 + 100..][..1000].copy_from_slice(&noise(page as u32, 1000));
    }
    let (_, known) = stored_twice("database", &content, &changed);
    content[0] = 0;
    changed[0] = 0;
    let (_, unknown) = stored_twice("database", &content, &changed);
    // Evenly spread changes are the worst case: every hundredth page of 4 KiB touches one block of 64 KiB in six.
    assert!(known < (64 << 20) / 5, "{known}");
    assert!(unknown > 2 * known, "{unknown} beside {known}");
}

#[test]
fn where_a_large_file_is_cut_does_not_depend_on_who_takes_part() {
    let folder = tempfile::tempdir().unwrap();
    let mut content = noise(23, 40 << 20);
    content.extend(vec![0; 3 << 20]);
    content.extend(b"the same line again and again\n".repeat(1 << 18));
    std::fs::write(folder.path().join("large"), &content).unwrap();
    std::fs::write(folder.path().join("another"), noise(24, 30 << 20)).unwrap();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = init(&store);
    let roots: Vec<_> = [0, 1, 2, 7]
        .into_iter()
        .map(|workers| {
            let options = BackupOptions { parent: ParentChoice::None, ..options(folder.path(), workers) };
            let done = run(&repository, &LinuxFs, &Arc::new(Job::new()), &options).unwrap();
            assert_eq!(done.counts.bytes_read, content.len() as u64 + (30 << 20));
            assert!(workers == 0 || done.counts.bytes_stored == 0, "workers {workers}: {}", done.counts.bytes_stored);
            repository.snapshots().unwrap().0.pop().unwrap().snapshot.root
        })
        .collect();
    assert!(roots.iter().all(|root| root.node == roots[0].node), "one content, whoever made it");
}

#[test]
fn a_backup_ends_in_the_least_memory_however_many_threads_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    tree(folder.path());
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = init(&store);
    for (workers, upload_threads) in [(1, 1), (64, 1), (3, 64), (64, 64)] {
        let options = BackupOptions {
            memory_budget_bytes: 1,
            upload_threads,
            parent: ParentChoice::None,
            ..options(folder.path(), workers)
        };
        let done = run(&repository, &LinuxFs, &Arc::new(Job::new()), &options).unwrap();
        assert_eq!((done.exit_code, done.counts.files), (0, 202), "{workers} workers, {upload_threads} uploads");
    }
}

/// Words of a page in an order drawn at random: zstd makes it smaller the longer it looks.
fn prose(seed: u32, length: usize) -> Vec<u8> {
    let words: Vec<&str> = include_str!("../../../docs/format.md").split(' ').collect();
    let draws = noise(seed, length);
    let drawn = draws.chunks_exact(2).map(|pair| words[usize::from(u16::from_le_bytes([pair[0], pair[1]])) % words.len()]);
    let mut out = drawn.flat_map(|word| [word.as_bytes(), b" "]).flatten().copied().collect::<Vec<u8>>();
    out.truncate(length);
    out
}

/// While a pack waits for the store, time is free, and the packer takes it to store less; where none waits, it is fast.
#[test]
fn the_level_of_compression_follows_the_store() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (repository, job) = (init(&store), Arc::new(Job::new()));
    let writer = repository.open_writer("here", vec![], &job).unwrap();
    let pack_options = PackOptions {
        // A frame of 1 MiB more than at which it is closed.
        pack_size_bytes: 1624 << 10,
        compression: CompressionChoice::Auto,
        verify: VerifyUpload::Full,
        upload_threads: 1,
        dry_run: false,
    };
    let (sink, packs) = Sink::new(&writer, job, pack_options);
    let (mut packer, packs) = (Packer::new(Arc::clone(&sink)).unwrap(), packs.unwrap());
    let mut put = |seed| assert!(packer.store(ChunkKind::Data, &prose(seed, 1 << 20)).unwrap().1);
    // Two such chunks fill a pack. The second pack is begun while the first waits, and ended when that is under way.
    put(1);
    put(2);
    assert_eq!(packs.len(), 1);
    put(3);
    let first = packs.recv().unwrap();
    put(4);
    let second = packs.recv().unwrap();
    let stored: Vec<u32> = first.frames.iter().chain(&second.frames).map(|frame| frame.stored_bytes).collect();
    let [a, b, slow, d] = stored[..] else { panic!("{stored:?}") };
    for fast in [a, b, d] {
        assert!(slow < fast / 100 * 97, "{stored:?}");
    }
}
