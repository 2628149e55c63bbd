"""`longshore server`: the one process for what does not belong to a node. Turns flags into settings; the server itself is :mod:`longshore.server`."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import click

from longshore.cli.cluster import cluster_command, cluster_options, run_until_signal
from longshore.cli.options import cache_options
from longshore.cli.values import SHARE, SPAN
from longshore.errors import UsageError

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
@cache_options()
@click.option(
    "--default-repo-maintain-frequency",
    "--default-restic-prune-frequency",
    "repo_maintain_frequency",
    type=SPAN,
    metavar="SPAN",
    default="24h",
    show_default=True,
    help="How often maintenance of repositories runs whose objects the server makes; the object's own "
    "maintenanceFrequency counts.",
)
@click.option(
    "--default-verify-frequency",
    type=SPAN,
    metavar="SPAN",
    default="168h",
    show_default=True,
    help="How often the newest snapshots of a repository are read back; 0s for never.",
)
@click.option(
    "--default-verify-sample",
    type=SHARE,
    metavar="SHARE",
    default="100%",
    show_default=True,
    help="The share of the packs that is read each time, for example 5%; all of them in one round.",
)
@click.option(
    "--maintenance",
    type=click.Choice(["job", "server", "off"]),
    envvar="LONGSHORE_MAINTENANCE",
    show_envvar=True,
    help="Where maintenance and verification run: as Kubernetes Jobs, in this process, or nowhere.  "
    "[default: job with --deployment, else server]",
)
@click.option(
    "--deployment",
    metavar="NAME",
    envvar="LONGSHORE_DEPLOYMENT",
    show_envvar=True,
    help="The server's own Deployment, from which Jobs are made.",
)
@click.option(
    "--repo-maintenance-job-configmap",
    metavar="NAME",
    default="",
    help="ConfigMap with nodes, resources and more of maintenance Jobs, as Velero has it.",
)
@click.option(
    "--keep-latest-maintenance-jobs",
    type=click.IntRange(0, 100),
    metavar="N",
    default=3,
    show_default=True,
    help="How many ended Jobs of a repository stay, where the ConfigMap does not say.",
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
    cache_limit: int | None,
    repo_maintain_frequency: float,
    default_verify_frequency: float,
    default_verify_sample: int,
    maintenance: str | None,
    deployment: str | None,
    repo_maintenance_job_configmap: str,
    keep_latest_maintenance_jobs: int,
    unused: tuple[str, ...],
) -> int:
    """Serve repositories and storage locations of a cluster.

    Flags of Velero's server are accepted, so that Velero's own Deployment can start it; those without a meaning here are named once in the log.
    """
    if maintenance == "job" and not deployment:
        raise UsageError(
            "no Deployment is named from which Jobs could be made: option=--maintenance, value=job",
            "name it with --deployment, or say --maintenance=server",
        )

    def serve(stop: threading.Event) -> int:
        from longshore.controllers.maintenance.shared import MaintenanceSettings
        from longshore.server import MaintenanceMode, ServerSettings, run

        settings = ServerSettings(
            namespace=namespace,
            kubeconfig=kubeconfig,
            metrics_address=metrics_address,
            cache_dir=Path(cache_dir) if cache_dir else None,
            cache_limit_bytes=cache_limit,
            default_backup_storage_location=default_backup_storage_location,
            store_validation_frequency_seconds=store_validation_frequency,
            repository_frequency=timedelta(seconds=repo_maintain_frequency),
            maintenance_mode=MaintenanceMode(maintenance or ("job" if deployment else "server")),
            deployment=deployment or "",
            maintenance=MaintenanceSettings(
                verify_frequency=timedelta(seconds=default_verify_frequency),
                verify_parts=default_verify_sample,
                config_map=repo_maintenance_job_configmap,
                keep=keep_latest_maintenance_jobs,
            ),
        )
        return run(settings, stop)

    return run_until_signal(serve, level=log_level, log_format=log_format, unused=unused)
