"""Writes docs/reference/cli.md from the commands themselves: `python -m longshore.cli.reference > docs/reference/cli.md`. A test holds both equal.

Commands that are hidden are left out; every option is there with its environment variable and default. The page depends on nothing but the commands.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

import click

from longshore.cli.lazy import LazyGroup
from longshore.cli.main import root
from longshore.cli.options import with_repository_or_cluster

__all__ = ["commands", "page"]

OPENING = """# Commands

Written from the commands by `python -m longshore.cli.reference`; change those, not this page. `longshore COMMAND --help` says the same. What programs read is
in [json.md](json.md).

An option on the command line goes before its environment variable. Results go to standard output, everything else to standard error.

## Exit codes

| code | meaning |
|---|---|
| 0 | all well |
| 1 | failed |
| 2 | the command line, or something that it names, is wrong |
| 3 | finished, but some items were not captured or restored; they are named on standard error and in the summary |
| 4 | corruption was found |
| 10 | there is no repository at this place |
| 12 | the key does not open this repository |
| 13 | no such snapshot, or no such path in it |
| 14 | the repository was written in a newer format |
| 15 | the store cannot be reached, or refuses |
| 16 | no space is left |
| 130 | interrupted |

## Keys

A key file is one line, `longshore-key-1:` and 64 hexadecimal digits. `--key-file` or `LONGSHORE_KEY_FILE` names it. A passphrase comes from the file that
`--passphrase-file` names (one newline at its end is not part of it), or stands in `LONGSHORE_PASSPHRASE` itself. Neither is ever taken from the command line.
"""


def commands(group: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Walk the tree of commands; groups come before what is in them."""
    yield path, group
    if isinstance(group, LazyGroup):
        ctx = click.Context(group, info_name=path[-1])
        for name in group.list_commands(ctx):
            command = group.get_command(ctx, name)
            assert command is not None
            yield from commands(command, (*path, name))


def _escaped(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


def _option(option: click.Option, ctx: click.Context) -> str:
    record = option.get_help_record(ctx)
    assert record is not None
    names, text = record
    # Click puts default and variable in brackets at the end, two blanks before.
    words, _, extra = text.partition("  [")
    # The range of a number is told by the refusal.
    rest = "; ".join(part for part in re.split(r"[;\]]\s*\[?", extra) if part and "<=x" not in part)
    return f"| `{_escaped(names)}` | {_escaped(words)}{' (' + _escaped(rest) + ')' if rest else ''} |"


def _options(command: click.Command, ctx: click.Context) -> list[click.Option]:
    return [
        p for p in command.get_params(ctx) if isinstance(p, click.Option) and not p.hidden and "--help" not in p.opts
    ]


def _section(path: tuple[str, ...], command: click.Command) -> Iterator[str]:
    ctx = click.Context(command, info_name=" ".join(path), max_content_width=10_000, terminal_width=10_000)
    usage = command.get_usage(ctx).removeprefix("Usage: ")
    yield f"## {' '.join(path)}"
    yield ""
    yield f"`{usage}`"
    yield ""
    if isinstance(command, LazyGroup):
        yield from _paragraphs(command.help or "")
        yield "| command | |"
        yield "|---|---|"
        for name, (_, line) in command.lazy.items():
            yield f"| `{' '.join((*path, name))}` | {_escaped(line)} |"
        yield ""
        yield from _table([_option(option, ctx) for option in _options(command, ctx)])
        return
    yield from _paragraphs(command.help or "")
    options = _options(command, ctx)
    rows = [_option(option, ctx) for option in options]
    yield from _table([row for row in rows if row not in COMMON])
    for names, where in ((REPOSITORY_NAMES, "repository"), (CLUSTER_NAMES, "cluster"), (OUTPUT_NAMES, "output")):
        if names <= {option.name for option in options}:
            yield f"With the [{where} options](#{where}-options)."
            yield ""


def _table(rows: list[str]) -> Iterator[str]:
    if rows:
        yield from ("| option | |", "|---|---|", *rows, "")


def _shared() -> list[click.Option]:
    @click.command()
    @with_repository_or_cluster
    def everything() -> None:
        """Have every shared option."""

    return [option for option in everything.params if isinstance(option, click.Option)]


REPOSITORY_NAMES = {"repository", "key_file", "passphrase_file", "cache_dir", "cache_limit"}
CLUSTER_NAMES = {"kubeconfig", "context", "namespace"}
OUTPUT_NAMES = {"as_json", "quiet", "log_level", "log_format"}
_CONTEXT = click.Context(root, max_content_width=10_000, terminal_width=10_000)
SHARED = {option.name: _option(option, _CONTEXT) for option in _shared()}
COMMON = set(SHARED.values())


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in text.strip().split("\n\n"):
        if paragraph.startswith("\b"):
            yield "```"
            yield from (line.strip() for line in paragraph.splitlines()[1:])
            yield "```"
        else:
            yield re.sub(r"\s+", " ", paragraph).strip()
        yield ""


def page() -> str:
    """The whole page."""
    lines = [OPENING]
    for names, where in ((REPOSITORY_NAMES, "Repository"), (CLUSTER_NAMES, "Cluster"), (OUTPUT_NAMES, "Output")):
        lines += [f"## {where} options", "", *_table([row for name, row in SHARED.items() if name in names])]
    for path, command in commands(root, ("longshore",)):
        lines += _section(path, command)
    return "\n".join(lines).rstrip("\n") + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
