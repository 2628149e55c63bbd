"""Whose volume it is when nobody gave it a name: this machine, and the real path of the directory.

Snapshots of equal source are states of one volume, so the name must be the same tomorrow: it does not hold the host's name, which people
change, but the machine's id. Two paths that lead to one directory are one source.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
from pathlib import Path

__all__ = ["default_source", "host_name", "machine_id", "who"]

_ID = re.compile(r"[0-9a-f]{32}")


def host_name() -> str:
    """This host, for people."""
    return socket.gethostname()


def machine_id(files: tuple[str, ...] = ("/etc/machine-id", "/var/lib/dbus/machine-id")) -> str:
    """The machine's id; the host's name where it has none."""
    for file in files:
        try:
            text = Path(file).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            continue
        if _ID.fullmatch(text):
            return text
    return host_name()


def default_source(path: str) -> str:
    r"""The source of a directory.

    Args:
        path: any path that leads to it.

    Returns:
        `<machine id>:<real path>`; bytes that are not UTF-8 are written as `\xNN`, so that it is always text.
    """
    real = os.fsencode(os.path.realpath(path))
    return f"{machine_id()}:{real.decode('utf-8', 'backslashreplace')}"


def who() -> str:
    """Who acts, for records that stay in a repository."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{host_name()}"
