"""What a request to the API server looks like and what its answer means: paths, query parameters, statuses. Pure, no I/O.

Promises: a name that could leave its path segment never gets into a path (an empty or `..` name would turn the deletion of one object into the deletion of a
collection); an answer that is not 2xx becomes exactly one class of :mod:`longshore.errors`; texts of answers about Secrets are not repeated, because a
validation message quotes the value that it refuses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec

from longshore.errors import (
    AlreadyExistsError,
    ApiDeniedError,
    ApiUnavailableError,
    ConflictError,
    GoneError,
    InvalidObjectError,
    LongshoreError,
    NotFoundError,
    TooManyRequestsError,
    UsageError,
)
from longshore.kube.resource import JsonObject, Resource

__all__ = ["error_from_status", "path_of", "query_of", "retry_after_seconds", "translate"]

_RETRY_AFTER_SECONDS_MAX: Final = 300.0


def path_of(
    resource: Resource, *, namespace: str | None = None, name: str | None = None, subresource: str | None = None
) -> str:
    """Build the path of a collection or of one object.

    Args:
        namespace: None means all namespaces, allowed only for a whole collection.
        name: None means the collection.
        subresource: e.g. `status`; needs a name.

    Raises:
        UsageError: a part that is empty or could leave its segment; a namespaced object without its namespace.
    """
    parts = ["/apis", _segment("group", resource.group)] if resource.group else ["/api"]
    parts.append(_segment("version", resource.version))
    if resource.namespaced:
        if namespace is not None:
            parts += ["namespaces", _segment("namespace", namespace)]
        elif name is not None:
            raise UsageError(f"an object in a namespace was named without it: resource={resource}, name={name}")
    elif namespace is not None:
        raise UsageError(f"the kind lies in no namespace: resource={resource}, namespace={namespace}")
    parts.append(_segment("resource", resource.plural))
    if name is not None:
        parts.append(_segment("name", name))
    if subresource is not None:
        if name is None:
            raise UsageError(f"a subresource needs a name: resource={resource}, subresource={subresource}")
        parts.append(_segment("subresource", subresource))
    return "/".join(parts)


def _segment(what: str, text: str) -> str:
    if not text or text in {".", ".."} or "/" in text or "%" in text or any(ord(c) < 0x20 for c in text):
        raise UsageError(f"not valid as a part of a path: part={what}, text={text!r}")
    return quote(text, safe="")


def query_of(parameters: Mapping[str, str | int | bool | None]) -> str:
    """Encode query parameters, leaving out those that are None or empty."""
    kept = {
        name: ("true" if value else "false") if isinstance(value, bool) else str(value)
        for name, value in parameters.items()
        if value is not None and value != ""
    }
    return urlencode(kept)


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Read `Retry-After` in seconds; None when absent or a date (the API server sends seconds); never above five minutes."""
    text = headers.get("Retry-After")
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        return None
    return min(max(seconds, 0.0), _RETRY_AFTER_SECONDS_MAX) if math.isfinite(seconds) else None


def translate(
    code: int, *, headers: Mapping[str, str], body: bytes, verb: str, resource: Resource | None, name: str | None = None
) -> LongshoreError:
    """Turn an answer that is not 2xx into an error to raise.

    Args:
        code: the HTTP status.
        headers: case-insensitive.
        body: usually a `Status` object, but proxies answer in HTML.
        verb: what was tried, for the message.
        resource: the kind asked for, None for paths such as /version.
        name: the object's name, None for a collection.
    """
    try:
        status: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        status = {}
    if not isinstance(status, dict) or status.get("kind") != "Status":
        status = {}
    return error_from_status(
        {"code": code, **status}, verb=verb, resource=resource, name=name, retry_after=retry_after_seconds(headers)
    )


def error_from_status(
    status: JsonObject,
    *,
    verb: str,
    resource: Resource | None,
    name: str | None = None,
    retry_after: float | None = None,
) -> LongshoreError:
    """Turn a `Status` object (an answer's body, or a watch's ERROR event) into an error to raise."""
    code = int(status.get("code") or 0)
    reason = str(status.get("reason") or "")
    details = status.get("details") if isinstance(status.get("details"), dict) else {}
    if retry_after is None and isinstance(details, dict) and details.get("retryAfterSeconds"):
        retry_after = float(details["retryAfterSeconds"])
    said = _message(status, resource)
    what = (
        f"verb={verb}, resource={resource}, name={name}, status={code}"
        if name
        else f"verb={verb}, resource={resource}, status={code}"
    )

    def text(head: str) -> str:
        return f"{head}: {what}, answer={said}" if said else f"{head}: {what}"

    match code:
        case 401:
            return ApiDeniedError(
                text("the API server does not accept these credentials"),
                "check the kubeconfig or the pod's service account token",
            )
        case 403:
            return ApiDeniedError(
                text("the API server forbids this"),
                f"grant {verb} on {resource} to the service account that Longshore runs as",
            )
        case 404 if resource is not None and name is None:
            # No object was asked for by name, so it is the kind, or its version, that is not there.
            step = f"see with kubectl api-resources what is served; version {resource.version} is needed"
            return NotFoundError(text("not found"), step)
        case 404:
            return NotFoundError(text("not found"))
        case 409 if reason == "AlreadyExists":
            return AlreadyExistsError(text("already exists"))
        case 409:
            return ConflictError(text("the object was changed in between"))
        case 410:
            return GoneError(text("the resource version is too old"))
        case 400 | 405 | 406 | 413 | 415 | 422:
            return InvalidObjectError(text("the API server refuses the request"))
        case 429:
            return _too_many(text("the API server asks to wait"), retry_after)
        case 503 | 504 if retry_after is not None:
            return _too_many(text("the API server asks to wait"), retry_after)
    return ApiUnavailableError(text("the API server failed"))


def _too_many(message: str, retry_after: float | None) -> TooManyRequestsError:
    error = TooManyRequestsError(message)
    if retry_after is not None:
        error.retry_after_seconds = retry_after
    return error


def _message(status: JsonObject, resource: Resource | None) -> str:
    """The server's own words in one line of bounded length; for Secrets only which fields it means."""
    if resource is not None and resource.plural == "secrets" and not resource.group:
        details = status.get("details")
        causes = details.get("causes", []) if isinstance(details, dict) else []
        fields = [str(cause.get("field")) for cause in causes if isinstance(cause, dict)]
        return ",".join([str(status.get("reason") or ""), *fields]).strip(",")
    message = " ".join(str(status.get("message") or "").split())
    return message if len(message) <= 500 else message[:500] + "…"
