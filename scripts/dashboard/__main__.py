"""Takes the picture of the dashboard, and fails when dashboard and metrics do not agree.

    python -m scripts.dashboard docs/pictures/dashboard.svg

Promises: every metric that an expression names was scraped, and every panel has data unless its description begins to say when it has none; else nothing is
written and each panel is named. However it ends, no process is left. Exit codes: 0 written; 1 a panel is empty or the work failed; 2 it cannot be begun; 130
interrupted.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.support.components import ComponentFailedError, ComponentMissingError, interrupt_on_sigterm

from longshore.errors import LongshoreError
from longshore.install.dashboard import EMPTY_WHILE
from longshore.install.release import objects
from longshore.install.values import merged
from scripts.dashboard import work
from scripts.dashboard.board import BoardError, Panel, called, fill, metric_names, read
from scripts.dashboard.draw import Named, draw
from scripts.dashboard.prometheus import Prometheus, running_prometheus
from scripts.demo.cluster import Cluster, running_cluster
from scripts.demo.folder import DemoError, Folder

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 110.0
SECONDS_MAX = 300.0
PAUSE_SECONDS = 2.0
STEP_SECONDS = 1
# Grafana's own rule: four scrapes, or one beyond the distance of two points.
VARIABLES = {"__rate_interval": f"{4 * STEP_SECONDS}s", "__interval": f"{STEP_SECONDS}s"}


def installed() -> tuple[Mapping[str, Any], str]:
    """Give the PodMonitor's endpoint and the dashboard's JSON as a release with both of them has them."""
    asked = {"podMonitor": {"enabled": True, "interval": f"{STEP_SECONDS}s"}, "dashboard": {"enabled": True}}
    made = objects(merged({"monitoring": asked}), namespace="velero")
    (monitor,) = [one for one in made if one["kind"] == "PodMonitor"]
    (board,) = [one for one in made if "grafana_dashboard" in one["metadata"].get("labels", {})]
    return monitor["spec"]["podMetricsEndpoints"][0], str(board["data"]["longshore.json"])


def faults(panels: Sequence[Panel], answers: Mapping[str, Sequence[Named]], scraped: set[str]) -> list[str]:
    """Say of each panel what keeps it from being true."""
    out = []
    for panel in panels:
        asked = {name for target in panel.targets for name in metric_names(target.expr)}
        if unknown := asked - scraped:
            out.append(f"panel {panel.title!r} asks for metrics that nobody serves: {', '.join(sorted(unknown))}")
        elif not answers.get(panel.title) and EMPTY_WHILE not in panel.description:
            out.append(f"panel {panel.title!r} is empty, and its description does not say {EMPTY_WHILE.strip()!r}")
    return out


def ask(prometheus: Prometheus, panels: Sequence[Panel], *, start: float, end: float) -> dict[str, list[Named]]:
    """Ask what each panel asks."""
    values = {**VARIABLES, "__range": f"{end - start:.0f}s"}
    return {
        panel.title: [
            Named(called(target.legend, one.labels), one.points)
            for target in panel.targets
            for one in prometheus.ask(fill(target.expr, values), start=start, end=end, step=STEP_SECONDS)
        ]
        for panel in panels
    }


def take(folder: Folder, target: Path) -> int:
    """Take the picture.

    Returns:
        The exit code.
    """
    endpoint, text = installed()
    title, panels = read(text)
    folder.path.parent.mkdir(exist_ok=True)
    folder.holds_something()
    folder.take()
    folder.wipe()
    folder.reference.mkdir()
    with ExitStack() as stack:
        cluster: Cluster = stack.enter_context(running_cluster(folder.path / "cluster", real=False))
        cluster.install(folder.store)
        print("filling three volumes", flush=True)
        pods = work.fill(cluster)
        server = stack.enter_context(cluster.longshore_server(*work.SERVER_OPTIONS))
        stack.enter_context(cluster.agent())
        ports = {"longshore-server": server, "longshore-node-agent": cluster.agent_port}
        prometheus = stack.enter_context(running_prometheus(folder.path / "prometheus", endpoint, ports))
        start = time.time()
        print("a server, an agent and Prometheus are at work", flush=True)
        work.work(
            cluster,
            pods,
            lambda said: print(f"{time.time() - start:5.0f} s  {said}", flush=True),
            lost=folder.reference,
            seconds=SECONDS,
        )
        while True:
            end = time.time()
            answers = ask(prometheus, panels, start=start, end=end)
            wrong = faults(panels, answers, prometheus.names())
            # On a slow machine maintenance and verification may not have had their turn yet.
            if not wrong or end > start + SECONDS_MAX:
                break
            time.sleep(PAUSE_SECONDS)
    for one in wrong:
        print(one, file=sys.stderr)
    if wrong:
        return 1
    subtitle = (
        f"{end - start:.0f} s of one node agent and one server, scraped every second by Prometheus: three volumes backed up, one lost, one restored. "
        "Drawn from the dashboard's own expressions; no screenshot of Grafana. Times are UTC."
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(draw(title, subtitle, panels, answers, start=start, end=end), encoding="utf-8")
    folder.tidy(*(one.name for one in folder.path.iterdir() if one.is_dir()))
    print(f"{len(panels)} panels: {target}")
    return 0


def main() -> int:
    """Take the picture to the path that is named; returns the exit code."""
    interrupt_on_sigterm()
    try:
        return take(Folder(ROOT / "target" / "dashboard"), Path(sys.argv[1]))
    except KeyboardInterrupt:
        return 130
    except (DemoError, LongshoreError) as err:
        print(f"{err.message}; {err.next_step}", file=sys.stderr)
        return getattr(err, "exit_code", 1) or 1
    except (BoardError, ComponentFailedError, ComponentMissingError) as err:
        print(err, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
