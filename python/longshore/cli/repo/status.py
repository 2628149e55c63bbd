"""`longshore repo status`: what a repository holds, and whether its key is in one place alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from longshore.cli.options import with_repository_or_cluster
from longshore.cli.output import human
from longshore.cli.output.fields import status_fields
from longshore.cli.output.tables import Column, facts, render
from longshore.cli.repo.cluster import ClusterSession
from longshore.cli.session import Session
from longshore.errors import CorruptError

if TYPE_CHECKING:
    from longshore.controllers.key_custody import RepositoryName
    from longshore.controllers.repositories import OpenRepository
    from longshore.datapath import RepositoryStatus

__all__ = ["command"]


@click.command("status")
@with_repository_or_cluster
def command(session: Session | ClusterSession) -> int:
    """Show what a repository holds. Without --repository: what each of the cluster's holds."""
    return _in_cluster(session) if isinstance(session, ClusterSession) else _plain(session)


def _in_cluster(session: ClusterSession) -> int:
    output = session.output
    cells: list[tuple[str, ...]] = []
    damaged = False

    def told(name: RepositoryName, found: tuple[OpenRepository, RepositoryStatus]) -> None:
        nonlocal damaged
        opened, status = found
        broken = bool(status.snapshots_damaged or status.index_damaged)
        damaged = damaged or broken
        key = "at risk" if opened.recovery_missing else "kept elsewhere"
        output.row(
            {
                "namespace": name.namespace,
                "location": name.location,
                **status_fields(status, repository=opened.url),
                "recovery_key_missing": opened.recovery_missing,
            }
        )
        stored = human.size(status.pack_bytes)
        snapshots = human.count(status.snapshots)
        cells.append((*name_of(name), snapshots, stored, str(status.slots), key, "yes" if broken else "-", opened.url))

    def name_of(name: RepositoryName) -> tuple[str, str]:
        return name.namespace, name.location

    def look(opened: OpenRepository) -> tuple[OpenRepository, RepositoryStatus]:
        return opened, opened.repository.status()

    with session.custody() as custody:
        outcome = session.each(custody.repositories(), lambda name: look(custody.open(name)), told=told)
    headings = ("NAMESPACE", "LOCATION", "SNAPSHOTS", "STORED", "SLOTS", "KEY", "DAMAGED", "REPOSITORY")
    for line in render([Column(one, right=one in {"SNAPSHOTS", "STORED", "SLOTS"}) for one in headings], cells):
        output.line(line)
    if any(row[5] == "at risk" for row in cells):
        output.note("note: a key at risk lives in this cluster only: save it with longshore repo key export FILE")
    code = CorruptError.exit_code if damaged else outcome.exit_code
    output.summary({"repositories": outcome.done, "repositories_failed": outcome.failed, "exit_code": code}, [])
    return code


def _plain(session: Session) -> int:
    output = session.output
    status = session.open().status()
    damaged = status.snapshots_damaged or status.index_damaged
    code = CorruptError.exit_code if damaged else 0
    lines = facts(
        [
            ("repository", session.repository_url),
            ("id", status.id),
            ("format", f"version {status.format_version}"),
            ("created", human.moment(status.created_nanos)),
            ("snapshots", human.count(status.snapshots)),
            ("stored", f"{human.size(status.pack_bytes)} in {human.plural(status.packs, 'pack')}"),
            ("chunks", human.count(status.chunks)),
            ("keys", human.plural(status.slots, "slot")),
        ]
    )
    for line in lines:
        output.line(line)
    if status.slots == 1:
        output.note(
            "note: one key alone opens this repository; add a second, kept elsewhere: longshore repo key export FILE"
        )
    if damaged:
        output.say(
            f"error: damage was found: snapshots={status.snapshots_damaged}, index_segments={status.index_damaged}"
        )
        output.say("next: see what can be read with longshore repo check --read-data")
    output.summary({**status_fields(status, repository=session.repository_url), "exit_code": code}, [])
    return code
