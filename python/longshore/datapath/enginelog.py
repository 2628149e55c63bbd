"""The engine's log records, fetched and written by :mod:`longshore.logs` with the same keys.

The engine never calls Python: its records wait in a bounded queue and are fetched here whenever a call of the data path returns. What was dropped because
nobody fetched is counted and said.
"""

from __future__ import annotations

from typing import Final

from longshore import _native
from longshore.logs import get_logger

__all__ = ["forward", "set_log_level"]

_TAKEN: Final = frozenset({"event", "level", "logger", "logger_name", "msg", "ts", "exc_info", "stack_info"})
_LEVELS: Final = ("debug", "info", "warning", "error")
log = get_logger(__name__)


def set_log_level(level: str) -> None:
    """Choose the least level of engine records that are kept; `info` at first.

    Raises:
        ValueError: an unknown level.
    """
    if level not in _LEVELS:
        raise ValueError(f"unknown log level: level={level}, known={','.join(_LEVELS)}")
    _native.set_log_level(level)


def forward() -> None:
    """Write what the engine logged since the last call."""
    records, dropped = _native.take_log_records()
    for level, logger, message, fields in records:
        named = {f"{name}_" if name in _TAKEN else name: value for name, value in fields}
        getattr(get_logger(logger), level)(message, **named)
    if dropped:
        log.warning("Dropped engine log records that nobody fetched", records=dropped)
