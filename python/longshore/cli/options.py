"""Options that commands share, as decorators; a command takes them as one `session` or one `output`.

Names and environment variables are what users and scripts hold on to; they stand here once.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, Final

import click
from click.core import ParameterSource

from longshore.cli.keys import KeySource, choose
from longshore.cli.output.sink import JsonOutput, Output, TextOutput
from longshore.cli.session import Session
from longshore.errors import UsageError

__all__ = ["list_options", "log_options", "output_options", "set_up_logs", "with_repository", "yes_option"]

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
    @click.option(
        "--cache-dir",
        metavar="DIR",
        envvar="LONGSHORE_CACHE_DIR",
        show_envvar=True,
        help="Local cache; it makes things faster and may be deleted.  [default: ~/.cache/longshore]",
    )
    @output_options
    @functools.wraps(function)
    def command(
        *args: Any,
        output: Output,
        repository: str | None,
        key_file: str | None,
        passphrase_file: str | None,
        cache_dir: str | None,
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
        session = Session(output=output, url=repository, key=key, cache=cache_dir, set_up_logs=set_up)
        return function(*args, session=session, **kwargs)

    return command


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
