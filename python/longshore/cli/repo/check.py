"""`longshore repo check`: is everything there and whole; with `--read-data` every byte is read and opened."""

from __future__ import annotations

import click

from longshore.cli.options import fresh_option, limit_options, with_repository
from longshore.cli.output.checking import report_check, share_fields
from longshore.cli.running import run_job
from longshore.cli.sampling import with_sample
from longshore.cli.session import Session
from longshore.errors import UsageError

__all__ = ["command"]


@click.command("check")
@click.option("--read-data", is_flag=True, help="Read and open every pack, not only what leads to them.")
@with_sample
@fresh_option
@with_repository
@limit_options(upload=False)
def command(session: Session, *, read_data: bool, share: tuple[int, int] | None, fresh: bool) -> int:
    """Check that everything in a repository is there and whole. Exits with 4 when something is damaged or missing."""
    if read_data and share:
        raise UsageError("all data and a share of it were asked for", "give --read-data or --sample")
    goes_on = ", it goes on from where it was" if read_data or share else ""
    result = run_job(
        session.open().check(read_data=read_data, share=share, fresh=fresh),
        output=session.output,
        title="Checking",
        after_cancel=f"nothing was changed: run the same command again{goes_on}",
    )
    fields = {"repository": session.repository_url, "read_data": read_data, **share_fields(share)}
    return report_check(session.output, result, what=f"repository {session.repository_url}", fields=fields)
