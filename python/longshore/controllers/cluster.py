"""Small reads of the cluster that several controllers need: pods, PVCs, PVs, CSI drivers, Secrets.

Promises: an object that is not there is None or NotFoundError, never an empty one; a Secret's values show in no message.

It does not know what is done with them.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Final

from longshore.api.core import PersistentVolume, PersistentVolumeClaim, Pod
from longshore.api.names import ResourceDefinition
from longshore.api.storage_location import BackupStorageLocation
from longshore.errors import NotFoundError, UsageError
from longshore.kube.client import KubeClient
from longshore.kube.resource import (
    CSI_DRIVERS,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    SECRETS,
    Resource,
)

__all__ = ["ClusterReader", "resource_of"]


def resource_of(definition: ResourceDefinition) -> Resource:
    """Turn a definition of `longshore.api` into what the client takes."""
    return Resource(
        definition.group, definition.version, definition.plural, definition.kind, namespaced=definition.namespaced
    )


_LOCATIONS: Final = resource_of(BackupStorageLocation.definition)


class ClusterReader:
    """Reads through a client."""

    def __init__(self, client: KubeClient, *, namespace: str) -> None:
        """Keep the client.

        Args:
            namespace: Velero's, where locations and Secrets are.
        """
        self._client = client
        self._namespace = namespace

    def pod(self, name: str, *, namespace: str) -> Pod | None:
        """A pod, or None."""
        try:
            return Pod.from_dict(self._client.get(PODS, name, namespace=namespace))
        except NotFoundError:
            return None

    def claim(self, name: str, *, namespace: str) -> PersistentVolumeClaim | None:
        """A PVC, or None."""
        try:
            return PersistentVolumeClaim.from_dict(
                self._client.get(PERSISTENT_VOLUME_CLAIMS, name, namespace=namespace)
            )
        except NotFoundError:
            return None

    def persistent_volume(self, name: str) -> PersistentVolume | None:
        """A PV, or None."""
        try:
            return PersistentVolume.from_dict(self._client.get(PERSISTENT_VOLUMES, name))
        except NotFoundError:
            return None

    def csi_drivers(self) -> frozenset[str]:
        """The names of all CSIDriver objects."""
        return frozenset(str(item["metadata"]["name"]) for item in self._client.list(CSI_DRIVERS).items)

    def location(self, name: str) -> BackupStorageLocation:
        """A storage location.

        Raises:
            NotFoundError: there is none of that name.
        """
        try:
            return BackupStorageLocation.from_dict(self._client.get(_LOCATIONS, name, namespace=self._namespace))
        except NotFoundError as err:
            raise NotFoundError(
                f"the storage location is not there: namespace={self._namespace}, location={name!r}",
                "create the BackupStorageLocation, or name another one",
            ) from err

    def secret(self, name: str) -> Mapping[str, bytes] | None:
        """The decoded values of a Secret, or None."""
        try:
            found = self._client.get(SECRETS, name, namespace=self._namespace)
        except NotFoundError:
            return None
        try:
            return {key: base64.b64decode(value, validate=True) for key, value in (found.get("data") or {}).items()}
        except (binascii.Error, TypeError, ValueError) as err:
            raise UsageError(
                f"the Secret's data is not base64: namespace={self._namespace}, secret={name}",
                "write it with kubectl create secret",
            ) from err

    def secret_value(self, name: str, key: str) -> bytes:
        """One value of a Secret; fits `longshore.objectstore`'s SecretReader.

        Raises:
            NotFoundError: there is no such Secret, or it has no such key.
        """
        values = self.secret(name)
        if values is None or key not in values:
            raise NotFoundError(
                f"there is no such Secret or key: namespace={self._namespace}, secret={name}, key={key}"
            )
        return values[key]
