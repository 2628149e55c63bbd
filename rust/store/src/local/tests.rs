//! What the conformance suite cannot see of a folder: durability, temporary files, modes, links, filesystems that fail.

use super::*;
use crate::suite;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

#[allow(clippy::disallowed_methods, reason = "a test plays the stranger who writes into the folder")]
fn write(path: impl AsRef<Path>, body: impl AsRef<[u8]>) {
    std::fs::write(path, body).unwrap();
}

fn open(path: &Path) -> LocalStore {
    LocalStore::open(path, LocalSettings { create: true, ..LocalSettings::default() }).unwrap()
}

fn temporaries(path: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(path.join(".tmp")) else { return Vec::new() };
    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn conforms() {
    let folder = tempfile::tempdir().unwrap();
    suite::assert_conforms(&|case| Arc::new(open(&folder.path().join(case))));
}

#[test]
fn conforms_without_hard_links() {
    let folder = tempfile::tempdir().unwrap();
    suite::assert_conforms(&|case| {
        let mut store = open(&folder.path().join(case));
        store.calls.link = |_, _, _, _| Err(Errno::PERM);
        Arc::new(store)
    });
}

#[test]
fn conforms_on_a_network_filesystem() {
    let folder = tempfile::tempdir().unwrap();
    suite::assert_conforms(&|case| {
        let mut store = open(&folder.path().join(case));
        store.network = true;
        Arc::new(store)
    });
}

#[test]
fn refuses_a_filesystem_that_can_do_neither() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    store.calls.link = |_, _, _, _| Err(Errno::PERM);
    store.calls.rename = |_, _, _, _| Err(Errno::INVAL);
    let error = store.put_new(&key("packs/a"), Bytes::from_static(b"x")).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unsupported, "{error}");
    assert_eq!(store.head(&key("packs/a")).unwrap_err().kind(), StoreErrorKind::NotFound);
    assert!(temporaries(folder.path()).is_empty());
}

#[test]
fn an_absent_folder_is_made_only_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x/y/z");
    let error = LocalStore::open(&path, LocalSettings::default()).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NotFound, "{error}");
    assert!(!folder.path().join("x").exists());
    open(&path);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o700);
    let file = folder.path().join("file");
    write(&file, b"");
    assert_eq!(LocalStore::open(&file, LocalSettings::default()).unwrap_err().kind(), StoreErrorKind::InvalidSettings);
}

#[test]
fn files_and_folders_are_for_the_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.put_new(&key("packs/deep/a"), Bytes::from_static(b"x")).unwrap();
    let mode = |at: &str| std::fs::symlink_metadata(folder.path().join(at)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("packs"), mode("packs/deep"), mode("packs/deep/a"), mode(".tmp")), (0o700, 0o700, 0o600, 0o700));
}

#[test]
fn a_failed_file_sync_is_final() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    store.put_new(&key("packs/before"), Bytes::from_static(b"x")).unwrap();
    store.calls.sync = |fd| match FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) {
        FileType::RegularFile => Err(Errno::IO),
        _ => Ok(()),
    };
    assert_eq!(store.put_new(&key("packs/a"), Bytes::from_static(b"x")).unwrap_err().kind(), StoreErrorKind::Io);
    store.calls.sync = CALLS.sync;
    let error = store.put_new(&key("packs/a"), Bytes::from_static(b"x")).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Io, "the next sync succeeds, and proves nothing: {error}");
    assert!(!folder.path().join("packs/a").exists(), "an object whose sync failed must not get its name");
    assert!(temporaries(folder.path()).is_empty());
    assert_eq!(store.get(&key("packs/before"), 9).unwrap(), "x", "reading goes on");
}

#[test]
fn a_failed_directory_sync_is_no_success() {
    for on_list in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path());
        store.put_new(&key("packs/a"), Bytes::from_static(b"x")).unwrap();
        store.calls.sync = |fd| match FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) {
            FileType::Directory => Err(Errno::IO),
            _ => Ok(()),
        };
        let error = if on_list {
            store.list("packs/", None, 10).unwrap_err()
        } else {
            store.put_new(&key("packs/b"), Bytes::from_static(b"x")).unwrap_err()
        };
        assert_eq!(error.kind(), StoreErrorKind::Io);
        store.calls.sync = CALLS.sync;
        assert_eq!(store.put_new(&key("packs/b"), Bytes::from_static(b"x")).unwrap_err().kind(), StoreErrorKind::Io);
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test looks at the store's own file")]
fn long_objects_are_written_past_the_page_cache_whole() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut left_in_memory = 0;
    for (at, size) in [(1 << 20) - 1, 1 << 20, (1 << 20) + 1, (3 << 20) + 4095, (4 << 20) + 4096].into_iter().enumerate() {
        let body: Bytes = (0..size).map(|n: usize| (n % 251) as u8).collect();
        let name = key(&format!("packs/{at:02}"));
        assert_eq!(store.put_new(&name, body.clone()).unwrap(), Put::Created);
        let file = std::fs::File::open(folder.path().join(name.as_str())).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random).unwrap();
        let mut buf = vec![0; size];
        let mut whole = [std::io::IoSliceMut::new(&mut buf)];
        left_in_memory += rustix::io::preadv2(&file, &mut whole, 0, rustix::io::ReadWriteFlags::NOWAIT).unwrap_or(0);
        assert_eq!(store.get(&name, u64::MAX).unwrap(), body, "{size}");
        if at == 0 && left_in_memory == 0 {
            eprintln!("left out: this filesystem does not say what is in memory");
        }
    }
    // All together are 10 MiB; looking may begin a readahead, and find what it brought.
    assert!(left_in_memory < 2 << 20, "only the short one goes through memory: {left_in_memory}");
}

#[test]
fn a_filesystem_that_takes_no_such_writes_or_parts_of_them_gets_plain_ones() {
    let body: Bytes = (0..(3 << 20) + 777).map(|n: usize| (n % 251) as u8).collect();
    let answers: [super::direct::Write; 4] = [
        |_, _, _| Err(Errno::INVAL),
        |_, _, _| Err(Errno::OPNOTSUPP),
        |fd, bytes, at| rustix::io::pwrite(fd, &bytes[..4096], at),
        |fd, bytes, at| if at == 0 { rustix::io::pwrite(fd, bytes, at) } else { Err(Errno::INVAL) },
    ];
    for write in answers {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path());
        store.calls.write_direct = write;
        assert_eq!(store.put_new(&key("packs/a"), body.clone()).unwrap(), Put::Created);
        assert_eq!(store.get(&key("packs/a"), u64::MAX).unwrap(), body);
    }
}

#[test]
fn a_disk_that_fails_such_a_write_fails_the_put() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    store.calls.write_direct = |_, _, at| if at == 0 { Err(Errno::IO) } else { Err(Errno::INVAL) };
    let error = store.put_new(&key("packs/a"), Bytes::from(vec![1; 2 << 20])).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Io);
    assert!(temporaries(folder.path()).is_empty());
    store.calls.write_direct = |_, _, _| Err(Errno::NOSPC);
    assert_eq!(store.put_new(&key("packs/a"), Bytes::from(vec![1; 2 << 20])).unwrap_err().kind(), StoreErrorKind::NoSpace);
}

#[test]
fn existing_objects_are_synced_before_they_are_said_to_exist() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).put_new(&key("snapshots/s"), Bytes::from_static(b"x")).unwrap();
    let mut store = open(folder.path());
    store.put_new(&key("snapshots/other"), Bytes::new()).unwrap();
    store.calls.sync = |fd| match FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) {
        FileType::Directory => Err(Errno::IO),
        _ => Ok(()),
    };
    assert!(store.put_new(&key("snapshots/s"), Bytes::from_static(b"x")).is_err());
}

#[test]
fn our_own_link_with_a_lost_answer_is_created() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    // What an NFS client sees when the server's answer is lost and the call is sent again.
    store.calls.link = |from, old, to, new| {
        (CALLS.link)(from, old, to, new)?;
        (CALLS.link)(from, old, to, new)
    };
    assert_eq!(store.put_new(&key("a"), Bytes::from_static(b"x")).unwrap(), Put::Created);
    assert_eq!(store.put_new(&key("a"), Bytes::from_static(b"x")).unwrap(), Put::Exists);
}

#[test]
fn sweeps_what_the_dead_left_and_nothing_of_the_living() {
    let folder = tempfile::tempdir().unwrap();
    let living = open(folder.path());
    living.put_new(&key("a"), Bytes::from_static(b"x")).unwrap();
    let held = temporary::create(&living, &key("b")).unwrap();
    write(folder.path().join(".tmp/put-dead-0"), b"left by a killed process");
    write(folder.path().join(".tmp/stranger"), b"not ours");
    open(folder.path()).put_new(&key("c"), Bytes::from_static(b"x")).unwrap();
    let mut left = temporaries(folder.path());
    left.sort();
    let mut wanted = vec![held.name().to_owned(), "stranger".to_owned()];
    wanted.sort();
    assert_eq!(left, wanted);
}

#[test]
fn sweeps_only_old_files_where_locks_may_be_local() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).put_new(&key("a"), Bytes::from_static(b"x")).unwrap();
    for (name, age_hours) in [("put-new-0", 0), ("put-yesterday-0", 23), ("put-old-0", 25)] {
        let file = std::fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .open(folder.path().join(".tmp").join(name))
            .unwrap();
        let modified = file.metadata().unwrap().modified().unwrap() - std::time::Duration::from_secs(age_hours * 3600);
        file.set_modified(modified).unwrap();
    }
    let mut store = open(folder.path());
    store.network = true;
    store.put_new(&key("b"), Bytes::from_static(b"x")).unwrap();
    let mut left = temporaries(folder.path());
    left.sort();
    assert_eq!(left, ["put-new-0", "put-yesterday-0"]);
}

#[test]
fn a_temporary_file_swept_under_its_writer_costs_only_a_retry() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    store.calls.link = |from, old, to, new| {
        rustix::fs::unlinkat(from, old, AtFlags::empty())?;
        (CALLS.link)(from, old, to, new)
    };
    assert_eq!(store.put_new(&key("a"), Bytes::from_static(b"x")).unwrap_err().kind(), StoreErrorKind::Unavailable);
    store.calls.link = CALLS.link;
    assert_eq!(store.put_new(&key("a"), Bytes::from_static(b"x")).unwrap(), Put::Created);
}

#[test]
fn a_removed_folder_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.put_new(&key("packs/a"), Bytes::from_static(b"x")).unwrap();
    std::fs::remove_dir_all(folder.path().join("packs")).unwrap();
    std::fs::remove_dir_all(folder.path().join(".tmp")).unwrap();
    assert_eq!(store.put_new(&key("packs/a"), Bytes::from_static(b"y")).unwrap(), Put::Created);
}

#[test]
fn follows_no_link_below_the_root() {
    let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(outside.path().join("secret"), b"secret");
    let store = open(folder.path());
    symlink(outside.path(), folder.path().join("packs")).unwrap();
    symlink(outside.path().join("secret"), folder.path().join("link")).unwrap();
    assert!(store.get(&key("packs/secret"), 100).is_err());
    assert!(store.get(&key("link"), 100).is_err());
    assert!(store.put_new(&key("packs/new"), Bytes::from_static(b"x")).is_err());
    assert!(store.put_new(&key("link"), Bytes::from_static(b"x")).is_err());
    store.delete(&key("packs/secret")).unwrap();
    assert!(outside.path().join("secret").exists() && !outside.path().join("new").exists());
    assert!(suite::list_all(&store, "", 10).unwrap().is_empty());
}

#[test]
fn shows_only_keys() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.put_new(&key("packs/a"), Bytes::from_static(b"x")).unwrap();
    for stranger in ["packs/.hidden", "packs/UPPER", "packs/sp ace", ".DS_Store", "lost+found"] {
        write(folder.path().join(stranger), b"");
    }
    std::fs::create_dir(folder.path().join("packs/empty")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, folder.path().join("packs/fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    let held = temporary::create(&store, &key("b")).unwrap();
    let listed: Vec<String> = suite::list_all(&store, "", 1).unwrap().into_iter().map(|e| e.key.to_string()).collect();
    assert_eq!(listed, ["packs/a"], "while {} is being written", held.name());
    assert!(store.get(&key("packs/fifo"), 10).is_err(), "and a FIFO does not hang a reader");
}

#[test]
fn a_key_that_is_a_folder_of_another_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let memory = crate::MemoryStore::new();
    let local = open(folder.path());
    for store in [&local as &dyn Store, &memory] {
        store.put_new(&key("a/b"), Bytes::new()).unwrap();
        for bad in ["a", "a/b/c", "a/b/c/d"] {
            assert_eq!(
                store.put_new(&key(bad), Bytes::new()).unwrap_err().kind(),
                StoreErrorKind::InvalidKey,
                "{bad} in {store:?}"
            );
        }
    }
}

#[test]
fn sorts_errors_by_what_to_do_next() {
    for (errno, wanted) in [
        (Errno::NOSPC, StoreErrorKind::NoSpace),
        (Errno::DQUOT, StoreErrorKind::NoSpace),
        (Errno::ACCESS, StoreErrorKind::Denied),
        (Errno::ROFS, StoreErrorKind::Denied),
        (Errno::STALE, StoreErrorKind::Unavailable),
        (Errno::IO, StoreErrorKind::Io),
    ] {
        assert_eq!(super::errno::kind(errno), wanted, "{errno:?}");
    }
}

#[test]
fn a_full_or_read_only_filesystem_is_told_as_such() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: mounting a small filesystem needs root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let data = c"size=1m,mode=700";
    if let Err(e) = rustix::mount::mount("tmpfs", folder.path(), "tmpfs", rustix::mount::MountFlags::empty(), data) {
        println!("skipped: cannot mount a small filesystem: {e}");
        return;
    }
    let store = open(folder.path());
    let full = store.put_new(&key("packs/large"), Bytes::from(vec![7_u8; 4 << 20])).map_err(|e| e.kind());
    let after = store.put_new(&key("packs/small"), Bytes::from_static(b"x")).map_err(|e| e.kind());
    let left = temporaries(folder.path()).len();
    let read_only = rustix::mount::mount_remount(folder.path(), rustix::mount::MountFlags::RDONLY, data);
    let denied = open(folder.path()).put_new(&key("packs/b"), Bytes::from_static(b"x")).map_err(|e| e.kind());
    let listed = open(folder.path()).list("", None, 10).map(|page| page.entries.len()).map_err(|e| e.kind());
    rustix::mount::unmount(folder.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!(full, Err(StoreErrorKind::NoSpace));
    assert_eq!((after, left), (Ok(Put::Created), 0), "the torn file must not keep the room");
    assert_eq!((read_only.is_ok(), denied, listed), (true, Err(StoreErrorKind::Denied), Ok(1)));
}

#[test]
fn an_object_cut_short_is_truncated() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.put_new(&key("packs/a"), Bytes::from(vec![1; 100])).unwrap();
    std::fs::OpenOptions::new().write(true).open(folder.path().join("packs/a")).unwrap().set_len(60).unwrap();
    assert_eq!(store.get_range(&key("packs/a"), 50, 50).unwrap_err().kind(), StoreErrorKind::Truncated);
    assert_eq!(store.get_range(&key("packs/a"), 0, 60).unwrap().len(), 60);
}

#[test]
fn racing_processes_of_one_folder_agree() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let name = key(&format!("snapshots/{round}"));
        let created: usize = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..8_u8)
                .map(|n| {
                    let (name, path) = (&name, folder.path());
                    scope.spawn(move || open(path).put_new(name, Bytes::from(vec![n; 100])).unwrap() == Put::Created)
                })
                .collect();
            racers.into_iter().map(|racer| usize::from(racer.join().unwrap())).sum()
        });
        assert_eq!(created, 1, "round {round}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn lists_as_a_sorted_map_does(
        names in proptest::collection::vec("[ab.0_-]{1,3}(/[ab.0_-]{1,3}){0,2}", 0..25),
        prefix in "[ab0/.]{0,3}",
        after in "[ab0][ab0/.]{0,3}",
        limit in 1_usize..7,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut local = open(folder.path());
        local.calls.sync = |_| Ok(());
        let memory = crate::MemoryStore::new();
        let mut model = BTreeMap::new();
        for name in names {
            let Ok(name) = Key::new(name) else { continue };
            let body = Bytes::from(vec![0; name.as_str().len()]);
            let put = memory.put_new(&name, body.clone());
            prop_assert_eq!(put.is_ok(), local.put_new(&name, body).is_ok());
            if let Ok(Put::Created) = put {
                model.insert(name.as_str().to_owned(), name.as_str().len() as u64);
            }
        }
        for store in [&local as &dyn Store, &memory] {
            let all: Vec<(String, u64)> =
                suite::list_all(store, "", limit).unwrap().into_iter().map(|e| (e.key.to_string(), e.size_bytes)).collect();
            prop_assert_eq!(&all, &model.clone().into_iter().collect::<Vec<_>>());
            if let (Ok(()), Ok(after)) = (Key::check_prefix(&prefix), Key::new(after.clone())) {
                let page = store.list(&prefix, Some(&after), limit).unwrap();
                let rest: Vec<&String> = model.keys().filter(|k| k.as_str() > after.as_str() && k.starts_with(&prefix)).collect();
                let got: Vec<String> = page.entries.iter().map(|e| e.key.to_string()).collect();
                prop_assert_eq!(got.iter().collect::<Vec<_>>(), rest.iter().copied().take(limit).collect::<Vec<_>>());
                prop_assert_eq!(page.more, rest.len() > limit);
            }
        }
    }
}
