"""PodVolumeBackup and PodVolumeRestore: the superset of what Velero 1.9 to 1.18 write, and what our agent adds.

Required is only what every one of those versions requires. Docstrings below fields are the descriptions in the CRDs.

Added by us, all optional and in status: `node` on PodVolumeBackup (other agents print that column and leave it blank), `instance`, and files and rate in
`progress`. Another agent ignores them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from longshore.api.meta import ObjectMeta, ObjectReference
from longshore.api.model import NULLABLE, ApiModel, ApiObject, open_enum, open_enum_schema
from longshore.api.names import POD_VOLUME_BACKUPS, POD_VOLUME_RESTORES, ResourceDefinition
from longshore.api.values import Timestamp

__all__ = [
    "DataMoveProgress",
    "PodVolumeBackup",
    "PodVolumeBackupSpec",
    "PodVolumeBackupStatus",
    "PodVolumePhase",
    "PodVolumeRestore",
    "PodVolumeRestoreSpec",
    "PodVolumeRestoreStatus",
    "UploaderType",
]


class PodVolumePhase(StrEnum):
    """Where a PodVolumeBackup or PodVolumeRestore stands. An absent or empty phase is NEW.

    Velero up to 1.16 knows New, InProgress, Completed and Failed; the others came with 1.17.
    """

    NEW = "New"
    ACCEPTED = "Accepted"
    PREPARED = "Prepared"
    IN_PROGRESS = "InProgress"
    CANCELING = "Canceling"
    CANCELED = "Canceled"
    COMPLETED = "Completed"
    FAILED = "Failed"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing follows this phase."""
        return self in _TERMINAL

    @classmethod
    def of(cls, text: str) -> PodVolumePhase | str:
        """Read a phase: NEW for the empty one, a member for a known one, the text itself for one that only a newer version knows."""
        try:
            return cls(text) if text else cls.NEW
        except ValueError:
            return text


_TERMINAL = frozenset({PodVolumePhase.CANCELED, PodVolumePhase.COMPLETED, PodVolumePhase.FAILED})


class UploaderType(StrEnum):
    """Whose data path the server asked for; our engine serves each of them. The empty one is what versions before 1.10 write."""

    UNSET = ""
    KOPIA = "kopia"
    RESTIC = "restic"


Phase = Annotated[
    PodVolumePhase | str,
    Field(union_mode="left_to_right"),
    open_enum(PodVolumePhase),
    open_enum_schema(PodVolumePhase, empty=True),
]
Uploader = Annotated[
    UploaderType | str, Field(union_mode="left_to_right"), open_enum(UploaderType), open_enum_schema(UploaderType)
]
Int64 = Annotated[int, Field(json_schema_extra={"format": "int64"})]


class DataMoveProgress(ApiModel):
    """How far the data path has come."""

    total_bytes: Int64 = 0
    """Bytes to be processed, as far as they are known."""
    bytes_done: Int64 = 0
    """Bytes processed so far."""
    total_files: Int64 | None = None
    """Files and other entries to be processed, as far as they are known."""
    files_done: Int64 | None = None
    """Files and other entries processed so far."""
    bytes_per_second: Int64 | None = None
    """Mean rate since the last report, in bytes a second."""


class _PodVolumeStatus(ApiModel):
    phase: Phase = ""
    """Where the operation stands. Completed, Failed and Canceled are final."""
    message: str = ""
    """What an operator should know: why it failed and what to do, or what was not captured or restored."""
    node: str = ""
    """Node whose agent does or did the work."""
    instance: str = ""
    """Instance of the agent that claimed the object: its pod's name and a random part, new with each start."""
    accepted_timestamp: Timestamp | None = None
    """When an agent accepted the object. Written by Velero 1.17 and later."""
    start_timestamp: Timestamp | None = None
    """When the work started."""
    completion_timestamp: Timestamp | None = None
    """When the work ended, whether it succeeded or not."""
    progress: DataMoveProgress = DataMoveProgress()
    """How far the data path has come."""

    @property
    def is_terminal(self) -> bool:
        """Whether the phase is final; an unknown phase is not."""
        return isinstance(self.phase, PodVolumePhase) and self.phase.is_terminal


class PodVolumeBackupSpec(ApiModel):
    """What to back up, and where to."""

    node: str
    """Node on which the pod runs; only that node's agent acts."""
    pod: ObjectReference
    """The pod whose volume is backed up."""
    volume: str
    """Name of the volume in the pod's spec.volumes."""
    backup_storage_location: str
    """Name of the BackupStorageLocation that holds the repository."""
    repo_identifier: str
    """Address of a restic repository. Empty for other uploaders; this data path does not use it."""
    uploader_type: Uploader = UploaderType.UNSET
    """Uploader that the server asked for: kopia, restic, or empty, which is restic up to Velero 1.18. All are served by the same engine."""
    tags: dict[str, str] = Field(default_factory=dict)
    """Key-value pairs kept with the snapshot, such as backup, pod, ns, volume and pvc-uid."""
    uploader_settings: dict[str, str] = Field(default_factory=dict, json_schema_extra=NULLABLE)
    """Settings for the uploader, such as ParallelFilesUpload with the number of files read at once."""
    cancel: bool = False
    """Set to true to ask for the operation's cancellation."""
    parent_snapshot: str = ""
    """Snapshot to compare against: empty for the newest of the same volume, none for a full read, or an id."""


class PodVolumeBackupStatus(_PodVolumeStatus):
    """What became of it."""

    path: str = ""
    """Path of the volume on the node, as the agent saw it."""
    snapshot_id: str = ""
    """Id of the snapshot in the repository. Also set on Failed when some items could not be read: it holds the rest."""
    incremental_bytes: Int64 | None = None
    """Bytes of files that were new or had changed since the parent snapshot."""


class PodVolumeBackup(ApiObject):
    """One backup of one volume of a pod."""

    definition: ClassVar[ResourceDefinition] = POD_VOLUME_BACKUPS

    metadata: ObjectMeta = ObjectMeta()
    spec: PodVolumeBackupSpec
    """What to back up, and where to."""
    status: PodVolumeBackupStatus = PodVolumeBackupStatus()
    """What became of it."""

    @property
    def phase(self) -> PodVolumePhase | str:
        """The phase, NEW when there is none yet."""
        return PodVolumePhase.of(self.status.phase)


class PodVolumeRestoreSpec(ApiModel):
    """What to restore, and where to."""

    pod: ObjectReference
    """The pod into whose volume is restored."""
    volume: str
    """Name of the volume in the pod's spec.volumes."""
    backup_storage_location: str
    """Name of the BackupStorageLocation that holds the repository."""
    repo_identifier: str
    """Address of a restic repository. Empty for other uploaders; its last segment names the source namespace where sourceNamespace is missing."""
    snapshot_id: str
    """Id of the snapshot to restore."""
    uploader_type: Uploader = UploaderType.UNSET
    """Uploader that made the snapshot, as the server believes: kopia, restic or empty. The snapshot's id decides."""
    source_namespace: str = ""
    """Namespace that was backed up and names the repository; the pod's own where it is missing."""
    uploader_settings: dict[str, str] = Field(default_factory=dict, json_schema_extra=NULLABLE)
    """Settings for the uploader, such as WriteSparseFiles or ParallelFilesDownload."""
    cancel: bool = False
    """Set to true to ask for the operation's cancellation."""
    snapshot_size: Int64 = 0
    """Size of the snapshot in bytes, as recorded at backup."""


class PodVolumeRestoreStatus(_PodVolumeStatus):
    """What became of it."""


class PodVolumeRestore(ApiObject):
    """One restore of one volume of a pod."""

    definition: ClassVar[ResourceDefinition] = POD_VOLUME_RESTORES

    metadata: ObjectMeta = ObjectMeta()
    spec: PodVolumeRestoreSpec
    """What to restore, and where to."""
    status: PodVolumeRestoreStatus = PodVolumeRestoreStatus()
    """What became of it."""

    @property
    def phase(self) -> PodVolumePhase | str:
        """The phase, NEW when there is none yet."""
        return PodVolumePhase.of(self.status.phase)
