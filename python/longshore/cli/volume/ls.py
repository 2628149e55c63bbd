"""`longshore volume ls SNAPSHOT[:PATH]`: what is in a snapshot. Entries come in pages, so a directory of millions is listed in little memory."""

from __future__ import annotations

import click

from longshore.cli.options import with_repository
from longshore.cli.output.entries import entry_fields, long_line, short_line
from longshore.cli.session import Session
from longshore.cli.values import SNAPSHOT_PATH
from longshore.cli.volume.walking import Walk

__all__ = ["command"]


@click.command("ls")
@click.argument("snapshot", type=SNAPSHOT_PATH, metavar="SNAPSHOT[:PATH]")
@click.option("--source", metavar="NAME", help="With latest: the volume whose latest snapshot is meant.")
@click.option("--recursive", "-R", is_flag=True, help="With everything below.")
@click.option("--long", "-l", "long_form", is_flag=True, help="With mode, owner, size and time.")
@with_repository
def command(
    session: Session, *, snapshot: tuple[str, bytes], source: str | None, recursive: bool, long_form: bool
) -> int:
    """List what is in a snapshot. Of a PATH in it when one is given; directories end with a slash."""
    output = session.output
    repository = session.open()
    wanted, path = snapshot
    found = repository.find(wanted, source=source)
    total = 0
    walk = Walk(repository, found.id, path, recursive=recursive, output=output)
    for entry in walk:
        total += 1
        output.row(entry_fields(entry))
        if not output.as_json:
            output.line(long_line(entry) if long_form else short_line(entry))
    fields = {"snapshot_id": found.id, "entries": total, "damaged": walk.damaged, "exit_code": walk.exit_code}
    output.summary(fields, [])
    return walk.exit_code
