"""What the two long-running commands share: flags and their environment names, Velero's own flags, signals.

Velero's manifests call `node-agent server` with flags of Velero's; a DaemonSet whose image alone was changed must start, so those are accepted, and the ones
without a meaning here are logged once. Nothing here knows what an agent or a server does.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

import click

__all__ = ["LOG_LEVELS", "cluster_command", "cluster_options", "namespace_option", "run_options", "run_until_signal"]

Function = Callable[..., Any]

# Velero's words for levels, and the ones that we have for them.
LOG_LEVELS: Final = {
    "trace": "debug",
    "debug": "debug",
    "info": "info",
    "warning": "warning",
    "error": "error",
    "critical": "critical",
    "fatal": "critical",
    "panic": "critical",
}
# Flags of `velero server`, `velero node-agent server` and `velero restic server`, 1.9 to 1.18, that have no meaning here unless a command has one
# itself. Both of our commands accept all of them: they share most, and which has which moved between versions.
VELERO_VALUES: Final = (
    "--alsologtostderrthreshold",
    "--backup-repository-configmap",
    "--backup-sync-period",
    "--client-burst",
    "--client-page-size",
    "--client-qps",
    "--concurrent-backups",
    "--data-mover-prepare-timeout",
    "--default-backup-ttl",
    "--default-item-operation-timeout",
    "--default-repo-maintain-frequency",
    "--default-restic-prune-frequency",
    "--default-volume-snapshot-locations",
    "--disable-controllers",
    "--features",
    "--fs-backup-timeout",
    "--garbage-collection-frequency",
    "--item-block-worker-count",
    "--item-operation-sync-frequency",
    "--keep-latest-maintenance-jobs",
    "--kubecontext",
    "--log_backtrace_at",
    "--log_dir",
    "--log_file",
    "--log_file_max_size",
    "--maintenance-job-cpu-limit",
    "--maintenance-job-cpu-request",
    "--maintenance-job-mem-limit",
    "--maintenance-job-mem-request",
    "--max-concurrent-k8s-connections",
    "--node-agent-config",
    "--node-agent-configmap",
    "--plugin-dir",
    "--pod-volume-operation-timeout",
    "--profiler-address",
    "--repo-maintenance-job-configmap",
    "--resource-timeout",
    "--restic-timeout",
    "--restore-resource-priorities",
    "--stderrthreshold",
    "--terminating-resource-timeout",
    "--uploader-type",
    "--v",
    "-v",
    "--vmodule",
    "--volume-group-snapshot-label-key",
)
# Go's flags for booleans stand alone, or take a value behind `=`.
VELERO_SWITCHES: Final = (
    "--add_dir_header",
    "--alsologtostderr",
    "--colorized",
    "--default-snapshot-move-data",
    "--default-volumes-to-fs-backup",
    "--default-volumes-to-restic",
    "--disable-informer-cache",
    "--legacy_stderr_threshold_behavior",
    "--logtostderr",
    "--one_output",
    "--restore-only",
    "--schedule-skip-immediately",
    "--skip_headers",
    "--skip_log_headers",
)


class _VeleroCommand(click.Command):
    """A command that sets Velero's own flags aside before its own are read."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {name for param in self.params for name in param.opts}
        kept: list[str] = []
        unused: list[str] = []
        at = 0
        while at < len(args):
            word, equals, _ = args[at].partition("=")
            if word in own:
                kept.append(args[at])
            elif word in VELERO_SWITCHES:
                unused.append(word)
            elif word in VELERO_VALUES:
                unused.append(word)
                at += 0 if equals else 1
            else:
                kept.append(args[at])
            at += 1
        ctx.meta["longshore.unused"] = unused
        return super().parse_args(ctx, kept)


def cluster_command(name: str) -> Callable[[Function], click.Command]:
    """A command that accepts Velero's own flags, too; it gets the ones that it does not use as `unused`."""

    def decorate(function: Function) -> click.Command:
        @click.pass_context
        @functools.wraps(function)
        def call(ctx: click.Context, *args: Any, **kwargs: Any) -> Any:
            return function(*args, unused=tuple(ctx.meta["longshore.unused"]), **kwargs)

        made = click.command(name, cls=_VeleroCommand)(call)
        assert isinstance(made, click.Command)
        return made

    return decorate


def namespace_option(meaning: str) -> Callable[[Function], Function]:
    """`--namespace`, the one in which Velero and we live; `meaning` is its help."""
    return click.option(
        "--namespace",
        "-n",
        metavar="NAME",
        default="velero",
        envvar="VELERO_NAMESPACE",
        show_envvar=True,
        show_default=True,
        help=meaning,
    )


_LOG_OPTIONS: Final = (
    click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        envvar="LONGSHORE_LOG_FORMAT",
        show_envvar=True,
        show_default=True,
        help="How log records are written.",
    ),
    click.option(
        "--log-level",
        type=click.Choice(list(LOG_LEVELS), case_sensitive=False),
        default="info",
        envvar="LONGSHORE_LOG_LEVEL",
        show_envvar=True,
        show_default=True,
        help="Log records from this level on.",
    ),
)
_METRICS_OPTION: Final = click.option(
    "--metrics-address",
    metavar="HOST:PORT",
    default=":8085",
    envvar="LONGSHORE_METRICS_ADDRESS",
    show_envvar=True,
    show_default=True,
    help="Where /metrics, /healthz and /readyz are served.",
)
_API_OPTIONS: Final = (
    namespace_option("Where Velero's custom resources live."),
    click.option(
        "--kubeconfig",
        metavar="FILE",
        help="How to reach the API server.  [default: KUBECONFIG, else the pod's service account]",
    ),
)


def cluster_options(function: Function) -> Function:
    """Add the flags that all processes of a cluster have which serve until they are told to end."""
    return _with((*_LOG_OPTIONS, _METRICS_OPTION, *_API_OPTIONS), function)


def run_options(function: Function) -> Function:
    """Add the flags of a process that does one thing in a cluster and ends: the same, but nothing is served."""
    return _with((*_LOG_OPTIONS, *_API_OPTIONS), function)


def _with(options: tuple[Callable[[Function], Function], ...], function: Function) -> Function:
    for option in options:
        function = option(function)
    return function


def run_until_signal(
    run: Callable[[threading.Event], int], *, level: str, log_format: str, unused: tuple[str, ...]
) -> int:
    """Run until it ends, or until SIGTERM or Ctrl-C asks it to; a second Ctrl-C leaves at once.

    Args:
        run: returns the exit code; ends soon after the event is set.
        level: Velero's word or ours.
        log_format: json or text.
        unused: Velero's flags that have no meaning here.

    Returns:
        The exit code.
    """
    from longshore.cli.options import set_up_logs
    from longshore.logs import get_logger

    set_up_logs(LOG_LEVELS[level.lower()], log_format)
    log = get_logger(__name__)
    if unused:
        log.warning("Ignoring flags of Velero that have no meaning here", flags=sorted(set(unused)))
    stop = threading.Event()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            os._exit(130)
        stop.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        return run(stop)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
