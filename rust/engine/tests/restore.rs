//! Restores from end to end: into nothing, over something, in part, damaged, cancelled.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test makes its own files and may fail loudly")]

mod common;

use common::counted::{CountedFs, Syncing, Writing};
use common::{assert_same, back_up, init, look, noise, open, read, restore_with, varied_volume, write};
use longshore_engine::ErrorKind;
use longshore_engine::backup;
use longshore_engine::job::Job;
use longshore_engine::restore::{self, LossKind, RestoreOptions};
use longshore_engine::volume::{LinuxFs, RestorePolicy, VolumeError, VolumeErrorKind};
use longshore_store::layers::{Call, Effect, Fault, Verb};
use longshore_store::{MemoryStore, Store};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

#[test]
fn a_volume_comes_back_whole_however_many_threads_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    std::fs::create_dir(&source).unwrap();
    varied_volume(&source);
    let repository = init(Arc::new(MemoryStore::new()));
    let snapshot = back_up(&repository, &source);
    for workers in [0, 1, 3] {
        let target = folder.path().join(format!("target-{workers}"));
        let summary = restore_with(&repository, &RestoreOptions { workers, ..RestoreOptions::new(snapshot, &target) }).unwrap();
        assert_eq!((summary.exit_code, &summary.losses), (0, &vec![]), "workers {workers}");
        assert_same(&source, &target);
        let files = look(&source).values().filter(|s| s.kind == 'f').count() as u64;
        assert_eq!(summary.files, files);
        // Over itself: nothing has to be written but what has holes or several names.
        let again = restore_with(&repository, &RestoreOptions { workers, ..RestoreOptions::new(snapshot, &target) }).unwrap();
        assert_eq!(again.exit_code, 0, "{:?}", again.losses);
        assert!(again.bytes_written < 1 << 20, "{again:?}");
        assert_same(&source, &target);
    }
}

#[test]
fn what_differs_is_replaced_and_what_is_extra_stays_or_goes() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let (source, target, outside) = (folder.path().join("source"), folder.path().join("target"), folder.path().join("outside"));
    for dir in [&source, &target, &outside] {
        std::fs::create_dir(dir).unwrap();
    }
    varied_volume(&source);
    write(&outside.join("canary"), b"untouched");
    let repository = init(Arc::new(MemoryStore::new()));
    let snapshot = back_up(&repository, &source);
    // A directory where a file belongs, a file where a directory belongs, links that lead out where anything belongs.
    std::fs::create_dir_all(target.join("text/deep/er")).unwrap();
    write(&target.join("d0"), b"a file");
    symlink(&outside, target.join("d1")).unwrap();
    symlink(outside.join("canary"), target.join("large")).unwrap();
    // A second name, outside, of what will be replaced: it is not written through.
    write(&outside.join("shared"), &[5; 200_000]);
    std::fs::hard_link(outside.join("shared"), target.join("zeros")).unwrap();
    std::fs::File::create(outside.join("shared-large")).unwrap().set_len(40 << 20).unwrap();
    std::fs::hard_link(outside.join("shared-large"), target.join("sparse")).unwrap();
    // An old state of a directory: one file of the same size that differs, one that is equal, one extra.
    std::fs::create_dir_all(target.join("d3/e")).unwrap();
    write(&target.join("d3/e/f20"), &noise(1, read(&source.join("d3/e/f20")).len()));
    write(&target.join("d3/e/f21"), &read(&source.join("d3/e/f21")));
    write(&target.join("d3/e/extra"), b"extra");
    write(&target.join(".longshore-restore-"), b"extra, too");
    let before = look(&outside);
    let options = RestoreOptions::new(snapshot, &target);
    let summary = restore_with(&repository, &options).unwrap();
    assert_eq!((summary.exit_code, summary.files_unchanged, summary.extra_deleted), (0, 1, 0), "{summary:?}");
    assert_eq!(read(&target.join("d3/e/extra")), b"extra");
    let summary = restore_with(&repository, &RestoreOptions { delete_extra: true, ..options.clone() }).unwrap();
    assert_eq!((summary.exit_code, summary.extra_deleted), (0, 2), "{summary:?}");
    assert_same(&source, &target);
    let (mut before, mut after) = (before, look(&outside));
    // The other names are gone from the target, so each file has but one.
    for seen in before.values_mut().chain(after.values_mut()) {
        seen.first_name = None;
    }
    assert_eq!(before, after);
    // A large file of the same size is written only where it differs.
    let mut large = read(&target.join("large"));
    large[10 << 20] ^= 1;
    write(&target.join("large"), &large);
    let summary = restore_with(&repository, &options).unwrap();
    assert!(summary.bytes_written < 3 << 20, "{summary:?}");
    assert_same(&source, &target);
}

#[test]
fn a_part_of_a_snapshot_is_laid_directly_in_the_target() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    std::fs::create_dir(&source).unwrap();
    varied_volume(&source);
    let repository = init(Arc::new(MemoryStore::new()));
    let snapshot = back_up(&repository, &source);
    let part = |path: &str, target: &str, delete_extra: bool| {
        let options =
            RestoreOptions { path: path.into(), delete_extra, ..RestoreOptions::new(snapshot, folder.path().join(target)) };
        restore_with(&repository, &options)
    };
    assert_eq!(part("/d0/e/", "directory", false).unwrap().exit_code, 0);
    assert_same(&source.join("d0/e"), &folder.path().join("directory"));
    // A file goes beside what is there, whatever is said of extra files.
    assert_eq!(part("text", "directory", true).unwrap().files, 1);
    assert_eq!(look(&folder.path().join("directory")).len(), look(&source.join("d0/e")).len() + 1);
    assert_eq!(read(&folder.path().join("directory/text")), read(&source.join("text")));
    assert_eq!(part("none/such", "absent", false).unwrap_err().kind(), ErrorKind::PathNotFound);
    assert!(!folder.path().join("absent").exists());
    let dry = RestoreOptions { dry_run: true, ..RestoreOptions::new(snapshot, folder.path().join("absent")) };
    let counted = restore_with(&repository, &dry).unwrap();
    assert_eq!(counted.files, look(&source).values().filter(|s| s.kind == 'f').count() as u64);
    assert!(!folder.path().join("absent").exists());
}

#[test]
fn what_lends_rights_comes_back_only_by_policy_and_what_was_dropped_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    std::fs::create_dir(&source).unwrap();
    varied_volume(&source);
    let repository = init(Arc::new(MemoryStore::new()));
    let snapshot = back_up(&repository, &source);
    let target = folder.path().join("target");
    let options = RestoreOptions { policy: RestorePolicy::confined(), ..RestoreOptions::new(snapshot, &target) };
    let summary = restore_with(&repository, &options).unwrap();
    assert_eq!(summary.exit_code, 0, "{summary:?}");
    let named: Vec<&[u8]> = summary.losses.iter().map(|loss| loss.path.as_slice()).collect();
    let expected: &[&[u8]] = if common::is_root() { &[b"large", b"null", b"text"] } else { &[b"text"] };
    assert_eq!(named, expected);
    assert!(summary.losses.iter().all(|loss| loss.kind == LossKind::Dropped));
    assert_eq!(look(&target)[std::path::Path::new("text")].mode, 0o711);
    assert!(!target.join("null").exists());
    let strict = RestoreOptions { strict: true, ..options };
    assert_eq!(restore_with(&repository, &strict).unwrap().exit_code, 3);
}

#[test]
fn what_many_small_files_share_is_fetched_once() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    for dir in 0..90u64 {
        let path = source.join(format!("d{dir}"));
        std::fs::create_dir_all(&path).unwrap();
        for file in 0..20 {
            write(&path.join(format!("f{file}")), &noise(dir * 100 + file, 3000));
        }
    }
    let store = Arc::new(MemoryStore::new());
    // On one thread: several share frames out among the files as it happens.
    let options = common::backup_options(&source, 0);
    let made = backup::run(&init(Arc::clone(&store) as _), &LinuxFs, &Arc::new(Job::new()), &options).unwrap();
    let snapshot = made.snapshot.unwrap();
    let packs = store.list("packs/", None, 100).unwrap().entries;
    let stored: u64 = packs.iter().map(|entry| entry.size_bytes).sum();
    for workers in [0, 1, 3] {
        let job = Arc::new(Job::new());
        let target = folder.path().join(format!("target-{workers}"));
        let options = RestoreOptions { workers, ..RestoreOptions::new(snapshot, &target) };
        let repository = open(Arc::clone(&store) as _).unwrap();
        assert_eq!(restore::run(&repository, &LinuxFs, &job, &options).unwrap().exit_code, 0);
        let fetched = job.progress().bytes_stored;
        assert!(fetched <= stored, "{workers} workers fetched {fetched} of {stored}");
        assert_same(&source, &target);
    }
}

#[test]
fn a_cancelled_restore_ends_soon_and_leaves_no_temporary_names_nor_marker() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("source"), folder.path().join("target"));
    std::fs::create_dir(&source).unwrap();
    varied_volume(&source);
    let memory = Arc::new(MemoryStore::new());
    let snapshot = back_up(&init(Arc::clone(&memory) as _), &source);
    let mut cancelled = 0;
    for nth in 0..8 {
        for workers in [0, 2] {
            let job = Arc::new(Job::new());
            let flag = Arc::clone(&job);
            let plan = move |call: &Call<'_>| {
                if call.verb == Verb::GetRange && call.nth == nth {
                    flag.cancel();
                }
                Effect::Pass
            };
            let repository = open(Arc::new(Fault::new(memory.fork(), plan))).unwrap();
            let options = RestoreOptions { workers, ..RestoreOptions::new(snapshot, &target) };
            match restore::run(&repository, &LinuxFs, &job, &options) {
                Ok(summary) => assert_eq!(summary.exit_code, 0),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Cancelled);
                    cancelled += 1;
                }
            }
            assert!(look(&target).keys().all(|path| !path.to_string_lossy().contains(".longshore-restore")));
            assert!(repository.store().list("sessions/", None, 10).unwrap().entries.is_empty());
        }
    }
    assert!(cancelled >= 8, "{cancelled}");
    // And the next one makes it whole.
    let repository = open(Arc::clone(&memory) as _).unwrap();
    assert_eq!(restore_with(&repository, &RestoreOptions::new(snapshot, &target)).unwrap().exit_code, 0);
    assert_same(&source, &target);
    repository.remove_snapshot(snapshot, "test").unwrap();
    let error = restore_with(&repository, &RestoreOptions::new(snapshot, &target)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SnapshotNotFound);
}

#[test]
fn a_full_volume_ends_the_restore_and_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("source"), folder.path().join("target"));
    std::fs::create_dir(&source).unwrap();
    std::fs::create_dir(&target).unwrap();
    write(&source.join("a-small"), &noise(1, 1000));
    write(&source.join("big"), &noise(2, 20 << 20));
    let repository = init(Arc::new(MemoryStore::new()));
    let snapshot = back_up(&repository, &source);
    let flags = rustix::mount::MountFlags::empty();
    if let Err(error) = rustix::mount::mount(c"none", &target, c"tmpfs", flags, Some(c"size=4m")) {
        eprintln!("left out: a small filesystem cannot be mounted here: {error}");
        return;
    }
    let outcome = restore_with(&repository, &RestoreOptions::new(snapshot, &target));
    rustix::mount::unmount(&target, rustix::mount::UnmountFlags::DETACH).unwrap();
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    let named = error.message().starts_with("big: ") || error.message().starts_with("a-small: ");
    assert!(named, "{error}");
}

#[test]
fn what_can_be_read_of_a_damaged_file_is_kept_under_another_name_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("source"), folder.path().join("target"));
    std::fs::create_dir(&source).unwrap();
    let content = noise(3, 12 << 20);
    write(&source.join("image"), &content);
    write(&source.join("other"), b"other");
    let store = Arc::new(MemoryStore::new());
    let snapshot = back_up(&init(Arc::clone(&store) as _), &source);
    let packs = store.list("packs/", None, 10).unwrap().entries;
    let largest = packs.iter().max_by_key(|entry| entry.size_bytes).unwrap();
    let mut bad = store.get(&largest.key, 1 << 30).unwrap().to_vec();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    store.overwrite(&largest.key, bad.into());
    let repository = open(Arc::clone(&store) as _).unwrap();
    let options = RestoreOptions { keep_damaged: true, ..RestoreOptions::new(snapshot, &target) };
    let summary = restore_with(&repository, &options).unwrap();
    assert_eq!((summary.exit_code, summary.items_damaged, summary.files), (4, 1, 1), "{summary:?}");
    assert_eq!((summary.losses[0].kind, summary.losses[0].path.as_slice()), (LossKind::Damaged, b"image".as_slice()));
    assert!(!target.join("image").exists());
    let kept = read(&target.join("image.longshore-damaged"));
    assert_eq!(kept.len(), content.len());
    let wrong = kept.iter().zip(&content).filter(|(a, b)| a != b && **a != 0).count();
    assert_eq!(wrong, 0, "what is not there is zeros");
    let there = kept.iter().zip(&content).filter(|(a, b)| a == b).count();
    assert!(there > 10 << 20 && there < content.len(), "{there}");
    // An old state that is there stays when the new one cannot be had.
    let small = folder.path().join("small");
    std::fs::create_dir(&small).unwrap();
    write(&small.join("image"), b"old state");
    let summary = restore_with(&repository, &RestoreOptions::new(snapshot, &small)).unwrap();
    assert_eq!(summary.exit_code, 4);
    assert_eq!(read(&small.join("image")), b"old state");
    assert_eq!(look(&small).len(), 3);
}

/// The inode of each of these names.
fn inodes(root: &std::path::Path, names: &[&str]) -> Vec<u64> {
    use std::os::unix::fs::MetadataExt;
    names.iter().map(|name| std::fs::symlink_metadata(root.join(name)).unwrap().ino()).collect()
}

#[test]
fn where_times_are_trusted_what_looks_unchanged_is_not_read() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("source"), folder.path().join("target"));
    std::fs::create_dir(&source).unwrap();
    write(&source.join("silent"), &noise(1, 50_000));
    write(&source.join("damaged"), &noise(2, 50_000));
    write(&source.join("shorter"), &noise(3, 50_000));
    write(&source.join("moved mode"), &noise(4, 50_000));
    write(&source.join("attribute"), &noise(5, 50_000));
    write(&source.join("large"), &noise(5, 9 << 20));
    symlink("silent", source.join("link")).unwrap();
    let repository = init(Arc::new(MemoryStore::new()));
    let snapshot = back_up(&repository, &source);
    let counted = CountedFs::new(LinuxFs);
    let names = ["silent", "damaged", "shorter", "moved mode", "attribute", "large", "link"];
    let again = |trust_times: bool| {
        let options = RestoreOptions { trust_times, ..RestoreOptions::new(snapshot, &target) };
        let summary = restore::run(&repository, &counted, &Arc::new(Job::new()), &options).unwrap();
        assert_eq!((summary.exit_code, summary.files), (0, 6), "{summary:?}");
        summary
    };
    again(false);
    // Damage that moves no time, damage that moves one, another length with the old time, and the mode and an attribute alone.
    let mtime = |name: &str| std::fs::symlink_metadata(source.join(name)).unwrap().modified().unwrap();
    let spoil = |name: &str, bytes: &[u8], keeps_time: bool| {
        write(&target.join(name), bytes);
        if keeps_time {
            std::fs::File::options().write(true).open(target.join(name)).unwrap().set_modified(mtime(name)).unwrap();
        }
    };
    spoil("silent", &noise(6, 50_000), true);
    spoil("damaged", &noise(7, 50_000), false);
    spoil("shorter", &noise(8, 40_000), true);
    spoil("large", &noise(9, 9 << 20), true);
    std::fs::set_permissions(target.join("moved mode"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    rustix::fs::setxattr(target.join("attribute"), "user.extra", b"1", rustix::fs::XattrFlags::empty()).unwrap();
    let before = inodes(&target, &names);
    counted.take_reads();
    let summary = again(true);
    let read: std::collections::BTreeSet<_> = counted.take_reads().into_iter().map(|(name, _, _)| name).collect();
    assert_eq!(read, [b"damaged".to_vec()].into());
    assert_eq!((summary.files_unchanged, summary.bytes_unchanged), (4, 150_000 + (9 << 20)), "{summary:?}");
    for (name, same) in [("silent", false), ("damaged", true), ("shorter", true), ("large", false), ("moved mode", true)] {
        assert_eq!(read_of(&target, name) == read_of(&source, name), same, "{name}");
    }
    for name in ["moved mode", "attribute"].map(std::path::Path::new) {
        assert_eq!(look(&target)[name], look(&source)[name]);
    }
    let after = inodes(&target, &names);
    let stands: Vec<bool> = before.iter().zip(&after).map(|(a, b)| a == b).collect();
    assert_eq!(stands, [true, false, false, true, true, true, true]);
    // Who does not trust them reads, and mends.
    assert!(again(false).bytes_written >= 50_000 + (9 << 20));
    assert_same(&source, &target);
}

fn read_of(root: &std::path::Path, name: &str) -> Vec<u8> {
    read(&root.join(name))
}

/// Restores 24 MiB with a flush due after each 4, and holds the writers at 8 until one was asked for; `answer` is what that one says.
fn flushed(answer: Result<(), VolumeError>) -> (longshore_engine::Result<restore::RestoreSummary>, u64) {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("source"), folder.path().join("target"));
    std::fs::create_dir(&source).unwrap();
    for number in 0..24 {
        write(&source.join(format!("f{number}")), &noise(number, 1 << 20));
    }
    let repository = init(Arc::new(MemoryStore::new()));
    let snapshot = back_up(&repository, &source);
    let asked = Arc::new(AtomicU64::new(0));
    let mut counted = CountedFs::new(LinuxFs);
    let (seen, limit) = (Arc::clone(&asked), Duration::from_secs(60));
    counted.writing = Writing(Arc::new(move |written| {
        let began = Instant::now();
        while written >= 8 << 20 && seen.load(SeqCst) == 0 {
            assert!(began.elapsed() < limit, "nothing is made durable before the end");
            std::thread::sleep(Duration::from_millis(1));
        }
    }));
    let count = Arc::clone(&asked);
    counted.syncing = Syncing(Arc::new(move || match count.fetch_add(1, SeqCst) {
        0 => answer.clone(),
        _ => Ok(()),
    }));
    let options = RestoreOptions { flush_bytes: 4 << 20, ..RestoreOptions::new(snapshot, &target) };
    let done = restore::run(&repository, &counted, &Arc::new(Job::new()), &options);
    if done.is_ok() {
        assert_same(&source, &target);
    }
    (done, asked.load(SeqCst))
}

#[test]
fn what_is_written_is_made_durable_on_the_way_and_once_more_at_the_end() {
    let (done, asked) = flushed(Ok(()));
    assert_eq!(done.unwrap().exit_code, 0);
    assert!(asked >= 2, "{asked}");
}

#[test]
fn what_cannot_be_made_durable_on_the_way_ends_the_restore() {
    let lost = VolumeError { kind: VolumeErrorKind::Io, call: "sync filesystem", errno: Some(5) };
    let (done, asked) = flushed(Err(lost));
    let error = done.unwrap_err();
    assert!(error.to_string().contains("make the restored files durable"), "{error}");
    assert_eq!(asked, 1, "the kernel tells of a lost page once");
}
