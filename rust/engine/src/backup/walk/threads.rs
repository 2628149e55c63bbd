//! The threads that walk: as many as there are workers, and more while the volume is slow.
//!
//! Promises that the walk ends for all however it ends for one, and that each has its share of memory and descriptors. Does not know what
//! a walker does with a directory.

use super::{Before, Walk, Walker};
use crate::backup::crew::Crew;
use crate::backup::drift::ChangeTest;
use crate::backup::exclude::Excludes;
use crate::backup::proof::Proof;
use crate::backup::slowness::Gauge;
use crate::backup::tree::Known;
use crate::backup::walkers::Pool;
use crate::backup::{BackupOptions, lock};
use crate::error::{Error, ErrorKind, Result};
use crate::repository::snapshots::SnapshotRow;
use crate::seams::{Handle, Spawn};
use crate::volume::Dir;
use std::sync::{Arc, Mutex};

/// One walker among several needs the pool's room for a directory with more entries: so many take 2 MiB, as much as a walker's share of
/// memory has for them.
const SHARE_ENTRIES: u64 = 4096;
/// The same for depth, over all walkers. A quarter of the descriptors stands in for this where that is less: the rest are for the one with the
/// room, for files and for the store.
const SHARED_LEVELS: u64 = 4096;

/// The same for each walker who is there only because the volume is slow.
const SLOW_ENTRIES: u64 = 256;
const SLOW_LEVELS: u64 = 64;
/// What such a one takes: entries, and a buffer to list with.
pub(in crate::backup) const SLOW_BYTES: usize = 512 << 10;
/// The threads that walk beside the first.
#[derive(Default)]
pub(super) struct Others {
    threads: Vec<Box<dyn Handle>>,
    /// How many more there may be when the volume is slow.
    more: usize,
}

/// Ends the walk for the others, however the one that holds it ended.
struct Ends(Arc<Walk>);

impl Drop for Ends {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.crew.sink.fail(Crew::panicked());
        }
        self.0.pool.end();
    }
}

/// Walks the volume, on the calling thread and on as many more as the crew has workers beyond the first, and puts work into the crew. When
/// the volume turns out to be slow, `more` others walk with them. The root's entry is complete when the crew has finished.
pub(crate) fn walk(
    crew: &Arc<Crew>,
    (spawn, more): (&Arc<dyn Spawn>, usize),
    root: Box<dyn Dir>,
    excludes: &Arc<Excludes>,
    parent: Option<&SnapshotRow>,
    options: &BackupOptions,
    (started_nanos, descriptors): (i64, u64),
) -> Result<()> {
    let stat = root.stat_self()?;
    let walkers = options.workers.max(1);
    let walk = Arc::new(Walk {
        crew: Arc::clone(crew),
        excludes: Arc::clone(excludes),
        options: options.clone(),
        test: ChangeTest::new(parent.map(|row| row.snapshot.started_nanos), started_nanos, options.paranoid),
        root_device: stat.device,
        proof: crew.shared.cache.as_ref().map(|cache| Arc::new(Proof::new(cache, &crew.sink.index))),
        pool: Arc::new(Pool::new()),
        walkers,
        alone: walkers == 1 && more == 0,
        share: (SHARE_ENTRIES, SHARED_LEVELS.min(descriptors / 4) / walkers as u64),
        gauge: Gauge::default(),
        spawn: Arc::clone(spawn),
        others: Mutex::new(Others {
            threads: Vec::new(),
            more: more.min(usize::try_from(descriptors / 16 / SLOW_LEVELS).unwrap_or(more)),
        }),
    });
    let previous = parent.map(|row| Box::new(row.snapshot.root.clone()));
    let known = crew.shared.cache.as_ref().map(|cache| Known { cache: Arc::clone(cache), number: cache.root() });
    let walked = {
        let _ends = Ends(Arc::clone(&walk));
        (|| {
            for n in 1..walkers {
                walk.add(&mut lock(&walk.others), n, walk.share)?;
            }
            let walker = Walker::new(&walk, walk.share)?;
            let first =
                walker.enter(root, Vec::new(), b"", &stat, None, Before { previous, known, depth: 0 })?.ok_or_else(|| {
                    Error::new(ErrorKind::Volume, format!("volume's root cannot be listed: path={}", options.path.display()))
                        .with_next_step("check that the directory may be read")
                })?;
            walker.run(Some(first))
        })()
        .inspect_err(|error: &Error| crew.sink.fail(error.clone()))
    };
    let mut whole = true;
    // Whoever starts another is one of them, and is waited for first.
    loop {
        let thread = lock(&walk.others).threads.pop();
        let Some(thread) = thread else { break };
        whole &= thread.join();
    }
    if whole { walked } else { walked.and(Err(Crew::panicked())) }
}

impl Walk {
    fn add(self: &Arc<Self>, others: &mut Others, number: usize, share: (u64, u64)) -> Result<()> {
        let walk = Arc::clone(self);
        self.pool.join();
        others.threads.push(self.spawn.spawn(&format!("walk-{number}"), Box::new(move || walk.help(share)))?);
        Ok(())
    }

    /// Brings in more walkers while the volume is slow: they wait, and take no processor.
    pub(super) fn hurry(self: &Arc<Self>) -> Result<()> {
        if !self.gauge.is_slow() {
            return Ok(());
        }
        let mut others = lock(&self.others);
        let more = std::mem::take(&mut others.more);
        if more > 0 {
            tracing::info!(threads = more, "The volume is slow, walking it by more threads");
        }
        for n in 0..more {
            self.add(&mut others, self.walkers + n, (SLOW_ENTRIES, SLOW_LEVELS))?;
        }
        Ok(())
    }

    /// Walks what others give away, until there is nothing left.
    fn help(self: Arc<Self>, share: (u64, u64)) {
        // Dropped last: a walker that ends before its time ends the walk.
        let _ends = Ends(Arc::clone(&self));
        if let Err(error) = Walker::new(&self, share).and_then(|walker| walker.run(None)) {
            self.crew.sink.fail(error);
        }
    }
}
