//! A prune of a million chunks and forty snapshots, in bounded memory. A process of its own: what it measures is its own peak.

mod common;

use common::pruned::{names, prune};
use common::scale::{BOUND_BYTES, OnDisk, peak_bytes};
use longshore_engine::prune::PruneOptions;
use longshore_format::envelope::Codec;
use longshore_format::id::{ChunkId, ChunkKind, PackName, SessionId};
use longshore_format::index::SegmentBuilder;
use longshore_format::pack::{BirthName, Frame};
use longshore_format::snapshot::Snapshot;
use longshore_format::usage::{Usage, usage_key};

const PACKS: u32 = 1000;
const FRAMES: u32 = 1000;
const SNAPSHOTS: u32 = 40;

#[test]
fn a_million_chunks_and_forty_snapshots_are_pruned_within_two_hundred_megabytes() {
    let volume = tempfile::tempdir().unwrap();
    let disk = OnDisk::new(volume.path());
    let (repository, model) = (&disk.repository, &disk.model);
    let mut codec = Codec::new().unwrap();
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
        disk.put(name(number).key(), vec![number as u8; 64]);
        if builder.chunks() >= 64 << 10 || number == PACKS - 1 {
            disk.put_segment(std::mem::take(&mut builder), &mut codec);
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
        if names(&*disk.store, &usage_key(table)).is_empty() {
            disk.put(usage_key(table), bytes);
        }
        let snapshot = Snapshot { nonce: [number as u8; 16], usage: vec![table], ..model.clone() };
        disk.put_snapshot(made, snapshot, &mut codec);
    }
    let before = peak_bytes();
    let report =
        prune(repository, &PruneOptions { waste_percent: 100, pack_size_bytes: 128, ..PruneOptions::default() }).unwrap();
    assert_eq!(report.snapshots, u64::from(SNAPSHOTS) + 1);
    assert_eq!(report.packs_deleted, u64::from(PACKS) / 10, "{:?}", report.kept);
    println!("peak before: {} MiB, after: {} MiB, {:.1} s", before >> 20, peak_bytes() >> 20, report.seconds);
    assert!(peak_bytes() < BOUND_BYTES, "peak_bytes={}", peak_bytes());
}
