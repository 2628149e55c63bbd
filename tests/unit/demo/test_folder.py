"""The demo's folder: one demo at a time, and nobody else's files."""

import subprocess
import sys
from pathlib import Path

import pytest
from scripts.demo.folder import DemoError, Folder

ROOT = Path(__file__).resolve().parents[3]
HOLDER = """
import sys
from pathlib import Path
from scripts.demo.folder import Folder
folder = Folder(Path(sys.argv[1]))
folder.take()
folder.wipe()
print("taken", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Run a second demo's process, which has taken the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "demo-data")],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'python'}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "taken\n"
    yield process
    process.kill()
    process.wait()


def test_second_demo_is_refused_and_harms_nothing(other, tmp_path):
    path = tmp_path / "demo-data"
    (path / "store" / "pack").write_text("x")
    folder = Folder(path)
    assert folder.holds_something()
    with pytest.raises(DemoError, match=f"another demo is at work.*process={other.pid}") as caught:
        folder.take()
    assert caught.value.exit_code == 2 and (path / "store" / "pack").read_text() == "x"
    other.kill()
    other.wait()
    again = Folder(path)
    again.take()
    again.wipe()
    assert not (path / "store" / "pack").exists() and again.store.is_dir()


def test_wiping_takes_all_but_the_lock(tmp_path):
    folder = Folder(tmp_path / "demo-data")
    folder.take()
    folder.wipe()
    (folder.path / "recovery.key").write_text("x")
    (folder.path / "link").symlink_to(tmp_path)
    (folder.path / "cluster-1" / "pods").mkdir(parents=True)
    folder.wipe()
    assert sorted(one.name for one in folder.path.iterdir()) == [".made-by-longshore-demo", "store"]


def test_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "demo-data").mkdir()
    (tmp_path / "demo-data" / "thesis").write_text("x")
    with pytest.raises(DemoError, match="not made by the demo"):
        Folder(tmp_path / "demo-data").holds_something()
