"""Volumes into repositories: what is captured, what is read, what is left out, what is named as lost."""

import os
import stat
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from longshore import datapath
from longshore.errors import SnapshotNotFoundError, UsageError, VolumeError
from tests.engine.conftest import Place, assert_same, done
from tests.oracle.make_tree import make_tree, remove_tree
from tests.support.lacking import needs


def test_rescue_restores_what_was_backed_up(place: Place, volume: Path, tmp_path: Path) -> None:
    result = place.backup(volume, tags={"z": "1", "a": "2"}, host="node-1")
    assert (result.exit_code, result.lost, result.changed) == (0, [], [])
    rescued = place.rescue("restore", str(result.snapshot_id), str(tmp_path / "out"))
    try:
        assert rescued.returncode == 0, rescued.stdout + rescued.stderr
        assert_same(volume, tmp_path / "out")
        assert place.rescue("check").returncode == 0
    finally:
        remove_tree(tmp_path / "out")
    found = place.repository.find("latest")
    assert (found.id, found.tags, found.host) == (result.snapshot_id, {"a": "2", "z": "1"}, "node-1")
    assert found.path == os.fsencode(volume)
    assert (found.files_total, found.bytes_total) == (result.files_total, result.bytes_total)
    assert abs(found.started.timestamp() - time.time()) < 600


def test_an_unchanged_volume_is_not_read_again(place: Place, volume: Path) -> None:
    first = place.backup(volume)
    assert first.bytes_read > 1 << 20
    second = place.backup(volume)
    assert second.parent_id == first.snapshot_id
    assert (second.bytes_read, second.files_new, second.files_changed) == (0, 0, 0)
    assert second.files_unchanged == second.files_total == first.files_total
    assert sum(name.startswith("packs/") for name in place.objects()) == sum(
        name.startswith("packs/") and str(first.snapshot_id).removeprefix("ls0-") in name for name in place.objects()
    ), "a second backup of the same stored packs"


@pytest.mark.parametrize("cached", [True, False])
def test_other_owners_and_modes_cost_no_content(place: Place, volume: Path, tmp_path: Path, cached: bool) -> None:
    """`chown -R` and `chmod -R` give every file another inode change time, and none another content."""
    if cached:
        place = replace(place, repository=datapath.open(place.store, place.key, cache_dir=tmp_path / "cache"))
    first = place.backup(volume)
    for folder, folders, files in os.walk(os.fsencode(volume)):
        for path in (os.path.join(folder, name) for name in folders + files):
            info = os.lstat(path)
            if os.geteuid() == 0:
                os.lchown(path, info.st_uid + 1, info.st_gid + 1)
            if not stat.S_ISLNK(info.st_mode):
                os.chmod(path, stat.S_IMODE(info.st_mode) ^ 0o010)
    second = place.backup(volume)
    assert second.parent_id == first.snapshot_id
    assert (second.bytes_read, second.files_new, second.files_changed) == (0, 0, 0)
    assert second.files_unchanged == first.files_total
    rescued = place.rescue("restore", str(second.snapshot_id), str(tmp_path / "out"))
    try:
        assert rescued.returncode == 0, rescued.stdout + rescued.stderr
        assert_same(volume, tmp_path / "out")
    finally:
        remove_tree(tmp_path / "out")


def test_a_file_of_a_tebibyte_costs_what_is_in_it(place: Place, tmp_path: Path) -> None:
    """Almost all of it is holes: nothing of them is read, stored, or written by a restore."""
    source, size_bytes = tmp_path / "source", 1 << 40
    source.mkdir()
    parts = {0: b"begin" * 1000, 1 << 39: os.urandom(300_000), size_bytes - 3: b"end"}
    with (source / "sparse").open("wb") as file:
        file.truncate(size_bytes)
        for offset, content in parts.items():
            file.seek(offset)
            file.write(content)
    result = place.backup(source)
    assert (result.exit_code, result.bytes_total) == (0, size_bytes)
    assert result.bytes_read < 4 << 20 and result.bytes_stored < 1 << 20
    place.restore(tmp_path / "restored")
    rescued = place.rescue("restore", "latest", str(tmp_path / "rescued"))
    assert rescued.returncode == 0, rescued.stdout + rescued.stderr
    for target in (tmp_path / "restored", tmp_path / "rescued"):
        found = os.stat(target / "sparse")
        assert (found.st_size, found.st_mtime_ns) == (size_bytes, (source / "sparse").stat().st_mtime_ns)
        assert found.st_blocks * 512 < 4 << 20
        with (target / "sparse").open("rb", buffering=0) as file:
            for offset, content in parts.items():
                assert os.pread(file.fileno(), len(content), offset) == content
            # What lies between is zeros, wherever any is kept.
            at = 0
            while at < size_bytes:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
                until = os.lseek(file.fileno(), at, os.SEEK_HOLE)
                kept = bytearray(os.pread(file.fileno(), until - at, at))
                for offset, content in parts.items():
                    if at <= offset < until:
                        kept[offset - at : offset - at + len(content)] = bytes(len(content))
                assert not any(kept), at
                at = until


def test_only_what_changed_is_read_and_stored(place: Place, small: Path, tmp_path: Path) -> None:
    (small / "large").write_bytes(os.urandom(8 << 20))
    first = place.backup(small)
    with (small / "large").open("r+b") as file:
        file.seek(4 << 20)
        file.write(b"changed")
    (small / "new").write_bytes(b"new")
    (small / "a").unlink()
    second = place.backup(small)
    assert (second.files_new, second.files_changed, second.files_unchanged) == (1, 1, 2)
    assert second.bytes_read == (8 << 20) + 3
    assert second.bytes_stored < first.bytes_stored / 4
    assert place.rescue("restore", "latest", str(tmp_path / "out")).returncode == 0
    assert_same(small, tmp_path / "out")


def test_the_parent_can_be_chosen(place: Place, small: Path) -> None:
    first = place.backup(small)
    (small / "a").write_bytes(b"other")
    place.backup(small)
    assert place.backup(small, parent="none").parent_id is None
    assert place.backup(small, parent="none").bytes_read > 1 << 19
    third = place.backup(small, parent=first.snapshot_id)
    assert (third.parent_id, third.files_changed) == (first.snapshot_id, 1)
    assert place.backup(small, source="another volume").parent_id is None
    with pytest.raises(SnapshotNotFoundError):
        place.backup(small, parent="ls0-" + "0" * 32)


def test_paranoid_reads_what_looks_unchanged(place: Place, small: Path) -> None:
    first = place.backup(small)
    assert place.backup(small, paranoid=True).bytes_read == first.bytes_total


def test_excluded_names_are_left_out(place: Place, small: Path) -> None:
    (small / ".velero").mkdir()
    (small / ".velero" / "marker").write_bytes(b"x")
    (small / "below" / ".velero").write_bytes(b"x")
    (small / "x.tmp").write_bytes(b"x")
    result = place.backup(small, excludes=["*.tmp", "/below/c"], exclude_root_names=[b".velero"])
    names = {entry.path for entry in place.repository.entries(str(result.snapshot_id), recursive=True).rows}
    assert names == {b"a", b"b", b"below", b"below/.velero"}
    with pytest.raises(UsageError) as caught:
        place.backup(small, excludes=["["])
    assert "[" in caught.value.message and caught.value.next_step


def test_a_dry_run_writes_nothing(place: Place, small: Path) -> None:
    place.backup(small)
    (small / "new").write_bytes(os.urandom(100_000))
    before = place.objects()
    result = place.backup(small, dry_run=True)
    assert (result.snapshot_id, result.files_new, result.files_unchanged, result.exit_code) == (None, 1, 3, 0)
    assert place.objects() == before


def test_an_empty_volume_is_a_snapshot(place: Place, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = place.backup(tmp_path / "empty")
    assert (result.files_total, result.bytes_total, result.exit_code) == (0, 0, 0)
    assert place.restore(tmp_path / "out").exit_code == 0
    assert_same(tmp_path / "empty", tmp_path / "out")


def test_an_absent_volume_is_no_empty_snapshot(place: Place, tmp_path: Path) -> None:
    with pytest.raises(VolumeError) as caught:
        place.backup(tmp_path / "absent")
    assert "absent" in caught.value.message and caught.value.next_step
    assert place.repository.snapshots().rows == []


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "fast"},
        {"compression": 0},
        {"compression": 23},
        {"compression": -8},
        {"verify_upload": "some"},
        {"workers": 0},
        {"memory_limit_bytes": -1},
    ],
)
def test_options_that_make_no_sense_are_refused(place: Place, small: Path, options: dict[str, object]) -> None:
    with pytest.raises(UsageError) as caught:
        place.backup(small, **options)
    assert caught.value.next_step


@pytest.mark.parametrize("compression", ["auto", "none", -7, 1, 9])
@pytest.mark.parametrize("verify_upload", ["full", "header", "none"])
def test_every_way_to_store_reads_back(
    place: Place, small: Path, tmp_path: Path, compression: str | int, verify_upload: str
) -> None:
    result = place.backup(small, compression=compression, verify_upload=verify_upload, workers=1)
    assert place.rescue("restore", str(result.snapshot_id), str(tmp_path / "out")).returncode == 0
    assert_same(small, tmp_path / "out")
    if compression != "none":
        assert result.bytes_stored < result.bytes_total / 4


@needs(os.geteuid() == 0, "only root can become someone who may not read")
def test_unreadable_files_are_named_and_the_rest_is_kept(place: Place, small: Path, tmp_path: Path) -> None:
    (small / "secret").write_bytes(b"x" * 5000)
    (small / "secret").chmod(0)
    (small / "closed").mkdir()
    (small / "closed" / "inside").write_bytes(b"x")
    (small / "closed").chmod(0)
    # Another process, because a thread cannot give up root's right to read everything alone.
    program = f"""
import os, sys
sys.path[:0] = {[str(Path(datapath.__file__).parents[2])]!r}
from longshore import datapath as d
r = d.open(d.FolderStore({str(place.folder)!r}), d.Key.from_file({str(place.key_file)!r}))
os.setgroups([]); os.setgid(65534); os.setuid(65534)
result = r.backup(d.BackupOptions({str(small)!r}, source="volume")).result()
print(result.exit_code, result.items_lost, result.snapshot_id, *[(i.path, i.reason) for i in result.lost])
assert all("denied" in i.message.lower() for i in result.lost), result.lost
"""
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == os.geteuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o011)
    subprocess.run(["chmod", "-R", "a+rwX", str(place.folder), str(place.key_file)], check=True)
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    code, lost, snapshot_id, rest = ran.stdout.strip().split(" ", 3)
    assert (code, lost) == ("3", "2")
    assert rest == "(b'closed', 'unreadable') (b'secret', 'unreadable')"
    found = place.repository.find(snapshot_id)
    assert found.items_lost == 2 and [item.path for item in found.lost] == [b"closed", b"secret"]
    (small / "secret").unlink()
    (small / "closed").chmod(0o700)
    place.restore(tmp_path / "out", snapshot_id)
    assert (tmp_path / "out" / "b").read_bytes() == (small / "b").read_bytes()


def test_a_file_that_changes_while_it_is_read_is_kept_marked_and_read_again(place: Place, small: Path) -> None:
    (small / "busy").write_bytes(os.urandom(24 << 20))
    stop = threading.Event()

    def write() -> None:
        with (small / "busy").open("r+b", buffering=0) as file:
            while not stop.is_set():
                file.seek(0)
                file.write(os.urandom(4096))

    def caught(*, strict: bool) -> datapath.BackupResult:
        # On a busy machine the writer may not have its turn while the file is read; then nothing changed, and nothing is marked.
        while True:
            result = place.backup(small, parent="none", strict=strict)
            if result.items_changed:
                return result
            assert (result.exit_code, result.changed) == (0, [])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        strict = caught(strict=True)
        result = caught(strict=False)
    finally:
        stop.set()
        writer.join()
    assert (result.exit_code, result.items_changed, result.changed) == (0, 1, [b"busy"])
    assert (strict.exit_code, strict.changed) == (3, [b"busy"]) and strict.snapshot_id
    marked = {entry.path: entry.changed for entry in place.repository.entries(str(result.snapshot_id)).rows}
    assert marked == {b"a": False, b"b": False, b"below": False, b"busy": True}
    quiet = place.backup(small)
    assert quiet.bytes_read == 24 << 20, "what had changed under the reader was not read again"
    assert (quiet.items_changed, quiet.exit_code) == (0, 0)


def test_two_backups_at_once_harm_nothing(place: Place, tmp_path: Path) -> None:
    jobs = []
    for seed in (1, 2):
        make_tree(tmp_path / f"volume{seed}", seed=seed, depth=30)
        other = datapath.open(place.store, place.key)
        jobs.append(other.backup(datapath.BackupOptions(str(tmp_path / f"volume{seed}"), source=f"volume{seed}")))
    results = [done(job) for job in jobs]
    assert [result.exit_code for result in results] == [0, 0]
    assert place.rescue("check").returncode == 0
    for seed, result in zip((1, 2), results, strict=True):
        assert place.rescue("restore", result.snapshot_id, str(tmp_path / f"out{seed}")).returncode == 0
        assert_same(tmp_path / f"volume{seed}", tmp_path / f"out{seed}")
