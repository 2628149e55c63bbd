//! What a check found, and what its threads add it to.
//!
//! Promises the same order whoever found what first, and a bounded length: what is not named is counted.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Most findings that a report names; the rest is counted.
pub const FINDINGS_NAMED_MAX: usize = 1000;
/// Most files that one report names as hurt.
pub const HURT_NAMED_MAX: usize = 1000;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Something is damaged or missing.
    Error,
    /// Nothing is lost, but somebody may want to know.
    Warning,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Key of the object, or the snapshot and path of a file.
    pub object: String,
    /// What does not hold.
    pub message: String,
    /// Snapshots that it hurts, by their public names.
    pub snapshots: Vec<String>,
}

/// A file or directory that damage hurts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HurtItem {
    /// The snapshot's public name.
    pub snapshot: String,
    /// Path from its root.
    pub path: Vec<u8>,
    /// What is missing.
    pub message: String,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CheckReport {
    /// Findings, errors first, the first [`FINDINGS_NAMED_MAX`].
    pub findings: Vec<Finding>,
    /// All errors.
    pub errors: u64,
    /// All warnings.
    pub warnings: u64,
    /// Files and directories hurt, the first [`HURT_NAMED_MAX`].
    pub hurt: Vec<HurtItem>,
    /// All files and directories hurt.
    pub items_hurt: u64,
    /// Snapshots looked at.
    pub snapshots: u64,
    /// Packs looked at.
    pub packs: u64,
    /// Length of all packs.
    pub pack_bytes: u64,
    /// Frames read.
    pub frames_read: u64,
    /// Sealed bytes of frames read.
    pub bytes_read: u64,
    /// Packs that an interrupted run had read, and this one did not read again.
    pub packs_resumed: u64,
    /// Sealed bytes of their frames.
    pub bytes_resumed: u64,
    /// When the first of the interrupted runs began, in nanoseconds since 1970; 0 when this one went on from none.
    pub begun_nanos: i64,
    /// Tree chunks walked: those below which all is well once, others once for each snapshot and path that they hurt.
    pub trees: u64,
    /// Look-ups of chunks that trees name, and of the trees.
    pub lookups: u64,
    /// How long it took.
    pub seconds: f64,
    /// 0, or 4 when there are errors.
    pub exit_code: i32,
}

/// What all threads add to.
#[derive(Debug, Default)]
pub(crate) struct Notes(Mutex<CheckReport>);

impl Notes {
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut CheckReport) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn find(&self, severity: Severity, object: impl Into<String>, message: impl Into<String>, snapshots: Vec<String>) {
        self.with(|report| {
            match severity {
                Severity::Error => report.errors += 1,
                Severity::Warning => report.warnings += 1,
            }
            if report.findings.len() < FINDINGS_NAMED_MAX {
                report.findings.push(Finding { severity, object: object.into(), message: message.into(), snapshots });
            }
        });
    }

    pub(crate) fn hurt(&self, snapshot: &str, path: Vec<u8>, message: String) {
        self.with(|report| {
            report.items_hurt += 1;
            if report.hurt.len() < HURT_NAMED_MAX {
                report.hurt.push(HurtItem { snapshot: snapshot.to_owned(), path, message });
            }
        });
    }

    /// Takes back whom damage hurts: it is asked anew.
    pub(crate) fn forget_hurt(&self) {
        self.with(|report| {
            report.hurt.clear();
            report.items_hurt = 0;
        });
    }

    /// Takes back what was said of these alone: they were deleted meanwhile.
    pub(crate) fn forget_snapshots(&self, gone: &BTreeSet<String>) {
        self.with(|report| {
            let hurt = report.hurt.len();
            report.hurt.retain(|item| !gone.contains(&item.snapshot));
            report.items_hurt -= (hurt - report.hurt.len()) as u64;
            let (errors, warnings) = (&mut report.errors, &mut report.warnings);
            report.findings.retain(|finding| {
                let is_over = !finding.snapshots.is_empty() && finding.snapshots.iter().all(|name| gone.contains(name));
                if is_over {
                    *if finding.severity == Severity::Error { &mut *errors } else { &mut *warnings } -= 1;
                }
                !is_over
            });
        });
    }

    pub(crate) fn finish(&self, seconds: f64) -> CheckReport {
        let mut report = self.with(std::mem::take);
        report.findings.sort_by(|a, b| (a.severity, &a.object, &a.message).cmp(&(b.severity, &b.object, &b.message)));
        report.hurt.sort_by(|a, b| (&a.snapshot, &a.path).cmp(&(&b.snapshot, &b.path)));
        report.seconds = seconds;
        report.exit_code = if report.errors > 0 || report.items_hurt > 0 { 4 } else { 0 };
        report
    }
}
