"""What is in the image: all that is needed, nothing that helps an intruder, every part named; and the same bytes each time."""

import json
import os
import re
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from scripts.image import assembly
from scripts.image.debian import PACKAGES
from scripts.image.packages import PLACE

from tests.image.conftest import Built

# Half a minute of work for each build, which a busy machine stretches.
pytestmark = pytest.mark.timeout(1200)

MEBIBYTE = 1 << 20
PYC_UNCHECKED = 1


def _files(image: Built) -> dict[str, os.stat_result]:
    found = {}
    for folder, names, files in os.walk(image.root):
        for name in (*names, *files):
            path = Path(folder, name)
            found[path.relative_to(image.root).as_posix()] = path.lstat()
    return found


def test_second_build_has_same_digest(image: Built, tmp_path: Path) -> None:
    (tmp_path / "cargo").symlink_to(image.plan.target / "cargo")
    again = replace(image.plan, target=tmp_path)
    assert assembly.make(again) == image.digest
    assert again.archive_path.read_bytes() == image.plan.archive_path.read_bytes()


def test_nothing_lends_rights_and_everything_is_roots(image: Built) -> None:
    files = _files(image)
    assert len(files) > 1000
    assert [path for path, one in files.items() if one.st_mode & 0o6000 and not stat.S_ISLNK(one.st_mode)] == []
    writable = {path for path, one in files.items() if one.st_mode & 0o022 and not stat.S_ISLNK(one.st_mode)}
    assert writable == {"tmp"}
    kinds = {stat.S_IFMT(one.st_mode) for one in files.values()}
    assert kinds == {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK}
    if os.geteuid() == 0:
        assert {(one.st_uid, one.st_gid) for one in files.values()} == {(0, 0)}


def test_no_shell_and_no_package_manager(image: Built) -> None:
    programs = {path.name for path in (image.root / "usr/bin").iterdir()} | {
        path.name for path in (image.root / "usr/sbin").iterdir()
    }
    assert programs == {"python3.11", "longshore", "kubectl-longshore", "longshore-restore-wait"}
    wrong = re.compile(r"(^|/)(sh|bash|dash|busybox|perl|apt(-get)?|dpkg|pip3?|curl|wget|nc|gcc|ld)$")
    assert [path for path in _files(image) if wrong.search(path) and not (image.root / path).is_dir()] == []


def test_links_lead_somewhere(image: Built) -> None:
    for path, one in _files(image).items():
        if stat.S_ISLNK(one.st_mode):
            target = os.path.normpath(os.path.join("/", os.path.dirname(path), os.readlink(image.root / path)))
            assert (image.root / target.removeprefix("/")).exists(), f"{path} → {target}"


def test_is_small(image: Built) -> None:
    size = sum(one.st_size for one in _files(image).values() if stat.S_ISREG(one.st_mode))
    assert size < 110 * MEBIBYTE
    assert image.plan.archive_path.stat().st_size < 45 * MEBIBYTE


def test_bytecode_is_never_compared_with_its_source(image: Built) -> None:
    compiled = list(image.root.rglob("*.pyc"))
    assert len(compiled) > 500
    assert {path.read_bytes()[4] for path in compiled} == {PYC_UNCHECKED}
    ours = list((image.root / PLACE / "longshore").rglob("*.py"))
    assert [path for path in ours if not (path.parent / "__pycache__" / f"{path.stem}.cpython-311.pyc").exists()] == []
    # Where the machine's folder shows, a second machine's image differs.
    folder = os.fsencode(image.root.parent)
    assert [path for path in compiled if folder in path.read_bytes()] == []


def test_sbom_names_every_package(image: Built) -> None:
    described = json.loads((image.root / assembly.SBOM).read_text())
    purls = {package["externalRefs"][0]["referenceLocator"]: package for package in described["packages"]}
    debian = {purl.split("/")[2].split("@")[0] for purl in purls if purl.startswith("pkg:deb/")}
    installed = {path.name for path in (image.root / "var/lib/dpkg/status.d").iterdir()}
    assert debian == installed == set(PACKAGES)
    infos = [path.stem.rsplit("-", 1)[0] for path in (image.root / PLACE).glob("*.dist-info")]
    python = {re.sub(r"[-_.]+", "-", name).lower() for name in infos} - {"longshore"}
    assert {purl.removeprefix("pkg:pypi/").split("@")[0] for purl in purls if purl.startswith("pkg:pypi/")} == python
    crates = {purl.removeprefix("pkg:cargo/").split("@")[0] for purl in purls if purl.startswith("pkg:cargo/")}
    assert {"pyo3", "object_store", "aws-lc-sys", "zstd-sys", "signal-hook"} <= crates
    assert not {name for name in crates if name.startswith("longshore")}
    related = {one["relatedSpdxElement"] for one in described["relationships"]}
    assert {package["SPDXID"] for package in described["packages"]} == related
    assert len(related) == len(described["packages"])
    beside = image.plan.archive_path.with_name(image.plan.archive_path.name.replace(".oci.tar", ".spdx.json"))
    assert beside.read_bytes() == (image.root / assembly.SBOM).read_bytes()


def test_every_part_has_its_licence(image: Built) -> None:
    documents = image.root / "usr/share/doc"
    assert [name for name in PACKAGES if not (documents / name / "copyright").is_file()] == []
    assert (documents / "longshore" / "LICENSE").is_file()
    crates = (documents / "longshore" / "rust-crates.txt").read_text()
    described = json.loads((image.root / assembly.SBOM).read_text())
    named = [package for package in described["packages"] if package["SPDXID"].startswith("SPDXRef-Crate-")]
    assert [one["name"] for one in named if f"  {one['name']} {one['versionInfo']}" not in crates] == []
    # A package without a text of its own states its licence in its METADATA.
    stated = [package for package in described["packages"] if "-Python-" in package["SPDXID"]]
    assert [
        one["name"]
        for one in stated
        if one["licenseDeclared"] == "NOASSERTION" and "NOASSERTION" in one.get("licenseComments", "NOASSERTION")
    ] == []


def test_configuration(image: Built) -> None:
    asked = image.config["config"]
    assert (asked["User"], asked["Entrypoint"], asked["WorkingDir"]) == ("65532:65532", ["/velero"], "/")
    assert asked["Labels"]["io.longshore.debian-packages"] == ("current" if image.plan.is_current else "pinned")
    assert image.config["architecture"] == image.plan.architecture
    assert len(image.config["history"]) == len(image.manifest["layers"]) == 3
