"""`longshore volume backup PATH`: save a directory as a new snapshot.

Decides what the volume is called, what is compared with, what is left out; the engine does the rest. A repository or cache that lies inside the volume is
left out by itself: a backup of the place into which it is being written would never be whole.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import click

from longshore.cli.options import limit_options, with_repository
from longshore.cli.output.fields import backup_fields, changed_item, lost_item
from longshore.cli.output.words import backup_words, name_changed, name_lost
from longshore.cli.running import run_job
from longshore.cli.session import Session
from longshore.cli.source import default_source, host_name
from longshore.cli.values import BYTES, COMPRESSION, parse_tags, read_patterns
from longshore.errors import UsageError

__all__ = ["command"]


@click.command("backup")
@click.argument("path", type=click.Path(), metavar="PATH")
@click.option(
    "--volume", metavar="NAME", help="Whose snapshots these are.  [default: this machine's id and the real path]"
)
@click.option(
    "--exclude", "-e", "excludes", metavar="PATTERN", multiple=True, help="Leave out what matches; may be repeated."
)
@click.option(
    "--exclude-file",
    "exclude_files",
    metavar="FILE",
    multiple=True,
    help="Patterns from a file, one a line, # for comments.",
)
@click.option("--one-file-system", "-x", is_flag=True, help="Stay on the filesystem of PATH.")
@click.option("--tag", "tags", metavar="KEY=VALUE", multiple=True, help="A tag of the snapshot; may be repeated.")
@click.option(
    "--parent",
    metavar="ID|none",
    help="The snapshot to compare with; none reads everything.  [default: the latest of the same volume]",
)
@click.option(
    "--hints",
    "hints_file",
    metavar="FILE",
    help="What may have changed in which files since the parent; the rest of them is not read.",
)
@click.option("--dry-run", "-n", is_flag=True, help="Say what would be read; store nothing.")
@click.option("--strict", is_flag=True, help="Exit with 3 when a file changed while it was read.")
@click.option("--paranoid", is_flag=True, help="Read every file, whatever its times and size say.")
@click.option(
    "--compression",
    type=COMPRESSION,
    default="auto",
    show_default=True,
    help="auto, none or a zstd level, -7 to -1 or 1 to 19.",
)
@click.option(
    "--memory-limit",
    type=BYTES,
    metavar="SIZE",
    help="Bound of all buffers, e.g. 512MiB.  [default: 60MiB and 18MiB a worker, within the cgroup]",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    metavar="N",
    help="Threads that read, compress and seal.  [default: one for each CPU]",
)
@click.option(
    "--verify-upload",
    type=click.Choice(["full", "header", "none"]),
    default="full",
    show_default=True,
    help="What is opened and compared again before a pack is sent.",
)
@with_repository
@limit_options(upload=True)
def command(
    session: Session,
    *,
    path: str,
    volume: str | None,
    excludes: tuple[str, ...],
    exclude_files: tuple[str, ...],
    one_file_system: bool,
    tags: tuple[str, ...],
    parent: str | None,
    hints_file: str | None,
    dry_run: bool,
    strict: bool,
    paranoid: bool,
    compression: str | int,
    memory_limit: int | None,
    workers: int | None,
    verify_upload: str,
) -> int:
    """Save a directory as a new snapshot.

    A PATTERN without a slash is for a name at any depth, one with a slash for a path below PATH; * stays within one name, ** does not.

    Exits with 3 when items could not be captured: the rest is saved, and they are named.
    """
    from longshore import datapath
    from longshore.cli.hints import read_hints

    if not Path(path).is_dir():
        what = "no directory" if Path(path).exists() else "not there"
        raise UsageError(f"a volume must be a directory: path={path}, found={what}", "name a directory")
    tag_map = parse_tags(tags)
    patterns = [*excludes, *(pattern for file in exclude_files for pattern in read_patterns(file))]
    _refuse_foreign(patterns)
    if volume is not None and not volume:
        raise UsageError("the volume's name is empty", "give --volume a name, or leave it out")
    if hints_file is not None and (paranoid or parent == "none"):
        raise UsageError(
            "--hints spare reading, and everything is to be read", "leave out --hints, or --paranoid and --parent none"
        )
    hints = read_hints(hints_file, warn=session.output.say) if hints_file is not None else None
    source = volume or default_source(path)
    repository = session.open()
    if parent is not None and parent != "none":
        parent = repository.find(parent, source=source).id
    patterns += _own_folders(session, path)
    options = datapath.BackupOptions(
        path=os.path.realpath(path),
        source=source,
        host=host_name(),
        tags=tag_map,
        parent=parent,
        excludes=patterns,
        exclude_root_names=[],
        one_file_system=one_file_system,
        dry_run=dry_run,
        strict=strict,
        workers=workers,
        memory_limit_bytes=memory_limit,
        compression=compression,
        verify_upload=verify_upload,
        paranoid=paranoid,
        hints=hints,
    )
    output = session.output
    result = run_job(
        repository.backup(options),
        output=output,
        title="Backing up",
        stored="stored",
        after_cancel="nothing was saved by this backup: run the same command again",
    )
    for lost in result.lost:
        output.item(lost_item(lost))
    for changed in result.changed:
        output.item(changed_item(changed))
    name_lost(output, result.lost, result.items_lost, what="not captured")
    name_changed(output, result.changed, result.items_changed)
    if output.quiet and result.snapshot_id:
        output.line(result.snapshot_id)
    again = ["--repository", session.repository_url] if not os.environ.get("LONGSHORE_REPOSITORY") else []
    again += (
        ["--key-file", session.key_source.key_file]
        if session.key_source.key_file and not os.environ.get("LONGSHORE_KEY_FILE")
        else []
    )
    again += ["--passphrase-file", session.key_source.passphrase_file] if session.key_source.passphrase_file else []
    output.summary(
        backup_fields(result, source=source, repository=session.repository_url, dry_run=dry_run),
        backup_words(result, path=path, dry_run=dry_run, again=again),
    )
    return int(result.exit_code)


def _refuse_foreign(patterns: list[str]) -> None:
    """Patterns are text: one that is not UTF-8 would match nothing, in silence."""
    for pattern in patterns:
        try:
            pattern.encode()
        except UnicodeEncodeError as error:
            raise UsageError("an exclude pattern is not UTF-8", "write ? for each byte that is not") from error


def _own_folders(session: Session, path: str) -> list[str]:
    """Patterns that leave out the repository and the cache where they lie inside the volume."""
    root = os.path.realpath(path)
    found = []
    for what, folder in (("repository", session.folder), ("cache", session.cache_dir)):
        if folder is None:
            continue
        real = os.path.realpath(folder)
        if real == root:
            raise UsageError(
                f"the path to be backed up is the repository or cache itself: path={path}", "name another directory"
            )
        if real.startswith(root.rstrip("/") + "/") and Path(real).exists():
            inner = os.path.relpath(real, root)
            session.output.note(f"note: the {what} lies inside {path} and is left out: {inner}")
            found.append("/" + re.sub(r"([\[\]*?{}\\!])", r"[\1]", inner))
    _refuse_foreign(found)
    return found
