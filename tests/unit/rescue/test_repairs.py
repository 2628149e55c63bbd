"""What a repair wrote down: known damage is told and costs nothing while what it held lies whole elsewhere; all other damage counts as ever."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from tests.unit.rescue.rig import Rig
from tests.unit.rescue.tiny_writer import DATA, Pack, directory, file, item, record, usage, uv

KNOWN = "a repair wrote this damage down"


def spoil(rig: Rig, pack: Pack, *, frame: int = 0, at: int | None = None) -> None:
    """Flip a byte of a frame, or at an offset from the pack's end."""
    path = rig.repo / "packs" / pack.name
    blob = bytearray(path.read_bytes())
    blob[-at if at else 112 + sum(len(f.sealed) for f in pack.frames[:frame]) + 3] ^= 1
    path.write_bytes(blob)


def place(pack: Pack, *ordinals: int) -> tuple[int, bytes]:
    """The field that names frames born in a pack as damaged where they lie in it."""
    return 9, pack.session + struct.pack("<I", pack.number) + (
        usage((pack.session, pack.number, ordinals)) if ordinals else usage()
    )


def write_down(rig: Rig, *fields: tuple[int, bytes]) -> Path:
    key = f"repairs/{os.urandom(16).hex()}"
    rig.w.sealed("repair", key, record(*fields))
    return rig.repo / key


class Twice:
    """A file whose one chunk lies in two packs, each with a second frame that nobody else has."""

    def __init__(self, tmp: Path) -> None:
        self.rig = rig = Rig(tmp)
        self.old, self.new = rig.w.new_pack(), rig.w.new_pack()
        (twice,) = rig.w.frame(self.old, DATA, [b"twice"])
        (once,) = rig.w.frame(self.old, DATA, [b"once"])
        rig.w.frame(self.new, DATA, [b"twice"])
        rig.w.seal_pack(self.old)
        self.name = rig.tree([file(b"once", 4, [item(0, 4, once)]), file(b"twice", 5, [item(0, 5, twice)])])

    def heal(self) -> None:
        self.rig.w.seal_pack(self.new)


def test_known_damage_that_was_healed_is_told_and_no_more(tmp_path: Path) -> None:
    made = Twice(tmp_path)
    made.heal()
    rig = made.rig
    for pack, frame in ((made.old, 0), (made.new, 0)):
        path = rig.repo / "packs" / pack.name
        whole = path.read_bytes()
        spoil(rig, pack, frame=frame)
        assert rig.check().code == 4, "nothing was written down yet"
        record_path = write_down(rig, place(pack, frame))
        ran = rig.check()
        assert ran.code == 0 and ran.err.count(KNOWN) == 2 and pack.name in ran.err, ran
        assert "2 damages are known" in ran.out
        assert rig.run("check", "--json").rows[-1]["damages_known"] == 2
        ran = rig.restore(made.name)
        assert (ran.code, ran.err) == (0, ""), "the place that is known to be damaged is tried last"
        assert (rig.out / "twice").read_bytes() == b"twice"
        record_path.unlink()
        path.write_bytes(whole)


def test_known_damage_that_was_not_healed_names_what_is_lost(tmp_path: Path) -> None:
    made = Twice(tmp_path)
    spoil(made.rig, made.old)
    write_down(made.rig, place(made.old, 0))
    for ran in (made.rig.check(), made.rig.restore(made.name)):
        assert ran.code == 4 and KNOWN in ran.err and "damaged: twice" in ran.err and "once" not in ran.err, ran
    assert made.rig.names() == {b"once"}


def test_damage_beside_known_damage_counts(tmp_path: Path) -> None:
    made = Twice(tmp_path)
    made.heal()
    write_down(made.rig, place(made.old, 0))
    spoil(made.rig, made.old, frame=1)
    ran = made.rig.check()
    assert ran.code == 4 and "damaged: a frame cannot be read" in ran.err and "damaged: once" in ran.err
    spoil(made.rig, made.old, frame=1)
    assert made.rig.check().code == 0
    spoil(made.rig, made.new)
    ran = made.rig.check()
    assert ran.code == 4 and made.new.name in ran.err


def test_several_records_hold_at_once(tmp_path: Path) -> None:
    made = Twice(tmp_path)
    made.heal()
    write_down(made.rig, place(made.old, 0))
    write_down(made.rig, place(made.old, 1))
    spoil(made.rig, made.old)
    assert made.rig.check().code == 0
    spoil(made.rig, made.old, frame=1)
    ran = made.rig.check()
    assert (
        ran.code == 4
        and ran.err.count("a frame cannot be read") == ran.err.count(f"{KNOWN}: a frame cannot be read") == 2
    )


def test_a_pack_whose_header_is_known_to_be_damaged(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    name = rig.tree([rig.file(b"a", b"a")])
    lost = rig.w.new_pack()
    rig.w.frame(lost, DATA, [b"moved elsewhere"])
    rig.w.seal_pack(lost)
    spoil(rig, lost, at=40)
    for ran in (rig.check(), rig.restore(name)):
        assert ran.code == 4, ran
    write_down(rig, place(lost))
    for ran in (rig.check(), rig.restore(name)):
        assert ran.code == 0 and KNOWN in ran.err and lost.name in ran.err, ran


def test_a_usage_table_in_whose_place_a_record_speaks(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    name, table = os.urandom(16), os.urandom(32)
    fields = [(1, uv(1)), (3, bytes(16)), (5, directory(b"", [])), (7, table), (9, b"v")]
    rig.w.sealed("snapshot", f"snapshots/{name.hex()}", record(*fields))
    assert rig.check().code == 4
    of_another = write_down(rig, (1, os.urandom(16) + usage()), (5, table))
    assert rig.check().code == 4, "it speaks for another snapshot"
    of_another.unlink()
    write_down(rig, (1, name + usage()), (5, table))
    ran = rig.check()
    assert ran.code == 0 and KNOWN in ran.err and table.hex() in ran.err
    # There, and damaged: the same.
    rig.w.put(f"usage/{table.hex()}", b"rotten")
    ran = rig.check()
    assert ran.code == 0 and ran.err.count(KNOWN) == 2, ran
    other = os.urandom(16)
    rig.w.sealed("snapshot", f"snapshots/{other.hex()}", record(*fields))
    ran = rig.check()
    assert ran.code == 4 and other.hex() in ran.err


def test_a_record_that_cannot_be_read_is_damage_for_a_check_alone(tmp_path: Path) -> None:
    made = Twice(tmp_path)
    made.heal()
    path = write_down(made.rig, place(made.old, 0))
    whole = path.read_bytes()
    for at in (0, 12, 16, 40, 70, 100, len(whole) - 1):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        ran = made.rig.check()
        assert ran.code == 4 and f"repairs/{path.name}" in ran.err, at
        ran = made.rig.restore(made.name)
        assert ran.code == 0 and f"skipped the record of a repair: key=repairs/{path.name}" in ran.err, at
    path.write_bytes(whole)
    assert made.rig.check().code == 0
