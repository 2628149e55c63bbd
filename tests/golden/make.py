"""Writes a golden repository with the commands of this checkout, once for a release; what it has written is never written again.

    python -m tests.golden.make tests/golden/1-0.1.0                (as root, on a filesystem with xattrs and ACLs)
    python -m tests.golden.make tests/golden/1-0.1.0-repaired

The source holds one of every kind of entry, and shapes that take each path of the format: small files that share a frame, a file of several chunks,
one whose content needs a list chunk, holes and zeros, a directory of several pieces, hard links, names that are no text, times before the
epoch, owners, setuid, xattrs and ACLs. Three snapshots of it are taken, with changes between them; the first is removed again. The repository
opens with a key file and with a passphrase. Then it has lived: a prune moved what was needed into packs of its own and decided over the rest, a
backup was interrupted and took itself back, another one was killed, and a prune waits for it with a tombstone. In one whose name ends in
`-repaired` a pack was damaged instead, before the second backup: a repair wrote down what is lost, and the second backup stored it again.

It runs the installed command, so what is recorded is what a user's repository holds. Does not know the format.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.golden.manifest import manifest
from tests.oracle.make_tree import ACL, ACL_ACCESS, ACL_DEFAULT, ACL_FOR_DIRECTORY, CAPABILITY

ROOT = Path(__file__).resolve().parents[2]
SIZE_BYTES_MAX = 1_000_000
BLOCK_BYTES = 1 << 16
SECOND_NS = 1_000_000_000
BASE_NS = 1_500_000_000 * SECOND_NS
PASSPHRASE = "not a secret: the passphrase of a golden repository\n"


def text_bytes(count: int, word: bytes) -> bytes:
    """Lines that differ, and compress well."""
    return b"".join(
        b"%s %08d the same words on every line but for the number\n" % (word, index) for index in range(count)
    )


def pattern(seed: int, length: int) -> bytes:
    """Bytes that do not compress, the same on every machine."""
    import hashlib

    blocks = (hashlib.sha256(b"%d %d" % (seed, index)).digest() for index in range(length // 32 + 1))
    return b"".join(blocks)[:length]


def make_source(source: Path) -> None:
    """Make the first state."""
    source.mkdir(mode=0o755)
    files = {
        b"empty": b"",
        b"one byte": b"1",
        b"small": b"a small file\n",
        b"text": text_bytes(24_000, b"line"),
        b"random": pattern(1, 150_000),
        b"zeros": bytes(3 * BLOCK_BYTES + 17),
        b"zeros between": b"x" * BLOCK_BYTES + bytes(2 * BLOCK_BYTES) + b"y" * 100,
        b"not \xff\xfe text": b"a name that is not UTF-8",
        b"new\nline": b"a name of two lines",
        b"n" * 255: b"the longest name",
    }
    for name, content in files.items():
        (source / os.fsdecode(name)).write_bytes(content)
    with (source / "comb").open("xb") as file:
        for tooth in range(90):
            file.seek(2 * tooth * BLOCK_BYTES)
            file.write(b"tooth " * (BLOCK_BYTES // 6) + b"end.")
        file.truncate(180 * BLOCK_BYTES + 5)
    with (source / "hole").open("xb") as file:
        file.truncate(1 << 24)
    many = source / "many"
    many.mkdir()
    for index in range(300):
        (many / f"file-{index:03}").write_bytes(b"%d\n" % (index * index))
    deep = source
    for level in range(12):
        deep = deep / f"level {level}"
        deep.mkdir()
    (deep / "bottom").write_bytes(b"at the bottom")

    links = source / "links"
    links.mkdir()
    (links / "first").write_bytes(b"one file, three names")
    (links / "second").hardlink_to(links / "first")
    (source / "third").hardlink_to(links / "first")
    (links / "symlink").symlink_to("first")
    (links / "dangling").symlink_to(os.fsdecode(b"not/there \xff"))
    (links / "absolute").symlink_to("/dev/null")

    special = source / "special"
    special.mkdir()
    os.mkfifo(special / "fifo", 0o640)
    os.mknod(special / "character", 0o020666, os.makedev(1, 3))
    os.mknod(special / "block", 0o060660, os.makedev(7, 300))
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(special)  # a socket's path may have 107 bytes
        listener.bind("socket")
        os.chdir(here)

    attributes = source / "attributes"
    attributes.mkdir()
    for name in ("file", "acl", "capable", "owned", "setuid"):
        (attributes / name).write_bytes(name.encode())
    for name in ("directory", "sticky"):
        (attributes / name).mkdir()
    os.setxattr(attributes / "file", b"user.bytes\xff", bytes(range(256)))
    os.setxattr(attributes / "file", "user.empty", b"")
    os.setxattr(attributes / "file", "trusted.note", b"for root alone")
    os.setxattr(attributes / "directory", "user.on-a-directory", b"yes")
    os.setxattr(attributes / "acl", ACL_ACCESS, ACL)
    os.setxattr(attributes / "directory", ACL_DEFAULT, ACL_FOR_DIRECTORY)
    os.chown(attributes / "owned", 1234, 4_000_000_000)
    (attributes / "setuid").chmod(0o4755)
    os.setxattr(attributes / "capable", "security.capability", CAPABILITY)
    (attributes / "sticky").chmod(0o3777)
    # Its owner must be able to read it: tests read it back as whoever runs them.
    (attributes / "file").chmod(0o400)
    set_times(source)
    for name, when in (("small", -1), ("empty", 7_258_118_400 * SECOND_NS + 123_456_789), ("one byte", 0)):
        os.utime(source / name, ns=(when, when))
    os.utime(source, ns=(BASE_NS, BASE_NS + 1))


def change_source(source: Path, *, to: int) -> None:
    """Make the next state: a line in the middle, a new file, one gone, one renamed, one with another mode."""
    content = (source / "text").read_bytes()
    middle = len(content) // 2
    (source / "text").write_bytes(content[:middle] + b"changed %d\n" % to + content[middle:])
    (source / f"new in {to}").write_bytes(pattern(to, 3000))
    (source / "many" / f"file-{to * 50:03}").unlink()
    (source / "many" / f"file-{to * 60:03}").rename(source / f"renamed in {to}")
    (source / "many" / f"file-{to * 70:03}").chmod(0o600)
    set_times(source / "many")
    for name in ("text", f"new in {to}", "many"):
        os.utime(source / name, ns=(BASE_NS, BASE_NS + to * SECOND_NS))
    os.utime(source, ns=(BASE_NS, BASE_NS + to))


def set_times(root: Path) -> None:
    """Give everything a time of its own to the nanosecond, from the bottom up."""
    for index, (folder, directories, files) in enumerate(os.walk(os.fsencode(root), topdown=False)):
        for place, name in enumerate(sorted(files + directories)):
            path = os.path.join(folder, name)
            if not os.path.isdir(path) or os.path.islink(path):
                when = BASE_NS + index * SECOND_NS + place
                os.utime(path, ns=(when, when), follow_symlinks=False)
        os.utime(folder, ns=(BASE_NS, BASE_NS + index * SECOND_NS + 999_999_999))


def command_of(*words: str, cache: Path) -> tuple[list[str], dict[str, str]]:
    """Give the command line and its environment."""
    command = [str(ROOT / ".venv" / "bin" / "longshore"), *words, "--json"]
    return command, {"PATH": os.environ["PATH"], "LONGSHORE_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT / "python")}


def longshore(*words: str, cache: Path, code: int = 0) -> list[dict[str, object]]:
    """Run a command and give its JSON lines."""
    command, env = command_of(*words, cache=cache)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode != code:
        raise SystemExit(f"{' '.join(command)} failed: exit_code={done.returncode}, stderr={done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def stop_backup(source: Path, repository: Path, *opened: str, cache: Path, how: signal.Signals) -> None:
    """Begin a backup that takes long, and stop it when its marker is there."""
    command, env = command_of("volume", "backup", str(source), *opened, "--limit-upload", "4KiB", cache=cache)
    before = set((repository / "sessions").glob("*"))
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) as running:
        while not set((repository / "sessions").glob("*")) - before:
            if running.poll() is not None:
                raise SystemExit("the backup that was to be stopped ended by itself")
            time.sleep(0.05)
        time.sleep(1.0)
        running.send_signal(how)


def damage_largest_pack(repository: Path) -> None:
    """Turn a byte in the middle of it, which lies in a frame."""
    largest = max((repository / "packs").iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    largest.chmod(0o600)
    largest.write_bytes(content)


def live(source: Path, repository: Path, work: Path, *opened: str, cache: Path) -> None:
    """What happens to a repository over the years."""
    small = []
    for day in range(5):
        (source / f"day {day}").write_text(f"the news of day {day}\n")
        taken = longshore("volume", "backup", str(source), "--volume", "days", *opened, cache=cache)[-1]
        small.append(str(taken["snapshot_id"]))
    pruned = longshore("repo", "prune", *opened, cache=cache)[-1]
    if not pruned["bytes_moved"]:
        raise SystemExit("the prune moved nothing")
    for name in small:
        longshore("volume", "delete", name, "--yes", *opened, cache=cache)
    large = work / "large"
    large.mkdir()
    (large / "random").write_bytes(pattern(9, 60_000))
    stop_backup(large, repository, *opened, cache=work / "second cache", how=signal.SIGINT)
    change_source(source, to=3)
    taken = longshore("volume", "backup", str(source), "--volume", "golden", *opened, cache=cache)[-1]
    longshore("volume", "delete", str(taken["snapshot_id"]), "--yes", *opened, cache=cache)
    stop_backup(large, repository, *opened, cache=work / "third cache", how=signal.SIGKILL)
    longshore("repo", "prune", *opened, cache=cache)
    empty = [
        name
        for name in ("sessions", "decisions", "tombstones", "open", "watches")
        if not any((repository / name).iterdir())
    ]
    if empty:
        raise SystemExit(f"the repository has not lived enough: empty={','.join(empty)}")


def make(folder: Path) -> None:
    """Write the repository, its keys and manifests."""
    if folder.exists():
        raise SystemExit(f"a golden repository is never written again: {folder}")
    if os.geteuid() != 0:
        raise SystemExit("only root can make every kind of entry")
    folder.mkdir()
    repository, key, passphrase = folder / "repository", folder / "key", folder / "passphrase"
    manifests = folder / "manifests"
    manifests.mkdir()
    passphrase.write_text(PASSPHRASE)
    opened = ("--repository", str(repository), "--key-file", str(key))
    repaired = folder.name.endswith("-repaired")
    work = Path(tempfile.mkdtemp(prefix="longshore-golden-"))
    try:
        source, cache = work / "source", work / "cache"
        make_source(source)
        longshore("repo", "init", *opened, cache=cache)
        taken = []
        removed = 2 if repaired else 0
        for state in range(3):
            if state == 1 and repaired:
                damage_largest_pack(repository)
                longshore("repo", "repair", "--read-data", *opened, cache=cache, code=4)
            elif state:
                change_source(source, to=state)
            words = ("volume", "backup", str(source), "--volume", "golden", "--tag", f"state={state}", *opened)
            summary = longshore(*words, cache=cache)[-1]
            identifier = str(summary["snapshot_id"])
            taken.append(identifier)
            if state != removed:
                name = f"{identifier.removeprefix('ls0-')}.json"
                (manifests / name).write_text(json.dumps(manifest(source), separators=(",", ":")) + "\n")
        longshore("volume", "delete", taken[removed], "--yes", *opened, cache=cache)
        longshore(
            "repo",
            "key",
            "add",
            "--new-passphrase-file",
            str(passphrase),
            "--label",
            "passphrase",
            *opened,
            cache=cache,
        )
        if not repaired:
            live(source, repository, work, *opened, cache=cache)
            # Random bytes, which git need not keep: it may always be missing.
            (repository / "reserve").unlink()
    finally:
        shutil.rmtree(work)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size} bytes")
    if size >= SIZE_BYTES_MAX:
        raise SystemExit(f"it is too large for the source tree: size_bytes={size}, size_bytes_max={SIZE_BYTES_MAX}")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
