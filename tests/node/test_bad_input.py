"""What operators and tenants get wrong, on a real node: each is told in the object's status, by an event and in the log, and the agent goes on."""

import base64
import copy
import json

import pytest

from tests.cluster.node_rig import fill, tree
from tests.node import tenant
from tests.node.kubelet import NODE
from tests.node.site import NAMESPACE

_PLACE = "odd"


@pytest.fixture(scope="module", autouse=True)
def place(site):
    site.namespace(_PLACE)


@pytest.fixture(scope="module")
def pod(site):
    """A pod with a small emptyDir."""
    site.apply(tenant.simple_pod("plain", _PLACE))
    found = site.ready("plain", _PLACE)
    fill(site.volume(found, "empty-dir", "scratch"), seed=11, megabytes=8, files=50)
    return found


def check_told(site, name, says):
    """The object's Event and the agent's log say what its status says."""
    message = site.get("podvolumebackup", name)["status"]["message"]
    assert says in message
    assert site.events("PodVolumeBackup", name)["Failed"] == message[:1024]
    lines = [json.loads(line) for line in site.agent_log().splitlines() if line.startswith("{")]
    (told,) = [one for one in lines if one["msg"] == "Ended object" and one["key"] == f"{NAMESPACE}/{name}"]
    assert (told["level"], told["phase"], told["reason"]) == ("warning", "Failed", message)


def check_still_works(site, name, pod):
    status = site.backed_up(name, pod, "scratch")
    assert status["phase"] == "Completed" and status["snapshotID"], status


@pytest.mark.parametrize(
    ("name", "other", "volume", "spec", "says"),
    [
        ("no-location", {}, "scratch", {"backupStorageLocation": "nonesuch"}, "nonesuch"),
        ("no-volume", {}, "nonesuch", {}, "the pod has no such volume"),
        ("no-pod", {"name": "nobody"}, "scratch", {}, "nobody"),
        ("other-pod", {"uid": "00000000-0000-0000-0000-000000000000"}, "scratch", {}, "plain"),
    ],
)
def test_what_is_not_there_is_named(site, pod, name, other, volume, spec, says):
    status = site.backed_up(name, {**pod, **other}, volume, **spec)
    assert status["phase"] == "Failed" and says in status["message"], status
    check_told(site, name, says)
    check_still_works(site, f"{name}-after", pod)


def restart_agent(site):
    """Start another agent, which remembers no credentials."""
    site.kubectl("delete", "pod", site.agent()["name"], "-n", NAMESPACE, "--wait=true")
    site.agent()


def test_location_without_its_secret(site, pod):
    secret = site.get("secret", "cloud-credentials")
    site.kubectl("delete", "secret", "cloud-credentials", "-n", NAMESPACE)
    try:
        restart_agent(site)
        status = site.backed_up("no-secret", pod, "scratch")
        assert status["phase"] == "Failed" and "cloud-credentials" in status["message"], status
        check_told(site, "no-secret", "cloud-credentials")
    finally:
        for field in ("resourceVersion", "uid", "creationTimestamp", "managedFields"):
            secret["metadata"].pop(field, None)
        site.apply(secret)
    check_still_works(site, "no-secret-after", pod)


def test_wrong_credentials_are_named_and_not_shown(site, pod):
    right = site.get("secret", "cloud-credentials")["data"]["cloud"]

    def give(encoded):
        change = {"data": {"cloud": encoded}}
        site.kubectl("patch", "secret", "cloud-credentials", "-n", NAMESPACE, "--type=merge", "-p", json.dumps(change))

    give(base64.b64encode(site.credentials("nobody", "canary-of-a-secret").encode()).decode())
    try:
        restart_agent(site)
        status = site.backed_up("wrong-keys", pod, "scratch")
        assert status["phase"] == "Failed" and status["message"], status
        check_told(site, "wrong-keys", "check the credentials")
        told = json.dumps(status) + json.dumps(site.events("PodVolumeBackup", "wrong-keys")) + site.agent_log()
        assert "canary-of-a-secret" not in told
    finally:
        give(right)
    restart_agent(site)
    check_still_works(site, "wrong-keys-after", pod)


def test_claim_that_two_pods_mount_is_read_once(site):
    folder = site.node.folder / "twice"
    folder.mkdir()
    folder.chmod(0o777)
    site.apply(*tenant.persistent_volume("pv-twice", folder, NODE, claim="twice", namespace=_PLACE))
    pods = []
    for name in ("twice-a", "twice-b"):
        made = tenant.simple_pod(name, _PLACE)
        made["spec"]["volumes"] = [{"name": "scratch", "persistentVolumeClaim": {"claimName": "twice"}}]
        made["spec"]["containers"][0] = tenant.container(mounts={"scratch": "/scratch"})
        site.apply(made)
        pods.append(site.ready(name, _PLACE))
    fill(folder, seed=12, megabytes=8, files=50)
    folder.chmod(0o777)
    first, second = (site.backed_up(f"twice-{number}", pod, "scratch") for number, pod in enumerate(pods))
    assert first["phase"] == second["phase"] == "Completed"
    assert first["incrementalBytes"] > 8 << 20 and second["incrementalBytes"] == 0, (first, second)


def test_volume_that_is_mounted_by_a_sub_path_is_taken_whole(site):
    made = tenant.simple_pod("part", _PLACE)
    (container,) = made["spec"]["containers"]
    container["volumeMounts"][0]["subPath"] = "inner/part"
    # The kubelet makes the folder, as root.
    container["securityContext"] = {"runAsUser": 0}
    site.apply(made)
    pod = site.ready("part", _PLACE)
    root = site.volume(pod, "empty-dir", "scratch")
    (root / "beside").write_bytes(b"not seen by the pod" * 1000)
    status = site.backed_up("part", pod, "scratch")
    assert status["phase"] == "Completed" and status["path"].endswith("/scratch"), status
    assert status["progress"]["totalBytes"] >= 19_000


def test_second_agent_on_the_node_waits(site, pod):
    """Somebody starts one more by hand: it works on nothing while the other holds the node's lease."""
    agent = site.get("pod", site.agent()["name"])
    twin = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "twin", "namespace": NAMESPACE},
        "spec": copy.deepcopy(agent["spec"]),
    }
    for volume in twin["spec"]["volumes"]:
        if volume["name"].startswith("kube-api-access"):
            twin["spec"]["volumes"].remove(volume)
    (container,) = twin["spec"]["containers"]
    container["volumeMounts"] = [one for one in container["volumeMounts"] if not one["name"].startswith("kube-api")]
    site.apply(twin)
    try:
        site.wait(
            lambda: "running" in json.dumps(site.get("pod", "twin").get("status", {}).get("containerStatuses", [])),
            seconds=60,
            what="the twin runs",
        )
        for number in range(3):
            status = site.backed_up(f"twin-{number}", pod, "scratch")
            assert status["phase"] == "Completed" and not status["instance"].startswith("twin"), status
        site.wait(
            lambda: '"msg": "Waiting for lease"' in site.kubectl("logs", "twin", "-n", NAMESPACE),
            seconds=60,
            what="the twin says why it does nothing",
        )
        lease = f"longshore-node-agent-{NODE}"
        told = site.wait(lambda: site.events("Lease", lease).get("SecondAgent"), seconds=60, what="an Event names both")
        assert "twin" in told and "end one of the two" in told, told
        check_still_works(site, "twin-during", pod)
        assert not site.get("podvolumebackup", "twin-during")["status"]["instance"].startswith("twin")
    finally:
        site.kubectl("delete", "pod", "twin", "-n", NAMESPACE, "--wait=true")
    check_still_works(site, "twin-after", pod)


def test_kubelet_whose_folder_is_elsewhere(site, pod):
    site.install("--set=agent.kubeletRootDir=/var/lib/elsewhere")
    try:

        def told():
            events = json.loads(site.kubectl("get", "events", "-n", NAMESPACE, "-o", "json"))["items"]
            return [one for one in events if "/var/lib/elsewhere/pods is not a directory" in one.get("message", "")]

        site.wait(told, seconds=120, what="the kubelet says which folder is missing")

        def unsafe():
            text = site.longshore("status", "--installation", ok=False)
            agents = [line for line in text.splitlines() if "DaemonSet node-agent: 0 of 1 ready" in line]
            return [line for line in agents if line.startswith("NOT") and f"{NODE}: " in line]

        site.wait(unsafe, seconds=60, what="longshore status names the node that has no agent")
    finally:
        site.install()
    site.kubectl("rollout", "status", "daemonset/node-agent", "-n", NAMESPACE, "--timeout=120s", seconds=130)
    site.agent()
    check_still_works(site, "elsewhere-after", pod)


def test_tenant_under_the_restricted_level_comes_back(site):
    """The init container of Velero's restore, and ours in it, ask for nothing that the strictest level forbids."""
    place = site.namespace("fits", level="restricted")
    site.apply(tenant.simple_pod("plain", place))
    pod = site.ready("plain", place)
    root = site.volume(pod, "empty-dir", "scratch")
    fill(root, seed=14, megabytes=8, files=50)
    status = site.backed_up("fits-1", pod, "scratch")
    assert status["phase"] == "Completed" and status["snapshotID"], status
    site.apply(tenant.restored_pod("fits-back", place, "scratch"))
    back = site.placed("fits-back", place)
    site.restore("fits-1-back", back, "scratch", status["snapshotID"])
    assert site.ended("podvolumerestore", "fits-1-back")["phase"] == "Completed"
    site.ready("fits-back", place)
    found = site.volume(back, "empty-dir", "scratch")
    assert tree(found, skip=("live",)) == tree(root, skip=("live",))


def test_agent_under_the_restricted_level_is_refused_and_told(site, pod):
    """Its namespace has the level that the agent needs. Where somebody tightens it no agent comes back, which is told, and backups wait."""
    key = "pod-security.kubernetes.io/enforce"
    level = site.get("namespace", NAMESPACE)["metadata"]["labels"][key]
    assert level == "privileged"

    def give(level):
        site.kubectl("label", "namespace", NAMESPACE, f"{key}={level}", "--overwrite")

    give("restricted")
    try:
        site.kubectl("delete", "pod", site.agent()["name"], "-n", NAMESPACE, "--wait=true")

        def told():
            events = json.loads(site.kubectl("get", "events", "-n", NAMESPACE, "-o", "json"))["items"]
            return [one for one in events if "violates PodSecurity" in one.get("message", "")]

        site.wait(told, seconds=60, what="the cluster says why there is no pod")
        assert "no pod on 1 of the nodes" in site.longshore("status", "--installation", ok=False)
        site.backup("tightened", pod, "scratch")
    finally:
        give(level)
        # The controller's patience grows with each refusal; whoever mends the label says so.
        site.kubectl("rollout", "restart", "daemonset/node-agent", "-n", NAMESPACE)
    site.kubectl("rollout", "status", "daemonset/node-agent", "-n", NAMESPACE, "--timeout=120s", seconds=130)
    assert site.ended("podvolumebackup", "tightened")["phase"] == "Completed"
