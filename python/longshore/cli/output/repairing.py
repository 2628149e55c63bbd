"""What a repair found, what it put right, and what is lost until a backup brings it back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from longshore.cli.output.checking import resumed_fields, resumed_words, tell_findings
from longshore.cli.output.human import count, duration, plural, size
from longshore.cli.output.sink import Output
from longshore.cli.output.tables import facts

if TYPE_CHECKING:
    from longshore.datapath import RepairResult

__all__ = ["repair_fields", "report_repair"]


def repair_fields(result: RepairResult) -> dict[str, Any]:
    """The fields of a repair's summary."""
    return {
        "errors": result.errors,
        "warnings": result.warnings,
        "items_hurt": result.items_hurt,
        "snapshots": result.snapshots,
        "snapshots_hurt": result.snapshots_hurt,
        "snapshots_touched": result.snapshots_touched,
        "snapshots_damaged": result.snapshots_damaged,
        "slots_damaged": result.slots_damaged,
        "packs": result.packs,
        "pack_bytes": result.pack_bytes,
        "bytes_read": result.bytes_read,
        **resumed_fields(result),
        "packs_damaged": result.packs_damaged,
        "packs_indexed": result.packs_indexed,
        "segments_written": result.segments_written,
        "segments_deleted": result.segments_deleted,
        "frames_moved": result.frames_moved,
        "bytes_moved": result.bytes_moved,
        "tables_rebuilt": result.tables_rebuilt,
        "frames_lost": result.frames_lost,
        "chunks_missing": result.chunks_missing,
        "recorded": result.recorded,
        "seconds": round(result.seconds, 3),
        "exit_code": int(result.exit_code),
    }


def _next_steps(result: RepairResult) -> list[str]:
    steps = []
    if result.dry_run and (result.errors or result.recorded):
        steps.append("  nothing was changed: run the same command without --dry-run")
    if result.chunks_missing:
        steps.append(
            "  back the hurt volumes up while they are there: what they still hold is stored again, and then the hurt"
        )
        steps.append(
            "  snapshots restore whole; see how far with longshore repo check. What does not come back stays named"
        )
    if result.snapshots_damaged:
        steps.append(
            "  give up the snapshots whose own object is lost, so that prunes go on: longshore volume delete ID"
        )
    if result.slots_damaged:
        steps.append("  give the holder of a damaged key a new one: longshore repo key add")
    return steps


def report_repair(output: Output, result: RepairResult, *, what: str, fields: Mapping[str, object]) -> int:
    """Tell what was found and done.

    Args:
        output: where.
        result: of the repair.
        what: was repaired, for people.
        fields: that go before the summary's own.

    Returns:
        The exit code.
    """
    tell_findings(output, result)
    if result.items_hurt or result.snapshots_damaged:
        verdict = (
            f"Something is lost in {what}: {plural(result.items_hurt, 'item')} of {plural(result.snapshots_hurt, 'snapshot')}"
            f" cannot be restored whole, {plural(result.snapshots_damaged, 'snapshot')} not at all"
        )
    elif result.exit_code:
        verdict = f"All data in {what} is whole, but a key is lost"
    elif result.errors:
        verdict = f"{'Can be put right' if result.dry_run else 'Put right'}, nothing is lost in {what}"
    else:
        verdict = f"Nothing to repair in {what}"
    lines = [
        verdict,
        *facts(
            [
                ("snapshots", f"{count(result.snapshots)}, damage touches {count(result.snapshots_touched)}"),
                ("packs", f"{count(result.packs)}, {size(result.pack_bytes)}; damaged: {count(result.packs_damaged)}"),
                (
                    "index",
                    f"{plural(result.packs_indexed, 'pack')} listed anew, {plural(result.segments_deleted, 'bad segment')} taken out",
                ),
                ("usage tables", f"{count(result.tables_rebuilt)} made again"),
                (
                    "saved",
                    f"{plural(result.frames_moved, 'frame')}, {size(result.bytes_moved)}, out of packs without a header",
                ),
                ("missing", f"{plural(result.chunks_missing, 'chunk')} in {plural(result.frames_lost, 'lost frame')}"),
                ("resumed", resumed_words(result)),
                ("took", duration(result.seconds)),
            ],
            indent="  ",
        ),
    ]
    steps = _next_steps(result)
    if steps:
        lines += ["", "Next:", *steps]
    output.summary({**fields, **repair_fields(result)}, lines)
    return int(result.exit_code)
