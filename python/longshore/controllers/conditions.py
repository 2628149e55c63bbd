"""Conditions of an object's status: put in, found, and compared.

Promises: the moment at which a status last changed is kept while it stays, and conditions of others stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from longshore.api.meta import ConditionStatus
from longshore.api.model import JsonObject
from longshore.kube.clock import format_time

__all__ = ["condition", "conditions_of", "holds", "merged"]


def condition(type_: str, status: ConditionStatus, *, reason: str, message: str) -> JsonObject:
    """Make one, without its time."""
    return {"type": type_, "status": str(status), "reason": reason, "message": message}


def conditions_of(obj: JsonObject) -> list[JsonObject]:
    """Give an object's conditions as they stand."""
    status = obj.get("status")
    found = status.get("conditions") if isinstance(status, dict) else None
    return [one for one in found or [] if isinstance(one, dict)]


def holds(conditions: Iterable[JsonObject], type_: str) -> bool:
    """Tell whether one is there and True."""
    return any(one.get("type") == type_ and one.get("status") == ConditionStatus.TRUE for one in conditions)


def merged(
    old: list[JsonObject], new: list[JsonObject], *, now: datetime, without: Iterable[str] = ()
) -> list[JsonObject]:
    """Put new conditions in the place of those of the same type.

    Args:
        without: types that are taken away.
    """
    by_type = {one.get("type"): one for one in old}
    fresh = []
    for one in new:
        before = by_type.get(one["type"]) or {}
        same = before.get("status") == one["status"] and before.get("lastTransitionTime")
        fresh.append({**one, "lastTransitionTime": before["lastTransitionTime"] if same else format_time(now)})
    types = {one["type"] for one in new} | set(without)
    return [*(one for one in old if one.get("type") not in types), *fresh]
