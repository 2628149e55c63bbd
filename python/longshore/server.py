"""`longshore server`: the one process that serves what does not belong to a node, put together.

BackupStorageLocations, BackupRepositories and ResticRepositories with their maintenance; one leader among several replicas. What is decided stands in
:mod:`longshore.controllers`.

Promises: a replica that is not the leader writes nothing but its Lease; one that loses it ends, and the kubelet starts it again.

It does not know flags: the command line makes :class:`ServerSettings`.
"""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry

from longshore.api.names import POD_VOLUME_BACKUPS
from longshore.api.repository import BackupRepository, ResticRepository
from longshore.controllers.backup_repository import BackupRepositoryController, ensure_repositories
from longshore.controllers.backup_storage_location import BackupStorageLocationController
from longshore.controllers.cluster import ClusterReader, resource_of
from longshore.controllers.datapath_metrics import DataPathMetrics
from longshore.controllers.maintenance.controller import MaintenanceController
from longshore.controllers.maintenance.jobs import JobRunner
from longshore.controllers.maintenance.local import LocalRunner
from longshore.controllers.maintenance.runs import Runner
from longshore.controllers.maintenance.shared import MaintenanceSettings, Places, SettingsReader
from longshore.controllers.ports import DataPath
from longshore.controllers.repositories import Repositories
from longshore.controllers.repository_keys import RepositoryKeys
from longshore.controllers.unclaimed import UnclaimedBackups
from longshore.controllers.volume_metrics import VolumeMetrics
from longshore.kube.client import KubeClient
from longshore.kube.clock import SYSTEM_CLOCK, Clock
from longshore.kube.events import EventRecorder
from longshore.kube.informer import Informer
from longshore.kube.leases import LeaseElector, LeaseTimes
from longshore.logs import get_logger
from longshore.metrics import HttpFace, ServerMetrics
from longshore.runtime.controller import Controller, EnqueueKeys, SyncHandler
from longshore.runtime.manager import Manager
from longshore.runtime.metrics import ManagerMetrics, PrometheusQueueMetrics
from longshore.runtime.process import run_in_cluster
from longshore.runtime.queue import Queue

__all__ = ["MaintenanceMode", "Server", "ServerSettings", "run"]

_log = get_logger(__name__)

_LEASE: Final = "longshore-server"
_RESYNC_SECONDS: Final = 60.0
_WORKERS: Final = 2


class MaintenanceMode(StrEnum):
    """Where maintenance of repositories runs."""

    JOB = "job"
    SERVER = "server"
    OFF = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """What the command line says."""

    namespace: str = "velero"
    kubeconfig: str | None = None
    metrics_address: str = ":8085"
    cache_dir: Path | None = None
    cache_limit_bytes: int | None = None
    """For the caches of all repositories together; None for the data path's own limit."""
    default_backup_storage_location: str = "default"
    store_validation_frequency_seconds: float = 60.0
    repository_look_seconds: float = 300.0
    repository_frequency: timedelta = timedelta(days=1)
    """Maintenance frequency of the repository objects that the server makes."""
    maintenance_mode: MaintenanceMode = MaintenanceMode.SERVER
    deployment: str = ""
    """The server's own, from which Jobs are made; needed for them."""
    maintenance: MaintenanceSettings = field(default_factory=MaintenanceSettings)
    unclaimed_seconds: float = 600.0
    """How old a PodVolumeBackup is before it is told that no agent takes it on."""
    resync_seconds: float = _RESYNC_SECONDS
    grace_seconds: float = 20.0
    lease_times: LeaseTimes = field(default_factory=LeaseTimes)


class Server:
    """The server; `run` blocks until it is stopped."""

    def __init__(
        self,
        settings: ServerSettings,
        *,
        client: KubeClient,
        datapath: DataPath,
        stop: threading.Event,
        instance: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Put it together; nothing runs before `run`.

        Args:
            instance: names this very process, and is never used again; None makes one.
        """
        self.settings: Final = settings
        self.instance: Final = instance or f"{socket.gethostname()}-{secrets.token_hex(6)}"
        self._client = client
        self._clock = clock
        self.manager: Final = Manager(stop=stop, clock=clock, grace_seconds=settings.grace_seconds)
        self.registry: Final = CollectorRegistry()
        self._queue_metrics = PrometheusQueueMetrics(self.registry)
        metrics = ServerMetrics(self.registry)
        self.events: Final = EventRecorder(client, component="longshore-server", clock=clock)
        self._sweeps: list[Callable[[], None]] = []
        self.lease: Final = LeaseElector(
            client,
            name=_LEASE,
            namespace=settings.namespace,
            identity=self.instance,
            times=settings.lease_times,
            on_started=self._on_lease_gained,
            clock=clock,
        )
        cluster = ClusterReader(client, namespace=settings.namespace)
        own_folders = () if settings.cache_dir is None else (settings.cache_dir,)
        self.repositories: Final = Repositories(
            datapath,
            cluster=cluster,
            keys=RepositoryKeys(client, namespace=settings.namespace, cluster=cluster),
            forbidden_folders=own_folders,
            clock=clock,
        )
        locations = BackupStorageLocationController(
            client,
            cluster=cluster,
            lease=self.lease,
            recorder=self.events,
            metrics=metrics,
            namespace=settings.namespace,
            default_location=settings.default_backup_storage_location,
            frequency_seconds=settings.store_validation_frequency_seconds,
            forbidden_folders=own_folders,
            clock=clock,
        )
        self._locations = locations
        self._informers: dict[str, Informer] = {}
        self._add(
            locations.kind,
            locations.sync,
            Informer(client, locations.resource, namespace=settings.namespace, clock=clock),
        )
        for model in (BackupRepository, ResticRepository):
            controller = BackupRepositoryController(
                model,
                client,
                cluster=cluster,
                repositories=self.repositories,
                lease=self.lease,
                recorder=self.events,
                metrics=metrics,
                clock=clock,
                look_seconds=settings.repository_look_seconds,
            )
            informer = Informer(client, controller.resource, namespace=settings.namespace, clock=clock)
            self._add(controller.kind, controller.sync, informer)
        self._add_maintenance(cluster, metrics)
        backups = Informer(client, resource_of(POD_VOLUME_BACKUPS), namespace=settings.namespace, clock=clock)
        self._informers[POD_VOLUME_BACKUPS.kind] = backups
        # One key stands for the whole: which repositories are wanted is found by looking at all backups.
        ensure = Queue[str]("EnsureRepositories", clock=clock, metrics=self._queue_metrics)
        backups.add_handler(EnqueueKeys(ensure, keys_of=lambda _obj: ("all",)))
        self._add_controller(
            Controller(
                "EnsureRepositories",
                sync=self._ensure,
                resync=lambda: ensure.add("all"),
                resync_period_seconds=settings.resync_seconds,
                cache_sync_waiters=(backups.has_synced, self._informers[BackupRepository.definition.kind].has_synced),
                queue=ensure,
                clock=clock,
            ),
            sweep=lambda: ensure.add("all"),
        )
        self._add_unclaimed(backups)
        self.http: Final = HttpFace(
            settings.metrics_address, registry=self.registry, live=self.manager.live, ready=self.manager.ready
        )
        for component in (self.http, self.events, self.lease, self.repositories):
            self.manager.add_component(component)
        for one in self._informers.values():
            self.manager.add_informer(one)
        self.registry.register(ManagerMetrics(self.manager))
        self.registry.register(VolumeMetrics(backups.list))
        self.registry.register(DataPathMetrics(datapath.counts))

    def run(self) -> None:
        """Run until stopped.

        Raises:
            LongshoreError: a part failed and took the process with it, as a lost lease does.
        """
        _log.info("Starting server", namespace=self.settings.namespace, instance=self.instance)
        self.manager.run()
        _log.info("Stopped server", instance=self.instance)

    def _ensure(self, _key: str) -> None:
        if not self.lease.is_leader():
            return
        self._locations.see_to_default()
        ensure_repositories(
            self._client,
            namespace=self.settings.namespace,
            pod_volume_backups=self._informers[POD_VOLUME_BACKUPS.kind].list(),
            known=self._informers[BackupRepository.definition.kind].list(),
            frequency=self.settings.repository_frequency,
        )

    def _add_unclaimed(self, backups: Informer) -> None:
        look = UnclaimedBackups(
            self._client,
            namespace=self.settings.namespace,
            lease=self.lease,
            recorder=self.events,
            age_seconds=self.settings.unclaimed_seconds,
            clock=self._clock,
        )
        queue = Queue[str]("UnclaimedBackups", clock=self._clock, metrics=self._queue_metrics)
        self._add_controller(
            Controller(
                "UnclaimedBackups",
                sync=lambda _key: look.look(backups.list()),
                resync=lambda: queue.add("all"),
                resync_period_seconds=self.settings.resync_seconds,
                cache_sync_waiters=(backups.has_synced,),
                queue=queue,
                clock=self._clock,
            ),
            sweep=lambda: queue.add("all"),
        )

    def _add_maintenance(self, cluster: ClusterReader, metrics: ServerMetrics) -> None:
        settings = self.settings
        runner: Runner | None = None
        match settings.maintenance_mode:
            case MaintenanceMode.JOB:
                runner = JobRunner(self._client, namespace=settings.namespace, deployment=settings.deployment)
            case MaintenanceMode.SERVER:
                runner = LocalRunner(self.repositories, clock=self._clock)
                self.manager.add_component(runner)
            case MaintenanceMode.OFF:
                runner = None
        places = Places(settings.maintenance.runs_max)
        reader = SettingsReader(
            self._client, namespace=settings.namespace, settings=settings.maintenance, clock=self._clock
        )
        informers = [self._informers[model.definition.kind] for model in (BackupRepository, ResticRepository)]
        for model in (BackupRepository, ResticRepository):
            controller = MaintenanceController(
                model,
                self._client,
                cluster=cluster,
                runner=runner,
                settings=settings.maintenance,
                reader=reader,
                places=places,
                peers=lambda: [one for informer in informers for one in informer.list()],
                lease=self.lease,
                recorder=self.events,
                metrics=metrics,
                clock=self._clock,
            )
            synced = [informer.has_synced for informer in informers]
            informer = self._informers[controller.kind]
            self._add(f"{controller.kind}Maintenance", controller.sync, informer, waits_for=synced)

    def _add(
        self, name: str, sync: SyncHandler, informer: Informer, *, waits_for: Sequence[Callable[[], bool]] = ()
    ) -> None:
        queue = Queue[str](name, clock=self._clock, metrics=self._queue_metrics)

        def sweep() -> None:
            for key in informer.keys():  # noqa: SIM118 - an informer is no dictionary
                queue.add(key)

        informer.add_handler(EnqueueKeys(queue))
        self._informers.setdefault(name, informer)
        controller = Controller(
            name,
            sync=sync,
            resync=sweep,
            resync_period_seconds=self.settings.resync_seconds,
            cache_sync_waiters=(informer.has_synced, *waits_for),
            queue=queue,
            clock=self._clock,
        )
        self._add_controller(controller, sweep=sweep)

    def _add_controller(self, controller: Controller, *, sweep: Callable[[], None]) -> None:
        self._sweeps.append(sweep)
        self.manager.add_controller(controller, workers=_WORKERS)

    def _on_lease_gained(self) -> None:
        for sweep in self._sweeps:
            sweep()


def run(settings: ServerSettings, stop: threading.Event) -> int:
    """Run a server with the real data path until `stop` is set.

    Returns:
        The exit code.

    Raises:
        UsageError: the kubeconfig or service account cannot be read, or names no server.
    """
    from longshore.controllers.engine import EngineDataPath

    def make(client: KubeClient) -> Server:
        return Server(
            settings,
            client=client,
            datapath=EngineDataPath(cache_dir=settings.cache_dir, cache_limit_bytes=settings.cache_limit_bytes),
            stop=stop,
        )

    return run_in_cluster(make, kubeconfig=settings.kubeconfig, name="longshore-server")
