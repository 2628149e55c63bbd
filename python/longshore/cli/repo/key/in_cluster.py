"""`longshore repo key …` without `--repository`: the keys of a cluster's repositories, through its kubeconfig.

A file is on the disk before anything in the cluster is told of it, and goes again only where nothing can need it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from longshore.cli.asking import confirm
from longshore.cli.keys import read_passphrase, write_new
from longshore.cli.output.tables import Column, render
from longshore.cli.output.words import quoted
from longshore.cli.repo.cluster import ClusterSession, Outcome
from longshore.errors import AlreadyExistsError, LongshoreError, UsageError

if TYPE_CHECKING:
    from longshore.controllers.key_custody import KeyCustody, SlotOf
    from longshore.controllers.ports import RootKey

__all__ = ["add", "export", "import_", "list_slots", "remove"]


def export(session: ClusterSession, file: str) -> int:
    """Write the root secret, then note that it was exported."""
    from longshore.controllers.repository_keys import KEY_ROOT, key_file_text

    with session.custody() as custody:
        entries = custody.root_entries()
        # Keys of older repositories come along, or they would be lost with the cluster while it counts as insured.
        files = [f"{file}{entry.name.removeprefix(KEY_ROOT)}" for entry in entries]
        for path in files:
            if Path(path).is_symlink() or Path(path).exists():
                raise AlreadyExistsError(
                    f"a key file is never overwritten: file={path}", "name a file that is not there"
                )
        written: list[str] = []
        try:
            for path, entry in zip(files, entries, strict=True):
                write_new(path, key_file_text(entry.key))
                written.append(path)
        except LongshoreError:
            for path in written:
                Path(path).unlink(missing_ok=True)
            raise
        # Should this fail, the files stay: a key too many harms nobody who keeps it safe.
        custody.note_exported(entries)
    lines = [f"Wrote the cluster's repository key to {' and '.join(quoted(path) for path in files)}"]
    session.output.summary(
        {"namespace": session.namespace, "key_files": files, "exit_code": 0}, [*lines, *_safe(files[0])]
    )
    return 0


def import_(session: ClusterSession, file: str, *, beside: bool) -> int:
    """Lay a key down for agents that find none."""
    key = _key_file(file)
    with session.custody() as custody:
        entry = custody.import_root(key, beside=beside)
    session.output.summary(
        {"namespace": session.namespace, "key_file": file, "entry": entry, "exit_code": 0},
        [f"The key of {quoted(file)} is in Secret {session.namespace}/longshore-repo-credentials, key {entry}"],
    )
    return 0


def add(session: ClusterSession, *, key_file: str | None, passphrase_file: str | None, slots_only: bool) -> int:
    """Give every repository a recovery slot."""
    from longshore.controllers.ports import RootKey, RootKeyKind
    from longshore.controllers.repository_keys import key_file_text

    with session.custody() as custody:
        names = custody.repositories()
        written = False
        if key_file is None:
            assert passphrase_file is not None
            key = RootKey(RootKeyKind.PASSPHRASE, read_passphrase(passphrase_file), passphrase_file)
        elif Path(key_file).exists():
            key = _key_file(key_file)
        else:
            import secrets

            key = RootKey(RootKeyKind.SECRET, secrets.token_bytes(32), key_file)
            write_new(key_file, key_file_text(key))
            written = True
        try:
            if not slots_only:
                custody.lay_down_recovery(key)
        except AlreadyExistsError:
            # Nobody has seen this key.
            if written and key_file is not None:
                Path(key_file).unlink(missing_ok=True)
            raise
        outcome = _give_slots(session, custody, key)
        custody.look_again()
    lines = [f"{outcome.done} of {len(names)} repositories can be opened with it"]
    if not slots_only:
        lines.append(f"Each new one gets its slot too, from Secret {session.namespace}/longshore-recovery")
    session.output.summary(
        {
            "namespace": session.namespace,
            "repositories": len(names),
            "repositories_done": outcome.done,
            "key_file": key_file,
            "key_file_written": written,
            "exit_code": outcome.exit_code,
        },
        [*lines, *(_safe(key_file) if key_file else [])],
    )
    return outcome.exit_code


def _give_slots(session: ClusterSession, custody: KeyCustody, key: RootKey) -> Outcome:
    def told(name: object, slot: str | None) -> None:
        session.output.row({"repository": str(name), "slot": slot})
        session.output.line(f"{name}: " + (f"added key slot {slot}" if slot else "this key opens it already"))

    return session.each(custody.repositories(), lambda name: custody.add_slot(name, key), told=told)


def list_slots(session: ClusterSession, *, form: str) -> int:
    """List who can open the repositories."""
    output = session.output
    rows: list[SlotOf] = []
    with session.custody() as custody:
        outcome = session.each(custody.repositories(), custody.slots, told=lambda _name, found: rows.extend(found))
    if form != "table":
        output.document([_fields(row) for row in rows], as_yaml=form == "yaml")
    elif output.as_json:
        for row in rows:
            output.row(_fields(row))
    else:
        columns = tuple(Column(heading) for heading in ("NAMESPACE", "LOCATION", "SLOT", "KIND", "LABEL", "CLUSTER"))
        cells = [
            (
                row.repository.namespace,
                row.repository.location,
                row.slot.name,
                str(row.slot.kind),
                row.slot.label or "-",
                "opens it" if row.opened_here else "-",
            )
            for row in rows
        ]
        for line in render(columns, cells):
            output.line(line)
    output.summary({"slots": len(rows), "exit_code": outcome.exit_code}, [])
    return outcome.exit_code


def remove(session: ClusterSession, slot: str, *, yes: bool) -> int:
    """Take a slot away, wherever it is; with a label, from each repository that has one of it."""
    output = session.output
    with session.custody() as custody:
        rows: list[SlotOf] = []
        session.each(custody.repositories(), custody.slots, told=lambda _name, found: rows.extend(found))
        found = [row for row in rows if slot and row.slot.label == slot]
        if not found:
            found = [row for row in rows if slot and row.slot.name.startswith(slot)]
            if len(found) != 1:
                what = "several key slots begin so" if found else "there is no such key slot or label"
                raise UsageError(f"{what}: slot={slot}", "list them with longshore repo key list")
        for row in found:
            output.note(f"{row.repository}: key slot {row.slot.name} ({row.slot.label or 'no label'})")
        if not confirm(f"Remove {len(found)} of {len(rows)} key slots", yes=yes, output=output):
            output.note("nothing was removed")
            output.summary({"slots": [], "exit_code": 1}, [])
            return 1
        removed: list[str] = []
        failures: list[LongshoreError] = []
        for row in found:
            try:
                custody.remove_slot(row)
            except LongshoreError as error:
                failures.append(error)
                output.error(error)
                continue
            removed.append(row.slot.name)
            output.row({"repository": str(row.repository), "slot": row.slot.name})
        custody.look_again()
    code = 0 if not failures else 3 if removed else failures[0].exit_code
    lines = [f"Removed {len(removed)} key slots" if len(removed) != 1 else f"Removed key slot {removed[0]}"]
    output.summary({"slots": removed, "exit_code": code}, lines)
    return code


def _fields(row: SlotOf) -> dict[str, object]:
    return {
        "namespace": row.repository.namespace,
        "location": row.repository.location,
        "name": row.slot.name,
        "kind": str(row.slot.kind),
        "label": row.slot.label,
        "opened_here": row.opened_here,
    }


def _key_file(path: str) -> RootKey:
    from longshore.controllers.ports import RootKeyKind
    from longshore.controllers.repository_keys import parse_key

    try:
        content = Path(path).read_bytes() if Path(path).stat().st_size <= 4096 else b""
    except OSError as error:
        raise UsageError(f"the key file cannot be read: file={path}, error={error.strerror}") from error
    refused = UsageError(
        f"this is no key file: file={path}",
        "give a file of one line, longshore-key-1: and 64 hexadecimal digits; a passphrase is laid down with kubectl create secret",
    )
    try:
        key = parse_key(content, secret=path, name="")
    except UsageError as error:
        raise refused from error
    if key.kind is not RootKeyKind.SECRET:
        raise refused
    return key


def _safe(path: str) -> list[str]:
    return [
        f"Keep {quoted(path)} safe, outside of the cluster and its storage: with it and the bucket everything can be read."
    ]
