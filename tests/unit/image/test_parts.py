"""The smaller parts: what is left out of packages, the SBOM, static programs, and that what stands in two files is the same in both."""

import json
import re
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from scripts.image import assembly, ours, packages, sbom
from scripts.image.crates import Crate, notices
from scripts.image.debian import Package, Pin, read_lock
from scripts.image.packages import PLACE, Distribution
from scripts.image.system import USER, system_files
from scripts.image.tree import File, ImageError, Link, Tree

from longshore.install.workloads import NOBODY

ROOT = Path(__file__).parents[3]
RESCUES = {"zstandard", "blake3", "xxhash", "cryptography"}


def _names(text: str) -> set[str]:
    return {found[0] for line in text.splitlines() if (found := re.match(r"[A-Za-z0-9_-]+", line))}


# --- what stands in two files ---------------------------------------------------------------------------------------------------


def test_runtime_lock_is_part_of_the_whole_lock() -> None:
    whole, runtime = (
        packages.pinned((ROOT / name).read_text()) for name in ("requirements.txt", "requirements-runtime.txt")
    )
    assert len(runtime) > 20
    assert {name for name, entry in runtime.items() if whole.get(name) != entry} == set()
    assert {"pytest", "ruff", "mypy", "cryptography"} & set(runtime) == set()


def test_runtime_requirements_are_those_of_the_wheel() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert _names((ROOT / "requirements-runtime.in").read_text()) == _names("\n".join(declared)) - RESCUES
    assert set(packages.LEFT_OUT_PACKAGES) <= set(packages.pinned((ROOT / "requirements-runtime.txt").read_text()))


def test_dockerfile_says_the_same() -> None:
    text = (ROOT / "daemonset/image/Dockerfile").read_text()
    final = text[text.index("FROM scratch") :]
    config = assembly.configuration(ours.version(ROOT), revision="$LONGSHORE_REVISION", is_pinned=True)
    assert f"USER {config['User']}\n" in final
    assert f"ENV {' '.join(config['Env'])}\n" in final
    assert f"WORKDIR {config['WorkingDir']}\n" in final
    assert f"ENTRYPOINT {json.dumps(config['Entrypoint'])}\n" in final
    labels = dict(re.findall(r'([a-z.-]+)="([^"]*)"', final))
    assert labels == config["Labels"] | {"io.longshore.debian-packages": "$DEBIAN"}


def test_dockerfile_builds_where_no_file_of_ours_speaks_of() -> None:
    build = (ROOT / "daemonset/image/Dockerfile").read_text().partition("FROM scratch")[0]
    (folder,) = re.findall(r"^WORKDIR (/.*)$", build, re.MULTILINE)
    sources = [
        path
        for room in ("python", "rust")
        for path in (ROOT / room).rglob("*")
        if path.suffix in {".py", ".rs", ".toml"}
    ]
    assert [
        path for path in [*sources, ROOT / "README.md", ROOT / "pyproject.toml"] if folder in path.read_text()
    ] == []


def test_user_is_the_servers() -> None:
    assert USER == NOBODY


def test_lock_of_this_tree_can_be_read() -> None:
    assert read_lock(ROOT / "daemonset/image/debian-amd64.lock")


# --- packages -------------------------------------------------------------------------------------------------------------------


def test_trimmed_package_says_what_is_left() -> None:
    tree = Tree()
    record = (
        "a/__init__.py,sha256=x,1\na/tests/test_a.py,,\n../../bin/a,,\na-1.dist-info/RECORD,,\nkubernetes/aio/x.py,,\n"
    )
    for name in (
        "a/__init__.py",
        "a/tests/test_a.py",
        "kubernetes/aio/x.py",
        "bin/a",
        "botocore/data/s3/x",
        "botocore/data/ec2/x",
    ):
        tree.text(f"{PLACE}/{name}", "")
    tree.text(f"{PLACE}/a-1.dist-info/RECORD", record)
    kept = packages.trimmed(tree)
    assert [path.removeprefix(f"{PLACE}/") for path, _ in kept.files()] == [
        "a-1.dist-info/RECORD",
        "a/__init__.py",
        "botocore/data/s3/x",
    ]
    assert kept.nodes[f"{PLACE}/a-1.dist-info/RECORD"] == File(b"a/__init__.py,sha256=x,1\na-1.dist-info/RECORD,,\n")


def test_licence_as_it_is_stated() -> None:
    tree = Tree()
    said = {
        "a": "License-Expression: MIT",
        "b": "License: BSD",
        "c": "Classifier: License :: OSI Approved :: MIT License",
        "d": f"License: {'a whole text ' * 20}\nClassifier: License :: OSI Approved :: Apache Software License",
        "e": "Summary: x",
    }
    for name, line in said.items():
        tree.text(
            f"{PLACE}/{name}-1.dist-info/METADATA",
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n{line}\n\nText.\n",
        )
    found = {one.name: one.licence for one in packages.distributions(tree)}
    assert found == {"a": "MIT", "b": "BSD", "c": "MIT License", "d": "Apache Software License", "e": "NOASSERTION"}


# --- the system -----------------------------------------------------------------------------------------------------------------


def _package(name: str, **files: str) -> Package:
    tree = Tree()
    for path, text in files.items():
        tree.text(path, text)
    return Package(
        Pin(name, "1.0", 1, "0" * 64),
        f"Package: {name}\nVersion: 1.0\nArchitecture: all\nSource: src-{name} (1)\n",
        tree,
    )


AUTHORITIES = {
    "usr/share/doc/ca/copyright": "free",
    "usr/share/ca-certificates/mozilla/B.crt": "b\n",
    "usr/share/ca-certificates/mozilla/A.crt": "a\n",
}


def test_system_keeps_what_is_needed() -> None:
    one = _package(
        "one",
        **{
            "usr/share/doc/one/copyright": "free",
            "usr/share/doc/one/changelog.gz": "x",
            "usr/bin/one": "x",
            "etc/one.conf": "x",
            "lib/x86_64-linux-gnu/libone.so": "x",
            "usr/lib/python3.11/lib-dynload/_lzma.cpython-311-x86_64-linux-gnu.so": "x",
        },
    )
    linked = _package("linked", **{"usr/lib/linked": "x"})
    linked.tree.add("usr/share/doc/linked", Link("one"))
    tree = system_files([one, linked, _package("ca", **AUTHORITIES)])
    files = dict(tree.files())
    assert files["etc/ssl/certs/ca-certificates.crt"].data == b"a\nb\n"
    assert tree.nodes["usr/share/doc/linked/copyright"] == Link("../one/copyright")
    assert "usr/lib/x86_64-linux-gnu/libone.so" in files
    assert {"usr/bin/one", "etc/one.conf", "usr/share/doc/one/changelog.gz"} & set(files) == set()
    assert not [path for path in files if "_lzma" in path]
    assert {path for path in files if path.startswith("var/")} == {
        f"var/lib/dpkg/status.d/{name}" for name in ("one", "linked", "ca")
    }


def test_package_without_a_licence_is_refused() -> None:
    with pytest.raises(ImageError, match="licence"):
        system_files([_package("one", **{"usr/lib/one": "x"}), _package("ca", **AUTHORITIES)])


# --- SBOM and notices -----------------------------------------------------------------------------------------------------------


def _document(**given: Any) -> dict[str, Any]:
    parts = {
        "debian": [_package("libx")],
        "python": [Distribution("Some_Thing", "2", "BSD License")],
        "rust": [Crate("serde", "1.0", "MIT OR Apache-2.0", "ab", Path())],
    }
    return dict(
        json.loads(sbom.document(name="longshore", version="1", created=0, toolchain="rustc 1", **(parts | given)))
    )


def test_sbom_names_each_part() -> None:
    made = _document()
    purls = [one["externalRefs"][0]["referenceLocator"] for one in made["packages"]]
    assert purls == [
        "pkg:oci/longshore@1",
        "pkg:deb/debian/libx@1.0?arch=all",
        "pkg:pypi/some-thing@2",
        "pkg:cargo/serde@1.0",
    ]
    by_name = {one["name"]: one for one in made["packages"]}
    assert by_name["serde"]["licenseDeclared"] == "MIT OR Apache-2.0"
    assert (by_name["Some_Thing"]["licenseDeclared"], by_name["Some_Thing"]["licenseComments"]) == (
        "NOASSERTION",
        "the package states: BSD License",
    )
    assert by_name["libx"]["sourceInfo"] == "built from source package src-libx (1)"
    assert len({one["SPDXID"] for one in made["packages"]}) == 4


def test_sbom_is_named_by_what_is_in_it() -> None:
    assert _document()["documentNamespace"] == _document()["documentNamespace"]
    assert _document()["documentNamespace"] != _document(rust=[])["documentNamespace"]


def test_notices_hold_each_text_once(tmp_path: Path) -> None:
    crates = []
    for name, text in (("a", "THE  LICENCE\n"), ("b", "THE\nLICENCE"), ("c", None)):
        (tmp_path / name).mkdir()
        if text is not None:
            (tmp_path / name / "LICENSE-MIT").write_text(text)
        crates.append(Crate(name, "1", "MIT", "", tmp_path / name))
    said = notices(crates)
    assert said.count("LICENCE") == 1
    assert "  a 1\n  b 1\n" in said
    assert "  c 1: MIT\n" in said


# --- programs -------------------------------------------------------------------------------------------------------------------


def _elf(*segments: int) -> bytes:
    head = bytearray(64)
    head[32:40] = (64).to_bytes(8, "little")
    head[54:58] = (56).to_bytes(2, "little") + len(segments).to_bytes(2, "little")
    return bytes(head) + b"".join(one.to_bytes(4, "little") + bytes(52) for one in segments)


def test_program_that_asks_for_a_loader_is_not_static() -> None:
    assert ours.is_static(_elf(1, 2, 6))
    assert not ours.is_static(_elf(1, 3, 2))


def test_wheel_that_tells_of_its_machine_is_noticed(tmp_path: Path) -> None:
    wheel = tmp_path / "x.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("longshore/_native.abi3.so", b"\0panic at /home/me/.cargo/registry/x.rs\0")
        archive.writestr("longshore/a.py", b"# /cargo/registry, /home/me/.cargo-not\n")
        archive.writestr("longshore-1.dist-info/sboms/x.json", b"file:///home/me/.cargo/x")
    assert ours.tells_of_machine(wheel, [Path("/home/me/.cargo")]) == ["usr/lib/longshore/longshore/_native.abi3.so"]
    assert ours.tells_of_machine(wheel, [Path("/home/me/longshore")]) == []


def test_commands_have_veleros_names() -> None:
    tree = ours.commands(b"helper")
    assert tree.nodes["velero"] == Link("usr/bin/longshore")
    assert {path for path, node in tree.nodes.items() if node == Link(ours.HELPER)} == {
        "velero-restore-helper",
        "velero-restic-restore-helper",
    }
