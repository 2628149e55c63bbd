//! Readers beside one who moves frames into other packs and deletes the old ones, as a prune does: nothing is lost and nobody is blamed.

#![allow(clippy::unwrap_used, reason = "a test makes its own files and may fail loudly")]

mod common;

use bytes::Bytes;
use common::{assert_same, back_up, init, noise, open, write};
use longshore_engine::check::{CheckOptions, run, verify_snapshot};
use longshore_engine::job::Job;
use longshore_engine::repository::Repository;
use longshore_engine::restore::{self, RestoreOptions};
use longshore_engine::seams::World;
use longshore_engine::volume::LinuxFs;
use longshore_format::envelope::Codec;
use longshore_format::id::{PackName, RandomName};
use longshore_format::index::{SegmentBuilder, index_key, seal_segment};
use longshore_format::pack::PackWriter;
use longshore_store::layers::{Call, Effect, Fault, Verb};
use longshore_store::{Key, MemoryStore, Store};
use std::sync::{Arc, Mutex};

/// Moves every frame of every pack into packs of another session, in the order of a prune: packs, index, deletions.
fn move_all(store: &MemoryStore) {
    let repository = open(Arc::new(store.fork())).unwrap();
    let (world, mut codec) = (World::system(), Codec::new().unwrap());
    let (session, mut segment, mut dead) = (world.session(), SegmentBuilder::new(), Vec::new());
    for (number, entry) in store.list("packs/", None, 1000).unwrap().entries.into_iter().enumerate() {
        let name = PackName::from_text(entry.key.as_str().strip_prefix("packs/").unwrap()).unwrap();
        let (_, frames) = repository.pack_header(name, entry.size_bytes, &mut codec).unwrap();
        let name = PackName { session, number: number as u32 };
        let mut pack = PackWriter::new(repository.keys(), name, world.salt(), Vec::new()).unwrap();
        for frame in &frames {
            let stored = store.get_range(&entry.key, frame.offset_bytes, u64::from(frame.stored_bytes)).unwrap();
            pack.push_moved(frame, &stored).unwrap();
        }
        let done = pack.finish(&mut codec).unwrap();
        segment.add_pack(done.name, done.salt, done.bytes.len() as u64, &done.frames);
        store.put_new(&Key::new(done.name.key()).unwrap(), Bytes::from(done.bytes)).unwrap();
        dead.push(entry.key);
    }
    for entry in store.list("index/", None, 1000).unwrap().entries {
        segment.replaces(RandomName::from_hex(entry.key.as_str().strip_prefix("index/").unwrap()).unwrap());
        dead.insert(0, entry.key);
    }
    let name = world.name();
    let sealed = seal_segment(repository.keys(), name, world.salt(), &segment.payload().unwrap(), &mut codec).unwrap();
    store.put_new(&Key::new(index_key(name)).unwrap(), Bytes::from(sealed)).unwrap();
    dead.iter().for_each(|key| store.delete(key).unwrap());
}

/// The repository, all of whose frames move before each of these reads of a range.
fn moving(store: &MemoryStore, before: &'static [u64]) -> Repository {
    let store = Arc::new(store.fork());
    let (moved, turn) = (Arc::clone(&store), Mutex::new(()));
    let plan = move |call: &Call<'_>| {
        if call.verb == Verb::GetRange && before.contains(&call.nth) {
            let _one_at_a_time = turn.lock().unwrap();
            move_all(&moved);
        }
        Effect::Pass
    };
    open(Arc::new(Fault::new(store, plan))).unwrap()
}

#[test]
fn frames_that_move_while_they_are_read_are_found_where_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    for dir in 0..3u64 {
        let path = source.join(format!("d{dir}"));
        std::fs::create_dir_all(&path).unwrap();
        for file in 0..20 {
            write(&path.join(format!("f{file}")), &noise(dir * 100 + file, 30_000));
        }
    }
    write(&source.join("large"), &noise(7, 20 << 20));
    let store = Arc::new(MemoryStore::new());
    let snapshot = back_up(&init(Arc::clone(&store) as _), &source);
    for (number, before) in [&[0][..], &[2], &[1, 4], &[2, 3, 5, 7], &[6, 8]].into_iter().enumerate() {
        for workers in [0, 2] {
            let target = folder.path().join(format!("target-{number}-{workers}"));
            let options = RestoreOptions { workers, ..RestoreOptions::new(snapshot, &target) };
            let summary = restore::run(&moving(&store, before), &LinuxFs, &Arc::new(Job::new()), &options).unwrap();
            assert_eq!((summary.exit_code, &summary.losses), (0, &vec![]), "{before:?}, {workers} workers");
            assert_same(&source, &target);
            let options = CheckOptions { workers, read_percent: 100, ..CheckOptions::default() };
            for ids in [false, true] {
                let job = Arc::new(Job::new());
                let report = verify_snapshot(&moving(&store, before), snapshot, ids, &job, &options).unwrap();
                assert_eq!((report.exit_code, &report.findings), (0, &vec![]), "{before:?}, {workers} workers");
            }
            let report = run(&moving(&store, before), &Arc::new(Job::new()), &options).unwrap();
            assert_eq!((report.exit_code, report.errors), (0, 0), "{before:?}, {workers} workers: {:?}", report.findings);
        }
    }
}
