"""Refusals as the API server words them: a `Status` object with its HTTP code."""

from __future__ import annotations

from typing import Any

from longshore.kube.resource import JsonObject, Resource

__all__ = ["StatusError", "already_exists", "bad_request", "conflict", "expired", "forbidden", "invalid", "not_found"]


class StatusError(Exception):
    """To be answered with `status` and its code."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: JsonObject | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.headers = headers or {}
        self.status: JsonObject = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": code,
        }
        if details:
            self.status["details"] = details


def _details(resource: Resource, name: str) -> JsonObject:
    return {"name": name, "group": resource.group, "kind": resource.plural}


def not_found(resource: Resource, name: str) -> StatusError:
    """404."""
    return StatusError(404, "NotFound", f'{resource.qualified} "{name}" not found', details=_details(resource, name))


def already_exists(resource: Resource, name: str) -> StatusError:
    """409 on create."""
    return StatusError(
        409, "AlreadyExists", f'{resource.qualified} "{name}" already exists', details=_details(resource, name)
    )


def conflict(resource: Resource, name: str, why: str) -> StatusError:
    """409 on a write over somebody else's."""
    return StatusError(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why}',
        details=_details(resource, name),
    )


def expired(message: str) -> StatusError:
    """410."""
    return StatusError(410, "Expired", message)


def bad_request(message: str) -> StatusError:
    """400."""
    return StatusError(400, "BadRequest", message)


def forbidden(resource: Resource, name: str, why: str) -> StatusError:
    """403."""
    return StatusError(
        403, "Forbidden", f'{resource.qualified} "{name}" is forbidden: {why}', details=_details(resource, name)
    )


def invalid(resource: Resource, name: str, causes: list[tuple[str, str, str]]) -> StatusError:
    """422.

    Args:
        causes: field, reason (`FieldValueInvalid` and the like) and message of each.
    """
    listed: list[dict[str, Any]] = [
        {"field": field, "reason": reason, "message": message} for field, reason, message in causes
    ]
    text = ", ".join(f"{field}: {message}" for field, _reason, message in causes)
    kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    return StatusError(
        422,
        "Invalid",
        f'{kind} "{name}" is invalid: {text if len(causes) == 1 else f"[{text}]"}',
        details={"name": name, "group": resource.group, "kind": resource.kind, "causes": listed},
    )
