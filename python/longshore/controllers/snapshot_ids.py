"""Whose snapshot an id names, by its looks alone.

Ours are `ls0-` and 32 hexadecimal digits. restic writes 8 or 64 of them, kopia's manifests have 32, so no two can be mistaken for each other.
"""

from __future__ import annotations

import re
from typing import Final

from longshore.errors import UnsupportedError, UsageError

__all__ = ["check_ours", "is_ours"]

_OURS: Final = re.compile(r"ls0-[0-9a-f]{32}", re.ASCII)
_RESTIC: Final = re.compile(r"[0-9a-f]{8}|[0-9a-f]{64}", re.ASCII)
_KOPIA: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)


def is_ours(snapshot_id: str) -> bool:
    """Whether our engine made it."""
    return _OURS.fullmatch(snapshot_id) is not None


def check_ours(snapshot_id: str) -> str:
    """Let an id of ours pass.

    Raises:
        UnsupportedError: another data path made the snapshot; the message says which.
        UsageError: no data path writes such an id.
    """
    if is_ours(snapshot_id):
        return snapshot_id
    for name, looks, step in (
        ("restic", _RESTIC, "restore with a Velero up to 1.18 and its own node agent, or with restic itself"),
        ("kopia", _KOPIA, "restore with Velero's own node agent, or with kopia itself"),
    ):
        if looks.fullmatch(snapshot_id):
            raise UnsupportedError(f"the snapshot was made by {name}: snapshot={snapshot_id}", step)
    raise UsageError(
        f"not the id of a snapshot: field=spec.snapshotID, value={snapshot_id[:80]!r}",
        "take it from the PodVolumeBackup's status.snapshotID",
    )
