"""Layers and the archive: digests that are true, an order that is one, and nothing of the machine in them."""

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from scripts.image.oci import Image, Layer, layer_tar, write_archive
from scripts.image.tree import Directory, File, Link, Tree

EPOCH = 1_700_000_000


def _compress(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def _tree(*paths: str) -> Tree:
    tree = Tree()
    for path in paths:
        tree.add(path, File(path.encode(), 0o755 if path.endswith("run") else 0o644))
    return tree


def _members(layer: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        return tar.getmembers()


def _blobs(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def _image(*layers: Layer, config: dict[str, Any] | None = None) -> Image:
    return Image("localhost/x:1", "amd64", EPOCH, layers, config or {})


def test_layer_does_not_depend_on_the_order_in_which_it_was_filled() -> None:
    assert layer_tar(_tree("a/b", "a-b", "c/run"), mtime=EPOCH) == layer_tar(_tree("c/run", "a-b", "a/b"), mtime=EPOCH)


def test_directory_comes_before_what_is_in_it() -> None:
    names = [member.name for member in _members(layer_tar(_tree("a/b/c", "a-b", "a/b-c"), mtime=EPOCH))]
    assert names == ["a", "a/b", "a/b/c", "a/b-c", "a-b"]


def test_entries_tell_nothing_of_the_machine() -> None:
    tree = _tree("a/run")
    tree.add("link", Link("a/run"))
    tree.add("tmp", Directory(0o1777))
    members = {member.name: member for member in _members(layer_tar(tree, mtime=EPOCH))}
    assert {(one.uid, one.gid, one.uname, one.gname, one.mtime) for one in members.values()} == {(0, 0, "", "", EPOCH)}
    assert (members["a/run"].mode, members["tmp"].mode) == (0o755, 0o1777)
    assert members["link"].linkname == "a/run"


def test_long_names_survive() -> None:
    name = "/".join(["directory-" * 9] * 3) + "/é"
    (member,) = [one for one in _members(layer_tar(_tree(name), mtime=EPOCH)) if one.isfile()]
    assert member.name == name


def test_archive_is_true(tmp_path: Path) -> None:
    layers = [Layer(_tree("a"), "below"), Layer(_tree("b"), "above")]
    digest = write_archive(_image(*layers, config={"User": "1:1"}), tmp_path / "x.tar", gzip=_compress)
    blobs = _blobs(tmp_path / "x.tar")
    assert json.loads(blobs["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    (described,) = json.loads(blobs["index.json"])["manifests"]
    assert described["digest"] == digest
    assert described["annotations"]["io.containerd.image.name"] == "localhost/x:1"
    for name, data in blobs.items():
        if name.startswith("blobs/"):
            assert name == f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"

    def blob(of: dict[str, Any]) -> bytes:
        data = blobs[f"blobs/{of['digest'].replace(':', '/')}"]
        assert len(data) == of["size"]
        return data

    manifest = json.loads(blob(described))
    config = json.loads(blob(manifest["config"]))
    assert config["created"] == "2023-11-14T22:13:20Z"
    assert config["config"] == {"User": "1:1"}
    assert [one["comment"] for one in config["history"]] == ["below", "above"]
    contents = [gzip.decompress(blob(one)) for one in manifest["layers"]]
    assert [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in contents] == config["rootfs"]["diff_ids"]
    assert [_members(one)[0].name for one in contents] == ["a", "b"]


def test_same_files_same_archive(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_archive(_image(Layer(_tree("a", "b"), "x")), tmp_path / name / "x.tar", gzip=_compress)
    assert (tmp_path / "one/x.tar").read_bytes() == (tmp_path / "two/x.tar").read_bytes()


def test_other_files_other_digest(tmp_path: Path) -> None:
    digests = {
        write_archive(_image(Layer(tree, "x")), tmp_path / "x.tar", gzip=_compress)
        for tree in (_tree("a"), _tree("b"), Tree({"a": File(b"a", 0o755)}))
    }
    assert len(digests) == 3
