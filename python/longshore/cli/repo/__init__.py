"""`longshore repo …`: repositories and their keys, with no cluster. One command a file; this is their table."""

from __future__ import annotations

from typing import Final

import click

from longshore.cli.lazy import LazyGroup

COMMANDS: Final = {
    "init": ("longshore.cli.repo.init:command", "Make a repository."),
    "status": ("longshore.cli.repo.status:command", "Show what a repository holds."),
    "check": ("longshore.cli.repo.check:command", "Check that everything in a repository is there and whole."),
    "key": ("longshore.cli.repo.key:group", "List, add and remove the keys that open a repository."),
}


@click.group("repo", cls=LazyGroup, lazy=COMMANDS)
def group() -> None:
    """Make, look at and check repositories, and their keys."""
