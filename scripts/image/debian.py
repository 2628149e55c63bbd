"""Debian's packages: which, pinned how, from where, and as files of a tree.

A pin is name, version, size and SHA-256. A mirror keeps no old versions, so a pin outlives the mirror's copy: packages once had stay in the cache by
their hash, and `--apt-sources` names a sources.list of an archive that keeps all (with `[check-valid-until=no]`). Where neither has it,
`current=True` takes what the mirror has now, which apt has checked against Debian's signature: such an image says so in its labels and SBOM, and is
no release. `lock` moves the pins.

Promises: nothing gets into the tree whose hash is not the pin's; apt works in folders of its own, needs no root and changes nothing of the machine;
no script of a package is run. It does not know which of the files the image leaves out.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.image.tree import Directory, File, ImageError, Link, Tree

__all__ = ["PACKAGES", "Package", "Pin", "PinGoneError", "fetch", "read_lock", "unpack", "write_lock"]

# Name → what it is for. What they depend on and the interpreter does without stays out: the test loads every extension module that stays.
PACKAGES = {
    "base-files": "os-release, by which scanners know the distribution, and the licences that others refer to",
    "ca-certificates": "the authorities that buckets' certificates are checked against",
    "gcc-12-base": "the licence of libgcc-s1",
    "libc6": "the C library",
    "libexpat1": "the interpreter links it",
    "libffi8": "ctypes",
    "libgcc-s1": "the engine unwinds with it",
    "libpython3.11-minimal": "the standard library's core",
    "libpython3.11-stdlib": "the rest of it",
    "libssl3": "TLS and hashes of the standard library",
    "python3.11-minimal": "the interpreter",
    "zlib1g": "the interpreter links it",
}
_HEAD = """\
# Debian packages of the image: name, version, bytes, SHA-256. Written by `make image-lock` from what the configured mirror has.
# A mirror drops a version soon after the next one comes; scripts/image/debian.py says what happens then.
"""


class PinGoneError(ImageError):
    """The mirror has another version than the one that is pinned."""


@dataclass(frozen=True, slots=True, order=True)
class Pin:
    """One package as it must be."""

    name: str
    version: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Package:
    """One package as it is: its pin, its control file, its files."""

    pin: Pin
    control: str
    tree: Tree


def read_lock(path: Path) -> list[Pin]:
    """Read a lock file.

    Raises:
        ImageError: it is not there, or not one.
    """
    if not path.is_file():
        raise ImageError(f"no packages are pinned for this processor, run `make image-lock`: path={path}")
    pins = []
    for line in path.read_text().splitlines():
        if line.startswith("#") or not line.strip():
            continue
        words = line.split()
        if len(words) != 4 or not words[2].isdecimal() or not re.fullmatch(r"[0-9a-f]{64}", words[3]):
            raise ImageError(f"not a pin: line={line!r}, path={path}")
        pins.append(Pin(words[0], words[1], int(words[2]), words[3]))
    if {pin.name for pin in pins} != set(PACKAGES):
        raise ImageError(f"the lock names other packages than the image is made of, run `make image-lock`: path={path}")
    return sorted(pins)


def write_lock(path: Path, pins: Iterable[Pin]) -> None:
    """Write a lock file."""
    lines = [f"{pin.name:<22} {pin.version:<26} {pin.size_bytes:>8} {pin.sha256}" for pin in sorted(pins)]
    path.write_text(_HEAD + "\n".join(lines) + "\n")


def fetch(
    pins: Iterable[Pin], *, cache: Path, architecture: str, sources: Path | None = None, current: bool = False
) -> dict[Pin, Path]:
    """Have the packages' files.

    Args:
        pins: what is wanted; with `current`, only the names count.
        cache: keeps packages by their hash, and apt's lists.
        sources: a sources.list to use in place of the machine's.
        current: take the mirror's versions.

    Returns:
        What there is, which is `pins` unless `current`, and where.

    Raises:
        PinGoneError: the mirror has other versions.
        ImageError: there is no apt, or no mirror that answers.
    """
    cache.mkdir(parents=True, exist_ok=True)
    wanted = sorted(pins)
    missing = wanted if current else [pin for pin in wanted if not _is_cached(pin, cache)]
    if missing:
        with _apt(cache, architecture, sources) as apt:
            _call([*apt, "update"], "the package lists cannot be had")
            found = {pin.name: pin for pin in _download(missing, apt, cache, current=current)}
            wanted = [found.get(pin.name, pin) for pin in wanted]
    return {pin: cache / f"{pin.sha256}.deb" for pin in wanted}


def unpack(pin: Pin, file: Path) -> Package:
    """Read a package's files.

    Raises:
        ImageError: it is not what the pin says.
    """
    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != pin.sha256:
        raise ImageError(f"a package is not what the lock says: name={pin.name}, file={file}")
    control = _call(["dpkg-deb", "--field", str(file)], "a package cannot be read").decode()
    tar = _call(["dpkg-deb", "--fsys-tarfile", str(file)], "a package cannot be read")
    tree = Tree()
    with tarfile.open(fileobj=io.BytesIO(tar)) as members:
        for member in members:
            if member.name in (".", "./"):
                continue
            if member.isdir():
                tree.add(member.name, Directory())
            elif member.issym():
                tree.add(member.name, Link(member.linkname))
            elif member.isfile() or member.islnk():
                content = members.extractfile(member)
                assert content is not None
                tree.add(member.name, File(content.read(), member.mode & 0o777))
            else:
                raise ImageError(f"a package has what an image may not have: name={pin.name}, path={member.name}")
    return Package(pin, control, tree)


def _is_cached(pin: Pin, cache: Path) -> bool:
    file = cache / f"{pin.sha256}.deb"
    return file.is_file() and file.stat().st_size == pin.size_bytes


@contextlib.contextmanager
def _apt(cache: Path, architecture: str, sources: Path | None) -> Iterator[list[str]]:
    """Give the command of an apt that knows the machine's sources and keys, and keeps its own state."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise ImageError("apt-get and dpkg-deb are not on PATH: make the image with daemonset/image/Dockerfile")
    state = cache / "apt"
    for folder in (state / "lists" / "partial", state / "archives" / "partial"):
        folder.mkdir(parents=True, exist_ok=True)
    options = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "Dir::State": str(state),
        "Dir::State::lists": str(state / "lists"),
        "Dir::State::status": os.devnull,
        "Dir::Cache": str(state),
        "Dir::Cache::archives": str(state / "archives"),
    }
    if sources is not None:
        options |= {"Dir::Etc::sourcelist": str(sources.resolve()), "Dir::Etc::sourceparts": os.devnull}
    yield ["apt-get", "--quiet", "--quiet", *(f"--option={name}={value}" for name, value in options.items())]


def _download(pins: list[Pin], apt: list[str], cache: Path, *, current: bool) -> list[Pin]:
    # One call for all: apt reads its lists for seconds each time.
    names = [pin.name if current else f"{pin.name}={pin.version}" for pin in pins]
    wanted = {pin.name: pin for pin in pins}
    have = []
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        try:
            _call([*apt, "download", *names], "packages cannot be had", folder=folder)
        except ImageError as err:
            if current or "was not found" not in str(err):
                raise
            raise PinGoneError(
                "the mirror no longer has a pinned package; run `make image-lock` and commit, or name an archive that has it "
                f"with APT_SOURCES: cause={err}"
            ) from err
        for file in sorted(Path(folder).glob("*.deb")):
            data = file.read_bytes()
            name, version = (_field(file, one) for one in ("Package", "Version"))
            found = Pin(name, version, len(data), hashlib.sha256(data).hexdigest())
            if not current and found != wanted[name]:
                raise ImageError(f"the mirror has other bytes than the lock: wanted={wanted[name]}, found={found}")
            file.rename(cache / f"{found.sha256}.deb")
            have.append(found)
    if {pin.name for pin in have} != set(wanted):
        raise ImageError(
            f"the mirror did not send every package: missing={sorted(set(wanted) - {p.name for p in have})}"
        )
    return have


def _field(file: Path, name: str) -> str:
    return _call(["dpkg-deb", "--field", str(file), name], "a package cannot be read").decode().strip()


def _call(command: list[str], what: str, *, folder: str | None = None) -> bytes:
    answer = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    if answer.returncode:
        raise ImageError(f"{what}: command={command[0]}, said={answer.stderr.decode(errors='replace').strip()[-500:]}")
    return answer.stdout
