"""Names of kinds as the API server's paths know them, and the keys by which objects are called.

A :class:`Resource` is handed in wherever a kind is meant, so that nothing here needs discovery. Kubernetes' own kinds that Longshore touches are listed;
custom kinds are made by whoever owns their models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from longshore.errors import UsageError

__all__ = [
    "CONFIG_MAPS",
    "CSI_DRIVERS",
    "CUSTOM_RESOURCE_DEFINITIONS",
    "DAEMON_SETS",
    "DEPLOYMENTS",
    "EVENTS",
    "JOBS",
    "LEASES",
    "NAMESPACES",
    "NODES",
    "PERSISTENT_VOLUMES",
    "PERSISTENT_VOLUME_CLAIMS",
    "PODS",
    "SECRETS",
    "JsonObject",
    "Resource",
    "key_of",
    "object_key",
    "split_key",
]

JsonObject = dict[str, Any]
"""An API object as it came over the wire."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object at one version, e.g. ``Resource("velero.io", "v1", "podvolumebackups", "PodVolumeBackup", namespaced=True)``."""

    group: str
    """Empty for the core group."""
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """What stands in an object's `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """`plural.group`, as kubectl and error texts write it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def __str__(self) -> str:
        return self.qualified


NAMESPACES: Final = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
NODES: Final = Resource("", "v1", "nodes", "Node", namespaced=False)
PODS: Final = Resource("", "v1", "pods", "Pod")
SECRETS: Final = Resource("", "v1", "secrets", "Secret")
CONFIG_MAPS: Final = Resource("", "v1", "configmaps", "ConfigMap")
EVENTS: Final = Resource("", "v1", "events", "Event")
PERSISTENT_VOLUME_CLAIMS: Final = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
PERSISTENT_VOLUMES: Final = Resource("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False)
CSI_DRIVERS: Final = Resource("storage.k8s.io", "v1", "csidrivers", "CSIDriver", namespaced=False)
LEASES: Final = Resource("coordination.k8s.io", "v1", "leases", "Lease")
DEPLOYMENTS: Final = Resource("apps", "v1", "deployments", "Deployment")
JOBS: Final = Resource("batch", "v1", "jobs", "Job")
DAEMON_SETS: Final = Resource("apps", "v1", "daemonsets", "DaemonSet")
CUSTOM_RESOURCE_DEFINITIONS: Final = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)


def key_of(namespace: str | None, name: str) -> str:
    """Join `namespace/name`, or just the name for what lies in no namespace."""
    return f"{namespace}/{name}" if namespace else name


def object_key(obj: JsonObject) -> str:
    """The key of an object: `namespace/name` or `name`."""
    metadata = obj["metadata"]
    return key_of(metadata.get("namespace"), metadata["name"])


def split_key(key: str) -> tuple[str | None, str]:
    """Take a key apart again.

    Returns:
        Namespace (None when there is none) and name.

    Raises:
        UsageError: the key has more than one slash or an empty part.
    """
    namespace, slash, name = key.rpartition("/")
    if not name or "/" in namespace or (slash and not namespace):
        raise UsageError(f"not an object key: key={key!r}")
    return (namespace or None, name)
