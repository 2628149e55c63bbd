"""The volume: real files of this machine with every oddity that a backup has to carry, and the change of one per cent.

Promises: nothing outside the target is written; a source is only read, and copied. What this user or filesystem cannot make is left out and named. Rights
that a node agent never hands to a pod (setuid bits, capabilities, devices) are left out of the volume as well, so that what comes back can be compared to
the last bit.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.oracle.make_tree import ACL, ACL_ACCESS

from scripts.demo.folder import DemoError

__all__ = ["Change", "Volume", "change", "copy_source", "make_volume", "measure"]

_LIBRARY_BYTES = 100 << 20
_PACKAGES_BYTES = 100 << 20
_PROGRAMS_BYTES = 120 << 20
_DATABASE_ROWS = 120_000
_SPARSE_BYTES = 256 << 20
_DATABASE = Path("database") / "shop.sqlite3"

Report = Callable[[int], None]


@dataclass(slots=True)
class Volume:
    """What a volume holds.

    Attributes:
        files: regular files.
        directories: directories, the root included.
        others: symbolic links, FIFOs and sockets.
        bytes: lengths of all files together, holes and all.
        room: what they take on the disk.
        left_out: what could not be made, or may not be in it.
    """

    files: int = 0
    directories: int = 1
    others: int = 0
    bytes: int = 0
    room: int = 0
    left_out: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Change:
    """What was changed: files written into, their lengths together, and names made, removed and renamed."""

    files: int = 0
    bytes: int = 0
    names: list[str] = field(default_factory=list)


def make_volume(target: Path, report: Report) -> list[str]:
    """Fill a new directory.

    Args:
        target: is made; its parent is there.
        report: told how many bytes there are so far.

    Returns:
        What was left out, in words.
    """
    target.mkdir(parents=True, mode=0o755)
    chance = random.Random(20_260_101)  # noqa: S311 - contents, not keys
    copier = _Copier(report)
    library, packages = (Path(sysconfig.get_paths()[name]) for name in ("stdlib", "purelib"))
    (target / "python").mkdir()
    for source, name, limit in (
        (library, "python/library", _LIBRARY_BYTES),
        (packages, "python/packages", _PACKAGES_BYTES),
        (Path("/usr/bin"), "programs", _PROGRAMS_BYTES),
    ):
        copier.copy(source, target / name, limit_bytes=limit)
    _make_database(target / _DATABASE, chance)
    report(copier.bytes + (target / _DATABASE).stat().st_size)
    _make_sparse(target / "sparse.img", chance)
    return _make_odd(target / "odd", chance)


def copy_source(source: Path, target: Path, *, apart_from: Path) -> list[str]:
    """Copy somebody's directory with all its attributes.

    Args:
        source: only read.
        target: is made.
        apart_from: the demo's folder, which must not lie in or above the source.

    Returns:
        What was left out, in words.

    Raises:
        DemoError: the source is no directory, or overlaps with the demo's folder.
    """
    if not source.is_dir():
        raise DemoError(f"SOURCE is no directory: {source}", "name a directory", exit_code=2)
    real = source.resolve()
    if real == apart_from or real in apart_from.parents or apart_from in real.parents:
        raise DemoError(
            f"SOURCE and the demo's own folder overlap: source={real}, folder={apart_from}",
            "name another directory",
            exit_code=2,
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    options = ("--archive", "--one-file-system", "--reflink=auto", "--no-target-directory")
    command = ["cp", *options, "--", str(real), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    left_out = [f"could not be copied: {line}" for line in done.stderr.splitlines()]
    if not target.is_dir():
        raise DemoError(f"SOURCE could not be copied: {done.stderr.strip()}", "name a directory that you may read")
    # Where the copy is of a tree with a read-only root, the demo still has to work in it.
    return left_out + _owners_left_out(real, target) + _take_rights_away(target)


def measure(root: Path) -> Volume:
    """Count what a volume holds."""
    volume = Volume()
    for _, state in _walk(root):
        if stat.S_ISDIR(state.st_mode):
            volume.directories += 1
        elif stat.S_ISREG(state.st_mode):
            volume.files += 1
            volume.bytes += state.st_size
            volume.room += state.st_blocks * 512
        else:
            volume.others += 1
    return volume


def change(root: Path) -> Change:
    """Write into files until they make up a hundredth of the volume, and change a hundredth of the database's rows if there is one."""
    chance = random.Random(1)  # noqa: S311 - a choice of files
    done = Change()
    files = [
        (path, min(state.st_size, state.st_blocks * 512))
        for path, state in _walk(root)
        if stat.S_ISREG(state.st_mode) and state.st_blocks and os.access(path, os.W_OK) and path != root / _DATABASE
    ]
    total = sum(length for _, length in files)
    # A file that is larger than the whole change would make it many per cent.
    small = [one for one in files if one[1] <= max(total // 100, 1)] or sorted(files, key=lambda one: one[1])[:1]
    chance.shuffle(small)
    for path, length in small:
        if done.bytes >= total // 100:
            break
        with path.open("r+b") as file:
            file.seek(chance.randrange(length))
            file.write(chance.randbytes(64))
        done.files += 1
        done.bytes += length
    if (root / _DATABASE).is_file():
        with sqlite3.connect(root / _DATABASE) as database:
            first = _DATABASE_ROWS // 3
            database.execute(
                "UPDATE orders SET amount = amount + 1 WHERE id BETWEEN ? AND ?", (first, first + _DATABASE_ROWS // 100)
            )
        database.close()
        done.names.append(f"{_DATABASE_ROWS // 100:,} rows of the database")
    if os.access(root, os.W_OK):
        (root / "written-after-the-first-backup").write_bytes(chance.randbytes(100_000))
        done.names.append("one file new")
        if len(small) > 2 and os.access(small[-1][0].parent, os.W_OK) and os.access(small[-2][0].parent, os.W_OK):
            small[-1][0].unlink()
            small[-2][0].rename(small[-2][0].with_name("renamed-after-the-first-backup"))
            done.names.append("one removed, one renamed")
    return done


class _Copier:
    """Copies trees until a limit, without rights that only the machine's own programs need."""

    def __init__(self, report: Report) -> None:
        self.bytes = 0
        self._report = report

    def copy(self, source: Path, target: Path, *, limit_bytes: int) -> None:
        """Copy a tree, in the order of its names, as far as the limit allows."""
        limit = self.bytes + limit_bytes
        todo = [(source, target)]
        while todo:
            here, there = todo.pop()
            try:
                entries = sorted(os.scandir(here), key=lambda one: one.name)
            except OSError:
                continue
            there.mkdir()
            for entry in entries:
                if self.bytes >= limit or entry.name == "site-packages":
                    continue
                path = there / entry.name
                if entry.is_symlink():
                    path.symlink_to(Path(entry.path).readlink())
                elif entry.is_dir(follow_symlinks=False):
                    todo.append((Path(entry.path), path))
                elif entry.is_file(follow_symlinks=False):
                    self._file(Path(entry.path), path)
            shutil.copystat(here, there)

    def _file(self, source: Path, target: Path) -> None:
        try:
            shutil.copyfile(source, target)
            state = source.stat()
        except PermissionError:
            target.unlink(missing_ok=True)
            return
        target.chmod(stat.S_IMODE(state.st_mode) & 0o777)
        os.utime(target, ns=(state.st_atime_ns, state.st_mtime_ns))
        self.bytes += state.st_size
        self._report(self.bytes)


def _make_database(path: Path, chance: random.Random) -> None:
    path.parent.mkdir()
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(3, 10))) for _ in range(2000)]
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT, amount INTEGER, token BLOB)")
        rows = (
            (index, " ".join(chance.choices(words, k=12)), chance.randrange(100_000), chance.randbytes(96))
            for index in range(_DATABASE_ROWS)
        )
        database.executemany("INSERT INTO orders VALUES (?, ?, ?, ?)", rows)
        database.execute("CREATE INDEX by_customer ON orders (customer)")
    database.close()


def _make_sparse(path: Path, chance: random.Random) -> None:
    with path.open("xb") as file:
        for _ in range(12):
            file.seek(chance.randrange(_SPARSE_BYTES >> 16) << 16)
            file.write(chance.randbytes(256 << 10))
        file.truncate(_SPARSE_BYTES)


def _make_odd(target: Path, chance: random.Random) -> list[str]:
    left_out = []
    target.mkdir()
    here = os.fsencode(target)
    for raw in (b"a\nnew line", b"-rf *", b"\xff\xfe not text", b" ", "Ünïcödé ☂".encode(), b"n" * 255):
        Path(os.fsdecode(here + b"/" + raw)).write_bytes(raw * chance.randint(1, 50))
    (target / "first name").write_bytes(b"one file, three names")
    for name in ("second name", "third name"):
        (target / name).hardlink_to(target / "first name")
    (target / "link").symlink_to("first name")
    (target / "dangling").symlink_to("../not/there")
    os.mkfifo(target / "fifo", 0o640)
    (target / "empty").touch()
    (target / "empty directory").mkdir(mode=0o2770)
    (target / "read-only").write_bytes(b"mode 0400")
    (target / "read-only").chmod(0o400)
    old = target / "of 1969"
    old.write_bytes(b"older than the epoch")
    os.utime(old, ns=(-1, -123_456_789))
    described = target / "described"
    described.write_bytes(b"with attributes")
    for what, key, value in (
        ("extended attributes", "user.origin", b"demo\0\xff"),
        ("an access control list", ACL_ACCESS, ACL),
    ):
        try:
            os.setxattr(described, key, value)
        except OSError as err:
            left_out.append(f"{what}: {os.strerror(err.errno or 0)}")
    if os.geteuid() == 0:
        for uid, gid in ((999, 999), (65534, 1000)):
            owned = target / f"of uid {uid}"
            owned.write_bytes(b"somebody else's")
            os.chown(owned, uid, gid)
    else:
        left_out.append("files of other owners: only root can make them")
    return left_out


def _owners_left_out(source: Path, target: Path) -> list[str]:
    """Say how much of a copy has another owner or group than what it was copied from: cp keeps silent about that."""
    changed = 0
    for path, state in [(target, target.lstat()), *_walk(target)]:
        try:
            was = (source / path.relative_to(target)).lstat()
        except OSError:
            continue
        changed += (was.st_uid, was.st_gid) != (state.st_uid, state.st_gid)
    return [f"the owner or group of {changed:,} entries: only root can give files away"] if changed else []


def _take_rights_away(root: Path) -> list[str]:
    """Remove what a node agent never hands to a pod, and say how many there were."""
    counted: dict[str, int] = {}
    for path, state in list(_walk(root)):
        if stat.S_ISBLK(state.st_mode) or stat.S_ISCHR(state.st_mode):
            path.unlink()
            counted["device"] = counted.get("device", 0) + 1
            continue
        if not stat.S_ISDIR(state.st_mode) and not stat.S_ISLNK(state.st_mode) and state.st_mode & 0o6000:
            path.chmod(stat.S_IMODE(state.st_mode) & 0o1777)
            counted["setuid or setgid bit"] = counted.get("setuid or setgid bit", 0) + 1
        for name in os.listxattr(path, follow_symlinks=False):
            if name.startswith(("security.", "trusted.")):
                try:
                    os.removexattr(path, name, follow_symlinks=False)
                except OSError:
                    continue
                counted[name] = counted.get(name, 0) + 1
    return [f"{number} of {what}: a node agent hands none to a pod" for what, number in counted.items()]


def _walk(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    todo = [root]
    while todo:
        try:
            entries = sorted(os.scandir(todo.pop()), key=lambda one: one.name)
        except OSError:
            continue
        for entry in entries:
            yield Path(entry.path), entry.stat(follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False):
                todo.append(Path(entry.path))
