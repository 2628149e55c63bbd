"""Events are merged, limited and never in the way."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from longshore.kube.client import KubeClient
from longshore.kube.events import EventRecorder, EventType
from longshore.kube.fake import Answer, FakeApiServer, ManualClock, StallStream
from longshore.kube.resource import EVENTS, JsonObject

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p", "namespace": "default", "uid": "u-1", "resourceVersion": "7"},
    "spec": {"secret": "not here"},
}


@pytest.fixture
def server() -> Iterator[FakeApiServer]:
    with FakeApiServer() as running:
        yield running


class Recording:
    def __init__(self, server: FakeApiServer) -> None:
        self.clock = ManualClock()
        self.client = KubeClient.from_kubeconfig(server.kubeconfig_path, timeout_seconds=2)
        self.recorder = EventRecorder(self.client, component="agent", host="n1", clock=self.clock)
        self._server = server

    def record(self, message: str, *, reason: str = "Tested", obj: JsonObject | None = None) -> None:
        self.recorder.record(POD if obj is None else obj, EventType.NORMAL, reason, message)

    def events(self) -> list[JsonObject]:
        """Everything recorded so far, written."""
        if self.recorder._thread is None:
            self.recorder.start()
        until(lambda: not self.recorder._waiting.unfinished_tasks)
        return self._server.objects(EVENTS)


def until(true: Callable[[], Any], *, seconds: float = 10.0) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, "it did not come true in time"
        time.sleep(0.002)


@pytest.fixture
def recording(server: FakeApiServer) -> Iterator[Recording]:
    made = Recording(server)
    yield made
    made.recorder.stop(timeout_seconds=0.2)
    made.client.close()


def test_event_names_its_object_and_its_source(recording: Recording) -> None:
    recording.record("Went well")
    (event,) = recording.events()
    assert event["involvedObject"] == {"apiVersion": "v1", "kind": "Pod", **POD["metadata"]}
    assert (event["type"], event["reason"], event["message"]) == ("Normal", "Tested", "Went well")
    assert event["source"] == {"component": "agent", "host": "n1"}
    assert event["metadata"]["namespace"] == "default"
    assert event["metadata"]["name"].startswith("p.")
    assert event["firstTimestamp"] == "2026-01-02T03:04:05Z"


@pytest.mark.parametrize("cause", ["a" * 3000, "a; " * 1000])
def test_long_message_is_cut_and_keeps_its_step(recording: Recording, cause: str) -> None:
    recording.record(f"{cause}; make room, or raise the quota")
    (event,) = recording.events()
    assert len(event["message"]) == 1024
    assert event["message"].startswith(cause[:900]) and event["message"].endswith("…; make room, or raise the quota")


def test_long_message_without_a_step_is_cut_at_its_end(recording: Recording) -> None:
    recording.record("a" * 3000)
    (event,) = recording.events()
    assert event["message"] == "a" * 1023 + "…"


def test_same_event_is_counted_up(recording: Recording) -> None:
    recording.record("a")
    recording.clock.advance(5)
    recording.record("a")
    recording.record("a")
    (event,) = recording.events()
    assert event["count"] == 3
    assert event["lastTimestamp"] == "2026-01-02T03:04:10Z"


def test_event_that_the_cluster_forgot_is_made_anew(server: FakeApiServer, recording: Recording) -> None:
    recording.record("a")
    (event,) = recording.events()
    recording.client.delete(EVENTS, event["metadata"]["name"], namespace="default")
    recording.record("a")
    (again,) = recording.events()
    assert again["count"] == 1
    assert again["metadata"]["name"] != event["metadata"]["name"]


def test_many_messages_of_one_reason_are_combined(recording: Recording) -> None:
    for number in range(15):
        recording.record(f"message {number}")
    events = recording.events()
    combined = [event for event in events if event["message"].startswith("(combined")]
    assert len(events) == 11
    assert len(combined) == 1
    assert combined[0]["count"] == 5
    assert combined[0]["message"].endswith("message 14")
    recording.clock.advance(601)
    recording.record("fresh")
    assert any(event["message"] == "fresh" for event in recording.events())


def test_one_object_cannot_flood_the_cluster_and_others_are_not_held_up(
    server: FakeApiServer, recording: Recording
) -> None:
    for number in range(60):
        recording.record("same", reason=f"Reason{number}")
    recording.record("other", obj={**POD, "metadata": {**POD["metadata"], "uid": "u-2", "name": "q"}})
    events = recording.events()
    assert len(events) == 26
    assert recording.recorder.dropped == 35
    recording.clock.advance(301)
    recording.record("later", reason="Later")
    assert len(recording.events()) == 27


@pytest.mark.parametrize("fault", [Answer(500), Answer(403), Answer(422), Answer(429, retry_after_seconds=0)], ids=str)
def test_server_that_refuses_is_borne(server: FakeApiServer, recording: Recording, fault: Any) -> None:
    server.faults.inject(fault, resource="events")
    recording.record("a")
    recording.record("b", reason="Other")
    assert any(event["message"] == "b" for event in recording.events())


@pytest.mark.parametrize("obj", [{}, {"metadata": None}, {"metadata": {"name": 7}}], ids=str)
def test_record_never_raises(recording: Recording, obj: JsonObject) -> None:
    recording.record("a", obj=obj)
    recording.events()


def test_record_never_waits_and_the_waiting_list_is_bounded(server: FakeApiServer, recording: Recording) -> None:
    server.faults.inject(StallStream(), resource="events", times=None)
    recording.recorder.start()
    began = time.monotonic()
    for number in range(1_500):
        recording.record(f"m{number}", reason=f"R{number}")
    assert time.monotonic() - began < 2
    assert recording.recorder.dropped >= 400
    assert not recording.recorder.stop(timeout_seconds=0.1)


def test_secrets_in_messages_are_blotted_out(recording: Recording) -> None:
    recording.record("refused Bearer abcdefghijkl by s3")
    (event,) = recording.events()
    assert event["message"] == "refused Bearer *** by s3"


def test_object_without_namespace_tells_in_default(recording: Recording) -> None:
    recording.record("a", obj={"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "uid": "x"}})
    (event,) = recording.events()
    assert event["metadata"]["namespace"] == "default"
