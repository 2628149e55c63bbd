"""`repo prune` with a policy: what it says and asks where a snapshot is dated in the future."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from longshore import datapath
from longshore.cli.main import main
from longshore.errors import NoSpaceError

NOW = datetime(2026, 6, 1, tzinfo=UTC)
Run = Callable[..., int]


def snapshot(name: str, *, ahead: timedelta, source: str = "db") -> SimpleNamespace:
    return SimpleNamespace(id=name, source=source, started_nanos=int((NOW + ahead).timestamp()) * 10**9, tags={})


class Opened:
    """A repository that notes what is deleted, and ends the command at the prune."""

    def __init__(self, rows: list[SimpleNamespace]) -> None:
        self.rows = rows
        self.gone: list[str] = []

    def limit_traffic(self, **_bounds: object) -> None:
        pass

    def snapshots(self) -> SimpleNamespace:
        return SimpleNamespace(rows=self.rows)

    def remove(self, snapshot_id: str, *, by: str) -> None:
        assert by
        self.gone.append(snapshot_id)

    def prune(self, _options: object) -> None:
        raise NoSpaceError("that is enough")


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opened:
    (tmp_path / "key").write_text("longshore-key-1:" + "0" * 64 + "\n")
    monkeypatch.chdir(tmp_path)
    days = [snapshot(f"day{day}", ahead=timedelta(days=-day)) for day in (3, 2, 1)]
    made = Opened([*days, snapshot("bogus", ahead=timedelta(days=3650))])
    monkeypatch.setattr(datapath, "open", lambda *_args, **_options: made)
    monkeypatch.setattr("longshore.cli.repo.prune._now", lambda: NOW)
    return made


def prune(*words: str) -> int:
    return main(["repo", "prune", "--repository", "repository", "--key-file", "key", *words])


def test_what_is_dated_in_the_future_is_named_and_takes_nobodys_place(
    opened: Opened, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prune("--keep-last", "1") == NoSpaceError.exit_code
    assert opened.gone == ["day2", "day3"]
    said = capsys.readouterr()
    assert "snapshot=bogus" in said.err and "dated in the future" in said.err and "next: look at the clocks" in said.err
    opened.gone.clear()
    assert prune("--keep-last", "1", "--json") == NoSpaceError.exit_code
    said = capsys.readouterr()
    rows = {row["snapshot_id"]: row for row in map(json.loads, said.out.splitlines()) if row["type"] == "row"}
    assert rows["bogus"]["decision"] == "keep" and rows["bogus"]["reasons"] == ["dated in the future"]
    assert rows["day1"]["reasons"] == ["last snapshot"] and "snapshot=bogus" in said.err


def test_many_that_are_dated_in_the_future_are_counted(opened: Opened, capsys: pytest.CaptureFixture[str]) -> None:
    opened.rows += [snapshot(f"b{day}", ahead=timedelta(days=day)) for day in range(1, 9)]
    assert prune("--keep-last", "1", "--dry-run") == NoSpaceError.exit_code
    said = capsys.readouterr().err
    assert said.count("snapshot=") == 5 and "snapshots=4" in said


def test_a_source_is_not_left_with_a_future_alone(opened: Opened, capsys: pytest.CaptureFixture[str]) -> None:
    assert prune("--keep-tag", "nobody") == 2
    assert opened.gone == [] and "without any snapshot: sources=db" in capsys.readouterr().err
    opened.rows[:] = [one for one in opened.rows if one.id == "bogus"]
    assert prune("--keep-tag", "nobody") == NoSpaceError.exit_code and opened.gone == []


def test_clocks_that_agree_say_nothing(opened: Opened, capsys: pytest.CaptureFixture[str]) -> None:
    opened.rows[-1] = snapshot("today", ahead=timedelta(minutes=59))
    assert prune("--keep-last", "1") == NoSpaceError.exit_code
    assert opened.gone == ["day1", "day2", "day3"] and "future" not in capsys.readouterr().err
