//! Files of a few bytes that shrink to fewer: what is kept of each until it is indexed, and what its pack says of it, is more than the file. A
//! process of its own: what it measures is its own peak.

mod common;

use common::memory::{anonymous_bytes, peak_while};
use common::pruned::prune;
use common::{backup_options, init, open};
use longshore_engine::backup;
use longshore_engine::check::{self, CheckOptions};
use longshore_engine::job::Job;
use longshore_engine::prune::PruneOptions;
use longshore_engine::volume::made_up::MadeUpFs;
use longshore_format::envelope::Codec;
use longshore_store::{LocalSettings, LocalStore, Store};
use std::path::Path;
use std::sync::Arc;

const DIRECTORIES: u64 = 300;
const FILES: u64 = 1000;
/// Beyond what the process has before. Measured: 45 MiB; 93 where no pack is closed for the number of its chunks.
const BOUND_BYTES: u64 = 70 << 20;
/// Where a pack is closed, and a frame more.
const PACK_CHUNKS_MAX: usize = (16 + 4) << 10;
/// What a prune makes of small packs.
const MERGED_BYTES: usize = 4 << 20;
/// The last frame of one.
const FRAME_BYTES_MAX: usize = 512 << 10;

#[test]
fn tiny_files_take_no_more_memory_than_others_and_their_packs_are_merged_once() {
    let folders = tempfile::tempdir().unwrap();
    let fs = MadeUpFs::default();
    let volume = fs.root().create_dir(b"source").unwrap();
    for d in 0..DIRECTORIES {
        let directory = volume.create_dir(format!("d{d:04}").as_bytes()).unwrap();
        for n in 0..FILES {
            fs.create_seeded_file(&*directory, format!("{n:04}").as_bytes(), d * FILES + n, 8).unwrap();
        }
    }
    let store = LocalStore::open(folders.path().join("store"), LocalSettings { create: true, ..LocalSettings::default() });
    let store: Arc<dyn Store> = Arc::new(store.unwrap());
    let repository = init(Arc::clone(&store));
    let before = anonymous_bytes();
    let (summary, peak) = peak_while(|| {
        let mut options = backup_options(Path::new("/source"), 2);
        options.memory_budget_bytes = 64 << 20;
        backup::run(&repository, &fs, &Arc::new(Job::new()), &options).unwrap()
    });
    assert_eq!((summary.exit_code, summary.counts.files_new), (0, DIRECTORIES * FILES), "{:?}", summary.lost);
    eprintln!("peak in MiB: {}", (peak - before) >> 20);
    assert!(peak - before < BOUND_BYTES, "peak={peak}, before={before}");
    let packs = || -> Vec<(u64, usize)> {
        let repository = open(Arc::clone(&store)).unwrap();
        let (index, mut codec) = (repository.load_index(&Job::new()).unwrap(), Codec::new().unwrap());
        let mut chunks = |name, size| -> usize {
            let (_, frames) = repository.pack_header(name, size, &mut codec).unwrap();
            frames.iter().map(|frame| frame.chunks.len()).sum()
        };
        index.pack_sizes().iter().map(|(name, size)| (*size, chunks(*name, *size))).collect()
    };
    let sent = packs();
    assert!(sent.len() > 15 && sent.iter().all(|(_, chunks)| *chunks <= PACK_CHUNKS_MAX), "{sent:?}");
    let options = PruneOptions { pack_size_bytes: MERGED_BYTES, ..PruneOptions::default() };
    let report = prune(&repository, &options).unwrap();
    assert!(report.packs_repacked > 10, "{report:?}");
    let merged = packs();
    assert!(merged.iter().all(|(size, _)| *size <= (MERGED_BYTES + FRAME_BYTES_MAX) as u64), "{merged:?}");
    let all = |packs: &[(u64, usize)]| packs.iter().map(|(_, chunks)| chunks).sum::<usize>();
    assert_eq!(all(&merged), all(&sent));
    let again = prune(&repository, &options).unwrap();
    assert_eq!((again.packs_repacked, again.packs_deleted), (0, 0), "merged is merged: {again:?}");
    let options = CheckOptions { read_percent: 100, ..CheckOptions::default() };
    let report = check::run(&repository, &Arc::new(Job::new()), &options).unwrap();
    assert_eq!((report.errors, report.warnings, report.packs), (0, 0, merged.len() as u64), "{:?}", report.findings);
}
