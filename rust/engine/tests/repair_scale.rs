//! A million chunks and forty snapshots checked, verified, checked and repaired after damage and pruned, in bounded memory. A process of its own:
//! what it measures is its own peak.

mod common;

use common::pruned::prune;
use common::scale::{BOUND_BYTES, OnDisk, peak_bytes};
use common::write;
use longshore_engine::check::{self, CheckOptions};
use longshore_engine::job::Job;
use longshore_engine::prune::PruneOptions;
use longshore_engine::repair::{self, RepairOptions};
use longshore_engine::repository::reader::ChunkReader;
use longshore_format::envelope::{Codec, Compression};
use longshore_format::id::{ChunkKind, PackName, SessionId};
use longshore_format::index::{SegmentBuilder, index_key};
use longshore_format::pack::{BirthName, PackWriter};
use longshore_format::snapshot::Snapshot;
use longshore_format::tree::{Entry, Item, Node};
use longshore_format::usage::{Usage, usage_key};
use longshore_store::Key;
use std::sync::Arc;

const PACKS: u32 = 1000;
const FRAMES: u32 = 100;
const CHUNKS: u32 = 10;
const CHUNK_BYTES: usize = 16;
const SNAPSHOTS: u32 = 40;

#[test]
fn a_million_chunks_and_forty_snapshots_are_checked_repaired_and_pruned_within_two_hundred_megabytes() {
    let volume = tempfile::tempdir().unwrap();
    write(&volume.path().join("file"), b"content");
    let disk = OnDisk::new(volume.path());
    let (repository, store, model) = (&disk.repository, &disk.store, &disk.model);
    let job = Arc::new(Job::new());
    let reader = ChunkReader::new(repository.clone(), Arc::new(repository.load_index(&job).unwrap()), job, 1 << 20);
    let file = reader.entry_at(&model.root, b"file").unwrap();
    let (mut codec, world) = (Codec::new().unwrap(), repository.world().clone());
    // A file a pack: its chunks in ten a frame, and the list that names them in a pack of trees.
    let session = SessionId([7; 16]);
    let name = |number: u32| PackName { session, number };
    let mut trees = PackWriter::new(repository.keys(), name(PACKS), world.salt(), Vec::new()).unwrap();
    let (mut builder, mut segments, mut entries) = (SegmentBuilder::new(), Vec::new(), Vec::new());
    let mut scratch = Vec::new();
    for number in 0..PACKS {
        let mut pack = PackWriter::new(repository.keys(), name(number), world.salt(), Vec::new()).unwrap();
        let mut list = Vec::new();
        for frame in 0..FRAMES {
            let mut payload = Vec::new();
            let mut chunks = Vec::new();
            for chunk in 0..CHUNKS {
                let mut bytes = [0; CHUNK_BYTES];
                bytes[..12].copy_from_slice(&[number.to_le_bytes(), frame.to_le_bytes(), chunk.to_le_bytes()].concat());
                let id = repository.keys().chunk_id(ChunkKind::Data, &bytes);
                Item::Data { span: CHUNK_BYTES as u64, id }.encode(&mut list);
                payload.extend_from_slice(&bytes);
                chunks.push((id, CHUNK_BYTES as u32));
            }
            pack.push(ChunkKind::Data, &payload, chunks, Compression::None, &mut codec).unwrap();
        }
        let done = pack.finish(&mut codec).unwrap();
        builder.add_pack(done.name, done.salt, done.bytes.len() as u64, &done.frames);
        disk.put(done.name.key(), done.bytes);
        if builder.chunks() >= 64 << 10 || number == PACKS - 1 {
            segments.push(disk.put_segment(std::mem::take(&mut builder), &mut codec));
        }
        let id = repository.keys().chunk_id(ChunkKind::List, &list);
        let size_bytes = u64::from(FRAMES * CHUNKS) * CHUNK_BYTES as u64;
        let node = Node::File { size_bytes, content: vec![Item::List { span: size_bytes, id }] };
        let length = list.len() as u32;
        trees.push(ChunkKind::List, &list, vec![(id, length)], Compression::None, &mut codec).unwrap();
        Entry { name: format!("{number:05}").into_bytes(), node, ..file.clone() }.encode(&mut scratch, &mut entries);
    }
    let id = repository.keys().chunk_id(ChunkKind::Tree, &entries);
    let length = entries.len() as u32;
    trees.push(ChunkKind::Tree, &entries, vec![(id, length)], Compression::None, &mut codec).unwrap();
    let done = trees.finish(&mut codec).unwrap();
    let mut builder = SegmentBuilder::new();
    builder.add_pack(done.name, done.salt, done.bytes.len() as u64, &done.frames);
    disk.put(done.name.key(), done.bytes);
    disk.put_segment(builder, &mut codec);
    let root =
        Entry { node: Node::Directory { content: vec![Item::Piece { span: u64::from(PACKS), id }] }, ..model.root.clone() };
    let (mut tables, mut builder) = (Vec::new(), SegmentBuilder::new());
    for number in 0..SNAPSHOTS {
        // Tables may name more than is needed: each names something that the others do not.
        let mut usage = Usage::new();
        usage.insert(BirthName { pack: PackName { session: SessionId([number as u8 + 100; 16]), number: 0 }, ordinal: 0 });
        let mut own = PackWriter::new(
            repository.keys(),
            PackName { session: SessionId([number as u8 + 100; 16]), number: 0 },
            world.salt(),
            Vec::new(),
        )
        .unwrap();
        let bytes = number.to_le_bytes();
        let chunk = repository.keys().chunk_id(ChunkKind::Data, &bytes);
        own.push(ChunkKind::Data, &bytes, vec![(chunk, 4)], Compression::None, &mut codec).unwrap();
        let done = own.finish(&mut codec).unwrap();
        builder.add_pack(done.name, done.salt, done.bytes.len() as u64, &done.frames);
        disk.put(done.name.key(), done.bytes);
        for pack in 0..PACKS {
            (0..FRAMES).for_each(|ordinal| usage.insert(BirthName { pack: name(pack), ordinal }));
        }
        (0..=PACKS).for_each(|ordinal| usage.insert(BirthName { pack: name(PACKS), ordinal }));
        let made = SessionId([number as u8 + 100; 16]);
        let (table, bytes) = usage.encode(repository.keys(), made, world.salt(), &mut codec).unwrap();
        disk.put(usage_key(table), bytes);
        tables.push(table);
        let snapshot = Snapshot { nonce: [number as u8; 16], usage: vec![table], root: root.clone(), ..model.clone() };
        disk.put_snapshot(made, snapshot, &mut codec);
    }
    disk.put_segment(builder, &mut codec);
    let within = |what: &str| {
        println!("peak after {what}: {} MiB", peak_bytes() >> 20);
        assert!(peak_bytes() < BOUND_BYTES, "{what}: peak_bytes={}", peak_bytes());
    };
    drop(reader);
    within("making it");
    let how = CheckOptions { memory_budget_bytes: 128 << 20, fresh: true, ..CheckOptions::default() };
    let looked = check::run(repository, &Arc::new(Job::new()), &how).unwrap();
    assert_eq!((looked.exit_code, looked.snapshots), (0, u64::from(SNAPSHOTS) + 1), "{:?}", looked.findings);
    within("a check of what is listed");
    let read = check::run(repository, &Arc::new(Job::new()), &CheckOptions { read_percent: 100, ..how.clone() }).unwrap();
    assert!(read.exit_code == 0 && read.frames_read > u64::from(PACKS * FRAMES), "{:?}", read.findings);
    within("a check of every byte");
    let verified = check::verify_snapshot(repository, SessionId([100; 16]), true, &Arc::new(Job::new()), &how).unwrap();
    assert!(verified.exit_code == 0 && verified.frames_read >= u64::from(PACKS * FRAMES), "{:?}", verified.findings);
    within("a verify of a snapshot");
    // Two packs gone, the header of a third damaged, two segments gone and one damaged, a table gone.
    for number in [5, 500] {
        store.delete(&Key::new(name(number).key()).unwrap()).unwrap();
    }
    let damage = |text: String| {
        let at = Key::new(text).unwrap();
        let mut bytes = store.get(&at, 1 << 30).unwrap().to_vec();
        let end = bytes.len() - 40;
        bytes[end] ^= 1;
        store.delete(&at).unwrap();
        store.put_new(&at, bytes.into()).unwrap();
    };
    damage(name(7).key());
    damage(index_key(segments[3]));
    for segment in [segments[8], segments[9]] {
        store.delete(&Key::new(index_key(segment)).unwrap()).unwrap();
    }
    store.delete(&Key::new(usage_key(tables[11])).unwrap()).unwrap();
    let hurt = check::run(repository, &Arc::new(Job::new()), &how).unwrap();
    assert_eq!((hurt.exit_code, hurt.items_hurt), (4, u64::from(2 * SNAPSHOTS)), "{:?}", hurt.findings);
    // All chunks once, and for each snapshot the two files that are hurt.
    let all = u64::from(PACKS * FRAMES * CHUNKS);
    assert!((all..all + all / 5).contains(&hurt.lookups), "{} look-ups", hurt.lookups);
    within("a check of what is damaged");
    let report = repair::run(repository, &Arc::new(Job::new()), &RepairOptions::default()).unwrap();
    assert_eq!(
        (report.exit_code, report.snapshots, report.snapshots_touched),
        (4, u64::from(SNAPSHOTS) + 1, u64::from(SNAPSHOTS))
    );
    assert_eq!((report.items_hurt, report.tables_rebuilt), (u64::from(2 * SNAPSHOTS), 1), "{:?}", report.findings);
    assert_eq!((report.chunks_missing, report.frames_moved), (u64::from(2 * FRAMES * CHUNKS), u64::from(FRAMES)));
    assert!(report.packs_indexed > 150 && report.segments_deleted > 0, "{report:?}");
    within("a repair");
    let pruned =
        prune(repository, &PruneOptions { waste_percent: 100, pack_size_bytes: 128, ..PruneOptions::default() }).unwrap();
    // The pack without a header, and what only the lost table named: no tree does.
    assert_eq!((pruned.exit_code, pruned.packs_deleted), (0, 2), "{:?}", pruned.kept);
    within("a prune");
}
