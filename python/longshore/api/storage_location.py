"""BackupStorageLocation: where backups and repositories are kept.

What the keys of `config` mean is known to `longshore.objectstore.location` alone.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from longshore.api.meta import ObjectMeta, SecretKeySelector
from longshore.api.model import ApiModel, ApiObject, open_enum, open_enum_schema
from longshore.api.names import BACKUP_STORAGE_LOCATIONS, ResourceDefinition
from longshore.api.values import Duration, Timestamp

__all__ = [
    "AccessMode",
    "BackupStorageLocation",
    "BackupStorageLocationSpec",
    "BackupStorageLocationStatus",
    "LocationPhase",
    "ObjectStorageLocation",
]


class AccessMode(StrEnum):
    """What may be done at a location. An absent or empty mode is READ_WRITE."""

    READ_WRITE = "ReadWrite"
    READ_ONLY = "ReadOnly"


class LocationPhase(StrEnum):
    """Whether the location could be reached when it was last looked at. An empty phase: not looked at yet."""

    AVAILABLE = "Available"
    UNAVAILABLE = "Unavailable"

    @property
    def is_terminal(self) -> bool:
        """Always false, so that every phase answers the same question."""
        return False


Access = Annotated[
    AccessMode | str, Field(union_mode="left_to_right"), open_enum(AccessMode), open_enum_schema(AccessMode, empty=True)
]


class ObjectStorageLocation(ApiModel):
    """A place in an object store."""

    bucket: str
    """Bucket of the store; for provider filesystem a folder inside config.path."""
    prefix: str = ""
    """Folder inside the bucket; empty for the bucket itself."""
    ca_cert: Annotated[str | None, Field(json_schema_extra={"format": "byte"})] = None
    """Certificates, PEM in base64, that are trusted for connections to the store."""
    ca_cert_ref: SecretKeySelector | None = None
    """Key of a Secret that holds certificates to trust, in place of caCert."""


class BackupStorageLocationSpec(ApiModel):
    """Where it is and how it is used."""

    provider: str
    """Kind of the store, such as aws or filesystem."""
    object_storage: ObjectStorageLocation | None = None
    """Place in the object store."""
    config: dict[str, str] = Field(default_factory=dict)
    """Settings of the provider, such as region and s3Url, or path for provider filesystem."""
    credential: SecretKeySelector | None = None
    """Key of a Secret that holds the credentials for this location; without it the process's own are used."""
    default: bool = False
    """Whether backups that name no location go here."""
    access_mode: Access = ""
    """ReadWrite, or ReadOnly: then nothing is ever written to the location."""
    backup_sync_period: Duration | None = None
    """How often backups found in the location are brought into the cluster; 0s for never."""
    validation_frequency: Duration | None = None
    """How often the location is looked at; 0s for never."""

    @property
    def is_read_only(self) -> bool:
        """Whether nothing may be written there."""
        return self.access_mode == AccessMode.READ_ONLY


class BackupStorageLocationStatus(ApiModel):
    """How it was found."""

    phase: Annotated[
        LocationPhase | str,
        Field(union_mode="left_to_right"),
        open_enum(LocationPhase),
        open_enum_schema(LocationPhase, empty=True),
    ] = ""
    """Whether the location could be reached when it was last looked at."""
    message: str = ""
    """Why the location is unavailable and what to do."""
    last_synced_time: Timestamp | None = None
    """When backups found in the location were last brought into the cluster."""
    last_validation_time: Timestamp | None = None
    """When the location was last looked at."""
    last_synced_revision: str = ""
    """No longer used."""
    access_mode: Access = ""
    """No longer used: see spec.accessMode."""


class BackupStorageLocation(ApiObject):
    """A place where backups and repositories are kept."""

    definition: ClassVar[ResourceDefinition] = BACKUP_STORAGE_LOCATIONS

    metadata: ObjectMeta = ObjectMeta()
    spec: BackupStorageLocationSpec
    """Where it is and how it is used."""
    status: BackupStorageLocationStatus = BackupStorageLocationStatus()
    """How it was found."""
