"""What jobs may take of network, stores and processors, so that they are good neighbours.

Promises: repositories that are opened with one :class:`Limits` share it, all their jobs together stay within it, and a change holds for those that run.

It does not know who asks for which limits.
"""

from __future__ import annotations

from typing import Final

from longshore import _native

__all__ = ["IONICE", "NICE_MAX", "Limits", "native_limits"]

NICE_MAX: Final = 19
IONICE: Final = ("none", "best-effort", "idle")


class Limits:
    """Limits of all jobs together."""

    __slots__ = ("_native",)

    def __init__(self, *, nice: int | None = None, ionice: str = "none") -> None:
        """Without any limit yet.

        Args:
            nice: niceness of threads of jobs, 0 to 19; one that is nicer already stays so. None for that of the process.
            ionice: class of their reads and writes, one of `IONICE`: best-effort is its lowest level, none that of the process.

        Raises:
            UsageError: there is no such niceness or class.
        """
        self._native = _native.Limits(nice=nice, ionice=ionice)

    def set(
        self,
        *,
        upload_bytes_per_second: int | None = None,
        download_bytes_per_second: int | None = None,
        requests: int | None = None,
    ) -> None:
        """Set all limits anew, for running jobs too; None for none.

        Over any time at most the rate times that time is sent or fetched, and a second's worth and one request's body for each thread more.

        Args:
            requests: to stores, under way at once, those of calls included.
        """
        self._native.set(
            upload_bytes_per_second=upload_bytes_per_second or 0,
            download_bytes_per_second=download_bytes_per_second or 0,
            requests=requests or 0,
        )


def native_limits(limits: Limits | None) -> _native.Limits | None:
    """Give the extension's side of limits."""
    return None if limits is None else limits._native
