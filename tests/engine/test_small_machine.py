"""The program in real control groups: in 128 MB of memory, page cache included, with one processor and as if there were sixty-four.

What is backed up is larger than the group, so that buffers that grew with it would be the end of the process.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from longshore.datapath import machine
from tests.engine.conftest import PATIENCE_SECONDS, assert_same
from tests.support.cgroups import Group, group

MIB = 1 << 20
SMALL_BYTES = 128_000_000
FILES = 2000
LARGE_BYTES = 96 * MIB
TEXT_BYTES = 32 * MIB
PROGRAM = [sys.executable, "-c", "import sys; from longshore.cli.main import main; sys.exit(main())"]
PACKAGES = str(Path(__file__).parents[2] / "python")


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A large file of noise, a large one of text, and many small ones."""
    folder = tmp_path_factory.mktemp("small") / "volume"
    (folder / "many").mkdir(parents=True)
    chance = random.Random(1)
    with (folder / "noise").open("wb") as file:
        file.writelines(chance.randbytes(MIB) for _ in range(LARGE_BYTES // MIB))
    words = [chance.randbytes(6).hex() for _ in range(5000)]
    with (folder / "text").open("w") as file:
        while file.tell() < TEXT_BYTES:
            file.write(" ".join(chance.choices(words, k=20_000)))
    for number in range(FILES):
        (folder / "many" / f"file {number}").write_bytes(chance.randbytes(number))
    return folder


def run(bounds: Group, root: Path, *words: str | Path) -> list[dict[str, Any]]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LONGSHORE_", "AWS_"))}
    ours = {
        "PYTHONPATH": PACKAGES,
        "LONGSHORE_REPOSITORY": str(root / "repository"),
        "LONGSHORE_KEY_FILE": str(root / "key"),
        "LONGSHORE_CACHE_DIR": str(root / "cache"),
    }
    answer = subprocess.run(
        bounds.command(*PROGRAM, *map(str, words), "--json"),
        env={**kept, **ours},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=PATIENCE_SECONDS,
    )
    assert answer.returncode == 0, (
        f"{words} killed={bounds.oom_kills()}\n{answer.stdout[-2000:]}\n{answer.stderr[-2000:]}"
    )
    return [json.loads(line) for line in answer.stdout.splitlines()]


def assert_true(lines: list[dict[str, Any]], total_bytes: int) -> None:
    """What was told on the way only ever grew, and never beyond what there was."""
    told = [line["bytes_done"] for line in lines if line["type"] == "progress"]
    assert told == sorted(told) and all(bytes_done <= total_bytes for bytes_done in told), told


@pytest.fixture
def small() -> Iterator[Group]:
    with group(memory_bytes=SMALL_BYTES, processors=1) as bounds:
        yield bounds


# None: as many as the group's one processor; sixty-four as somebody may ask for, or a machine may have.
@pytest.mark.parametrize("workers", [None, 64])
def test_a_volume_goes_out_and_back_in_a_group_of_128_mb(
    small: Group, volume: Path, tmp_path: Path, workers: int | None
) -> None:
    more = () if workers is None else ("--workers", str(workers))
    total = sum(path.stat().st_size for path in volume.rglob("*") if path.is_file())
    assert total > SMALL_BYTES
    run(small, tmp_path, "repo", "init")
    first = run(small, tmp_path, "volume", "backup", volume, *more)
    assert_true(first, total)
    assert (first[-1]["files_new"], first[-1]["bytes_read"]) == (FILES + 2, total)
    again = run(small, tmp_path, "volume", "backup", volume, *more)[-1]
    assert (again["files_unchanged"], again["bytes_stored"]) == (FILES + 2, 0)
    run(small, tmp_path, "volume", "restore", "latest", tmp_path / "target", *more)
    assert_same(volume, tmp_path / "target")
    for words in (("volume", "verify", "latest"), ("repo", "check"), ("repo", "prune", "--keep-last", "1")):
        run(small, tmp_path, *words)
    # All of it was in the group, and met its bound: of the page cache alone there is more.
    assert SMALL_BYTES // 2 < small.peak_bytes() <= SMALL_BYTES
    assert small.oom_kills() == 0


def test_one_processor_by_quota_is_one_worker_and_the_least_buffers(small: Group) -> None:
    said = "from longshore.datapath import machine; print(machine.workers(), machine.memory_limit_bytes())"
    command = small.command(sys.executable, "-c", said)
    answer = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": PACKAGES}, capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == ["1", str(64 * MIB)]


def test_sixty_four_processors_by_quota_are_sixty_four_workers_within_the_same_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(128)))
    for name, text in {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/cpu.max": "6400000 100000\n",
        "sys/fs/cgroup/memory.max": "max\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert machine.workers(root=tmp_path) == 64
    # 60 MiB and 18 for each worker would be more than the most that is ever of use.
    assert machine.memory_limit_bytes(root=tmp_path) == 1024 * MIB
    (tmp_path / "sys/fs/cgroup/memory.max").write_text(f"{SMALL_BYTES}\n")
    assert machine.memory_limit_bytes(root=tmp_path) == 64 * MIB
