"""Where the key comes from: a key file, a passphrase file, or the environment.

A word on the command line goes before the environment; two of a kind are refused rather than chosen from. A key file is written once, readable by its
owner alone, and nothing is ever overwritten.

Promises: neither key nor passphrase appears in any message. What a key is, is the data path's business.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from longshore.errors import AlreadyExistsError, LongshoreError, NoSpaceError, UsageError

if TYPE_CHECKING:
    from longshore.datapath import Key

__all__ = ["KeySource", "choose", "read_passphrase", "write_new"]

PASSPHRASE_FILE_BYTES_MAX: Final = 1 << 20
HOW: Final = "give --key-file or --passphrase-file, or set LONGSHORE_KEY_FILE or LONGSHORE_PASSPHRASE"


@dataclass(frozen=True, slots=True)
class KeySource:
    """Where the key is to be found; exactly one is set."""

    key_file: str | None = None
    passphrase_file: str | None = None
    from_environment: bool = False

    def load(self) -> Key:
        """Read it.

        Raises:
            UsageError: it cannot be read, or is empty.
            WrongKeyError: the file is no key file.
        """
        from longshore.datapath import Key

        if self.key_file is not None:
            if not Path(self.key_file).exists():
                raise UsageError(
                    f"there is no such key file: file={self.key_file}",
                    "name the file that the repository was made with",
                )
            return Key.from_file(self.key_file)
        if self.passphrase_file is not None:
            return Key.from_passphrase(read_passphrase(self.passphrase_file))
        return Key.from_passphrase(os.environb[b"LONGSHORE_PASSPHRASE"])


def choose(
    *,
    key_file: str | None,
    key_file_from_environment: bool,
    passphrase_file: str | None,
    environment_passphrase: bool,
) -> KeySource:
    """Decide which key is meant.

    Args:
        key_file: from the command line or the environment.
        key_file_from_environment: it was the environment.
        passphrase_file: from the command line.
        environment_passphrase: the environment holds a passphrase.

    Raises:
        UsageError: none is given, or two that are equally near.
    """
    said_key = key_file if not key_file_from_environment else None
    if said_key and passphrase_file:
        raise UsageError(
            "a key file and a passphrase file are both given", "give the one that the repository has a slot for"
        )
    if said_key:
        return KeySource(key_file=said_key)
    if passphrase_file:
        return KeySource(passphrase_file=passphrase_file)
    if key_file and environment_passphrase:
        raise UsageError(
            "LONGSHORE_KEY_FILE and LONGSHORE_PASSPHRASE are both set",
            "unset one, or give --key-file or --passphrase-file",
        )
    if key_file:
        return KeySource(key_file=key_file)
    if environment_passphrase:
        return KeySource(from_environment=True)
    raise UsageError("neither a key file nor a passphrase is given", HOW)


def read_passphrase(path: str) -> bytes:
    """Read a passphrase; one newline at the end is not part of it.

    Raises:
        UsageError: the file cannot be read, is empty or far too long.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(PASSPHRASE_FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        raise UsageError(f"the passphrase file cannot be read: file={path}, error={_cause(error)}") from error
    if len(content) > PASSPHRASE_FILE_BYTES_MAX:
        raise UsageError(f"the passphrase file is too long: file={path}, limit_bytes={PASSPHRASE_FILE_BYTES_MAX}")
    content = content.removesuffix(b"\r\n") if content.endswith(b"\r\n") else content.removesuffix(b"\n")
    if not content:
        raise UsageError(f"the passphrase file is empty: file={path}")
    return content


def write_new(path: str, text: str) -> None:
    """Write a key file that was not there, mode 0600, and have it on the disk before returning.

    Raises:
        AlreadyExistsError: something is there; it was not touched.
        UsageError: the folder is not there or may not be written to.
        NoSpaceError: no room for it.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise AlreadyExistsError(
            f"a key file is never overwritten: file={path}", "name a file that is not there"
        ) from error
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(text.encode("ascii").rstrip(b"\n") + b"\n")
            file.flush()
            # The umask may have taken more than group and others.
            os.fchmod(file.fileno(), 0o600)
            os.fsync(file.fileno())
        folder = os.open(Path(path).parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        Path(path).unlink(missing_ok=True)
        raise _unwritable(path, error) from error


def _unwritable(path: str, error: OSError) -> LongshoreError:
    import errno

    kind = NoSpaceError if error.errno in {errno.ENOSPC, errno.EDQUOT} else UsageError
    return kind(
        f"the key file cannot be written: file={path}, error={_cause(error)}",
        "name a file in a folder that you may write to",
    )


def _cause(error: Exception) -> str:
    return (error.strerror or "failed") if isinstance(error, OSError) else "the name is not possible"
