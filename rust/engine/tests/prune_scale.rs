//! A prune of a million chunks and forty snapshots, in bounded memory. A process of its own: what it measures is its own peak.

#![expect(clippy::unwrap_used, reason = "a test makes its own files and may fail loudly")]

mod common;

use common::init;
use common::pruned::{back_up_alone, names, prune};
use longshore_engine::prune::PruneOptions;
use longshore_format::envelope::Codec;
use longshore_format::id::{ChunkId, ChunkKind, PackName, RandomName, SessionId};
use longshore_format::index::{SegmentBuilder, index_key, seal_segment};
use longshore_format::pack::{BirthName, Frame};
use longshore_format::snapshot::{SnapshotObject, snapshot_key};
use longshore_format::usage::{Usage, usage_key};
use longshore_store::{Key, LocalSettings, LocalStore, Store};
use std::sync::Arc;

const PACKS: u32 = 1000;
const FRAMES: u32 = 1000;
const SNAPSHOTS: u32 = 40;
const BOUND_BYTES: u64 = 200 << 20;

fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn a_million_chunks_and_forty_snapshots_are_pruned_within_two_hundred_megabytes() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::open(folder.path(), LocalSettings { create: true, ..LocalSettings::default() }).unwrap();
    let store: Arc<dyn Store> = Arc::new(store);
    let repository = init(Arc::clone(&store));
    let volume = tempfile::tempdir().unwrap();
    back_up_alone(&repository, volume.path()).unwrap();
    let model = repository.snapshots().unwrap().0.remove(0).snapshot;
    let mut codec = Codec::new().unwrap();
    let put = |text: String, bytes: Vec<u8>| {
        store.put_new(&Key::new(text).unwrap(), bytes.into()).unwrap();
    };
    // One frame a chunk; packs are as long as the index says, and never read.
    let session = SessionId([7; 16]);
    let name = |number: u32| PackName { session, number };
    let mut builder = SegmentBuilder::new();
    for number in 0..PACKS {
        let frames: Vec<Frame> = (0..FRAMES)
            .map(|ordinal| Frame {
                birth: BirthName { pack: name(number), ordinal },
                birth_salt: [number as u8; 32],
                kind: ChunkKind::Data,
                offset_bytes: u64::from(ordinal) * 200_000,
                stored_bytes: 200_000,
                chunks: vec![(ChunkId(*blake3::hash(&(number * FRAMES + ordinal).to_le_bytes()).as_bytes()), 262_144)],
            })
            .collect();
        builder.add_pack(name(number), [number as u8; 32], 64, &frames);
        put(name(number).key(), vec![number as u8; 64]);
        if builder.chunks() >= 64 << 10 || number == PACKS - 1 {
            let segment = RandomName(repository.world().random16());
            let payload = std::mem::take(&mut builder).payload().unwrap();
            put(
                index_key(segment),
                seal_segment(repository.keys(), segment, repository.world().salt(), &payload, &mut codec).unwrap(),
            );
        }
    }
    // Nobody needs the last tenth of the packs.
    for number in 0..SNAPSHOTS {
        let mut usage = Usage::new();
        for pack in 0..PACKS / 10 * 9 {
            for ordinal in (0..FRAMES).filter(|ordinal| (ordinal + number) % 3 != 0) {
                usage.insert(BirthName { pack: name(pack), ordinal });
            }
        }
        let made = SessionId([number as u8 + 100; 16]);
        let (table, bytes) = usage.encode(repository.keys(), made, repository.world().salt(), &mut codec).unwrap();
        if names(&*store, &usage_key(table)).is_empty() {
            put(usage_key(table), bytes);
        }
        let snapshot = longshore_format::snapshot::Snapshot { nonce: [number as u8; 16], usage: vec![table], ..model.clone() };
        let object = SnapshotObject::Committed(Box::new(snapshot));
        put(snapshot_key(made), object.encode(repository.keys(), made, repository.world().salt(), &mut codec).unwrap());
    }
    let before = peak_bytes();
    let report =
        prune(&repository, &PruneOptions { waste_percent: 100, pack_size_bytes: 128, ..PruneOptions::default() }).unwrap();
    assert_eq!(report.snapshots, u64::from(SNAPSHOTS) + 1);
    assert_eq!(report.packs_deleted, u64::from(PACKS) / 10, "{:?}", report.kept);
    println!("peak before: {} MiB, after: {} MiB, {:.1} s", before >> 20, peak_bytes() >> 20, report.seconds);
    assert!(peak_bytes() < BOUND_BYTES, "peak_bytes={}", peak_bytes());
}
