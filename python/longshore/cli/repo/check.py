"""`longshore repo check`: is everything there and whole; with `--read-data` every byte is read and opened."""

from __future__ import annotations

import click

from longshore.cli.options import with_repository
from longshore.cli.output.checking import report_check
from longshore.cli.running import run_job
from longshore.cli.session import Session

__all__ = ["command"]


@click.command("check")
@click.option("--read-data", is_flag=True, help="Read and open every pack, not only what leads to them.")
@with_repository
def command(session: Session, *, read_data: bool) -> int:
    """Check that everything in a repository is there and whole. Exits with 4 when something is damaged or missing."""
    result = run_job(
        session.open().check(read_data=read_data),
        output=session.output,
        title="Checking",
        after_cancel="nothing was changed: run the same command again",
    )
    fields = {"repository": session.repository_url, "read_data": read_data}
    return report_check(session.output, result, what=f"repository {session.repository_url}", fields=fields)
