"""Files in memory: one place for a name, and nothing that may not be in an image."""

import os
from pathlib import Path

import pytest
from scripts.image.tree import Directory, File, ImageError, Link, Node, Tree


def test_merged_folders_are_one_place() -> None:
    tree = Tree()
    tree.add("./lib/x86_64-linux-gnu/libc.so.6", File(b"c"))
    tree.add("/usr/lib/x86_64-linux-gnu/libm.so.6", File(b"m"))
    tree.add("lib64/ld.so", Link("../lib/ld.so"))
    tree.add("lib", Link("usr/lib"))
    assert [path for path in tree.nodes if "." in path] == [
        "usr/lib/x86_64-linux-gnu/libc.so.6",
        "usr/lib/x86_64-linux-gnu/libm.so.6",
        "usr/lib64/ld.so",
    ]
    assert tree.nodes["usr/lib/x86_64-linux-gnu"] == Directory()
    assert tree.nodes["lib"] == Link("usr/lib")


@pytest.mark.parametrize("path", ["../etc/passwd", "usr/../../x", "", "/", "."])
def test_path_stays_inside(path: str) -> None:
    with pytest.raises(ImageError, match="not a path inside"):
        Tree().add(path, File(b""))


@pytest.mark.parametrize(
    "node", [File(b"", 0o4755), File(b"", 0o2755), File(b"", 0o666), Directory(0o777), Directory(0o2755)]
)
def test_mode_that_lends_rights_is_refused(node: Node) -> None:
    with pytest.raises(ImageError, match="mode"):
        Tree().add("usr/bin/su", node)


def test_one_file_to_a_place() -> None:
    tree = Tree()
    tree.text("etc/passwd", "one")
    tree.text("etc/passwd", "one")
    with pytest.raises(ImageError, match="two files want one place"):
        tree.text("etc/passwd", "two")
    with pytest.raises(ImageError, match="a file stands where"):
        tree.text("etc/passwd/x", "y")


def test_without_drops_folders_that_it_empties() -> None:
    tree = Tree()
    tree.text("a/b/c", "")
    tree.text("a/d", "")
    tree.add("tmp", Directory(0o1777))
    assert sorted(tree.without(lambda path: path == "a/b/c").nodes) == ["a", "a/d", "tmp"]
    assert tree.without(lambda path: path == "a/d").nodes["tmp"] == Directory(0o1777)


def test_written_and_read_again(tmp_path: Path) -> None:
    tree = Tree()
    tree.add("usr/bin/x", File(b"program", 0o755))
    tree.add("usr/bin/y", Link("x"))
    tree.add("tmp", Directory(0o1777))
    tree.write(tmp_path, mtime=1_000_000_000)
    assert os.stat(tmp_path / "usr/bin/x").st_mtime == 1_000_000_000
    assert os.stat(tmp_path / "usr/bin").st_mtime == 1_000_000_000
    assert os.stat(tmp_path / "tmp").st_mode & 0o7777 == 0o1777
    read = Tree.read(tmp_path)
    assert read.nodes["usr/bin/x"] == File(b"program", 0o755)
    assert read.nodes["usr/bin/y"] == Link("x")
