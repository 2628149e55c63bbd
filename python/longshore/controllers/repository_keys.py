"""The keys of repositories as Secrets of Velero's namespace: which are there, and who may make one.

Secret `longshore-repo-credentials`:

==========================  ====================================================================================================================
`repository-key`            the root secret: a key file (`longshore-key-1:` and 64 hexadecimal digits), or a passphrase of 32 bytes or more
                            (everything that is no key file, without one newline at its end). New repositories are made with it.
`repository-key-…`          further root secrets, tried in the order of their names when a repository was made with another one
`recovery-key`              a key file whose owner keeps it outside the cluster: each repository gets a slot for it
`recovery-passphrase`       the same with a passphrase of 12 bytes or more
==========================  ====================================================================================================================

The last two may as well stand in Secret `longshore-recovery`, so that they can be laid down and removed apart from the rest. Once a repository has its
recovery slot they may be deleted.

Promises
- An existing `repository-key` is never replaced. A random one is made only when there is none, with a create (or, in an existing Secret, a
  conflict-checked write), and is read back before it is used: of agents and server that race, all go on with the same key.
- Whoever makes a key has stored it before a repository's configuration is written, because it is used only as it was read back.
- No message and no `repr` shows a key.
- What counts as exported is told by the key itself, not by the Secret: a root secret that comes later lives in this cluster only, whatever was exported before.

It does not know repositories.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from longshore.api.model import JsonObject
from longshore.controllers.cluster import ClusterReader
from longshore.controllers.ports import RootKey, RootKeyKind
from longshore.errors import AlreadyExistsError, ConflictError, NotFoundError, UsageError
from longshore.kube.client import KubeClient
from longshore.kube.clock import format_time
from longshore.kube.resource import SECRETS
from longshore.logs import get_logger

__all__ = [
    "ANNOTATION_EXPORTED",
    "KEY_ALONE",
    "KEY_AT_RISK",
    "KEY_IS_KEPT",
    "KEY_RECOVERY",
    "KEY_RECOVERY_PASSPHRASE",
    "KEY_ROOT",
    "RECOVERY_LABEL",
    "ROOT_LABEL",
    "SAVE_KEY",
    "SECRET_RECOVERY",
    "SECRET_ROOT",
    "KeyRing",
    "RepositoryKeys",
    "fingerprint_of",
    "key_file_text",
    "mark_exported",
    "parse_key",
]

_log = get_logger(__name__)

SECRET_ROOT: Final = "longshore-repo-credentials"  # noqa: S105 - the name of an object
SECRET_RECOVERY: Final = "longshore-recovery"  # noqa: S105 - the name of an object
KEY_ROOT: Final = "repository-key"
KEY_RECOVERY: Final = "recovery-key"
KEY_RECOVERY_PASSPHRASE: Final = "recovery-passphrase"  # noqa: S105 - the name of an entry
ANNOTATION_EXPORTED: Final = "longshore.io/key-exported"
"""On the root Secret: when its keys were last exported, and the fingerprints of those that were. A date alone, written by hand, is an operator's word for
all that the Secret holds."""
ROOT_LABEL: Final = "cluster"
"""Label of the slot for the root secret."""
RECOVERY_LABEL: Final = "recovery"
"""Label of the slot for the recovery key."""

KEY_ALONE: Final = "the repository's key lives in this cluster only, and the backups are lost with it"
SAVE_KEY: Final = (
    "save it with longshore repo key export FILE, or give the repositories a recovery key with longshore repo key add --new-key-file FILE, "
    "and keep FILE elsewhere"
)
KEY_AT_RISK: Final = f"{KEY_ALONE}; {SAVE_KEY}"
"""What is said until a recovery slot or an export exists."""
KEY_IS_KEPT: Final = "the key has a recovery slot, or was exported"
"""What is said from then on."""

_KEY_FILE: Final = re.compile(rb"\s*longshore-key-1:([0-9a-fA-F]{64})\s*")
_KEY_FILE_START: Final = b"longshore-key-"
_PASSPHRASE_LENGTH_BYTES_MIN: Final = 32
_RECOVERY_LENGTH_BYTES_MIN: Final = 12
_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The keys that are there."""

    roots: tuple[RootKey, ...] = ()
    """In the order in which they are tried; the first makes new repositories."""
    has_main: bool = False
    """Whether the first is `repository-key`."""
    recovery: RootKey | None = None
    exported: frozenset[str] | None = frozenset()
    """Fingerprints of the keys that were exported; None when an operator vouched for all."""

    def is_exported(self, key: RootKey) -> bool:
        """Whether a key is kept outside of this cluster, too."""
        return self.exported is None or fingerprint_of(key) in self.exported


class RepositoryKeys:
    """Reads the Secrets, and makes the root secret where there is none."""

    def __init__(self, client: KubeClient, *, namespace: str, cluster: ClusterReader) -> None:
        self._client = client
        self._cluster = cluster
        self._namespace = namespace

    @property
    def where(self) -> str:
        """What an operator has to write the key into, for messages."""
        return f"Secret {self._namespace}/{SECRET_ROOT}, key {KEY_ROOT}"

    def read(self) -> KeyRing:
        """Read the keys as they are now.

        Raises:
            UsageError: one of them cannot be used.
        """
        values = self._cluster.secret(SECRET_ROOT) or {}
        beside = self._cluster.secret(SECRET_RECOVERY) or {}
        names = sorted(name for name in values if name == KEY_ROOT or name.startswith(f"{KEY_ROOT}-"))
        roots = tuple(self._key(SECRET_ROOT, name, values, length_min=_PASSPHRASE_LENGTH_BYTES_MIN) for name in names)
        exported = self._exported() if roots else frozenset()
        return KeyRing(roots, KEY_ROOT in values, self._recovery(values, beside), exported)

    def ensure(self) -> KeyRing:
        """Read the keys, making a random root secret when there is none.

        Call it only when no repository lies where one is to be made: a repository that exists never gets another key.

        Raises:
            UsageError: what is there cannot be used.
            ConflictError: others kept writing in between; try again.
        """
        for _ in range(_TRIES):
            ring = self.read()
            if ring.has_main:
                return ring
            self._make()
        raise ConflictError(f"the root secret could not be written: {self.where}")

    def _make(self) -> None:
        encoded = base64.b64encode(f"longshore-key-1:{secrets.token_hex(32)}\n".encode()).decode()
        body: JsonObject = {
            "metadata": {"name": SECRET_ROOT, "namespace": self._namespace},
            "type": "Opaque",
            "data": {KEY_ROOT: encoded},
        }
        try:
            self._client.create(SECRETS, body, namespace=self._namespace)
        except AlreadyExistsError:
            self._add(encoded)
        else:
            _log.warning(
                "Made a random root secret; export it, or give a recovery key",
                name=SECRET_ROOT,
                namespace=self._namespace,
            )

    def _add(self, encoded: str) -> None:
        """Put the key into a Secret that is there but has none, unless somebody was quicker."""

        def change(secret: JsonObject) -> JsonObject | None:
            return None if KEY_ROOT in (secret.get("data") or {}) else {"data": {KEY_ROOT: encoded}}

        try:
            self._client.modify(SECRETS, SECRET_ROOT, change, namespace=self._namespace)
        except NotFoundError:
            _log.info("Root secret was deleted while it was completed", name=SECRET_ROOT)

    def _recovery(self, values: Mapping[str, bytes], beside: Mapping[str, bytes]) -> RootKey | None:
        for name in (KEY_RECOVERY, KEY_RECOVERY_PASSPHRASE):
            for secret, held in ((SECRET_RECOVERY, beside), (SECRET_ROOT, values)):
                if name in held:
                    key = self._key(secret, name, held, length_min=_RECOVERY_LENGTH_BYTES_MIN)
                    if name == KEY_RECOVERY and key.kind is not RootKeyKind.SECRET:
                        raise _refused(secret, name, "it is no key file")
                    return key
        return None

    def _key(self, secret: str, name: str, values: Mapping[str, bytes], *, length_min: int) -> RootKey:
        return parse_key(values[name], secret=secret, name=name, length_min=length_min)

    def _exported(self) -> frozenset[str] | None:
        try:
            return _exported_of(self._client.get(SECRETS, SECRET_ROOT, namespace=self._namespace))
        except NotFoundError:
            return frozenset()


def parse_key(value: bytes, *, secret: str, name: str, length_min: int = _PASSPHRASE_LENGTH_BYTES_MIN) -> RootKey:
    """Read one entry of a Secret as a key.

    Raises:
        UsageError: it is neither a key file nor a long enough passphrase; what stands there is not shown.
    """
    origin = f"{secret}/{name}"
    if match := _KEY_FILE.fullmatch(value):
        return RootKey(RootKeyKind.SECRET, bytes.fromhex(match[1].decode()), origin)
    if value.lstrip().startswith(_KEY_FILE_START):
        raise _refused(secret, name, "it begins like a key file but is none")
    passphrase = value.removesuffix(b"\n").removesuffix(b"\r")
    if len(passphrase) < length_min:
        raise _refused(secret, name, f"it is no key file, and too short for a passphrase of {length_min} bytes")
    return RootKey(RootKeyKind.PASSPHRASE, passphrase, origin)


def fingerprint_of(key: RootKey) -> str:
    """Name a key without telling it: 64 bits of a hash over 256 random ones; empty for a passphrase, which could be guessed from any."""
    if key.kind is not RootKeyKind.SECRET:
        return ""
    return hashlib.sha256(b"longshore key fingerprint 1\0" + key.value).hexdigest()[:16]


def key_file_text(key: RootKey) -> str:
    """Give the text of a key file.

    Raises:
        UsageError: it is a passphrase.
    """
    if key.kind is not RootKeyKind.SECRET:
        raise UsageError(f"a passphrase makes no key file: key={key.origin}")
    return f"longshore-key-1:{key.value.hex()}\n"


def mark_exported(client: KubeClient, *, namespace: str, at: datetime, keys: Iterable[RootKey]) -> None:
    """Note on the root Secret that keys were exported, which ends condition RecoveryKeyMissing of what they open.

    Raises:
        NotFoundError: there is no such Secret.
    """
    names = {fingerprint_of(key) for key in keys} - {""}

    def change(secret: JsonObject) -> JsonObject:
        before = _exported_of(secret)
        known = [] if before is None else sorted(before | names)
        return {"metadata": {"annotations": {ANNOTATION_EXPORTED: " ".join([format_time(at), *known])}}}

    client.modify(SECRETS, SECRET_ROOT, change, namespace=namespace)


def _exported_of(secret: JsonObject) -> frozenset[str] | None:
    """Read the annotation; see its text."""
    words = str(((secret.get("metadata") or {}).get("annotations") or {}).get(ANNOTATION_EXPORTED) or "").split()
    if not words:
        return frozenset()
    return frozenset(words[1:]) if len(words) > 1 else None


def _refused(secret: str, name: str, cause: str) -> UsageError:
    return UsageError(
        f"a key cannot be used: secret={secret}, key={name}, cause={cause}",
        "write a key file (longshore-key-1: and 64 hexadecimal digits) or a longer passphrase there",
    )
