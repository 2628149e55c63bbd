//! How often the local cache had what was looked for; for metrics, and for nothing that is decided.
//!
//! Promises exact numbers under any concurrency. A copy that is there and no good counts as a miss: what was looked for had to be fetched.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What copies are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Segments of the index.
    Index,
    /// Records of snapshots, those that were remembered in memory among them.
    Snapshots,
    /// Decisions of prunes.
    Decisions,
    /// What the last backup of a volume saw there.
    Volume,
}

impl Kept {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Index, Self::Snapshots, Self::Decisions, Self::Volume];

    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Index => "index",
            Self::Snapshots => "snapshots",
            Self::Decisions => "decisions",
            Self::Volume => "volume",
        }
    }
}

/// Hits and misses; shared, so that who owns several caches reads them all in one.
#[derive(Debug, Default)]
pub struct Lookups([[AtomicU64; 2]; Kept::ALL.len()]);

impl Lookups {
    /// Looks that were answered by the cache.
    #[must_use]
    pub fn hits(&self, kept: Kept) -> u64 {
        self.0[kept as usize][1].load(Relaxed)
    }

    /// Looks that were not.
    #[must_use]
    pub fn misses(&self, kept: Kept) -> u64 {
        self.0[kept as usize][0].load(Relaxed)
    }

    pub(crate) fn note(&self, kept: Kept, hit: bool) {
        self.0[kept as usize][usize::from(hit)].fetch_add(1, Relaxed);
    }
}
