"""`longshore server`: the one process for what does not belong to a node. Turns flags into settings; the server itself is :mod:`longshore.server`."""

from __future__ import annotations

import threading
from pathlib import Path

import click

from longshore.cli.cluster import cluster_command, cluster_options, run_until_signal

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
    cache_dir: str | None,
    unused: tuple[str, ...],
) -> int:
    """Serve repositories and storage locations of a cluster."""

    def serve(stop: threading.Event) -> int:
        from longshore.server import ServerSettings, run

        settings = ServerSettings(
            namespace=namespace,
            kubeconfig=kubeconfig,
            metrics_address=metrics_address,
            cache_dir=Path(cache_dir) if cache_dir else None,
            default_backup_storage_location=default_backup_storage_location,
        )
        return run(settings, stop)

    return run_until_signal(serve, level=log_level, log_format=log_format, unused=unused)
