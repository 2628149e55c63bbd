"""Reads single fields of a location and refuses what is wrong with them by name.

Promises: every refusal is a UsageError that names the location, the field, the cause, and what to write instead. Values of `config` are shown in messages;
there is no secret among them.
"""

from __future__ import annotations

import base64
import binascii
import re
import ssl
from collections.abc import Collection
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from longshore.errors import UsageError

__all__ = ["Fields", "trimmed_prefix"]

_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_REGION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}", re.ASCII)
_TAGS_MAX: Final = 10


class Fields:
    """`spec.config` of one location, read key by key."""

    def __init__(self, location: str, config: dict[str, str]) -> None:
        """Take the location's name and its config."""
        self._location = location
        self._config = config

    def refuse(self, field: str, cause: str, *, next_step: str, value: str | None = None) -> UsageError:
        """Make the error for a field.

        Args:
            field: as the operator wrote it, e.g. `config.region`.
            cause: what is wrong with it, lower-case.
            next_step: what to write instead.
            value: shown when given.
        """
        shown = "" if value is None else f", value={value!r}"
        return UsageError(
            f"the storage location cannot be used, {cause}: location={self._location}, field={field}{shown}", next_step
        )

    def only(self, known: Collection[str], *, provider: str, looked_at: Collection[str] = ()) -> None:
        """Refuse a key that the provider does not know: a misspelt one would otherwise be ignored in silence.

        Args:
            known: keys that have a meaning.
            provider: for the message.
            looked_at: further keys, which the caller has dealt with.
        """
        for key in sorted(self._config.keys() - set(known) - set(looked_at)):
            raise self.refuse(
                f"config.{key}",
                f"provider {provider} has no such setting",
                next_step=f"remove it, or correct it to one of: {', '.join(sorted(known))}",
            )

    def has(self, key: str) -> bool:
        """Whether a key is written at all, be it with nothing."""
        return key in self._config

    def text(self, key: str) -> str | None:
        """A value without the blanks around it; None when it is absent or empty."""
        value = self._config.get(key, "").strip()
        if _CONTROL.search(value):
            raise self.refuse(
                f"config.{key}", "it holds control characters", next_step="write it in one line", value=value
            )
        return value or None

    def flag(self, key: str) -> bool:
        """A truth value as Go reads one; false when it is absent."""
        value = self.text(key)
        if value is None or value in _FALSE:
            return False
        if value in _TRUE:
            return True
        raise self.refuse(
            f"config.{key}", "it is neither true nor false", next_step='write "true" or "false"', value=value
        )

    def choice(self, key: str, choices: Collection[str]) -> str | None:
        """One of a few words."""
        value = self.text(key)
        if value is None or value in choices:
            return value
        raise self.refuse(
            f"config.{key}",
            "the value is not known",
            next_step=f"write one of: {', '.join(sorted(choices))}",
            value=value,
        )

    def region(self, key: str) -> str | None:
        """A region's name."""
        value = self.text(key)
        if value is None or _REGION.fullmatch(value):
            return value
        raise self.refuse(
            f"config.{key}", "it is not the name of a region", next_step="write one such as eu-west-1", value=value
        )

    def address(self, key: str) -> str | None:
        """Scheme, host and port of a server; a slash at the end is taken off.

        The value is not shown in a refusal, because a wrong one may hold a password.
        """
        value = self.text(key)
        if value is None:
            return None
        step = "write scheme, host and port alone, such as https://s3.example.com:9000"
        field = f"config.{key}"
        try:
            parts = urlsplit(value)
            port = parts.port
        except ValueError as err:
            raise self.refuse(field, "it is not an address", next_step=step) from err
        if parts.scheme not in {"http", "https"} or not parts.hostname or " " in value or port == 0:
            raise self.refuse(field, "it is not an address that starts with http or https", next_step=step)
        if parts.username is not None or parts.password is not None:
            raise self.refuse(
                field, "it holds credentials", next_step="put them in a Secret and name it in spec.credential"
            )
        if parts.path.strip("/") or parts.query or parts.fragment:
            raise self.refuse(field, "it has a path or a query", next_step="put the path in objectStorage.prefix")
        return f"{parts.scheme}://{parts.netloc}"

    def tags(self, key: str) -> str | None:
        """Tags in the form of a URL's query."""
        value = self.text(key)
        if value is None:
            return None
        step = "write it as key=value&key=value, at most ten"
        try:
            pairs = parse_qsl(value, strict_parsing=True, keep_blank_values=True, max_num_fields=_TAGS_MAX)
        except ValueError as err:
            raise self.refuse(f"config.{key}", "it is not a list of tags", next_step=step, value=value) from err
        if len({name for name, _ in pairs}) < len(pairs) or not all(name for name, _ in pairs):
            raise self.refuse(f"config.{key}", "a tag has no name or comes twice", next_step=step, value=value)
        return value

    def bucket(self, value: str) -> str:
        """A bucket's name, which must also be safe as the name of a folder."""
        if "/" in value:
            raise self.refuse(
                "objectStorage.bucket",
                "it has a slash",
                next_step="put the folder in objectStorage.prefix",
                value=value,
            )
        if not _BUCKET.fullmatch(value) or ".." in value:
            raise self.refuse(
                "objectStorage.bucket",
                "it is not the name of a bucket",
                next_step="write the bucket's name alone",
                value=value,
            )
        return value

    def prefix(self, value: str) -> str:
        """A folder inside the bucket, slashes at its ends taken off as Velero does."""
        trimmed = trimmed_prefix(value)
        if trimmed is None:
            raise self.refuse(
                "objectStorage.prefix",
                "it has an empty, `.` or `..` segment or a control character",
                next_step="write it as folder/folder",
                value=value,
            )
        return trimmed

    def certificates(self, field: str, pem: bytes) -> bytes:
        """Certificates in PEM."""
        try:
            ssl.create_default_context(cadata=pem.decode("ascii"))
        except (ValueError, ssl.SSLError) as err:
            raise self.refuse(
                field, "it holds no certificate in PEM", next_step="put the authority's certificate there"
            ) from err
        return pem

    def base64_bytes(self, field: str, text: str) -> bytes:
        """Bytes that travel as base64; line ends inside are allowed."""
        try:
            return base64.b64decode("".join(text.split()), validate=True)
        except (ValueError, binascii.Error) as err:
            raise self.refuse(field, "it is not base64", next_step="encode the PEM file with base64") from err


def trimmed_prefix(value: str) -> str | None:
    """Take the slashes off both ends; None when what is left could leave its folder or has no place in a key."""
    trimmed = value.strip("/")
    if trimmed and (_CONTROL.search(trimmed) or any(part in {"", ".", ".."} for part in trimmed.split("/"))):
        return None
    return trimmed
