"""`longshore repo init`: make a repository, and the key file that opens it.

A key file that is there is used; one that is not is written, before the repository is made, so that no repository is ever without its key. Where nothing was
made, no new key file stays behind; where that cannot be known, the key file stays.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from longshore.cli.keys import write_new
from longshore.cli.options import with_repository
from longshore.cli.output.tables import facts
from longshore.cli.output.words import quoted
from longshore.cli.session import Session
from longshore.errors import LongshoreError, RepositoryExistsError

if TYPE_CHECKING:
    from longshore.datapath import Key, Repository, StoreSettings

__all__ = ["command"]


@click.command("init")
@click.option("--label", metavar="TEXT", default="", help="What the first key slot is called, for people.")
@with_repository
def command(session: Session, *, label: str) -> int:
    """Make a repository.

    With --key-file an existing key file is used; where there is none, a new key is written to it. With a passphrase, that is the key.
    Nothing is ever overwritten, and a repository that exists is left alone.
    """
    from longshore import datapath

    output, store, source = session.output, session.store, session.key_source
    if datapath.exists(store):
        raise RepositoryExistsError(
            f"there is a repository already: repository={session.repository_url}",
            "use it with its key, or name another place",
        )
    new_key_file = source.key_file if source.key_file is not None and not Path(source.key_file).exists() else None
    if new_key_file is None:
        repository = datapath.init(
            store, source.load(), cache_dir=session.cache_dir, cache_limit_bytes=session.cache_limit, label=label
        )
    else:
        repository = _init_with_new_key(session, store, new_key_file, label)
    status = repository.status()
    lines = [
        f"Made repository {repository.id}",
        *facts(
            [
                ("where", session.repository_url),
                ("key", f"{new_key_file} (new)" if new_key_file else source.key_file or "the passphrase"),
                ("format", f"version {status.format_version}"),
            ],
            indent="  ",
        ),
        "",
    ]
    lines += _keep_safe(source.key_file)
    options = f"--repository {quoted(session.repository_url)}" + (
        f" --key-file {quoted(source.key_file)}" if source.key_file else ""
    )
    lines += ["", "Next:", f"  longshore volume backup PATH {options}"]
    output.summary(
        {
            "repository": session.repository_url,
            "repository_id": repository.id,
            "format_version": status.format_version,
            "key_file": source.key_file,
            "key_file_written": new_key_file is not None,
            "exit_code": 0,
        },
        lines,
    )
    return 0


def _keep_safe(key_file: str | None) -> list[str]:
    if key_file is None:
        return ["Keep the passphrase safe and in a second place: without it nothing can be restored, by anyone."]
    return [
        f"Keep {quoted(key_file)} safe and in a second place: without it nothing can be restored, by anyone.",
        "Whoever has it and the repository can read everything.",
    ]


def _init_with_new_key(session: Session, store: StoreSettings, key_file: str, label: str) -> Repository:
    from longshore import datapath

    key = datapath.Key.generate()
    write_new(key_file, key.to_file_text())
    try:
        return datapath.init(
            store, key, cache_dir=session.cache_dir, cache_limit_bytes=session.cache_limit, label=label
        )
    except BaseException:
        # Someone else may have been faster, or the store failed: the file goes only when no repository can need it.
        if _is_surely_unused(store, key):
            Path(key_file).unlink(missing_ok=True)
        else:
            session.output.say(f"the new key file stays, because the repository may have been made with it: {key_file}")
        raise


def _is_surely_unused(store: StoreSettings, key: Key) -> bool:
    """Whether no repository is here, or one that this key does not open."""
    from longshore import datapath
    from longshore.errors import RepositoryNotFoundError, WrongKeyError

    try:
        if not datapath.exists(store):
            return True
        datapath.open(store, key)
    except (WrongKeyError, RepositoryNotFoundError):
        return True
    except LongshoreError:
        return False
    return False
