"""A small repository and rescue.py run on it within the test's own process; a traceback that its last net caught fails the test.

Knows the format only through tiny_writer. What needs a process of its own (signals, limits, other users) stands in the tests that need it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.unit.rescue.tiny_writer import DATA, TREE, Writer, directory, file, item, lp

from longshore import rescue as program

SECRET = bytes(range(32))


@dataclass(frozen=True)
class Ran:
    """What a run came to."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.out.splitlines()]


class Rig:
    """A repository with a configuration and a key slot, and a place beside it."""

    def __init__(self, tmp: Path) -> None:
        self.tmp = tmp
        self.repo, self.out = tmp / "repo", tmp / "in" / "out"
        self.key = tmp / "key"
        self.key.write_text(f"longshore-key-1:{SECRET.hex()}\n")
        self.w = Writer(self.repo)
        self.w.config()
        self.w.secret_slot(SECRET)

    def run(self, *words: object, passphrase: Path | None = None) -> Ran:
        secret = ["--key-file", self.key] if passphrase is None else ["--passphrase-file", passphrase]
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = program.main([str(w) for w in ("--repository", self.repo, *secret, *words)])
            except SystemExit as stop:
                code = int(str(stop.code))
        ran = Ran(code, out.getvalue(), err.getvalue())
        assert "error in this program" not in ran.out + ran.err, ran
        assert not (left := self._opened()), f"descriptors are left open: {left}"
        return ran

    def _opened(self) -> list[str]:
        """What is open of what a run can open. Of the rest of the process, threads that other tests left end when they like."""
        found = []
        for number in os.listdir("/proc/self/fd"):
            # That of the listing itself is gone by now.
            with contextlib.suppress(FileNotFoundError):
                found.append(os.readlink(f"/proc/self/fd/{number}"))
        return [path for path in found if Path(path).is_relative_to(self.tmp.resolve())]

    def restore(self, wanted: str = "latest", *words: object) -> Ran:
        return self.run("restore", wanted, self.out, *words)

    def check(self) -> Ran:
        return self.run("check")

    def tree(self, entries: Iterable[bytes], *, root: dict[str, object] | None = None, **more: object) -> str:
        """A snapshot of these entries in one piece, sorted as they come."""
        rows = list(entries)
        items = []
        if rows:
            pack = self.w.new_pack()
            (chunk,) = self.w.frame(pack, TREE, [b"".join(map(lp, rows))])
            self.w.seal_pack(pack)
            items = [item(4, len(rows), chunk)]
        return self.w.snapshot(directory(b"", items, **(root or {})), **more)

    def data(self, *plains: bytes) -> list[bytes]:
        """Chunks of data in a pack of their own; gives their ids."""
        pack = self.w.new_pack()
        ids = self.w.frame(pack, DATA, list(plains))
        self.w.seal_pack(pack)
        return ids

    def file(self, name: bytes, plain: bytes, **more: object) -> bytes:
        """A file's entry, its one chunk stored."""
        return file(name, len(plain), [item(0, len(plain), self.data(plain)[0])] if plain else [], **more)

    def names(self) -> set[bytes]:
        """What lies in the target."""
        return set(os.listdir(os.fsencode(self.out)))
