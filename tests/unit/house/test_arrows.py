"""Arrows between rooms point down, and each room that is the one door to something is the only one.

The import contract lives in pyproject.toml and the bans of ruff and clippy in their own files; what is here proves that those are on guard
(a planted trespass is refused), and guards by itself what they cannot see: edges between crates, lints that a manifest forgot, where
`unsafe` stands, and which of the banned packages each door may pass.
"""

import ast
import json
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.unit.house import rust_style
from tests.unit.house.tree import ROOT, files, judge, read

BIN = Path(sys.executable).parent

# --- crates -------------------------------------------------------------------------------------------------------------------

# format, store and kernels are strangers; only the engine knows all three. The seam may name what the engine hands out.
CRATE_EDGES = {
    "longshore-format": set(),
    "longshore-store": set(),
    "longshore-kernels": set(),
    "longshore-engine": {"longshore-format", "longshore-store", "longshore-kernels"},
    "longshore-python": {"longshore-engine", "longshore-format", "longshore-store"},
    # A program of its own, inside tenants' pods: it knows nobody.
    "longshore-wait": set(),
    # Measurements look at every part from outside; nothing knows them.
    "longshore-sim": {"longshore-engine", "longshore-format", "longshore-store"},
    "longshore-micro": {"longshore-engine", "longshore-format", "longshore-kernels", "longshore-store"},
}
# Each says why in its manifest: one holds the unsafe code, in the other PyO3's macros expand to some.
OWN_LINTS = {"rust/kernels/Cargo.toml", "rust/python/Cargo.toml"}
DENIED_EVERYWHERE = {"unwrap_used", "expect_used", "panic"}


@cache
def _crates() -> list[dict[str, Any]]:
    command = ["cargo", "metadata", "--locked", "--no-deps", "--format-version", "1"]
    packages = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)["packages"]
    return [package for package in packages if isinstance(package, dict)]


def _wrong_edges(crates: list[dict[str, Any]]) -> list[str]:
    """List edges between our crates that no arrow allows; tests of a crate keep the same arrows."""
    ours = {crate["name"] for crate in crates}
    edges = {
        (crate["name"], edge["name"]) for crate in crates for edge in crate["dependencies"] if edge["name"] in ours
    }
    return sorted(f"{start} → {end}" for start, end in edges if end not in CRATE_EDGES.get(start, set()) | {start})


def test_crates_keep_their_arrows() -> None:
    assert {crate["name"] for crate in _crates()} == set(CRATE_EDGES)
    assert _wrong_edges(_crates()) == []


def test_wrong_crate_edge_is_noticed() -> None:
    planted = {"name": "longshore-store", "dependencies": [{"name": "longshore-format"}, {"name": "bytes"}]}
    assert _wrong_edges([planted, {"name": "longshore-format", "dependencies": []}]) == [
        "longshore-store → longshore-format"
    ]


def _lint_faults(name: str, manifest: str) -> list[str]:
    """Say what a crate's manifest lacks of the house's lints."""
    lints = tomllib.loads(manifest).get("lints", {})
    if name not in OWN_LINTS:
        return [] if lints == {"workspace": True} else ["[lints] is not `workspace = true`"]
    faults = [
        f"clippy::{lint} is not denied"
        for lint in sorted(DENIED_EVERYWHERE)
        if lints.get("clippy", {}).get(lint) != "deny"
    ]
    return faults + ([] if lints.get("rust", {}).get("missing_docs") == "deny" else ["missing_docs is not denied"])


def test_every_crate_carries_the_lints() -> None:
    manifests = [
        name
        for name in files("rust/", "benches/", "tests/sim/", ending="Cargo.toml")
        if not name.startswith("rust/fuzz/")
    ]
    assert len(manifests) == len(CRATE_EDGES)
    assert {name: faults for name in manifests if (faults := _lint_faults(name, read(name)))} == {}


def test_workspace_denies_what_the_house_denies() -> None:
    lints = tomllib.loads(read("Cargo.toml"))["workspace"]["lints"]
    assert lints["rust"] == {"unsafe_code": "forbid", "missing_docs": "deny", "unused_must_use": "deny"}
    assert {lint for lint in DENIED_EVERYWHERE if lints["clippy"].get(lint) != "deny"} == set()


def test_missing_lint_is_noticed() -> None:
    assert _lint_faults("rust/store/Cargo.toml", "[package]\nname = 'x'")
    assert _lint_faults("rust/store/Cargo.toml", "[lints]\nworkspace = true\n") == []
    assert len(_lint_faults("rust/kernels/Cargo.toml", "[lints.clippy]\npanic = 'deny'\nunwrap_used = 'warn'")) == 3


def test_unsafe_stands_in_kernels_alone() -> None:
    assert (
        judge(
            rust_style.unsafe_code,
            [name for name in files("rust/", ending=".rs") if not name.startswith("rust/kernels/")],
        )
        == []
    )


def test_unsafe_is_noticed() -> None:
    assert rust_style.unsafe_code("fn f() { unsafe { g() } }")
    assert rust_style.unsafe_code("unsafe impl Send for X {}")
    assert rust_style.unsafe_code('// unsafe { }\n#![forbid(unsafe_code)]\nlet s = "unsafe { }";') == []


# Rooms that stand for the world, and hand it to the rest as Clock, Rng, Fs, Store, Spawn.
WORLD_ROOMS = re.compile(
    r"rust/(?:engine/src/(?:volume|system|seams)|store/src/(?:local|cloud|system)|kernels/|wait/)|/tests?(?:/|\.rs$|_)|/benches/|/suite"
)


def test_world_is_handed_in() -> None:
    names = [name for name in files("rust/", ending=".rs") if not WORLD_ROOMS.search(name)]
    assert len(names) > 10
    trespasses = judge(rust_style.touches_world, names)
    assert not trespasses, "\n" + "\n".join(trespasses)


@pytest.mark.parametrize(
    "text",
    [
        "use std::fs::File;",
        "rustix::fs::openat(d, n)",
        "std::thread::spawn(f)",
        "Instant::now()",
        "getrandom::fill(&mut b)",
        'std::env::var("X")',
    ],
)
def test_world_is_noticed(text: str) -> None:
    assert rust_style.touches_world(text)
    assert rust_style.touches_world(f"fn f() {{}}\n#[cfg(test)]\nmod tests {{\n{text}\n}}") == []
    assert rust_style.touches_world(f"// {text}") == []


# --- Python rooms -------------------------------------------------------------------------------------------------------------

# The room that may import it. Ruff's ban knows only whether a file may pass some ban; this knows which.
DOORS = {"longshore._native": "datapath", "kubernetes": "kube", "boto3": "objectstore", "botocore": "objectstore"}
RESCUE_IMPORTS = {"zstandard", "blake3", "xxhash", "cryptography"}


def _imports(text: str) -> set[str]:
    """List the modules that a file imports, by statement or by `import_module("…")`; names that are imported count as modules."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import(names=names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(module=str(module), names=names):
                found |= {module} | {f"{module}.{alias.name}" for alias in names}
            case ast.Call(
                func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                found.add(module)
            case _:
                pass
    return found


def _names(module: str, imports: set[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for name in imports)


def _closed_doors(name: str, text: str) -> list[str]:
    """List what a file of the package imports past the room that is its door."""
    room = name.split("/")[2].removesuffix(".py")
    imports = _imports(text)
    found = [module for module, door in DOORS.items() if room != door and _names(module, imports)]
    return found + (["longshore.rescue"] if room != "rescue" and _names("longshore.rescue", imports) else [])


def test_doors_are_kept() -> None:
    names = files("python/longshore/", ending=".py")
    assert {name: found for name in names if (found := _closed_doors(name, read(name)))} == {}


@pytest.mark.parametrize(
    ("room", "text", "found"),
    [
        ("controllers/a.py", "import longshore._native", ["longshore._native"]),
        ("controllers/a.py", "from longshore import _native", ["longshore._native"]),
        ("controllers/a.py", "def f():\n    from longshore._native import open_repository", ["longshore._native"]),
        ("datapath.py", "from longshore import _native", []),
        ("datapath/jobs.py", "import longshore._native, boto3", ["boto3"]),
        ("kube/a.py", "import kubernetes.client\nfrom botocore import config", ["botocore"]),
        (
            "objectstore/a.py",
            "import boto3\nimport importlib\nimportlib.import_module('kubernetes.config')",
            ["kubernetes"],
        ),
        ("cli/a.py", "from longshore import rescue\nimport kubernetes_validate", ["longshore.rescue"]),
    ],
)
def test_closed_door_is_noticed(room: str, text: str, found: list[str]) -> None:
    assert _closed_doors(f"python/longshore/{room}", text) == found


def test_rescue_stands_alone() -> None:
    names = files("python/longshore/rescue.py")
    assert names
    tops = {module.split(".")[0] for module in _imports(read(names[0]))}
    assert tops - set(sys.stdlib_module_names) - RESCUE_IMPORTS - {"__future__"} == set()


# --- guards that live elsewhere are on guard ------------------------------------------------------------------------------------


@pytest.mark.parametrize("banned", ["longshore._native", "kubernetes", "boto3", "botocore"])
def test_ruff_refuses_banned_import(banned: str) -> None:
    command = [
        BIN / "ruff",
        "check",
        "--select",
        "TID251",
        "--stdin-filename",
        "python/longshore/controllers/planted.py",
        "-",
    ]
    answer = subprocess.run(command, cwd=ROOT, input=f"import {banned}\n", text=True, capture_output=True, check=False)
    assert answer.returncode == 1
    assert banned in answer.stdout


def _lint_imports(package_parent: Path) -> subprocess.CompletedProcess[str]:
    command = [BIN / "lint-imports", "--no-cache", "--no-logo", "--config", ROOT / "pyproject.toml"]
    return subprocess.run(
        command,
        cwd=package_parent,
        env={"PYTHONPATH": str(package_parent)},
        text=True,
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("room", "imports"),
    [
        ("kube/client.py", "longshore.controllers.backup"),
        ("errors.py", "longshore.api"),
        ("volumes.py", "longshore.datapath"),
        ("server.py", "longshore.node_agent"),
        ("runtime/queue.py", "longshore.cli"),
        ("secret_room/a.py", "longshore.errors"),
    ],
)
def test_import_contract_refuses_wrong_arrow(tmp_path: Path, room: str, imports: str) -> None:
    package = tmp_path / "longshore"
    sound = {
        "api/a.py": "errors",
        "kube/client.py": "api.a",
        "datapath.py": "kube.client",
        "controllers/backup.py": "datapath",
    }
    sound |= {
        "server.py": "controllers.backup",
        "node_agent.py": "controllers.backup",
        "cli/main.py": "server",
        "logs.py": "",
        "errors.py": "",
    }
    for name, lower in sound.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(f"import longshore.{lower}\n" if lower else "")
        (package / name).with_name("__init__.py").touch()
    (package / "__init__.py").touch()
    assert _lint_imports(tmp_path).returncode == 0, _lint_imports(tmp_path).stdout

    (package / room).parent.mkdir(parents=True, exist_ok=True)
    (package / room).with_name("__init__.py").touch()
    (package / room).write_text(f"import {imports}\n")
    answer = _lint_imports(tmp_path)
    assert answer.returncode == 1
    assert room.split("/", maxsplit=1)[0].removesuffix(".py") in answer.stdout
