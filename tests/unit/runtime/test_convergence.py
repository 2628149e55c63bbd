"""Informer, queue and controller together, on an API server that fails in every way: all objects converge, and no step is done twice."""

import random
import threading
import time

import pytest
from tests.unit.kube.world import World

from longshore.errors import LongshoreError
from longshore.kube.fake import (
    Answer,
    CutStream,
    DelayEvent,
    DropConnection,
    DuplicateEvent,
    SendError,
    StallStream,
)
from longshore.kube.informer import InformerTimes
from longshore.kube.resource import JsonObject, Resource, split_key
from longshore.runtime.controller import Controller, EnqueueKeys
from longshore.runtime.manager import Manager
from longshore.runtime.queue import ItemBackoff, Queue, RateLimiter, TokenBucket

GADGETS = Resource("longshore.test", "v1", "gadgets", "Gadget")
NEXT = {None: "New", "New": "InProgress", "InProgress": "Completed"}
REQUEST_FAULTS = [
    Answer(409),
    Answer(410),
    Answer(429, retry_after_seconds=0),
    Answer(500),
    Answer(503),
    DropConnection(),
    DropConnection(applied=True),
]
EVENT_FAULTS = [CutStream(), DuplicateEvent(), DelayEvent(0.02), SendError(410), SendError(500), StallStream()]


@pytest.mark.parametrize("seed", range(2))
def test_all_objects_converge_after_random_faults(seed: int) -> None:
    rng = random.Random(seed)
    world = World(times=InformerTimes(silence_seconds_max=0.3, page_size=7, list_timeout_seconds=2))
    limiter = RateLimiter(backoff=ItemBackoff(maximum_seconds=0.2), bucket=TokenBucket(per_second=2_000, burst=2_000))
    manager = Manager()
    manager.add_informer(world.informer)

    def sync(key: str) -> None:
        namespace, name = split_key(key)
        obj = world.informer.get(name, namespace=namespace)
        if obj is None or (status := obj.get("status") or {}).get("phase") == "Completed":
            return
        change: JsonObject = {"status": {"phase": NEXT[status.get("phase")], "steps": status.get("steps", 0) + 1}}
        world.client.patch(
            GADGETS,
            name,
            change,
            namespace=namespace,
            resource_version=obj["metadata"]["resourceVersion"],
            timeout_seconds=2,
        )

    controller = Controller(
        "gadgets", sync=sync, queue=Queue("gadgets", limiter=limiter), cache_sync_waiters=[world.informer.has_synced]
    )
    world.informer.add_handler(EnqueueKeys(controller.queue))
    manager.add_controller(controller, workers=4)
    stop = threading.Event()

    def harm() -> None:
        while not stop.is_set():
            verb = rng.choice(["list", "watch", "patch", "patch", "patch", "get"])
            world.server.faults.inject(rng.choice(REQUEST_FAULTS), verb=verb, resource="gadgets")
            world.server.faults.inject_event(rng.choice(EVENT_FAULTS))
            if rng.random() < 0.05:
                world.server.compact()
            stop.wait(0.02)

    villain = threading.Thread(target=harm)
    try:
        manager.start()
        assert world.informer.wait_for_sync(timeout_seconds=10)
        villain.start()
        ends = time.monotonic() + 30
        made = 0
        while sum(seen.code != 200 for seen in list(world.server.seen)) < 40:
            assert time.monotonic() < ends, "the faults do not strike"
            world.put(f"g{made}")
            made += 1
            time.sleep(0.02)
        stop.set()
        villain.join()
        world.server.faults.clear()
        ends = time.monotonic() + 30
        while any((obj.get("status") or {}).get("phase") != "Completed" for obj in world.server.objects(GADGETS)):
            assert time.monotonic() < ends, "not all converged"
            time.sleep(0.02)
        assert [obj["status"]["steps"] for obj in world.server.objects(GADGETS)] == [3] * made
        world.settle()
    except LongshoreError as err:
        pytest.fail(f"nothing may come up to here: {err!r}")
    finally:
        stop.set()
        assert manager.shut_down()
        world.close()
