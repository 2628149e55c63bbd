"""Files as they will lie in the image, in memory: path → directory, file or link.

Promises: paths are relative, normal and below the root; the folders that Debian has merged into /usr are merged here, so that a name has one place; a path
is written once, by one of those who fill a layer; nothing is setuid, a device or writable for all (`/tmp` alone is, with the sticky bit). Owners are not
kept: everything is root's. It does not know where files come from, nor what a layer is.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Directory", "File", "ImageError", "Link", "Node", "Tree"]

_MERGED = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
_PRIVILEGED = 0o6000
_OTHERS_WRITE = 0o002


class ImageError(Exception):
    """The image cannot be made; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class File:
    """A regular file."""

    data: bytes
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory; those that only hold others need not be named."""

    mode: int = 0o755


Node = File | Link | Directory


def normal(path: str) -> str:
    """Give a path its one spelling: relative, without dots, in the merged /usr.

    Raises:
        ImageError: it leads out of the root, or is the root.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        raise ImageError(f"not a path inside an image: path={path!r}")
    # The name alone is the link that leads there.
    return "/".join([_MERGED.get(parts[0], parts[0]), *parts[1:]]) if len(parts) > 1 else parts[0]


@dataclass(slots=True)
class Tree:
    """A set of files."""

    nodes: dict[str, Node] = field(default_factory=dict)

    def add(self, path: str, node: Node) -> None:
        """Put something at a path.

        Raises:
            ImageError: something else is there, or it may not be in an image.
        """
        place = normal(path)
        if isinstance(node, File | Directory):
            _check_mode(place, node)
        there = self.nodes.get(place)
        if isinstance(there, Directory) and isinstance(node, Directory):
            return
        if there is not None and there != node:
            raise ImageError(f"two files want one place: path={place}")
        parent = posixpath.dirname(place)
        while parent:
            above = self.nodes.setdefault(parent, Directory())
            if not isinstance(above, Directory):
                raise ImageError(f"a file stands where a directory is wanted: path={parent}")
            parent = posixpath.dirname(parent)
        self.nodes[place] = node

    def text(self, path: str, text: str, *, mode: int = 0o644) -> None:
        """Put a text file at a path."""
        self.add(path, File(text.encode(), mode))

    def merge(self, other: Tree) -> None:
        """Take in all of another."""
        for path, node in other.nodes.items():
            self.add(path, node)

    def without(self, is_unwanted: Callable[[str], bool]) -> Tree:
        """Give a tree without some of the files, and without directories that are empty by that."""
        kept = Tree()
        for path, node in self.nodes.items():
            if not isinstance(node, Directory) and not is_unwanted(path):
                kept.add(path, node)
        for path, node in self.nodes.items():
            # Modes of directories that stay, and directories that were empty on purpose.
            if isinstance(node, Directory) and (path in kept.nodes or not self._below(path)):
                kept.nodes[path] = node
        return kept

    def files(self) -> Iterator[tuple[str, File]]:
        """Give regular files, by path."""
        for path in sorted(self.nodes):
            node = self.nodes[path]
            if isinstance(node, File):
                yield path, node

    def size_bytes(self) -> int:
        """Add up the regular files."""
        return sum(len(file.data) for _, file in self.files())

    def write(self, folder: Path, *, mtime: int) -> None:
        """Lay everything down below a folder, with modes and times; owners are whoever runs this."""
        for path in sorted(self.nodes):
            place, node = folder / path, self.nodes[path]
            place.parent.mkdir(parents=True, exist_ok=True)
            match node:
                case Directory():
                    place.mkdir(exist_ok=True)
                case Link(target):
                    place.symlink_to(target)
                case File(data, mode):
                    place.write_bytes(data)
                    place.chmod(mode)
                    os.utime(place, (mtime, mtime))
        # Inner ones first: what is made in a directory moves its time, and some are not for us to write in any more.
        for path in sorted(self.nodes, reverse=True):
            node = self.nodes[path]
            if isinstance(node, Directory):
                (folder / path).chmod(node.mode)
                os.utime(folder / path, (mtime, mtime))

    @classmethod
    def read(cls, folder: Path, *, at: str = "") -> Tree:
        """Take in what lies below a folder; modes become 0755 where the owner may execute, else 0644."""
        tree = cls()
        for place in sorted(folder.rglob("*")):
            path = posixpath.join(at, place.relative_to(folder).as_posix())
            if place.is_symlink():
                tree.add(path, Link(str(place.readlink())))
            elif place.is_file():
                tree.add(path, File(place.read_bytes(), 0o755 if place.stat().st_mode & 0o100 else 0o644))
        return tree

    def _below(self, path: str) -> bool:
        return any(other.startswith(f"{path}/") for other in self.nodes)


def _check_mode(path: str, node: File | Directory) -> None:
    sticky = isinstance(node, Directory) and node.mode == 0o1777
    if node.mode & _PRIVILEGED or (node.mode & _OTHERS_WRITE and not sticky):
        raise ImageError(f"a mode that nothing in the image may have: path={path}, mode={node.mode:o}")
