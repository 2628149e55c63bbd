//! How checks read packs: by several threads at once, and within their bytes.

#![expect(clippy::unwrap_used, reason = "a test makes its own files and may fail loudly")]

mod common;

use common::watched::{Seen, Watched};
use common::{init, open};
use longshore_engine::check::{self, CheckOptions};
use longshore_engine::job::Job;
use longshore_engine::repair::{self, RepairOptions};
use longshore_format::envelope::{Codec, Compression};
use longshore_format::id::{ChunkKind, PackName, RandomName, SessionId};
use longshore_format::index::{SegmentBuilder, index_key, seal_segment};
use longshore_format::pack::PackWriter;
use longshore_store::{Key, MemoryStore, Store};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

const MIB: usize = 1 << 20;

/// A repository of packs with frames of one chunk each, that no snapshot needs: theirs was deleted.
fn packs(count: u32, frames: usize, frame_bytes: usize) -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::new());
    let repository = init(Arc::clone(&store) as _);
    let (mut codec, world) = (Codec::new().unwrap(), repository.world().clone());
    let mut builder = SegmentBuilder::new();
    for number in 0..count {
        let name = PackName { session: SessionId([7; 16]), number };
        let mut pack = PackWriter::new(repository.keys(), name, world.salt(), Vec::new()).unwrap();
        for frame in 0..frames {
            let mut payload = vec![0; frame_bytes];
            payload[..8].copy_from_slice(&(u64::from(number) << 32 | frame as u64).to_le_bytes());
            let chunk = (repository.keys().chunk_id(ChunkKind::Data, &payload), frame_bytes as u32);
            pack.push(ChunkKind::Data, &payload, vec![chunk], Compression::None, &mut codec).unwrap();
        }
        let done = pack.finish(&mut codec).unwrap();
        builder.add_pack(done.name, done.salt, done.bytes.len() as u64, &done.frames);
        store.put_new(&Key::new(done.name.key()).unwrap(), done.bytes.into()).unwrap();
    }
    let segment = RandomName(world.random16());
    let sealed = seal_segment(repository.keys(), segment, world.salt(), &builder.payload().unwrap(), &mut codec).unwrap();
    store.put_new(&Key::new(index_key(segment)).unwrap(), sealed.into()).unwrap();
    repository.remove_snapshot(SessionId([7; 16]), "test").unwrap();
    store
}

/// Checks, and tells what was seen; readers wait until `meet` of them are there at once.
fn checked(store: &Arc<MemoryStore>, workers: usize, budget_bytes: usize, meet: usize) -> Arc<Seen> {
    let watched = Watched::new(Arc::clone(store) as _, meet);
    let seen = Arc::clone(&watched.seen);
    let options = CheckOptions { read_percent: 100, workers, memory_budget_bytes: budget_bytes, ..CheckOptions::default() };
    let report = check::run(&open(Arc::new(watched)).unwrap(), &Arc::new(Job::new()), &options).unwrap();
    assert_eq!((report.exit_code, report.errors), (0, 0), "{:?}", report.findings);
    assert!(report.frames_read > 0);
    assert_eq!(seen.held_bytes.load(SeqCst), 0, "nothing is held when it is over");
    seen
}

#[test]
fn packs_are_read_by_as_many_threads_as_the_budget_feeds() {
    let store = packs(12, 8, 64 << 10);
    // What two processors get by default is enough for four.
    for (workers, budget, at_once) in [(2, 96, 2), (4, 96, 4), (8, 96, 4), (4, 24, 1), (4, 1, 1), (0, 96, 1)] {
        let seen = checked(&store, workers, budget * MIB, at_once);
        assert_eq!(seen.readers_max.load(SeqCst), at_once, "workers={workers}, budget={budget} MiB");
    }
    // A repair reads by the same hands.
    let watched = Watched::new(Arc::clone(&store) as _, 3);
    let seen = Arc::clone(&watched.seen);
    let options = RepairOptions { read_data: true, workers: 3, memory_budget_bytes: 96 * MIB, ..RepairOptions::default() };
    repair::run(&open(Arc::new(watched)).unwrap(), &Arc::new(Job::new()), &options).unwrap();
    assert_eq!(seen.readers_max.load(SeqCst), 3);
}

#[test]
fn a_long_pack_costs_a_range_for_each_thread() {
    let store = packs(4, 160, 256 << 10);
    let seen = checked(&store, 4, 96 * MIB, 4);
    let (held, range) = (seen.held_bytes_max.load(SeqCst) as usize, 8 * MIB);
    assert!(held <= 4 * (range + MIB), "held_bytes={held}");
    assert!(held > range, "held_bytes={held}: it reads in ranges that are worth a request");
}

#[test]
fn packs_with_the_largest_frames_are_read_one_at_a_time() {
    let store = packs(3, 2, 16 * MIB - 64);
    let seen = checked(&store, 4, 96 * MIB, 0);
    // Headers may be read beside; of frames there is one, and never a second.
    let held = seen.held_bytes_max.load(SeqCst) as usize;
    assert!((16 * MIB - 64..20 * MIB).contains(&held), "held_bytes={held}");
}
