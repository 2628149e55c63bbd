"""Make a nasty tree: everything that a volume may hold and that some backup program has lost.

The same arguments make the same tree, times included, so two of them must compare as equal. Where the machine forbids something (devices
and owners need root, extended attributes and ACLs need the filesystem) it is left out and named.

    make_tree.py TARGET [--seed S] [--files N] [--bytes B] [--large BYTES] [--depth D]
"""

from __future__ import annotations

import argparse
import errno
import os
import random
import stat
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

SECOND_NS = 1_000_000_000
YEAR_2200_NS = 7_258_118_400 * SECOND_NS
BASE_NS = 1_600_000_000 * SECOND_NS
ACL_ACCESS = "system.posix_acl_access"
ACL_DEFAULT = "system.posix_acl_default"
# Version 2, effective, CAP_NET_BIND_SERVICE permitted.
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
FILES_IN_DIRECTORY = 100


def acl(*entries: tuple[int, int, int]) -> bytes:
    """An ACL as the kernel takes it: tag, permissions and id of each entry."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NOBODY = 0xFFFFFFFF
ACL = acl((1, 6, NOBODY), (2, 4, 12345), (4, 4, NOBODY), (8, 6, 54321), (16, 6, NOBODY), (32, 0, NOBODY))
ACL_FOR_DIRECTORY = acl((1, 7, NOBODY), (2, 5, 12345), (4, 5, NOBODY), (16, 5, NOBODY), (32, 0, NOBODY))
# Leaves the mode 0755, so that whoever read the tree still can.
ACL_FOR_ROOT = acl((1, 7, NOBODY), (2, 5, 12345), (4, 5, NOBODY), (16, 5, NOBODY), (32, 5, NOBODY))


@dataclass(slots=True)
class Made:
    """What was made.

    Attributes:
        entries: files, directories and all else below the root.
        left_out: what this machine forbids, by reason.
    """

    entries: int = 0
    left_out: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Maker:
    chance: random.Random
    made: Made
    root: bool
    # Times that must be exactly these; all others come from the seed.
    times: dict[bytes, int] = field(default_factory=dict)

    def attempt(self, what: str, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError as err:
            if err.errno not in {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EINVAL, errno.ENOSPC}:
                raise
            self.made.left_out.append(f"{what}: {os.strerror(err.errno)}")

    def write(self, name: bytes, content: bytes, *, dir_fd: int | None = None) -> None:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=dir_fd)
        with os.fdopen(fd, "wb") as file:
            file.write(content)

    def names(self) -> None:
        for byte in range(1, 256):
            if byte != ord("/"):
                self.write(b"byte-%c" % byte, b"%d" % byte)
        for name in (
            b"\xff" * 255,
            b"a" * 255,
            b" ",
            b"...",
            b"-rf *",
            b"new\nline",
            b"$(id)",
            b"\xc3\x28",
            b"..hidden",
            b"~",
            b"\\",
        ):
            self.write(name, name)
        os.mkdir("é".encode() * 127)

    def deep(self, depth: int) -> None:
        here = os.open(b".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            for level in range(depth):
                name = b"level-%04d" % level
                os.mkdir(name, dir_fd=here)
                below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
                os.close(here)
                here = below
            self.write(b"bottom", b"at the bottom", dir_fd=here)
            os.symlink(b"../bottom", b"link", dir_fd=here)
        finally:
            os.close(here)

    def links(self) -> None:
        for name in (b"one", b"two", b"three"):
            os.mkdir(name)
        self.write(b"one/original", b"one inode, three names")
        os.link(b"one/original", b"two/second")
        os.link(b"one/original", b"three/third")
        self.write(b"one/equal-but-not-linked", b"one inode, three names")
        os.symlink(b"nowhere", b"one/symlink")
        os.link(b"one/symlink", b"two/same-symlink", follow_symlinks=False)
        os.mkfifo(b"one/fifo")
        os.link(b"one/fifo", b"two/same-fifo")

    def symlinks(self) -> None:
        os.symlink(b"does/not/exist", b"dangling")
        os.symlink(b"/etc/passwd", b"absolute")
        os.symlink(b"itself", b"itself")
        os.symlink(b"..", b"parent")
        os.symlink(b"../../../../../../../../etc", b"out")
        os.symlink(b"/proc/self/fd/0", b"magic")
        os.symlink(b"\xff\xfe\nnot text/", b"bytes")
        os.symlink(b"t" * 4000, b"long")

    def special(self) -> None:
        os.mkfifo(b"fifo", 0o640)
        os.mknod(b"socket", stat.S_IFSOCK | 0o600)
        if not self.root:
            self.made.left_out.append("devices: not root")
            return
        self.attempt("character device", lambda: os.mknod(b"null", stat.S_IFCHR | 0o666, os.makedev(1, 3)))
        self.attempt("block device", lambda: os.mknod(b"loop", stat.S_IFBLK | 0o660, os.makedev(7, 300)))

    def attributes(self) -> None:
        self.write(b"file", b"with attributes")
        os.mkdir(b"directory")
        os.symlink(b"file", b"link")
        os.mkfifo(b"fifo")
        for name in (b"file", b"directory"):
            for key, value in (
                (b"user.empty", b""),
                (b"user.bytes\xff\n", bytes(range(256))),
                (b"user.long", b"v" * 1500),
            ):
                self.attempt(f"xattr {key!r}", lambda n=name, k=key, v=value: os.setxattr(n, k, v))
        self.write(b"acl", b"")
        os.mkdir(b"acl-directory")
        self.attempt("ACL", lambda: os.setxattr(b"acl", ACL_ACCESS, ACL))
        self.attempt("ACL of a directory", lambda: os.setxattr(b"acl-directory", ACL_ACCESS, ACL_FOR_DIRECTORY))
        self.attempt("default ACL", lambda: os.setxattr(b"acl-directory", ACL_DEFAULT, ACL_FOR_DIRECTORY))
        self.write(b"acl-directory/inherited", b"")
        os.mkdir(b"acl-directory/below")
        # What stands under a default ACL and has none of its own must come back without one.
        self.write(b"acl-directory/plain", b"")
        self.attempt("removed ACL", lambda: os.removexattr(b"acl-directory/plain", ACL_ACCESS))
        if not self.root:
            self.made.left_out.append("trusted and security xattrs: not root")
            return
        self.write(b"capable", b"#!/bin/true\n")
        self.attempt("capability", lambda: os.setxattr(b"capable", "security.capability", CAPABILITY))
        for name in (b"file", b"directory", b"link", b"fifo"):
            self.attempt("trusted xattr", lambda n=name: os.setxattr(n, "trusted.t", b"\0t", follow_symlinks=False))

    def attributes_of_root(self) -> None:
        # Last: what stands in it already has no part in its default ACL.
        self.attempt("xattr of the root", lambda: os.setxattr(b".", "user.root", b"of the root itself"))
        self.attempt("ACL of the root", lambda: os.setxattr(b".", ACL_ACCESS, ACL_FOR_ROOT))
        self.attempt("default ACL of the root", lambda: os.setxattr(b".", ACL_DEFAULT, ACL_FOR_DIRECTORY))
        if self.root:
            self.attempt("trusted xattr of the root", lambda: os.setxattr(b".", "trusted.root", b"\0t"))

    def sparse(self) -> None:
        piece = 1 << 16
        shapes = {
            b"start": ".x",
            b"middle": "x.x",
            b"end": "x.",
            b"all": ".",
            b"both": ".x.",
            b"comb": "x." * 16,
            b"none": "x",
        }
        for name, shape in shapes.items():
            with open(name, "xb") as file:
                for index, mark in enumerate(shape):
                    if mark == "x":
                        file.seek(index * piece)
                        file.write(self.chance.randbytes(piece))
                file.truncate(len(shape) * piece)
        with open(b"odd", "xb") as file:
            file.seek(1_000_001)
            file.write(b"odd")
            file.truncate(3_000_017)
        with open(b"terabyte", "xb") as file:
            file.seek(1 << 39)
            file.write(b"in the middle of nothing")
            self.attempt("a file of 1 TiB", lambda: file.truncate(1 << 40))
        self.write(b"zeros", bytes(1 << 20))
        self.write(b"zeros-between", b"x" * 5000 + bytes(1 << 19) + b"y" * 5000)
        with open(b"reserved", "xb") as file:
            self.attempt("fallocate", lambda: os.posix_fallocate(file.fileno(), 0, 1 << 20))

    def modes(self) -> None:
        for mode in (0o000, 0o200, 0o400, 0o444, 0o600, 0o777, 0o1644, 0o2755, 0o4755, 0o6711, 0o7777):
            name = b"file-%04o" % mode
            self.write(name, name)
            os.chmod(name, mode)
        for mode in (0o500, 0o700, 0o711, 0o1777, 0o2770, 0o3775):
            name = b"directory-%04o" % mode
            os.mkdir(name)
            self.write(name + b"/file", name)
            os.chmod(name, mode)
        if not self.root:
            self.made.left_out.append("owners: not root")
            return
        for uid, gid in ((1, 2), (65534, 65534), (4_000_000_000, 3_999_999_999), (0, 999)):
            name = b"owner-%d-%d" % (uid, gid)
            self.write(name, name)
            os.symlink(name, name + b"-link")
            os.chown(name, uid, gid)
            # After chown, which clears it.
            os.chmod(name, 0o4750)
            os.chown(name + b"-link", uid, gid, follow_symlinks=False)

    def exact_times(self) -> None:
        for name, when in (
            (b"epoch", 0),
            (b"before", -1),
            (b"1902", -2_145_916_800 * SECOND_NS + 1),
            (b"2200", YEAR_2200_NS + 123_456_789),
            (b"2038", (1 << 31) * SECOND_NS),
            (b"nanos", BASE_NS + 999_999_999),
        ):
            self.write(name, name)
            os.mkdir(name + b".d")
            os.symlink(b"x", name + b".l")
            for each in (name, name + b".d", name + b".l"):
                self.times[each] = when

    def many(self, files: int, total_bytes: int, large_bytes: int) -> None:
        average = total_bytes // files if files else 0
        words = [
            bytes(self.chance.choices(b"abcdefghijklmnopqrstuvwxyz", k=self.chance.randint(2, 9))) for _ in range(500)
        ]
        previous = b""
        left = total_bytes
        for index in range(files):
            folder = b"%04d" % (index // FILES_IN_DIRECTORY)
            if index % FILES_IN_DIRECTORY == 0:
                os.mkdir(folder)
            # Most files are small and few are large, as on real volumes; the last takes what is left.
            size = min(left, int(average * self.chance.choice((0, 0.1, 0.3, 0.6, 1, 1, 2, 3))))
            size = left if index == files - 1 else size
            left -= size
            match index % 5:
                case 0:
                    content = self.chance.randbytes(size)
                case 1:
                    content = previous[:size] + self.chance.randbytes(size - len(previous[:size]))
                case 2:
                    content = (b" ".join(self.chance.choices(words, k=64)) * (size // 128 + 1))[:size].ljust(size, b".")
                case 3:
                    content = bytes(size)
                case _:
                    content = previous = self.chance.randbytes(size)
            self.write(b"%s/file-%06d" % (folder, index), content)
        if large_bytes:
            block = 1 << 20
            with open(b"large", "xb") as file:
                file.writelines(
                    self.chance.randbytes(min(block, large_bytes - at)) for at in range(0, large_bytes, block)
                )

    def finish(self, root_fd: int) -> None:
        """Give every entry its time, from the bottom up; one descriptor at any depth."""
        current = os.dup(root_fd)
        stack: list[tuple[bytes, list[bytes]]] = [(b"", self.stamp(current))]
        while stack:
            name, todo = stack[-1]
            if todo:
                child = todo.pop()
                current = _move(current, child)
                stack.append((child, self.stamp(current)))
                continue
            stack.pop()
            if stack:
                current = _move(current, b"..")
                self.touch(name, current)
        os.close(current)
        os.utime(root_fd, ns=(BASE_NS, BASE_NS + 1))

    def stamp(self, fd: int) -> list[bytes]:
        directories = []
        # One inode's last name decides its time; sorted names make it the same in each tree.
        for name in sorted(os.fsencode(name) for name in os.listdir(fd)):
            self.made.entries += 1
            if stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                directories.append(name)
            else:
                self.touch(name, fd)
        return directories

    def touch(self, name: bytes, fd: int) -> None:
        when = self.times.get(name)
        if when is None:
            when = BASE_NS + self.chance.randrange(100_000_000 * SECOND_NS)
        os.utime(name, ns=(when, when), dir_fd=fd, follow_symlinks=False)


def _move(fd: int, name: bytes) -> int:
    moved = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    os.close(fd)
    return moved


@contextmanager
def _inside(name: bytes) -> Iterator[None]:
    here = os.open(b".", os.O_RDONLY | os.O_DIRECTORY)
    os.mkdir(name)
    os.chdir(name)
    try:
        yield
    finally:
        os.fchdir(here)
        os.close(here)


def make_tree(
    target: os.PathLike[str] | str,
    *,
    seed: int = 1,
    files: int = 200,
    total_bytes: int = 4 << 20,
    large_bytes: int = 0,
    depth: int = 3000,
) -> Made:
    """Make a nasty tree in a new directory.

    Changes the process's working directory while it works, so other threads must not rely on it.

    Args:
        target: made here; must not exist.
        seed: decides contents and times.
        files: how many ordinary files beside the odd ones.
        total_bytes: their contents together.
        large_bytes: size of one more file that does not compress; 0 for none.
        depth: length of the chain of directories. With more than 900 call `remove_tree` before pytest tidies up.

    Returns:
        How many entries were made, and what was left out.
    """
    maker = _Maker(random.Random(seed), Made(), root=os.geteuid() == 0)
    os.mkdir(target, 0o755)
    here = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    root_fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    # Modes must not depend on who runs this.
    umask = os.umask(0o022)
    os.fchdir(root_fd)
    try:
        for name, make in (
            (b"names", maker.names),
            (b"deep", lambda: maker.deep(depth)),
            (b"links", maker.links),
            (b"symlinks", maker.symlinks),
            (b"special", maker.special),
            (b"attributes", maker.attributes),
            (b"sparse", maker.sparse),
            (b"modes", maker.modes),
            (b"times", maker.exact_times),
            (b"files", lambda: maker.many(files, total_bytes, large_bytes)),
        ):
            with _inside(name):
                make()
        os.mkdir(b"empty-directory")
        maker.write(b"empty-file", b"")
        maker.write(b"one-byte", b"1")
        maker.attributes_of_root()
        maker.finish(root_fd)
    finally:
        os.umask(umask)
        os.fchdir(here)
        os.close(here)
        os.close(root_fd)
    return maker.made


def remove_tree(target: os.PathLike[str] | str) -> None:
    """Remove a tree of any depth; `shutil.rmtree`, and with it pytest's own tidying up, fails on deep ones.

    Args:
        target: a directory that nobody else touches; absent is fine.
    """
    if not os.path.lexists(target):
        return
    current = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    stack: list[tuple[bytes, list[bytes]]] = [(b"", _empty(current))]
    while stack:
        name, todo = stack[-1]
        if todo:
            child = todo.pop()
            current = _move(current, child)
            stack.append((child, _empty(current)))
            continue
        stack.pop()
        if stack:
            current = _move(current, b"..")
            os.rmdir(name, dir_fd=current)
    os.close(current)
    os.rmdir(target)


def _empty(fd: int) -> list[bytes]:
    directories = []
    # Its owner must be able to list it and to take names out of it.
    os.chmod(fd, 0o700)
    for name in os.listdir(fd):
        encoded = os.fsencode(name)
        if stat.S_ISDIR(os.stat(encoded, dir_fd=fd, follow_symlinks=False).st_mode):
            directories.append(encoded)
        else:
            os.unlink(encoded, dir_fd=fd)
    return directories


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0.
    """
    parser = argparse.ArgumentParser(description="Make a nasty tree.")
    parser.add_argument("target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--bytes", type=int, default=4 << 20)
    parser.add_argument("--large", type=int, default=0, metavar="BYTES")
    parser.add_argument("--depth", type=int, default=3000)
    options = parser.parse_args(arguments)
    made = make_tree(
        options.target,
        seed=options.seed,
        files=options.files,
        total_bytes=options.bytes,
        large_bytes=options.large,
        depth=options.depth,
    )
    for reason in made.left_out:
        print(f"left out: {reason}")
    print(f"made: entries={made.entries}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
