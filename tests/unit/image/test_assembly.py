"""The two ways to the image give the same files, and the way to the wheel that no other test goes: `make image` compiles with the machine's paths taken out.

What compiles is stood in for: what it is called with, and what is made of its answer, is looked at. Does not know whether the compiler does as it is told.
"""

import contextlib
import io
import re
import stat
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from scripts.image import assembly, ours
from scripts.image.oci import Layer, layer_tar
from scripts.image.tree import Directory, File, ImageError, Link, Tree
from tests.unit.house.tree import project_files

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "daemonset/image/Dockerfile").read_text()
EPOCH = 1_700_000_000


# --- two ways to the same files -------------------------------------------------------------------------------------------------


def _layers() -> list[Layer]:
    base, own = Tree(), Tree()
    base.add("tmp", Directory(0o1777))
    base.add("usr/bin/python3.11", File(b"ELF", 0o755))
    base.add("bin", Link("usr/bin"))
    base.add("usr/share/doc/a", Directory())
    own.text("usr/lib/longshore/longshore/__init__.py", "x = 1\n")
    own.add("usr/bin/longshore", File(b"#!\n", 0o755))
    own.add("velero", Link("usr/bin/longshore"))
    return [Layer(base, "below"), Layer(own, "above")]


def _found(root: Path) -> dict[str, tuple[int, bytes | str, float]]:
    found = {}
    for path in sorted(root.rglob("*")):
        one = path.lstat()
        held: bytes | str = ""
        if stat.S_ISLNK(one.st_mode):
            held = str(path.readlink())
        elif path.is_file():
            held = path.read_bytes()
        # Of a link neither mode nor time says anything.
        mode, at = (0, 0.0) if stat.S_ISLNK(one.st_mode) else (one.st_mode, one.st_mtime)
        found[path.relative_to(root).as_posix()] = (mode, held, at)
    return found


def test_folder_for_the_dockerfile_holds_what_the_layers_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(EPOCH))
    monkeypatch.setattr(assembly, "_interpreter", lambda _plan: contextlib.nullcontext(([], None)))
    monkeypatch.setattr(assembly, "layers", lambda *_words, **_more: _layers())
    folder, root = tmp_path / "folder", tmp_path / "root"
    folder.mkdir()
    root.mkdir()
    assembly.write_folder(assembly.Plan(), folder)
    for layer in _layers():
        with tarfile.open(fileobj=io.BytesIO(layer_tar(layer.tree, mtime=EPOCH))) as tar:
            tar.extractall(root, filter="fully_trusted")
    there = _found(folder)
    assert len(there) > 10 and there["velero"][1] == "usr/bin/longshore"
    assert there == _found(root)


def _instructions(text: str) -> list[str]:
    """The instructions of a stage, each on one line."""
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", " ")
    return [" ".join(line.split()) for line in lines.splitlines() if line.strip()]


def test_dockerfile_adds_nothing_to_that_folder_and_takes_nothing_away() -> None:
    build, final = (_instructions(part) for part in re.split(r"^FROM scratch\n", DOCKERFILE, flags=re.MULTILINE))
    assert "-m scripts.image folder /image " in build[-1]
    assert [one for one in final if one.split()[0] in ("COPY", "ADD", "RUN")] == ["COPY --from=build /image/ /"]
    # How it is started is in test_parts; nothing else is said there.
    assert [one.split()[0] for one in final] == ["COPY", "ENV", "USER", "WORKDIR", "ENTRYPOINT", "ARG", "ARG", "LABEL"]


def test_dockerfile_compiles_with_the_rust_that_is_asked_for() -> None:
    (image,) = re.findall(r"^FROM rust:([0-9.]+)-bookworm AS build$", DOCKERFILE, re.MULTILINE)
    assert f'rust-version = "{image}"' in (ROOT / "Cargo.toml").read_text()


def test_build_in_docker_is_given_every_file_of_the_project() -> None:
    text = (ROOT / "daemonset/image/Dockerfile.dockerignore").read_text()
    left_out = {line for line in text.splitlines() if line and not line.startswith("#")}
    assert left_out and all(re.fullmatch(r"[.a-z]+", one) for one in left_out), "patterns are not understood here"
    assert [name for name in project_files() if name.split("/")[0] in left_out] == []


# --- the wheel of `make image` --------------------------------------------------------------------------------------------------


class Maturin:
    """Stands in for maturin: notes how it is called, and leaves a wheel."""

    def __init__(self, told: bytes = b"") -> None:
        self.told = told
        self.calls: list[tuple[list[str], dict[str, str]]] = []
        self.returncode = 0

    def __call__(self, command: list[str], *, env: dict[str, str], **_more: Any) -> subprocess.CompletedProcess[bytes]:
        self.calls.append((list(map(str, command)), env))
        (out,) = (Path(word.partition("=")[2]) for word in self.calls[-1][0] if word.startswith("--out="))
        out.mkdir(parents=True, exist_ok=True)
        if not self.returncode:
            with zipfile.ZipFile(out / f"longshore-0.1.{len(self.calls)}-cp311-abi3-x.whl", "w") as wheel:
                wheel.writestr("longshore/_native.abi3.so", b"ELF" + self.told)
        return subprocess.CompletedProcess(command, self.returncode, b"", b"error[E0433]: no such crate\n")


@pytest.fixture
def maturin(monkeypatch: pytest.MonkeyPatch) -> Maturin:
    made = Maturin()
    monkeypatch.setattr(ours.subprocess, "run", made)
    monkeypatch.setenv("CARGO_HOME", "/home/me/.cargo")
    for name in ("RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "CFLAGS", "CXXFLAGS", "LDFLAGS"):
        monkeypatch.setenv(name, "-the=machines")
    return made


def test_wheel_is_compiled_without_the_machines_paths_and_flags(maturin: Maturin, tmp_path: Path) -> None:
    wheel = ours.build_wheel(Path("/home/me/clone"), tmp_path, epoch=EPOCH)
    (command, env) = maturin.calls[0]
    assert command[:4] == ["maturin", "build", "--release", "--locked"]
    assert {"--compatibility=manylinux_2_36", f"--target-dir={tmp_path}/cargo"} <= set(command)
    assert env["RUSTFLAGS"].split() == [
        "--remap-path-prefix=/home/me/clone=/longshore",
        "--remap-path-prefix=/home/me/.cargo=/cargo",
    ]
    assert "-ffile-prefix-map=/home/me/.cargo=/cargo" in env["CFLAGS"]
    assert env["SOURCE_DATE_EPOCH"] == str(EPOCH)
    assert "-the=machines" not in env.values()
    assert wheel.parent == tmp_path / "wheel"


def test_longer_path_is_the_last_one_said(maturin: Maturin, tmp_path: Path) -> None:
    """The compiler takes the last that fits, and a clone may lie below cargo's home."""
    ours.build_wheel(Path("/home/me/.cargo/git/clone"), tmp_path, epoch=EPOCH)
    assert maturin.calls[0][1]["RUSTFLAGS"].split()[-1] == "--remap-path-prefix=/home/me/.cargo/git/clone=/longshore"


def test_wheel_of_an_earlier_build_is_not_taken(maturin: Maturin, tmp_path: Path) -> None:
    first = ours.build_wheel(Path("/home/me/clone"), tmp_path, epoch=EPOCH)
    second = ours.build_wheel(Path("/home/me/clone"), tmp_path, epoch=EPOCH)
    assert second != first and second.is_file() and not first.exists()


@pytest.mark.parametrize("place", ["/home/me/clone/rust/engine", "/home/me/.cargo/registry"])
def test_wheel_in_which_the_machine_is_named_is_refused(maturin: Maturin, tmp_path: Path, place: str) -> None:
    maturin.told = place.encode()
    with pytest.raises(ImageError, match=r"paths of this machine.*_native\.abi3\.so"):
        ours.build_wheel(Path("/home/me/clone"), tmp_path, epoch=EPOCH)


def test_compiler_that_fails_is_told_in_its_words(maturin: Maturin, tmp_path: Path) -> None:
    maturin.returncode = 101
    with pytest.raises(ImageError, match=r"maturin cannot build for the image: said=error\[E0433\]: no such crate"):
        ours.build_wheel(Path("/home/me/clone"), tmp_path, epoch=EPOCH)
