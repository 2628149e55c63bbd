"""`longshore repo repair`: put right what is damaged, and write down what is lost, so that the next backup brings it back.

It adds and deletes nothing that anybody needs, and may run beside backups, restores and prunes. `--dry-run` says what it would do.
"""

from __future__ import annotations

import click

from longshore.cli.options import fresh_option, limit_options, with_repository
from longshore.cli.output.repairing import report_repair
from longshore.cli.running import run_job
from longshore.cli.session import Session
from longshore.cli.source import who

__all__ = ["command"]


@click.command("repair")
@click.option("--read-data", is_flag=True, help="Read and open every pack, too: finds what rots at rest.")
@click.option("--dry-run", is_flag=True, help="Say what is damaged and what would be done; change nothing.")
@fresh_option
@with_repository
@limit_options(upload=True)
def command(session: Session, *, read_data: bool, dry_run: bool, fresh: bool) -> int:
    """Put right what is damaged in a repository, and name what is lost.

    The index is made again from packs, usage tables from directories, and what is whole of a damaged pack is saved. What is lost is named and
    written down: snapshots stay readable without it, prunes go on, and the next backup whose source still has it stores it again.
    Exits with 4 when something is lost, with 0 when everything is whole.
    """
    from longshore import datapath

    options = datapath.RepairOptions(dry_run=dry_run, read_data=read_data, fresh=fresh, host=who())
    result = run_job(
        session.open().repair(options),
        output=session.output,
        title="Repairing",
        after_cancel="what was done is whole: run the same command again",
    )
    fields = {"repository": session.repository_url, "dry_run": dry_run, "read_data": read_data}
    return report_repair(session.output, result, what=f"repository {session.repository_url}", fields=fields)
