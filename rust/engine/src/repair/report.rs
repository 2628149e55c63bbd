//! What a repair did, and what nobody can put right.

use crate::check::{CheckReport, Finding, HurtItem};
use std::collections::BTreeSet;

/// What a repair found and did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RepairReport {
    /// What is not as it should be, errors first.
    pub findings: Vec<Finding>,
    /// All errors.
    pub errors: u64,
    /// All warnings.
    pub warnings: u64,
    /// Files and directories that cannot be restored whole, the first of them.
    pub hurt: Vec<HurtItem>,
    /// All of them.
    pub items_hurt: u64,
    /// Snapshots that count.
    pub snapshots: u64,
    /// Snapshots with items that cannot be restored whole.
    pub snapshots_hurt: u64,
    /// Snapshots that damage touches: each is named in the record.
    pub snapshots_touched: u64,
    /// Snapshots whose own object cannot be read.
    pub snapshots_damaged: u64,
    /// Snapshots that are gone and that nobody deleted, as far as something names them.
    pub snapshots_lost: u64,
    /// Key slots that their holders cannot open.
    pub slots_damaged: u64,
    /// Packs looked at.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// Bytes of frames read.
    pub bytes_read: u64,
    /// Packs that an interrupted run had read, and this one did not read again.
    pub packs_resumed: u64,
    /// Sealed bytes of their frames.
    pub bytes_resumed: u64,
    /// When the first of the interrupted runs began, in nanoseconds since 1970; 0 when this one went on from none.
    pub begun_nanos: i64,
    /// Packs in which something is damaged.
    pub packs_damaged: u64,
    /// Packs that the index did not list, or wrongly, and lists now.
    pub packs_indexed: u64,
    /// Index segments written.
    pub segments_written: u64,
    /// Index segments deleted: they could not be read or were wrong.
    pub segments_deleted: u64,
    /// Frames moved out of packs whose header is damaged.
    pub frames_moved: u64,
    /// Their sealed bytes.
    pub bytes_moved: u64,
    /// Usage tables that were made again out of the trees.
    pub tables_rebuilt: u64,
    /// Frames that lie nowhere whole.
    pub frames_lost: u64,
    /// Look-ups of chunks that trees name, and of the trees.
    pub lookups: u64,
    /// Chunks that snapshots need and that lie nowhere: a backup whose source still has them stores them again.
    pub chunks_missing: u64,
    /// Whether a record was written, or would be.
    pub recorded: bool,
    /// Whether nothing was written.
    pub dry_run: bool,
    /// How long it took.
    pub seconds: f64,
    /// 0, or 4 when something is lost.
    pub exit_code: i32,
}

impl RepairReport {
    /// Whether everything is there that is needed, as far as whole objects tell.
    pub(super) fn is_lossless(&self) -> bool {
        self.snapshots_damaged == 0 && self.snapshots_lost == 0 && self.slots_damaged == 0
    }

    /// Takes over what was noted.
    pub(super) fn take(&mut self, checked: CheckReport, dry_run: bool, seconds: f64) {
        let hurt: BTreeSet<&str> = checked.hurt.iter().map(|item| item.snapshot.as_str()).collect();
        self.snapshots_hurt = hurt.len() as u64;
        (self.errors, self.warnings, self.items_hurt) = (checked.errors, checked.warnings, checked.items_hurt);
        (self.packs, self.pack_bytes, self.bytes_read) = (checked.packs, checked.pack_bytes, checked.bytes_read);
        (self.packs_resumed, self.bytes_resumed) = (checked.packs_resumed, checked.bytes_resumed);
        (self.begun_nanos, self.lookups) = (checked.begun_nanos, checked.lookups);
        (self.findings, self.hurt) = (checked.findings, checked.hurt);
        (self.dry_run, self.seconds) = (dry_run, seconds);
    }
}
