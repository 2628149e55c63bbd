"""A check, a verify and a repair that are killed by SIGKILL and run again, and traffic that is held to a rate, as a user sees them.

Where in the run the kill falls is left to chance but for its being late enough that something was read, and a rate that leaves it long enough to be killed.
"""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path

import pytest

from longshore.datapath import RepairOptions
from longshore.errors import CancelledError
from tests.engine.conftest import Place
from tests.engine.test_cli import PATIENCE_SECONDS, PROGRAM, Commands, empty, made

__all__ = ["empty", "made"]

KIB = 1 << 10
PACKS = 10
PACK_BYTES = 512 * KIB
HEAD_BYTES = 72 + 20 + 9
"""Of a journal: its head, and the record of when it began."""
RECORD_BYTES = 20 + 37
"""Of a pack in it."""


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    folder = tmp_path / "volume"
    folder.mkdir()
    return folder


def fill(made: Commands, volume: Path) -> str:
    """Make so many packs; give the snapshot that needs all of them."""
    for number in range(PACKS):
        (volume / f"f{number}").write_bytes(random.Random(number).randbytes(PACK_BYTES))
        snapshot = made.json("volume", "backup", volume, "--volume", "v")[-1]["snapshot_id"]
    return str(snapshot)


def journals(made: Commands) -> list[Path]:
    return [path for path in (made.root / "cache").rglob("journal/*") if path.name.startswith("packs-")]


def kill_after_packs(made: Commands, *words: str) -> None:
    process = subprocess.Popen(
        [*PROGRAM, *words, "--limit-download", "256KiB"],
        env=made.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + PATIENCE_SECONDS
    while sum(path.stat().st_size for path in journals(made)) < HEAD_BYTES + 2 * RECORD_BYTES:
        assert process.poll() is None, "it read everything before anybody looked: the rate does not hold"
        assert time.monotonic() < end
        time.sleep(0.01)
    process.kill()
    process.wait()


@pytest.mark.parametrize("question", ["verify", "check", "repair"])
def test_what_was_killed_goes_on(made: Commands, volume: Path, question: str) -> None:
    snapshot = fill(made, volume)
    words = {
        "verify": ["volume", "verify", snapshot],
        "check": ["repo", "check", "--read-data"],
        "repair": ["repo", "repair", "--read-data"],
    }[question]
    kill_after_packs(made, *words)
    ran = made.run(*words)
    assert "going on from a run begun at 20" in ran.stderr and "were read then" in ran.stderr, ran.stderr
    assert "were read by a run begun at 20" in ran.stdout
    again = made.run(*words)
    assert "going on" not in again.stderr and "were read by" not in again.stdout
    kill_after_packs(made, *words)
    whole = made.json(*words, "--fresh")[-1]
    assert (whole["packs_resumed"], whole["bytes_resumed"], whole["resumed_from"]) == (0, 0, None)
    kill_after_packs(made, *words)
    summary = made.json(*words)[-1]
    assert summary["packs_resumed"] >= 2 and summary["resumed_from"].startswith("20")
    assert summary["bytes_resumed"] + summary["bytes_read"] == pytest.approx(whole["bytes_read"], rel=0.01)
    assert journals(made) == []


def test_a_rate_holds_a_job_until_it_is_lifted(place: Place, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(random.Random(1).randbytes(300 * KIB))
    place.backup(source)
    # A year for these bytes: whatever the machine, a job that keeps to it is not over in a second.
    place.repository.limit_traffic(download_bytes_per_second=1)
    for end in ("cancelled", "let go"):
        job = place.repository.check(read_data=True)
        assert not job.wait(1.0), "the rate does not hold"
        if end == "cancelled":
            job.cancel()
            with pytest.raises(CancelledError):
                job.result()
        else:
            place.repository.limit_traffic()
            assert job.result().exit_code == 0


def test_a_rate_upwards_holds_a_backup_and_nothing_else(place: Place, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(random.Random(1).randbytes(300 * KIB))
    place.backup(source)
    place.repository.limit_traffic(upload_bytes_per_second=1)
    assert place.repository.check(read_data=True).result().exit_code == 0
    # It takes a marker and ends it: the second of these waits.
    job = place.repository.repair(RepairOptions())
    assert not job.wait(1.0), "the rate does not hold"
    place.repository.limit_traffic()
    assert job.result().exit_code == 0
