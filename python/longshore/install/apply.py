"""Lay an installation over a cluster, and take it away again.

Applying is server-side, under a field manager of our own: who else manages fields of these objects keeps theirs, and what an earlier version of ours set and
this one does not is taken back by the server itself. Objects that this version no longer has are removed by name.

Promises: applying twice changes nothing; nothing that holds data is removed unless definitions are named; nothing stays behind in deletion, for finalizers of
another agent on objects that go are taken off first.

It does not know which objects there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from longshore.api.names import GROUP
from longshore.controllers.phases import without_finalizer
from longshore.errors import ApiDeniedError, NotFoundError, UnsupportedError
from longshore.install.release import PARTS, parts
from longshore.install.values import Values
from longshore.kube.client import KubeClient
from longshore.kube.resource import CUSTOM_RESOURCE_DEFINITIONS, Resource

__all__ = ["FIELD_MANAGER", "apply", "plan_removal", "remove", "resource_for"]

FIELD_MANAGER: Final = "longshore-install"
_PLURALS: Final = {
    "BackupStorageLocation": "backupstoragelocations",
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
    "ConfigMap": "configmaps",
    "CustomResourceDefinition": "customresourcedefinitions",
    "DaemonSet": "daemonsets",
    "Deployment": "deployments",
    "Namespace": "namespaces",
    "PodMonitor": "podmonitors",
    "PrometheusRule": "prometheusrules",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "Secret": "secrets",
    "ServiceAccount": "serviceaccounts",
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
}
_OPTIONAL: Final = {
    "monitoring.coreos.com": "install the Prometheus operator first, or leave monitoring off",
    "admissionregistration.k8s.io": "use Kubernetes 1.30 or later, or say --set policy.enabled=false",
}
"""Groups that a cluster may lack, and what to do then."""

Told = Callable[[str, dict[str, Any]], None]


def resource_for(obj: dict[str, Any]) -> Resource:
    """Name an object's kind as the API server's paths do."""
    group, _, version = str(obj["apiVersion"]).rpartition("/")
    namespaced = "namespace" in obj["metadata"]
    return Resource(group, version, _PLURALS[obj["kind"]], obj["kind"], namespaced=namespaced)


def apply(client: KubeClient, values: Values, *, namespace: str, told: Told, dry_run: bool = False) -> None:
    """Apply all objects, and remove those of ours that these settings no longer make.

    Args:
        told: gets each object with `applied` or `removed`.
        dry_run: the server judges everything and keeps nothing.

    Raises:
        UnsupportedError: the cluster lacks a kind that was asked for.
        LongshoreError: the server refuses; what was applied before stays, and the same command goes on.
    """
    wanted = [one for _, made in parts(values, namespace=namespace) for one in made]
    for one in wanted:
        metadata = one["metadata"]
        try:
            client.apply(
                resource_for(one),
                one,
                namespace=metadata.get("namespace"),
                field_manager=FIELD_MANAGER,
                dry_run=dry_run,
            )
        except NotFoundError as err:
            group = resource_for(one).group
            if group in _OPTIONAL:
                raise UnsupportedError(
                    f"the cluster does not have this kind: kind={one['kind']}, group={group}", _OPTIONAL[group]
                ) from err
            raise
        told("applied", one)
    if not dry_run:
        kept = {_identity(one) for one in wanted}
        for one in _removable(values, namespace=namespace):
            if _identity(one) not in kept and _delete(client, one):
                told("removed", one)


def plan_removal(values: Values, *, namespace: str, definitions: bool) -> list[dict[str, Any]]:
    """List what an uninstall removes, in its order."""
    found = list(_removable(values, namespace=namespace))
    if definitions:
        found += [one for part, made in _everything(values, namespace=namespace) if part == "crds" for one in made]
    return found


def remove(client: KubeClient, planned: Iterable[dict[str, Any]], *, namespace: str, told: Told) -> None:
    """Remove objects; those that are not there are passed over."""
    for one in planned:
        if one["kind"] == "CustomResourceDefinition":
            _free(client, one, namespace=namespace)
        if _delete(client, one):
            told("removed", one)


def _everything(values: Values, *, namespace: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Give what any settings can make, under the names that these settings give."""
    tree = values.tree()
    from longshore.install.template import resolve

    for part in PARTS:
        yield part.name, [resolve(template, tree, namespace=namespace) for _, template in part.objects]


def _removable(values: Values, *, namespace: str) -> Iterator[dict[str, Any]]:
    keeps = {part.name for part in PARTS if part.keeps}
    for name, made in reversed(list(_everything(values, namespace=namespace))):
        if name not in keeps:
            yield from reversed(made)


def _identity(obj: dict[str, Any]) -> tuple[str, str]:
    return obj["kind"], obj["metadata"]["name"]


def _delete(client: KubeClient, obj: dict[str, Any]) -> bool:
    metadata = obj["metadata"]
    resource = resource_for(obj)
    try:
        client.delete(resource, metadata["name"], namespace=metadata.get("namespace"))
    except NotFoundError:
        return False
    except ApiDeniedError:
        if resource.group in _OPTIONAL:
            return False
        raise
    return True


def _free(client: KubeClient, definition: dict[str, Any], *, namespace: str) -> None:
    """Take other agents' finalizers off objects that go with their definition: nobody is left to do it."""
    names = definition["spec"]["names"]
    if definition["spec"]["group"] != GROUP:
        return
    try:
        client.get(CUSTOM_RESOURCE_DEFINITIONS, definition["metadata"]["name"])
    except NotFoundError:
        return
    resource = Resource(GROUP, "v1", names["plural"], names["kind"])
    for one in client.list(resource, namespace=namespace).items:
        if change := without_finalizer(one):
            client.patch(resource, one["metadata"]["name"], {"metadata": change}, namespace=namespace)
