"""The crates that are compiled into the extension and the helper: which, under which licence, and the licences' texts.

Asks cargo, which asks nobody else: `--locked`, and the crates were just built. Promises: normal dependencies for this processor alone, no build scripts'
and no tests'; each text once, with the names of the crates that came with it. It does not know the SBOM's format.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.image.tree import ImageError

__all__ = ["Crate", "linked_crates", "notices", "rust_version"]

_PROGRAMS = ("longshore-python", "longshore-wait")
_TEXTS = re.compile(r"(licen[cs]e|copying|notice|copyright|unlicense)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, order=True)
class Crate:
    """One crate as it was compiled."""

    name: str
    version: str
    licence: str
    checksum: str
    """SHA-256 of the published crate."""
    folder: Path


def rust_version(root: Path) -> str:
    """Tell which compiler builds here."""
    return subprocess.run(["rustc", "--version"], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


def linked_crates(root: Path, *, architecture: str) -> list[Crate]:
    """List the crates of others.

    Raises:
        ImageError: cargo does not know them.
    """
    command = [
        "cargo",
        "metadata",
        "--locked",
        "--format-version=1",
        f"--filter-platform={architecture}-unknown-linux-gnu",
    ]
    answer = subprocess.run(command, cwd=root, capture_output=True, check=False)
    if answer.returncode:
        raise ImageError(f"cargo cannot list the crates: said={answer.stderr.decode(errors='replace')[-500:]}")
    said = json.loads(answer.stdout)
    packages: dict[str, dict[str, Any]] = {package["id"]: package for package in said["packages"]}
    nodes = {node["id"]: node for node in said["resolve"]["nodes"]}
    todo = [one for one, package in packages.items() if package["name"] in _PROGRAMS]
    seen: set[str] = set(todo)
    while todo:
        for edge in nodes[todo.pop()]["deps"]:
            if any(kind["kind"] is None for kind in edge["dep_kinds"]) and edge["pkg"] not in seen:
                seen.add(edge["pkg"])
                todo.append(edge["pkg"])
    checksums = _checksums((root / "Cargo.lock").read_text())
    return sorted(
        Crate(
            package["name"],
            package["version"],
            (package["license"] or "NOASSERTION").replace("/", " OR "),
            checksums.get((package["name"], package["version"]), ""),
            Path(package["manifest_path"]).parent,
        )
        for package in (packages[one] for one in seen)
        if package["source"] is not None
    )


def notices(crates: list[Crate]) -> str:
    """Join the licence texts that crates bring along."""
    texts: dict[str, str] = {}
    users: dict[str, set[str]] = defaultdict(set)
    silent = []
    for crate in crates:
        found = [path for path in sorted(crate.folder.iterdir()) if path.is_file() and _TEXTS.match(path.name)]
        for path in found:
            text = path.read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n").strip()
            key = hashlib.sha256(" ".join(text.split()).encode()).hexdigest()
            texts[key] = min(text, texts.get(key, text))
            users[key].add(f"{crate.name} {crate.version}")
        if not found:
            silent.append(f"{crate.name} {crate.version}: {crate.licence}")
    parts = ["Licences of the Rust crates that are compiled into Longshore's extension and its restore-wait helper.\n"]
    if silent:
        parts.append("Without a text of their own:\n" + "".join(f"  {one}\n" for one in silent))
    for key in sorted(texts, key=lambda one: sorted(users[one])):
        names = "".join(f"  {one}\n" for one in sorted(users[key]))
        parts += ["=" * 80 + f"\n{names}" + "-" * 80 + f"\n{texts[key]}\n"]
    return "\n".join(parts)


def _checksums(lock: str) -> dict[tuple[str, str], str]:
    entries = re.findall(r'name = "([^"]+)"\nversion = "([^"]+)"\nsource = "[^"]+"\nchecksum = "([0-9a-f]{64})"', lock)
    return {(name, version): checksum for name, version, checksum in entries}
