"""`longshore node-agent [server]`: the DaemonSet's process, one for each node. Turns flags into settings; the agent itself is :mod:`longshore.node_agent`."""

from __future__ import annotations

import threading
from pathlib import Path

import click

from longshore.cli.cluster import cluster_command, cluster_options, run_until_signal
from longshore.cli.options import cache_options
from longshore.cli.values import BYTES
from longshore.logs import get_logger

__all__ = ["command"]

_log = get_logger(__name__)


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
            restore_allow=allowances(restore_allow, field="--restore-allow"),
        )
        return run(settings, stop)

    return run_until_signal(serve, level=log_level, log_format=log_format, unused=unused)


def _give_up_writing(pods: Path) -> None:
    # Before anything that starts threads is imported: they are bound only from here on.
    from longshore.confinement import forbid_writing_below
    from longshore.errors import UnsupportedError

    try:
        forbid_writing_below(pods)
    except UnsupportedError as err:
        _log.warning("Writing to volumes is not forbidden by the kernel", error=err, next_step=err.next_step)
    else:
        _log.info("Gave up writing to volumes", below=str(pods))
