"""An API server in this process, for tests and the demo: real HTTP on loopback, an object store in memory, faults on demand.

It speaks to the official client, to kubectl's raw mode and to ours. What it promises is behaviour that controllers lean on, and each of these behaviours is
held against a real kube-apiserver by the conformance tests: resource versions and conflicts, watches with replay and bookmarks, pages, selectors, merge and
JSON patches, generateName, generations, finalizers, status subresources, schemas of custom resources, 404/409/410/415/422.

What it does not have: authorization, admission beyond namespaces, strategic merge and server-side apply (415), owner references' garbage collection, any
controller but the one that empties a deleted namespace. A pod never runs here.

::

    with FakeApiServer() as server:
        server.register(Resource("velero.io", "v1", "podvolumebackups", "PodVolumeBackup"))
        client = KubeClient.from_kubeconfig(server.kubeconfig_path)
        server.faults.inject(Answer(429, retry_after_seconds=1), verb="patch", resource="podvolumebackups")

Rooms: `server` is the HTTP face, `store` the state, `kinds` what is served, `schema` custom resources' schemas, `selectors` and `patches` what their names
say, `faults` what goes wrong when asked to, `clock` time moved by hand.
"""

from longshore.kube.fake.clock import ManualClock
from longshore.kube.fake.faults import (
    Answer,
    CutStream,
    DelayEvent,
    DropConnection,
    DuplicateEvent,
    Faults,
    SendError,
    Slow,
    StallStream,
)
from longshore.kube.fake.server import FakeApiServer

__all__ = [
    "Answer",
    "CutStream",
    "DelayEvent",
    "DropConnection",
    "DuplicateEvent",
    "FakeApiServer",
    "Faults",
    "ManualClock",
    "SendError",
    "Slow",
    "StallStream",
]
