"""Logging for every Longshore process: one line a record, the same keys everywhere, no secret in any of them.

A record has `ts` (RFC 3339, UTC, microseconds), `level`, `logger`, `msg` (constant, capitalised) and the caller's keyword fields, as JSON for machines or as
text for people. Records of other libraries (urllib3, kubernetes, boto3) go through the same chain from level warning on; their debug records hold request
bodies and headers and are never let through.

It promises that a field whose name speaks of a secret, and text in which a secret can be recognised (bearer tokens, Longshore key lines, credentials in a
URL, AWS secret keys after their name), come out as `***`. That is a net below the callers, who must not log secrets in the first place.

Everything goes to standard error: standard output belongs to results.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from enum import StrEnum
from typing import Any, Final, TextIO, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

__all__ = ["LogFormat", "Logger", "configure", "get_logger", "redact"]

Logger = FilteringBoundLogger
REDACTED: Final = "***"
LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}

# Whole words of a field name, so that `key` (an object's namespace/name) and `token_count` stay readable.
_SECRET_FIELD = re.compile(
    r"(?:^|_)(?:password|passphrase|passwd|secret|secrets|token|authorization|credentials|private_key|secret_key|access_key|"
    r"key_bytes|master_key|string_data|stringdata|cookie)$",
    re.IGNORECASE,
)
_SECRET_TEXT: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (re.compile(r"(?i)\b(bearer|basic)\s+[a-z0-9._~+/=-]{6,}"), rf"\1 {REDACTED}"),
    (re.compile(r"(longshore-key-1:)[0-9a-fA-F]+"), rf"\1{REDACTED}"),
    (re.compile(r"([a-z][a-z0-9+.-]*://[^/\s:@]*:)[^/\s@]+@"), rf"\1{REDACTED}@"),
    (re.compile(r"(?i)(aws_?secret_?access_?key|aws_?session_?token)(\"?\s*[=:]\s*\"?)[^\s\",}]+"), rf"\1\2{REDACTED}"),
    (
        re.compile(r"(?i)([?&](?:x-amz-signature|x-amz-security-token|x-amz-credential|sig|signature)=)[^&\s]+"),
        rf"\1{REDACTED}",
    ),
    (re.compile(r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+"), REDACTED),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)", re.DOTALL), REDACTED),
)
_DEPTH_MAX: Final = 6


class LogFormat(StrEnum):
    """How records are written."""

    JSON = "json"
    TEXT = "text"


def redact(value: Any, *, depth: int = 0) -> Any:
    """Give a value back without the secrets that can be recognised in it.

    Args:
        value: a field's value; mappings and sequences are walked.
        depth: how deep the walk already is; deeper than six levels becomes `***`.

    Returns:
        The same value where nothing was hidden in it, else a redacted copy. Bytes always become their length.
    """
    if depth > _DEPTH_MAX:
        return REDACTED
    match value:
        case str():
            for pattern, replacement in _SECRET_TEXT:
                value = pattern.sub(replacement, value)
            return value
        case bytes() | bytearray() | memoryview():
            return f"<{len(value)} bytes>"
        case Mapping():
            # A Secret's payload hides under harmless names.
            hidden = {"data", "stringData"} if value.get("kind") == "Secret" else set()
            return {
                name: REDACTED if name in hidden or _SECRET_FIELD.search(str(name)) else redact(item, depth=depth + 1)
                for name, item in value.items()
            }
        case list() | tuple() | set() | frozenset():
            return [redact(item, depth=depth + 1) for item in value]
        case BaseException():
            return redact(f"{type(value).__name__}: {value}")
    return value


def _redact_record(_logger: WrappedLogger, _method: str, record: EventDict) -> EventDict:
    for name, value in record.items():
        if value is None or isinstance(value, bool | int | float):
            continue
        record[name] = REDACTED if _SECRET_FIELD.search(name) else redact(value)
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
    number = LEVELS[level.lower()]
    style = LogFormat(format)
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
    render: Processor = (
        structlog.processors.JSONRenderer(default=str, ensure_ascii=False) if style is LogFormat.JSON else _text_line
    )
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
    root = logging.getLogger()
    for old in [h for h in root.handlers if getattr(h, "longshore", False)]:
        root.removeHandler(old)
    handler.longshore = True  # type: ignore[attr-defined]  # marks our own handler for the next call
    root.addHandler(handler)
    root.setLevel(max(number, logging.WARNING))


def _add_logger_name(_logger: WrappedLogger, _method: str, record: EventDict) -> EventDict:
    name = record.pop("logger_name", None)
    if name is not None:
        record["logger"] = name
    return record


def get_logger(name: str, **fields: Any) -> Logger:
    """Give a logger that may be kept in a module: it follows later calls of :func:`configure`.

    Args:
        name: the module's name, shown as `logger`.
        fields: bound to every record.

    Returns:
        A logger with `debug`, `info`, `warning`, `error`, `exception`, each taking a constant message and keyword fields.
    """
    if not structlog.is_configured():
        configure(level="warning", format=LogFormat.TEXT)
    return cast("Logger", structlog.get_logger(logger_name=name, **fields))
