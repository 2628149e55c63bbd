"""Every golden repository gives back exactly what its manifests say: read by rescue.py, and by the engine.

A folder is `<format version>-<release>/`, or `<format version>-<release>-<what befell it>/`, written once by make.py: `repository/`, a key file `key`, a
`passphrase`, and for each snapshot that was not removed `manifests/<32 digits>.json`, made by manifest.py from the source. The versions present must be those
that docs/format.md claims, so that neither a golden repository nor a version can vanish unnoticed; those of the newest version hold every kind of object.

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


def test_every_kind_of_object_of_the_page_is_kept_in_the_newest_version() -> None:
    page = (ROOT / "docs" / "format.md").read_text()
    kinds = set(re.findall(r"^\| `([a-z]+)/<[a-z]+>", page, re.MULTILINE))
    newest = max(int(p.name.split("-")[0]) for p in FOLDERS)
    held = [path for p in FOLDERS if p.name.startswith(f"{newest}-") for path in (p / "repository").iterdir()]
    assert len(kinds) == 13
    assert {path.name for path in held if any(path.iterdir())} == kinds


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
def test_goes_on_in_its_own_version(folder: Path, tmp_path: Path) -> None:
    """A backup, a deletion, a prune with moves, a new key and a check write nothing of another version into it, and rescue.py reads what they wrote."""
    copy, source = tmp_path / "copy", tmp_path / "source"
    shutil.copytree(folder, copy)
    source.mkdir()
    (source / "new").write_bytes(os.urandom(300_000))
    (source / "small").write_text("a small file\n")
    before = {path for path in (copy / "repository").rglob("*") if path.is_file()}
    (tmp_path / "another passphrase").write_text("not a secret either\n")
    for words in (
        ("volume", "backup", str(source), "--volume", "golden"),
        ("repo", "prune", "--keep-last", "1", "--fence", "all"),
        ("repo", "key", "add", "--new-passphrase-file", str(tmp_path / "another passphrase")),
        ("repo", "check"),
    ):
        done = run(LONGSHORE, *words, *opened(copy, "key"), cache=tmp_path / "cache")
        assert done.returncode == 0, (words, done.stdout + done.stderr)
    written = {path for path in (copy / "repository").rglob("*") if path.is_file()} - before
    kinds = {path.relative_to(copy / "repository").parts[0] for path in written} - {"reserve"}
    assert kinds >= {"packs", "index", "usage", "snapshots", "keys", "removed"}, kinds
    version = int(folder.name.split("-")[0])
    for path in written:
        if path.relative_to(copy / "repository").parts[0] not in {"reserve", "probe"}:  # random bytes, of no version
            assert path.read_bytes()[:10:9] == bytes([ord("L"), version]), path
    target = tmp_path / "target"
    done = run(*RESCUE, *opened(copy, "key"), "restore", "latest", str(target), cache=tmp_path / "cache")
    assert done.returncode == 0, done.stdout + done.stderr
    assert comparable(manifest(target)) == comparable(manifest(source))


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
