"""Several objects that stand for one repository: which of them is served, and what is remembered whichever it is.

The eldest BackupRepository is the keeper. Who becomes it, because it was made or because the one before was deleted, goes on with the ledger of whoever counted
most runs: so a run has one number in all of them, is begun once and recorded once.

It does not know what runs do, nor writes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from longshore.api.model import JsonObject
from longshore.api.repository import BackupRepository, ResticRepository
from longshore.controllers.cluster import resource_of
from longshore.controllers.maintenance.ledger import Ledger
from longshore.controllers.maintenance.shown import name_of, rank, repository_of
from longshore.errors import NotFoundError
from longshore.kube.client import KubeClient

__all__ = ["Keepers"]

_RESOURCES: Final = {one.definition.kind: resource_of(one.definition) for one in (BackupRepository, ResticRepository)}


class Keepers:
    """See the module's text."""

    def __init__(self, client: KubeClient, *, peers: Callable[[], Iterable[JsonObject]]) -> None:
        """Keep what is needed.

        Args:
            peers: all repository objects of both kinds as they are known now.
        """
        self._client = client
        self._peers = peers

    def keeper_of(self, obj: JsonObject) -> JsonObject | None:
        """Give the object that is served in the place of this one; None when it is this one."""
        rivals = [one for one in self._rivals(obj) if not one["metadata"].get("deletionTimestamp")]
        first = min([obj, *rivals], key=rank)
        return None if first is obj else first

    def ledger_of(self, obj: JsonObject) -> Ledger:
        """Give what is remembered of the repository: the ledger of the object that counted most runs."""
        ledger = Ledger.of(obj)
        for rival in self._rivals(obj):
            resource, namespace = _RESOURCES[str(rival.get("kind"))], obj["metadata"].get("namespace")
            try:
                # Not from the cache: a run that was recorded there a moment ago would be recorded once more.
                found = self._client.get(resource, name_of(rival), namespace=namespace)
            except NotFoundError:
                continue
            ledger = max(ledger, Ledger.of(found), key=lambda one: one.runs)
        return ledger

    def _rivals(self, obj: JsonObject) -> list[JsonObject]:
        own = repository_of(obj)
        if own is None:
            return []
        # What the cache lacks still, or has in an older state, must not decide about the object itself.
        uid = obj["metadata"]["uid"]
        return [one for one in self._peers() if repository_of(one) == own and one["metadata"].get("uid") != uid]
