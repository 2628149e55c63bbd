"""200,000 files and one of 4 GiB: out by the command line, back by the engine and by rescue.py, equal in every attribute; unchanged, nothing is read.

It takes minutes and 20 GB of disk, so it runs only where LONGSHORE_TEST_SCALE is set, as `make test-scale` does. What it makes is removed as soon as it
is not needed any more, and in any case at the end.

Measured on two cores that were not idle: see the durations that pytest prints; no time is asserted.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from tests.oracle.compare import compare_and_count
from tests.oracle.make_tree import remove_tree
from tests.support.lacking import lacks

FILES = 200_000
FILES_IN_DIRECTORY = 400
FILES_IN_LARGE_DIRECTORY = 20_000
LARGE_BYTES = 4 << 30
PIECE_BYTES = 4 << 20
DISK_BYTES = 20 << 30
BASE_NS = 1_600_000_000 * 10**9
LONGSHORE = Path(sys.executable).with_name("longshore")
RESCUE = Path(__file__).parents[2] / "python" / "longshore" / "rescue.py"

pytestmark = [
    pytest.mark.skipif(
        not os.environ.get("LONGSHORE_TEST_SCALE"),
        reason="takes minutes and 20 GB of disk: set LONGSHORE_TEST_SCALE=1",
    ),
    pytest.mark.timeout(2400),
]


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Path]:
    """A folder with room enough, emptied however the test ends."""
    free = shutil.disk_usage(tmp_path).free
    if free < DISK_BYTES:
        why = f"not enough room on the disk: folder={tmp_path}, free_bytes={free}, needed_bytes={DISK_BYTES}"
        lacks(why)
    try:
        yield tmp_path
    finally:
        for one in list(tmp_path.iterdir()):
            if one.is_dir():
                remove_tree(one)
            else:
                one.unlink()


def make_large(path: Path) -> int:
    """Write a file that is mostly real data: five pieces of eight do not compress, two do, one is a hole or zeros; gives its data bytes."""
    stream = Cipher(algorithms.AES(bytes(32)), modes.CTR(bytes(16))).encryptor()
    blank = bytes(PIECE_BYTES)
    line = b"%08x a line that compresses well, of a log file that nobody reads\n"
    data = 0
    with path.open("xb", buffering=0) as file:
        for index in range(LARGE_BYTES // PIECE_BYTES):
            match index % 8:
                case 7 if index % 16 == 7:
                    file.seek(PIECE_BYTES, os.SEEK_CUR)
                    continue
                case 7:
                    piece = blank
                case 3 | 5:
                    lines = b"".join(line % (index << 20 | number) for number in range(4096))
                    piece = (lines * (PIECE_BYTES // len(lines) + 1))[:PIECE_BYTES]
                    data += PIECE_BYTES
                case _:
                    piece = stream.update(blank)
                    data += PIECE_BYTES
            assert file.write(piece) == PIECE_BYTES
        file.truncate(LARGE_BYTES)
    return data


def make_many(root: Path) -> None:
    """Make the files: most of them small, each with a time and mode of its own, now and then a link or an attribute."""
    chance = random.Random(7)
    noise = chance.randbytes(1 << 20)
    words = (b"the quick brown fox jumps over the lazy dog; " * 2000)[: 1 << 16]
    made = 0
    folders = 0
    while made < FILES:
        count = FILES_IN_LARGE_DIRECTORY if folders == 1 else FILES_IN_DIRECTORY
        folder = root / f"{folders // 50:02}" / f"{folders:04}"
        folder.mkdir(parents=True)
        folders += 1
        there = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        for index in range(min(count, FILES - made)):
            name = f"file-{index:05}.dat"
            length = chance.choice((0, 40, 300, 900, 1500, 2500, 6000))
            begin = chance.randrange(len(noise) - length)
            content = noise[begin : begin + length] if index % 2 else b"%d " % made + words[:length]
            file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=there)
            os.write(file, content)
            os.fchmod(file, chance.choice((0o644, 0o600, 0o755, 0o440)))
            if made % 500 == 0:
                os.setxattr(file, "user.number", b"%d" % made)
            when = BASE_NS + chance.randrange(10**17)
            os.utime(file, ns=(when, when))
            os.close(file)
            if made % 1000 == 1:
                os.symlink(name, f"link-{index:05}", dir_fd=there)
            elif made % 1000 == 2:
                os.link(name, f"same-{index:05}", src_dir_fd=there, dst_dir_fd=there)
            made += 1
        os.close(there)
        os.utime(folder, ns=(BASE_NS, BASE_NS + folders))


def longshore(*words: str | Path, ground: Path) -> dict[str, Any]:
    """Run a command; gives its summary."""
    command = [
        str(LONGSHORE),
        *map(str, words),
        "--repository",
        str(ground / "repository"),
        "--key-file",
        str(ground / "key"),
    ]
    env = {"PATH": os.environ["PATH"], "LONGSHORE_CACHE_DIR": str(ground / "cache")}
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert summary["type"] == "summary"
    return summary


def assert_came_back(source: Path, target: Path) -> None:
    differences, counts = compare_and_count(source, target)
    assert not differences, "\n".join(map(str, differences[:20]))
    assert counts.files >= FILES + 1
    assert counts.bytes > LARGE_BYTES
    assert counts.hard_link_groups == FILES // 1000
    assert counts.xattrs == FILES // 500
    assert counts.holes >= LARGE_BYTES // PIECE_BYTES // 16
    remove_tree(target)


def test_200_000_files_and_4_gib_come_back(ground: Path, record_property: Any) -> None:
    took: dict[str, float] = {}
    source = ground / "source"

    def timed(what: str, since: float) -> float:
        took[what] = round(time.monotonic() - since, 1)
        return time.monotonic()

    at = time.monotonic()
    source.mkdir()
    make_many(source)
    data = make_large(source / "large")
    assert data >= LARGE_BYTES * 7 // 8
    at = timed("make", at)

    longshore("repo", "init", ground=ground)
    first = longshore("volume", "backup", source, "--volume", "scale", ground=ground)
    at = timed("backup", at)
    assert first["files_total"] == first["files_new"] >= FILES + 1
    assert first["bytes_read"] >= data
    assert first["items_lost"] == first["items_changed"] == 0

    again = longshore("volume", "backup", source, "--volume", "scale", ground=ground)
    at = timed("unchanged", at)
    assert again["bytes_read"] == 0
    assert again["files_unchanged"] == again["files_total"] == first["files_total"]
    assert again["bytes_total"] == first["bytes_total"]

    longshore("volume", "restore", again["snapshot_id"], ground / "engine", ground=ground)
    at = timed("engine", at)
    assert_came_back(source, ground / "engine")
    at = timed("compare", at)

    rescue = [
        sys.executable,
        "-I",
        str(RESCUE),
        "--repository",
        str(ground / "repository"),
        "--key-file",
        str(ground / "key"),
    ]
    done = subprocess.run(
        [*rescue, "restore", first["snapshot_id"], str(ground / "rescue")], capture_output=True, text=True, check=False
    )
    at = timed("rescue", at)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert_came_back(source, ground / "rescue")
    timed("compare again", at)
    record_property("seconds", took)
    print(f"seconds: {took}")
