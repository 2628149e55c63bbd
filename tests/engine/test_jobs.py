"""Jobs seen from outside: progress, waiting, cancelling, Ctrl-C, and that other threads run meanwhile."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from longshore import datapath
from longshore.errors import CancelledError
from tests.engine.conftest import PATIENCE_SECONDS, Place, done


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A volume that takes a while: it does not compress."""
    root = tmp_path / "large"
    root.mkdir()
    for number in range(40):
        (root / f"f{number}").write_bytes(os.urandom(8 << 20))
    return root


def options(path: Path) -> datapath.BackupOptions:
    return datapath.BackupOptions(str(path), source="volume", workers=1)


def until(what: object, condition: object) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def test_counters_grow_to_what_was_done(place: Place, large: Path) -> None:
    job = place.repository.backup(options(large))
    assert not job.wait(0)
    seen = []
    while not job.wait(0.01):
        seen.append(job.progress())
    result = job.result()
    end = job.progress()
    assert (end.stage, end.files_done, end.bytes_done) == ("finished", 40, 320 << 20)
    assert end.bytes_moved == result.bytes_read == 320 << 20
    assert end.bytes_stored >= result.bytes_stored > 300 << 20
    assert [p.bytes_done for p in seen] == sorted(p.bytes_done for p in seen)
    assert any(0 < p.bytes_moved < 320 << 20 and p.stage == "running" for p in seen)
    assert job.result() == result


def test_a_cancelled_backup_leaves_no_snapshot(place: Place, large: Path) -> None:
    job = place.repository.backup(options(large))
    until("nothing is read", lambda: job.progress().bytes_moved > 0)
    job.cancel()
    with pytest.raises(CancelledError):
        done(job)
    assert job.progress().stage == "finished"
    assert place.repository.snapshots().rows == []
    assert not list((place.folder / "sessions").iterdir()), "the session's marker stayed"
    again = place.backup(large)
    assert again.exit_code == 0
    assert place.rescue("check").returncode == 0


def test_a_job_without_owner_is_cancelled(place: Place, large: Path) -> None:
    job = place.repository.backup(options(large))
    while not job.progress().bytes_moved:
        assert not job.wait(0.005), "the job was over before it could be let go"
    del job
    gc.collect()
    until("the job runs on", lambda: not list((place.folder / "sessions").iterdir()))
    assert place.repository.snapshots().rows == []


def test_other_threads_run_while_one_waits(place: Place, large: Path) -> None:
    ticks = 0
    stop = threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not stop.is_set():
            ticks += 1
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    job = place.repository.backup(options(large))
    thread.start()
    try:
        assert job.wait(PATIENCE_SECONDS)
    finally:
        stop.set()
        thread.join()
    assert ticks > 20


@pytest.mark.parametrize(
    "what",
    ["job.wait()", "d.exists(d.S3Store('b', endpoint_url='http://127.0.0.1:9', allow_http=True, credentials=c))"],
)
def test_ctrl_c_ends_a_wait(place: Place, large: Path, what: str) -> None:
    program = f"""
import sys
sys.path[:0] = {[str(Path(datapath.__file__).parents[2])]!r}
from longshore import datapath as d
c = d.Credentials("key", "secret")
r = d.open(d.FolderStore({str(place.folder)!r}), d.Key.from_file({str(place.key_file)!r}))
job = r.backup(d.BackupOptions({str(large)!r}, source="volume", workers=1))
print("ready", flush=True)
try:
    {what}
except KeyboardInterrupt:
    job.cancel()
    print("interrupted", flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        assert process.wait(PATIENCE_SECONDS) == 0


def test_a_result_before_the_end_is_waited_for(place: Place, large: Path) -> None:
    assert place.repository.backup(options(large)).result().exit_code == 0
