"""Says once that this machine's wall clock and the API server's are apart.

Nothing in Longshore is decided by a wall clock, but dates that it writes are read by people and alerts, and stores and certificates are judged by it: what then
goes wrong elsewhere has its cause named here.

Promises: one record when the clocks part, and one more only after they had met again; an answer without a date changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

from longshore.kube.clock import Clock
from longshore.logs import get_logger

__all__ = ["ClockComparison"]

_log = get_logger(__name__)

_APART_SECONDS: Final = 300.0
"""Stores refuse requests that are 15 minutes off; minutes are not chance any more."""


class ClockComparison:
    """Holds the wall clock against the dates of answers."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._apart = False

    def see(self, headers: Mapping[str, str]) -> None:
        """Look at the date of an answer that has just come."""
        try:
            theirs = parsedate_to_datetime(headers.get("Date") or "")
        except ValueError:
            return
        ahead = (self._clock.now() - theirs.astimezone(UTC)).total_seconds()
        apart, self._apart = self._apart, abs(ahead) > _APART_SECONDS
        if self._apart and not apart:
            _log.warning(
                "Clocks of this machine and of the API server are apart, set this machine's",
                ahead_seconds=round(ahead),
            )
