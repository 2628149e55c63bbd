"""PodVolumeBackups that no agent takes on: an Event on each says whose node is named and that nobody is there.

A PodVolumeBackup belongs to the agent of `spec.node` alone. Where that is no node's name, or no agent runs there, it stays New for ever and nobody could tell.
Whether an agent runs is read from the node's Lease, which every agent holds before it claims anything. The phase is left alone: an agent that comes later does
the work, and the server's account writes no PodVolumeBackup.

Promises: it writes Events and, once for each object, a record of the log, and nothing else; a look asks for the Leases of at most :data:`_NODES_MAX` nodes,
and tells of at most :data:`_TOLD_MAX` objects.

It does not know volumes or repositories.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from longshore.api.model import JsonObject
from longshore.api.pod_volume import PodVolumePhase
from longshore.api.values import Timestamp
from longshore.controllers.claims import lease_name
from longshore.controllers.pod_volume import Lease, Recorder
from longshore.errors import LongshoreError, NotFoundError, UsageError
from longshore.kube.client import KubeClient
from longshore.kube.clock import SYSTEM_CLOCK, Clock
from longshore.kube.events import EventType
from longshore.kube.resource import LEASES
from longshore.logs import get_logger

__all__ = ["REASON", "UnclaimedBackups"]

_log = get_logger(__name__)

REASON: Final = "NoAgent"
_NODES_MAX: Final = 100
_TOLD_MAX: Final = 100
_LOGGED_MAX: Final = 10_000


class UnclaimedBackups:
    """Looks at all PodVolumeBackups now and then."""

    def __init__(
        self,
        client: KubeClient,
        *,
        namespace: str,
        lease: Lease,
        recorder: Recorder,
        age_seconds: float,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Prepare.

        Args:
            lease: the server's own.
            age_seconds: how long an agent may take to claim an object, and for how long a Lease that nobody renews counts.
        """
        self._client = client
        self._namespace = namespace
        self._lease = lease
        self._recorder = recorder
        self._age_seconds = age_seconds
        self._clock = clock
        self._logged: set[str] = set()

    def look(self, backups: Iterable[JsonObject]) -> None:
        """Tell of those that are old, New, and on a node without an agent.

        Raises:
            LongshoreError: a Lease could not be read.
        """
        if not self._lease.is_leader():
            return
        nodes: dict[str, bool] = {}
        told = 0
        for obj in backups:
            if told >= _TOLD_MAX or not self._is_waiting(obj):
                continue
            spec = obj.get("spec")
            named = spec.get("node") if isinstance(spec, dict) else None
            node = named if isinstance(named, str) else ""
            if node not in nodes:
                if len(nodes) >= _NODES_MAX:
                    continue
                nodes[node] = bool(node) and self._has_agent(node)
            if not nodes[node]:
                told += 1
                text = (
                    f"no agent takes this backup on, for none runs on the node that it names: field=spec.node, node={node!r}; "
                    "start the agent on that node, or delete this object and back up again"
                )
                self._recorder.record(obj, EventType.WARNING, REASON, text)
                self._log_once(obj, node, text)

    def _log_once(self, obj: JsonObject, node: str, text: str) -> None:
        """Log of an object once, however often it is looked at."""
        metadata = obj["metadata"]
        uid = str(metadata.get("uid") or metadata.get("name"))
        if uid in self._logged:
            return
        if len(self._logged) >= _LOGGED_MAX:
            self._logged.clear()
        self._logged.add(uid)
        key = f"{metadata.get('namespace')}/{metadata.get('name')}"
        _log.warning("No agent takes a backup on", key=key, node=node, reason=text)

    def _is_waiting(self, obj: JsonObject) -> bool:
        status = obj.get("status")
        phase = status.get("phase") if isinstance(status, dict) else None
        made = _time_of(obj["metadata"].get("creationTimestamp"))
        return phase in (None, "", PodVolumePhase.NEW) and made is not None and self._is_old(made)

    def _has_agent(self, node: str) -> bool:
        try:
            spec = self._client.get(LEASES, lease_name(node), namespace=self._namespace).get("spec") or {}
        except (NotFoundError, UsageError):
            # A name that has no place in a path is no node's.
            return False
        renewed = _time_of(spec.get("renewTime"))
        return bool(spec.get("holderIdentity")) and renewed is not None and not self._is_old(renewed)

    def _is_old(self, moment: datetime) -> bool:
        return (self._clock.now() - moment).total_seconds() >= self._age_seconds


def _time_of(text: object) -> datetime | None:
    try:
        return Timestamp(str(text or "")).time
    except LongshoreError:
        return None
