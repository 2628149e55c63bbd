"""What a process can still do after it gave up writing below a folder; in processes of their own, for there is no way back."""

import ctypes
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.lacking import lacks

from longshore.cli import node_agent

_NEEDED, _JUDGES_CUTS = 2, 3
_SCRIPT = """
import json, os, subprocess, sys, threading
from pathlib import Path
from longshore.confinement import forbid_writing_below
root = Path(sys.argv[1])
volume, beside = root / "a" / "pods" / "volume", root / "a" / "beside"
if len(sys.argv) > 2:
    from longshore import confinement
    libc = confinement._LIBC
    class Older:
        def __getattr__(self, name):
            return getattr(libc, name)
        def syscall(self, *words):
            return int(sys.argv[2]) if words == (444, None, 0, 1) else libc.syscall(*words)
    confinement._LIBC = Older()
cannot_cut = forbid_writing_below(root / "a" / "pods")
tries = {
    "open": lambda at: open(at / "file", "w").close(),
    "append": lambda at: open(at / "file", "a").close(),
    "make": lambda at: open(at / "new", "x").close(),
    "cut": lambda at: os.truncate(at / "file", 0),
    "folder": lambda at: os.mkdir(at / "folder"),
    "link": lambda at: os.link(at / "file", at / "hard"),
    "symlink": lambda at: os.symlink("x", at / "soft"),
    "fifo": lambda at: os.mkfifo(at / "fifo"),
    "rename": lambda at: os.rename(at / "other", at / "renamed"),
    "remove": lambda at: os.unlink(at / "file"),
    "move in": lambda at: os.rename(beside / f"moves-{at.name}", at / "moved"),
    "child": lambda at: subprocess.run(["touch", at / "touched"], check=True, stderr=subprocess.DEVNULL),
}
told = {}
def run():
    for place in (volume, beside):
        for name, call in tries.items():
            try:
                call(place)
                told[f"{place.name} {name}"] = "done"
            except (PermissionError, subprocess.CalledProcessError):
                told[f"{place.name} {name}"] = "refused"
            except OSError as err:
                told[f"{place.name} {name}"] = str(err)
thread = threading.Thread(target=run)
thread.start()
thread.join()
told["read"] = (volume / "file").read_text()
told["listed"] = sorted(os.listdir(volume))
told["cannot cut"] = cannot_cut
print(json.dumps(told))
"""


@pytest.fixture
def landlock():
    if ctypes.CDLL(None).syscall(444, None, 0, 1) < _NEEDED:
        lacks(f"the kernel has no Landlock of version {_NEEDED} or later")


def run(*words):
    root = Path(__file__).resolve().parents[2]
    environment = {"PYTHONPATH": str(root / "python"), "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        [sys.executable, "-c", *map(str, words)], env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def tried(landlock, tmp_path):
    """What comes of each call, below and beside a folder that was given up, as this kernel's Landlock judges or as an older one's."""

    def run_all(*version):
        for place in ("a/pods/volume", "a/beside"):
            (tmp_path / place).mkdir(parents=True)
            (tmp_path / place / "file").write_text("kept")
            (tmp_path / place / "other").write_text("")
        for name in ("volume", "beside"):
            (tmp_path / "a" / "beside" / f"moves-{name}").write_text("")
        # A way round that leads to the folder by another name gives nothing.
        (tmp_path / "a" / "detour").symlink_to(tmp_path)
        done = run(_SCRIPT, tmp_path, *version)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run_all


def test_below_the_folder_nothing_is_written_and_beside_it_all(tried):
    told = tried()
    assert told.pop("read") == "kept" and told.pop("listed") == ["file", "other"]
    if not told.pop("cannot cut"):
        lacks(f"the kernel has no Landlock of version {_JUDGES_CUTS} or later")
    assert {name: how for name, how in told.items() if name.startswith("volume")} == {
        name: "refused" for name in told if name.startswith("volume")
    }
    assert {name: how for name, how in told.items() if name.startswith("beside")} == {
        name: "done" for name in told if name.startswith("beside")
    }
    assert len(told) == 24


def test_older_kernel_lets_files_be_cut_short_and_that_is_told(tried):
    told = tried(_NEEDED)
    assert told["cannot cut"] is False
    assert {name for name, how in told.items() if how == "done" and name.startswith("volume")} == {"volume cut"}
    assert told["read"] == "" and told["listed"] == ["file", "other"]


@pytest.mark.parametrize("cannot_cut", [True, False])
def test_agent_warns_where_files_can_be_cut_short(monkeypatch, cannot_cut):
    said = []
    monkeypatch.setattr("longshore.confinement.forbid_writing_below", lambda _folder: cannot_cut)
    monkeypatch.setattr(
        node_agent._log, "warning", lambda message, **fields: said.append((message, fields["next_step"]))
    )
    node_agent._give_up_writing(Path("/nowhere"))
    warning = ("Cutting files of volumes short is not forbidden by the kernel", "run Linux 6.2 or later")
    assert said == ([] if cannot_cut else [warning])


def test_what_goes_meanwhile_is_nothing_to_allow(landlock, tmp_path):
    (tmp_path / "pods").mkdir()
    script = (
        "import sys\nfrom pathlib import Path\nfrom longshore import confinement\nroot, beside = Path(sys.argv[1]), confinement._beside\n"
        "confinement._beside = lambda folder: [*beside(folder), root / 'gone']\n"
        "confinement.forbid_writing_below(root / 'pods')\n(root / 'pods' / 'x').touch()\n"
    )
    assert "PermissionError" in run(script, tmp_path).stderr


def test_second_thread_is_noticed(landlock, tmp_path):
    script = (
        "import sys, threading\nfrom pathlib import Path\nfrom longshore.confinement import forbid_writing_below\n"
        "stop = threading.Event()\nthreading.Thread(target=stop.wait).start()\n"
        "try:\n    forbid_writing_below(Path(sys.argv[1]))\nexcept Exception as err:\n    print(type(err).__name__, err)\n"
        "open(Path(sys.argv[1]) / 'still', 'x').close()\nstop.set()\n"
    )
    done = run(script, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("InternalError other threads would keep what this one gives up: threads=2")
    assert (tmp_path / "still").exists()
