"""The data of each scenario, made from seeds, and the changes that are made to it between backups.

Sizes are those of the page at scale 1; a smaller scale shrinks bytes and counts alike. Most of it is written by `make-data` of
benches/micro, which gives the same bytes on every machine. The real tree is what the machine has, its directories taken in a fixed order up
to a fixed number of files and bytes, and says what it took. Promises that making the same data again, with the same changes after it, gives the same
tree, so that a source may be dropped while a restore needs the room. Does not know who reads it.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MIB, GIB = 1 << 20, 1 << 30
SEED = 20
REAL_FILES, REAL_BYTES = 200_000, 6 * 10**9
COPY_BYTES = 2 * GIB
SMALL_FILES = 1_000_000
# Modification times of what is changed: the same on every machine, later than all that was made.
_CHANGED_NANOS = 1_750_000_000 * 10**9


@dataclass(frozen=True, slots=True)
class Data:
    """What a folder holds now."""

    name: str
    files: int
    size_bytes: int


def program(name: str) -> list[str]:
    """A program of benches/micro, as the start of a command; built by `make bench-tools`."""
    return [str(Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / name)]


def _make(*words: object) -> None:
    subprocess.run([*program("make-data"), *map(str, words)], check=True)


def real_roots() -> list[Path]:
    """Where real files are taken from: the system's programs and libraries, and the sources that build caches hold."""
    home = Path.home()
    return [Path("/usr"), Path(sys.base_prefix), home / "go/pkg/mod", home / ".cargo/registry/src", ROOT / ".venv/lib"]


def _regular(folder: Path) -> Iterator[Path]:
    for parent, directories, names in os.walk(folder):
        directories.sort()
        for name in sorted(names):
            path = Path(parent, name)
            mode = path.lstat().st_mode
            if (stat.S_ISREG(mode) or stat.S_ISLNK(mode)) and (stat.S_ISLNK(mode) or os.access(path, os.R_OK)):
                yield path


def real_tree(folder: Path, scale: float, *, limit_bytes: int = REAL_BYTES) -> Data:
    """Copy what the machine has: programs, libraries, headers, documentation, sources; up to so many files and bytes.

    Directory by directory, in an order of chance that their names give: a smaller tree is of the same kind as a large one.
    """
    found: list[tuple[bytes, int, Path, Path]] = []
    seen: set[Path] = set()
    for number, root in enumerate(real_roots()):
        if not root.is_dir() or any(root.is_relative_to(other) for other in seen):
            continue
        seen.add(root)
        for path in _regular(root):
            place = f"{number}/{path.parent.relative_to(root)}"
            found.append((hashlib.sha256(os.fsencode(place)).digest()[:8], number, path, path.relative_to(root)))
    files, size = 0, 0
    for _, number, path, below in sorted(found):
        length = path.lstat().st_size
        if files >= REAL_FILES * scale:
            break
        if size + length > limit_bytes * scale:
            continue
        target = folder / str(number) / below
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target, follow_symlinks=False)
        files, size = files + 1, size + length
    return _dated(Data("real tree", files, size), folder)


def _dated(data: Data, folder: Path) -> Data:
    # Directories would carry the moment of the copy; the rest has its own times.
    for parent, directories, _ in os.walk(folder, topdown=False):
        for name in directories:
            path = os.path.join(parent, name)
            if not os.path.islink(path):
                os.utime(path, ns=(_CHANGED_NANOS, _CHANGED_NANOS))
    return data


def small_files(folder: Path, scale: float) -> Data:
    """Many small text files, sizes lognormal."""
    count = max(int(SMALL_FILES * scale), 500)
    _make("small", folder, SEED, count)
    return _dated(Data("small files", count, sum(p.stat().st_size for p in folder.rglob("*.txt"))), folder)


def incompressible(folder: Path, scale: float) -> Data:
    """Four large files that do not compress, 8 GiB together."""
    each = int(2 * GIB * scale)
    for number in range(4):
        _make("noise", folder / f"media-{number}.bin", SEED + number, each)
    return Data("incompressible", 4, 4 * each)


def one_file(folder: Path, scale: float, *, size_bytes: int = 8 * GIB) -> Data:
    """One large file that does not compress."""
    length = int(size_bytes * scale)
    _make("noise", folder / "disk.img", SEED, length)
    return Data("one file", 1, length)


def database(folder: Path, scale: float) -> Data:
    """A database of 8 GiB."""
    length = int(8 * GIB * scale)
    _make("database", folder / "table.db", SEED, length)
    return Data("database", 1, length)


def database_and_log(folder: Path, scale: float) -> Data:
    """A database of 8 GiB and a log of 2 GiB."""
    length = int(2 * GIB * scale)
    _make("log", folder / "service.log", SEED, length)
    return Data("database and log", 2, database(folder, scale).size_bytes + length)


def copies(folder: Path, scale: float) -> Data:
    """Four copies of a real tree; in each but the first, one file of twenty has a few bytes more somewhere."""
    first = folder / "copy-0"
    data = real_tree(first, scale, limit_bytes=COPY_BYTES)
    files, size = data.files, data.size_bytes
    for number in range(1, 4):
        copy = folder / f"copy-{number}"
        shutil.copytree(first, copy, symlinks=True)
        chance = random.Random(SEED + number)
        for path in _regular(copy):
            files, size = files + 1, size + path.lstat().st_size
            if chance.random() < 0.05 and not path.is_symlink():
                size += _insert(path, chance)
    return _dated(Data("four copies", files, size), folder)


def _insert(path: Path, chance: random.Random) -> int:
    content = path.read_bytes()
    at = chance.randrange(len(content) + 1)
    new = chance.randbytes(chance.randint(1, 64))
    os.chmod(path, 0o644)
    path.write_bytes(content[:at] + new + content[at:])
    os.utime(path, ns=(_CHANGED_NANOS, _CHANGED_NANOS))
    return len(new)


# --- changes ---------------------------------------------------------------------------------------------------------------


def change_files(folder: Path, round_: int, share: float = 0.01) -> int:
    """Write a share of all files anew, spread over all directories; returns how many."""
    chance = random.Random(SEED * 1000 + round_)
    changed = 0
    for path in _regular(folder):
        if chance.random() >= share or path.is_symlink():
            continue
        content = bytearray(path.read_bytes() or b"\n")
        at = chance.randrange(len(content))
        content[at : at + 16] = chance.randbytes(16)
        os.chmod(path, 0o644)
        path.write_bytes(content)
        when = _CHANGED_NANOS + round_ * 10**9
        os.utime(path, ns=(when, when))
        changed += 1
    _dated(Data("", 0, 0), folder)
    return changed


def change_pages(folder: Path, round_: int) -> None:
    """Write 1 % of a database's pages anew, in place."""
    _make("pages", folder / "table.db", SEED, round_, 0.01)


def change_owner(folder: Path, round_: int) -> None:
    """`chown -R` to somebody else. Needs root."""
    owner = 2000 + round_ % 2
    for parent, directories, names in os.walk(folder):
        for name in (*directories, *names):
            os.lchown(os.path.join(parent, name), owner, owner)
    os.lchown(folder, owner, owner)


def damage(folder: Path, round_: int, share: float = 0.01) -> int:
    """Spoil a share of a restored tree's files: their bytes and with them their modification times."""
    return change_files(folder, 10_000 + round_, share)


def warm(folder: Path) -> None:
    """Read everything once, so that every contender finds it in the page cache."""
    # tar does not read at all when it sees that it writes to /dev/null, so there is a pipe between.
    with subprocess.Popen(["tar", "-cf", "-", "-C", str(folder), "."], stdout=subprocess.PIPE) as tar:
        subprocess.run(["cat"], stdin=tar.stdout, stdout=subprocess.DEVNULL, check=True)
    if tar.returncode != 0:
        raise OSError(f"data could not be read: folder={folder}")


def digest(folder: Path) -> str:
    """Hash names, modes, times and contents of a tree: what the same seed must give again."""
    whole = hashlib.sha256()
    for path in _regular(folder):
        state = path.lstat()
        whole.update(f"{path.relative_to(folder)} {state.st_mode:o} {state.st_mtime_ns} {state.st_size}\n".encode())
        if not path.is_symlink():
            with path.open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()
