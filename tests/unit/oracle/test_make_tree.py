"""The maker of nasty trees makes what it says, and the same each time."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from tests.oracle.compare import compare
from tests.oracle.make_tree import YEAR_2200_NS, main, make_tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("made") / "tree"
    make_tree(target, files=250, total_bytes=1_000_003, large_bytes=(1 << 20) + 1, depth=50)
    return target


def test_every_byte_stands_in_a_name(tree: Path) -> None:
    names = os.listdir(os.fsencode(tree / "names"))
    assert {name[5:] for name in names if name.startswith(b"byte-")} == {bytes([b]) for b in range(1, 256) if b != 47}
    assert max(len(name) for name in names) == 255


def test_sizes_are_those_that_were_asked_for(tree: Path) -> None:
    files = list((tree / "files").rglob("file-*"))
    assert len(files) == 250
    assert sum(path.stat().st_size for path in files) == 1_000_003
    assert (tree / "files/large").stat().st_size == (1 << 20) + 1


def test_links_holes_times_and_modes(tree: Path) -> None:
    assert (tree / "links/one/original").stat().st_nlink == 3
    assert (tree / "links/one/symlink").lstat().st_ino == (tree / "links/two/same-symlink").lstat().st_ino
    assert (
        (tree / "sparse/terabyte").stat().st_blocks * 512
        < 1 << 20
        < 1 << 40
        == (tree / "sparse/terabyte").stat().st_size
    )
    assert (tree / "sparse/zeros").stat().st_blocks * 512 >= 1 << 20
    assert (tree / "times/2200").stat().st_mtime_ns == YEAR_2200_NS + 123_456_789
    assert (tree / "times/before.d").stat().st_mtime_ns == -1
    assert stat.S_IMODE((tree / "modes/file-6711").stat().st_mode) == 0o6711
    assert stat.S_ISSOCK((tree / "special/socket").stat().st_mode)
    assert os.getxattr(tree / "attributes/file", "user.empty") == b""
    assert not os.listxattr(tree / "attributes/acl-directory/plain")
    assert "system.posix_acl_access" in os.listxattr(tree / "attributes/acl-directory/inherited")


def test_a_seed_decides_everything(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        make_tree(tmp_path / name, seed=seed, files=30, total_bytes=10_000, depth=3)
    ignore = () if os.geteuid() == 0 else ("unreadable",)
    assert compare(tmp_path / "a", tmp_path / "b", ignore=ignore) == []
    assert {found.aspect for found in compare(tmp_path / "a", tmp_path / "c", ignore=ignore)} >= {"mtime", "content"}


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "t"), "--files", "3", "--bytes", "10", "--depth", "2", "--seed", "9"]) == 0
    assert "made: entries=" in capsys.readouterr().out
    with pytest.raises(FileExistsError):
        make_tree(tmp_path / "t")
