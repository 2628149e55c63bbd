"""What a path and a method mean to the fake API server, and what it answers by itself: version, health, discovery. Pure but for looking up kinds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from longshore.kube.fake.kinds import Kind
from longshore.kube.fake.status import StatusError
from longshore.kube.fake.store import Store
from longshore.kube.resource import JsonObject

__all__ = ["Route", "find_route", "fixed_answer"]

_VERSION: Final = {
    "major": "1",
    "minor": "36",
    "gitVersion": "v1.36.3+fake",
    "gitTreeState": "clean",
    "platform": "linux/amd64",
}
_SUBRESOURCES: Final = frozenset({"status"})


@dataclass(frozen=True, slots=True)
class Route:
    """What a request is about."""

    kind: Kind
    version: str
    namespace: str
    """Empty for all namespaces, or for what lies in none."""
    name: str | None
    subresource: str | None
    verb: str


def fixed_answer(store: Store, path: str) -> JsonObject | str | None:
    """Answer what does not concern objects; None when the path does."""
    parts = [part for part in path.split("/") if part]
    match parts:
        case ["version"]:
            return dict(_VERSION)
        case ["healthz" | "readyz" | "livez", *_]:
            return "ok"
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"]}
        case ["apis"]:
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": _groups(store)}
        case ["apis", group]:
            found = [item for item in _groups(store) if item["name"] == group]
            return {"kind": "APIGroup", "apiVersion": "v1", **found[0]} if found else None
        case ["api", version]:
            return _resource_list(store, "", version)
        case ["apis", group, version]:
            return _resource_list(store, group, version)
    return None


def _groups(store: Store) -> list[JsonObject]:
    versions: dict[str, list[str]] = {}
    for kind in store.kinds():
        if kind.resource.group:
            listed = versions.setdefault(kind.resource.group, [])
            listed += [version for version in kind.served if version not in listed]
    groups = []
    for group, names in sorted(versions.items()):
        named = [{"groupVersion": f"{group}/{name}", "version": name} for name in names]
        groups.append({"name": group, "versions": named, "preferredVersion": named[0]})
    return groups


def _resource_list(store: Store, group: str, version: str) -> JsonObject | None:
    found = []
    for kind in store.kinds():
        if kind.resource.group == group and version in kind.served:
            base = {
                "singularName": kind.resource.kind.lower(),
                "namespaced": kind.resource.namespaced,
                "kind": kind.resource.kind,
            }
            verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
            found.append({"name": kind.resource.plural, "verbs": verbs, **base})
            if kind.status_subresource:
                found.append({"name": f"{kind.resource.plural}/status", "verbs": ["get", "patch", "update"], **base})
    return (
        {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": f"{group}/{version}" if group else version,
            "resources": found,
        }
        if found
        else None
    )


def find_route(store: Store, method: str, path: str, query: dict[str, str]) -> Route:
    """Find out what a request is about.

    Raises:
        StatusError: 404 for a kind that is not served, 405 for a method that does not fit.
    """
    parts = [unquote(part) for part in path.split("/")[1:]]
    match parts:
        case ["api", version, *rest]:
            group = ""
        case ["apis", group, version, *rest]:
            pass
        case _:
            raise StatusError(404, "NotFound", "404 page not found")
    namespace = ""
    if len(rest) >= 3 and rest[0] == "namespaces" and rest[2] not in _SUBRESOURCES | {"finalize"}:
        namespace, rest = rest[1], rest[2:]
    plural, name, subresource = (*rest, None, None, None)[:3] if len(rest) <= 3 else (None, None, None)
    kind = None if not plural else store.kind(group, version, plural)
    if (
        kind is None
        or (namespace and not kind.resource.namespaced)
        or (name is not None and kind.resource.namespaced and not namespace)
    ):
        raise StatusError(404, "NotFound", "the server could not find the requested resource", details={})
    if subresource is not None and not (subresource == "status" and kind.status_subresource):
        raise StatusError(404, "NotFound", "the server could not find the requested resource", details={})
    return Route(kind, version, namespace, name, subresource, _verb(method, name, query))


def _verb(method: str, name: str | None, query: dict[str, str]) -> str:
    match method, name is not None:
        case "GET", True:
            return "get"
        case "GET", False:
            return "watch" if query.get("watch") in {"true", "1"} else "list"
        case "POST", False:
            return "create"
        case "PUT", True:
            return "update"
        case "PATCH", True:
            return "patch"
        case "DELETE", True:
            return "delete"
        case "DELETE", False:
            return "deletecollection"
    raise StatusError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
