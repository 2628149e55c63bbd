"""More than two hundred forged repositories: none makes rescue.py touch anything outside its target, write bytes that nobody vouches for, or fall over.

The corpus is generated: trees in which a name, kind, content, link or attribute lies, and packs and objects that are cut short, whose lengths are
0, 1, the most, 2⁶³, that overlap, or that stand in each other's place. Each case says what may come of it.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.oracle.make_tree import ACL_ACCESS, acl
from tests.unit.rescue.rig import Rig
from tests.unit.rescue.tiny_writer import DATA, LIST, TREE, directory, entry, file, item, lp, uv

from longshore import rescue as program

CODES = {program.OK, program.PARTIAL, program.CORRUPT, program.NO_SNAPSHOT, program.NEWER}
HUGE = [0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]


def everything(root: Path) -> dict[bytes, object]:
    """All below a directory: kind, and bytes or target; follows nothing."""
    found: dict[bytes, object] = {}
    for folder, directories, files in os.walk(os.fsencode(root)):
        for name in directories + files:
            path = os.path.join(folder, name)
            info = os.lstat(path)
            kind = stat.S_IFMT(info.st_mode)
            value: object = os.readlink(path) if stat.S_ISLNK(kind) else None
            if stat.S_ISREG(kind):
                with open(path, "rb") as handle:
                    value = handle.read()
            found[os.path.relpath(path, os.fsencode(root))] = (kind, value)
    return found


def trees() -> dict[str, tuple[Callable[[Rig], list[bytes]], int, set[bytes]]]:
    """Name of a case: the entries, the code that must come, and the names that may be there."""
    cases: dict[str, tuple[Callable[[Rig], list[bytes]], int, set[bytes]]] = {}
    names = [
        b"..",
        b".",
        b"",
        b"/abs",
        b"a/b",
        b"/",
        b"//",
        b"a/",
        b"../x",
        b"../../x",
        b"a/../b",
        b"a\0b",
        b"\0",
        b"x\0",
        b"./x",
        b"..\0",
        b"/etc/passwd",
        b"x" * 1025,
    ]
    for name in names:
        for kind, make in {
            "file": lambda r, n: r.file(n, b"x"),
            "directory": lambda r, n: directory(n, []),
            "link": lambda r, n: entry(3, n, lp(b"/")),
            "fifo": lambda r, n: entry(6, n),
        }.items():
            cases[f"{kind} {name[:12]!r}"] = (lambda r, n=name, m=make: [m(r, n)], 4, set())
    for length, code in ((255, 0), (256, 3), (1024, 3)):
        for kind in (1, 3, 6):
            rest = {1: uv(0), 3: lp(b"t"), 6: b""}[kind]
            cases[f"{length} bytes of name, kind {kind}"] = (
                lambda r, n=length, k=kind, t=rest: [entry(k, b"x" * n, t)],
                code,
                {b"x" * 255},
            )
    kinds = {1: uv(0), 2: uv(0) + uv(0), 3: lp(b"../../outside"), 6: b"", 7: b""}
    for one, first in kinds.items():
        for two, second in kinds.items():
            cases[f"one name twice, kinds {one} and {two}"] = (
                lambda r, a=one, b=two, s=first, t=second: [entry(a, b"n", s), entry(b, b"n", t)],
                4,
                set(),
            )
    for target in (
        b"/",
        b"..",
        b"../../outside",
        b"/proc/self/fd/3",
        b"/proc/self/root",
        b"self",
        b"x" * 4095,
        b"\xff",
    ):
        cases[f"link to {target[:20]!r}"] = (lambda r, t=target: [entry(3, b"self", lp(t))], 0, {b"self"})
    for target in (b"", b"a\0b", b"x" * 4096, b"x" * 65_536):
        cases[f"impossible link to {target[:4]!r} of {len(target)}"] = (
            lambda r, t=target: [entry(3, b"self", lp(t)), entry(6, b"z")],
            3,
            {b"z"},
        )
    for prefix in (b".longshore-rescue-" + b"0" * 16, b".longshore-rescue-", b".velero"):
        cases[f"our own name {prefix!r}"] = (lambda r, n=prefix: [r.file(n, b"theirs")], 0, {prefix})
    for kind, rest in {**kinds, 4: uv(1) + uv(1), 5: uv(1) + uv(1)}.items():
        cases[f".velero of kind {kind}"] = (
            lambda r, k=kind, t=rest: [entry(k, b".velero", t)],
            0 if os.geteuid() == 0 or kind not in {4, 5} else 3,
            {b".velero"},
        )
    for number in HUGE:
        bad = number > 2
        cases[f"size {number}"] = (
            lambda r, n=number: [entry(2, b"m", uv(n) + uv(1) + item(1, 1))],
            0 if number == 1 else 4,
            {b"m"} if number == 1 else set(),
        )
        cases[f"span {number}"] = (
            lambda r, n=number: [entry(2, b"m", uv(1) + uv(1) + item(1, n))],
            0 if number == 1 else 4,
            {b"m"} if number == 1 else set(),
        )
        cases[f"items {number}"] = (
            lambda r, n=number: [entry(2, b"m", uv(1) + uv(n) + item(1, 1))],
            0 if number == 1 else 4,
            {b"m"} if number == 1 else set(),
        )
        cases[f"entries {number}"] = (
            lambda r, n=number: [entry(1, b"m", uv(n))],
            0 if not number else 4,
            {b"m"} if not number else set(),
        )
        cases[f"xattrs {number}"] = (
            lambda r, n=number: [entry(6, b"m", uv(n), flags=4)],
            0 if not number else 4,
            {b"m"} if not number else set(),
        )
        cases[f"target of {number}"] = (
            lambda r, n=number: [entry(3, b"m", uv(n) + b"x")],
            0 if number == 1 else 4,
            {b"m"} if number == 1 else set(),
        )
        cases[f"owner {number}"] = (
            lambda r, n=number: [entry(6, b"m", uid=n, gid=n)],
            0 if number < 2**32 - 1 else 3,
            {b"m"},
        )
        cases[f"mode {number}"] = (
            lambda r, n=number: [entry(6, b"m", mode=n)],
            4 if bad else 0,
            set() if bad else {b"m"},
        )
        cases[f"nanoseconds {number}"] = (
            lambda r, n=number: [entry(6, b"m", ns=n)],
            4 if bad else 0,
            set() if bad else {b"m"},
        )
        cases[f"inode {number}"] = (lambda r, n=number: [entry(6, b"m", inode=n, device=n)], 0, {b"m"})
        cases[f"device {number}"] = (
            lambda r, n=number: [entry(5, b"m", uv(n) + uv(n))], 0 if number < 2 and os.geteuid() == 0 else 3, {b"m"},
        )  # fmt: skip
    for seconds in (-(2**62), -(2**40), -(2**31), 2**31, 2**33, 2**40, 2**62):
        cases[f"time {seconds}"] = (
            lambda r, s=seconds: [entry(6, b"m", s=s)],
            0 if -(2**31) <= seconds <= 2**33 else 3,
            {b"m"},
        )
    for kind in (0, 8, 9, 127, 255):
        cases[f"kind {kind}"] = (lambda r, k=kind: [entry(k, b"m")], 4, set())
    for flags in (16, 32, 64, 128, 255):
        cases[f"flags {flags}"] = (lambda r, f=flags: [entry(6, b"m", flags=f)], 4, set())
    for key, value in {
        ACL_ACCESS.encode(): acl((1, 6, 2**32 - 1), (2, 7, 2**32 - 2)), b"user.": b"", b"x" * 255: b"", b"user.x": bytes(65_536), b"nothing": b"",
        b"security.capability": b"short",
    }.items():  # fmt: skip
        cases[f"xattr {key[:24]!r}"] = (lambda r, k=key, v=value: [entry(6, b"m", xattrs={k: v})], 3, {b"m"})
    for kind, what in ((DATA, "data"), (LIST, "list")):
        cases[f"tree from {what}"] = (
            lambda r, k=kind: [directory(b"m", [item(4, 1, chunk(r, k, lp(entry(6, b"x"))))])],
            4,
            {b"m"},
        )
    for kind, what in ((TREE, "tree"), (LIST, "list")):
        cases[f"data from {what}"] = (lambda r, k=kind: [file(b"m", 4, [item(0, 4, chunk(r, k, b"evil"))])], 4, set())
        cases[f"list from {what} of holes"] = (
            lambda r, k=kind: [file(b"m", 4, [item(3, 4, chunk(r, k, item(1, 4)))])], 4 if kind == TREE else 0, set() if kind == TREE else {b"m"},
        )  # fmt: skip
    for plain, what in (
        (b"", "nothing"),
        (b"\0", "a cut item"),
        (item(5, 1), "item 5"),
        (item(1, 0), "a span of 0"),
        (item(4, 1, bytes(32)), "a piece"),
        (item(1, 5), "more"),
    ):
        cases[f"list of {what}"] = (
            lambda r, p=plain: [file(b"m", 4, [item(3, 4, chunk(r, LIST, p) if p else bytes(32))])],
            4,
            set(),
        )
    linked = {"inode": 5, "device": 5}
    cases["names of one inode, of other kinds"] = (
        lambda r: [
            r.file(b"a", b"x", **linked),
            entry(3, b"b", lp(b"../../outside"), **linked),
            entry(6, b"c", **linked),
        ],
        3,
        {b"a", b"b", b"c"},
    )
    cases["names of one inode, the first never restored"] = (
        lambda r: [file(b"a", 1, [item(0, 1, bytes(32))], **linked), r.file(b"b", b"x", **linked)],
        4,
        {b"b"},
    )
    cases["names of one inode, directories"] = (
        lambda r: [directory(b"a", [], **linked), directory(b"b", [], **linked)],
        0,
        {b"a", b"b"},
    )
    cases["link, then a child below it"] = (
        lambda r: [
            entry(3, b"n", lp(b"../../outside")),
            directory(b"n", [item(4, 1, chunk(r, TREE, lp(r.file(b"evil", b"evil"))))]),
        ],
        4,
        set(),
    )
    return cases


def chunk(rig: Rig, kind: int, plain: bytes) -> bytes:
    pack = rig.w.new_pack()
    (found,) = rig.w.frame(pack, kind, [plain])
    rig.w.seal_pack(pack)
    return found


TREES = trees()


def prepared(tmp_path: Path) -> Rig:
    rig = Rig(tmp_path)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").write_bytes(b"kept")
    rig.out.mkdir(parents=True)
    return rig


def around(rig: Rig) -> dict[bytes, object]:
    return {path: what for path, what in everything(rig.tmp).items() if not path.startswith((b"repo", b"in/out/"))}


@pytest.mark.parametrize("what", TREES)
def test_forged_trees(tmp_path: Path, what: str) -> None:
    rig = prepared(tmp_path)
    make, code, names = TREES[what]
    before = around(rig)
    name = rig.tree(make(rig))
    stored = everything(rig.repo)
    ran = rig.restore(name)
    assert ran.code == code, ran
    assert rig.names() == names or (code and rig.names() <= names), ran
    assert (code == 0) == (ran.err == "")
    assert around(rig) == before, "something outside the target was touched"
    assert everything(rig.repo) == stored, "the repository was written to"
    assert {v[1] for v in everything(rig.out).values() if v[0] == stat.S_IFREG} <= {
        b"x",
        b"theirs",
        b"",
        b"\0",
        bytes(4),
    }  # type: ignore[index]
    assert rig.check().code == (4 if code == 4 else 0)


def good_repository(rig: Rig) -> str:
    return rig.tree([rig.file(b"a", b"content of a"), rig.file(b"b", b"content of b")])


def pack_cuts() -> dict[str, Callable[[bytes], bytes]]:
    cases: dict[str, Callable[[bytes], bytes]] = {}
    for at in (0, 1, 8, 9, 10, 12, 16, 32, 64, 96, 111, 112, 113, 128):
        cases[f"cut to {at}"] = lambda b, n=at: b[:n]
    for off in (1, 4, 8, 16, 20, 23, 24, 25, 40):
        cases[f"cut off {off}"] = lambda b, n=off: b[:-n]
    for number in (0, 1, 20, 2**16, 2**31, 2**32 - 1):
        cases[f"header of {number}"] = lambda b, n=number: b[:-24] + struct.pack("<I", n) + b[-20:]
        cases[f"{number + 5} frames"] = lambda b, n=number: b[:-20] + struct.pack("<I", (n + 5) % 2**32) + b[-16:]
    for at in (0, 8, 9, 10, 12, 16, 32, 64, 96, 112, 120):
        cases[f"byte {at} differs"] = lambda b, n=at: b[:n] + bytes([b[n] ^ 0x80]) + b[n + 1 :]
    cases["end differs"] = lambda b: b[:-1] + b"E"
    cases["twice"] = lambda b: b + b
    cases["grown"] = lambda b: b[:-24] + bytes(100) + b[-24:]
    cases["empty"] = lambda b: b""
    cases["zeros"] = lambda b: bytes(len(b))
    cases["checksum"] = lambda b: b[:-16] + bytes(8) + b[-8:]
    return cases


PACKS = pack_cuts()


@pytest.mark.parametrize("what", PACKS)
def test_forged_packs(tmp_path: Path, what: str) -> None:
    rig = prepared(tmp_path)
    name = good_repository(rig)
    assert rig.check().code == 0
    path = min((rig.repo / "packs").iterdir())
    assert b"content" not in path.read_bytes()
    path.write_bytes(PACKS[what](path.read_bytes()))
    assert rig.check().code == 4
    ran = rig.restore(name)
    # Only the checksum may be wrong without any loss.
    assert (ran.code, rig.names()) == ((0, {b"a", b"b"}) if what == "checksum" else (4, {b"b"})), ran
    assert (rig.out / "b").read_bytes() == b"content of b"


def test_what_is_of_another_place(tmp_path: Path) -> None:
    rig = prepared(tmp_path)
    name = good_repository(rig)
    (tmp_path / "other").mkdir()
    other = Rig(tmp_path / "other")
    good_repository(other)
    one, two, *_ = sorted((rig.repo / "packs").iterdir())
    blobs = one.read_bytes(), two.read_bytes()
    foreign = min((other.repo / "packs").iterdir())
    one.write_bytes(foreign.read_bytes())
    assert rig.restore(name).code == 4 and rig.names() == {b"b"}
    (rig.repo / "packs" / foreign.name).write_bytes(foreign.read_bytes())
    one.write_bytes(blobs[1])
    two.write_bytes(blobs[0])
    ran = rig.restore(name)
    assert ran.code == 4 and ran.err.count("another name") == 2 and ran.err.count("another repository") == 1
    for key, source in (
        ("snapshots/" + "1" * 32, next((other.repo / "snapshots").iterdir())),
        ("config/00000001", other.repo / "config" / "00000000"),
    ):
        rig.w.put(key, source.read_bytes())
        assert rig.run("list").code == 4, key
    assert (rig.out / "b").read_bytes() == b"content of b"


def test_the_corpus_is_large() -> None:
    assert len(TREES) + len(PACKS) >= 200
