"""Repositories made, opened, looked at; their keys and snapshots."""

from dataclasses import replace
from pathlib import Path

import pytest

from longshore import datapath
from longshore.errors import (
    CorruptError,
    NewerFormatError,
    RepositoryExistsError,
    SnapshotNotFoundError,
    StoreDeniedError,
    UsageError,
    WrongKeyError,
)
from tests.engine.conftest import Place, assert_same, write_key


def test_a_repository_exists_once_it_was_made(tmp_path: Path) -> None:
    store = datapath.FolderStore(str(tmp_path / "deep" / "repository"))
    assert not datapath.exists(store)
    assert not (tmp_path / "deep").exists()
    made = datapath.init(store, datapath.Key.generate(), label="first")
    assert datapath.exists(store)
    assert [(slot.kind, slot.label) for slot in made.slots()] == [("key", "first")]
    assert (made.store, len(made.id)) == (store, 32)


def test_a_repository_that_exists_is_not_touched(place: Place) -> None:
    before = place.objects()
    with pytest.raises(RepositoryExistsError):
        datapath.init(place.store, datapath.Key.generate())
    assert place.objects() == before


def test_part_of_a_repository_gets_no_new_key(place: Place, small: Path) -> None:
    place.backup(small)
    for config in (place.folder / "config").iterdir():
        config.unlink()
    before = place.objects()
    with pytest.raises(RepositoryExistsError):
        datapath.init(place.store, datapath.Key.generate())
    assert place.objects() == before


def test_only_its_keys_open_it(place: Place, tmp_path: Path) -> None:
    assert datapath.open(place.store, place.key).id == place.repository.id
    for wrong in (datapath.Key.generate(), datapath.Key.from_passphrase(b"guess")):
        with pytest.raises(WrongKeyError) as caught:
            datapath.open(place.store, wrong)
        assert "key file or passphrase" in str(caught.value.next_step)


def test_a_passphrase_opens_and_its_file_may_end_in_a_newline(tmp_path: Path, small: Path) -> None:
    store = datapath.FolderStore(str(tmp_path / "repository"))
    (tmp_path / "passphrase").write_bytes(b"correct horse\n")
    key = datapath.Key.from_passphrase_file(tmp_path / "passphrase")
    made = datapath.init(store, key)
    assert [slot.kind for slot in made.slots()] == ["passphrase"]
    assert datapath.open(store, datapath.Key.from_passphrase(b"correct horse")).id == made.id
    with pytest.raises(WrongKeyError):
        datapath.open(store, datapath.Key.from_passphrase(b"correct horse\n"))
    with pytest.raises(UsageError):
        datapath.Key.from_passphrase(b"")
    with pytest.raises(UsageError):
        key.to_file_text()


def test_keys_come_and_go_and_the_last_one_stays(place: Place, tmp_path: Path) -> None:
    recovery = write_key(tmp_path / "recovery")
    name = place.repository.add_slot(recovery, label="in the safe")
    assert {slot.label for slot in place.repository.slots()} == {"", "in the safe"}
    opened = datapath.open(place.store, recovery)
    assert opened.id == place.repository.id and opened.slot == name != place.repository.slot
    first = next(slot.name for slot in place.repository.slots() if slot.name != name)
    assert first == place.repository.slot == datapath.open(place.store, place.key).slot
    place.repository.remove_slot(first)
    with pytest.raises(WrongKeyError):
        datapath.open(place.store, place.key)
    for wrong in (name, first, "f" * 32, "no name"):
        with pytest.raises(UsageError):
            place.repository.remove_slot(wrong)
    assert datapath.open(place.store, recovery).slots()[0].name == name


@pytest.mark.parametrize("at", [45, 100, 130, -40, -1], ids=["salt", "commitment", "wrapped key", "label", "sum"])
def test_a_damaged_slot_is_no_way_in(place: Place, tmp_path: Path, at: int) -> None:
    name = place.repository.add_slot(write_key(tmp_path / "recovery"), label="in the safe")
    first = next(slot.name for slot in place.repository.slots() if slot.name != name)
    slot = place.folder / "keys" / name
    content = bytearray(slot.read_bytes())
    content[at] ^= 1
    slot.chmod(0o600)
    slot.write_bytes(content)
    assert [row.name for row in place.repository.slots()] == [first]
    with pytest.raises(UsageError, match="last key slot"):
        place.repository.remove_slot(first)
    assert datapath.open(place.store, place.key).id == place.repository.id


def test_a_newer_format_is_refused_by_name(place: Place) -> None:
    (config,) = (place.folder / "config").iterdir()
    content = bytearray(config.read_bytes())
    version = content.index(b"LONGSHOR") + 9
    content[version] += 1
    config.chmod(0o600)
    config.write_bytes(content)
    with pytest.raises((NewerFormatError, CorruptError)) as caught:
        datapath.open(place.store, place.key)
    assert isinstance(caught.value, NewerFormatError), caught.value


def test_snapshots_are_found_by_id_prefix_and_latest(place: Place, small: Path) -> None:
    repository = place.repository
    with pytest.raises(SnapshotNotFoundError):
        repository.find("latest")
    ids = [str(place.backup(small, source=source).snapshot_id) for source in ("one", "one", "two")]
    assert [row.id for row in repository.snapshots().rows] == ids
    assert repository.snapshots().damaged == []
    assert (
        repository.find(ids[0]).id
        == repository.find(ids[0][:-3]).id
        == repository.find(ids[0].removeprefix("ls0-")).id
        == ids[0]
    )
    assert repository.find("latest", source="one").id == ids[1]
    with pytest.raises(UsageError) as caught:
        repository.find("latest")
    assert "one, two" in caught.value.message
    for absent in ("ls0-" + "0" * 32, "ls0-", "zzz", "", "ls0-" + "0" * 40):
        with pytest.raises(SnapshotNotFoundError):
            repository.find(absent)


def test_a_removed_snapshot_is_gone_for_all(place: Place, small: Path) -> None:
    first, second = (str(place.backup(small).snapshot_id) for _ in range(2))
    with pytest.raises(UsageError):
        place.repository.remove("latest", by="test")
    place.repository.remove(first, by="test")
    other = datapath.open(place.store, place.key)
    assert [row.id for row in other.snapshots().rows] == [second]
    for gone in (lambda: other.find(first), lambda: other.remove(first, by="test")):
        with pytest.raises(SnapshotNotFoundError):
            gone()
    assert place.backup(small).parent_id == second


def test_status_counts_what_is_there(place: Place, small: Path) -> None:
    place.backup(small)
    status = place.repository.status()
    packs = list((place.folder / "packs").iterdir())
    assert (status.packs, status.pack_bytes) == (len(packs), sum(pack.stat().st_size for pack in packs))
    assert (status.id, status.format_version, status.snapshots, status.slots) == (place.repository.id, 1, 1, 1)
    assert status.chunks >= 4 and (status.index_damaged, status.snapshots_damaged) == (0, 0)


def test_a_read_only_store_is_not_written_to(place: Place, small: Path, tmp_path: Path) -> None:
    place.backup(small)
    before = place.objects()
    reading = datapath.open(datapath.FolderStore(str(place.folder), read_only=True), place.key)
    assert len(reading.snapshots().rows) == 1
    with pytest.raises(StoreDeniedError):
        reading.backup(datapath.BackupOptions(str(small), source="volume")).result()
    with pytest.raises(StoreDeniedError):
        reading.remove(reading.find("latest").id, by="test")
    options = datapath.RestoreOptions(reading.find("latest").id, target=str(tmp_path / "out"))
    assert reading.restore(options.trusting()).result().exit_code == 0
    assert_same(small, tmp_path / "out")
    assert place.objects() == before
    with pytest.raises(StoreDeniedError):
        datapath.init(datapath.FolderStore(str(tmp_path), read_only=True), place.key)


def test_a_cache_keeps_within_what_it_may_take(place: Place, small: Path, tmp_path: Path) -> None:
    def kept(name: str, limit: int | None) -> int:
        folder = tmp_path / name
        opened = datapath.open(place.store, place.key, cache_dir=folder, cache_limit_bytes=limit)
        replace(place, repository=opened).backup(small)
        assert opened.status().snapshots > 0
        return sum(
            path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.parent.name == "segments"
        )

    free = kept("free", None)
    assert free > 1
    assert kept("small", 1) == 0


def test_a_cache_folder_changes_nothing_but_time(place: Place, small: Path, tmp_path: Path) -> None:
    first, again = (
        replace(place, repository=datapath.open(place.store, place.key, cache_dir=tmp_path / "cache")) for _ in range(2)
    )
    saved = first.backup(small)
    assert again.backup(small).bytes_read == 0
    for path in (tmp_path / "cache").rglob("*"):
        if path.is_file():
            assert path.stat().st_mode & 0o077 == 0, path
            path.write_bytes(b"damaged")
    assert again.repository.snapshots().rows[0].id == saved.snapshot_id
    assert again.backup(small).exit_code == 0
    assert place.rescue("check").returncode == 0
