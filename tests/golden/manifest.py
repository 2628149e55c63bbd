"""What a directory holds, as JSON that can be compared: the oracle of golden repositories, sharing no code with the engine or rescue.py.

    python tests/golden/manifest.py DIR > manifest.json

One object: `entries`, a list ascending by path (bytes in base64; the root's is empty). Each has `path`, `kind`, `mode` (octal text), `uid`, `gid`,
`mtime_ns` and `xattrs` (name to value, both base64); a file also `size`, `blake3` and `holes` (whether it takes less room than its size); a
link `target`; a device `major` and `minor`; names of one file share a number `link`.

Not held: atime, ctime, inode numbers, sizes of directories: no restore can give them back.
"""

from __future__ import annotations

import base64
import json
import os
import stat
import sys

from blake3 import blake3

KINDS = {
    stat.S_IFDIR: "directory",
    stat.S_IFREG: "file",
    stat.S_IFLNK: "symlink",
    stat.S_IFBLK: "block",
    stat.S_IFCHR: "character",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


def text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def describe(path: bytes, name: bytes, links: dict[tuple[int, int], int]) -> dict[str, object]:
    info = os.lstat(path)
    kind = KINDS[stat.S_IFMT(info.st_mode)]
    keys = sorted(os.fsencode(key) for key in os.listxattr(path, follow_symlinks=False))
    row: dict[str, object] = {
        "path": text(name),
        "kind": kind,
        "mode": f"{stat.S_IMODE(info.st_mode):04o}",
        "uid": info.st_uid,
        "gid": info.st_gid,
        "mtime_ns": info.st_mtime_ns,
        "xattrs": {
            text(key): text(os.getxattr(path, key, follow_symlinks=False))
            for key in keys
            if not key.startswith(b"security.selinux")
        },
    }
    if kind != "directory" and info.st_nlink > 1:
        row["link"] = links.setdefault((info.st_dev, info.st_ino), len(links))
    if kind == "file":
        digest = blake3()
        with open(path, "rb") as handle:
            while part := handle.read(1 << 20):
                digest.update(part)
        row |= {"size": info.st_size, "blake3": digest.hexdigest(), "holes": info.st_blocks * 512 < info.st_size}
    elif kind == "symlink":
        row["target"] = text(os.readlink(path))
    elif kind in {"block", "character"}:
        row |= {"major": os.major(info.st_rdev), "minor": os.minor(info.st_rdev)}
    return row


def manifest(directory: str | os.PathLike[str]) -> dict[str, object]:
    """Describe everything at and below a directory."""
    root = os.fsencode(directory)
    found = [b""]
    todo = [b""]
    while todo:
        above = todo.pop()
        for name in os.listdir(os.path.join(root, above)):
            path = os.path.join(above, name)
            found.append(path)
            if stat.S_ISDIR(os.lstat(os.path.join(root, path)).st_mode):
                todo.append(path)
    links: dict[tuple[int, int], int] = {}
    return {"entries": [describe(os.path.join(root, name) if name else root, name, links) for name in sorted(found)]}


if __name__ == "__main__":
    json.dump(manifest(sys.argv[1]), sys.stdout, indent=1)
    print()
