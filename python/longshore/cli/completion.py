"""`longshore completion bash|zsh|fish`: a script that completes commands and options, as the shell itself would."""

from __future__ import annotations

from typing import Final

import click

__all__ = ["command"]

# The backspace keeps click from filling the lines into one.
HELP: Final = """Print a script that completes commands in a shell.

\b
bash:  source <(longshore completion bash)
zsh:   source <(longshore completion zsh)
fish:  longshore completion fish | source
"""


@click.command("completion", help=HELP)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]), metavar="bash|zsh|fish")
def command(*, shell: str) -> int:
    """Print a script that completes commands in a shell."""
    from click.shell_completion import get_completion_class

    from longshore.cli.main import COMPLETE_VARIABLE, root

    found = get_completion_class(shell)
    assert found is not None
    completer = found(root, {}, "longshore", COMPLETE_VARIABLE)
    # Filled in here, because click would first ask which bash is on this machine: the script may be for another.
    click.echo(completer.source_template % completer.source_vars())
    return 0
