"""Our custom resources, and the few pieces of Kubernetes' own kinds that we read, as models. The CRDs are generated from here.

What may enter: the shape of objects, the names written on them, and questions that an object answers by itself. What may not: a client, a clock, a decision.

Start with :mod:`longshore.api.model`, which says how an object comes in and goes out without a loss. :mod:`longshore.api.names` holds labels, finalizers and
resource definitions; :mod:`longshore.api.values` times, durations and label values; :mod:`longshore.api.pod_volume`, :mod:`longshore.api.repository` and
:mod:`longshore.api.storage_location` one family of kinds each; :mod:`longshore.api.core` pods, claims and volumes; :mod:`longshore.api.crdgen` writes
`daemonset/crds/`.
"""

from longshore.api.core import PersistentVolume, PersistentVolumeClaim, Pod
from longshore.api.meta import (
    Condition,
    ConditionStatus,
    ObjectMeta,
    ObjectReference,
    OwnerReference,
    SecretKeySelector,
)
from longshore.api.model import ApiModel, ApiObject
from longshore.api.names import ResourceDefinition
from longshore.api.pod_volume import (
    DataMoveProgress,
    PodVolumeBackup,
    PodVolumeBackupSpec,
    PodVolumeBackupStatus,
    PodVolumePhase,
    PodVolumeRestore,
    PodVolumeRestoreSpec,
    PodVolumeRestoreStatus,
    UploaderType,
)
from longshore.api.repository import (
    CONDITION_RECOVERY_KEY_MISSING,
    BackupRepository,
    BackupRepositorySpec,
    BackupRepositoryStatus,
    MaintenanceResult,
    RecentMaintenance,
    RepositoryPhase,
    RepositoryType,
    ResticRepository,
    ResticRepositorySpec,
    ResticRepositoryStatus,
)
from longshore.api.storage_location import (
    AccessMode,
    BackupStorageLocation,
    BackupStorageLocationSpec,
    BackupStorageLocationStatus,
    LocationPhase,
    ObjectStorageLocation,
)
from longshore.api.values import Duration, Timestamp, valid_label_value

__all__ = [
    "CONDITION_RECOVERY_KEY_MISSING",
    "AccessMode",
    "ApiModel",
    "ApiObject",
    "BackupRepository",
    "BackupRepositorySpec",
    "BackupRepositoryStatus",
    "BackupStorageLocation",
    "BackupStorageLocationSpec",
    "BackupStorageLocationStatus",
    "Condition",
    "ConditionStatus",
    "DataMoveProgress",
    "Duration",
    "LocationPhase",
    "MaintenanceResult",
    "ObjectMeta",
    "ObjectReference",
    "ObjectStorageLocation",
    "OwnerReference",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Pod",
    "PodVolumeBackup",
    "PodVolumeBackupSpec",
    "PodVolumeBackupStatus",
    "PodVolumePhase",
    "PodVolumeRestore",
    "PodVolumeRestoreSpec",
    "PodVolumeRestoreStatus",
    "RecentMaintenance",
    "RepositoryPhase",
    "RepositoryType",
    "ResourceDefinition",
    "ResticRepository",
    "ResticRepositorySpec",
    "ResticRepositoryStatus",
    "SecretKeySelector",
    "Timestamp",
    "UploaderType",
    "valid_label_value",
]
