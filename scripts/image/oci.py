"""An OCI archive: layers as tar, configuration, manifest, index; bytes that depend on nothing but what is handed in.

Promises: entries of a layer are sorted, a directory before what is in it; owner 0:0 without names; one time for all. JSON has sorted keys and no spaces. The
archive is an `oci-archive` tar (oci-layout, index.json, blobs/sha256/…) that containerd, podman and skopeo take. It does not know what is in the layers, and
is handed the compressor, because bytes of two zlibs differ.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts.image.tree import Directory, File, Link, Tree

__all__ = ["ARCHITECTURES", "Image", "Layer", "layer_tar", "write_archive"]

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_MEDIA = "application/vnd.oci.image"


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer: its files, and a sentence about them."""

    tree: Tree
    comment: str


@dataclass(frozen=True, slots=True)
class Image:
    """All that becomes an archive."""

    name: str
    """As containerd keeps it: registry or host, repository, tag."""
    architecture: str
    created: int
    layers: Sequence[Layer]
    config: Mapping[str, Any] = field(default_factory=dict)
    """The `config` object: User, Env, Entrypoint, Labels."""


@dataclass(slots=True)
class _Blobs:
    found: dict[str, bytes] = field(default_factory=dict)

    def add(self, data: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        self.found[digest] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def layer_tar(tree: Tree, *, mtime: int) -> bytes:
    """Make the uncompressed tar of a layer."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        # By components: `a/b` comes before `a-b`, and so a directory right before all that is in it.
        for path in sorted(tree.nodes, key=lambda one: one.split("/")):
            entry = tarfile.TarInfo(path)
            entry.mtime = mtime
            match tree.nodes[path]:
                case Directory(mode):
                    entry.type, entry.mode = tarfile.DIRTYPE, mode
                    tar.addfile(entry)
                case Link(target):
                    entry.type, entry.mode, entry.linkname = tarfile.SYMTYPE, 0o777, target
                    tar.addfile(entry)
                case File(data, mode):
                    entry.size, entry.mode = len(data), mode
                    tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def write_archive(image: Image, path: Path, *, gzip: Callable[[bytes], bytes]) -> str:
    """Write the archive.

    Args:
        gzip: compresses, the same bytes to the same bytes.

    Returns:
        The manifest's digest, by which registries and nodes know the image.
    """
    blobs, diff_ids, layers = _Blobs(), [], []
    for layer in image.layers:
        content = layer_tar(layer.tree, mtime=image.created)
        diff_ids.append(f"sha256:{hashlib.sha256(content).hexdigest()}")
        layers.append(blobs.add(gzip(content), f"{_MEDIA}.layer.v1.tar+gzip"))
    created = datetime.fromtimestamp(image.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    config = {
        "architecture": image.architecture,
        "os": "linux",
        "created": created,
        "config": dict(image.config),
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created": created, "comment": layer.comment} for layer in image.layers],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_MEDIA}.manifest.v1+json",
        "config": blobs.add(_json(config), f"{_MEDIA}.config.v1+json"),
        "layers": layers,
    }
    described = blobs.add(_json(manifest), f"{_MEDIA}.manifest.v1+json")
    index = {
        "schemaVersion": 2,
        "mediaType": f"{_MEDIA}.index.v1+json",
        "manifests": [
            {
                **described,
                "platform": {"architecture": image.architecture, "os": "linux"},
                "annotations": {
                    "io.containerd.image.name": image.name,
                    "org.opencontainers.image.ref.name": image.name.rsplit(":", 1)[-1],
                },
            }
        ],
    }
    members = {"oci-layout": _json({"imageLayoutVersion": "1.0.0"}), "index.json": _json(index)}
    members |= {f"blobs/sha256/{digest}": data for digest, data in sorted(blobs.found.items())}
    unfinished = path.with_name(path.name + ".unfinished")
    with tarfile.open(unfinished, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.mode = len(data), image.created, 0o644
            tar.addfile(entry, io.BytesIO(data))
    unfinished.rename(path)
    return str(described["digest"])


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
