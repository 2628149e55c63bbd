"""A folder behaves as a bucket does, and no link, FIFO or stranger in it leads us astray."""

import errno
import os
from pathlib import Path

import pytest
from tests.unit.objectstore.locations import filesystem, secrets

from longshore.errors import (
    DeniedError,
    NoSpaceError,
    NotFoundError,
    StoreDeniedError,
    StoreUnavailableError,
    UnsupportedError,
    UsageError,
)
from longshore.objectstore.filesystem import FilesystemStore
from longshore.objectstore.opening import open_store
from longshore.objectstore.store import ObjectStore, validate_layout


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    (tmp_path / "nas").mkdir()
    return open_store(
        filesystem(tmp_path / "nas", objectStorage={"bucket": "backups", "prefix": "one"}), read_secret=secrets()
    )


def top_of(tmp_path: Path) -> Path:
    return tmp_path / "nas" / "backups" / "one"


def test_objects_come_and_go(store: ObjectStore, tmp_path: Path) -> None:
    assert store.probe() == ()
    store.put("backups/a/velero-backup.json", b"{}")
    store.put("backups/b/log.gz", b"")
    store.put("backups/a/velero-backup.json", b'{"new": 1}')
    store.put("metadata", b"x")
    assert store.get("backups/a/velero-backup.json") == b'{"new": 1}'
    assert store.get("backups/b/log.gz") == b""
    assert (store.exists("backups/b/log.gz"), store.exists("backups/b"), store.exists("backups/c/x")) == (
        True,
        False,
        False,
    )
    assert list(store.list("")) == ["backups/a/velero-backup.json", "backups/b/log.gz", "metadata"]
    assert list(store.list("backups/a/")) == ["backups/a/velero-backup.json"]
    assert list(store.list("none/")) == []
    assert store.list_common_prefixes("backups/") == ("backups/a/", "backups/b/")
    assert store.list_common_prefixes("none/") == ()
    assert store.probe() == ("backups",)
    store.delete("backups/a/velero-backup.json")
    store.delete("backups/a/velero-backup.json")
    store.delete("never/was")
    assert store.list_common_prefixes("backups/") == ("backups/b/",)
    with pytest.raises(NotFoundError):
        store.get("backups/a/velero-backup.json")
    assert (top_of(tmp_path) / "backups/b/log.gz").stat().st_mode & 0o777 == 0o600
    assert (top_of(tmp_path) / "backups").stat().st_mode & 0o777 == 0o700


def test_keys_are_listed_in_the_order_of_their_bytes(store: ObjectStore) -> None:
    keys = ["a-b/x", "a/x", "a.b", "a0"]
    for key in keys:
        store.put(key, b"")
    assert list(store.list("")) == sorted(keys)


def test_bucket_and_prefix_may_be_left_out(tmp_path: Path) -> None:
    plain = FilesystemStore(filesystem(tmp_path))
    plain.put("plugins/x", b"1")
    assert (tmp_path / "plugins" / "x").read_bytes() == b"1"
    assert plain.probe() == ("plugins",)


def test_folder_that_went_away_is_not_an_empty_store(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "nas").rmdir()
    for ask in (store.probe, lambda: store.exists("a"), lambda: list(store.list("")), lambda: store.put("a", b"")):
        with pytest.raises(StoreUnavailableError, match="cannot be opened"):
            ask()
    assert not (tmp_path / "nas").exists()


def test_folder_that_became_a_link_is_refused(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "nas").rmdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "nas").symlink_to("elsewhere")
    with pytest.raises(UsageError, match="symbolic link"):
        store.put("a", b"")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_folder_that_goes_away_under_our_hands_is_not_made_anew(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A NAS that is unmounted after the check must not turn into a folder on the node's own disk."""

    def check(text: str, **_: object) -> Path:
        (tmp_path / "nas").rmdir()
        return Path(text)

    monkeypatch.setattr("longshore.objectstore.filesystem.check_folder", check)
    with pytest.raises(NotFoundError):
        store.put("a", b"")
    assert not (tmp_path / "nas").exists()


def test_folder_that_becomes_a_link_under_our_hands_is_not_followed(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()

    def check(text: str, **_: object) -> Path:
        (tmp_path / "nas").rmdir()
        (tmp_path / "nas").symlink_to("elsewhere")
        return Path(text)

    monkeypatch.setattr("longshore.objectstore.filesystem.check_folder", check)
    with pytest.raises(NotFoundError):
        store.put("a", b"")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_links_inside_are_never_followed(store: ObjectStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    store.put("backups/a", b"")
    top = top_of(tmp_path)
    (top / "restores").symlink_to(outside)
    (top / "file").symlink_to(outside / "secret")
    assert store.probe() == ("backups",)
    assert list(store.list("")) == ["backups/a"]
    assert not store.exists("file")
    for key in ("file", "restores/secret"):
        with pytest.raises(NotFoundError):
            store.get(key)
        assert not store.exists(key)
    with pytest.raises(NotFoundError, match="plain folders"):
        store.put("restores/new", b"")
    store.put("file", b"ours")
    store.delete("file")
    assert {one.name: one.read_text() for one in outside.iterdir()} == {"secret": "secret"}


def test_fifo_does_not_hold_us_up(store: ObjectStore, tmp_path: Path) -> None:
    store.put("a", b"")
    os.mkfifo(top_of(tmp_path) / "pipe")
    with pytest.raises(NotFoundError, match="no file"):
        store.get("pipe")
    assert list(store.list("")) == ["a"]


def test_what_is_no_object_does_not_show(store: ObjectStore, tmp_path: Path) -> None:
    store.put("backups/a", b"")
    top = top_of(tmp_path)
    (top / "lost+found").mkdir()
    (top / ".snapshot" / "daily").mkdir(parents=True)
    (top / ".snapshot" / "daily" / "file").touch()
    (top / "backups" / ".longshore-tmp-0123").touch()
    assert validate_layout(store) == ("backups",)
    assert list(store.list("backups/")) == ["backups/a"]


def test_failed_put_leaves_the_old_object_and_nothing_else(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("backups/a", b"old")

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(NoSpaceError, match="key=backups/a"):
            store.put("backups/a", b"new")
    assert store.get("backups/a") == b"old"
    assert [one.name for one in (top_of(tmp_path) / "backups").iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (errno.EACCES, StoreDeniedError),
        (errno.EROFS, StoreDeniedError),
        (errno.EDQUOT, NoSpaceError),
        (errno.ESTALE, StoreUnavailableError),
        (errno.EIO, StoreUnavailableError),
    ],
)
def test_errors_are_sorted_by_what_to_do(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, code: int, error: type[Exception]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(error) as refused:
        store.put("a", b"")
    assert refused.value.next_step  # type: ignore[attr-defined]


def test_object_longer_than_expected_is_not_taken(store: ObjectStore) -> None:
    store.put("a", b"12345")
    assert store.get("a", size_bytes_max=5) == b"12345"
    with pytest.raises(UnsupportedError, match="size_bytes_max=4"):
        store.get("a", size_bytes_max=4)


def test_read_only_location_is_not_written(tmp_path: Path) -> None:
    FilesystemStore(filesystem(tmp_path)).put("backups/a", b"1")
    reader = FilesystemStore(filesystem(tmp_path, accessMode="ReadOnly", objectStorage={"bucket": "none"}))
    assert reader.probe() == ()
    reader = FilesystemStore(filesystem(tmp_path, accessMode="ReadOnly"))
    for write in (
        lambda: reader.put("backups/a", b"2"),
        lambda: reader.delete("backups/a"),
        lambda: reader.put("n/b", b""),
    ):
        with pytest.raises(DeniedError, match="read-only: location=nas"):
            write()
    assert (reader.get("backups/a"), reader.probe()) == (b"1", ("backups",))
    assert sorted(one.name for one in tmp_path.iterdir()) == ["backups"]
