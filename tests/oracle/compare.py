"""Tell whether two directory trees are the same to the last bit that a backup must keep.

One file, standard library only, sharing no code with the engine: it is the judge of every restore. It compares names as bytes, kinds,
modes, owners, modification times to the nanosecond, sizes, contents, link targets, device numbers, extended attributes (ACLs and
capabilities are among them), hard-link groups and holes, of the two roots as well. It does not compare inode numbers, change and
access times, sizes of directories, or names that an inode has outside the tree.

Trees may be as deep as the filesystem allows: the walk holds one descriptor a side and goes up by `..`, so they must be quiet while it
runs. What cannot be read is a difference, never a silence.

Holes: the maps that SEEK_HOLE gives must agree. Where they do not, a range that one side has reserved without writing it (an unwritten
extent, from `fallocate`) counts as either, because filesystems show such a range as a hole although it takes room.

    compare.py A B [--json] [--ignore ASPECT]...      exit 0: equal, 1: different, 2: usage
"""

from __future__ import annotations

import argparse
import base64
import errno
import fcntl
import json
import os
import stat
import struct
import sys
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field

BLOCK_BYTES = 1 << 20
FIEMAP = 0xC020660B
FIEMAP_SYNC = 1
FIEMAP_LAST = 1
FIEMAP_UNWRITTEN = 0x800
FIEMAP_EXTENTS = 256

KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFBLK: "block device",
    stat.S_IFCHR: "character device",
}

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing in which the trees differ.

    Attributes:
        path: bytes relative to the roots, `.` for the roots themselves.
        aspect: what differs: missing, extra, kind, mode, uid, gid, mtime, size, content, target, device, xattr, links, holes, unreadable.
        a: what the first tree has.
        b: what the second tree has.
    """

    path: bytes
    aspect: str
    a: str
    b: str

    def __str__(self) -> str:
        return f"{printable(self.path)}: {self.aspect}: {self.a} | {self.b}"


@dataclass(slots=True)
class Counts:
    """How much was looked at, so that an empty comparison cannot pass for a good one."""

    entries: int = 0
    files: int = 0
    bytes: int = 0
    hard_link_groups: int = 0
    xattrs: int = 0
    holes: int = 0


@dataclass(slots=True)
class _Level:
    """A pair of directories on the way down: their names in the ones above, and the pairs below that are still to be entered."""

    name: bytes
    identities: tuple[tuple[int, int], tuple[int, int]]
    todo: list[bytes]


@dataclass(slots=True)
class _Comparison:
    ignore: Collection[str]
    differences: list[Difference] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    path: list[bytes] = field(default_factory=list)
    groups: tuple[dict[tuple[int, int], list[bytes]], ...] = field(default_factory=lambda: ({}, {}))

    def where(self, name: bytes | None) -> bytes:
        parts = self.path if name is None else [*self.path, name]
        return b"/".join(parts) or b"."

    def note(self, name: bytes | None, aspect: str, a: object, b: object) -> None:
        if aspect not in self.ignore:
            self.differences.append(Difference(self.where(name), aspect, str(a), str(b)))

    def tree(self, fds: tuple[int, int]) -> None:
        """Compare everything below two directories; closes neither, and needs one more descriptor a side at any depth."""
        current = (os.dup(fds[0]), os.dup(fds[1]))
        try:
            self.entry(None, os.fstat(fds[0]), os.fstat(fds[1]), current)
            levels = [_Level(b"", _identities(current), self.directory(current))]
            while levels:
                if levels[-1].todo:
                    name = levels[-1].todo.pop()
                    try:
                        current = _move(current, name)
                    except OSError as err:
                        self.note(name, "unreadable", err, err)
                        continue
                    self.path.append(name)
                    levels.append(_Level(name, _identities(current), self.directory(current)))
                    continue
                levels.pop()
                if levels:
                    current = _move(current, b"..")
                    if _identities(current) != levels[-1].identities:
                        message = f"tree changed while it was compared: path={printable(self.where(None))}"
                        raise RuntimeError(message)
                    self.path.pop()
        finally:
            os.close(current[0])
            os.close(current[1])
        self.links()

    def directory(self, fds: tuple[int, int]) -> list[bytes]:
        """Compare the entries of one pair of directories.

        Returns:
            Names of the directories that both have, to be entered.
        """
        names: list[set[bytes]] = []
        for fd in fds:
            try:
                names.append({os.fsencode(name) for name in os.listdir(fd)})
            except OSError as err:
                self.note(None, "unreadable", err, err)
                return []
        below = []
        for name in sorted(names[0] | names[1]):
            states = [self.state(fd, name) if name in there else None for fd, there in zip(fds, names, strict=True)]
            if states[0] is None or states[1] is None:
                kinds = [kind(state) if state else "absent" for state in states]
                self.note(name, "extra" if states[0] is None else "missing", *kinds)
                continue
            self.entry(name, states[0], states[1], fds)
            if stat.S_ISDIR(states[0].st_mode) and stat.S_ISDIR(states[1].st_mode):
                below.append(name)
        below.reverse()
        return below

    @staticmethod
    def state(fd: int, name: bytes) -> os.stat_result:
        return os.stat(name, dir_fd=fd, follow_symlinks=False)

    def entry(self, name: bytes | None, a: os.stat_result, b: os.stat_result, fds: tuple[int, int]) -> None:
        """Compare one pair of entries, the directories themselves when `name` is None."""
        self.counts.entries += 1
        if stat.S_IFMT(a.st_mode) != stat.S_IFMT(b.st_mode):
            self.note(name, "kind", kind(a), kind(b))
            return
        if not stat.S_ISLNK(a.st_mode) and a.st_mode != b.st_mode:
            self.note(name, "mode", f"{stat.S_IMODE(a.st_mode):04o}", f"{stat.S_IMODE(b.st_mode):04o}")
        for aspect, left, right in (
            ("uid", a.st_uid, b.st_uid),
            ("gid", a.st_gid, b.st_gid),
            ("mtime", a.st_mtime_ns, b.st_mtime_ns),
        ):
            if left != right:
                self.note(name, aspect, left, right)
        try:
            self.xattrs(name, fds)
            if stat.S_ISLNK(a.st_mode):
                targets = [os.readlink(name or b"", dir_fd=fd) for fd in fds]
                if targets[0] != targets[1]:
                    self.note(name, "target", printable(targets[0]), printable(targets[1]))
            elif stat.S_ISBLK(a.st_mode) or stat.S_ISCHR(a.st_mode):
                if a.st_rdev != b.st_rdev:
                    self.note(name, "device", device(a), device(b))
            elif stat.S_ISREG(a.st_mode):
                self.file(name or b"", a, b, fds)
        except OSError as err:
            self.note(name, "unreadable", err, err)
        if not stat.S_ISDIR(a.st_mode):
            for state, group in zip((a, b), self.groups, strict=True):
                if state.st_nlink > 1:
                    group.setdefault((state.st_dev, state.st_ino), []).append(self.where(name))

    def xattrs(self, name: bytes | None, fds: tuple[int, int]) -> None:
        found = [_xattrs(fd, name) for fd in fds]
        self.counts.xattrs += len(found[0])
        for key in sorted(found[0].keys() | found[1].keys()):
            if found[0].get(key) != found[1].get(key):
                self.note(name, "xattr", *(f"{printable(key)}={_short(side.get(key))}" for side in found))

    def file(self, name: bytes, a: os.stat_result, b: os.stat_result, fds: tuple[int, int]) -> None:
        self.counts.files += 1
        if a.st_size != b.st_size:
            self.note(name, "size", a.st_size, b.st_size)
            return
        if a.st_size == 0:
            return
        files: list[int] = []
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            files.extend(os.open(name, flags, dir_fd=fd) for fd in fds)
            data = [data_ranges(fd, a.st_size) for fd in files]
            self.counts.bytes += a.st_size
            self.counts.holes += len(invert(data[0], a.st_size))
            for start, end in union(data[0], data[1]):
                offset = first_difference(files[0], files[1], start, end)
                if offset is not None:
                    self.note(name, "content", f"first difference at {offset}", f"of {a.st_size} bytes")
                    break
            apart = subtract(union(data[0], data[1]), intersection(data[0], data[1]))
            if apart:
                apart = subtract(apart, union(unwritten_ranges(files[0]), unwritten_ranges(files[1])))
            if apart:
                self.note(name, "holes", _show(invert(data[0], a.st_size)), _show(invert(data[1], a.st_size)))
        finally:
            for fd in files:
                os.close(fd)

    def links(self) -> None:
        """Compare which names belong to one inode."""
        groups = [{tuple(sorted(names)) for names in group.values() if len(names) > 1} for group in self.groups]
        self.counts.hard_link_groups = len(groups[0])
        of = [{name: group for group in side for name in group} for side in groups]
        for name in sorted(of[0].keys() | of[1].keys()):
            left, right = (side.get(name, (name,)) for side in of)
            # Each group is told once, at its first name.
            if left != right and name == min(left[0], right[0]) and "links" not in self.ignore:
                shown = [", ".join(printable(part) for part in side[:8]) for side in (left, right)]
                self.differences.append(Difference(name, "links", *shown))


def _identities(fds: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    a, b = os.fstat(fds[0]), os.fstat(fds[1])
    return (a.st_dev, a.st_ino), (b.st_dev, b.st_ino)


def _move(fds: tuple[int, int], name: bytes) -> tuple[int, int]:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    a = os.open(name, flags, dir_fd=fds[0])
    try:
        b = os.open(name, flags, dir_fd=fds[1])
    except OSError:
        os.close(a)
        raise
    os.close(fds[0])
    os.close(fds[1])
    return a, b


def _xattrs(fd: int, name: bytes | None) -> dict[bytes, bytes]:
    # The directory's descriptor by way of procfs, then one component that is not followed: works for links and FIFOs at any depth.
    target: int | bytes = fd if name is None else b"/proc/self/fd/%d/%s" % (fd, name)
    follow = name is None
    try:
        keys = os.listxattr(target, follow_symlinks=follow)
    except OSError as err:
        if err.errno == errno.ENOTSUP:
            return {}
        raise
    return {os.fsencode(key): os.getxattr(target, key, follow_symlinks=follow) for key in keys}


def data_ranges(fd: int, size_bytes: int) -> list[Range]:
    """Ranges of a file that are not holes, ascending."""
    ranges = []
    at = 0
    while at < size_bytes:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as err:
            if err.errno == errno.ENXIO:
                break
            raise
        end = min(os.lseek(fd, start, os.SEEK_HOLE), size_bytes)
        if start < size_bytes:
            ranges.append((start, end))
        at = end
    return ranges


def unwritten_ranges(fd: int) -> list[Range]:
    """Ranges that are reserved but not written; none where the filesystem cannot tell."""
    ranges: list[Range] = []
    at = 0
    while True:
        request = bytearray(struct.pack("=QQIIII", at, (1 << 64) - 1 - at, FIEMAP_SYNC, 0, FIEMAP_EXTENTS, 0))
        request.extend(bytes(56 * FIEMAP_EXTENTS))
        try:
            fcntl.ioctl(fd, FIEMAP, request)
        except OSError:
            return ranges
        mapped = struct.unpack_from("=I", request, 20)[0]
        if mapped == 0:
            return ranges
        for index in range(mapped):
            logical, _, length, _, _, flags = struct.unpack_from("=QQQQQI", request, 32 + 56 * index)
            if flags & FIEMAP_UNWRITTEN:
                ranges.append((logical, logical + length))
            at = logical + length
            if flags & FIEMAP_LAST:
                return ranges


def union(a: list[Range], b: list[Range]) -> list[Range]:
    """Ranges that are in either."""
    merged: list[Range] = []
    for start, end in sorted([*a, *b]):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def invert(ranges: list[Range], size_bytes: int) -> list[Range]:
    """What of a file is not in `ranges`, which are ascending and apart."""
    gaps = []
    at = 0
    for start, end in ranges:
        if start > at:
            gaps.append((at, start))
        at = max(at, end)
    if at < size_bytes:
        gaps.append((at, size_bytes))
    return gaps


def intersection(a: list[Range], b: list[Range]) -> list[Range]:
    """Ranges that are in both; each list is ascending and apart."""
    both = []
    i = j = 0
    while i < len(a) and j < len(b):
        start, end = max(a[i][0], b[j][0]), min(a[i][1], b[j][1])
        if start < end:
            both.append((start, end))
        if a[i][1] < b[j][1]:
            i += 1
        else:
            j += 1
    return both


def subtract(a: list[Range], b: list[Range]) -> list[Range]:
    """What of `a` is not in `b`; each list is ascending and apart."""
    return intersection(a, invert(b, a[-1][1])) if a else []


def first_difference(a: int, b: int, start: int, end: int) -> int | None:
    """Offset of the first byte in which two files differ within a range, None when they agree."""
    while start < end:
        left = _read(a, min(BLOCK_BYTES, end - start), start)
        right = _read(b, min(BLOCK_BYTES, end - start), start)
        if left != right:
            for index, (x, y) in enumerate(zip(left, right, strict=False)):
                if x != y:
                    return start + index
            return start + min(len(left), len(right))
        if not left:
            return start
        start += len(left)
    return None


def _read(fd: int, length_bytes: int, offset: int) -> bytes:
    parts = []
    while length_bytes:
        part = os.pread(fd, length_bytes, offset)
        if not part:
            break
        parts.append(part)
        length_bytes -= len(part)
        offset += len(part)
    return b"".join(parts)


def kind(state: os.stat_result) -> str:
    """What kind of thing an entry is, in words."""
    return KINDS.get(stat.S_IFMT(state.st_mode), "unknown")


def device(state: os.stat_result) -> str:
    """Major and minor number."""
    return f"{os.major(state.st_rdev)}:{os.minor(state.st_rdev)}"


def printable(path: bytes) -> str:
    """Bytes as one line of ASCII that can be told apart."""
    shown = path if len(path) <= 300 else path[:140] + b"..." + path[-140:]
    return shown.decode("utf-8", "backslashreplace").encode("unicode_escape").decode("ascii")


def _short(value: bytes | None) -> str:
    if value is None:
        return "absent"
    return value[:32].hex() + (f"... of {len(value)} bytes" if len(value) > 32 else "")


def _show(ranges: list[Range]) -> str:
    return " ".join(f"{start}-{end}" for start, end in ranges[:8]) + (" ..." if len(ranges) > 8 else "") or "none"


def compare_and_count(
    a: os.PathLike[str] | str, b: os.PathLike[str] | str, *, ignore: Collection[str] = ()
) -> tuple[list[Difference], Counts]:
    """Compare two trees and say how much was looked at. See `compare`."""
    comparison = _Comparison(ignore)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    roots: list[int] = []
    try:
        roots.extend(os.open(root, flags) for root in (a, b))
        comparison.tree((roots[0], roots[1]))
    finally:
        for fd in roots:
            os.close(fd)
    return comparison.differences, comparison.counts


def compare(a: os.PathLike[str] | str, b: os.PathLike[str] | str, *, ignore: Collection[str] = ()) -> list[Difference]:
    """Compare two trees.

    Args:
        a: the first root, usually what was backed up.
        b: the second root, usually what was restored.
        ignore: aspects not to be told, e.g. `uid` where nobody is root.

    Returns:
        Each difference, by directory; empty when the trees are the same.
    """
    return compare_and_count(a, b, ignore=ignore)[0]


def _json_lines(differences: list[Difference], counts: Counts) -> Iterator[str]:
    for found in differences:
        yield json.dumps(
            {
                "type": "difference",
                "path": printable(found.path),
                "path_base64": base64.b64encode(found.path).decode("ascii"),
                "aspect": found.aspect,
                "a": found.a,
                "b": found.b,
            }
        )
    yield json.dumps({"type": "summary", "differences": len(differences), **asdict(counts)})


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0 when the trees are equal, 1 when they differ.
    """
    parser = argparse.ArgumentParser(description="Tell whether two directory trees are the same.")
    parser.add_argument("a")
    parser.add_argument("b")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument(
        "--ignore", action="append", default=[], metavar="ASPECT", help="do not tell differences of this kind"
    )
    options = parser.parse_args(arguments)
    try:
        differences, counts = compare_and_count(options.a, options.b, ignore=options.ignore)
    except NotADirectoryError as err:
        parser.error(str(err))
    except FileNotFoundError as err:
        parser.error(str(err))
    if options.json:
        for line in _json_lines(differences, counts):
            print(line)
    else:
        for found in differences:
            print(found)
        counted = " ".join(f"{key}={value}" for key, value in asdict(counts).items())
        print(f"{'different' if differences else 'equal'}: differences={len(differences)} {counted}")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
