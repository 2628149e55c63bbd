"""Folders of killed runs go; those of living ones, of others, and strangers' stay."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.support.held_folder import HeldFolder, remove_stale

ROOT = Path(__file__).resolve().parents[3]
HOLDER = """
import sys
from tests.support.held_folder import HeldFolder
print(HeldFolder("x").path, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Run a process that holds a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        cwd=ROOT,
        env={"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process, Path(process.stdout.readline().strip())
    process.kill()
    process.wait()


def test_killed_runs_folder_goes_and_a_living_ones_stays(holder, tmp_path):
    process, path = holder
    (path / "etcd").mkdir()
    later = time.time() + 3600
    assert path.is_dir() and remove_stale("x", folder=tmp_path, now=later) == []
    process.kill()
    process.wait()
    # It may just have been made, and not be held yet.
    assert remove_stale("x", folder=tmp_path) == []
    assert remove_stale("x", folder=tmp_path, now=later) == [path] and not path.exists()


def test_what_is_not_ours_stays(tmp_path):
    (tmp_path / "longshore-x-without-lock").mkdir()
    (tmp_path / "longshore-x-file").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / ".held").touch()
    (tmp_path / "longshore-x-link").symlink_to("elsewhere")
    (tmp_path / "longshore-x-linked-lock").mkdir()
    (tmp_path / "longshore-x-linked-lock" / ".held").symlink_to("../elsewhere/.held")
    before = sorted(tmp_path.rglob("*"))
    assert remove_stale("x", folder=tmp_path, now=time.time() + 3600) == [] and sorted(tmp_path.rglob("*")) == before


def test_it_is_removed_in_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    held = HeldFolder("x")
    assert remove_stale("x", now=time.time() + 3600) == []
    held.remove()
    held.remove()
    assert list(tmp_path.iterdir()) == []
