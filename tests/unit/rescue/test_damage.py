"""Damage anywhere in a repository never gives wrong bytes, never a traceback, and never passes `check`.

Flips run inside one process through `main`, because a process for each of thousands would take hours; each on a fresh copy of the
one object that it damages.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from tests.unit.rescue.test_rescue import SECRET, rescue
from tests.unit.rescue.tiny_writer import DATA, LIST, TREE, Writer, directory, entry, envelope, file, item, lp, uv

from longshore import rescue as program

ALLOWED = {program.FAILED, program.CORRUPT, program.WRONG_KEY, program.NEWER}


def repository(folder: Path) -> Writer:
    w = Writer(folder)
    w.config()
    w.secret_slot(SECRET)
    return w


def run(*args: object) -> int:
    return program.main([str(a) for a in args])


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} if folder.exists() else {}


def test_every_flipped_byte(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    repo, key = tmp_path / "repo", tmp_path / "key"
    key.write_text(f"longshore-key-1:{SECRET.hex()}\n")
    w = repository(repo)
    pack, meta = w.new_pack(), w.new_pack()
    ids = w.frame(pack, DATA, [b"first file", b"second file"])
    (tree,) = w.frame(
        meta, TREE, [lp(file(b"a", 10, [item(0, 10, ids[0])])) + lp(file(b"b", 11, [item(0, 11, ids[1])]))]
    )
    w.seal_pack(pack)
    w.seal_pack(meta)
    w.snapshot(directory(b"", [item(4, 2, tree)]))
    right = {"a": b"first file", "b": b"second file"}
    arguments = ["--repository", repo, "--key-file", key]
    assert run(*arguments, "check") == 0
    count = 0
    for path in sorted(p for p in repo.rglob("*") if p.is_file()):
        blob = path.read_bytes()
        for at in range(len(blob)):
            count += 1
            path.write_bytes(blob[:at] + bytes([blob[at] ^ (1 << at % 8)]) + blob[at + 1 :])
            code = run(*arguments, "check")
            assert code in ALLOWED, (path, at, code)
            out = tmp_path / "out"
            code = run(*arguments, "restore", "latest", out)
            got = contents(out)
            assert got.items() <= right.items(), (path, at)
            assert (code == 0 and got == right) or code in ALLOWED | {program.NO_SNAPSHOT}, (path, at, code)
            subprocess.run(["rm", "-rf", out], check=True) if out.exists() else None
        for cut in (0, 1, 8, 95, len(blob) // 2, len(blob) - 1):
            path.write_bytes(blob[:cut])
            assert run(*arguments, "check") in ALLOWED, (path, cut)
        path.write_bytes(blob)
    said = capsys.readouterr()
    assert "error in this program" not in said.out + said.err
    assert count > 1000


def test_the_next_place_is_tried(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    w = repository(repo)
    one, two, meta = w.new_pack(), w.new_pack(), w.new_pack()
    (data,) = w.frame(one, DATA, [b"twice"])
    w.frame(two, DATA, [b"twice"])
    (tree,) = w.frame(meta, TREE, [lp(file(b"f", 5, [item(0, 5, data)]))])
    for pack in (one, two, meta):
        w.seal_pack(pack)
    w.snapshot(directory(b"", [item(4, 1, tree)]))
    for pack in (one, two):
        path = repo / "packs" / pack.name
        blob = path.read_bytes()
        path.write_bytes(blob[:115] + bytes([blob[115] ^ 1]) + blob[116:])
        done = rescue(tmp_path, repo, "restore", "latest", tmp_path / pack.name)
        if pack is one:
            assert contents(tmp_path / pack.name) == {"f": b"twice"}, done.stderr
        else:
            assert done.returncode == 4 and "f" in done.stderr and contents(tmp_path / pack.name) == {}


@pytest.mark.parametrize(
    "plain",
    [
        b"\x01" + (16).to_bytes(4, "little") + bytes.fromhex("28b52ffd00ff") + bytes(20),
        b"\x00" + (1 << 31).to_bytes(4, "little"),
        b"\x07" + bytes(8),
        envelope(b"x" * 100, compress=True) + b"!",
        b"\x01" + (99).to_bytes(4, "little") + envelope(b"x" * 100, compress=True)[5:],
        b"\x01" + (5).to_bytes(4, "little") + b"\x50\x2a\x4d\x18" + bytes(4) + b"01234",
    ],
    ids=["window", "length", "codec", "trailing", "length-differs", "skippable"],
)
def test_hostile_envelopes(tmp_path: Path, plain: bytes) -> None:
    repo = tmp_path / "repo"
    w = repository(repo)
    pack = w.new_pack()
    (tree,) = w.frame(pack, TREE, [], plain=plain, ids=[(os.urandom(32), 100)])
    w.seal_pack(pack)
    w.snapshot(directory(b"", [item(4, 1, tree)]))
    assert rescue(tmp_path, repo, "restore", "latest", tmp_path / "out").returncode == 4
    assert rescue(tmp_path, repo, "check").returncode == 4


def test_hostile_trees(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    w = repository(repo)
    pack = w.new_pack()
    (data,) = w.frame(pack, DATA, [b"data"])
    good = file(b"m", 4, [item(0, 4, data)])
    bad_entries = {
        "duplicate": lp(good) + lp(good),
        "descending": lp(good) + lp(file(b"a", 0, [])),
        "trailing": lp(good + b"\0"),
        "long varint": lp(entry(2, b"m", b"\x80\x00\x00")),
        "size": lp(file(b"m", 5, [item(0, 4, data)])),
        "span": lp(file(b"m", 3, [item(0, 3, data)])),
        "piece in file": lp(file(b"m", 4, [item(4, 4, data)])),
        "data in directory": lp(directory(b"m", [item(0, 4, data)])),
        "kind confusion": lp(directory(b"m", [item(4, 4, data)])),
        "zero span": lp(file(b"m", 0, [item(1, 0)])),
        "huge": lp(file(b"m", 1 << 63, [item(1, 1 << 63)])),
        "mode": lp(entry(6, b"m", mode=0o10000)),
        "flags": lp(entry(6, b"m", flags=16)),
        "kind": lp(entry(8, b"m")),
        "nanoseconds": lp(entry(6, b"m", ns=10**9)),
        "xattr count": lp(entry(6, b"m", uv(1 << 40), flags=4)),
        "missing": lp(file(b"m", 4, [item(0, 4, bytes(32))])),
    }
    snapshots = {}
    for what, plain in bad_entries.items():
        (tree,) = w.frame(pack, TREE, [plain])
        snapshots[what] = w.snapshot(directory(b"", [item(4, 2 if what in {"duplicate", "descending"} else 1, tree)]))
    nested = item(1, 1)
    for _ in range(9):
        (chunk,) = w.frame(pack, LIST, [nested])
        nested = item(3, 1, chunk)
    (tree,) = w.frame(pack, TREE, [lp(file(b"m", 1, [nested]))])
    snapshots["nine lists"] = w.snapshot(directory(b"", [item(4, 1, tree)]))
    w.seal_pack(pack)
    for what, name in snapshots.items():
        out = tmp_path / what.replace(" ", "-")
        done = rescue(tmp_path, repo, "restore", name, out)
        assert done.returncode == 4, (what, done.stderr)
        assert contents(out) == {}, what
