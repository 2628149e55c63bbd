"""What is true of every location: keys stay below it, and its top belongs to backups."""

from collections.abc import Iterator

import pytest

from longshore.errors import UsageError
from longshore.objectstore.store import check_key, check_prefix, validate_layout


class Top:
    """A store of which only the top is asked."""

    url = "s3://backups"

    def __init__(self, *folders: str) -> None:
        self._folders = folders

    def probe(self) -> tuple[str, ...]:
        return self._folders

    def list_common_prefixes(self, prefix: str) -> tuple[str, ...]:
        raise NotImplementedError

    def list(self, prefix: str) -> Iterator[str]:
        raise NotImplementedError

    def exists(self, key: str) -> bool:
        raise NotImplementedError

    def get(self, key: str, *, size_bytes_max: int = 0) -> bytes:
        raise NotImplementedError

    def put(self, key: str, data: bytes) -> None:
        raise NotImplementedError

    def delete(self, key: str) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


def test_veleros_folders_are_at_home() -> None:
    folders = ("backups", "kopia", "metadata", "plugins", "restic", "restores")
    assert validate_layout(Top(*folders)) == folders
    assert validate_layout(Top()) == ()


def test_strangers_are_named() -> None:
    with pytest.raises(UsageError) as refused:
        validate_layout(Top("backups", "photos", *(f"x{number}" for number in range(6))))
    assert "folders=[photos, x0, x1, x2, x3 and 2 more]" in refused.value.message
    assert "plugins" in (refused.value.next_step or "")


@pytest.mark.parametrize(
    "key", ["", "/", "/a", "a/", "a//b", "..", "a/../b", "./a", "a\nb", "a\x00", "a" * 1025, "ä" * 600]
)
def test_key_cannot_leave_the_location(key: str) -> None:
    with pytest.raises(UsageError, match="not a key"):
        check_key(key)


@pytest.mark.parametrize("prefix", ["a", "/", "../", "a//"])
def test_prefix_cannot_either(prefix: str) -> None:
    with pytest.raises(UsageError):
        check_prefix(prefix)


def test_plain_keys_pass() -> None:
    assert check_key("backups/a b/…/x.tar.gz") == "backups/a b/…/x.tar.gz"
    assert (check_prefix(""), check_prefix("backups/a/")) == ("", "backups/a/")
