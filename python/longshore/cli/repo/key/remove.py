"""`longshore repo key remove SLOT`: take a key's access away. The last slot stays, or nothing could be read any more."""

from __future__ import annotations

import click

from longshore.cli.asking import confirm
from longshore.cli.options import with_repository_or_cluster, yes_option
from longshore.cli.repo.cluster import ClusterSession
from longshore.cli.repo.key import in_cluster
from longshore.cli.session import Session
from longshore.errors import UsageError

__all__ = ["command"]


@click.command("remove")
@click.argument("slot", metavar="SLOT")
@yes_option
@with_repository_or_cluster
def command(session: Session | ClusterSession, *, slot: str, yes: bool) -> int:
    """Take a key's access away. SLOT is a name from `repo key list`, or the beginning of one.

    Someone who opened the repository before may have kept the master key: that is not taken away by this.

    Without --repository, SLOT may be a label as well, and each of the cluster's repositories loses its slot of that label. The slot through which the
    cluster opens a repository stays.
    """
    if isinstance(session, ClusterSession):
        return in_cluster.remove(session, slot, yes=yes)
    output, repository = session.output, session.open()
    slots = repository.slots()
    found = [known for known in slots if slot and known.name.startswith(slot)]
    if len(found) != 1:
        what = "several key slots begin so" if found else "there is no such key slot"
        raise UsageError(f"{what}: slot={slot}", "list them with longshore repo key list")
    if len(slots) == 1:
        raise UsageError(
            f"this is the last key slot, without it nothing can be read: slot={found[0].name}",
            "add another first, with longshore repo key add",
        )
    label = f" ({found[0].label})" if found[0].label else ""
    if not confirm(f"Remove key slot {found[0].name}{label}", yes=yes, output=output):
        output.note("nothing was removed")
        output.summary({"slot": None, "exit_code": 1}, [])
        return 1
    repository.remove_slot(found[0].name)
    output.summary({"slot": found[0].name, "exit_code": 0}, [f"Removed key slot {found[0].name}{label}"])
    return 0
