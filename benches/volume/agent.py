"""Two figures that need a cluster: how soon an agent is ready, and how long a small PodVolumeBackup takes.

Real kube-apiserver and etcd, a real S3 server, and the agent as its DaemonSet starts it; they are the rig of tests/cluster. Does not judge.
"""

from __future__ import annotations

import random
import statistics
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster.node_rig import NODE, ROOT, Cluster, credentials_of, location_of
from tests.support.components import ApiServer, S3Server
from tests.support.processes import ReservedPort

from benches.volume.process import memory_kib

REPEATS = 5
FILES, FILE_BYTES = 1000, 10_000
_MAIN = "import sys; from longshore.cli.main import main; sys.exit(main())"
_POLL_SECONDS = 0.005
_WAIT_SECONDS = 60.0


@contextmanager
def _cluster(work: Path) -> Iterator[Any]:
    with ApiServer() as api, S3Server() as s3:
        api.kubectl("apply", "--server-side", "-f", str(ROOT / "daemonset" / "crds"))
        api.kubectl("create", "namespace", "bench")
        location = location_of(s3, s3.bucket("bench"))
        made = Cluster(api, "bench", work / "node", location=location, credentials=credentials_of(s3))
        try:
            yield made
        finally:
            made.close()


def _start(cluster: Any, port: int) -> tuple[Any, float]:
    words = ["-c", _MAIN, "node-agent", "server", f"--kubeconfig={cluster.api_server.kubeconfig}", "--namespace=bench"]
    words += [f"--node-name={NODE}", f"--host-pods-root={cluster.pods_root}", f"--cache-dir={cluster.cache}"]
    started = time.monotonic()
    agent = cluster.agent(*words, f"--metrics-address=127.0.0.1:{port}")
    while not _ready(port):
        if time.monotonic() - started > _WAIT_SECONDS:
            raise TimeoutError(f"agent did not become ready: seconds={_WAIT_SECONDS}, log={cluster.logs()[-1000:]}")
        time.sleep(_POLL_SECONDS)
    return agent, time.monotonic() - started


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _rss_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def start(work: Path) -> dict[str, float]:
    """Start the agent several times; seconds until /readyz says yes, and its memory then."""
    seconds, anon, rss = [], [], []
    with _cluster(work) as cluster:
        for _ in range(REPEATS):
            port = ReservedPort()
            agent, took = _start(cluster, port.number)
            seconds.append(took)
            anon.append(memory_kib(agent.pid)[0] / 1024)
            rss.append(_rss_kib(agent.pid) / 1024)
            agent.stop()
            port.close()
    return {"value": statistics.median(seconds), "anon_mib_ready": max(anon), "rss_mib": max(rss)}


def backup(work: Path) -> dict[str, float]:
    """Back small volumes up one after the other; seconds from creation to Completed, without the first, which makes the repository."""
    chance = random.Random(1)
    seconds = []
    with _cluster(work) as cluster:
        port = ReservedPort()
        _start(cluster, port.number)
        for number in range(REPEATS + 1):
            uid, path = cluster.pod(f"db-{number}")
            for file in range(FILES):
                (path / f"{file:04}").write_bytes(chance.randbytes(FILE_BYTES))
            started = time.monotonic()
            cluster.backup(f"out-{number}", f"db-{number}", uid)
            status = cluster.wait_phase("podvolumebackups", f"out-{number}")
            seconds.append(time.monotonic() - started)
            if status["phase"] != "Completed":
                raise RuntimeError(f"backup did not complete: status={status}")
        port.close()
    return {"value": statistics.median(seconds[1:]), "first_seconds": seconds[0]}
