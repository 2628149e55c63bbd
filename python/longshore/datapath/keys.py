"""Keys: what opens a repository. The bytes live in the extension, which wipes them; nothing here shows them.

Python cannot wipe the bytes that it was handed: whoever reads a file or an environment variable keeps that copy short-lived.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from longshore import _native
from longshore.errors import UsageError

__all__ = ["Key", "native_key"]

_FILE_BYTES_MAX: Final = 4096


class Key:
    """The secret of a key file, or a passphrase."""

    __slots__ = ("_native",)

    def __init__(self, native: _native.Key) -> None:
        self._native = native

    @classmethod
    def from_file(cls, path: str | Path) -> Key:
        """Read a key file: one line, `longshore-key-1:` and 64 hexadecimal digits.

        Raises:
            UsageError: the file cannot be read, or holds anything else.
        """
        return cls(_native.Key.from_file_text(_read(path, what="key file")))

    @classmethod
    def from_secret(cls, secret: bytes) -> Key:
        """Take the 32 bytes of a key file.

        Raises:
            UsageError: they are not 32.
        """
        return cls(_native.Key.from_secret(secret))

    @classmethod
    def from_passphrase(cls, passphrase: bytes) -> Key:
        """Take a passphrase as it is; stretching it takes a moment at each opening.

        Raises:
            UsageError: it is empty.
        """
        return cls(_native.Key.from_passphrase(passphrase))

    @classmethod
    def from_passphrase_file(cls, path: str | Path) -> Key:
        """Read a passphrase from a file; one newline at its end, LF or CR LF, does not count.

        Raises:
            UsageError: the file cannot be read, or is empty.
        """
        content = _read(path, what="passphrase file")
        if content.endswith(b"\n"):
            content = content[:-1].removesuffix(b"\r")
        return cls.from_passphrase(content)

    @classmethod
    def generate(cls) -> Key:
        """Draw a new secret from the system's randomness."""
        return cls(_native.Key.generate())

    @property
    def is_passphrase(self) -> bool:
        """Whether it is a passphrase."""
        return self._native.is_passphrase

    def to_file_text(self) -> str:
        """Give the text of a key file that holds it.

        Raises:
            UsageError: it is a passphrase.
        """
        return self._native.to_file_text()

    def __repr__(self) -> str:
        return "Key(passphrase=***)" if self.is_passphrase else "Key(secret=***)"


def native_key(key: Key) -> _native.Key:
    """Give the extension's side of a key."""
    return key._native


def _read(path: str | Path, *, what: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            content = file.read(_FILE_BYTES_MAX + 1)
    except OSError as err:
        raise UsageError(
            f"{what} cannot be read: path={path}, error={err.strerror}", "check the path and its mode"
        ) from err
    if len(content) > _FILE_BYTES_MAX:
        raise UsageError(f"{what} is too long to be one: path={path}, limit_bytes={_FILE_BYTES_MAX}", "check the path")
    return content
