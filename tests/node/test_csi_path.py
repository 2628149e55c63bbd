"""A volume of a CSI driver, as far as it goes without one: a claim bound to such a volume, and what a driver would have mounted, laid down by hand.

No driver runs here, so the kubelet cannot start the pod and stays at trying. What it asks a driver for is a mount at `kubernetes.io~csi/<volume>/mount`, with a
file of its own beside it; both are made here, while agent and pod are there already, and taken away before the pod goes.
"""

import json
import subprocess

import pytest

from tests.cluster.node_rig import fill
from tests.node import tenant
from tests.node.kubelet import NODE, ROOT

_PLACE = "csi"
_DRIVER = "csi.example.com"


@pytest.fixture(scope="module")
def pod(site):
    """A pod with a claim of a driver that is known to the cluster and not to the node."""
    site.namespace(_PLACE)
    listed = tenant.persistent_volume("pv-csi", ROOT, NODE, claim="disk", namespace=_PLACE)
    spec = listed[0]["spec"]
    del spec["local"], spec["nodeAffinity"]
    spec["csi"] = {"driver": _DRIVER, "volumeHandle": "disk-1"}
    driver = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "CSIDriver",
        "metadata": {"name": _DRIVER},
        "spec": {"attachRequired": False, "podInfoOnMount": False},
    }
    made = tenant.simple_pod("claimant", _PLACE)
    made["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "disk"}}]
    made["spec"]["containers"][0] = tenant.container(mounts={"data": "/data"})
    site.apply(driver, *listed, made)

    def placed():
        found = site.get("pod", "claimant", _PLACE)
        return found["spec"].get("nodeName") == NODE and found

    uid = site.wait(placed, seconds=60, what="the pod has a node")["metadata"]["uid"]
    picked = "--field-selector=involvedObject.name=claimant"

    def refused():
        events = json.loads(site.kubectl("get", "events", "-n", _PLACE, picked, "-o", "json"))["items"]
        return [one for one in events if _DRIVER in one.get("message", "")]

    site.wait(refused, seconds=60, what="the kubelet says that it has no such driver")
    return {"namespace": _PLACE, "name": "claimant", "uid": uid}


@pytest.fixture(scope="module")
def folder(site, pod):
    """Where the kubelet has the volume; taken away before the pod."""
    made = site.volume(pod, "csi", "pv-csi")
    yield made
    subprocess.run(["umount", "-q", made / "mount"], check=False)
    subprocess.run(["rm", "-rf", "--one-file-system", made], check=True)
    site.kubectl("delete", "pod", pod["name"], "-n", _PLACE, "--wait=true")
    site.gone(pod)


def check_refused(site, pod, name, says):
    status = site.backed_up(name, pod, "data")
    assert status["phase"] == "Failed" and says in status["message"], status
    assert any(says in message for message in site.events("PodVolumeBackup", name).values())
    assert name in site.agent_log()


def test_volume_that_no_driver_has_mounted_is_named(site, pod, folder):
    check_refused(site, pod, "csi-none", "volume")
    # A driver that was called and whose mount is not there: what lies below is not the volume.
    (folder / "mount").mkdir(parents=True)
    (folder / "vol_data.json").write_text(json.dumps({"driverName": _DRIVER, "volumeHandle": "disk-1"}))
    check_refused(site, pod, "csi-hidden", "not where the agent sees it")


def test_mounted_volume_is_backed_up(site, pod, folder):
    """The mount is made after the agent began, and reaches it."""
    (folder / "mount").mkdir(parents=True, exist_ok=True)
    (folder / "vol_data.json").write_text(json.dumps({"driverName": _DRIVER, "volumeHandle": "disk-1"}))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder / "mount"], check=True)
    fill(folder / "mount", seed=61, megabytes=8, files=50)
    status = site.backed_up("csi-1", pod, "data")
    assert status["phase"] == "Completed" and status["snapshotID"], (status, site.agent_log()[-4000:])
    assert status["path"].endswith("/kubernetes.io~csi/pv-csi/mount"), status
    assert status["progress"]["totalBytes"] > 8 << 20
    assert site.backed_up("csi-2", pod, "data")["incrementalBytes"] == 0
