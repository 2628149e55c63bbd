"""ResticRepository (Velero up to 1.9) and BackupRepository (from 1.10): one repository for each namespace and storage location.

Both stand in the cluster at once, so that either version's command line and server finds its kind. Added by us, optional and in status: `conditions`
(RecoveryKeyMissing while the key lives only in this cluster, MaintenanceFailed and others), `lastVerificationTime`, `recentVerification` and `logHead`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Final

from pydantic import Field

from longshore.api.meta import Condition, ObjectMeta
from longshore.api.model import NULLABLE, ApiModel, ApiObject, open_enum, open_enum_schema
from longshore.api.names import BACKUP_REPOSITORIES, RESTIC_REPOSITORIES, ResourceDefinition
from longshore.api.values import Duration, Timestamp

__all__ = [
    "CONDITION_RECOVERY_KEY_MISSING",
    "BackupRepository",
    "BackupRepositorySpec",
    "BackupRepositoryStatus",
    "MaintenanceResult",
    "RecentMaintenance",
    "RepositoryPhase",
    "RepositoryType",
    "ResticRepository",
    "ResticRepositorySpec",
    "ResticRepositoryStatus",
]

CONDITION_RECOVERY_KEY_MISSING: Final = "RecoveryKeyMissing"
"""True until the repository's key has a recovery slot or was exported: until then losing the cluster means losing the backups."""


class RepositoryPhase(StrEnum):
    """Whether a repository can be used. An absent or empty phase is NEW. None is final: a repository goes back and forth."""

    NEW = "New"
    READY = "Ready"
    NOT_READY = "NotReady"

    @property
    def is_terminal(self) -> bool:
        """Always false, so that every phase answers the same question."""
        return False

    @classmethod
    def of(cls, text: str) -> RepositoryPhase | str:
        """Read a phase: NEW for the empty one, a member for a known one, the text itself for one that only a newer version knows."""
        try:
            return cls(text) if text else cls.NEW
        except ValueError:
            return text


class RepositoryType(StrEnum):
    """Whose format the server expects; ours stands behind each of them."""

    UNSET = ""
    KOPIA = "kopia"
    RESTIC = "restic"


class MaintenanceResult(StrEnum):
    """How a maintenance run ended."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


Phase = Annotated[
    RepositoryPhase | str,
    Field(union_mode="left_to_right"),
    open_enum(RepositoryPhase),
    open_enum_schema(RepositoryPhase, empty=True),
]


class RecentMaintenance(ApiModel):
    """One maintenance run."""

    result: Annotated[
        MaintenanceResult | str,
        Field(union_mode="left_to_right"),
        open_enum(MaintenanceResult),
        open_enum_schema(MaintenanceResult),
    ] = ""
    """How it ended: Succeeded or Failed."""
    start_timestamp: Timestamp | None = None
    """When it started."""
    complete_timestamp: Timestamp | None = None
    """When it ended."""
    message: str = ""
    """Why it failed, or what it did."""


class _RepositoryStatus(ApiModel):
    phase: Phase = ""
    """Whether the repository can be used: New, Ready or NotReady."""
    message: str = ""
    """Why the repository is not ready, or why its last maintenance failed, and what to do."""
    last_maintenance_time: Timestamp | None = None
    """When maintenance last succeeded."""
    recent_maintenance: list[RecentMaintenance] = Field(default_factory=list)
    """The newest maintenance runs, oldest first."""
    last_verification_time: Timestamp | None = None
    """When the newest snapshots were last read back and found whole."""
    recent_verification: list[RecentMaintenance] = Field(default_factory=list)
    """The newest verifications, oldest first."""
    conditions: list[Condition] = Field(default_factory=list)
    """Observations about the repository, such as RecoveryKeyMissing while its key lives in this cluster only."""
    log_head: str = ""
    """Head of the repository's log as last seen by the server. An older head in the store means that the store was set back."""

    def condition(self, type_: str) -> Condition | None:
        """Find a condition by its type."""
        return next((one for one in self.conditions if one.type == type_), None)


class ResticRepositorySpec(ApiModel):
    """Which repository is meant."""

    volume_namespace: str
    """Namespace whose volumes the repository holds."""
    backup_storage_location: str
    """Name of the BackupStorageLocation that holds the repository."""
    restic_identifier: str
    """Address of the repository in restic's notation."""
    maintenance_frequency: Duration
    """How often maintenance runs, as 168h0m0s."""


class ResticRepositoryStatus(_RepositoryStatus):
    """How the repository is."""


class ResticRepository(ApiObject):
    """A repository as Velero up to 1.9 names it."""

    definition: ClassVar[ResourceDefinition] = RESTIC_REPOSITORIES

    metadata: ObjectMeta = ObjectMeta()
    spec: ResticRepositorySpec
    """Which repository is meant."""
    status: ResticRepositoryStatus = ResticRepositoryStatus()
    """How the repository is."""

    @property
    def phase(self) -> RepositoryPhase | str:
        """The phase, NEW when there is none yet."""
        return RepositoryPhase.of(self.status.phase)


class BackupRepositorySpec(ApiModel):
    """Which repository is meant, and how it is kept."""

    volume_namespace: str
    """Namespace whose volumes the repository holds."""
    backup_storage_location: str
    """Name of the BackupStorageLocation that holds the repository."""
    maintenance_frequency: Duration
    """How often maintenance runs, as 24h0m0s."""
    repository_type: Annotated[
        RepositoryType | str,
        Field(union_mode="left_to_right"),
        open_enum(RepositoryType),
        open_enum_schema(RepositoryType),
    ] = RepositoryType.UNSET
    """Type that the server asked for: kopia, restic or empty. All are served by the same engine."""
    restic_identifier: str = ""
    """Address of the repository in restic's notation; only restic used it."""
    repository_config: dict[str, str] = Field(default_factory=dict, json_schema_extra=NULLABLE)
    """Settings of the repository, such as cacheLimitMB or fullMaintenanceInterval."""


class BackupRepositoryStatus(_RepositoryStatus):
    """How the repository is."""


class BackupRepository(ApiObject):
    """A repository as Velero from 1.10 names it."""

    definition: ClassVar[ResourceDefinition] = BACKUP_REPOSITORIES

    metadata: ObjectMeta = ObjectMeta()
    spec: BackupRepositorySpec
    """Which repository is meant, and how it is kept."""
    status: BackupRepositoryStatus = BackupRepositoryStatus()
    """How the repository is."""

    @property
    def phase(self) -> RepositoryPhase | str:
        """The phase, NEW when there is none yet."""
        return RepositoryPhase.of(self.status.phase)
