"""The agent's capabilities, one by one: with those that its pod is given a volume comes back as it was, and without any of them something breaks.

Promises: programs run as the agent does, as root in a read-only root with every other capability out of every set. What breaks is found by looking,
in the exit code, in what the command names, or in the tree; the oracle of `tests/oracle` compares. Needs root, and says so.
"""

import json
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.image.conftest import Built
from tests.oracle.compare import compare
from tests.support.lacking import lacks

pytestmark = [pytest.mark.usefixtures("rooted"), pytest.mark.timeout(1200)]

READING = ("DAC_READ_SEARCH", "FOWNER")
WRITING = ("CHOWN", "FOWNER", "DAC_OVERRIDE", "FSETID")
LENDING = ("MKNOD", "SETFCAP")
"""Only where the agent's policy allows devices and file capabilities."""
# cap_net_raw, permitted and effective, as revision 2 of the attribute has it.
FILE_CAPABILITY = bytes.fromhex("0100000200200000" + "00" * 12)
ALICE, BOB, TEAM = 1001, 1002, 2000
LONG_AGO_NS = 1_000_000_000 * 10**9


@dataclass(frozen=True)
class Node:
    """A volume of tenants, and a repository of the agent's."""

    image: Built
    data: Path

    @property
    def volume(self) -> Path:
        return self.data / "volume"

    def longshore(self, *words: str, capabilities: tuple[str, ...], filter_path: str = "") -> dict[str, Any]:
        at = ["--repository", "/data/repository", "--key-file", "/data/key", "--json"]
        how = {"user": 0, "capabilities": capabilities, "filter_path": filter_path, "binds": {"/data": str(self.data)}}
        answer = self.image.run("/velero", *words, *at, **how)
        assert answer.stdout, answer.stderr
        summary = json.loads(answer.stdout.splitlines()[-1])
        assert summary["exit_code"] == answer.returncode, answer.stderr
        return dict(summary) | {"said": answer.stdout + answer.stderr}


@pytest.fixture
def node(image: Built, tmp_path: Path) -> Node:
    data = tmp_path / "data"
    (data / "volume").mkdir(parents=True)
    node = Node(image, data)
    _fill(node.volume)
    assert node.longshore("repo", "init", capabilities=())["exit_code"] == 0
    return node


def _fill(volume: Path) -> None:
    """Make what two tenants and a team would: closed to all others."""
    secret = volume / "secret"
    secret.mkdir()
    (secret / "key").write_bytes(os.urandom(300_000))
    shared = volume / "shared"
    shared.mkdir()
    (shared / "report").write_bytes(b"x" * 5000)
    for path, owner, group, mode in (
        (secret / "key", ALICE, ALICE, 0o600),
        (secret, ALICE, ALICE, 0o500),
        (shared / "report", BOB, TEAM, 0o440),
        (shared, BOB, TEAM, 0o2770),
        (volume, BOB, TEAM, 0o755),
    ):
        os.chown(path, owner, group)
        path.chmod(mode)
    for path in (secret / "key", shared / "report"):
        os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))


def _accessed(volume: Path) -> set[int]:
    return {(volume / name).stat().st_atime_ns for name in ("secret/key", "shared/report")}


def _back_up(node: Node, capabilities: tuple[str, ...] = READING) -> dict[str, Any]:
    return node.longshore("volume", "backup", "/data/volume", capabilities=capabilities)


def _target(node: Node) -> Path:
    """A volume with an older state of the same: tenants' files, in which the agent must write."""
    target = node.data / "target"
    shutil.copytree(node.volume, target)
    for path in (node.volume, *node.volume.rglob("*")):
        there = target / path.relative_to(node.volume)
        os.chown(there, path.stat().st_uid, path.stat().st_gid)
        there.chmod(path.stat().st_mode & 0o7777)
    os.truncate(target / "shared/report", 100)
    os.utime(target / "shared/report", ns=(1, 1))
    (target / "secret/key").unlink()
    return target


def test_backup_reads_everything_and_leaves_no_trace(node: Node) -> None:
    summary = _back_up(node)
    assert (summary["exit_code"], summary["items_lost"], summary["files_total"]) == (0, 0, 2)
    assert _accessed(node.volume) == {LONG_AGO_NS}


def test_backup_without_dac_read_search_loses_what_is_closed(node: Node) -> None:
    summary = _back_up(node, ("FOWNER",))
    assert (summary["exit_code"], summary["files_total"]) == (3, 0)
    assert summary["items_lost"] == 2, summary["said"]


def test_backup_without_fowner_moves_access_times(node: Node) -> None:
    probe = node.volume / "secret/key"
    probe.read_bytes()
    if probe.stat().st_atime_ns == LONG_AGO_NS:
        pytest.skip("the file system of the temporary folder keeps no access times")
    os.utime(probe, ns=(LONG_AGO_NS, LONG_AGO_NS))
    assert _back_up(node, ("DAC_READ_SEARCH",))["exit_code"] == 0
    assert _accessed(node.volume) != {LONG_AGO_NS}


def test_restore_brings_back_all(node: Node) -> None:
    _back_up(node)
    target = _target(node)
    summary = node.longshore("volume", "restore", "latest", "/data/target", capabilities=WRITING)
    assert summary["exit_code"] == 0, summary["said"]
    assert compare(node.volume, target) == []


@pytest.mark.parametrize(
    ("missing", "breaks", "names"),
    [
        ("CHOWN", {"uid", "gid"}, {"owner: Operation not permitted"}),
        ("FOWNER", {"mode", "mtime"}, {"mode: Operation not permitted", "times: Operation not permitted"}),
        # A folder that it may not enter: what is below stays as it was before.
        (
            "DAC_OVERRIDE",
            {"missing", "size", "mode", "mtime"},
            {"cannot open directory: Permission denied"},
        ),
        ("FSETID", {"mode"}, {"mode: the filesystem kept another: mode=0770"}),
    ],
)
def test_restore_without_one_capability_breaks_what_the_guide_says(
    node: Node, missing: str, breaks: set[str], names: set[str]
) -> None:
    _back_up(node)
    target = _target(node)
    capabilities = tuple(one for one in WRITING if one != missing)
    summary = node.longshore("volume", "restore", "latest", "/data/target", capabilities=capabilities)
    differences = compare(node.volume, target)
    assert summary["exit_code"] == 3 and "Traceback" not in summary["said"], summary["said"]
    assert {one.aspect for one in differences} == breaks, differences
    # What is not as it was is said: nothing is called restored that is not.
    assert {one["message"].partition(" (os error")[0] for one in summary["lost"]} == names, summary["lost"]
    lost = [one["path"] for one in summary["lost"]]
    assert all(any(f"{one.path.decode()}/".startswith(f"{path}/") for path in lost) for one in differences), differences


@pytest.fixture
def lending(node: Node) -> Node:
    """A volume that holds what lends rights."""
    try:
        os.mknod(node.volume / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        lacks("device files are made by root with MKNOD only: run with it")
    (node.volume / "ping").write_bytes(b"x")
    os.setxattr(node.volume / "ping", "security.capability", FILE_CAPABILITY)
    _back_up(node)
    (node.data / "target").mkdir()
    return node


def _lent(node: Node) -> tuple[bool, bool]:
    target = node.data / "target"
    device = (target / "device").exists() and stat.S_ISCHR((target / "device").stat().st_mode)
    return device, "security.capability" in os.listxattr(target / "ping")


def test_restore_with_all_brings_back_devices_and_file_capabilities(lending: Node) -> None:
    summary = lending.longshore("volume", "restore", "latest", "/data/target", capabilities=(*WRITING, *LENDING))
    assert summary["exit_code"] == 0, summary["said"]
    assert _lent(lending) == (True, True)
    assert compare(lending.volume, lending.data / "target") == []


@pytest.mark.parametrize(("missing", "lost"), [("MKNOD", "device"), ("SETFCAP", "ping")])
def test_restore_without_what_lends_rights_names_the_loss(lending: Node, missing: str, lost: str) -> None:
    capabilities = tuple(one for one in (*WRITING, *LENDING) if one != missing)
    summary = lending.longshore("volume", "restore", "latest", "/data/target", capabilities=capabilities)
    assert summary["exit_code"] == 3, summary["said"]
    assert lost in summary["said"]
    assert _lent(lending) == (missing != "MKNOD", missing != "SETFCAP")
