"""`longshore node-agent`: everything that runs on a node, put together.

One process for each node: informers of the node's pods and of PVBs and PVRs, two controllers, the tasks that both share, the node's Lease, open repositories,
events, metrics and probes. What is decided stands in :mod:`longshore.controllers`.

Promises
- Nothing that is InProgress is touched before the node's Lease is held. When it is lost every job is told to stop at once; jobs that have not stopped
  shortly before the lease lapses are stopped with the process, so that no two agents ever work at the same volume.
- `stop` (SIGTERM) ends intake, stops jobs and leaves their objects InProgress: the next instance finishes them, begins them again or fails them.
- All jobs together stay in one memory budget: each gets an equal part of `memory_limit_bytes`. They share the limits of traffic and requests, whichever
  repositories they are about, and their threads stand behind those of controllers and Lease.

It does not know flags: the command line makes :class:`AgentSettings`.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry

from longshore.api.repository import CONDITION_RECOVERY_KEY_MISSING
from longshore.controllers.claims import lease_name
from longshore.controllers.cluster import ClusterReader
from longshore.controllers.datapath_metrics import DataPathMetrics
from longshore.controllers.job_metrics import JobMetrics
from longshore.controllers.limits import Bounds, LimitsFolder
from longshore.controllers.pod_volume import AgentContext, PodVolumeController
from longshore.controllers.pod_volume_backup import PodVolumeBackupController
from longshore.controllers.pod_volume_restore import PodVolumeRestoreController
from longshore.controllers.ports import Allowance, DataPath
from longshore.controllers.repositories import Repositories
from longshore.controllers.repository_keys import KEY_ALONE, SAVE_KEY, SECRET_ROOT, RepositoryKeys
from longshore.controllers.tasks import Interruption, Tasks
from longshore.controllers.volume_metrics import VolumeMetrics
from longshore.errors import LeaseLostError, UsageError
from longshore.kube.client import KubeClient
from longshore.kube.clock import SYSTEM_CLOCK, Clock
from longshore.kube.events import EventRecorder, EventType
from longshore.kube.informer import Informer
from longshore.kube.leases import LeaseElector, LeaseTimes
from longshore.kube.resource import PODS, JsonObject, key_of, object_key
from longshore.logs import get_logger
from longshore.metrics import AgentMetrics, HttpFace
from longshore.runtime.controller import Controller, EnqueueKeys
from longshore.runtime.manager import Manager
from longshore.runtime.metrics import ManagerMetrics, PrometheusQueueMetrics
from longshore.runtime.process import run_in_cluster
from longshore.runtime.queue import Queue

__all__ = ["AgentSettings", "NodeAgent", "lease_name", "run"]

_log = get_logger(__name__)

_RESYNC_SECONDS: Final = 60.0
_WORKERS: Final = 4
_LEASE_SHARE: Final = 0.8
"""Of the time between our giving the lease up and others being free to take it, how much jobs have to stop."""
_EXIT_HARD: Final = 70
_POD_INDEX: Final = "pod"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """What the command line says."""

    node_name: str
    namespace: str = "velero"
    kubeconfig: str | None = None
    host_pods_root: Path = Path("/host_pods")
    cache_dir: Path | None = None
    cache_limit_bytes: int | None = None
    """For the caches of all repositories together; None for the data path's own limit."""
    metrics_address: str = ":8085"
    concurrency: int = 2
    memory_limit_bytes: int | None = None
    """For all jobs together; None lets the data path choose for each (:func:`fitted` chooses for all)."""
    grace_seconds: float = 25.0
    """How long jobs may take to stop; less than the pod's terminationGracePeriodSeconds, which is 30 by default."""
    outage_seconds_max: float = 3600.0
    """For how long an object waits for a store that is away."""
    unclaimed_seconds: float = 600.0
    """How old a New restore is before it is looked up whether its pod is anywhere at all."""
    resync_seconds: float = _RESYNC_SECONDS
    progress_seconds: float = 3.0
    restore_allow: frozenset[Allowance] = frozenset()
    """What a restore that says nothing itself may bring back although it lends rights."""
    bounds: Bounds = field(default_factory=Bounds)
    """What all jobs together may take of network and stores where `limits_dir` does not say."""
    limits_dir: Path | None = None
    """A folder with limits that are looked at again and again: :mod:`longshore.controllers.limits`."""
    nice: int | None = None
    """Niceness of the threads of jobs; None for the process's."""
    ionice: str = "none"
    """Class of what they read and write; none for the process's."""
    lease_times: LeaseTimes = field(default_factory=LeaseTimes)

    def __post_init__(self) -> None:
        if not self.node_name:
            raise UsageError("the node's name is missing", "give --node-name or NODE_NAME, as the DaemonSet does")
        if self.concurrency < 1:
            raise UsageError(f"not a number of jobs: concurrency={self.concurrency}", "give --concurrency 1 or more")


class NodeAgent:
    """One node's agent; `run` blocks until it is stopped."""

    def __init__(
        self,
        settings: AgentSettings,
        *,
        client: KubeClient,
        datapath: DataPath,
        stop: threading.Event,
        limits: LimitsFolder | None = None,
        instance: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
        die: Callable[[int], Any] = os._exit,
    ) -> None:
        """Put it together; nothing runs before `run`.

        Args:
            limits: what holds the data path to its limits; None for no limits.
            instance: names this very process, and is never used again; None makes one.
            die: ends the process without a last word.
        """
        self.settings: Final = settings
        self.instance: Final = instance or f"{socket.gethostname()}-{secrets.token_hex(6)}"
        self._clock = clock
        self._die = die
        self.manager: Final = Manager(stop=stop, clock=clock, grace_seconds=settings.grace_seconds)
        self.registry: Final = CollectorRegistry()
        queue_metrics = PrometheusQueueMetrics(self.registry)
        self.tasks: Final = Tasks(concurrency=settings.concurrency, clock=clock)
        self.events: Final = EventRecorder(
            client, component="longshore-node-agent", host=settings.node_name, clock=clock
        )
        metrics = AgentMetrics(
            self.registry, node=settings.node_name, running=self.tasks.running, concurrency=settings.concurrency
        )
        self.lease: Final = LeaseElector(
            client,
            name=lease_name(settings.node_name),
            namespace=settings.namespace,
            identity=self.instance,
            times=settings.lease_times,
            labels={"app.kubernetes.io/name": "longshore"},
            compete_again=True,
            on_started=self._on_lease_gained,
            on_lost=self._on_lease_lost,
            on_kept_waiting=self._tell_of_second,
            clock=clock,
        )
        cluster = ClusterReader(client, namespace=settings.namespace)
        keys = RepositoryKeys(client, namespace=settings.namespace, cluster=cluster)
        own_folders = () if settings.cache_dir is None else (settings.cache_dir,)
        self.repositories: Final = Repositories(
            datapath,
            cluster=cluster,
            keys=keys,
            forbidden_folders=(settings.host_pods_root, *own_folders),
            on_key_at_risk=self._tell_of_key,
            clock=clock,
        )
        context = AgentContext(
            client=client,
            lease=self.lease,
            tasks=self.tasks,
            recorder=self.events,
            observer=metrics,
            node=settings.node_name,
            instance=self.instance,
            clock=clock,
            progress_seconds=settings.progress_seconds,
            outage_seconds_max=settings.outage_seconds_max,
            unclaimed_seconds=settings.unclaimed_seconds,
            renew_credentials=self.repositories.renew_now,
        )
        share = None if settings.memory_limit_bytes is None else settings.memory_limit_bytes // settings.concurrency
        pods = Informer(
            client,
            PODS,
            field_selector=f"spec.nodeName={settings.node_name}",
            transform=_cut_pod,
            clock=clock,
        )
        queues = {
            kind: Queue[str](kind, clock=clock, metrics=queue_metrics)
            for kind in ("PodVolumeBackup", "PodVolumeRestore")
        }
        backups = PodVolumeBackupController(
            context,
            enqueue=queues["PodVolumeBackup"].add,
            cluster=cluster,
            repositories=self.repositories,
            host_root=settings.host_pods_root,
            memory_limit_bytes=share,
        )
        restores = PodVolumeRestoreController(
            context,
            enqueue=queues["PodVolumeRestore"].add,
            cluster=cluster,
            pods=pods,
            repositories=self.repositories,
            host_root=settings.host_pods_root,
            memory_limit_bytes=share,
            restore_owner=os.geteuid() == 0,
            allow=settings.restore_allow,
        )
        backup_informer = Informer(client, backups.resource, namespace=settings.namespace, clock=clock)
        restore_informer = Informer(
            client,
            restores.resource,
            namespace=settings.namespace,
            indexers={_POD_INDEX: _pod_of_restore},
            clock=clock,
        )
        self._controllers: list[Controller] = []
        self._add(backups, backup_informer, queues["PodVolumeBackup"], waiters=(backup_informer.has_synced,))
        self._add(
            restores,
            restore_informer,
            queues["PodVolumeRestore"],
            waiters=(restore_informer.has_synced, pods.has_synced),
        )
        # A pod that begins to wait, or goes, concerns the restores into it.
        pods.add_handler(
            EnqueueKeys(
                queues["PodVolumeRestore"],
                keys_of=lambda pod: [object_key(one) for one in restore_informer.by_index(_POD_INDEX, object_key(pod))],
            )
        )
        self.http: Final = HttpFace(
            settings.metrics_address, registry=self.registry, live=self.manager.live, ready=self.manager.ready
        )
        # Stopped from the last to the first: tasks before the lease, which is given back only when they have ended.
        watch = () if limits is None else (limits,)
        for component in (self.http, self.events, self.lease, self.repositories, *watch, self.tasks):
            self.manager.add_component(component)
        for informer in (pods, backup_informer, restore_informer):
            self.manager.add_informer(informer)
        self.registry.register(ManagerMetrics(self.manager))
        node = settings.node_name
        self.registry.register(DataPathMetrics(datapath.counts, labels={"node": node}))
        self.registry.register(JobMetrics(self.tasks, node=node, cache_dir=settings.cache_dir, clock=clock))
        self.registry.register(VolumeMetrics(lambda: [one for one in backup_informer.list() if backups.is_ours(one)]))

    def run(self) -> None:
        """Run until stopped.

        Raises:
            LongshoreError: a part failed and took the process with it.
        """
        settings = self.settings
        _log.info("Starting node agent", node=settings.node_name, namespace=settings.namespace, instance=self.instance)
        self.manager.run()
        _log.info("Stopped node agent", instance=self.instance)

    def _add(
        self,
        controller: PodVolumeController,
        informer: Informer,
        queue: Queue[str],
        *,
        waiters: tuple[Callable[[], bool], ...],
    ) -> None:
        def sweep() -> None:
            for key in {*informer.keys(), *controller.keys()}:
                queue.add(key)

        informer.add_handler(EnqueueKeys(queue))
        loop = Controller(
            controller.kind,
            sync=controller.sync,
            resync=sweep,
            resync_period_seconds=self.settings.resync_seconds,
            cache_sync_waiters=waiters,
            queue=queue,
            clock=self._clock,
        )
        self._controllers.append(loop)
        self._sweeps = [*getattr(self, "_sweeps", []), sweep]
        self.manager.add_controller(loop, workers=_WORKERS)

    def _tell_of_key(self, url: str) -> None:
        """Say where an operator looks that the key of a repository would be lost with the cluster; a server says it on its own objects too."""
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": SECRET_ROOT, "namespace": self.settings.namespace},
        }
        self.events.record(
            secret, EventType.WARNING, CONDITION_RECOVERY_KEY_MISSING, f"{KEY_ALONE}: repository={url}; {SAVE_KEY}"
        )
        _log.warning("Repository's key lives in this cluster only", url=url, next_step=SAVE_KEY)

    def _tell_of_second(self, lease: JsonObject) -> None:
        """Say that this agent does nothing, and because of whom: somebody started two on one node."""
        holder = (lease.get("spec") or {}).get("holderIdentity")
        node = self.settings.node_name
        step = "end one of the two; a DaemonSet starts one for each node"
        _log.warning(
            "Another agent works on this node", node=node, holder=holder, instance=self.instance, next_step=step
        )
        text = f"another agent works on this node, and this one does nothing meanwhile: node={node}, holder={holder}, instance={self.instance}; {step}"
        self.events.record(lease, EventType.WARNING, "SecondAgent", text)

    # -- the lease -------------------------------------------------------------------------------------------------------------

    def _on_lease_gained(self) -> None:
        for sweep in self._sweeps:
            sweep()

    def _on_lease_lost(self) -> None:
        self.tasks.interrupt_all(Interruption.LEASE)
        threading.Thread(target=self._end_before_lapse, name="lease-lost", daemon=True).start()

    def _end_before_lapse(self) -> None:
        times = self.settings.lease_times
        left = (times.duration_seconds - times.renew_deadline_seconds) * _LEASE_SHARE
        # A lease that is ours again was nobody else's in between: then the old jobs may take their time, and new ones must not end the process.
        if self.tasks.wait_interrupted(timeout_seconds=left) or self.lease.is_leader():
            return
        _log.critical(
            "Jobs did not stop before the lease lapses, ending the process",
            running=self.tasks.running(),
            error=LeaseLostError("another agent may begin"),
        )
        self._die(_EXIT_HARD)


def run(settings: AgentSettings, stop: threading.Event) -> int:
    """Run a node agent with the real data path until `stop` is set.

    Returns:
        The exit code.

    Raises:
        UsageError: the kubeconfig or service account cannot be read, or names no server.
    """
    from longshore import datapath
    from longshore.controllers.engine import EngineDataPath

    settings = fitted(settings)
    limits = datapath.Limits(nice=settings.nice, ionice=settings.ionice)
    watched = LimitsFolder(limits, flags=settings.bounds, folder=settings.limits_dir)

    def make(client: KubeClient) -> NodeAgent:
        return NodeAgent(
            settings,
            client=client,
            datapath=EngineDataPath(
                cache_dir=settings.cache_dir, cache_limit_bytes=settings.cache_limit_bytes, limits=limits
            ),
            stop=stop,
            limits=watched,
        )

    return run_in_cluster(make, kubeconfig=settings.kubeconfig, name="longshore-node-agent")


def fitted(settings: AgentSettings, *, root: Path = Path("/")) -> AgentSettings:
    """Give the settings with a memory budget, and with no more jobs at once than it holds.

    Each job needs a least amount; more of them than fit into the container's memory would end the agent instead of waiting for one another.
    """
    from longshore.datapath.machine import job_memory

    jobs, each = job_memory(settings.concurrency, total_bytes=settings.memory_limit_bytes, root=root)
    if jobs < settings.concurrency:
        _log.warning(
            "Fewer volumes are worked on at once than asked for; raise the memory limit",
            concurrency=jobs,
            asked_for=settings.concurrency,
            memory_bytes_each=each,
        )
    return replace(settings, concurrency=jobs, memory_limit_bytes=jobs * each)


def _pod_of_restore(obj: JsonObject) -> Iterable[str]:
    spec = obj.get("spec")
    pod = spec.get("pod") if isinstance(spec, dict) else None
    if not isinstance(pod, dict):
        return ()
    namespace, name = pod.get("namespace"), pod.get("name")
    return (key_of(namespace, name),) if isinstance(namespace, str) and isinstance(name, str) and name else ()


def _cut_pod(pod: JsonObject) -> JsonObject:
    """Keep what is asked of a pod: hundreds of them with environment and probes are megabytes."""
    metadata, spec, status = (pod.get(part) or {} for part in ("metadata", "spec", "status"))
    kept = ("name", "securityContext", "volumeDevices", "args")

    def containers(name: str) -> list[JsonObject]:
        return [{part: one[part] for part in kept if part in one} for one in spec.get(name) or []]

    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            part: metadata[part]
            for part in (
                "name",
                "namespace",
                "uid",
                "resourceVersion",
                "labels",
                "annotations",
                "ownerReferences",
                "deletionTimestamp",
            )
            if part in metadata
        },
        "spec": {
            "nodeName": spec.get("nodeName", ""),
            "volumes": spec.get("volumes") or [],
            "securityContext": spec.get("securityContext") or {},
            "containers": containers("containers"),
            "initContainers": containers("initContainers"),
        },
        "status": {
            "phase": status.get("phase", ""),
            "initContainerStatuses": status.get("initContainerStatuses") or [],
        },
    }
