//! What a prune did, what it kept, and why.

use longshore_format::id::{PackName, SessionId};

/// Most packs that a report names one by one; the rest is counted.
pub const PACKS_NAMED_MAX: usize = 10_000;

/// Why a pack is kept, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// Nothing of it is needed: deleted, or to be deleted.
    Unneeded,
    /// All that is needed of it lies in other packs, too: the same.
    Duplicate,
    /// Its needed frames are moved elsewhere, it goes.
    Repacked,
    /// It waits for writers that were open when it was marked.
    WaitsForWriters,
    /// Its session still runs.
    InUse,
    /// Some of it is needed, and too little is dead to move the rest.
    PartlyNeeded,
    /// As much as was allowed is moved already.
    RepackLimit,
    /// A needed frame in it is damaged, so it stays as it is.
    Damaged,
    /// The store refuses to delete it.
    Refused,
    /// All of it is needed.
    Needed,
}

impl Why {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::Unneeded,
        Self::Duplicate,
        Self::Repacked,
        Self::WaitsForWriters,
        Self::InUse,
        Self::PartlyNeeded,
        Self::RepackLimit,
        Self::Damaged,
        Self::Refused,
        Self::Needed,
    ];

    /// Its stable word.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Unneeded => "unneeded",
            Self::Duplicate => "duplicate",
            Self::Repacked => "repacked",
            Self::WaitsForWriters => "waits-for-writers",
            Self::InUse => "in-use",
            Self::PartlyNeeded => "partly-needed",
            Self::RepackLimit => "repack-limit",
            Self::Damaged => "damaged",
            Self::Refused => "refused",
            Self::Needed => "needed",
        }
    }

    /// Whether such a pack goes.
    #[must_use]
    pub fn goes(self) -> bool {
        matches!(self, Self::Unneeded | Self::Duplicate | Self::Repacked)
    }
}

/// Packs of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// How many.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of these, not needed by anybody.
    pub dead_bytes: u64,
}

/// One pack and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackRow {
    /// Its name.
    pub name: PackName,
    /// Its length.
    pub size_bytes: u64,
    /// Of it, needed.
    pub live_bytes: u64,
    /// What becomes of it.
    pub why: Why,
}

/// What a prune did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PruneReport {
    /// Snapshots that count.
    pub snapshots: u64,
    /// Readers at work.
    pub readers: u64,
    /// Packs found.
    pub packs_before: u64,
    /// Their bytes.
    pub bytes_before: u64,
    /// Bytes of needed frames.
    pub bytes_needed: u64,
    /// Packs deleted.
    pub packs_deleted: u64,
    /// Their bytes.
    pub bytes_freed: u64,
    /// Usage tables deleted.
    pub tables_deleted: u64,
    /// Index segments deleted.
    pub segments_deleted: u64,
    /// Index segments written.
    pub segments_written: u64,
    /// Packs out of which needed frames were moved.
    pub packs_repacked: u64,
    /// Packs into which they were moved.
    pub packs_written: u64,
    /// Sealed bytes moved.
    pub bytes_moved: u64,
    /// Generations that are done.
    pub generations_done: u64,
    /// Generations that wait.
    pub generations_waiting: u64,
    /// Writers that they wait for, with what their markers say of the host.
    pub waiting_for: Vec<(SessionId, String)>,
    /// Sessions fenced.
    pub fenced: Vec<SessionId>,
    /// Packs by what becomes of them.
    pub kept: std::collections::BTreeMap<Why, Kept>,
    /// The same pack by pack, the first [`PACKS_NAMED_MAX`].
    pub packs: Vec<PackRow>,
    /// What is damaged: object, and what does not hold.
    pub damaged: Vec<(String, String)>,
    /// Whether the room kept back was needed.
    pub used_reserve: bool,
    /// Whether nothing was written.
    pub dry_run: bool,
    /// How long it took.
    pub seconds: f64,
    /// 0, or 4 when something is damaged.
    pub exit_code: i32,
}

impl PruneReport {
    pub(super) fn tell(&mut self, row: PackRow) {
        let kept = self.kept.entry(row.why).or_default();
        kept.packs += 1;
        kept.bytes += row.size_bytes;
        kept.dead_bytes += row.size_bytes.saturating_sub(row.live_bytes);
        if self.packs.len() < PACKS_NAMED_MAX {
            self.packs.push(row);
        }
    }

    pub(super) fn finish(&mut self) {
        self.exit_code = if self.damaged.is_empty() { 0 } else { 4 };
    }
}
