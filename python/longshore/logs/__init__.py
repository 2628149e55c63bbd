"""Logging for every Longshore process: one line a record, the same keys everywhere, no secret in any of them.

A record has `ts` (RFC 3339, UTC, microseconds), `level`, `logger`, `msg` (constant, capitalised) and the caller's keyword fields, as JSON for machines or as
text for people. Records of other libraries (urllib3, kubernetes, boto3) go through the same chain from level warning on; their debug records hold request
bodies and headers and are never let through. Secrets come out as `***` (`redaction`).

Everything goes to standard error: standard output belongs to results.

What writes records (`chain`) is loaded with the first one: it costs more than 0.2 s of processor time, which a command that has nothing to log does not pay.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TextIO

from longshore.logs.redaction import REDACTED, redact

__all__ = ["REDACTED", "LogFormat", "Logger", "configure", "get_logger", "redact"]

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}


class LogFormat(StrEnum):
    """How records are written."""

    JSON = "json"
    TEXT = "text"


@dataclass(slots=True)
class _State:
    """What was asked for, and the chain's handler once it is loaded."""

    level: int = logging.WARNING
    as_json: bool = False
    stream: TextIO | None = None
    handler: logging.Handler | None = None

    def build(self) -> logging.Handler:
        """Set the chain up as was asked."""
        from longshore.logs.chain import build

        self.handler = build(number=self.level, as_json=self.as_json, stream=self.stream)
        self.stand(self.handler)
        return self.handler

    def loaded(self) -> logging.Handler:
        """Set the chain up unless that was done."""
        return self.handler or self.build()

    def stand(self, handler: logging.Handler) -> None:
        """Make a handler the process's only one of ours."""
        root = logging.getLogger()
        for old in [h for h in root.handlers if getattr(h, "longshore", False)]:
            root.removeHandler(old)
        handler.longshore = True  # type: ignore[attr-defined]  # marks our own handler for the next call
        root.addHandler(handler)
        root.setLevel(max(self.level, logging.WARNING))


_state: Final = _State()


def configure(*, level: str = "info", format: LogFormat | str = LogFormat.JSON, stream: TextIO | None = None) -> None:  # noqa: A002 - the flag's name
    """Set up logging for the whole process; may be called again.

    Args:
        level: debug, info, warning, error or critical.
        format: json or text.
        stream: where records go; standard error, as it is at each write, when None.

    Raises:
        ValueError: an unknown level or format.
    """
    if level.lower() not in LEVELS:
        raise ValueError(f"unknown log level: level={level}, known={','.join(LEVELS)}")
    as_json = LogFormat(format) is LogFormat.JSON
    _state.level, _state.as_json, _state.stream = LEVELS[level.lower()], as_json, stream
    if _state.handler is None:
        _state.stand(_First())
    else:
        _state.build()


class _First(logging.Handler):
    """Waits for the first record of another library, then makes place for the chain."""

    def emit(self, record: logging.LogRecord) -> None:
        """Load the chain and hand the record on."""
        _state.loaded().handle(record)


class Logger:
    """A logger that may be kept in a module: it follows later calls of :func:`configure`. Each method takes a constant message and keyword fields."""

    def __init__(self, name: str, fields: dict[str, Any]) -> None:
        self._name = name
        self._fields = fields

    def _write(self, method: str, message: str, fields: dict[str, Any]) -> None:
        if LEVELS.get(method, logging.ERROR) < _state.level:
            return
        _state.loaded()
        import structlog

        getattr(structlog.get_logger(logger_name=self._name, **self._fields), method)(message, **fields)

    def debug(self, message: str, **fields: Any) -> None:
        """For who looks for a fault."""
        self._write("debug", message, fields)

    def info(self, message: str, **fields: Any) -> None:
        """What an operator follows."""
        self._write("info", message, fields)

    def warning(self, message: str, **fields: Any) -> None:
        """What an operator should look at one day."""
        self._write("warning", message, fields)

    def error(self, message: str, **fields: Any) -> None:
        """What an operator must look at."""
        self._write("error", message, fields)

    def critical(self, message: str, **fields: Any) -> None:
        """What ends the process."""
        self._write("critical", message, fields)

    def exception(self, message: str, **fields: Any) -> None:
        """An error, with the traceback of the exception that is being handled."""
        self._write("exception", message, fields)


def get_logger(name: str, **fields: Any) -> Logger:
    """Give a logger that may be kept in a module.

    Args:
        name: the module's name, shown as `logger`.
        fields: bound to every record.

    Returns:
        A logger.
    """
    return Logger(name, fields)
