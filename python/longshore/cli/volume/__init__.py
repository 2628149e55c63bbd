"""`longshore volume …`: directories and their snapshots, with no cluster. One command a file; this is their table.

Promises: what is left out here is not offered: a command stands in the table when the engine serves it.
"""

from __future__ import annotations

from typing import Final

import click

from longshore.cli.lazy import LazyGroup

COMMANDS: Final = {
    "backup": ("longshore.cli.volume.backup:command", "Save a directory as a new snapshot."),
    "list": ("longshore.cli.volume.list_snapshots:command", "List snapshots, oldest first."),
    "show": ("longshore.cli.volume.show:command", "Show what a snapshot says of itself."),
    "ls": ("longshore.cli.volume.ls:command", "List what is in a snapshot."),
    "find": ("longshore.cli.volume.find:command", "Find names in a snapshot."),
    "restore": ("longshore.cli.volume.restore:command", "Write a snapshot, or a part of it, into a directory."),
    "verify": ("longshore.cli.volume.verify:command", "Read a snapshot back and verify every byte."),
    "delete": ("longshore.cli.volume.delete:command", "Delete snapshots."),
}


@click.group("volume", cls=LazyGroup, lazy=COMMANDS)
def group() -> None:
    """Back up, look into and restore directories.

    SNAPSHOT is an id, the beginning of one, or `latest`. PATH is a path in the snapshot, from its root.
    """
