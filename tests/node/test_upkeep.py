"""What the server does by itself, with a real Job controller and kubelet: maintenance and verification as Jobs. And the chart, installed beside it."""

import json
import subprocess
import time
from pathlib import Path

import pytest

from tests.cluster.node_rig import fill
from tests.node import tenant
from tests.node.kubelet import NODE
from tests.node.site import NAMESPACE
from tests.support.components import ComponentMissingError, require_tool
from tests.support.lacking import lacks

_PLACE = "kept"
_REPOSITORY = f"{_PLACE}-default-kopia"
_CHART = Path(__file__).resolve().parents[2] / "daemonset" / "chart"
_NOBODY = 65532


@pytest.fixture(scope="module")
def repository(site):
    """A repository that is Ready and holds a snapshot."""
    site.namespace(_PLACE)
    site.apply(tenant.simple_pod("plain", _PLACE))
    pod = site.ready("plain", _PLACE)
    fill(site.volume(pod, "empty-dir", "scratch"), seed=13, megabytes=8, files=50)
    assert site.backed_up("kept-1", pod, "scratch")["phase"] == "Completed"

    def ready():
        kind = "backuprepository"
        return site.found(kind, _REPOSITORY) and site.get(kind, _REPOSITORY).get("status", {}).get("phase") == "Ready"

    site.wait(ready, seconds=120, what="the repository is Ready")
    return _REPOSITORY


@pytest.mark.parametrize(
    ("operation", "begin", "rest", "field"),
    [
        (
            "maintenance",
            {"spec": {"maintenanceFrequency": "1s"}},
            {"spec": {"maintenanceFrequency": "0s"}},
            "recentMaintenance",
        ),
        (
            "verification",
            {"metadata": {"annotations": {"longshore.io/verify-frequency": "1s"}}},
            {"metadata": {"annotations": {"longshore.io/verify-frequency": "0s"}}},
            "recentVerification",
        ),
    ],
)
def test_upkeep_runs_as_a_job(site, repository, figures, operation, begin, rest, field):
    def patch(change):
        site.kubectl("patch", "backuprepository", repository, "-n", NAMESPACE, "--type=merge", "-p", json.dumps(change))

    started = time.monotonic()
    patch(begin)
    try:

        def told():
            runs = site.get("backuprepository", repository).get("status", {}).get(field) or ()
            return runs[0] if runs else None

        run = site.wait(told, seconds=180, what=f"a run of {operation} is told")
    finally:
        patch(rest)
    figures.seconds(f"{operation} as a Job, from due until its result is told", time.monotonic() - started)
    assert run["result"] == "Succeeded", run
    picked = ["-n", NAMESPACE, "-l", f"velero.io/repo-name={repository}", "-o", "json"]
    pods = json.loads(site.kubectl("get", "pods", *picked))["items"]
    (pod,) = [one for one in pods if f"--operation={operation}" in one["spec"]["containers"][0]["args"]][:1]
    assert pod["spec"]["nodeName"] == NODE and pod["spec"]["securityContext"]["runAsUser"] == _NOBODY
    (status,) = pod["status"]["containerStatuses"]
    ended = status["state"]["terminated"]
    # Nobody's process has written into the file that the kubelet made for it, as root.
    assert ended["exitCode"] == 0 and json.loads(ended["message"]), ended
    assert site.s3.secret_key not in ended["message"]


def test_chart_is_installed_beside_it_and_tested_and_goes(site, figures):
    """The second installation shares nothing with the first but the definitions."""
    try:
        program = require_tool("helm")
    except ComponentMissingError as err:
        lacks(str(err))

    def helm(*words):
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(site.node.folder / "helm")}
        command = [program, *words, "-n", "second", f"--kubeconfig={site.node.control_plane.api.kubeconfig}"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}\n{site._told()}"
        return done.stdout

    site.namespace("second")
    values = {
        "image": {"repository": "docker.io/library/longshore"},
        "agent": {"maxUnavailable": 1},
        "location": {
            "enabled": True,
            "bucket": site.s3.bucket("second"),
            "config": {"region": site.s3.region, "s3Url": site.s3.endpoint_url, "s3ForcePathStyle": "true"},
        },
        "credentials": {"secretContents": site.credentials()},
    }
    file = site.node.folder / "second.json"
    file.write_text(json.dumps(values))
    started = time.monotonic()
    helm("install", "second", str(_CHART), "--skip-crds", f"--values={file}", "--wait", "--timeout=180s")
    figures.seconds("helm install --wait of a second installation", time.monotonic() - started)
    site.pod("name=node-agent", "second")
    started = time.monotonic()
    assert "Succeeded" in helm("test", "second", "--timeout=180s")
    figures.seconds("helm test: its pod says that all is well", time.monotonic() - started)
    helm("uninstall", "second", "--wait", "--timeout=120s")
    site.kubectl("delete", "namespace", "second", "--wait=true", "--timeout=90s", seconds=100)
    assert not site.found("namespace", "second")
    assert site.agent()
