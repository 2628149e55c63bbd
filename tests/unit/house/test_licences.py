"""Every dependency comes under a licence that goes with ours (Apache-2.0), in both languages.

Promises: what cargo locked and what requirements.txt pinned is judged by the licence that each package states, as an SPDX expression or,
for older Python packages, by its classifiers; one that states nothing is a trespass. What only lints or tests is judged like the rest.
Does not know licence texts: a package that lies about its licence is believed.
"""

import importlib.metadata
import json
import re
import subprocess
from functools import cache

import pytest
from tests.unit.house.tree import ROOT, read

# MPL-2.0 asks for its own files' source only, so a dependency may have it; code of ours may not.
ALLOWED = {
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "OpenSSL",
    "PSF-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
}
# What Python packages write where an SPDX name belongs.
_SPELLINGS = {
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "Dual License": "Apache-2.0",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
# Classifiers that say who approves of a licence, not which it is.
_APPROVALS = {"OSI Approved", "DFSG approved"}
_TOKEN = re.compile(r"\(|\)|\bAND\b|\bOR\b|/")


def is_allowed(expression: str) -> bool:
    """Evaluate an SPDX expression: AND needs both sides, OR (or cargo's old `/`) needs one, AND binds tighter."""
    tokens = [token for part in re.split(rf"({_TOKEN.pattern})", expression) if (token := part.strip())]

    def either() -> bool:
        value = both()
        while tokens and tokens[0] in {"OR", "/"}:
            tokens.pop(0)
            value = both() or value
        return value

    def both() -> bool:
        value = one()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            value = one() and value
        return value

    def one() -> bool:
        token = tokens.pop(0) if tokens else ""
        if token != "(":
            return token in ALLOWED
        value = either()
        return bool(tokens) and tokens.pop(0) == ")" and value

    return either() and not tokens


@cache
def _crates() -> dict[str, str]:
    """Give the stated licence of every crate in Cargo.lock, by name and version."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1"]
    packages = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)["packages"]
    return {f"{package['name']} {package['version']}": package["license"] or "" for package in packages}


def _stated(metadata: importlib.metadata.PackageMetadata) -> str:
    """Give a Python package's licence: its expression, else its classifiers, else its licence field when that is one short line."""
    fields = metadata.json
    if expression := fields.get("license_expression"):
        return str(expression)
    classifiers = [entry.split(" :: ")[-1] for entry in fields.get("classifier", []) if entry.startswith("License :: ")]
    known = [_SPELLINGS.get(name, name) for name in classifiers if name not in _APPROVALS]
    field = str(fields.get("license", ""))
    return " AND ".join(known) or _SPELLINGS.get(field, field)


@cache
def _distributions() -> dict[str, str]:
    """Give the stated licence of every package that requirements.txt pins and this machine's marker lets in."""
    pinned = re.findall(r"^([a-z0-9._-]+)==(\S+)", read("requirements.txt"), re.MULTILINE)
    found = {}
    for name, version in pinned:
        try:
            found[f"{name} {version}"] = _stated(importlib.metadata.metadata(name))
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def test_crates_are_allowed() -> None:
    assert len(_crates()) > 100
    assert {name: stated for name, stated in _crates().items() if not is_allowed(stated)} == {}


def test_python_packages_are_allowed() -> None:
    assert len(_distributions()) > 40
    assert {name: stated for name, stated in _distributions().items() if not is_allowed(stated)} == {}


@pytest.mark.parametrize(
    "stated",
    [
        "MIT",
        "MIT OR GPL-3.0-only",
        "MIT/Apache-2.0",
        "(MIT OR Apache-2.0) AND Unicode-3.0",
        "ISC AND (Apache-2.0 OR ISC) AND OpenSSL",
    ],
)
def test_allowed_expression(stated: str) -> None:
    assert is_allowed(stated)


@pytest.mark.parametrize(
    "stated",
    [
        "",
        "GPL-3.0-only",
        "MIT AND AGPL-3.0-only",
        "(MIT OR GPL-2.0-only) AND LGPL-3.0-or-later",
        "SSPL-1.0",
        "(MIT",
        "MIT MIT",
        "UNKNOWN",
    ],
)
def test_refused_expression(stated: str) -> None:
    assert not is_allowed(stated)
