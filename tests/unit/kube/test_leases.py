"""One holder at a time, under every interleaving of two electors, lost answers, frozen processes and clocks that disagree."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from longshore.errors import LeaseLostError, UsageError
from longshore.kube import leases
from longshore.kube.client import KubeClient
from longshore.kube.fake import Answer, DropConnection, FakeApiServer, ManualClock, Slow
from longshore.kube.leases import LeaseElector, LeaseTimes
from longshore.kube.resource import LEASES, JsonObject

PLACE = {"namespace": "kube-system"}


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


def lease(server: FakeApiServer) -> JsonObject:
    found = server.get(LEASES, "agent", namespace="kube-system")
    assert found is not None
    spec: JsonObject = found["spec"]
    return spec


class Life:
    """An elector whose steps are taken by hand on its own clock."""

    def __init__(self, client: KubeClient, name: str, **options: Any) -> None:
        self.clock = ManualClock()
        self.told: list[str] = []
        self.errors: list[BaseException] = []
        self.elector = LeaseElector(
            client,
            name="agent",
            identity=name,
            clock=self.clock,
            rng=random.Random(1),
            on_started=lambda: self.told.append("started"),
            on_lost=lambda: self.told.append("lost"),
            **PLACE,
            **options,
        )
        self.elector._failed = self.errors.append

    def step(self) -> None:
        try:
            self.elector._step()
        except Exception as err:
            self.errors.append(err)

    def watchdog(self) -> None:
        """What the watchdog's thread does when it wakes."""
        renewed = self.elector._renewed_at
        if renewed is not None and self.clock.monotonic() >= renewed + 10.0:
            self.elector._lose("not renewed in time", renewed_at=renewed)

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.watchdog()


def test_first_one_gains_and_writes_all_fields(server: FakeApiServer, client: KubeClient) -> None:
    one = Life(client, "one", labels={"app": "x"})
    one.step()
    assert one.elector.is_leader()
    assert one.told == ["started"]
    spec = lease(server)
    assert spec["holderIdentity"] == "one"
    assert spec["leaseTransitions"] == 0
    assert spec["leaseDurationSeconds"] == 15
    assert spec["acquireTime"] == spec["renewTime"] == "2026-01-02T03:04:05.000000Z"
    assert one.elector.deadline == one.clock.monotonic() + 15
    assert one.elector.holder() == "one"


def test_second_waits_a_whole_duration_since_it_saw_the_last_renewal(client: KubeClient) -> None:
    one, two = Life(client, "one"), Life(client, "two")
    one.step()
    two.clock.advance(1_000_000)
    two.step()
    assert not two.elector.is_leader(), "the wall clock decides nothing"
    two.clock.advance(14)
    one.pass_time(9)
    one.step()
    two.step()
    two.clock.advance(14.9)
    two.step()
    assert not two.elector.is_leader()
    two.clock.advance(0.2)
    two.step()
    assert two.elector.is_leader()


def test_who_waits_says_so_once_and_for_whom(client: KubeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = Life(client, "one"), Life(client, "two")
    one.step()
    told: list[tuple[str, Any]] = []
    monkeypatch.setattr(leases, "_log", SimpleNamespace(info=lambda text, **how: told.append((text, how["holder"]))))
    for _ in range(3):
        two.step()
    assert told == [("Waiting for lease", "one")] and two.errors == []


def test_who_is_kept_waiting_tells_once_that_the_holder_lives(server: FakeApiServer, client: KubeClient) -> None:
    seen: list[JsonObject] = []
    one, two = Life(client, "one"), Life(client, "two", on_kept_waiting=seen.append)

    def pass_time(seconds: float) -> None:
        one.pass_time(seconds)
        two.clock.advance(seconds)
        one.step()
        two.step()

    one.step()
    two.step()
    for _ in range(3):
        pass_time(5)
    assert seen == [], "one that was killed at once would not have lapsed before"
    for _ in range(9):
        pass_time(5)
    assert [found["spec"]["holderIdentity"] for found in seen] == ["one"] and two.errors == []
    # One that does not live is taken over without a word.
    found = server.get(LEASES, "agent", **PLACE)
    assert found is not None
    found["spec"]["holderIdentity"] = "three"
    server.put(LEASES, found, namespace="kube-system")
    two.step()
    two.clock.advance(16)
    two.step()
    assert two.elector.is_leader() and len(seen) == 1


def test_taking_over_counts_a_transition_and_keeps_what_others_wrote(server: FakeApiServer, client: KubeClient) -> None:
    one, two = Life(client, "one"), Life(client, "two")
    one.step()
    client.patch(LEASES, "agent", {"metadata": {"annotations": {"a": "b"}}}, **PLACE)
    two.step()
    two.clock.advance(15.1)
    two.step()
    found = server.get(LEASES, "agent", **PLACE)
    assert found is not None
    assert found["metadata"]["annotations"] == {"a": "b"}
    assert found["spec"]["leaseTransitions"] == 1
    assert found["spec"]["acquireTime"] == "2026-01-02T03:04:20.100000Z"
    one.step()
    assert one.told == ["started", "lost"]
    assert [type(err) for err in one.errors] == [LeaseLostError]


def test_loser_learns_before_the_lease_lapses(server: FakeApiServer, client: KubeClient) -> None:
    one, two = Life(client, "one"), Life(client, "two")
    one.step()
    two.step()
    server.faults.inject(Answer(500), verb="update", times=None)
    for life in (one, two):
        life.pass_time(9.9)
    one.step()
    assert one.elector.is_leader()
    one.pass_time(0.2)
    assert one.told == ["started", "lost"]
    with pytest.raises(LeaseLostError):
        one.elector.check()
    server.faults.clear()
    two.pass_time(0.2)
    two.step()
    assert not two.elector.is_leader()


def test_frozen_process_answers_rightly_before_its_watchdog_wakes(client: KubeClient) -> None:
    one = Life(client, "one")
    one.step()
    one.clock.advance(10)
    assert one.told == ["started"]
    assert not one.elector.is_leader()


def test_renewal_counts_from_before_it_was_sent(client: KubeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Life(client, "one")
    one.step()
    replace = client.replace

    def slow(*args: Any, **options: Any) -> Any:
        answer = replace(*args, **options)
        one.clock.advance(6)
        return answer

    monkeypatch.setattr(client, "replace", slow)
    sent = one.clock.monotonic()
    one.step()
    assert one.elector.deadline == sent + 15


def test_answer_that_comes_too_late_gains_nothing(client: KubeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Life(client, "one")
    create = client.create

    def slow(*args: Any, **options: Any) -> Any:
        answer = create(*args, **options)
        one.clock.advance(11)
        return answer

    monkeypatch.setattr(client, "create", slow)
    one.step()
    assert not one.elector.is_leader()
    assert one.told == []
    monkeypatch.undo()
    one.step()
    assert one.elector.is_leader(), "it finds its own name in the lease and need not wait"


def test_lost_answer_prolongs_nothing_and_is_looked_into(server: FakeApiServer, client: KubeClient) -> None:
    one = Life(client, "one")
    one.step()
    before = one.elector.deadline
    one.pass_time(2)
    server.faults.inject(DropConnection(applied=True), verb="update")
    one.step()
    assert one.elector.deadline == before
    one.step()
    assert one.elector.deadline == one.clock.monotonic() + 15
    assert one.told == ["started"]


def test_write_of_a_stranger_in_between_is_borne(client: KubeClient) -> None:
    one = Life(client, "one")
    one.step()
    client.patch(LEASES, "agent", {"metadata": {"labels": {"seen": "yes"}}}, **PLACE)
    one.pass_time(2)
    one.step()
    one.step()
    assert one.elector.deadline == one.clock.monotonic() + 15
    assert one.told == ["started"]


def test_lease_that_was_deleted_is_made_again(server: FakeApiServer, client: KubeClient) -> None:
    one = Life(client, "one")
    one.step()
    client.delete(LEASES, "agent", **PLACE)
    one.step()
    one.step()
    assert lease(server)["holderIdentity"] == "one"
    assert one.told == ["started"]


def test_two_that_race_for_a_free_lease_do_not_both_gain(server: FakeApiServer, client: KubeClient) -> None:
    server.put(LEASES, {"metadata": {"name": "agent"}, "spec": {"holderIdentity": "", "leaseTransitions": 4}}, **PLACE)
    lives = [Life(client, f"i{number}") for number in range(8)]
    threads = [threading.Thread(target=life.step) for life in lives]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sum(life.elector.is_leader() for life in lives) == 1
    assert lease(server)["leaseTransitions"] == 5


def test_random_histories_never_have_two_holders(server: FakeApiServer, client: KubeClient) -> None:
    """True time goes on for all at once; each reads it on a clock of its own offset, steps when it likes, and freezes."""
    for seed in range(8):
        rng = random.Random(seed)
        server.store.compact()
        if server.get(LEASES, "agent", **PLACE) is not None:
            client.delete(LEASES, "agent", **PLACE)
        lives = [Life(client, f"s{seed}-i{number}", compete_again=True) for number in range(3)]
        for life in lives:
            life.clock.advance(rng.uniform(0, 1_000))
        held = 0
        for _ in range(60):
            seconds = rng.choice([0.1, 1, 2, 5, 12])
            for life in lives:
                life.clock.advance(seconds)
            if rng.random() < 0.2:
                action = rng.choice([DropConnection(applied=True), DropConnection(), Answer(500), Answer(409)])
                server.faults.inject(action, verb="update", resource="leases")
            for life in rng.sample(lives, rng.randint(0, 3)):
                life.watchdog()
                life.step()
            holders = [life for life in lives if life.elector.is_leader()]
            assert len(holders) <= 1
            held += len(holders)
        server.faults.clear()
        assert held > 5


def test_bad_times_are_refused() -> None:
    with pytest.raises(UsageError):
        LeaseTimes(duration_seconds=10, renew_deadline_seconds=10)
    with pytest.raises(UsageError):
        LeaseTimes(retry_period_seconds=9)


# -- with its threads ----------------------------------------------------------------------------------------------------------

QUICK = LeaseTimes(duration_seconds=2, renew_deadline_seconds=0.8, retry_period_seconds=0.1)


def elector(client: KubeClient, identity: str, **options: Any) -> LeaseElector:
    return LeaseElector(client, name="agent", identity=identity, times=QUICK, **PLACE, **options)


def test_stop_gives_back_and_the_next_gains_at_once(server: FakeApiServer, client: KubeClient) -> None:
    one, two = elector(client, "one"), elector(client, "two")
    one.start()
    assert one.wait_until_held(timeout_seconds=10)
    two.start()
    assert one.stop()
    assert not one.is_leader()
    assert two.wait_until_held(timeout_seconds=1)
    assert two.stop(clean=False)
    assert lease(server)["holderIdentity"] == "two", "guarded work may still run"


def test_holder_that_cannot_renew_is_told_in_time_though_a_request_hangs(
    server: FakeApiServer, client: KubeClient
) -> None:
    lost, errors = threading.Event(), []
    one = elector(client, "one", on_lost=lost.set)
    one.start(failed=errors.append)
    assert one.wait_until_held(timeout_seconds=10)
    server.faults.inject(Slow(60), resource="leases", times=None)
    assert lost.wait(2)
    until(lambda: errors)
    assert isinstance(errors[0], LeaseLostError)
    assert not one.is_leader()
    server.faults.clear()
    assert one.stop()


def test_competing_again_after_a_loss(server: FakeApiServer, client: KubeClient) -> None:
    told: list[str] = []
    one = elector(
        client,
        "one",
        compete_again=True,
        on_started=lambda: told.append("started"),
        on_lost=lambda: told.append("lost"),
    )
    one.start()
    assert one.wait_until_held(timeout_seconds=10)
    server.faults.inject(Answer(500), resource="leases", times=None)
    until(lambda: told == ["started", "lost"])
    server.faults.clear()
    until(lambda: told == ["started", "lost", "started"])
    assert one.not_live() is None
    assert one.stop()


def test_callback_that_raises_is_handed_on(client: KubeClient) -> None:
    def broken() -> None:
        raise ValueError("broken")

    errors: list[BaseException] = []
    one = elector(client, "one", on_started=broken)
    one.start(failed=errors.append)
    until(lambda: errors)
    assert isinstance(errors[0], ValueError)
    assert one.stop()
