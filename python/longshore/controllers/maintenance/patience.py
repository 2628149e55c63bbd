"""How long a run is waited for that does not start, or that its deadline did not end.

Promises: time is counted from when this process first saw the run so, by the clock of the process that runs nothing else: no other machine's clock ends a run.

It does not know what is done about it.
"""

from __future__ import annotations

from longshore.controllers.maintenance.runs import Run, RunState
from longshore.kube.clock import Clock

__all__ = ["Patience"]


class Patience:
    """Remembers since when each object's run is as it is."""

    def __init__(self, *, start_seconds: float, clock: Clock) -> None:
        """Remember nothing yet.

        Args:
            start_seconds: how long a run may take to start, and to end when its deadline has come.
        """
        self._start_seconds = start_seconds
        self._clock = clock
        self._since: dict[str, tuple[str, bool, float]] = {}

    def ends(self, uid: str, run: Run) -> str | None:
        """Tell why a run is not waited for any longer; None while it is."""
        now, is_waiting = self._clock.monotonic(), run.state is RunState.WAITING
        name, was_waiting, since = self._since.get(uid, ("", False, 0.0))
        if (name, was_waiting) != (run.name, is_waiting):
            self._since[uid] = (run.name, is_waiting, now)
            return None
        if is_waiting:
            if now - since < self._start_seconds:
                return None
            return (
                f"the run did not start: seconds={now - since:.0f}, job={run.name}, reason={run.reason}; mend that, or choose other "
                "nodes or resources in the config map for maintenance Jobs"
            )
        # Whoever runs it ends it at its deadline; where that does not happen, its node is gone.
        if not run.deadline_seconds or now - since < run.deadline_seconds + self._start_seconds:
            return None
        return (
            f"the run did not end at its deadline: seconds={run.deadline_seconds}, job={run.name}; see with kubectl get nodes whether its "
            "node is alive"
        )

    def forget(self, uid: str) -> None:
        """Forget an object, or that it has a run."""
        self._since.pop(uid, None)
