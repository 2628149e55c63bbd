"""`longshore status`: is everything safe? Each volume of the cluster with its last success, age and size, and what is not protected and why."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Final

import click

from longshore.cli.cluster import namespace_option
from longshore.cli.options import output_options
from longshore.cli.output import human
from longshore.cli.output.sink import Output
from longshore.cli.output.tables import Column, render
from longshore.errors import ItemsLostError

__all__ = ["command"]

COLUMNS: Final = (
    Column("NAMESPACE"),
    Column("CLAIM"),
    Column("POD/VOLUME"),
    Column("STATE"),
    Column("AGE", right=True),
    Column("SIZE", right=True),
    Column("SNAPSHOT"),
    Column("WHY"),
)
_POLL_SECONDS: Final = 2.0


@click.command("status")
@click.option("--kubeconfig", metavar="FILE", help="How to reach the API server.  [default: KUBECONFIG]")
@namespace_option("Where Longshore is installed.")
@click.option("--include-namespaces", metavar="NAME,…", default="", help="Volumes of these namespaces only.")
@click.option(
    "--stale-hours",
    type=click.FloatRange(min=0.01),
    metavar="HOURS",
    default=26.0,
    show_default=True,
    help="How old the last success of a volume may be.",
)
@click.option("--installation", is_flag=True, help="Agents, server, locations and repositories only, no volumes.")
@click.option(
    "--wait",
    "wait_seconds",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    default=0.0,
    help="With --installation: for how long to look again until all is well.",
)
@output_options
def command(
    *,
    output: Output,
    kubeconfig: str | None,
    namespace: str,
    include_namespaces: str,
    stale_hours: float,
    installation: bool,
    wait_seconds: float,
) -> int:
    """Tell whether every volume of a cluster is safe."""
    from longshore.kube.client import KubeClient
    from longshore.safety import look, look_at_installation

    only = frozenset(one.strip() for one in include_namespaces.split(",") if one.strip())
    with KubeClient.connect(kubeconfig, user_agent="longshore-status") as client:
        ends = time.monotonic() + wait_seconds
        while installation:
            survey = look_at_installation(client, namespace=namespace)
            if survey.is_safe or time.monotonic() >= ends:
                break
            time.sleep(_POLL_SECONDS)
        else:
            now = datetime.now(UTC)
            survey = look(client, namespace=namespace, only=only, now=now, stale_seconds=stale_hours * 3600)
    return _show(output, survey, with_volumes=not installation)


def _show(output: Output, survey: object, *, with_volumes: bool) -> int:
    from longshore.safety import State, Survey

    assert isinstance(survey, Survey)
    for part in survey.parts:
        output.row({"kind": part.kind, "name": part.name, "ok": part.ok, "message": part.text})
        name = f"{part.kind} {part.name}".strip()
        output.line(f"{'ok ' if part.ok else 'NOT'}   {human.printable(name)}: {human.printable(part.text)}")
    for row in survey.rows:
        output.row(
            {
                "kind": "Volume",
                "namespace": row.namespace,
                "claim": row.claim,
                "pod": row.pod,
                "volume": row.volume,
                "state": str(row.state),
                "reason": row.reason,
                "last_success": None if row.succeeded_at is None else row.succeeded_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "age_seconds": row.age_seconds,
                "size_bytes": row.size_bytes,
                "snapshot_id": row.snapshot_id,
                "backup": row.backup,
                "failed_backup": row.failed_backup,
                "running": row.running,
            }
        )
    # Hundreds on a cluster's nodes, and none of them a volume that anybody could have backed up.
    of_nodes = sum(row.of_node for row in survey.rows)
    if len(survey.rows) > of_nodes:
        output.line()
        table = [
            (
                row.namespace,
                row.claim or "-",
                f"{row.pod}/{row.volume}" if row.pod else "-",
                str(row.state) + (" (running)" if row.running else ""),
                "-" if row.age_seconds is None else human.age(row.age_seconds),
                "-" if row.succeeded_at is None else human.size(row.size_bytes),
                row.snapshot_id[:12] or "-",
                f"{row.failed_backup}: {row.reason}" if row.failed_backup else row.reason,
            )
            for row in survey.rows
            if not row.of_node
        ]
        for line in render(COLUMNS, table):
            output.line(line)
    for text in survey.blind:
        output.say(f"not looked at: {text}")
    code = 0 if survey.is_safe else ItemsLostError.exit_code
    counts = {str(state).replace(" ", "_"): sum(row.state is state for row in survey.rows) for state in State}
    if with_volumes:
        output.line()
        unsafe = sum(counts[name] for name in ("failing", "stale", "never"))
        faults = sum(not part.ok for part in survey.parts)
        wrong = [human.plural(unsafe, "volume")] if unsafe else []
        wrong += [f"{human.plural(faults, 'part')} of the installation"] if faults else []
        wrong += ["what could not be looked at"] if survey.blind else []
        output.line("everything is safe" if survey.is_safe else f"NOT everything is safe: {', and '.join(wrong)}")
        if survey.scratch:
            output.note(f"not listed: {human.plural(survey.scratch, 'emptyDir volume')} that nobody backs up")
        if of_nodes:
            output.note(
                f"not listed: {human.plural(of_nodes, 'hostPath volume')}, folders of their nodes that are not backed up; --json names them"
            )
    output.summary(
        {
            **counts,
            "scratch": survey.scratch,
            "not_looked_at": len(survey.blind),
            "safe": survey.is_safe,
            "exit_code": code,
        },
        [],
    )
    return code
