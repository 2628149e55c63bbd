"""What a restore makes of its target: kinds, owners, attributes, names in the way, links, one path, interruption, full disks, ordinary users.

What only root may do is tested as root, and what others may not in a process of uid 65534.

Over 500 lines because all cases share one way to make a repository and to look at a restored tree.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.oracle.make_tree import ACL, ACL_ACCESS, ACL_DEFAULT, ACL_FOR_DIRECTORY, CAPABILITY, acl
from tests.support.lacking import lacks, needs
from tests.unit.rescue.rig import Rig
from tests.unit.rescue.tiny_writer import DATA, LIST, TREE, directory, entry, file, item, lp, uv

from longshore import rescue as program

RESCUE = Path(program.__file__)
IS_ROOT = os.geteuid() == 0
as_root = needs(IS_ROOT, "only root may do this")
NOBODY = 65534


def mode(path: Path) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


@as_root
def test_special_files_owners_and_modes(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.tree(
        [
            entry(4, b"block", uv(7) + uv(300), mode=0o660, uid=1, gid=2),
            entry(5, b"char", uv(1) + uv(3), mode=0o1666),
            entry(1, b"dir", uv(0), mode=0o3775, uid=5, gid=6),
            entry(6, b"fifo", mode=0o4640, uid=4_000_000_000, gid=3_999_999_999),
            rig.file(b"file", b"x", mode=0o6755, uid=7, gid=8, s=-1, ns=999_999_999),
            entry(3, b"link", lp(b"\xff\n"), mode=0o777, uid=9, gid=10, s=7_258_118_400, ns=5),
            entry(7, b"sock", mode=0o600),
        ],
        root={"mode": 0o1711, "uid": 3, "gid": 4, "s": 77, "ns": 7},
    )
    ran = rig.restore()
    assert (ran.code, ran.err) == (0, "")
    found = {p.name: os.lstat(p) for p in rig.out.iterdir()}
    assert {n: stat.S_IFMT(i.st_mode) for n, i in found.items()} == {
        "block": stat.S_IFBLK, "char": stat.S_IFCHR, "dir": stat.S_IFDIR, "fifo": stat.S_IFIFO, "file": stat.S_IFREG, "link": stat.S_IFLNK,
        "sock": stat.S_IFSOCK,
    }  # fmt: skip
    assert [(os.major(found[n].st_rdev), os.minor(found[n].st_rdev)) for n in ("block", "char")] == [(7, 300), (1, 3)]
    assert [(found[n].st_uid, found[n].st_gid) for n in ("block", "dir", "fifo", "file", "link")] == [
        (1, 2), (5, 6), (4_000_000_000, 3_999_999_999), (7, 8), (9, 10),
    ]  # fmt: skip
    assert [mode(rig.out / n) for n in ("block", "char", "dir", "fifo", "file", "sock")] == [
        0o660,
        0o1666,
        0o3775,
        0o4640,
        0o6755,
        0o600,
    ]
    assert os.readlink(os.fsencode(rig.out / "link")) == b"\xff\n"
    assert found["file"].st_mtime_ns == -1 and found["link"].st_mtime_ns == 7_258_118_400 * 10**9 + 5
    root = os.stat(rig.out)
    assert (root.st_uid, root.st_gid, mode(rig.out), root.st_mtime_ns) == (3, 4, 0o1711, 77 * 10**9 + 7)


@as_root
def test_acls_capabilities_and_xattrs_also_of_links(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.tree(
        [
            rig.file(b"acl", b"a", mode=0o660, xattrs={ACL_ACCESS.encode(): ACL}),
            rig.file(b"capable", b"c", mode=0o755, uid=5, xattrs={b"security.capability": CAPABILITY}),
            directory(
                b"dir",
                [],
                mode=0o750,
                xattrs={ACL_ACCESS.encode(): ACL_FOR_DIRECTORY, ACL_DEFAULT.encode(): ACL_FOR_DIRECTORY},
            ),
            entry(6, b"fifo", xattrs={b"trusted.f": b"f"}),
            rig.file(
                b"file",
                b"f",
                mode=0,
                xattrs={b"trusted.t": b"\0t", b"user.\xff": bytes(range(256)), b"user.empty": b""},
            ),
            entry(3, b"link", lp(b"file"), xattrs={b"trusted.l": b"l"}),
            rig.file(b"plain", b"p"),
        ],
        root={"mode": 0o755, "xattrs": {b"user.root": b"r"}},
    )
    rig.out.mkdir(parents=True)
    # What the target hands down is not part of the snapshot; nor is an older state's attribute.
    os.setxattr(rig.out, ACL_DEFAULT, ACL_FOR_DIRECTORY)
    os.setxattr(rig.out, "user.old", b"old")
    (rig.out / "dir").mkdir()
    os.setxattr(rig.out / "dir", "user.old", b"old")
    ran = rig.restore()
    assert (ran.code, ran.err) == (0, "")

    def attributes(name: str) -> dict[bytes, bytes]:
        path = os.fsencode(rig.out / name)
        return {
            os.fsencode(k): os.getxattr(path, k, follow_symlinks=False)
            for k in os.listxattr(path, follow_symlinks=False)
        }

    assert attributes("acl") == {ACL_ACCESS.encode(): ACL} and mode(rig.out / "acl") == 0o660
    assert attributes("capable") == {b"security.capability": CAPABILITY}
    assert attributes("dir") == {ACL_ACCESS.encode(): ACL_FOR_DIRECTORY, ACL_DEFAULT.encode(): ACL_FOR_DIRECTORY}
    assert attributes("fifo") == {b"trusted.f": b"f"}
    assert attributes("file") == {b"trusted.t": b"\0t", b"user.\xff": bytes(range(256)), b"user.empty": b""}
    assert attributes("link") == {b"trusted.l": b"l"}
    assert attributes("plain") == {}
    assert attributes("") == {b"user.root": b"r"}


def test_attributes_that_cannot_be_set_are_named(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    many = 1 << 40
    rig.tree(
        [
            rig.file(b"acl", b"a", xattrs={ACL_ACCESS.encode(): acl((1, 6, 9))}),
            rig.file(b"key", b"a", xattrs={b"nowhere.x": b""}),
            entry(3, b"link", lp(b"x"), xattrs={b"user.x": b""}),
            rig.file(b"owner", b"o", uid=many, gid=many, mode=0o4755),
            rig.file(b"time", b"t", s=1 << 61),
            rig.file(b"zero", b"z", flags=8),
        ]
    )
    ran = rig.restore("latest", "--json")
    told = {str(r["path"]): str(r["message"]) for r in ran.rows if r["type"] == "item"}
    assert ran.code == 3
    assert set(told) == {"acl", "key", "link", "owner", "time", "zero"}
    assert "incomplete" in told["zero"]
    assert rig.names() == {b"acl", b"key", b"link", b"owner", b"time", b"zero"}
    assert mode(rig.out / "owner") == 0o755, "set-user-id without its owner gives rights to somebody else"
    assert ran.rows[-1]["items_not_restored"] == 7


def test_what_is_in_the_way(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.tree(
        [
            directory(b"dir-over-fifo", []),
            directory(b"dir-over-file", []),
            directory(b"dir-over-link", []),
            rig.file(b"file-over-dir", b"n"),
            rig.file(b"file-over-file", b"n"),
            rig.file(b"file-over-full-dir", b"n"),
            rig.file(b"file-over-link", b"n"),
            entry(3, b"link-over-dir", lp(b"t")),
            entry(3, b"link-over-link", lp(b"t")),
        ]
    )
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"kept")
    out = rig.out
    out.mkdir(parents=True)
    os.mkfifo(out / "dir-over-fifo")
    (out / "dir-over-file").write_bytes(b"o")
    (out / "dir-over-link").symlink_to(outside)
    for name in ("file-over-dir", "file-over-full-dir", "link-over-dir"):
        (out / name).mkdir()
    (out / "file-over-full-dir" / "mine").write_bytes(b"m")
    (out / "file-over-file").write_bytes(b"old")
    os.link(out / "file-over-file", tmp_path / "other name")
    (out / "file-over-link").symlink_to(outside / "kept")
    (out / "link-over-link").symlink_to(outside)
    (out / "mine").write_bytes(b"m")
    ran = rig.restore()
    assert ran.code == 3 and ran.err.count("\n") == 1 and "file-over-full-dir" in ran.err
    assert (out / "file-over-full-dir" / "mine").read_bytes() == (out / "mine").read_bytes() == b"m"
    for name in ("dir-over-fifo", "dir-over-file", "dir-over-link"):
        assert stat.S_ISDIR(os.lstat(out / name).st_mode), name
    for name in ("file-over-dir", "file-over-file", "file-over-link"):
        assert stat.S_ISREG(os.lstat(out / name).st_mode) and (out / name).read_bytes() == b"n", name
    for name in ("link-over-dir", "link-over-link"):
        assert os.readlink(out / name) == "t", name
    assert {p.name: p.read_bytes() for p in outside.iterdir()} == {"kept": b"kept"}
    assert (tmp_path / "other name").read_bytes() == b"old", "a file is replaced, never written into"
    assert not [n for n in rig.names() if n.startswith(b".longshore")]


def test_a_restore_again_changes_nothing_but_inodes(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    linked = {"inode": 3, "device": 4}
    below = rig.w.new_pack()
    (tree,) = rig.w.frame(below, TREE, [lp(rig.file(b"x", b"below", mode=0o444))])
    rig.w.seal_pack(below)
    rig.tree(
        [
            rig.file(b"a", b"1", **linked),
            rig.file(b"b", b"1", **linked),
            directory(b"d", [item(4, 1, tree)], mode=0o500),
            entry(6, b"f"),
        ]
    )
    for _ in range(2):
        assert rig.restore().code == 0
        assert rig.names() == {b"a", b"b", b"d", b"f"}
        assert os.stat(rig.out / "a").st_ino == os.stat(rig.out / "b").st_ino and os.stat(rig.out / "a").st_nlink == 2
        assert mode(rig.out / "d") == 0o500 and os.listdir(rig.out / "d") == ["x"]
    assert os.path.islink(rig.out / "a") is False


def test_names_of_one_file_that_differ(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    linked = {"inode": 3, "device": 4}
    rig.tree(
        [
            rig.file(b"a", b"one", **linked),
            rig.file(b"b", b"two", **linked),
            rig.file(b"c", b"one", **linked),
            rig.file(b"d", b"one", inode=3, device=5),
            rig.file(b"e", b"one", inode=4, device=4),
            rig.file(b"f", b"one", inode=3),
        ]
    )
    ran = rig.restore()
    assert ran.code == 3 and ran.err.count("\n") == 1 and "not restored: b:" in ran.err
    assert {n: (rig.out / n).read_bytes() for n in "abcdef"} == {n: b"two" if n == "b" else b"one" for n in "abcdef"}
    inodes = [os.stat(rig.out / n).st_ino for n in "abcdef"]
    assert inodes[0] == inodes[2] and len(set(inodes)) == 5


def test_a_link_whose_place_is_taken_leaves_nothing_behind(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    linked = {"inode": 3, "device": 4}
    rig.tree([rig.file(b"a", b"1", **linked), rig.file(b"b", b"1", **linked)])
    (rig.out / "b").mkdir(parents=True)
    (rig.out / "b" / "mine").write_bytes(b"m")
    assert rig.restore().code == 3
    assert rig.names() == {b"a", b"b"} and (rig.out / "b" / "mine").exists()
    assert os.stat(rig.out / "a").st_nlink == 1


def test_links_of_what_is_no_file_and_of_what_was_damaged(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    linked = {"inode": 3, "device": 4}
    (good,) = rig.data(b"good")
    rig.tree(
        [
            file(b"a", 4, [item(0, 4, bytes(32))], **linked),
            file(b"b", 4, [item(0, 4, good)], **linked),
            file(b"c", 4, [item(0, 4, good)], **linked),
            entry(6, b"p", inode=8, device=4),
            entry(6, b"q", inode=8, device=4),
            entry(3, b"s", lp(b"t"), inode=9, device=4),
            entry(3, b"t", lp(b"t"), inode=9, device=4),
        ]
    )
    ran = rig.restore()
    assert ran.code == 4 and ran.err.count("\n") == 1 and "damaged: a:" in ran.err
    assert rig.names() == {b"b", b"c", b"p", b"q", b"s", b"t"}
    for one, two in (("b", "c"), ("p", "q"), ("s", "t")):
        assert os.lstat(rig.out / one).st_ino == os.lstat(rig.out / two).st_ino


def two_levels(rig: Rig) -> str:
    pack = rig.w.new_pack()
    (inner,) = rig.w.frame(pack, TREE, [lp(rig.file(b"deep", b"deep")) + lp(rig.file(b"other", b"other"))])
    rig.w.seal_pack(pack)
    return rig.tree(
        [rig.file(b"a", b"a"), directory(b"sub", [item(4, 2, inner)], mode=0o711, s=9, ns=9), rig.file(b"z", b"z")]
    )


def test_one_path(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    name = two_levels(rig)
    for wanted, names in (
        (f"{name}:sub", {b"deep", b"other"}),
        (f"{name}:/sub/", {b"deep", b"other"}),
        (f"{name}:sub/deep", {b"deep"}),
        ("latest:./z", {b"z"}),
        (f"ls0-{name}:", {b"a", b"sub", b"z"}),
    ):
        assert rig.restore(wanted).code == 0, wanted
        assert rig.names() == names
        if wanted.endswith("sub"):
            assert mode(rig.out) == 0o711 and os.stat(rig.out).st_mtime_ns == 9 * 10**9 + 9
        shutil.rmtree(rig.out)
    for wanted in (f"{name}:nope", f"{name}:sub/nope", f"{name}:a/b", f"{name}:sub/..", f"{name}:.."):
        ran = rig.restore(wanted)
        assert ran.code == 13 and not rig.out.exists(), wanted


def test_which_snapshot_is_meant(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    old = rig.tree([rig.file(b"old", b"1")], name="ab" + "0" * 30, started=5, source="one")
    new = rig.tree([rig.file(b"new", b"2")], name="ab" + "1" * 30, started=6, source="one")
    other = rig.tree([rig.file(b"other", b"3")], name="cd" + "0" * 30, started=1, source="two\x1b[31m")
    ran = rig.restore("latest")
    assert ran.code == 2 and "one" in ran.err and "two\\u001b[31m" in ran.err and "\x1b" not in ran.err
    ran = rig.restore("ls0-ab")
    assert ran.code == 2 and old in ran.err and new in ran.err and other not in ran.err
    assert not rig.out.exists()
    for words, name in (
        (("latest", "--source", "one"), b"new"),
        (("ab0",), b"old"),
        (("c",), b"other"),
        (("ls0-" + old,), b"old"),
    ):
        assert rig.restore(*words).code == 0
        assert rig.names() == {name}, words
        shutil.rmtree(rig.out)
    assert rig.restore("latest", "--source", "three").code == 13
    for nothing in ("", "ls0-", "ef", old + "0"):
        assert rig.restore(nothing).code == 13, nothing
    rig.w.put("removed/" + new, b"whatever stands there")
    assert rig.restore("latest", "--source", "one").code == 0
    assert rig.names() == {b"old"}
    assert rig.restore("ab").code == 0, "what was removed does not count"
    assert rig.restore(new).code == 13
    aborted = rig.tree([], state=2)
    assert rig.restore(aborted).code == 13
    listed = [r["snapshot_id"] for r in rig.run("list", "--json").rows if r["type"] == "row"]
    assert listed == ["ls0-" + other, "ls0-" + old], "by time"


def test_a_damaged_snapshot_among_good_ones(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    good = rig.tree([rig.file(b"good", b"1")], name="ab" + "0" * 30)
    rig.w.put("snapshots/ab" + "1" * 30, b"bad")
    assert rig.restore("ab" + "1" * 30).code == 4
    assert rig.run("list").code == 4 and good in rig.run("list").out
    ran = rig.restore("latest")
    assert ran.code == 4 and rig.names() == {b"good"}, "what can be had is restored, and the damage told"


def test_an_order_that_is_wrong_costs_only_what_is_wrong(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    pack = rig.w.new_pack()
    one, two, three = (
        rig.w.frame(pack, TREE, [b"".join(lp(entry(6, n)) for n in names)])[0]
        for names in ((b"b", b"c"), (b"c", b"d"), (b"x",))
    )
    (chunk,) = rig.w.frame(pack, LIST, [item(4, 1, bytes(32)) + item(4, 1, three)])
    rig.w.seal_pack(pack)
    rig.w.snapshot(directory(b"", [item(4, 2, one), item(4, 2, two), item(4, 1, one), item(3, 2, chunk)]))
    assert rig.restore().code == 4
    assert rig.names() == {b"b", b"c", b"x"}
    assert rig.check().code == 4


def test_a_chunk_that_lies_costs_nothing_else_in_its_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "OPENED_FRAMES_MAX_BYTES", 0)
    rig = Rig(tmp_path)
    pack = rig.w.new_pack()
    ids = [(rig.w.cid(DATA, b"good"), 4), (bytes(32), 4), (rig.w.cid(DATA, b"fine"), 4)]
    rig.w.frame(pack, DATA, [b"good", b"evil", b"fine"], ids=ids)
    rig.w.frame(pack, DATA, [b"between"])
    rig.w.seal_pack(pack)
    between = rig.w.cid(DATA, b"between")
    entries = [file(n, 4, [item(0, 4, chunk)]) for n, (chunk, _) in zip((b"a", b"b", b"d"), ids, strict=True)]
    rig.tree([*entries[:2], file(b"c", 7, [item(0, 7, between)]), entries[2]])
    ran = rig.restore()
    assert ran.code == 4 and rig.names() == {b"a", b"c", b"d"}
    ran = rig.check()
    assert ran.code == 4 and ran.err.count("\n") == 2, ran.err


def test_a_kind_does_not_stand_in_for_another(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    (data,) = rig.data(lp(entry(6, b"x")))
    rig.w.snapshot(directory(b"", [item(4, 1, data)]))
    assert rig.restore().code == 4 and rig.names() == set()
    assert rig.check().code == 4


def test_spans_of_chunks_are_compared(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    (data,) = rig.data(b"four")
    pack = rig.w.new_pack()
    (piece,) = rig.w.frame(pack, TREE, [lp(entry(6, b"x"))])
    (chunk,) = rig.w.frame(pack, LIST, [item(1, 3)])
    rig.w.seal_pack(pack)
    for bad in (file(b"m", 5, [item(0, 5, data)]), file(b"m", 3, [item(0, 3, data)]), file(b"m", 4, [item(3, 4, chunk)]), file(b"m", 2, [item(3, 2, chunk)]),
                directory(b"m", [item(4, 2, piece)])):  # fmt: skip
        name = rig.tree([bad])
        assert rig.restore(name).code == 4
        assert rig.names() <= {b"m"} and not (rig.out / "m").is_file()
        assert rig.check().code == 4
        (rig.repo / "snapshots" / name).unlink()
        assert rig.check().code == 0


def test_the_memory_of_open_directories_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "WALK_MAX_BYTES", 200)
    rig = Rig(tmp_path)
    two_levels(rig)
    assert rig.restore().code == 0
    pack = rig.w.new_pack()
    pieces = [rig.w.frame(pack, TREE, [lp(entry(6, b"%02d" % n))])[0] for n in range(6)]
    rig.w.seal_pack(pack)
    rig.tree([directory(b"wide", [item(4, 1, p) for p in pieces])], started=10**12)
    ran = rig.restore()
    assert ran.code == 4 and "wide" in ran.err


def test_what_is_missing_without_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "DAMAGES_MAX", 50)
    rig = Rig(tmp_path)
    pack = rig.w.new_pack()
    made, span = item(4, 1, bytes(32)), 1
    for _ in range(7):
        made = item(3, span * 100, rig.w.frame(pack, LIST, [made * 100])[0])
        span *= 100
    rig.w.seal_pack(pack)
    name = rig.w.snapshot(directory(b"", [made]))
    assert rig.restore().code == 4
    assert rig.restore(name + ":x").code == 4
    ran = rig.check()
    assert ran.code == 4 and ran.err.count("\n") <= 51


def test_a_directory_that_goes_bad_while_it_is_walked_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(tmp_path)
    pack = rig.w.new_pack()
    (inner,) = rig.w.frame(pack, TREE, [lp(entry(6, b"x"))])
    (one,) = rig.w.frame(pack, TREE, [lp(directory(b"d", [item(4, 1, inner)]))])
    (two,) = rig.w.frame(pack, TREE, [lp(entry(6, b"e"))])
    (chunk,) = rig.w.frame(pack, LIST, [item(4, 1, one) + item(4, 1, two)])
    rig.w.seal_pack(pack)
    rig.w.snapshot(directory(b"", [item(3, 2, chunk)]))
    looks: dict[bytes, int] = {}
    real = program.Repository.chunk

    def once(self: program.Repository, wanted: bytes, kind: int) -> bytes:
        looks[wanted] = looks.get(wanted, 0) + 1
        if looks[wanted] > 1:
            raise program.CorruptError("the disk has gone bad")
        return real(self, wanted, kind)

    monkeypatch.setattr(program.Repository, "chunk", once)
    ran = rig.restore()
    assert ran.code == 4 and ran.err.count("gone bad") == 2, ran.err
    assert max(looks.values()) == 2


# --- the end of a run ---


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 256 KiB with few inodes."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k,nr_inodes=40", "tmpfs", folder], capture_output=True, check=False
    )
    if done.returncode != 0:
        lacks(f"nothing may be mounted: error={done.stderr!r}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("what", ["data", "zeros", "files", "directories"])
def test_a_full_disk(tmp_path: Path, small_disk: Path, what: str) -> None:
    rig = Rig(tmp_path)
    rig.out = small_disk / "out"
    many = [b"%03d" % n for n in range(60)]
    rig.tree(
        {
            "data": lambda: [rig.file(b"a", b"a"), rig.file(b"b", os.urandom(1 << 20)), rig.file(b"c", b"c")],
            "zeros": lambda: [rig.file(b"a", b"a"), file(b"b", 1 << 20, [item(2, 1 << 20)])],
            "files": lambda: [file(n, 0, []) for n in many],
            "directories": lambda: [directory(n, []) for n in many],
        }[what]()
    )
    ran = rig.restore()
    assert ran.code == 16 and "no space left in the target" in ran.err and "next: " in ran.err
    assert not [n for n in rig.names() if n.startswith(b".longshore")]
    if what in {"data", "zeros"}:
        assert rig.names() == {b"a"}
    (tmp_path / "again").mkdir()
    full = Rig(tmp_path / "again")
    full.out = small_disk / "deeper" / "out"
    full.tree([])
    for n in range(50):
        with contextlib.suppress(OSError):
            (small_disk / f"fill-{n}").write_bytes(b"")
    assert full.restore().code == 16


def test_an_interruption(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    pack = rig.w.new_pack()
    made, span = item(1, 1), 1
    for _ in range(4):
        made = item(3, span * 1000, rig.w.frame(pack, LIST, [made * 1000])[0])
        span *= 1000
    rig.w.seal_pack(pack)
    rig.tree([rig.file(b"a", b"a"), file(b"endless", span, [made])])
    command = [
        sys.executable,
        "-I",
        RESCUE,
        "--repository",
        rig.repo,
        "--key-file",
        rig.key,
        "restore",
        "latest",
        rig.out,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        patience = time.monotonic() + 60
        # The first file has its name, the endless one has not.
        while not (rig.out.exists() and b"a" in rig.names() and any(n.startswith(b".longshore") for n in rig.names())):
            assert process.poll() is None and time.monotonic() < patience
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and "Traceback" not in err and "interrupted" in err
    assert rig.names() == {b"a"}


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(tmp_path)
    ids = rig.data(b"first", b"second")
    rig.tree([file(b"f", 11, [item(0, 5, ids[0]), item(0, 6, ids[1])])])
    rig.out.mkdir(parents=True)
    (rig.out / "f").write_bytes(b"old state")
    real = program.Repository.chunk
    seen: list[set[bytes]] = []

    def stop_at_second(self: program.Repository, wanted: bytes, kind: int) -> bytes:
        if wanted == ids[1]:
            seen.append(rig.names())
            assert (rig.out / "f").read_bytes() == b"old state"
            raise KeyboardInterrupt
        return real(self, wanted, kind)

    monkeypatch.setattr(program.Repository, "chunk", stop_at_second)
    assert rig.restore().code == 130
    assert len(seen[0]) == 2 and rig.names() == {b"f"} and (rig.out / "f").read_bytes() == b"old state"


def test_targets_and_folders_that_cannot_be_used(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.tree([rig.file(b"a", b"a")])
    rig.out.parent.mkdir()
    rig.out.write_bytes(b"a file")
    assert rig.restore().code == 1
    assert rig.run("restore", "latest", rig.tmp / "deep" / "er" / "out").code == 0, "made with its parents"
    rig.repo.rename(rig.tmp / "moved")
    assert rig.run("list").code == 10
    rig.repo.mkdir()
    assert rig.run("list").code == 10, "an empty folder"
    assert rig.run("--repository", "s3://bucket/prefix", "list").code == 2
    assert rig.run("--repository", (rig.tmp / "moved").as_uri(), "list").code == 0
    assert rig.run("list", "--unknown").code == 2


def test_an_object_that_is_no_file(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    name = rig.tree([rig.file(b"a", b"a")])
    os.mkfifo(rig.repo / "snapshots" / ("f" * 32))
    os.mkfifo(rig.repo / "packs" / ("f" * 32 + "-00000000"))
    (rig.repo / "packs" / ("e" * 32 + "-00000000")).mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(rig.repo / "packs")
        listener.bind("d" * 32 + "-00000000")
        os.chdir(here)
        assert rig.check().code == 4
        ran = rig.restore(name)
    assert ran.code == 4 and ran.err.count("damaged:") == 3 and rig.names() == {b"a"}


# --- ordinary users ---


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter; pytest's own are closed."""
    folder = Path(tempfile.mkdtemp(prefix="longshore-rescue-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def as_nobody(rig: Rig, *words: object) -> subprocess.CompletedProcess[str]:
    for path in [rig.tmp, *rig.tmp.rglob("*")]:
        if not rig.out.parent.exists() or rig.out.parent not in [path, *path.parents]:
            path.chmod(0o755 if path.is_dir() else 0o644)
    copy = rig.tmp / "copied.py"
    shutil.copy(RESCUE, copy)
    copy.chmod(0o644)
    rig.out.parent.mkdir(exist_ok=True)
    os.chown(rig.out.parent, NOBODY, NOBODY)
    # Python must find its libraries although this user may not enter where they lie: the rights change after the imports.
    code = (
        "import os, sys; sys.path.insert(0, sys.argv.pop(1)); import copied; copied.arguments(sys.argv[1:]); os.setgroups([]); "
        "os.setresgid(*[65534] * 3); os.setresuid(*[65534] * 3); sys.exit(copied.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, rig.tmp, "--repository", rig.repo, "--key-file", rig.key, *words]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=120, cwd="/")


@as_root
def test_who_is_not_root_is_told_of_owners_once(open_folder: Path) -> None:
    rig = Rig(open_folder)
    mine = {"uid": NOBODY, "gid": NOBODY}
    rig.tree(
        [
            rig.file(b"a", b"a", uid=0, gid=0, mode=0o640),
            rig.file(b"b", b"b", uid=1000, gid=1000),
            entry(3, b"link", lp(b"x"), uid=1000, gid=1000),
            rig.file(b"mine", b"m", **mine, mode=0o4755, xattrs={b"user.x": b"y"}),
        ],
        root={**mine, "mode": 0o700},
    )
    done = as_nobody(rig, "restore", "latest", rig.out)
    assert done.returncode == 0, done
    assert done.stderr == "" and "3 belong to who restored" in done.stdout and "complete" in done.stdout
    assert {(i.st_uid, i.st_gid) for i in map(os.lstat, rig.out.iterdir())} == {(NOBODY, NOBODY)}
    assert mode(rig.out / "a") == 0o640 and mode(rig.out / "mine") == 0o4755
    assert os.getxattr(rig.out / "mine", "user.x") == b"y"
    done = as_nobody(rig, "restore", "latest", rig.out, "--json")
    assert json.loads(done.stdout.splitlines()[-1])["owners_not_set"] == 3


@as_root
def test_what_only_root_can_restore_is_named(open_folder: Path) -> None:
    rig = Rig(open_folder)
    mine = {"uid": NOBODY, "gid": NOBODY}
    rig.tree(
        [
            rig.file(b"a", b"a", **mine),
            entry(5, b"device", uv(1) + uv(3), **mine),
            rig.file(b"setuid", b"s", uid=0, gid=0, mode=0o6755),
            rig.file(b"trusted", b"t", **mine, xattrs={b"trusted.t": b"t"}),
        ],
        root=mine,
    )
    done = as_nobody(rig, "restore", "latest", rig.out)
    assert done.returncode == 3, done
    assert sorted(line.split(":")[1].strip() for line in done.stderr.splitlines()) == ["device", "setuid", "trusted"]
    assert mode(rig.out / "setuid") == 0o755 and rig.names() == {b"a", b"setuid", b"trusted"}


@as_root
def test_folders_that_may_not_be_read_are_told_as_such(open_folder: Path) -> None:
    rig = Rig(open_folder)
    rig.tree([rig.file(b"a", b"a")])
    assert as_nobody(rig, "list").returncode == 0
    real = Path.chmod

    def closed(path: Path) -> int:
        Path.chmod = lambda self, m: real(self, 0 if self == path else m)  # type: ignore[method-assign]
        try:
            return as_nobody(rig, "restore", "latest", rig.out).returncode
        finally:
            Path.chmod = real  # type: ignore[method-assign]

    assert closed(rig.repo) == 15
    assert closed(rig.repo / "snapshots") == 15
    assert closed(rig.repo / "packs") == 15
    (pack,) = (
        p
        for p in (rig.repo / "packs").iterdir()
        if p.stat().st_size == min(q.stat().st_size for q in (rig.repo / "packs").iterdir())
    )
    assert closed(pack) == 4
