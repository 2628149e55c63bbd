"""`longshore repo key add|export|import`: one more key slot.

`export` writes a fresh key to a new file and adds a slot for it: the file opens the repository from then on, beside the keys that did before. The file is on
the disk before the slot is made, and goes again when the slot could not be made.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from longshore.cli.keys import KeySource, write_new
from longshore.cli.options import with_repository
from longshore.cli.output.words import quoted
from longshore.cli.session import Session
from longshore.errors import LongshoreError, UsageError

if TYPE_CHECKING:
    from longshore.datapath import Key

__all__ = ["add", "export", "import_"]

LABEL = click.option("--label", metavar="TEXT", default="", help="What the slot is called, for people.")


@click.command("add")
@click.option("--new-key-file", metavar="FILE", help="A key file; one that is not there is written.")
@click.option("--new-passphrase-file", metavar="FILE", help="A file with a passphrase.")
@LABEL
@with_repository
def add(session: Session, *, new_key_file: str | None, new_passphrase_file: str | None, label: str) -> int:
    """Let one more key or passphrase open the repository."""
    if (new_key_file is None) == (new_passphrase_file is None):
        raise UsageError("what is to be added is not clear", "give --new-key-file or --new-passphrase-file")
    if new_key_file is not None and not Path(new_key_file).exists():
        return _add_fresh(session, new_key_file, label)
    return _add(session, KeySource(key_file=new_key_file, passphrase_file=new_passphrase_file), label)


@click.command("export")
@click.argument("file", type=click.Path(), metavar="FILE")
@LABEL
@with_repository
def export(session: Session, *, file: str, label: str) -> int:
    """Write a new key file that opens the repository.

    FILE gets a fresh key, and the repository a slot for it; the keys that opened it before still do. Keep FILE somewhere else than the repository and
    the machine that is backed up.
    """
    return _add_fresh(session, file, label or "exported")


@click.command("import")
@click.argument("file", type=click.Path(), metavar="FILE")
@LABEL
@with_repository
def import_(session: Session, *, file: str, label: str) -> int:
    """Let the key in an existing file open the repository."""
    return _add(session, KeySource(key_file=file), label or "imported")


def _add(session: Session, source: KeySource, label: str) -> int:
    key = source.load()
    slot = session.open().add_slot(key, label=label)
    return _say(session, slot, source.key_file, label, written=False)


def _add_fresh(session: Session, file: str, label: str) -> int:
    from longshore import datapath

    repository = session.open()
    key: Key = datapath.Key.generate()
    write_new(file, key.to_file_text())
    try:
        slot = repository.add_slot(key, label=label)
    except LongshoreError:
        # A slot that was made all the same has no key any more, and harms nobody.
        Path(file).unlink(missing_ok=True)
        raise
    return _say(session, slot, file, label, written=True)


def _say(session: Session, slot: str, file: str | None, label: str, *, written: bool) -> int:
    lines = [f"Added key slot {slot}" + (f" for {quoted(file)}" if file else " for the passphrase")]
    if written and file:
        lines.append(f"Keep {quoted(file)} safe: whoever has it and the repository can read everything.")
    session.output.summary(
        {"slot": slot, "label": label, "key_file": file, "key_file_written": written, "exit_code": 0}, lines
    )
    return 0
