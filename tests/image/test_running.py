"""The image at work, as a container runtime runs it: a read-only root, nobody's user or root without rights, process 1, no network.

Promises: programs get nothing from the machine but a folder that is bound in, and `/dev`. Needs root, and says so.
"""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from scripts.image.packages import PLACE

from tests.image.conftest import Built

pytestmark = [pytest.mark.usefixtures("rooted"), pytest.mark.timeout(1200)]

NOBODY = 65532
UID = "6b1e7b5a-1111-2222-3333-444444444444"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of nobody's, to bind in."""
    for one in (tmp_path, *tmp_path.parents[:2]):
        one.chmod(0o755)
    folder = tmp_path / "data"
    folder.mkdir()
    os.chown(folder, NOBODY, NOBODY)
    return folder


def _python(image: Built, program: str) -> subprocess.CompletedProcess[str]:
    return image.run("/usr/bin/python3.11", "-ISBXutf8", "-c", f"import sys; sys.path.insert(0, '/{PLACE}')\n{program}")


@pytest.mark.parametrize(
    "words",
    [
        ["/velero", "version"],
        ["/usr/bin/longshore", "--help"],
        ["/usr/bin/kubectl-longshore", "status", "--help"],
        ["/velero", "server", "--help"],
        ["/velero", "node-agent", "server", "--help"],
        ["/velero", "restic", "server", "--help"],
    ],
    ids=" ".join,
)
def test_commands_answer(image: Built, words: list[str]) -> None:
    answer = image.run(*words)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "longshore" in answer.stdout or "Usage" in answer.stdout


def test_root_is_read_only_and_user_nobody(image: Built) -> None:
    answer = _python(
        image,
        "import os; print(os.getuid(), os.getgroups(), os.getpid(), open('/proc/self/status').read())\nopen('/x', 'w')",
    )
    assert "Read-only file system" in answer.stderr
    assert answer.stdout.startswith(f"{NOBODY} [] 1 ")
    assert "CapEff:\t0000000000000000" in answer.stdout
    assert "CapBnd:\t0000000000000000" in answer.stdout
    assert "NoNewPrivs:\t1" in answer.stdout


def test_backup_and_restore(image: Built, data: Path) -> None:
    (data / "volume" / "inner").mkdir(parents=True)
    (data / "volume" / "inner" / "précieux").write_bytes(os.urandom(3_000_000))
    for one in (data / "volume", *(data / "volume").rglob("*")):
        os.chown(one, NOBODY, NOBODY)
    at = ["--repository", "/data/repository", "--key-file", "/data/key"]
    for words in (
        ["repo", "init"],
        ["volume", "backup", "/data/volume"],
        ["volume", "restore", "latest", "/data/restored"],
        ["repo", "check"],
    ):
        answer = image.run("/velero", *words, *at, "--json", binds={"/data": str(data)})
        summary = json.loads(answer.stdout.splitlines()[-1])
        assert (answer.returncode, summary["exit_code"]) == (0, 0), answer.stderr
    before, after = (data / "volume/inner/précieux", data / "restored/inner/précieux")
    assert before.read_bytes() == after.read_bytes()
    assert before.stat().st_mtime_ns == after.stat().st_mtime_ns


def test_every_module_of_ours_can_be_loaded(image: Built) -> None:
    answer = _python(
        image,
        """
import importlib, pkgutil, longshore
names = [one.name for one in pkgutil.walk_packages(longshore.__path__, "longshore.")]
for name in names:
    importlib.import_module(name)
print(len(names), "longshore.rescue" in names)
""",
    )
    assert answer.returncode == 0, answer.stderr
    count, has_rescue = answer.stdout.split()
    assert int(count) > 100
    assert has_rescue == "False"


def test_what_is_loaded_late_is_there(image: Built) -> None:
    answer = _python(
        image,
        """
import ctypes, pathlib, ssl
from kubernetes import client, config
client.CoreV1Api(client.ApiClient(client.Configuration()))
from botocore.session import Session
made = [Session().create_client(name, region_name="eu-west-1", aws_access_key_id="a", aws_secret_access_key="b").meta.service_model.service_name
        for name in ("s3", "sts", "sso", "sso-oidc")]
libraries = [path for room in ("/usr/lib/python3.11", "/usr/lib/longshore") for path in pathlib.Path(room).rglob("*.so")]
for path in libraries:
    ctypes.CDLL(str(path))
authorities = ssl.create_default_context().cert_store_stats()["x509_ca"]
missing = [name for name in ("hashlib", "zoneinfo", "uuid", "tarfile", "shutil", "asyncio", "json", "http.server") if not __import__(name)]
print(made, len(libraries) > 30, authorities > 100, missing)
""",
    )
    assert answer.stdout.strip() == "['s3', 'sts', 'sso', 'sso-oidc'] True True []", answer.stderr


def test_agent_without_a_cluster_says_so(image: Built) -> None:
    answer = image.run("/velero", "node-agent", "server", "--log-format=json", "--node-name=a", user=0)
    assert answer.returncode != 0
    assert "Traceback" not in answer.stderr
    assert answer.stderr.startswith("error: the connection to the API server cannot be set up")
    assert "next: " in answer.stderr


@pytest.mark.parametrize(
    "words",
    [["/velero-restore-helper"], ["/velero-restic-restore-helper"], ["/velero", "restore-wait"]],
    ids=" ".join,
)
def test_restore_wait_holds_until_volumes_are_filled(image: Built, data: Path, words: list[str]) -> None:
    binds = {"/restores/a": str(data)}
    waiting = subprocess.Popen(
        image.container(user=1000, binds=binds).command(*words, UID), stdout=subprocess.PIPE, text=True
    )
    assert waiting.stdout is not None
    assert "done=0, total=1" in waiting.stdout.readline()
    (data / ".velero").mkdir()
    (data / ".velero" / UID).touch()
    assert waiting.wait(timeout=60) == 0


def test_restore_wait_ends_at_once_as_process_1(image: Built, data: Path) -> None:
    binds = {"/restores/a": str(data)}
    words = image.container(user=1000, binds=binds).command("/velero-restore-helper", UID)
    waiting = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert waiting.stdout is not None
    waiting.stdout.readline()
    waiting.send_signal(signal.SIGTERM)
    assert waiting.wait(timeout=60) == 128 + signal.SIGTERM
