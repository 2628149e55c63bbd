"""Names that Velero writes on objects: kinds, labels, annotations, finalizers. Constants only.

Promises: every name is the one that Velero reads or writes, letter for letter.

It does not know who writes which name when.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = [
    "ANNOTATION_PVC_NAME",
    "BACKUP_REPOSITORIES",
    "BACKUP_STORAGE_LOCATIONS",
    "DEFINITIONS",
    "FINALIZER_POD_VOLUME",
    "GROUP",
    "LABEL_BACKUP_NAME",
    "LABEL_BACKUP_UID",
    "LABEL_EXPOSE_ON_GOING",
    "LABEL_POD_UID",
    "LABEL_PVC_UID",
    "LABEL_REPOSITORY_TYPE",
    "LABEL_RESTORE_NAME",
    "LABEL_RESTORE_UID",
    "LABEL_STORAGE_LOCATION",
    "LABEL_VOLUME_NAMESPACE",
    "POD_VOLUME_BACKUPS",
    "POD_VOLUME_RESTORES",
    "RESTIC_REPOSITORIES",
    "TAG_BACKUP",
    "TAG_BACKUP_UID",
    "TAG_NAMESPACE",
    "TAG_POD",
    "TAG_POD_UID",
    "TAG_PVC_UID",
    "TAG_VOLUME",
    "VERSION",
    "WAIT_CONTAINER_NAMES",
    "ResourceDefinition",
]

GROUP: Final = "velero.io"
VERSION: Final = "v1"


@dataclass(frozen=True, slots=True)
class ResourceDefinition:
    """One kind as the API server's paths and a CRD name it."""

    kind: str
    plural: str
    singular: str
    short_names: tuple[str, ...] = ()
    group: str = GROUP
    version: str = VERSION
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """What stands in an object's `apiVersion`."""
        return f"{self.group}/{self.version}"

    @property
    def crd_name(self) -> str:
        """The name of the CustomResourceDefinition."""
        return f"{self.plural}.{self.group}"


POD_VOLUME_BACKUPS: Final = ResourceDefinition("PodVolumeBackup", "podvolumebackups", "podvolumebackup", ("pvb",))
POD_VOLUME_RESTORES: Final = ResourceDefinition("PodVolumeRestore", "podvolumerestores", "podvolumerestore", ("pvr",))
# No short name: `repo` belongs to BackupRepository, and the API server would give it to one of the two by chance.
RESTIC_REPOSITORIES: Final = ResourceDefinition("ResticRepository", "resticrepositories", "resticrepository")
BACKUP_REPOSITORIES: Final = ResourceDefinition("BackupRepository", "backuprepositories", "backuprepository", ("repo",))
BACKUP_STORAGE_LOCATIONS: Final = ResourceDefinition(
    "BackupStorageLocation", "backupstoragelocations", "backupstoragelocation", ("bsl",)
)
DEFINITIONS: Final = (
    BACKUP_REPOSITORIES,
    BACKUP_STORAGE_LOCATIONS,
    POD_VOLUME_BACKUPS,
    POD_VOLUME_RESTORES,
    RESTIC_REPOSITORIES,
)

LABEL_BACKUP_NAME: Final = "velero.io/backup-name"
LABEL_BACKUP_UID: Final = "velero.io/backup-uid"
LABEL_RESTORE_NAME: Final = "velero.io/restore-name"
LABEL_RESTORE_UID: Final = "velero.io/restore-uid"
LABEL_POD_UID: Final = "velero.io/pod-uid"
LABEL_PVC_UID: Final = "velero.io/pvc-uid"
LABEL_VOLUME_NAMESPACE: Final = "velero.io/volume-namespace"
LABEL_STORAGE_LOCATION: Final = "velero.io/storage-location"
LABEL_REPOSITORY_TYPE: Final = "velero.io/repository-type"
LABEL_EXPOSE_ON_GOING: Final = "velero.io/expose-on-going"
"""`true` while another agent's hosting pod is at work on a PVB or PVR (Velero 1.17 and later)."""

ANNOTATION_PVC_NAME: Final = "velero.io/pvc-name"

FINALIZER_POD_VOLUME: Final = "velero.io/pod-volume-finalizer"
"""Put on PVBs and PVRs by Velero's agent from 1.17 on; we only ever take it off."""

# Keys of PodVolumeBackup's spec.tags.
TAG_BACKUP: Final = "backup"
TAG_BACKUP_UID: Final = "backup-uid"
TAG_POD: Final = "pod"
TAG_POD_UID: Final = "pod-uid"
TAG_NAMESPACE: Final = "ns"
TAG_VOLUME: Final = "volume"
TAG_PVC_UID: Final = "pvc-uid"

WAIT_CONTAINER_NAMES: Final = ("restore-wait", "restic-wait")
"""Init containers that hold a restored pod until its volumes are filled: Velero 1.10 and later, and before."""
