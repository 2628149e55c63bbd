//! A prune that moves every one of a million needed chunks, without a local cache, in bounded memory. A process of its own: what it
//! measures is its own peak.

mod common;

use common::pruned::prune;
use common::scale::{BOUND_BYTES, OnDisk, peak_bytes};
use longshore_engine::prune::PruneOptions;
use longshore_format::envelope::{Codec, Compression};
use longshore_format::id::{ChunkKind, PackName, SessionId};
use longshore_format::index::SegmentBuilder;
use longshore_format::pack::{BirthName, PackWriter};
use longshore_format::snapshot::Snapshot;
use longshore_format::usage::{Usage, usage_key};

const PACKS: u32 = 1000;
/// Of each pack: every other frame is needed.
const FRAMES: u32 = 2000;
const SNAPSHOTS: u8 = 40;

#[test]
fn a_million_chunks_out_of_half_dead_packs_are_moved_within_two_hundred_megabytes() {
    let volume = tempfile::tempdir().unwrap();
    let disk = OnDisk::new(volume.path());
    let (repository, model) = (&disk.repository, &disk.model);
    let (mut codec, world) = (Codec::new().unwrap(), repository.world().clone());
    let name = |number: u32| PackName { session: SessionId([7; 16]), number };
    let mut builder = SegmentBuilder::new();
    for number in 0..PACKS {
        let mut pack = PackWriter::new(repository.keys(), name(number), world.salt(), Vec::new()).unwrap();
        for ordinal in 0..FRAMES {
            let chunk = (number * FRAMES + ordinal).to_le_bytes();
            let id = repository.keys().chunk_id(ChunkKind::Data, &chunk);
            pack.push(ChunkKind::Data, &chunk, vec![(id, 4)], Compression::None, &mut codec).unwrap();
        }
        let done = pack.finish(&mut codec).unwrap();
        builder.add_pack(done.name, done.salt, done.bytes.len() as u64, &done.frames);
        disk.put(done.name.key(), done.bytes);
        if builder.chunks() >= 64 << 10 || number == PACKS - 1 {
            disk.put_segment(std::mem::take(&mut builder), &mut codec);
        }
    }
    let mut usage = Usage::new();
    for pack in 0..PACKS {
        (0..FRAMES).step_by(2).for_each(|ordinal| usage.insert(BirthName { pack: name(pack), ordinal }));
    }
    let (table, bytes) = usage.encode(repository.keys(), SessionId([100; 16]), world.salt(), &mut codec).unwrap();
    disk.put(usage_key(table), bytes);
    for number in 0..SNAPSHOTS {
        let made = SessionId([number + 100; 16]);
        let snapshot = Snapshot { nonce: [number; 16], usage: vec![table], ..model.clone() };
        disk.put_snapshot(made, snapshot, &mut codec);
    }
    let before = peak_bytes();
    let options = PruneOptions { waste_percent: 40, pack_size_bytes: 64 << 10, ..PruneOptions::default() };
    let report = prune(repository, &options).unwrap();
    println!("peak before: {} MiB, after: {} MiB, {:.1} s", before >> 20, peak_bytes() >> 20, report.seconds);
    assert_eq!((report.packs_repacked, report.packs_deleted), (u64::from(PACKS), u64::from(PACKS)), "{:?}", report.kept);
    assert!(report.bytes_moved > u64::from(PACKS * FRAMES / 2) * 20, "{}", report.bytes_moved);
    assert!(peak_bytes() < BOUND_BYTES, "peak_bytes={}", peak_bytes());
    // And nothing was lost on the way: all that is needed lies in what is left.
    let again = prune(repository, &PruneOptions { dry_run: true, ..options }).unwrap();
    assert_eq!((again.exit_code, again.packs_deleted), (0, 0), "{:?}", again.kept);
}
