"""Objects as Velero 1.9 and 1.18 write them, with every field of each version, written by hand from the API's description.

`with_unknown` plants a field that nobody knows at every level of one. Does not know longshore: these say what the models and CRDs must take.
"""

import copy
from typing import Any

POD_REFERENCE = {
    "apiVersion": "v1",
    "kind": "Pod",
    "namespace": "shop",
    "name": "db-0",
    "uid": "0b0f4a4e-6a3c-4b7e-9f3d-0d8f0f7b1c11",
    "resourceVersion": "4711",
    "fieldPath": "spec.volumes[0]",
}
TIMES = {"startTimestamp": "2026-11-21T09:30:00Z", "completionTimestamp": "2026-11-21T09:31:07Z"}


def _object(kind: str, name: str, spec: dict[str, Any], status: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "velero.io/v1",
        "kind": kind,
        "metadata": {"name": name, **metadata},
        "spec": spec,
        "status": status,
    }


_PVB_19 = _object(
    "PodVolumeBackup",
    "nightly-x7k2p",
    {
        "node": "node-a",
        "pod": POD_REFERENCE,
        "volume": "data",
        "backupStorageLocation": "default",
        "repoIdentifier": "s3:s3-eu-west-1.amazonaws.com/backups/restic/shop",
        "tags": {"backup": "nightly", "backup-uid": "u", "pod": "db-0", "pod-uid": "p", "ns": "shop", "volume": "data"},
    },
    {
        "phase": "Completed",
        "path": "/host_pods/0b0f/volumes/kubernetes.io~csi/pvc-1/mount",
        "snapshotID": "1f3a9c20",
        "message": "",
        **TIMES,
        "progress": {"totalBytes": 9007199254740993, "bytesDone": 9007199254740993},
    },
    generateName="nightly-",
    labels={"velero.io/backup-name": "nightly", "velero.io/backup-uid": "u", "velero.io/pvc-uid": "c"},
    annotations={"velero.io/pvc-name": "data-db-0"},
    ownerReferences=[
        {"apiVersion": "velero.io/v1", "kind": "Backup", "name": "nightly", "uid": "u", "controller": True}
    ],
)
_PVB_118 = copy.deepcopy(_PVB_19)
_PVB_118["spec"] |= {
    "repoIdentifier": "",
    "uploaderType": "kopia",
    "uploaderSettings": {"ParallelFilesUpload": "4"},
    "cancel": False,
}
_PVB_118["status"] |= {
    "phase": "Canceling",
    "acceptedTimestamp": "2026-11-21T09:29:59Z",
    "incrementalBytes": 0,
}
_PVB_118["metadata"] |= {"finalizers": ["velero.io/pod-volume-finalizer"]}

_PVR_19 = _object(
    "PodVolumeRestore",
    "restore-1-abcde",
    {
        "pod": POD_REFERENCE,
        "volume": "data",
        "backupStorageLocation": "default",
        "repoIdentifier": "s3:s3-eu-west-1.amazonaws.com/backups/restic/shop",
        "snapshotID": "1f3a9c20",
    },
    {"phase": "Failed", "message": "no space left", **TIMES, "progress": {"totalBytes": 10, "bytesDone": 3}},
    labels={"velero.io/restore-name": "restore-1", "velero.io/restore-uid": "r", "velero.io/pod-uid": "p"},
)
_PVR_118 = copy.deepcopy(_PVR_19)
_PVR_118["spec"] |= {
    "repoIdentifier": "",
    "uploaderType": "kopia",
    "sourceNamespace": "shop",
    "uploaderSettings": {"WriteSparseFiles": "true", "ParallelFilesDownload": "2"},
    "cancel": True,
    "snapshotSize": 12,
}
_PVR_118["status"] |= {"phase": "Prepared", "acceptedTimestamp": "2026-11-21T09:29:59Z", "node": "node-b"}

_RESTIC_REPOSITORY_19 = _object(
    "ResticRepository",
    "shop-default-5vqzq",
    {
        "volumeNamespace": "shop",
        "backupStorageLocation": "default",
        "resticIdentifier": "s3:s3-eu-west-1.amazonaws.com/backups/restic/shop",
        "maintenanceFrequency": "168h0m0s",
    },
    {"phase": "Ready", "message": "", "lastMaintenanceTime": "2026-11-21T09:30:00Z"},
    labels={"velero.io/volume-namespace": "shop", "velero.io/storage-location": "default"},
)
_BACKUP_REPOSITORY_118 = _object(
    "BackupRepository",
    "shop-default-kopia",
    {
        "volumeNamespace": "shop",
        "backupStorageLocation": "default",
        "maintenanceFrequency": "1h0m0s",
        "repositoryType": "kopia",
        "resticIdentifier": "",
        "repositoryConfig": {"cacheLimitMB": "5000", "fullMaintenanceInterval": "normalGC"},
    },
    {
        "phase": "NotReady",
        "message": "the bucket moved",
        "lastMaintenanceTime": None,
        "recentMaintenance": [
            {
                "result": "Failed",
                "startTimestamp": "2026-11-21T09:30:00Z",
                "completeTimestamp": "2026-11-21T09:30:01Z",
                "message": "no route",
            },
            {"result": "Succeeded", "startTimestamp": "2026-11-21T10:30:00Z"},
        ],
    },
)
_LOCATION_19 = _object(
    "BackupStorageLocation",
    "default",
    {
        "provider": "aws",
        "objectStorage": {"bucket": "backups", "prefix": "cluster-1", "caCert": "LS0tLS1CRUdJTg=="},
        "config": {"region": "eu-west-1", "s3ForcePathStyle": "true", "s3Url": "https://s3.example.com"},
        "credential": {"name": "cloud", "key": "aws", "optional": False},
        "default": True,
        "accessMode": "ReadWrite",
        "backupSyncPeriod": "1m0s",
        "validationFrequency": None,
    },
    {
        "phase": "Unavailable",
        "lastSyncedTime": "2026-11-21T09:30:00Z",
        "lastValidationTime": "2026-11-21T09:30:30.5Z",
        "message": "no such bucket",
        "lastSyncedRevision": "12",
        "accessMode": "ReadOnly",
    },
)
_LOCATION_118 = copy.deepcopy(_LOCATION_19)
_LOCATION_118["spec"]["objectStorage"]["caCertRef"] = {"name": "ca", "key": "bundle", "optional": False}

SAMPLES: dict[str, dict[str, Any]] = {
    "podvolumebackup-1.9": _PVB_19,
    "podvolumebackup-1.18": _PVB_118,
    "podvolumerestore-1.9": _PVR_19,
    "podvolumerestore-1.18": _PVR_118,
    "resticrepository-1.9": _RESTIC_REPOSITORY_19,
    "backuprepository-1.18": _BACKUP_REPOSITORY_118,
    "backupstoragelocation-1.9": _LOCATION_19,
    "backupstoragelocation-1.18": _LOCATION_118,
}


def with_unknown(sample: dict[str, Any]) -> dict[str, Any]:
    """Plant unknown fields, among them a null and names of Python's, in every object of a sample except its maps and metadata."""

    def plant(value: Any, *, level: str) -> Any:
        if isinstance(value, list):
            return [plant(one, level=level) for one in value]
        if not isinstance(value, dict) or level in {
            "metadata",
            "tags",
            "uploaderSettings",
            "config",
            "repositoryConfig",
        }:
            return value
        planted = {name: plant(one, level=name) for name, one in value.items()}
        return planted | {
            "zzNew": {"deep": [{"nothing": None}, 1.5, "x"]},
            "snapshot_id": "a field of that name",
            "model_config": [True],
            "emptyOne": {},
        }

    return {name: plant(value, level=name) if isinstance(value, dict) else value for name, value in sample.items()} | {
        "zzTop": {"kept": True}
    }
