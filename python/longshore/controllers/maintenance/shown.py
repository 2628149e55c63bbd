"""How the upkeep of a repository stands in its object: the names of fields and conditions, and small readers that bear nonsense.

It does not know clients.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Final

from longshore.api.meta import ConditionStatus
from longshore.api.model import JsonObject
from longshore.api.repository import BackupRepository
from longshore.api.values import Timestamp
from longshore.controllers.conditions import conditions_of
from longshore.controllers.maintenance.ledger import Operation
from longshore.controllers.phases import bounded
from longshore.errors import LongshoreError

__all__ = [
    "CONDITION_DUE",
    "FAILED_CONDITIONS",
    "LAST",
    "LISTS",
    "mark_of",
    "name_of",
    "rank",
    "reason_of",
    "repository_of",
    "spec_of",
    "status_of",
    "time_of",
    "trouble_of",
]

CONDITION_DUE: Final = "MaintenanceDue"
FAILED_CONDITIONS: Final = {
    Operation.MAINTENANCE: "MaintenanceFailed",
    Operation.VERIFICATION: "VerificationFailed",
}
LISTS: Final = {Operation.MAINTENANCE: "recentMaintenance", Operation.VERIFICATION: "recentVerification"}
LAST: Final = {Operation.MAINTENANCE: "lastMaintenanceTime", Operation.VERIFICATION: "lastVerificationTime"}


def trouble_of(obj: JsonObject) -> str:
    """Say what is wrong with a repository that is ready: its last maintenance or verification failed. Empty when nothing is."""
    names = {type_: operation for operation, type_ in FAILED_CONDITIONS.items()}
    said = [
        f"the last {names[str(one.get('type'))]} failed: {one.get('message')}"
        for one in conditions_of(obj)
        if one.get("type") in names and one.get("status") == ConditionStatus.TRUE
    ]
    return bounded("; ".join(sorted(said)))


def rank(obj: JsonObject) -> tuple[bool, str, str]:
    """Order the objects that stand for one repository: the first is the keeper."""
    metadata = obj["metadata"]
    is_older_kind = obj.get("kind") != BackupRepository.definition.kind
    return is_older_kind, str(metadata.get("creationTimestamp") or ""), str(metadata.get("name"))


def repository_of(obj: JsonObject) -> tuple[str, str] | None:
    """Give the volume namespace and location whose repository an object stands for; None for nonsense."""
    spec = spec_of(obj)
    namespace, location = spec.get("volumeNamespace"), spec.get("backupStorageLocation")
    return (namespace, location) if isinstance(namespace, str) and isinstance(location, str) else None


def mark_of(obj: JsonObject) -> str:
    """Give the repository's name for labels: the same for all objects that stand for it. One of which that cannot be said stands for itself."""
    own = repository_of(obj)
    text = str(obj["metadata"]["uid"]) if own is None else "/".join(own)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def reason_of(operation: Operation, ending: str) -> str:
    """Give the reason of an Event."""
    return FAILED_CONDITIONS[operation].removesuffix("Failed") + ending


def name_of(obj: JsonObject) -> str:
    """Give an object's name."""
    return str(obj["metadata"]["name"])


def spec_of(obj: JsonObject) -> JsonObject:
    """Give an object's spec, empty for nonsense."""
    spec = obj.get("spec")
    return spec if isinstance(spec, dict) else {}


def status_of(obj: JsonObject) -> JsonObject:
    """Give an object's status, empty when it has none."""
    status = obj.get("status")
    return status if isinstance(status, dict) else {}


def time_of(text: object) -> datetime | None:
    """Read a time; None for what is none."""
    try:
        return Timestamp(text).time if isinstance(text, str) and text else None
    except LongshoreError:
        return None
