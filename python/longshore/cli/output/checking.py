"""What a check or a verify found: everything that is wrong, named, with the snapshots and files that it hurts, and a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from longshore.cli.output.human import count, duration, moment, path_text, plural, size
from longshore.cli.output.sink import Output, path_fields
from longshore.cli.output.tables import facts
from longshore.cli.output.words import NAMED_MAX

if TYPE_CHECKING:
    from longshore.datapath import CheckResult, RepairResult

__all__ = ["check_fields", "report_check", "resumed_fields", "resumed_words", "share_fields", "tell_findings"]


def check_fields(result: CheckResult) -> dict[str, Any]:
    """The fields of a check's summary."""
    return {
        "errors": result.errors,
        "warnings": result.warnings,
        "items_hurt": result.items_hurt,
        "snapshots": result.snapshots,
        "packs": result.packs,
        "pack_bytes": result.pack_bytes,
        "trees": result.trees,
        "frames_read": result.frames_read,
        "bytes_read": result.bytes_read,
        **resumed_fields(result),
        "seconds": round(result.seconds, 3),
        "exit_code": int(result.exit_code),
    }


def resumed_fields(result: CheckResult | RepairResult) -> dict[str, Any]:
    """Give the fields of a summary that say what an interrupted run had read."""
    return {
        "packs_resumed": result.packs_resumed,
        "bytes_resumed": result.bytes_resumed,
        "resumed_from": moment(result.begun_nanos) if result.begun_nanos else None,
    }


def resumed_words(result: CheckResult | RepairResult) -> str:
    """Say it to people; empty when the run went on from none."""
    if not result.begun_nanos:
        return ""
    return f"{plural(result.packs_resumed, 'pack')}, {size(result.bytes_resumed)}, were read by a run begun at {moment(result.begun_nanos)}"


def share_fields(share: tuple[int, int] | None) -> dict[str, Any]:
    """Give the fields of a summary that say which part of all packs was read."""
    return {"sample_part": share[0] if share else None, "sample_parts": share[1] if share else None}


def tell_findings(output: Output, result: CheckResult | RepairResult) -> None:
    """Name what is wrong, and whom it hurts."""
    for finding in result.findings:
        output.item(
            {
                "event": "finding",
                "severity": finding.severity,
                "object": finding.object,
                "message": finding.message,
                "snapshots": list(finding.snapshots),
            }
        )
    for item in result.hurt:
        output.item(
            {"event": "hurt", "snapshot_id": item.snapshot_id, **path_fields(item.path), "message": item.message}
        )
    for finding in result.findings[:NAMED_MAX]:
        hurts = (
            f" (hurts {', '.join(finding.snapshots[:5])}{' and more' if len(finding.snapshots) > 5 else ''})"
            if finding.snapshots
            else ""
        )
        output.say(f"{finding.severity}: {finding.object}: {finding.message}{hurts}")
    _more(output, result.errors + result.warnings, "finding")
    for item in result.hurt[:NAMED_MAX]:
        output.say(f"hurt: {item.snapshot_id}: {path_text(item.path) or '.'}: {item.message}")
    _more(output, result.items_hurt, "hurt item")


def report_check(output: Output, result: CheckResult, *, what: str, fields: Mapping[str, object]) -> int:
    """Tell what was found.

    Args:
        output: where.
        result: of the check.
        what: was looked at, for people.
        fields: that go before the summary's own.

    Returns:
        The exit code.
    """
    tell_findings(output, result)
    if result.errors or result.items_hurt:
        verdict = (
            f"Damage was found in {what}: {plural(result.errors, 'error')}, {plural(result.items_hurt, 'item')} hurt"
        )
    elif result.warnings:
        verdict = f"No damage was found in {what}, but {plural(result.warnings, 'warning')}"
    else:
        verdict = f"No damage was found in {what}"
    lines = [
        verdict,
        *facts(
            [
                ("snapshots", count(result.snapshots)),
                ("packs", f"{count(result.packs)}, {size(result.pack_bytes)}"),
                ("directories", count(result.trees)),
                (
                    "read",
                    f"{plural(result.frames_read, 'frame')}, {size(result.bytes_read)}"
                    if result.frames_read
                    else "no data: whether it is there was asked, not whether it is whole",
                ),
                ("resumed", resumed_words(result)),
                ("took", duration(result.seconds)),
            ],
            indent="  ",
        ),
    ]
    if result.errors or result.items_hurt:
        lines += [
            "",
            "Next:",
            "  write down what is lost and put right what can be: longshore repo repair, with --read-data when data was read here",
            "  then back the hurt volumes up again while they are there: their next backup stores what is missing again",
        ]
    output.summary({**fields, **check_fields(result)}, lines)
    return int(result.exit_code)


def _more(output: Output, total: int, what: str) -> None:
    if total > NAMED_MAX:
        output.say(f"  and {plural(total - NAMED_MAX, what)} more")
