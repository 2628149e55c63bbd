"""`longshore repo prune`: take out snapshots by a policy, then free what nobody needs any more.

All snapshots are judged before the first is deleted; `--dry-run` says of each what would become of it and why, and what a prune would then free. Backups,
restores and other prunes may run beside it: nothing is locked and nothing waits.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from longshore.cli.options import limit_options, with_repository
from longshore.cli.output.pruning import report_prune, tell_verdicts
from longshore.cli.running import run_job
from longshore.cli.session import Session
from longshore.cli.source import who
from longshore.cli.values import BYTES, FENCE_AFTER
from longshore.errors import UsageError

if TYPE_CHECKING:
    from longshore.datapath import Repository, Verdict

__all__ = ["command"]

_COUNT = click.IntRange(min=-1)


@click.command("prune")
@click.option(
    "--keep-last", type=_COUNT, default=0, metavar="N", help="Keep the N newest snapshots of each source; -1 keeps all."
)
@click.option(
    "--keep-hourly", type=_COUNT, default=0, metavar="N", help="Keep the newest of each of N hours that have one."
)
@click.option("--keep-daily", type=_COUNT, default=0, metavar="N", help="The same by days.")
@click.option("--keep-weekly", type=_COUNT, default=0, metavar="N", help="The same by weeks, which begin on Monday.")
@click.option("--keep-monthly", type=_COUNT, default=0, metavar="N", help="The same by months.")
@click.option("--keep-yearly", type=_COUNT, default=0, metavar="N", help="The same by years.")
@click.option(
    "--keep-within", metavar="SPAN", help="Keep all that are at most so much older than the newest: 7d, 2m, 1y6m."
)
@click.option(
    "--keep-tag", metavar="KEY[=VALUE]", multiple=True, help="Keep all that have this tag. May be given several times."
)
@click.option(
    "--dry-run", is_flag=True, help="Say what would become of every snapshot and pack, and why; change nothing."
)
@click.option(
    "--max-repack", type=BYTES, metavar="SIZE", help="Move at most so much out of packs that are mostly dead."
)
@click.option(
    "--fence",
    metavar="SESSION",
    multiple=True,
    help="This session's process is gone: do not wait for it. `all` for every one.",
)
@click.option(
    "--fence-after",
    type=FENCE_AFTER,
    metavar="DURATION",
    help="Judge a session dead when nothing of it changed for so long and over three prunes: at least 1h.  [default: 168h]",
)
@click.option(
    "--allow-empty", is_flag=True, help="Go on although a source, or the repository, is left without any snapshot."
)
@with_repository
@limit_options(upload=True)
def command(
    session: Session,
    *,
    keep_last: int,
    keep_hourly: int,
    keep_daily: int,
    keep_weekly: int,
    keep_monthly: int,
    keep_yearly: int,
    keep_within: str | None,
    keep_tag: tuple[str, ...],
    dry_run: bool,
    max_repack: int | None,
    fence: tuple[str, ...],
    fence_after: int | None,
    allow_empty: bool,
) -> int:
    """Delete snapshots that a policy does not keep, then free the space that no snapshot needs.

    The rules hold for each source alone, by calendar in UTC. Without any rule no snapshot is deleted. One that is dated more than an hour ahead of
    now is kept, and no rule counts it.
    """
    from longshore import datapath

    policy = datapath.Policy(
        last=keep_last,
        hourly=keep_hourly,
        daily=keep_daily,
        weekly=keep_weekly,
        monthly=keep_monthly,
        yearly=keep_yearly,
        within=None if keep_within is None else datapath.parse_span(keep_within),
        tags=keep_tag,
    )
    repository = session.open()
    gone: list[str] = []
    if not policy.is_empty:
        verdicts = datapath.judge(repository.snapshots().rows, policy, now=_now())
        _refuse_bare(verdicts, allow_empty=allow_empty)
        tell_verdicts(session.output, verdicts, dry_run=dry_run)
        gone = [verdict.snapshot_id for verdict in verdicts if not verdict.keep]
        if not dry_run:
            _delete(session, repository, gone)
    options = datapath.PruneOptions(
        dry_run=dry_run,
        forget=gone,
        allow_empty=allow_empty,
        max_repack_bytes=max_repack,
        fence_now="all" in fence,
        fence=[name for name in fence if name != "all"],
        **({} if fence_after is None else {"fence_after_seconds": fence_after}),
    )
    result = run_job(
        repository.prune(options),
        output=session.output,
        title="Pruning",
        after_cancel="what was begun is finished by the next prune: run the same command again",
        stored="written",
    )
    fields = {"repository": session.repository_url, "dry_run": dry_run, "snapshots_deleted": len(gone)}
    return report_prune(session.output, result, fields=fields, dry_run=dry_run, deleted=len(gone))


def _now() -> datetime:
    return datetime.now(UTC)


def _refuse_bare(verdicts: list[Verdict], *, allow_empty: bool) -> None:
    """Stop before a source loses its last snapshot to a policy, unless that is meant. One that is dated in the future is nobody's last."""
    judged = [verdict for verdict in verdicts if not verdict.dated_ahead]
    bare = {verdict.source for verdict in judged} - {verdict.source for verdict in judged if verdict.keep}
    if bare and not allow_empty:
        raise UsageError(
            f"the policy would leave a source without any snapshot: sources={', '.join(sorted(bare)[:5])}",
            "nothing was deleted; keep more, for example --keep-last 1, or say that it is meant with --allow-empty",
        )


def _delete(session: Session, repository: Repository, gone: list[str]) -> None:
    by = who()
    for at, snapshot_id in enumerate(gone):
        repository.remove(snapshot_id, by=by)
        session.output.item({"event": "deleted", "snapshot_id": snapshot_id})
        session.output.note(f"deleted {snapshot_id} ({at + 1} of {len(gone)})")
