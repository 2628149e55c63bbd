"""The CRDs in the tree are the generator's, and keep the promises that make them safe to lay over Velero's own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from longshore.api import crdgen

FOLDER = Path(__file__).resolve().parents[3] / "daemonset" / "crds"
CRDS = {model.definition.kind: crdgen.crd_of(model) for model in crdgen.KINDS}


def _schema(kind: str) -> dict[str, Any]:
    schema: dict[str, Any] = CRDS[kind]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def _objects(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Walk every schema that has fields of its own."""
    if "properties" in schema:
        yield path, schema
    for name, one in schema.get("properties", {}).items():
        yield from _objects(one, f"{path}.{name}")
    if "items" in schema:
        yield from _objects(schema["items"], f"{path}[]")


def test_tree_holds_what_the_generator_writes_and_nothing_else(tmp_path: Path) -> None:
    crdgen.main(["--output", str(tmp_path / "crds")])
    written = {file.name: file.read_bytes() for file in (tmp_path / "crds").iterdir()}
    assert {file.name: file.read_bytes() for file in FOLDER.iterdir()} == written, "run `make crds`"
    assert len(written) == 5


def test_files_say_what_was_meant() -> None:
    read = [yaml.safe_load(text) for text in crdgen.render().values()]
    assert {one["spec"]["names"]["kind"]: one for one in read} == CRDS


@pytest.mark.parametrize("kind", CRDS)
def test_every_object_keeps_unknown_fields_and_every_field_is_described(kind: str) -> None:
    for path, schema in _objects(_schema(kind)):
        assert schema.get("x-kubernetes-preserve-unknown-fields") is True, path
        for name, one in schema["properties"].items():
            if name != "metadata":
                assert one["description"].endswith("."), f"{path}.{name}"
            assert "default" not in one, f"{path}.{name}"


@pytest.mark.parametrize("kind", CRDS)
def test_no_status_subresource(kind: str) -> None:
    assert [version["subresources"] for version in CRDS[kind]["spec"]["versions"]] == [{}]


@pytest.mark.parametrize(
    ("kind", "required"),
    [
        ("PodVolumeBackup", ["backupStorageLocation", "node", "pod", "repoIdentifier", "volume"]),
        ("PodVolumeRestore", ["backupStorageLocation", "pod", "repoIdentifier", "snapshotID", "volume"]),
        ("ResticRepository", ["backupStorageLocation", "maintenanceFrequency", "resticIdentifier", "volumeNamespace"]),
        ("BackupRepository", ["backupStorageLocation", "maintenanceFrequency", "volumeNamespace"]),
        ("BackupStorageLocation", ["provider"]),
    ],
)
def test_required_is_what_every_version_requires(kind: str, required: list[str]) -> None:
    schema = _schema(kind)
    assert schema["properties"]["spec"]["required"] == required
    assert "required" not in schema
    assert "required" not in schema["properties"]["status"]


def test_phases_are_the_superset() -> None:
    phases = ["New", "Accepted", "Prepared", "InProgress", "Canceling", "Canceled", "Completed", "Failed", ""]
    for kind in ("PodVolumeBackup", "PodVolumeRestore"):
        assert _schema(kind)["properties"]["status"]["properties"]["phase"]["enum"] == phases


def test_short_names_belong_to_one_kind() -> None:
    names = {kind: crd["spec"]["names"].get("shortNames", []) for kind, crd in CRDS.items()}
    assert names == {
        "BackupRepository": ["repo"],
        "BackupStorageLocation": ["bsl"],
        "PodVolumeBackup": ["pvb"],
        "PodVolumeRestore": ["pvr"],
        "ResticRepository": [],
    }


@pytest.mark.parametrize("kind", CRDS)
def test_columns_show_fields_that_exist(kind: str) -> None:
    for column in CRDS[kind]["spec"]["versions"][0]["additionalPrinterColumns"]:
        at = _schema(kind)
        if column["jsonPath"].startswith(".metadata."):
            continue
        for step in column["jsonPath"].removeprefix(".").split("."):
            at = at["properties"][step]
        shown = {"date": "string"}.get(column["type"], column["type"])
        assert at["type"] == shown, column
