"""`longshore volume list`: the snapshots of a repository, oldest first.

A damaged snapshot is named and makes the exit code 4; the others are listed all the same.
"""

from __future__ import annotations

import time

import click

from longshore.cli.options import list_options, with_repository
from longshore.cli.output import human
from longshore.cli.output.fields import snapshot_fields
from longshore.cli.output.tables import Column, render
from longshore.cli.session import Session
from longshore.errors import CorruptError, UsageError

__all__ = ["command"]

COLUMNS = (
    Column("SNAPSHOT"),
    Column("AGE", right=True),
    Column("FILES", right=True),
    Column("SIZE", right=True),
    Column("STORED", right=True),
    Column("LOST", right=True),
    Column("SOURCE"),
    Column("TAGS"),
)


@click.command("list")
@click.option("--source", metavar="NAME", help="Only snapshots of this volume, as SOURCE shows it.")
@list_options
@with_repository
def command(session: Session, *, source: str | None, form: str) -> int:
    """List snapshots, oldest first."""
    output = session.output
    if output.as_json and form != "table":
        raise UsageError("--json and --output are both given", "leave one out")
    found = session.open().snapshots()
    rows = [row for row in found.rows if source is None or row.source == source]
    for snapshot_id, message in found.damaged:
        output.say(f"damaged: {snapshot_id}: {message}")
        output.item({"event": "damaged", "snapshot_id": snapshot_id, "message": message})
    now = time.time_ns()
    if form != "table":
        output.document([snapshot_fields(row) for row in rows], as_yaml=form == "yaml")
    elif output.as_json:
        for row in rows:
            output.row(snapshot_fields(row))
    elif rows:
        table = render(
            COLUMNS,
            [
                (
                    row.id,
                    human.age((now - row.started_nanos) / 1e9),
                    human.count(row.files_total),
                    human.size(row.bytes_total),
                    human.size(row.bytes_stored),
                    human.count(row.items_lost) if row.items_lost else "-",
                    row.source,
                    ",".join(f"{key}={value}" for key, value in sorted(dict(row.tags).items())) or "-",
                )
                for row in rows
            ],
        )
        for line in table:
            output.line(line)
    else:
        output.note(
            "no snapshots" + (f" of this source: {source}" if source else " yet: make one with longshore volume backup")
        )
    code = CorruptError.exit_code if found.damaged else 0
    output.summary({"snapshots": len(rows), "snapshots_damaged": len(found.damaged), "exit_code": code}, [])
    return code
