"""Questions before something is gone for good: asked on a terminal, refused elsewhere unless `--yes` was given."""

from __future__ import annotations

import sys

from longshore.cli.output.sink import Output
from longshore.errors import UsageError

__all__ = ["confirm"]


def confirm(question: str, *, yes: bool, output: Output) -> bool:
    """Ask.

    Args:
        question: what is about to be done, without a question mark.
        yes: it was answered on the command line.
        output: where the question is written (standard error).

    Returns:
        Whether to go on.

    Raises:
        UsageError: nobody is there to be asked.
    """
    if yes:
        return True
    if output.as_json or not sys.stdin.isatty() or not sys.stderr.isatty():
        raise UsageError("this deletes, and there is no terminal to ask on", "add --yes to do it without being asked")
    output.stderr.write(f"{question}? [y/N] ")
    output.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
