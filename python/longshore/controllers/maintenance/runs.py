"""What the controller asks of a place where runs take place, and what it is told of a run.

Promises of whoever implements it: `begin` with a number that was begun already begins nothing; a run that ended stays to be told until it is removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from longshore.api.model import JsonObject
from longshore.controllers.maintenance.ledger import Operation, Outcome
from longshore.controllers.maintenance.settings import JobSettings

__all__ = ["Run", "RunState", "Runner"]


class RunState(StrEnum):
    """How far a run is."""

    WAITING = "waiting"
    WORKING = "working"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of one repository."""

    name: str
    number: int
    operation: Operation
    state: RunState
    reason: str = ""
    """Why it does not start, as far as it can be seen."""
    outcome: Outcome | None = None
    """Of a run that ended."""
    deadline_seconds: int | None = None
    """After which whoever runs it ends it; None for never."""
    share: tuple[int, int] | None = None
    """(part, parts) of the packs that it reads; None for all."""


class Runner(Protocol):
    """Where runs take place."""

    def runs(self, obj: JsonObject, *, recorded: int) -> Sequence[Run]:
        """Give all runs of a repository that are there, in the order of their numbers, whichever of its objects they were begun for.

        Args:
            obj: the repository's object.
            recorded: of runs up to this number nobody asks what came of them.
        """
        ...

    def begin(self, obj: JsonObject, *, operation: Operation, number: int, settings: JobSettings) -> str:
        """Begin a run, unless one of that number is there; give its name.

        Raises:
            LongshoreError: it cannot be begun.
        """
        ...

    def remove(self, obj: JsonObject, run: Run) -> None:
        """Take a run away; one that still works is ended."""
        ...
