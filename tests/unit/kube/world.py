"""A server, an informer and a handler that checks what it is told: the ground on which informers are tested."""

import threading
import time
from collections.abc import Callable
from typing import Any

from longshore.kube.client import KubeClient
from longshore.kube.fake import FakeApiServer
from longshore.kube.informer import Informer, InformerTimes
from longshore.kube.resource import JsonObject, Resource

GADGETS = Resource("longshore.test", "v1", "gadgets", "Gadget")
QUICK = InformerTimes(silence_seconds_max=0.4, page_size=2, list_timeout_seconds=5)


class HurriedClock:
    """The machine's clock, but pauses are a hundredth of what is asked: backoff is real and the test is quick."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> Any:
        raise NotImplementedError

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.waits.append(seconds)
        return event.wait(seconds / 100)

    def wait_for_notice(self, condition: threading.Condition, seconds: float | None) -> None:
        condition.wait(seconds)


class Told:
    """A handler that keeps what it was told, as a copy that must equal the server's state in the end."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.state: dict[str, JsonObject] = {}
        self.unknown: list[str] = []
        self.faults: list[str] = []

    def on_add(self, obj: JsonObject) -> None:
        name = obj["metadata"]["name"]
        if name in self.state:
            self.faults.append(f"added twice: {name}")
        self.state[name] = obj
        self.calls.append(("add", name))

    def on_update(self, old: JsonObject, new: JsonObject) -> None:
        name = new["metadata"]["name"]
        if self.state.get(name) != old or old["metadata"]["uid"] != new["metadata"]["uid"]:
            self.faults.append(f"update of something else: {name}")
        self.state[name] = new
        self.calls.append(("update", name))

    def on_delete(self, obj: JsonObject, *, final_state_unknown: bool) -> None:
        name = obj["metadata"]["name"]
        if self.state.pop(name, {"metadata": {}})["metadata"].get("uid") != obj["metadata"]["uid"]:
            self.faults.append(f"deletion of something else: {name}")
        if final_state_unknown:
            self.unknown.append(name)
        self.calls.append(("delete", name))


def until(true: Callable[[], Any], *, seconds: float = 15.0) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, "it did not come true in time"
        time.sleep(0.002)


class World:
    """A server, an informer and a handler."""

    def __init__(self, **options: Any) -> None:
        self.server = FakeApiServer(bookmark_seconds=0.1).start()
        self.server.register(GADGETS)
        self.client = KubeClient.from_kubeconfig(self.server.kubeconfig_path, timeout_seconds=5)
        self.clock = HurriedClock()
        self.told = Told()
        self.informer = Informer(self.client, GADGETS, **{"times": QUICK, "clock": self.clock, **options})
        self.informer.add_handler(self.told)

    def close(self) -> None:
        assert self.informer.stop(timeout_seconds=6)
        self.client.close()
        self.server.stop()

    def start(self) -> None:
        self.informer.start()
        assert self.informer.wait_for_sync(timeout_seconds=10)

    def put(self, name: str, **spec: Any) -> JsonObject:
        return self.server.put(GADGETS, {"metadata": {"name": name}, "spec": spec})

    def remove(self, name: str) -> None:
        kind = self.server.store.kind(GADGETS.group, GADGETS.version, GADGETS.plural)
        assert kind is not None
        self.server.store.delete(kind, "default", name)

    def same(self) -> bool:
        real = {obj["metadata"]["name"]: obj for obj in self.server.objects(GADGETS)}
        return {obj["metadata"]["name"]: obj for obj in self.informer.list()} == real == self.told.state

    def settle(self) -> None:
        until(self.same)
        assert not self.told.faults

    def requests(self, verb: str) -> int:
        return sum(seen.verb == verb for seen in self.server.seen)

    def watching(self) -> None:
        """Wait until a watch is open."""
        until(lambda: self.informer._stream is not None)
