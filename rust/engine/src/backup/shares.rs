//! How the memory of a backup is shared out.
//!
//! Everything that grows has a share that is fixed before the first byte is read: buffers and compression of each worker, open packs,
//! packs on their way to the store, caches. Nothing is asked for later, so nobody ever waits for memory while holding some, and
//! no order of events can lock up. Where the shares would become too small there are fewer workers and uploads instead. Promises
//! that the sum stays within the budget. Does not count threads' stacks and what the program had taken before.

use super::BackupOptions;
use super::walk::threads::SLOW_BYTES;
use super::windows::{BUFFER_BYTES, CHUNK_BYTES_MAX};
use crate::packer::FRAME_BYTES;

/// Whatever is asked for, this is the least that a backup runs in.
pub(crate) const BUDGET_BYTES_MIN: usize = 64 << 20;
/// Buffers and contexts of one worker: 3 MiB to read into, what a window leaves over, three open frames, contexts of zstd, and
/// what a frame is compressed, opened and decompressed into.
const WORKER_BYTES: usize = 14 << 20;
/// What each thread that walks beside the first has of the directory it is in: entries, and a buffer to list with. There is one such thread
/// for each worker beside the first; of a larger directory only one is walked at a time.
const WALKER_BYTES: usize = 3 << 20;
/// An open pack of trees.
const TREES_BYTES: usize = 4 << 20;
/// What the session remembers of chunks until a segment of the index answers for them, and the segment on its way out.
const SESSION_BYTES: usize = 12 << 20;
/// More threads that walk a slow volume: they wait for it most of the time.
const SLOW_WALKERS_MAX: usize = 14;
/// Smaller packs are a burden on the store, larger ones on who reads a part of one.
const PACK_BYTES_MIN: usize = 4 << 20;
const PACK_BYTES_MAX: usize = 64 << 20;

/// What a backup may have read that no store has yet. A run that goes on from one that was killed reads so much again at most: counted as it
/// is stored, so that of data which shrinks to a half it is twice as much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Underway {
    /// How long a pack gets.
    pub pack_bytes: u64,
    /// Packs at once: one that each worker makes, one that each upload thread sends, and one that waits.
    pub packs: u64,
    /// What all workers together have in buffers and in open frames, and the window by which they may be ahead of one another.
    pub hands_bytes: u64,
}

impl Underway {
    fn of(shares: Shares) -> Self {
        Self {
            pack_bytes: shares.pack_size_bytes as u64,
            packs: (busy(shares.workers) + waiting(shares.workers, shares.upload_threads)) as u64,
            hands_bytes: (busy(shares.workers) * (BUFFER_BYTES + FRAME_BYTES) + shares.workers * CHUNK_BYTES_MAX) as u64,
        }
    }

    /// All of it.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.pack_bytes * self.packs + self.hands_bytes
    }
}

impl BackupOptions {
    /// What it may have underway, as its memory is shared out.
    #[must_use]
    pub fn underway(&self) -> Underway {
        Underway::of(Shares::of(self.memory_budget_bytes, self.workers, self.upload_threads))
    }
}

/// The shares of one backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    pub workers: usize,
    pub upload_threads: usize,
    pub pack_size_bytes: usize,
    /// For trees of the parent snapshot.
    pub reader_bytes: usize,
    /// For small files of a slow volume that are read ahead.
    pub fetch_bytes: usize,
    /// More threads to walk a slow volume.
    pub slow_walkers: usize,
}

impl Shares {
    /// Shares `budget_bytes` out among as many of the wanted threads as fit.
    pub fn of(budget_bytes: usize, workers: usize, upload_threads: usize) -> Self {
        let budget = budget_bytes.max(BUDGET_BYTES_MIN);
        let slow_bytes = if workers == 0 { 0 } else { budget / 32 };
        let slow_walkers = (slow_bytes / 2 / SLOW_BYTES).min(SLOW_WALKERS_MAX);
        let (reader_bytes, fetch_bytes) = (budget / 8 - slow_bytes, slow_bytes - slow_walkers * SLOW_BYTES);
        let left = budget - budget / 8 - SESSION_BYTES;
        // Packs beside those that workers have open: one for each upload and one that waits for them.
        let fits = |workers: usize, uploads: usize| {
            let (busy, waiting) = (busy(workers), waiting(workers, uploads));
            left.saturating_sub(busy * (WORKER_BYTES + TREES_BYTES) + (busy - 1) * WALKER_BYTES) / (busy + waiting)
        };
        let (mut workers, mut uploads) = (workers, if workers == 0 { 0 } else { upload_threads.max(1) });
        while fits(workers, uploads) < PACK_BYTES_MIN && (workers > 1 || uploads > 1) {
            if uploads > 1 && (uploads >= workers || workers == 1) { uploads -= 1 } else { workers -= 1 }
        }
        let pack_size_bytes = fits(workers, uploads).clamp(PACK_BYTES_MIN, PACK_BYTES_MAX);
        Self { workers, upload_threads: uploads, pack_size_bytes, reader_bytes, fetch_bytes, slow_walkers }
    }
}

/// Threads that make packs.
fn busy(workers: usize) -> usize {
    workers.max(1)
}

/// Packs that are sent or wait for that.
fn waiting(workers: usize, uploads: usize) -> usize {
    if workers == 0 { 0 } else { uploads + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_stay_within_any_budget_and_leave_somebody_to_work() {
        for budget in [0, 64, 65, 100, 128, 256, 1000, 8000].map(|mib: usize| mib << 20) {
            for workers in [0, 1, 2, 3, 8, 64, 1000] {
                for uploads in [0, 1, 2, 16, 100] {
                    let shares = Shares::of(budget, workers, uploads);
                    let busy = shares.workers.max(1);
                    let sum = shares.reader_bytes
                        + shares.fetch_bytes
                        + shares.slow_walkers * SLOW_BYTES
                        + SESSION_BYTES
                        + busy * (WORKER_BYTES + TREES_BYTES + shares.pack_size_bytes)
                        + (busy - 1) * WALKER_BYTES
                        + if workers == 0 { 0 } else { (shares.upload_threads + 1) * shares.pack_size_bytes };
                    assert!(sum <= budget.max(BUDGET_BYTES_MIN), "{budget} {workers} {uploads}: {shares:?} take {sum}");
                    assert_eq!(shares.workers == 0, workers == 0);
                    assert!(shares.workers <= workers && shares.upload_threads <= uploads.max(1));
                    assert!(workers == 0 || shares.upload_threads > 0);
                }
            }
        }
    }

    #[test]
    fn what_is_underway_is_what_the_memory_was_shared_out_for() {
        let underway = |workers, uploads, mib: usize| Underway::of(Shares::of(mib << 20, workers, uploads));
        // Asked for two and two, and there is room for one and one.
        let small = underway(2, 2, 64);
        assert_eq!((small.packs, small.hands_bytes, (small.pack_bytes * 10) >> 20), (3, 5 << 20, 86));
        assert_eq!((underway(2, 2, 128).packs, underway(2, 2, 128).hands_bytes), (5, 10 << 20));
        assert_eq!((underway(0, 5, 64).packs, underway(0, 5, 64).hands_bytes), (1, 4 << 20));
        for (workers, uploads, mib) in [(2, 2, 64), (0, 0, 64), (2, 2, 128), (8, 4, 512), (8, 16, 4096)] {
            let all = underway(workers, uploads, mib);
            assert!(all.bytes() <= (mib << 20) as u64, "{all:?}");
        }
    }

    #[test]
    fn more_memory_makes_larger_packs_and_keeps_more_threads() {
        assert_eq!(
            Shares::of(1 << 30, 2, 2),
            Shares {
                workers: 2,
                upload_threads: 2,
                pack_size_bytes: 64 << 20,
                reader_bytes: 96 << 20,
                fetch_bytes: 25 << 20,
                slow_walkers: 14
            }
        );
        assert!(Shares::of(128 << 20, 2, 2).pack_size_bytes > 12 << 20);
        assert!(Shares::of(128 << 20, 64, 4).workers < Shares::of(512 << 20, 64, 4).workers);
        assert_eq!(Shares::of(128 << 20, 2, 2).workers, 2);
    }
}
