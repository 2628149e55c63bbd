"""Requests that go wrong: what is tried again, what is not, how long, and that no secret comes out."""

import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from longshore import errors, logs
from longshore.errors import (
    ApiDeniedError,
    ApiUnavailableError,
    ConflictError,
    InvalidObjectError,
    NotFoundError,
    TooManyRequestsError,
    UsageError,
)
from longshore.kube.client import KubeClient, PatchType
from longshore.kube.connection import find_connector, from_service_account
from longshore.kube.fake import Answer, DropConnection, FakeApiServer, Slow, StallStream
from longshore.kube.requests import path_of, retry_after_seconds, translate
from longshore.kube.resource import CONFIG_MAPS, NAMESPACES, SECRETS, key_of, split_key


@pytest.fixture
def server() -> Iterator[FakeApiServer]:
    with FakeApiServer() as running:
        yield running


@pytest.fixture
def client(server: FakeApiServer) -> Iterator[KubeClient]:
    with KubeClient.from_kubeconfig(server.kubeconfig_path, timeout_seconds=5) as made:
        yield made


def make(client: KubeClient, name: str = "a") -> dict[str, Any]:
    return client.create(CONFIG_MAPS, {"metadata": {"name": name}, "data": {"x": "1"}}, namespace="default")


def codes(server: FakeApiServer, verb: str) -> list[int]:
    return [seen.code for seen in server.seen if seen.verb == verb]


# -- Retry-After ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["create", "list"])
def test_retry_after_is_waited_out_and_the_request_sent_again(
    server: FakeApiServer, client: KubeClient, verb: str
) -> None:
    server.faults.inject(Answer(429, retry_after_seconds=1), verb=verb)
    make(client) if verb == "create" else client.list(CONFIG_MAPS)
    at = [seen.at for seen in server.seen if seen.verb == verb]
    assert len(at) == 2
    assert at[1] - at[0] >= 1.0


def test_while_a_kind_is_held_off_no_thread_asks_for_it_and_others_go_on(
    server: FakeApiServer, client: KubeClient
) -> None:
    server.faults.inject(Answer(429, retry_after_seconds=1), verb="list", resource="configmaps")
    threads = [threading.Thread(target=lambda: client.list(CONFIG_MAPS))]
    threads[0].start()
    while not codes(server, "list"):
        time.sleep(0.001)
    time.sleep(0.05)
    threads += [threading.Thread(target=lambda: client.list(CONFIG_MAPS)) for _ in range(5)]
    for thread in threads[1:]:
        thread.start()
    client.list(NAMESPACES)
    for thread in threads:
        thread.join(10)
    asked = [seen.at for seen in server.seen if seen.resource == "configmaps"]
    others = [seen.at for seen in server.seen if seen.resource == "namespaces"]
    assert len(asked) == 7
    assert min(asked[1:]) - asked[0] >= 1.0
    assert others[0] - asked[0] < 0.8


def test_wait_that_does_not_fit_is_raised_at_once(server: FakeApiServer, client: KubeClient) -> None:
    server.faults.inject(Answer(429, retry_after_seconds=60))
    began = time.monotonic()
    with pytest.raises(TooManyRequestsError) as caught:
        client.get(CONFIG_MAPS, "a", namespace="default", timeout_seconds=2)
    assert time.monotonic() - began < 1.5
    assert 55 < caught.value.retry_after_seconds <= 72
    assert codes(server, "get") == [429]


def test_closing_ends_the_wait(server: FakeApiServer, client: KubeClient) -> None:
    server.faults.inject(Answer(429, retry_after_seconds=4))
    threading.Timer(0.2, client.close).start()
    began = time.monotonic()
    with pytest.raises(ApiUnavailableError):
        client.list(CONFIG_MAPS)
    assert time.monotonic() - began < 2


def test_write_that_got_503_is_not_sent_again(server: FakeApiServer, client: KubeClient) -> None:
    server.faults.inject(Answer(503, retry_after_seconds=0), verb="create", times=None)
    with pytest.raises(TooManyRequestsError):
        make(client)
    assert codes(server, "create") == [503]
    server.faults.clear()
    server.faults.inject(Answer(503, retry_after_seconds=0), verb="list")
    client.list(CONFIG_MAPS)


def test_endless_429_ends(server: FakeApiServer, client: KubeClient) -> None:
    server.faults.inject(Answer(429, retry_after_seconds=0), times=None)
    with pytest.raises(TooManyRequestsError):
        client.list(CONFIG_MAPS)
    assert len(codes(server, "list")) == 10


# -- broken connections --------------------------------------------------------------------------------------------------------


def test_read_is_tried_again_after_a_broken_connection(server: FakeApiServer, client: KubeClient) -> None:
    make(client)
    server.faults.inject(DropConnection(), verb="get", times=2)
    assert client.get(CONFIG_MAPS, "a", namespace="default")["data"] == {"x": "1"}
    assert codes(server, "get") == [0, 0, 200]


@pytest.mark.parametrize("applied", [False, True])
def test_write_whose_answer_was_lost_is_not_sent_again(
    server: FakeApiServer, client: KubeClient, applied: bool
) -> None:
    server.faults.inject(DropConnection(applied=applied), verb="create")
    with pytest.raises(ApiUnavailableError, match="effect=unknown"):
        make(client)
    assert codes(server, "create") == [0]
    assert (server.get(CONFIG_MAPS, "a") is not None) == applied


def test_write_that_never_left_is_tried_again(server: FakeApiServer, client: KubeClient) -> None:
    client.version()
    server.go_down()
    threading.Timer(0.25, server.come_back).start()
    make(client)
    assert codes(server, "create") == [201]


def test_server_that_is_away_is_unavailable(server: FakeApiServer, client: KubeClient) -> None:
    server.go_down()
    with pytest.raises(ApiUnavailableError) as caught:
        client.list(CONFIG_MAPS, timeout_seconds=1)
    assert caught.value.retryable
    assert caught.value.next_step


def test_slow_answer_is_cut_off_by_the_callers_time(server: FakeApiServer, client: KubeClient) -> None:
    server.faults.inject(Slow(10), verb="update", times=None)
    made = make(client)
    began = time.monotonic()
    with pytest.raises(ApiUnavailableError, match="effect=unknown"):
        client.replace(CONFIG_MAPS, made, timeout_seconds=0.5)
    assert time.monotonic() - began < 3


def test_server_error_is_unavailable_and_carries_its_words(server: FakeApiServer, client: KubeClient) -> None:
    server.faults.inject(Answer(500))
    with pytest.raises(ApiUnavailableError, match="injected fault: 500"):
        client.list(CONFIG_MAPS)


def test_closed_client_sends_nothing(server: FakeApiServer, client: KubeClient) -> None:
    client.close()
    with pytest.raises(ApiUnavailableError):
        client.list(CONFIG_MAPS)
    assert not server.seen


# -- credentials ---------------------------------------------------------------------------------------------------------------


def test_rotated_token_is_read_again(tmp_path: Path) -> None:
    with (
        FakeApiServer(token="first-token", kubeconfig_path=tmp_path / "config") as server,
        KubeClient.from_kubeconfig(server.kubeconfig_path) as client,
    ):
        client.list(CONFIG_MAPS)
        client._transport._loaded_at -= 60
        server.require_token("second-token")
        server._token = "second-token"
        server.write_kubeconfig(server.kubeconfig_path)
        client.list(CONFIG_MAPS)


def test_token_that_stays_wrong_is_denied(tmp_path: Path) -> None:
    with FakeApiServer(token="right-token", kubeconfig_path=tmp_path / "config") as server:
        server.require_token("other-token")
        with KubeClient.from_kubeconfig(server.kubeconfig_path) as client, pytest.raises(ApiDeniedError) as caught:
            client.list(CONFIG_MAPS)
        assert "token" not in str(caught.value)


def test_bound_token_of_a_service_account_is_read_at_each_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "192.0.2.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    (tmp_path / "ca.crt").write_text("a certificate")
    connector = from_service_account(tmp_path)
    tokens = []
    for token in ("one-token", "two-token"):
        (tmp_path / "token").write_text(token)
        api_client = connector.connect(user_agent="test")
        headers: dict[str, str] = {}
        api_client.update_params_for_auth(headers, [], ["BearerToken"], "/", "GET", None)
        tokens.append(headers["authorization"])
    assert tokens == ["bearer one-token", "bearer two-token"]
    assert api_client.configuration.host == "https://192.0.2.1:443"


@pytest.mark.parametrize("text", ["", "{", "clusters: 7", "current-context: nowhere"])
def test_unusable_kubeconfig_says_what_to_check(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        KubeClient.from_kubeconfig(path).version()
    assert str(path) in str(caught.value)
    assert caught.value.next_step


def test_missing_kubeconfig_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        KubeClient.from_kubeconfig(tmp_path / "absent").version()


def test_given_kubeconfig_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/somewhere/env")
    assert find_connector("/somewhere/given").described == "/somewhere/given"
    assert find_connector().described == "/somewhere/env"


def test_loopback_is_reached_without_the_proxy(server: FakeApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with KubeClient.from_kubeconfig(server.kubeconfig_path) as client:
        client.version()


# -- secrets -------------------------------------------------------------------------------------------------------------------


def test_no_secret_in_logs_reprs_and_errors(tmp_path: Path) -> None:
    out = io.StringIO()
    logs.configure(level="debug", stream=out)
    try:
        with (
            FakeApiServer(token="sesame-token", kubeconfig_path=tmp_path / "config") as server,
            KubeClient.from_kubeconfig(server.kubeconfig_path) as client,
        ):
            client.create(SECRETS, {"metadata": {"name": "s"}, "stringData": {"p": "hunter2"}}, namespace="default")
            client.get(SECRETS, "s", namespace="default")
            with pytest.raises(InvalidObjectError) as caught:
                client.patch(SECRETS, "s", {"data": {"p": "hunter2!"}}, namespace="default")
            shown = repr(client) + repr(caught.value) + str(caught.value)
    finally:
        logs.configure(level="warning", format="text")
    text = out.getvalue() + shown
    assert "Called the API server" in text
    for secret in ("hunter2", "aHVudGVyMg", "sesame"):
        assert secret not in text


# -- paths and answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a%2fb", "a\nb"])
def test_name_cannot_leave_its_place_in_the_path(server: FakeApiServer, client: KubeClient, name: str) -> None:
    make(client)
    with pytest.raises(UsageError):
        client.delete(CONFIG_MAPS, name, namespace="default")
    with pytest.raises(UsageError):
        client.get(CONFIG_MAPS, "a", namespace=name)
    assert server.get(CONFIG_MAPS, "a") is not None


def test_object_in_a_namespace_needs_it() -> None:
    with pytest.raises(UsageError):
        path_of(CONFIG_MAPS, name="a")
    with pytest.raises(UsageError):
        path_of(NAMESPACES, namespace="default", name="a")
    with pytest.raises(UsageError):
        path_of(CONFIG_MAPS, namespace="default", subresource="status")
    assert path_of(CONFIG_MAPS) == "/api/v1/configmaps"


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (400, "", errors.InvalidObjectError),
        (401, "", errors.ApiDeniedError),
        (403, "", errors.ApiDeniedError),
        (404, "", errors.NotFoundError),
        (409, "AlreadyExists", errors.AlreadyExistsError),
        (409, "Conflict", errors.ConflictError),
        (410, "Expired", errors.GoneError),
        (415, "", errors.InvalidObjectError),
        (422, "Invalid", errors.InvalidObjectError),
        (429, "", errors.TooManyRequestsError),
        (500, "", errors.ApiUnavailableError),
        (502, "", errors.ApiUnavailableError),
        (504, "", errors.ApiUnavailableError),
    ],
)
def test_every_answer_is_one_error(code: int, reason: str, expected: type[Exception]) -> None:
    body = json.dumps({"kind": "Status", "code": code, "reason": reason, "message": "said\nso"}).encode()
    error = translate(code, headers={}, body=body, verb="get", resource=CONFIG_MAPS, name="a")
    assert type(error) is expected
    assert "answer=said so" in str(error)
    assert type(translate(code, headers={}, body=b"<html>", verb="get", resource=None)) in {
        expected,
        errors.ConflictError,
    }


@pytest.mark.parametrize(
    ("text", "expected"), [("3", 3), ("0", 0), ("-1", 0), ("9999", 300), ("Wed, 21 Oct", None), ("nan", None)]
)
def test_retry_after_is_read(text: str, expected: float | None) -> None:
    assert retry_after_seconds({"Retry-After": text}) == expected


def test_answer_about_a_secret_names_fields_and_repeats_no_value() -> None:
    status = {
        "kind": "Status",
        "reason": "Invalid",
        "message": 'Secret "s" is invalid: data[p]: Invalid value: "hunter2"',
        "details": {"causes": [{"field": "data[p]", "message": 'Invalid value: "hunter2"'}]},
    }
    error = translate(422, headers={}, body=json.dumps(status).encode(), verb="create", resource=SECRETS, name="s")
    assert "hunter2" not in str(error)
    assert "data[p]" in str(error)


def test_patch_and_type_must_fit(client: KubeClient) -> None:
    with pytest.raises(InvalidObjectError):
        client.patch(CONFIG_MAPS, "a", [], namespace="default")
    with pytest.raises(InvalidObjectError):
        client.patch(CONFIG_MAPS, "a", {}, namespace="default", patch_type=PatchType.JSON)


def test_modify_gives_up_after_its_tries(server: FakeApiServer, client: KubeClient) -> None:
    make(client)
    server.faults.inject(Answer(409), verb="patch", times=None)
    with pytest.raises(ConflictError):
        client.modify(CONFIG_MAPS, "a", lambda _obj: {"data": {"x": "2"}}, namespace="default", tries=3)
    assert codes(server, "patch") == [409] * 3
    assert client.modify(CONFIG_MAPS, "a", lambda _obj: None, namespace="default")["data"] == {"x": "1"}


def test_list_survives_pages_that_expire(server: FakeApiServer, client: KubeClient) -> None:
    for name in "abc":
        make(client, name)
    server.faults.inject(Answer(410), verb="list", skip=1)
    assert len(client.list(CONFIG_MAPS, limit=2).items) == 3


def test_watch_that_stalls_ends_after_its_time_and_says_so(server: FakeApiServer, client: KubeClient) -> None:
    server.faults.inject(StallStream(), verb="watch")
    version = client.list(CONFIG_MAPS).resource_version
    stream = client.watch(CONFIG_MAPS, resource_version=version, server_timeout_seconds=60, read_timeout_seconds=0.2)
    assert list(stream) == []
    assert stream.silent


def test_keys_come_apart_as_they_were_joined() -> None:
    assert split_key(key_of("ns", "a")) == ("ns", "a")
    assert split_key(key_of(None, "a")) == (None, "a")
    for bad in ("", "a/", "/a", "a/b/c"):
        with pytest.raises(UsageError):
            split_key(bad)


def test_missing_object_is_told_apart_from_a_server_in_trouble(client: KubeClient) -> None:
    with pytest.raises(NotFoundError):
        client.get(CONFIG_MAPS, "no", namespace="default")


def test_applied_object_holds_no_escape_in_two_halves(client: KubeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server reads what is applied as YAML, and YAML's escapes have no surrogates."""
    sent = []

    def call(_verb: str, _method: str, _path: str, *, body: Any, **_rest: Any) -> bytes:
        sent.append(body)
        return b"{}"

    monkeypatch.setattr(client._transport, "call", call)
    client.apply(CONFIG_MAPS, {"metadata": {"name": "a", "namespace": "b"}, "data": {"c": "𧾸"}}, field_manager="m")
    assert isinstance(sent[0], bytes) and "𧾸".encode() in sent[0]
