"""A repository in a temporary folder, and what tests of this folder ask of it.

Promises: each test has a repository and folders of its own; what it restores is compared by `tests/oracle`, and read by `rescue.py` as its users run it.
Does not know the engine but through `longshore.datapath`.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from longshore import datapath
from tests.oracle.compare import compare
from tests.oracle.make_tree import make_tree, remove_tree

RESCUE = Path(__file__).parents[2] / "python" / "longshore" / "rescue.py"
PATIENCE_SECONDS = 120
TICK_SECONDS = 0.05


@dataclass(frozen=True)
class Place:
    """A repository, where it lies, and its key."""

    folder: Path
    key_file: Path
    repository: datapath.Repository

    @property
    def store(self) -> datapath.FolderStore:
        return datapath.FolderStore(str(self.folder))

    @property
    def key(self) -> datapath.Key:
        return datapath.Key.from_file(self.key_file)

    def backup(self, path: Path, **options: Any) -> datapath.BackupResult:
        # Files that changed within a tick of the clock before a backup began are read again by the next one.
        time.sleep(TICK_SECONDS)
        options.setdefault("source", "volume")
        return done(self.repository.backup(datapath.BackupOptions(str(path), **options)))

    def restore(self, target: Path, snapshot_id: str | None = None, **options: Any) -> datapath.RestoreResult:
        wanted = snapshot_id or self.repository.find("latest").id
        return done(self.repository.restore(datapath.RestoreOptions(wanted, target=str(target), **options).trusting()))

    def rescue(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-I",
            str(RESCUE),
            "--repository",
            str(self.folder),
            "--key-file",
            str(self.key_file),
        ]
        return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)

    def objects(self) -> dict[str, bytes]:
        return {str(p.relative_to(self.folder)): p.read_bytes() for p in sorted(self.folder.rglob("*")) if p.is_file()}


def done(job: datapath.Job[Any]) -> Any:
    """Wait for a job that must end, and give what it came to."""
    assert job.wait(PATIENCE_SECONDS), f"job does not end: {job.progress()}"
    return job.result()


def write_key(path: Path) -> datapath.Key:
    key = datapath.Key.generate()
    path.write_text(key.to_file_text())
    return key


def assert_same(a: Path, b: Path) -> None:
    differences = compare(a, b)
    assert not differences, "\n".join(map(str, differences[:20]))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A new repository."""
    key_file = tmp_path / "key"
    key = write_key(key_file)
    folder = tmp_path / "repository"
    return Place(folder, key_file, datapath.init(datapath.FolderStore(str(folder)), key))


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A volume with everything in it that some backup program has lost, old enough not to be re-read."""
    root = tmp_path / "volume"
    make_tree(root, depth=300)
    try:
        yield root
    finally:
        remove_tree(root)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A volume of three files in two directories."""
    root = tmp_path / "small"
    (root / "below").mkdir(parents=True)
    (root / "a").write_bytes(b"a" * 1000)
    (root / "b").write_bytes(bytes(range(256)) * 4000)
    (root / "below" / "c").write_bytes(b"c")
    return root
