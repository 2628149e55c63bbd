"""An agent whose wall clock is years off: what needs no right clock works, what refuses it says so, and nothing of it stays when the clock is right again.

The clock is moved for the agent's process alone (moved_clock.c). The API server's certificate is valid for fifty years around now. The store is a folder,
and an S3 server, which refuses every request that is signed a quarter of an hour off.
"""

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.cluster.node_rig import fill, tree
from tests.node import tenant
from tests.node.kubelet import NODE
from tests.node.site import NAMESPACE

_PLACE = "off"
_LEASE = f"longshore-node-agent-{NODE}"
_SOURCE = Path(__file__).with_name("moved_clock.c")
_DECADE = 3652 * 24 * 3600


@pytest.fixture(scope="module")
def tool(site):
    """A folder of the node with the program that moves a clock, and one for a store."""
    folder = site.node.folder / "clock"
    (folder / "store").mkdir(parents=True)
    subprocess.run(["cc", "-Os", "-shared", "-fPIC", "-o", folder / "moved.so", _SOURCE], check=True)
    return folder


@pytest.fixture(scope="module")
def pod(site, tool):
    """A tenant's pod, and a location that is a folder."""
    site.namespace(_PLACE, level="restricted")
    site.apply(tenant.simple_pod("plain", _PLACE), location("folder", tool))
    found = site.ready("plain", _PLACE)
    fill(site.volume(found, "empty-dir", "scratch"), seed=31, megabytes=8, files=50)
    return found


def location(name, tool):
    return {
        "apiVersion": "velero.io/v1",
        "kind": "BackupStorageLocation",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"provider": "filesystem", "objectStorage": {"bucket": ""}, "config": {"path": "/clock/store"}},
    }


def off_by(seconds, tool):
    """A change of the agent's pods: their clock is off by so much, and they have the folder."""

    def change(spec):
        spec["volumes"].append({"name": "clock", "hostPath": {"path": str(tool), "type": "Directory"}})
        (container,) = spec["containers"]
        container["volumeMounts"].append({"name": "clock", "mountPath": "/clock"})
        container["env"] += [
            {"name": "LD_PRELOAD", "value": "/clock/moved.so"},
            {"name": "CLOCK_OFFSET_SECONDS", "value": str(seconds)},
        ]

    return change


def held(site, seconds):
    """The node's Lease, when who holds it has a clock that is off by so much."""
    found = site.get("lease", _LEASE)["spec"]
    off = datetime.fromisoformat(found["renewTime"]) - datetime.now(UTC)
    return found if found.get("holderIdentity") and abs(off.total_seconds() - seconds) < 60 else None


@pytest.mark.parametrize(("name", "seconds"), [("ahead", _DECADE), ("behind", -_DECADE)], ids=["ahead", "behind"])
def test_decade_off(site, tool, pod, name, seconds):
    with site.changed_agent(off_by(seconds, tool)):
        before = site.wait(lambda: held(site, seconds), seconds=60, what="an agent whose clock is off holds the Lease")
        status = site.backed_up(f"{name}-out", pod, "scratch", backupStorageLocation="folder")
        assert status["phase"] == "Completed" and status["snapshotID"], (status, site.agent_log()[-4000:])
        site.apply(tenant.restored_pod(f"{name}-back", _PLACE, "scratch"))
        back = site.placed(f"{name}-back", _PLACE)
        site.restore(f"{name}-in", back, "scratch", status["snapshotID"], location="folder")
        restored = site.ended("podvolumerestore", f"{name}-in")
        assert restored["phase"] == "Completed", restored
        site.ready(f"{name}-back", _PLACE)
        live = ("live",)
        assert tree(site.volume(back, "empty-dir", "scratch"), skip=live) == tree(
            site.volume(pod, "empty-dir", "scratch"), skip=live
        )
        # The store that judges clocks is named with what to do.
        refused = site.backed_up(f"{name}-refused", pod, "scratch")
        assert refused["phase"] == "Failed" and "clock of this machine" in refused["message"], refused
        assert any(
            "clock of this machine" in text for text in site.events("PodVolumeBackup", f"{name}-refused").values()
        )
        after = held(site, seconds)
        assert after["holderIdentity"] == before["holderIdentity"]
        assert after["leaseTransitions"] == before["leaseTransitions"] and after["renewTime"] > before["renewTime"]
        log = site.agent_log()
        assert log.count("Clocks of this machine and of the API server are apart") == 1 and "Lost lease" not in log
        told = site.longshore("status", "--include-namespaces", _PLACE, ok=False)
        assert "NOT everything is safe" in told, told
    status = site.backed_up(f"{name}-after", pod, "scratch")
    assert status["phase"] == "Completed", status
    site.kubectl("delete", "pod", f"{name}-back", "-n", _PLACE, "--wait=false")


def test_clock_at_which_no_certificate_is_valid(site, tool, pod):
    """The agent cannot know the API server any more: it waits, is not ready, says why, and goes on when the clock is right."""
    with site.changed_agent(off_by(10 * _DECADE, tool), until_ready=False):
        site.wait(
            lambda: "certificate has expired" in site.agent_log(), seconds=90, what="the agent says what is wrong"
        )
        assert "this machine's clock" in site.agent_log()
        site.backup("century", pod, "scratch")
        told = site.longshore("status", "--installation", ok=False)
        assert "0 of 1 ready" in told and f"{NODE}: " in told, told
        assert (site.get("podvolumebackup", "century").get("status") or {}).get("phase", "New") == "New"
    assert site.ended("podvolumebackup", "century")["phase"] == "Completed"
