"""The oracle says "equal" of equal trees and names each single thing in which they differ."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.oracle.compare import compare, compare_and_count, main
from tests.oracle.make_tree import ACL_ACCESS, make_tree, remove_tree
from tests.support.lacking import needs

ROOT = os.geteuid() == 0
needs_root = needs(ROOT, "only root may do this")
DEPTH = 20
# A file of mode 0000 cannot be compared by an ordinary user; everything else can.
IGNORE = () if ROOT else ("unreadable",)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    a, b = tmp_path / "a", tmp_path / "b"
    for target in (a, b):
        make_tree(target, files=20, total_bytes=50_000, depth=DEPTH)
    return a, b


def keeping_time(path: Path, change: Callable[[], object]) -> None:
    parents = [path, path.parent]
    before = [(each, each.lstat()) for each in parents if os.path.lexists(each)]
    change()
    for each, state in before:
        if os.path.lexists(each):
            os.utime(each, ns=(state.st_atime_ns, state.st_mtime_ns), follow_symlinks=False)


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))


def replace(path: Path, make: Callable[[], object]) -> None:
    path.unlink()
    make()


def fill_hole(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(1 << 16)
        file.write(bytes(1 << 16))


def split_link(path: Path) -> None:
    content, state = path.read_bytes(), path.stat()
    path.unlink()
    path.write_bytes(content)
    path.chmod(state.st_mode & 0o7777)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def test_equal_trees_are_equal_and_were_looked_at(pair: tuple[Path, Path]) -> None:
    differences, counts = compare_and_count(*pair, ignore=IGNORE)
    assert differences == []
    assert counts.entries > 350
    assert counts.files > 300
    assert counts.hard_link_groups == 3
    assert counts.holes > 15
    assert counts.xattrs > 5


CHANGES: list[tuple[str, str, Callable[[Path], object], set[str]]] = [
    ("content", "sparse/none", lambda p: flip(p, 60_000), {"content"}),
    ("content in the middle of a terabyte", "sparse/terabyte", lambda p: flip(p, (1 << 39) + 3), {"content"}),
    ("size", "one-byte", lambda p: os.truncate(p, 2), {"size"}),
    ("a mode", "modes/file-4755", lambda p: p.chmod(0o755), {"mode"}),
    ("a directory's mode", "modes/directory-1777", lambda p: p.chmod(0o777), {"mode"}),
    ("kind", "special/fifo", lambda p: replace(p, lambda: p.touch(0o640)), {"kind"}),
    ("target", "symlinks/dangling", lambda p: replace(p, lambda: p.symlink_to("elsewhere")), {"target"}),
    ("an xattr's value", "attributes/file", lambda p: os.setxattr(p, "user.empty", b"x"), {"xattr"}),
    ("an xattr gone", "attributes/directory", lambda p: os.removexattr(p, "user.long"), {"xattr"}),
    ("an ACL gone", "attributes/acl", lambda p: os.removexattr(p, ACL_ACCESS), {"xattr"}),
    ("a hole filled", "sparse/comb", fill_hole, {"holes"}),
    ("a link split", "links/two/second", split_link, {"links"}),
    ("a link to another inode", "links/one/equal-but-not-linked",
     lambda p: replace(p, lambda: os.link(p.parent / "original", p)), {"links", "mtime"}),
]  # fmt: skip


@pytest.mark.parametrize(("path", "change", "expected"), [pytest.param(*case[1:], id=case[0]) for case in CHANGES])
def test_each_single_difference_is_named(
    pair: tuple[Path, Path], path: str, change: Callable[[Path], object], expected: set[str]
) -> None:
    keeping_time(pair[1] / path, lambda: change(pair[1] / path))
    found = compare(*pair, ignore=IGNORE)
    assert {difference.aspect for difference in found} == expected
    if "links" not in expected:
        assert {difference.path for difference in found} == {path.encode()}


def test_a_nanosecond_is_a_difference(pair: tuple[Path, Path]) -> None:
    for name in ("one-byte", "empty-directory", "symlinks/absolute"):
        path = pair[1] / name
        when = path.lstat().st_mtime_ns + 1
        os.utime(path, ns=(when, when), follow_symlinks=False)
    found = compare(*pair, ignore=IGNORE)
    assert sorted(difference.path for difference in found) == [b"empty-directory", b"one-byte", b"symlinks/absolute"]
    assert {difference.aspect for difference in found} == {"mtime"}


def test_missing_and_extra_names_are_told_by_bytes(pair: tuple[Path, Path]) -> None:
    keeping_time(pair[0] / "new", (pair[0] / "new").touch)
    gone = pair[1] / os.fsdecode(b"names/\xc3\x28")
    keeping_time(gone, gone.unlink)
    root = pair[0].stat().st_mtime_ns
    os.utime(pair[1], ns=(root, root))
    found = {(difference.aspect, difference.path) for difference in compare(*pair, ignore=IGNORE)}
    assert found == {("missing", b"new"), ("missing", b"names/\xc3\x28")}
    assert {difference.aspect for difference in compare(pair[1], pair[0], ignore=IGNORE)} == {"extra"}


def test_the_root_itself_is_compared(pair: tuple[Path, Path]) -> None:
    os.removexattr(pair[1], "user.root")
    assert [(difference.path, difference.aspect) for difference in compare(*pair, ignore=IGNORE)] == [(b".", "xattr")]
    os.setxattr(pair[1], "user.root", os.getxattr(pair[0], "user.root"))
    pair[1].chmod(0o700)
    # The root has an ACL, and the mode's bits are entries of it.
    told = [(difference.path, difference.aspect) for difference in compare(*pair, ignore=IGNORE)]
    assert told == [(b".", "mode"), (b".", "xattr")]


def test_a_reserved_range_counts_as_hole_and_as_data(pair: tuple[Path, Path]) -> None:
    """Zeros written on one side, reserved on the other: both take room, and the filesystem shows only one as a hole."""
    path = pair[1] / "sparse/zeros"

    def reserve() -> None:
        with path.open("r+b") as file:
            file.truncate(0)
            os.posix_fallocate(file.fileno(), 0, 1 << 20)

    keeping_time(path, reserve)
    assert compare(*pair, ignore=IGNORE) == []

    def punch() -> None:
        os.truncate(path, 0)
        os.truncate(path, 1 << 20)

    keeping_time(path, punch)
    assert [difference.aspect for difference in compare(*pair, ignore=IGNORE)] == ["holes"]


@needs_root
def test_owners_devices_and_capabilities(pair: tuple[Path, Path]) -> None:
    os.chown(pair[1] / "one-byte", 7, -1)
    os.chown(pair[1] / "symlinks/out", -1, 8, follow_symlinks=False)
    os.removexattr(pair[1] / "attributes/capable", "security.capability")
    os.setxattr(pair[1] / "attributes/link", "trusted.t", b"other", follow_symlinks=False)
    null = pair[1] / "special/null"

    def other_device() -> None:
        null.unlink()
        os.mknod(null, 0o020644, os.makedev(1, 5))

    state = null.stat()
    keeping_time(null, other_device)
    os.utime(null, ns=(state.st_mtime_ns, state.st_mtime_ns))
    found = sorted((difference.path, difference.aspect) for difference in compare(*pair))
    assert found == [
        (b"attributes/capable", "xattr"),
        (b"attributes/link", "xattr"),
        (b"one-byte", "uid"),
        (b"special/null", "device"),
        (b"symlinks/out", "gid"),
    ]


def test_the_bottom_of_3000_directories_is_reached_with_few_descriptors(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, limits[1]))
    try:
        for target in ("a", "b"):
            make_tree(tmp_path / target, files=0, total_bytes=0, depth=3000)
        assert compare(tmp_path / "a", tmp_path / "b", ignore=IGNORE) == []
        here = os.open(tmp_path / "b" / "deep", os.O_RDONLY)
        for level in range(3000):
            below = os.open(b"level-%04d" % level, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.chmod(b"bottom", 0o640, dir_fd=here)
        os.close(here)
        found = compare(tmp_path / "a", tmp_path / "b", ignore=IGNORE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for target in ("a", "b"):
            remove_tree(tmp_path / target)
    assert list(tmp_path.iterdir()) == []
    assert [difference.aspect for difference in found] == ["mode"]
    assert found[0].path.count(b"/") == 3001


def test_the_command_line(pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    ignore = [f"--ignore={aspect}" for aspect in IGNORE]
    assert main([str(pair[0]), str(pair[1]), *ignore]) == 0
    assert capsys.readouterr().out.startswith("equal: differences=0 entries=")
    (pair[1] / os.fsdecode(b"names/byte-\xff")).chmod(0o600)
    assert main([str(pair[0]), str(pair[1]), "--json", *ignore]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["type"] for line in lines] == ["difference", "summary"]
    assert lines[0]["path_base64"] == "bmFtZXMvYnl0ZS3/"
    assert lines[1]["differences"] == 1
    assert main([str(pair[0]), str(pair[1]), "--ignore", "mode", *ignore]) == 0
    with pytest.raises(SystemExit) as usage:
        main([str(pair[0]), str(pair[1] / "absent")])
    assert usage.value.code == 2
