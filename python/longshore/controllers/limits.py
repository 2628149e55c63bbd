"""What a node's jobs together may take of network and stores, read from a folder again and again, so that it can be changed while they run.

The folder holds a file for each limit: `upload` and `download` (bytes a second, as 20MiB) and `requests` (at once); empty for none, absent for what
the flags say. In a cluster it is a ConfigMap: the kubelet lays a changed one down within about a minute, takes its files away when it is deleted, and no
pod is restarted.

Promises: the limits hold before the first job begins, and a change within `_LOOK_SECONDS` of being laid down, for jobs that run, too. A text that cannot be
understood changes nothing, and is told once; so is a file of another name, which bounds nothing.

It does not know repositories.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from longshore.api.values import bytes_of_size
from longshore.errors import InvalidObjectError
from longshore.kube.clock import SYSTEM_CLOCK, Clock
from longshore.logs import get_logger

__all__ = ["Bounded", "Bounds", "LimitsFolder"]

_log = get_logger(__name__)

_LOOK_SECONDS: Final = 10.0
_REQUESTS_MAX: Final = 10_000
_TEXT_BYTES_MAX: Final = 64
_NAMES: Final = frozenset({"upload", "download", "requests"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What all jobs together may take; None for no limit."""

    upload: int | None = None
    """Bytes a second that are sent."""
    download: int | None = None
    """Bytes a second that are fetched."""
    requests: int | None = None
    """Requests under way at once."""


class Bounded(Protocol):
    """Whoever can be held to bounds, as :class:`longshore.datapath.Limits`."""

    def set(
        self,
        *,
        upload_bytes_per_second: int | None = None,
        download_bytes_per_second: int | None = None,
        requests: int | None = None,
    ) -> None:
        """Set all bounds anew."""
        ...


class LimitsFolder:
    """Holds the data path to the flags' limits and to those of a folder; a component for the manager."""

    def __init__(self, bounded: Bounded, *, flags: Bounds, folder: Path | None, clock: Clock = SYSTEM_CLOCK) -> None:
        """Set what the flags and the folder say now.

        Args:
            folder: need not be there, and may come and go; None for the flags alone.
        """
        self.name = "limits"
        self._bounded = bounded
        self._flags = flags
        self._folder = folder
        self._clock = clock
        self._held = flags
        self._refused: dict[str, str] = {}
        self._strangers: list[str] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._set(flags)
        self.look()

    def look(self) -> Bounds:
        """Read the folder, and set what is new; give what holds now."""
        if self._folder is None:
            return self._held
        self._look_for_strangers(self._folder)
        bounds = Bounds(
            upload=self._read("upload", bytes_of_size),
            download=self._read("download", bytes_of_size),
            requests=self._read("requests", _requests_of),
        )
        if bounds != self._held:
            self._set(bounds)
            _log.info("Changed limits", upload=bounds.upload, download=bounds.download, requests=bounds.requests)
        return bounds

    def _set(self, bounds: Bounds) -> None:
        self._bounded.set(
            upload_bytes_per_second=bounds.upload,
            download_bytes_per_second=bounds.download,
            requests=bounds.requests,
        )
        self._held = bounds

    def _read(self, name: str, understood: Callable[[str], int]) -> int | None:
        assert self._folder is not None
        path = self._folder / name
        held: int | None = getattr(self._held, name)
        try:
            with path.open("rb") as file:
                text = file.read(_TEXT_BYTES_MAX).decode("utf-8", errors="replace").strip()
        except FileNotFoundError:
            self._refused.pop(name, None)
            flag: int | None = getattr(self._flags, name)
            return flag
        except OSError as err:
            self._refuse(name, path, text="", cause=err.strerror or "it cannot be read")
            return held
        try:
            found = None if text in {"", "0"} else understood(text)
        except InvalidObjectError as err:
            self._refuse(name, path, text=text, cause=err.message)
            return held
        self._refused.pop(name, None)
        return found

    def _look_for_strangers(self, folder: Path) -> None:
        try:
            # What begins with a dot is the kubelet's.
            names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        except OSError:
            names = []
        strangers = [name for name in names if name not in _NAMES]
        if strangers and strangers != self._strangers:
            _log.warning(
                "Limit has a name that means nothing",
                folder=str(folder),
                names=strangers,
                next_step="the names are upload, download and requests",
            )
        self._strangers = strangers

    def _refuse(self, name: str, path: Path, *, text: str, cause: str) -> None:
        said = f"{text}\n{cause}"
        if self._refused.get(name) == said:
            return
        self._refused[name] = said
        _log.warning(
            "Limit cannot be understood, what held before holds",
            file=str(path),
            text=text,
            error=cause,
            held=getattr(self._held, name),
            next_step="write a size such as 20MiB for upload and download, a number for requests, nothing for no limit",
        )

    # -- as a component --------------------------------------------------------------------------------------------------------

    def start(self, *, failed: Callable[[BaseException], None]) -> None:  # noqa: ARG002 - it goes on whatever happens
        """Begin to look for changes."""
        if self._folder is not None:
            self._thread = threading.Thread(target=self._watch, name="limits", daemon=True)
            self._thread.start()

    def stop(self, *, timeout_seconds: float, clean: bool = True) -> bool:  # noqa: ARG002 - nothing is given back
        """End the thread."""
        self._stop.set()
        if self._thread is None:
            return True
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def not_ready(self) -> str | None:
        """Never a reason: a slip in a limit must not take a node out of service."""
        return None

    def not_live(self) -> str | None:
        """Dead when its thread ended."""
        ended = self._thread is not None and not self._thread.is_alive() and not self._stop.is_set()
        return "thread ended" if ended else None

    def _watch(self) -> None:
        while not self._clock.wait(self._stop, _LOOK_SECONDS):
            self.look()


def _requests_of(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= _REQUESTS_MAX):
        raise InvalidObjectError(
            f"this is no number of requests: {text!r}", f"write a number from 1 to {_REQUESTS_MAX}"
        )
    return int(text)
