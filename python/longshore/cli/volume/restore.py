"""`longshore volume restore SNAPSHOT[:PATH] TARGET`: write a snapshot, or a part of it, into a directory.

The contents are laid directly in TARGET. What differs is overwritten, other files stay unless `--delete` is given. Refused before anything is touched: a target
that holds the repository or the key while `--delete` would remove them, and a target inside the repository.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from longshore.cli.options import limit_options, with_repository
from longshore.cli.output.fields import lost_item, restore_fields
from longshore.cli.output.words import name_lost, restore_words
from longshore.cli.running import run_job
from longshore.cli.session import Session
from longshore.cli.source import host_name
from longshore.cli.values import BYTES, SNAPSHOT_PATH
from longshore.errors import UsageError

__all__ = ["command"]


@click.command("restore")
@click.argument("snapshot", type=SNAPSHOT_PATH, metavar="SNAPSHOT[:PATH]")
@click.argument("target", type=click.Path(), metavar="TARGET")
@click.option("--delete", "delete_extra", is_flag=True, help="Remove from TARGET what the snapshot does not have.")
@click.option("--source", metavar="NAME", help="With latest: the volume whose latest snapshot is meant.")
@click.option(
    "--dry-run", "-n", is_flag=True, help="Read the trees and count; write nothing, and do not look at TARGET."
)
@click.option(
    "--trust-times",
    is_flag=True,
    help="Take a file in TARGET that has the size and modification time of the snapshot's for unchanged, without reading it.",
)
@click.option("--keep-damaged", is_flag=True, help="Keep what can be read of damaged files, as NAME.longshore-damaged.")
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    metavar="N",
    help="Threads that fetch and write.  [default: one for each CPU]",
)
@click.option(
    "--memory-limit",
    type=BYTES,
    metavar="SIZE",
    help="Bound of all buffers, e.g. 512MiB.  [default: 60MiB and 18MiB a worker, within the cgroup]",
)
@with_repository
@limit_options(upload=False)
def command(
    session: Session,
    *,
    snapshot: tuple[str, bytes],
    target: str,
    delete_extra: bool,
    source: str | None,
    dry_run: bool,
    trust_times: bool,
    keep_damaged: bool,
    workers: int | None,
    memory_limit: int | None,
) -> int:
    """Write a snapshot, or a part of it, into a directory.

    The contents are laid directly in TARGET, which is made when absent. Files that differ are overwritten; other files stay, unless --delete is given.
    Every byte is verified before it is written. A file that is there is read and compared; with --trust-times one that looks unchanged is not, which is
    quicker and misses damage that moved no time, as of a failing disk.

    Exits with 3 when items could not be restored: the rest is there, and they are named.
    """
    from longshore import datapath

    wanted, path = snapshot
    if Path(target).exists() and not Path(target).is_dir():
        raise UsageError(
            f"the target is no directory: target={target}", "name a directory, or one that is not there yet"
        )
    _refuse_own_folders(session, target, delete_extra=delete_extra)
    repository = session.open()
    found = repository.find(wanted, source=source)
    # Who restores by hand answers for this machine and its repositories; what an ordinary user may not set is named.
    options = datapath.RestoreOptions(
        snapshot_id=found.id,
        path=path,
        target=target,
        delete_extra=delete_extra,
        dry_run=dry_run,
        restore_owner=os.geteuid() == 0,
        keep_damaged=keep_damaged,
        trust_times=trust_times,
        workers=workers,
        memory_limit_bytes=memory_limit,
        host=host_name(),
    ).trusting()
    output = session.output
    if dry_run and delete_extra:
        output.note("a dry run does not look at the target: what --delete would remove is not told")
    result = run_job(
        repository.restore(options),
        output=output,
        title="Restoring",
        after_cancel="the target is not whole: run the same command again, what is there already is not written again",
    )
    for lost in result.lost:
        output.item(lost_item(lost))
    for dropped in result.dropped:
        output.item(lost_item(dropped, event="dropped"))
    name_lost(output, result.lost, result.items_lost, what="not restored")
    if not output.quiet:
        name_lost(output, result.dropped, result.items_dropped, what="left out, because only root may set it")
    output.summary(
        restore_fields(result, snapshot_id=found.id, path=path, target=os.fsencode(target), dry_run=dry_run),
        restore_words(result, snapshot_id=found.id, target=target, dry_run=dry_run),
    )
    return int(result.exit_code)


def _within(inner: str, outer: str) -> bool:
    return inner == outer or inner.startswith(outer.rstrip("/") + "/")


def _refuse_own_folders(session: Session, target: str, *, delete_extra: bool) -> None:
    """Keep a restore from destroying what it is made from."""
    real = os.path.realpath(target)
    folder = session.folder
    if folder is not None and _within(real, str(folder)):
        raise UsageError(f"the target lies inside the repository: target={target}", "name another directory")
    if not delete_extra:
        return
    kept = (folder, session.key_source.key_file, session.key_source.passphrase_file)
    for place in kept:
        if place is not None and _within(os.path.realpath(place), real):
            raise UsageError(
                f"--delete would remove the repository or its key, which lies inside the target: target={target}, inside={place}",
                "restore without --delete, or into another directory",
            )
