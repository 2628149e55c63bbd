"""Makes the image of the last commit twice, as two people would, and compares what came out: `make image-twice`, minutes.

Each time the commit is cloned anew, into folders of other names and depths, with a target folder and a cargo home of its own, so that every crate is compiled
twice from sources that lie elsewhere; the second time under another umask, time zone and language too. Shared are the machine, its compilers, its
virtual environment, and archives that were downloaded and are known by their hash.

Promises: what is not committed does not count; images that differ are told apart by the files that differ. It does not know how an image is made.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping
from gzip import decompress
from hashlib import sha256
from io import BytesIO
from pathlib import Path

from scripts.image.tree import ImageError

__all__ = ["differing", "make_twice"]

# Of a cargo home, what holds downloads alone; sources are unpacked anew.
_DOWNLOADS = ("registry/index", "registry/cache")
_BUILDS: tuple[tuple[str, Mapping[str, str], int], ...] = (
    ("one/longshore", {"TZ": "UTC", "LC_ALL": "C.UTF-8"}, 0o022),
    ("the-other/of-somebody/else/clone", {"TZ": "Asia/Kathmandu", "LC_ALL": "C"}, 0o027),
)


def make_twice(root: Path, *words: str) -> str:
    """Make it twice.

    Args:
        root: a clone; its last commit is made.
        words: more arguments for the build.

    Returns:
        The digest that both have.

    Raises:
        ImageError: one could not be made, or they differ.
    """
    with tempfile.TemporaryDirectory(prefix="longshore-twice-") as scratch:
        archives, digests = [], []
        for name, environment, umask in _BUILDS:
            clone = Path(scratch) / name
            _words("git", "clone", "--quiet", "--no-local", str(root), str(clone))
            started = time.monotonic()
            told = _words(
                sys.executable,
                *("-m", "scripts.image", "build", *words),
                folder=clone,
                environment={**environment, "CARGO_HOME": str(_cargo_home(clone.with_name("cargo-home")))},
                umask=umask,
            )
            archive, digest, *_ = told.splitlines()
            print(f"{digest}  folder={clone}, seconds={time.monotonic() - started:.0f}", flush=True)
            archives.append(Path(archive))
            digests.append(digest)
        if len(set(digests)) > 1:
            raise ImageError(
                f"two builds of one commit differ, find what brought the difference in: files={differing(*archives)}"
            )
    return digests[0]


def differing(one: Path, other: Path) -> list[str]:
    """Name the files, and the parts of the archive, that are not in both images or not the same."""
    first, second = _parts(one), _parts(other)
    return sorted(name for name in {*first, *second} if first.get(name) != second.get(name))


def _parts(archive: Path) -> dict[str, object]:
    with tarfile.open(archive) as tar:
        blobs = {member.name: _read(tar, member) for member in tar if member.isfile()}

    def blob(digest: str) -> bytes:
        return blobs[f"blobs/{digest.replace(':', '/')}"]

    (described,) = json.loads(blobs["index.json"])["manifests"]
    manifest = json.loads(blob(described["digest"]))
    # Digests of layers are told with the layers; what is left of the configuration differs by itself or not at all.
    config = json.loads(blob(manifest["config"]["digest"]))
    config.pop("rootfs", None)
    found: dict[str, object] = {"(configuration)": config}
    for number, layer in enumerate(manifest["layers"]):
        found[f"(layer {number})"] = layer["digest"]
        content = decompress(blob(layer["digest"]))
        with tarfile.open(fileobj=BytesIO(content)) as tar:
            for member in tar:
                about = (member.type, member.mode, member.uid, member.gid, member.mtime, member.linkname)
                found[member.name] = (*about, sha256(_read(tar, member)).hexdigest() if member.isfile() else "")
    return found


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def _cargo_home(place: Path) -> Path:
    given = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")
    (place / "registry").mkdir(parents=True)
    for name in _DOWNLOADS:
        if (given / name).is_dir():
            (place / name).symlink_to(given / name)
    for name in ("config.toml", "config"):
        if (given / name).is_file():
            (place / name).symlink_to(given / name)
    return place


def _words(
    *words: str, folder: Path | None = None, environment: Mapping[str, str] | None = None, umask: int = -1
) -> str:
    answer = subprocess.run(
        words,
        cwd=folder,
        env={**os.environ, **(environment or {})},
        umask=umask,
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        raise ImageError(
            f"{words[0]} cannot: words={words[1:]}, said={(answer.stdout + answer.stderr).strip()[-1500:]}"
        )
    return answer.stdout
