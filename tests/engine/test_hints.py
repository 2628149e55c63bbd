"""Hints through the seam and the command line, on real files."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from longshore import datapath
from tests.engine.conftest import Place

PROGRAM = [sys.executable, "-c", "import sys; from longshore.cli.main import main; sys.exit(main())"]
MIB = 1 << 20
NAME = b"data \xff file"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A directory with one large file, whose name is no UTF-8."""
    folder = tmp_path / "database"
    folder.mkdir()
    with open(os.fsencode(folder) + b"/" + NAME, "wb") as file:
        file.write(os.urandom(8 * MIB))
    return folder


def change(folder: Path, offset: int, content: bytes) -> os.stat_result:
    path = os.fsencode(folder) + b"/" + NAME
    descriptor = os.open(path, os.O_WRONLY)
    os.pwrite(descriptor, content, offset)
    os.close(descriptor)
    return os.stat(path)


def test_a_hint_spares_reading_and_a_foreign_one_does_not(place: Place, database: Path, tmp_path: Path) -> None:
    first = place.backup(database)
    assert first.snapshot_id is not None
    stat = change(database, 3 * MIB, b"changed")
    hint = datapath.FileHint(
        NAME, size_bytes=8 * MIB, mtime_ns=stat.st_mtime_ns, ctime_ns=stat.st_ctime_ns, ranges=[(3 * MIB, 7)]
    )
    time.sleep(0.05)
    taken = time.time_ns()
    foreign = datapath.Hints(since="ls0-" + "0" * 32, taken_ns=taken, files=[hint])
    result = place.backup(database, hints=foreign, parent=first.snapshot_id, dry_run=True)
    assert (result.hints_used, result.hints_ignored, result.bytes_read) == (0, 1, 8 * MIB)
    hints = datapath.Hints(since=first.snapshot_id, taken_ns=taken, files=[hint], ignored=2)
    result = place.backup(database, hints=hints)
    assert (result.hints_used, result.hints_ignored) == (1, 2)
    assert result.bytes_read < 3 * MIB
    assert result.bytes_read + result.bytes_hinted == 8 * MIB
    place.restore(tmp_path / "target")
    path = b"/" + NAME
    restored, there = (
        Path(os.fsdecode(os.fsencode(where) + path)).read_bytes() for where in (tmp_path / "target", database)
    )
    assert restored == there


def test_hints_from_a_file(place: Place, database: Path, tmp_path: Path) -> None:
    options = [
        "--repository",
        str(place.folder),
        "--key-file",
        str(place.key_file),
        "--cache-dir",
        str(tmp_path / "cache"),
    ]

    def back_up(*more: str) -> tuple[int, dict[str, Any], str]:
        time.sleep(0.05)
        command = [*PROGRAM, "volume", "backup", str(database), *options, "--json", *more]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        lines = [json.loads(line) for line in ran.stdout.splitlines()]
        return ran.returncode, lines[-1] if lines else {}, ran.stderr

    code, summary, _ = back_up()
    assert code == 0
    stat = change(database, 5 * MIB, b"changed")
    time.sleep(0.05)
    head = {"type": "hints", "since": summary["snapshot_id"], "taken_ns": time.time_ns()}
    line = {
        "type": "file",
        "path_base64": base64.b64encode(NAME).decode(),
        "size_bytes": stat.st_size,
        "mtime_ns": stat.st_mtime_ns,
        "ctime_ns": stat.st_ctime_ns,
        "ranges": [[5 * MIB, 7]],
    }
    file = tmp_path / "hints"
    file.write_text("\n".join(map(json.dumps, [head, {**line, "size_bytes": -1, "path_base64": "YQ=="}, line])))
    for refused in (["--paranoid"], ["--parent", "none"]):
        assert back_up("--hints", str(file), *refused)[0] == 2
    code, summary, said = back_up("--hints", str(file))
    assert (code, summary["hints_used"], summary["hints_ignored"]) == (0, 1, 1)
    assert 0 < summary["bytes_read"] < 3 * MIB
    assert "line=2" in said
