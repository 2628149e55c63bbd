"""Which key is meant, and how a new one is written."""

from __future__ import annotations

import os
import stat

import pytest

from longshore.cli.keys import KeySource, choose, read_passphrase, write_new
from longshore.errors import AlreadyExistsError, UsageError


def _choose(key=None, env_key=None, passphrase=None, env_passphrase=False) -> KeySource:
    return choose(
        key_file=key or env_key,
        key_file_from_environment=key is None and env_key is not None,
        passphrase_file=passphrase,
        environment_passphrase=env_passphrase,
    )


def test_the_command_line_goes_before_the_environment() -> None:
    assert _choose(key="k", env_passphrase=True) == KeySource(key_file="k")
    assert _choose(env_key="k", passphrase="p", env_passphrase=True) == KeySource(passphrase_file="p")
    assert _choose(env_key="k") == KeySource(key_file="k")
    assert _choose(env_passphrase=True) == KeySource(from_environment=True)


@pytest.mark.parametrize("given", [{}, {"key": "k", "passphrase": "p"}, {"env_key": "k", "env_passphrase": True}])
def test_none_or_two_are_refused(given) -> None:
    with pytest.raises(UsageError):
        _choose(**given)


def test_passphrase_ends_before_one_newline(tmp_path) -> None:
    file = tmp_path / "p"
    for content, passphrase in ((b"a b\n", b"a b"), (b"a\r\n", b"a"), (b"a\n\n", b"a\n"), (b"\xff", b"\xff")):
        file.write_bytes(content)
        assert read_passphrase(str(file)) == passphrase
    file.write_bytes(b"\n")
    with pytest.raises(UsageError, match="empty"):
        read_passphrase(str(file))
    with pytest.raises(UsageError, match="No such file"):
        read_passphrase(str(tmp_path / "absent"))


def test_key_file_is_its_owners_alone_and_never_overwritten(tmp_path) -> None:
    file = tmp_path / "key"
    before = os.umask(0)
    try:
        write_new(str(file), "longshore-key-1:00")
    finally:
        os.umask(before)
    assert file.read_bytes() == b"longshore-key-1:00\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with pytest.raises(AlreadyExistsError):
        write_new(str(file), "longshore-key-1:11")
    assert file.read_bytes() == b"longshore-key-1:00\n"


def test_key_file_follows_no_link_and_needs_its_folder(tmp_path) -> None:
    (tmp_path / "link").symlink_to("elsewhere")
    with pytest.raises(AlreadyExistsError):
        write_new(str(tmp_path / "link"), "x")
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(UsageError, match="No such file"):
        write_new(str(tmp_path / "absent" / "key"), "x")
