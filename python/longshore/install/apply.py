"""Lay an installation over a cluster, and take it away again.

Applying is server-side, under a field manager of our own: who else manages fields of these objects keeps theirs, and what an earlier version of ours set and
this one does not is taken back by the server itself. Objects that this version no longer has are removed by name.

A kind that was defined a moment ago is served a little later; its objects are tried until then.

Promises: applying twice changes nothing; nothing that holds data is removed unless definitions are named; nothing stays behind in deletion, for finalizers of
another agent on objects that go are taken off first.

It does not know which objects there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from threading import Event
from typing import Any, Final

from longshore.api.names import GROUP
from longshore.controllers.phases import without_finalizer
from longshore.errors import ApiDeniedError, NotFoundError, UnsupportedError
from longshore.install.release import PARTS, parts
from longshore.install.values import Values
from longshore.kube.client import KubeClient
from longshore.kube.clock import SYSTEM_CLOCK, Clock
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

_ASKED_EVERY_SECONDS: Final = 0.25
_SERVED_WITHIN_SECONDS: Final = 60.0
"""How long a server may take from a definition to its paths; busy ones were seen to take seconds."""

Told = Callable[[str, dict[str, Any]], None]


def resource_for(obj: dict[str, Any]) -> Resource:
    """Name an object's kind as the API server's paths do."""
    group, _, version = str(obj["apiVersion"]).rpartition("/")
    namespaced = "namespace" in obj["metadata"]
    return Resource(group, version, _PLURALS[obj["kind"]], obj["kind"], namespaced=namespaced)


def apply(
    client: KubeClient,
    values: Values,
    *,
    namespace: str,
    told: Told,
    dry_run: bool = False,
    clock: Clock = SYSTEM_CLOCK,
) -> None:
    """Apply all objects, and remove those of ours that these settings no longer make.

    Args:
        told: gets each object with `applied`, `removed`, or in a dry run `not judged`: its kind or namespace would be made by the same run.
        dry_run: the server judges everything and keeps nothing.
        clock: for the time until a new kind is served.

    Raises:
        UnsupportedError: the cluster lacks a kind that was asked for.
        LongshoreError: the server refuses; what was applied before stays, and the same command goes on.
    """
    wanted = [one for _, made in parts(values, namespace=namespace) for one in made]
    for one in wanted:
        resource = resource_for(one)
        try:
            if resource.group == GROUP and not dry_run:
                _apply_when_served(client, one, clock=clock)
            else:
                _apply(client, one, dry_run=dry_run)
        except NotFoundError as err:
            if resource.group in _OPTIONAL:
                raise UnsupportedError(
                    f"the cluster does not have this kind: kind={one['kind']}, group={resource.group}",
                    _OPTIONAL[resource.group],
                ) from err
            if not dry_run:
                raise
            told("not judged", one)
        else:
            told("applied", one)
    if not dry_run:
        kept = {_identity(one) for one in wanted}
        for one in _removable(values, namespace=namespace):
            if _identity(one) not in kept and _delete(client, one):
                told("removed", one)


def _apply(client: KubeClient, one: dict[str, Any], *, dry_run: bool = False) -> None:
    client.apply(
        resource_for(one),
        one,
        namespace=one["metadata"].get("namespace"),
        field_manager=FIELD_MANAGER,
        dry_run=dry_run,
    )


def _apply_when_served(client: KubeClient, one: dict[str, Any], *, clock: Clock) -> None:
    """Apply an object whose kind may have been defined a moment ago: the server answers 404 until its paths are there."""
    until = clock.monotonic() + _SERVED_WITHIN_SECONDS
    while True:
        try:
            _apply(client, one)
        except NotFoundError:
            if clock.monotonic() >= until:
                raise
        else:
            return
        clock.wait(Event(), _ASKED_EVERY_SECONDS)


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
