"""What is measured: each row of the page with its data, its way, and the figures it must reach.

A figure is a ratio, peer ÷ ours, of wall and of CPU time both. A peer without a figure is not measured in that row. Does not know how a row
is measured (scenarios.py) nor how it is shown (render.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benches.volume import data

Make = Callable[[Path, float], data.Data]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the page.

    Attributes:
        name: for `make bench ONLY=`.
        title: on the page.
        way: a name of scenarios.WAYS.
        make: the data, at a scale.
        figures: what must be reached, by peer.
        steps: what is timed, with figures of its own where a row has two; the first is timed against the peers' only step.
        change: made to the source before each round.
        peers_at_once: how many repositories the disk has room for beside ours.
        new_node: local caches are taken away before each timed run.
        needs_root: cannot be measured otherwise.
        expected_minutes: of an idle machine with two cores, all peers, for the page's reader.
    """

    name: str
    title: str
    way: str
    make: Make
    figures: dict[str, float]
    more_steps: dict[str, dict[str, float]] = field(default_factory=dict)
    change: Callable[[Path, int], object] | None = None
    peers_at_once: int = 4
    new_node: bool = False
    needs_root: bool = False
    expected_minutes: int = 10


def _figures(restic: float, kopia: float, rustic: float, borg: float | None) -> dict[str, float]:
    found = {"restic": restic, "kopia": kopia, "rustic": rustic}
    return found if borg is None else {**found, "borg": borg}


_S3_FILE = partial(data.one_file, size_bytes=2 * data.GIB)

ROWS = [
    Row("first-real", "first, real tree (200,000 files, 6 GB)", "first", data.real_tree, _figures(3.0, 2.5, 3.5, 5), expected_minutes=45),
    Row("first-noise", "first, incompressible 8 GiB", "first", data.incompressible, _figures(4, 2.5, 3, 6), expected_minutes=40),
    Row("first-database", "first, database 8 GiB, log 2 GiB", "first", data.database_and_log, _figures(2.5, 2, 1.5, 4), expected_minutes=40),
    Row("first-copies", "first, duplicate-heavy (four slightly edited copies)", "first", data.copies, _figures(4.5, 3.5, 3.5, 6), expected_minutes=35),
    Row("first-small", "first, one million small files", "first", data.small_files, _figures(3.5, 2, 5, 8), expected_minutes=60),
    Row("unchanged", "unchanged, one million files, caches warm", "again", data.small_files, _figures(12, 3, 15, 30), peers_at_once=3, expected_minutes=30),
    Row(
        "unchanged-chown", "unchanged, after `chown -R` of the tree", "again", data.small_files, _figures(12, 8, 12, 15),
        change=data.change_owner, needs_root=True, peers_at_once=3, expected_minutes=35,
    ),
    Row(
        "unchanged-new-node", "unchanged, on a new node without local cache", "again", data.small_files, _figures(6, 3, 6, 10),
        new_node=True, peers_at_once=3, expected_minutes=35,
    ),
    Row(
        "changed-files", "1 % of the files changed, one million", "again", data.small_files, _figures(10, 4, 10, 12),
        change=data.change_files, peers_at_once=3, expected_minutes=40,
    ),
    Row(
        "changed-pages", "1 % of the pages changed in place, 8 GiB database", "again", data.database, _figures(3, 2.5, 2, 5),
        change=data.change_pages, peers_at_once=1, expected_minutes=45,
    ),
    Row("restore-real", "restore, real tree", "restore", data.real_tree, _figures(2.5, 5, 2, 4), peers_at_once=2, expected_minutes=75),
    Row("restore-small", "restore, one million small files", "restore", data.small_files, _figures(1.6, 5, 1.4, 4), peers_at_once=2, expected_minutes=90),
    Row("restore-file", "restore, one 8 GiB file, local", "restore-alone", data.one_file, _figures(2, 3, 1.5, 4), expected_minutes=40),
    Row("restore-s3", "restore, one 2 GiB file from S3 with 50 ms round trip", "restore-s3", _S3_FILE, _figures(2, 10, 2, None), expected_minutes=40),
    Row("restore-damaged", "restore over the same tree, 1 % damaged", "restore-over", data.real_tree,
        _figures(8, 5, 5, None), peers_at_once=2, expected_minutes=40),
    Row(
        "verify", "verify all data / tags only", "verify", data.real_tree, _figures(3, 4, 3, 4),
        more_steps={"tags": _figures(8, 10, 8, 10)}, expected_minutes=25,
    ),
    Row(
        "open", "open a repository of one million chunks and list its snapshots", "open", data.small_files, _figures(5, 3, 5, 5),
        peers_at_once=3, expected_minutes=20,
    ),
]  # fmt: skip


def row(name: str) -> Row:
    """Find a row by its name.

    Raises:
        KeyError: there is none.
    """
    for one in ROWS:
        if one.name == name:
            return one
    raise KeyError(name)
