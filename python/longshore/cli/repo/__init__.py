"""`longshore repo …`: repositories and their keys. One command a file; this is their table.

With `--repository` they work on that repository, with no cluster; without it on the cluster's.
"""

from __future__ import annotations

from typing import Final

import click

from longshore.cli.lazy import LazyGroup

COMMANDS: Final = {
    "init": ("longshore.cli.repo.init:command", "Make a repository."),
    "get": ("longshore.cli.repo.get:command", "List the repositories of a cluster."),
    "status": ("longshore.cli.repo.status:command", "Show what a repository holds."),
    "check": ("longshore.cli.repo.check:command", "Check that everything in a repository is there and whole."),
    "prune": (
        "longshore.cli.repo.prune:command",
        "Delete snapshots that a policy does not keep, then free the space that no snapshot needs.",
    ),
    "maintain": (
        "longshore.cli.repo.maintain:command",
        "Do one run of maintenance or verification of a cluster's repository, as the server's Jobs do.",
    ),
    "repair": (
        "longshore.cli.repo.repair:command",
        "Put right what is damaged in a repository, and name what is lost.",
    ),
    "key": ("longshore.cli.repo.key:group", "List, add and remove the keys that open a repository."),
}


@click.group("repo", cls=LazyGroup, lazy=COMMANDS)
def group() -> None:
    """Make, look at, check, repair and prune repositories, and their keys.

    With --repository it is that repository, without it the cluster's, where a command has both.
    """
