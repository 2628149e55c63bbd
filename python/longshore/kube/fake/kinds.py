"""Which kinds the server serves and what is special about each: Kubernetes' own that Longshore meets, and whatever custom resources are registered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from longshore.kube.resource import (
    CONFIG_MAPS,
    CSI_DRIVERS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DAEMON_SETS,
    DEPLOYMENTS,
    EVENTS,
    JOBS,
    LEASES,
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    SECRETS,
    JsonObject,
    Resource,
)

__all__ = ["BUILT_IN", "Kind", "kind_of_crd"]

GroupPlural = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind and how the server treats it."""

    resource: Resource
    """At its storage version."""
    custom: bool = False
    status_subresource: bool = False
    """Writes to the main path leave `status` alone, writes to /status everything else."""
    generation: bool = False
    """`metadata.generation` counts changes of what is wanted."""
    unconditional_update: bool = True
    """A PUT without resourceVersion is accepted."""
    versions: tuple[str, ...] = ()
    schemas: dict[str, JsonObject] = field(default_factory=dict)
    """Version → openAPIV3Schema; custom resources only."""
    selectable_fields: frozenset[str] | None = None
    """None: any path may stand in a field selector."""

    @property
    def key(self) -> GroupPlural:
        """Under which its objects are kept, whatever the version."""
        return (self.resource.group, self.resource.plural)

    @property
    def served(self) -> tuple[str, ...]:
        """The versions under which it is served."""
        return self.versions or (self.resource.version,)


_METADATA_FIELDS: Final = frozenset({"metadata.name", "metadata.namespace"})
_POD_FIELDS: Final = _METADATA_FIELDS | {
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.nominatedNodeName",
}
_EVENT_FIELDS: Final = _METADATA_FIELDS | {
    "reason",
    "type",
    "source",
    "reportingComponent",
    *(
        f"involvedObject.{part}"
        for part in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
    ),
}
_NEW_EVENT_FIELDS: Final = _METADATA_FIELDS | {
    "reason",
    "type",
    "reportingController",
    *(
        f"regarding.{part}"
        for part in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
    ),
}

BUILT_IN: Final[tuple[Kind, ...]] = (
    Kind(NAMESPACES, status_subresource=True, selectable_fields=_METADATA_FIELDS | {"status.phase"}),
    Kind(NODES, status_subresource=True, selectable_fields=_METADATA_FIELDS | {"spec.unschedulable"}),
    Kind(PODS, status_subresource=True, generation=True, selectable_fields=_POD_FIELDS),
    Kind(SECRETS, selectable_fields=_METADATA_FIELDS | {"type"}),
    Kind(CONFIG_MAPS, selectable_fields=_METADATA_FIELDS),
    Kind(EVENTS, selectable_fields=_EVENT_FIELDS),
    Kind(Resource("events.k8s.io", "v1", "events", "Event"), selectable_fields=_NEW_EVENT_FIELDS),
    Kind(Resource("", "v1", "serviceaccounts", "ServiceAccount"), selectable_fields=_METADATA_FIELDS),
    Kind(
        Resource("", "v1", "services", "Service"),
        status_subresource=True,
        selectable_fields=_METADATA_FIELDS | {"spec.clusterIP", "spec.type"},
    ),
    Kind(PERSISTENT_VOLUME_CLAIMS, status_subresource=True, selectable_fields=_METADATA_FIELDS),
    Kind(PERSISTENT_VOLUMES, status_subresource=True, selectable_fields=_METADATA_FIELDS),
    Kind(CSI_DRIVERS, unconditional_update=False, selectable_fields=_METADATA_FIELDS),
    Kind(
        Resource("storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False),
        selectable_fields=_METADATA_FIELDS,
    ),
    Kind(LEASES, unconditional_update=False, selectable_fields=_METADATA_FIELDS),
    Kind(DAEMON_SETS, status_subresource=True, generation=True, selectable_fields=_METADATA_FIELDS),
    Kind(
        DEPLOYMENTS,
        status_subresource=True,
        generation=True,
        selectable_fields=_METADATA_FIELDS,
    ),
    Kind(JOBS, status_subresource=True, generation=True, selectable_fields=_METADATA_FIELDS | {"status.successful"}),
    Kind(
        CUSTOM_RESOURCE_DEFINITIONS,
        status_subresource=True,
        generation=True,
        unconditional_update=False,
        selectable_fields=_METADATA_FIELDS,
    ),
)


def kind_of_crd(crd: JsonObject) -> Kind:
    """Read a CustomResourceDefinition.

    Raises:
        KeyError, TypeError, StopIteration: it lacks what a definition must have.
    """
    spec: dict[str, Any] = crd["spec"]
    versions = [version for version in spec["versions"] if version.get("served")]
    storage = next(version for version in spec["versions"] if version.get("storage"))
    selectable = {
        str(item["jsonPath"]).lstrip(".") for version in versions for item in version.get("selectableFields") or ()
    }
    return Kind(
        Resource(
            spec["group"],
            storage["name"],
            spec["names"]["plural"],
            spec["names"]["kind"],
            namespaced=spec.get("scope") == "Namespaced",
        ),
        custom=True,
        generation=True,
        unconditional_update=False,
        status_subresource=any("status" in (version.get("subresources") or {}) for version in versions),
        versions=tuple(str(version["name"]) for version in versions),
        schemas={
            str(version["name"]): (version.get("schema") or {}).get("openAPIV3Schema") or {} for version in versions
        },
        selectable_fields=_METADATA_FIELDS | selectable,
    )
