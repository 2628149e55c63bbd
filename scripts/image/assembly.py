"""Which files make which layer, and how the image is started.

Three layers, the one that changes least below: Debian and its interpreter, the Python packages, ours. So a node that has the last version fetches a fifth of
the image. Promises: `configuration` and the Dockerfile say the same (a test compares them). It does not know how an archive looks.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.image import crates, debian, ours, packages, sbom
from scripts.image.interpreter import Interpreter
from scripts.image.oci import ARCHITECTURES, Image, Layer, write_archive
from scripts.image.system import USER, system_files
from scripts.image.tree import ImageError, Tree

__all__ = ["SBOM", "Plan", "configuration", "epoch", "layers", "lock", "make", "write_folder"]

ROOT = Path(__file__).resolve().parents[2]
SBOM = "usr/share/sbom/longshore.spdx.json"
_DOCUMENTS = "usr/share/doc/longshore"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to build, and from where."""

    root: Path = ROOT
    target: Path = ROOT / "target" / "image"
    cache: Path = field(default_factory=lambda: _cache() / "debian")
    sources: Path | None = None
    """A sources.list in place of the machine's."""
    is_current: bool = False
    """Take what the mirror has today instead of what is pinned."""
    wheel: Path | None = None
    """A wheel that is built already; then its paths and dates are another's business."""

    @property
    def machine(self) -> str:
        """The processor, as the kernel names it."""
        return platform.machine()

    @property
    def architecture(self) -> str:
        """The processor, as images name it.

        Raises:
            ImageError: no image is made for it.
        """
        if self.machine not in ARCHITECTURES:
            raise ImageError(f"no image is made for this processor: machine={self.machine}")
        return ARCHITECTURES[self.machine]

    @property
    def lock_path(self) -> Path:
        """Where Debian's packages are pinned."""
        return self.root / "daemonset" / "image" / f"debian-{self.architecture}.lock"

    @property
    def archive_path(self) -> Path:
        """Where the archive goes."""
        return self.target / f"longshore-{ours.version(self.root)}-{self.architecture}.oci.tar"


def configuration(version: str, *, revision: str, is_pinned: bool) -> dict[str, Any]:
    """Say how the image is started; a pod's spec may say otherwise."""
    return {
        # The agent's pod asks for root, which must read everybody's files; whoever asks for nothing is nobody.
        "User": f"{USER}:{USER}",
        "Env": ["HOME=/tmp", "PATH=/usr/bin"],
        "Entrypoint": ["/velero"],
        "WorkingDir": "/",
        "Labels": {
            "org.opencontainers.image.title": "longshore",
            "org.opencontainers.image.description": "Backup of Kubernetes volumes: server, node agent, restore-wait helper and command",
            "org.opencontainers.image.version": version,
            "org.opencontainers.image.revision": revision,
            "org.opencontainers.image.licenses": "Apache-2.0",
            "io.longshore.debian-packages": "pinned" if is_pinned else "current",
        },
    }


def lock(plan: Plan) -> list[debian.Pin]:
    """Pin what the mirror has."""
    names = [debian.Pin(name, "", 0, "") for name in debian.PACKAGES]
    found = debian.fetch(names, cache=plan.cache, architecture=plan.architecture, sources=plan.sources, current=True)
    plan.lock_path.parent.mkdir(parents=True, exist_ok=True)
    debian.write_lock(plan.lock_path, found)
    return sorted(found)


def make(plan: Plan) -> str:
    """Write the archive, and the SBOM beside it.

    Returns:
        The image's digest.
    """
    # Asked once: whoever commits during the build must not date half of it.
    version, created, revision = ours.version(plan.root), epoch(plan.root), _revision(plan.root)
    with _interpreter(plan) as (system, interpreter):
        made = layers(plan, system, interpreter, created=created)
        image = Image(
            name=f"docker.io/library/longshore:{version}",
            architecture=plan.architecture,
            created=created,
            layers=made,
            config=configuration(version, revision=revision, is_pinned=not plan.is_current),
        )
        plan.target.mkdir(parents=True, exist_ok=True)
        digest = write_archive(image, plan.archive_path, gzip=interpreter.gzip)
    document = next(file.data for layer in made for path, file in layer.tree.files() if path == SBOM)
    plan.archive_path.with_name(plan.archive_path.name.replace(".oci.tar", ".spdx.json")).write_bytes(document)
    return digest


def layers(plan: Plan, system: list[debian.Package], interpreter: Interpreter, *, created: int) -> list[Layer]:
    """Make the layers, the lowest first."""
    # Tracebacks through the standard library tell file and line without the text; those through all else tell both.
    base = interpreter.bytecode(system_files(system), instead=True)
    installed = packages.install(
        plan.root / "requirements-runtime.txt",
        architecture=plan.machine,
        uv=Path(sys.executable).parent / "uv",
        python=Path(sys.executable),
    )
    beside = packages.distributions(installed)
    # The client of the API server is written by a generator and nobody reads it: 32 MB of sources.
    generated = f"{packages.PLACE}/kubernetes/client/"
    third = interpreter.bytecode(installed.without(lambda path: path.startswith(generated)))
    third.merge(interpreter.bytecode(installed.without(lambda path: not path.startswith(generated)), instead=True))
    wheel = plan.wheel or ours.build_wheel(plan.root, plan.target, epoch=created)
    helper = ours.build_helper(plan.root, plan.target, architecture=plan.machine, epoch=created)
    own = interpreter.bytecode(ours.wheel_files(wheel))
    own.merge(ours.commands(helper))
    linked = crates.linked_crates(plan.root, architecture=plan.machine)
    own.text(f"{_DOCUMENTS}/LICENSE", (plan.root / "LICENSE").read_text())
    own.text(f"{_DOCUMENTS}/rust-crates.txt", crates.notices(linked))
    described = sbom.document(
        name="longshore",
        version=ours.version(plan.root),
        created=created,
        toolchain=crates.rust_version(plan.root),
        debian=system,
        python=beside,
        rust=linked,
    )
    own.text(SBOM, described)
    return [
        Layer(base, "Debian's interpreter and what it stands on"),
        Layer(third, "Python packages"),
        Layer(own, "Longshore"),
    ]


def epoch(root: Path) -> int:
    """Tell the time that everything in the image bears: SOURCE_DATE_EPOCH, else the commit's.

    Raises:
        ImageError: there is neither.
    """
    given = os.environ.get("SOURCE_DATE_EPOCH") or _git(root, "log", "-1", "--format=%ct")
    if not given.isdecimal():
        raise ImageError(f"neither git nor SOURCE_DATE_EPOCH tells a time: value={given!r}")
    return int(given)


def write_folder(plan: Plan, place: Path) -> None:
    """Lay the files of all layers down below `place`."""
    with _interpreter(plan) as (system, interpreter):
        whole, created = Tree(), epoch(plan.root)
        for layer in layers(plan, system, interpreter, created=created):
            whole.nodes |= layer.tree.nodes
        whole.write(place, mtime=created)


@contextmanager
def _interpreter(plan: Plan) -> Iterator[tuple[list[debian.Package], Interpreter]]:
    pins = debian.read_lock(plan.lock_path)
    files = debian.fetch(
        pins, cache=plan.cache, architecture=plan.architecture, sources=plan.sources, current=plan.is_current
    )
    system = [debian.unpack(pin, file) for pin, file in sorted(files.items())]
    with tempfile.TemporaryDirectory() as scratch:
        yield system, Interpreter(system_files(system), Path(scratch))


def _revision(root: Path) -> str:
    given = os.environ.get("LONGSHORE_REVISION") or _git(root, "rev-parse", "HEAD")
    is_changed = bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    return (given or "unknown") + ("-changed" if is_changed else "")


def _git(root: Path, *words: str) -> str:
    answer = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else ""


def _cache() -> Path:
    # Where the tools of the tests lie too: one folder to keep between runs.
    configured = os.environ.get("LONGSHORE_TOOLS_DIR")
    return Path(configured) if configured else Path.home() / ".cache" / "longshore" / "tools"
