"""Summaries and losses in words: what a newcomer needs to understand what happened, and what to do next.

Takes results and gives lines. Whatever may hold foreign bytes passes :func:`printable`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from longshore.cli.output.human import count, duration, path_text, plural, printable, ratio, size
from longshore.cli.output.sink import Output
from longshore.cli.output.tables import facts

if TYPE_CHECKING:
    from longshore.datapath import BackupResult, LostItem, RestoreResult

__all__ = ["NAMED_MAX", "backup_words", "name_changed", "name_lost", "quoted", "restore_words"]

NAMED_MAX = 100


def quoted(word: str) -> str:
    """A word as a shell needs it, for commands that are suggested."""
    import shlex

    return printable(shlex.quote(word))


def _name(output: Output, head: str, lines: Sequence[str], total: int) -> None:
    output.say(head)
    for line in lines[:NAMED_MAX]:
        output.say(f"  {line}")
    if total > NAMED_MAX:
        output.say(f"  and {count(total - NAMED_MAX)} more")


def name_lost(output: Output, lost: Sequence[LostItem], total: int, *, what: str) -> None:
    """Name what was lost on standard error.

    Args:
        output: where.
        lost: the items that the result names.
        total: how many there are; the result names a limited number.
        what: `not captured` or `not restored`.
    """
    if total:
        lines = [f"{path_text(item.path) or '.'}: {item.message}" for item in lost[:NAMED_MAX]]
        _name(output, f"{what}: {plural(total, 'item')}", lines, total)


def name_changed(output: Output, changed: Sequence[bytes], total: int) -> None:
    """Name files that were written to while they were read."""
    if total and not output.quiet:
        lines = [path_text(path) for path in changed[:NAMED_MAX]]
        _name(
            output,
            f"changed while they were read (stored, and read again next time): {plural(total, 'file')}",
            lines,
            total,
        )


def _rate(moved: int, seconds: float) -> str:
    return f"{size(moved / seconds)}/s" if seconds > 0 and moved else ""


def _joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _times(what: str, larger: int, smaller: int) -> str:
    times = ratio(larger, smaller)
    return f"{times} times smaller than {what}" if times is not None and larger > smaller else ""


def backup_words(result: BackupResult, *, path: str, dry_run: bool, again: Sequence[str]) -> list[str]:
    """Tell a backup.

    Args:
        result: what it came to.
        path: the volume, as it was named.
        dry_run: nothing was stored.
        again: options that the suggested commands need.

    Returns:
        Lines for standard output.
    """
    if dry_run:
        head = f"Dry run of {quoted(path)}: nothing was stored"
    elif result.items_lost:
        head = (
            f"Snapshot {result.snapshot_id} saved, WITHOUT {plural(result.items_lost, 'item')} that could not be read"
        )
    else:
        head = f"Snapshot {result.snapshot_id} saved"
    files = _joined(
        f"{count(result.files_new)} new",
        f"{count(result.files_changed)} changed",
        f"{count(result.files_unchanged)} unchanged",
    )
    stored = size(result.bytes_stored)
    smaller = _joined(_times("what was read", result.bytes_read, result.bytes_stored)) if result.bytes_stored else ""
    lines = [
        head,
        *facts(
            [
                (
                    "files",
                    f"{count(result.files_total)} ({files}), in {plural(result.directories, 'directory', 'directories')}",
                ),
                (
                    "other",
                    plural(result.others, "link or special file", "links and special files") if result.others else "",
                ),
                ("size", size(result.bytes_total)),
                ("read", _read(result)),
                ("resumed", _resumed(result)),
                ("hints", _hints(result)),
                ("stored", (f"{stored} ({smaller})" if smaller else stored) if not dry_run else ""),
                ("parent", result.parent_id or "none: everything was read"),
                ("took", _joined(duration(result.seconds), _rate(result.bytes_total, result.seconds))),
            ],
            indent="  ",
        ),
    ]
    if result.snapshot_id:
        options = "".join(f" {quoted(word)}" for word in again)
        short = result.snapshot_id[:12]
        lines += [
            "",
            "Next:",
            f"  longshore volume ls {short}{options}",
            f"  longshore volume restore {short} TARGET{options}",
        ]
    return lines


def _read(result: BackupResult) -> str:
    if result.bytes_read:
        return size(result.bytes_read)
    return "nothing more" if result.bytes_resumed else "nothing: no file's content has changed"


def _hints(result: BackupResult) -> str:
    used = f"{size(result.bytes_hinted)} of {plural(result.hints_used, 'file')} not read" if result.hints_used else ""
    ignored = f"{count(result.hints_ignored)} ignored, their files were read" if result.hints_ignored else ""
    return _joined(used, ignored)


def _resumed(result: BackupResult | RestoreResult) -> str:
    if not result.bytes_resumed and not result.files_resumed:
        return ""
    return f"{plural(result.files_resumed, 'file')}, {size(result.bytes_resumed)} taken from the interrupted run"


def restore_words(result: RestoreResult, *, snapshot_id: str, target: str, dry_run: bool) -> list[str]:
    """Tell a restore."""
    if dry_run:
        head = f"Dry run of {snapshot_id}: nothing was written to {quoted(target)}"
    elif result.items_lost:
        head = f"Snapshot {snapshot_id} restored to {quoted(target)}, WITHOUT {plural(result.items_lost, 'item')}"
    else:
        head = f"Snapshot {snapshot_id} restored to {quoted(target)}"
    unchanged = f" ({count(result.files_unchanged)} were there already)" if result.files_unchanged else ""
    return [
        head,
        *facts(
            [
                (
                    "files",
                    f"{count(result.files_total)}{unchanged}, in {plural(result.directories, 'directory', 'directories')}",
                ),
                (
                    "other",
                    plural(result.others, "link or special file", "links and special files") if result.others else "",
                ),
                ("size", size(result.bytes_total)),
                ("written", size(result.bytes_written)),
                ("resumed", _resumed(result)),
                ("deleted", plural(result.extra_deleted, "entry", "entries") if result.extra_deleted else ""),
                ("took", _joined(duration(result.seconds), _rate(result.bytes_written, result.seconds))),
            ],
            indent="  ",
        ),
    ]
