"""The state behind the fake API server: objects by kind, one version counter for all, a log of changes. No HTTP here.

Objects are kept as encoded bytes, never changed in place; so a page's snapshot and a watch's replay cost references, not copies, and nobody can reach into
the store by holding on to what he was given. Every write happens under one lock and gets the next version; the log keeps the latest changes with the state
before and after, so that a watch with a selector can tell an object that came into view from one that changed.

What is filled in and refused for each kind stands in :mod:`longshore.kube.fake.admission`.
"""

from __future__ import annotations

import bisect
import copy
import random
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import msgspec

from longshore.kube.clock import SYSTEM_CLOCK, Clock, format_time
from longshore.kube.fake.admission import Validator, admit, merge_write
from longshore.kube.fake.kinds import BUILT_IN, GroupPlural, Kind, kind_of_crd
from longshore.kube.fake.status import StatusError, already_exists, conflict, expired, forbidden, invalid, not_found
from longshore.kube.resource import JsonObject

__all__ = ["Change", "Page", "Place", "Store"]

_FIRST_VERSION: Final = 1_000
_SNAPSHOTS_MAX: Final = 64
_NAME_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"
_NAMESPACES_AT_START: Final = ("default", "kube-system", "kube-public", "kube-node-lease")
_CRDS: Final = ("apiextensions.k8s.io", "customresourcedefinitions")
_NAMESPACES: Final = ("", "namespaces")
_SERVERS_OWN: Final = (
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "selfLink",
    "managedFields",
)

Place = tuple[str, str]
"""Namespace (empty for none) and name."""


@dataclass(frozen=True, slots=True)
class Change:
    """One write: the state before and after, None where there was none."""

    version: int
    key: GroupPlural
    place: Place
    before: bytes | None
    after: bytes | None
    last: bytes
    """What a DELETED event carries: the last state at the version of its deletion; otherwise `after`."""


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a list."""

    objects: list[JsonObject]
    version: int
    next_place: Place | None
    remaining: int


class Store:
    """Objects and their history; every method may be called from any thread."""

    def __init__(
        self, *, clock: Clock = SYSTEM_CLOCK, rng: random.Random | None = None, history_max: int = 20_000
    ) -> None:
        """Make a store with the namespaces that every cluster has.

        Args:
            rng: for generated names.
            history_max: how many changes are kept for watches to resume from.
        """
        self.changed: Final = threading.Condition()
        self.validators: list[Validator] = []
        self._clock = clock
        self._rng = random.Random() if rng is None else rng  # noqa: S311 - names, not secrets
        self._history_max = history_max
        self._version = _FIRST_VERSION
        self._floor = _FIRST_VERSION
        self._kinds: dict[GroupPlural, Kind] = {kind.key: kind for kind in BUILT_IN}
        self._objects: dict[GroupPlural, dict[Place, bytes]] = {key: {} for key in self._kinds}
        self._log: list[Change] = []
        self._snapshots: OrderedDict[tuple[GroupPlural, int], dict[Place, bytes]] = OrderedDict()
        for name in _NAMESPACES_AT_START:
            self.create(self._kinds[_NAMESPACES], "", {"metadata": {"name": name}})

    # -- kinds -----------------------------------------------------------------------------------------------------------------

    def register(self, kind: Kind) -> None:
        """Serve a kind; what is already kept under its name stays."""
        with self.changed:
            self._kinds[kind.key] = kind
            self._objects.setdefault(kind.key, {})

    def kind(self, group: str, version: str, plural: str) -> Kind | None:
        """The kind served at this path, if any."""
        with self.changed:
            kind = self._kinds.get((group, plural))
        return kind if kind is not None and version in kind.served else None

    def kinds(self) -> list[Kind]:
        """Everything that is served."""
        with self.changed:
            return list(self._kinds.values())

    # -- reading ---------------------------------------------------------------------------------------------------------------

    @property
    def version(self) -> int:
        """The version of the newest write."""
        with self.changed:
            return self._version

    def get(self, kind: Kind, namespace: str, name: str) -> JsonObject:
        """One object.

        Raises:
            StatusError: 404.
        """
        with self.changed:
            return _decode(self._raw(kind, namespace, name))

    def places(self, kind: Kind) -> set[Place]:
        """Where objects of this kind are."""
        with self.changed:
            return set(self._objects.get(kind.key, ()))

    def page(
        self,
        kind: Kind,
        namespace: str,
        matches: Callable[[JsonObject], bool],
        *,
        limit: int | None = None,
        at_version: int | None = None,
        from_place: Place | None = None,
    ) -> Page:
        """Part of a list as it stood at one version.

        Args:
            namespace: empty for all.
            at_version: of the first page, when this is a later one.
            from_place: where to go on.

        Raises:
            StatusError: 410 when that version is no longer kept.
        """
        with self.changed:
            if at_version is None:
                at_version, snapshot = self._version, dict(self._objects.get(kind.key, {}))
                if limit is not None:
                    self._snapshots[kind.key, at_version] = snapshot
                    while len(self._snapshots) > _SNAPSHOTS_MAX:
                        self._snapshots.popitem(last=False)
            else:
                found = self._snapshots.get((kind.key, at_version))
                if found is None:
                    raise expired("The provided continue parameter is too old to display a consistent list result.")
                snapshot = found
        places = sorted(
            place
            for place in snapshot
            if (not namespace or place[0] == namespace) and (from_place is None or place >= from_place)
        )
        objects: list[JsonObject] = []
        for number, place in enumerate(places):
            obj = _decode(snapshot[place])
            if not matches(obj):
                continue
            if limit is not None and len(objects) == limit:
                return Page(objects, at_version, place, len(places) - number)
            objects.append(obj)
        return Page(objects, at_version, None, 0)

    def changes_after(self, version: int, key: GroupPlural) -> tuple[list[Change], int]:
        """Changes of a kind after a version, and the version up to which was looked. The caller holds `changed`.

        Raises:
            StatusError: 410 when the version lies before what is kept.
        """
        if version < self._floor:
            raise expired(f"too old resource version: {version} ({self._floor})")
        begin = bisect.bisect_right(self._log, version, key=lambda change: change.version)
        return [change for change in self._log[begin:] if change.key == key], self._version

    def compact(self) -> None:
        """Forget all history, as etcd does now and then: watches from older versions and later pages get 410."""
        with self.changed:
            self._floor = self._version
            self._log.clear()
            self._snapshots.clear()

    # -- writing ---------------------------------------------------------------------------------------------------------------

    def create(
        self, kind: Kind, namespace: str, body: JsonObject, *, dry_run: bool = False, trusted: bool = False
    ) -> JsonObject:
        """Create an object.

        Args:
            trusted: keep status as given, as if its owner (kubelet, controller) had written it a moment later.

        Raises:
            StatusError: 400, 403, 404 (namespace), 409, 422.
        """
        obj = copy.deepcopy(body)
        metadata: dict[str, Any] = obj.setdefault("metadata", {})
        if metadata.get("resourceVersion"):
            # A storage error, and so a 500, at the real server too.
            raise StatusError(500, "InternalError", "resourceVersion should not be set on objects to be created")
        with self.changed:
            generate = not metadata.get("name") and metadata.get("generateName")
            name = self._generated(metadata["generateName"]) if generate else metadata.get("name") or ""
            metadata["name"] = name
            metadata.pop("resourceVersion", None)
            for field in _SERVERS_OWN:
                metadata.pop(field, None)
            if kind.resource.namespaced:
                metadata["namespace"] = namespace
                self._namespace_must_take(kind, namespace, name)
            else:
                metadata.pop("namespace", None)
            obj = admit(kind, obj, None, validators=self.validators, trusted=trusted)
            metadata = obj["metadata"]
            place = (namespace, name)
            if place in self._objects[kind.key]:
                raise already_exists(kind.resource, name)
            metadata["uid"] = str(uuid.UUID(int=self._rng.getrandbits(128), version=4))
            metadata["creationTimestamp"] = format_time(self._clock.now())
            if kind.generation:
                metadata["generation"] = 1
            if dry_run:
                return obj
            self._record(kind, place, obj)
            if kind.key == _CRDS:
                self.register(kind_of_crd(obj))
            return obj

    def update(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        body: JsonObject,
        *,
        subresource: str | None = None,
        trusted: bool = False,
    ) -> JsonObject:
        """Write an object whole, or its status.

        Raises:
            StatusError: 400, 404, 409, 422.
        """
        with self.changed:
            old = _decode(self._raw(kind, namespace, name))
            if (
                not (body.get("metadata") or {}).get("resourceVersion")
                and not kind.unconditional_update
                and not trusted
            ):
                raise invalid(
                    kind.resource,
                    name,
                    [
                        (
                            "metadata.resourceVersion",
                            "FieldValueInvalid",
                            "Invalid value: 0: must be specified for an update",
                        )
                    ],
                )
            return self._write(kind, old, copy.deepcopy(body), subresource=subresource, trusted=trusted)

    def patch(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        change: Callable[[JsonObject], JsonObject],
        *,
        subresource: str | None = None,
    ) -> JsonObject:
        """Change part of an object; `change` gives the whole new state.

        Raises:
            StatusError: 400, 404, 409, 422, and whatever `change` raises.
        """
        with self.changed:
            old = _decode(self._raw(kind, namespace, name))
            return self._write(kind, old, change(copy.deepcopy(old)), subresource=subresource, trusted=False)

    def delete(self, kind: Kind, namespace: str, name: str, options: JsonObject | None = None) -> JsonObject:
        """Delete an object, or mark it while finalizers or a grace period hold it.

        Returns:
            The object as it is now, or as it was when it went. `metadata.deletionTimestamp` tells a marked one.

        Raises:
            StatusError: 404, 409.
        """
        options = options or {}
        with self.changed:
            obj = _decode(self._raw(kind, namespace, name))
            metadata = obj["metadata"]
            wanted = options.get("preconditions") or {}
            for field, label in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
                if wanted.get(field) and wanted[field] != metadata[field]:
                    why = f"Precondition failed: {label} in precondition: {wanted[field]}, {label} in object meta: {metadata[field]}"
                    raise conflict(kind.resource, name, why)
            grace = _grace_seconds(kind, obj, options)
            is_namespace = kind.key == _NAMESPACES
            if not metadata.get("finalizers") and grace == 0 and not is_namespace:
                self._remove(kind, (namespace, name), obj)
                return obj
            if metadata.get("deletionTimestamp") and metadata.get("deletionGracePeriodSeconds", 0) <= grace:
                return obj
            metadata["deletionTimestamp"] = format_time(self._clock.now() + timedelta(seconds=grace))
            if is_namespace:
                obj["status"] = {"phase": "Terminating"}
            else:
                metadata["deletionGracePeriodSeconds"] = grace
            if kind.generation:
                metadata["generation"] += 1
            self._record(kind, (namespace, name), obj)
            if is_namespace:
                self._empty_namespace(name)
            return obj

    # -- the condition is held -------------------------------------------------------------------------------------------------

    def _raw(self, kind: Kind, namespace: str, name: str) -> bytes:
        found = self._objects.get(kind.key, {}).get((namespace, name))
        if found is None:
            raise not_found(kind.resource, name)
        return found

    def _write(
        self, kind: Kind, old: JsonObject, new: JsonObject, *, subresource: str | None, trusted: bool
    ) -> JsonObject:
        was: dict[str, Any] = old["metadata"]
        name, namespace = was["name"], was.get("namespace", "")
        new = merge_write(kind, old, new, subresource=subresource, trusted=trusted)
        new = admit(kind, new, old, validators=self.validators, trusted=trusted)
        metadata = new["metadata"]
        if kind.generation and _wanted(kind, old) != _wanted(kind, new):
            metadata["generation"] = was["generation"] + 1
        ends = (
            was.get("deletionTimestamp")
            and not metadata.get("finalizers")
            and not was.get("deletionGracePeriodSeconds")
        )
        if ends and kind.key != _NAMESPACES:
            self._remove(kind, (namespace, name), new)
            return new
        if new == old:
            return old
        self._record(kind, (namespace, name), new)
        if kind.key == _CRDS:
            self.register(kind_of_crd(new))
        return new

    def _record(self, kind: Kind, place: Place, obj: JsonObject) -> None:
        self._version += 1
        obj["metadata"]["resourceVersion"] = str(self._version)
        before = self._objects[kind.key].get(place)
        after = msgspec.json.encode(obj)
        self._objects[kind.key][place] = after
        self._append(Change(self._version, kind.key, place, before, after, after))

    def _remove(self, kind: Kind, place: Place, obj: JsonObject) -> None:
        before = self._objects[kind.key].pop(place)
        self._version += 1
        obj["metadata"]["resourceVersion"] = str(self._version)
        self._append(Change(self._version, kind.key, place, before, None, msgspec.json.encode(obj)))
        if kind.key == _CRDS:
            self._drop_custom(kind_of_crd(obj))
        if place[0]:
            self._finish_namespace(place[0])

    def _append(self, change: Change) -> None:
        self._log.append(change)
        if len(self._log) > 2 * self._history_max:
            self._floor = self._log[-self._history_max - 1].version
            del self._log[: -self._history_max]
        self.changed.notify_all()

    def _generated(self, prefix: str) -> str:
        return prefix[:58] + "".join(self._rng.choice(_NAME_ALPHABET) for _ in range(5))

    def _namespace_must_take(self, kind: Kind, namespace: str, name: str) -> None:
        raw = self._objects[_NAMESPACES].get(("", namespace))
        if raw is None:
            raise not_found(self._kinds[_NAMESPACES].resource, namespace)
        if _decode(raw)["metadata"].get("deletionTimestamp"):
            raise forbidden(
                kind.resource,
                name,
                f"unable to create new content in namespace {namespace} because it is being terminated",
            )

    def _empty_namespace(self, name: str) -> None:
        for kind in list(self._kinds.values()):
            for place in [place for place in self._objects[kind.key] if place[0] == name]:
                if place in self._objects[kind.key]:
                    self.delete(kind, *place, {"gracePeriodSeconds": 0})
        self._finish_namespace(name)

    def _finish_namespace(self, name: str) -> None:
        kind = self._kinds[_NAMESPACES]
        raw = self._objects[kind.key].get(("", name))
        if raw is None or any(place[0] == name for objects in self._objects.values() for place in objects):
            return
        obj = _decode(raw)
        if obj["metadata"].get("deletionTimestamp"):
            self._remove(kind, ("", name), obj)

    def _drop_custom(self, kind: Kind) -> None:
        for place, raw in list(self._objects.get(kind.key, {}).items()):
            self._remove(kind, place, _decode(raw))
        self._kinds.pop(kind.key, None)
        self._objects.pop(kind.key, None)


def _decode(raw: bytes) -> JsonObject:
    decoded: JsonObject = msgspec.json.decode(raw)
    return decoded


def _wanted(kind: Kind, obj: JsonObject) -> JsonObject:
    """What `metadata.generation` counts changes of."""
    ignored = {"metadata", "apiVersion", "kind"} | ({"status"} if kind.status_subresource else set())
    return {name: value for name, value in obj.items() if name not in ignored}


def _grace_seconds(kind: Kind, obj: JsonObject, options: JsonObject) -> int:
    """Only pods that sit on a node and have not ended get time to end."""
    if (
        kind.key != ("", "pods")
        or not (obj.get("spec") or {}).get("nodeName")
        or (obj.get("status") or {}).get("phase") in {"Succeeded", "Failed"}
    ):
        return 0
    given = options.get("gracePeriodSeconds")
    return int(given if given is not None else obj["spec"].get("terminationGracePeriodSeconds", 30))
