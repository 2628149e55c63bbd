"""`longshore volume verify SNAPSHOT`: read a snapshot back and verify every byte, without writing it anywhere."""

from __future__ import annotations

import click

from longshore.cli.options import fresh_option, limit_options, with_repository
from longshore.cli.output.checking import report_check, share_fields
from longshore.cli.running import run_job
from longshore.cli.sampling import with_sample
from longshore.cli.session import Session
from longshore.cli.values import SNAPSHOT_PATH
from longshore.errors import UsageError

__all__ = ["command"]


@click.command("verify")
@click.argument("snapshot", type=SNAPSHOT_PATH, metavar="SNAPSHOT")
@click.option("--source", metavar="NAME", help="With latest: the volume whose latest snapshot is meant.")
@click.option("--tags-only", is_flag=True, help="Open what is sealed, and leave chunk ids uncompared.")
@with_sample
@fresh_option
@with_repository
@limit_options(upload=False)
def command(
    session: Session,
    *,
    snapshot: tuple[str, bytes],
    source: str | None,
    tags_only: bool,
    share: tuple[int, int] | None,
    fresh: bool,
) -> int:
    """Read a snapshot back and verify every byte. Exits with 4 when something is damaged or missing."""
    wanted, path = snapshot
    if path:
        raise UsageError("a snapshot is verified as a whole", "leave the path out")
    repository = session.open()
    found = repository.find(wanted, source=source)
    result = run_job(
        repository.verify(found.id, tags_only=tags_only, share=share, fresh=fresh),
        output=session.output,
        title="Verifying",
        after_cancel="nothing was changed: run the same command again, it goes on from where it was",
    )
    return report_check(
        session.output, result, what=f"snapshot {found.id}", fields={"snapshot_id": found.id, **share_fields(share)}
    )
