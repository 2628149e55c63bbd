"""The demo, as its command: with a copy of a small directory, plain, on the real kube-apiserver, and as an ordinary user.

Promises: it runs in a folder of its own, so that nobody's demo-data/ is wiped. Processes that it left would be found by a word in their environment.
"""

import os
import shutil
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.conftest import require
from tests.support.components import require_tool

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
pytestmark = pytest.mark.timeout(600)


@dataclass
class Run:
    """One run of the demo."""

    folder: Path
    word: str
    done: subprocess.CompletedProcess

    @property
    def said(self):
        return " ".join(self.done.stdout.split())


def run(folder, source, *, prefix=(), **more):
    word = f"demo-of-a-test-{uuid.uuid4().hex}"
    temporary = folder / "tmp"
    temporary.mkdir(mode=0o777)
    temporary.chmod(0o1777)
    env = {
        "PYTHONPATH": f"{ROOT}:{ROOT / 'python'}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TMPDIR": str(temporary),
        # Lines are not broken where a test looks for words.
        "COLUMNS": "600",
        "DEMO_DATA": str(folder / "data"),
        "SOURCE": str(source),
        "WHOSE": word,
        **{name: os.environ[name] for name in ("LONGSHORE_TOOLS", "XDG_CACHE_HOME") if name in os.environ},
        **more,
    }
    words = [*prefix, sys.executable, "-m", "scripts.demo"]
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=400)
    return Run(folder, word, done)


def left_by(word):
    found = []
    for one in Path("/proc").glob("[0-9]*/environ"):
        try:
            if word.encode() in one.read_bytes():
                found.append((one.parent / "cmdline").read_bytes())
        except OSError:
            continue
    return found


def all_came_back(made):
    assert made.done.returncode == 0, made.done.stdout + made.done.stderr
    assert "Two backups, two restores, not one difference" in made.said
    assert made.said.count("identical: ") == 2
    assert left_by(made.word) == []
    assert list((made.folder / "tmp").iterdir()) == []
    stays = {one.name for one in (made.folder / "data").iterdir()}
    assert {"store", "recovery.key"} <= stays and "reference" not in stays
    assert not list((made.folder / "data").glob("cluster-*/pods"))


@pytest.fixture
def folder(tmp_path):
    """A folder that everybody reaches."""
    made = Path("/tmp") / f"longshore-demo-{uuid.uuid4().hex[:12]}"
    made.mkdir(mode=0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def source(folder):
    made = folder / "source"
    (made / "below").mkdir(parents=True)
    for number in range(30):
        (made / "below" / f"file-{number}").write_bytes(os.urandom(20_000))
    os.link(made / "below/file-1", made / "second name")
    (made / "link").symlink_to("below/file-2")
    return made


def test_plain(folder, source):
    made = run(folder, source)
    all_came_back(made)
    assert f"A copy of {source}" in made.said and "left out" not in made.said


def test_its_own_volume(folder):
    """What `make demo` does by itself: the machine's own files, a database, and what is odd."""
    made = run(folder, "")
    all_came_back(made)
    assert "A copy of" not in made.said and "rows of the database" in made.said


def test_on_the_real_kube_apiserver(folder, source):
    require(lambda: [require_tool(name) for name in ("kube-apiserver", "etcd")])
    made = run(folder, source, CLUSTER="1", HOME=os.environ.get("HOME", "/"))
    all_came_back(made)
    assert "kube-apiserver" in made.said


def test_ordinary_user_is_told_what_is_left_out(folder, source):
    closed = source / "closed to others"
    closed.write_bytes(b"x")
    closed.chmod(0)
    prefix = ()
    if os.geteuid() == 0:
        prefix = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
        # The program and its interpreter; setpriv's own start of it would still have root's rights.
        command = Path(sys.executable).with_name("longshore")
        looked = [*prefix, "sh", "-c", f"'{command}' --help"]
        env = {"PYTHONPATH": str(ROOT / "python"), "PYTHONDONTWRITEBYTECODE": "1", "PATH": os.environ["PATH"]}
        reached = subprocess.run(looked, cwd="/", env=env, capture_output=True, text=True, check=False)
        if reached.returncode != 0:
            last = reached.stderr.strip().rpartition("\n")[2]
            pytest.skip(f"an ordinary user cannot run what lies here, give everybody the right to read it: {last}")
        os.chown(folder, NOBODY, NOBODY)
    made = run(folder, source, prefix=prefix)
    all_came_back(made)
    assert "left out: could not be copied" in made.said and "closed to others" in made.said
