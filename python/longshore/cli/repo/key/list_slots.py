"""`longshore repo key list`: the key slots. What opens a slot is known to its holder alone and cannot be shown."""

from __future__ import annotations

import click

from longshore.cli.options import list_options, with_repository_or_cluster
from longshore.cli.output.fields import slot_fields
from longshore.cli.output.tables import Column, render
from longshore.cli.repo.cluster import ClusterSession
from longshore.cli.repo.key import in_cluster
from longshore.cli.session import Session
from longshore.errors import UsageError

__all__ = ["command"]


@click.command("list")
@list_options
@with_repository_or_cluster
def command(session: Session | ClusterSession, *, form: str) -> int:
    """List the key slots."""
    output = session.output
    if output.as_json and form != "table":
        raise UsageError("--json and --output are both given", "leave one out")
    if isinstance(session, ClusterSession):
        return in_cluster.list_slots(session, form=form)
    slots = session.open().slots()
    if form != "table":
        output.document([slot_fields(slot) for slot in slots], as_yaml=form == "yaml")
    elif output.as_json:
        for slot in slots:
            output.row(slot_fields(slot))
    else:
        rows = [(slot.name, str(slot.kind), slot.label or "-") for slot in slots]
        for line in render((Column("SLOT"), Column("KIND"), Column("LABEL")), rows):
            output.line(line)
    output.summary({"slots": len(slots), "exit_code": 0}, [])
    return 0
