"""`longshore volume find SNAPSHOT[:PATH] PATTERN`: names in a snapshot. Walks the whole tree; patterns mean what they mean to `--exclude`."""

from __future__ import annotations

import click

from longshore.cli.options import with_repository
from longshore.cli.output.entries import entry_fields, long_line, short_line
from longshore.cli.session import Session
from longshore.cli.values import SNAPSHOT_PATH, matcher
from longshore.cli.volume.walking import Walk

__all__ = ["command"]


@click.command("find")
@click.argument("snapshot", type=SNAPSHOT_PATH, metavar="SNAPSHOT[:PATH]")
@click.argument("pattern", metavar="PATTERN")
@click.option("--source", metavar="NAME", help="With latest: the volume whose latest snapshot is meant.")
@click.option("--long", "-l", "long_form", is_flag=True, help="With mode, owner, size and time.")
@with_repository
def command(session: Session, *, snapshot: tuple[str, bytes], pattern: str, source: str | None, long_form: bool) -> int:
    """Find names in a snapshot.

    A PATTERN without a slash is for a name at any depth, one with a slash for a path from the snapshot's root; * stays within one name, ** does not.
    """
    output = session.output
    expression = matcher(pattern)
    repository = session.open()
    wanted, path = snapshot
    found = repository.find(wanted, source=source)
    matches = 0
    walk = Walk(repository, found.id, path, recursive=True, output=output)
    for entry in walk:
        if not expression.fullmatch(entry.path):
            continue
        matches += 1
        output.row(entry_fields(entry))
        if not output.as_json:
            output.line(long_line(entry) if long_form else short_line(entry))
    fields = {"snapshot_id": found.id, "matches": matches, "damaged": walk.damaged, "exit_code": walk.exit_code}
    output.summary(fields, [])
    return walk.exit_code
