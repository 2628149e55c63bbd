"""Options that commands share, as decorators; a command takes them as one `session` or one `output`.

Names and environment variables are what users and scripts hold on to; they stand here once.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from longshore.cli.cluster import namespace_option
from longshore.cli.keys import KeySource, choose
from longshore.cli.output.sink import JsonOutput, Output, TextOutput
from longshore.cli.session import Session
from longshore.cli.values import BYTES
from longshore.errors import UsageError

if TYPE_CHECKING:
    from longshore.cli.repo.cluster import ClusterSession

__all__ = [
    "cache_options",
    "cluster_session_options",
    "fresh_option",
    "limit_options",
    "list_options",
    "log_options",
    "output_options",
    "priority_options",
    "set_up_logs",
    "traffic_options",
    "with_cluster",
    "with_options",
    "with_repository",
    "with_repository_or_cluster",
    "yes_option",
]

LOGS: Final = "longshore.logs"
LEVELS: Final = ("debug", "info", "warning", "error", "critical")
Function = Callable[..., Any]


def set_up_logs(level: str, log_format: str) -> None:
    """Send log records to standard error, the engine's too."""
    from longshore import datapath, logs

    logs.configure(level=level, format=log_format)
    # The engine has no level beyond error.
    datapath.set_log_level("error" if level == "critical" else level)


def log_options(function: Function) -> Function:
    """Add `--log-level` and `--log-format`."""
    for option in (
        click.option(
            "--log-format",
            type=click.Choice(["text", "json"]),
            default="text",
            show_default=True,
            help="How log records are written.",
        ),
        click.option(
            "--log-level",
            type=click.Choice(LEVELS),
            default="warning",
            show_default=True,
            help="Log records from this level on.",
        ),
    ):
        function = option(function)
    return function


def output_options(function: Function) -> Function:
    """Add `--json`, `--quiet` and the log options; the command gets them as `output`."""

    @log_options
    @click.option("--quiet", "-q", is_flag=True, help="No progress, no notes, no summary: results and errors alone.")
    @click.option(
        "--json", "as_json", is_flag=True, help="One JSON object a line on standard output, and nothing else there."
    )
    @functools.wraps(function)
    def command(*args: Any, as_json: bool, quiet: bool, log_level: str, log_format: str, **kwargs: Any) -> Any:
        # Setting logging up costs more than some commands do in all: it is put off until the data path is loaded.
        click.get_current_context().meta[LOGS] = (log_level, log_format)
        output: Output = JsonOutput(quiet=quiet) if as_json else TextOutput(quiet=quiet)
        return function(*args, output=output, **kwargs)

    return command


def cache_options(*, default: str | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Where local copies lie and what they may take: `cache_dir` and `cache_limit`.

    Args:
        default: the folder when none is named; None for no cache then.
    """
    shown = f"  [default: {default}]" if default else ""
    folder = click.option(
        "--cache-dir",
        metavar="DIR",
        envvar="LONGSHORE_CACHE_DIR",
        show_envvar=True,
        help=f"Local cache; it makes things faster and may be deleted.{shown}",
    )
    limit = click.option(
        "--cache-limit",
        type=BYTES,
        metavar="SIZE",
        envvar="LONGSHORE_CACHE_LIMIT",
        show_envvar=True,
        help="What the caches of all repositories may take together; never more than a tenth of their filesystem. "
        "What was unused for longest goes first.  [default: 5GiB]",
    )
    return lambda function: folder(limit(function))


def with_repository(function: Function) -> Function:
    """Add the repository's options and the output's; the command gets them as `session`."""

    @click.option(
        "--repository",
        "-r",
        metavar="URL",
        envvar="LONGSHORE_REPOSITORY",
        show_envvar=True,
        help="A folder, file:///folder or s3://bucket/prefix.",
    )
    @click.option(
        "--key-file", metavar="FILE", envvar="LONGSHORE_KEY_FILE", show_envvar=True, help="The repository's key."
    )
    @click.option(
        "--passphrase-file",
        metavar="FILE",
        help="A passphrase instead of a key; LONGSHORE_PASSPHRASE may hold the passphrase itself.",
    )
    @cache_options(default="~/.cache/longshore")
    @output_options
    @functools.wraps(function)
    def command(
        *args: Any,
        output: Output,
        repository: str | None,
        key_file: str | None,
        passphrase_file: str | None,
        cache_dir: str | None,
        cache_limit: int | None,
        **kwargs: Any,
    ) -> Any:
        ctx = click.get_current_context()
        level, log_format = ctx.meta[LOGS]
        set_up = functools.partial(set_up_logs, level, log_format)
        key: KeySource | UsageError
        try:
            key = choose(
                key_file=key_file,
                key_file_from_environment=ctx.get_parameter_source("key_file") is ParameterSource.ENVIRONMENT,
                passphrase_file=passphrase_file,
                environment_passphrase=bool(os.environ.get("LONGSHORE_PASSPHRASE")),
            )
        except UsageError as error:
            # Told when the key is asked for: a wrong word elsewhere may come first.
            key = error
        session = Session(
            output=output, url=repository, key=key, cache=cache_dir, cache_limit=cache_limit, set_up_logs=set_up
        )
        return function(*args, session=session, **kwargs)

    return command


def cluster_session_options(function: Function) -> Function:
    """Add the options that lead to a cluster's repositories."""
    for option in (
        namespace_option("Where the cluster's Velero lives."),
        click.option("--context", metavar="NAME", help="A context of the kubeconfig.  [default: its current one]"),
        click.option(
            "--kubeconfig",
            metavar="FILE",
            help="The cluster whose repositories are meant.  [default: KUBECONFIG, else ~/.kube/config]",
        ),
    ):
        function = option(function)
    return function


def with_cluster(function: Function) -> Function:
    """Add the cluster's options and the output's; the command gets them as `session`."""

    @cluster_session_options
    @output_options
    @functools.wraps(function)
    def command(
        *args: Any, output: Output, kubeconfig: str | None, context: str | None, namespace: str, **kwargs: Any
    ) -> Any:
        session = _cluster_session(output, kubeconfig=kubeconfig, context=context, namespace=namespace)
        return function(*args, session=session, **kwargs)

    return command


def with_repository_or_cluster(function: Function) -> Function:
    """Add the options of `with_repository` and of `with_cluster`; the command gets a session of the one that was meant.

    With --repository it is that repository, without it the cluster's. A word on the command line goes before LONGSHORE_REPOSITORY.
    """

    @cluster_session_options
    @with_repository
    @functools.wraps(function)
    def command(
        *args: Any, session: Session, kubeconfig: str | None, context: str | None, namespace: str, **kwargs: Any
    ) -> Any:
        given = _said("kubeconfig", "context", "namespace")
        if given and _said("repository"):
            raise UsageError(
                f"a repository and a cluster are both given: options=--repository, --{given[0]}",
                "leave one of them out",
            )
        if session.url and not given:
            return function(*args, session=session, **kwargs)
        if plain := _said("key_file", "passphrase_file"):
            raise UsageError(
                f"a cluster's repositories are opened with the cluster's keys: option=--{plain[0].replace('_', '-')}",
                "leave it out, or name a repository with --repository URL",
            )
        cluster = _cluster_session(session.output, kubeconfig=kubeconfig, context=context, namespace=namespace)
        return function(*args, session=cluster, **kwargs)

    return command


def _said(*names: str) -> list[str]:
    """Which of these options stand on the command line itself."""
    ctx = click.get_current_context()
    return [name for name in names if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]


def _cluster_session(output: Output, *, kubeconfig: str | None, context: str | None, namespace: str) -> ClusterSession:
    from longshore.cli.repo.cluster import ClusterSession

    level, log_format = click.get_current_context().meta[LOGS]
    return ClusterSession(
        output=output,
        kubeconfig=kubeconfig,
        context=context,
        namespace=namespace,
        set_up_logs=functools.partial(set_up_logs, level, log_format),
    )


def limit_options(*, upload: bool) -> Callable[[Function], Function]:
    """Bound what a job takes of network, store and processors; the session that the command gets opens repositories with it.

    Stands above `with_repository`. Bounds of traffic have the names that restic gave them.

    Args:
        upload: the command writes, too: `--limit-upload` beside `--limit-download`.
    """

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def command(
            *args: Any,
            session: Session,
            limit_download: int | None,
            limit_requests: int | None,
            nice: int | None,
            ionice: str,
            limit_upload: int | None = None,
            **kwargs: Any,
        ) -> Any:
            session = replace(
                session,
                limit_upload=limit_upload,
                limit_download=limit_download,
                limit_requests=limit_requests,
                nice=nice,
                ionice=ionice,
            )
            return function(*args, session=session, **kwargs)

        return with_options([*traffic_options()[0 if upload else 1 :], *priority_options()], command)

    return decorate


Option = Callable[[Function], Function]


def with_options(options: Iterable[Option], function: Function) -> Function:
    """Add options, which stand in the command's help in this order."""
    for option in reversed(list(options)):
        function = option(function)
    return function


def traffic_options(env: str = "") -> tuple[Option, Option, Option]:
    """Give `--limit-upload`, `--limit-download` and `--limit-requests`.

    Args:
        env: begins the names of their environment; empty for none.
    """

    def option(name: str, **more: Any) -> Option:
        return click.option(f"--limit-{name}", **more, **_environment(env, f"LIMIT_{name.upper()}"))

    return (
        option(
            "upload", type=BYTES, metavar="SIZE", help="Send at most so many bytes a second to the store, e.g. 5MiB."
        ),
        option(
            "download",
            type=BYTES,
            metavar="SIZE",
            help="Fetch at most so many bytes a second from the store, e.g. 20MiB.",
        ),
        option(
            "requests",
            type=click.IntRange(1, 10_000),
            metavar="N",
            help="Have at most so many requests to the store under way at once.",
        ),
    )


def priority_options(env: str = "", *, nice: int | None = None, ionice: str = "none") -> tuple[Option, Option]:
    """Give `--nice` and `--ionice`.

    Args:
        env: begins the names of their environment; empty for none.
        nice: the default; None for that of the process.
        ionice: the default.
    """
    return (
        click.option(
            "--nice",
            type=click.IntRange(0, 19),
            metavar="N",
            default=nice,
            show_default=nice is not None,
            help="Niceness of the threads that do the work, 0 to 19.",
            **_environment(env, "NICE"),
        ),
        click.option(
            "--ionice",
            type=click.Choice(["none", "best-effort", "idle"]),
            default=ionice,
            show_default=True,
            help="Their priority at the disk: the process's own, the last among others, or only while nobody else wants it.",
            **_environment(env, "IONICE"),
        ),
    )


def _environment(env: str, name: str) -> dict[str, Any]:
    return {"envvar": f"{env}_{name}", "show_envvar": True} if env else {}


def fresh_option(function: Function) -> Function:
    """Add `--fresh`."""
    return click.option(
        "--fresh",
        is_flag=True,
        help="Begin anew: read what an interrupted run of the same command has read, too.",
    )(function)


def list_options(function: Function) -> Function:
    """Add `--output table|json|yaml` for lists."""
    return click.option(
        "--output",
        "-o",
        "form",
        type=click.Choice(["table", "json", "yaml"]),
        default="table",
        show_default=True,
        help="A table, or one document with the fields of the rows of --json.",
    )(function)


def yes_option(function: Function) -> Function:
    """Add `--yes`."""
    return click.option("--yes", "-y", is_flag=True, help="Do not ask.")(function)
