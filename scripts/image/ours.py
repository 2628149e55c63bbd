"""What this repository adds: the wheel, the restore-wait helper, and how they are started.

Promises: both are built in a target folder of the image's own, with the machine's paths (the clone's, cargo's) replaced, so that two clones give the
same bytes; the wheel asks for no newer C library than the image has; the helper is static. `/velero` is Velero's name for server and agent in one,
and takes the helper's names too. It does not know the other packages.
"""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

from scripts.image.packages import GLIBC, PLACE, trimmed
from scripts.image.tree import File, ImageError, Link, Tree

__all__ = ["HELPER", "build_helper", "build_wheel", "commands", "version", "wheel_files"]

HELPER = "usr/bin/longshore-restore-wait"
# Velero up to 1.9 called its helper by the second name; both stand at the root, where its pods look.
_HELPER_NAMES = ("velero-restore-helper", "velero-restic-restore-helper")
_ASKS_FOR_LOADER = 3
_ENTRY = f"""\
#!/usr/bin/python3.11 -IBSXutf8
# longshore, kubectl-longshore and /velero: isolated from the environment and the current folder, and writes no bytecode.
import os
import sys

if len(sys.argv) > 1 and os.path.basename(sys.argv[1]) in {("restore-wait", "restic-wait", *_HELPER_NAMES)!r}:
    os.execv("/{HELPER}", sys.argv[1:])
sys.path.insert(0, "/{PLACE}")
from longshore.cli.main import main

sys.exit(main())
"""


def version(root: Path) -> str:
    """Tell the version that Cargo.toml and pyproject.toml state."""
    found = re.search(r'^version = "([^"]+)"', (root / "pyproject.toml").read_text(), re.MULTILINE)
    if found is None:
        raise ImageError("pyproject.toml states no version")
    return found[1]


def build_wheel(root: Path, target: Path, *, epoch: int) -> Path:
    """Build the wheel; minutes when nothing of it is in `target` yet."""
    out = target / "wheel"
    for old in out.glob("*.whl"):
        old.unlink()
    _build(
        ["maturin", "build", "--release", "--locked", "--quiet", f"--compatibility=manylinux_{GLIBC}", f"--out={out}"],
        root,
        target,
        epoch=epoch,
    )
    (wheel,) = out.glob("*.whl")
    if told := tells_of_machine(wheel, [root, _cargo_home()]):
        raise ImageError(f"the wheel holds paths of this machine, so that no other would build the same: files={told}")
    return wheel


def build_helper(root: Path, target: Path, *, architecture: str, epoch: int) -> bytes:
    """Build the helper, static."""
    triple = f"{architecture}-unknown-linux-gnu"
    command = [
        "cargo",
        "build",
        "--quiet",
        "--locked",
        "--package=longshore-wait",
        "--profile=wait",
        f"--target={triple}",
    ]
    _build(command, root, target, epoch=epoch, flags=["-Ctarget-feature=+crt-static"])
    data = (target / "cargo" / triple / "wait" / "longshore-restore-wait").read_bytes()
    if not is_static(data):
        raise ImageError("the restore-wait helper is not static: the C library's static part (libc.a) may be missing")
    return data


def tells_of_machine(wheel: Path, places: list[Path]) -> list[str]:
    """Name the files of a wheel in which one of the folders is written; those that the image leaves out do not count."""
    texts = [os.fsencode(place) + b"/" for place in places]
    return [path for path, file in wheel_files(wheel).files() if any(text in file.data for text in texts)]


def is_static(program: bytes) -> bool:
    """Whether a 64-bit little-endian ELF file asks for no loader."""
    (offset,) = struct.unpack_from("<Q", program, 32)
    size, count = struct.unpack_from("<HH", program, 54)
    return all(struct.unpack_from("<I", program, offset + n * size)[0] != _ASKS_FOR_LOADER for n in range(count))


def wheel_files(wheel: Path) -> Tree:
    """Read a wheel's files; `rescue.py` and what it needs stay out: it is for who has no image."""
    tree = Tree()
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            # The crates are in the image's SBOM; maturin's names the folder in which it was built.
            unwanted = name.endswith("/") or "/sboms/" in name or name == "longshore/rescue.py"
            if not unwanted:
                tree.add(f"{PLACE}/{name}", File(archive.read(name), 0o755 if name.endswith(".so") else 0o644))
    return trimmed(tree)


def commands(helper: bytes) -> Tree:
    """Make the programs by which all of it is started."""
    tree = Tree()
    tree.add(HELPER, File(helper, 0o755))
    tree.text("usr/bin/longshore", _ENTRY, mode=0o755)
    tree.add("usr/bin/kubectl-longshore", Link("longshore"))
    tree.add("velero", Link("usr/bin/longshore"))
    for name in _HELPER_NAMES:
        tree.add(name, Link(HELPER))
    return tree


def _cargo_home() -> Path:
    return Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")


def _build(command: list[str], root: Path, target: Path, *, epoch: int, flags: list[str] | None = None) -> None:
    home = str(_cargo_home())
    # The last that fits wins: the clone may lie below cargo's home or the other way round.
    places = sorted({home: "/cargo", str(root): "/longshore"}.items(), key=lambda pair: len(pair[0]))
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
        "PYO3_PYTHON": sys.executable,
        "RUSTFLAGS": " ".join([*(f"--remap-path-prefix={at}={name}" for at, name in places), *(flags or [])]),
        "CFLAGS": " ".join(f"-ffile-prefix-map={at}={name}" for at, name in places),
        "SOURCE_DATE_EPOCH": str(epoch),
    }
    for name in ("CARGO_BUILD_RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CXXFLAGS", "LDFLAGS"):
        environment.pop(name, None)
    answer = subprocess.run(
        [*command, f"--target-dir={target / 'cargo'}"], cwd=root, env=environment, capture_output=True, check=False
    )
    if answer.returncode:
        said = (answer.stdout + answer.stderr).decode(errors="replace").strip()[-1500:]
        raise ImageError(f"{command[0]} cannot build for the image: said={said}")
