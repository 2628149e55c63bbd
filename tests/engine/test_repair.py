"""Repair as its users run it: by commands, on a folder, and what rescue.py makes of the repository afterwards."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from tests.engine.conftest import Place, assert_same
from tests.engine.test_cli import Commands, empty, made

__all__ = ["empty", "made"]

KIB = 1 << 10


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    folder = tmp_path / "volume"
    chance = random.Random(5)
    for directory in range(3):
        (folder / f"d{directory}").mkdir(parents=True)
        for name in range(4):
            (folder / f"d{directory}" / f"f{name}").write_bytes(chance.randbytes(90 * KIB))
    return folder


def largest(made: Commands, folder: str) -> Path:
    return max((path for path in (made.repository / folder).iterdir()), key=lambda path: path.stat().st_size)


def flip(path: Path, at: int) -> None:
    whole = bytearray(path.read_bytes())
    whole[at] ^= 1
    path.chmod(0o600)
    path.write_bytes(bytes(whole))


def rescue(made: Commands, *words: str) -> tuple[int, str]:
    ran = Place(made.repository, made.root / "key", None).rescue(*words)  # type: ignore[arg-type]  # it is opened by rescue.py alone
    return ran.returncode, ran.stderr


def test_what_rots_is_named_and_the_next_backup_heals_it(made: Commands, volume: Path, tmp_path: Path) -> None:
    made.json("volume", "backup", volume, "--volume", "v")
    snapshot = made.json("volume", "backup", volume, "--volume", "v")[-1]["snapshot_id"]
    pack = largest(made, "packs")
    flip(pack, pack.stat().st_size // 2)
    assert made.run("repo", "check", "--read-data", code=4).stdout.count("longshore repo repair") == 1
    before = made.objects()
    dry = made.json("repo", "repair", "--read-data", "--dry-run", code=4)
    assert made.objects() == before, "a dry run writes nothing"
    lines = made.json("repo", "repair", "--read-data", code=4)
    hurt = {line["path"] for line in lines if line["type"] == "item" and line["event"] == "hurt"}
    assert hurt and hurt == {line["path"] for line in dry if line["type"] == "item" and line["event"] == "hurt"}
    assert lines[-1]["recorded"] and lines[-1]["chunks_missing"] == len(hurt) and lines[-1]["snapshots_hurt"] == 2
    assert set(before) <= set(made.objects()), "a repair deletes nothing that was whole"
    out = tmp_path / "out"
    restored = made.json("volume", "restore", snapshot, out, code=4)[-1]
    assert restored["items_damaged"] == len(hurt)
    for path in volume.rglob("f*"):
        name = str(path.relative_to(volume))
        assert (name in hurt) != ((out / name).exists() and (out / name).read_bytes() == path.read_bytes()), name
    code, said = rescue(made, "restore", snapshot, str(tmp_path / "rescued"))
    assert code == 4 and all(name in said for name in hurt), said
    made.run("repo", "prune")
    healed = made.json("volume", "backup", volume, "--volume", "v")[-1]
    assert healed["bytes_stored"] > 0
    made.run("repo", "check", "--read-data")
    made.run("volume", "verify", snapshot)
    made.run("volume", "delete", healed["snapshot_id"], "--yes")
    made.run("repo", "prune")
    made.run("volume", "verify", snapshot)
    whole = tmp_path / "whole"
    made.run("volume", "restore", snapshot, whole)
    assert_same(volume, whole)
    bare = tmp_path / "bare"
    # It takes the chunk from its other place, and does not even look where a repair wrote damage down.
    assert rescue(made, "restore", snapshot, str(bare)) == (0, "")
    assert_same(volume, bare)
    code, said = rescue(made, "check")
    assert code == 0 and said.count("a repair wrote this damage down") >= 1 and pack.name in said, said
    record = largest(made, "repairs")
    whole_record = record.read_bytes()
    flip(record, len(whole_record) // 2)
    code, said = rescue(made, "check")
    assert code == 4 and f"key=repairs/{record.name}" in said, said
    record.write_bytes(whole_record)
    other = max(
        (path for path in (made.repository / "packs").iterdir() if path != pack), key=lambda path: path.stat().st_size
    )
    flip(other, other.stat().st_size // 2)
    code, said = rescue(made, "check")
    assert code == 4 and other.name in said, "what nobody wrote down is damage"


def test_index_tables_and_headers_are_made_again(made: Commands, volume: Path, tmp_path: Path) -> None:
    first = made.json("volume", "backup", volume, "--volume", "v")[-1]["snapshot_id"]
    pack = largest(made, "packs")
    flip(pack, pack.stat().st_size - 40)
    (volume / "d0" / "more").write_bytes(random.Random(6).randbytes(200 * KIB))
    second = made.json("volume", "backup", volume, "--volume", "v")[-1]["snapshot_id"]
    for table in (made.repository / "usage").iterdir():
        table.unlink()
    refused = made.run("repo", "prune", code=4)
    assert "longshore repo repair" in refused.stderr
    last = made.json("repo", "repair")[-1]
    assert last["tables_rebuilt"] == 2 and last["frames_moved"] > 0 and last["items_hurt"] == 0, last
    made.run("repo", "prune")
    assert not pack.exists(), "what was saved of it lies elsewhere"
    for segment in (made.repository / "index").iterdir():
        segment.unlink()
    assert made.json("repo", "repair")[-1]["packs_indexed"] > 0
    made.run("repo", "check", "--read-data")
    assert "nothing is lost" in made.run("repo", "repair", "--read-data").stdout
    for snapshot in (first, second):
        assert rescue(made, "restore", snapshot, str(tmp_path / snapshot))[0] == 0
    assert_same(volume, tmp_path / second)
    code, said = rescue(made, "check")
    assert code == 0 and said.count("a repair wrote this damage down: a usage table is missing") == 2, said


def test_a_snapshot_that_is_lost_can_be_given_up(made: Commands, volume: Path) -> None:
    lost = made.json("volume", "backup", volume, "--volume", "v")[-1]["snapshot_id"]
    kept = made.json("volume", "backup", volume, "--volume", "v")[-1]["snapshot_id"]
    record = made.repository / "snapshots" / lost.removeprefix("ls0-")
    whole = record.read_bytes()
    flip(record, len(whole) // 2)
    # Who has read it once has it in his cache.
    shutil.rmtree(made.root / "cache")
    assert f"volume delete {lost}" in made.run("repo", "prune", code=4).stderr
    answer = made.json("repo", "repair", code=4)[-1]
    assert answer["snapshots_damaged"] == 1
    made.run("volume", "delete", "ls0-" + "0" * 32, "--yes", code=13)
    made.run("volume", "delete", lost, "--yes")
    made.run("repo", "prune")
    made.run("repo", "check", "--read-data")
    record = made.repository / "snapshots" / kept.removeprefix("ls0-")
    younger = made.json("volume", "backup", volume, "--volume", "v")[-1]["snapshot_id"]
    record.unlink()
    assert "longshore" in made.run("repo", "prune", code=4).stderr
    made.run("volume", "delete", kept, "--yes")
    made.run("repo", "prune")
    assert [line["snapshot_id"] for line in made.json("volume", "list") if line["type"] == "row"] == [younger]


def test_a_share_is_read_at_a_time_and_all_in_a_round(made: Commands, volume: Path) -> None:
    for number in range(4):
        (volume / f"n{number}").write_bytes(random.Random(number).randbytes(100 * KIB))
        snapshot = made.json("volume", "backup", volume, "--volume", "v")[-1]["snapshot_id"]
    whole = made.json("volume", "verify", snapshot)[-1]
    parts = [made.json("volume", "verify", snapshot, "--sample", "25%", "--part", str(n))[-1] for n in range(4)]
    assert sum(part["frames_read"] for part in parts) == whole["frames_read"]
    assert [(part["sample_part"], part["sample_parts"]) for part in parts] == [(n, 4) for n in range(4)]
    assert max(part["frames_read"] for part in parts) < whole["frames_read"]
    pack = largest(made, "packs")
    flip(pack, pack.stat().st_size // 2)
    codes = []
    for number in range(4):
        words = ["repo", "check", "--sample", "25%", "--part", str(number), "--json"]
        for code in (0, 4):
            try:
                last = json.loads(made.run(*words, code=code).stdout.splitlines()[-1])
            except AssertionError:
                continue
            codes.append(last["exit_code"])
    assert sorted(codes) == [0, 0, 0, 4]
    made.run("repo", "check", "--sample", "25%", "--part", "4", code=2)
    made.run("repo", "check", "--sample", "nothing", code=2)
    made.run("repo", "check", "--part", "1", code=2)
    made.run("repo", "check", "--sample", "25%", "--read-data", code=2)


@pytest.mark.parametrize(
    ("folder", "mends"),
    [
        ("sessions", ("prune", "--fence", "7" * 32)),
        ("tombstones", ("repair",)),
        ("tombstones", ("prune",)),
        ("open", ("prune",)),
        ("watches", ("prune",)),
        ("decisions", None),
        ("removed", None),
    ],
)
def test_what_rots_of_sessions_and_prunes_ends_a_check_with_4_until_what_it_names_has_mended_it(
    made: Commands, volume: Path, folder: str, mends: tuple[str, ...] | None
) -> None:
    made.json("volume", "backup", volume, "--volume", "v")
    name = f"{folder}/{'7' * 32}"
    (made.repository / folder).mkdir(exist_ok=True)
    (made.repository / name).write_bytes(b"rot" * 50)
    done = made.run("repo", "check", "--read-data", code=0 if mends is None else 4)
    said = done.stdout + done.stderr
    assert name in said, said
    if mends is not None:
        assert "longshore repo " + " ".join(mends) in said, said
        made.run("repo", *mends)
        done = made.run("repo", "check", code=0)
        assert name not in done.stdout + done.stderr, done
