"""Packages by their pins: only the pinned bytes get in, and a mirror that has moved on is told from one that does not answer.

Promises: the mirror is a folder of this test's own, which apt reads like any other.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from scripts.image import debian
from scripts.image.debian import PACKAGES, Pin, PinGoneError
from scripts.image.tree import File, ImageError, Link
from tests.support.lacking import needs

needs_apt = needs(all(map(shutil.which, ("apt-get", "dpkg-deb"))), "apt-get or dpkg-deb is not on PATH")


class Mirror:
    """A flat repository in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        self.sources = folder / "sources.list"
        self.sources.write_text(f"deb [trusted=yes] file://{folder} ./\n")

    def publish(self, name: str, version: str, content: str) -> Pin:
        """Have one version, and no other, of a package."""
        for old in self.folder.glob(f"{name}_*.deb"):
            old.unlink()
        tree = self.folder / "tree"
        (tree / "DEBIAN").mkdir(parents=True)
        control = (
            f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n"
        )
        (tree / "DEBIAN" / "control").write_text(control)
        (tree / "DEBIAN" / "postinst").write_text("#!/bin/sh\ntouch /ran\n")
        (tree / "DEBIAN" / "postinst").chmod(0o755)
        (tree / "lib").mkdir()
        (tree / "lib" / name).write_text(content)
        (tree / "usr/bin").mkdir(parents=True)
        (tree / "usr/bin" / name).symlink_to(f"../lib/{name}")
        file = self.folder / f"{name}_{version}_all.deb"
        subprocess.run(
            ["dpkg-deb", "--build", "--root-owner-group", "-Znone", tree, file], check=True, capture_output=True
        )
        shutil.rmtree(tree)
        self._index()
        data = file.read_bytes()
        return Pin(name, version, len(data), _sha256(data))

    def _index(self) -> None:
        entries = []
        for file in sorted(self.folder.glob("*.deb")):
            control = subprocess.run(["dpkg-deb", "--field", file], check=True, capture_output=True, text=True).stdout
            data = file.read_bytes()
            entries.append(f"{control}Filename: ./{file.name}\nSize: {len(data)}\nSHA256: {_sha256(data)}\n")
        (self.folder / "Packages").write_text("\n".join(entries))

    def fetch(self, *pins: Pin, current: bool = False) -> dict[Pin, Path]:
        return debian.fetch(pins, cache=self.cache, architecture="amd64", sources=self.sources, current=current)


def _sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    return Mirror(tmp_path)


@needs_apt
def test_package_becomes_files(mirror: Mirror) -> None:
    pin = mirror.publish("one", "1.0", "hello")
    package = debian.unpack(pin, mirror.fetch(pin)[pin])
    assert package.tree.nodes["usr/lib/one"] == File(b"hello")
    assert package.tree.nodes["usr/bin/one"] == Link("../lib/one")
    assert "Version: 1.0" in package.control
    assert not os.path.lexists("/ran")


@needs_apt
def test_what_was_had_once_needs_no_mirror(mirror: Mirror) -> None:
    pin = mirror.publish("one", "1.0", "hello")
    mirror.fetch(pin)
    mirror.publish("one", "2.0", "hello again")
    assert mirror.fetch(pin)[pin].is_file()


@needs_apt
def test_mirror_that_moved_on(mirror: Mirror) -> None:
    gone = mirror.publish("one", "1.0", "hello")
    there = mirror.publish("two", "1.0", "hello")
    mirror.publish("one", "2.0", "hello again")
    with pytest.raises(PinGoneError, match="make image-lock"):
        mirror.fetch(gone, there)
    assert {(pin.name, pin.version) for pin in mirror.fetch(gone, there, current=True)} == {
        ("one", "2.0"),
        ("two", "1.0"),
    }


@needs_apt
def test_same_version_with_other_bytes_is_refused(mirror: Mirror) -> None:
    pin = mirror.publish("one", "1.0", "hello")
    mirror.publish("one", "1.0", "hullo")
    with pytest.raises(ImageError, match="other bytes than the lock") as caught:
        mirror.fetch(pin)
    assert not isinstance(caught.value, PinGoneError)


@needs_apt
@pytest.mark.parametrize("is_listed", [False, True])
def test_mirror_that_does_not_answer_is_not_one_that_moved_on(mirror: Mirror, is_listed: bool) -> None:
    pin = mirror.publish("one", "1.0", "hello")
    if is_listed:
        (mirror.folder / "one_1.0_all.deb").unlink()
    else:
        mirror.sources.write_text(f"deb [trusted=yes] file://{mirror.folder}/nowhere ./\n")
    with pytest.raises(ImageError, match="cannot be had") as caught:
        mirror.fetch(pin)
    assert not isinstance(caught.value, PinGoneError)


@needs_apt
def test_damage_in_the_cache_is_found(mirror: Mirror) -> None:
    pin = mirror.publish("one", "1.0", "hello")
    file = mirror.fetch(pin)[pin]
    data = bytearray(file.read_bytes())
    data[-600] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(ImageError, match="not what the lock says"):
        debian.unpack(pin, file)


def test_lock_there_and_back(tmp_path: Path) -> None:
    pins = [Pin(name, "1:2.0-3+b1~x", 10, "0" * 64) for name in PACKAGES]
    debian.write_lock(tmp_path / "lock", pins)
    assert debian.read_lock(tmp_path / "lock") == sorted(pins)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "image-lock"),
        ("libc6 1.0 10 abc\n", "not a pin"),
        ("libc6 1.0\n", "not a pin"),
        (f"libc6 1.0 10 {'0' * 64}\n", "other packages"),
    ],
)
def test_lock_that_is_none(tmp_path: Path, text: str | None, why: str) -> None:
    if text is not None:
        (tmp_path / "lock").write_text(text)
    with pytest.raises(ImageError, match=why):
        debian.read_lock(tmp_path / "lock")
