//! Backups with hints of what has changed: they read what a hint names and the chunks around it, and make what any other backup makes; a
//! hint that cannot be relied on changes nothing.

#![expect(clippy::unwrap_used, reason = "a test makes its own files and may fail loudly")]

mod common;

use common::counted::CountedFs;
use common::{backup_options, init, noise};
use longshore_engine::backup::{self, BackupOptions, FileHint, Hints, ParentChoice, Summary};
use longshore_engine::job::Job;
use longshore_engine::repository::Repository;
use longshore_engine::restore::{self, RestoreOptions};
use longshore_engine::volume::made_up::MadeUpFs;
use longshore_engine::volume::{Dir, Time};
use longshore_format::id::SessionId;
use longshore_store::{MemoryStore, Store};
use std::path::Path;
use std::sync::Arc;

const MIB: u64 = 1 << 20;
/// Long after the made-up filesystem's own times.
const TAKEN: i64 = 1_800_000_000_000_000_000;
/// Chunks of the repository's default are no longer.
const CHUNK_BYTES_MAX: u64 = MIB;

/// Offsets and lengths.
type Ranges<'a> = &'a [(u64, u64)];

struct Bench {
    fs: CountedFs<MadeUpFs>,
    volume: Box<dyn Dir>,
    store: Arc<MemoryStore>,
    repository: Repository,
}

fn nanos(time: Time) -> i64 {
    time.secs * 1_000_000_000 + i64::from(time.nanos)
}

impl Bench {
    fn new() -> Self {
        let (fs, store) = (MadeUpFs::default(), Arc::new(MemoryStore::new()));
        let volume = fs.root().create_dir(b"source").unwrap();
        let repository = init(Arc::<MemoryStore>::clone(&store));
        Self { fs: CountedFs::new(fs), volume, store, repository }
    }

    fn make(&self, name: &[u8], content: &[u8]) {
        self.volume.create_file(name).unwrap().write_at(0, content).unwrap();
    }

    fn write(&self, name: &[u8], at: u64, content: &[u8]) {
        self.volume.open_file_for_update(name).unwrap().write_at(at, content).unwrap();
    }

    fn hint(&self, name: &[u8], ranges: &[(u64, u64)]) -> FileHint {
        let stat = self.volume.stat(name).unwrap();
        FileHint {
            size_bytes: stat.size_bytes,
            mtime_nanos: nanos(stat.mtime),
            ctime_nanos: nanos(stat.ctime),
            ranges: ranges.to_vec(),
        }
    }

    fn back_up(&self, options: &BackupOptions, hints: Hints) -> Summary {
        self.fs.take_reads();
        let summary =
            backup::run_with_hints(&self.repository, &self.fs, &Arc::new(Job::new()), options, &Arc::new(hints)).unwrap();
        assert_eq!((summary.exit_code, summary.counts.items_changed), (0, 0), "{:?}", summary.lost);
        summary
    }

    fn first(&self) -> SessionId {
        self.back_up(&options(), Hints::default()).snapshot.unwrap()
    }

    fn hints(&self, since: SessionId, files: &[(&[u8], Ranges<'_>)]) -> Hints {
        let files = files.iter().map(|(name, ranges)| (name.to_vec(), self.hint(name, ranges))).collect();
        Hints { since: Some(since), taken_nanos: TAKEN, unreadable: 0, files }
    }

    /// Backs up with one hint, and gives what of the file was read.
    fn reads_of(&self, since: SessionId, name: &[u8], ranges: &[(u64, u64)]) -> (Summary, Vec<(u64, u64)>) {
        let hints = self.hints(since, &[(name, ranges)]);
        let summary = self.back_up(&options(), hints);
        let mut reads: Vec<_> = self.fs.take_reads().into_iter().map(|(_, at, length)| (at, at + length)).collect();
        reads.sort_unstable();
        self.assert_restores(&summary);
        (summary, reads)
    }

    fn assert_restores(&self, summary: &Summary) {
        let options = RestoreOptions { workers: 0, ..RestoreOptions::new(summary.snapshot.unwrap(), "/target") };
        let done = restore::run(&self.repository, &self.fs.inner, &Arc::new(Job::new()), &options).unwrap();
        assert_eq!(done.exit_code, 0, "{:?}", done.losses);
        let target = self.fs.inner.root().open_dir(b"target").unwrap();
        assert_eq!(self.volume.names().unwrap(), target.names().unwrap());
        for name in self.volume.names().unwrap() {
            let content = |dir: &dyn Dir| {
                let mut bytes = vec![0; dir.stat(&name).unwrap().size_bytes as usize];
                dir.open_file(&name).unwrap().read_at(0, &mut bytes).unwrap();
                bytes
            };
            assert!(content(&*self.volume) == content(&*target), "{}", String::from_utf8_lossy(&name));
        }
        self.fs.inner.root().remove_all(b"target").unwrap();
    }
}

fn options() -> BackupOptions {
    backup_options(Path::new("/source"), 0)
}

fn told(summary: &Summary) -> (u64, u64) {
    (summary.hints_used, summary.hints_ignored)
}

/// Whether all reads lie within so many bytes of a range.
fn near(reads: &[(u64, u64)], ranges: &[(u64, u64)], distance: u64) -> bool {
    reads.iter().all(|(from, to)| ranges.iter().any(|(at, length)| *from + distance >= *at && *to <= at + length + distance))
}

#[test]
fn only_chunks_that_a_hint_touches_are_read() {
    let bench = Bench::new();
    bench.make(b"image", &noise(1, 24 << 20));
    let mut pages = noise(2, 24 << 20);
    pages[..16].copy_from_slice(b"SQLite format 3\0");
    bench.make(b"pages", &pages);
    let mut since = bench.first();
    for (name, distance) in [(&b"image"[..], CHUNK_BYTES_MAX), (b"pages", 64 << 10)] {
        let ranges = [(5 * MIB + 77, 3), (12 * MIB, 100_000), (24 * MIB - 1, 1)];
        for (at, length) in ranges {
            bench.write(name, at, &noise(at, length as usize));
        }
        let (summary, reads) = bench.reads_of(since, name, &ranges);
        assert_eq!(told(&summary), (1, 0));
        assert!(!reads.is_empty() && near(&reads, &ranges, distance), "{reads:?}");
        let read: u64 = reads.iter().map(|(from, to)| to - from).sum();
        assert_eq!((summary.counts.bytes_read, summary.bytes_hinted), (read, 24 * MIB - read));
        since = summary.snapshot.unwrap();
        // Nothing but its times: nothing is read.
        bench.write(name, 0, &pages[..0]);
        let (summary, reads) = bench.reads_of(since, name, &[]);
        assert_eq!((told(&summary), reads.len(), summary.counts.files_changed), ((1, 0), 0, 1));
        since = summary.snapshot.unwrap();
    }
}

#[test]
fn a_file_that_grew_was_cut_short_or_has_holes_is_read_where_it_must_be() {
    let bench = Bench::new();
    bench.make(b"grown", &noise(1, 8 << 20));
    let since = bench.first();
    // Nobody need say that what lies behind the parent's end is new.
    bench.write(b"grown", 8 * MIB, &noise(2, 3 << 20));
    let (summary, reads) = bench.reads_of(since, b"grown", &[]);
    assert_eq!(told(&summary), (1, 0));
    assert!(near(&reads, &[(8 * MIB, 3 * MIB)], CHUNK_BYTES_MAX), "{reads:?}");
    bench.volume.open_file_for_update(b"grown").unwrap().set_len(6 * MIB + 5).unwrap();
    let (summary, reads) = bench.reads_of(summary.snapshot.unwrap(), b"grown", &[]);
    assert_eq!(told(&summary), (1, 0));
    assert!(near(&reads, &[(6 * MIB, 5)], CHUNK_BYTES_MAX), "{reads:?}");
    // A terabyte of nothing: a page is written in the middle of it, and one goes back to nothing.
    let sparse = bench.volume.create_file(b"sparse").unwrap();
    sparse.set_len(1 << 40).unwrap();
    sparse.write_at(1 << 30, &noise(3, 1 << 20)).unwrap();
    let since = bench.first();
    let ranges = [(1 << 39, 4096), (1 << 30, MIB)];
    sparse.write_at(ranges[0].0, &noise(4, 4096)).unwrap();
    sparse.punch_hole(ranges[1].0, ranges[1].1).unwrap();
    let hints = bench.hints(since, &[(b"sparse", &ranges)]);
    let hinted = bench.back_up(&options(), hints);
    let reads: Vec<_> = bench.fs.take_reads().into_iter().map(|(_, at, length)| (at, at + length)).collect();
    assert!(told(&hinted) == (1, 0) && near(&reads, &ranges, 64 << 10), "{reads:?}");
    let whole = bench.back_up(&BackupOptions { parent: ParentChoice::None, ..options() }, Hints::default());
    let root = |summary: &Summary| {
        let (rows, _) = bench.repository.snapshots().unwrap();
        rows.into_iter().find(|row| Some(row.session) == summary.snapshot).unwrap().snapshot.root
    };
    assert_eq!(root(&hinted), root(&whole), "the same items as without hints");
}

#[test]
fn whatever_was_written_and_told_comes_back_as_it_is() {
    for seed in 0..12 {
        let bench = Bench::new();
        let draw = |n: u64, below: u64| u64::from_le_bytes(noise(seed * 1000 + n, 8).try_into().unwrap()) % below;
        let mut content = noise(seed, 6 << 20);
        content[(2 << 20)..(3 << 20)].fill(0);
        bench.make(b"file", &content);
        let since = bench.first();
        let mut ranges = Vec::new();
        for n in 0..draw(0, 6) {
            let (at, length) = (draw(n * 3 + 1, 6 * MIB), draw(n * 3 + 2, 300_000));
            let bytes = if n % 2 == 0 { noise(n, length as usize) } else { vec![0; length as usize] };
            bench.write(b"file", at, &bytes);
            ranges.push((at, length));
        }
        bench.write(b"file", 0, &content[..0]);
        let (summary, reads) = bench.reads_of(since, b"file", &ranges);
        assert_eq!(told(&summary), (1, 0), "seed {seed}");
        assert!(near(&reads, &ranges, CHUNK_BYTES_MAX), "seed {seed}: {reads:?} for {ranges:?}");
    }
}

#[test]
fn a_hint_that_cannot_be_relied_on_changes_nothing_and_is_counted() {
    let bench = Bench::new();
    bench.make(b"file", &noise(1, 8 << 20));
    bench.make(b"other", &noise(2, 1 << 20));
    let older = bench.first();
    let since = bench.first();
    bench.write(b"file", 3 * MIB, b"changed");
    bench.write(b"other", 0, b"changed");
    let good = bench.hints(since, &[(b"file", &[(3 * MIB, 7)])]);
    let with = |change: &dyn Fn(&mut Hints, &mut FileHint)| {
        let mut hints = good.clone();
        let mut file = hints.files.remove(&b"file"[..]).unwrap();
        change(&mut hints, &mut file);
        hints.files.insert(b"file".to_vec(), file);
        hints
    };
    let ctime = good.files[&b"file"[..]].ctime_nanos;
    let bad: Vec<(&str, Hints)> = vec![
        ("another parent", with(&|hints, _| hints.since = Some(older))),
        ("no parent", with(&|hints, _| hints.since = None)),
        ("another size", with(&|_, file| file.size_bytes += 1)),
        ("another mtime", with(&|_, file| file.mtime_nanos -= 1)),
        ("another ctime", with(&|_, file| file.ctime_nanos -= 1)),
        ("behind the end", with(&|_, file| file.ranges.push((8 * MIB - 1, 2)))),
        ("beyond all numbers", with(&|_, file| file.ranges.push((u64::MAX, u64::MAX)))),
        ("written just then", with(&|hints, _| hints.taken_nanos = ctime + 1_000_000)),
    ];
    let to_since = BackupOptions { parent: ParentChoice::Snapshot(since), ..options() };
    for (what, hints) in bad {
        let summary = bench.back_up(&to_since, hints);
        assert_eq!((told(&summary), summary.counts.bytes_read, summary.bytes_hinted), ((0, 1), 9 * MIB, 0), "{what}");
        bench.assert_restores(&summary);
    }
    // Compared with another snapshot than it names.
    let to_older = BackupOptions { parent: ParentChoice::Snapshot(older), ..options() };
    let summary = bench.back_up(&to_older, good.clone());
    assert_eq!((told(&summary), summary.counts.bytes_read), ((0, 1), 9 * MIB));
    let summary = bench.back_up(&BackupOptions { paranoid: true, ..to_since.clone() }, good.clone());
    assert_eq!((told(&summary), summary.counts.bytes_read), ((0, 0), 9 * MIB));
    // What no hint names is read whole, and what is as it was is not looked for in hints.
    let summary = bench.back_up(&to_since, Hints { unreadable: 3, ..good.clone() });
    assert!(told(&summary) == (1, 3) && summary.counts.bytes_read < 4 * MIB, "{summary:?}");
    bench.assert_restores(&summary);
    let summary = bench.back_up(&options(), good.clone());
    assert_eq!((told(&summary), summary.counts.bytes_read), ((0, 0), 0));
    // Another file under the name, though its times and size were told.
    bench.volume.remove_all(b"file").unwrap();
    bench.make(b"file", &noise(9, 8 << 20));
    let summary = bench.back_up(&to_since, bench.hints(since, &[(b"file", &[])]));
    assert_eq!((told(&summary), summary.counts.bytes_read), ((0, 1), 9 * MIB));
    bench.assert_restores(&summary);
}

#[test]
fn what_the_repository_has_lost_is_read_whatever_a_hint_says() {
    let bench = Bench::new();
    bench.make(b"file", &noise(1, 8 << 20));
    let since = bench.first();
    let packs = bench.store.list("packs/", None, 100).unwrap().entries;
    let largest = packs.iter().max_by_key(|entry| entry.size_bytes).unwrap();
    bench.store.delete(&largest.key).unwrap();
    bench.write(b"file", 0, b"");
    let hints = bench.hints(since, &[(b"file", &[])]);
    let summary = bench.back_up(&options(), hints);
    assert!(summary.counts.bytes_read > MIB, "{summary:?}");
    bench.assert_restores(&summary);
}

#[test]
fn a_file_that_changes_while_it_is_read_is_read_again_without_its_hint() {
    let bench = Bench::new();
    bench.make(b"file", &noise(1, 8 << 20));
    let since = bench.first();
    bench.write(b"file", 3 * MIB, b"changed");
    let hints = bench.hints(since, &[(b"file", &[(3 * MIB, 7)])]);
    let (inner, written) = (bench.fs.inner.clone(), std::sync::Once::new());
    bench.fs.inner.set_hook(Some(Arc::new(move |call| {
        if call.call == "read file" {
            written.call_once(|| {
                let volume = inner.root().open_dir(b"source").unwrap();
                volume.open_file_for_update(b"file").unwrap().write_at(6 * MIB, b"as well").unwrap();
            });
        }
        None
    })));
    let summary = bench.back_up(&options(), hints);
    bench.fs.inner.set_hook(None);
    assert_eq!((told(&summary), summary.bytes_hinted), ((0, 0), 0));
    assert!(summary.counts.bytes_read > 8 * MIB, "{summary:?}");
    bench.assert_restores(&summary);
}
