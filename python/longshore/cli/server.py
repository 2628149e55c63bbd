"""`longshore server`: the one process for what does not belong to a node. Turns flags into settings; the server itself is :mod:`longshore.server`."""

from __future__ import annotations

import threading
from pathlib import Path

import click

from longshore.cli.cluster import cluster_command, cluster_options, run_until_signal
from longshore.cli.values import SPAN

__all__ = ["command"]


@cluster_command("server")
@click.option(
    "--default-backup-storage-location",
    metavar="NAME",
    default="default",
    show_default=True,
    help="The location that is meant where none is named.",
)
@click.option(
    "--store-validation-frequency",
    type=SPAN,
    metavar="SPAN",
    default="1m",
    show_default=True,
    help="How often a location is looked at that does not say itself, e.g. 5m; 0s for never again.",
)
@click.option(
    "--cache-dir", metavar="DIR", envvar="LONGSHORE_CACHE_DIR", show_envvar=True, help="Local cache; it may be deleted."
)
@cluster_options
def command(
    *,
    kubeconfig: str | None,
    namespace: str,
    metrics_address: str,
    log_level: str,
    log_format: str,
    default_backup_storage_location: str,
    store_validation_frequency: float,
    cache_dir: str | None,
    unused: tuple[str, ...],
) -> int:
    """Serve repositories and storage locations of a cluster.

    Flags of Velero's server are accepted, so that Velero's own Deployment can start it; those without a meaning here are named once in the log.
    """

    def serve(stop: threading.Event) -> int:
        from longshore.server import ServerSettings, run

        settings = ServerSettings(
            namespace=namespace,
            kubeconfig=kubeconfig,
            metrics_address=metrics_address,
            cache_dir=Path(cache_dir) if cache_dir else None,
            default_backup_storage_location=default_backup_storage_location,
            store_validation_frequency_seconds=store_validation_frequency,
        )
        return run(settings, stop)

    return run_until_signal(serve, level=log_level, log_format=log_format, unused=unused)
