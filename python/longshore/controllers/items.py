"""Items that a job could not keep or did not bring back, in a message for an object's status and, one by one, in the log.

Promises
- A message groups by cause: each cause stands once, with the first paths and how many more. However many items there are, it stays of a size that an
  operator reads (a status is copied into every watch): at most eight causes with ten paths each.
- Chunk ids are cut to 12 digits in it; two causes that differ in ids alone are one.
- The log names every item that the data path named, with its whole cause.

It does not know what the items are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from longshore.controllers.ports import LostItem
from longshore.logs import get_logger

__all__ = ["describe_changed", "describe_lost", "log_items"]

_log = get_logger(__name__)

_CAUSES_MAX: Final = 8
_NAMED_MAX: Final = 10
_NAME_CHARS_MAX: Final = 120
_CAUSE_CHARS_MAX: Final = 240
# A snapshot's id stays whole: it is typed in again.
_LONG_ID: Final = re.compile(r"(?<![0-9A-Za-z-])([0-9a-f]{12})[0-9a-f]{20,}(?![0-9A-Za-z])")


def describe_lost(what: str, items: Sequence[LostItem], *, count: int, counted: str = "items_lost") -> str:
    """Name items that were not captured or restored, by cause.

    Args:
        what: begins the message.
        items: those that the data path named.
        count: how many there are.
        counted: what they are called.
    """
    groups: dict[str, tuple[str, list[bytes]]] = {}
    for item in items:
        shown = _LONG_ID.sub(r"\1", item.message)
        cause = _LONG_ID.sub("", item.message)
        groups.setdefault(cause, (shown, []))[1].append(item.path)
    # The cause that hits most comes first; equal ones stay in the order in which they were met.
    ordered = sorted(groups.values(), key=lambda group: -len(group[1]))
    told = [f"{_cut(shown, _CAUSE_CHARS_MAX)}: {_paths(paths)}" for shown, paths in ordered[:_CAUSES_MAX]]
    text = f"{what}: {counted}={count}"
    if told:
        text += f", items=[{'; '.join(told)}]"
    unnamed = count - sum(len(paths) for _shown, paths in ordered[:_CAUSES_MAX])
    if told and unnamed > 0:
        text += f" and {unnamed} more"
    return f"{text}; the agent's log names them all" if told and _is_cut(ordered, unnamed) else text


def describe_changed(paths: Sequence[bytes], *, count: int) -> str:
    """Name files that were written to while they were read; empty when there were none."""
    if not count:
        return ""
    head = f"files changed while they were read; they were stored as found and will be read again next time: items_changed={count}"
    named = ", ".join(_path(path) for path in paths[:_NAMED_MAX])
    more = count - min(len(paths), _NAMED_MAX)
    return f"{head}, items=[{named}]" + (f" and {more} more" if more else "")


def describe_resumed(*, files: int, size_bytes: int) -> str:
    """Say what was taken from an attempt that was interrupted; empty when there was none."""
    if not files and not size_bytes:
        return ""
    return f"went on from an interrupted attempt: files_resumed={files}, bytes_resumed={size_bytes}"


def log_items(what: str, items: Sequence[LostItem], *, count: int, kind: str, key: str) -> None:
    """Write every item into the log.

    Args:
        what: what became of them, e.g. `lost`.
        count: how many there are; the data path names the first.
        kind: of the object.
        key: its namespace and name.
    """
    for item in items:
        _log.warning(
            "Item was left behind",
            what=what,
            path=_path(item.path, limit=4096),
            reason=item.message,
            kind=kind,
            key=key,
        )
    if count > len(items):
        _log.warning("More items were left behind", what=what, count=count - len(items), kind=kind, key=key)


def _is_cut(ordered: Sequence[tuple[str, list[bytes]]], unnamed: int) -> bool:
    return unnamed > 0 or any(len(paths) > _NAMED_MAX for _shown, paths in ordered)


def _paths(paths: Sequence[bytes]) -> str:
    named = ", ".join(_path(path) for path in paths[:_NAMED_MAX])
    return named if len(paths) <= _NAMED_MAX else f"{named} and {len(paths) - _NAMED_MAX} more"


def _path(path: bytes, *, limit: int = _NAME_CHARS_MAX) -> str:
    text = path.decode("utf-8", errors="backslashreplace")
    return _cut("".join(one if one.isprintable() else f"\\x{ord(one):02x}" for one in text), limit)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
