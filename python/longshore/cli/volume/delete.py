"""`longshore volume delete SNAPSHOT…`: take snapshots out of the repository.

All are looked up before the first is deleted, so that a wrong word deletes nothing. Space is freed by a later prune.

A snapshot whose own object is lost cannot be looked up; it is given up by its whole id, and prunes, which stop at it, go on.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import click

from longshore.cli.asking import confirm
from longshore.cli.options import with_repository, yes_option
from longshore.cli.output import human
from longshore.cli.session import Session
from longshore.cli.source import who
from longshore.cli.values import SNAPSHOT_PATH
from longshore.errors import CorruptError, NewerFormatError, SnapshotNotFoundError, UsageError, WrongKeyError

if TYPE_CHECKING:
    from longshore.datapath import Repository

__all__ = ["command"]

_WHOLE: Final = re.compile(r"(ls0-)?[0-9a-f]{32}")


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
    # Those that are lost come first: whether they may be given up shows only when it is done.
    lost = {
        name: reason for name, reason in ((wanted, _why_lost(repository, wanted)) for wanted, _ in snapshots) if reason
    }
    rows = [repository.find(wanted, source=source) for wanted, _ in snapshots if wanted not in lost]
    found = [*lost, *dict.fromkeys(row.id for row in rows)]
    for name, reason in lost.items():
        output.note(f"{name}  cannot be read: {reason}")
    for row in {row.id: row for row in rows}.values():
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


def _why_lost(repository: Repository, wanted: str) -> str:
    """Tell why a snapshot that is named by its whole id cannot be read; nothing when it can be, or is named otherwise."""
    if not _WHOLE.fullmatch(wanted):
        return ""
    try:
        repository.find(wanted)
    except (CorruptError, NewerFormatError, SnapshotNotFoundError, WrongKeyError) as error:
        return error.message
    return ""
