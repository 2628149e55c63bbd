"""Child processes that cannot outlive us, and ports that nobody can take from them.

Real servers are started for a test or the demo and must be gone afterwards, however that run ends. Three nets, each for what the one
before it lets through: the owner calls `stop`; an `atexit` hook ends what was forgotten; and the kernel kills the child when we die
without a word (PR_SET_PDEATHSIG). Each child leads a process group of its own, so Ctrl-C on the terminal reaches us alone and the
order of ending is ours.

Promises: `ChildProcess.wait_ready` returns when the probe says yes, or raises with the end of the child's log, at once when it died.
A `ReservedPort` stays ours, across restarts of the child too.

Does not know: which program runs, or what ready means for it.
"""

import atexit
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)  # loaded here: nothing may be loaded between fork and exec
_POLL_SECONDS = 0.05
_HAS_ENDED = os.WEXITED | os.WNOHANG | os.WNOWAIT  # asks, and leaves the zombie: only `stop` reaps

_running: set["ChildProcess"] = set()


class ComponentFailedError(Exception):
    """A component is built but did not start, or died; the message ends with the end of its log."""


class ReservedPort:
    """A TCP port, by default of loopback, chosen by the kernel, held as long as this object is open.

    The socket is bound and never listens. Linux lets a second socket bind and listen on the same port when both set SO_REUSEADDR, as
    every Go server does, while it hands the port to nobody who asks for a free one. So there is no moment between choosing and using.
    """

    def __init__(self, address: str = "127.0.0.1") -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((address, 0))
        self.number: int = self._socket.getsockname()[1]

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()


class ChildProcess:
    """One running program with its log file."""

    def __init__(
        self, name: str, argv: Sequence[str | Path], *, log_path: Path, env: Mapping[str, str] | None = None
    ) -> None:
        """Start the program.

        Args:
            name: what messages call it.
            argv: program and arguments; no shell.
            log_path: where its stdout and stderr are appended.
            env: its whole environment; ours is not handed on, so that a test does not depend on who runs it.

        Raises:
            RuntimeError: called outside the main thread: the kernel would end the child with the thread that started it.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(f"components are started from the main thread only: name={name}")
        self.name = name
        self.log_path = log_path
        parent = os.getpid()

        def die_with_parent() -> None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it died before the line above
                os._exit(1)

        with log_path.open("ab") as log:
            self._popen = subprocess.Popen(
                [str(a) for a in argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": "/usr/bin:/bin", **(env or {})},
                cwd=log_path.parent,
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509
            )
        _running.add(self)

    @property
    def pid(self) -> int:
        """Process id, which is also its group's."""
        return self._popen.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._popen.returncode is None and os.waitid(os.P_PID, self.pid, _HAS_ENDED) is None

    @property
    def exit_code(self) -> int | None:
        """With what it ended, by a signal as a negative number; None while it runs."""
        if self._popen.returncode is not None:
            return self._popen.returncode
        ended = os.waitid(os.P_PID, self.pid, _HAS_ENDED)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def check_alive(self) -> None:
        """Do nothing while it runs.

        Raises:
            ComponentFailedError: it ended.
        """
        if not self.alive:
            self.stop()
            raise ComponentFailedError(f"{self.name} ended: exit_code={self._popen.returncode}, {self._log_tail()}")

    def wait_ready(self, probe: Callable[[], str | None], *, timeout_seconds: float) -> None:
        """Poll until `probe` returns None; what it returns otherwise says what is still missing.

        Raises:
            ComponentFailedError: the child ended, or the time is over.
        """
        deadline = time.monotonic() + timeout_seconds
        while (missing := probe()) is not None:
            self.check_alive()
            if time.monotonic() > deadline:
                raise ComponentFailedError(
                    f"{self.name} is not ready after {timeout_seconds:g} s: {missing}, {self._log_tail()}"
                )
            time.sleep(_POLL_SECONDS)

    def stop(self, *, grace_seconds: float = 0.0) -> None:
        """End it and everything in its group; SIGTERM first when it is given time. A second call does nothing."""
        if self._popen.returncode is None:
            if grace_seconds > 0:
                self._signal(signal.SIGTERM)
                deadline = time.monotonic() + grace_seconds
                while self.alive and time.monotonic() < deadline:
                    time.sleep(_POLL_SECONDS)
            self._signal(signal.SIGKILL)
            self._popen.wait()
        _running.discard(self)

    @contextlib.contextmanager
    def slowed(self, part: float, *, turn_seconds: float = 0.1) -> Iterator[None]:
        """Let it run for a part of each turn only, and hold it for the rest, until the context is left. Not to be stopped within."""
        over = threading.Event()

        def hold() -> None:
            while not over.is_set() and self.alive:
                self._signal(signal.SIGSTOP)
                over.wait(turn_seconds * (1 - part))
                self._signal(signal.SIGCONT)
                over.wait(turn_seconds * part)

        holder = threading.Thread(target=hold, name=f"hold {self.name}")
        holder.start()
        try:
            yield
        finally:
            over.set()
            holder.join()

    def _signal(self, number: signal.Signals) -> None:
        # The leader is not reaped yet, alive or not, so the group's number is still its own.
        os.killpg(self.pid, number)

    def _log_tail(self, lines: int = 20) -> str:
        text = self.log_path.read_text(errors="replace").splitlines()
        return f"log={self.log_path}, its end:\n    " + "\n    ".join(text[-lines:])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


@atexit.register
def _stop_all() -> None:
    for child in list(_running):
        child.stop()


def interrupt_on_sigterm() -> None:
    """Let SIGTERM end this process the way Ctrl-C does, through every `finally`, where it would die at once by default."""
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
