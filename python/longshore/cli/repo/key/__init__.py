"""`longshore repo key …`: who can open a repository.

A repository's master key is wrapped in slots, one for each holder; slots come and go without touching data. `export` makes a slot for a new key file, `import`
one for the key in an existing file, `add` one for a passphrase or a key file. Without `--repository` they are about a cluster's keys: `in_cluster`.
"""

from __future__ import annotations

from typing import Final

import click

from longshore.cli.lazy import LazyGroup

COMMANDS: Final = {
    "list": ("longshore.cli.repo.key.list_slots:command", "List the key slots."),
    "add": ("longshore.cli.repo.key.add:add", "Let one more key or passphrase open the repository."),
    "export": ("longshore.cli.repo.key.add:export", "Write a new key file that opens the repository."),
    "import": ("longshore.cli.repo.key.add:import_", "Let the key in an existing file open the repository."),
    "remove": ("longshore.cli.repo.key.remove:command", "Take a key's access away."),
}


@click.group("key", cls=LazyGroup, lazy=COMMANDS)
def group() -> None:
    """List, add and remove the keys that open a repository."""
