"""What the engine writes, rescue.py gives back to the last bit: two programs that share nothing but the page of the format.

Trees come from `tests/oracle/make_tree.py` and are judged by `tests/oracle/compare.py`; where the engine reads too, both must say the same of the same damage.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from longshore import datapath
from tests.engine.conftest import RESCUE, Place, assert_same, done
from tests.oracle.compare import compare
from tests.oracle.make_tree import make_tree, remove_tree
from tests.support.lacking import needs

MIB = 1 << 20
as_root = needs(os.geteuid() == 0, "devices, owners and trusted attributes need root")


def packs(place: Place) -> list[Path]:
    return sorted((place.folder / "packs").iterdir(), key=lambda p: p.stat().st_size)


@as_root
@pytest.mark.parametrize("seed", [2, 3, 5])
def test_nasty_trees(place: Place, tmp_path: Path, seed: int) -> None:
    volume, out = tmp_path / "volume", tmp_path / "out"
    made = make_tree(volume, seed=seed, files=150, total_bytes=6 * MIB, large_bytes=seed * MIB, depth=400)
    try:
        assert made.left_out == []
        assert place.backup(volume).exit_code == 0
        ran = place.rescue("restore", "latest", str(out))
        assert (ran.returncode, ran.stderr) == (0, "")
        assert_same(volume, out)
        # Over what is there already: nothing changes, and nothing is lost on the way.
        assert place.rescue("restore", "latest", str(out)).returncode == 0
        assert_same(volume, out)
        checked = place.rescue("check")
        assert (checked.returncode, checked.stderr) == (0, "")
    finally:
        remove_tree(volume)
        remove_tree(out)


def test_a_large_file(place: Place, tmp_path: Path) -> None:
    volume, out = tmp_path / "volume", tmp_path / "out"
    volume.mkdir()
    chance = random.Random(7)
    block = chance.randbytes(MIB)
    with (volume / "large").open("wb") as handle:
        for at in range(300):
            # Random, repeated, compressible and zero parts, so that several packs, lists, and items of zeros are needed.
            handle.write(
                (chance.randbytes(MIB), block, bytes(MIB), b"%08d text\n" % at * (MIB // 14) + b"....")[at % 4]
            )
    result = place.backup(volume)
    assert result.bytes_total > 299 * MIB and len(packs(place)) > 2
    ran = place.rescue("restore", str(result.snapshot_id), str(out))
    assert (ran.returncode, ran.stderr) == (0, "")
    assert_same(volume, out)


def test_a_passphrase(tmp_path: Path, small: Path) -> None:
    folder, written = tmp_path / "repository", tmp_path / "passphrase"
    written.write_bytes(b"correct horse \xff battery\r\n")
    repository = datapath.init(
        datapath.FolderStore(str(folder)), datapath.Key.from_passphrase(b"correct horse \xff battery")
    )
    done(repository.backup(datapath.BackupOptions(str(small), source="volume")))

    def rescue(*words: str) -> int:
        command = [
            sys.executable,
            "-I",
            str(RESCUE),
            "--repository",
            str(folder),
            "--passphrase-file",
            str(written),
            *words,
        ]
        return subprocess.run(command, capture_output=True, check=False).returncode

    assert rescue("restore", "latest", str(tmp_path / "out")) == 0
    assert_same(small, tmp_path / "out")
    assert rescue("check") == 0
    assert (
        datapath.open(datapath.FolderStore(str(folder)), datapath.Key.from_passphrase_file(written)).id == repository.id
    )
    written.write_bytes(b"correct horse battery")
    assert rescue("list") == 12


def test_each_state_of_a_volume(place: Place, small: Path, tmp_path: Path) -> None:
    first = place.backup(small)
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", small, copy], check=True)
    (small / "a").write_bytes(b"new")
    (small / "below" / "c").unlink()
    (small / "below" / "link").symlink_to("nowhere")
    second = place.backup(small)
    third = place.backup(small, source="another")
    for result, expected in ((first, copy), (second, small), (third, small)):
        out = tmp_path / str(result.snapshot_id)
        assert place.rescue("restore", str(result.snapshot_id), str(out)).returncode == 0
        assert_same(expected, out)
    ran = place.rescue("restore", "latest", str(tmp_path / "out"))
    assert ran.returncode == 2 and "another" in ran.stderr and "volume" in ran.stderr
    assert place.rescue("restore", "latest", str(tmp_path / "out"), "--source", "volume").returncode == 0
    assert_same(small, tmp_path / "out")
    place.repository.remove(str(second.snapshot_id), by="a test")
    assert place.rescue("restore", str(second.snapshot_id), str(tmp_path / "gone")).returncode == 13
    listed = place.rescue("list", "--json").stdout
    assert str(first.snapshot_id) in listed and str(second.snapshot_id) not in listed
    assert place.rescue("restore", "latest", str(tmp_path / "older"), "--source", "volume").returncode == 0
    assert_same(copy, tmp_path / "older")
    assert place.rescue("check").returncode == 0


def spread(root: Path) -> None:
    """Files that lie in several packs, so that the loss of one leaves something."""
    chance = random.Random(3)
    root.mkdir()
    for n in range(24):
        (root / f"file-{n:02}").write_bytes(chance.randbytes(4 * MIB))


def test_a_lost_pack(place: Place, tmp_path: Path) -> None:
    volume, out = tmp_path / "volume", tmp_path / "out"
    spread(volume)
    place.backup(volume)
    largest = packs(place)
    assert len(largest) > 1
    lost = largest[-1]
    lost.unlink()
    ran = place.rescue("restore", "latest", str(out))
    assert ran.returncode == 4
    missing = sorted(d.path.decode() for d in compare(volume, out))
    kept = [n for n in range(24) if (out / f"file-{n:02}").exists()]
    assert missing and kept, "some of it is lost, and what is not is there"
    named = sorted(line.split(":")[1].strip() for line in ran.stderr.splitlines())
    assert named == missing, "all that is lost is named, and nothing else"
    assert all(d.aspect == "missing" for d in compare(volume, out))
    checked = place.rescue("check")
    assert checked.returncode == 4 and all(f"damaged: {name}:" in checked.stderr for name in missing)
    judged = done(place.repository.verify(place.repository.find("latest").id))
    assert judged.exit_code == 4 and sorted({item.path.decode() for item in judged.hurt}) == missing, (
        "the engine names the same"
    )


def test_flipped_bytes(place: Place, tmp_path: Path) -> None:
    volume, out = tmp_path / "volume", tmp_path / "out"
    spread(volume)
    place.backup(volume)
    chance = random.Random(11)
    hurt = packs(place)[-1]
    blob = bytearray(hurt.read_bytes())
    for _ in range(3):
        blob[chance.randrange(200, len(blob) // 2)] ^= 1 << chance.randrange(8)
    hurt.chmod(0o644)
    hurt.write_bytes(blob)
    ran = place.rescue("restore", "latest", str(out))
    assert ran.returncode == 4 and hurt.name in ran.stderr
    differences = compare(volume, out)
    missing = {d.path.decode() for d in differences}
    assert 1 <= len(missing) <= 3 and all(d.aspect == "missing" for d in differences)
    assert {
        line.split(":")[1].strip() for line in ran.stderr.splitlines() if "a frame cannot be read" not in line
    } == missing
    checked = place.rescue("check")
    assert checked.returncode == 4 and "a pack's checksum differs" in checked.stderr and hurt.name in checked.stderr
    judged = done(place.repository.verify(place.repository.find("latest").id))
    assert judged.exit_code == 4 and {item.path.decode() for item in judged.hurt} == missing


@pytest.mark.parametrize(
    ("first", "code"),
    [("config", 4), ("keys", 12), ("snapshots", 4), ("packs", 4), ("index", 0), ("usage", 0), ("sessions", 0)],
)
def test_damage_by_kind(place: Place, small: Path, tmp_path: Path, first: str, code: int) -> None:
    name = str(place.backup(small).snapshot_id)
    folder = place.folder / first
    found = sorted(folder.iterdir()) if folder.exists() else []
    if first == "sessions":
        assert not found, "an ended writer leaves no marker"
        return
    assert found
    for path in found:
        blob = path.read_bytes()
        path.chmod(0o644)
        path.write_bytes(blob[: len(blob) // 2] + bytes([blob[len(blob) // 2] ^ 1]) + blob[len(blob) // 2 + 1 :])
    ran = place.rescue("restore", name, str(tmp_path / "out"))
    assert ran.returncode == code, ran.stderr
    if code == 0:
        assert_same(small, tmp_path / "out")
    assert place.rescue("check").returncode == (code or 4)
