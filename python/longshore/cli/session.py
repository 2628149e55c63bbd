"""One call of a command on a repository: where it is, which key opens it, and how the command speaks.

Nothing is opened, read or imported before a command asks for it, so that a wrong word is told before a store is reached.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from longshore.cli.keys import KeySource
from longshore.cli.output.sink import Output
from longshore.errors import UsageError

if TYPE_CHECKING:
    from longshore.datapath import Repository, StoreSettings

__all__ = ["Session"]


@dataclass(frozen=True, slots=True)
class Session:
    """What the common options said."""

    output: Output
    url: str | None
    key: KeySource | UsageError
    cache: str | None
    cache_limit: int | None
    set_up_logs: Callable[[], None]
    limit_upload: int | None = None
    """Bytes a second that jobs may send; None for no limit."""
    limit_download: int | None = None
    """Bytes a second that jobs may fetch; None for no limit."""
    limit_requests: int | None = None
    """Requests that may be under way at once; None for no limit."""
    nice: int | None = None
    """Niceness of the threads of jobs; None for the process's."""
    ionice: str = "none"
    """Class of their reads and writes; none for the process's."""

    @property
    def repository_url(self) -> str:
        """The repository as it was named.

        Raises:
            UsageError: it was not.
        """
        if not self.url:
            raise UsageError("no repository is named", "give --repository URL, or set LONGSHORE_REPOSITORY")
        return self.url

    @property
    def store(self) -> StoreSettings:
        """The store that the URL names; a word without a scheme is a folder.

        Raises:
            StoreDeniedError: a bucket, and no credentials for it.
            UsageError: no repository is named, or the URL makes no sense.
            UnsupportedError: a store that is not served.
        """
        url = self.repository_url
        from longshore import datapath

        self.set_up_logs()
        if "://" not in url:
            return datapath.FolderStore(path=os.path.abspath(url))  # noqa: PTH100 - keeps any bytes, and follows no link
        return datapath.store_from_url(url, environ=os.environ)

    @property
    def folder(self) -> Path | None:
        """The real path of the repository's folder; None when it lies in a bucket."""
        from longshore import datapath

        store = self.store
        return Path(os.path.realpath(store.path)) if isinstance(store, datapath.FolderStore) else None

    @property
    def key_source(self) -> KeySource:
        """Where the key is.

        Raises:
            UsageError: none was given, or two.
        """
        if isinstance(self.key, UsageError):
            raise self.key
        return self.key

    @property
    def cache_dir(self) -> str | None:
        """The folder of the local cache: as given, else below XDG_CACHE_HOME, else below ~/.cache; None when there is no home."""
        if self.cache:
            return os.path.abspath(self.cache)  # noqa: PTH100 - keeps any bytes, and follows no link
        # The XDG specification: a path that is not absolute is to be ignored.
        base = os.environ.get("XDG_CACHE_HOME", "")
        if not base.startswith("/"):
            home = os.path.expanduser("~")  # noqa: PTH111 - Path.home raises where there is none
            if not home.startswith("/") or not Path(home).is_dir():
                return None
            base = f"{home}/.cache"
        return f"{base}/longshore"

    def open(self) -> Repository:
        """Open the repository.

        Raises:
            LongshoreError: as its kind says: not found, another key, newer, unreachable.
        """
        from longshore import datapath

        store, key_source = self.store, self.key_source
        limits = datapath.Limits(nice=self.nice, ionice=self.ionice)
        limits.set(
            upload_bytes_per_second=self.limit_upload,
            download_bytes_per_second=self.limit_download,
            requests=self.limit_requests,
        )
        return datapath.open(
            store, key_source.load(), cache_dir=self.cache_dir, cache_limit_bytes=self.cache_limit, limits=limits
        )
