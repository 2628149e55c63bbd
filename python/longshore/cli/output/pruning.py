"""What a policy keeps of snapshots, and what a prune did with the packs: each decision with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from longshore.cli.output.human import count, duration, moment, plural, size
from longshore.cli.output.sink import Output
from longshore.cli.output.tables import Column, facts, render

if TYPE_CHECKING:
    from longshore.datapath import PruneResult, Verdict

__all__ = ["prune_fields", "report_prune", "tell_verdicts"]

_AHEAD_NAMED_MAX: Final = 5
_GO: Final = frozenset({"unneeded", "duplicate", "repacked"})
_REASONS: Final = {
    "unneeded": "needed by nobody",
    "duplicate": "all that is needed of it lies elsewhere, too",
    "repacked": "what is needed of it is moved elsewhere",
    "waits-for-writers": "backups run that were open when it was marked: a later prune goes on",
    "in-use": "written by a session that still runs",
    "partly-needed": "too little of it is dead to move the rest",
    "repack-limit": "as much as was allowed is moved already",
    "damaged": "a frame that is needed is damaged: it stays for a repair",
    "refused": "the store refuses to delete it",
    "needed": "all of it is needed",
}


def tell_verdicts(output: Output, verdicts: Sequence[Verdict], *, dry_run: bool) -> None:
    """Say of each snapshot what becomes of it, and why."""
    for verdict in verdicts:
        output.row(
            {
                "snapshot_id": verdict.snapshot_id,
                "source": verdict.source,
                "started": moment(verdict.started_nanos),
                "started_nanos": verdict.started_nanos,
                "decision": "keep" if verdict.keep else "delete",
                "reasons": list(verdict.reasons),
            }
        )
    _tell_ahead(output, [verdict for verdict in verdicts if verdict.dated_ahead])
    if output.as_json:
        return
    columns = [Column("SNAPSHOT"), Column("STARTED"), Column("SOURCE"), Column("DECISION"), Column("REASON")]
    rows = [
        (
            verdict.snapshot_id,
            moment(verdict.started_nanos),
            verdict.source,
            "keep" if verdict.keep else "would delete" if dry_run else "delete",
            ", ".join(verdict.reasons) or "no rule keeps it",
        )
        for verdict in verdicts
    ]
    for line in render(columns, rows):
        output.line(line)
    output.line()


def _tell_ahead(output: Output, ahead: Sequence[Verdict]) -> None:
    """Name what is dated in the future: nothing but a wrong clock makes it, and it stays until somebody looks."""
    for verdict in ahead[:_AHEAD_NAMED_MAX]:
        output.say(
            f"warning: dated in the future, so it is kept and no rule counts it: snapshot={verdict.snapshot_id}, "
            f"started={moment(verdict.started_nanos)}, source={verdict.source}"
        )
    if len(ahead) > _AHEAD_NAMED_MAX:
        output.say(f"warning: more are dated in the future: snapshots={len(ahead) - _AHEAD_NAMED_MAX}")
    if ahead:
        output.say(
            "next: look at the clocks of this machine and of the snapshots' hosts; longshore volume delete takes one away that is not needed"
        )


def prune_fields(result: PruneResult) -> dict[str, Any]:
    """The fields of a prune's summary."""
    return {
        "snapshots": result.snapshots,
        "readers": result.readers,
        "packs_before": result.packs_before,
        "bytes_before": result.bytes_before,
        "bytes_needed": result.bytes_needed,
        "packs_deleted": result.packs_deleted,
        "bytes_freed": result.bytes_freed,
        "tables_deleted": result.tables_deleted,
        "segments_deleted": result.segments_deleted,
        "segments_written": result.segments_written,
        "packs_repacked": result.packs_repacked,
        "packs_written": result.packs_written,
        "bytes_moved": result.bytes_moved,
        "generations_done": result.generations_done,
        "generations_waiting": result.generations_waiting,
        "waiting_for": [{"session": session, "host": host} for session, host in result.waiting_for],
        "fenced": list(result.fenced),
        "packs_by_reason": [
            {"reason": kept.reason, "packs": kept.packs, "bytes": kept.bytes, "dead_bytes": kept.dead_bytes}
            for kept in result.kept
        ],
        "used_reserve": result.used_reserve,
        "seconds": round(result.seconds, 3),
        "exit_code": int(result.exit_code),
    }


def report_prune(
    output: Output, result: PruneResult, *, fields: Mapping[str, object], dry_run: bool, deleted: int
) -> int:
    """Tell what was freed, what was kept, and why.

    Args:
        output: where.
        result: of the prune.
        fields: that go before the summary's own.
        dry_run: whether nothing was written.
        deleted: snapshots that the policy took out.

    Returns:
        The exit code.
    """
    for pack in result.packs:
        if dry_run or pack.reason not in {"needed", "partly-needed"}:
            output.item(
                {
                    "event": "pack",
                    "object": pack.object,
                    "size_bytes": pack.size_bytes,
                    "needed_bytes": pack.needed_bytes,
                    "decision": "delete" if pack.reason in _GO else "keep",
                    "reason": pack.reason,
                }
            )
    for name, message in result.damaged:
        output.item({"event": "damaged", "object": name, "message": message})
        output.say(f"damaged: {name}: {message}")
    would = sum(kept.bytes for kept in result.kept if kept.reason in _GO) - result.bytes_moved
    freed = result.bytes_freed - result.bytes_moved
    head = (
        f"Would free {size(max(would, 0))}; nothing was changed"
        if dry_run
        else f"Freed {size(max(freed, 0))} in {plural(result.packs_deleted, 'pack')}"
    )
    lines = [
        head,
        *facts(
            [
                ("snapshots", f"{count(result.snapshots)} kept, {count(deleted)} deleted"),
                ("before", f"{plural(result.packs_before, 'pack')}, {size(result.bytes_before)}"),
                ("needed", size(result.bytes_needed)),
                (
                    "moved",
                    f"{size(result.bytes_moved)} out of {plural(result.packs_repacked, 'pack')}"
                    if result.bytes_moved
                    else "",
                ),
                ("took", duration(result.seconds)),
            ],
            indent="  ",
        ),
        "",
        *render(
            [
                Column("PACKS", right=True),
                Column("SIZE", right=True),
                Column("DEAD", right=True),
                Column("DECISION"),
                Column("REASON"),
            ],
            [
                (
                    count(kept.packs),
                    size(kept.bytes),
                    size(kept.dead_bytes),
                    "delete" if kept.reason in _GO else "keep",
                    _REASONS.get(kept.reason, kept.reason),
                )
                for kept in result.kept
            ],
        ),
    ]
    if result.waiting_for:
        lines += ["", "Next:", "  these backups were open; when they have ended, or are known to be dead, prune again:"]
        lines += [f"  --fence {session}  {host}".rstrip() for session, host in result.waiting_for]
    output.summary({**fields, **prune_fields(result)}, lines)
    return int(result.exit_code)
