"""The data path in the shape that controllers ask for: locations become stores, requests become options.

Promises: what a location says about TLS, certificates, encryption, checksums and read-only access reaches the data path; nothing is decided here.

It does not know objects of ours.
"""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Sequence
from pathlib import Path

from longshore import datapath
from longshore.controllers.ports import (
    Allowance,
    BackupRequest,
    BackupResult,
    Job,
    KeySlot,
    Place,
    Repository,
    RestoreRequest,
    RestoreResult,
    RootKey,
    RootKeyKind,
    Snapshot,
)
from longshore.errors import StoreUnavailableError
from longshore.logs import get_logger
from longshore.objectstore.credentials import Credentials
from longshore.objectstore.settings import AwsSettings, FilesystemSettings, repository_prefix

__all__ = ["EngineDataPath", "store_of"]

_log = get_logger(__name__)


class EngineDataPath:
    """Fits :class:`longshore.controllers.ports.DataPath`."""

    def __init__(
        self,
        *,
        cache_dir: Path | None = None,
        cache_limit_bytes: int | None = None,
        limits: datapath.Limits | None = None,
    ) -> None:
        """Keep the folder.

        Args:
            cache_dir: where local caches lie; everything works without them.
            cache_limit_bytes: what they may take together; None for the data path's own limit.
            limits: what jobs of all repositories share; None for limits of each repository's own.
        """
        self._cache_dir = cache_dir
        self._cache_limit_bytes = cache_limit_bytes
        self._limits = limits

    def counts(self) -> datapath.Counts:
        """See :class:`longshore.controllers.ports.DataPath`."""
        return datapath.counts()

    def exists(self, place: Place) -> bool:
        """See :class:`longshore.controllers.ports.DataPath`."""
        return datapath.exists(store_of(place))

    def init(self, place: Place, key: RootKey, *, label: str) -> Repository:
        """See :class:`longshore.controllers.ports.DataPath`."""
        opened = datapath.init(
            store_of(place),
            _key(key),
            cache_dir=self._cache(),
            cache_limit_bytes=self._cache_limit_bytes,
            limits=self._limits,
            label=label,
        )
        return _EngineRepository(opened)

    def open(self, place: Place, key: RootKey) -> Repository:
        """See :class:`longshore.controllers.ports.DataPath`."""
        return _EngineRepository(
            datapath.open(
                store_of(place),
                _key(key),
                cache_dir=self._cache(),
                cache_limit_bytes=self._cache_limit_bytes,
                limits=self._limits,
            )
        )

    def _cache(self) -> Path | None:
        if self._cache_dir is None:
            return None
        try:
            self._cache_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as err:
            _log.warning("Working without a cache", path=str(self._cache_dir), error=err)
            return None
        return self._cache_dir


class _EngineRepository:
    """Fits :class:`longshore.controllers.ports.Repository`."""

    def __init__(self, opened: datapath.Repository) -> None:
        self._opened = opened

    @property
    def id(self) -> str:
        return self._opened.id

    @property
    def slot(self) -> str:
        return self._opened.slot

    def snapshots(self) -> Sequence[Snapshot]:
        listed = self._opened.snapshots()
        for snapshot_id, message in listed.damaged:
            _log.warning("Snapshot cannot be read", snapshot=snapshot_id, reason=message, repository=self.id)
        return listed.rows

    def slots(self) -> Sequence[KeySlot]:
        return self._opened.slots()

    def add_slot(self, key: RootKey, *, label: str) -> str:
        return self._opened.add_slot(_key(key), label=label)

    def remove_slot(self, name: str) -> None:
        self._opened.remove_slot(name)

    def status(self) -> datapath.RepositoryStatus:
        return self._opened.status()

    def set_credentials(self, credentials: Credentials) -> None:
        self._opened.set_credentials(_credentials(credentials))

    def backup(self, request: BackupRequest) -> Job[BackupResult]:
        options = datapath.BackupOptions(
            path=request.path,
            source=request.source,
            host=request.host,
            tags=dict(request.tags),
            parent=request.parent,
            exclude_root_names=list(request.exclude_root_names),
            strict=request.strict,
            workers=request.workers,
            memory_limit_bytes=request.memory_limit_bytes,
        )
        return self._opened.backup(options)

    def restore(self, request: RestoreRequest) -> Job[RestoreResult]:
        options = datapath.RestoreOptions(
            snapshot_id=request.snapshot_id,
            target=request.target,
            host=request.host,
            workers=request.workers,
            memory_limit_bytes=request.memory_limit_bytes,
            restore_owner=request.restore_owner,
            allow_setuid=Allowance.SETUID in request.allow,
            allow_devices=Allowance.DEVICES in request.allow,
            allow_capabilities=Allowance.CAPABILITIES in request.allow,
        )
        return self._opened.restore(options)

    def prune(
        self, *, max_repack_bytes: int | None = None, fence_after_seconds: int | None = None, look_only: bool = False
    ) -> Job[datapath.PruneResult]:
        # Who only looks may do so where no snapshot is left: a prune refuses that for what it would free.
        options = datapath.PruneOptions(max_repack_bytes=max_repack_bytes, dry_run=look_only, allow_empty=look_only)
        if fence_after_seconds is not None:
            options = dataclasses.replace(options, fence_after_seconds=fence_after_seconds)
        return self._opened.prune(options)

    def check(self, *, share: tuple[int, int] | None = None) -> Job[datapath.CheckResult]:
        return self._opened.check(share=share)

    def verify(self, snapshot_id: str) -> Job[datapath.CheckResult]:
        return self._opened.verify(snapshot_id, tags_only=True, keep_journal=True)

    def end_verification(self) -> None:
        self._opened.forget_journals()

    def limit_traffic(
        self, *, upload_bytes_per_second: int | None = None, download_bytes_per_second: int | None = None
    ) -> None:
        self._opened.limit_traffic(
            upload_bytes_per_second=upload_bytes_per_second, download_bytes_per_second=download_bytes_per_second
        )


def store_of(place: Place) -> datapath.StoreSettings:
    """Turn a place into the data path's settings.

    Raises:
        StoreUnavailableError: the folder of a filesystem location is not there.
    """
    settings = place.settings
    match settings:
        case FilesystemSettings():
            if not settings.path.is_dir():
                # The data path would make the folder, and a NAS that is not mounted would fill the node's own disk.
                raise StoreUnavailableError(
                    f"the storage location's folder is not there: location={settings.location}, path={settings.path}, "
                    f"error={os.strerror(errno.ENOENT)}",
                    "mount it on the node and into the agent's pod at that path",
                )
            prefix = repository_prefix(settings.prefix, namespace=place.namespace)
            return datapath.FolderStore(str(settings.root / prefix), read_only=place.read_only)
        case AwsSettings():
            pem = settings.ca_bundle_pem
            return datapath.S3Store(
                settings.bucket,
                repository_prefix(settings.prefix, namespace=place.namespace),
                region=place.region or settings.region,
                endpoint_url=settings.endpoint_url,
                force_path_style=settings.force_path_style,
                allow_http=(settings.endpoint_url or "").startswith("http://"),
                insecure_skip_tls_verify=settings.insecure_skip_tls_verify,
                ca_cert_pem=None if pem is None else pem.decode("ascii", errors="replace"),
                server_side_encryption=settings.server_side_encryption,
                kms_key_id=settings.kms_key_id,
                checksum_algorithm=settings.checksum_algorithm,
                read_only=place.read_only,
                credentials=None if place.credentials is None else _credentials(place.credentials),
            )


def _credentials(credentials: Credentials) -> datapath.Credentials:
    return datapath.Credentials(
        credentials.access_key, credentials.secret_key, credentials.session_token, credentials.expires_at
    )


def _key(key: RootKey) -> datapath.Key:
    if key.kind is RootKeyKind.SECRET:
        return datapath.Key.from_secret(key.value)
    return datapath.Key.from_passphrase(key.value)
