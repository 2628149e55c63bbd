"""The JSON fields of results: what `--json`, `--output json` and docs/reference/json.md have in common.

Field names are what scripts hold on to: they are added to, never renamed. Results are read by attribute. Bytes are counted in bytes, times are RFC 3339 in
UTC with the exact nanoseconds beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from longshore.cli.output.human import moment
from longshore.cli.output.sink import path_fields

if TYPE_CHECKING:
    from longshore.datapath import BackupResult, KeySlot, LostItem, RepositoryStatus, RestoreResult, Snapshot

__all__ = [
    "LOST_IN_SUMMARY_MAX",
    "backup_fields",
    "changed_item",
    "lost_item",
    "restore_fields",
    "slot_fields",
    "snapshot_fields",
    "status_fields",
]

LOST_IN_SUMMARY_MAX = 100
"""A summary is one line that a program reads whole; the `item` lines before it name every item that the result names."""

Fields = dict[str, Any]


def lost_item(lost: LostItem, *, event: str = "lost") -> Fields:
    """An item that was not captured or not restored, or (`dropped`) that the policy left out."""
    return {"event": event, **path_fields(lost.path), "reason": str(lost.reason), "message": lost.message}


def changed_item(path: bytes) -> Fields:
    """A file that was written to while it was read."""
    return {"event": "changed", **path_fields(path)}


def _lost(items: Iterable[LostItem]) -> list[Fields]:
    def some() -> Iterator[Fields]:
        for item, _ in zip(items, range(LOST_IN_SUMMARY_MAX), strict=False):
            fields = lost_item(item)
            del fields["event"]
            yield fields

    return list(some())


def backup_fields(result: BackupResult, *, source: str, repository: str, dry_run: bool) -> Fields:
    """The summary of a backup."""
    return {
        "snapshot_id": result.snapshot_id,
        "parent_id": result.parent_id,
        "source": source,
        "repository": repository,
        "dry_run": dry_run,
        "files_total": result.files_total,
        "files_new": result.files_new,
        "files_changed": result.files_changed,
        "files_unchanged": result.files_unchanged,
        "directories": result.directories,
        "others": result.others,
        "bytes_total": result.bytes_total,
        "bytes_read": result.bytes_read,
        "bytes_stored": result.bytes_stored,
        "files_resumed": result.files_resumed,
        "bytes_resumed": result.bytes_resumed,
        "hints_used": result.hints_used,
        "hints_ignored": result.hints_ignored,
        "bytes_hinted": result.bytes_hinted,
        "seconds": round(result.seconds, 3),
        "items_lost": result.items_lost,
        "items_changed": result.items_changed,
        "items_vanished": result.items_vanished,
        "lost": _lost(result.lost),
        "exit_code": int(result.exit_code),
    }


def restore_fields(result: RestoreResult, *, snapshot_id: str, path: bytes, target: bytes, dry_run: bool) -> Fields:
    """The summary of a restore."""
    return {
        "snapshot_id": snapshot_id,
        **path_fields(path),
        **path_fields(target, name="target"),
        "dry_run": dry_run,
        "files_total": result.files_total,
        "files_unchanged": result.files_unchanged,
        "directories": result.directories,
        "others": result.others,
        "bytes_total": result.bytes_total,
        "bytes_written": result.bytes_written,
        "files_resumed": result.files_resumed,
        "bytes_resumed": result.bytes_resumed,
        "extra_deleted": result.extra_deleted,
        "seconds": round(result.seconds, 3),
        "items_lost": result.items_lost,
        "items_damaged": result.items_damaged,
        "items_dropped": result.items_dropped,
        "lost": _lost(result.lost),
        "exit_code": int(result.exit_code),
    }


def snapshot_fields(snapshot: Snapshot) -> Fields:
    """A row of `volume list`."""
    return {
        "snapshot_id": snapshot.id,
        "source": snapshot.source,
        "host": snapshot.host,
        **path_fields(snapshot.path),
        "tags": dict(snapshot.tags),
        "parent_id": snapshot.parent_id,
        "started": moment(snapshot.started_nanos),
        "started_nanos": snapshot.started_nanos,
        "ended": moment(snapshot.ended_nanos),
        "ended_nanos": snapshot.ended_nanos,
        "program": snapshot.program,
        "files_total": snapshot.files_total,
        "files_new": snapshot.files_new,
        "files_changed": snapshot.files_changed,
        "files_unchanged": snapshot.files_unchanged,
        "directories": snapshot.directories,
        "others": snapshot.others,
        "bytes_total": snapshot.bytes_total,
        "bytes_read": snapshot.bytes_read,
        "bytes_stored": snapshot.bytes_stored,
        "items_lost": snapshot.items_lost,
        "items_changed": snapshot.items_changed,
    }


def slot_fields(slot: KeySlot) -> Fields:
    """A row of `repo key list`."""
    return {"name": slot.name, "kind": str(slot.kind), "label": slot.label}


def status_fields(status: RepositoryStatus, *, repository: str) -> Fields:
    """The summary of `repo status`."""
    return {
        "repository": repository,
        "repository_id": status.id,
        "format_version": status.format_version,
        "created": moment(status.created_nanos),
        "created_nanos": status.created_nanos,
        "snapshots": status.snapshots,
        "snapshots_damaged": status.snapshots_damaged,
        "packs": status.packs,
        "pack_bytes": status.pack_bytes,
        "chunks": status.chunks,
        "slots": status.slots,
        "index_damaged": status.index_damaged,
    }
