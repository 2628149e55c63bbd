"""A tenant's Deployment on a real node: its volumes out while it writes, its pod replaced, its data deleted, and everything back through the wait protocol."""

import os
import shutil
import time

import pytest

from tests.cluster.node_rig import fill, tree
from tests.node import tenant
from tests.node.kubelet import NODE
from tests.node.site import NAMESPACE

_SHOP = "shop"
# Owner of the claim's root: the waiting container may look into it and not write it.
_OTHER = 999


def still(root):
    """The tree without what the pod writes all the time."""
    return tree(root, skip=("live",))


@pytest.fixture(scope="module")
def shop(site):
    """A Deployment with a volume of each kind, filled, and its pod."""
    site.namespace(_SHOP)
    folder = site.node.folder / "shop"
    for name in ("pv", "host"):
        (folder / name).mkdir(parents=True)
        (folder / name).chmod(0o777)
    site.apply(
        *tenant.persistent_volume("pv-shop", folder / "pv", NODE, namespace=_SHOP),
        tenant.deployment("db", _SHOP, host=folder / "host"),
    )
    pod = site.pod("app=db", _SHOP)
    fill_volume(site.volume(pod, "empty-dir", "scratch"), seed=1)
    fill_volume(site.volume(pod, "local-volume", "pv-shop"), seed=2, owner=_OTHER, mode=0o755)
    return pod


def fill_volume(root, *, seed, owner=tenant.USER, mode=0o750):
    assert (root / "live" / "log").exists()
    fill(root, seed=seed)
    os.chown(root, owner, owner)
    root.chmod(mode)


def test_agent_is_ready_under_restricted_settings(site):
    pod = site.get("pod", site.agent()["name"])
    (container,) = pod["spec"]["containers"]
    given = container["securityContext"]
    assert given["readOnlyRootFilesystem"] and not given["allowPrivilegeEscalation"] and not given["privileged"]
    assert given["capabilities"]["drop"] == ["ALL"]
    assert pod["spec"]["securityContext"]["seccompProfile"]["type"] == "Localhost"
    # What the kernel says of the process, which is what counts.
    words = (
        "import re; t=open('/proc/1/status').read(); print(re.findall(r'(?:CapEff|CapBnd|Seccomp|NoNewPrivs):\\s*(\\S+)', t))",
    )
    told = site.kubectl("exec", "-n", NAMESPACE, pod["metadata"]["name"], "--", "/usr/bin/python3.11", "-Ic", *words)
    effective, bounding, privileges, seccomp = eval(told)
    # CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID: bits 0 to 4.
    assert int(effective, 16) == int(bounding, 16) == 0b11111
    assert (privileges, seccomp) == ("1", "2")


def test_empty_dir_is_backed_up_while_the_pod_writes(site, shop, figures):
    root = site.volume(shop, "empty-dir", "scratch")
    started = time.monotonic()
    status = site.backed_up("scratch-1", shop, "scratch")
    figures.seconds("backup of an emptyDir, 29 MB and 300 files, first", time.monotonic() - started)
    assert status["phase"] == "Completed" and status["snapshotID"], status
    assert status["path"].endswith(f"{shop['uid']}/volumes/kubernetes.io~empty-dir/scratch")
    assert root.is_dir()


def test_persistent_volume_is_backed_up_and_what_kubernetes_fills_is_not(site, shop):
    status = site.backed_up("data-1", shop, "data")
    assert status["phase"] == "Completed" and status["snapshotID"], status
    projected = site.backed_up("settings-1", shop, "settings")
    assert projected["phase"] == "Completed" and not projected.get("snapshotID"), projected
    assert "is filled by Kubernetes" in projected["message"]
    host = site.backed_up("host-1", shop, "host")
    assert host["phase"] == "Failed" and not host.get("snapshotID"), host
    assert "hostPath volume belongs to the node" in host["message"]
    reasons = site.events("PodVolumeBackup", "host-1")
    assert any("hostPath volume belongs to the node" in message for message in reasons.values()), reasons


@pytest.fixture(scope="module")
def replaced(site, shop):
    """The pod that the Deployment has made in the place of the first one."""
    site.kubectl("delete", "pod", shop["name"], "-n", _SHOP, "--wait=true")
    pod = site.pod("app=db", _SHOP)
    assert pod["uid"] != shop["uid"]
    return pod


def test_backup_of_another_pod_goes_on_from_the_last_one(site, replaced, figures):
    root = site.volume(replaced, "local-volume", "pv-shop")
    first = site.get("podvolumebackup", "data-1")["status"]
    (root / "added").write_bytes(b"new" * 1000)
    started = time.monotonic()
    status = site.backed_up("data-2", replaced, "data")
    figures.seconds("backup of a claim after its pod was replaced", time.monotonic() - started)
    assert status["phase"] == "Completed" and status["snapshotID"] != first["snapshotID"], status
    # What the writer writes and the added file; the 30 MB that are as they were are not read again.
    assert 3000 <= status["incrementalBytes"] < 3 << 20, status
    assert status["progress"]["totalBytes"] > 24 << 20


def test_everything_comes_back(site, shop, replaced, figures):
    """The pod goes, its claim's data is deleted, and a pod of Velero's restore waits for both volumes."""
    snapshots, expected, lines = {}, {}, {}
    for volume, root in (
        ("scratch", site.volume(replaced, "empty-dir", "scratch")),
        ("data", site.volume(replaced, "local-volume", "pv-shop")),
    ):
        if volume == "scratch":
            fill_volume(root, seed=3)
        expected[volume] = still(root)
        lines[volume] = tenant.check_live(root, at_least=1)
        status = site.backed_up(f"{volume}-last", replaced, volume)
        assert status["phase"] == "Completed", status
        snapshots[volume] = status["snapshotID"]
    site.kubectl("delete", "deployment", "db", "-n", _SHOP, "--wait=true")
    site.gone(replaced)
    data = site.node.folder / "shop" / "pv"
    for name in os.listdir(data):
        one = data / name
        shutil.rmtree(one) if one.is_dir() and not one.is_symlink() else one.unlink()
    site.apply(tenant.restored_pod("db-restored", _SHOP, "scratch", "data"))
    pod = site.placed("db-restored", _SHOP)
    started = time.monotonic()
    for volume, snapshot in snapshots.items():
        site.restore(f"{volume}-back", pod, volume, snapshot)
    for volume in snapshots:
        status = site.ended("podvolumerestore", f"{volume}-back")
        assert status["phase"] == "Completed", status
    site.ready("db-restored", _SHOP)
    figures.seconds("restore of both volumes until the pod runs", time.monotonic() - started)
    for volume, root in (
        ("scratch", site.volume(pod, "empty-dir", "scratch")),
        ("data", site.volume(pod, "local-volume", "pv-shop")),
    ):
        assert still(root) == expected[volume]
        tenant.check_live(root, at_least=lines[volume])
        # The container removes it where it may, the agent where it may not.
        site.wait(lambda root=root: not (root / ".velero").exists(), seconds=30, what=f"{root}/.velero is gone")
    site.kubectl("delete", "pod", "db-restored", "-n", _SHOP, "--wait=true")
    site.gone(pod)
