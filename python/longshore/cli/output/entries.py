"""Entries of a snapshot, as `ls` and `find` show them: a path a line, `ls -l` for those who ask, or JSON rows.

A path that holds what a terminal would obey is escaped; programs read `--json`, where it comes whole.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Any, Final

from longshore.cli.output.human import moment, path_text
from longshore.cli.output.sink import path_fields

if TYPE_CHECKING:
    from longshore.datapath import Entry

__all__ = ["entry_fields", "long_line", "short_line"]

_TYPES: Final = {
    "file": stat.S_IFREG,
    "directory": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "block-device": stat.S_IFBLK,
    "char-device": stat.S_IFCHR,
    "fifo": stat.S_IFIFO,
    "socket": stat.S_IFSOCK,
}


def entry_fields(entry: Entry) -> dict[str, Any]:
    """The fields of a row of `volume ls` and `volume find`."""
    fields: dict[str, Any] = {
        **path_fields(entry.path),
        "kind": str(entry.kind),
        "mode": f"{entry.mode:04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "size_bytes": entry.size_bytes,
        "modified": moment(entry.mtime_nanos),
        "modified_nanos": entry.mtime_nanos,
        "inode": entry.inode,
        "linked": entry.linked,
        "changed": entry.changed,
        "incomplete": entry.incomplete,
        "xattrs": [{**path_fields(name, name="name"), "size_bytes": size} for name, size in entry.xattrs],
    }
    if entry.device is not None:
        fields["device"] = list(entry.device)
    if entry.target is not None:
        fields |= path_fields(entry.target, name="target")
    return fields


def short_line(entry: Entry) -> str:
    """The path; a directory's ends with a slash."""
    return path_text(entry.path) + ("/" if entry.kind == "directory" else "")


def long_line(entry: Entry) -> str:
    """Mode, owner, group, size, time and path, as `ls -l` has them; a link with its target."""
    mode = stat.filemode(_TYPES.get(str(entry.kind), 0) | entry.mode)
    target = f" -> {path_text(entry.target)}" if entry.target is not None else ""
    return f"{mode} {entry.uid:>6} {entry.gid:>6} {entry.size_bytes:>14,} {moment(entry.mtime_nanos)} {short_line(entry)}{target}"
