"""Maintenance in a cluster that stands still: time moves by hand, and the test plays the kubelet and the Job controller.

`Upkeep.look()` is one call of the controller; `end` and `pod` write what the kubelet and the Job controller would.
"""

from prometheus_client import CollectorRegistry, generate_latest

from longshore.api.names import DEFINITIONS
from longshore.api.repository import BackupRepository, ResticRepository
from longshore.controllers.cluster import ClusterReader, resource_of
from longshore.controllers.maintenance.controller import MaintenanceController
from longshore.controllers.maintenance.jobs import JobRunner
from longshore.controllers.maintenance.ledger import Outcome
from longshore.controllers.maintenance.shared import MaintenanceSettings, Places, SettingsReader
from longshore.kube.client import KubeClient
from longshore.kube.clock import format_time
from longshore.kube.fake import FakeApiServer
from longshore.kube.fake.clock import ManualClock
from longshore.kube.resource import CONFIG_MAPS, DEPLOYMENTS, JOBS, PODS
from longshore.metrics import ServerMetrics

NAMESPACE = "velero"
RESOURCES = {definition.kind: resource_of(definition) for definition in DEFINITIONS}
REPOSITORY, RESTIC = RESOURCES["BackupRepository"], RESOURCES["ResticRepository"]
HOUR = 3600
DEPLOYMENT = {
    "metadata": {"name": "longshore-server"},
    "spec": {
        "template": {
            "metadata": {
                "labels": {"component": "longshore-server", "azure.workload.identity/use": "true"},
                "annotations": {"kubectl.kubernetes.io/default-container": "longshore-server", "iam": "role"},
            },
            "spec": {
                "serviceAccountName": "longshore-server",
                "nodeSelector": {"kubernetes.io/os": "linux"},
                "securityContext": {"runAsNonRoot": True},
                "affinity": {"podAntiAffinity": {"x": "y"}, "nodeAffinity": {"n": "a"}},
                "containers": [
                    {"name": "sidecar", "image": "other"},
                    {
                        "name": "longshore-server",
                        "image": "registry/longshore:1",
                        "command": ["/velero"],
                        "args": ["server", "--log-format=json"],
                        "env": [{"name": "LONGSHORE_CACHE_DIR", "value": "/scratch/longshore"}],
                        "ports": [{"containerPort": 8085}],
                        "livenessProbe": {"httpGet": {"path": "/healthz", "port": 8085}},
                        "resources": {"limits": {"memory": "512Mi"}},
                        "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
                        "securityContext": {"readOnlyRootFilesystem": True},
                    },
                ],
                "volumes": [{"name": "scratch", "emptyDir": {}}],
            },
        }
    },
}


def good(freed=7):
    return Outcome(succeeded=True, message="freed", figures={"bytes_freed": freed}).text()


class Recorder:
    def __init__(self, warnings):
        self.events, self._warnings = [], warnings

    def record(self, obj, event_type, reason, message):
        self._warnings.see(event_type, reason, message)
        self.events.append((str(event_type), reason, message))


class Leader:
    leads = True

    def is_leader(self):
        return self.leads


class Upkeep:
    """A server's maintenance, one repository object, and its Jobs."""

    def __init__(self, server: FakeApiServer, clock: ManualClock, store, warnings):
        self.server, self.clock, self.store, self.warnings = server, clock, store, warnings
        self.client = KubeClient.from_kubeconfig(server.kubeconfig_path)
        for resource in RESOURCES.values():
            server.register(resource)
        self.location()
        server.put(DEPLOYMENTS, DEPLOYMENT, namespace=NAMESPACE)
        self.restart()

    def close(self):
        self.client.close()

    def location(self, **spec):
        body = {"provider": "filesystem", "config": {"path": str(self.store)}, **spec}
        self.server.put(
            RESOURCES["BackupStorageLocation"], {"metadata": {"name": "default"}, "spec": body}, namespace=NAMESPACE
        )

    def restart(self, *, runner="jobs", **settings):
        """A server that knows nothing: a new process, or the first."""
        self.recorder, self.lease = Recorder(self.warnings), Leader()
        self.registry = CollectorRegistry()
        metrics, places = ServerMetrics(self.registry), Places(settings.pop("places", 3))
        said = MaintenanceSettings(**settings)
        if runner == "jobs":
            runner = JobRunner(self.client, namespace=NAMESPACE, deployment="longshore-server")
        self.controllers = {
            model.definition.kind: MaintenanceController(
                model,
                self.client,
                cluster=ClusterReader(self.client, namespace=NAMESPACE),
                runner=runner,
                settings=said,
                reader=SettingsReader(self.client, namespace=NAMESPACE, settings=said, clock=self.clock),
                places=places,
                peers=lambda: [*self.server.objects(REPOSITORY), *self.server.objects(RESTIC)],
                lease=self.lease,
                recorder=self.recorder,
                metrics=metrics,
                clock=self.clock,
            )
            for model in (BackupRepository, ResticRepository)
        }

    def repository(self, name="shop-default-kopia", *, resource=REPOSITORY, phase="Ready", ago=25 * HOUR, **spec):
        """Make one whose last maintenance, and last verification, were so long ago."""
        at = format_time(
            self.clock.now().__class__.fromtimestamp(self.clock.now().timestamp() - ago, self.clock.now().tzinfo)
        )
        body = {
            "metadata": {"name": name},
            "spec": {
                "volumeNamespace": "shop",
                "backupStorageLocation": "default",
                "maintenanceFrequency": "24h0m0s",
                "repositoryType": "kopia",
                **spec,
            },
            "status": {"phase": phase, "lastMaintenanceTime": at, "lastVerificationTime": at},
        }
        self.server.put(resource, body, namespace=NAMESPACE)
        return name

    def look(self, name="shop-default-kopia", *, kind="BackupRepository"):
        return self.controllers[kind].sync(f"{NAMESPACE}/{name}")

    def status(self, name="shop-default-kopia", *, resource=REPOSITORY):
        return self.server.get(resource, name, namespace=NAMESPACE).get("status") or {}

    def condition(self, type_, name="shop-default-kopia", *, resource=REPOSITORY):
        found = [one for one in self.status(name, resource=resource).get("conditions") or [] if one["type"] == type_]
        return found[0] if found else None

    def jobs(self):
        return sorted(
            self.server.objects(JOBS), key=lambda job: int(job["metadata"]["annotations"]["longshore.io/run"])
        )

    def config_map(self, **data):
        self.server.put(CONFIG_MAPS, {"metadata": {"name": "maintenance"}, "data": data}, namespace=NAMESPACE)

    def metrics(self):
        return generate_latest(self.registry).decode()

    # -- the kubelet and the Job controller -----------------------------------------------------------------------------------------

    def pod(self, job, **status):
        metadata = job["metadata"]
        body = {
            "metadata": {
                "name": f"{metadata['name']}-x",
                "labels": {**job["spec"]["template"]["metadata"]["labels"], "job-name": metadata["name"]},
                "ownerReferences": [
                    {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"]}
                ],
            },
            "spec": job["spec"]["template"]["spec"],
            "status": status,
        }
        self.server.put(PODS, body, namespace=NAMESPACE)

    def given_up(self, job, *, seconds):
        """Wait out a run's time: it is waited for until then, and no longer. Gives what is recorded of it."""
        self.clock.advance(seconds - 1)
        self.look()
        assert self.jobs() == [job]
        self.clock.advance(2)
        self.look()
        assert self.jobs() == []
        (entry,) = self.status()["recentMaintenance"]
        assert entry["result"] == "Failed"
        return entry["message"]

    def end(self, job, *, ok=True, text="", reason="Completed", seconds=60, with_pod=True):
        """Let a Job's pod run for a while and end."""
        began = format_time(self.clock.now())
        self.clock.advance(seconds)
        now = format_time(self.clock.now())
        if with_pod:
            terminated = {
                "exitCode": 0 if ok else 1,
                "reason": reason,
                "startedAt": began,
                "finishedAt": now,
                "message": text,
            }
            self.pod(
                job,
                phase="Succeeded" if ok else "Failed",
                containerStatuses=[{"name": "maintenance", "state": {"terminated": terminated}}],
            )
        condition = {"type": "Complete" if ok else "Failed", "status": "True", "lastTransitionTime": now}
        if not ok:
            condition |= {"reason": "BackoffLimitExceeded", "message": "Job has reached the specified backoff limit"}
        status = {"startTime": began, "conditions": [condition], **({"completionTime": now} if ok else {})}
        self.server.put(JOBS, {**job, "status": status}, namespace=NAMESPACE)
