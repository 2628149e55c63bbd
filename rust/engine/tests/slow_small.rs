//! Small files and many directories of a volume that is slower than the engine: more threads than workers wait for it, and what they
//! bring is what is there.

#![expect(clippy::unwrap_used, reason = "a test makes its own files and may fail loudly")]

mod common;

use common::{backup_options, init, noise};
use longshore_engine::backup::{self, BackupOptions, ParentChoice, Summary};
use longshore_engine::browse::Browser;
use longshore_engine::job::Job;
use longshore_engine::repository::Repository;
use longshore_engine::volume::made_up::MadeUpFs;
use longshore_engine::volume::{Dir, VolumeErrorKind};
use longshore_store::MemoryStore;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// How long a call of the slow volume takes while too few are in it at once.
const SLOW: Duration = Duration::from_millis(5);
const DIRECTORIES: usize = 40;
const FILES: usize = 50;

fn content(directory: usize, file: usize) -> Vec<u8> {
    noise((directory * FILES + file) as u64, 100 + file)
}

fn volume() -> MadeUpFs {
    let fs = MadeUpFs::default();
    let root = fs.root().create_dir(b"source").unwrap();
    for directory in 0..DIRECTORIES {
        let dir = root.create_dir(format!("directory {directory}").as_bytes()).unwrap();
        for file in 0..FILES {
            write(&*dir, &name(file), &content(directory, file));
        }
    }
    fs
}

fn name(file: usize) -> Vec<u8> {
    format!("file {file}").into_bytes()
}

fn write(dir: &dyn Dir, name: &[u8], content: &[u8]) {
    dir.create_file(name).unwrap().write_at(0, content).unwrap();
}

/// The calls of one name, made to take long until so many are in one at once; how many there were at most.
fn slow(fs: &MadeUpFs, named: &'static str, enough: usize) -> Arc<AtomicUsize> {
    let (inside, most) = (Arc::new((Mutex::new(0), Condvar::new())), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&most);
    fs.set_hook(Some(Arc::new(move |call| {
        if call.call == named {
            let mut now = inside.0.lock().unwrap();
            *now += 1;
            most.fetch_max(*now, SeqCst);
            inside.1.notify_all();
            let (mut now, _) = inside.1.wait_timeout_while(now, SLOW, |_| most.load(SeqCst) < enough).unwrap();
            *now -= 1;
        }
        None
    })));
    seen
}

fn options() -> BackupOptions {
    BackupOptions { parent: ParentChoice::None, ..backup_options(Path::new("/source"), 2) }
}

fn run(fs: &MadeUpFs) -> (Repository, Summary) {
    let repository = init(Arc::new(MemoryStore::new()));
    let summary = backup::run(&repository, fs, &Arc::new(Job::new()), &options()).unwrap();
    (repository, summary)
}

fn assert_whole(repository: &Repository, summary: &Summary, of: impl Fn(usize, usize) -> Vec<u8>) {
    assert_eq!((summary.exit_code, summary.counts.files), (0, (DIRECTORIES * FILES) as u64), "{:?}", summary.lost);
    let browser = Browser::open(repository, summary.snapshot.unwrap(), "here", &Arc::new(Job::new())).unwrap();
    for directory in 0..DIRECTORIES {
        for file in 0..FILES {
            let mut bytes = Vec::new();
            let path = format!("directory {directory}/file {file}");
            browser
                .cat(path.as_bytes(), &mut |more| {
                    bytes.extend_from_slice(more);
                    Ok(())
                })
                .unwrap();
            assert!(bytes == of(directory, file), "{path}");
        }
    }
}

#[test]
fn small_files_that_take_long_are_read_by_more_threads_than_workers() {
    let fs = volume();
    let most = slow(&fs, "open file", 12);
    let (repository, summary) = run(&fs);
    assert!(most.load(SeqCst) >= 12, "so many opened a file at once: {most:?}");
    fs.set_hook(None);
    assert_whole(&repository, &summary, content);
    assert_eq!(summary.counts.bytes_read, summary.counts.bytes);
}

#[test]
fn a_volume_that_takes_long_to_look_at_is_walked_by_more_threads_than_workers() {
    let fs = volume();
    let most = slow(&fs, "list directory", 5);
    let (repository, summary) = run(&fs);
    // Two walk for two workers, and with this budget four more do.
    assert!(most.load(SeqCst) >= 5, "so many listed a directory at once: {most:?}");
    fs.set_hook(None);
    assert_whole(&repository, &summary, content);
}

#[test]
fn what_changes_under_a_fetcher_is_read_again_and_what_it_cannot_read_is_named() {
    const LATE: usize = FILES - 1;
    let fs = volume();
    let (changed, inner) = (Arc::new(AtomicUsize::new(0)), fs.clone());
    let refused = fs.root().open_dir(b"source").unwrap().open_dir(b"directory 39").unwrap().stat(b"file 48").unwrap().inode;
    let late: Vec<u64> = (0..DIRECTORIES)
        .map(|n| {
            let dir = fs.root().open_dir(b"source").unwrap().open_dir(format!("directory {n}").as_bytes()).unwrap();
            dir.stat(&name(LATE)).unwrap().inode
        })
        .collect();
    let (looked, times) = ((0..DIRECTORIES).map(|_| AtomicUsize::new(0)).collect::<Vec<_>>(), Arc::clone(&changed));
    fs.set_hook(Some(Arc::new(move |call| {
        if call.call == "open file" {
            std::thread::sleep(Duration::from_millis(1));
        }
        if call.call == "read file" && call.inode == refused {
            return Some(VolumeErrorKind::Io);
        }
        // Between the read and the look after it.
        if call.call == "stat open file"
            && let Some(n) = late.iter().position(|inode| *inode == call.inode)
            && looked[n].fetch_add(1, SeqCst) == 1
        {
            times.fetch_add(1, SeqCst);
            let root = inner.root().open_dir(b"source").unwrap();
            let dir = root.open_dir(format!("directory {n}").as_bytes()).unwrap();
            dir.open_file_for_update(&name(LATE)).unwrap().write_at(0, b"changed").unwrap();
        }
        None
    })));
    let (repository, summary) = run(&fs);
    fs.set_hook(None);
    assert_eq!((changed.load(SeqCst), &summary.changed[..]), (DIRECTORIES, &[][..]), "each was read again");
    let lost: Vec<_> = summary.lost.iter().map(|item| item.path.clone()).collect();
    assert_eq!((summary.exit_code, &lost[..]), (3, &[b"directory 39/file 48".to_vec()][..]));
    let browser = Browser::open(&repository, summary.snapshot.unwrap(), "here", &Arc::new(Job::new())).unwrap();
    for n in 0..DIRECTORIES {
        let mut bytes = Vec::new();
        browser
            .cat(format!("directory {n}/file {LATE}").as_bytes(), &mut |more| {
                bytes.extend_from_slice(more);
                Ok(())
            })
            .unwrap();
        let mut now = content(n, LATE);
        now[..7].copy_from_slice(b"changed");
        assert!(bytes == now, "directory {n}");
    }
}
