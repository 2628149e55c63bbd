"""An image for another processor comes to the nodes: the operator is told which node runs no agent and why, everything else works, and what waited is done.

It is told in the pod's status and Event and in `longshore status`; in no log, for no program of ours runs. Two ways of it: an image that says which processor
it is for, and one that lies. Once it is on a node containerd starts either, and the kernel refuses the program.
"""

import gzip
import json

import pytest
from scripts.image.oci import Image, Layer, write_archive
from scripts.image.tree import File, Tree

from tests.cluster.node_rig import fill
from tests.node import tenant
from tests.node.kubelet import NODE
from tests.node.site import NAMESPACE

_PLACE = "foreign"
_NAME = "docker.io/library/longshore"
_SAYS = "exec format error"
# The head of a program for AArch64, and nothing after it.
_PROGRAM = b"\x7fELF\x02\x01\x01" + bytes(9) + (2).to_bytes(2, "little") + (183).to_bytes(2, "little") + bytes(44)


@pytest.fixture(scope="module")
def pod(site):
    """A tenant's pod."""
    site.namespace(_PLACE)
    site.apply(tenant.simple_pod("plain", _PLACE))
    found = site.ready("plain", _PLACE)
    fill(site.volume(found, "empty-dir", "scratch"), seed=41, megabytes=8, files=50)
    return found


@pytest.mark.parametrize("architecture", ["amd64", "arm64"], ids=["silent", "honest"])
def test_image_for_another_processor(site, pod, architecture):
    how = "foreign-silent" if architecture == "amd64" else "foreign-honest"
    tree = Tree()
    tree.add("velero", File(_PROGRAM, 0o755))
    image = Image(
        name=f"{_NAME}:{how}",
        architecture=architecture,
        created=0,
        layers=[Layer(tree, "a program for another processor")],
        config={"Entrypoint": ["/velero"]},
    )
    archive = site.node.folder / f"{how}.oci.tar"
    write_archive(image, archive, gzip=gzip.compress)
    # As a registry would hand it out, whatever it says that it is for.
    site.node.containers.ctr("images", "import", "--all-platforms", "--no-unpack", str(archive))

    def change(spec):
        (container,) = spec["containers"]
        container |= {"image": image.name, "imagePullPolicy": "IfNotPresent"}

    with site.changed_agent(change, until_ready=False):

        def told():
            text = site.longshore("status", "--installation", ok=False)
            return text if _SAYS in text else None

        text = site.wait(told, seconds=90, what=f"longshore status says {_SAYS}")
        (line,) = [one for one in text.splitlines() if "DaemonSet" in one]
        assert line.startswith("NOT") and "0 of 1 ready" in line and f"{NODE}: " in line, line
        assert "another processor" in line, line
        # What does not run there is not disturbed, and what waits is not failed.
        assert next(one for one in text.splitlines() if "longshore-server" in one).startswith("ok"), text
        pods = json.loads(site.kubectl("get", "pods", "-n", NAMESPACE, "-l", "name=node-agent", "-o", "json"))["items"]
        assert _SAYS in json.dumps([one["status"] for one in pods]), pods
        # What is told once: that the container does not stay; why it does not stands in the pod's status.
        (name,) = (one["metadata"]["name"] for one in pods)
        event = site.wait(lambda: site.events("Pod", name).get("BackOff"), seconds=60, what="the kubelet says so")
        assert "node-agent" in event, event
        site.backup(how, pod, "scratch")
        assert (site.get("podvolumebackup", how).get("status") or {}).get("phase", "New") == "New"
    status = site.ended("podvolumebackup", how)
    assert status["phase"] == "Completed" and status["snapshotID"], status
