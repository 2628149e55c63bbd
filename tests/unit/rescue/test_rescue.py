"""rescue.py reads what the page of the format says, written here by a writer of the test's own; runs as a copied file, in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.rescue.tiny_writer import DATA, LIST, TREE, Writer, directory, entry, file, item, lp, record, sv

RESCUE = Path(__file__).parents[3] / "python" / "longshore" / "rescue.py"
SECRET = bytes(range(32))


def rescue(
    tmp: Path, repo: Path, *args: object, passphrase: bytes | None = None, secret: bytes = SECRET
) -> subprocess.CompletedProcess[str]:
    copy = tmp / "copied.py"
    if not copy.exists():
        shutil.copy(RESCUE, copy)
    key = tmp / "key"
    if passphrase is None:
        key.write_text(f"longshore-key-1:{secret.hex()}\n")
    else:
        key.write_bytes(passphrase)
    which = "--key-file" if passphrase is None else "--passphrase-file"
    command = [sys.executable, "-I", copy, "--repository", repo, which, key, *args]
    done = subprocess.run(
        [os.fspath(a) if isinstance(a, Path) else str(a) for a in command], capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr and "error in this program" not in done.stderr + done.stdout, done.stderr
    return done


def build(folder: Path) -> tuple[Writer, str]:
    """A repository with every construct: moved frames, nested lists, links, holes, zeros, odd names, special files."""
    w = Writer(folder)
    w.config(0)
    w.config(1, optional=(700,))
    w.secret_slot(os.urandom(32))
    w.secret_slot(SECRET)
    w.passphrase_slot(b"open sesame")
    birth, data, meta = w.new_pack(), w.new_pack(), w.new_pack()
    small = w.frame(birth, DATA, [b"one", b"two", b"three"])
    (big,) = w.frame(birth, DATA, [b"B" * 300_000], compress=False)
    data.frames.append(birth.frames.pop())
    w.frame(data, DATA, [b"filler"])
    w.seal_pack(birth)
    w.seal_pack(data)
    (inner,) = w.frame(meta, LIST, [item(0, 3, small[0]) + item(1, 1 << 20) + item(0, 3, small[1])])
    (outer,) = w.frame(meta, LIST, [item(3, 6 + (1 << 20), inner) + item(2, 8192) + item(0, 5, small[2])])
    size = 6 + (1 << 20) + 8192 + 5
    below = entry(2, b"x", b"\x03" + b"\x01" + item(0, 3, small[0]), mode=0o4755)
    (sub,) = w.frame(meta, TREE, [lp(below)])
    link = {"inode": 7, "device": 9}
    first = [
        file(b"\n\xff odd", 0, []),
        file(b"a-link", 3, [item(0, 3, small[1])], **link),
        file(b"big", 300_000, [item(0, 300_000, big)], xattrs={b"user.a": b"\0\1", b"user.b": b""}),
        directory(b"dir", [item(4, 1, sub)], mode=0o700, s=-5, ns=1),
        directory(b"empty", []),
    ]
    second = [
        entry(6, b"fifo", mode=0o600),
        entry(3, b"link", lp(b"../nowhere")),
        entry(7, b"sock"),
        file(b"sparse", size, [item(3, size, outer)]),
        file(b"z-link", 3, [item(0, 3, small[1])], **link),
    ]
    one, two = w.frame(meta, TREE, [b"".join(map(lp, first)), b"".join(map(lp, second))])
    (pieces,) = w.frame(meta, LIST, [item(4, len(first), one) + item(4, len(second), two)])
    w.seal_pack(meta)
    root = directory(b"", [item(3, len(first) + len(second), pieces)], mode=0o750, s=1_500_000_000)
    name = w.snapshot(root, started=5 * 10**9, files=7, size=size)
    w.snapshot(root, state=2)
    gone = w.snapshot(root)
    w.sealed("removed", f"removed/{gone}", record((2, sv(1)), (4, b"me")))
    w.sealed("tombstone", "tombstones/" + "0" * 32, record((1, meta.session + b"\0\0\0\0")))
    w.put("open/whatever", b"reserved")
    return w, name


def test_every_construct_is_restored(tmp_path: Path) -> None:
    repo, out = tmp_path / "repo", tmp_path / "out"
    _, name = build(repo)
    done = rescue(tmp_path, repo, "restore", "latest", out)
    assert done.returncode == 0, done.stderr + done.stdout
    read = {p.name: p.read_bytes() for p in out.iterdir() if p.is_file() and not p.is_symlink()}
    assert read["sparse"] == b"one" + bytes(1 << 20) + b"two" + bytes(8192) + b"three"
    assert read["big"] == b"B" * 300_000
    assert read["a-link"] == read["z-link"] == b"two"
    assert os.stat(out / "a-link").st_ino == os.stat(out / "z-link").st_ino
    assert os.listdir(os.fsencode(out)).count(b"\n\xff odd") == 1
    assert os.readlink(out / "link") == "../nowhere"
    assert stat.S_ISFIFO(os.lstat(out / "fifo").st_mode) and stat.S_ISSOCK(os.lstat(out / "sock").st_mode)
    assert os.stat(out / "sparse").st_blocks * 512 < 1 << 20
    assert os.getxattr(out / "big", "user.a") == b"\0\1"
    assert stat.S_IMODE(os.stat(out).st_mode) == 0o750 and os.stat(out).st_mtime_ns == 1_500_000_000_123_456_789
    assert os.stat(out / "dir").st_mtime_ns == -5 * 10**9 + 1
    assert stat.S_IMODE(os.stat(out / "dir" / "x").st_mode) == 0o4755
    check = rescue(tmp_path, repo, "check")
    assert check.returncode == 0, check.stderr + check.stdout
    rows = [
        json.loads(line)
        for line in rescue(tmp_path, repo, "list", "--json", passphrase=b"open sesame\n").stdout.splitlines()
    ]
    assert [r["snapshot_id"] for r in rows if r["type"] == "row"] == ["ls0-" + name]


def test_exit_codes(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    w, name = build(repo)
    assert rescue(tmp_path, repo, "list", secret=bytes(32)).returncode == 12
    assert rescue(tmp_path, repo, "restore", "ls0-ffff", tmp_path / "o").returncode == 13
    assert rescue(tmp_path, repo, "restore", name + ":nope", tmp_path / "o").returncode == 13
    assert rescue(tmp_path, tmp_path / "none", "list").returncode == 10
    assert rescue(tmp_path, repo, "restore").returncode == 2
    w.config(2, required=(1,))
    assert rescue(tmp_path, repo, "list").returncode == 14


@pytest.mark.parametrize("bad", [b"a/b", b"..", b".", b"", b"a\0b", b"x" * 1025])
def test_hostile_names_touch_nothing(tmp_path: Path, bad: bytes) -> None:
    repo, out = tmp_path / "repo", tmp_path / "in" / "out"
    w = Writer(repo)
    w.config()
    w.secret_slot(SECRET)
    pack = w.new_pack()
    (tree,) = w.frame(pack, TREE, [lp(file(bad, 0, []))])
    w.seal_pack(pack)
    name = w.snapshot(directory(b"", [item(4, 1, tree)]))
    done = rescue(tmp_path, repo, "restore", name, out)
    assert done.returncode == 4, done.stderr
    assert list(out.iterdir()) == [] and list((tmp_path / "in").iterdir()) == [out]


def test_depth_has_no_limit(tmp_path: Path) -> None:
    repo, out = tmp_path / "repo", tmp_path / "out"
    w = Writer(repo)
    w.config()
    w.secret_slot(SECRET)
    pack = w.new_pack()
    (data,) = w.frame(pack, DATA, [b"deep"])
    inner = file(b"f", 4, [item(0, 4, data)])
    for _ in range(3000):
        (tree,) = w.frame(pack, TREE, [lp(inner)])
        inner = directory(b"dddddddddd", [item(4, 1, tree)])
    (tree,) = w.frame(pack, TREE, [lp(inner)])
    w.seal_pack(pack)
    name = w.snapshot(directory(b"", [item(4, 1, tree)]))
    assert rescue(tmp_path, repo, "check").returncode == 0
    done = rescue(tmp_path, repo, "restore", name, out)
    assert done.returncode == 0, done.stderr
    fd = os.open(out, os.O_RDONLY)
    for _ in range(3000):
        below = os.open("dddddddddd", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    with os.fdopen(os.open("f", os.O_RDONLY, dir_fd=fd)) as handle:
        assert handle.read() == "deep"
    os.close(fd)
    subprocess.run(["rm", "-rf", str(out)], check=True)
