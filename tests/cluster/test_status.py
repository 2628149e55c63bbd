"""`longshore status` on a real API server: the whole answer for an administrator, the installation's for the account of `helm test`."""

import copy
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from kubernetes import client

from longshore.install.probe import PARTS
from longshore.install.template import resolve
from longshore.install.values import merged
from tests.cluster.test_install import Account, longshore, pvb

ROOT = Path(__file__).resolve().parents[2]
VELERO = ("velero.io", "v1")


def status(kubeconfig, namespace, *words):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "longshore.cli.main",
            "status",
            "--kubeconfig",
            str(kubeconfig),
            "-n",
            namespace,
            *words,
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={"PYTHONPATH": str(ROOT / "python"), "HOME": os.environ["HOME"], "PATH": "/usr/bin:/bin"},
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def installed(api_server, api_client, kubectl, namespace):
    """An installation whose pods are said to run: no kubelet is here."""
    longshore(api_server, "install", "-n", namespace, "--bucket", "b")
    apps, custom = client.AppsV1Api(api_client), client.CustomObjectsApi(api_client)
    agent = {"desiredNumberScheduled": 1, "numberReady": 1, "currentNumberScheduled": 1, "numberMisscheduled": 0}
    apps.patch_namespaced_daemon_set_status("node-agent", namespace, {"status": {**agent, "observedGeneration": 1}})
    server = {"replicas": 1, "readyReplicas": 1, "observedGeneration": 1}
    apps.patch_namespaced_deployment_status("longshore-server", namespace, {"status": server})
    ready = {"status": {"phase": "Available"}}
    custom.patch_namespaced_custom_object(*VELERO, namespace, "backupstoragelocations", "default", ready)
    return namespace


def test_administrator_sees_every_volume(api_server, api_client, installed):
    core, custom = client.CoreV1Api(api_client), client.CustomObjectsApi(api_client)
    claim = core.create_namespaced_persistent_volume_claim(
        installed,
        {
            "metadata": {"name": "orders"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        },
    )
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "orders"}}, {"name": "tmp", "emptyDir": {}}]
    volumes.append({"name": "logs", "hostPath": {"path": "/var/log"}})
    spec = {"nodeName": "n", "containers": [{"name": "c", "image": "i"}], "volumes": volumes}
    core.create_namespaced_pod(installed, {"metadata": {"name": "db-0"}, "spec": spec})
    words = ("--include-namespaces", installed)
    code, out, _ = status(api_server.kubeconfig, installed, *words)
    assert code == 3 and "NOT everything is safe: 1 volume" in out and "never" in out
    body = pvb()
    body["metadata"]["labels"] = {"velero.io/pvc-uid": claim.metadata.uid}
    body["spec"]["pod"]["namespace"] = installed
    now = subprocess.run(
        ["date", "-u", "+%Y-%m-%dT%H:%M:%SZ"], capture_output=True, text=True, check=True
    ).stdout.strip()
    body["status"] = {
        "phase": "Completed",
        "startTimestamp": now,
        "completionTimestamp": now,
        "snapshotID": "ls0-1",
        "progress": {"totalBytes": 2048},
    }
    custom.create_namespaced_custom_object(*VELERO, installed, "podvolumebackups", body)
    code, out, err = status(api_server.kubeconfig, installed, *words)
    assert code == 0 and "everything is safe" in out and "2.0 KiB" in out, (out, err)
    # A folder of the node is counted, and named to programs.
    assert "logs" not in out and "not listed: 1 hostPath volume" in err
    code, out, _ = status(api_server.kubeconfig, installed, *words, "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    logs, volume = [line for line in lines if line.get("kind") == "Volume"]
    assert (logs["volume"], logs["state"]) == ("logs", "left out")
    assert (volume["state"], volume["size_bytes"], volume["last_success"]) == ("safe", 2048, now)
    assert lines[-1] | {"safe": True, "scratch": 1, "exit_code": 0} == lines[-1]
    # Of what failed since, the object that says so is named, and what it says.
    later = copy.deepcopy(body)
    later["metadata"] |= {"name": "later"}
    later["status"] |= {"phase": "Failed", "snapshotID": "", "message": "the store is full; make room"}
    for name in ("startTimestamp", "completionTimestamp"):
        later["status"][name] = (datetime.now(UTC) + timedelta(seconds=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
    custom.create_namespaced_custom_object(*VELERO, installed, "podvolumebackups", later)
    code, out, _ = status(api_server.kubeconfig, installed, *words)
    assert code == 3 and "failing" in out and "later: the store is full; make room" in out, out


def test_helm_tests_account_sees_the_installation_and_nothing_else(api_server, api_client, installed):
    core, rbac = client.CoreV1Api(api_client), client.RbacAuthorizationV1Api(api_client)
    made = [resolve(one, merged().tree(), namespace=installed) for _, one in PARTS[0].objects]
    core.create_namespaced_service_account(installed, made[0])
    rbac.create_namespaced_role(installed, made[1])
    rbac.create_namespaced_role_binding(installed, made[2])
    account = Account(api_server, installed, "longshore-test")
    code, out, err = status(account.kubeconfig, installed, "--installation")
    assert code == 0, (out, err)
    assert "DaemonSet node-agent: 1 of 1 ready" in out
    custom = client.CustomObjectsApi(api_client)
    away = {"status": {"phase": "Unavailable", "message": "no such bucket"}}
    custom.patch_namespaced_custom_object(*VELERO, installed, "backupstoragelocations", "default", away)
    code, out, _ = status(account.kubeconfig, installed, "--installation", "--wait", "1")
    assert code == 3 and "NOT   BackupStorageLocation default: Unavailable; no such bucket" in out
    # What it may not see is said, and is not called safe.
    code, _, err = status(account.kubeconfig, installed)
    assert code == 3 and "not looked at" in err
    account.close()
