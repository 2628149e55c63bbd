"""`longshore version`: the versions of this program and of what it stands on."""

from __future__ import annotations

import click

from longshore.cli.options import output_options
from longshore.cli.output.sink import Output
from longshore.cli.output.tables import facts

__all__ = ["command"]


@click.command("version")
@output_options
def command(*, output: Output) -> int:
    """Show the versions of this program."""
    import platform
    from importlib import metadata

    try:
        version = metadata.version("longshore")
    except metadata.PackageNotFoundError:
        version = "unknown"
    python, system = platform.python_version(), f"{platform.system()} {platform.release()} {platform.machine()}"
    output.summary(
        {"version": version, "python": python, "system": system, "exit_code": 0},
        facts([("longshore", version), ("python", python), ("system", system)]),
    )
    return 0
