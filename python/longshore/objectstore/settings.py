"""What a BackupStorageLocation comes to, once every field was checked: frozen values for the control plane's store and for the data path.

Promises: a `StoreSettings` that exists is sound: names are safe to put into keys and paths, addresses are well formed, certificates are certificates. It holds
no secret; credentials are fetched when they are needed, because they end.

It does not know how a location is written (:mod:`longshore.objectstore.location`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from longshore.errors import UsageError

__all__ = [
    "CHECKSUM_OFF",
    "REPOSITORY_ROOT",
    "AwsSettings",
    "FilesystemSettings",
    "SecretKey",
    "SecretReader",
    "StoreSettings",
    "repository_prefix",
]

REPOSITORY_ROOT: Final = "plugins/longshore"
"""Below the location's prefix. Every Velero accepts `plugins/` at the top of a location, and none uses it."""

CHECKSUM_OFF: Final = "none"
"""No checksum goes up, for servers that refuse the header."""

_DNS_LABEL: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)


@dataclass(frozen=True, slots=True)
class SecretKey:
    """One key of a Secret in the location's namespace."""

    name: str
    key: str

    def __str__(self) -> str:
        return f"{self.name}/{self.key}"


class SecretReader(Protocol):
    """Reads Secrets of the location's namespace."""

    def __call__(self, name: str, key: str) -> bytes:
        """Give the decoded value of one key.

        Raises:
            NotFoundError: there is no such Secret, or it has no such key.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsSettings:
    """A bucket behind the S3 protocol."""

    location: str
    """Name of the BackupStorageLocation, for messages."""
    read_only: bool
    prefix: str
    """Folder inside the bucket, without a slash at either end; empty for the bucket itself."""
    bucket: str
    region: str | None = None
    """None: to be looked up (:func:`longshore.objectstore.aws.lookup_region`)."""
    endpoint_url: str | None = None
    """Scheme and host of an S3 server that is not Amazon's, without a path."""
    public_url: str | None = None
    """The same as clients outside see it, for signed links."""
    force_path_style: bool = False
    insecure_skip_tls_verify: bool = False
    ca_bundle_pem: bytes | None = None
    """Certificates to trust beside the system's."""
    credential: SecretKey | None = None
    profile: str | None = None
    enable_shared_config: bool = False
    """Whether profiles of the AWS configuration file count too."""
    server_side_encryption: str | None = None
    kms_key_id: str | None = None
    checksum_algorithm: str | None = None
    """What the store is to check at upload: CRC32, CRC32C, SHA1, SHA256, :data:`CHECKSUM_OFF`, or None where the location leaves it to us."""
    tagging: str | None = None
    """Tags for every object, as `k=v&k=v`."""

    @property
    def url(self) -> str:
        """The location itself, for messages and for the data path."""
        return "s3://" + "/".join(part for part in (self.bucket, self.prefix) if part)

    def repository_url(self, namespace: str) -> str:
        """The repository of a namespace.

        Raises:
            UsageError: `namespace` is no namespace's name.
        """
        return f"s3://{self.bucket}/{repository_prefix(self.prefix, namespace=namespace)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesystemSettings:
    """A folder or NAS mount that server and agents see at the same path."""

    location: str
    read_only: bool
    prefix: str
    """Folder inside `root`, without a slash at either end; empty for `root` itself."""
    path: Path
    """`config.path`: absolute, real (no symbolic link in it), and apart from everything in `forbidden`."""
    bucket: str = ""
    """A folder inside `path`, where the location names a bucket."""
    forbidden: tuple[Path, ...] = ()
    """The pods root and the agent's own folders; checked again whenever the folder is opened."""

    @property
    def root(self) -> Path:
        """The folder that stands for the bucket."""
        return self.path / self.bucket if self.bucket else self.path

    @property
    def url(self) -> str:
        """The location itself, for messages and for the data path."""
        return f"file://{self.root / self.prefix}"

    def repository_url(self, namespace: str) -> str:
        """The repository of a namespace.

        Raises:
            UsageError: `namespace` is no namespace's name.
        """
        return f"file://{self.root / repository_prefix(self.prefix, namespace=namespace)}"


StoreSettings = AwsSettings | FilesystemSettings


def repository_prefix(prefix: str, *, namespace: str) -> str:
    """Tell where a namespace's repository lies in a bucket.

    Args:
        prefix: the location's.
        namespace: the one whose volumes are kept there.

    Returns:
        A key prefix without a slash at either end.

    Raises:
        UsageError: `namespace` is no namespace's name.
    """
    if not _DNS_LABEL.fullmatch(namespace):
        raise UsageError(
            f"not the name of a namespace: namespace={namespace!r}", "correct sourceNamespace or pod.namespace"
        )
    return "/".join(part for part in (prefix, REPOSITORY_ROOT, namespace) if part)
