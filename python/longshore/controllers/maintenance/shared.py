"""What the controllers of both kinds share: settings, places for runs, and the config map as it was read last.

It does not know when a run is due.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from longshore.api.model import JsonObject
from longshore.controllers.maintenance.settings import JobSettings, entry_name, read_settings
from longshore.errors import NotFoundError
from longshore.kube.client import KubeClient
from longshore.kube.clock import Clock
from longshore.kube.resource import CONFIG_MAPS

__all__ = ["MaintenanceSettings", "Places", "SettingsReader"]

_READ_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceSettings:
    """What the command line says of maintenance."""

    verify_frequency: timedelta = timedelta(days=7)
    """Zero for never; a config map and annotations go before it."""
    verify_parts: int = 1
    """In how many verifications everything is read once; a config map and annotations go before it."""
    runs_max: int = 3
    """How many runs may work at once in the cluster."""
    start_seconds: float = 600.0
    """After how long a run that does not start counts as failed."""
    config_map: str = ""
    """Velero's, for maintenance Jobs; empty for none."""
    keep: int = 3
    """How many ended Jobs of a repository stay, where the config map does not say."""


class Places:
    """How many runs may work at once; shared by the controllers of both kinds."""

    def __init__(self, places_max: int) -> None:
        self._places_max = places_max
        self._lock = threading.Lock()
        self._taken: dict[str, str] = {}

    def take(self, mark: str, uid: str) -> bool:
        """Take a place for a repository that is to begin, in the name of one of its objects; false when there is none."""
        with self._lock:
            if mark not in self._taken and len(self._taken) >= self._places_max:
                return False
            self._taken[mark] = uid
            return True

    def hold(self, mark: str, uid: str) -> None:
        """Note that a repository's run works, found as it is."""
        with self._lock:
            self._taken[mark] = uid

    def give(self, uid: str) -> None:
        """Give back what is held in an object's name; another object of the same repository keeps its own."""
        with self._lock:
            self._taken = {mark: holder for mark, holder in self._taken.items() if holder != uid}


class SettingsReader:
    """Reads the config map, at most once a minute."""

    def __init__(self, client: KubeClient, *, namespace: str, settings: MaintenanceSettings, clock: Clock) -> None:
        """Keep what is needed."""
        self._client = client
        self._namespace = namespace
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._data: dict[str, str] = {}
        self._read_at: float | None = None

    def settings_of(self, spec: JsonObject) -> JobSettings:
        """Give what holds for a repository.

        Raises:
            UsageError: the map says nonsense.
            LongshoreError: it cannot be read.
        """
        name = self._settings.config_map
        if not name:
            return JobSettings(keep=self._settings.keep)
        with self._lock:
            now = self._clock.monotonic()
            if self._read_at is None or now >= self._read_at + _READ_SECONDS:
                try:
                    found = self._client.get(CONFIG_MAPS, name, namespace=self._namespace)
                except NotFoundError:
                    found = {}
                self._data, self._read_at = dict(found.get("data") or {}), now
            data = self._data
        entry = entry_name(
            namespace=str(spec.get("volumeNamespace") or ""),
            location=str(spec.get("backupStorageLocation") or ""),
            type_=str(spec.get("repositoryType") or "restic"),
        )
        return read_settings(data, entry=entry, where=f"{self._namespace}/{name}", keep=self._settings.keep)
