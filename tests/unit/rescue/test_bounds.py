"""Memory has a bound, and what is made to exhaust it is refused: every bomb is read by a process that may take 512 MiB of addresses.

Patience here is only for a hang; nothing is measured in seconds.
"""

from __future__ import annotations

import os
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from tests.unit.rescue.rig import Rig
from tests.unit.rescue.tiny_writer import (
    DATA,
    LIST,
    TREE,
    Frame,
    Pack,
    directory,
    entry,
    file,
    item,
    lp,
    record,
    uv,
)

from longshore import rescue as program

MIB = 1 << 20
ADDRESSES_BYTES_MAX = 512 * MIB
PATIENCE_SECONDS = 120


def zeros(length: int, **options: object) -> bytes:
    """A zstd frame of many zeros in few bytes."""
    maker = zstandard.ZstdCompressor(level=1, **options).compressobj()
    parts = [maker.compress(bytes(min(MIB, length - at))) for at in range(0, length, MIB)]
    return b"".join(parts) + maker.flush()


def bounded(rig: Rig, *words: object, passphrase: Path | None = None) -> subprocess.CompletedProcess[str]:
    secret = ["--key-file", rig.key] if passphrase is None else ["--passphrase-file", passphrase]
    done = subprocess.run(
        list(map(str, [sys.executable, "-I", program.__file__, "--repository", rig.repo, *secret, *words])),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES_BYTES_MAX, ADDRESSES_BYTES_MAX)),
    )
    assert "error in this program" not in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert "not enough memory" not in done.stderr, done.stderr
    return done


def pack_of(rig: Rig, **seal: object) -> None:
    pack = rig.w.new_pack()
    rig.w.frame(pack, DATA, [b"x"])
    rig.w.seal_pack(pack, **seal)


def frame_of(rig: Rig, plain: bytes, length: int = 16 * MIB) -> None:
    pack = rig.w.new_pack()
    (tree,) = rig.w.frame(pack, TREE, [], plain=plain, ids=[(os.urandom(32), length)])
    rig.w.seal_pack(pack)
    rig.w.snapshot(directory(b"", [item(4, 1, tree)]))


def zstd(claimed: int, body: bytes) -> bytes:
    return b"\x01" + struct.pack("<I", claimed) + body


def sparse(rig: Rig, key: str, size: int) -> None:
    rig.w.put(key, b"LONGSHOR")
    os.truncate(rig.repo / key, size)


def tiny_rows(count: int, *, moved: bool) -> bytes:
    """Rows of frames of 21 bytes with one chunk of one byte."""
    if not moved:
        return uv(count) + (b"\0\x01" + uv(21) + b"\x01" + bytes(32) + b"\x01") * count
    start = b"\x01\x01"
    end = uv(21) + b"\x01" + bytes(32) + b"\x01"
    return uv(count) + b"".join(start + struct.pack("<QQII", n, n, 0, 0) + bytes(32) + end for n in range(count))


def many_frames(rig: Rig, count: int, *, moved: bool, fill: int = 21) -> None:
    pack = Pack(rig.w.session, rig.w.numbers, os.urandom(32))
    rig.w.numbers += 1
    pack.frames.append(Frame(DATA, pack.session, pack.number, 0, pack.salt, bytes(fill * count), []))
    rig.w.seal_pack(pack, rows=tiny_rows(count, moved=moved), count=count)


def deep_lists(rig: Rig) -> None:
    """Lists of 400,000 lists, eight deep: as many items as a file of the largest size has bytes."""
    pack = rig.w.new_pack()
    made, span = item(2, 1), 1
    for _ in range(3):
        made = item(3, span * 300_000, rig.w.frame(pack, LIST, [made * 300_000])[0])
        span *= 300_000
    rig.w.seal_pack(pack)
    rig.tree([file(b"big", span, [made]), directory(b"dir", [made])])


BOMBS: dict[str, Callable[[Rig], object]] = {
    "frame of zeros beyond what it says": lambda r: frame_of(r, zstd(16 * MIB, zeros(1 << 30))),
    "frame that says 4 GiB": lambda r: frame_of(r, zstd(0xFFFFFFFF, zeros(1 << 20))),
    "frame without content size": lambda r: frame_of(r, zstd(100, zeros(1 << 30, write_content_size=False)), 100),
    "frame with a window of 2 GiB": lambda r: frame_of(r, zstd(16 * MIB, bytes.fromhex("28b52ffd00a8") + bytes(20))),
    "frame with a content size of 2^63": lambda r: frame_of(
        r, zstd(16 * MIB, bytes.fromhex("28b52ffde0ffffffffffffff7f") + bytes(20))
    ),
    "raw frame that says 16 MiB": lambda r: frame_of(r, b"\0" + struct.pack("<I", 16 * MIB)),
    "skippable frames": lambda r: frame_of(r, zstd(16 * MIB, (b"\x50\x2a\x4d\x18" + bytes(4)) * 100_000)),
    "header of zeros": lambda r: pack_of(r, header=zstd(64 * MIB, zeros(64 * MIB))),
    "header beyond what it says": lambda r: pack_of(r, header=zstd(64 * MIB, zeros(1 << 30))),
    "header that says 4 GiB": lambda r: pack_of(r, header=zstd(0xFFFFFFFF, b"x")),
    "number of frames": lambda r: pack_of(r, count=0xFFFFFFFF),
    "number of frames in the header": lambda r: pack_of(r, rows=uv(1 << 63), count=1 << 20),
    "number of chunks": lambda r: pack_of(r, rows=uv(1) + b"\0\x01" + uv(22) + uv((1 << 64) - 1), count=1),
    "frames that are none": lambda r: many_frames(r, 10_000, moved=False),
    "snapshot of zeros": lambda r: r.w.sealed_raw("snapshot", "snapshots/" + "1" * 32, zstd(16 * MIB, zeros(1 << 30))),
    "snapshot that says 16 MiB": lambda r: r.w.sealed_raw(
        "snapshot", "snapshots/" + "1" * 32, zstd(16 * MIB, zeros(16 * MIB))
    ),
    "session that says 16 MiB and one": lambda r: r.w.sealed_raw(
        "session", "sessions/" + "1" * 32, zstd(16 * MIB + 1, zeros(16 * MIB + 1))
    ),
    "index that says 256 MiB": lambda r: r.w.sealed_raw("index", "index/" + "1" * 32, zstd(256 * MIB, zeros(100))),
    "index of 256 MiB of zeros": lambda r: r.w.sealed_raw(
        "index", "index/" + "1" * 32, zstd(256 * MIB, zeros(256 * MIB))
    ),
    "index with numbers": lambda r: r.w.sealed("index", "index/" + "1" * 32, b"\xff" * 16),
    "usage with numbers": lambda r: r.w.sealed("usage", "usage/" + "1" * 64, uv((1 << 64) - 1)),
    "usage of 256 MiB of zeros": lambda r: r.w.sealed_raw(
        "usage", "usage/" + "1" * 64, zstd(256 * MIB, zeros(256 * MIB))
    ),
    "session of a tebibyte": lambda r: sparse(r, "sessions/" + "1" * 32, 1 << 40),
    "snapshot of a tebibyte": lambda r: sparse(r, "snapshots/" + "1" * 32, 1 << 40),
    "pack of a tebibyte": lambda r: sparse(r, "packs/" + "1" * 32 + "-00000000", 1 << 40),
    "index of a tebibyte": lambda r: sparse(r, "index/" + "1" * 32, 1 << 40),
    "entry that says 2^60": lambda r: frame_of(r, b"\0" + struct.pack("<I", 10) + uv(1 << 60)[:9] + b"\0", 10),
    "items that say 2^64": lambda r: r.tree([entry(2, b"m", uv(1) + uv((1 << 64) - 1) + item(1, 1))]),
    "xattrs that say 2^64": lambda r: r.tree([entry(6, b"m", uv((1 << 64) - 1), flags=4)]),
    "target that says 2^63": lambda r: r.tree([entry(3, b"m", uv(1 << 63))]),
    "record that says 2^62": lambda r: r.w.sealed("snapshot", "snapshots/" + "1" * 32, uv(2) + uv(1 << 62)),
    "lists in a directory that are a file's": deep_lists,
    "root of 5 MiB": lambda r: r.w.sealed(
        "snapshot",
        "snapshots/" + "1" * 32,
        record((1, uv(1)), (3, bytes(16)), (5, directory(b"", [item(4, 1, bytes(32))] * 150_000)), (9, b"")),
    ),
}


@pytest.mark.parametrize("what", BOMBS)
def test_bombs_are_refused(tmp_path: Path, what: str) -> None:
    rig = Rig(tmp_path)
    rig.tree([rig.file(b"good", b"good")], name="f" * 32)
    BOMBS[what](rig)
    assert bounded(rig, "check").returncode == 4
    done = bounded(rig, "restore", "f" * 32, rig.out)
    assert rig.names() == {b"good"} and done.returncode in {0, 4}, done.stderr


@pytest.mark.parametrize(
    ("count", "moved", "code"), [(1 << 20, False, 0), ((1 << 20) + 1, False, 4), (500_000, True, 0)]
)
def test_as_many_frames_as_a_pack_may_hold(tmp_path: Path, count: int, moved: bool, code: int) -> None:
    rig = Rig(tmp_path)
    rig.tree([rig.file(b"good", b"good")])
    many_frames(rig, count, moved=moved)
    done = bounded(rig, "restore", "latest", rig.out)
    assert done.returncode == code and bool(done.stderr) == bool(code), done.stderr
    assert rig.names() == {b"good"}


def test_a_slot_beyond_this_machine_does_not_hide_the_one_that_opens(tmp_path: Path) -> None:
    rig, path = Rig(tmp_path), tmp_path / "passphrase"
    path.write_bytes(b"p")
    rig.w.costly_slot(4 * MIB, 1, 1, name="0" * 32)
    lone = subprocess.run(
        list(
            map(
                str,
                [sys.executable, "-I", program.__file__, "--repository", rig.repo, "--passphrase-file", path, "list"],
            )
        ),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES_BYTES_MAX, ADDRESSES_BYTES_MAX)),
    )
    assert (
        lone.returncode == 1 and "not enough memory for a key slot" in lone.stderr and "Traceback" not in lone.stderr
    ), lone.stderr
    rig.w.passphrase_slot(b"p", name="1" * 32)
    done = subprocess.run(
        lone.args,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES_BYTES_MAX,) * 2),
    )
    assert done.returncode == 0, done.stderr


PEAK = (
    "import sys, resource; sys.path.insert(0, sys.argv.pop(1)); import rescue; code = rescue.main(sys.argv[1:]); "
    "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
)


def peak_bytes(rig: Rig) -> int:
    command = [
        sys.executable,
        "-c",
        PEAK,
        Path(program.__file__).parent,
        "--repository",
        rig.repo,
        "--key-file",
        rig.key,
        "restore",
        "latest",
        rig.out,
    ]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS
    )
    assert done.returncode == 0, done.stderr
    return int(done.stderr.split()[-1]) * 1024


def test_a_million_chunks(tmp_path: Path) -> None:
    """Sixteen packs of 65,536 chunks in 4,096 frames each: measured 54 bytes a chunk, frames and the opened header with it."""
    rig = Rig(tmp_path)
    rig.tree([])
    few = peak_bytes(rig)
    for _ in range(16):
        pack = rig.w.new_pack()
        ids = os.urandom(32 * 65_536)
        rows = [bytes([0, 1]) + uv(21) + uv(16) for _ in range(4096)]
        body = b"".join(
            head + b"".join(ids[32 * at : 32 * at + 32] + b"\x01" for at in range(n * 16, n * 16 + 16))
            for n, head in enumerate(rows)
        )
        pack.frames.append(Frame(DATA, pack.session, pack.number, 0, pack.salt, bytes(21 * 4096), []))
        rig.w.seal_pack(pack, rows=uv(4096) + body, count=4096)
    many = peak_bytes(rig)
    assert (many - few) / (1 << 20) < 70, (many, few)


def test_frames_in_hand_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "OPENED_FRAMES_MAX_BYTES", 1000)
    monkeypatch.setattr(program, "OPEN_PACKS_MAX", 3)
    rig = Rig(tmp_path)
    plains = [bytes([n]) * 400 for n in range(20)]
    ids = [rig.data(plain)[0] for plain in plains]
    rig.tree([file(b"f%02d" % n, 800, [item(0, 400, ids[n]), item(0, 400, ids[0])]) for n in range(20)])
    held: list[tuple[int, int]] = []
    real = program.Repository.frame

    def watched(self: program.Repository, row: int) -> bytes:
        payload = real(self, row)
        # One frame may be larger than all that may be held, as the one of the tree is here.
        held.append((sum(map(len, self._opened.values())) if len(self._opened) > 1 else 0, len(self._pack_fds)))
        assert self._opened_bytes == sum(map(len, self._opened.values()))
        return payload

    monkeypatch.setattr(program.Repository, "frame", watched)
    assert rig.restore().code == 0
    assert (rig.out / "f19").read_bytes() == plains[19] + plains[0]
    assert max(h[1] for h in held) == 3
    assert 400 < max(h[0] for h in held) <= 1000


def test_directories_open_at_once_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "OPEN_DIRECTORIES_MAX", 4)
    rig = Rig(tmp_path)
    pack = rig.w.new_pack()
    inner = entry(6, b"bottom")
    for _ in range(30):
        (tree,) = rig.w.frame(pack, TREE, [lp(inner) + lp(entry(6, b"z"))])
        inner = directory(b"d", [item(4, 2, tree)], s=5)
    (tree,) = rig.w.frame(pack, TREE, [lp(inner)])
    rig.w.seal_pack(pack)
    rig.w.snapshot(directory(b"", [item(4, 1, tree)]))
    before = len(os.listdir("/proc/self/fd"))
    most = 0
    real = program.Restore.leaf

    def watched(self: program.Restore, parent: int, node: program.Node, leaf: program.Entry) -> None:
        nonlocal most
        most = max(most, len(os.listdir("/proc/self/fd")) - before)
        real(self, parent, node, leaf)

    monkeypatch.setattr(program.Restore, "leaf", watched)
    assert rig.restore().code == 0
    assert most <= 4 + 4, "root, its copy, the repository, a pack, and the open ones"
    path = rig.out
    for _ in range(30):
        path = path / "d"
        assert (path / "z").is_fifo() and os.stat(path).st_mtime_ns == 5 * 10**9 + 123_456_789
    assert (path / "bottom").is_fifo()
