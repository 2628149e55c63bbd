"""The guides that need no cluster, followed step by step: every command as it is written, in a shell of its own, on folders that are made for it.

What a reader brings along (photos, a database, somewhere to put backups) is made here; what a page shows is held against what comes. Does not know what a
command should do beyond what its page says: other tests of this folder do.
"""

import json
import os
import random
import re
import sys
import time
from pathlib import Path

import pytest

from tests.engine.conftest import assert_same
from tests.support.guide import ROOT, Shell, Walk, missing, wait_until
from tests.support.guide_coverage import WAYS

LONGSHORE = Path(sys.executable).with_name("longshore")
RESCUE = "~/rescue/bin/python python/longshore/rescue.py --repository /mnt/backups --key-file ~/longshore.key list"
PACKAGES = ("zstandard", "blake3", "xxhash", "cryptography")


@pytest.fixture
def home(tmp_path):
    """The reader's, with photos in it."""
    made = tmp_path / "home"
    chance = random.Random(1)
    for name in ("2023/a.jpg", "2024/b.jpg", "2024/docs/read.md", "2024/docs/x.tmp"):
        path = made / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(700_000))
    return made


@pytest.fixture
def shell(home):
    with Shell(
        ROOT,
        home=home,
        programs={"longshore": [LONGSHORE], "python3": [sys.executable]},
        env={"PYTHONDONTWRITEBYTECODE": "1"},
    ) as made:
        yield made


@pytest.fixture
def follow(shell, tmp_path):
    """Begin a walk; where backups go is the reader's choice."""

    def begin(name, *, fill=(), **more):
        way = WAYS[name]
        (tmp_path / "mnt").mkdir()
        return Walk(
            way.page,
            shell,
            headings=way.headings,
            languages=way.languages,
            left_out=way.left_out,
            fill={"/mnt/backups": str(tmp_path / "mnt" / "backups"), **dict(fill)},
            **more,
        )

    return begin


def packages_for_rescue(home):
    """What the page has pip fetch, from where this test has it."""
    asked = (ROOT / "python/longshore/rescue.py").read_text()
    assert f"pip install {' '.join(PACKAGES)}\n" in asked
    theirs = {str(Path(__import__(name).__file__).parents[1]) for name in PACKAGES}
    (folder,) = home.glob("rescue/lib/python3*/site-packages")
    (folder / "theirs.pth").write_text("\n".join(theirs))


def killed(shell, command, *, when):
    """Run a command in the reader's shell, kill it when something holds, and give what it says when it is run again."""
    begun = shell.run(f"{command} & echo $!")
    assert begun.code == 0, begun
    running = int(begun.out.split()[0])
    # The number is that of the shell's child, which stands aside for the program.
    wait_until(when, what=f"work of {command}")
    os.kill(running, 9)
    shell.run(f"wait {running}")
    again = shell.run(re.sub(r" --limit-\w+ \w+", "", command))
    assert again.code == 0, again
    return again.out + again.err


def test_directory(follow, shell, home, tmp_path):
    database = tmp_path / "db"
    photos = home / "photos"
    walk = follow(
        "directory",
        fill={"/var/lib/db": str(database), "changed.jsonl": str(tmp_path / "changed.jsonl")},
        before={
            RESCUE: lambda: packages_for_rescue(home),
            "longshore volume backup /var/lib/db --hints changed.jsonl": lambda: changed(walk, database),
            "longshore volume backup /var/lib/db": lambda: made_database(database),
            "longshore volume restore latest ~/photos-restored --delete": (home / "photos-restored/mine").touch,
        },
    )
    walk.go("longshore volume list")
    backup = walk.ran["longshore volume backup ~/photos --exclude '*.tmp' --tag reason=before-upgrade"]
    assert "3 unchanged" in backup.out, backup
    walk.go("longshore volume verify latest")
    assert (photos / "2024/docs/read.md").read_bytes() == (home / "docs-restored/read.md").read_bytes()
    assert not (home / "docs-restored" / "x.tmp").exists() and (photos / "2024" / "docs" / "x.tmp").exists()
    assert not (home / "photos-restored/mine").exists()
    walk.go("longshore repo key export…")
    assert missing(walk.thing("", "5. See that it is whole"), killed_check(shell, home, tmp_path)) == []
    walk.go("python3 -m venv ~/rescue")
    assert missing(walk.thing("", "8. When it was killed"), killed_backup(shell, home, tmp_path)) == []
    walk.finish()
    assert_same(photos, home / "rescued")
    hinted = walk.ran["longshore volume backup /var/lib/db --hints changed.jsonl"]
    assert re.search(r"hints +\S+ MiB of 1 file not read", hinted.out), hinted


def packs(tmp_path):
    return sum(one.is_file() and one.name[0] != "." for one in (tmp_path / "mnt/backups/packs").rglob("*"))


def killed_check(shell, home, tmp_path):
    """Beside the photos so many packs that a check of them can be caught in the middle."""
    for number in range(6):
        (home / "photos" / f"more{number}").write_bytes(random.Random(number).randbytes(500_000))
        shell.run("longshore volume backup ~/photos")
    cache = home / ".cache" / "longshore"

    def read():
        return sum(one.stat().st_size for one in cache.rglob("journal/packs-*")) > 101 + 2 * 57

    return killed(shell, "longshore repo check --read-data --limit-download 512KiB", when=read)


def killed_backup(shell, home, tmp_path):
    """A backup of many new photos; they go again, so that the page's next steps find what they speak of."""
    for number in range(48):
        (home / "photos" / f"new{number}").write_bytes(random.Random(100 + number).randbytes(500_000))
    before = packs(tmp_path)
    time.sleep(0.1)
    return killed(
        shell,
        "longshore volume backup ~/photos --memory-limit 64MiB --limit-upload 8MiB",
        when=lambda: packs(tmp_path) > before,
    )


def made_database(database):
    path = database / "base/16384/2619"
    path.parent.mkdir(parents=True)
    path.write_bytes(random.Random(7).randbytes(16 << 20))
    # A file that is as young as a hint about it is read.
    time.sleep(0.1)


def changed(walk, database):
    """Write the page's own lines, with this snapshot and this file in them."""
    path = database / "base/16384/2619"
    head, file = map(json.loads, walk.thing("json", "10. When you know what has changed").splitlines())
    first = walk.ran["longshore volume backup /var/lib/db"].out
    found = re.search(r"ls0-[0-9a-f]{32}", first)
    assert found and head.keys() == {"type", "since", "taken_ns"}
    time.sleep(0.1)
    with path.open("r+b") as data:
        data.seek(file["ranges"][0][0])
        data.write(b"new" * 100)
    status = path.stat()
    time.sleep(0.1)
    head.update(since=found[0], taken_ns=time.time_ns())
    file.update(size_bytes=status.st_size, mtime_ns=status.st_mtime_ns, ctime_ns=status.st_ctime_ns)
    file["ranges"] = [[8192, 8192], [1048576, 8192]]
    lines = [json.dumps(one) for one in (head, file)]
    Path(walk.fill["changed.jsonl"]).write_text("\n".join(lines) + "\n")
    time.sleep(0.1)


def test_directory_in_readme(follow, shell, home):
    walk = follow(
        "directory in README",
        before={RESCUE: lambda: packages_for_rescue(home)},
    )
    walk.finish()
    for back in ("photos-restored", "rescued"):
        assert_same(home / "photos", home / back)


def test_damaged_repository(follow, shell, tmp_path):
    """A pack rots, and one is lost: the page's way leads back to a repository of which every snapshot restores."""
    volume, back = tmp_path / "volume", tmp_path / "back"
    volume.mkdir()
    walk = follow(
        "damaged",
        fill={"/the/volume": str(volume)},
        exits={
            "longshore repo check --read-data": (4, "Both end with exit code 4 when something is damaged"),
            "longshore repo repair --read-data --dry-run": (4, "Both end with exit code 4 when something is damaged"),
            "longshore repo repair --read-data": (4, "it ends with exit code 4 when anything is"),
        },
    )
    walk.go("longshore repo check --read-data")
    # With one thread, for each has packs of its own.
    backup = f"volume backup {volume} --workers 1"
    for number, words in enumerate(("repo init", backup, backup)):
        (volume / f"file-{number}").write_bytes(random.Random(number).randbytes(1 << 20))
        made = shell.run(f"longshore {words}")
        assert made.code == 0, made
    # The largest two hold the files: of the first backup two of them, of the second one.
    rotten, lost = sorted((tmp_path / "mnt/backups/packs").rglob("*"), key=lambda one: one.stat().st_size)[-2:]
    content = bytearray(rotten.read_bytes())
    content[len(content) // 2] ^= 1
    rotten.chmod(0o600)
    rotten.write_bytes(content)
    lost.unlink()
    walk.go("longshore repo repair --read-data")
    named = walk.ran["longshore repo check --read-data"]
    assert rotten.name in str(named) and lost.name in str(named), named
    assert {f"file-{number}" for number in range(3)} == set(re.findall(r"^hurt: \S+: (\S+):", named.err, re.MULTILINE))
    walk.finish()
    restored = shell.run(f"longshore volume restore latest {back}")
    assert restored.code == 0, restored
    assert_same(volume, back)
