"""What a machine lacks is told before anything is fetched, all of it at once; and a half-made `.venv` is made anew.

The tools that are looked for are scripts here, so that a machine can lack what this one has.
"""

import shutil
import subprocess
from pathlib import Path

import pytest
from tests.unit.house.tree import ROOT

PLAIN_TOOLS = ("bash", "dirname", "sed", "sort", "head", "mktemp", "rm", "awk", "touch", "find", "mkdir")
PYTHON = 'case "$*" in *version_info*) echo {version} ;; esac'
RUSTC = 'echo "rustc {version} (59807616e 2026-04-14)"'


@pytest.fixture
def machine(tmp_path):
    """Make one that has what a shell needs, and nothing else."""
    return Machine(tmp_path)


class Machine:
    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.home = folder / "home"
        self.temporary = folder / "tmp"
        for one in (self.bin, self.home, self.temporary):
            one.mkdir()
        for name in PLAIN_TOOLS:
            (self.bin / name).symlink_to(shutil.which(name))

    def has(self, name: str, script: str = ":", *, folder: Path | None = None) -> None:
        path = (folder or self.bin) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{script}\n")
        path.chmod(0o755)

    def has_all(self) -> None:
        self.has("python3", PYTHON.format(version="3.11.0"))
        self.has("cargo")
        self.has("rustc", RUSTC.format(version="1.95.0"))
        self.has("cc")

    def run(self, *words: str | Path, folder: Path = ROOT, **more: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": str(self.bin), "HOME": str(self.home), "TMPDIR": str(self.temporary), **more}
        return subprocess.run(
            words, cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )

    def lacks(self, **more: str) -> list[str]:
        """Give what it is told that it lacks, in order; each has a next step."""
        done = self.run(ROOT / "scripts" / "machine.sh", "python", "rust", "cc", **more)
        assert done.stdout == ""
        assert not any(self.temporary.iterdir())
        lines = done.stderr.splitlines()
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        assert len([line for line in lines if line.startswith("next: ")]) == len(errors)
        assert done.returncode == bool(errors), done.stderr
        return errors


def test_machine_that_has_all_is_told_nothing(machine):
    machine.has_all()
    assert machine.lacks() == []


def test_all_that_lacks_is_told_at_once(machine):
    assert machine.lacks() == [
        "there is no Python of this name: python=python3",
        "there is no Rust: neither cargo nor rustc is on the PATH",
        "there is no C compiler: cc is not on the PATH",
    ]


@pytest.mark.parametrize("version", ["3.10.13", "2.7.18", "3.9.0"])
def test_older_python_is_named(machine, version):
    machine.has_all()
    machine.has("python3.10", PYTHON.format(version=version))
    assert machine.lacks(PYTHON="python3.10") == [f"Python is older than 3.11: python=python3.10, version={version}"]


def test_python_without_venv_is_told_the_package(machine):
    machine.has_all()
    machine.has("python3", f"{PYTHON.format(version='3.12.4')}; [[ $* != *ensurepip* ]]")
    assert machine.lacks() == ["Python has no venv, which Debian has in a package of its own: python=python3"]


@pytest.mark.parametrize(("version", "lacks"), [("1.65.0", True), ("1.94.1", True), ("1.96.0-nightly", False)])
def test_older_rust_is_named(machine, version, lacks):
    machine.has_all()
    machine.has("rustc", RUSTC.format(version=version))
    path = machine.bin / "rustc"
    assert machine.lacks() == [f"Rust is older than 1.95: rustc={path}, version={version}"] * lacks


def test_rustup_without_a_toolchain_is_told(machine):
    machine.has_all()
    machine.has("rustc", "echo 'error: no default is configured' >&2; exit 1")
    assert machine.lacks() == [f"rustc does not say its version: rustc={machine.bin / 'rustc'}"]


def test_rust_that_is_not_on_the_path_is_found(machine):
    machine.has_all()
    (machine.bin / "cargo").unlink()
    machine.has("cargo", folder=machine.home / ".cargo" / "bin")
    assert machine.lacks() == ["Rust is installed, but not on the PATH"]


def test_compiler_without_headers_is_told(machine):
    machine.has_all()
    machine.has("cc", "echo 'fatal error: stdlib.h: No such file or directory' >&2; exit 1")
    assert machine.lacks() == [f"the C compiler cannot make a program: cc={machine.bin / 'cc'}"]


def test_make_demo_says_what_lacks_before_anything_else(machine, tmp_path):
    clone = tmp_path / "clone"
    clone.mkdir()
    for name in ("Makefile", "scripts", "pyproject.toml", "Cargo.toml", "requirements.txt"):
        (clone / name).symlink_to(ROOT / name)
    done = machine.run(shutil.which("make"), "demo", "SHELL=" + shutil.which("bash"), folder=clone)
    assert done.returncode == 2
    assert done.stderr.count("error: there is no ") == 3
    assert done.stdout == ""
    assert not (clone / ".venv").exists()


@pytest.mark.parametrize(("pip", "made"), [("exit 1", True), (":", False)], ids=["half", "whole"])
def test_half_a_venv_is_made_anew(machine, tmp_path, pip, made):
    clone = tmp_path / "clone"
    bin_folder = clone / ".venv" / "bin"
    for name in ("Makefile", "scripts", "pyproject.toml", "Cargo.toml"):
        clone.mkdir(exist_ok=True)
        (clone / name).symlink_to(ROOT / name)
    (clone / "requirements.txt").write_text("uv==1.0 \\\n    --hash=sha256:0\n")
    machine.has("python", pip, folder=bin_folder)
    machine.has("uv", folder=bin_folder)
    # What `-m venv --clear .venv` does, as far as the recipe can tell.
    mend = f"[[ $* != '-m venv --clear .venv' ]] || echo made >>'{tmp_path}/log' && printf '#!/usr/bin/env bash\\n' >.venv/bin/python"
    machine.has("python3", f"{PYTHON.format(version='3.11.9')}; {mend}")
    done = machine.run(shutil.which("make"), "venv", folder=clone)
    assert done.returncode == 0, done.stderr
    assert (clone / ".venv" / ".stamp-requirements").exists()
    assert (tmp_path / "log").exists() == made
