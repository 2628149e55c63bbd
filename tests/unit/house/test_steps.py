"""The table that closes `make test`: it counts what the runners said, and no skip is ever a pass."""

import subprocess
import sys

import pytest
from scripts.steps import Counts, Step, count_tests, table, why_left_out
from tests.unit.house.tree import ROOT


@pytest.mark.parametrize(
    ("output", "counts"),
    [
        (
            b"test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 1 filtered out; finished in 0.1s\n",
            Counts(12, 0, 3),
        ),
        (b"test result: FAILED. 2 passed; 1 failed; 0 ignored; \n" * 2, Counts(4, 2, 0)),
        (b"======= 5 passed, 2 skipped in 1.20s =======\n", Counts(5, 0, 2)),
        (b"1 failed, 3 passed, 1 xfailed, 4 warnings, 1 error in 71.20s (0:01:11)\n", Counts(3, 2, 1)),
        (b"=== 1 xpassed, 2 deselected in 0.10s ===\n", Counts(0, 1, 0)),
        (b"log: it says 5 passed in 3s somewhere\n7 skipped in 0.01s\n", Counts(0, 0, 7)),
        (b"no tests ran in 0.01s\n", Counts(0, 0, 0)),
    ],
)
def test_counts_closing_lines(output: bytes, counts: Counts) -> None:
    assert count_tests(output) == counts


def test_table_adds_up_and_names_what_failed() -> None:
    steps = [
        Step("lint", 0, 2.0),
        Step("test-a", 2, 3.5, Counts(4, 1, 2)),
        Step("test-b", 0, 1.0, Counts(6, 0, 0)),
        Step("test-c"),
    ]
    lines = table(steps).splitlines()
    assert "FAILED" in lines[2]
    assert "not run" in lines[4]
    assert lines[-3].split() == ["all", "FAILED", "6.5"]
    assert "test-a, test-c" in lines[-2]
    assert lines[-1] == "10 passed, 1 failed, 2 skipped"


def test_step_that_the_machine_cannot_do_is_named_and_no_pass() -> None:
    why = "no room can be made here: error=[Errno 1] Operation not permitted"
    assert why_left_out(f"warning: x\nSKIPPED: {why}\n".encode()) == why
    assert why_left_out(f"SKIPPED: {why}\n== 3 passed in 1.00s ==\n".encode()) == "", "something ran"
    assert why_left_out(b"log: SKIPPED: not at the beginning\nSKIPPED [1] tests/a.py:1: why\n") == ""
    lines = table([Step("lint", 0, 2.0), Step("test-node", 0, 0.1, left_out=why)]).splitlines()
    assert lines[2].split() == ["test-node", "SKIPPED", "0.1"]
    assert lines[-1] == f"skipped: test-node: {why}"
    assert "FAILED" in table([Step("test-node", 2, 0.1, left_out=why)]), "what fails has failed"


def test_all_well_says_so() -> None:
    assert table([Step("lint", 0, 2.0)]).splitlines()[-1].split() == ["all", "ok", "2.0"]


def test_later_steps_run_after_a_failed_one_and_exit_code_tells() -> None:
    command = [sys.executable, ROOT / "scripts" / "steps.py", "no-such-target", "help"]
    answer = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert "make help" in answer.stdout
    assert "no-such-target: FAILED" in answer.stdout
    assert "=== help: ok" in answer.stdout
