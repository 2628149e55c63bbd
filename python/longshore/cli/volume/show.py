"""`longshore volume show SNAPSHOT`: what a snapshot says of itself, with the items that are missing from it."""

from __future__ import annotations

import time

import click

from longshore.cli.options import with_repository
from longshore.cli.output import human
from longshore.cli.output.fields import changed_item, lost_item, snapshot_fields
from longshore.cli.output.tables import facts
from longshore.cli.output.words import NAMED_MAX
from longshore.cli.session import Session
from longshore.cli.values import SNAPSHOT_PATH
from longshore.errors import UsageError

__all__ = ["command"]


@click.command("show")
@click.argument("snapshot", type=SNAPSHOT_PATH, metavar="SNAPSHOT")
@click.option("--source", metavar="NAME", help="With latest: the volume whose latest snapshot is meant.")
@with_repository
def command(session: Session, *, snapshot: tuple[str, bytes], source: str | None) -> int:
    """Show what a snapshot says of itself."""
    wanted, path = snapshot
    if path:
        raise UsageError(
            f"a snapshot is shown as a whole: path={human.path_text(path)}", "look into it with longshore volume ls"
        )
    found = session.open().find(wanted, source=source)
    output = session.output
    for lost in found.lost:
        output.item(lost_item(lost))
    for changed in found.changed:
        output.item(changed_item(changed))
    ago = human.age((time.time_ns() - found.started_nanos) / 1e9)
    tags = ", ".join(f"{key}={value}" for key, value in sorted(dict(found.tags).items()))
    files = f"{human.count(found.files_new)} new, {human.count(found.files_changed)} changed, {human.count(found.files_unchanged)} unchanged"
    lines = facts(
        [
            ("snapshot", found.id),
            ("source", found.source),
            ("host", found.host),
            ("path", found.path.decode("utf-8", "surrogateescape")),
            ("tags", tags),
            ("parent", found.parent_id or "none: everything was read"),
            ("started", f"{human.moment(found.started_nanos)} ({ago} ago)"),
            ("took", human.duration((found.ended_nanos - found.started_nanos) / 1e9)),
            ("files", f"{human.count(found.files_total)} ({files})"),
            ("directories", human.count(found.directories)),
            ("other", human.count(found.others)),
            ("size", human.size(found.bytes_total)),
            ("read", human.size(found.bytes_read)),
            ("stored", human.size(found.bytes_stored)),
            ("lost", human.count(found.items_lost) if found.items_lost else ""),
            ("changed", human.count(found.items_changed) if found.items_changed else ""),
            ("made by", found.program),
        ]
    )
    for line in lines:
        output.line(line)
    for what, total, named in (
        (
            "lost",
            found.items_lost,
            [f"{human.path_text(item.path)}: {human.printable(item.message)}" for item in found.lost],
        ),
        ("changed", found.items_changed, [human.path_text(path) for path in found.changed]),
    ):
        for line in named[:NAMED_MAX]:
            output.line(f"{what}: {line}")
        if total > NAMED_MAX:
            output.line(f"{what}: {human.count(total - NAMED_MAX)} more")
    output.summary({**snapshot_fields(found), "exit_code": 0}, [])
    return 0
