"""The Python packages of requirements-runtime.txt, as files below /usr/lib/longshore, less what the program never loads.

What is left out stands in two tables with its reason; the image's test imports every module of ours, and makes the clients that we make, without it.
Promises: every package's hash is the lock's; only wheels, so that nothing of a package is run; a package's RECORD names what is there. It does not
know our own wheel.
"""

from __future__ import annotations

import csv
import email.parser
import fnmatch
import io
import re
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from scripts.image.tree import File, ImageError, Tree

__all__ = ["LEFT_OUT", "LEFT_OUT_PACKAGES", "PLACE", "Distribution", "distributions", "install", "pinned", "trimmed"]

PLACE = "usr/lib/longshore"
GLIBC = "2_36"
"""The C library's version in the image: wheels may ask for no newer one."""
LEFT_OUT_PACKAGES = {
    **dict.fromkeys(
        (
            "aiohappyeyeballs",
            "aiohttp",
            "aiohttp-retry",
            "aiosignal",
            "frozenlist",
            "multidict",
            "propcache",
            "yarl",
        ),
        "only kubernetes.aio wants it",
    ),
}
LEFT_OUT = {
    ".lock": "the installer's",
    "bin/*": "commands of packages, for the machine's interpreter",
    "kubernetes/aio/*": "a second client, for asyncio: 41 MB",
    "botocore/data/*/*": "Amazon's other services: 22 MB",
    "boto3/data/*": "an interface that we do not use",
    "boto3/examples/*": "documentation",
    "pygments/lexers/*": "colours for every language: 8 MB; rich wants the table of them",
    "*/tests/*": "tests of packages",
    "*.pyi": "for type checkers",
    "*.c": "sources of extensions",
    "*.h": "the same",
    "*.pyx": "the same",
}
# What the patterns above would take and is needed.
_KEPT = (
    *(f"botocore/data/{name}/*" for name in ("s3", "sts", "sso", "sso-oidc", "signin")),
    "pygments/lexers/__init__.py",
    "pygments/lexers/_mapping.py",
)


@dataclass(frozen=True, slots=True)
class Distribution:
    """What a package says of itself."""

    name: str
    version: str
    licence: str
    """Its SPDX expression, or what stands in its place."""


def pinned(lock: str) -> dict[str, str]:
    """Give each package's entry of a lock file, by name."""
    found: dict[str, str] = {}
    name = ""
    for line in lock.splitlines():
        if start := re.match(r"([a-z0-9._-]+)==", line):
            name = start[1]
        if name and not line.lstrip().startswith("#"):
            found[name] = found.get(name, "") + line + "\n"
    return found


def install(lock: Path, *, architecture: str, uv: Path, python: Path) -> Tree:
    """Have the packages.

    Args:
        lock: the requirements with hashes.
        architecture: the processor, as the kernel names it.
        uv: the installer.
        python: an interpreter that it may ask questions.

    Raises:
        ImageError: one cannot be had, or its hash is another.
    """
    wanted = "".join(entry for name, entry in pinned(lock.read_text()).items() if name not in LEFT_OUT_PACKAGES)
    with tempfile.TemporaryDirectory() as scratch:
        requirements, target = Path(scratch, "requirements.txt"), Path(scratch, "target")
        requirements.write_text(wanted)
        answer = subprocess.run(
            [
                uv,
                "pip",
                "install",
                "--quiet",
                f"--target={target}",
                f"--python={python}",
                "--python-version=3.11",
                f"--python-platform={architecture}-manylinux_{GLIBC}",
                "--require-hashes",
                "--no-deps",
                "--only-binary=:all:",
                "--no-compile-bytecode",
                "--link-mode=copy",
                f"--requirements={requirements}",
            ],
            capture_output=True,
            check=False,
            cwd=scratch,
        )
        if answer.returncode:
            raise ImageError(f"python packages cannot be had: said={answer.stderr.decode(errors='replace')[-800:]}")
        return trimmed(Tree.read(target, at=PLACE))


def trimmed(tree: Tree) -> Tree:
    """Leave out what the table says, and have every RECORD say what is left."""
    kept = tree.without(lambda path: _is_left_out(path.removeprefix(f"{PLACE}/")))
    for path in [path for path, _ in kept.files() if path.endswith(".dist-info/RECORD")]:
        kept.nodes[path] = File(_record(kept, path))
    return kept


def distributions(tree: Tree) -> list[Distribution]:
    """Read what every package in a tree says of itself."""
    found = []
    for path, file in tree.files():
        if path.endswith(".dist-info/METADATA"):
            said = email.parser.BytesHeaderParser().parsebytes(file.data)
            found.append(
                Distribution(str(said["Name"]), str(said["Version"]), _licence(said.get_all("Classifier", []), said))
            )
    return sorted(found, key=lambda one: one.name.lower())


def _licence(classifiers: Iterable[str], said: email.message.Message) -> str:
    stated = [one.split(" :: ")[-1] for one in classifiers if one.startswith("License :: ")]
    field = str(said.get("License", ""))
    return str(
        said.get("License-Expression") or (field if 0 < len(field) < 60 else " AND ".join(stated)) or "NOASSERTION"
    )


def _is_left_out(name: str) -> bool:
    wanted = any(fnmatch.fnmatch(name, pattern) for pattern in _KEPT)
    return not wanted and any(fnmatch.fnmatch(name, pattern) for pattern in LEFT_OUT)


def _record(tree: Tree, path: str) -> bytes:
    node = tree.nodes[path]
    assert isinstance(node, File)
    out = io.StringIO()
    rows = csv.reader(io.StringIO(node.data.decode()))
    csv.writer(out, lineterminator="\n").writerows(row for row in rows if f"{PLACE}/{row[0]}" in tree.nodes)
    return out.getvalue().encode()
