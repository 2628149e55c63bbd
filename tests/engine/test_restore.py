"""Repositories back into volumes: whole, in part, over what is there, with damage, by policy."""

import os
from pathlib import Path

import pytest

from longshore import datapath
from longshore.errors import CancelledError, SnapshotNotFoundError, VolumeError
from tests.engine.conftest import Place, assert_same, done
from tests.oracle.make_tree import remove_tree

FRAMES_ARE_HIT = 3


def test_everything_comes_back(place: Place, volume: Path, tmp_path: Path) -> None:
    saved = place.backup(volume)
    result = place.restore(tmp_path / "out")
    try:
        assert (result.exit_code, result.lost, result.dropped) == (0, [], [])
        assert_same(volume, tmp_path / "out")
        assert (result.files_total, result.bytes_total) == (saved.files_total, saved.bytes_total)
    finally:
        remove_tree(tmp_path / "out")


def test_what_is_there_is_not_written_again(place: Place, small: Path, tmp_path: Path) -> None:
    place.backup(small)
    place.restore(tmp_path / "out")
    again = place.restore(tmp_path / "out")
    assert (again.bytes_written, again.files_unchanged, again.exit_code) == (0, 3, 0)
    (tmp_path / "out" / "a").write_bytes(b"other")
    (tmp_path / "out" / "extra").write_bytes(b"extra")
    (tmp_path / "out" / "below" / "c").unlink()
    (tmp_path / "out" / "below" / "c").mkdir()
    mended = place.restore(tmp_path / "out")
    assert (mended.exit_code, mended.extra_deleted) == (0, 0)
    assert (tmp_path / "out" / "extra").exists()
    swept = place.restore(tmp_path / "out", delete_extra=True)
    assert (swept.exit_code, swept.extra_deleted) == (0, 1)
    assert_same(small, tmp_path / "out")


def test_a_part_is_laid_into_the_target(place: Place, small: Path, tmp_path: Path) -> None:
    place.backup(small)
    assert place.restore(tmp_path / "directory", path=b"below").files_total == 1
    assert_same(small / "below", tmp_path / "directory")
    assert place.restore(tmp_path / "file", path=b"/b").files_total == 1
    assert (tmp_path / "file" / "b").read_bytes() == (small / "b").read_bytes()
    with pytest.raises(SnapshotNotFoundError):
        place.restore(tmp_path / "none", path=b"below/none")


def test_a_dry_run_writes_nothing(place: Place, small: Path, tmp_path: Path) -> None:
    place.backup(small)
    result = place.restore(tmp_path / "out", dry_run=True)
    assert (result.files_total, result.bytes_written) == (3, 0)
    assert not (tmp_path / "out").exists()


def test_without_trust_nothing_lends_rights(place: Place, small: Path, tmp_path: Path) -> None:
    (small / "a").chmod(0o4755)
    if os.geteuid() == 0:
        os.mknod(small / "null", 0o666 | 0o020000, os.makedev(1, 3))
    saved = place.backup(small)
    options = datapath.RestoreOptions(str(saved.snapshot_id), target=str(tmp_path / "out"))
    result = done(place.repository.restore(options))
    assert (tmp_path / "out" / "a").stat().st_mode & 0o7777 == 0o755
    expected = {(b"a", "policy"), (b"null", "policy")} if os.geteuid() == 0 else {(b"a", "policy")}
    assert {(item.path, item.reason) for item in result.dropped} == expected
    assert (result.exit_code, result.items_lost, result.items_dropped) == (0, 0, len(expected))
    assert (
        done(
            place.repository.restore(
                datapath.RestoreOptions(str(saved.snapshot_id), target=str(tmp_path / "out"), strict=True)
            )
        ).exit_code
        == 3
    )
    assert place.restore(tmp_path / "trusted").items_dropped == 0
    assert (tmp_path / "trusted" / "a").stat().st_mode & 0o7777 == 0o4755


def test_a_target_that_cannot_be_is_told(place: Place, small: Path, tmp_path: Path) -> None:
    place.backup(small)
    for target in (tmp_path / "no" / "parent", small / "a"):
        with pytest.raises(VolumeError) as caught:
            place.restore(target)
        assert str(target) in caught.value.message and caught.value.next_step


def test_damaged_data_is_never_laid_down(place: Place, volume: Path, tmp_path: Path) -> None:
    (volume / "files" / "victim").write_bytes(os.urandom(3 << 20))
    place.backup(volume)
    pack = max((place.folder / "packs").iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(pack.read_bytes())
    for place_in_file in range(len(content) // 4, len(content) // 2, len(content) // 4 // FRAMES_ARE_HIT):
        content[place_in_file] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(content)
    result = place.restore(tmp_path / "out")
    try:
        assert result.exit_code == 4
        assert result.items_damaged == result.items_lost == len(result.lost) > 0
        assert {item.reason for item in result.lost} == {"damaged"}
        for item in result.lost:
            assert not os.path.lexists(os.path.join(os.fsencode(tmp_path), b"out", item.path)), item
        rescued = place.rescue("restore", "latest", str(tmp_path / "rescued"))
        assert rescued.returncode == 4, "an independent reader sees no damage"
        lost = {item.path for item in result.lost}
        for path in sorted((volume / "files").rglob("*")):
            name = path.relative_to(volume)
            if path.is_file() and os.fsencode(name) not in lost:
                assert (tmp_path / "out" / name).read_bytes() == path.read_bytes()
    finally:
        remove_tree(tmp_path / "out")
        if (tmp_path / "rescued").exists():
            remove_tree(tmp_path / "rescued")


def test_a_cancelled_restore_can_be_run_again(place: Place, tmp_path: Path) -> None:
    (tmp_path / "large").mkdir()
    for number in range(20):
        (tmp_path / "large" / f"f{number}").write_bytes(os.urandom(8 << 20))
    saved = place.backup(tmp_path / "large")
    options = datapath.RestoreOptions(str(saved.snapshot_id), target=str(tmp_path / "out"), workers=1)
    job = place.repository.restore(options)
    while not job.progress().bytes_moved:
        assert not job.wait(0.002)
    job.cancel()
    with pytest.raises(CancelledError):
        done(job)
    assert not list((place.folder / "sessions").iterdir()), "the reader's marker stayed"
    assert place.restore(tmp_path / "out").exit_code == 0
    assert_same(tmp_path / "large", tmp_path / "out")
