"""The gate: more than the tolerance is a failure, fewer is not, and neither is silence."""

import json
from pathlib import Path

import pytest
from benches import gate


@pytest.mark.parametrize(
    ("name", "counted", "failed", "word"),
    [
        ("cut/noise", 1000, False, "ok"),
        ("cut/noise", 1020, False, "ok"),
        ("cut/noise", 1021, True, "SLOWER"),
        ("whole/first", 1040, False, "ok"),
        ("whole/first", 1041, True, "SLOWER"),
        ("cut/noise", 900, False, "fewer: renew to hold it"),
        ("new/kernel", 5, True, "NO BASELINE"),
    ],
)
def test_verdicts(name, counted, failed, word):
    [verdict] = gate.judge({name: counted}, {"cut/noise": 1000, "whole/first": 1000})
    assert (verdict.failed, verdict.word) == (failed, word)
    assert word in gate.table([verdict])


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """A gate over two kernels whose counts a test may set, with a baseline of its own."""
    numbers = {"cut/noise": 1000, "whole/first": 5000}
    monkeypatch.setattr(gate, "ROOT", tmp_path)
    monkeypatch.setattr(gate, "BASELINE", tmp_path / "baseline.json")
    monkeypatch.setattr(gate, "why_not", lambda: None)
    monkeypatch.setattr(gate, "kernels", lambda: list(numbers))
    monkeypatch.setattr(gate, "count", lambda name: numbers[name])
    return numbers


def test_gate_is_shut_until_renewed(counted, capsys):
    assert gate.main([]) == 1
    assert gate.main(["--renew"]) == 0
    assert gate.main([]) == 0
    counted["cut/noise"] = 1100
    assert gate.main([]) == 1
    assert gate.main(["whole"]) == 0
    assert "SLOWER" in capsys.readouterr().out


def test_renewing_some_keeps_the_rest_and_forgets_what_is_gone(counted):
    gate.main(["--renew"])
    counted["cut/noise"], counted["whole/first"] = 2000, 6000
    gate.main(["--renew", "cut"])
    assert json.loads(gate.BASELINE.read_text())["instructions"] == {"cut/noise": 2000, "whole/first": 5000}
    del counted["whole/first"]
    gate.main(["--renew", "cut"])
    assert json.loads(gate.BASELINE.read_text())["instructions"] == {"cut/noise": 2000}


@pytest.mark.parametrize(("ci", "code"), [("", 0), ("true", 1)])
def test_without_valgrind_it_is_skipped_and_in_ci_it_fails(monkeypatch, capsys, ci, code):
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(gate.shutil, "which", lambda _: None)
    monkeypatch.setattr(gate, "find_tool", lambda _: None)
    assert gate.main([]) == code
    assert "skipped: valgrind is not installed" in capsys.readouterr().err


def test_baseline_of_the_tree_names_every_group_of_kernels():
    kept = json.loads((Path(gate.__file__).parent / "micro/baseline.json").read_text())["instructions"]
    source = (Path(gate.__file__).parent / "micro/src/kernels.rs").read_text()
    assert all(f'name: "{name}"' in source for name in kept if not name.startswith("whole/"))
    assert {"whole/first", "whole/unchanged", "whole/restore", "whole/check"} <= set(kept)
