"""A writer of small repositories, made from docs/format.md alone, for tests of rescue.py.

It shares no code with the engine nor with rescue.py, so that a misreading of the page shows as a failing test. It can also write what the page
forbids: its parts take raw bytes. It cares neither for speed nor for durability.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field
from pathlib import Path

import xxhash
import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

DATA, TREE, LIST = 1, 2, 3
LABEL = {DATA: "chunk data", TREE: "chunk tree", LIST: "chunk list"}
TYPE = {"config": 1, "session": 3, "index": 5, "usage": 6, "snapshot": 7, "removed": 8, "tombstone": 9}
TYPE |= {"open": 10, "decision": 11, "watch": 12, "repair": 13}


def uv(n: int) -> bytes:
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def sv(n: int) -> bytes:
    return uv(n * 2 if n >= 0 else -n * 2 - 1)


def lp(b: bytes) -> bytes:
    return uv(len(b)) + b


def record(*fields: tuple[int, bytes]) -> bytes:
    return b"".join(uv(tag) + lp(value) for tag, value in fields)


def usage(*packs: tuple[bytes, int, tuple[int, ...]]) -> bytes:
    """The form of a usage table: session, number and the frames of each birth pack."""
    out = uv(len(packs))
    for session, number, ordinals in packs:
        bits = sum(1 << ordinal for ordinal in ordinals)
        out += (
            session
            + struct.pack("<I", number)
            + uv(bits.bit_length())
            + bits.to_bytes((bits.bit_length() + 7) // 8, "little")
        )
    return out


def envelope(payload: bytes, *, compress: bool = False) -> bytes:
    if compress:
        return b"\x01" + struct.pack("<I", len(payload)) + zstandard.ZstdCompressor(level=3).compress(payload)
    return b"\x00" + struct.pack("<I", len(payload)) + payload


@dataclass
class Frame:
    """A frame sealed under its birth pack, which can be laid into any pack."""

    kind: int
    session: bytes
    number: int
    ordinal: int
    salt: bytes
    sealed: bytes
    chunks: list[tuple[bytes, int]]


@dataclass
class Pack:
    session: bytes
    number: int
    salt: bytes
    frames: list[Frame] = field(default_factory=list)
    next_ordinal: int = 0

    @property
    def name(self) -> str:
        return f"{self.session.hex()}-{self.number:08x}"


class Writer:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.master = os.urandom(32)
        self.rid = os.urandom(16)
        self.session = os.urandom(16)
        self.numbers = 0

    def k(self, label: str) -> bytes:
        return blake3(self.master + self.rid, derive_key_context="longshore repository 0 " + label).digest()

    def put(self, key: str, blob: bytes) -> None:
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(blob)

    def sealed(self, kind: str, key: str, payload: bytes, *, clear: bytes = b"", compress: bool = False) -> None:
        self.sealed_raw(kind, key, envelope(payload, compress=compress), clear=clear)

    def sealed_raw(self, kind: str, key: str, plain: bytes, *, clear: bytes = b"", forge=bytes) -> None:
        """Seal an envelope; `forge` may change all that stands before the ciphertext, and what it makes is sealed as authentic."""
        salt = os.urandom(32)
        x = blake3(salt + key.encode(), key=self.k("object " + kind)).digest(length=64)
        head = (
            b"LONGSHOR"
            + bytes([TYPE[kind], 1, 0, 0])
            + struct.pack("<I", len(clear))
            + self.rid
            + salt
            + x[32:]
            + clear
        )
        head = forge(head)
        self.put(key, head + AESGCM(x[:32]).encrypt(bytes(12), plain, head + key.encode()))

    def config(
        self, n: int = 0, required: tuple[int, ...] = (), optional: tuple[int, ...] = (), payload: bytes | None = None
    ) -> None:
        clear = struct.pack("<I", n)
        for features in (required, optional):
            clear += uv(len(features)) + b"".join(struct.pack("<H", f) for f in features)
        if payload is None:
            payload = record((1, uv(1)), (2, sv(1)), (3, uv(65536)), (4, b"tiny"), (5, uv(262144)), (7, uv(1 << 20)))
        self.sealed("config", f"config/{n:08x}", payload, clear=clear)

    def _slot(self, kind: int, parameters: tuple[int, int, int], derive, *, name: str = "", forge=bytes) -> str:
        name = name or os.urandom(16).hex()
        salt = os.urandom(32)
        head = (
            b"LONGSHOR\x02\x01\x00\x00"
            + struct.pack("<I", kind)
            + self.rid
            + salt
            + struct.pack("<IIII", *parameters, 0)
        )
        out = derive(salt)
        head = forge(head + out[32:])
        label = lp("für alle".encode())
        key = f"keys/{name}"
        slot = head + AESGCM(out[:32]).encrypt(bytes(12), self.master, head + key.encode() + label) + label
        self.put(key, slot + blake3(slot + key.encode(), key=self.k("key slot")).digest())
        return key

    def secret_slot(self, secret: bytes, *, name: str = "", forge=bytes) -> str:
        return self._slot(
            1,
            (0, 0, 0),
            lambda s: HKDF(algorithm=hashes.SHA256(), length=64, salt=s, info=b"longshore key slot 0").derive(secret),
            name=name,
            forge=forge,
        )

    def passphrase_slot(self, passphrase: bytes, memory_kib: int = 64 * 1024, *, name: str = "") -> str:
        return self._slot(
            2,
            (memory_kib, 1, 1),
            lambda s: Argon2id(salt=s, length=64, iterations=1, lanes=1, memory_cost=memory_kib).derive(passphrase),
            name=name,
        )

    def costly_slot(self, memory_kib: int, passes: int = 1, lanes: int = 1, *, name: str = "") -> str:
        """A passphrase slot that says what work it needs, and was made with none."""
        return self._slot(2, (memory_kib, passes, lanes), lambda s: s + s, name=name)

    # packs

    def new_pack(self) -> Pack:
        pack = Pack(self.session, self.numbers, os.urandom(32))
        self.numbers += 1
        return pack

    def pack_key(self, session: bytes, number: int, salt: bytes) -> bytes:
        return blake3(salt + session + struct.pack("<I", number), key=self.k("pack")).digest(length=64)

    def cid(self, kind: int, plain: bytes) -> bytes:
        return blake3(plain, key=self.k(LABEL[kind])).digest()

    def frame(
        self, pack: Pack, kind: int, plains: list[bytes], *, compress: bool = True, plain: bytes | None = None, ids=None
    ) -> list[bytes]:
        """Seal chunks into a frame born in `pack`, lay it there and return their ids."""
        chunks = ids or [(self.cid(kind, p), len(p)) for p in plains]
        if plain is None:
            plain = envelope(b"".join(plains), compress=compress)
        ordinal = pack.next_ordinal
        pack.next_ordinal += 1
        ad = self.rid + b"\x21\x00" + pack.session + struct.pack("<II", pack.number, ordinal)
        key = self.pack_key(pack.session, pack.number, pack.salt)[:32]
        sealed = AESGCM(key).encrypt(struct.pack("<I", ordinal) + bytes(8), plain, ad)
        pack.frames.append(Frame(kind, pack.session, pack.number, ordinal, pack.salt, sealed, chunks))
        return [i for i, _ in chunks]

    def seal_pack(
        self, pack: Pack, *, header: bytes | None = None, rows: bytes | None = None, count: int | None = None
    ) -> None:
        """Write a pack; `header` is put for the header's envelope, `rows` for its rows, `count` for the trailer's number of frames."""
        key = self.pack_key(pack.session, pack.number, pack.salt)
        body = (
            b"LONGSHOR\x04\x01\x00\x00"
            + struct.pack("<I", pack.number)
            + self.rid
            + pack.salt
            + key[32:]
            + pack.session
        )
        own_rows = uv(len(pack.frames))
        for f in pack.frames:
            moved = (f.session, f.number) != (pack.session, pack.number)
            own_rows += bytes([moved, f.kind])
            if moved:
                own_rows += f.session + struct.pack("<II", f.number, f.ordinal) + f.salt
            own_rows += uv(len(f.sealed)) + uv(len(f.chunks)) + b"".join(i + uv(n) for i, n in f.chunks)
            body += f.sealed
        h = len(body)
        ad = self.rid + b"\x22\x00" + pack.session + struct.pack("<IQ", pack.number, h)
        sealed = AESGCM(key[:32]).encrypt(
            b"\xff" * 4 + bytes(8),
            envelope(own_rows if rows is None else rows, compress=True) if header is None else header,
            ad,
        )
        body += sealed
        frames = len(pack.frames) if count is None else count
        body += struct.pack("<IIQ", len(sealed), frames, xxhash.xxh3_64_intdigest(body)) + b"LSPCKEND"
        self.put(f"packs/{pack.name}", body)

    def snapshot(
        self,
        root: bytes,
        *,
        started: int = 0,
        source: str = "vol",
        state: int = 1,
        files: int = 0,
        size: int = 0,
        name: str = "",
    ) -> str:
        name = name or os.urandom(16).hex()
        fields = [(1, uv(state)), (3, os.urandom(16)), (4, lp(b"k") + lp(b"v"))]
        if state == 1:
            fields.append((5, root))
        fields += [(6, sv(started)), (9, source.encode()), (10, b"host"), (12, b"/data"), (14, b"tiny")]
        fields += [
            (16, b"".join(uv(n) for n in (files, 0, 0, size, 0, 0, 0, 0, 0, 0, 0))),
            (998, b"future"),
            (998, b"again"),
        ]
        self.sealed("snapshot", f"snapshots/{name}", record(*fields), compress=True)
        return name


def item(kind: int, span: int, chunk: bytes = b"") -> bytes:
    return bytes([kind]) + uv(span) + chunk


def content(items: list[bytes]) -> bytes:
    return uv(len(items)) + b"".join(items)


def entry(kind: int, name: bytes, rest: bytes = b"", *, mode: int = 0o644, uid: int | None = None, gid: int | None = None, s: int = 1_600_000_000,
          ns: int = 123_456_789, inode: int = 1, device: int | None = None, xattrs: dict[bytes, bytes] | None = None, flags: int = 0) -> bytes:  # fmt: skip
    flags |= (2 if device is not None else 0) | (4 if xattrs else 0)
    out = (
        bytes([kind, flags])
        + lp(name)
        + uv(mode)
        + uv(os.getuid() if uid is None else uid)
        + uv(os.getgid() if gid is None else gid)
    )
    out += sv(s) + uv(ns) + sv(s) + uv(0) + uv(inode)
    if device is not None:
        out += uv(device)
    out += rest
    if xattrs:
        out += uv(len(xattrs)) + b"".join(lp(k) + lp(v) for k, v in sorted(xattrs.items()))
    return out


def file(name: bytes, size: int, items: list[bytes], **more) -> bytes:
    return entry(2, name, uv(size) + content(items), **more)


def directory(name: bytes, items: list[bytes], **more) -> bytes:
    return entry(1, name, content(items), mode=more.pop("mode", 0o755), **more)
