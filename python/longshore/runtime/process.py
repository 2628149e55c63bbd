"""How a process that lives in a cluster runs to its end: reach the API server, put the parts together, run them, say why they failed.

Promises: settings that cannot be read end the process at once, unlike a server that is away, for which informers would wait for ever; the client is closed
however it ends.

It does not know what runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from longshore.errors import LongshoreError
from longshore.kube.client import KubeClient
from longshore.kube.connection import find_connector
from longshore.logs import get_logger

__all__ = ["Runnable", "run_in_cluster"]

_log = get_logger(__name__)


class Runnable(Protocol):
    """A process put together."""

    def run(self) -> None:
        """Run until stopped.

        Raises:
            LongshoreError: a part failed and took the process with it.
        """
        ...


def run_in_cluster(make: Callable[[KubeClient], Runnable], *, kubeconfig: str | None, name: str) -> int:
    """Run a process.

    Args:
        make: puts it together.
        kubeconfig: how to reach the API server; None for the default.
        name: the process's, for the API server and the log.

    Returns:
        The exit code.

    Raises:
        UsageError: the kubeconfig or service account cannot be read, or names no server.
    """
    connector = find_connector(kubeconfig)
    connector.connect(user_agent=name).close()
    with KubeClient(connector, user_agent=name) as client:
        try:
            make(client).run()
        except LongshoreError as err:
            _log.error("Process failed", process=name, error=err, next_step=err.next_step)
            return err.exit_code
    return 0
