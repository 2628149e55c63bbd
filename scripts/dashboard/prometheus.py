"""A real Prometheus for a while: scrapes as the PodMonitor of the release says, and answers range queries.

Promises: it listens on loopback alone and is gone with its context; a scrape is configured from the very manifest that is installed, so that a label that gets
lost there is lost here as well.

Does not know: what is asked.
"""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tests.support.processes import ChildProcess, ReservedPort
from tests.support.tools import require_tool

from scripts.dashboard.board import BoardError

__all__ = ["Prometheus", "Series", "configuration", "running_prometheus", "series"]

_READY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Series:
    """One series of an answer: its labels, and its values by Unix time; values that are no numbers are left out."""

    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]


def configuration(endpoint: Mapping[str, Any], ports: Mapping[str, int]) -> dict[str, Any]:
    """Say what the operator makes of a PodMonitor's endpoint.

    Args:
        endpoint: one of `podMetricsEndpoints`.
        ports: on loopback, by the name of the pod that each stands for.
    """
    interval = endpoint["interval"]
    targets = [
        {
            "targets": [f"127.0.0.1:{port}"],
            "labels": {"namespace": "velero", "pod": pod, "container": pod, "endpoint": endpoint["port"]},
        }
        for pod, port in ports.items()
    ]
    return {
        "global": {"scrape_interval": interval, "scrape_timeout": interval},
        "scrape_configs": [
            {
                "job_name": "velero/longshore",
                "metrics_path": endpoint["path"],
                "honor_labels": bool(endpoint.get("honorLabels", False)),
                "static_configs": targets,
            }
        ],
    }


def series(answer: Mapping[str, Any]) -> list[Series]:
    """Read the matrix of a range query.

    Raises:
        BoardError: it is no answer.
    """
    if answer.get("status") != "success":
        raise BoardError(f"Prometheus refuses a query: {answer.get('error', answer)}")
    out = []
    for one in answer["data"]["result"]:
        points = [(float(at), float(value)) for at, value in one["values"]]
        if points := [(at, value) for at, value in points if math.isfinite(value)]:
            out.append(Series(dict(one["metric"]), points))
    return sorted(out, key=lambda found: sorted(found.labels.items()))


class Prometheus:
    """One that runs."""

    def __init__(self, port: int) -> None:
        """Take hold of it; see `running_prometheus`."""
        self._url = f"http://127.0.0.1:{port}"

    def ask(self, expr: str, *, start: float, end: float, step: int) -> list[Series]:
        """Ask for a range.

        Raises:
            BoardError: it refuses the expression.
        """
        return series(self._get("query_range", query=expr, start=f"{start:.3f}", end=f"{end:.3f}", step=str(step)))

    def names(self) -> set[str]:
        """Names of all metrics that were scraped."""
        return set(self._get("label/__name__/values")["data"])

    def missing(self) -> str | None:
        """Say which target was not scraped yet; None when all were."""
        try:
            found = self._get("targets")["data"]["activeTargets"]
        except OSError as err:
            return f"no answer yet: {err}"
        late = [f"{one['scrapeUrl']} {one['lastError']}" for one in found if one["health"] != "up"]
        return ", ".join(late) if late else None if found else "no targets yet"

    def _get(self, path: str, **options: str) -> dict[str, Any]:
        url = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(options)}"
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - loopback
                text = answer.read()
        except urllib.error.HTTPError as err:
            # Refused questions are answered in JSON; while it starts it answers in plain words.
            if err.code not in {400, 422}:
                raise
            text = err.read()
        found: dict[str, Any] = json.loads(text)
        return found


@contextmanager
def running_prometheus(folder: Path, endpoint: Mapping[str, Any], ports: Mapping[str, int]) -> Iterator[Prometheus]:
    """Run one that scrapes these ports; every one was scraped when the context is entered.

    Args:
        folder: its own; made here.
        endpoint: of the PodMonitor.
        ports: as `configuration` takes them.
    """
    program = require_tool("prometheus")
    folder.mkdir(mode=0o700)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration(endpoint, ports)), encoding="utf-8")
    port = ReservedPort()
    command = [
        str(program),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port.number}",
        "--log.level=warn",
    ]
    child = ChildProcess("prometheus", command, log_path=folder / "prometheus.log", env={"HOME": str(folder)})
    try:
        found = Prometheus(port.number)
        child.wait_ready(found.missing, timeout_seconds=_READY_SECONDS)
        yield found
    finally:
        child.stop(grace_seconds=5.0)
        port.close()
