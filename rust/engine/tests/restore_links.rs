//! Files with several names in a restore: whole at whatever call it dies, and in little memory however many there are.
//!
//! The restore whose memory is measured runs in a process of its own, which this test starts from its own program.

#![expect(clippy::unwrap_used, reason = "a test makes its own files and may fail loudly")]

mod common;

use common::{backup_options, init, noise, open, read, write};
use longshore_engine::backup;
use longshore_engine::job::Job;
use longshore_engine::repository::Repository;
use longshore_engine::restore::{RestoreOptions, RestoreSummary, run};
use longshore_engine::volume::made_up::{Call, MadeUpFs};
use longshore_engine::volume::{Dir, Kind, LinuxFs, VolumeErrorKind};
use longshore_format::id::SessionId;
use longshore_store::{LocalSettings, LocalStore, MemoryStore, Store};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

const LARGE_BYTES: usize = 12 << 20;

/// Names of three files in three directories, and a FIFO's; each directory has a first name of some file.
fn fill(root: &dyn Dir) {
    let [a, b, c] = [b"a", b"b", b"c"].map(|name| root.create_dir(name).unwrap());
    a.create_file(b"large").unwrap().write_at(0, &noise(1, LARGE_BYTES)).unwrap();
    a.create_file(b"small").unwrap().write_at(0, &noise(2, 5000)).unwrap();
    a.create_special(b"pipe", Kind::Fifo, (0, 0)).unwrap();
    b.create_file(b"other").unwrap().write_at(0, &noise(3, 700)).unwrap();
    a.hard_link(b"small", &*a, b"small again").unwrap();
    a.hard_link(b"large", &*c, b"large").unwrap();
    a.hard_link(b"small", &*b, b"small").unwrap();
    a.hard_link(b"pipe", &*c, b"pipe").unwrap();
    b.hard_link(b"other", &*c, b"other").unwrap();
}

type Seen = BTreeMap<Vec<u8>, (Kind, u64, Vec<u8>, Vec<u8>)>;

/// Paths with kind, number of names, content and the first path of the same inode.
fn seen(root: &dyn Dir) -> Seen {
    let (mut out, mut first) = (Seen::new(), BTreeMap::new());
    for name in root.names().unwrap() {
        let dir = root.open_dir(&name).unwrap();
        for below in dir.names().unwrap() {
            let (stat, path) = (dir.stat(&below).unwrap(), [&name[..], b"/", &below].concat());
            let mut bytes = vec![0; if stat.kind == Kind::File { stat.size_bytes as usize } else { 0 }];
            if stat.kind == Kind::File {
                dir.open_file(&below).unwrap().read_at(0, &mut bytes).unwrap();
            }
            let first = first.entry(stat.inode).or_insert_with(|| path.clone()).clone();
            out.insert(path, (stat.kind, stat.links, blake3::hash(&bytes).as_bytes().to_vec(), first));
        }
    }
    out
}

fn restore(
    repository: &Repository,
    fs: &MadeUpFs,
    job: &Arc<Job>,
    snapshot: SessionId,
    workers: usize,
) -> longshore_engine::Result<RestoreSummary> {
    run(repository, fs, job, &RestoreOptions { workers, ..RestoreOptions::new(snapshot, "/target") })
}

fn made_up() -> (MadeUpFs, Repository, SessionId, Seen) {
    let fs = MadeUpFs::default();
    fill(&*fs.root().create_dir(b"source").unwrap());
    let repository = init(Arc::new(MemoryStore::new()));
    let options = backup_options(Path::new("/source"), 0);
    let snapshot = backup::run(&repository, &fs, &Arc::new(Job::new()), &options).unwrap().snapshot.unwrap();
    let source = seen(&*fs.root().open_dir(b"source").unwrap());
    (fs, repository, snapshot, source)
}

#[test]
fn a_restore_that_dies_at_any_call_is_made_whole_by_the_next_one() {
    let (fs, repository, snapshot, source) = made_up();
    let calls = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&calls);
    fs.set_hook(Some(Arc::new(move |_: Call<'_>| {
        counter.fetch_add(1, SeqCst);
        None
    })));
    let whole = restore(&repository, &fs, &Arc::new(Job::new()), snapshot, 0).unwrap();
    assert_eq!((whole.exit_code, whole.files, whole.others), (0, 7, 2), "{whole:?}");
    fs.set_hook(None);
    for nth in 0..calls.load(SeqCst) {
        fs.root().remove_all(b"target").unwrap();
        let (job, calls, dead) = (Arc::new(Job::new()), AtomicU64::new(0), AtomicBool::new(false));
        let cancel = Arc::clone(&job);
        fs.set_hook(Some(Arc::new(move |_: Call<'_>| {
            if calls.fetch_add(1, SeqCst) == nth {
                dead.store(true, SeqCst);
                cancel.cancel();
            }
            dead.load(SeqCst).then_some(VolumeErrorKind::Io)
        })));
        restore(&repository, &fs, &job, snapshot, 0).unwrap_err();
        fs.set_hook(None);
        let next = restore(&repository, &fs, &Arc::new(Job::new()), snapshot, 0).unwrap();
        assert_eq!(next.exit_code, 0, "killed at {nth}: {:?}", next.losses);
        assert!(seen(&*fs.root().open_dir(b"target").unwrap()) == source, "killed at {nth}");
    }
}

#[test]
fn what_stands_under_all_its_names_is_neither_fetched_nor_written_again() {
    let (fs, repository, snapshot, source) = made_up();
    for workers in [0, 2] {
        restore(&repository, &fs, &Arc::new(Job::new()), snapshot, workers).unwrap();
        let again = restore(&repository, &fs, &Arc::new(Job::new()), snapshot, workers).unwrap();
        assert_eq!((again.exit_code, again.bytes_written), (0, 0), "{again:?}");
        let target = fs.root().open_dir(b"target").unwrap();
        assert!(seen(&*target) == source);
        // One that differs gets a file of its own: who holds its old one by a name elsewhere keeps that.
        let (a, outside) =
            (target.open_dir(b"a").unwrap(), fs.root().create_dir(format!("outside{workers}").as_bytes()).unwrap());
        a.hard_link(b"large", &*outside, b"kept").unwrap();
        a.open_file_for_update(b"large").unwrap().write_at(5 << 20, b"other").unwrap();
        let mended = restore(&repository, &fs, &Arc::new(Job::new()), snapshot, workers).unwrap();
        assert_eq!((mended.exit_code, mended.bytes_written), (0, LARGE_BYTES as u64), "{mended:?}");
        assert!(seen(&*target) == source);
        let mut kept = vec![0; 5];
        outside.open_file(b"kept").unwrap().read_at(5 << 20, &mut kept).unwrap();
        assert_eq!(kept, b"other");
        fs.root().remove_all(b"target").unwrap();
    }
}

#[test]
fn a_name_that_cannot_be_linked_is_a_file_of_its_own() {
    let (fs, repository, snapshot, source) = made_up();
    for workers in [0, 2] {
        let refuse = |call: Call<'_>| (call.call == "create hard link").then_some(VolumeErrorKind::Unsupported);
        fs.set_hook(Some(Arc::new(refuse)));
        let summary = restore(&repository, &fs, &Arc::new(Job::new()), snapshot, workers).unwrap();
        fs.set_hook(None);
        assert_eq!((summary.exit_code, summary.items_lost, summary.files), (3, 5, 7), "{summary:?}");
        let alone = |seen: Seen| seen.into_iter().map(|(path, is)| (path, is.2)).collect::<Vec<_>>();
        assert_eq!(alone(seen(&*fs.root().open_dir(b"target").unwrap())), alone(source.clone()));
        fs.root().remove_all(b"target").unwrap();
    }
}

const INODES: u64 = 100_000;
/// Measured: 14 MiB, half of it what a restore of as many files with one name each takes.
const BOUND_BYTES: u64 = 28 << 20;
const STAGE: &str = "LONGSHORE_TEST_RESTORE";

fn anonymous_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

fn folder(path: &Path) -> Arc<dyn Store> {
    Arc::new(LocalStore::open(path, LocalSettings { create: true, ..LocalSettings::default() }).unwrap())
}

/// The peak of a restore in a process of its own.
fn peak_of(store: &Path, snapshot: SessionId, target: &Path) -> u64 {
    let peak = store.join("peak");
    let stage = format!("{}\n{snapshot}\n{}\n{}", store.display(), target.display(), peak.display());
    let name = "two_hundred_thousand_names_of_a_hundred_thousand_files_take_little_memory";
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    let output = child.args([name, "--exact", "--nocapture"]).env(STAGE, stage).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(read(&peak)).unwrap().parse().unwrap()
}

fn restore_and_tell(stage: &str) {
    let mut fields = stage.lines();
    let repository = open(folder(Path::new(fields.next().unwrap()))).unwrap();
    let snapshot = repository.find_snapshot(fields.next().unwrap(), None).unwrap().session;
    let options = RestoreOptions { sync: false, ..RestoreOptions::new(snapshot, fields.next().unwrap()) };
    let (before, done, peak) = (anonymous_bytes(), AtomicBool::new(false), AtomicU64::new(0));
    let summary = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(SeqCst) {
                peak.fetch_max(anonymous_bytes(), SeqCst);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let summary = run(&repository, &LinuxFs, &Arc::new(Job::new()), &options).unwrap();
        done.store(true, SeqCst);
        summary
    });
    assert_eq!((summary.exit_code, summary.files), (0, 2 * INODES), "{:?}", summary.losses);
    write(Path::new(fields.next().unwrap()), (peak.load(SeqCst) - before).to_string().as_bytes());
}

#[test]
fn two_hundred_thousand_names_of_a_hundred_thousand_files_take_little_memory() {
    if let Ok(stage) = std::env::var(STAGE) {
        return restore_and_tell(&stage);
    }
    let (store, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let repository = init(folder(store.path()));
    let fs = MadeUpFs::default();
    let root = fs.root().create_dir(b"source").unwrap();
    let [first, later] = [b"first", b"later"].map(|name| root.create_dir(name).unwrap());
    for n in 0..INODES {
        let name = format!("a file with some name {n:06}");
        first.create_file(name.as_bytes()).unwrap();
        first.hard_link(name.as_bytes(), &*later, name.as_bytes()).unwrap();
    }
    let options = backup_options(Path::new("/source"), 0);
    let snapshot = backup::run(&repository, &fs, &Arc::new(Job::new()), &options).unwrap().snapshot.unwrap();
    let peak = peak_of(store.path(), snapshot, target.path());
    assert_eq!(std::fs::metadata(target.path().join("later/a file with some name 099999")).unwrap().nlink(), 2);
    eprintln!("peak={} KiB", peak >> 10);
    assert!(peak < BOUND_BYTES, "peak_bytes={peak}");
}
