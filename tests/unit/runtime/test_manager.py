"""Start and stop keep their order, a fatal failure ends everything and is handed on, probes tell the truth."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from longshore.errors import InternalError, LeaseLostError, UsageError
from longshore.kube.client import KubeClient
from longshore.kube.fake import Answer, FakeApiServer
from longshore.kube.informer import Informer
from longshore.kube.resource import CONFIG_MAPS
from longshore.runtime.controller import Controller, EnqueueKeys
from longshore.runtime.manager import Manager, Runnable
from longshore.runtime.metrics import ManagerMetrics, PrometheusQueueMetrics
from longshore.runtime.queue import Queue


@pytest.fixture
def server() -> Iterator[FakeApiServer]:
    with FakeApiServer() as running:
        yield running


@pytest.fixture
def client(server: FakeApiServer) -> Iterator[KubeClient]:
    with KubeClient.from_kubeconfig(server.kubeconfig_path) as made:
        yield made


def until(true: Callable[[], Any], *, seconds: float = 10.0) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, "it did not come true in time"
        time.sleep(0.002)


class Part:
    """A component that writes down what happens to it."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.reason: str | None = None
        self.clean: bool | None = None
        self._log = log

    def start(self, *, failed: Callable[[BaseException], None]) -> None:
        self._log.append(f"start {self.name}")
        self.failed = failed

    def stop(self, *, timeout_seconds: float, clean: bool) -> bool:
        self._log.append(f"stop {self.name}")
        self.clean = clean
        return True

    def not_ready(self) -> str | None:
        return self.reason

    def not_live(self) -> str | None:
        return self.reason


def test_everything_starts_and_stops_in_order(client: KubeClient) -> None:
    log: list[str] = []
    manager = Manager()
    informer = manager.add_informer(Informer(client, CONFIG_MAPS))
    parts = [Part("lease", log), Part("metrics", log)]
    for part in parts:
        manager.add_component(part)
    synced_at_work: list[bool] = []

    def sync(key: str) -> None:
        synced_at_work.append(informer.has_synced())
        log.append(f"worked {key}")

    controller = manager.add_controller(Controller("c", sync=sync, cache_sync_waiters=[informer.has_synced]))
    informer.add_handler(EnqueueKeys(controller.queue))
    client.create(CONFIG_MAPS, {"metadata": {"name": "a"}}, namespace="default")
    thread = threading.Thread(target=manager.run, daemon=True)
    thread.start()
    until(lambda: "worked default/a" in log)
    assert manager.ready().ok
    assert manager.live().ok
    manager.stop.set()
    thread.join(10)
    assert log == ["start lease", "start metrics", "worked default/a", "stop metrics", "stop lease"]
    assert synced_at_work == [True]
    assert not informer.is_alive()
    assert [part.clean for part in parts] == [True, True]
    assert not manager.ready().ok


def test_handler_that_does_not_end_keeps_the_lease_from_being_given_back() -> None:
    log: list[str] = []
    manager = Manager(grace_seconds=0.05)
    part = Part("lease", log)
    manager.add_component(part)
    entered, leave = threading.Event(), threading.Event()

    def sync(_key: str) -> None:
        entered.set()
        leave.wait(10)

    controller = manager.add_controller(Controller("c", sync=sync))
    manager.start()
    controller.queue.add("ns/a")
    assert entered.wait(10)
    assert not manager.shut_down()
    assert part.clean is False
    leave.set()


def test_fatal_failure_stops_all_and_is_raised() -> None:
    log: list[str] = []
    manager = Manager()
    part = Part("lease", log)
    manager.add_component(part)
    raised: list[BaseException] = []

    def run() -> None:
        try:
            manager.run()
        except BaseException as err:
            raised.append(err)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    until(lambda: log)
    first = LeaseLostError("lost")
    part.failed(first)
    part.failed(ValueError("second"))
    thread.join(10)
    assert raised == [first]
    assert log == ["start lease", "stop lease"]


def test_first_failure_counts() -> None:
    manager = Manager()
    first = LeaseLostError("lost")
    manager.fail(first)
    manager.fail(ValueError("second"))
    with pytest.raises(LeaseLostError):
        manager.run()


@pytest.mark.parametrize(("fault", "expected"), [(ValueError("boom"), ValueError), (None, InternalError)])
def test_runnable_that_ends_by_itself_is_fatal(fault: BaseException | None, expected: type[BaseException]) -> None:
    def run(_stop: threading.Event) -> None:
        if fault is not None:
            raise fault

    manager = Manager()
    manager.add_component(Runnable("r", run))
    with pytest.raises(expected):
        manager.run()


def test_runnable_that_waits_for_its_stop_is_no_failure() -> None:
    manager = Manager()
    manager.add_component(Runnable("r", lambda stop: stop.wait(10) and None))
    threading.Timer(0.05, manager.stop.set).start()
    manager.run()


def test_cache_that_does_not_sync_is_not_ready_but_live(server: FakeApiServer, client: KubeClient) -> None:
    server.faults.inject(Answer(500), verb="list", resource="configmaps", times=None)
    manager = Manager()
    informer = manager.add_informer(Informer(client, CONFIG_MAPS))
    assert "not started" in manager.ready().text()
    manager.start()
    try:
        until(lambda: informer.last_error() is not None)
        assert "informer configmaps: not synced" in manager.ready().text()
        assert manager.live().ok
        server.faults.clear()
        until(lambda: manager.ready().ok)
    finally:
        assert manager.shut_down()


def test_component_is_asked_for_both_probes() -> None:
    manager = Manager()
    part = Part("p", [])
    manager.add_component(part)
    manager.start()
    part.reason = "tired"
    assert manager.ready().text() == "p: tired"
    assert manager.live().text() == "p: tired"
    manager.shut_down()


def test_nothing_is_added_to_a_running_manager() -> None:
    manager = Manager()
    manager.start()
    with pytest.raises(UsageError):
        manager.add_component(Part("late", []))
    manager.shut_down()


def test_metrics_have_the_names_that_dashboards_know(client: KubeClient) -> None:
    registry = CollectorRegistry()
    queue: Queue[str] = Queue("q", metrics=PrometheusQueueMetrics(registry))
    manager = Manager()
    informer = manager.add_informer(Informer(client, CONFIG_MAPS))
    manager.add_controller(Controller("q", sync=lambda _key: None, queue=queue))
    registry.register(ManagerMetrics(manager))
    manager.start()
    assert informer.wait_for_sync(timeout_seconds=10)
    queue.add("a")
    queue.add_rate_limited("a")
    until(lambda: registry.get_sample_value("workqueue_work_duration_seconds_count", {"name": "q"}) == 2)
    assert registry.get_sample_value("workqueue_adds_total", {"name": "q"}) == 2
    assert registry.get_sample_value("workqueue_retries_total", {"name": "q"}) == 1
    assert registry.get_sample_value("workqueue_depth", {"name": "q"}) == 0
    assert registry.get_sample_value("workqueue_queue_duration_seconds_count", {"name": "q"}) == 2
    assert registry.get_sample_value("workqueue_longest_running_processor_seconds", {"name": "q"}) == 0
    assert registry.get_sample_value("longshore_informer_synced", {"resource": "configmaps"}) == 1
    assert registry.get_sample_value("longshore_informer_last_event_age_seconds", {"resource": "configmaps"}) < 10
    manager.shut_down()
