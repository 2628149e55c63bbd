"""Maintenance on a real API server, under the accounts that the installation makes: what is due becomes a Job, its command frees space in the bucket, and
its report fills the status. No kubelet and no Job controller run here: the test starts what the Job's pod would start, and writes what they would write.
"""

import json
import os
import subprocess
import sys

import boto3
import pytest
from kubernetes import client

from tests.cluster.node_rig import (
    AGENT,
    LEASES,
    ROOT,
    fill,
    keys_in_store,
    longshore,
    wait_for,
)
from tests.cluster.test_install import Account, installed, worked  # noqa: F401 - fixtures
from tests.support.processes import ChildProcess

KIND = "backuprepositories"
LONG_AGO = "2020-01-01T00:00:00Z"


@pytest.fixture
def account(api_server, installed):  # noqa: F811 - the fixture
    made = Account(api_server, installed, "longshore-server")
    yield made
    made.close()


class Kubelet:
    """Finds the server's Jobs and does with them what a kubelet and a Job controller do."""

    def __init__(self, cluster, account, api):
        self.cluster, self.account, self.api = cluster, account, api
        self.core, self.batch = client.CoreV1Api(api), client.BatchV1Api(api)
        self.environment = {
            "PYTHONPATH": str(ROOT / "python"),
            "HOME": str(cluster.folder),
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def server(self):
        words = ["server", "--kubeconfig", str(self.account.kubeconfig), "-n", self.cluster.namespace]
        words += ["--metrics-address", "127.0.0.1:0", "--cache-dir", str(self.cluster.folder / "server-cache")]
        started = ChildProcess(
            "server",
            [sys.executable, "-m", "longshore.cli.main", *words],
            log_path=self.cluster.folder / f"agent-server-{next(self.cluster.agents)}.log",
            env={**self.environment, "LONGSHORE_DEPLOYMENT": "longshore-server"},
        )
        self.cluster.running.append(started)
        return started

    def jobs(self):
        found = self.batch.list_namespaced_job(self.cluster.namespace).items
        return sorted(found, key=lambda job: int(job.metadata.annotations["longshore.io/run"]))

    def job(self, number):
        def look():
            return next(
                (job for job in self.jobs() if job.metadata.annotations["longshore.io/run"] == str(number)), None
            )

        return wait_for(look, seconds=90, what=f"run {number} begins")

    def run(self, job, *words):
        """Make the Job's pod, do what its container says, and write down how it ended."""
        name, labels = job.metadata.name, {**job.spec.template.metadata.labels, "job-name": job.metadata.name}
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job.metadata.uid, "controller": True}
        spec = self.api.sanitize_for_serialization(job.spec.template.spec)
        self.core.create_namespaced_pod(
            self.cluster.namespace,
            {
                "metadata": {"name": f"{name}-pod", "labels": labels, "ownerReferences": [owner]},
                "spec": {**spec, "nodeName": "node-1"},
            },
        )
        (container,) = spec["containers"]
        report = self.cluster.folder / f"{name}.report"
        cache = {"LONGSHORE_CACHE_DIR": str(self.cluster.folder / "job-cache")}
        done = subprocess.run(
            [sys.executable, "-m", "longshore.cli.main", *container["args"], *words, f"--result-file={report}",
             f"--kubeconfig={self.account.kubeconfig}"],
            env={**self.environment, **cache}, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        (self.cluster.folder / f"agent-{name}.log").write_text(done.stdout + done.stderr)
        self.end(job, exit_code=done.returncode, message=report.read_text())
        return done

    def end(self, job, *, exit_code, message):
        now = subprocess.run(
            ["date", "-u", "+%Y-%m-%dT%H:%M:%SZ"], capture_output=True, text=True, check=True
        ).stdout.strip()
        terminated = {
            "exitCode": exit_code,
            "reason": "Completed",
            "startedAt": now,
            "finishedAt": now,
            "message": message,
        }
        container = {"name": "maintenance", "image": "i", "imageID": "", "ready": False, "restartCount": 0}
        status = {"phase": "Succeeded", "containerStatuses": [{**container, "state": {"terminated": terminated}}]}
        self.core.patch_namespaced_pod_status(f"{job.metadata.name}-pod", self.cluster.namespace, {"status": status})
        types = ("SuccessCriteriaMet", "Complete") if exit_code == 0 else ("FailureTarget", "Failed")
        conditions = [
            {
                "type": one,
                "status": "True",
                "reason": "x",
                "message": "x",
                "lastTransitionTime": now,
                "lastProbeTime": now,
            }
            for one in types
        ]
        ended = {"succeeded": 1, "completionTime": now} if exit_code == 0 else {"failed": 1}
        first = {
            "startTime": now,
            "conditions": conditions[:1],
            "uncountedTerminatedPods": {},
            **({} if exit_code == 0 else ended),
        }
        self.batch.patch_namespaced_job_status(job.metadata.name, self.cluster.namespace, {"status": first})
        self.batch.patch_namespaced_job_status(
            job.metadata.name, self.cluster.namespace, {"status": {**ended, "conditions": conditions}}
        )


@pytest.fixture
def kubelet(worked, account, api_client):  # noqa: F811 - the fixture
    return Kubelet(worked, account, api_client)


def recent(cluster, name, field="recentMaintenance"):
    return cluster.status(KIND, name).get(field) or []


def condition_of(status, name):
    return {one["type"]: one["status"] for one in status["conditions"]}.get(name)


def delete_snapshot(cluster, s3, bucket, snapshot, folder):
    key = folder / "exported.key"
    said = longshore(cluster, "repo", "key", "export", key)
    assert said.returncode == 0, said.stderr
    url = f"s3://{bucket}/velero/plugins/longshore/{cluster.namespace}"
    environment = {
        "PYTHONPATH": str(ROOT / "python"),
        "HOME": str(folder),
        "PATH": os.environ["PATH"],
        "AWS_ACCESS_KEY_ID": s3.access_key,
        "AWS_SECRET_ACCESS_KEY": s3.secret_key,
        "AWS_ENDPOINT_URL": s3.endpoint_url,
        "AWS_REGION": s3.region,
    }
    words = ["volume", "delete", snapshot, "--yes", "--repository", url, "--key-file", str(key)]
    done = subprocess.run(
        [sys.executable, "-m", "longshore.cli.main", *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_due_repository_is_pruned_by_its_job_and_read_back(
    worked,  # noqa: F811 - the fixture
    kubelet,
    api_server,
    s3_server,
    bucket,
    tmp_path,
):
    uid, path = worked.pod("db-0")
    fill(path, seed=1, megabytes=16, files=20)
    # The administrator's account: what the agent's may do is proven elsewhere.
    worked.agent(
        "-c",
        AGENT.replace("LEASE_TIMES", LEASES["short"]),
        api_server.kubeconfig,
        worked.namespace,
        worked.pods_root,
        worked.cache,
    )
    worked.backup("first", "db-0", uid)
    first = worked.wait_phase("podvolumebackups", "first")["snapshotID"]
    (path / "big0").unlink()
    (path / "big1").write_bytes(b"another")
    worked.backup("second", "db-0", uid)
    assert worked.wait_phase("podvolumebackups", "second")["phase"] == "Completed"
    server = kubelet.server()
    name = f"{worked.namespace}-default-kopia"
    wait_for(lambda: repository_phase(worked, name) == "Ready", seconds=90, what="the repository is ready")
    assert kubelet.jobs() == []
    delete_snapshot(worked, s3_server, bucket, first, tmp_path)
    before = bytes_in(s3_server, bucket)
    patch(worked, name, {"status": {"lastMaintenanceTime": LONG_AGO}})
    job = kubelet.job(1)
    assert job.spec.template.spec.service_account_name == "longshore-server"
    # The server dies while its Job runs, and comes back when it has ended.
    server.stop(grace_seconds=0)
    done = kubelet.run(job)
    assert done.returncode == 0, done.stdout + done.stderr
    assert before - bytes_in(s3_server, bucket) > 10 << 20
    assert recent(worked, name) == []
    kubelet.server()
    wait_for(lambda: recent(worked, name), seconds=90, what="the run is recorded")
    status = worked.status(KIND, name)
    (entry,) = status["recentMaintenance"]
    assert entry["result"] == "Succeeded" and "freed space: bytes=" in entry["message"]
    assert status["lastMaintenanceTime"] == entry["completeTimestamp"] > "2026"
    assert condition_of(status, "MaintenanceFailed") == "False"
    # Shown by the look that recorded the run, in a write of its own.
    wait_for(
        lambda: condition_of(worked.status(KIND, name), "MaintenanceDue") == "False",
        seconds=30,
        what="maintenance is no longer due",
    )

    # What is left is read back, the same way.
    patch(worked, name, {"status": {"lastVerificationTime": LONG_AGO}})
    job = kubelet.job(2)
    assert kubelet.run(job).returncode == 0
    wait_for(lambda: recent(worked, name, "recentVerification"), seconds=90, what="the verification is recorded")
    assert "snapshots=1" in recent(worked, name, "recentVerification")[0]["message"]

    # And damage is found and told.
    damage(s3_server, bucket)
    ledger = json.loads(worked.get(KIND, name)["metadata"]["annotations"]["longshore.io/maintenance"])
    ledger["verification"]["succeeded"] = LONG_AGO
    patch(
        worked,
        name,
        {
            "metadata": {"annotations": {"longshore.io/maintenance": json.dumps(ledger)}},
            "status": {"lastVerificationTime": LONG_AGO},
        },
    )
    job = kubelet.job(3)
    assert kubelet.run(job).returncode == 1
    wait_for(lambda: len(recent(worked, name, "recentVerification")) == 2, seconds=90, what="the damage is recorded")
    assert "the repository is damaged: snapshots_hurt=1" in worked.status(KIND, name)["message"]
    events = wait_for(
        lambda: [
            one
            for one in kubelet.core.list_namespaced_event(worked.namespace).items
            if one.reason == "VerificationFailed"
        ],
        seconds=30,
        what="an event is written",
    )
    assert events[0].involved_object.name == name
    assert len(recent(worked, name)) == 1
    said = worked.logs()
    assert "forbidden" not in said.lower() and "denied" not in said.lower(), said


def repository_phase(cluster, name):
    found = cluster.custom.list_namespaced_custom_object("velero.io", "v1", cluster.namespace, KIND)["items"]
    return next(((one.get("status") or {}).get("phase") for one in found if one["metadata"]["name"] == name), None)


def patch(cluster, name, body):
    cluster.custom.patch_namespaced_custom_object(
        "velero.io", "v1", cluster.namespace, KIND, name, body, _content_type="application/merge-patch+json"
    )


def s3_of(s3):
    return boto3.client(
        "s3",
        endpoint_url=s3.endpoint_url,
        region_name=s3.region,
        aws_access_key_id=s3.access_key,
        aws_secret_access_key=s3.secret_key,
    )


def bytes_in(s3, bucket):
    pages = s3_of(s3).get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return sum(one["Size"] for page in pages for one in page.get("Contents", ()))


def damage(s3, bucket):
    """Flip a byte in the middle of the largest object."""
    api = s3_of(s3)
    pages = api.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    largest = max(
        (one for page in pages for one in page.get("Contents", ()) if "/packs/" in one["Key"]),
        key=lambda one: one["Size"],
    )
    body = bytearray(api.get_object(Bucket=bucket, Key=largest["Key"])["Body"].read())
    body[len(body) // 2] ^= 1
    api.put_object(Bucket=bucket, Key=largest["Key"], Body=bytes(body))


def test_run_without_a_repository_makes_none_and_reports(worked, kubelet):  # noqa: F811 - the fixture
    spec = {"volumeNamespace": "x", "backupStorageLocation": "default", "maintenanceFrequency": "24h"}
    body = {"apiVersion": "velero.io/v1", "kind": "BackupRepository", "metadata": {"name": "r"}, "spec": spec}
    worked.custom.create_namespaced_custom_object("velero.io", "v1", worked.namespace, KIND, body)
    report = worked.folder / "report"
    where = ["-n", worked.namespace, "--kubeconfig", str(kubelet.account.kubeconfig), f"--result-file={report}"]
    done = subprocess.run(
        [sys.executable, "-m", "longshore.cli.main", "repo", "maintain", "r", *where],
        env=kubelet.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1 and "no repository" in json.loads(report.read_text())["message"]
    assert keys_in_store(worked) == []
