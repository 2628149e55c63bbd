"""The entry of `longshore` and `kubectl-longshore`: finds the command, runs it, and turns whatever happens into a message and an exit code.

Promises: `--help` loads nothing but click; exit codes are the table of :mod:`longshore.errors` and nothing else; an error is `error: …` and `next: …` on
standard error, with `--json` an error line and a summary line on standard output too; a traceback is shown to who asks with `--log-level debug`, and then
without secrets in it.
"""

from __future__ import annotations

import errno
import itertools
import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from longshore.cli.lazy import LazyGroup
from longshore.errors import InternalError, InterruptedByUserError, LongshoreError, NoSpaceError, UsageError

__all__ = ["main", "root"]

COMMANDS: Final = {
    "volume": ("longshore.cli.volume:group", "Back up, look into and restore directories."),
    "repo": ("longshore.cli.repo:group", "Make, look at, check, repair and prune repositories, and their keys."),
    "node-agent": ("longshore.cli.node_agent:command", "Serve PodVolumeBackups and PodVolumeRestores of one node."),
    "server": ("longshore.cli.server:command", "Serve repositories and storage locations of a cluster."),
    "install": ("longshore.cli.install:command", "Install or update Longshore in a cluster."),
    "uninstall": (
        "longshore.cli.install:uninstall_command",
        "Remove server, agents and their rights from a cluster; keys, locations and backups stay.",
    ),
    "status": ("longshore.cli.status:command", "Tell whether every volume of a cluster is safe."),
    "version": ("longshore.cli.version:command", "Show the versions of this program."),
    "completion": ("longshore.cli.completion:command", "Print a script that completes commands in a shell."),
}
# Velero up to 1.9 called its agent so: `velero restic server`.
ALIASES: Final = {"restic": "node-agent"}
COMPLETE_VARIABLE: Final = "_LONGSHORE_COMPLETE"


def _version(ctx: click.Context, _parameter: click.Parameter, asked: object) -> None:
    """Do what `longshore version` does, for who looks for it here."""
    if not asked or ctx.resilient_parsing:
        return
    from longshore.cli.version import command

    ctx.exit(command.main(args=[], prog_name=f"{ctx.command_path} version", standalone_mode=False))


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    aliases=ALIASES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Start with: longshore repo init --repository /backups --key-file ~/longshore.key",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the versions of this program, as its command does.",
)
def root() -> None:
    """Backup of volumes: encrypted, deduplicated, compressed; of pods in a cluster, or of any directory."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        argv: words after the program's name; those of the process when None.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(words)
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
        return LongshoreError.exit_code
    return code


def _run(words: list[str]) -> int:
    try:
        answer = root.main(args=words, prog_name=_program(), standalone_mode=False, complete_var=COMPLETE_VARIABLE)
    except click.exceptions.NoArgsIsHelpError as error:
        sys.stderr.write(error.format_message() + "\n")
        return UsageError.exit_code
    except BrokenPipeError:
        raise
    except BaseException as error:  # the last net: an operator never faces a traceback they did not ask for
        failure = _as_failure(error)
        if failure is None:
            raise
        _trace(words, error, failure)
        _tell(words, failure)
        return failure.exit_code
    return answer if isinstance(answer, int) else 0


def _as_failure(error: BaseException) -> LongshoreError | None:
    """Say in our own words what happened; None for what is not ours to catch."""
    match error:
        case LongshoreError():
            return error
        case click.UsageError():
            where = error.ctx.command_path if error.ctx else _program()
            return UsageError(_lowered(error.format_message()), f"see {where} --help")
        case click.ClickException():
            return UsageError(_lowered(error.format_message()))
        case KeyboardInterrupt() | click.Abort():
            return InterruptedByUserError("interrupted", "run the same command again")
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return NoSpaceError(
                f"no space is left: error={error.strerror}, file={error.filename}",
                "free space, then run the same command again",
            )
        case OSError():
            of = f", file={os.fsdecode(error.filename)}" if isinstance(error.filename, str | bytes) else ""
            return LongshoreError(f"the system refused: error={error.strerror or error}{of}")
        case MemoryError():
            return LongshoreError("not enough memory", "lower --memory-limit, or use a machine with more memory")
        case Exception():
            return InternalError(
                f"a fault of longshore itself: {type(error).__name__}: {error}",
                "run it again with --log-level debug to see where, and report that",
            )
        case _:
            return None


def _tell(words: list[str], failure: LongshoreError) -> None:
    from longshore.cli.output.sink import JsonOutput, Output, TextOutput

    # The options may not have been read, so the words are asked.
    as_json = "--json" in _before_double_dash(words)
    output: Output = JsonOutput() if as_json else TextOutput()
    output.error(failure)
    output.summary({"exit_code": failure.exit_code}, [])


def _trace(words: list[str], error: BaseException, failure: LongshoreError) -> None:
    """Show the traceback to who asked for it."""
    before = _before_double_dash(words)
    if "--log-level=debug" not in before and ("--log-level", "debug") not in itertools.pairwise(before):
        return
    from longshore.logs import configure, get_logger

    configure(level="debug", format="text")
    get_logger(__name__).debug("Command failed", code=failure.code, exc_info=error)


def _before_double_dash(words: list[str]) -> list[str]:
    return words[: words.index("--")] if "--" in words else words


def _lowered(text: str) -> str:
    """Click's sentences in the house's style: lower case, no full stop."""
    text = text.strip().rstrip(".")
    return text[:1].lower() + text[1:]


def _program() -> str:
    return "kubectl longshore" if sys.argv and sys.argv[0].endswith("kubectl-longshore") else "longshore"


def _forget_stdout() -> None:
    """Whoever read our output has gone: let nothing be said there again, not even at the interpreter's end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
