"""`longshore repo get [NAME...]`: the cluster's repositories as their objects tell of them, as `velero repo get` does; nothing is opened."""

from __future__ import annotations

from typing import Any

import click

from longshore.cli.options import list_options, with_cluster
from longshore.cli.output.tables import Column, render
from longshore.cli.repo.cluster import ClusterSession
from longshore.errors import NotFoundError, UsageError

__all__ = ["command"]


@click.command("get")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@list_options
@with_cluster
def command(session: ClusterSession, *, names: tuple[str, ...], form: str) -> int:
    """List the repositories of a cluster. Those of the names when some are given."""
    output = session.output
    if output.as_json and form != "table":
        raise UsageError("--json and --output are both given", "leave one out")
    rows = [row for row in _rows(session) if not names or row["name"] in names]
    if missing := sorted(set(names) - {row["name"] for row in rows}):
        raise NotFoundError(
            f"there is no such repository: namespace={session.namespace}, name={', '.join(missing)}",
            "list them with longshore repo get",
        )
    if form != "table":
        output.document(rows, as_yaml=form == "yaml")
    elif output.as_json:
        for row in rows:
            output.row(row)
    else:
        columns = [Column(one) for one in ("NAME", "STATUS", "LAST MAINTENANCE", "LAST VERIFICATION", "KEY", "MESSAGE")]
        words = {True: "at risk", False: "kept elsewhere", None: "-"}
        cells = [
            (
                row["name"],
                row["phase"] or "New",
                row["last_maintenance"] or "-",
                row["last_verification"] or "-",
                words[row["recovery_key_missing"]],
                row["message"] or "-",
            )
            for row in rows
        ]
        for line in render(columns, cells):
            output.line(line)
    if any(row["recovery_key_missing"] for row in rows):
        output.note("note: a key at risk lives in this cluster only: save it with longshore repo key export FILE")
    output.summary({"repositories": len(rows), "exit_code": 0}, [])
    return 0


def _rows(session: ClusterSession) -> list[dict[str, Any]]:
    from longshore.api.names import BACKUP_REPOSITORIES, RESTIC_REPOSITORIES
    from longshore.api.repository import CONDITION_RECOVERY_KEY_MISSING
    from longshore.controllers.cluster import resource_of

    rows = []
    with session.client() as client:
        for definition in (BACKUP_REPOSITORIES, RESTIC_REPOSITORIES):
            try:
                found = client.list(resource_of(definition), namespace=session.namespace).items
            except NotFoundError:
                # A cluster of one Velero version lacks the other's kind.
                continue
            for one in found:
                spec, status = (one.get(part) or {} for part in ("spec", "status"))
                conditions = {each.get("type"): each.get("status") for each in status.get("conditions") or []}
                risk = conditions.get(CONDITION_RECOVERY_KEY_MISSING)
                rows.append(
                    {
                        "name": one["metadata"]["name"],
                        "kind": definition.kind,
                        "volume_namespace": spec.get("volumeNamespace", ""),
                        "location": spec.get("backupStorageLocation", ""),
                        "phase": status.get("phase", ""),
                        "message": status.get("message", ""),
                        "last_maintenance": status.get("lastMaintenanceTime"),
                        "last_verification": status.get("lastVerificationTime"),
                        "recovery_key_missing": None if risk is None else risk == "True",
                    }
                )
    return rows
