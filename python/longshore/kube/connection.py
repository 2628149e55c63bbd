"""Where the API server is and how to be let in: kubeconfig or service account, turned into the official package's `ApiClient`.

What is taken from the official package: kubeconfig with its merging, exec plugins and token refresh, TLS, proxies, TCP keepalive. What is not: its models,
its retries (urllib3 would sleep through a Retry-After by itself, unseen and not interruptible), its writing to the user's kubeconfig.

A service account's bound token is replaced on disk about once an hour. The official loader reads the file again every minute; whoever gets a 401
nevertheless calls :meth:`Connector.connect` again, which reads everything afresh: token files, client certificates, exec plugins.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from longshore.errors import UsageError

__all__ = ["Connector", "find_connector", "from_kubeconfig", "from_service_account"]

_SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_POOL_SIZE: Final = 32


@dataclass(frozen=True, slots=True)
class Connector:
    """A way to the API server that can be taken again when credentials have changed."""

    described: str
    """Where the settings come from, for messages; holds no secret."""
    load: Callable[[Any], None]
    """Fills a `kubernetes.client.Configuration`."""

    def connect(self, *, user_agent: str) -> Any:
        """Make a fresh `kubernetes.client.ApiClient`.

        Raises:
            UsageError: the settings cannot be read or name no server.
        """
        # By name and inside the call: importing the package costs 0.26 s and 44 MB, which `longshore volume` never needs, and its 1,900 generated files
        # would be type-checked with ours.
        client = importlib.import_module("kubernetes.client")
        configuration = client.Configuration()
        try:
            self.load(configuration)
        except UsageError:
            raise
        except Exception as err:  # the loaders raise ConfigException, OSError, yaml errors, KeyError and more
            raise UsageError(
                f"the connection to the API server cannot be set up: source={self.described}, cause={err}",
                "check the path, the context and that the file can be read",
            ) from err
        configuration.retries = False
        configuration.keep_alive = True
        configuration.connection_pool_maxsize = _POOL_SIZE
        # Go never sends loopback through a proxy; the official package would.
        if (urlsplit(configuration.host).hostname or "") in {"127.0.0.1", "::1", "localhost"}:
            configuration.proxy = None
        api_client = client.ApiClient(configuration)
        api_client.user_agent = user_agent
        return api_client


def from_kubeconfig(path: str | Path | None = None, *, context: str | None = None) -> Connector:
    """Use a kubeconfig file.

    Args:
        path: None means `$KUBECONFIG` (several files joined by a colon are merged), else `~/.kube/config`.
        context: None means the file's current context.
    """
    where = str(path) if path is not None else os.environ.get("KUBECONFIG") or str(Path("~/.kube/config").expanduser())

    def load(configuration: Any) -> None:
        config = importlib.import_module("kubernetes.config")
        config.load_kube_config(
            config_file=where, context=context, client_configuration=configuration, persist_config=False
        )

    return Connector(described=where, load=load)


def from_service_account(directory: Path = _SERVICE_ACCOUNT) -> Connector:
    """Use the service account that Kubernetes mounts into a pod."""

    def load(configuration: Any) -> None:
        loader = importlib.import_module("kubernetes.config.incluster_config")
        loader.InClusterConfigLoader(
            token_filename=str(directory / "token"), cert_filename=str(directory / "ca.crt")
        ).load_and_set(configuration)

    return Connector(described=str(directory), load=load)


def find_connector(kubeconfig: str | Path | None = None, *, context: str | None = None) -> Connector:
    """Choose as kubectl does: the given file, `$KUBECONFIG`, `~/.kube/config`, and the service account where none of them is there."""
    given = kubeconfig is not None or bool(os.environ.get("KUBECONFIG"))
    if not given and not Path("~/.kube/config").expanduser().exists() and (_SERVICE_ACCOUNT / "token").exists():
        return from_service_account()
    return from_kubeconfig(kubeconfig, context=context)
