"""What operators get wrong, on a real API server and a real S3 server, with agents under the rights that the installation gives them: each is told in the
object's status, by one Event and by one record of the log, and the agent goes on. What takes a kubelet stands in tests/node, what takes neither in
tests/unit/controllers/test_told.py.
"""

import base64
import json
import platform
import shutil
import subprocess
import sys

import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from tests.cluster.node_rig import (
    AGENT,
    LEASES,
    NODE,
    ROOT,
    fill,
    keys_in_store,
    location_of,
    wait_for,
)
from tests.cluster.test_install import Account, installed, worked  # noqa: F401 - fixtures
from tests.node.tenant import restored_pod, simple_pod
from tests.support.processes import ChildProcess

CANARY = "canary-of-a-secret-key"


@pytest.fixture
def site(api_server, installed, worked):  # noqa: F811 - the fixtures
    """A node's folder in an installation, with the accounts of agent and server."""
    worked.accounts = {name: Account(api_server, installed, name) for name in ("node-agent", "longshore-server")}
    yield worked
    for account in worked.accounts.values():
        account.close()


def start_agent(site, **environment):
    words = [site.accounts["node-agent"].kubeconfig, site.namespace, site.pods_root, site.cache]
    return site.agent("-c", AGENT.replace("LEASE_TIMES", LEASES["short"]), *words, environment=environment)


def start_server(site):
    words = ["server", "--kubeconfig", site.accounts["longshore-server"].kubeconfig, "-n", site.namespace]
    started = ChildProcess(
        "server",
        [sys.executable, "-m", "longshore.cli.main", *words, "--metrics-address=127.0.0.1:0", "--log-format=json"],
        log_path=site.folder / "agent-server.log",
        env={"PYTHONPATH": str(ROOT / "python"), "HOME": str(site.folder), "AWS_EC2_METADATA_DISABLED": "true"},
    )
    site.running.append(started)


def records(site, message, **fields):
    lines = [json.loads(line) for line in site.logs().splitlines() if line.startswith("{")]
    return [one for one in lines if one["msg"] == message and fields.items() <= one.items()]


def events(site, name, reason):
    found = site.core.list_namespaced_event(site.namespace, field_selector=f"involvedObject.name={name}").items
    return [one for one in found if one.reason == reason]


def check_told(site, name, *, phase, says=""):
    status = site.wait_phase("podvolumebackups", name)
    assert status["phase"] == phase and says in status.get("message", ""), status
    (event,) = wait_for(lambda: events(site, name, phase), seconds=30, what="the Event")
    assert event.count == 1 and event.type == ("Warning" if phase == "Failed" else "Normal")
    (record,) = records(site, "Ended object", key=f"{site.namespace}/{name}")
    assert record["phase"] == phase and record["reason"] == status.get("message", "")
    assert record["level"] == ("warning" if phase == "Failed" else "info")
    if says:
        assert event.message == status["message"][:1024]
    return status


@pytest.fixture
def pod(site):
    uid, path = site.pod("db-0")
    fill(path, seed=21, megabytes=8, files=50)
    return uid


def credentials(access, secret):
    text = f"[default]\naws_access_key_id = {access}\naws_secret_access_key = {secret}\n"
    return {"keys": base64.b64encode(text.encode()).decode()}


WRONG = {
    "bucket": "make the bucket, or name another",
    "access key": "check the credentials",
    "secret key": "check the credentials",
    "no secret": "secret=nonesuch/keys; create it",
    "no key in it": "secret=cloud/nonesuch; create it",
    "no credentials": "no credentials were found",
}


def spoil(site, s3_server, bucket, how):
    """Make location `odd`, wrong in one way; gives it."""
    spec = location_of(s3_server, bucket, prefix="odd")
    match how:
        case "bucket":
            spec["objectStorage"]["bucket"] = "nobodys-bucket"
        case "access key" | "secret key":
            access = "NOBODY" if how == "access key" else s3_server.access_key
            site.core.create_namespaced_secret(
                site.namespace, {"metadata": {"name": "wrong"}, "data": credentials(access, CANARY)}
            )
            spec["credential"] = {"name": "wrong", "key": "keys"}
        case "no secret":
            spec["credential"]["name"] = "nonesuch"
        case "no key in it":
            spec["credential"]["key"] = "nonesuch"
        case "no credentials":
            del spec["credential"]
    site.create("backupstoragelocations", {"metadata": {"name": "odd"}, "spec": spec})
    return spec


def put_right(site, spec, s3_server, bucket):
    """Mend the location as an operator would: where the credentials are wrong those, else the spec."""
    if spec.get("credential", {}).get("name") == "wrong":
        right = {"data": credentials(s3_server.access_key, s3_server.secret_key)}
        site.core.patch_namespaced_secret("wrong", site.namespace, right)
        return
    right = {"spec": location_of(s3_server, bucket, prefix="odd")}
    site.custom.patch_namespaced_custom_object(
        "velero.io", "v1", site.namespace, "backupstoragelocations", "odd", right
    )


@pytest.mark.parametrize("how", WRONG)
def test_wrong_location_is_told_by_agent_and_server(site, s3_server, bucket, pod, how):
    spec = spoil(site, s3_server, bucket, how)
    start_server(site)
    start_agent(site)
    site.backup("wrong", "db-0", pod, backupStorageLocation="odd")
    site.backup("beside", "db-0", pod)
    check_told(site, "wrong", phase="Failed", says=WRONG[how])
    check_told(site, "beside", phase="Completed")
    status = site.wait_phase("backupstoragelocations", "odd", "Unavailable")
    assert "; " in status["message"], "the next step is missing"
    (event,) = wait_for(lambda: events(site, "odd", "Unavailable"), seconds=30, what="the location's Event")
    assert event.type == "Warning" and event.count == 1 and event.message == status["message"][:1024]
    (record,) = records(site, "Location changed its phase", location="odd")
    assert (record["level"], record["phase"], record["reason"]) == ("warning", "Unavailable", status["message"])
    put_right(site, spec, s3_server, bucket)
    site.backup("after", "db-0", pod, backupStorageLocation="odd")
    assert check_told(site, "after", phase="Completed")["snapshotID"]
    told = site.logs() + json.dumps([one.message for one in site.core.list_namespaced_event(site.namespace).items])
    assert CANARY not in told + json.dumps(status) and s3_server.secret_key not in told


def test_location_that_is_unavailable_is_tried_all_the_same(site, pod):
    """Its phase is what a server saw some time ago; whether the store takes a backup is found out by asking it."""
    mark = {"status": {"phase": "Unavailable", "message": "was away a minute ago"}}
    site.custom.patch_namespaced_custom_object(
        "velero.io", "v1", site.namespace, "backupstoragelocations", "default", mark
    )
    start_agent(site)
    site.backup("out", "db-0", pod)
    assert check_told(site, "out", phase="Completed")["snapshotID"]


def test_unknown_location_is_told(site, pod):
    start_agent(site)
    site.backup("wrong", "db-0", pod, backupStorageLocation="nonesuch")
    check_told(site, "wrong", phase="Failed", says="location='nonesuch'")
    site.backup("after", "db-0", pod)
    check_told(site, "after", phase="Completed")


def test_second_agent_on_the_node_is_told(site, pod):
    """Both under the agent's own rights, on one node: one works, the other says why it does not, in its log and by an Event on the Lease."""
    start_agent(site)
    lease = f"longshore-node-agent-{NODE}"
    site.backup("first", "db-0", pod)
    holder = check_told(site, "first", phase="Completed")["instance"]
    start_agent(site)
    (event,) = wait_for(lambda: events(site, lease, "SecondAgent"), seconds=60, what="the Event")
    assert event.type == "Warning" and event.involved_object.kind == "Lease"
    assert f"node={NODE}, holder={holder}, " in event.message and "; end one of the two" in event.message
    (record,) = records(site, "Another agent works on this node", node=NODE, holder=holder)
    assert record["level"] == "warning" and record["instance"] in event.message and record["instance"] != holder
    assert records(site, "Waiting for lease", holder=holder, identity=record["instance"])
    site.backup("second", "db-0", pod)
    assert check_told(site, "second", phase="Completed")["instance"] == holder
    site.running[0].stop()
    site.backup("third", "db-0", pod)
    assert check_told(site, "third", phase="Completed")["instance"] == record["instance"]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the program that moves a clock is for x86-64")
@pytest.mark.parametrize("offset_seconds", [3600, -3600], ids=["ahead", "behind"])
def test_clock_that_is_off_is_told(site, pod, tmp_path, offset_seconds):
    """The store refuses what is signed an hour off. The agent names the clock, and with a right one the next backup succeeds."""
    library = tmp_path / "moved.so"
    source = ROOT / "tests" / "node" / "moved_clock.c"
    subprocess.run(["cc", "-Os", "-shared", "-fPIC", "-o", library, source], check=True)
    off = start_agent(site, LD_PRELOAD=str(library), CLOCK_OFFSET_SECONDS=str(offset_seconds))
    site.backup("off", "db-0", pod)
    check_told(site, "off", phase="Failed", says="clock of this machine")
    (record,) = records(site, "Clocks of this machine and of the API server are apart, set this machine's")
    assert record["level"] == "warning" and abs(record["ahead_seconds"] - offset_seconds) < 60
    off.stop()
    start_agent(site)
    site.backup("right", "db-0", pod)
    assert check_told(site, "right", phase="Completed")["snapshotID"]


def test_pod_that_is_deleted_while_its_volume_is_read(site):
    """The kubelet empties an emptyDir under the agent. Whatever of it was read by then is kept, and is not called a backup of the volume."""
    uid, path = site.pod("leaving")
    fill(path, seed=22, megabytes=400, files=2000)
    start_agent(site)
    site.backup("leaving", "leaving", uid, uploaderSettings={"ParallelFilesUpload": "1"})
    wait_for(
        lambda: (site.status("podvolumebackups", "leaving").get("progress") or {}).get("bytesDone", 0) > 0,
        seconds=60,
        what="bytes move",
    )
    site.core.delete_namespaced_pod("leaving", site.namespace, grace_period_seconds=0)
    shutil.rmtree(path)
    check_told(site, "leaving", phase="Failed", says="the pod ended while its volume was read")
    other, _path = site.pod("staying")
    site.backup("after", "staying", other)
    check_told(site, "after", phase="Completed")
    assert [key for key in keys_in_store(site) if "/snapshots/" in key]


def test_pod_security_level_that_does_not_fit_is_refused_with_the_reason(api_server, api_client, installed):  # noqa: F811 - the fixture
    """What a DaemonSet's controller would be told, and so its Event; and that tenants under the strictest level can be restored into."""
    apps, core = client.AppsV1Api(api_client), client.CoreV1Api(api_client)
    spec = api_client.sanitize_for_serialization(
        apps.read_namespaced_daemon_set("node-agent", installed).spec.template.spec
    )
    strict = f"{installed}-strict"
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    core.create_namespace({"metadata": {"name": strict, "labels": label}})
    body = {"metadata": {"name": "agent"}, "spec": spec}
    core.create_namespaced_service_account(strict, {"metadata": {"name": "node-agent"}})
    core.create_namespaced_pod(installed, body, dry_run="All")
    with pytest.raises(ApiException) as refused:
        core.create_namespaced_pod(strict, body, dry_run="All")
    said = json.loads(refused.value.body)["message"]
    assert refused.value.status == 403 and 'violates PodSecurity "restricted' in said and "hostPath" in said
    core.create_namespaced_service_account(strict, {"metadata": {"name": "default"}})
    for tenant in (simple_pod("plain", strict), restored_pod("back", strict, "scratch")):
        core.create_namespaced_pod(strict, tenant, dry_run="All")
