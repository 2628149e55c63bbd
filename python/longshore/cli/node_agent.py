"""`longshore node-agent [server]`: the DaemonSet's process, one for each node. Turns flags into settings; the agent itself is :mod:`longshore.node_agent`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from longshore.cli.cluster import cluster_command, cluster_options, run_until_signal
from longshore.cli.options import cache_options, priority_options, traffic_options, with_options
from longshore.cli.values import BYTES
from longshore.logs import get_logger

__all__ = ["command"]

_log = get_logger(__name__)

_NICE: Final = 10
"""A tenth of the weight that a thread of a controller has: what renews the Lease and answers probes is not kept waiting by compression."""


def _limit_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add limits of all jobs together, and the folder that goes before them."""
    folder = click.option(
        "--limits-dir",
        metavar="DIR",
        envvar="LONGSHORE_LIMITS_DIR",
        show_envvar=True,
        help="Look for files upload, download and requests here every 10 s: each goes before its flag, for running jobs too.",
    )
    options: list[Callable[[Any], Any]] = [
        *traffic_options("LONGSHORE"),
        folder,
        *priority_options("LONGSHORE", nice=_NICE, ionice="best-effort"),
    ]
    return with_options(options, function)


@cluster_command("node-agent")
@click.argument("word", type=click.Choice(["server"]), required=False, metavar="[server]")
@click.option(
    "--node-name", metavar="NAME", envvar="NODE_NAME", show_envvar=True, help="The node that is served.  Required."
)
@click.option(
    "--host-pods-root",
    metavar="DIR",
    default="/host_pods",
    envvar="LONGSHORE_HOST_PODS_ROOT",
    show_envvar=True,
    show_default=True,
    help="Where the kubelet's pods folder is mounted.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 256),
    metavar="N",
    default=2,
    envvar="LONGSHORE_CONCURRENCY",
    show_envvar=True,
    show_default=True,
    help="Volumes that are worked on at once; fewer when memory does not hold them.",
)
@click.option(
    "--memory-limit",
    type=BYTES,
    metavar="SIZE",
    envvar="LONGSHORE_MEMORY_LIMIT",
    show_envvar=True,
    help="For the buffers of all jobs together, e.g. 512MiB.  [default: a share of the machine's]",
)
@_limit_options
@cache_options()
@click.option(
    "--restore-allow",
    metavar="LIST",
    default="none",
    envvar="LONGSHORE_RESTORE_ALLOW",
    show_envvar=True,
    show_default=True,
    help="What restores bring back though it lends rights: setuid, devices, capabilities, with commas between.",
)
@click.option(
    "--backup-only",
    is_flag=True,
    envvar="LONGSHORE_BACKUP_ONLY",
    show_envvar=True,
    help="Give up writing below --host-pods-root, by Landlock: no restores.",
)
@cluster_options
def command(
    *,
    word: str | None,
    kubeconfig: str | None,
    namespace: str,
    node_name: str | None,
    host_pods_root: str,
    metrics_address: str,
    log_level: str,
    log_format: str,
    concurrency: int,
    memory_limit: int | None,
    limit_upload: int | None,
    limit_download: int | None,
    limit_requests: int | None,
    limits_dir: str | None,
    nice: int,
    ionice: str,
    cache_dir: str | None,
    cache_limit: int | None,
    restore_allow: str,
    backup_only: bool,
    unused: tuple[str, ...],
) -> int:
    """Serve PodVolumeBackups and PodVolumeRestores of one node.

    The word `server` and flags of Velero's node agent are accepted, so that Velero's own DaemonSet can start it.
    """
    _ = word

    def serve(stop: threading.Event) -> int:
        from longshore.controllers.limits import Bounds
        from longshore.controllers.ports import allowances
        from longshore.node_agent import AgentSettings, run

        if backup_only:
            _give_up_writing(Path(host_pods_root))
        settings = AgentSettings(
            node_name=node_name or "",
            namespace=namespace,
            kubeconfig=kubeconfig,
            host_pods_root=Path(host_pods_root),
            cache_dir=Path(cache_dir) if cache_dir else None,
            cache_limit_bytes=cache_limit,
            metrics_address=metrics_address,
            concurrency=concurrency,
            memory_limit_bytes=memory_limit,
            bounds=Bounds(upload=limit_upload, download=limit_download, requests=limit_requests),
            limits_dir=Path(limits_dir) if limits_dir else None,
            nice=nice,
            ionice=ionice,
            restore_allow=allowances(restore_allow, field="--restore-allow"),
        )
        return run(settings, stop)

    return run_until_signal(serve, level=log_level, log_format=log_format, unused=unused)


def _give_up_writing(pods: Path) -> None:
    # Before anything that starts threads is imported: they are bound only from here on.
    from longshore.confinement import forbid_writing_below
    from longshore.errors import UnsupportedError

    try:
        cannot_cut = forbid_writing_below(pods)
    except UnsupportedError as err:
        _log.warning("Writing to volumes is not forbidden by the kernel", error=err, next_step=err.next_step)
    else:
        _log.info("Gave up writing to volumes", below=str(pods))
        if not cannot_cut:
            _log.warning(
                "Cutting files of volumes short is not forbidden by the kernel", next_step="run Linux 6.2 or later"
            )
