"""Writes the CustomResourceDefinitions of our kinds: `python -m longshore.api.crdgen --output daemonset/crds`.

Promises: one file a kind, the same bytes from the same source. The schema is the superset of what Velero 1.9 to 1.18 write, unknown fields are kept at every
level, `subresources` is empty (with a status subresource the API server would drop status that other Velero parts write), and required is only what each of
those versions requires. So the CRDs can be laid over Velero's own, in either direction of an upgrade.

It does not talk to a cluster.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import yaml

from longshore.api.model import ApiObject, JsonObject
from longshore.api.pod_volume import PodVolumeBackup, PodVolumeRestore
from longshore.api.repository import BackupRepository, ResticRepository
from longshore.api.schema import schema_of
from longshore.api.storage_location import BackupStorageLocation

__all__ = ["KINDS", "crd_of", "main", "render", "write"]

_HEADER: Final = "# Written by `make crds` from the models in python/longshore/api. Edit those instead.\n"

_AGE: Final = ("Age", "date", ".metadata.creationTimestamp", 0, "How old the object is")
_STATUS: Final = ("Status", "string", ".status.phase", 0, "Where the operation stands")
_LOCATION: Final = ("Storage Location", "string", ".spec.backupStorageLocation", 0, "Where the repository is kept")
_MESSAGE: Final = ("Message", "string", ".status.message", 1, "What an operator should know")
_MOVE: Final = (
    _STATUS,
    ("Started", "date", ".status.startTimestamp", 0, "When the work started"),
    ("Bytes Done", "integer", ".status.progress.bytesDone", 0, "Bytes processed so far"),
    ("Total Bytes", "integer", ".status.progress.totalBytes", 0, "Bytes to be processed"),
)
_POD: Final = (
    ("Namespace", "string", ".spec.pod.namespace", 1, "Namespace of the pod"),
    ("Pod", "string", ".spec.pod.name", 1, "Name of the pod"),
    ("Volume", "string", ".spec.volume", 1, "Name of the pod's volume"),
)
_END: Final = (
    _LOCATION,
    _AGE,
    ("Node", "string", ".status.node", 0, "Node whose agent does the work"),
    ("Uploader", "string", ".spec.uploaderType", 0, "Uploader that the server asked for"),
)
_REPOSITORY: Final = (
    ("Status", "string", ".status.phase", 0, "Whether the repository can be used"),
    _AGE,
    ("Volume Namespace", "string", ".spec.volumeNamespace", 1, "Namespace whose volumes it holds"),
    ("Storage Location", "string", ".spec.backupStorageLocation", 1, "Where it is kept"),
    ("Last Maintenance", "date", ".status.lastMaintenanceTime", 1, "When maintenance last succeeded"),
    _MESSAGE,
)
_Column = tuple[str, str, str, int, str]

KINDS: Final[dict[type[ApiObject], tuple[_Column, ...]]] = {
    BackupRepository: (
        *_REPOSITORY[:2],
        ("Repository Type", "string", ".spec.repositoryType", 0, "Type that the server asked for"),
        *_REPOSITORY[2:],
    ),
    BackupStorageLocation: (
        ("Phase", "string", ".status.phase", 0, "Whether the location could be reached"),
        ("Last Validated", "date", ".status.lastValidationTime", 0, "When the location was last looked at"),
        _AGE,
        ("Default", "boolean", ".spec.default", 0, "Whether backups that name no location go here"),
        ("Provider", "string", ".spec.provider", 1, "Kind of the store"),
        ("Access Mode", "string", ".spec.accessMode", 1, "What may be done there"),
        _MESSAGE,
    ),
    PodVolumeBackup: (
        *_MOVE,
        ("Incremental Bytes", "integer", ".status.incrementalBytes", 0, "Bytes of new and changed files"),
        *_END,
        *_POD,
        ("Snapshot", "string", ".status.snapshotID", 1, "Id of the snapshot"),
        _MESSAGE,
    ),
    PodVolumeRestore: (
        *_MOVE,
        *_END,
        *_POD,
        ("Snapshot", "string", ".spec.snapshotID", 1, "Id of the snapshot"),
        _MESSAGE,
    ),
    ResticRepository: _REPOSITORY,
}
"""Every kind with its printer columns: name, type, path, priority (1: only with -o wide), description."""


def crd_of(model: type[ApiObject]) -> JsonObject:
    """Make the CustomResourceDefinition of a kind."""
    definition = model.definition
    names: JsonObject = {
        "kind": definition.kind,
        "listKind": f"{definition.kind}List",
        "plural": definition.plural,
        "singular": definition.singular,
    }
    if definition.short_names:
        names["shortNames"] = list(definition.short_names)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": definition.crd_name, "labels": {"app.kubernetes.io/part-of": "longshore"}},
        "spec": {
            "group": definition.group,
            "names": names,
            "scope": "Namespaced",
            "versions": [
                {
                    "name": definition.version,
                    "served": True,
                    "storage": True,
                    "subresources": {},
                    "additionalPrinterColumns": [_column(column) for column in KINDS[model]],
                    "schema": {"openAPIV3Schema": schema_of(model)},
                }
            ],
        },
    }


def _column(column: _Column) -> JsonObject:
    name, type_, path, priority, description = column
    made: JsonObject = {"name": name, "type": type_, "jsonPath": path, "description": description}
    return made | ({"priority": priority} if priority else {})


def render() -> dict[str, str]:
    """Give every file by its name."""
    return {
        f"{model.definition.group}_{model.definition.plural}.yaml": _HEADER
        + yaml.safe_dump(crd_of(model), sort_keys=False, width=100, allow_unicode=True)
        for model in KINDS
    }


def write(folder: Path) -> None:
    """Write every file into a folder, which is made when absent; other files in it are left alone."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in render().items():
        (folder / name).write_text(text, encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m longshore.api.crdgen", description=write.__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder to write into")
    write(parser.parse_args(arguments).output)


if __name__ == "__main__":
    main()
