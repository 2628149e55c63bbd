"""JSON merge patch (RFC 7386) and JSON patch (RFC 6902) on plain JSON. Pure; the document that is handed in is never changed."""

from __future__ import annotations

import copy
from typing import Any

__all__ = ["PatchError", "PatchTestError", "json_patch", "merge_patch"]


class PatchError(Exception):
    """The patch cannot be applied to this document."""


class PatchTestError(PatchError):
    """A `test` operation did not hold."""


def merge_patch(document: Any, patch: Any) -> Any:
    """Apply a merge patch: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(document) if isinstance(document, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patch(result.get(name), value)
    return copy.deepcopy(result)


def json_patch(document: Any, operations: Any) -> Any:
    """Apply a JSON patch, all of it or nothing.

    Raises:
        PatchError: an operation is malformed or does not fit the document.
    """
    if not isinstance(operations, list):
        raise PatchError("a JSON patch is a list of operations")
    result = copy.deepcopy(document)
    for operation in operations:
        if (
            not isinstance(operation, dict)
            or not isinstance(operation.get("op"), str)
            or not isinstance(operation.get("path"), str)
        ):
            raise PatchError(f"malformed operation: {operation!r}")
        result = _apply(result, operation)
    return result


def _apply(document: Any, operation: dict[str, Any]) -> Any:
    path = _pointer(operation["path"])
    match operation["op"]:
        case "add":
            return _put(document, path, _value(operation), insert=True)
        case "replace":
            # RFC 6902 wants the member to exist; the API server's library lets it be absent in an object, not in an array.
            return _put(document, path, _value(operation), insert=False)
        case "remove":
            return _remove(document, path)
        case "test":
            if _get(document, path) != _value(operation):
                raise PatchTestError(f"test failed: path={operation['path']}")
            return document
        case "copy":
            return _put(
                document, path, copy.deepcopy(_get(document, _pointer(str(operation.get("from"))))), insert=True
            )
        case "move":
            source = _pointer(str(operation.get("from")))
            if path[: len(source)] == source and path != source:
                raise PatchError("a value cannot be moved into itself")
            value = _get(document, source)
            return _put(_remove(document, source), path, value, insert=True)
        case unknown:
            raise PatchError(f"unknown operation: {unknown}")


def _value(operation: dict[str, Any]) -> Any:
    if "value" not in operation:
        raise PatchError(f"the operation has no value: {operation['op']} {operation['path']}")
    return copy.deepcopy(operation["value"])


def _pointer(text: str) -> list[str]:
    if text == "":
        return []
    if not text.startswith("/"):
        raise PatchError(f"not a JSON pointer: {text}")
    return [part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/")]


def _index(holder: list[Any], part: str, *, end: bool) -> int:
    if end and part == "-":
        return len(holder)
    if not part.isdigit() or (len(part) > 1 and part[0] == "0"):
        raise PatchError(f"not an array index: {part}")
    index = int(part)
    if index > len(holder) - (0 if end else 1):
        raise PatchError(f"array index is out of bounds: {part}")
    return index


def _get(document: Any, path: list[str]) -> Any:
    for part in path:
        if isinstance(document, dict):
            if part not in document:
                raise PatchError(f"path does not exist: {'/'.join(path)}")
            document = document[part]
        elif isinstance(document, list):
            document = document[_index(document, part, end=False)]
        else:
            raise PatchError(f"path does not exist: {'/'.join(path)}")
    return document


def _put(document: Any, path: list[str], value: Any, *, insert: bool) -> Any:
    if not path:
        return value
    holder = _get(document, path[:-1])
    if isinstance(holder, dict):
        holder[path[-1]] = value
    elif isinstance(holder, list):
        index = _index(holder, path[-1], end=insert)
        if insert:
            holder.insert(index, value)
        else:
            holder[index] = value
    else:
        raise PatchError(f"path does not exist: {'/'.join(path)}")
    return document


def _remove(document: Any, path: list[str]) -> Any:
    if not path:
        raise PatchError("the whole document cannot be removed")
    _get(document, path)
    holder = _get(document, path[:-1])
    if isinstance(holder, list):
        del holder[_index(holder, path[-1], end=False)]
    else:
        del holder[path[-1]]
    return document
