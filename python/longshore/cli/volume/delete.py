"""`longshore volume delete SNAPSHOT…`: take snapshots out of the repository.

All are looked up before the first is deleted, so that a wrong word deletes nothing. Space is freed by a later prune.
"""

from __future__ import annotations

import click

from longshore.cli.asking import confirm
from longshore.cli.options import with_repository, yes_option
from longshore.cli.output import human
from longshore.cli.session import Session
from longshore.cli.source import who
from longshore.cli.values import SNAPSHOT_PATH
from longshore.errors import UsageError

__all__ = ["command"]


@click.command("delete")
@click.argument("snapshots", type=SNAPSHOT_PATH, metavar="SNAPSHOT...", nargs=-1, required=True)
@click.option("--source", metavar="NAME", help="With latest: the volume whose latest snapshot is meant.")
@yes_option
@with_repository
def command(session: Session, *, snapshots: tuple[tuple[str, bytes], ...], source: str | None, yes: bool) -> int:
    """Delete snapshots. The space that only they used is freed by a later prune."""
    output = session.output
    if any(path for _, path in snapshots):
        raise UsageError("a part of a snapshot cannot be deleted", "name whole snapshots")
    repository = session.open()
    found = {row.id: row for row in (repository.find(wanted, source=source) for wanted, _ in snapshots)}
    for row in found.values():
        output.note(f"{row.id}  {human.moment(row.started_nanos)}  {human.size(row.bytes_total)}  {row.source}")
    if not confirm(f"Delete {human.plural(len(found), 'snapshot')}", yes=yes, output=output):
        output.note("nothing was deleted")
        output.summary({"deleted": 0, "exit_code": 1}, [])
        return 1
    for deleted, snapshot_id in enumerate(found):
        repository.remove(snapshot_id, by=who())
        output.item({"event": "deleted", "snapshot_id": snapshot_id})
        output.note(f"deleted {snapshot_id} ({deleted + 1} of {len(found)})")
    output.summary({"deleted": len(found), "exit_code": 0}, [])
    return 0
