"""The data path: repositories, their snapshots and keys, and the jobs that move volumes in and out. The only user of the native extension.

In go paths, options, keys and store settings; out come ids, counts and frozen results. File content never crosses into Python.

Promises: a job starts at once on threads of the engine and never blocks this process's other threads; :meth:`Job.wait` and every call that talks to a store are
ended by Ctrl-C; every error is a class of :mod:`longshore.errors` with a next step; no representation shows a secret. Engine log records are written by
:mod:`longshore.logs` whenever a call of this room returns, so a running job wants to be polled.

It does not know Kubernetes, storage locations or the command line. Rooms: `stores`, `keys`, `options` (what goes in), `results` (what comes out), `jobs`,
`repository`, `retention` (which snapshots a policy keeps), `machine` (how much of this machine is ours), `counts`, `enginelog`.
"""

from longshore.datapath.counts import Counts, Lookups, counts
from longshore.datapath.enginelog import set_log_level
from longshore.datapath.jobs import Job
from longshore.datapath.keys import Key
from longshore.datapath.limits import Limits
from longshore.datapath.options import BackupOptions, FileHint, Hints, PruneOptions, RepairOptions, RestoreOptions
from longshore.datapath.repository import Repository, exists, init, open  # noqa: A004 - the word of the contract: open a repository
from longshore.datapath.results import (
    BackupResult,
    CheckResult,
    Entry,
    EntryPage,
    Finding,
    HurtItem,
    KeptPacks,
    KeySlot,
    LostItem,
    PackFate,
    Progress,
    PruneResult,
    RepairResult,
    RepositoryStatus,
    RestoreResult,
    Snapshot,
    SnapshotList,
)
from longshore.datapath.retention import Policy, Verdict, is_dated_ahead, judge, parse_span
from longshore.datapath.stores import Credentials, FolderStore, S3Store, StoreSettings, store_from_url

__all__ = [
    "BackupOptions",
    "BackupResult",
    "CheckResult",
    "Counts",
    "Credentials",
    "Entry",
    "EntryPage",
    "FileHint",
    "Finding",
    "FolderStore",
    "Hints",
    "HurtItem",
    "Job",
    "KeptPacks",
    "Key",
    "KeySlot",
    "Limits",
    "Lookups",
    "LostItem",
    "PackFate",
    "Policy",
    "Progress",
    "PruneOptions",
    "PruneResult",
    "RepairOptions",
    "RepairResult",
    "Repository",
    "RepositoryStatus",
    "RestoreOptions",
    "RestoreResult",
    "S3Store",
    "Snapshot",
    "SnapshotList",
    "StoreSettings",
    "Verdict",
    "counts",
    "exists",
    "init",
    "is_dated_ahead",
    "judge",
    "open",
    "parse_span",
    "set_log_level",
    "store_from_url",
]
