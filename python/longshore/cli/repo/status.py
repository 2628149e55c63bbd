"""`longshore repo status`: what a repository holds, and whether its key is in one place alone."""

from __future__ import annotations

import click

from longshore.cli.options import with_repository
from longshore.cli.output import human
from longshore.cli.output.fields import status_fields
from longshore.cli.output.tables import facts
from longshore.cli.session import Session
from longshore.errors import CorruptError

__all__ = ["command"]


@click.command("status")
@with_repository
def command(session: Session) -> int:
    """Show what a repository holds."""
    output = session.output
    status = session.open().status()
    damaged = status.snapshots_damaged or status.index_damaged
    code = CorruptError.exit_code if damaged else 0
    lines = facts(
        [
            ("repository", session.repository_url),
            ("id", status.id),
            ("format", f"version {status.format_version}"),
            ("created", human.moment(status.created_nanos)),
            ("snapshots", human.count(status.snapshots)),
            ("stored", f"{human.size(status.pack_bytes)} in {human.plural(status.packs, 'pack')}"),
            ("chunks", human.count(status.chunks)),
            ("keys", human.plural(status.slots, "slot")),
        ]
    )
    for line in lines:
        output.line(line)
    if status.slots == 1:
        output.note(
            "note: one key alone opens this repository; add a second, kept elsewhere: longshore repo key export FILE"
        )
    if damaged:
        output.say(
            f"error: damage was found: snapshots={status.snapshots_damaged}, index_segments={status.index_damaged}"
        )
        output.say("next: see what can be read with longshore repo check --read-data")
    output.summary({**status_fields(status, repository=session.repository_url), "exit_code": code}, [])
    return code
