"""What Velero's server would write: PodVolumeBackups and PodVolumeRestores."""

from collections.abc import Mapping
from typing import Any

__all__ = ["RESTORE_UID", "backup", "restore"]

RESTORE_UID = "5f0e4d8a-4a0b-4f6f-9b0e-restore00001"
"""UID of the Restore that owns every restore made here; the wait container of its pods gets it as argument."""


def backup(name: str, pod: Mapping[str, str], *, volume: str, node: str, **spec: Any) -> dict[str, Any]:
    """Ask for a backup.

    Args:
        pod: its `namespace`, `name` and `uid`.
        spec: further fields, or others than these.
    """
    asked = {
        "node": node,
        "pod": {"kind": "Pod", **pod},
        "volume": volume,
        "backupStorageLocation": "default",
        "repoIdentifier": "",
        "uploaderType": "kopia",
        "tags": {"backup": "nightly", "volume": volume},
        **spec,
    }
    return {
        "apiVersion": "velero.io/v1",
        "kind": "PodVolumeBackup",
        "metadata": {"name": name, "labels": {"velero.io/pod-uid": pod["uid"]}},
        "spec": asked,
    }


def restore(
    name: str,
    pod: Mapping[str, str],
    *,
    volume: str,
    snapshot: str,
    source: str | None = None,
    location: str = "default",
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Ask for a restore.

    Args:
        pod: its `namespace`, `name` and `uid`.
        source: namespace of the backup; the pod's when not given.
    """
    owner = {"apiVersion": "velero.io/v1", "kind": "Restore", "name": "r", "uid": RESTORE_UID, "controller": True}
    return {
        "apiVersion": "velero.io/v1",
        "kind": "PodVolumeRestore",
        "metadata": {
            "name": name,
            "labels": {"velero.io/pod-uid": pod["uid"]},
            "ownerReferences": [owner],
            "annotations": dict(annotations or {}),
        },
        "spec": {
            "pod": {"kind": "Pod", **pod},
            "volume": volume,
            "backupStorageLocation": location,
            "repoIdentifier": "",
            "snapshotID": snapshot,
            "sourceNamespace": source or pod["namespace"],
            "uploaderType": "kopia",
        },
    }
