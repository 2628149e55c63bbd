"""How records are written: the processors of structlog, and the one handler through which other libraries' records go the same way.

Loaded with the first record (see the room's opening), because structlog brings rich and asyncio with it. It promises one line a record, fields in the order
time, level, logger, message, then the caller's, and that redaction stands right before rendering. It does not know when it is called.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from longshore.logs.redaction import REDACTED, is_secret_name, redact

__all__ = ["build"]


def _redact_record(_logger: WrappedLogger, _method: str, record: EventDict) -> EventDict:
    for name, value in record.items():
        if value is None or isinstance(value, bool | int | float):
            continue
        record[name] = REDACTED if is_secret_name(name) else redact(value)
    return record


def _order(_logger: WrappedLogger, _method: str, record: EventDict) -> EventDict:
    first = {name: record.pop(name) for name in ("ts", "level", "logger", "msg") if name in record}
    return {**first, **record}


def _drop_foreign_noise(record: MutableMapping[str, Any]) -> None:
    for name in ("_record", "_from_structlog", "positional_args"):
        record.pop(name, None)


def _foreign(_logger: WrappedLogger, _method: str, record: EventDict) -> EventDict:
    _drop_foreign_noise(record)
    return record


def _text_line(_logger: WrappedLogger, _method: str, record: EventDict) -> str:
    """One line for people: time, level, message, then the fields; a traceback follows on lines of its own."""
    trace = record.pop("exception", None)
    head = f"{record.pop('ts', '')} {str(record.pop('level', '')).upper():<7} {record.pop('msg', '')}"
    source = record.pop("logger", None)
    fields = " ".join(f"{name}={_text_value(value)}" for name, value in record.items())
    line = "  ".join(part for part in (head, fields, f"[{source}]" if source else "") if part)
    return line if trace is None else f"{line}\n{trace}"


def _text_value(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return repr(text) if isinstance(value, str) and (not text or re.search(r'[\s="\x00-\x1f\x7f]', text)) else text


class _CurrentStderr:
    """Standard error as it is at each write: whoever replaces it for a while (a progress bar, a test) may close what it put there."""

    def write(self, text: str) -> int:
        """Write it."""
        return sys.stderr.write(text)

    def flush(self) -> None:
        """Flush it."""
        sys.stderr.flush()


def build(*, number: int, as_json: bool, stream: TextIO | None) -> logging.Handler:
    """Set structlog up.

    Args:
        number: the least level that is written, as the standard library counts them.
        as_json: JSON lines instead of text.
        stream: where records go; standard error, as it is at each write, when None.

    Returns:
        The handler for records of other libraries.
    """
    out: Any = _CurrentStderr() if stream is None else stream
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_logger_name,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        structlog.processors.EventRenamer("msg"),
    ]
    render: Processor = structlog.processors.JSONRenderer(default=str, ensure_ascii=False) if as_json else _text_line
    # Redaction stands right before rendering, so that tracebacks pass through it too.
    structlog.configure(
        processors=[*shared, _redact_record, _order, render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_logger_name,
                *shared[2:6],
                structlog.processors.EventRenamer("msg"),
            ],
            processors=[_foreign, _redact_record, _order, render],
        )
    )
    return handler


def _add_logger_name(_logger: WrappedLogger, _method: str, record: EventDict) -> EventDict:
    name = record.pop("logger_name", None)
    if name is not None:
        record["logger"] = name
    return record
