"""Values without the secrets that can be recognised in them.

It promises that a field whose name speaks of a secret, and text in which a secret can be recognised (bearer tokens, Longshore key lines, credentials in a
URL, AWS secret keys after their name), come out as `***`. That is a net below the callers, who must not show secrets in the first place. It does not know
what a record is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["REDACTED", "is_secret_name", "redact"]

REDACTED: Final = "***"
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


def is_secret_name(name: str) -> bool:
    """Whether a field of this name holds a secret."""
    return _SECRET_FIELD.search(name) is not None


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
                name: REDACTED if name in hidden or is_secret_name(str(name)) else redact(item, depth=depth + 1)
                for name, item in value.items()
            }
        case list() | tuple() | set() | frozenset():
            return [redact(item, depth=depth + 1) for item in value]
        case BaseException():
            return redact(f"{type(value).__name__}: {value}")
    return value
