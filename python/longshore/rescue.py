#!/usr/bin/env python3
# Reads a Longshore repository by docs/format.md and restores it. Over 500 lines because one file must run wherever it is copied.
"""The last way out: reads a Longshore repository in a local folder and restores it, with this one file and four packages from PyPI.

    pip install zstandard blake3 xxhash cryptography
    python rescue.py --repository DIR (--key-file F | --passphrase-file F) list
    python rescue.py --repository DIR (--key-file F | --passphrase-file F) restore SNAPSHOT[:PATH] TARGET
    python rescue.py --repository DIR (--key-file F | --passphrase-file F) check

It is written from the format's page alone (format 0 and 1) and shares no code with the engine, so that each proves the other. It needs no index: where chunks
lie it learns from the headers of the packs, and when a chunk lies in several places it takes the next where one is damaged. Places that a repair wrote
down as damaged come last, and what is damaged there is told as known: it is no reason to end with 4 while all that a snapshot needs is whole elsewhere.

It promises: no byte reaches TARGET whose chunk id was not verified; a file that cannot be had whole is left out and named; nothing outside TARGET is
touched, whatever the repository says; every length is checked before it is believed; it never writes to the repository. Who is not root cannot give
files away: like tar it then says once, in the summary, how many belong to whoever restored.

Memory: about 60 bytes a chunk and 40 bytes a frame (10 million chunks: 0.6 GB), 64 MiB of opened frames, one chunk in hand, and at most 64 MiB for
directories being walked. Files stream; directories are walked without recursion.

It does not know clouds: copy the bucket into a folder first.

Exit codes: 0 all well; 1 failed; 2 usage; 3 some items or attributes were not restored; 4 corruption found; 10 no repository; 12 wrong key; 13 no such
snapshot or path; 14 newer format; 15 the repository's folder cannot be read; 16 no space; 130 interrupted.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import errno
import functools
import hashlib
import json
import os
import re
import secrets
import stat
import struct
import sys
import time
import urllib.parse
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TextIO

import xxhash
import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

OK, FAILED, USAGE, PARTIAL, CORRUPT = 0, 1, 2, 3, 4
NO_REPOSITORY, WRONG_KEY, NO_SNAPSHOT, NEWER, UNREADABLE, NO_SPACE, INTERRUPTED = 10, 12, 13, 14, 15, 16, 130

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
MAGIC, PACK_END = b"LONGSHOR", b"LSPCKEND"
FORMAT_VERSION_NEWEST: Final = 1
ID_PREFIX: Final = "ls0-"
ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"

# Limits of the format, checked before anything is allocated.
CHUNK_MAX = FRAME_MAX = 16 * MIB
# What the stored form of a frame, a header or a sealed object may take beyond its payload.
STORED_EXTRA_MAX: Final = MIB
PACK_FRAMES_MAX: Final = 1 << 20
PACK_MAX = TABLE_MAX = 256 * MIB
PACK_HEADER_MAX: Final = 64 * MIB
OBJECT_MAX: Final = 16 * MIB
ENTRY_MAX: Final = 4 * MIB
NAME_MAX, TARGET_MAX = 1024, 65536
XATTR_NAME_MAX, XATTR_VALUE_MAX, XATTR_COUNT_MAX = 255, 65536, 4096
LIST_DEPTH_MAX: Final = 8
FILE_MAX: Final = (1 << 63) - 1
WINDOW_MAX: Final = 8 * MIB
SLOTS_MAX: Final = 64
SLOTS_LISTED_MAX: Final = 1024
ENVELOPE, TAG = 5, 16

# Bounds of this program.
OPENED_FRAMES_MAX_BYTES: Final = 64 * MIB
WALK_MAX_BYTES: Final = 64 * MIB
OPEN_DIRECTORIES_MAX: Final = 64
OPEN_PACKS_MAX: Final = 32
NAMED_MAX: Final = 10_000
# Lists may name lists that name what is missing more often than anyone can wait for: here the rest of such a directory is given up.
DAMAGES_MAX: Final = 10_000
PASSPHRASE_MAX: Final = MIB

DATA, TREE, LIST = 1, 2, 3
CHUNK_LABELS: Final = {DATA: "chunk data", TREE: "chunk tree", LIST: "chunk list"}
OBJECT_TYPES: Final = {
    1: "config",
    3: "session",
    5: "index",
    6: "usage",
    7: "snapshot",
    8: "removed",
    9: "tombstone",
    10: "open",
    11: "decision",
    12: "watch",
    13: "repair",
}
DIRECTORY, FILE, SYMLINK, BLOCK, CHARACTER, FIFO, SOCKET = 1, 2, 3, 4, 5, 6, 7
ITEM_DATA, ITEM_HOLE, ITEM_ZEROS, ITEM_LIST, ITEM_PIECE = 0, 1, 2, 3, 4
ZERO_NONCE: Final = bytes(12)
HEADER_NONCE: Final = b"\xff\xff\xff\xff" + bytes(8)

NAME_32 = re.compile(r"[0-9a-f]{32}\Z")
NAME_64 = re.compile(r"[0-9a-f]{64}\Z")
NAME_8 = re.compile(r"[0-9a-f]{8}\Z")
NAME_PACK = re.compile(r"([0-9a-f]{32})-([0-9a-f]{8})\Z")


class RescueError(Exception):
    """A failure that ends the run, with its exit code and what an operator can do next."""

    def __init__(self, code: int, message: str, next_step: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.next_step = next_step


class CorruptError(Exception):
    """Something in the repository is not what the format allows, or is missing."""


class SlotMemoryError(CorruptError):
    """This machine has too little memory for a key slot."""


class ForeignSlotError(CorruptError):
    """A key slot names another repository: one that somebody began to make at the same place and did not finish."""


class NewerError(CorruptError):
    """Something bears a format version or a required feature that this program does not know."""


def text_of(raw: bytes) -> str:
    """Bytes from the repository as text that is safe on a terminal."""
    out = []
    for character in raw.decode("utf-8", "surrogateescape"):
        number = ord(character)
        if 0xDC80 <= number <= 0xDCFF:
            out.append(f"\\x{number - 0xDC00:02x}")
        else:
            out.append(character if character.isprintable() else f"\\u{number:04x}")
    return "".join(out)


# --- bytes ----------------------------------------------------------------------------------------------------------------------


class Cursor:
    """Reads the notation of the format from a run of bytes; whatever does not fit is a CorruptError."""

    __slots__ = ("data", "end", "pos")

    def __init__(self, data: bytes, pos: int = 0, end: int | None = None) -> None:
        self.data = data
        self.pos = pos
        self.end = len(data) if end is None else end

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        start = self.pos
        if count > self.end - start:
            raise CorruptError(f"a field ends beyond its record: field_bytes={count}, left_bytes={self.end - start}")
        self.pos = start + count
        return self.data[start : self.pos]

    def u8(self) -> int:
        """One byte."""
        if self.pos >= self.end:
            raise CorruptError("a record ends in the middle of a field")
        self.pos += 1
        return self.data[self.pos - 1]

    def u32(self) -> int:
        """Four bytes, little-endian."""
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        """Eight bytes, little-endian."""
        return int.from_bytes(self.take(8), "little")

    def uv(self) -> int:
        """A varint in its shortest form."""
        data, pos, end = self.data, self.pos, self.end
        if pos < end and data[pos] < 0x80:
            self.pos = pos + 1
            return data[pos]
        value = shift = 0
        while True:
            if pos >= end:
                raise CorruptError("a record ends in the middle of a varint")
            byte = data[pos]
            pos += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 63:
                raise CorruptError("a varint is longer than 10 bytes")
        if byte == 0:
            raise CorruptError("a varint is longer than needed")
        if value >> 64:
            raise CorruptError("a varint does not fit into 64 bits")
        self.pos = pos
        return value

    def sv(self) -> int:
        """A signed varint, zigzag."""
        value = self.uv()
        return (value >> 1) ^ -(value & 1)

    def bytes(self, limit: int) -> bytes:
        """A length and that many bytes, at most `limit`."""
        count = self.uv()
        if count > limit:
            raise CorruptError(f"a field is longer than the format allows: field_bytes={count}, limit_bytes={limit}")
        return self.take(count)

    def more(self) -> bool:
        """Whether bytes are left."""
        return self.pos < self.end

    def finish(self) -> None:
        """Refuse bytes left over."""
        if self.pos != self.end:
            raise CorruptError(f"bytes are left over: left_bytes={self.end - self.pos}")


def whole_uv(value: bytes) -> int:
    """A varint that fills its field."""
    cursor = Cursor(value)
    number = cursor.uv()
    cursor.finish()
    return number


def whole_sv(value: bytes) -> int:
    """A signed varint that fills its field."""
    cursor = Cursor(value)
    number = cursor.sv()
    cursor.finish()
    return number


def exact(value: bytes, length: int, what: str) -> bytes:
    """A field of fixed length."""
    if len(value) != length:
        raise CorruptError(f"{what} has a wrong length: found_bytes={len(value)}, expected_bytes={length}")
    return value


def read_record(
    payload: bytes, known: frozenset[int], repeated: frozenset[int], limit: int = OBJECT_MAX
) -> dict[int, list[bytes]]:
    """Split a record into its fields.

    Args:
        payload: the bytes.
        known: tags that the caller reads; other even tags are dropped, other odd ones refused.
        repeated: tags among them that may come more than once.
        limit: bytes of one field.
    """
    fields: dict[int, list[bytes]] = {}
    cursor = Cursor(payload)
    last = -1
    while cursor.more():
        tag = cursor.uv()
        value = cursor.bytes(limit)
        if tag not in known:
            if tag & 1:
                raise NewerError(f"a record holds a critical field that this program does not know: tag={tag}")
            # Whether an unknown tag may repeat cannot be known, so equal neighbours pass.
            if tag < last:
                raise CorruptError(f"a record's tags do not ascend: tag={tag}, previous={last}")
        elif tag < last or (tag == last and tag not in repeated):
            raise CorruptError(f"a record's tags do not ascend: tag={tag}, previous={last}")
        else:
            fields.setdefault(tag, []).append(value)
        last = tag
    return fields


def one(fields: dict[int, list[bytes]], tag: int, what: str) -> bytes:
    """The single value of a field that must be there."""
    if tag not in fields:
        raise CorruptError(f"{what} lacks a field: tag={tag}")
    return fields[tag][0]


def open_envelope(plain: bytes, limit: int, expected: int | None = None) -> bytes:
    """Unwrap an envelope: exactly the promised bytes come out and none remain.

    Args:
        plain: the envelope.
        limit: the largest payload that the format allows here.
        expected: the length that the payload must have, when it is known.
    """
    if len(plain) < ENVELOPE:
        raise CorruptError("an envelope is cut short")
    codec, length = struct.unpack_from("<BI", plain)
    if length > limit:
        raise CorruptError(f"a payload is longer than the format allows: payload_bytes={length}, limit_bytes={limit}")
    if expected is not None and length != expected:
        raise CorruptError(
            f"a payload has not the length of its chunks: payload_bytes={length}, chunks_bytes={expected}"
        )
    body = plain[ENVELOPE:]
    if codec == 0:
        return exact(body, length, "a raw payload")
    if codec != 1:
        raise NewerError(f"an envelope has an unknown codec: codec={codec}")
    # Also keeps skippable frames out.
    if body[:4] != ZSTD_MAGIC:
        raise CorruptError("a compressed payload is no zstd frame")
    try:
        parameters = zstandard.get_frame_parameters(body)
        if parameters.window_size > WINDOW_MAX:
            raise CorruptError(
                f"a zstd window is too large: window_bytes={parameters.window_size}, limit_bytes={WINDOW_MAX}"
            )
        if parameters.dict_id:
            raise CorruptError("a zstd frame asks for a dictionary")
        if parameters.content_size not in (zstandard.CONTENTSIZE_UNKNOWN, length):
            raise CorruptError("a zstd frame holds another length than its envelope says")
        # One bounded output buffer: a bomb fills it and is refused. Bytes behind the frame and a frame cut short are refused as well.
        out = zstandard.ZstdDecompressor(max_window_size=WINDOW_MAX).decompress(
            body, max_output_size=max(length, 1), read_across_frames=False, allow_extra_data=length == 0
        )
    except zstandard.ZstdError as error:
        raise CorruptError(f"a zstd frame cannot be read: {error}") from None
    return exact(out, length, "a compressed payload")


# --- store ----------------------------------------------------------------------------------------------------------------------


class Folder:
    """The objects of a repository in a local folder: the key is the path below it. Reads only."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise RescueError(
                NO_REPOSITORY, f"there is no folder here: repository={path}", "check the path and that it is mounted"
            ) from None
        except (OSError, ValueError) as error:
            raise RescueError(
                UNREADABLE,
                f"the repository's folder cannot be opened: repository={path}, error={reason(error)}",
                "see that this user may read it and that its disk or mount answers",
            ) from None

    def close(self) -> None:
        """Give it back."""
        os.close(self.fd)

    def names(self, first: str) -> list[str]:
        """Names below a first-level key, ascending; a missing folder holds none."""
        try:
            fd = os.open(first, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.fd)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self._unreadable(first, error) from None
        try:
            return sorted(os.listdir(fd))
        except OSError as error:
            raise self._unreadable(first, error) from None
        finally:
            os.close(fd)

    def _unreadable(self, key: str, error: OSError) -> RescueError:
        return RescueError(
            UNREADABLE,
            f"the repository's folder cannot be read: repository={self.path}, key={key}, error={reason(error)}",
            "see that this user may read it and that its disk or mount answers",
        )

    def open(self, key: str) -> int:
        """A descriptor of an object, which must be a plain file (a FIFO in its place must not make us wait)."""
        fd = os.open(key, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.fd)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise CorruptError(f"an object is not a plain file: key={key}")
        return fd

    def read(self, key: str, limit: int) -> bytes:
        """A whole object of at most `limit` bytes."""
        try:
            fd = self.open(key)
        except FileNotFoundError:
            raise CorruptError(f"an object is gone: key={key}") from None
        except OSError as error:
            raise CorruptError(f"an object cannot be read: key={key}, error={reason(error)}") from None
        try:
            size = os.fstat(fd).st_size
            if size > limit:
                raise CorruptError(
                    f"an object is larger than the format allows: key={key}, size_bytes={size}, limit_bytes={limit}"
                )
            return read_at(fd, 0, size)
        finally:
            os.close(fd)

    def exists(self, key: str) -> bool:
        """Whether the object is there."""
        try:
            os.stat(key, dir_fd=self.fd)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise self._unreadable(key, error) from None
        return True


def read_at(fd: int, offset: int, length: int) -> bytes:
    """Exactly `length` bytes at `offset`."""
    parts = []
    while length > 0:
        try:
            part = os.pread(fd, min(length, GIB), offset)
        except OSError as error:
            raise CorruptError(f"an object cannot be read: error={reason(error)}") from None
        if not part:
            raise CorruptError("an object is shorter than its own fields say")
        parts.append(part)
        offset += len(part)
        length -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def reason(error: BaseException) -> str:
    """An error of the system in few words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


# --- keys -----------------------------------------------------------------------------------------------------------------------


def sub_key(key: bytes, message: bytes) -> tuple[bytes, bytes]:
    """An AES key and its commitment."""
    out = blake3(message, key=key).digest(length=64)
    return out[:32], out[32:]


def unseal(key: bytes, nonce: bytes, sealed: bytes, associated: bytes, what: str) -> bytes:
    """Open AES-256-GCM, or say what was altered."""
    if len(sealed) < TAG:
        raise CorruptError(f"{what} is cut short")
    try:
        return AESGCM(key).decrypt(nonce, sealed, associated)
    except InvalidTag:
        raise CorruptError(f"{what} is damaged or was altered") from None


class Keys:
    """Keys derived from a master key."""

    def __init__(self, master: bytes, repository: bytes) -> None:
        self.repository = repository
        self._material = master + repository
        self._derived: dict[str, bytes] = {}

    def derive(self, label: str) -> bytes:
        """K(label)."""
        key = self._derived.get(label)
        if key is None:
            key = blake3(self._material, derive_key_context="longshore repository 0 " + label).digest()
            self._derived[label] = key
        return key

    def pack(self, salt: bytes, session: bytes, number: int) -> tuple[bytes, bytes]:
        """Key and commitment of a pack."""
        return sub_key(self.derive("pack"), salt + session + struct.pack("<I", number))

    def chunk_id(self, kind: int, plain: bytes) -> bytes:
        """The id that a plaintext has."""
        return blake3(plain, key=self.derive(CHUNK_LABELS[kind])).digest()


def check_start(blob: bytes, kind: int, least: int, what: str) -> None:
    """Magic, type, version and the zero bytes that every object begins with."""
    if len(blob) < least:
        raise CorruptError(f"{what} is cut short: size_bytes={len(blob)}, least_bytes={least}")
    if blob[:8] != MAGIC:
        raise CorruptError(f"{what} does not begin as an object of a repository")
    if blob[8] != kind:
        raise CorruptError(f"{what} is of another type: found={blob[8]}, expected={kind}")
    if blob[9] > FORMAT_VERSION_NEWEST:
        raise NewerError(f"{what} has a format version that this program does not know: version={blob[9]}")
    if blob[10:12] != b"\0\0":
        raise CorruptError(f"{what} has bytes set that are reserved")


@dataclass(frozen=True, slots=True)
class Secret:
    """What the operator holds: a slot's secret, or a passphrase."""

    kind: int
    value: bytes

    def derive(self, slot: bytes) -> bytes:
        """The 64 bytes for a slot."""
        salt = slot[32:64]
        if self.kind == 1:
            return HKDF(algorithm=hashes.SHA256(), length=64, salt=salt, info=b"longshore key slot 0").derive(
                self.value
            )
        memory, passes, lanes = struct.unpack_from("<III", slot, 64)
        if memory > 4 * MIB or passes > 64 or lanes > 64:
            raise CorruptError(
                f"a key slot asks for too much work: memory_kib={memory}, passes={passes}, lanes={lanes}"
            )
        try:
            return Argon2id(salt=salt, length=64, iterations=passes, lanes=lanes, memory_cost=memory).derive(self.value)
        except (ValueError, OverflowError) as error:
            raise CorruptError(
                f"a key slot's parameters are impossible: memory_kib={memory}, passes={passes}, lanes={lanes}"
            ) from error
        except MemoryError as error:
            # No end of the run: another slot may open with less.
            raise SlotMemoryError(f"not enough memory for a key slot: memory_kib={memory}") from error


def check_slot_form(slot: bytes) -> None:
    """What holds for every slot, whoever it is for."""
    check_start(slot, 2, 193, "key slot")
    cursor = Cursor(slot, 160, len(slot) - 32)
    label = cursor.bytes(255)
    cursor.finish()
    try:
        label.decode("utf-8")
    except UnicodeDecodeError:
        raise CorruptError("a key slot's label is not UTF-8") from None
    kind = int.from_bytes(slot[12:16], "little")
    if kind not in (1, 2):
        raise NewerError(f"a key slot is of an unknown kind: kind={kind}")


def check_slot_reserved(slot: bytes) -> None:
    """Bytes that are zero in a slot of this repository."""
    if slot[76:80] != bytes(4) or (slot[12] == 1 and slot[64:76] != bytes(12)):
        raise CorruptError("a key slot has bytes set that are reserved")


def slot_sum(keys: Keys, key: str, slot: bytes) -> bytes:
    """The sum that a slot must end with."""
    return blake3(slot[:-32] + key.encode(), key=keys.derive("key slot")).digest()


def check_slot(keys: Keys, key: str, slot: bytes) -> None:
    """Whether a slot is whole, without its holder's secret; one that was left by another repository is nobody's."""
    own = slot[:16] + keys.repository + slot[32:]
    if len(slot) >= 193 and own != slot and slot_sum(keys, key, own) != slot[-32:]:
        return
    check_slot_form(slot)
    check_slot_reserved(slot)
    if slot_sum(keys, key, slot) != slot[-32:]:
        raise CorruptError("a key slot's sum is not that of its bytes: its holder cannot open the repository")


def open_slot(key: str, slot: bytes, repository: bytes, secret: Secret) -> bytes | None:
    """The master key in a slot; None when the slot is for somebody else."""
    check_slot_form(slot)
    if slot[16:32] != repository:
        raise ForeignSlotError("a key slot belongs to another repository")
    check_slot_reserved(slot)
    if slot[12] != secret.kind:
        return None
    derived = secret.derive(slot)
    if not secrets.compare_digest(derived[32:], slot[80:112]):
        return None
    master = unseal(derived[:32], ZERO_NONCE, slot[112:160], slot[:112] + key.encode() + slot[160:-32], "key slot")
    exact(master, 32, "a master key")
    if slot_sum(Keys(master, repository), key, slot) != slot[-32:]:
        raise CorruptError("a key slot's sum is not that of its bytes")
    return master


def read_secret(key_file: str | None, passphrase_file: str | None) -> Secret:
    """What is in the key file or the passphrase file (of which one newline at the end is not part)."""
    path = key_file if key_file is not None else passphrase_file
    assert path is not None
    try:
        with open(path, "rb") as file:
            content = file.read(PASSPHRASE_MAX + 1)
    except (OSError, ValueError) as error:
        raise RescueError(
            FAILED, f"the key or passphrase file cannot be read: file={path}, error={reason(error)}"
        ) from None
    if key_file is None:
        if len(content) > PASSPHRASE_MAX:
            raise RescueError(
                USAGE, f"the passphrase file is too long: file={path}, limit_bytes={PASSPHRASE_MAX}", "check the path"
            )
        if content.endswith(b"\n"):
            content = content[:-1].removesuffix(b"\r")
        if not content:
            raise RescueError(USAGE, f"the passphrase file is empty: file={path}", "check the path")
        return Secret(2, content)
    match = re.fullmatch(rb"longshore-key-1:([0-9a-f]{64})(\r?\n)?", content)
    if match is None:
        raise RescueError(
            USAGE,
            f"this is no key file: file={path}",
            "a key file is one line, longshore-key-1: and 64 lower-case hexadecimal digits; for a passphrase use --passphrase-file",
        )
    return Secret(1, bytes.fromhex(match[1].decode()))


def open_sealed(keys: Keys, kind: int, key: str, blob: bytes, limit: int) -> bytes:
    """The payload of a sealed object."""
    name = OBJECT_TYPES[kind]
    check_start(blob, kind, 96 + TAG + ENVELOPE, f"object {key}")
    clear = int.from_bytes(blob[12:16], "little")
    if clear > len(blob) - 96 or (clear and kind != 1):
        raise CorruptError(f"the clear part has a wrong length: key={key}, clear_bytes={clear}")
    if blob[16:32] != keys.repository:
        raise CorruptError(f"an object belongs to another repository: key={key}")
    aes, commitment = sub_key(keys.derive("object " + name), blob[32:64] + key.encode())
    if commitment != blob[64:96]:
        raise CorruptError(f"an object was sealed with another key or for another place: key={key}")
    plain = unseal(aes, ZERO_NONCE, blob[96 + clear :], blob[: 96 + clear] + key.encode(), f"object {key}")
    payload = open_envelope(plain, limit)
    check_stored(len(blob), len(payload), f"object {key}")
    return payload


def check_stored(stored: int, payload: int, what: str) -> None:
    """Refuse a stored form that is much larger than what it holds."""
    if stored > payload + STORED_EXTRA_MAX:
        raise CorruptError(
            f"{what} takes more room than the format allows: stored_bytes={stored}, payload_bytes={payload}"
        )


# --- entries, items, snapshots --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a directory. `content` are the items of a file or directory as stored, without their number."""

    kind: int
    flags: int
    name: bytes
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    inode: int
    device: int | None
    size: int
    content: bytes
    target: bytes
    major: int
    minor: int
    xattrs: tuple[tuple[bytes, bytes], ...]


def read_time(cursor: Cursor) -> int:
    """Seconds and nanoseconds as nanoseconds."""
    seconds = cursor.sv()
    nanoseconds = cursor.uv()
    if nanoseconds >= 1_000_000_000:
        raise CorruptError(f"a time has too many nanoseconds: nanoseconds={nanoseconds}")
    return seconds * 1_000_000_000 + nanoseconds


def read_item(cursor: Cursor) -> tuple[int, int, bytes]:
    """Kind, span and id (empty where there is none) of the next item."""
    kind = cursor.u8()
    if kind > ITEM_PIECE:
        raise CorruptError(f"a content holds an item of unknown kind: kind={kind}")
    span = cursor.uv()
    if span == 0:
        raise CorruptError("an item spans nothing")
    return kind, span, b"" if kind in (ITEM_HOLE, ITEM_ZEROS) else cursor.take(32)


def check_items(cursor: Cursor, *, directory: bool, count: int | None, limit: int) -> int:
    """Read items to the end (or `count` of them) and return the sum of their spans.

    Args:
        cursor: where they begin; stands behind the last afterwards.
        directory: whose items they are, which decides what kinds may be among them.
        count: their number; None means to the end.
        limit: the largest sum.
    """
    total = 0
    while cursor.more() if count is None else count > 0:
        kind, span, _ = read_item(cursor)
        if directory != (kind == ITEM_PIECE) and kind != ITEM_LIST:
            raise CorruptError(f"a content holds an item of the wrong kind: kind={kind}")
        if kind == ITEM_DATA and span > CHUNK_MAX:
            raise CorruptError(f"a chunk is larger than the format allows: span_bytes={span}")
        total += span
        if total > limit:
            raise CorruptError("the spans of a content are larger than what holds them")
        if count is not None:
            count -= 1
    return total


def read_entry(cursor: Cursor, *, root: bool) -> Entry:
    """One entry that fills the cursor."""
    kind, flags = cursor.u8(), cursor.u8()
    if not DIRECTORY <= kind <= SOCKET:
        raise CorruptError(f"an entry is of unknown kind: kind={kind}")
    if flags & 0xF0:
        raise CorruptError(f"an entry has unknown flags: flags={flags}")
    name = cursor.bytes(NAME_MAX)
    if root:
        if name or kind != DIRECTORY:
            raise CorruptError("the root entry is not a directory without name")
    elif not name or name in (b".", b"..") or b"/" in name or b"\0" in name:
        raise CorruptError(f"an entry's name is not allowed: name={text_of(name)}")
    mode = cursor.uv()
    if mode > 0o7777:
        raise CorruptError(f"an entry's mode has more than 12 bits: mode={mode:o}")
    uid, gid = cursor.uv(), cursor.uv()
    mtime_ns = read_time(cursor)
    read_time(cursor)
    inode = cursor.uv()
    device = cursor.uv() if flags & 2 else None
    size = major = minor = 0
    content = target = b""
    if kind in (FILE, DIRECTORY):
        if kind == FILE:
            size = cursor.uv()
            if size > FILE_MAX:
                raise CorruptError(f"a file is larger than the format allows: size_bytes={size}")
        count = cursor.uv()
        start = cursor.pos
        total = check_items(cursor, directory=kind == DIRECTORY, count=count, limit=size if kind == FILE else FILE_MAX)
        if kind == FILE and total != size:
            raise CorruptError(f"a file's content has not its size: content_bytes={total}, size_bytes={size}")
        content = cursor.data[start : cursor.pos]
    elif kind == SYMLINK:
        target = cursor.bytes(TARGET_MAX)
    elif kind in (BLOCK, CHARACTER):
        major, minor = cursor.uv(), cursor.uv()
    xattrs: list[tuple[bytes, bytes]] = []
    if flags & 4:
        count = cursor.uv()
        if count > XATTR_COUNT_MAX:
            raise CorruptError(f"an entry has too many extended attributes: count={count}")
        for _ in range(count):
            key, value = cursor.bytes(XATTR_NAME_MAX), cursor.bytes(XATTR_VALUE_MAX)
            if not key or b"\0" in key or (xattrs and key <= xattrs[-1][0]):
                raise CorruptError("extended attributes are not in ascending order of valid names")
            xattrs.append((key, value))
    cursor.finish()
    return Entry(
        kind, flags, name, mode, uid, gid, mtime_ns, inode, device, size, content, target, major, minor, tuple(xattrs)
    )


COUNT_NAMES: Final = (
    "files",
    "directories",
    "others",
    "bytes",
    "files_new",
    "files_changed",
    "files_unchanged",
    "bytes_read",
    "bytes_stored",
    "items_lost",
    "items_changed",
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a snapshot's record says."""

    name: str
    committed: bool
    root: Entry | None
    source: str
    host: str
    path: bytes
    started_ns: int | None
    counts: dict[str, int]
    usage: tuple[bytes, ...]

    @property
    def identifier(self) -> str:
        """The identifier shown to users."""
        return ID_PREFIX + self.name


def read_snapshot(name: str, payload: bytes) -> Snapshot:
    """Decode a snapshot's record."""
    known = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 22})
    fields = read_record(payload, known, frozenset({4, 7, 18, 20}))
    state = whole_uv(one(fields, 1, "a snapshot"))
    exact(one(fields, 3, "a snapshot"), 16, "a nonce")
    if state not in (1, 2):
        raise NewerError(f"a snapshot has an unknown state: state={state}")
    root = None
    if state == 1:
        raw = one(fields, 5, "a snapshot")
        if len(raw) > ENTRY_MAX:
            raise CorruptError("a root entry is larger than the format allows")
        root = read_entry(Cursor(raw), root=True)
    source = fields[9][0] if state == 2 and 9 in fields else one(fields, 9, "a snapshot") if state == 1 else b""
    counts: dict[str, int] = {}
    if 16 in fields:
        cursor = Cursor(fields[16][0])
        for key in COUNT_NAMES:
            counts[key] = cursor.uv()
        cursor.finish()
    for pair in fields.get(4, ()):
        cursor = Cursor(pair)
        cursor.bytes(OBJECT_MAX)
        cursor.bytes(OBJECT_MAX)
        cursor.finish()
    if 2 in fields:
        exact(fields[2][0], 16, "a parent")
    if 8 in fields:
        whole_sv(fields[8][0])
    return Snapshot(
        name=name,
        committed=state == 1,
        root=root,
        source=text_of(source),
        host=text_of(fields.get(10, [b""])[0]),
        path=fields.get(12, [b""])[0],
        started_ns=whole_sv(fields[6][0]) if 6 in fields else None,
        counts=counts,
        usage=tuple(exact(u, 32, "a usage table's name") for u in fields.get(7, ())),
    )


# --- where chunks lie -----------------------------------------------------------------------------------------------------------


class Places:
    """Chunk id → frames that hold it, as a hash table over flat arrays: 56 bytes a chunk, 29 bytes a frame.

    An id that lies in several places stands several times. Buckets are chosen by Python's own keyed hash, so that forged headers cannot pile
    different ids into one chain.
    """

    def __init__(self) -> None:
        self._ids = bytearray()
        self._frame = array("I")
        self._offset = array("I")
        self._length = array("I")
        self._next = array("I")
        self._buckets = array("I", bytes(4 << 12))
        self.frame_pack = array("I")
        self.frame_birth = array("I")
        self.frame_ordinal = array("I")
        self.frame_offset = array("I")
        self.frame_stored = array("I")
        self.frame_payload = array("I")
        self.frame_kind = bytearray()

    def add_frame(self, pack: int, birth: int, ordinal: int, offset: int, stored: int, payload: int, kind: int) -> int:
        """Remember a frame and return its row."""
        self.frame_pack.append(pack)
        self.frame_birth.append(birth)
        self.frame_ordinal.append(ordinal)
        self.frame_offset.append(offset)
        self.frame_stored.append(stored)
        self.frame_payload.append(payload)
        self.frame_kind.append(kind)
        return len(self.frame_pack) - 1

    def add_chunk(self, chunk: bytes, frame: int, offset: int, length: int) -> None:
        """Remember that a chunk lies in a frame."""
        row = len(self._frame)
        if row >= len(self._buckets):
            self._grow()
        self._ids += chunk
        self._frame.append(frame)
        self._offset.append(offset)
        self._length.append(length)
        bucket = hash(chunk) & (len(self._buckets) - 1)
        # Rows are counted from 1 in chains, 0 ends them.
        self._next.append(self._buckets[bucket])
        self._buckets[bucket] = row + 1

    def _grow(self) -> None:
        self._buckets = buckets = array("I", bytes(8 * len(self._buckets)))
        mask = len(buckets) - 1
        for row in range(len(self._frame)):
            ids = bytes(self._ids[32 * row : 32 * row + 32])
            bucket = hash(ids) & mask
            self._next[row] = buckets[bucket]
            buckets[bucket] = row + 1

    def find(self, chunk: bytes) -> Iterator[tuple[int, int, int]]:
        """Frame row, offset in its payload and length of each place of a chunk."""
        at = self._buckets[hash(chunk) & (len(self._buckets) - 1)]
        while at:
            row = at - 1
            if self._ids[32 * row : 32 * row + 32] == chunk:
                yield self._frame[row], self._offset[row], self._length[row]
            at = self._next[row]

    def __len__(self) -> int:
        return len(self._frame)


def usage_rows(cursor: Cursor) -> Iterator[tuple[bytes, bytes]]:
    """The form of a usage table: a birth pack (session and number as stored) and the bits of its frames, to the cursor's end."""
    last = b""
    for _ in range(cursor.uv()):
        session, number = cursor.take(16), cursor.u32()
        order = session + struct.pack(">I", number)
        if order <= last:
            raise CorruptError("a usage table's packs do not ascend")
        last = order
        bits = cursor.uv()
        field = cursor.take((bits + 7) // 8)
        if bits % 8 and field[-1] >> (bits % 8):
            raise CorruptError("a usage table has bits set beyond its end")
        yield session + struct.pack("<I", number), field
    cursor.finish()


class Repairs:
    """What repairs wrote down: places on which nobody may rely, and usage tables in whose place a record speaks."""

    def __init__(self) -> None:
        # Pack → birth pack → bits of the frames that are damaged where they lie in it, one for each record that says so.
        self._places: dict[str, dict[bytes, list[bytes]]] = {}
        self._tables: list[tuple[frozenset[bytes], frozenset[bytes]]] = []

    def add(self, payload: bytes) -> None:
        """Take in a record; of one that is wrong nothing is taken."""
        fields = read_record(payload, frozenset({1, 2, 3, 4, 5, 7, 9}), frozenset({1, 5, 9}), TABLE_MAX)
        if 2 in fields:
            whole_sv(fields[2][0])
        snapshots = set()
        for value in fields.get(1, ()):
            cursor = Cursor(value)
            snapshots.add(cursor.take(16))
            for _ in usage_rows(cursor):
                pass
        for value in fields.get(3, ()):
            for _ in usage_rows(Cursor(value)):
                pass
        tables = frozenset(exact(value, 32, "a usage table's name") for value in fields.get(5, ()))
        for value in fields.get(7, ()):
            if len(value) % 8:
                raise CorruptError(f"a list of chunks has an impossible length: size_bytes={len(value)}")
            if any(value[at - 8 : at] >= value[at : at + 8] for at in range(8, len(value), 8)):
                raise CorruptError("a list of chunks does not ascend")
        places = []
        for value in fields.get(9, ()):
            cursor = Cursor(value)
            pack = f"{cursor.take(16).hex()}-{cursor.u32():08x}"
            places.append((pack, list(usage_rows(cursor))))
        for pack, rows in places:
            births = self._places.setdefault(pack, {})
            for birth, bits in rows:
                births.setdefault(birth, []).append(bits)
        self._tables.append((tables, frozenset(snapshots)))

    def __bool__(self) -> bool:
        return bool(self._places)

    def know_pack(self, pack: str) -> bool:
        """Whether damage of this pack is known."""
        return pack in self._places

    def know_frame(self, pack: str, birth: bytes, ordinal: int) -> bool:
        """Whether a frame is known to be damaged where it lies in this pack."""
        at, bit = divmod(ordinal, 8)
        rows = self._places.get(pack, {}).get(birth, ())
        return any(at < len(bits) and bits[at] >> bit & 1 for bits in rows)

    def know_table(self, table: bytes) -> bool:
        """Whether a usage table is known to be unreadable."""
        return any(table in tables for tables, _ in self._tables)

    def speak_for(self, table: bytes, snapshot: bytes) -> bool:
        """Whether a record says what a snapshot needs in place of this table."""
        return any(table in tables and snapshot in snapshots for tables, snapshots in self._tables)


@dataclass(frozen=True, slots=True)
class HeaderFrame:
    """A frame as a pack's header tells it; its chunks stand in the header from `chunks_at` on."""

    kind: int
    session: bytes
    number: int
    ordinal: int
    salt: bytes
    offset: int
    stored: int
    payload: int
    chunks_at: int
    chunk_count: int


class PackHeader:
    """The opened header of a pack, walked from its bytes each time: a header of a million frames costs no more than it is long."""

    __slots__ = ("_at", "_count", "_number", "_payload", "_salt", "_session")

    def __init__(self, payload: bytes, count: int, at: int, session: bytes, number: int, salt: bytes) -> None:
        self._payload = payload
        self._count = count
        self._at = at
        self._session = session
        self._number = number
        self._salt = salt

    def check(self) -> None:
        """Walk all of it once, so that nothing is taken from a header that is wrong at its end."""
        births: set[bytes] = set()
        moved = 0
        for frame in self.frames():
            if (frame.session, frame.number) != (self._session, self._number):
                moved += 1
                births.add(frame.session + struct.pack("<II", frame.number, frame.ordinal))
                if len(births) != moved:
                    raise CorruptError("a frame's birth name stands twice in a pack")

    def frames(self) -> Iterator[HeaderFrame]:
        """Its frames, in the order in which they lie; what is not allowed is a CorruptError on the way."""
        cursor = Cursor(self._payload)
        if cursor.uv() != self._count:
            raise CorruptError("a pack's header and end differ in the number of frames")
        offset, own_ordinal = 112, 0
        for _ in range(self._count):
            flags, kind = cursor.u8(), cursor.u8()
            if flags > 1 or not DATA <= kind <= LIST:
                raise CorruptError(f"a frame has unknown flags or kind: flags={flags}, kind={kind}")
            if flags:
                session, number, ordinal, salt = cursor.take(16), cursor.u32(), cursor.u32(), cursor.take(32)
                if (session, number) == (self._session, self._number):
                    raise CorruptError("a frame is said to have moved from the pack in which it lies")
                if ordinal == 0xFFFFFFFF:
                    raise CorruptError("a frame has an ordinal that is not allowed")
            else:
                session, number, salt, ordinal = self._session, self._number, self._salt, own_ordinal
                own_ordinal += 1
            stored, count = cursor.uv(), cursor.uv()
            if not TAG + ENVELOPE <= stored <= self._at - offset:
                raise CorruptError(f"a frame has an impossible length: stored_bytes={stored}")
            if not count:
                raise CorruptError("a frame holds no chunk")
            frame_at = cursor.pos
            payload = 0
            for _ in range(count):
                cursor.take(32)
                length = cursor.uv()
                if not length:
                    raise CorruptError("a frame holds an empty chunk")
                payload += length
                if payload > FRAME_MAX:
                    raise CorruptError(f"a frame is larger than the format allows: payload_bytes={payload}")
            check_stored(stored, payload, "a frame")
            yield HeaderFrame(kind, session, number, ordinal, salt, offset, stored, payload, frame_at, count)
            offset += stored
        cursor.finish()
        if offset != self._at:
            raise CorruptError(f"a pack's frames do not fill it: frames_end={offset}, header_begins={self._at}")

    def chunks(self, frame: HeaderFrame) -> Iterator[tuple[bytes, int]]:
        """Id and length of each chunk of a frame."""
        cursor = Cursor(self._payload, frame.chunks_at)
        for _ in range(frame.chunk_count):
            yield cursor.take(32), cursor.uv()


class Repository:
    """An opened repository: keys, snapshots, and chunks by id."""

    def __init__(self, folder: Folder, secret: Secret, out: Output) -> None:
        self.folder = folder
        self.out = out
        self.repository = b""
        self.keys = self._open(secret)
        self.places = Places()
        self.repairs = Repairs()
        self.packs: list[str] = []
        # A birth pack is known by session, number and salt, 52 bytes in this order.
        self._births: dict[bytes, int] = {}
        self._birth_list: list[bytes] = []
        self._pack_fds: OrderedDict[int, int] = OrderedDict()
        self._ciphers: OrderedDict[int, AESGCM] = OrderedDict()
        self._opened: OrderedDict[int, bytes] = OrderedDict()
        self._opened_bytes = 0
        # Frames that do not open, and chunks (frame, offset) of frames that do whose id differs: their neighbours are as good as any.
        self.bad_frames: set[int] = set()
        self.bad_chunks: set[tuple[int, int]] = set()

    def close(self) -> None:
        """Give back the packs that are open."""
        while self._pack_fds:
            os.close(self._pack_fds.popitem()[1])

    # opening

    def _open(self, secret: Secret) -> Keys:
        numbers = [name for name in self.folder.names("config") if NAME_8.match(name)]
        if not numbers:
            raise RescueError(
                NO_REPOSITORY,
                f"there is no repository here: repository={self.folder.path}",
                "name the folder that holds config/, keys/ and packs/",
            )
        key = f"config/{numbers[-1]}"
        try:
            blob = self.folder.read(key, OBJECT_MAX + STORED_EXTRA_MAX)
            check_start(blob, 1, 96 + 6 + TAG + ENVELOPE, f"object {key}")
            self._check_clear(key, blob)
        except NewerError as error:
            raise RescueError(
                NEWER, f"{error}: repository={self.folder.path}", "use the rescue.py of a newer release"
            ) from None
        except CorruptError as error:
            raise RescueError(
                CORRUPT, f"the configuration is damaged: {error}", "restore the object from a copy of the repository"
            ) from None
        self.repository = blob[16:32]
        keys = self._unlock(secret)
        try:
            self.check_config(keys, key, blob)
        except NewerError as error:
            raise RescueError(NEWER, str(error), "use the rescue.py of a newer release") from None
        except CorruptError as error:
            raise RescueError(
                CORRUPT, f"the configuration is damaged: {error}", "restore the object from a copy of the repository"
            ) from None
        return keys

    @staticmethod
    def _check_clear(key: str, blob: bytes) -> None:
        clear = int.from_bytes(blob[12:16], "little")
        if clear > len(blob) - 96 - TAG:
            raise CorruptError(f"the clear part has a wrong length: key={key}, clear_bytes={clear}")
        cursor = Cursor(blob, 96, 96 + clear)
        number = cursor.u32()
        required = [int.from_bytes(cursor.take(2), "little") for _ in range(min(cursor.uv(), clear))]
        for _ in range(min(cursor.uv(), clear)):
            cursor.take(2)
        if required:
            raise NewerError(f"the repository needs features that this program does not know: features={required}")
        cursor.finish()
        if f"config/{number:08x}" != key:
            raise CorruptError(f"a configuration stands under another number: key={key}, number={number}")

    @classmethod
    def check_config(cls, keys: Keys, key: str, blob: bytes) -> None:
        """Decode a whole configuration."""
        check_start(blob, 1, 96 + 6 + TAG + ENVELOPE, f"object {key}")
        cls._check_clear(key, blob)
        fields = read_record(open_sealed(keys, 1, key, blob, OBJECT_MAX), frozenset({1, 2, 3, 4, 5, 7}), frozenset())
        _, smallest, usual, largest = (whole_uv(one(fields, tag, "a configuration")) for tag in (1, 3, 5, 7))
        if not 0 < smallest <= usual <= largest <= CHUNK_MAX or usual & (usual - 1):
            raise CorruptError(
                f"a configuration's sizes of chunks are impossible: smallest={smallest}, usual={usual}, largest={largest}"
            )
        if 2 in fields:
            whole_sv(fields[2][0])

    def _unlock(self, secret: Secret) -> Keys:
        slots = [f"keys/{name}" for name in self.folder.names("keys") if NAME_32.match(name)]
        own = 0
        others: list[str] = []
        problems: list[CorruptError] = []
        for position, key in enumerate(slots):
            if own == SLOTS_MAX or position == SLOTS_LISTED_MAX:
                self.out.note(f"looked at the first key slots only: slots={len(slots)}, looked_at={position}")
                break
            try:
                master = open_slot(key, self.folder.read(key, KIB), self.repository, secret)
            except ForeignSlotError:
                others.append(key)
                continue
            except CorruptError as error:
                problems.append(error)
                self.out.note(f"skipped a key slot: key={key}, cause={error}")
                master = None
            own += 1
            if master is not None:
                return Keys(master, self.repository)
        for key in others:
            # One in which just the repository's name is damaged looks like somebody else's until it is opened.
            slot = self.folder.read(key, KIB)
            try:
                open_slot(key, slot, slot[16:32], secret)
            except CorruptError as error:
                own += 1
                problems.append(error)
                self.out.note(f"skipped a key slot: key={key}, cause={error}")
        if not own:
            raise RescueError(
                CORRUPT,
                f"the repository has no key slot: repository={self.folder.path}, slots_of_others={len(others)}",
                "restore keys/ from a copy of the repository",
            )
        if any(isinstance(problem, SlotMemoryError) for problem in problems):
            raise RescueError(
                FAILED,
                f"not enough memory for a key slot, and no other opens: slots={own}",
                "use a machine with more memory",
            )
        if problems and len(problems) == own:
            code = NEWER if all(isinstance(p, NewerError) for p in problems) else CORRUPT
            raise RescueError(
                code, f"no key slot can be read: slots={own}", "restore keys/ from a copy of the repository"
            )
        what = "key" if secret.kind == 1 else "passphrase"
        raise RescueError(
            WRONG_KEY,
            f"the {what} opens none of the repository's key slots: slots={own}, unreadable={len(problems)}",
            "bring the key or passphrase with which the repository was made, or a recovery key",
        )

    def sealed(self, kind: int, key: str, limit: int) -> bytes:
        """The payload of a sealed object of the repository."""
        return open_sealed(self.keys, kind, key, self.folder.read(key, limit + STORED_EXTRA_MAX), limit)

    # snapshots

    def snapshot_names(self) -> list[str]:
        """Names of snapshot objects, aborted and removed ones too."""
        return [name for name in self.folder.names("snapshots") if NAME_32.match(name)]

    def is_removed(self, name: str) -> bool:
        """Whether a snapshot was deleted."""
        return self.folder.exists(f"removed/{name}")

    def snapshot(self, name: str) -> Snapshot:
        """Read a snapshot's record."""
        return read_snapshot(name, self.sealed(7, f"snapshots/{name}", OBJECT_MAX))

    def snapshots(self) -> Iterator[Snapshot]:
        """All snapshots that count; damaged ones are reported and left out."""
        for name in self.snapshot_names():
            if self.is_removed(name):
                continue
            try:
                snapshot = self.snapshot(name)
            except CorruptError as error:
                self.out.corrupt(f"a snapshot cannot be read: snapshot={ID_PREFIX}{name}, cause={error}")
                continue
            if snapshot.committed:
                yield snapshot

    # packs

    def read_header(self, name: str, fd: int) -> PackHeader:
        """Open a pack's header and check all of it; nothing of it is kept but its bytes."""
        match = NAME_PACK.match(name)
        assert match is not None
        session, number = bytes.fromhex(match[1]), int(match[2], 16)
        size = os.fstat(fd).st_size
        if not 112 + TAG + ENVELOPE + 24 <= size <= PACK_MAX:
            raise CorruptError(f"a pack has an impossible size: size_bytes={size}")
        head = read_at(fd, 0, 112)
        check_start(head, 4, 112, "pack")
        if head[12:16] != struct.pack("<I", number) or head[96:112] != session:
            raise CorruptError("a pack stands under another name")
        if head[16:32] != self.keys.repository:
            raise CorruptError("a pack belongs to another repository")
        length, count, _, end = struct.unpack("<IIQ8s", read_at(fd, size - 24, 24))
        if end != PACK_END:
            raise CorruptError("a pack's end is missing")
        if count > PACK_FRAMES_MAX or length > min(size - 24 - 112, PACK_HEADER_MAX + STORED_EXTRA_MAX):
            raise CorruptError(f"a pack's header has an impossible size: header_bytes={length}, frames={count}")
        at = size - 24 - length
        key, commitment = self.keys.pack(head[32:64], session, number)
        if commitment != head[64:96]:
            raise CorruptError("a pack was sealed with another key")
        associated = self.keys.repository + b"\x22\x00" + session + struct.pack("<IQ", number, at)
        sealed = read_at(fd, at, length)
        payload = open_envelope(unseal(key, HEADER_NONCE, sealed, associated, "a pack's header"), PACK_HEADER_MAX)
        check_stored(length, len(payload), "a pack's header")
        header = PackHeader(payload, count, at, session, number, head[32:64])
        header.check()
        return header

    def _birth(self, frame: HeaderFrame) -> int:
        name = frame.session + struct.pack("<I", frame.number) + frame.salt
        row = self._births.get(name)
        if row is None:
            row = self._births[name] = len(self._birth_list)
            self._birth_list.append(name)
        return row

    def learn(self, name: str) -> PackHeader:
        """Read a pack's header and remember what lies in it; its first frame gets the row that `places` had as number of frames."""
        fd = self.folder.open(f"packs/{name}")
        try:
            header = self.read_header(name, fd)
        finally:
            os.close(fd)
        pack = len(self.packs)
        self.packs.append(name)
        for frame in header.frames():
            row = self.places.add_frame(
                pack, self._birth(frame), frame.ordinal, frame.offset, frame.stored, frame.payload, frame.kind
            )
            offset = 0
            for chunk, length in header.chunks(frame):
                self.places.add_chunk(chunk, row, offset, length)
                offset += length
        return header

    def learn_repairs(self) -> None:
        """Learn what repairs wrote down. A record that cannot be read hides nothing but that damage is known."""
        for name in self.folder.names("repairs"):
            if NAME_32.match(name):
                key = f"repairs/{name}"
                try:
                    self.repairs.add(self.sealed(13, key, TABLE_MAX))
                except CorruptError as error:
                    self.out.note(f"skipped the record of a repair: key={key}, cause={error}")

    def learn_all(self) -> None:
        """Learn every pack from its header; damaged packs are reported and left out."""
        self.learn_repairs()
        names = [name for name in self.folder.names("packs") if NAME_PACK.match(name)]
        for done, name in enumerate(names):
            self.out.progress("reading pack headers", done, len(names))
            try:
                self.learn(name)
            except CorruptError as error:
                known = self.repairs.know_pack(name)
                self.out.corrupt(f"a pack's header cannot be read: pack={name}, cause={error}", known=known)
            except OSError as error:
                self.out.corrupt(f"a pack cannot be opened: pack={name}, cause={reason(error)}")

    # chunks

    def _pack_fd(self, pack: int) -> int:
        fd = self._pack_fds.get(pack)
        if fd is None:
            try:
                fd = self.folder.open(f"packs/{self.packs[pack]}")
            except OSError as error:
                raise CorruptError(f"a pack cannot be opened: pack={self.packs[pack]}, cause={reason(error)}") from None
            self._pack_fds[pack] = fd
            if len(self._pack_fds) > OPEN_PACKS_MAX:
                os.close(self._pack_fds.popitem(last=False)[1])
        else:
            self._pack_fds.move_to_end(pack)
        return fd

    def _cipher(self, birth: int) -> AESGCM:
        cipher = self._ciphers.get(birth)
        if cipher is None:
            name = self._birth_list[birth]
            number = int.from_bytes(name[16:20], "little")
            cipher = self._ciphers[birth] = AESGCM(self.keys.pack(name[20:], name[:16], number)[0])
            if len(self._ciphers) > 256:
                self._ciphers.popitem(last=False)
        return cipher

    def frame(self, row: int) -> bytes:
        """The payload of a frame."""
        payload = self._opened.get(row)
        if payload is not None:
            self._opened.move_to_end(row)
            return payload
        if row in self.bad_frames:
            raise CorruptError("a frame is damaged")
        places = self.places
        try:
            sealed = read_at(self._pack_fd(places.frame_pack[row]), places.frame_offset[row], places.frame_stored[row])
            ordinal = struct.pack("<I", places.frame_ordinal[row])
            nonce = ordinal + bytes(8)
            associated = self.keys.repository + b"\x21\x00" + self._birth_list[places.frame_birth[row]][:20] + ordinal
            try:
                plain = self._cipher(places.frame_birth[row]).decrypt(nonce, sealed, associated)
            except InvalidTag:
                raise CorruptError("a frame is damaged or was altered") from None
            payload = open_envelope(plain, FRAME_MAX, places.frame_payload[row])
        except CorruptError as error:
            self.bad_frames.add(row)
            self.out.corrupt(
                f"a frame cannot be read: pack={self.packs[places.frame_pack[row]]}, "
                f"offset={places.frame_offset[row]}, length_bytes={places.frame_stored[row]}, cause={error}",
                known=self.is_known(row),
            )
            raise
        self._opened[row] = payload
        self._opened_bytes += len(payload)
        while self._opened_bytes > OPENED_FRAMES_MAX_BYTES and len(self._opened) > 1:
            self._opened_bytes -= len(self._opened.popitem(last=False)[1])
        return payload

    def is_known(self, row: int) -> bool:
        """Whether a repair wrote a frame's place down as damaged."""
        places = self.places
        birth = self._birth_list[places.frame_birth[row]][:20]
        return self.repairs.know_frame(self.packs[places.frame_pack[row]], birth, places.frame_ordinal[row])

    def _in_order(self, chunk: bytes, kind: int) -> Iterator[tuple[int, int, int]]:
        """Places of a chunk, those known to be damaged last; one after the other, because forged headers may name a million."""
        doubtful = False
        for place in self.places.find(chunk):
            if self.places.frame_kind[place[0]] == kind:
                if self.repairs and self.is_known(place[0]):
                    doubtful = True
                else:
                    yield place
        if doubtful:
            for place in self.places.find(chunk):
                if self.places.frame_kind[place[0]] == kind and self.is_known(place[0]):
                    yield place

    def chunk(self, chunk: bytes, kind: int) -> bytes:
        """The plaintext of a chunk, verified; the next place is tried when one is damaged, and one that is known to be damaged last."""
        found = False
        for row, offset, length in self._in_order(chunk, kind):
            found = True
            try:
                plain = self.frame(row)[offset : offset + length]
            except CorruptError:
                continue
            if self.keys.chunk_id(kind, plain) == chunk:
                return plain
            self.bad_chunk(row, offset, chunk)
        if found:
            raise CorruptError(f"a chunk is damaged wherever it lies: chunk={chunk.hex()}")
        raise CorruptError(f"a chunk lies in no pack that can be read: chunk={chunk.hex()}")

    def bad_chunk(self, row: int, offset: int, chunk: bytes) -> None:
        """Name a chunk that is not what its id says, once."""
        if (row, offset) not in self.bad_chunks:
            self.bad_chunks.add((row, offset))
            self.out.corrupt(
                f"a chunk is not what its id says: pack={self.packs[self.places.frame_pack[row]]}, chunk={chunk.hex()}",
                known=self.is_known(row),
            )


# --- walking --------------------------------------------------------------------------------------------------------------------


class Items:
    """The items of a content with all lists resolved, one after the other, without recursion.

    It holds ids and positions, and the bytes of the list being read only until `park`: a deep directory tree keeps one small cursor a level.
    """

    __slots__ = ("_content", "_directory", "_repository", "_stack", "_top")

    def __init__(self, repository: Repository, content: bytes, *, directory: bool) -> None:
        self._repository = repository
        self._content = content
        self._directory = directory
        self._stack: list[tuple[bytes, int]] = [(b"", 0)]
        self._top: bytes | None = content

    def park(self) -> None:
        """Let go of bytes that can be had again."""
        self._top = None

    def next(self) -> tuple[int, int, bytes] | None:
        """The next item that is no list; None at the end. After a CorruptError the next call goes on behind what is damaged."""
        while self._stack:
            chunk, pos = self._stack[-1]
            if self._top is None:
                if chunk:
                    # Off the stack while it may fail, or the next call would fail in the same place for ever.
                    self._stack.pop()
                    self._top = self._repository.chunk(chunk, LIST)
                    self._stack.append((chunk, pos))
                else:
                    self._top = self._content
            if pos >= len(self._top):
                self._stack.pop()
                self._top = None
                continue
            cursor = Cursor(self._top, pos)
            kind, span, chunk_id = read_item(cursor)
            self._stack[-1] = (chunk, cursor.pos)
            if kind != ITEM_LIST:
                return kind, span, chunk_id
            if len(self._stack) > LIST_DEPTH_MAX:
                raise CorruptError(f"lists nest deeper than the format allows: limit={LIST_DEPTH_MAX}")
            plain = self._repository.chunk(chunk_id, LIST)
            total = check_items(Cursor(plain), directory=self._directory, count=None, limit=span)
            if total != span:
                raise CorruptError(f"a list has not the span that it is said to have: found={total}, expected={span}")
            self._stack.append((chunk_id, 0))
            self._top = plain
        return None


def read_outer(cursor: Cursor) -> Entry:
    """One entry with its outer length."""
    length = cursor.uv()
    if length > ENTRY_MAX or length > cursor.end - cursor.pos:
        raise CorruptError(f"an entry is longer than what holds it or than the format allows: entry_bytes={length}")
    inner = Cursor(cursor.data, cursor.pos, cursor.pos + length)
    cursor.pos += length
    return read_entry(inner, root=False)


def check_piece(plain: bytes, span: int, last: bytes) -> tuple[bytes, bytes]:
    """Check a whole tree chunk before anything of it is used.

    Args:
        plain: its bytes.
        span: the number of entries that it must have.
        last: the name that all of its names must follow.

    Returns:
        Its first and its last name.
    """
    cursor = Cursor(plain)
    count = 0
    first = b""
    while cursor.more():
        entry = read_outer(cursor)
        if entry.name <= last:
            raise CorruptError(
                f"the names of a directory do not ascend: name={text_of(entry.name)}, previous={text_of(last)}"
            )
        last = entry.name
        if not count:
            first = last
        count += 1
    if count != span:
        raise CorruptError(
            f"a piece has not the number of entries that it is said to have: found={count}, expected={span}"
        )
    return first, last


class Entries:
    """The entries of a directory, one after the other; bounded as Items are."""

    __slots__ = ("_chunk", "_items", "_last", "_plain", "_pos", "_repository")

    def __init__(self, repository: Repository, content: bytes) -> None:
        self._repository = repository
        self._items = Items(repository, content, directory=True)
        self._chunk = b""
        self._plain: bytes | None = None
        self._pos = 0
        self._last = b""

    def park(self) -> None:
        """Let go of bytes that can be had again."""
        self._plain = None
        self._items.park()

    def next(self) -> Entry | None:
        """The next entry; None at the end. After a CorruptError the next call goes on behind what is damaged."""
        while True:
            if self._chunk:
                if self._plain is None:
                    chunk, self._chunk = self._chunk, b""
                    self._plain = self._repository.chunk(chunk, TREE)
                    self._chunk = chunk
                if self._pos < len(self._plain):
                    cursor = Cursor(self._plain, self._pos)
                    entry = read_outer(cursor)
                    self._pos = cursor.pos
                    return entry
                self._chunk, self._plain = b"", None
            item = self._items.next()
            if item is None:
                return None
            _, span, chunk = item
            plain = self._repository.chunk(chunk, TREE)
            _, self._last = check_piece(plain, span, self._last)
            self._chunk, self._plain, self._pos = chunk, plain, 0


@dataclass(slots=True)
class Node:
    """A directory's place, told by its parent: a path of any depth costs one name."""

    parent: Node | None
    name: bytes

    def names(self) -> list[bytes]:
        """Names from the root down."""
        names = []
        node: Node | None = self
        while node is not None and node.parent is not None:
            names.append(node.name)
            node = node.parent
        names.reverse()
        return names

    def path(self, name: bytes = b"") -> bytes:
        """The whole path of a name in this directory."""
        return b"/".join([*self.names(), name] if name else self.names()) or b"."


# --- output ---------------------------------------------------------------------------------------------------------------------


class Output:
    """What the run says: rows and the summary on stdout, everything else on stderr (with --json all on stdout, one object a line)."""

    def __init__(self, *, as_json: bool, stdout: TextIO, stderr: TextIO) -> None:
        self.as_json = as_json
        self._stdout = stdout
        self._stderr = stderr
        self._terminal = not as_json and stderr.isatty()
        self._line = False
        self._shown = 0.0
        self.corruptions = 0
        self.known = 0
        self.losses = 0

    def _emit(self, **fields: object) -> None:
        print(json.dumps(fields, ensure_ascii=True), file=self._stdout)

    def _say(self, text: str) -> None:
        if self._line:
            print("\r\x1b[K", end="", file=self._stderr)
            self._line = False
        print(text.encode("utf-8", "backslashreplace").decode(), file=self._stderr)

    def note(self, message: str) -> None:
        """Something worth knowing that changes no result."""
        if self.as_json:
            self._emit(type="item", status="note", message=message)
        else:
            self._say(f"note: {message}")

    def corrupt(self, message: str, *, known: bool = False) -> None:
        """Something in the repository is damaged; of what a repair wrote down only that is told.

        What is lost by known damage is told by itself, where it is missed.
        """
        if known:
            self.known += 1
            if self.known <= NAMED_MAX:
                self.note(f"a repair wrote this damage down: {message}")
            return
        self.corruptions += 1
        if self.corruptions <= NAMED_MAX:
            if self.as_json:
                self._emit(type="error", code=CORRUPT, message=message, next_step="")
            else:
                self._say(f"damaged: {message}")

    def lost(self, path: bytes, what: str, *, damaged: bool) -> None:
        """An item, or something of it, that was not restored."""
        if damaged:
            self.corruptions += 1
        else:
            self.losses += 1
        if self.corruptions + self.losses > NAMED_MAX:
            return
        if self.as_json:
            self._emit(type="item", status="damaged" if damaged else "not_restored", **path_fields(path), message=what)
        else:
            self._say(f"{'damaged' if damaged else 'not restored'}: {text_of(path)}: {what}")

    def progress(self, what: str, done: int, total: int = 0, amount: int = -1) -> None:
        """Show progress on a terminal, a few times a second."""
        now = time.monotonic()
        if not self._terminal or now - self._shown < 0.2:
            return
        self._shown = now
        of = f"/{total}" if total else ""
        size = f", {human(amount)}" if amount >= 0 else ""
        print(f"\r\x1b[K{what}: {done}{of}{size}", end="", file=self._stderr, flush=True)
        self._line = True

    def row(self, **fields: object) -> None:
        """One result."""
        if self.as_json:
            self._emit(type="row", **fields)

    def line(self, text: str) -> None:
        """A line for people."""
        if not self.as_json:
            if self._line:
                print("\r\x1b[K", end="", file=self._stderr)
                self._line = False
            print(text, file=self._stdout)

    def error(self, code: int, message: str, next_step: str) -> None:
        """The failure that ends the run."""
        if self.as_json:
            self._emit(type="error", code=code, message=message, next_step=next_step)
        else:
            self._say(f"rescue.py: {message}")
            if next_step:
                self._say(f"next: {next_step}")

    def summary(self, code: int, text: str, **fields: object) -> None:
        """The last word."""
        if self.as_json:
            self._emit(
                type="summary",
                **fields,
                items_not_restored=self.losses,
                damages=self.corruptions,
                damages_known=self.known,
                exit_code=code,
            )
        else:
            self.line(text)

    def code(self) -> int:
        """The exit code of what was reported so far."""
        return CORRUPT if self.corruptions else PARTIAL if self.losses else OK


def path_fields(path: bytes) -> dict[str, object]:
    """A path for JSON: as text when it is UTF-8, else in base64."""
    try:
        return {"path": path.decode("utf-8")}
    except UnicodeDecodeError:
        return {"path_base64": base64.b64encode(path).decode()}


def human(count: int) -> str:
    """A number of bytes for people."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} PiB"


def moment(nanoseconds: int | None) -> str:
    """A time for people and for JSON."""
    if nanoseconds is None:
        return "-"
    try:
        return datetime.fromtimestamp(nanoseconds // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return f"{nanoseconds} ns"


# --- restore --------------------------------------------------------------------------------------------------------------------

ACLS: Final = (b"system.posix_acl_access", b"system.posix_acl_default")
DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
TYPE_BITS: Final = {BLOCK: stat.S_IFBLK, CHARACTER: stat.S_IFCHR, FIFO: stat.S_IFIFO, SOCKET: stat.S_IFSOCK}
STOPPING: Final = (errno.ENOSPC, errno.EDQUOT)


@dataclass(slots=True)
class Level:
    """A directory being filled. `fd` is -1 while it is closed to keep few open; identity lets it be found again safely."""

    entry: Entry
    node: Node
    entries: Entries
    fd: int
    identity: tuple[int, int]
    damages: int = 0


class Restore:
    """Writes a tree below one directory descriptor; every call is relative to a descriptor, and no name is followed."""

    def __init__(self, repository: Repository, out: Output, root_fd: int) -> None:
        self._repository = repository
        self._out = out
        self._root_fd = root_fd
        # First name of each link group: where it lies, the inode that we made, and a digest of what it holds.
        self._links: dict[tuple[int, int], tuple[Node, bytes, tuple[int, int], bytes]] = {}
        self.files = self.directories = self.others = self.bytes = 0
        # Who is not root cannot give files away; that is said once, not for each.
        self.owners_kept = 0
        self._root = os.geteuid() == 0

    def tree(self, root: Entry) -> None:
        """Lay the contents of a directory into the root, then give the root its metadata."""
        info = os.fstat(self._root_fd)
        node = Node(None, b"")
        stack = [
            Level(
                root, node, Entries(self._repository, root.content), os.dup(self._root_fd), (info.st_dev, info.st_ino)
            )
        ]
        held = len(root.content)
        try:
            while stack:
                level = stack[-1]
                try:
                    entry = level.entries.next()
                except CorruptError as error:
                    self._out.lost(level.node.path(), f"entries of this directory are lost: {error}", damaged=True)
                    level.damages += 1
                    if level.damages < DAMAGES_MAX:
                        continue
                    entry = None
                if entry is None:
                    held -= len(level.entry.content)
                    self._leave(stack)
                elif entry.kind != DIRECTORY:
                    self.leaf(level.fd, level.node, entry)
                elif held + len(entry.content) > WALK_MAX_BYTES:
                    self._out.lost(
                        level.node.path(entry.name), "the directories above hold too many items at once", damaged=True
                    )
                else:
                    below = self._enter(level, entry)
                    if below is not None:
                        held += len(entry.content)
                        level.entries.park()
                        stack.append(below)
                        if len(stack) > OPEN_DIRECTORIES_MAX:
                            far = stack[-OPEN_DIRECTORIES_MAX - 1]
                            if far.fd >= 0:
                                os.close(far.fd)
                                far.fd = -1
        finally:
            for level in stack:
                if level.fd >= 0:
                    os.close(level.fd)

    def _enter(self, level: Level, entry: Entry) -> Level | None:
        try:
            try:
                os.mkdir(entry.name, 0o700, dir_fd=level.fd)
            except FileExistsError:
                info = os.stat(entry.name, dir_fd=level.fd, follow_symlinks=False)
                if not stat.S_ISDIR(info.st_mode):
                    os.unlink(entry.name, dir_fd=level.fd)
                    os.mkdir(entry.name, 0o700, dir_fd=level.fd)
            fd = self._open_directory(level.fd, entry.name)
        except (OSError, ValueError) as error:
            self._failed(level.node.path(entry.name), error)
            return None
        info = os.fstat(fd)
        self.directories += 1
        return Level(
            entry,
            Node(level.node, entry.name),
            Entries(self._repository, entry.content),
            fd,
            (info.st_dev, info.st_ino),
        )

    @staticmethod
    def _open_directory(parent: int, name: bytes) -> int:
        """Open a directory that must be searched and written, also one that lacks the permission."""
        try:
            fd = os.open(name, DIRECTORY_FLAGS, dir_fd=parent)
        except PermissionError:
            handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            try:
                os.chmod(f"/proc/self/fd/{handle}", 0o700)
            finally:
                os.close(handle)
            fd = os.open(name, DIRECTORY_FLAGS, dir_fd=parent)
        mode = os.fstat(fd).st_mode
        if mode & 0o700 != 0o700:
            with contextlib.suppress(OSError):
                os.fchmod(fd, stat.S_IMODE(mode) | 0o700)
        return fd

    def _leave(self, stack: list[Level]) -> None:
        level = stack.pop()
        try:
            if stack and stack[-1].fd < 0:
                above = stack[-1]
                fd = os.open("..", DIRECTORY_FLAGS, dir_fd=level.fd)
                info = os.fstat(fd)
                if (info.st_dev, info.st_ino) != above.identity:
                    os.close(fd)
                    raise RescueError(
                        FAILED, f"a directory was moved while it was restored: path={text_of(level.node.path())}"
                    )
                above.fd = fd
            self.metadata(level.fd, f"/proc/self/fd/{level.fd}", level.entry, level.node.path())
        finally:
            os.close(level.fd)

    def leaf(self, parent: int, node: Node, entry: Entry) -> None:
        """Restore anything but a directory under its name."""
        path = node.path(entry.name)
        self._out.progress("restored", self.files + self.directories + self.others, amount=self.bytes)
        if entry.flags & 8:
            self._out.lost(path, "it was incomplete already when it was backed up", damaged=False)
        group = (entry.device, entry.inode) if entry.device is not None else None
        digest = b""
        if group is not None:
            digest = hashlib.sha256(
                b"%d %d %d %d " % (entry.kind, entry.size, entry.major, entry.minor) + entry.target + entry.content
            ).digest()
            if group in self._links and self._link(parent, entry, self._links[group], digest, path):
                self._count(entry, 0)
                return
        temporary = b".longshore-rescue-" + secrets.token_hex(8).encode()
        made = False
        try:
            if entry.kind == FILE:
                fd = os.open(
                    temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent
                )
                made = True
                try:
                    self._content(fd, entry)
                    self.metadata(fd, f"/proc/self/fd/{fd}", entry, path)
                    info = os.fstat(fd)
                finally:
                    os.close(fd)
            else:
                if entry.kind == SYMLINK:
                    os.symlink(entry.target, temporary, dir_fd=parent)
                else:
                    number = os.makedev(entry.major, entry.minor) if entry.kind in (BLOCK, CHARACTER) else 0
                    os.mknod(temporary, TYPE_BITS[entry.kind] | 0o600, number, dir_fd=parent)
                made = True
                handle = os.open(temporary, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
                try:
                    info = os.fstat(handle)
                    self.metadata(-1, f"/proc/self/fd/{handle}", entry, path, parent=parent, name=temporary)
                finally:
                    os.close(handle)
            self._rename(parent, temporary, entry.name)
            made = False
        except CorruptError as error:
            self._out.lost(path, str(error), damaged=True)
        except (OSError, ValueError, OverflowError) as error:
            self._failed(path, error)
        else:
            if group is not None and group not in self._links:
                self._links[group] = (node, entry.name, (info.st_dev, info.st_ino), digest)
            self._count(entry, entry.size)
        finally:
            if made:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=parent)

    def _count(self, entry: Entry, size: int) -> None:
        if entry.kind == FILE:
            self.files += 1
            self.bytes += size
        else:
            self.others += 1

    @staticmethod
    def _rename(parent: int, temporary: bytes, name: bytes) -> None:
        try:
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        except IsADirectoryError:
            # An empty directory in the way is replaced; one that holds something is not ours to delete.
            os.rmdir(name, dir_fd=parent)
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)

    def _link(
        self, parent: int, entry: Entry, first: tuple[Node, bytes, tuple[int, int], bytes], digest: bytes, path: bytes
    ) -> bool:
        """Make a further name of a file that was restored; False when it must be restored by itself."""
        node, name, identity, known = first
        if digest != known:
            self._out.lost(
                path,
                "its link was not restored, because its names differ in content: restored by itself",
                damaged=False,
            )
            return False
        temporary = b".longshore-rescue-" + secrets.token_hex(8).encode()
        fd = os.dup(self._root_fd)
        try:
            for part in node.names():
                below = os.open(part, DIRECTORY_FLAGS, dir_fd=fd)
                os.close(fd)
                fd = below
            os.link(name, temporary, src_dir_fd=fd, dst_dir_fd=parent, follow_symlinks=False)
            try:
                info = os.stat(temporary, dir_fd=parent, follow_symlinks=False)
                if (info.st_dev, info.st_ino) != identity:
                    raise OSError(errno.ESTALE, "the first name was replaced")
                self._rename(parent, temporary, entry.name)
            finally:
                # Renaming one name of a file over another of the same file does nothing and leaves both.
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=parent)
        except OSError as error:
            if error.errno in STOPPING:
                raise RescueError(
                    NO_SPACE, f"no space left in the target: path={text_of(path)}", "free some space and restore again"
                ) from None
            self._out.lost(
                path, f"its link was not restored, the file is restored by itself: {reason(error)}", damaged=False
            )
            return False
        finally:
            os.close(fd)
        return True

    def _content(self, fd: int, entry: Entry) -> None:
        items = Items(self._repository, entry.content, directory=False)
        at = 0
        while (item := items.next()) is not None:
            kind, span, chunk = item
            if kind == ITEM_DATA:
                plain = self._repository.chunk(chunk, DATA)
                if len(plain) != span:
                    raise CorruptError(
                        f"a chunk has not the span that it is said to have: chunk_bytes={len(plain)}, span_bytes={span}"
                    )
                view = memoryview(plain)
                offset = at
                while view:
                    written = os.pwrite(fd, view, offset)
                    offset += written
                    view = view[written:]
                self._out.progress("restored", self.files + self.directories + self.others, amount=self.bytes + at)
            elif kind == ITEM_ZEROS:
                os.posix_fallocate(fd, at, span)
            at += span
        # A hole at the end; also the last guard, for the spans were summed up before.
        os.ftruncate(fd, entry.size)

    def metadata(self, fd: int, magic: str, entry: Entry, path: bytes, *, parent: int = -1, name: bytes = b"") -> None:
        """Owner, extended attributes, mode, time, in the order in which they do not undo one another.

        Args:
            fd: a descriptor that can be written through, or -1.
            magic: the path below /proc of a descriptor of the same inode, for calls that know no descriptor.
            entry: what to set.
            path: for messages.
            parent: with `name`, the directory in which a thing without `fd` lies.
            name: its name there.
        """
        mode = entry.mode
        try:
            info = os.fstat(fd) if fd >= 0 else os.stat(name, dir_fd=parent, follow_symlinks=False)
            if (info.st_uid, info.st_gid) != (entry.uid, entry.gid):
                if max(entry.uid, entry.gid) >= 0xFFFFFFFF:
                    raise OverflowError("the number is too large")
                if fd >= 0:
                    os.fchown(fd, entry.uid, entry.gid)
                else:
                    os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        except (OSError, ValueError, OverflowError) as error:
            if self._root or not isinstance(error, PermissionError):
                self._unset(path, f"owner {entry.uid}:{entry.gid}", error)
            else:
                self.owners_kept += 1
            if mode & 0o6000:
                mode &= 0o1777
                self._out.lost(
                    path,
                    "set-user-id and set-group-id were left off, because its owner could not be set",
                    damaged=False,
                )
        self._xattrs(magic, entry, path)
        if entry.kind != SYMLINK:
            try:
                if fd >= 0:
                    os.fchmod(fd, mode)
                else:
                    os.chmod(magic, mode)
            except OSError as error:
                self._unset(path, f"mode {mode:04o}", error)
        try:
            if fd >= 0:
                os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
                info = os.fstat(fd)
            else:
                os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)
                info = os.stat(name, dir_fd=parent, follow_symlinks=False)
            # Filesystems bend times beyond their range without a word; what is less than their granularity is not worth one.
            if abs(info.st_mtime_ns - entry.mtime_ns) >= 2_000_000_000:
                raise OverflowError("the filesystem cannot hold it")
        except (OSError, ValueError, OverflowError) as error:
            self._unset(path, f"modification time {entry.mtime_ns} ns", error)

    def _xattrs(self, magic: str, entry: Entry, path: bytes) -> None:
        wanted = {key for key, _ in entry.xattrs}
        # What a directory above handed down (default ACLs), or an older state of this directory left, is not part of the snapshot.
        try:
            present = [os.fsencode(key) for key in os.listxattr(magic)]
        except OSError:
            present = []
        for key in present:
            if key not in wanted and (key in ACLS or key.startswith(b"user.")):
                try:
                    os.removexattr(magic, key)
                except OSError as error:
                    self._unset(path, f"removal of extended attribute {text_of(key)}", error)
        for key, value in entry.xattrs:
            try:
                os.setxattr(magic, key, value)
            except (OSError, ValueError) as error:
                self._unset(path, f"extended attribute {text_of(key)}", error)

    def _unset(self, path: bytes, what: str, error: BaseException) -> None:
        if isinstance(error, OSError) and error.errno in STOPPING:
            raise RescueError(
                NO_SPACE, f"no space left in the target: path={text_of(path)}", "free some space and restore again"
            ) from None
        self._out.lost(path, f"{what} could not be set: {reason(error)}", damaged=False)

    def _failed(self, path: bytes, error: BaseException) -> None:
        if isinstance(error, OSError) and error.errno in STOPPING:
            raise RescueError(
                NO_SPACE, f"no space left in the target: path={text_of(path)}", "free some space and restore again"
            ) from None
        self._out.lost(path, reason(error), damaged=False)


# --- commands -------------------------------------------------------------------------------------------------------------------


def command_list(repository: Repository, out: Output) -> int:
    """Print the snapshots that count, oldest first."""
    found = sorted(repository.snapshots(), key=lambda s: (s.started_ns or 0, s.name))
    rows = [("ID", "TIME", "SOURCE", "HOST", "FILES", "BYTES")]
    for snapshot in found:
        counts = snapshot.counts
        out.row(
            snapshot_id=snapshot.identifier,
            time=moment(snapshot.started_ns),
            source=snapshot.source,
            host=snapshot.host,
            **{f"path{k.removeprefix('path')}": v for k, v in path_fields(snapshot.path).items()},
            files=counts.get("files"),
            bytes=counts.get("bytes"),
        )
        size = human(counts["bytes"]) if "bytes" in counts else "-"
        rows.append(
            (
                snapshot.identifier,
                moment(snapshot.started_ns),
                snapshot.source or "-",
                snapshot.host or "-",
                str(counts.get("files", "-")),
                size,
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(6)]
    for row in rows:
        cells = [
            cell.rjust(w) if i >= 4 else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        out.line("  ".join(cells).rstrip())
    code = out.code()
    out.summary(code, f"{len(found)} snapshots", snapshots=len(found))
    return code


def choose(repository: Repository, wanted: str, source: str | None) -> Snapshot:
    """The snapshot that an argument names."""
    if wanted == "latest":
        found = [s for s in repository.snapshots() if source is None or s.source == source]
        sources = sorted({s.source for s in found})
        if not found:
            raise RescueError(
                NO_SNAPSHOT,
                "there is no snapshot" + (f" of this source: source={source}" if source else ""),
                "see what `list` shows",
            )
        if len(sources) > 1:
            raise RescueError(
                USAGE, f"the repository holds several sources: sources={', '.join(sources)}", "name one with --source"
            )
        return max(found, key=lambda s: (s.started_ns if s.started_ns is not None else -(1 << 63), s.name))
    prefix = wanted.removeprefix(ID_PREFIX)
    names = [name for name in repository.snapshot_names() if prefix and name.startswith(prefix)]
    if not names:
        raise RescueError(NO_SNAPSHOT, f"there is no such snapshot: snapshot={wanted}", "see what `list` shows")
    counting: list[Snapshot] = []
    damaged: CorruptError | None = None
    for name in names:
        if repository.is_removed(name):
            continue
        try:
            snapshot = repository.snapshot(name)
        except CorruptError as error:
            damaged = error
            repository.out.corrupt(f"a snapshot cannot be read: snapshot={ID_PREFIX}{name}, cause={error}")
            continue
        if snapshot.committed:
            counting.append(snapshot)
    if len(counting) > 1:
        raise RescueError(
            USAGE,
            f"several snapshots begin so: snapshots={', '.join(s.identifier for s in counting)}",
            "give more digits",
        )
    if counting:
        return counting[0]
    if damaged is not None:
        code = NEWER if isinstance(damaged, NewerError) else CORRUPT
        raise RescueError(
            code, f"the snapshot cannot be read: snapshot={wanted}, cause={damaged}", "restore another snapshot"
        )
    raise RescueError(
        NO_SNAPSHOT, f"the snapshot was removed, or never completed: snapshot={wanted}", "see what `list` shows"
    )


def find_path(repository: Repository, root: Entry, path: bytes) -> Entry:
    """The entry under a path of a snapshot."""
    entry = root
    for part in path.split(b"/"):
        if part in (b"", b"."):
            continue
        if entry.kind != DIRECTORY:
            raise RescueError(
                NO_SNAPSHOT,
                f"there is no such path in the snapshot: path={text_of(path)}",
                "restore the directory above and look",
            )
        entries = Entries(repository, entry.content)
        damage, damages = None, 0
        while True:
            try:
                found = entries.next()
            except CorruptError as error:
                damage = error
                damages += 1
                if damages < DAMAGES_MAX:
                    continue
                found = None
            if found is None or found.name >= part:
                break
        if found is None or found.name != part:
            if damage is not None:
                raise RescueError(
                    CORRUPT,
                    f"the path may lie in a part of the tree that is damaged: path={text_of(path)}, cause={damage}",
                )
            raise RescueError(
                NO_SNAPSHOT,
                f"there is no such path in the snapshot: path={text_of(path)}",
                "restore the directory above and look",
            )
        entry = found
    return entry


def command_restore(repository: Repository, out: Output, wanted: str, target: str, source: str | None) -> int:
    """Restore a snapshot, or one path of it, into a directory. A path that is no directory is laid into TARGET under its own name."""
    began = time.monotonic()
    name, _, path = wanted.partition(":")
    snapshot = choose(repository, name, source)
    assert snapshot.root is not None
    repository.learn_all()
    entry = find_path(repository, snapshot.root, os.fsencode(path))
    try:
        os.makedirs(target, mode=0o700, exist_ok=True)
        root_fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        code = NO_SPACE if isinstance(error, OSError) and error.errno in STOPPING else FAILED
        raise RescueError(
            code,
            f"the target cannot be used: target={target}, error={reason(error)}",
            "name a directory that can be written",
        ) from None
    restore = Restore(repository, out, root_fd)
    try:
        if entry.kind == DIRECTORY:
            restore.tree(entry)
        else:
            restore.leaf(root_fd, Node(None, b""), entry)
    finally:
        os.close(root_fd)
    code = out.code()
    seconds = time.monotonic() - began
    verdict = {OK: "complete", PARTIAL: "NOT complete, see above", CORRUPT: "DAMAGED, see above"}[code]
    if restore.owners_kept:
        verdict += f"; {restore.owners_kept} belong to who restored, because only root can give their owner back"
    out.summary(
        code,
        f"restored {snapshot.identifier}: {restore.files} files, {restore.directories} directories, {restore.others} others, "
        f"{human(restore.bytes)} in {seconds:.1f} s: {verdict}",
        snapshot_id=snapshot.identifier,
        files=restore.files,
        directories=restore.directories,
        others=restore.others,
        bytes=restore.bytes,
        owners_not_set=restore.owners_kept,
        seconds=round(seconds, 3),
    )
    return code


class Check:
    """Opens everything: all packs and chunk ids, all sealed objects, all trees, and that all chunks are there."""

    def __init__(self, repository: Repository, out: Output) -> None:
        self._repository = repository
        self._out = out
        # What was found good once is not looked at again: shared trees cost nothing, however often they are named.
        self._lists: dict[tuple[bytes, bool], tuple[int, int]] = {}
        self._pieces: dict[bytes, tuple[bytes, bytes, int]] = {}
        # Usage tables that are there, and damaged, and that a repair knows.
        self._bad_tables: set[bytes] = set()
        self.packs = self.snapshots = self.trees = 0

    def run(self) -> None:
        """Check everything."""
        self._objects()
        self._packs()
        for snapshot in self._repository.snapshots():
            self.snapshots += 1
            self._tree(snapshot)

    def _objects(self) -> None:
        repository = self._repository
        for name in repository.folder.names("config"):
            if NAME_8.match(name):
                self._try(f"config/{name}", self._config)
        for name in repository.folder.names("keys"):
            if NAME_32.match(name):
                self._try(f"keys/{name}", self._slot)
        for first, pattern, kind, limit, reader in (
            # What they say is known decides how the rest is told.
            ("repairs", NAME_32, 13, TABLE_MAX, self._repair),
            ("sessions", NAME_32, 3, OBJECT_MAX, self._session),
            ("index", NAME_32, 5, TABLE_MAX, self._index),
            ("usage", NAME_64, 6, TABLE_MAX, self._usage),
            ("removed", NAME_32, 8, OBJECT_MAX, self._removed),
            ("tombstones", NAME_32, 9, OBJECT_MAX, self._doomed),
            ("open", NAME_32, 10, OBJECT_MAX, self._open),
            ("decisions", NAME_32, 11, OBJECT_MAX, self._doomed),
            ("watches", NAME_32, 12, OBJECT_MAX, self._watch),
        ):
            for name in repository.folder.names(first):
                if pattern.match(name):
                    key = f"{first}/{name}"
                    known = first == "usage" and repository.repairs.know_table(bytes.fromhex(name))
                    is_good = self._try(key, functools.partial(self._sealed, kind, limit, reader), known=known)
                    if known and not is_good:
                        self._bad_tables.add(bytes.fromhex(name))

    def _config(self, key: str) -> None:
        repository = self._repository
        repository.check_config(repository.keys, key, repository.folder.read(key, OBJECT_MAX + STORED_EXTRA_MAX))

    def _slot(self, key: str) -> None:
        check_slot(self._repository.keys, key, self._repository.folder.read(key, KIB))

    def _sealed(self, kind: int, limit: int, reader: Callable[[str, bytes], None], key: str) -> None:
        reader(key, self._repository.sealed(kind, key, limit))

    def _try(self, key: str, work: Callable[[str], None], *, known: bool = False) -> bool:
        try:
            work(key)
        except CorruptError as error:
            self._out.corrupt(f"an object cannot be read: key={key}, cause={error}", known=known)
        except OSError as error:
            self._out.corrupt(f"an object cannot be opened: key={key}, cause={reason(error)}")
        else:
            return True
        return False

    def _repair(self, _key: str, payload: bytes) -> None:
        self._repository.repairs.add(payload)

    @staticmethod
    def _session(_key: str, payload: bytes) -> None:
        fields = read_record(payload, frozenset({1, 2, 3, 4, 5, 7, 9}), frozenset({5, 9}))
        if whole_uv(one(fields, 1, "a session")) not in (1, 2):
            raise CorruptError("a session is of unknown kind")
        for tag, work in ((2, whole_sv), (3, whole_uv)):
            if tag in fields:
                work(fields[tag][0])
        for tag, length in ((5, 16), (7, 16), (9, 32)):
            for value in fields.get(tag, ()):
                exact(value, length, "a name in a session")

    @staticmethod
    def _removed(_key: str, payload: bytes) -> None:
        fields = read_record(payload, frozenset({2, 4}), frozenset())
        if 2 in fields:
            whole_sv(fields[2][0])

    @staticmethod
    def _doomed(_key: str, payload: bytes) -> None:
        fields = read_record(payload, frozenset({1, 3}), frozenset({1, 3}))
        for tag, length in ((1, 20), (3, 32)):
            for value in fields.get(tag, ()):
                exact(value, length, "a name of what a prune may delete")

    @staticmethod
    def _open(_key: str, payload: bytes) -> None:
        for value in read_record(payload, frozenset({1}), frozenset({1})).get(1, ()):
            exact(value, 16, "a session that a prune waits for")

    @staticmethod
    def _watch(_key: str, payload: bytes) -> None:
        for value in read_record(payload, frozenset({1}), frozenset({1})).get(1, ()):
            cursor = Cursor(value)
            cursor.take(16)
            for _ in range(5):
                cursor.uv()
            cursor.finish()

    @staticmethod
    def _index(_key: str, payload: bytes) -> None:
        cursor = Cursor(payload)
        packs, frames, chunks, replaced = cursor.u32(), cursor.u32(), cursor.u32(), cursor.u32()
        expected = 16 + 16 * replaced + 64 * packs + 32 * frames + 44 * chunks
        if expected != len(payload):
            raise CorruptError(
                f"an index segment has a wrong length: found_bytes={len(payload)}, expected_bytes={expected}"
            )

    def _usage(self, key: str, payload: bytes) -> None:
        name = blake3(payload, key=self._repository.keys.derive("usage name")).hexdigest()
        if not key.startswith(f"usage/{name[:32]}"):
            raise CorruptError("a usage table's name is not made from its content")
        for _ in usage_rows(Cursor(payload)):
            pass

    def _packs(self) -> None:
        repository = self._repository
        names = [name for name in repository.folder.names("packs") if NAME_PACK.match(name)]
        for done, name in enumerate(names):
            self._out.progress("checking packs", done, len(names))
            self.packs += 1
            self._try(f"packs/{name}", self._pack, known=repository.repairs.know_pack(name))

    def _pack(self, key: str) -> None:
        name = key.removeprefix("packs/")
        repository = self._repository
        fd = repository.folder.open(key)
        try:
            size = os.fstat(fd).st_size
            if size < 24 or size > PACK_MAX:
                raise CorruptError(f"a pack has an impossible size: size_bytes={size}")
            digest = xxhash.xxh3_64()
            at, end = 0, size - 24
            while at < end:
                part = read_at(fd, at, min(MIB, end - at))
                digest.update(part)
                at += len(part)
            if digest.intdigest() != int.from_bytes(read_at(fd, size - 16, 8), "little"):
                self._out.corrupt(f"a pack's checksum differs: pack={name}", known=repository.repairs.know_pack(name))
        finally:
            os.close(fd)
        first = len(repository.places.frame_pack)
        header = repository.learn(name)
        for row, frame in enumerate(header.frames(), first):
            try:
                payload = repository.frame(row)
            except CorruptError:
                continue
            offset = 0
            for chunk, length in header.chunks(frame):
                if repository.keys.chunk_id(frame.kind, payload[offset : offset + length]) != chunk:
                    repository.bad_chunk(row, offset, chunk)
                offset += length

    def _present(self, chunk: bytes, kind: int, span: int) -> None:
        repository = self._repository
        for row, offset, length in repository.places.find(chunk):
            usable = row not in repository.bad_frames and (row, offset) not in repository.bad_chunks
            if usable and repository.places.frame_kind[row] == kind:
                if length != span:
                    raise CorruptError(f"a chunk has not the span that it is said to have: chunk={chunk.hex()}")
                return
        raise CorruptError(f"a chunk is missing or damaged: chunk={chunk.hex()}")

    def _list(self, chunk: bytes, span: int, depth: int, *, directory: bool) -> bytes:
        """The plaintext of a list when it must be looked through, else nothing."""
        if depth > LIST_DEPTH_MAX:
            raise CorruptError(f"lists nest deeper than the format allows: limit={LIST_DEPTH_MAX}")
        # A list that was good at a greater depth is good at a smaller one.
        known = self._lists.get((chunk, directory))
        if known is not None and known[0] == span and known[1] >= depth:
            return b""
        plain = self._repository.chunk(chunk, LIST)
        if check_items(Cursor(plain), directory=directory, count=None, limit=span) != span:
            raise CorruptError(f"a list has not the span that it is said to have: chunk={chunk.hex()}")
        self._lists[chunk, directory] = (span, depth)
        return plain

    def _file(self, entry: Entry) -> None:
        stack: list[tuple[Cursor, int]] = [(Cursor(entry.content), 0)]
        while stack:
            cursor, depth = stack[-1]
            if not cursor.more():
                stack.pop()
                continue
            kind, span, chunk = read_item(cursor)
            if kind == ITEM_DATA:
                self._present(chunk, DATA, span)
            elif kind == ITEM_LIST:
                stack.append((Cursor(self._list(chunk, span, depth + 1, directory=False)), depth + 1))

    def _tree(self, snapshot: Snapshot) -> None:
        """Look through each tree chunk once.

        The order of names over a whole directory is checked where its pieces meet, from the first and last name of each.
        """
        assert snapshot.root is not None
        for usage in snapshot.usage:
            if usage in self._bad_tables or not self._repository.folder.exists(f"usage/{usage.hex()}"):
                spoken_for = self._repository.repairs.speak_for(usage, bytes.fromhex(snapshot.name))
                message = f"a usage table is missing: snapshot={snapshot.identifier}, usage={usage.hex()}"
                self._out.corrupt(message, known=spoken_for)
        # Directories to do, as the chunk of their entry and their place in it; the root stands by itself.
        todo: list[tuple[bytes, Node]] = [(snapshot.root.content, Node(None, b""))]
        while todo:
            content, node = todo.pop()
            self._out.progress("checking trees", self.trees)
            items = Items(self._repository, content, directory=True)
            last = b""
            damages = 0
            while damages < DAMAGES_MAX:
                try:
                    item = items.next()
                    if item is None:
                        break
                    _, span, chunk = item
                    known = self._pieces.get(chunk)
                    if known is None:
                        plain = self._repository.chunk(chunk, TREE)
                        first, final = check_piece(plain, span, b"")
                        self._pieces[chunk] = (first, final, span)
                        self.trees += 1
                        self._piece(plain, node, todo)
                    else:
                        first, final, count = known
                        if count != span:
                            raise CorruptError("a piece has not the number of entries that it is said to have")
                    if first <= last:
                        raise CorruptError(f"the names of a directory do not ascend: name={text_of(first)}")
                    last = final
                except CorruptError as error:
                    self._out.lost(node.path(), str(error), damaged=True)
                    damages += 1

    def _piece(self, plain: bytes, node: Node, todo: list[tuple[bytes, Node]]) -> None:
        cursor = Cursor(plain)
        while cursor.more():
            entry = read_outer(cursor)
            if entry.kind == DIRECTORY:
                if entry.content:
                    todo.append((entry.content, Node(node, entry.name)))
            elif entry.kind == FILE:
                try:
                    self._file(entry)
                except CorruptError as error:
                    self._out.lost(node.path(entry.name), str(error), damaged=True)


def command_check(repository: Repository, out: Output) -> int:
    """Open everything."""
    began = time.monotonic()
    check = Check(repository, out)
    check.run()
    code = out.code()
    seconds = time.monotonic() - began
    known = f"; {out.known} damages are known to a repair" if out.known else ""
    text = f"checked {check.packs} packs, {len(repository.places)} chunks, {check.trees} tree chunks, {check.snapshots} snapshots in {seconds:.1f} s: "
    out.summary(
        code,
        text + ("no damage found" if code == OK else f"{out.corruptions} damages found") + known,
        packs=check.packs,
        chunks=len(repository.places),
        snapshots=check.snapshots,
        seconds=round(seconds, 3),
    )
    return code


# --- command line ---------------------------------------------------------------------------------------------------------------


def arguments(argv: list[str]) -> argparse.Namespace:
    """Read the command line; argparse itself exits with 2."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="one JSON object a line, on stdout"
    )
    parser = argparse.ArgumentParser(
        prog="rescue.py", description="read a Longshore repository in a local folder", parents=[common]
    )
    parser.add_argument("--repository", required=True, metavar="DIR", help="folder, or file:/// URL")
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--key-file", metavar="F")
    group.add_argument("--passphrase-file", metavar="F")
    commands = parser.add_subparsers(dest="command", required=True, metavar="list | restore | check")
    commands.add_parser("list", help="show the snapshots", parents=[common])
    restore = commands.add_parser("restore", help="restore a snapshot into a directory", parents=[common])
    restore.add_argument("--source", metavar="NAME", help="with `latest`: the source whose latest snapshot is meant")
    restore.add_argument("snapshot", metavar="SNAPSHOT[:PATH]", help="id, unique prefix, or `latest`")
    restore.add_argument("target", metavar="TARGET", help="directory; made when absent")
    commands.add_parser("check", help="open and verify everything", parents=[common])
    return parser.parse_args(argv)


def folder_path(value: str) -> str:
    """A folder from a path or a file:/// URL."""
    if not re.match(r"[a-z0-9+.-]+://", value):
        return value
    parts = urllib.parse.urlsplit(value)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
        raise RescueError(
            USAGE, f"only folders can be read: repository={value}", "copy the bucket into a folder and name that"
        )
    return os.fsdecode(urllib.parse.unquote_to_bytes(parts.path))


def run(options: argparse.Namespace, out: Output) -> int:
    """Run a command; failures come as RescueError."""
    with contextlib.closing(Folder(folder_path(options.repository))) as folder:
        secret = read_secret(options.key_file, options.passphrase_file)
        with contextlib.closing(Repository(folder, secret, out)) as repository:
            if options.command == "list":
                return command_list(repository, out)
            if options.command == "check":
                return command_check(repository, out)
            return command_restore(repository, out, options.snapshot, options.target, options.source)


def main(argv: list[str] | None = None) -> int:
    """Run, and tell every failure in one line and an exit code."""
    options = arguments(sys.argv[1:] if argv is None else argv)
    out = Output(as_json=getattr(options, "json", False), stdout=sys.stdout, stderr=sys.stderr)
    try:
        return run(options, out)
    except RescueError as error:
        out.error(error.code, str(error), error.next_step)
        return error.code
    except CorruptError as error:
        out.error(CORRUPT, str(error), "")
        return CORRUPT
    except KeyboardInterrupt:
        out.error(INTERRUPTED, "interrupted", "run the same command again")
        return INTERRUPTED
    except BrokenPipeError:
        # Who read our output has gone; nothing more can be said there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        code = NO_SPACE if error.errno in STOPPING else FAILED
        out.error(code, f"the system refused: error={reason(error)}", "")
        return code
    except MemoryError:
        out.error(FAILED, "not enough memory", "use a machine with more memory")
        return FAILED
    except Exception as error:  # noqa: BLE001 - the last net: an operator in need must never face a traceback
        out.error(
            FAILED,
            f"an error in this program: {type(error).__name__}: {error}",
            "report it with the version of rescue.py",
        )
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
