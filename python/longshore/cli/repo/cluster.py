"""The cluster's repositories in one call of a command: how they are reached, and what is done with each of them in turn.

Promises: one repository that fails keeps no other from its turn; each failure is told with its repository and next step, and decides the exit code: 3 when
others went well, else the failure's own.

It does not decide about keys: :mod:`longshore.controllers.key_custody` does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from longshore.cli.output.sink import Output
from longshore.errors import IncompleteError, LongshoreError, UsageError

if TYPE_CHECKING:
    from longshore.controllers.key_custody import KeyCustody, RepositoryName
    from longshore.kube.client import KubeClient

__all__ = ["ClusterSession", "Outcome"]

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a turn through all repositories went."""

    done: int
    failed: int
    exit_code: int


@dataclass(frozen=True, slots=True)
class ClusterSession:
    """What the cluster's options said."""

    output: Output
    kubeconfig: str | None
    context: str | None
    namespace: str
    set_up_logs: Callable[[], None]

    @contextlib.contextmanager
    def client(self) -> Iterator[KubeClient]:
        """Reach the cluster.

        Raises:
            UsageError: no kubeconfig leads to one.
        """
        from longshore.kube.client import KubeClient
        from longshore.kube.connection import find_connector

        connector = find_connector(self.kubeconfig, context=self.context)
        try:
            connector.connect(user_agent="longshore-cli").close()
        except UsageError as error:
            if self.kubeconfig is not None or self.context is not None:
                raise
            raise UsageError(
                f"no repository is named, and no cluster can be asked: {error.message}",
                "give --repository URL, or the cluster's --kubeconfig FILE",
            ) from error
        self.set_up_logs()
        with KubeClient(connector, user_agent="longshore-cli") as client:
            yield client

    @contextlib.contextmanager
    def custody(self) -> Iterator[KeyCustody]:
        """Reach the keys of the cluster's repositories.

        Raises:
            UsageError: no kubeconfig leads to a cluster.
        """
        from longshore.controllers.engine import EngineDataPath
        from longshore.controllers.key_custody import KeyCustody

        with self.client() as client:
            yield KeyCustody(client, EngineDataPath(), namespace=self.namespace)

    def each(
        self,
        names: Sequence[RepositoryName],
        do: Callable[[RepositoryName], Result],
        *,
        told: Callable[[RepositoryName, Result], None],
    ) -> Outcome:
        """Do something with each repository.

        Args:
            names: which.
            do: may fail; the next one has its turn nevertheless.
            told: tells how it went.
        """
        done, failures = 0, list[LongshoreError]()
        for name in names:
            try:
                result = do(name)
            except LongshoreError as error:
                failures.append(error)
                self.output.error(type(error)(f"{error.message}: repository={name}", error.next_step))
                continue
            done += 1
            told(name, result)
        if not failures:
            return Outcome(done, 0, 0)
        return Outcome(done, len(failures), IncompleteError.exit_code if done else failures[0].exit_code)
