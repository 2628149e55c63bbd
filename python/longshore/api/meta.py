"""Pieces that objects of every kind share: metadata, references, secret selectors, conditions.

Only fields that Longshore reads are named; the rest rides along as unknown fields.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from longshore.api.model import ApiModel, open_enum, open_enum_schema
from longshore.api.values import Timestamp

__all__ = ["Condition", "ConditionStatus", "ObjectMeta", "ObjectReference", "OwnerReference", "SecretKeySelector"]


class OwnerReference(ApiModel):
    """One owner of an object."""

    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class ObjectMeta(ApiModel):
    """An object's metadata."""

    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: Timestamp | None = None
    deletion_timestamp: Timestamp | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: list[str] = Field(default_factory=list)
    owner_references: list[OwnerReference] = Field(default_factory=list)

    @property
    def is_being_deleted(self) -> bool:
        """Whether the API server only waits for finalizers."""
        return self.deletion_timestamp is not None

    @property
    def controller_owner(self) -> OwnerReference | None:
        """The one owner that says it is the controller."""
        return next((owner for owner in self.owner_references if owner.controller), None)


class ObjectReference(ApiModel):
    """A reference to another object."""

    api_version: str = ""
    """API version of the referent."""
    kind: str = ""
    """Kind of the referent."""
    namespace: str = ""
    """Namespace of the referent."""
    name: str = ""
    """Name of the referent."""
    uid: str = ""
    """UID of the referent. A referent with the same name and another UID is another object."""
    resource_version: str = ""
    """Specific resourceVersion to which this reference is made, if any."""
    field_path: str = ""
    """Path of one field inside the referent, if not the whole is meant."""


class SecretKeySelector(ApiModel):
    """One key of a Secret in the same namespace."""

    name: str = ""
    """Name of the Secret."""
    key: str
    """Key inside the Secret's data."""
    optional: bool | None = None
    """Whether the Secret or its key may be missing."""


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(ApiModel):
    """One observation about an object."""

    type: str
    """What is observed, in CamelCase."""
    status: Annotated[
        ConditionStatus | str,
        Field(union_mode="left_to_right"),
        open_enum(ConditionStatus),
        open_enum_schema(ConditionStatus),
    ]
    """Whether it holds: True, False or Unknown."""
    reason: str = ""
    """Why the status is what it is, one word in CamelCase for machines."""
    message: str = ""
    """The same for people, with the next step where there is one."""
    last_transition_time: Timestamp | None = None
    """When the status last changed."""
    observed_generation: int | None = None
    """The metadata.generation that was looked at."""
