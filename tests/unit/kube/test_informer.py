"""The copy follows the server through every fault that the server can be made to show, and handlers are told the last state of everything."""

import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.unit.kube.world import GADGETS, Told, World, until

from longshore.errors import GoneError, UsageError
from longshore.kube.clock import Backoff
from longshore.kube.fake import (
    Answer,
    CutStream,
    DelayEvent,
    DropConnection,
    DuplicateEvent,
    ManualClock,
    SendError,
    StallStream,
)
from longshore.kube.informer import InformerTimes
from longshore.kube.resource import JsonObject, Resource


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def test_copy_is_filled_in_pages_and_followed(world: World) -> None:
    for number in range(5):
        world.put(f"g{number}", size=number)
    world.start()
    assert world.requests("list") == 3
    # Who has not been told of an object yet is told of its last state alone.
    world.settle()
    world.put("g1", size=9)
    world.remove("g2")
    world.put("new")
    world.settle()
    assert ("update", "g1") in world.told.calls
    assert world.informer.get("g1", namespace="default") == world.server.get(GADGETS, "g1")
    assert world.informer.get("nobody", namespace="default") is None
    assert not world.told.unknown


def test_readers_cannot_harm_the_copy(world: World) -> None:
    world.put("a", size=1)
    world.start()
    world.informer.list()[0]["spec"]["size"] = 7
    found = world.informer.get("a", namespace="default")
    assert found is not None
    found["metadata"].clear()
    assert world.informer.list()[0]["spec"] == {"size": 1}


def test_object_made_anew_is_told_as_deletion_and_addition(world: World) -> None:
    world.put("a")
    world.start()
    world.settle()
    world.told.calls.clear()
    world.remove("a")
    world.put("a")
    world.settle()
    assert world.told.calls == [("delete", "a"), ("add", "a")]


def test_forgotten_version_lists_again_and_finds_what_was_missed(world: World) -> None:
    for name in ("gone", "anew", "kept", "changed"):
        world.put(name)
    world.start()
    world.settle()
    world.told.calls.clear()
    world.server.go_down()
    world.remove("gone")
    world.remove("anew")
    world.put("anew")
    world.put("changed", size=2)
    world.put("new")
    world.server.compact()
    lists = world.requests("list")
    world.server.come_back()
    world.settle()
    assert world.requests("list") > lists
    assert sorted(world.told.calls) == [
        ("add", "anew"),
        ("add", "new"),
        ("delete", "anew"),
        ("delete", "gone"),
        ("update", "changed"),
    ]
    assert sorted(world.told.unknown) == ["anew", "gone"]


def test_outage_resumes_without_a_list_when_history_is_kept(world: World) -> None:
    world.put("a")
    world.start()
    lists = world.requests("list")
    for name in ("b", "c"):
        world.server.go_down()
        world.put(name)
        world.remove("a") if name == "c" else None
        world.server.come_back()
        world.settle()
    assert world.requests("list") == lists
    assert not world.told.unknown


@pytest.mark.parametrize(
    "action",
    [StallStream(), CutStream(), DuplicateEvent(), DelayEvent(0.2), SendError(410), SendError(500)],
    ids=lambda action: f"{action!r}",
)
def test_faulty_event_loses_nothing(world: World, action: Any) -> None:
    world.put("a", size=1)
    world.start()
    world.watching()
    fault = world.server.faults.inject_event(action)
    world.put("a", size=2)
    world.put("b")
    until(lambda: fault.struck)
    world.settle()


REQUEST_FAULTS = [
    Answer(410),
    Answer(500),
    Answer(429, retry_after_seconds=0),
    Answer(503, retry_after_seconds=0),
    DropConnection(),
]


@pytest.mark.parametrize(
    ("verb", "action"),
    [*itertools.product(["list", "watch"], REQUEST_FAULTS), ("watch", StallStream())],
    ids=str,
)
def test_faulty_request_loses_nothing(world: World, action: Any, verb: str) -> None:
    for number in range(5):
        world.put(f"g{number}")
    fault = world.server.faults.inject(action, verb=verb, resource="gadgets", times=3)
    world.informer.start()
    world.put("late")
    until(lambda: fault.struck == 3, seconds=30)
    world.settle()


def test_pages_that_expire_are_read_again_in_one_piece(world: World) -> None:
    for number in range(5):
        world.put(f"g{number}")
    world.server.faults.inject(Answer(410), verb="list", skip=1)
    world.start()
    world.settle()
    assert [seen.code for seen in world.server.seen if seen.verb == "list"] == [200, 410, 200]


def test_silent_connection_is_noticed_and_resumed_without_a_list() -> None:
    world = World(times=InformerTimes(silence_seconds_max=0.3))
    try:
        world.server.bookmark_seconds = 60
        world.start()
        world.server.faults.inject(StallStream(), verb="watch", times=1)
        world.server.disconnect_watches()
        until(lambda: world.requests("watch") >= 1)
        world.put("missed")
        world.settle()
        assert world.requests("list") == 1
    finally:
        world.close()


def test_bookmarks_move_the_version_so_that_a_quiet_kind_outlives_compaction(world: World) -> None:
    world.put("a")
    world.start()
    world.watching()
    other = Resource("", "v1", "configmaps", "ConfigMap")
    for number in range(3):
        world.server.put(other, {"metadata": {"name": f"c{number}"}})
    newest = str(world.server.store.version)
    until(lambda: world.informer._version == newest)
    world.server.go_down()
    world.server.compact()
    world.put("b")
    world.server.come_back()
    world.settle()
    assert world.requests("list") == 1


def test_failing_server_is_asked_with_growing_jittered_pauses(world: World) -> None:
    world.server.faults.inject(Answer(500), verb="list", times=8)
    world.start()
    waits = world.clock.waits[:8]
    assert 0.5 <= waits[0] <= 1.3
    assert waits[-1] >= 20
    assert all(wait <= 30 for wait in waits)
    assert len(set(waits)) > 5


def test_server_that_ends_watches_at_once_is_not_asked_in_a_tight_loop(world: World) -> None:
    world.start()
    for _ in range(5):
        world.watching()
        before = len(world.clock.waits)
        world.server.disconnect_watches()
        until(lambda before=before: len(world.clock.waits) > before)


def test_backoff_starts_anew_after_a_quiet_while() -> None:
    clock = ManualClock()

    class Middle:
        def uniform(self, _low: float, _high: float) -> float:
            return 1.0

    backoff = Backoff(clock=clock, rng=Middle())  # type: ignore[arg-type]
    assert [backoff.next_seconds() for _ in range(8)] == [0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]
    clock.advance(121)
    assert backoff.next_seconds() == 0.8


def test_slow_handler_delays_neither_the_watch_nor_others(world: World) -> None:
    leave = threading.Event()

    class Slow(Told):
        def on_add(self, obj: JsonObject) -> None:
            leave.wait(10)
            super().on_add(obj)

    slow = Slow()
    world.informer.add_handler(slow)
    world.put("a")
    world.start()
    for size in range(50):
        world.put("b", size=size)
    world.settle()
    assert slow.calls == []
    leave.set()
    until(lambda: slow.state == world.told.state)
    assert len(slow.calls) <= 4, "a handler that lags is told the last state, not every event"
    assert not slow.faults


def test_deletion_that_was_seen_is_not_called_unknown_though_the_handler_lags(world: World) -> None:
    leave = threading.Event()

    class Slow(Told):
        def on_add(self, obj: JsonObject) -> None:
            super().on_add(obj)
            if obj["metadata"]["name"] == "hold":
                leave.wait(10)

    slow = Slow()
    world.informer.add_handler(slow)
    world.put("a", size=1)
    world.start()
    until(lambda: "a" in slow.state)
    world.put("hold")
    until(lambda: "hold" in slow.state)
    world.put("a", size=2)
    world.remove("a")
    world.put("a", size=3)
    world.settle()
    leave.set()
    until(lambda: slow.calls[-2:] == [("delete", "a"), ("add", "a")])
    assert not slow.unknown
    assert not slow.faults


def test_handler_that_raises_is_told_of_the_rest(world: World) -> None:
    class Broken(Told):
        def on_add(self, obj: JsonObject) -> None:
            if obj["metadata"]["name"] == "a":
                raise ValueError("broken")
            super().on_add(obj)

    broken = Broken()
    world.informer.add_handler(broken)
    world.put("a")
    world.put("b")
    world.start()
    until(lambda: "b" in broken.state)


def test_handler_that_comes_late_is_told_of_everything(world: World) -> None:
    world.put("a")
    world.start()
    late = Told()
    world.informer.add_handler(late)
    until(lambda: set(late.state) == {"a"})
    world.put("b")
    until(lambda: set(late.state) == {"a", "b"})


def test_transform_cuts_what_is_kept_and_silences_what_it_drops() -> None:
    world = World(
        transform=lambda obj: {
            "metadata": {key: obj["metadata"][key] for key in ("name", "namespace", "uid")},
            "size": obj["spec"].get("size"),
        }
    )
    try:
        world.put("a", size=1, noise=1)
        world.start()
        until(lambda: world.told.calls == [("add", "a")])
        world.put("a", size=1, noise=2)
        world.put("a", size=2, noise=2)
        until(lambda: ("update", "a") in world.told.calls)
        assert world.told.calls == [("add", "a"), ("update", "a")]
        assert world.informer.list()[0].keys() == {"metadata", "size"}
    finally:
        world.close()


def test_faulty_transform_does_not_end_the_copy() -> None:
    bad = [True]

    def transform(obj: JsonObject) -> JsonObject:
        if bad[0]:
            raise KeyError("bad")
        return obj

    world = World(transform=transform)
    try:
        world.put("a")
        world.informer.start()
        until(lambda: world.informer.last_error() is not None)
        bad[0] = False
        world.settle()
    finally:
        world.close()


def test_index_follows_changes() -> None:
    world = World(indexers={"node": lambda obj: obj["spec"].get("nodes", [])})
    try:
        world.put("a", nodes=["n1", "n2"])
        world.put("b", nodes=["n2"])
        world.start()

        def names(node: str) -> list[str]:
            return [obj["metadata"]["name"] for obj in world.informer.by_index("node", node)]

        assert (names("n1"), names("n2"), names("n3")) == (["a"], ["a", "b"], [])
        world.put("a", nodes=["n3"])
        world.remove("b")
        world.settle()
        assert (names("n1"), names("n2"), names("n3")) == ([], [], ["a"])
        assert world.informer._index == {"node": {"n3": {"default/a"}}}, "an empty entry is forgotten"
        with pytest.raises(UsageError):
            world.informer.by_index("colour", "red")
    finally:
        world.close()


def test_stop_is_quick_while_the_watch_is_quiet() -> None:
    # With the times of production, so that nothing but the stop can end the read.
    world = World(times=InformerTimes())
    world.server.bookmark_seconds = 60
    world.start()
    world.watching()
    began = time.monotonic()
    assert world.informer.stop()
    assert time.monotonic() - began < 1.0
    assert not world.informer.is_alive()
    world.close()


def test_stop_returns_while_a_list_hangs() -> None:
    world = World()
    world.server.faults.inject(StallStream(), verb="list")
    world.informer.start()
    began = time.monotonic()
    world.informer.stop()
    assert time.monotonic() - began < 2.5
    world.client.close()
    world.server.stop()


def test_age_tells_how_long_nothing_was_heard(world: World) -> None:
    world.start()
    assert world.informer.last_event_age_seconds() < 5
    assert world.informer.is_alive()
    with pytest.raises(UsageError):
        world.informer.start()


def test_gone_as_a_status_is_gone(world: World) -> None:
    world.server.faults.inject(Answer(410), verb="watch")
    with pytest.raises(GoneError):
        world.client.watch(GADGETS, resource_version="5", server_timeout_seconds=5, read_timeout_seconds=5)
