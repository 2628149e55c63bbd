"""What an API server does, written once and run against two: the fake (here) and a real kube-apiserver (tests/cluster/test_kube.py).

A behaviour that a controller leans on and that the fake has belongs here; otherwise the fake may lie and the tests that stand on it prove nothing. Nothing here
may need a controller manager: none runs beside the real server.

Over 500 lines because splitting it would only hide which behaviours are covered.
"""

import base64
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import pytest

from longshore.errors import (
    AlreadyExistsError,
    ApiUnavailableError,
    ConflictError,
    GoneError,
    InvalidObjectError,
    LongshoreError,
    NotFoundError,
)
from longshore.kube.client import KubeClient, PatchType
from longshore.kube.informer import Informer, InformerTimes
from longshore.kube.leases import LeaseElector, LeaseTimes
from longshore.kube.resource import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    EVENTS,
    LEASES,
    NAMESPACES,
    PODS,
    SECRETS,
    JsonObject,
    Resource,
)
from longshore.kube.watch import WatchEvent

GROUP = "conformance.longshore.test"
GADGETS = Resource(GROUP, "v1", "gadgets", "Gadget")
"""Without a status subresource, as Velero's kinds."""
WIDGETS = Resource(GROUP, "v1", "widgets", "Widget")
"""With one, and a field that may be selected."""

_SPEC: JsonObject = {
    "type": "object",
    "required": ["size"],
    "properties": {
        "size": {"type": "integer", "minimum": 1},
        "colour": {"type": "string", "enum": ["red", "blue"], "default": "red"},
        "node": {"type": "string", "maxLength": 20, "pattern": "^[a-z0-9-]*$"},
        "tags": {"type": "object", "additionalProperties": {"type": "string"}},
        "parts": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
        "note": {"type": "string", "nullable": True},
        "when": {"type": "string", "format": "date-time", "nullable": True},
    },
}
_SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "spec": _SPEC,
        "status": {
            "type": "object",
            "properties": {
                "phase": {"type": "string", "enum": ["New", "Done"]},
                "bytes": {"type": "integer", "format": "int64"},
            },
        },
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}


def definition(resource: Resource, *, status: bool, selectable: bool) -> JsonObject:
    """A CustomResourceDefinition for one of the kinds above."""
    version: JsonObject = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": _SCHEMA}}
    if status:
        version["subresources"] = {"status": {}}
    if selectable:
        version["selectableFields"] = [{"jsonPath": ".spec.node"}]
    names = {
        "plural": resource.plural,
        "kind": resource.kind,
        "listKind": f"{resource.kind}List",
        "singular": resource.kind.lower(),
    }
    return {
        "metadata": {"name": resource.qualified},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }


@dataclass
class Place:
    """A client and a namespace of one's own."""

    client: KubeClient
    namespace: str

    def gadget(self, name: str | None = None, /, **fields: Any) -> JsonObject:
        """Make a gadget; what is given beside `labels` and `finalizers` goes into its spec."""
        metadata: JsonObject = {"generateName": "g-"} if name is None else {"name": name}
        for field in ("labels", "finalizers", "annotations"):
            if field in fields:
                metadata[field] = fields.pop(field)
        body: JsonObject = {"metadata": metadata, "spec": {"size": 1, **fields}}
        return self.client.create(GADGETS, body, namespace=self.namespace)

    def names(self, resource: Resource = GADGETS, **select: Any) -> list[str]:
        """The names that a list gives, in its order."""
        return [
            item["metadata"]["name"] for item in self.client.list(resource, namespace=self.namespace, **select).items
        ]


def install(client: KubeClient) -> None:
    """Make the two kinds and wait until they are served."""
    for resource, status, selectable in ((GADGETS, False, False), (WIDGETS, True, True)):
        try:
            client.create(CUSTOM_RESOURCE_DEFINITIONS, definition(resource, status=status, selectable=selectable))
        except AlreadyExistsError:
            continue
        until(lambda resource=resource: served(client, resource))  # type: ignore[misc]


def served(client: KubeClient, resource: Resource) -> bool:
    try:
        client.list(resource, namespace="default")
    except LongshoreError:
        return False
    return True


def until(true: Callable[[], Any], *, seconds: float = 20.0) -> Any:
    """Wait for something to become true."""
    ends = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < ends, "it did not come true in time"
        time.sleep(0.02)
    return found


def version_of(obj: JsonObject) -> str:
    return str(obj["metadata"]["resourceVersion"])


class Watching:
    """Collects the events of a watch in a thread of its own."""

    def __init__(self, place: Place, resource: Resource, version: str, **options: Any) -> None:
        self.events: list[WatchEvent] = []
        self.error: BaseException | None = None
        options = {"namespace": place.namespace, "server_timeout_seconds": 30, "read_timeout_seconds": 30, **options}
        self._stream = place.client.watch(resource, resource_version=version, **options)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for event in self._stream:
                self.events.append(event)
        except BaseException as err:
            self.error = err

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stream.close()
        self._thread.join(5)
        assert not self._thread.is_alive()

    def seen(self) -> list[tuple[str, str]]:
        return [
            (event.type.value, event.object["metadata"]["name"])
            for event in list(self.events)
            if event.type != "BOOKMARK"
        ]

    def wait_for(self, *expected: tuple[str, str]) -> list[tuple[str, str]]:
        try:
            until(lambda: len(self.seen()) >= len(expected))
        except AssertionError:
            assert self.seen() == [*expected], self.error
        assert self.seen() == [*expected]
        return self.seen()


class Conformance:
    """Subclasses give the fixture `place`."""

    # -- create and read -------------------------------------------------------------------------------------------------------

    def test_version_is_told(self, place: Place) -> None:
        assert place.client.version()["gitVersion"].startswith("v1.")

    def test_created_object_has_metadata_of_the_server(self, place: Place) -> None:
        made = place.gadget("a", size=2)
        metadata = made["metadata"]
        assert uuid.UUID(metadata["uid"])
        assert metadata["creationTimestamp"].endswith("Z")
        assert metadata["namespace"] == place.namespace
        assert metadata["generation"] == 1
        assert int(metadata["resourceVersion"]) > 0
        read = place.client.get(GADGETS, "a", namespace=place.namespace)
        assert version_of(read) == version_of(made)
        assert (read["apiVersion"], read["kind"]) == (GADGETS.api_version, "Gadget")

    def test_generate_name_gives_different_names(self, place: Place) -> None:
        names = {place.gadget()["metadata"]["name"] for _ in range(5)}
        assert len(names) == 5
        assert all(name.startswith("g-") and len(name) == 7 for name in names)

    def test_servers_fields_are_not_the_clients(self, place: Place) -> None:
        body = {
            "metadata": {"name": "a", "uid": "mine", "generation": 7, "creationTimestamp": "2001-01-01T00:00:00Z"},
            "spec": {"size": 1},
        }
        made = place.client.create(GADGETS, body, namespace=place.namespace)
        assert made["metadata"]["uid"] != "mine"
        assert made["metadata"]["generation"] == 1
        assert not made["metadata"]["creationTimestamp"].startswith("2001")

    def test_create_with_a_version_is_refused(self, place: Place) -> None:
        with pytest.raises(ApiUnavailableError, match="resourceVersion should not be set"):
            place.client.create(
                GADGETS,
                {"metadata": {"name": "a", "resourceVersion": "5"}, "spec": {"size": 1}},
                namespace=place.namespace,
            )

    def test_second_of_the_same_name_exists_already(self, place: Place) -> None:
        place.gadget("a")
        with pytest.raises(AlreadyExistsError):
            place.gadget("a")

    def test_missing_object_is_not_found(self, place: Place) -> None:
        for act in (
            lambda: place.client.get(GADGETS, "no", namespace=place.namespace),
            lambda: place.client.delete(GADGETS, "no", namespace=place.namespace),
            lambda: place.client.patch(GADGETS, "no", {"spec": {"size": 2}}, namespace=place.namespace),
            lambda: place.client.get(Resource(GROUP, "v1", "nonesuch", "Nonesuch"), "no", namespace=place.namespace),
        ):
            with pytest.raises(NotFoundError):
                act()

    def test_missing_namespace_is_not_found(self, place: Place) -> None:
        with pytest.raises(NotFoundError):
            place.client.create(
                GADGETS, {"metadata": {"name": "a"}, "spec": {"size": 1}}, namespace="no-such-namespace"
            )
        assert place.client.list(GADGETS, namespace="no-such-namespace").items == []

    def test_dry_run_leaves_nothing(self, place: Place) -> None:
        made = place.client.create(
            GADGETS, {"metadata": {"name": "a"}, "spec": {"size": 1}}, namespace=place.namespace, dry_run=True
        )
        assert made["spec"]["colour"] == "red"
        assert place.names() == []

    @pytest.mark.parametrize("name", ["Upper", "under_score", "-dash", "x" * 254, "a..b"])
    def test_bad_names_are_refused(self, place: Place, name: str) -> None:
        with pytest.raises(InvalidObjectError):
            place.gadget(name)

    def test_namespace_of_body_and_path_must_agree(self, place: Place) -> None:
        body = {"metadata": {"name": "a", "namespace": "elsewhere"}, "spec": {"size": 1}}
        with pytest.raises(InvalidObjectError):
            place.client.create(GADGETS, body, namespace=place.namespace)

    @pytest.mark.parametrize("labels", [{"a b": "x"}, {"a": "x" * 64}, {"a": "-x"}])
    def test_bad_labels_are_refused(self, place: Place, labels: dict[str, str]) -> None:
        with pytest.raises(InvalidObjectError):
            place.gadget("a", labels=labels)

    def test_label_value_must_be_a_string(self, place: Place) -> None:
        with pytest.raises(InvalidObjectError):
            place.gadget("a", labels={"a": 1})

    # -- schemas ---------------------------------------------------------------------------------------------------------------

    def test_unknown_fields_are_pruned_and_free_ones_kept(self, place: Place) -> None:
        body = {
            "metadata": {"name": "a"},
            "spec": {"size": 1, "alien": 1, "parts": [{"name": "x", "alien": 2}]},
            "alien": 3,
            "free": {"x": {"y": 1}},
        }
        made = place.client.create(GADGETS, body, namespace=place.namespace)
        assert made["spec"] == {"size": 1, "colour": "red", "parts": [{"name": "x"}]}
        assert "alien" not in made
        assert made["free"] == {"x": {"y": 1}}

    @pytest.mark.parametrize(
        "spec",
        [
            {},
            {"size": "1"},
            {"size": 0},
            {"size": 1.5},
            {"size": True},
            {"size": None},
            {"size": 1, "colour": "green"},
            {"size": 1, "node": "UPPER"},
            {"size": 1, "node": "x" * 21},
            {"size": 1, "tags": {"a": 1}},
            {"size": 1, "tags": []},
            {"size": 1, "parts": {}},
            {"size": 1, "parts": [{"name": 1}]},
            {"size": 1, "when": "yesterday"},
        ],
        ids=str,
    )
    def test_what_the_schema_forbids_is_refused(self, place: Place, spec: JsonObject) -> None:
        with pytest.raises(InvalidObjectError):
            place.client.create(GADGETS, {"metadata": {"name": "a"}, "spec": spec}, namespace=place.namespace)
        assert place.names() == []

    @pytest.mark.parametrize(
        "spec",
        [
            {"size": 1.0},
            {"size": 1, "note": None},
            {"size": 1, "when": None},
            {"size": 1, "colour": None},
            {"size": 1, "when": "2026-01-02T03:04:05.678Z"},
        ],
        ids=str,
    )
    def test_what_the_schema_allows_is_taken(self, place: Place, spec: JsonObject) -> None:
        made = place.client.create(GADGETS, {"metadata": {"name": "a"}, "spec": spec}, namespace=place.namespace)
        assert made["spec"]["colour"] == "red"
        assert made["spec"]["size"] == 1

    def test_required_field_is_named(self, place: Place) -> None:
        with pytest.raises(InvalidObjectError, match=r"spec\.size"):
            place.client.create(GADGETS, {"metadata": {"name": "a"}, "spec": {}}, namespace=place.namespace)

    # -- writing ---------------------------------------------------------------------------------------------------------------

    def test_replace_moves_version_and_generation(self, place: Place) -> None:
        made = place.gadget("a")
        made["spec"]["size"] = 2
        written = place.client.replace(GADGETS, made)
        assert written["spec"]["size"] == 2
        assert written["metadata"]["generation"] == 2
        assert version_of(written) != version_of(made)
        assert written["metadata"]["uid"] == made["metadata"]["uid"]

    def test_replace_of_an_old_version_conflicts(self, place: Place) -> None:
        made = place.gadget("a")
        place.client.patch(GADGETS, "a", {"spec": {"size": 2}}, namespace=place.namespace)
        made["spec"]["size"] = 3
        with pytest.raises(ConflictError):
            place.client.replace(GADGETS, made)
        assert place.client.get(GADGETS, "a", namespace=place.namespace)["spec"]["size"] == 2

    def test_replace_needs_a_version(self, place: Place) -> None:
        made = place.gadget("a")
        del made["metadata"]["resourceVersion"]
        with pytest.raises(InvalidObjectError):
            place.client.replace(GADGETS, made)

    def test_replace_of_another_uid_conflicts(self, place: Place) -> None:
        made = place.gadget("a")
        made["metadata"]["uid"] = str(uuid.uuid4())
        with pytest.raises(ConflictError):
            place.client.replace(GADGETS, made)

    def test_replace_without_change_moves_nothing(self, place: Place) -> None:
        made = place.gadget("a")
        assert version_of(place.client.replace(GADGETS, made)) == version_of(made)

    def test_secret_is_replaced_without_a_version(self, place: Place) -> None:
        place.client.create(SECRETS, {"metadata": {"name": "s"}, "stringData": {"a": "1"}}, namespace=place.namespace)
        place.client.replace(SECRETS, {"metadata": {"name": "s"}, "stringData": {"b": "2"}}, namespace=place.namespace)
        assert set(place.client.get(SECRETS, "s", namespace=place.namespace)["data"]) == {"b"}

    def test_merge_patch_merges_and_removes(self, place: Place) -> None:
        place.gadget("a", tags={"x": "1", "y": "2"}, labels={"l": "1"})
        patched = place.client.patch(
            GADGETS,
            "a",
            {"metadata": {"labels": {"l": None, "m": "2"}}, "spec": {"tags": {"x": None, "z": "3"}}},
            namespace=place.namespace,
        )
        assert patched["spec"]["tags"] == {"y": "2", "z": "3"}
        assert patched["metadata"]["labels"] == {"m": "2"}

    def test_merge_patch_without_change_moves_nothing(self, place: Place) -> None:
        made = place.gadget("a")
        patched = place.client.patch(GADGETS, "a", {"spec": {"size": 1}}, namespace=place.namespace)
        assert version_of(patched) == version_of(made)

    def test_merge_patch_at_a_version_is_compare_and_swap(self, place: Place) -> None:
        made = place.gadget("a")
        first = place.client.patch(
            GADGETS, "a", {"status": {"phase": "New"}}, namespace=place.namespace, resource_version=version_of(made)
        )
        assert first["status"] == {"phase": "New"}
        with pytest.raises(ConflictError):
            place.client.patch(
                GADGETS,
                "a",
                {"status": {"phase": "Done"}},
                namespace=place.namespace,
                resource_version=version_of(made),
            )
        assert place.client.get(GADGETS, "a", namespace=place.namespace)["status"] == {"phase": "New"}

    def test_merge_patch_of_the_name_is_refused(self, place: Place) -> None:
        place.gadget("a")
        with pytest.raises(InvalidObjectError):
            place.client.patch(GADGETS, "a", {"metadata": {"name": "b"}}, namespace=place.namespace)

    def test_merge_patch_to_an_invalid_object_is_refused(self, place: Place) -> None:
        place.gadget("a")
        with pytest.raises(InvalidObjectError):
            place.client.patch(GADGETS, "a", {"spec": {"size": None}}, namespace=place.namespace)

    def test_json_patch_tests_adds_and_removes(self, place: Place) -> None:
        place.gadget("a", parts=[{"name": "x"}], tags={"a/b": "1"})
        patched = place.client.patch(
            GADGETS,
            "a",
            [
                {"op": "test", "path": "/spec/size", "value": 1},
                {"op": "add", "path": "/spec/parts/-", "value": {"name": "y"}},
                {"op": "add", "path": "/spec/parts/0", "value": {"name": "w"}},
                {"op": "remove", "path": "/spec/tags/a~1b"},
                {"op": "replace", "path": "/spec/size", "value": 4},
                {"op": "copy", "from": "/spec/parts/0/name", "path": "/spec/note"},
            ],
            namespace=place.namespace,
            patch_type=PatchType.JSON,
        )
        assert [part["name"] for part in patched["spec"]["parts"]] == ["w", "x", "y"]
        assert patched["spec"]["size"] == 4
        assert patched["spec"]["note"] == "w"
        assert "a/b" not in patched["spec"].get("tags", {})

    @pytest.mark.parametrize(
        "operation",
        [
            {"op": "test", "path": "/spec/size", "value": 9},
            {"op": "remove", "path": "/spec/absent"},
            {"op": "replace", "path": "/spec/parts/0", "value": {}},
            {"op": "replace", "path": "/absent/deep", "value": 1},
            {"op": "add", "path": "/spec/absent/deep", "value": 1},
        ],
        ids=str,
    )
    def test_json_patch_that_does_not_fit_is_refused(self, place: Place, operation: JsonObject) -> None:
        made = place.gadget("a")
        with pytest.raises(InvalidObjectError):
            place.client.patch(GADGETS, "a", [operation], namespace=place.namespace, patch_type=PatchType.JSON)
        assert version_of(place.client.get(GADGETS, "a", namespace=place.namespace)) == version_of(made)

    def test_json_patch_replaces_what_is_absent_in_an_object(self, place: Place) -> None:
        place.gadget("a")
        patched = place.client.patch(
            GADGETS,
            "a",
            [{"op": "replace", "path": "/spec/note", "value": "n"}],
            namespace=place.namespace,
            patch_type=PatchType.JSON,
        )
        assert patched["spec"]["note"] == "n"

    def test_json_patch_at_a_version_is_compare_and_swap(self, place: Place) -> None:
        made = place.gadget("a")
        grow = [{"op": "replace", "path": "/spec/size", "value": 2}]
        options: dict[str, Any] = {
            "namespace": place.namespace,
            "patch_type": PatchType.JSON,
            "resource_version": version_of(made),
        }
        place.client.patch(GADGETS, "a", grow, **options)
        with pytest.raises(ConflictError):
            place.client.patch(GADGETS, "a", grow, **options)

    def test_modify_decides_again_after_a_conflict(self, place: Place) -> None:
        place.gadget("a")
        calls = []

        def change(obj: JsonObject) -> JsonObject:
            calls.append(obj["spec"]["size"])
            if len(calls) == 1:
                place.client.patch(GADGETS, "a", {"spec": {"size": 5}}, namespace=place.namespace)
            return {"spec": {"size": obj["spec"]["size"] + 1}}

        assert place.client.modify(GADGETS, "a", change, namespace=place.namespace)["spec"]["size"] == 6
        assert calls == [1, 5]

    # -- status ----------------------------------------------------------------------------------------------------------------

    def test_status_without_subresource_is_a_field_and_counts(self, place: Place) -> None:
        place.gadget("a")
        patched = place.client.patch(GADGETS, "a", {"status": {"phase": "New"}}, namespace=place.namespace)
        assert patched["status"] == {"phase": "New"}
        assert patched["metadata"]["generation"] == 2
        with pytest.raises(NotFoundError):
            place.client.patch(
                GADGETS, "a", {"status": {"phase": "Done"}}, namespace=place.namespace, subresource="status"
            )

    def test_status_subresource_separates_the_two(self, place: Place) -> None:
        body = {"metadata": {"name": "w"}, "spec": {"size": 1}, "status": {"phase": "New"}}
        made = place.client.create(WIDGETS, body, namespace=place.namespace)
        assert "status" not in made
        through_main = place.client.patch(WIDGETS, "w", {"status": {"phase": "New"}}, namespace=place.namespace)
        assert "status" not in through_main
        through_status = place.client.patch(
            WIDGETS,
            "w",
            {"spec": {"size": 9}, "status": {"phase": "New"}},
            namespace=place.namespace,
            subresource="status",
        )
        assert through_status["status"] == {"phase": "New"}
        assert through_status["spec"]["size"] == 1
        assert through_status["metadata"]["generation"] == 1

    def test_status_is_replaced_through_its_subresource(self, place: Place) -> None:
        made = place.client.create(WIDGETS, {"metadata": {"name": "w"}, "spec": {"size": 1}}, namespace=place.namespace)
        made["status"] = {"phase": "Done", "bytes": 2**40}
        written = place.client.replace(WIDGETS, made, subresource="status")
        assert written["status"] == {"phase": "Done", "bytes": 2**40}

    # -- deletion --------------------------------------------------------------------------------------------------------------

    def test_delete_removes(self, place: Place) -> None:
        place.gadget("a")
        place.client.delete(GADGETS, "a", namespace=place.namespace)
        with pytest.raises(NotFoundError):
            place.client.get(GADGETS, "a", namespace=place.namespace)

    def test_delete_with_the_wrong_uid_or_version_conflicts(self, place: Place) -> None:
        made = place.gadget("a")
        with pytest.raises(ConflictError):
            place.client.delete(GADGETS, "a", namespace=place.namespace, uid=str(uuid.uuid4()))
        place.client.patch(GADGETS, "a", {"spec": {"size": 2}}, namespace=place.namespace)
        with pytest.raises(ConflictError):
            place.client.delete(GADGETS, "a", namespace=place.namespace, resource_version=version_of(made))
        place.client.delete(GADGETS, "a", namespace=place.namespace, uid=made["metadata"]["uid"])
        assert place.names() == []

    def test_finalizer_holds_the_object(self, place: Place) -> None:
        place.gadget("a", finalizers=["longshore.test/hold"])
        place.client.delete(GADGETS, "a", namespace=place.namespace)
        marked = place.client.get(GADGETS, "a", namespace=place.namespace)
        assert marked["metadata"]["deletionTimestamp"]
        assert marked["metadata"]["deletionGracePeriodSeconds"] == 0
        assert marked["metadata"]["generation"] == 2
        again = place.client.delete(GADGETS, "a", namespace=place.namespace)
        assert again["metadata"]["resourceVersion"] == version_of(marked)
        place.client.patch(GADGETS, "a", {"metadata": {"finalizers": None}}, namespace=place.namespace)
        with pytest.raises(NotFoundError):
            place.client.get(GADGETS, "a", namespace=place.namespace)

    def test_no_finalizer_is_added_while_deleting(self, place: Place) -> None:
        place.gadget("a", finalizers=["longshore.test/hold"])
        place.client.delete(GADGETS, "a", namespace=place.namespace)
        with pytest.raises(InvalidObjectError):
            place.client.patch(
                GADGETS,
                "a",
                {"metadata": {"finalizers": ["longshore.test/hold", "longshore.test/more"]}},
                namespace=place.namespace,
            )

    def test_deletion_timestamp_cannot_be_taken_back(self, place: Place) -> None:
        place.gadget("a", finalizers=["longshore.test/hold"])
        place.client.delete(GADGETS, "a", namespace=place.namespace)
        patched = place.client.patch(
            GADGETS, "a", {"metadata": {"deletionTimestamp": None}, "spec": {"size": 2}}, namespace=place.namespace
        )
        assert patched["metadata"]["deletionTimestamp"]

    # -- lists -----------------------------------------------------------------------------------------------------------------

    def test_list_is_sorted_and_paged_at_one_moment(self, place: Place) -> None:
        for name in "dbeac":
            place.gadget(name)
        first = place.client.page(GADGETS, namespace=place.namespace, limit=2)
        assert [item["metadata"]["name"] for item in first.items] == ["a", "b"]
        place.gadget("bb")
        place.client.delete(GADGETS, "e", namespace=place.namespace)
        second = place.client.page(GADGETS, namespace=place.namespace, limit=2, continue_token=first.remaining)
        third = place.client.page(GADGETS, namespace=place.namespace, limit=2, continue_token=second.remaining)
        assert [item["metadata"]["name"] for item in second.items + third.items] == ["c", "d", "e"]
        assert not third.remaining
        assert second.resource_version == first.resource_version
        assert place.names(limit=2) == ["a", "b", "bb", "c", "d"]

    def test_bad_continue_token_is_refused(self, place: Place) -> None:
        with pytest.raises((InvalidObjectError, GoneError)):
            place.client.page(GADGETS, namespace=place.namespace, limit=2, continue_token="nonsense")

    def test_items_of_every_kind_say_what_they_are(self, place: Place) -> None:
        place.client.create(CONFIG_MAPS, {"metadata": {"name": "c"}, "data": {"a": "1"}}, namespace=place.namespace)
        place.gadget("a")
        for resource in (CONFIG_MAPS, GADGETS):
            for item in place.client.list(resource, namespace=place.namespace).items:
                assert (item["apiVersion"], item["kind"]) == (resource.api_version, resource.kind)

    @pytest.mark.parametrize(
        ("selector", "expected"),
        [
            ("app=x", ["a", "b"]),
            ("app==x,tier=1", ["a"]),
            ("app!=x", ["c", "d"]),
            ("app in (x, y)", ["a", "b", "c"]),
            ("app notin (x)", ["c", "d"]),
            ("tier", ["a", "c"]),
            ("!tier", ["b", "d"]),
            ("app,app!=y", ["a", "b"]),
            ("example.com/long=v", ["d"]),
        ],
    )
    def test_label_selectors(self, place: Place, selector: str, expected: list[str]) -> None:
        place.gadget("a", labels={"app": "x", "tier": "1"})
        place.gadget("b", labels={"app": "x"})
        place.gadget("c", labels={"app": "y", "tier": "2"})
        place.gadget("d", labels={"example.com/long": "v"})
        assert place.names(label_selector=selector) == expected

    @pytest.mark.parametrize("selector", ["app in x", "a b", "=x", "app=(x)"])
    def test_bad_label_selectors_are_refused(self, place: Place, selector: str) -> None:
        with pytest.raises(InvalidObjectError):
            place.names(label_selector=selector)

    def test_field_selectors_of_custom_kinds(self, place: Place) -> None:
        for name, node in (("a", "n1"), ("b", "n2")):
            place.gadget(name, node=node)
            place.client.create(
                WIDGETS, {"metadata": {"name": name}, "spec": {"size": 1, "node": node}}, namespace=place.namespace
            )
        assert place.names(field_selector="metadata.name=a") == ["a"]
        assert place.names(field_selector="metadata.name!=a") == ["b"]
        assert place.names(WIDGETS, field_selector="spec.node=n2") == ["b"]
        with pytest.raises(InvalidObjectError):
            # Declared for widgets only: an agent cannot watch the objects of its node by selector on Velero's kinds.
            place.names(GADGETS, field_selector="spec.node=n2")

    # -- watches ---------------------------------------------------------------------------------------------------------------

    def test_watch_tells_every_change_in_order(self, place: Place) -> None:
        start = place.client.list(GADGETS, namespace=place.namespace).resource_version
        with Watching(place, GADGETS, start) as watching:
            place.gadget("a")
            place.client.patch(GADGETS, "a", {"spec": {"size": 2}}, namespace=place.namespace)
            place.client.delete(GADGETS, "a", namespace=place.namespace)
            watching.wait_for(("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a"))
            versions = [int(event.resource_version) for event in watching.events]
            assert versions == sorted(set(versions))
            assert watching.events[-1].object["spec"]["size"] == 2

    def test_watch_replays_from_a_version(self, place: Place) -> None:
        first = place.gadget("a")
        place.gadget("b")
        place.client.delete(GADGETS, "a", namespace=place.namespace)
        with Watching(place, GADGETS, version_of(first)) as watching:
            watching.wait_for(("ADDED", "b"), ("DELETED", "a"))

    def test_watch_from_zero_begins_with_what_is_there(self, place: Place) -> None:
        place.gadget("a")
        until(lambda: place.client.page(GADGETS, namespace=place.namespace, resource_version="0").items)
        with Watching(place, GADGETS, "0") as watching:
            watching.wait_for(("ADDED", "a"))
            place.gadget("b")
            watching.wait_for(("ADDED", "a"), ("ADDED", "b"))

    def test_watch_with_a_label_sees_objects_come_and_go(self, place: Place) -> None:
        start = place.client.list(GADGETS, namespace=place.namespace).resource_version
        with Watching(place, GADGETS, start, label_selector="seen=yes") as watching:
            place.gadget("a")
            place.client.patch(GADGETS, "a", {"metadata": {"labels": {"seen": "yes"}}}, namespace=place.namespace)
            place.client.patch(GADGETS, "a", {"spec": {"size": 2}}, namespace=place.namespace)
            gone = place.client.patch(GADGETS, "a", {"metadata": {"labels": {"seen": "no"}}}, namespace=place.namespace)
            watching.wait_for(("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a"))
            last = watching.events[-1].object
            assert last["metadata"]["labels"] == {"seen": "yes"}
            assert version_of(last) == version_of(gone)

    def test_watch_of_one_namespace_only(self, place: Place) -> None:
        other = f"{place.namespace}-other"
        place.client.create(NAMESPACES, {"metadata": {"name": other}})
        start = place.client.list(GADGETS, namespace=place.namespace).resource_version
        with Watching(place, GADGETS, start) as watching:
            place.client.create(GADGETS, {"metadata": {"name": "far"}, "spec": {"size": 1}}, namespace=other)
            place.gadget("near")
            watching.wait_for(("ADDED", "near"))

    def test_watch_from_a_forgotten_version_is_gone(self, place: Place) -> None:
        with pytest.raises(GoneError):
            list(
                place.client.watch(
                    GADGETS,
                    namespace=place.namespace,
                    resource_version="1",
                    server_timeout_seconds=5,
                    read_timeout_seconds=10,
                )
            )

    def test_watch_of_a_quiet_kind_ends_in_order_and_says_nothing(self, place: Place) -> None:
        # Measured: a bookmark comes after a minute or two, and only when there is a newer version to tell.
        start = place.client.list(GADGETS, namespace=place.namespace).resource_version
        stream = place.client.watch(
            GADGETS,
            namespace=place.namespace,
            resource_version=start,
            server_timeout_seconds=1,
            read_timeout_seconds=20,
        )
        assert list(stream) == []
        assert not stream.silent

    def test_removing_the_last_finalizer_is_told_as_a_deletion(self, place: Place) -> None:
        made = place.gadget("a", finalizers=["longshore.test/hold"])
        with Watching(place, GADGETS, version_of(made)) as watching:
            place.client.delete(GADGETS, "a", namespace=place.namespace)
            place.client.patch(GADGETS, "a", {"metadata": {"finalizers": []}}, namespace=place.namespace)
            watching.wait_for(("MODIFIED", "a"), ("DELETED", "a"))

    # -- Kubernetes' own kinds -------------------------------------------------------------------------------------------------

    def test_secret_takes_text_and_gives_base64(self, place: Place) -> None:
        body = {
            "metadata": {"name": "s"},
            "stringData": {"a": "text"},
            "data": {"b": base64.b64encode(b"\x00\xff").decode()},
        }
        made = place.client.create(SECRETS, body, namespace=place.namespace)
        assert made["type"] == "Opaque"
        assert "stringData" not in made
        assert {key: base64.b64decode(value) for key, value in made["data"].items()} == {"a": b"text", "b": b"\x00\xff"}
        patched = place.client.patch(SECRETS, "s", {"stringData": {"c": "more"}}, namespace=place.namespace)
        assert set(patched["data"]) == {"a", "b", "c"}

    def test_secret_that_is_no_base64_is_refused_and_not_repeated(self, place: Place) -> None:
        with pytest.raises(InvalidObjectError) as caught:
            place.client.create(
                SECRETS, {"metadata": {"name": "s"}, "data": {"a": "hunter2!"}}, namespace=place.namespace
            )
        assert "hunter2" not in str(caught.value)

    def test_immutable_secret_stays(self, place: Place) -> None:
        place.client.create(
            SECRETS, {"metadata": {"name": "s"}, "stringData": {"a": "1"}, "immutable": True}, namespace=place.namespace
        )
        with pytest.raises(InvalidObjectError):
            place.client.patch(SECRETS, "s", {"stringData": {"a": "2"}}, namespace=place.namespace)
        with pytest.raises(InvalidObjectError):
            place.client.patch(SECRETS, "s", {"immutable": False}, namespace=place.namespace)

    def test_pod_is_created_pending_and_its_status_has_a_path_of_its_own(self, place: Place) -> None:
        pod = {
            "metadata": {"name": "p"},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "example.com/i"}]},
            "status": {"phase": "Running"},
        }
        made = place.client.create(PODS, pod, namespace=place.namespace)
        assert made["status"]["phase"] == "Pending"
        running = place.client.patch(
            PODS, "p", {"status": {"phase": "Running"}}, namespace=place.namespace, subresource="status"
        )
        assert running["status"]["phase"] == "Running"
        assert place.names(PODS, field_selector="spec.nodeName=n1,status.phase=Running") == ["p"]
        assert place.names(PODS, field_selector="spec.nodeName=n2") == []
        with pytest.raises(InvalidObjectError):
            place.names(PODS, field_selector="spec.volumes=x")
        with pytest.raises(InvalidObjectError):
            place.client.patch(PODS, "p", {"spec": {"nodeName": "n2"}}, namespace=place.namespace)

    def test_pod_on_a_node_gets_its_grace_and_one_without_does_not(self, place: Place) -> None:
        containers = [{"name": "c", "image": "example.com/i"}]
        for name, node in (("on", {"nodeName": "n1"}), ("off", {})):
            place.client.create(
                PODS,
                {"metadata": {"name": name}, "spec": {"containers": containers, **node}},
                namespace=place.namespace,
            )
            place.client.delete(PODS, name, namespace=place.namespace)
        assert place.names(PODS) == ["on"]
        held = place.client.get(PODS, "on", namespace=place.namespace)
        assert held["metadata"]["deletionGracePeriodSeconds"] == 30
        place.client.delete(PODS, "on", namespace=place.namespace, grace_period_seconds=0)
        assert place.names(PODS) == []

    def test_namespace_carries_its_name_as_a_label(self, place: Place) -> None:
        found = place.client.get(NAMESPACES, place.namespace)
        assert found["metadata"]["labels"]["kubernetes.io/metadata.name"] == place.namespace
        assert found["status"]["phase"] == "Active"

    @pytest.mark.parametrize(
        "spec", [{"leaseDurationSeconds": 0}, {"leaseTransitions": -1}, {"renewTime": "2026-01-02"}], ids=str
    )
    def test_bad_leases_are_refused(self, place: Place, spec: JsonObject) -> None:
        with pytest.raises(InvalidObjectError):
            place.client.create(
                LEASES, {"metadata": {"name": "l"}, "spec": {"holderIdentity": "x", **spec}}, namespace=place.namespace
            )

    def test_event_can_be_counted_up(self, place: Place) -> None:
        event = {
            "metadata": {"name": "e"},
            "involvedObject": {
                "kind": "Gadget",
                "name": "a",
                "namespace": place.namespace,
                "apiVersion": GADGETS.api_version,
            },
            "reason": "Tested",
            "type": "Normal",
            "count": 1,
        }
        place.client.create(EVENTS, event, namespace=place.namespace)
        assert place.client.patch(EVENTS, "e", {"count": 2}, namespace=place.namespace)["count"] == 2
        assert place.names(EVENTS, field_selector="involvedObject.name=a,reason=Tested") == ["e"]

    # -- our own parts upon it -------------------------------------------------------------------------------------------------

    def test_informer_follows(self, place: Place) -> None:
        for number in range(7):
            place.gadget(f"old-{number}", node=f"n{number % 2}")
        informer = Informer(
            place.client,
            GADGETS,
            namespace=place.namespace,
            indexers={"node": lambda obj: [obj["spec"].get("node", "")]},
            times=InformerTimes(page_size=3),
        )
        informer.start()
        try:
            assert informer.wait_for_sync(timeout_seconds=20)
            assert len(informer.by_index("node", "n0")) == 4
            place.gadget("new", node="n0")
            place.client.patch(GADGETS, "old-0", {"spec": {"node": "n1"}}, namespace=place.namespace)
            place.client.delete(GADGETS, "old-1", namespace=place.namespace)
            until(lambda: informer.keys() == {f"{place.namespace}/{name}" for name in place.names()})
            until(
                lambda: (
                    {obj["metadata"]["name"] for obj in informer.by_index("node", "n0")}
                    == {"old-2", "old-4", "old-6", "new"}
                )
            )
        finally:
            assert informer.stop()

    def test_lease_passes_from_one_to_the_next(self, place: Place) -> None:
        times = LeaseTimes(duration_seconds=2, renew_deadline_seconds=1.5, retry_period_seconds=0.2)
        first, second = (
            LeaseElector(place.client, name="node-n1", namespace=place.namespace, identity=name, times=times)
            for name in ("one", "two")
        )
        first.start()
        assert first.wait_until_held(timeout_seconds=10)
        second.start()
        assert not second.wait_until_held(timeout_seconds=0.5)
        assert first.stop()
        assert second.wait_until_held(timeout_seconds=10)
        lease = place.client.get(LEASES, "node-n1", namespace=place.namespace)
        assert lease["spec"]["holderIdentity"] == "two"
        assert lease["spec"]["leaseTransitions"] == 1
        assert second.stop()
        assert not place.client.get(LEASES, "node-n1", namespace=place.namespace)["spec"].get("holderIdentity")
