"""What an operator does with the keys of the cluster's repositories: take the root key out, lay one down, give and take key slots.

Promises
- Nothing that is there is replaced: keys are laid down with a create or, in a Secret that is there, a conflict-checked write of an entry that it lacks.
- What is noted as exported has been exported before: whoever calls `note_exported` has the key on a disk.
- `remove_slot` never takes the last way in, neither anybody's (the last slot) nor the cluster's (the slot that its keys open), and no slot that the agents
  would make again at once. What somebody removes in the same moment is seen afterwards: then the cluster's key gets a slot again, and who asked is told.
- Whatever was changed is looked at by the server at once: each repository's object gets a word that makes it look.

It does not know files, terminals, nor how a repository is made: that is an agent's.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from longshore.api.model import JsonObject
from longshore.api.names import BACKUP_REPOSITORIES, POD_VOLUME_BACKUPS, RESTIC_REPOSITORIES
from longshore.controllers.cluster import ClusterReader, resource_of
from longshore.controllers.ports import DataPath, KeySlot, Repository, RootKey, RootKeyKind
from longshore.controllers.repositories import OpenRepository, Repositories
from longshore.controllers.repository_keys import (
    KEY_RECOVERY,
    KEY_RECOVERY_PASSPHRASE,
    KEY_ROOT,
    RECOVERY_LABEL,
    ROOT_LABEL,
    SECRET_RECOVERY,
    SECRET_ROOT,
    RepositoryKeys,
    fingerprint_of,
    key_file_text,
    mark_exported,
    parse_key,
)
from longshore.errors import AlreadyExistsError, DeniedError, LongshoreError, NotFoundError, UsageError
from longshore.kube.client import KubeClient
from longshore.kube.clock import SYSTEM_CLOCK, Clock, format_time
from longshore.kube.resource import SECRETS, Resource
from longshore.logs import get_logger

__all__ = ["ANNOTATION_LOOK", "KeyCustody", "RepositoryName", "RootEntry", "SlotOf"]

_log = get_logger(__name__)

ANNOTATION_LOOK: Final = "longshore.io/look-at"
"""On a BackupRepository or ResticRepository: a moment; a new one makes the server look at the repository at once."""
_OBJECTS: Final = (resource_of(BACKUP_REPOSITORIES), resource_of(RESTIC_REPOSITORIES))
_BACKUPS: Final = resource_of(POD_VOLUME_BACKUPS)


@dataclass(frozen=True, slots=True, order=True)
class RepositoryName:
    """One repository of the cluster."""

    namespace: str
    """Whose volumes it holds."""
    location: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.location}"


@dataclass(frozen=True, slots=True)
class RootEntry:
    """A key of the root Secret, under the name of its entry."""

    name: str
    key: RootKey


@dataclass(frozen=True, slots=True)
class SlotOf:
    """A slot, and whose."""

    repository: RepositoryName
    slot: KeySlot
    opened_here: bool
    """Whether the cluster's own keys open the repository through it."""


class KeyCustody:
    """The keys of one namespace's repositories; see the module's text."""

    def __init__(self, client: KubeClient, datapath: DataPath, *, namespace: str, clock: Clock = SYSTEM_CLOCK) -> None:
        self._client = client
        self._namespace = namespace
        self._clock = clock
        self._cluster = ClusterReader(client, namespace=namespace)
        self._keys = RepositoryKeys(client, namespace=namespace, cluster=self._cluster)
        self._repositories = Repositories(datapath, cluster=self._cluster, keys=self._keys, clock=clock)

    # -- the root secret -------------------------------------------------------------------------------------------------------

    def root_entries(self) -> list[RootEntry]:
        """Give the keys of the root Secret, the one that makes new repositories first.

        Raises:
            NotFoundError: there is none yet.
            UsageError: one of them is a passphrase, or cannot be used.
        """
        ring = self._keys.read()
        if not ring.roots:
            raise NotFoundError(
                f"there is no repository key in this cluster yet: secret={self._namespace}/{SECRET_ROOT}",
                "an agent makes one with the first backup; or lay one down with longshore repo key import FILE",
            )
        passphrases = [key.origin for key in ring.roots if key.kind is not RootKeyKind.SECRET]
        if passphrases:
            raise UsageError(
                f"a root secret that is a passphrase makes no key file: secret={', '.join(passphrases)}",
                "keep the passphrase itself outside of the cluster, and give the repositories a recovery key with "
                "longshore repo key add --new-key-file FILE",
            )
        return [RootEntry(key.origin.partition("/")[2], key) for key in ring.roots]

    def note_exported(self, entries: Sequence[RootEntry]) -> None:
        """Note that these keys are kept outside of the cluster."""
        keys = [entry.key for entry in entries]
        mark_exported(self._client, namespace=self._namespace, at=self._clock.now(), keys=keys)
        self.look_again()

    def import_root(self, key: RootKey, *, beside: bool) -> str:
        """Lay a key down as the root secret, or beside the one that is there; it counts as exported, for it came from outside.

        Returns:
            The name of the entry that holds it now.

        Raises:
            AlreadyExistsError: another one is there, and `beside` was not asked for. Nothing was changed.
        """
        encoded = base64.b64encode(key_file_text(key).encode()).decode()
        name = f"{KEY_ROOT}-{fingerprint_of(key)[:8]}" if beside else KEY_ROOT
        body: JsonObject = {
            "metadata": {"name": SECRET_ROOT, "namespace": self._namespace},
            "type": "Opaque",
            "data": {KEY_ROOT: encoded},
        }
        held = KEY_ROOT
        try:
            self._client.create(SECRETS, body, namespace=self._namespace)
        except AlreadyExistsError:
            held = self._put_beside(key, encoded, name=name)
        mark_exported(self._client, namespace=self._namespace, at=self._clock.now(), keys=[key])
        self.look_again()
        return held

    def _put_beside(self, key: RootKey, encoded: str, *, name: str) -> str:
        found: list[str] = []

        def change(secret: JsonObject) -> JsonObject | None:
            data = secret.get("data") or {}
            found[:] = [entry for entry, value in data.items() if entry.startswith(KEY_ROOT) and _is_key(value, key)]
            if found:
                return None
            # A Secret that holds a recovery key alone has room for the root secret itself.
            wanted = name if KEY_ROOT in data else KEY_ROOT
            if wanted in data:
                raise AlreadyExistsError(
                    f"another repository key is there already: secret={self._namespace}/{SECRET_ROOT}, key={wanted}",
                    "nothing was changed; to open repositories that were made with yours, add it with --beside",
                )
            found[:] = [wanted]
            return {"data": {wanted: encoded}}

        self._client.modify(SECRETS, SECRET_ROOT, change, namespace=self._namespace)
        return found[0]

    # -- the recovery key ------------------------------------------------------------------------------------------------------

    def lay_down_recovery(self, key: RootKey) -> bool:
        """Lay a recovery key down, so that agents give a slot to each repository that they make or open.

        Returns:
            Whether it was done now; False when this very key is there already.

        Raises:
            AlreadyExistsError: another one is there. Nothing was changed.
        """
        is_file = key.kind is RootKeyKind.SECRET
        name = KEY_RECOVERY if is_file else KEY_RECOVERY_PASSPHRASE
        value = key_file_text(key).encode() if is_file else key.value
        # Read as agents read it: what they would refuse is refused here.
        parse_key(value, secret=SECRET_RECOVERY, name=name, length_min=12)
        present = self._keys.read().recovery
        if present is not None:
            if (present.kind, present.value) == (key.kind, key.value):
                return False
            raise AlreadyExistsError(
                f"another recovery key is there already: secret={self._namespace}/{present.origin}",
                "nothing was changed; delete it once each repository has its slot, or give yours slots alone with --slots-only",
            )
        encoded = base64.b64encode(value).decode()
        body: JsonObject = {
            "metadata": {"name": SECRET_RECOVERY, "namespace": self._namespace},
            "type": "Opaque",
            "data": {name: encoded},
        }
        try:
            self._client.create(SECRETS, body, namespace=self._namespace)
        except AlreadyExistsError:

            def change(secret: JsonObject) -> JsonObject:
                if {KEY_RECOVERY, KEY_RECOVERY_PASSPHRASE} & set(secret.get("data") or {}):
                    raise AlreadyExistsError(
                        f"somebody laid down a recovery key just now: secret={self._namespace}/{SECRET_RECOVERY}",
                        "look at it, then try again",
                    ) from None
                return {"data": {name: encoded}}

            self._client.modify(SECRETS, SECRET_RECOVERY, change, namespace=self._namespace)
        return True

    # -- repositories ----------------------------------------------------------------------------------------------------------

    def repositories(self) -> list[RepositoryName]:
        """Name every repository that an object of the namespace speaks of: the repositories' own, and PodVolumeBackups where no server makes those."""
        found = set()
        for resource in _OBJECTS:
            for spec in self._specs(resource):
                found.add((spec.get("volumeNamespace"), spec.get("backupStorageLocation")))
        for spec in self._specs(_BACKUPS):
            pod = spec.get("pod")
            found.add((pod.get("namespace") if isinstance(pod, dict) else None, spec.get("backupStorageLocation")))
        return sorted(
            RepositoryName(namespace, location)
            for namespace, location in found
            if isinstance(namespace, str) and isinstance(location, str) and namespace and location
        )

    def _specs(self, resource: Resource) -> Iterator[JsonObject]:
        try:
            items = self._client.list(resource, namespace=self._namespace).items
        except NotFoundError:
            # A cluster of one Velero version lacks the other's kind.
            return
        yield from (item["spec"] for item in items if isinstance(item.get("spec"), dict))

    def open(self, name: RepositoryName) -> OpenRepository:
        """Open a repository with the cluster's keys; it is not made when there is none.

        Raises:
            LongshoreError: why it does not open.
        """
        return self._repositories.open(location=name.location, namespace=name.namespace, write=False)

    def slots(self, name: RepositoryName) -> list[SlotOf]:
        """List who can open a repository."""
        repository = self.open(name).repository
        return [SlotOf(name, slot, slot.name == repository.slot) for slot in repository.slots()]

    def add_slot(self, name: RepositoryName, key: RootKey) -> str | None:
        """Let a key open a repository.

        Returns:
            The slot's name; None when the key opens the repository already.

        Raises:
            DeniedError: the location is ReadOnly.
            LongshoreError: why it cannot be done.
        """
        opened = self.open(name)
        if opened.read_only:
            raise DeniedError(
                f"the storage location is read-only, nothing is written there: location={name.location}",
                "set spec.accessMode to ReadWrite and say it again",
            )
        if self._repositories.slot_of(location=name.location, namespace=name.namespace, key=key) is not None:
            return None
        return opened.repository.add_slot(key, label=RECOVERY_LABEL)

    def remove_slot(self, found: SlotOf) -> None:
        """Take a holder's access away.

        Raises:
            UsageError: it would be the last way in, or the agents would make it again; or somebody removed the cluster's other way in meanwhile.
            LongshoreError: why it cannot be done.
        """
        name = found.repository
        opened = self.open(name)
        if opened.read_only:
            raise DeniedError(f"the storage location is read-only, nothing is written there: location={name.location}")
        slots = opened.repository.slots()
        if len(slots) == 1:
            raise UsageError(
                f"this is the last key slot, without it nothing can be read: slot={found.slot.name}, repository={name}",
                "add another first, with longshore repo key add",
            )
        ring = self._keys.read()
        ways = {
            key.origin: self._repositories.slot_of(location=name.location, namespace=name.namespace, key=key)
            for key in ring.roots
        }
        if found.slot.name in ways.values() and set(ways.values()) <= {found.slot.name, None}:
            raise UsageError(
                f"this is the slot through which the cluster opens the repository: slot={found.slot.name}, repository={name}",
                "lay down another key that opens it first, with longshore repo key import FILE --beside",
            )
        if ring.recovery is not None:
            again = self._repositories.slot_of(location=name.location, namespace=name.namespace, key=ring.recovery)
            if again == found.slot.name:
                raise UsageError(
                    f"agents would make this slot again: slot={found.slot.name}, secret={self._namespace}/{ring.recovery.origin}",
                    "delete that entry of the Secret first",
                )
        opened.repository.remove_slot(found.slot.name)
        self._keep_way_in(name, opened.repository, [key for key in ring.roots if ways[key.origin] is not None])

    def _keep_way_in(self, name: RepositoryName, repository: Repository, roots: Sequence[RootKey]) -> None:
        """Look whether one of the cluster's keys still opens a repository, and give one its slot back where none does.

        Two who remove a slot each at once have both seen the other's. What is open here holds the master key, whatever became of the slots.

        Args:
            roots: the keys that opened it before.
        """
        for key in roots:
            if self._repositories.slot_of(location=name.location, namespace=name.namespace, key=key) is not None:
                return
        if not roots:
            return
        made = repository.add_slot(roots[0], label=ROOT_LABEL)
        raise UsageError(
            f"somebody removed the cluster's other key slot at the same time, so its key was given one again: slot={made}, repository={name}",
            "see with longshore repo key list who can open it, and say it again",
        )

    def look_again(self) -> None:
        """Have the server look at every repository now, so that conditions tell what is; where that cannot be said, it looks within minutes."""
        change = {"metadata": {"annotations": {ANNOTATION_LOOK: _precise(self._clock.now())}}}
        for resource in _OBJECTS:
            try:
                for item in self._client.list(resource, namespace=self._namespace).items:
                    self._client.patch(resource, item["metadata"]["name"], change, namespace=self._namespace)
            except LongshoreError as err:
                _log.debug("Repositories were not marked for a look", kind=resource.kind, error=err)


def _is_key(encoded: object, key: RootKey) -> bool:
    try:
        found = parse_key(base64.b64decode(str(encoded)), secret=SECRET_ROOT, name=KEY_ROOT)
    except (UsageError, ValueError):
        return False
    return (found.kind, found.value) == (key.kind, key.value)


def _precise(at: datetime) -> str:
    return f"{format_time(at)}.{at.microsecond:06d}"
