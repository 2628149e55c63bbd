//! A backup that was killed is gone on from: what it had stored is not read again, and what it had not is.
//!
//! "Killed" is a store that from one call on does nothing more, the journal left as it then stood. Bytes read are counted by the
//! filesystem, not by the engine. Every snapshot that comes of it is read whole, and equals that of an undisturbed run. Over 500 lines
//! because all cases share one volume and one look at what must hold afterwards.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test makes its own files and may fail loudly"
)]

mod common;

use common::counted::CountedFs;
use common::pruned::{prune, whole};
use common::{backup_options, secret};
use longshore_engine::ErrorKind;
use longshore_engine::backup::{self, BackupOptions, Summary};
use longshore_engine::job::Job;
use longshore_engine::prune::PruneOptions;
use longshore_engine::repository::Repository;
use longshore_engine::repository::cache::Cache;
use longshore_engine::seams::World;
use longshore_engine::volume::made_up::MadeUpFs;
use longshore_engine::volume::{Metadata, Time, VolumeErrorKind};
use longshore_format::envelope::Codec;
use longshore_format::id::SessionId;
use longshore_format::keys::Argon2Cost;
use longshore_format::snapshot::{SnapshotObject, snapshot_key};
use longshore_format::tree::Entry;
use longshore_store::layers::{Call, Effect, Fault, Verb};
use longshore_store::{Key, MemoryStore, Store};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

/// What one pack of a backup on the calling thread holds at the smallest budget.
const PACK_BYTES: u64 = 25 << 20;
/// What was read and not yet noted: a batch of small files, or a part of a large one with the buffer ahead of it.
const UNNOTED_BYTES: u64 = 8 << 20;
const LARGE_BYTES: u64 = 36 << 20;
const SMALL_BYTES: u64 = 700_000;
const SMALL_FILES: u64 = 40;
const ALL_BYTES: u64 = LARGE_BYTES + SMALL_FILES * SMALL_BYTES;

struct Bench {
    store: Arc<MemoryStore>,
    cache: tempfile::TempDir,
    fs: CountedFs<MadeUpFs>,
}

fn options() -> BackupOptions {
    BackupOptions { upload_threads: 0, memory_budget_bytes: 64 << 20, ..backup_options(Path::new("/"), 0) }
}

fn open(store: Arc<dyn Store>, cache: &Path) -> longshore_engine::Result<Repository> {
    Repository::open(store, World::system(), &secret(), Cache::at(cache))
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

impl Bench {
    fn new() -> Self {
        let fs = MadeUpFs::default();
        let root = fs.root();
        let first = root.create_dir(b"a").unwrap();
        let second = root.create_dir(b"c").unwrap();
        for n in 0..SMALL_FILES {
            let dir = if n < 20 { &first } else { &second };
            fs.create_seeded_file(&**dir, format!("f{n:03}").as_bytes(), n, SMALL_BYTES).unwrap();
        }
        fs.create_seeded_file(&*root, b"b-large", 1000, LARGE_BYTES).unwrap();
        Self::of(fs)
    }

    fn of(fs: MadeUpFs) -> Self {
        let store = Arc::new(MemoryStore::new());
        Repository::init(Arc::<MemoryStore>::clone(&store), World::system(), &secret(), "", Argon2Cost::default(), Cache::none())
            .unwrap();
        Self { store, cache: tempfile::tempdir().unwrap(), fs: CountedFs::new(fs) }
    }

    /// The same as it is now, to go another way from here.
    fn fork(&self) -> Self {
        let cache = tempfile::tempdir().unwrap();
        copy(self.cache.path(), cache.path());
        Self { store: Arc::new(self.store.fork()), cache, fs: CountedFs::new(self.fs.inner.clone()) }
    }

    fn run_with(&self, options: &BackupOptions, store: Arc<dyn Store>) -> longshore_engine::Result<Summary> {
        backup::run(&open(store, self.cache.path())?, &self.fs, &Arc::new(Job::new()), options)
    }

    fn run(&self) -> longshore_engine::Result<Summary> {
        self.run_with(&options(), Arc::<MemoryStore>::clone(&self.store))
    }

    /// A run that is killed where `plan` says so. What it read.
    fn killed(&self, options: &BackupOptions, plan: impl Fn(&Call<'_>) -> Effect + Send + Sync + 'static) -> u64 {
        self.fs.take_read();
        let faulty = Arc::new(Fault::new(Arc::clone(&self.store), plan));
        self.run_with(options, Arc::<Fault<Arc<MemoryStore>>>::clone(&faulty)).unwrap_err();
        assert!(faulty.is_stopped());
        self.fs.take_read()
    }

    /// Kills the run when so many packs are in the store.
    fn killed_after_packs(&self, options: &BackupOptions, packs: u64) -> u64 {
        let seen = AtomicU64::new(0);
        self.killed(options, move |call| {
            let is_pack = call.verb == Verb::PutNew && call.key.starts_with("packs/");
            if is_pack && seen.fetch_add(1, SeqCst) + 1 == packs { Effect::StopAfter } else { Effect::Pass }
        })
    }

    fn roots(&self) -> Vec<Entry> {
        let (rows, _) = open(Arc::<MemoryStore>::clone(&self.store), self.cache.path()).unwrap().snapshots().unwrap();
        rows.into_iter().map(|row| row.snapshot.root).collect()
    }

    fn keys(&self, prefix: &str) -> Vec<String> {
        let page = self.store.list(prefix, None, 100_000).unwrap();
        page.entries.iter().map(|entry| entry.key.as_str().to_owned()).collect()
    }

    fn journals(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for repository in std::fs::read_dir(self.cache.path()).unwrap() {
            if let Ok(files) = std::fs::read_dir(repository.unwrap().path().join("journal")) {
                found.extend(files.map(|file| file.unwrap().path()));
            }
        }
        found
    }

    /// The same where the journal is good: then nothing open is left either.
    fn goes_on(&self, root: &Entry, what: &str) -> (u64, Summary) {
        let done = self.resumed(root, what);
        assert_eq!(self.keys("sessions/"), Vec::<String>::new(), "{what}");
        done
    }

    /// Goes on, and looks at everything that must hold whatever was before. What was read, and what the run says.
    fn resumed(&self, root: &Entry, what: &str) -> (u64, Summary) {
        self.fs.take_read();
        let summary = self.run().unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(summary.exit_code, 0, "{what}");
        let read = self.fs.take_read();
        assert_eq!(whole(&self.store).unwrap_or_else(|e| panic!("{what}: {e}")).len(), self.roots().len(), "{what}");
        assert_eq!(self.roots().last(), Some(root), "{what}: another tree than that of an undisturbed run");
        assert_eq!(self.journals(), Vec::<PathBuf>::new(), "{what}");
        if summary.counts.files_unchanged == 0 {
            assert_eq!(summary.counts.bytes, summary.bytes_resumed + summary.counts.bytes_read, "{what}");
        }
        (read, summary)
    }
}

fn undisturbed(bench: &Bench) -> (Entry, u64) {
    let fork = bench.fork();
    let counting = Arc::new(Fault::new(Arc::clone(&fork.store), |_: &Call<'_>| Effect::Pass));
    fork.run_with(&options(), Arc::<Fault<Arc<MemoryStore>>>::clone(&counting)).unwrap();
    (fork.roots().pop().unwrap(), counting.calls())
}

#[test]
fn a_backup_that_dies_at_any_store_call_is_gone_on_from() {
    let base = Bench::new();
    let (root, calls) = undisturbed(&base);
    assert!(calls > 15, "{calls}");
    let (mut tried, mut spared) = (0, 0);
    // Opening reads the configuration and slots, where a death leaves nothing to go on from.
    for number in 0..calls {
        let effects = [Effect::StopBefore, Effect::StopAfter, Effect::StopTorn { keep_bytes: 1_000_000 }];
        for effect in [effects[number as usize % 3], effects[(number as usize + 1) % 3]] {
            let bench = base.fork();
            let what = format!("call {number}, {effect:?}");
            let plan = move |call: &Call<'_>| if call.number == number { effect } else { Effect::Pass };
            let faulty = Arc::new(Fault::new(Arc::clone(&bench.store), plan));
            // The last calls may fail and matter no more.
            let first = bench.run_with(&options(), Arc::<Fault<Arc<MemoryStore>>>::clone(&faulty));
            let before = bench.fs.take_read();
            if first.is_ok() || !bench.roots().is_empty() {
                // It had committed, and what was left to do is nobody's need.
                let (read, summary) = bench.resumed(&root, &what);
                assert!(read == 0 && summary.counts.files_unchanged > 0, "{what}: {read}");
                continue;
            }
            let (read, summary) = bench.goes_on(&root, &what);
            // Of a large file that is read from its beginning the first block is looked at twice, to tell a database.
            assert!([0, 64 << 10].contains(&(read - summary.counts.bytes_read)), "{what}: {read} {summary:?}");
            let bound = ALL_BYTES + options().underway().bytes();
            assert!(before + read <= bound, "{what}: {before} + {read} of {ALL_BYTES}");
            spared += ALL_BYTES - read.min(ALL_BYTES);
            tried += 1;
        }
    }
    println!("states: {tried}, store calls: {calls}, bytes not read again: {spared} of {}", tried * ALL_BYTES);
    assert!(tried >= calls && spared > ALL_BYTES, "{tried} {spared}");
}

#[test]
fn what_is_in_the_store_is_not_read_again_and_the_rest_is() {
    for packs in 1..=2 {
        let bench = Bench::new();
        let (root, _) = undisturbed(&bench);
        let before = bench.killed_after_packs(&options(), packs);
        assert_eq!(bench.keys("index/"), Vec::<String>::new(), "no index names the packs yet");
        let (read, summary) = bench.goes_on(&root, &format!("{packs} packs"));
        let stored = packs * PACK_BYTES;
        assert!(before > stored - UNNOTED_BYTES, "{before}");
        assert!(read < ALL_BYTES - stored + UNNOTED_BYTES, "{packs} packs: {read}");
        // How many end with a chunk that still waited for others, the cuts say.
        assert!(summary.files_resumed > 5 * packs && summary.bytes_resumed > stored - UNNOTED_BYTES, "{summary:?}");
        assert_eq!(summary.counts.files_new, SMALL_FILES + 1);
        // And it is a parent like any other.
        assert_eq!(bench.run().unwrap().counts.bytes_read, 0);
    }
}

#[test]
fn after_many_kills_each_byte_was_read_about_once() {
    let bench = Bench::new();
    let (root, _) = undisturbed(&bench);
    let mut read = 0;
    for kill in 0..4 {
        // Each time after its first pack, so that the last of these have nothing left to send but that.
        if bench.run_would_send_a_pack() {
            read += bench.killed_after_packs(&options(), 1);
            assert_eq!(bench.journals().len(), 1, "{kill}");
        }
    }
    let (last, summary) = bench.goes_on(&root, "after the kills");
    assert!(summary.counts.bytes_read < PACK_BYTES + UNNOTED_BYTES);
    assert!(read + last < ALL_BYTES + 4 * (PACK_BYTES / 4 + UNNOTED_BYTES), "{read} + {last} of {ALL_BYTES}");
    assert_eq!(bench.roots().len(), 1);
}

impl Bench {
    fn run_would_send_a_pack(&self) -> bool {
        self.keys("packs/").len() < 2
    }
}

#[test]
fn a_large_file_is_gone_on_from_in_its_middle_by_several_threads() {
    let fs = MadeUpFs::default();
    let size = 150 << 20;
    fs.create_seeded_file(&*fs.root(), b"large", 7, size).unwrap();
    let bench = Bench::of(fs);
    let many = BackupOptions { workers: 2, upload_threads: 1, memory_budget_bytes: 96 << 20, ..options() };
    let (root, _) = undisturbed(&bench);
    bench.killed_after_packs(&many, 6);
    let stored: u64 = bench.keys("packs/").iter().map(|key| bench.store.head(&Key::new(key).unwrap()).unwrap()).sum();
    let pack = stored / bench.keys("packs/").len() as u64;
    bench.fs.take_read();
    let summary = bench.run_with(&many, Arc::<MemoryStore>::clone(&bench.store)).unwrap();
    let read = bench.fs.take_read();
    // Nothing that lies in the store was read; what two workers, the queue and the sender held at the end is.
    assert!(read <= size - stored + UNNOTED_BYTES, "{read} of {size}, {stored} in the store, packs of {pack}");
    assert!(summary.bytes_resumed + UNNOTED_BYTES > stored && summary.files_resumed == 0, "{summary:?}");
    assert_eq!(bench.roots(), [root]);
    whole(&bench.store).unwrap();
}

#[test]
fn of_files_whose_ends_waited_in_an_open_frame_only_the_ends_are_read_again() {
    let (files, noise, zeros, end) = (60, 640 << 10, 64 << 10, 1000);
    let fs = MadeUpFs::default();
    for n in 0..files {
        let name = format!("f{n:03}");
        fs.create_seeded_file(&*fs.root(), name.as_bytes(), n, noise + zeros + end).unwrap();
        // Zeros before it make the end a chunk of its own.
        fs.root().open_file_for_update(name.as_bytes()).unwrap().allocate_zeros(noise, zeros).unwrap();
    }
    let bench = Bench::of(fs);
    let (root, _) = undisturbed(&bench);
    bench.killed_after_packs(&options(), 1);
    let other = bench.fork();
    let (read, summary) = bench.goes_on(&root, "one pack");
    let longest = bench.keys("packs/").iter().map(|key| bench.store.head(&Key::new(key).unwrap()).unwrap()).max();
    // What its header might take counts, and it takes less.
    let full = PACK_BYTES - (64 << 10)..=options().underway().pack_bytes;
    assert!(full.contains(&longest.unwrap()), "{longest:?}");
    let all = files * (noise + zeros + end);
    assert!(read < all - PACK_BYTES + UNNOTED_BYTES, "{read} of {all}: {summary:?}");
    assert_eq!(summary.files_resumed, 0);
    // Of one that has changed since, all is read.
    other.fs.inner.root().open_file_for_update(b"f001").unwrap().write_at(noise - 5, b"x").unwrap();
    let again = other.run().unwrap().counts.bytes_read;
    assert!((read + noise / 2..=read + noise + zeros).contains(&again), "{again} after {read}");
    whole(&other.store).unwrap();
}

impl Bench {
    /// Kills the run when it asks for what lies at an offset of a file or behind it.
    fn killed_at(&self, offset_bytes: u64) {
        let dead = Arc::new(AtomicBool::new(false));
        let kills = Arc::clone(&dead);
        self.fs.inner.set_hook(Some(Arc::new(move |call| {
            let is_time = call.call == "read file" && call.offset_bytes >= offset_bytes;
            kills.fetch_or(is_time, SeqCst);
            is_time.then_some(VolumeErrorKind::Io)
        })));
        self.killed(&options(), move |_| if dead.load(SeqCst) { Effect::StopBefore } else { Effect::Pass });
        self.fs.inner.set_hook(None);
    }
}

#[test]
fn a_long_run_of_zeros_is_not_read_again_wherever_in_it_the_run_was_killed() {
    let (noise, zeros) = (2 << 20, 30 << 20);
    let size = noise + zeros + 17 * noise;
    let fs = MadeUpFs::default();
    fs.create_seeded_file(&*fs.root(), b"large", 7, size).unwrap();
    fs.root().open_file_for_update(b"large").unwrap().allocate_zeros(noise, zeros).unwrap();
    let base = Bench::of(fs);
    let (root, _) = undisturbed(&base);
    for kills in [vec![28 << 20], vec![10 << 20], vec![15 << 20, 16 << 20, 29 << 20], vec![31 << 20, 34 << 20]] {
        let bench = base.fork();
        kills.iter().for_each(|at| bench.killed_at(*at));
        let (read, _) = bench.goes_on(&root, &format!("{kills:?}"));
        // No pack was sent: the noise is read again, and what was in the buffer and not yet noted.
        let left = size - kills.last().unwrap();
        assert!(read <= left + noise + UNNOTED_BYTES, "{kills:?}: {read}");
    }
}

#[test]
fn what_a_prune_took_in_between_is_read_again() {
    for (rounds, fence_now, gone) in [(1, false, false), (3, false, false), (1, true, true), (2, true, true), (3, true, true)] {
        let what = format!("{rounds} prunes, fence {fence_now}");
        let bench = Bench::new();
        let (root, _) = undisturbed(&bench);
        bench.killed_after_packs(&options(), 2);
        for _ in 0..rounds {
            let repository = open(Arc::<MemoryStore>::clone(&bench.store), bench.cache.path()).unwrap();
            prune(&repository, &PruneOptions { fence_now, allow_empty: true, ..PruneOptions::default() }).unwrap();
        }
        let (read, _) = bench.goes_on(&root, &what);
        assert_eq!(read > ALL_BYTES - PACK_BYTES, gone, "{what}: {read}");
        let repository = open(Arc::<MemoryStore>::clone(&bench.store), bench.cache.path()).unwrap();
        for _ in 0..3 {
            prune(&repository, &PruneOptions::default()).unwrap();
            whole(&bench.store).unwrap();
        }
        assert_eq!(bench.roots(), [root], "{what}");
    }
}

#[test]
fn a_prune_beside_the_run_that_goes_on_leaves_it_the_packs() {
    let bench = Bench::new();
    let (root, _) = undisturbed(&bench);
    bench.killed_after_packs(&options(), 2);
    let repository = open(Arc::<MemoryStore>::clone(&bench.store), &bench.cache.path().join("other")).unwrap();
    // Between each two calls of the run a whole prune.
    let beside = move |call: &Call<'_>| {
        if call.number > 3 {
            prune(&repository, &PruneOptions { allow_empty: true, ..PruneOptions::default() }).unwrap();
        }
        Effect::Pass
    };
    let faulty: Arc<dyn Store> = Arc::new(Fault::new(Arc::clone(&bench.store), beside));
    let summary = bench.run_with(&options(), faulty).unwrap();
    assert!(summary.bytes_resumed > 2 * PACK_BYTES - UNNOTED_BYTES, "{summary:?}");
    whole(&bench.store).unwrap();
    assert_eq!(bench.roots(), [root]);
}

#[test]
fn a_pack_that_is_gone_cut_or_damaged_is_no_part_of_what_goes_on() {
    let base = Bench::new();
    let (root, _) = undisturbed(&base);
    base.killed_after_packs(&options(), 2);
    for harm in ["gone", "cut", "header"] {
        let bench = base.fork();
        let key = Key::new(&bench.keys("packs/")[0]).unwrap();
        let body = bench.store.get(&key, 1 << 30).unwrap();
        bench.store.delete(&key).unwrap();
        match harm {
            "cut" => drop(bench.store.put_new(&key, body.slice(..body.len() - 5000)).unwrap()),
            "header" => {
                let mut bad = body.to_vec();
                let at = bad.len() - 60;
                bad[at] ^= 1;
                bench.store.put_new(&key, bad.into()).unwrap();
            }
            _ => {}
        }
        let (read, _) = bench.goes_on(&root, harm);
        assert!(read > ALL_BYTES - 2 * PACK_BYTES && read < ALL_BYTES - PACK_BYTES + UNNOTED_BYTES, "{harm}: {read}");
    }
    // Gone after it was listed and before the commit: nothing is committed, and the next run reads what is missing.
    let bench = base.fork();
    let key = Key::new(&bench.keys("packs/")[0]).unwrap();
    let (store, doomed) = (Arc::clone(&bench.store), key.clone());
    let plan = move |call: &Call<'_>| {
        if call.verb == Verb::PutNew && call.key.starts_with("usage/") {
            store.delete(&doomed).unwrap();
        }
        Effect::Pass
    };
    let error = bench.run_with(&options(), Arc::new(Fault::new(Arc::clone(&bench.store), plan))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.message().contains(key.as_str().strip_prefix("packs/").unwrap()), "{error}");
    assert_eq!(bench.roots(), []);
    bench.goes_on(&root, "gone before the commit");
}

#[test]
fn a_journal_that_is_torn_damaged_or_foreign_is_trusted_as_far_as_it_is_good() {
    let base = Bench::new();
    let (root, _) = undisturbed(&base);
    base.killed_after_packs(&options(), 2);
    let journal = base.journals().pop().unwrap();
    let good = std::fs::read(&journal).unwrap();
    let (whole_read, _) = base.fork().resumed(&root, "whole");
    assert!(whole_read < ALL_BYTES - PACK_BYTES);
    let tried = |change: &dyn Fn(&mut Vec<u8>), what: &str| {
        let bench = base.fork();
        let mut bytes = good.clone();
        change(&mut bytes);
        std::fs::write(&bench.journals()[0], &bytes).unwrap();
        bench.resumed(&root, what).0
    };
    // Every record or part of it may be missing from some point on; what is before it still counts.
    let mut last = u64::MAX;
    for eighth in [0, 1, 3, 5, 7, 8] {
        let read = tried(&|bytes| bytes.truncate(good.len() * eighth / 8), &format!("cut to {eighth}/8"));
        assert!(read <= last && read >= whole_read, "cut to {eighth}/8: {read} after {last}");
        last = read;
    }
    assert_eq!(last, whole_read);
    for at in [0, 7, 39, 71] {
        assert!(tried(&|bytes| bytes[at] ^= 1, &format!("head, byte {at}")) > ALL_BYTES - 1, "byte {at} of the head");
    }
    for at in [72, 76, 92, 93, good.len() / 2] {
        assert!(tried(&|bytes| bytes[at] ^= 1, &format!("byte {at}")) > whole_read, "byte {at}");
    }
    assert!(tried(&|bytes| bytes[good.len() - 1] ^= 1, "last byte") >= whole_read);
    assert!(tried(&|bytes| bytes.extend_from_slice(&[0xff; 100]), "garbage behind") == whole_read);
    assert!(tried(&|bytes| bytes.extend_from_slice(&good[72..]), "records again, in another place") == whole_read);
    assert!(tried(&|bytes| bytes[6..8].copy_from_slice(b"99"), "another version") >= ALL_BYTES);
    // The journal of one volume under the name of another.
    let other = BackupOptions { source: "other".into(), ..options() };
    let bench = base.fork();
    bench.killed_after_packs(&other, 1);
    let names = bench.journals();
    assert_eq!(names.len(), 2);
    let (mine, theirs) =
        if names[0].file_name() == journal.file_name() { (&names[0], &names[1]) } else { (&names[1], &names[0]) };
    std::fs::copy(mine, theirs).unwrap();
    bench.fs.take_read();
    assert_eq!(bench.run_with(&other, Arc::<MemoryStore>::clone(&bench.store)).unwrap().files_resumed, 0);
    assert!(bench.fs.take_read() >= ALL_BYTES);
}

#[test]
fn a_file_that_changed_since_is_read_again() {
    let base = Bench::new();
    let root = base.fs.inner.root();
    base.killed_after_packs(&options(), 2);
    let dir = root.open_dir(b"a").unwrap();
    let old = dir.stat(b"f003").unwrap();
    // One byte in the middle of a small file, with the mtime set back, and one in the large file.
    dir.open_file_for_update(b"f003").unwrap().write_at(5000, b"x").unwrap();
    let back = Metadata { mode: old.mode, uid: old.uid, gid: old.gid, mtime: old.mtime, xattrs: vec![] };
    dir.set_metadata(b"f003", old.kind, &back).unwrap();
    assert_eq!(dir.stat(b"f003").unwrap().mtime, old.mtime);
    root.open_file_for_update(b"b-large").unwrap().write_at(5000, b"y").unwrap();
    // Another file under an old name, of the same size.
    dir.remove_all(b"f004").unwrap();
    base.fs.inner.create_seeded_file(&*dir, b"f004", 999, SMALL_BYTES).unwrap();
    // And one whose mode alone is another: it is not read, and gets the new mode.
    let five = dir.stat(b"f005").unwrap();
    let mode = Metadata { mode: 0o600 ^ five.mode, uid: 5, gid: 5, mtime: five.mtime, xattrs: vec![] };
    dir.set_metadata(b"f005", five.kind, &mode).unwrap();
    let fresh = base.fork();
    let clean = tempfile::tempdir().unwrap();
    backup::run(
        &open(Arc::<MemoryStore>::clone(&fresh.store), clean.path()).unwrap(),
        &fresh.fs,
        &Arc::new(Job::new()),
        &options(),
    )
    .unwrap();
    let expected = fresh.roots().pop().unwrap();
    let (_, summary) = base.goes_on(&expected, "changed");
    let names = base.fs.inner.root().names().unwrap();
    assert_eq!(names.len(), 3);
    assert!(summary.files_resumed > 10 && summary.counts.bytes_read >= LARGE_BYTES + 2 * SMALL_BYTES, "{summary:?}");
}

#[test]
fn what_was_written_while_the_killed_run_began_is_read_again() {
    let bench = Bench::new();
    let dir = bench.fs.inner.root().open_dir(b"a").unwrap();
    let stat = dir.stat(b"f000").unwrap();
    // A time at which another write could follow in the same tick.
    let now = Time { secs: World::system().clock.wall_nanos() / 1_000_000_000 + 1, nanos: 0 };
    dir.set_metadata(b"f000", stat.kind, &Metadata { mode: stat.mode, uid: 0, gid: 0, mtime: now, xattrs: vec![] }).unwrap();
    bench.killed_after_packs(&options(), 2);
    std::thread::sleep(std::time::Duration::from_millis(1200));
    bench.fs.take_read();
    bench.run().unwrap();
    let read: Vec<_> =
        bench.fs.take_reads().into_iter().map(|(name, _, _)| name).filter(|name| *name < b"f020".to_vec()).collect();
    assert!(read.contains(&b"f000".to_vec()), "it may have changed behind its times");
    // Which of the others had a chunk in a frame that was still open when the run was killed is up to the keys: a few, never half.
    assert!(read.len() < 10, "{:?}", read.iter().map(|name| String::from_utf8_lossy(name)).collect::<Vec<_>>());
}

#[test]
fn a_paranoid_run_reads_everything_and_sends_little() {
    let bench = Bench::new();
    let (root, _) = undisturbed(&bench);
    bench.killed_after_packs(&options(), 2);
    bench.fs.take_read();
    let paranoid = BackupOptions { paranoid: true, ..options() };
    let summary = bench.run_with(&paranoid, Arc::<MemoryStore>::clone(&bench.store)).unwrap();
    assert!(bench.fs.take_read() >= ALL_BYTES && summary.files_resumed == 0);
    assert!(summary.counts.bytes_stored < ALL_BYTES - 3 * PACK_BYTES / 2, "{summary:?}");
    assert_eq!(bench.roots(), [root]);
}

/// Takes the commit key of every session that is open, as somebody who judges it dead does.
fn fence(store: &Arc<MemoryStore>) {
    let repository = Repository::open(Arc::<MemoryStore>::clone(store), World::system(), &secret(), Cache::none()).unwrap();
    for entry in store.list("sessions/", None, 10).unwrap().entries {
        let session = SessionId::from_hex(entry.key.as_str().strip_prefix("sessions/").unwrap()).unwrap();
        let object = SnapshotObject::Aborted { nonce: [1; 16], reason: "test".into() };
        let bytes = object.encode(repository.keys(), session, [2; 32], &mut Codec::new().unwrap()).unwrap();
        store.put_new(&Key::new(snapshot_key(session)).unwrap(), bytes.into()).unwrap();
    }
}

#[test]
fn a_fenced_run_begins_again_and_reads_again_only_what_is_gone() {
    for prunes in [false, true] {
        let bench = Bench::new();
        let (root, _) = undisturbed(&bench);
        let other = open(Arc::<MemoryStore>::clone(&bench.store), &bench.cache.path().join("other")).unwrap();
        let (store, fenced) = (Arc::clone(&bench.store), AtomicU64::new(0));
        let plan = move |call: &Call<'_>| {
            if call.verb == Verb::PutNew && call.key.starts_with("usage/") && fenced.fetch_add(1, SeqCst) == 0 {
                fence(&store);
                if prunes {
                    prune(&other, &PruneOptions { allow_empty: true, ..PruneOptions::default() }).unwrap();
                }
            }
            Effect::Pass
        };
        bench.fs.take_read();
        let faulty: Arc<dyn Store> = Arc::new(Fault::new(Arc::clone(&bench.store), plan));
        let summary = bench.run_with(&options(), faulty).unwrap();
        let read = bench.fs.take_read();
        assert_eq!(read >= 2 * ALL_BYTES, prunes, "{read}");
        assert_eq!(summary.files_resumed == SMALL_FILES + 1, !prunes, "{summary:?}");
        whole(&bench.store).unwrap();
        assert_eq!(bench.roots(), [root]);
        assert_eq!(bench.journals(), Vec::<PathBuf>::new());
    }
}

#[test]
fn journals_of_volumes_that_are_gone_are_removed_and_those_of_others_stay() {
    let bench = Bench::new();
    bench.killed_after_packs(&options(), 1);
    let folder = bench.journals()[0].parent().unwrap().to_owned();
    let (old, young) = (folder.join("0".repeat(32)), folder.join("1".repeat(32)));
    for path in [&old, &young] {
        std::fs::write(path, b"of another volume").unwrap();
    }
    let days = |count: i64| rustix::fs::Timespec {
        tv_sec: World::system().clock.wall_nanos() / 1_000_000_000 - count * 86_400,
        tv_nsec: 0,
    };
    for (path, age) in [(&old, 31), (&young, 29)] {
        let times = rustix::fs::Timestamps { last_access: days(age), last_modification: days(age) };
        rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::empty()).unwrap();
    }
    assert!(bench.run().unwrap().files_resumed > 0);
    assert_eq!((old.exists(), young.exists()), (false, true));
}

#[test]
fn two_backups_of_one_volume_do_not_share_a_journal_and_without_a_cache_there_is_none() {
    let bench = Bench::new();
    let (root, _) = undisturbed(&bench);
    bench.killed_after_packs(&options(), 2);
    let held = std::fs::File::open(&bench.journals()[0]).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    let summary = bench.run().unwrap();
    assert!(summary.files_resumed == 0 && bench.journals().len() == 1);
    drop(held);
    let bench = Bench::new();
    let plain = Repository::open(Arc::<MemoryStore>::clone(&bench.store), World::system(), &secret(), Cache::none()).unwrap();
    backup::run(&plain, &bench.fs, &Arc::new(Job::new()), &options()).unwrap();
    assert_eq!(bench.roots().len(), 1);
    drop(root);
}
