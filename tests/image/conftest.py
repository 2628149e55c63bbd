"""The image, built once for a session, and unpacked.

Promises: where Debian's packages cannot be had the tests are skipped and say why; with `CI=true` that is a failure. How it is made: tests/support/image.py.
"""

import gzip
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from scripts.image import assembly
from scripts.image.tree import ImageError

from tests.support.container import Container
from tests.support.image import make_image, plan_in
from tests.support.lacking import lacks


@dataclass(frozen=True)
class Built:
    """An image that was built."""

    plan: assembly.Plan
    digest: str
    root: Path
    """Where it is unpacked."""
    manifest: dict[str, Any]
    config: dict[str, Any]

    def container(self, **how: Any) -> Container:
        """Tell how to run it; mount points are made here, as a runtime makes them."""
        for place in how.get("binds", {}):
            (self.root / place.removeprefix("/")).mkdir(parents=True, exist_ok=True)
        return Container(str(self.root), **how)

    def run(self, *words: str, **how: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.container(**how).command(*words), capture_output=True, text=True, check=False, timeout=120
        )


def unpack(archive: Path, root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Do what a node does with an image: check each blob's digest, lay its layers over one another."""
    import hashlib

    with tarfile.open(archive) as tar:
        blobs = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}

    def blob(digest: str) -> bytes:
        data = blobs[f"blobs/{digest.replace(':', '/')}"]
        assert hashlib.sha256(data).hexdigest() == digest.removeprefix("sha256:")
        return data

    assert json.loads(blobs["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    (described,) = json.loads(blobs["index.json"])["manifests"]
    manifest = json.loads(blob(described["digest"]))
    config = json.loads(blob(manifest["config"]["digest"]))
    for layer, diff_id in zip(manifest["layers"], config["rootfs"]["diff_ids"], strict=True):
        content = gzip.decompress(blob(layer["digest"]))
        assert f"sha256:{hashlib.sha256(content).hexdigest()}" == diff_id
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            tar.extractall(root, filter="fully_trusted")
    return manifest, config


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """Build and unpack the image."""
    folder = tmp_path_factory.mktemp("image")
    # Nobody's user must be able to reach what pytest keeps to itself.
    for one in (folder, *folder.parents[:3]):
        if one.stat().st_uid == os.geteuid() and one != Path("/tmp"):
            one.chmod(0o755)
    plan = plan_in(folder / "target", scratch=folder / "wheel")
    try:
        plan, digest = make_image(plan)
    except ImageError as err:
        lacks(f"the image cannot be made: {err}")
    root = folder / "root"
    root.mkdir()
    manifest, config = unpack(plan.archive_path, root)
    yield Built(plan, digest, root, manifest, config)
    shutil.rmtree(root)


@pytest.fixture(scope="session")
def rooted() -> None:
    """Only root may change its root."""
    if os.geteuid() != 0:
        lacks("containers are made by root only: run as root")
