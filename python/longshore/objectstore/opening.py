"""Opens the right store for a location. The one place that knows both kinds."""

from __future__ import annotations

from longshore.objectstore.aws import AwsStore
from longshore.objectstore.credentials import credentials_for
from longshore.objectstore.filesystem import FilesystemStore
from longshore.objectstore.settings import AwsSettings, SecretReader, StoreSettings
from longshore.objectstore.store import ObjectStore

__all__ = ["open_store"]


def open_store(settings: StoreSettings, *, read_secret: SecretReader) -> ObjectStore:
    """Make the store of a location. Nothing is asked before its first call; close it in the end.

    Args:
        settings: from :func:`longshore.objectstore.location.settings_of`.
        read_secret: reads Secrets of the location's namespace.
    """
    if isinstance(settings, AwsSettings):
        return AwsStore(settings, credentials=lambda: credentials_for(settings, read_secret=read_secret))
    return FilesystemStore(settings)
