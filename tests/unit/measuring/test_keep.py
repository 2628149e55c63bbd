"""Runs on disk: come back as they were, belong to their setting, and survive a kill between two rounds."""

import dataclasses
import json

import pytest
from benches.volume import keep
from benches.volume.keep import Keep, Setting
from tests.unit.measuring.runs import SETTING, made_up_run


def test_runs_come_back_as_they_were(tmp_path):
    kept = Keep("row", tmp_path)
    assert kept.all() == []
    runs = [made_up_run("longshore", 1.0, stored_bytes=5.0), made_up_run("restic", 3.0, group="x")]
    kept.add(runs[:1])
    kept.add(runs[1:])
    assert Keep("row", tmp_path).all() == runs


def test_runs_belong_to_sources_machine_and_scale(tmp_path):
    kept = Keep("row", tmp_path)
    others = [
        dataclasses.replace(SETTING, **{name: value})
        for name, value in {"subject": "other", "machine": "other", "scale": 0.5}.items()
    ]
    kept.add([made_up_run("longshore", 1.0), *(made_up_run("longshore", 2.0, setting=s) for s in others)])
    assert [run.figures["wall_seconds"] for run in kept.of(SETTING)] == [1.0]


def test_page_takes_the_newest_of_the_largest_scale(tmp_path):
    kept = Keep("row", tmp_path)
    newer, small = Setting("newer", "a machine", 1.0), Setting("newest", "a machine", 0.1)
    kept.add([made_up_run("longshore", n, setting=s) for n, s in ((1.0, SETTING), (2.0, newer), (3.0, small))])
    assert [run.figures["wall_seconds"] for run in kept.newest()] == [2.0]


def test_what_is_superseded_is_forgotten_and_nothing_else(tmp_path):
    kept = Keep("row", tmp_path)
    newer, elsewhere, small = (
        Setting("n", "a machine", 1.0),
        Setting("o", "another", 1.0),
        Setting("o", "a machine", 0.1),
    )
    kept.add([made_up_run("longshore", 1.0, setting=s) for s in (SETTING, newer, elsewhere, small)])
    kept.only(newer)
    assert [run.setting for run in kept.all()] == [newer, elsewhere, small]


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    kept = Keep("row", tmp_path)
    kept.add([made_up_run("longshore", 1.0)])

    def fail(*_args):
        raise OSError("no space")

    monkeypatch.setattr(keep.Path, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        kept.add([made_up_run("longshore", 2.0)])
    assert [run.figures["wall_seconds"] for run in kept.all()] == [1.0]
    assert all(json.loads(line) for line in kept.path.read_text().splitlines())


def test_subject_is_of_sources_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(keep, "ROOT", tmp_path)
    monkeypatch.setattr(keep, "_git", lambda *_: "rust/a.rs\0docs.md\0")
    (tmp_path / "rust").mkdir()
    (tmp_path / "rust/a.rs").write_text("1")
    before = keep.subject()
    (tmp_path / "docs.md").write_text("text")
    assert keep.subject() == before
    (tmp_path / "rust/a.rs").write_text("2")
    assert keep.subject() != before
