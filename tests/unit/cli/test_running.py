"""A job is watched to its end; a signal cancels it and waits; what was done already is a success."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest
from tests.unit.cli.test_output import Counters

from longshore.cli.output.sink import TextOutput
from longshore.cli.running import run_job
from longshore.errors import CancelledError, InterruptedByUserError, NoSpaceError


class Job:
    """Runs until it is cancelled, or as many looks as it was given."""

    def __init__(self, *, looks: int = 10**9, outcome=None, on_look=lambda look: None) -> None:
        self.looks, self.outcome, self.on_look = looks, outcome, on_look
        self.cancelled = False
        self.looked = 0
        self.counters = Counters()

    def progress(self) -> Counters:
        return self.counters

    def cancel(self) -> None:
        self.cancelled = True

    def wait(self, timeout_seconds: float | None) -> bool:
        self.looked += 1
        self.on_look(self.looked)
        return self.looked >= self.looks or self.cancelled

    def result(self) -> object:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def _run(job: Job) -> object:
    return run_job(job, output=TextOutput(), title="Working", after_cancel="run it again")


def test_result_and_error_come_through() -> None:
    assert _run(Job(looks=3, outcome="done")) == "done"
    with pytest.raises(NoSpaceError):
        _run(Job(looks=3, outcome=NoSpaceError("full")))


@pytest.mark.parametrize(("packs", "words"), [(1, "1 pack was read then"), (1200, "1,200 packs were read then")])
def test_a_run_that_goes_on_says_so_once(capsys: pytest.CaptureFixture[str], packs: int, words: str) -> None:
    job = Job(looks=5, outcome="done")

    def look(number: int) -> None:
        # It opens the journal before it reads.
        if number == 2:
            job.counters = Counters(begun_nanos=1_700_000_000 * 10**9, packs_known=packs)

    job.on_look = look
    assert _run(job) == "done"
    said = capsys.readouterr().err
    assert said.count("going on from a run begun at 2023-11-14") == 1 and words in said, said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_cancels_and_says_so(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    handler = signal.getsignal(number)
    job = Job(
        outcome=CancelledError("the job was cancelled"), on_look=lambda look: look == 2 and os.kill(os.getpid(), number)
    )
    with pytest.raises(InterruptedByUserError) as caught:
        _run(job)
    assert job.cancelled
    assert caught.value.exit_code == 130
    assert caught.value.next_step == "run it again"
    assert "cancelling" in capsys.readouterr().err
    assert signal.getsignal(number) is handler


def test_work_that_was_done_when_the_signal_came_is_a_success() -> None:
    assert _run(Job(outcome="saved", on_look=lambda look: look == 2 and os.kill(os.getpid(), signal.SIGINT))) == "saved"


def test_job_is_cancelled_when_nobody_can_be_told() -> None:
    def fail(_look: int) -> None:
        raise BrokenPipeError

    job = Job(on_look=fail)
    with pytest.raises(BrokenPipeError):
        _run(job)
    assert job.cancelled


def test_other_threads_may_run_jobs() -> None:
    found = []
    thread = threading.Thread(target=lambda: found.append(_run(Job(looks=2, outcome=1))))
    thread.start()
    thread.join()
    assert found == [1]


def test_second_signal_leaves_at_once() -> None:
    """A store that hangs may hold a cancelled job for ever."""
    program = """
import os, signal
from tests.unit.cli.test_running import Job, _run
class Stuck(Job):
    def wait(self, timeout_seconds):
        self.looked += 1
        if self.looked in (2, 4):
            os.kill(os.getpid(), signal.SIGINT)
        return False
_run(Stuck())
"""
    answer = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert answer.returncode == 130, answer.stderr
    assert "next: run it again" in answer.stderr
