"""A tenant's Deployment on a real node: its volumes out while it writes, its pod replaced, its data deleted, and everything back through the wait protocol."""

import os
import time

import pytest

from tests.cluster.node_rig import fill, tree
from tests.node import tenant
from tests.node.kubelet import NODE
from tests.node.site import NAMESPACE

_SHOP = "shop"


def still(root):
    """The tree without what the pod writes all the time."""
    entries, links = tree(root)
    return {name: found for name, found in entries.items() if name.split("/")[0] != "live"}, links


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
    fill_volume(site.volume(pod, "local-volume", "pv-shop"), seed=2)
    return pod


def fill_volume(root, *, seed):
    assert (root / "live" / "log").exists()
    fill(root, seed=seed)
    os.chown(root, tenant.USER, tenant.USER)


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
