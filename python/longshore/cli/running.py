"""Running a job of the data path to its end, while somebody watches and may stop it.

The first Ctrl-C (or SIGTERM, SIGHUP) cancels the job and waits for it, so that what it began is left in order; the second leaves at once. A job that had
already done its work when the signal came is a success and is told as one.

It does not know what a job does.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol, TypeVar

from longshore.cli.output.human import moment, plural
from longshore.cli.output.progress import Counters, Display
from longshore.cli.output.sink import Output
from longshore.errors import CancelledError, InterruptedByUserError

__all__ = ["Job", "run_job"]

POLL_SECONDS = 0.1
Result = TypeVar("Result", covariant=True)  # noqa: PLC0105 - the suffix would say it at each use


class Job(Protocol[Result]):
    """Work under way on threads of the data path."""

    def progress(self) -> Counters:
        """How far it has come."""
        ...

    def cancel(self) -> None:
        """Ask it to stop."""
        ...

    def wait(self, timeout_seconds: float | None) -> bool:
        """Wait for its end; true when it is over."""
        ...

    def result(self) -> Result:
        """What it came to, or why it came to nothing."""
        ...


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Let SIGTERM and SIGHUP do what Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Watch:
    """Shows how far a job is, and says once from what it goes on."""

    def __init__(self, job: Job[object], output: Output, display: Display) -> None:
        self._job = job
        self._output = output
        self._display = display
        self._told = False

    def look(self) -> None:
        counters = self._job.progress()
        if counters.begun_nanos and not self._told:
            self._told = True
            self._output.note(
                f"going on from a run begun at {moment(counters.begun_nanos)}, {plural(counters.packs_known, 'pack')}"
                f" {'was' if counters.packs_known == 1 else 'were'} read then; --fresh begins anew"
            )
        self._display.update(counters)

    def wait(self) -> None:
        while not self._job.wait(POLL_SECONDS):
            self.look()


def run_job(job: Job[Result], *, output: Output, title: str, after_cancel: str, stored: str = "fetched") -> Result:
    """Watch a job to its end.

    Args:
        job: it runs already.
        output: shows progress.
        title: what the job does, e.g. `Backing up`.
        stored: what the job does with bytes of the store, `stored` or `fetched`.
        after_cancel: what an operator does next when it was cancelled.

    Returns:
        The job's result.

    Raises:
        InterruptedByUserError: it was cancelled by a signal.
        LongshoreError: why it came to nothing.
    """
    with _signals_interrupt():
        display = output.watch(title, stored=stored)
        watch = _Watch(job, output, display)
        try:
            try:
                watch.wait()
            except KeyboardInterrupt:
                job.cancel()
                output.say("cancelling; press Ctrl-C again to leave at once")
                watch.wait()
            watch.look()
        except KeyboardInterrupt:
            # Threads of the data path may be stuck in a store that does not answer: nothing may wait for them.
            display.close()
            output.say("error: interrupted before the job could end in order")
            output.say(f"next: {after_cancel}")
            output.flush()
            sys.stderr.flush()
            os._exit(InterruptedByUserError.exit_code)
        except BaseException:
            # Whoever read our output has gone, or we are at fault: nobody will see the result, so nothing may go on behind our back.
            job.cancel()
            raise
        finally:
            display.close()
    try:
        return job.result()
    except CancelledError as error:
        raise InterruptedByUserError("the job was cancelled", after_cancel) from error
