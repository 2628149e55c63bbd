"""Retention and prune as their users run them: on a folder, by commands, and what rescue.py makes of the repository afterwards."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from longshore import datapath
from longshore.errors import CorruptError, UsageError
from tests.engine.conftest import Place, assert_same, done
from tests.engine.test_cli import Commands, empty, made, volume

__all__ = ["empty", "made", "volume"]

KIB = 1 << 10


def fill(folder: Path, names: range, *, seed: int) -> None:
    chance = random.Random(seed)
    for name in names:
        (folder / f"f{name:03d}").write_bytes(chance.randbytes(150 * KIB))


def size_of(place: Place, folder: str = "packs") -> int:
    return sum(path.stat().st_size for path in (place.folder / folder).iterdir())


def test_rescue_reads_what_was_pruned_and_repacked(place: Place, tmp_path: Path) -> None:
    folder, out = tmp_path / "volume", tmp_path / "out"
    folder.mkdir()
    fill(folder, range(40), seed=1)
    first = place.backup(folder)
    # What stays is spread, for how many packs there are, and which files lie in each, is up to the threads: no pack is mostly alive.
    for name in set(range(40)) - {0, 13, 26, 39}:
        (folder / f"f{name:03d}").unlink()
    fill(folder, range(100, 103), seed=2)
    second = place.backup(folder)
    before = size_of(place)
    assert first.snapshot_id and second.snapshot_id
    dry = done(place.repository.prune(datapath.PruneOptions(dry_run=True, forget=[first.snapshot_id])))
    assert {kept.reason for kept in dry.kept} >= {"repacked"} and size_of(place) == before
    place.repository.remove(first.snapshot_id, by="test")
    result = done(place.repository.prune(datapath.PruneOptions()))
    assert result.packs_repacked and result.bytes_freed - result.bytes_moved > 5000 * KIB, result
    assert before - size_of(place) > 5000 * KIB
    ran = place.rescue("restore", "latest", str(out))
    assert (ran.returncode, ran.stderr) == (0, "")
    assert_same(folder, out)
    checked = place.rescue("check")
    assert (checked.returncode, checked.stderr) == (0, "")
    found = done(place.repository.check(read_data=True))
    assert (found.errors, found.warnings) == (0, 0), found.findings
    again = place.backup(folder)
    assert again.bytes_read == 0
    # Without any index the headers of packs lead to moved frames all the same.
    for segment in (place.folder / "index").iterdir():
        segment.unlink()
    bare = tmp_path / "bare"
    assert place.rescue("restore", "latest", str(bare)).returncode == 0
    assert_same(folder, bare)


def test_a_prune_refuses_what_it_cannot_read(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "volume"
    folder.mkdir()
    fill(folder, range(3), seed=3)
    snapshot = place.backup(folder).snapshot_id
    assert snapshot
    record = place.folder / "snapshots" / snapshot.removeprefix("ls0-")
    whole = record.read_bytes()
    record.chmod(0o600)
    record.write_bytes(bytes(len(whole)))
    before = size_of(place)
    repository = datapath.open(place.store, place.key)
    with pytest.raises(CorruptError) as caught:
        done(repository.prune(datapath.PruneOptions()))
    assert caught.value.next_step and size_of(place) == before
    record.write_bytes(whole)
    repository.remove(snapshot, by="test")
    with pytest.raises(UsageError):
        done(repository.prune(datapath.PruneOptions()))
    assert done(repository.prune(datapath.PruneOptions(allow_empty=True))).packs_deleted > 0
    assert size_of(place) == 0


def test_commands_delete_by_policy_and_free_the_space(made: Commands, volume: Path) -> None:
    ids = [
        made.json("volume", "backup", volume, "--volume", "v", "--tag", f"n={n}")[-1]["snapshot_id"] for n in range(3)
    ]
    before = made.objects()
    lines = made.json("repo", "prune", "--keep-last", "1", "--keep-tag", "n=0", "--dry-run")
    rows = {line["snapshot_id"]: line for line in lines if line["type"] == "row"}
    assert [rows[i]["decision"] for i in ids] == ["keep", "delete", "keep"]
    assert rows[ids[0]]["reasons"] == ["tag n=0"] and rows[ids[2]]["reasons"] == ["last snapshot"]
    assert all(line["reason"] for line in lines if line["type"] == "item" and line["event"] == "pack")
    assert made.objects() == before, "a dry run writes nothing"
    text = made.run("repo", "prune", "--keep-last", "1", "--dry-run").stdout
    assert "would delete" in text and "no rule keeps it" in text and "Would free" in text
    last = made.json("repo", "prune", "--keep-last", "1")[-1]
    assert last["snapshots_deleted"] == 2 and last["snapshots"] == 1
    listed = [line["snapshot_id"] for line in made.json("volume", "list") if line["type"] == "row"]
    assert listed == [ids[2]]
    refused = made.run("repo", "prune", "--keep-tag", "nobody", code=2)
    assert "--allow-empty" in refused.stderr
    assert [line["snapshot_id"] for line in made.json("volume", "list") if line["type"] == "row"] == [ids[2]]
    made.run("volume", "delete", ids[2], "--yes")
    assert "--allow-empty" in made.run("repo", "prune", code=2).stderr
    assert "Freed" in made.run("repo", "prune", "--allow-empty").stdout
    assert not [name for name in made.objects() if "/packs/" in name]
    made.run("repo", "prune", "--keep-within", "soon", code=2)
