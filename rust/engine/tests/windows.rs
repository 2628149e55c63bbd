//! A large file is read and cut by whoever is free, and cut where one who reads it from end to end would cut it.

#![expect(clippy::unwrap_used, reason = "a test makes its own files and may fail loudly")]

mod common;

use common::{backup_options, init, noise};
use longshore_engine::backup::{self, BackupOptions, ParentChoice};
use longshore_engine::chunker::{Cutters, Profile, ZERO_BLOCK_BYTES, is_zero};
use longshore_engine::job::Job;
use longshore_engine::repository::Repository;
use longshore_engine::repository::reader::ChunkReader;
use longshore_engine::volume::made_up::MadeUpFs;
use longshore_format::config::Cut;
use longshore_format::id::ChunkKind;
use longshore_format::snapshot::public_id;
use longshore_format::tree::{Item, Node, Owner};
use longshore_store::MemoryStore;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

const MIB: usize = 1 << 20;

fn options(workers: usize) -> BackupOptions {
    let roomy = BackupOptions { memory_budget_bytes: 512 << 20, ..backup_options(Path::new("/source"), workers) };
    BackupOptions { parent: ParentChoice::None, ..roomy }
}

/// What a file consists of, by a reader who has all of it: docs/format.md chapter 14.
fn by_the_book(repository: &Repository, profile: Profile, bytes: &[u8]) -> Vec<Item> {
    let cutters = Cutters::new(repository.keys(), Cut::default()).unwrap();
    let is_hole = |at: usize| {
        let end = (at + ZERO_BLOCK_BYTES).min(bytes.len());
        is_zero(&bytes[at..end])
    };
    let (mut items, mut at) = (Vec::<Item>::new(), 0);
    while at < bytes.len() {
        if at.is_multiple_of(ZERO_BLOCK_BYTES) && is_hole(at) {
            let more = ZERO_BLOCK_BYTES.min(bytes.len() - at) as u64;
            match items.last_mut() {
                Some(Item::Zeros { span }) => *span += more,
                _ => items.push(Item::Zeros { span: more }),
            }
            at += more as usize;
            continue;
        }
        let mut block = at.next_multiple_of(ZERO_BLOCK_BYTES);
        while block < bytes.len() && !is_hole(block) {
            block += ZERO_BLOCK_BYTES;
        }
        let length = cutters.first(profile, &bytes[at..block.min(bytes.len())], at as u64, true);
        items.push(Item::Data { id: repository.keys().chunk_id(ChunkKind::Data, &bytes[at..at + length]), span: length as u64 });
        at += length;
    }
    items
}

fn items_of(repository: &Repository, fs: &MadeUpFs, workers: usize) -> Vec<Item> {
    let job = Arc::new(Job::new());
    let summary = backup::run(repository, fs, &job, &options(workers)).unwrap();
    assert_eq!((summary.exit_code, summary.changed.len()), (0, 0));
    let root = repository.find_snapshot(&public_id(summary.snapshot.unwrap()), None).unwrap().snapshot.root.clone();
    let reader = ChunkReader::new(repository.clone(), Arc::new(repository.load_index(&job).unwrap()), job, 8 << 20);
    let file = reader.entry_at(&root, b"file").unwrap();
    let content = if let Node::File { content, .. } = &file.node { &content[..] } else { &[] };
    let mut items = Vec::new();
    reader
        .for_each_item(content, Owner::File, &mut |item| {
            items.push(*item);
            Ok(true)
        })
        .unwrap();
    items
}

#[test]
fn whoever_takes_part_cuts_a_file_where_one_reader_would() {
    let mut whole = noise(1, 23 * MIB + 4711);
    // Zeros over the end of a window, exactly up to one, in the midst of one, and where a chunk of the largest size would lie.
    for (from, to) in [(2 * MIB - 100_000, 2 * MIB + 300_000), (6 * MIB - (128 << 10), 6 * MIB), (9 * MIB + 1, 9 * MIB + 200_001)]
    {
        whole[from..to].fill(0);
    }
    // Where nothing cuts: one byte over and over.
    whole[12 * MIB - 777..17 * MIB + 5].fill(0x55);
    let lengths = [4 * MIB + 1, 6 * MIB, 8 * MIB + 1, whole.len()];
    let begun = |mark: &[u8]| [mark, &whole[mark.len()..]].concat();
    let files = lengths.iter().map(|length| (Profile::Usual, whole[..*length].to_vec()));
    let marked = [(Profile::Pages, begun(b"SQLite format 3\0")), (Profile::Media, begun(b"OggS"))];
    for (profile, bytes) in files.chain(marked) {
        let (length, bytes) = (bytes.len(), &bytes[..]);
        let repository = init(Arc::new(MemoryStore::new()));
        let fs = MadeUpFs::default();
        let root = fs.root().create_dir(b"source").unwrap();
        root.create_file(b"file").unwrap().write_at(0, bytes).unwrap();
        let wanted = by_the_book(&repository, profile, bytes);
        assert!(wanted.iter().map(Item::span).sum::<u64>() == length as u64 && wanted.len() > 8);
        for workers in [0, 1, 2, 7] {
            assert!(items_of(&repository, &fs, workers) == wanted, "{profile:?}, {length} bytes, {workers} workers");
        }
    }
}

#[test]
fn one_large_file_is_read_by_all_workers_at_once() {
    const WORKERS: usize = 4;
    const PATIENCE: Duration = Duration::from_secs(30);
    let fs = MadeUpFs::default();
    let root = fs.root().create_dir(b"source").unwrap();
    fs.create_seeded_file(&*root, b"file", 1, 32 * MIB as u64).unwrap();
    let (inside, most) = (Arc::new((Mutex::new((0, false)), Condvar::new())), Arc::new(AtomicUsize::new(0)));
    let met = Arc::clone(&most);
    // Each read waits until all workers are in one; and when that was in vain, no more.
    fs.set_hook(Some(Arc::new(move |call| {
        if call.call == "read file" && call.offset_bytes > 0 {
            let mut now = inside.0.lock().unwrap();
            now.0 += 1;
            met.fetch_max(now.0, SeqCst);
            inside.1.notify_all();
            let few = |now: &mut (usize, bool)| met.load(SeqCst) < WORKERS && !now.1;
            let (mut now, waited) = inside.1.wait_timeout_while(now, PATIENCE, few).unwrap();
            now.0 -= 1;
            now.1 |= waited.timed_out();
        }
        None
    })));
    let repository = init(Arc::new(MemoryStore::new()));
    let summary = backup::run(&repository, &fs, &Arc::new(Job::new()), &options(WORKERS)).unwrap();
    assert_eq!((summary.exit_code, summary.counts.bytes_read), (0, 32 * MIB as u64));
    assert_eq!(most.load(SeqCst), WORKERS, "so many read the file at once");
}
