"""Every golden repository gives back exactly what its manifests say: read by rescue.py, and by the engine.

A folder is `<format version>-<release>/`, written once by make.py: `repository/`, a key file `key`, a `passphrase`, and for each snapshot that was not removed
`manifests/<32 digits>.json`, made by manifest.py from the source. The versions present must be those that docs/format.md claims, so that neither a golden
repository nor a version can vanish unnoticed.

Who is not root cannot give files away, make devices or keep what only root may set: there the tests compare everything else, and the reader's exit code 3
(items or attributes were not restored) is as good as 0.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.golden.manifest import manifest, text

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RESCUE = [sys.executable, "-I", str(ROOT / "python" / "longshore" / "rescue.py")]
LONGSHORE = str(Path(sys.executable).with_name("longshore"))
FOLDERS = sorted(p for p in HERE.iterdir() if p.is_dir() and re.match(r"\d+-", p.name))
SNAPSHOTS = [(folder, path.stem) for folder in FOLDERS for path in sorted((folder / "manifests").glob("*.json"))]
IS_ROOT = os.geteuid() == 0


def opened(folder: Path, key: str) -> list[str]:
    return ["--repository", str(folder / "repository"), f"--{key}-file", str(folder / key)]


def run(*command: str, cache: Path) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "LONGSHORE_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT / "python")}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def rows(done: subprocess.CompletedProcess[str]) -> list[dict[str, object]]:
    assert done.returncode == 0, done.stdout + done.stderr
    return [row for row in map(json.loads, done.stdout.splitlines()) if row["type"] == "row"]


def comparable(found: dict[str, object]) -> dict[str, object]:
    """A manifest without what only root can restore, where the reader is not root."""
    if IS_ROOT:
        return found
    kept = []
    for row in found["entries"]:
        if row["kind"] in {"block", "character"}:
            continue
        mode = int(row["mode"], 8) & 0o1777
        private = {text(name) for name in (b"trusted.note", b"security.capability")}
        xattrs = {name: value for name, value in row["xattrs"].items() if name not in private}
        kept.append({**row, "uid": 0, "gid": 0, "mode": mode, "xattrs": xattrs})
    return {"entries": kept}


def recorded(folder: Path, name: str) -> dict[str, object]:
    return json.loads((folder / "manifests" / f"{name}.json").read_text())


def test_every_version_of_the_page_has_a_repository() -> None:
    newest = re.search(r"^Version \*\*(\d+)\*\*", (ROOT / "docs" / "format.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert {int(p.name.split("-")[0]) for p in FOLDERS} == set(range(int(newest[1]) + 1))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
@pytest.mark.parametrize("key", ["key", "passphrase"])
def test_lists_what_was_not_removed(folder: Path, key: str, tmp_path: Path) -> None:
    expected = {p.stem for p in (folder / "manifests").glob("*.json")}
    assert expected
    for command in ([*RESCUE, *opened(folder, key), "list"], [LONGSHORE, "volume", "list", *opened(folder, key)]):
        listed = rows(run(*command, "--json", cache=tmp_path / "cache"))
        assert {str(row["snapshot_id"]).removeprefix("ls0-") for row in listed} == expected, command
    removed = {p.name for p in (folder / "repository" / "removed").iterdir()}
    assert removed, "the page's removals must have been used"
    assert not removed & expected


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
def test_nothing_is_damaged(folder: Path, tmp_path: Path) -> None:
    done = run(*RESCUE, *opened(folder, "passphrase"), "check", cache=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("folder", "name"), SNAPSHOTS, ids=lambda p: p.name if isinstance(p, Path) else p[:8])
@pytest.mark.parametrize("reader", ["rescue", "engine"])
def test_restored_as_recorded(folder: Path, name: str, reader: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    # The engine may leave a marker beside what it reads, and what git holds must stay as it is.
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    if reader == "rescue":
        done = run(*RESCUE, *opened(copy, "key"), "restore", name, str(target), cache=tmp_path / "cache")
    else:
        command = [LONGSHORE, "volume", "restore", f"ls0-{name}", str(target), *opened(copy, "key")]
        done = run(*command, cache=tmp_path / "cache")
    assert done.returncode in ({0} if IS_ROOT else {0, 3}), done.stdout + done.stderr
    expected = recorded(folder, name)
    assert len(expected["entries"]) > 300
    assert comparable(manifest(target)) == comparable(expected)
    shutil.rmtree(target)
