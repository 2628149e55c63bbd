"""What a run does to one repository, in whatever process it runs: prune, or read back: the newest snapshots, or a part of all packs.

Promises: it always comes to an outcome, an error included; asked to stop it cancels the data path's job, waits for it, and says so. No repository is made
where there is none. A prune deletes no snapshot, and frees nothing at all where none is left: what that would mean is an operator's to decide. A listing
without any snapshot is not believed: the data path is asked whether all were deleted, or something names one that is missing. To read nothing back is no
success.

It does not know who asked, nor where the outcome goes.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

from longshore.controllers.maintenance.ledger import Operation, Outcome
from longshore.controllers.ports import Job, Repository, Snapshot
from longshore.datapath import is_dated_ahead
from longshore.errors import CancelledError, LongshoreError, SnapshotNotFoundError
from longshore.kube.clock import SYSTEM_CLOCK, Clock
from longshore.logs import get_logger

if TYPE_CHECKING:
    from longshore.datapath import PruneResult

__all__ = ["Opener", "perform"]

_log = get_logger(__name__)

_Wait = Callable[[Job[Any]], None]

_POLL_SECONDS: Final = 0.5
_LOG_SECONDS: Final = 60.0
_NAMED_MAX: Final = 5
_NOTHING_READ: Final = "the repository has no snapshot, so nothing was read back"


class Opener(Protocol):
    """Opens repositories; `longshore.controllers.repositories.Repositories` fits."""

    def readable(self, *, location: str, namespace: str) -> Repository:
        """Open one that exists.

        Raises:
            LongshoreError: what stands in the way.
        """
        ...


def perform(
    operation: Operation,
    *,
    opener: Opener,
    location: str,
    namespace: str,
    stop: threading.Event,
    share: tuple[int, int] | None = None,
    limit_upload: int | None = None,
    limit_download: int | None = None,
    max_repack: int | None = None,
    fence_after: int | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> Outcome:
    """Do it.

    Args:
        location: the repository's storage location.
        namespace: whose volumes it holds.
        stop: set it to have the run end soon.
        share: (part, parts): a verification reads one part of the packs, of whatever snapshot, and looks whether the others are there; None for all that the
            newest snapshots need.
        limit_upload: bytes a second that it sends at most; None for no limit.
        limit_download: the same for what it fetches.
        max_repack: bytes that a prune moves at most; None for no bound.
        fence_after: seconds over which nothing of a session may change, and three prunes, before it is judged dead; None for the engine's own.
    """
    started = clock.now()
    _log.info("Begin run", operation=str(operation), location=location, namespace=namespace)
    try:
        repository = opener.readable(location=location, namespace=namespace)
        repository.limit_traffic(upload_bytes_per_second=limit_upload, download_bytes_per_second=limit_download)

        def wait(job: Job[Any]) -> None:
            _wait(job, stop, clock, operation)

        if operation is Operation.MAINTENANCE:
            begin = functools.partial(repository.prune, max_repack_bytes=max_repack, fence_after_seconds=fence_after)
            outcome = _prune(repository, begin, wait, started, clock)
        else:
            outcome = (
                _verify(repository, wait, started, clock)
                if share is None
                else _check(repository, wait, share, started, clock)
            )
    except CancelledError:
        outcome = _failed("the run was stopped before its end; wait for the next one, which goes on", started, clock)
    except LongshoreError as err:
        outcome = _failed(err.told(), started, clock)
    except Exception as err:  # noqa: BLE001 - a run must come to an outcome
        _log.exception("Run crashed", operation=str(operation))
        outcome = _failed(
            f"an unexpected fault: error={type(err).__name__}: {err}; report it with the log of the run", started, clock
        )
    level = _log.info if outcome.succeeded else _log.error
    level("Ended run", operation=str(operation), succeeded=outcome.succeeded, reason=outcome.message, **outcome.figures)
    return outcome


def _prune(
    repository: Repository, begin: Callable[..., Job[PruneResult]], wait: _Wait, started: datetime, clock: Clock
) -> Outcome:
    # A look at what there is refuses where something names a snapshot that the listing leaves out.
    is_empty = not repository.snapshots()
    job = begin(look_only=is_empty)
    wait(job)
    result = job.result()
    if is_empty and not result.damaged and not result.exit_code:
        text = "the repository has no snapshot, so nothing was freed"
        if result.packs_before:
            text += f": packs={result.packs_before}, bytes={result.bytes_before}; longshore repo prune --allow-empty frees all"
        return Outcome(succeeded=True, message=text, started=started, ended=clock.now())
    freed = max(0, result.bytes_freed - result.bytes_moved)
    figures: dict[str, float] = {
        "bytes_freed": freed,
        "bytes_before": result.bytes_before,
        "bytes_needed": result.bytes_needed,
        "packs_deleted": result.packs_deleted,
        "snapshots": result.snapshots,
        "generations_waiting": result.generations_waiting,
        "seconds": round(result.seconds, 3),
    }
    message = f"freed space: bytes={freed}, packs={result.packs_deleted}"
    if result.waiting_for:
        hosts = ", ".join(sorted({host or "-" for _, host in result.waiting_for})[:_NAMED_MAX])
        message += f"; more is freed by a later run, when backups that were open have ended: hosts=[{hosts}]"
    if result.fenced:
        message += f"; sessions judged dead: sessions={len(result.fenced)}"
    damaged = list(result.damaged)
    if damaged or result.exit_code:
        named = ", ".join(name for name, _ in damaged[:_NAMED_MAX])
        message = f"objects of the repository are damaged: objects={len(damaged)}, first=[{named}]; {message}; see whom it hurts with longshore repo check"
    return Outcome(
        succeeded=not damaged and not result.exit_code,
        message=message,
        started=started,
        ended=clock.now(),
        figures=figures,
    )


def _verify(repository: Repository, wait: _Wait, started: datetime, clock: Clock) -> Outcome:
    newest = _newest(repository.snapshots(), now=started)
    if not newest:
        return _check(repository, wait, None, started, clock)
    unreadable = repository.status().snapshots_damaged
    errors, size, seconds, hurt, verified, resumed = 0, 0, 0.0, list[str](), 0, 0
    for snapshot_id in newest:
        try:
            job = repository.verify(snapshot_id)
            wait(job)
            result = job.result()
        except SnapshotNotFoundError:
            # Deleted since it was listed.
            continue
        verified += 1
        size += result.bytes_read
        resumed += result.packs_resumed
        seconds += result.seconds
        errors += result.errors
        if result.errors or result.exit_code:
            hurt.append(snapshot_id)
    # All were read: what stood for reading them again does so no longer.
    repository.end_verification()
    figures: dict[str, float] = {
        "snapshots": verified,
        "snapshots_hurt": len(hurt),
        "snapshots_unreadable": unreadable,
        "errors": errors,
        "bytes_read": size,
        "seconds": round(seconds, 3),
    }
    if not verified and not unreadable:
        return Outcome(
            succeeded=True, nothing=True, message=_NOTHING_READ, started=started, ended=clock.now(), figures=figures
        )
    if hurt or unreadable:
        named = ", ".join(hurt[:_NAMED_MAX])
        message = (
            f"the repository is damaged: snapshots_hurt={len(hurt)}, first=[{named}], snapshots_unreadable={unreadable}; "
            "see what is hurt with longshore repo check, put right what can be with longshore repo repair, and back these volumes up again"
        )
    else:
        message = f"snapshots were read back: snapshots={verified}, bytes={size}{_went_on(resumed)}"
    return _reported(not hurt and not unreadable, message, started, clock, figures)


def _went_on(packs: int) -> str:
    return f"; it went on from a run that was stopped: packs={packs}" if packs else ""


def _check(
    repository: Repository, wait: _Wait, share: tuple[int, int] | None, started: datetime, clock: Clock
) -> Outcome:
    """Read one part of all packs, or none, and look whether everything else is there, a snapshot that is not listed included."""
    unreadable = repository.status().snapshots_damaged
    job = repository.check(share=share)
    wait(job)
    result = job.result()
    hurt = sorted({one for found in result.findings if found.severity == "error" for one in found.snapshots})
    figures: dict[str, float] = {
        "snapshots": result.snapshots,
        "snapshots_hurt": len(hurt),
        "snapshots_unreadable": unreadable,
        "errors": result.errors,
        "bytes_read": result.bytes_read,
        "seconds": round(result.seconds, 3),
    }
    part = "" if share is None else f", part={share[0] + 1}/{share[1]}"
    if result.errors or result.exit_code:
        what = (
            "the repository is damaged" if result.snapshots else "no snapshot is listed, and the repository is damaged"
        )
        first = ", ".join(f"{one.object}: {one.message}" for one in result.findings[:1])
        message = (
            f"{what}: snapshots_hurt={len(hurt)}, named=[{', '.join(hurt[:_NAMED_MAX])}], snapshots_unreadable={unreadable}, "
            f"errors={result.errors}{part}, first=[{first}]; see what is hurt with longshore repo check, put right what can be with "
            "longshore repo repair, and back these volumes up again"
        )
        return _reported(False, message, started, clock, figures)
    if not result.snapshots:
        return Outcome(
            succeeded=True, nothing=True, message=_NOTHING_READ, started=started, ended=clock.now(), figures=figures
        )
    message = (
        f"a part of all packs was read back{part.replace(', ', ': ', 1)}, snapshots={result.snapshots}, "
        f"bytes={result.bytes_read}{_went_on(result.packs_resumed)}"
    )
    return _reported(True, message, started, clock, figures)


def _reported(succeeded: bool, message: str, started: datetime, clock: Clock, figures: dict[str, float]) -> Outcome:  # noqa: FBT001 - it is the answer
    return Outcome(
        succeeded=succeeded, message=message, started=started, ended=clock.now(), figures=figures, reported=True
    )


def _newest(snapshots: Sequence[Snapshot], *, now: datetime) -> list[str]:
    """Give the newest snapshot of each source; one that is dated in the future only where there is no other."""
    # The listing is oldest first: the last of each source stays.
    ahead = {one.source: one.id for one in snapshots if is_dated_ahead(one.started_nanos, now=now)}
    true = {one.source: one.id for one in snapshots if not is_dated_ahead(one.started_nanos, now=now)}
    return list({**ahead, **true}.values())


def _wait(job: Job[Any], stop: threading.Event, clock: Clock, operation: Operation) -> None:
    told = clock.monotonic()
    cancelled = False
    while not job.wait(_POLL_SECONDS):
        if stop.is_set() and not cancelled:
            cancelled = True
            job.cancel()
        progress, now = job.progress(), clock.monotonic()
        if now - told >= _LOG_SECONDS:
            told = now
            _log.info(
                "Run is at work",
                operation=str(operation),
                bytes_done=progress.bytes_done,
                bytes_total=progress.bytes_total,
                files_done=progress.files_done,
                files_total=progress.files_total,
            )


def _failed(text: str, started: datetime, clock: Clock) -> Outcome:
    return Outcome(succeeded=False, message=text, started=started, ended=clock.now())
