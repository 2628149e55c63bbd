"""Whose turn it is where each verification reads another part of the packs.

A round is all parts, one a run. A part in which damage was found is read again in every second run, until it is whole; the round goes on meanwhile, so that
damage which nobody can put right hides no other. A run that came to no report, because the store was away or its pod was killed, says
nothing of its part: that is tried again, and after three such runs in a row the round goes on without it.

Promises: whatever fails, each part has its turn within ten runs for each part of the round; what is remembered stays short.

It does not know when a run is due, nor what it reads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

__all__ = ["Round"]

_AGAIN_MAX: Final = 4
"""What is damaged beyond that is found again when its turn comes; more would keep the alarm up for as many runs after all was put right."""
_SILENT_MAX: Final = 3
_PARTS_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class Round:
    """How far a round is."""

    turn: int = 0
    """How many turns there were; its remainder by the number of parts is the next part."""
    parts: int = 1
    """Of how many parts `again` speaks."""
    again: tuple[int, ...] = ()
    """Parts in which damage was found, the next to be read again first."""
    is_extra: bool = False
    """The next run is for the first of `again`."""
    silent: int = 0
    """Runs in a row that came to no report."""

    def next_part(self, parts: int) -> int:
        """Give the part for the next run, out of so many."""
        extra = self._extra(parts)
        return self.turn % parts if extra is None else extra

    def _extra(self, parts: int) -> int | None:
        return self.again[0] if self.again and self.is_extra and self.parts == parts else None

    def after(self, share: tuple[int, int] | None, *, succeeded: bool, reported: bool) -> Round:
        """Give the round after a run.

        Args:
            share: (part, parts) that it read; None for all.
            succeeded: whether that was whole.
            reported: whether what it says is of the repository; if not, the run itself failed.
        """
        part, parts = share or (0, 1)
        was_extra = share is not None and self._extra(parts) == part
        again = self.again if self.parts == parts and parts > 1 else ()
        silent = 0 if reported else self.silent + 1
        if silent and silent < _SILENT_MAX:
            return replace(self, silent=silent)
        if reported:
            again = tuple(one for one in again if one != part)
            if share is not None and not succeeded and len(again) < _AGAIN_MAX:
                again = (*again, part)
        elif was_extra:
            again = (*again[1:], again[0])
        # Without parts a turn is a success, and what is read again after a failure is everything anyway.
        turn = self.turn if was_extra or (share is None and not succeeded) else self.turn + 1
        return Round(turn, parts, again, is_extra=not was_extra or succeeded, silent=0)

    def body(self) -> dict[str, Any]:
        """Write it for the ledger."""
        return {
            "turn": self.turn,
            "parts": self.parts,
            "again": list(self.again),
            "extra": self.is_extra,
            "silent": self.silent,
        }

    @classmethod
    def of(cls, body: object, *, turn: int) -> Round:
        """Read what :meth:`body` wrote; nonsense is a round at its beginning.

        Args:
            turn: where none is written, as by versions that counted successes alone.
        """
        if not isinstance(body, dict):
            return cls(turn=turn)
        parts = min(_count(body.get("parts")), _PARTS_MAX) or 1
        found = body.get("again")
        again = [one for one in found if isinstance(one, int) and 0 <= one < parts] if isinstance(found, list) else []
        return cls(
            _count(body.get("turn")),
            parts,
            tuple(dict.fromkeys(again))[:_AGAIN_MAX],
            is_extra=body.get("extra") is True,
            silent=min(_count(body.get("silent")), _SILENT_MAX - 1),
        )


def _count(number: object) -> int:
    return max(number, 0) if isinstance(number, int) else 0
