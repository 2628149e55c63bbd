"""Every field and limit of the page, at its edge and beyond.

Numbers, records, envelopes, entries, items, snapshots, headers of packs, configurations, key slots and key files.

Over 500 lines because it follows the page from its first table to its last, a row a case.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
import zstandard
from tests.unit.rescue.rig import SECRET, Rig
from tests.unit.rescue.tiny_writer import (
    LIST,
    content,
    directory,
    entry,
    envelope,
    file,
    item,
    lp,
    record,
    sv,
    usage,
    uv,
)

from longshore import rescue as program

MIB = 1 << 20
ID = bytes(32)
Corrupt, Newer = program.CorruptError, program.NewerError


def cursor(data: bytes) -> program.Cursor:
    return program.Cursor(data)


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_varints_are_read(number: int) -> None:
    assert cursor(uv(number) + b"more").uv() == number
    assert program.whole_uv(uv(number)) == number
    if number < 1 << 63:
        assert program.whole_sv(sv(number)) == number
        assert program.whole_sv(sv(-number)) == -number


@pytest.mark.parametrize(
    "bad",
    [b"", b"\x80", b"\x80\x00", b"\xff" * 9 + b"\x02", b"\xff" * 10, b"\x80" * 10 + b"\x01", b"\x80" * 9 + b"\x00"],
)
def test_varints_are_refused(bad: bytes) -> None:
    with pytest.raises(Corrupt):
        cursor(bad).uv()


def test_fields_fill_their_numbers() -> None:
    for read in (program.whole_uv, program.whole_sv):
        with pytest.raises(Corrupt):
            read(b"\x01\x01")
    with pytest.raises(Corrupt):
        cursor(b"abc").take(4)
    with pytest.raises(Corrupt):
        cursor(b"").u8()
    assert cursor(b"abc").take(3) == b"abc"
    assert cursor(b"\x01\x02\x03\x04").u32() == 0x04030201
    assert cursor(b"\x01\x02\x03\x04\x05\x06\x07\x08").u64() == 0x0807060504030201


def test_records() -> None:
    def read(*fields: tuple[int, bytes]) -> dict[int, list[bytes]]:
        return program.read_record(record(*fields), frozenset({1, 2, 4}), frozenset({4}))

    assert read((1, b"a"), (2, b""), (4, b"x"), (4, b"y"), (6, b"?"), (6, b"?"), (300, b"?")) == {
        1: [b"a"],
        2: [b""],
        4: [b"x", b"y"],
    }
    assert read((0, b"?"), (1, b"a")) == {1: [b"a"]}
    for bad in (
        ((2, b""), (1, b"")),
        ((1, b""), (1, b"")),
        ((2, b""), (2, b"")),
        ((6, b""), (4, b"")),
        ((6, b""), (0, b"")),
    ):
        with pytest.raises(Corrupt):
            read(*bad)
    with pytest.raises(Newer):
        read((1, b""), (3, b""))
    with pytest.raises(Corrupt):
        program.read_record(b"\x02\x05abc", frozenset(), frozenset())
    with pytest.raises(Corrupt, match="tag=1"):
        program.one({}, 1, "it")


def zstd(payload: bytes, length: int | None = None, **options: object) -> bytes:
    body = zstandard.ZstdCompressor(**options).compress(payload)
    return b"\x01" + struct.pack("<I", len(payload) if length is None else length) + body


def test_envelopes_are_opened() -> None:
    for payload in (b"", b"x", bytes(100_000), os.urandom(5000)):
        for compress in (False, True):
            assert program.open_envelope(envelope(payload, compress=compress), len(payload)) == payload
        assert program.open_envelope(zstd(payload, write_content_size=False), len(payload)) == payload
        assert program.open_envelope(zstd(payload, write_checksum=True), len(payload), len(payload)) == payload


ZSTD_OF_100 = zstd(b"x" * 100)
DICTIONARY = zstandard.ZstdCompressionDict(b"longshore" * 100, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
TRAINED = zstandard.train_dictionary(4096, [b"%d line %d of text" % (i, i * 7) * 20 for i in range(400)])


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"\x00\x00\x00\x00",
        envelope(b"x" * 101),
        zstd(b"x" * 101),
        b"\x00" + struct.pack("<I", 5) + b"four",
        b"\x00" + struct.pack("<I", 3) + b"four",
        ZSTD_OF_100 + b"!",
        ZSTD_OF_100 + zstandard.ZstdCompressor().compress(b""),
        ZSTD_OF_100[:-1],
        zstd(b"x" * 100, 99),
        zstd(b"x" * 99, 100),
        zstd(b"x" * 100, 99, write_content_size=False),
        zstd(b"x" * 99, 100, write_content_size=False),
        zstd(b"x" * 100_000, 100, write_content_size=False),
        zstd(b"", 5),
        zstd(b"x", 0),
        zstd(b"x", 0, write_content_size=False),
        b"\x01" + struct.pack("<I", 5) + b"\x50\x2a\x4d\x18" + struct.pack("<I", 5) + b"12345",
        b"\x01" + struct.pack("<I", 100) + b"\x50\x2a\x4d\x18" + struct.pack("<I", 1) + b"1" + ZSTD_OF_100[5:],
        b"\x01" + struct.pack("<I", 100) + b"plain text, not zstd",
        zstd(b"x" * 100, dict_data=TRAINED),
        zstd(b"1 line 7 of text" * 6, dict_data=TRAINED, write_dict_id=True),
        b"\x01" + struct.pack("<I", 0),
    ],
    ids=lambda bad: None,
)
def test_envelopes_are_refused(bad: bytes) -> None:
    with pytest.raises(Corrupt):
        program.open_envelope(bad, 100)


def test_envelopes_of_another_length_or_codec_are_refused() -> None:
    with pytest.raises(Corrupt):
        program.open_envelope(envelope(b"x" * 100), 1000, 99)
    with pytest.raises(Newer):
        program.open_envelope(b"\x02" + struct.pack("<I", 1) + b"x", 100)


def test_windows_end_at_8_mib() -> None:
    payload = bytes(9 * MIB)
    for log, good in ((23, True), (24, False)):
        options = zstandard.ZstdCompressionParameters.from_level(1, window_log=log, write_content_size=False)
        plain = (
            b"\x01"
            + struct.pack("<I", len(payload))
            + zstandard.ZstdCompressor(compression_params=options).compress(payload)
        )
        if good:
            assert program.open_envelope(plain, 16 * MIB) == payload
        else:
            with pytest.raises(Corrupt):
                program.open_envelope(plain, 16 * MIB)


def read(raw: bytes, *, root: bool = False) -> program.Entry:
    return program.read_entry(cursor(raw), root=root)


GOOD_ENTRIES = {
    "name": entry(6, b"x" * 1024),
    "mode": entry(6, b"m", mode=0o7777),
    "nanoseconds": entry(6, b"m", ns=999_999_999),
    "every flag": entry(6, b"m", uv(0), flags=4 | 8 | 1),
    "target": entry(3, b"m", lp(b"t" * 65_536)),
    "xattr name": entry(6, b"m", xattrs={b"x" * 255: b""}),
    "xattr value": entry(6, b"m", xattrs={b"x": bytes(65_536)}),
    "xattr count": entry(6, b"m", xattrs={b"%04d" % n: b"" for n in range(4096)}),
    "size": file(b"m", (1 << 63) - 1, [item(1, (1 << 63) - 1)]),
    "chunk": file(b"m", 16 * MIB, [item(0, 16 * MIB, ID)]),
    "file of all items": file(b"m", 4, [item(0, 1, ID), item(1, 1), item(2, 1), item(3, 1, ID)]),
    "directory of all items": directory(b"m", [item(3, 1, ID), item(4, 1, ID)]),
    "directory with device": directory(b"m", [], device=7),
    "devices": entry(5, b"m", uv(1) + uv(3)),
    "early": entry(7, b"m", s=-(1 << 62)),
}
BAD_ENTRIES = {
    "name": entry(6, b"x" * 1025),
    "mode": entry(6, b"m", mode=0o10000),
    "nanoseconds": entry(6, b"m", ns=10**9),
    "flag 16": entry(6, b"m", flags=16),
    "flag 128": entry(6, b"m", flags=128),
    "kind 0": entry(0, b"m"),
    "kind 8": entry(8, b"m"),
    "target": entry(3, b"m", lp(b"t" * 65_537)),
    "xattr name": entry(6, b"m", xattrs={b"x" * 256: b""}),
    "xattr without name": entry(6, b"m", xattrs={b"": b""}),
    "xattr name with nul": entry(6, b"m", xattrs={b"a\0b": b""}),
    "xattr value": entry(6, b"m", xattrs={b"x": bytes(65_537)}),
    "xattr count": entry(6, b"m", xattrs={b"%04d" % n: b"" for n in range(4097)}),
    "xattrs descending": entry(6, b"m", uv(2) + lp(b"b") + lp(b"") + lp(b"a") + lp(b""), flags=4),
    "xattrs twice": entry(6, b"m", uv(2) + lp(b"a") + lp(b"") + lp(b"a") + lp(b""), flags=4),
    "size": file(b"m", 1 << 63, [item(1, (1 << 63) - 1), item(1, 1)]),
    "chunk": file(b"m", 16 * MIB + 1, [item(0, 16 * MIB + 1, ID)]),
    "longer than its items": file(b"m", 2, [item(1, 1)]),
    "shorter than its items": file(b"m", 1, [item(1, 2)]),
    "empty item": file(b"m", 1, [item(1, 0), item(1, 1)]),
    "piece in a file": file(b"m", 1, [item(4, 1, ID)]),
    "data in a directory": directory(b"m", [item(0, 1, ID)]),
    "hole in a directory": directory(b"m", [item(1, 1)]),
    "zeros in a directory": directory(b"m", [item(2, 1)]),
    "item 5": file(b"m", 1, [item(5, 1, ID)]),
    "items cut short": entry(2, b"m", uv(1) + uv(2) + item(1, 1)),
    "id cut short": entry(2, b"m", uv(1) + uv(1) + item(0, 1, bytes(31))),
    "spans beyond 64 bits": directory(b"m", [item(4, (1 << 64) - 1, ID), item(4, (1 << 64) - 1, ID)]),
    "bytes left over": entry(6, b"m") + b"\0",
    "cut short": entry(6, b"m")[:-1],
    "no name": entry(6, b""),
    "dot": entry(6, b"."),
    "dots": entry(6, b".."),
    "slash": entry(6, b"/"),
    "slash inside": entry(6, b"a/b"),
    "nul": entry(6, b"a\0"),
    "device of a link group missing": entry(6, b"m", flags=2),
}


@pytest.mark.parametrize("what", GOOD_ENTRIES)
def test_entries_at_the_edge_are_read(what: str) -> None:
    assert read(GOOD_ENTRIES[what]).name in {b"m", b"x" * 1024}


@pytest.mark.parametrize("what", BAD_ENTRIES)
def test_entries_beyond_are_refused(what: str) -> None:
    with pytest.raises(Corrupt):
        read(BAD_ENTRIES[what])


def test_entries_end_at_4_mib() -> None:
    def of(size: int) -> bytes:
        xattrs = {b"%02d" % n: bytes(65_536) for n in range(63)}
        short = entry(6, b"m", xattrs={**xattrs, b"last": b""})
        full = entry(6, b"m", xattrs={**xattrs, b"last": bytes(size - len(short) - 2)})
        assert len(full) == size
        return lp(full)

    assert program.read_outer(cursor(of(4 * MIB))).name == b"m"
    with pytest.raises(Corrupt):
        program.read_outer(cursor(of(4 * MIB + 1)))
    with pytest.raises(Corrupt):
        program.read_outer(cursor(uv(100) + entry(6, b"m")))


def test_the_root_is_a_directory_without_name() -> None:
    assert read(directory(b"", []), root=True).kind == program.DIRECTORY
    for bad in (directory(b"m", []), file(b"", 0, [])):
        with pytest.raises(Corrupt):
            read(bad, root=True)


def snapshot(fields: dict[int, list[bytes]]) -> program.Snapshot:
    pairs = [(tag, value) for tag in sorted(fields) for value in fields[tag]]
    return program.read_snapshot("0" * 32, record(*pairs))


COMMITTED = {1: [uv(1)], 3: [bytes(16)], 5: [directory(b"", [])], 9: [b"vol"]}
SNAPSHOT_EXTRAS = {
    2: [bytes(16)],
    4: [lp(b"k") + lp(b"v"), lp(b"") + lp(b"")],
    6: [sv(-1)],
    7: [bytes(32), bytes(32)],
    8: [sv(7)],
    10: [b"host"],
    12: [b"/\xff"],
    14: [b"p"],
    16: [b"".join(map(uv, range(11)))],
    18: [uv(1) + lp(b"x") + lp(b"y")],
    20: [b"x", b"y"],
    996: [b"", b""],
}


def test_snapshots_are_read() -> None:
    found = snapshot(COMMITTED | SNAPSHOT_EXTRAS)
    assert (found.committed, found.source, found.host, found.path, found.started_ns) == (
        True,
        "vol",
        "host",
        b"/\xff",
        -1,
    )
    assert list(found.counts.values()) == list(range(11)) and found.counts["items_changed"] == 10
    assert found.usage == (bytes(32), bytes(32))
    assert snapshot(COMMITTED).counts == {}
    assert not snapshot({1: [uv(2)], 3: [bytes(16)], 22: [b"why"]}).committed


@pytest.mark.parametrize(
    "change",
    [
        {1: []},
        {1: [uv(1), uv(1)]},
        {1: [b"\x01\x00"]},
        {3: []},
        {3: [bytes(15)]},
        {5: []},
        {5: [directory(b"", []) + b"\0"]},
        {5: [directory(b"x", [])]},
        {9: []},
        {9: [b"a", b"b"]},
        {7: [bytes(31)]},
        {2: [bytes(15)]},
        {4: [lp(b"k")]},
        {4: [lp(b"k") + lp(b"v") + b"\0"]},
        {6: [b""]},
        {6: [sv(1) + b"\0"]},
        {8: [sv(1) + b"\0"]},
        {16: [b"".join(map(uv, range(10)))]},
        {16: [b"".join(map(uv, range(12)))]},
    ],
    ids=str,
)
def test_snapshots_are_refused(change: dict[int, list[bytes]]) -> None:
    with pytest.raises(Corrupt) as caught:
        snapshot(COMMITTED | change)
    assert not isinstance(caught.value, Newer)


def test_snapshots_of_the_future_are_refused_as_such() -> None:
    for change in ({1: [uv(3)]}, {11: [b""]}, {997: [b""]}):
        with pytest.raises(Newer):
            snapshot(COMMITTED | change)


OWN = (b"s" * 16, 5, b"t" * 32)


def row(
    stored: int,
    chunks: list[tuple[bytes, int]],
    *,
    kind: int = 1,
    flags: int = 0,
    moved: bytes = b"",
    count: int | None = None,
) -> bytes:
    many = len(chunks) if count is None else count
    return bytes([flags, kind]) + moved + uv(stored) + uv(many) + b"".join(i + uv(n) for i, n in chunks)


def moved(session: bytes = b"m" * 16, number: int = 5, ordinal: int = 0) -> bytes:
    return session + struct.pack("<II", number, ordinal) + b"u" * 32


def header(rows: list[bytes], at: int, *, count: int | None = None, tail: bytes = b"") -> program.PackHeader:
    payload = uv(len(rows)) + b"".join(rows) + tail
    found = program.PackHeader(payload, len(rows) if count is None else count, at, OWN[0], OWN[1], OWN[2])
    found.check()
    return found


def test_headers_are_read() -> None:
    rows = [
        row(30, [(b"a" * 32, 3), (b"b" * 32, 4)]),
        row(21, [(b"c" * 32, 1)], kind=2, flags=1, moved=moved(ordinal=0xFFFFFFFE)),
        row(40, [(b"d" * 32, 16 * MIB)], kind=3),
        row(22, [(b"e" * 32, 1)], flags=1, moved=moved(b"s" * 16, 6)),
    ]
    found = header(rows, 112 + 30 + 21 + 40 + 22)
    frames = list(found.frames())
    assert [(f.kind, f.session, f.number, f.ordinal, f.salt[:1]) for f in frames] == [
        (1, b"s" * 16, 5, 0, b"t"),
        (2, b"m" * 16, 5, 0xFFFFFFFE, b"u"),
        (3, b"s" * 16, 5, 1, b"t"),
        (1, b"s" * 16, 6, 0, b"u"),
    ]
    assert [(f.offset, f.stored, f.payload) for f in frames] == [
        (112, 30, 7),
        (142, 21, 1),
        (163, 40, 16 * MIB),
        (203, 22, 1),
    ]
    assert list(found.chunks(frames[0])) == [(b"a" * 32, 3), (b"b" * 32, 4)]
    assert header([row(MIB + 5, [(ID, 5)])], 112 + MIB + 5)
    assert header([], 112)


ONE = [(ID, 1)]


@pytest.mark.parametrize(
    ("rows", "at"),
    [
        ([row(30, ONE, flags=2)], 142),
        ([row(30, ONE, kind=0)], 142),
        ([row(30, ONE, kind=4)], 142),
        ([row(20, ONE)], 132),
        ([row(31, ONE)], 142),
        ([row(29, ONE)], 142),
        ([row(30, [])], 142),
        ([row(30, [(ID, 0)])], 142),
        ([row(30, [(ID, 1), (ID, 0)])], 142),
        ([row(30, [(ID, 16 * MIB + 1)])], 142),
        ([row(30, [(ID, 16 * MIB), (ID, 1)])], 142),
        ([row(30, ONE, count=2)], 142),
        ([row(30, ONE, count=1 << 60)], 142),
        ([row(MIB + 2, ONE)], 112 + MIB + 2),
        ([row(30, ONE, flags=1, moved=moved(ordinal=0xFFFFFFFF))], 142),
        ([row(30, ONE, flags=1, moved=moved(OWN[0], OWN[1], 9))], 142),
        ([row(30, ONE, flags=1, moved=moved()), row(30, ONE, flags=1, moved=moved())], 172),
        ([row(30, ONE), row(30, ONE)[:-1]], 172),
    ],
    ids=lambda value: None,
)
def test_headers_are_refused(rows: list[bytes], at: int) -> None:
    with pytest.raises(Corrupt):
        header(rows, at)


def test_headers_agree_with_their_pack() -> None:
    good = [row(30, ONE)]
    assert header(good, 142)
    for bad in ({"count": 0}, {"count": 2}, {"tail": b"\0"}):
        with pytest.raises(Corrupt):
            header(good, 142, **bad)


def test_contents_of_lists() -> None:
    items = content([item(0, 3, ID), item(1, 4)])[1:]
    assert program.check_items(cursor(items), directory=False, count=None, limit=7) == 7
    with pytest.raises(Corrupt):
        program.check_items(cursor(items), directory=False, count=None, limit=6)


# --- configuration ---

CONFIG = {1: uv(1), 3: uv(65_536), 5: uv(262_144), 7: uv(1 << 20)}


def config(change: dict[int, bytes]) -> bytes:
    fields = CONFIG | change
    return record(*((tag, fields[tag]) for tag in sorted(fields) if fields[tag] != b"absent"))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, 0),
        ({2: sv(5), 4: b"text", 6: b"future"}, 0),
        ({3: uv(1), 5: uv(1), 7: uv(1)}, 0),
        ({7: uv(16 * MIB)}, 0),
        ({1: b"absent"}, 4),
        ({3: b"absent"}, 4),
        ({5: b"absent"}, 4),
        ({7: b"absent"}, 4),
        ({5: uv(262_143)}, 4),
        ({5: uv(32_768)}, 4),
        ({7: uv(131_072)}, 4),
        ({7: uv(16 * MIB + 1)}, 4),
        ({3: uv(0)}, 4),
        ({2: b"\0\0"}, 4),
        ({1: b"\1\0"}, 4),
        ({9: b""}, 14),
    ],
    ids=str,
)
def test_configurations(tmp_path: Path, change: dict[int, bytes], code: int) -> None:
    rig = Rig(tmp_path)
    rig.w.config(1, payload=config(change))
    assert rig.run("list").code == code


def test_the_highest_configuration_holds(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.w.config(9, required=(3,))
    assert rig.run("list").code == 14
    rig.w.config(10, optional=(700, 701))
    assert rig.run("list").code == 0
    (rig.repo / "config" / "zzz").write_bytes(b"ignored")
    (rig.repo / "config" / "0000000B").write_bytes(b"ignored")
    assert rig.run("list").code == 0
    path = rig.repo / "config" / "0000000a"
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    assert rig.run("list").code == 4, "no falling back to an older one"
    for at, value, code in ((9, 2, 14), (9, 0, 4), (8, 2, 4), (10, 1, 4), (0, 0, 4), (96, 11, 4), (12, 255, 4)):
        path.write_bytes(good[:at] + bytes([value]) + good[at + 1 :])
        assert rig.run("list").code == code, at
    path.write_bytes(good)
    (rig.repo / "config" / "0000000b").write_bytes(good)
    assert rig.run("list").code == 4, "a configuration under another number"


# --- keys ---


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (f"longshore-key-1:{SECRET.hex()}", 0),
        (f"longshore-key-1:{SECRET.hex()}\n", 0),
        (f"longshore-key-1:{SECRET.hex()}\r\n", 0),
        (f"longshore-key-1:{SECRET.hex()}\r", 2),
        (f"longshore-key-1:{SECRET.hex()}\n\n", 2),
        (f"longshore-key-1:{SECRET.hex().upper()}\n", 2),
        (f" longshore-key-1:{SECRET.hex()}\n", 2),
        (f"longshore-key-2:{SECRET.hex()}\n", 2),
        (f"longshore-key-1:{SECRET.hex()}0\n", 2),
        (f"longshore-key-1:{SECRET.hex()[:-1]}\n", 2),
        (f"longshore-key-1:{bytes(32).hex()}\n", 12),
        ("", 2),
    ],
    ids=lambda value: None,
)
def test_key_files(tmp_path: Path, text: str, code: int) -> None:
    rig = Rig(tmp_path)
    rig.key.write_bytes(text.encode())
    assert rig.run("list").code == code


@pytest.mark.parametrize(
    ("content", "passphrase"),
    [
        (b"open sesame", b"open sesame"),
        (b"open sesame\n", b"open sesame"),
        (b"open sesame\r\n", b"open sesame"),
        (b"open sesame\r", b"open sesame\r"),
        (b"open sesame\n\n", b"open sesame\n"),
        (b"open sesame\r\r\n", b"open sesame\r"),
        (b"\xff\0 ", b"\xff\0 "),
    ],
)
def test_passphrase_files(tmp_path: Path, content: bytes, passphrase: bytes) -> None:
    path = tmp_path / "passphrase"
    path.write_bytes(content)
    assert program.read_secret(None, str(path)) == program.Secret(2, passphrase)


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n", b"x" * (MIB + 1)], ids=len)
def test_passphrase_files_are_refused(tmp_path: Path, content: bytes) -> None:
    rig, path = Rig(tmp_path), tmp_path / "passphrase"
    path.write_bytes(content)
    assert rig.run("list", passphrase=path).code == 2
    assert rig.run("list", passphrase=tmp_path / "absent").code == 1


def test_only_64_slots_are_looked_at(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    (slot,) = (rig.repo / "keys").iterdir()
    slot.unlink()
    for n in range(63):
        rig.w.secret_slot(bytes(32), name=f"{n:032x}")
    last = rig.repo / rig.w.secret_slot(SECRET, name=f"{63:032x}")
    assert rig.run("list").code == 0
    last.unlink()
    rig.w.secret_slot(bytes(32), name=f"{63:032x}")
    rig.w.secret_slot(SECRET, name=f"{64:032x}")
    ran = rig.run("list")
    assert ran.code == 12 and "slots=64" in ran.err


def test_slots_of_a_repository_that_was_never_finished_take_no_room(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    other = type(rig.w)(rig.repo)
    for n in range(80):
        # The same secret, as when an agent begins again.
        other.secret_slot(SECRET if n % 2 else bytes(32), name=f"{n:032x}")
    (good,) = set((rig.repo / "keys").iterdir()) - {rig.repo / "keys" / f"{n:032x}" for n in range(80)}
    good = good.rename(rig.repo / "aside")
    ran = rig.run("list")
    assert ran.code == 4 and "slots_of_others=80" in ran.err
    good.unlink()
    rig.w.secret_slot(SECRET, name="f" * 32)
    ran = rig.run("list")
    assert ran.code == 0 and "key slot" not in ran.err
    rig.key.write_text(f"longshore-key-1:{'00' * 32}\n")
    ran = rig.run("list")
    assert ran.code == 12 and "slots=1," in ran.err, "a slot that was left is no way in"


def test_a_slot_in_which_only_the_name_of_the_repository_is_damaged_is_named(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    (mine,) = (rig.repo / "keys").iterdir()
    rig.w.secret_slot(bytes(32))
    blob = mine.read_bytes()
    mine.write_bytes(blob[:20] + bytes([blob[20] ^ 4]) + blob[21:])
    ran = rig.run("list")
    assert ran.code == 12 and f"skipped a key slot: key=keys/{mine.name}" in ran.err and "unreadable=1" in ran.err


def test_slots_that_are_wrong_are_passed_over(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    (good,) = (rig.repo / "keys").iterdir()
    blob = good.read_bytes()
    bad = {
        "magic": b"X" + blob[1:],
        "type": blob[:8] + b"\x01" + blob[9:],
        "version": blob[:9] + b"\x02" + blob[10:],
        "older version": blob[:9] + b"\x00" + blob[10:],
        "zero": blob[:10] + b"\x01" + blob[11:],
        "kind": blob[:12] + b"\x03" + blob[13:],
        "repository": blob[:16] + bytes(16) + blob[32:],
        "memory": blob[:64] + b"\x01" + blob[65:],
        "zero of four": blob[:76] + b"\x01" + blob[77:],
        "commitment": blob[:80] + bytes(32) + blob[112:],
        "short": blob[:160],
        "label longer": blob + b"x",
        "label not text": blob[:160] + b"\x01\xff" + blob[-32:],
        "label too long": blob[:160] + uv(256) + b"x" * 256 + blob[-32:],
        "sum": blob[:-32] + bytes(32),
        "no sum": blob[:-32],
        "another name": blob,
    }
    for n, (what, slot) in enumerate(bad.items()):
        good.unlink(missing_ok=True)
        path = rig.repo / "keys" / f"{n:032x}"
        path.write_bytes(slot)
        code = rig.run("list").code
        assert code == (14 if what in {"version", "kind"} else 12 if what == "commitment" else 4), what
        good.write_bytes(blob)
        assert rig.run("list").code == 0, what
        path.unlink()
    good.unlink()
    assert rig.run("list").code == 4, "no slot at all"


def test_slots_that_ask_for_too_much_are_passed_over(tmp_path: Path) -> None:
    rig, path = Rig(tmp_path), tmp_path / "passphrase"
    path.write_bytes(b"p")
    for n, work in enumerate([(4 * MIB + 1, 1, 1), (64, 65, 1), (1024, 1, 65), (0, 0, 0), (8, 1, 4)]):
        rig.w.costly_slot(*work, name=f"{n:032x}")
    ran = rig.run("list", passphrase=path)
    assert ran.code == 12 and ran.err.count("skipped a key slot") == 5
    rig.w.passphrase_slot(b"p", 8192, name="f" * 32)
    assert rig.run("list", passphrase=path).code == 0


# --- objects ---


def test_sealed_objects_stay_where_they_were_written(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    name = rig.tree([rig.file(b"a", b"a")])
    path = rig.repo / "snapshots" / name
    other = path.with_name("0" * 32)
    path.rename(other)
    assert rig.restore("0" * 32).code == 4
    other.rename(path)
    blob = path.read_bytes()
    for at in (8, 9, 10, 12, 16, 32, 64, 96, len(blob) - 1):
        for flip in (1, 2):
            path.write_bytes(blob[:at] + bytes([blob[at] ^ flip]) + blob[at + 1 :])
            # A version that is known and is not the object's own breaks the seal.
            assert rig.restore(name).code == (14 if (at, flip) == (9, 2) else 4), (at, flip)
    path.write_bytes(blob)
    assert rig.restore(name).code == 0


def put(at: int, value: bytes):
    return lambda head: head[:at] + value + head[at + len(value) :]


@pytest.mark.parametrize(
    "forge", [put(8, b"\1"), put(10, b"\1"), put(16, bytes(16)), put(64, bytes(32)), put(0, b"x")], ids=lambda f: None
)
def test_what_is_authentic_and_still_wrong(tmp_path: Path, forge) -> None:
    rig = Rig(tmp_path)
    payload = envelope(record((1, uv(1)), (3, bytes(16)), (5, directory(b"", [])), (9, b"v")))
    rig.w.sealed_raw("snapshot", "snapshots/" + "a" * 32, payload)
    assert rig.restore("a" * 32).code == 0
    rig.w.sealed_raw("snapshot", "snapshots/" + "b" * 32, payload, forge=forge)
    assert rig.restore("b" * 32).code == 4


def test_a_configuration_that_bears_another_number(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    payload = record(*sorted(CONFIG.items()))
    rig.w.sealed("config", "config/00000001", payload, clear=struct.pack("<I", 1) + b"\0\0")
    assert rig.run("list").code == 0
    rig.w.sealed("config", "config/00000002", payload, clear=struct.pack("<I", 1) + b"\0\0")
    assert rig.run("list").code == 4
    rig.w.sealed("config", "config/00000003", payload, clear=struct.pack("<I", 3) + b"\0\0\0")
    assert rig.run("list").code == 4


@pytest.mark.parametrize(
    ("forge", "code"), [(put(64, b"\1"), 4), (put(72, b"\1"), 4), (put(76, b"\1"), 4), (put(79, b"\1"), 4), (put(16, bytes(16)), 4), (put(80, bytes(32)), 12)],
    ids=lambda v: None,
)  # fmt: skip
def test_slots_that_are_authentic_and_still_wrong(tmp_path: Path, forge, code: int) -> None:
    rig = Rig(tmp_path)
    (good,) = (rig.repo / "keys").iterdir()
    good.unlink()
    rig.w.secret_slot(SECRET, forge=forge)
    assert rig.run("list").code == code


def test_objects_end_at_1_mib_above_their_payload(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    fields = [(1, uv(1)), (3, bytes(16)), (5, directory(b"", [])), (9, b"v")]
    payload = record(*fields)
    salted = zstandard.ZstdCompressor().compress(payload)
    # Empty raw blocks take room and hold nothing.
    for extra, code in ((MIB - 400, 0), (MIB + 10, 4)):
        frame = (
            salted[:4]
            + b"\x20"
            + bytes([len(payload)])
            + b"\0\0\0" * (extra // 3)
            + struct.pack("<I", len(payload) << 3 | 1)[:3]
            + payload
        )
        name = os.urandom(16).hex()
        rig.w.sealed_raw("snapshot", f"snapshots/{name}", b"\x01" + struct.pack("<I", len(payload)) + frame)
        assert rig.restore(name).code == code, extra


@pytest.mark.parametrize(
    ("kind", "key", "payload"),
    [
        ("session", "sessions/" + "1" * 32, record((3, uv(0)))),
        ("session", "sessions/" + "1" * 32, record((1, uv(3)))),
        ("session", "sessions/" + "1" * 32, record((1, uv(1)), (5, bytes(15)))),
        ("session", "sessions/" + "1" * 32, record((1, uv(2)), (7, bytes(17)))),
        ("session", "sessions/" + "1" * 32, record((1, uv(2)), (9, bytes(31)))),
        ("session", "sessions/" + "1" * 32, record((1, uv(1)), (2, b"\0\0"))),
        ("session", "sessions/" + "1" * 32, record((1, uv(1)), (11, b""))),
        ("removed", "removed/" + "1" * 32, record((1, b""))),
        ("removed", "removed/" + "1" * 32, record((2, b"\0\0"))),
        ("tombstone", "tombstones/" + "1" * 32, record((1, bytes(19)))),
        ("tombstone", "tombstones/" + "1" * 32, record((3, b""))),
        ("open", "open/" + "1" * 32, record((1, bytes(15)))),
        ("open", "open/" + "1" * 32, record((3, b""))),
        ("decision", "decisions/" + "1" * 32, record((1, bytes(21)))),
        ("decision", "decisions/" + "1" * 32, record((5, b""))),
        ("watch", "watches/" + "1" * 32, record((1, bytes(20)))),
        ("watch", "watches/" + "1" * 32, record((1, bytes(22)))),
        ("repair", "repairs/" + "1" * 32, record((1, bytes(15) + uv(0)))),
        ("repair", "repairs/" + "1" * 32, record((1, bytes(16)))),
        ("repair", "repairs/" + "1" * 32, record((2, b"\0\0"))),
        ("repair", "repairs/" + "1" * 32, record((3, usage((bytes(16), 2, (1,)), (bytes(16), 1, (1,)))))),
        ("repair", "repairs/" + "1" * 32, record((5, bytes(31)))),
        ("repair", "repairs/" + "1" * 32, record((7, bytes(9)))),
        ("repair", "repairs/" + "1" * 32, record((7, bytes(16)))),
        ("repair", "repairs/" + "1" * 32, record((9, bytes(16) + b"\0\0\0" + uv(0)))),
        ("repair", "repairs/" + "1" * 32, record((9, bytes(20) + uv(1)))),
        ("repair", "repairs/" + "1" * 32, record((11, b""))),
        ("watch", "repairs/" + "1" * 32, b""),
        ("index", "index/" + "1" * 32, struct.pack("<IIII", 1, 0, 0, 0)),
        ("index", "index/" + "1" * 32, struct.pack("<IIII", 0, 0, 0, 0) + b"\0"),
        ("index", "index/" + "1" * 32, struct.pack("<III", 0, 0, 0)),
        ("usage", "usage/" + "1" * 64, uv(0)),
        ("config", "config/00000000", b""),
        ("snapshot", "snapshots/" + "1" * 32, b""),
        ("usage", "sessions/" + "1" * 32, record((1, uv(1)))),
    ],
    ids=lambda value: None,
)
def test_check_reads_every_object(tmp_path: Path, kind: str, key: str, payload: bytes) -> None:
    rig = Rig(tmp_path)
    rig.w.config(1)
    rig.tree([])
    assert rig.check().code == 0
    clear = bytes(6) if kind == "config" else b""
    rig.w.sealed(kind, key, payload, clear=clear)
    ran = rig.check()
    assert ran.code == 4 and key.partition("/")[0].removesuffix("s") in ran.err, ran


def test_check_looks_at_every_key_slot(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.tree([])
    other = rig.repo / rig.w.secret_slot(bytes(32), name="f" * 32)
    # Left by somebody who began to make a repository here: nobody's, and no damage.
    type(rig.w)(rig.repo).secret_slot(bytes(32), name="e" * 32)
    ran = rig.check()
    assert (ran.code, ran.err) == (0, "")
    blob = other.read_bytes()
    for at in (0, 8, 16, 31, 40, 90, 120, 161, len(blob) - 1):
        other.write_bytes(blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :])
        ran = rig.check()
        assert ran.code == 4 and f"keys/{other.name}" in ran.err, at
    other.write_bytes(blob[:100])
    assert rig.check().code == 4


def test_check_passes_good_objects(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.w.sealed(
        "session",
        "sessions/" + "1" * 32,
        record((1, uv(1)), (2, sv(1)), (3, uv(0)), (4, b"h"), (5, bytes(16)), (5, bytes(16))),
    )
    rig.w.sealed(
        "session",
        "sessions/" + "2" * 32,
        record((1, uv(2)), (3, uv(0)), (7, bytes(16)), (9, bytes(32)), (9, bytes(32))),
    )
    rig.w.sealed("tombstone", "tombstones/" + "1" * 32, record((1, bytes(20)), (1, bytes(20))))
    rig.w.sealed("removed", "removed/" + "1" * 32, record((2, sv(1)), (4, b"me")))
    rig.w.sealed("open", "open/" + "1" * 32, record((1, bytes(16)), (1, bytes(16))))
    rig.w.sealed("decision", "decisions/" + "1" * 32, record((1, bytes(20)), (3, bytes(32))))
    rig.w.sealed("watch", "watches/" + "1" * 32, record((1, bytes(16) + uv(1) + uv(2) + uv(3) + uv(4) + sv(-5))))
    rig.w.sealed(
        "repair",
        "repairs/" + "1" * 32,
        record(
            (1, bytes(16) + uv(0)),
            (1, bytes(16) + usage((bytes(16), 1, (0, 9)))),
            (2, sv(1)),
            (3, usage()),
            (4, b"here"),
            (5, bytes(32)),
            (7, bytes(8) + b"\0" * 7 + b"\1"),
            (9, bytes(20) + usage((bytes(16), 2, (7,)))),
        ),
    )
    rig.w.sealed("index", "index/" + "1" * 32, struct.pack("<IIII", 0, 0, 0, 1) + bytes(16))
    for key in (
        "tombstones/other",
        "sessions/ABC",
        "index/" + "1" * 31,
        "usage/" + "1" * 32,
        "removed/x",
        "packs/x",
        "open/x",
        "repairs/x",
        "keys/x",
        "snapshots/x",
    ):
        rig.w.put(key, b"of another form")
    for packs, good in (
        ([(b"a" * 16, 1, 9, b"\xff\x01"), (b"a" * 16, 256, 8, b"\xff"), (b"b" * 16, 0, 0, b"")], True),
        ([(b"a" * 16, 1, 9, b"\xff\x02")], False),
        ([(b"a" * 16, 2, 8, b"\xff"), (b"a" * 16, 1, 8, b"\xff")], False),
        ([(b"a" * 16, 1, 8, b"\xff"), (b"a" * 16, 1, 8, b"\xff")], False),
        ([(b"a" * 16, 1, 17, b"\xff\xff")], False),
    ):
        payload = uv(len(packs)) + b"".join(s + struct.pack("<I", n) + uv(bits) + field for s, n, bits, field in packs)
        name = program.blake3(payload, key=rig.w.k("usage name")).hexdigest()
        rig.w.sealed("usage", f"usage/{name}", payload)
        assert rig.check().code == (0 if good else 4), packs
        if not good:
            (rig.repo / "usage" / name).unlink()


def test_a_missing_usage_table_is_damage(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    name = rig.tree([])
    fields = [(1, uv(1)), (3, bytes(16)), (5, directory(b"", [])), (7, b"u" * 32), (9, b"v")]
    assert rig.check().code == 0
    rig.w.sealed("snapshot", f"snapshots/{name}", record(*fields))
    ran = rig.check()
    assert ran.code == 4 and "usage=" + (b"u" * 32).hex() in ran.err


def test_lists_nest_eight_deep(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    pack = rig.w.new_pack()
    made = [item(1, 1)]
    for _ in range(9):
        made.append(item(3, 1, rig.w.frame(pack, LIST, [made[-1]])[0]))
    rig.w.seal_pack(pack)
    assert rig.restore(rig.tree([file(b"eight", 1, [made[8]])])).code == 0
    assert (rig.out / "eight").read_bytes() == b"\0"
    assert rig.check().code == 0
    assert rig.restore(rig.tree([file(b"nine", 1, [made[9]])])).code == 4
    assert rig.names() == {b"eight"}
    assert rig.check().code == 4
