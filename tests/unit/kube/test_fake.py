"""What the fake server promises beside being like a real one: life, faults, leftovers. What it has in common with a real one is in `conformance`."""

import json
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshore.errors import (
    ApiDeniedError,
    ApiUnavailableError,
    GoneError,
    InvalidObjectError,
    NotFoundError,
    UsageError,
)
from longshore.kube.client import KubeClient
from longshore.kube.fake import Answer, FakeApiServer, StallStream
from longshore.kube.fake.patches import json_patch, merge_patch
from longshore.kube.resource import CONFIG_MAPS, NAMESPACES, NODES, PODS, Resource

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def server() -> Iterator[FakeApiServer]:
    with FakeApiServer() as running:
        yield running


@pytest.fixture
def client(server: FakeApiServer) -> Iterator[KubeClient]:
    with KubeClient.from_kubeconfig(server.kubeconfig_path, timeout_seconds=5) as made:
        yield made


def until(true: Callable[[], Any], *, seconds: float = 10.0) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, "it did not come true in time"
        time.sleep(0.002)


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("fake-api")}


def test_nothing_is_left_after_the_end() -> None:
    before = threads()
    with FakeApiServer() as server:
        path = server.kubeconfig_path
        with KubeClient.from_kubeconfig(path) as client:
            version = client.list(CONFIG_MAPS).resource_version
            streams = [
                client.watch(CONFIG_MAPS, resource_version=version, server_timeout_seconds=60, read_timeout_seconds=60)
                for _ in range(3)
            ]
            server.faults.inject(StallStream(), verb="watch")
            streams.append(
                client.watch(CONFIG_MAPS, resource_version=version, server_timeout_seconds=60, read_timeout_seconds=60)
            )
            assert len(threads()) >= 5
            began = time.monotonic()
            server.stop()
            assert time.monotonic() - began < 2
            assert threads() == before
            for stream in streams:
                with pytest.raises(ApiUnavailableError):
                    list(stream)
        assert not path.parent.exists()


def test_closed_watch_leaves_no_thread(server: FakeApiServer, client: KubeClient) -> None:
    version = client.list(CONFIG_MAPS).resource_version
    idle = threads()
    for _ in range(5):
        with client.watch(CONFIG_MAPS, resource_version=version, server_timeout_seconds=60, read_timeout_seconds=60):
            pass
    until(lambda: len(threads()) <= len(idle))


def test_process_that_forgets_to_stop_it_ends_nevertheless() -> None:
    code = "from longshore.kube.fake import FakeApiServer; s = FakeApiServer().start(); print(s.url)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": "python"},
        check=True,
    )
    assert done.stdout.startswith("http://127.0.0.1:")


def test_kubeconfig_goes_where_it_is_wanted_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "config"
    with FakeApiServer(kubeconfig_path=path, token="t-o-k-e-n") as server:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert server.kubeconfig == str(path)
        with KubeClient.from_kubeconfig(path) as client:
            client.version()
        server.require_token("other")
        with KubeClient.from_kubeconfig(path) as client, pytest.raises(ApiDeniedError):
            client.version()
    assert path.exists()


def test_restart_keeps_address_and_state(server: FakeApiServer, client: KubeClient) -> None:
    client.create(CONFIG_MAPS, {"metadata": {"name": "a"}}, namespace="default")
    url = server.url
    server.go_down()
    with pytest.raises(ApiUnavailableError):
        client.version(timeout_seconds=0.5)
    server.come_back()
    assert server.url == url
    assert client.get(CONFIG_MAPS, "a", namespace="default")
    with pytest.raises(UsageError):
        server.start()


def test_compaction_forgets_history(server: FakeApiServer, client: KubeClient) -> None:
    for name in "abc":
        client.create(CONFIG_MAPS, {"metadata": {"name": name}}, namespace="default")
    page = client.page(CONFIG_MAPS, limit=1)
    server.compact()
    with pytest.raises(GoneError):
        client.page(CONFIG_MAPS, limit=1, continue_token=page.remaining)
    stream = client.watch(CONFIG_MAPS, resource_version="1001", server_timeout_seconds=2, read_timeout_seconds=5)
    with pytest.raises(GoneError):
        list(stream)
    newest = client.list(CONFIG_MAPS).resource_version
    assert (
        list(client.watch(CONFIG_MAPS, resource_version=newest, server_timeout_seconds=1, read_timeout_seconds=5)) == []
    )


def test_history_is_bounded() -> None:
    with FakeApiServer(history_max=10) as server, KubeClient.from_kubeconfig(server.kubeconfig_path) as client:
        first = client.list(CONFIG_MAPS).resource_version
        for number in range(25):
            server.put(CONFIG_MAPS, {"metadata": {"name": "a"}, "data": {"n": str(number)}})
        assert len(server.store._log) <= 20
        with pytest.raises(GoneError):
            list(client.watch(CONFIG_MAPS, resource_version=first, server_timeout_seconds=1, read_timeout_seconds=5))


def test_faults_strike_the_nth_that_match(server: FakeApiServer, client: KubeClient) -> None:
    fault = server.faults.inject(
        Answer(500), verb="get", resource="configmaps", namespace="default", name="a", skip=1, times=1
    )
    server.put(CONFIG_MAPS, {"metadata": {"name": "a"}})
    server.put(CONFIG_MAPS, {"metadata": {"name": "b"}})

    def get(name: str) -> str:
        try:
            return str(client.get(CONFIG_MAPS, name, namespace="default")["metadata"]["name"])
        except ApiUnavailableError:
            return "fault"

    assert [get(name) for name in ("a", "b", "a", "a")] == ["a", "b", "fault", "a"]
    assert fault.struck == 1
    server.faults.inject(Answer(500), verb="get", times=None)
    assert [get("a"), get("b")] == ["fault", "fault"]
    server.faults.clear()
    assert get("a") == "a"


def test_put_writes_status_as_the_kubelet_would_and_makes_the_namespace(
    server: FakeApiServer, client: KubeClient
) -> None:
    pod = {
        "metadata": {"name": "p", "namespace": "shop"},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": "Running"},
    }
    server.put(PODS, pod)
    assert client.get(PODS, "p", namespace="shop")["status"]["phase"] == "Running"
    server.put(PODS, {**pod, "status": {"phase": "Succeeded"}})
    assert client.get(PODS, "p", namespace="shop")["status"]["phase"] == "Succeeded"
    server.put(NODES, {"metadata": {"name": "n1"}})
    assert [node["metadata"]["name"] for node in server.objects(NODES)] == ["n1"]
    assert server.get(PODS, "absent", namespace="shop") is None


def test_deleted_namespace_takes_its_objects_along(server: FakeApiServer, client: KubeClient) -> None:
    client.create(NAMESPACES, {"metadata": {"name": "shop"}})
    client.create(CONFIG_MAPS, {"metadata": {"name": "held", "finalizers": ["x.test/hold"]}}, namespace="shop")
    client.create(CONFIG_MAPS, {"metadata": {"name": "free"}}, namespace="shop")
    client.delete(NAMESPACES, "shop")
    assert [item["metadata"]["name"] for item in client.list(CONFIG_MAPS, namespace="shop").items] == ["held"]
    assert client.get(NAMESPACES, "shop")["status"]["phase"] == "Terminating"
    with pytest.raises(ApiDeniedError):
        client.create(CONFIG_MAPS, {"metadata": {"name": "late"}}, namespace="shop")
    client.patch(CONFIG_MAPS, "held", {"metadata": {"finalizers": None}}, namespace="shop")
    with pytest.raises(NotFoundError):
        client.get(NAMESPACES, "shop")


def test_validator_refuses_what_a_test_wants_refused(server: FakeApiServer, client: KubeClient) -> None:
    server.store.validators.append(
        lambda resource, new, _old: "no x" if resource == CONFIG_MAPS and "x" in new.get("data", {}) else None
    )
    client.create(CONFIG_MAPS, {"metadata": {"name": "a"}}, namespace="default")
    with pytest.raises(InvalidObjectError, match="no x"):
        client.patch(CONFIG_MAPS, "a", {"data": {"x": "1"}}, namespace="default")


def test_registered_kind_has_the_schema_and_fields_it_was_given(server: FakeApiServer, client: KubeClient) -> None:
    gadgets = Resource("longshore.test", "v1", "gadgets", "Gadget")
    with pytest.raises(NotFoundError):
        client.list(gadgets)
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"node": {"type": "string"}}}}}
    server.register(gadgets, schema=schema, selectable_fields=("spec.node",))
    made = client.create(gadgets, {"metadata": {"name": "a"}, "spec": {"node": "n1", "alien": 1}}, namespace="default")
    assert made["spec"] == {"node": "n1"}
    assert len(client.list(gadgets, field_selector="spec.node=n1").items) == 1


@pytest.mark.parametrize("style", ["application/strategic-merge-patch+json", "application/apply-patch+yaml"])
def test_patch_style_that_is_not_there_is_415(server: FakeApiServer, style: str) -> None:
    server.put(CONFIG_MAPS, {"metadata": {"name": "a"}})
    request = urllib.request.Request(
        f"{server.url}/api/v1/namespaces/default/configmaps/a", b"{}", {"Content-Type": style}, method="PATCH"
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    assert caught.value.code == 415


@pytest.mark.parametrize("path", ["/api", "/apis", "/api/v1", "/apis/apps/v1", "/apis/apps", "/version"])
def test_discovery_is_enough_for_kubectl(server: FakeApiServer, path: str) -> None:
    with urllib.request.urlopen(server.url + path) as answer:
        assert json.load(answer)


@pytest.mark.parametrize(
    "path",
    ["/apis/nonesuch/v1/things", "/api/v1/nonesuch", "/nonsense", "/api/v1/namespaces/a/b/c/d/e", "/apis/none/v1"],
)
def test_unknown_path_is_404(server: FakeApiServer, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(server.url + path)
    assert caught.value.code == 404


def test_initial_events_end_with_a_marked_bookmark(server: FakeApiServer) -> None:
    server.put(CONFIG_MAPS, {"metadata": {"name": "a"}})
    query = (
        "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1"
    )
    with urllib.request.urlopen(f"{server.url}/api/v1/configmaps?{query}") as answer:
        events = [json.loads(line) for line in answer]
    assert [event["type"] for event in events] == ["ADDED", "BOOKMARK"]
    assert events[1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


def test_same_seed_gives_the_same_names() -> None:
    made = []
    for _ in range(2):
        with FakeApiServer(seed=7) as server:
            server.put(CONFIG_MAPS, {"metadata": {"generateName": "a-"}})
            made.append([(obj["metadata"]["name"], obj["metadata"]["uid"]) for obj in server.objects(CONFIG_MAPS)])
    assert made[0] == made[1]


@given(JSON, JSON)
def test_merge_patch_is_idempotent_and_leaves_its_input(document: Any, patch: Any) -> None:
    before = json.dumps([document, patch])
    once = merge_patch(document, patch)
    assert merge_patch(once, patch) == once
    assert json.dumps([document, patch]) == before


@given(st.dictionaries(st.sampled_from("abcd"), JSON, min_size=1), st.sampled_from("abcd"), JSON)
def test_json_patch_leaves_its_input_and_undoes(document: dict[str, Any], name: str, value: Any) -> None:
    before = json.dumps(document)
    added = json_patch(document, [{"op": "add", "path": f"/{name}", "value": value}])
    assert added == {**document, name: value}
    back = (
        {"op": "replace", "path": f"/{name}", "value": document[name]}
        if name in document
        else {"op": "remove", "path": f"/{name}"}
    )
    assert json_patch(added, [back]) == document
    assert json.dumps(document) == before
