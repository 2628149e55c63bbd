"""Random histories of changes and faults: in the end the copy, the handler's copy and the server are the same."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from tests.unit.kube.world import GADGETS, World

from longshore.kube.fake import Answer, CutStream, DelayEvent, DropConnection, DuplicateEvent, SendError, StallStream
from longshore.kube.informer import InformerTimes


class Histories(RuleBasedStateMachine):
    """Random histories of changes and faults: in the end the copy, the handler's copy and the server are the same."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(times=InformerTimes(silence_seconds_max=0.3, page_size=2, list_timeout_seconds=2))
        self.world.informer.start()

    names = st.sampled_from(["a", "b", "c", "d", "e"])

    @rule(name=names, size=st.integers(0, 3))
    def put(self, name: str, size: int) -> None:
        self.world.put(name, size=size)

    @rule(name=names)
    def remove(self, name: str) -> None:
        if self.world.server.get(GADGETS, name) is not None:
            self.world.remove(name)

    @rule()
    def compact(self) -> None:
        self.world.server.compact()

    @rule()
    def disconnect(self) -> None:
        self.world.server.disconnect_watches()

    @rule()
    def outage(self) -> None:
        self.world.server.go_down()
        self.world.put("a", size=7)
        self.world.server.come_back()

    @rule(
        action=st.sampled_from(
            [CutStream(), DuplicateEvent(), SendError(410), SendError(500), StallStream(), DelayEvent(0.01)]
        )
    )
    def faulty_event(self, action: Any) -> None:
        self.world.server.faults.inject_event(action)

    @rule(
        action=st.sampled_from([Answer(500), Answer(410), Answer(429, retry_after_seconds=0), DropConnection()]),
        verb=st.sampled_from(["list", "watch"]),
    )
    def faulty_request(self, action: Any, verb: str) -> None:
        self.world.server.faults.inject(action, verb=verb, resource="gadgets")

    @rule()
    def settle(self) -> None:
        self.world.server.faults.clear()
        self.world.settle()

    def teardown(self) -> None:
        try:
            self.world.server.faults.clear()
            self.world.settle()
        finally:
            self.world.close()


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
