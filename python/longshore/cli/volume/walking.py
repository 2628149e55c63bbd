"""The entries of a snapshot, page after page, for commands that look at all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from longshore.cli.output.human import path_text
from longshore.cli.output.sink import Output, path_fields
from longshore.errors import CorruptError

if TYPE_CHECKING:
    from longshore.datapath import Entry, Repository

__all__ = ["Walk"]

PAGE_ENTRIES: Final = 1000


class Walk:
    """The entries of a directory in order, with everything below when asked; a file gives itself.

    What cannot be read is named as it is met, and makes the exit code 4; the walk goes on behind it.
    """

    def __init__(
        self, repository: Repository, snapshot_id: str, path: bytes, *, recursive: bool, output: Output
    ) -> None:
        """Prepare; nothing is read yet."""
        self._repository, self._output = repository, output
        self._asked = (snapshot_id, path)
        self._recursive = recursive
        self.damaged = 0

    @property
    def exit_code(self) -> int:
        """0, or 4 when something could not be read."""
        return CorruptError.exit_code if self.damaged else 0

    def __iter__(self) -> Iterator[Entry]:
        after: bytes | None = None
        while True:
            page = self._repository.entries(*self._asked, recursive=self._recursive, after=after, limit=PAGE_ENTRIES)
            yield from page.rows
            for path, message in page.damaged:
                self.damaged += 1
                self._output.item({"event": "damaged", **path_fields(path), "message": message})
                self._output.say(f"damaged: {path_text(path) or '.'}: {message}")
            if page.after is None:
                return
            after = page.after
