"""What words on the command line mean."""

from __future__ import annotations

import os

import click
import pytest

from longshore.cli.source import default_source, machine_id
from longshore.cli.values import BYTES, COMPRESSION, FENCE_AFTER, SNAPSHOT_PATH, matcher, parse_tags, read_patterns
from longshore.errors import UsageError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("512MiB", 512 << 20),
        ("512mi", 512 << 20),
        ("2G", 2 << 30),
        ("1.5 GiB", 3 << 29),
        ("1GB", 10**9),
        ("10kB", 10**4),
        ("7b", 7),
    ],
)
def test_sizes(text: str, value: int) -> None:
    assert BYTES.convert(text, None, None) == value


@pytest.mark.parametrize("text", ["", "0", "-1", "1XB", "one", "1 2", "0.0001", "8388608TiB", "9" * 400], ids=range(9))
def test_no_sizes(text: str) -> None:
    with pytest.raises(click.BadParameter):
        BYTES.convert(text, None, None)


def test_spans_after_which_a_session_is_judged_dead() -> None:
    spans = {"1h": 3600, "90m": 5400, "72h": 259_200, "3d": 259_200, " 168h0m0s ": 604_800}
    assert {text: FENCE_AFTER.convert(text, None, None) for text in spans} == spans
    for text in ("", "7", "d", "-3d", "-72h", "soon", "3d12h", "\u0663d"):
        with pytest.raises(click.BadParameter, match=r"no span of time|shorter than an hour"):
            FENCE_AFTER.convert(text, None, None)
    for text in ("0s", "59m59s", "0d", "1ns"):
        with pytest.raises(click.BadParameter, match="shorter than an hour"):
            FENCE_AFTER.convert(text, None, None)


def test_compression() -> None:
    taken = ["auto", "none", "1", "19", "-1", "-7"]
    assert [COMPRESSION.convert(text, None, None) for text in taken] == ["auto", "none", 1, 19, -1, -7]
    for text in ("0", "-0", "20", "-8", "--3", "+3", "fast", "\u0663", ""):
        with pytest.raises(click.BadParameter):
            COMPRESSION.convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("latest", ("latest", b"")),
        ("ls0-12:/a//b/", ("ls0-12", b"a/b")),
        ("12:a:b", ("12", b"a:b")),
        ("12:./a", ("12", b"a")),
        ("12:" + os.fsdecode(b"\xff"), ("12", b"\xff")),
    ],
)
def test_snapshot_and_path(text: str, value: tuple[str, bytes]) -> None:
    assert SNAPSHOT_PATH.convert(text, None, None) == value


@pytest.mark.parametrize("text", ["", ":a", "12:../etc", "12:a/../b"])
def test_no_snapshot_or_path(text: str) -> None:
    with pytest.raises(click.BadParameter):
        SNAPSHOT_PATH.convert(text, None, None)


def test_tags() -> None:
    assert parse_tags(["a=b", "c=d=e", "f="]) == {"a": "b", "c": "d=e", "f": ""}
    for bad in (["a"], ["=b"], ["a=1", "a=2"]):
        with pytest.raises(UsageError):
            parse_tags(bad)


def test_patterns_of_a_file(tmp_path) -> None:
    file = tmp_path / "patterns"
    file.write_text("# caches\n\n  *.tmp \n/var/cache\n")
    assert read_patterns(str(file)) == ["*.tmp", "/var/cache"]
    with pytest.raises(UsageError, match="No such file"):
        read_patterns(str(tmp_path / "absent"))
    file.write_bytes(b"\xff\n")
    with pytest.raises(UsageError, match="UTF-8"):
        read_patterns(str(file))


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.conf", b"etc/nginx/a.conf", True),
        ("*.conf", b"a.conf", True),
        ("*.conf", b"a.conf/b", False),
        ("/etc/*.conf", b"etc/a.conf", True),
        ("/etc/*.conf", b"etc/b/a.conf", False),
        ("etc/**/a.conf", b"etc/x/y/a.conf", True),
        ("etc/**/a.conf", b"etc/a.conf", True),
        ("etc/**", b"etc/x/y", True),
        ("data/?", b"data/\xff", True),
        ("data/?", b"data/ab", False),
        ("[!a-c]x", b"dx", True),
        ("[!a-c]x", b"ax", False),
        ("[!a]x", b"q/x", False),
        ("[[]x", b"[x", True),
        ("[]]x", b"]x", True),
        ("a\\*", b"a*", True),
        ("a\\*", b"ab", False),
        ("a.b", b"axb", False),
        ("dir/", b"x/dir", True),
        ("new\nline", b"new\nline", True),
    ],
)
def test_find_patterns(pattern: str, path: bytes, matches: bool) -> None:
    assert bool(matcher(pattern).fullmatch(path)) is matches


@pytest.mark.parametrize("pattern", ["", "/", "a[", "[z-a]"])
def test_no_patterns(pattern: str) -> None:
    with pytest.raises(UsageError):
        matcher(pattern)


def test_source_is_the_machine_and_the_real_path(tmp_path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    assert default_source(str(tmp_path / "link")) == default_source(str(tmp_path / "data") + "/.")
    assert default_source(str(tmp_path / "data")).endswith(f":{os.path.realpath(tmp_path)}/data")
    odd = os.path.join(os.fsencode(tmp_path), b"\xff")
    os.mkdir(odd)
    assert default_source(os.fsdecode(odd)).endswith("/\\xff")


def test_machine_id_is_one_or_the_hosts_name(tmp_path) -> None:
    file = tmp_path / "machine-id"
    assert machine_id((str(file),)) == machine_id(())
    file.write_text("uninitialized\n")
    assert machine_id((str(file),)) == machine_id(())
    file.write_text("0123456789abcdef0123456789abcdef\n")
    assert machine_id((str(tmp_path / "absent"), str(file))) == "0123456789abcdef0123456789abcdef"
