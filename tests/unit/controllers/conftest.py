"""A node with its cluster for each test."""

import io

import pytest
from tests.unit.controllers.maintenance_rig import Upkeep
from tests.unit.controllers.next_steps import watched
from tests.unit.controllers.rig import Rig

from longshore import logs
from longshore.kube.fake import FakeApiServer
from longshore.kube.fake.clock import ManualClock


@pytest.fixture(autouse=True)
def warnings(monkeypatch):
    """Whatever a test of this room is about: no Warning Event is recorded in it that does not say what to do."""
    watch = watched(monkeypatch)
    yield watch
    watch.check()


@pytest.fixture
def rig(tmp_path):
    with FakeApiServer() as server:
        made = Rig(tmp_path, server)
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def out():
    """The log of this process, as agents and servers write it; :func:`tests.unit.controllers.rig.records` reads it."""
    stream = io.StringIO()
    logs.configure(level="info", stream=stream)
    yield stream
    logs.configure(level="warning", format="text")


@pytest.fixture
def upkeep(tmp_path, warnings):
    clock = ManualClock()
    with FakeApiServer(clock=clock) as server:
        made = Upkeep(server, clock, tmp_path, warnings)
        yield made
        made.close()
