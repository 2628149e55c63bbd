"""Builds storage locations and Secrets for tests."""

from pathlib import Path
from typing import Any

from longshore.api import BackupStorageLocation
from longshore.errors import NotFoundError
from longshore.objectstore.location import settings_of
from longshore.objectstore.settings import AwsSettings, FilesystemSettings, SecretReader

STORAGE = {"bucket": "backups"}


def secrets(values: dict[str, bytes] | None = None) -> SecretReader:
    """Give a reader of Secrets, named `name/key`."""

    def read(name: str, key: str) -> bytes:
        try:
            return (values or {})[f"{name}/{key}"]
        except KeyError:
            raise NotFoundError(f"no such key: name={name}, key={key}") from None

    return read


def location(provider: str, **spec: Any) -> BackupStorageLocation:
    """Make a location called `nas`."""
    return BackupStorageLocation.from_dict({"metadata": {"name": "nas"}, "spec": {"provider": provider, **spec}})


def aws(
    config: dict[str, str] | None = None,
    *,
    storage: dict[str, Any] | None = None,
    provider: str = "aws",
    values: dict[str, bytes] | None = None,
    **spec: Any,
) -> AwsSettings:
    """Settings of an aws location."""
    made = location(provider, objectStorage=STORAGE | (storage or {}), config=config or {}, **spec)
    settings = settings_of(made, read_secret=secrets(values))
    assert isinstance(settings, AwsSettings)
    return settings


def filesystem(
    path: Path | str, *, forbidden: tuple[Path, ...] = (), config: dict[str, str] | None = None, **spec: Any
) -> FilesystemSettings:
    """Settings of a filesystem location."""
    made = location("filesystem", config={"path": str(path), **(config or {})}, **spec)
    settings = settings_of(made, read_secret=secrets(), forbidden_folders=forbidden)
    assert isinstance(settings, FilesystemSettings)
    return settings
