"""What of the machine is ours: control groups of both versions, and what stands above them."""

import io
import json
import os
from pathlib import Path

import pytest

from longshore import logs
from longshore.datapath import machine
from longshore.node_agent import AgentSettings, fitted

MIB = 1 << 20


def lay(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of eight processors."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


V2 = "proc/self/cgroup"
GROUP = "sys/fs/cgroup"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({V2: "0::/\n", f"{GROUP}/cpu.max": "max 100000\n"}, 8),
        ({V2: "0::/\n", f"{GROUP}/cpu.max": "300000 100000\n"}, 3),
        ({V2: "0::/\n", f"{GROUP}/cpu.max": "250000 100000\n"}, 2),
        ({V2: "0::/\n", f"{GROUP}/cpu.max": "50000 100000\n"}, 1),
        ({V2: "0::/\n", f"{GROUP}/cpu.max": "1600000 100000\n"}, 8),
        ({V2: "0::/pod/us\n", f"{GROUP}/pod/us/cpu.max": "max 100000\n", f"{GROUP}/pod/cpu.max": "200000 100000\n"}, 2),
        ({V2: "0::/../../elsewhere\n", f"{GROUP}/cpu.max": "200000 100000\n"}, 2),
        (
            {V2: "4:cpu,cpuacct:/us\n3:memory:/us\n", f"{GROUP}/cpu,cpuacct/us/cpu.cfs_quota_us": "400000\n",
             f"{GROUP}/cpu,cpuacct/us/cpu.cfs_period_us": "100000\n"},
            4,
        ),
        ({V2: "4:cpu:/us\n", f"{GROUP}/cpu/us/cpu.cfs_quota_us": "-1\n", f"{GROUP}/cpu/us/cpu.cfs_period_us": "100000\n"}, 8),
        ({V2: "nonsense", f"{GROUP}/cpu.max": "1 0\n"}, 8),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("eight")
def test_workers_follow_mask_and_quota(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    assert machine.workers(root=lay(tmp_path, files)) == expected


@pytest.mark.usefixtures("eight")
@pytest.mark.parametrize(
    ("files", "expected_mib"),
    [
        ({}, 204),
        ({V2: "0::/\n", f"{GROUP}/cpu.max": "200000 100000\n"}, 96),
        ({V2: "0::/\n", f"{GROUP}/memory.max": "max\n"}, 204),
        ({V2: "0::/\n", f"{GROUP}/memory.max": f"{800 * MIB}\n"}, 200),
        ({V2: "0::/a/b\n", f"{GROUP}/a/b/memory.max": "max\n", f"{GROUP}/a/memory.max": f"{400 * MIB}\n"}, 100),
        ({V2: "0::/a\n", f"{GROUP}/a/memory.max": f"{400 * MIB}\n", f"{GROUP}/memory.max": f"{800 * MIB}\n"}, 100),
        ({V2: "0::/a\n", f"{GROUP}/a/memory.max": f"{800 * MIB}\n", f"{GROUP}/memory.max": f"{400 * MIB}\n"}, 100),
        ({V2: "0::/\n", f"{GROUP}/memory.max": f"{100 * MIB}\n"}, 64),
        ({V2: "0::/\n", f"{GROUP}/memory.max": f"{64 << 30}\n"}, 204),
        ({V2: "3:memory:/us\n", f"{GROUP}/memory/us/memory.limit_in_bytes": f"{600 * MIB}\n"}, 150),
        ({V2: "3:memory:/us\n", f"{GROUP}/memory/us/memory.limit_in_bytes": "9223372036854771712\n"}, 204),
    ],
)
def test_memory_is_what_is_of_use_within_a_share_of_the_limit(
    tmp_path: Path, files: dict[str, str], expected_mib: int
) -> None:
    assert machine.memory_limit_bytes(root=lay(tmp_path, files)) == expected_mib * MIB


@pytest.mark.usefixtures("eight")
@pytest.mark.parametrize(
    ("limit_mib", "total_mib", "wanted", "jobs", "each_mib"),
    [
        (None, None, 1, 1, 204),
        (None, None, 5, 5, 204),
        (512, None, 2, 2, 128),
        (512, None, 3, 3, 85),
        (512, None, 8, 4, 64),
        (256, None, 2, 2, 64),
        (100, None, 2, 1, 64),
        (512, 300, 2, 2, 150),
        (512, 300, 9, 4, 75),
        (None, 10, 3, 1, 64),
    ],
)
def test_jobs_at_once_stay_within_one_budget(
    tmp_path: Path, limit_mib: int | None, total_mib: int | None, wanted: int, jobs: int, each_mib: int
) -> None:
    files = {} if limit_mib is None else {V2: "0::/\n", f"{GROUP}/memory.max": f"{limit_mib * MIB}\n"}
    found, each = machine.job_memory(
        wanted, total_bytes=None if total_mib is None else total_mib * MIB, root=lay(tmp_path, files)
    )
    assert (found, each // MIB) == (jobs, each_mib)


@pytest.mark.usefixtures("eight")
def test_an_agent_takes_on_no_more_jobs_than_its_memory_holds(tmp_path: Path) -> None:
    root = lay(tmp_path, {V2: "0::/\n", f"{GROUP}/memory.max": f"{512 * MIB}\n"})
    out = io.StringIO()
    logs.configure(level="info", format="json", stream=out)
    try:
        few = fitted(AgentSettings(node_name="n", concurrency=9), root=root)
        assert (few.concurrency, few.memory_limit_bytes) == (4, 256 * MIB)
        assert json.loads(out.getvalue())["asked_for"] == 9
        enough = fitted(AgentSettings(node_name="n", concurrency=2), root=root)
        assert (enough.concurrency, enough.memory_limit_bytes) == (2, 256 * MIB)
        assert len(out.getvalue().splitlines()) == 1
    finally:
        logs.configure(level="warning", format="text")


def test_this_machine_has_at_least_one_processor() -> None:
    assert 1 <= machine.workers() <= (os.cpu_count() or 1)
    assert machine.memory_limit_bytes() >= 64 * MIB
