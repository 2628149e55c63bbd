//! What comes out: frozen values, copied once. Over 500 lines because every result of the engine
//! is copied here field by field, and each is short.

use longshore_engine::backup::Summary;
use longshore_engine::browse::EntryRow;
use longshore_engine::check::{CheckReport, Finding, HurtItem, Severity};
use longshore_engine::job::{Job, Stage};
use longshore_engine::prune::PruneReport;
use longshore_engine::repair::RepairReport;
use longshore_engine::repository::SlotRow;
use longshore_engine::repository::snapshots::SnapshotRow;
use longshore_engine::restore::{LossKind, RestoreSummary};
use longshore_format::SessionId;
use longshore_format::snapshot::{LostItem, LostReason, public_id};
use pyo3::prelude::*;

/// Path, reason, message.
pub type Lost = (Vec<u8>, &'static str, String);

fn lost(items: &[LostItem]) -> Vec<Lost> {
    let reason = |reason| match reason {
        LostReason::Unreadable => "unreadable",
        LostReason::CutShort => "cut-short",
        LostReason::NameTooLong => "name-too-long",
        LostReason::Other => "other",
    };
    items.iter().map(|item| (item.path.clone(), reason(item.reason), item.message.clone())).collect()
}

/// Counters of a job.
#[pyclass(frozen, get_all, module = "longshore._native")]
#[allow(missing_docs, reason = "told in _native.pyi")]
pub struct Progress {
    pub stage: &'static str,
    pub files_total: u64,
    pub files_done: u64,
    pub bytes_total: u64,
    pub bytes_done: u64,
    pub bytes_moved: u64,
    pub bytes_stored: u64,
    pub items_lost: u64,
    pub begun_nanos: i64,
    pub packs_known: u64,
    pub current: String,
}

impl Progress {
    /// A copy of a job's counters.
    pub fn of(job: &Job) -> Self {
        let now = job.progress();
        Self {
            stage: match now.stage {
                Stage::Preparing => "preparing",
                Stage::Running => "running",
                Stage::Committing => "committing",
                Stage::Finished => "finished",
            },
            files_total: now.files_total,
            files_done: now.files_done,
            bytes_total: now.bytes_total,
            bytes_done: now.bytes_done,
            bytes_moved: now.bytes_moved,
            bytes_stored: now.bytes_stored,
            items_lost: now.items_lost,
            begun_nanos: now.begun_nanos,
            packs_known: now.packs_known,
            current: String::from_utf8_lossy(&job.current()).into_owned(),
        }
    }
}

/// What a backup did.
#[pyclass(frozen, get_all, module = "longshore._native")]
#[allow(missing_docs, reason = "told in _native.pyi")]
pub struct BackupResult {
    pub snapshot_id: Option<String>,
    pub parent_id: Option<String>,
    pub files_total: u64,
    pub directories: u64,
    pub others: u64,
    pub files_new: u64,
    pub files_changed: u64,
    pub files_unchanged: u64,
    pub bytes_total: u64,
    pub bytes_read: u64,
    pub bytes_stored: u64,
    pub files_resumed: u64,
    pub bytes_resumed: u64,
    pub hints_used: u64,
    pub hints_ignored: u64,
    pub bytes_hinted: u64,
    pub seconds: f64,
    pub items_lost: u64,
    pub items_changed: u64,
    pub items_vanished: u64,
    pub lost: Vec<Lost>,
    pub changed: Vec<Vec<u8>>,
    pub exit_code: u8,
}

impl BackupResult {
    /// From the engine's summary and how long it took.
    pub fn new(summary: &Summary, seconds: f64) -> Self {
        let counts = summary.counts;
        Self {
            snapshot_id: summary.snapshot.map(public_id),
            parent_id: summary.parent.map(public_id),
            files_total: counts.files,
            directories: counts.directories,
            others: counts.others,
            files_new: counts.files_new,
            files_changed: counts.files_changed,
            files_unchanged: counts.files_unchanged,
            bytes_total: counts.bytes,
            bytes_read: counts.bytes_read,
            bytes_stored: counts.bytes_stored,
            files_resumed: summary.files_resumed,
            bytes_resumed: summary.bytes_resumed,
            hints_used: summary.hints_used,
            hints_ignored: summary.hints_ignored,
            bytes_hinted: summary.bytes_hinted,
            seconds,
            items_lost: counts.items_lost,
            items_changed: counts.items_changed,
            items_vanished: summary.vanished,
            lost: lost(&summary.lost),
            changed: summary.changed.clone(),
            exit_code: summary.exit_code,
        }
    }
}

/// What a restore did.
#[pyclass(frozen, get_all, module = "longshore._native")]
#[allow(missing_docs, reason = "told in _native.pyi")]
pub struct RestoreResult {
    pub files_total: u64,
    pub files_unchanged: u64,
    pub directories: u64,
    pub others: u64,
    pub bytes_total: u64,
    pub bytes_written: u64,
    pub files_resumed: u64,
    pub bytes_resumed: u64,
    pub extra_deleted: u64,
    pub seconds: f64,
    pub items_lost: u64,
    pub items_damaged: u64,
    pub items_dropped: u64,
    pub lost: Vec<Lost>,
    pub dropped: Vec<Lost>,
    pub exit_code: i32,
}

impl From<&RestoreSummary> for RestoreResult {
    fn from(summary: &RestoreSummary) -> Self {
        let named = |dropped: bool| {
            summary
                .losses
                .iter()
                .filter(|loss| (loss.kind == LossKind::Dropped) == dropped)
                .map(|loss| {
                    let reason = match loss.kind {
                        LossKind::Damaged => "damaged",
                        LossKind::Item => "refused",
                        LossKind::Attribute => "attribute",
                        LossKind::Dropped => "policy",
                    };
                    (loss.path.clone(), reason, loss.message.clone())
                })
                .collect()
        };
        Self {
            files_total: summary.files,
            files_unchanged: summary.files_unchanged,
            directories: summary.directories,
            others: summary.others,
            bytes_total: summary.bytes_total,
            bytes_written: summary.bytes_written,
            files_resumed: summary.files_resumed,
            bytes_resumed: summary.bytes_resumed,
            extra_deleted: summary.extra_deleted,
            seconds: summary.seconds,
            items_lost: summary.items_lost + summary.items_damaged,
            items_damaged: summary.items_damaged,
            items_dropped: summary.items_dropped,
            lost: named(false),
            dropped: named(true),
            exit_code: summary.exit_code,
        }
    }
}

/// What a check found.
#[pyclass(frozen, get_all, module = "longshore._native")]
#[allow(missing_docs, reason = "told in _native.pyi")]
pub struct CheckResult {
    /// Severity, object, message, snapshots.
    pub findings: Findings,
    pub errors: u64,
    pub warnings: u64,
    /// Snapshot, path, message.
    pub hurt: Hurt,
    pub items_hurt: u64,
    pub snapshots: u64,
    pub packs: u64,
    pub pack_bytes: u64,
    pub frames_read: u64,
    pub bytes_read: u64,
    pub packs_resumed: u64,
    pub bytes_resumed: u64,
    pub begun_nanos: i64,
    pub trees: u64,
    pub seconds: f64,
    pub exit_code: i32,
}

type Findings = Vec<(&'static str, String, String, Vec<String>)>;
type Hurt = Vec<(String, Vec<u8>, String)>;

fn findings_of(findings: &[Finding]) -> Findings {
    let severity = |severity| match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    findings.iter().map(|f| (severity(f.severity), f.object.clone(), f.message.clone(), f.snapshots.clone())).collect()
}

fn hurt_of(hurt: &[HurtItem]) -> Hurt {
    hurt.iter().map(|item| (item.snapshot.clone(), item.path.clone(), item.message.clone())).collect()
}

impl From<&CheckReport> for CheckResult {
    fn from(report: &CheckReport) -> Self {
        Self {
            findings: findings_of(&report.findings),
            errors: report.errors,
            warnings: report.warnings,
            hurt: hurt_of(&report.hurt),
            items_hurt: report.items_hurt,
            snapshots: report.snapshots,
            packs: report.packs,
            pack_bytes: report.pack_bytes,
            frames_read: report.frames_read,
            bytes_read: report.bytes_read,
            packs_resumed: report.packs_resumed,
            bytes_resumed: report.bytes_resumed,
            begun_nanos: report.begun_nanos,
            trees: report.trees,
            seconds: report.seconds,
            exit_code: report.exit_code,
        }
    }
}

/// An entry of a snapshot.
#[pyclass(frozen, get_all, module = "longshore._native")]
#[allow(missing_docs, reason = "told in _native.pyi")]
pub struct Entry {
    pub path: Vec<u8>,
    pub kind: &'static str,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size_bytes: u64,
    /// Beyond 64 bits for the farthest years that a filesystem records.
    pub mtime_nanos: i128,
    pub inode: u64,
    pub linked: bool,
    pub target: Option<Vec<u8>>,
    pub device: Option<(u32, u32)>,
    pub xattrs: Vec<(Vec<u8>, u64)>,
    pub changed: bool,
    pub incomplete: bool,
}

impl From<EntryRow> for Entry {
    fn from(row: EntryRow) -> Self {
        Self {
            path: row.path,
            kind: row.kind,
            mode: row.mode,
            uid: row.uid,
            gid: row.gid,
            size_bytes: row.size_bytes,
            mtime_nanos: i128::from(row.mtime.secs) * 1_000_000_000 + i128::from(row.mtime.nanos),
            inode: row.inode,
            linked: row.linked,
            target: row.target,
            device: row.device,
            xattrs: row.xattrs,
            changed: row.changed,
            incomplete: row.incomplete,
        }
    }
}

/// A snapshot and what it says of itself.
#[pyclass(frozen, get_all, module = "longshore._native")]
#[allow(missing_docs, reason = "told in _native.pyi")]
pub struct Snapshot {
    pub id: String,
    pub source: String,
    pub parent_id: Option<String>,
    pub tags: Vec<(String, String)>,
    pub started_nanos: i64,
    pub ended_nanos: i64,
    pub host: String,
    pub path: Vec<u8>,
    pub program: String,
    pub files_total: u64,
    pub directories: u64,
    pub others: u64,
    pub files_new: u64,
    pub files_changed: u64,
    pub files_unchanged: u64,
    pub bytes_total: u64,
    pub bytes_read: u64,
    pub bytes_stored: u64,
    pub items_lost: u64,
    pub items_changed: u64,
    pub lost: Vec<Lost>,
    pub changed: Vec<Vec<u8>>,
}

impl From<&SnapshotRow> for Snapshot {
    fn from(row: &SnapshotRow) -> Self {
        let (snapshot, counts) = (&row.snapshot, row.snapshot.counts);
        Self {
            id: row.id(),
            source: snapshot.source.clone(),
            parent_id: snapshot.parent.map(public_id),
            tags: snapshot.tags.clone(),
            started_nanos: snapshot.started_nanos,
            ended_nanos: snapshot.ended_nanos,
            host: snapshot.host.clone(),
            path: snapshot.path.clone(),
            program: snapshot.program.clone(),
            files_total: counts.files,
            directories: counts.directories,
            others: counts.others,
            files_new: counts.files_new,
            files_changed: counts.files_changed,
            files_unchanged: counts.files_unchanged,
            bytes_total: counts.bytes,
            bytes_read: counts.bytes_read,
            bytes_stored: counts.bytes_stored,
            items_lost: counts.items_lost,
            items_changed: counts.items_changed,
            lost: lost(&snapshot.lost),
            changed: snapshot.changed.clone(),
        }
    }
}

/// What a repair did.
#[pyclass(frozen, get_all, module = "longshore._native")]
#[allow(missing_docs, reason = "told in _native.pyi")]
pub struct RepairResult {
    /// Severity, object, message, snapshots.
    pub findings: Findings,
    /// Snapshot, path, message.
    pub hurt: Hurt,
    pub errors: u64,
    pub warnings: u64,
    pub items_hurt: u64,
    pub snapshots: u64,
    pub snapshots_hurt: u64,
    pub snapshots_touched: u64,
    pub snapshots_damaged: u64,
    pub slots_damaged: u64,
    pub packs: u64,
    pub pack_bytes: u64,
    pub bytes_read: u64,
    pub packs_resumed: u64,
    pub bytes_resumed: u64,
    pub begun_nanos: i64,
    pub packs_damaged: u64,
    pub packs_indexed: u64,
    pub segments_written: u64,
    pub segments_deleted: u64,
    pub frames_moved: u64,
    pub bytes_moved: u64,
    pub tables_rebuilt: u64,
    pub frames_lost: u64,
    pub chunks_missing: u64,
    pub recorded: bool,
    pub dry_run: bool,
    pub seconds: f64,
    pub exit_code: i32,
}

impl From<&RepairReport> for RepairResult {
    fn from(report: &RepairReport) -> Self {
        Self {
            findings: findings_of(&report.findings),
            hurt: hurt_of(&report.hurt),
            errors: report.errors,
            warnings: report.warnings,
            items_hurt: report.items_hurt,
            snapshots: report.snapshots,
            snapshots_hurt: report.snapshots_hurt,
            snapshots_touched: report.snapshots_touched,
            snapshots_damaged: report.snapshots_damaged,
            slots_damaged: report.slots_damaged,
            packs: report.packs,
            pack_bytes: report.pack_bytes,
            bytes_read: report.bytes_read,
            packs_resumed: report.packs_resumed,
            bytes_resumed: report.bytes_resumed,
            begun_nanos: report.begun_nanos,
            packs_damaged: report.packs_damaged,
            packs_indexed: report.packs_indexed,
            segments_written: report.segments_written,
            segments_deleted: report.segments_deleted,
            frames_moved: report.frames_moved,
            bytes_moved: report.bytes_moved,
            tables_rebuilt: report.tables_rebuilt,
            frames_lost: report.frames_lost,
            chunks_missing: report.chunks_missing,
            recorded: report.recorded,
            dry_run: report.dry_run,
            seconds: report.seconds,
            exit_code: report.exit_code,
        }
    }
}

/// What a prune did.
#[pyclass(frozen, get_all, module = "longshore._native")]
#[allow(missing_docs, reason = "told in _native.pyi")]
pub struct PruneResult {
    pub snapshots: u64,
    pub readers: u64,
    pub packs_before: u64,
    pub bytes_before: u64,
    pub bytes_needed: u64,
    pub packs_deleted: u64,
    pub bytes_freed: u64,
    pub tables_deleted: u64,
    pub segments_deleted: u64,
    pub segments_written: u64,
    pub packs_repacked: u64,
    pub packs_written: u64,
    pub bytes_moved: u64,
    pub generations_done: u64,
    pub generations_waiting: u64,
    pub waiting_for: Vec<(String, String)>,
    pub fenced: Vec<String>,
    pub kept: Vec<(&'static str, u64, u64, u64)>,
    pub packs: Vec<(String, u64, u64, &'static str)>,
    pub damaged: Vec<(String, String)>,
    pub used_reserve: bool,
    pub seconds: f64,
    pub exit_code: i32,
}

impl From<&PruneReport> for PruneResult {
    fn from(report: &PruneReport) -> Self {
        let waiting = report.waiting_for.iter().map(|(session, host)| (session.to_string(), host.clone()));
        let kept = report.kept.iter().map(|(why, kept)| (why.code(), kept.packs, kept.bytes, kept.dead_bytes));
        let packs = report.packs.iter().map(|row| (row.name.key(), row.size_bytes, row.live_bytes, row.why.code()));
        Self {
            snapshots: report.snapshots,
            readers: report.readers,
            packs_before: report.packs_before,
            bytes_before: report.bytes_before,
            bytes_needed: report.bytes_needed,
            packs_deleted: report.packs_deleted,
            bytes_freed: report.bytes_freed,
            tables_deleted: report.tables_deleted,
            segments_deleted: report.segments_deleted,
            segments_written: report.segments_written,
            packs_repacked: report.packs_repacked,
            packs_written: report.packs_written,
            bytes_moved: report.bytes_moved,
            generations_done: report.generations_done,
            generations_waiting: report.generations_waiting,
            waiting_for: waiting.collect(),
            fenced: report.fenced.iter().map(ToString::to_string).collect(),
            kept: kept.collect(),
            packs: packs.collect(),
            damaged: report.damaged.clone(),
            used_reserve: report.used_reserve,
            seconds: report.seconds,
            exit_code: report.exit_code,
        }
    }
}

/// A key slot.
#[pyclass(frozen, get_all, module = "longshore._native")]
#[allow(missing_docs, reason = "told in _native.pyi")]
pub struct KeySlot {
    pub name: String,
    pub kind: &'static str,
    pub label: String,
}

impl From<&SlotRow> for KeySlot {
    fn from(row: &SlotRow) -> Self {
        Self {
            name: row.name.to_string(),
            kind: if row.info.passphrase { "passphrase" } else { "key" },
            label: row.info.label.clone(),
        }
    }
}

/// What a repository holds.
#[pyclass(frozen, get_all, skip_from_py_object, module = "longshore._native")]
#[derive(Clone)]
#[allow(missing_docs, reason = "told in _native.pyi")]
pub struct RepositoryStatus {
    pub id: String,
    pub format_version: u8,
    pub created_nanos: i64,
    pub packs: u64,
    pub pack_bytes: u64,
    pub chunks: u64,
    pub snapshots: u64,
    pub snapshots_damaged: u64,
    pub slots: u64,
    pub index_damaged: u64,
}

/// The identifier that users see.
pub fn id_of(session: SessionId) -> String {
    public_id(session)
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Progress>()?;
    m.add_class::<BackupResult>()?;
    m.add_class::<RestoreResult>()?;
    m.add_class::<CheckResult>()?;
    m.add_class::<PruneResult>()?;
    m.add_class::<RepairResult>()?;
    m.add_class::<Entry>()?;
    m.add_class::<Snapshot>()?;
    m.add_class::<KeySlot>()?;
    m.add_class::<RepositoryStatus>()
}
