"""`longshore repo key add|export|import`: one more key slot.

`export` writes a fresh key to a new file and adds a slot for it: the file opens the repository from then on, beside the keys that did before. The file is on
the disk before the slot is made, and stays when that fails: the slot may have arrived all the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from longshore.cli.keys import KeySource, write_new
from longshore.cli.options import with_repository_or_cluster
from longshore.cli.output.words import quoted
from longshore.cli.repo.cluster import ClusterSession
from longshore.cli.repo.key import in_cluster
from longshore.cli.session import Session
from longshore.errors import UsageError

if TYPE_CHECKING:
    from longshore.datapath import Key

__all__ = ["add", "export", "import_"]

LABEL = click.option("--label", metavar="TEXT", default="", help="What the slot is called, for people.")
Either = Session | ClusterSession


@click.command("add")
@click.option("--new-key-file", metavar="FILE", help="A key file; one that is not there is written.")
@click.option("--new-passphrase-file", metavar="FILE", help="A file with a passphrase.")
@click.option("--slots-only", is_flag=True, help="In a cluster: lay no Secret down for repositories to come.")
@LABEL
@with_repository_or_cluster
def add(
    session: Either, *, new_key_file: str | None, new_passphrase_file: str | None, slots_only: bool, label: str
) -> int:
    """Let one more key or passphrase open the repository.

    Without --repository it becomes the recovery key of the cluster: each repository gets a slot for it, and so does each new one, for the key is laid down in
    Secret longshore-recovery too, unless --slots-only is given. Keep the file outside of the cluster.
    """
    if (new_key_file is None) == (new_passphrase_file is None):
        raise UsageError("what is to be added is not clear", "give --new-key-file or --new-passphrase-file")
    if isinstance(session, ClusterSession):
        _no_label(label)
        return in_cluster.add(
            session, key_file=new_key_file, passphrase_file=new_passphrase_file, slots_only=slots_only
        )
    if slots_only:
        raise UsageError("--slots-only is for a cluster's repositories", "leave it out")
    if new_key_file is not None and not Path(new_key_file).exists():
        return _add_fresh(session, new_key_file, label)
    return _add(session, KeySource(key_file=new_key_file, passphrase_file=new_passphrase_file), label)


@click.command("export")
@click.argument("file", type=click.Path(), metavar="FILE")
@LABEL
@with_repository_or_cluster
def export(session: Either, *, file: str, label: str) -> int:
    """Write a new key file that opens the repository.

    FILE gets a fresh key, and the repository a slot for it; the keys that opened it before still do. Keep FILE somewhere else than the repository and
    the machine that is backed up.

    Without --repository FILE gets the key with which the cluster makes and opens its repositories, and condition RecoveryKeyMissing ends. Keys of older
    repositories, which the cluster keeps beside it, go into files of their own: FILE and the end of their entry's name.
    """
    if isinstance(session, ClusterSession):
        _no_label(label)
        return in_cluster.export(session, file)
    return _add_fresh(session, file, label or "exported")


@click.command("import")
@click.argument("file", type=click.Path(), metavar="FILE")
@click.option(
    "--beside", is_flag=True, help="In a cluster: beside the key that is there, which still makes new repositories."
)
@LABEL
@with_repository_or_cluster
def import_(session: Either, *, file: str, beside: bool, label: str) -> int:
    """Let the key in an existing file open the repository.

    Without --repository the key is laid down in a cluster that has none, as after the loss of another: its agents open the repositories that it opens, and make
    new ones with it. A key that is there is never replaced.
    """
    if isinstance(session, ClusterSession):
        _no_label(label)
        return in_cluster.import_(session, file, beside=beside)
    if beside:
        raise UsageError("--beside is for a cluster's repositories", "leave it out")
    return _add(session, KeySource(key_file=file), label or "imported")


def _no_label(label: str) -> None:
    if label:
        raise UsageError("a cluster's slots have labels of their own: option=--label", "leave it out")


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
    except BaseException:
        # Its slot may have arrived, and whoever takes other slots away may then rely on it.
        session.output.say(
            f"the new key file stays, because its slot may be there: go on with longshore repo key import {quoted(file)}"
        )
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
