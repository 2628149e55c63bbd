"""The real API server takes our CRDs, explains them, keeps every field of Velero 1.9 and 1.18 and unknown ones, and refuses nonsense.

Requests go over plain HTTP JSON, so that no client library shapes what is sent and what comes back.
"""

import base64
import copy
import http.client
import json
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.support.components import ApiServer, require_tool
from tests.unit.api.samples import SAMPLES, with_unknown

CRDS = Path(__file__).resolve().parents[2] / "daemonset" / "crds"
PLURALS = {
    "PodVolumeBackup": "podvolumebackups",
    "PodVolumeRestore": "podvolumerestores",
    "ResticRepository": "resticrepositories",
    "BackupRepository": "backuprepositories",
    "BackupStorageLocation": "backupstoragelocations",
}


class Http:
    """JSON requests with the administrator's certificate."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        pair = kubeconfig.parent / "crd-test-client.pem"
        pair.touch(mode=0o600)
        pair.write_bytes(
            b"\n".join(base64.b64decode(user[part]) for part in ("client-certificate-data", "client-key-data"))
        )
        self._context = ssl.create_default_context(
            cadata=base64.b64decode(cluster["certificate-authority-data"]).decode()
        )
        self._context.load_cert_chain(pair)
        self._address = urlsplit(cluster["server"]).netloc

    def __call__(self, method: str, path: str, body: Any = None, *, kind: str = "application/json") -> tuple[int, Any]:
        """Send and return status and decoded body."""
        connection = http.client.HTTPSConnection(self._address, context=self._context, timeout=30)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": kind})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()


def kubectl(api_server: ApiServer, *arguments: str) -> str:
    run = subprocess.run(
        [require_tool("kubectl"), f"--kubeconfig={api_server.kubeconfig}", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.fixture(scope="module")
def applied(api_server: ApiServer) -> ApiServer:
    """The API server with our CRDs, established."""
    kubectl(api_server, "apply", "--server-side", "-f", str(CRDS))
    names = [f"crd/{plural}.velero.io" for plural in PLURALS.values()]
    kubectl(api_server, "wait", "--for=condition=Established", "--timeout=60s", *names)
    # NamesAccepted is false where a short name belongs to another kind.
    kubectl(api_server, "wait", "--for=condition=NamesAccepted", "--timeout=60s", *names)
    return api_server


@pytest.fixture
def request_json(applied: ApiServer) -> Iterator[Http]:
    """Requests to that server."""
    return Http(applied.kubeconfig)


def path_of(kind: str, namespace: str, name: str = "") -> str:
    return f"/apis/velero.io/v1/namespaces/{namespace}/{PLURALS[kind]}" + (f"/{name}" if name else "")


def content(stored: dict[str, Any], sent: dict[str, Any]) -> bytes:
    """Give an object as bytes, with the metadata that the server adds taken away."""
    kept = stored | {"metadata": {name: stored["metadata"].get(name) for name in sent["metadata"]}}
    return json.dumps(kept, sort_keys=True).encode()


def test_structural_schema_has_no_complaints(applied: ApiServer) -> None:
    for plural in PLURALS.values():
        found = json.loads(kubectl(applied, "get", "crd", f"{plural}.velero.io", "-o", "json"))
        conditions = {one["type"]: one["status"] for one in found["status"]["conditions"]}
        assert conditions.get("NonStructuralSchema", "False") == "False"
        assert conditions["Established"] == "True"
        assert found["status"]["storedVersions"] == ["v1"]
        assert "status" not in found["spec"]["versions"][0].get("subresources", {})


def test_applying_again_changes_nothing(applied: ApiServer) -> None:
    before = kubectl(applied, "get", "crd", "podvolumebackups.velero.io", "-o", "jsonpath={.metadata.generation}")
    kubectl(applied, "apply", "--server-side", "-f", str(CRDS))
    after = kubectl(applied, "get", "crd", "podvolumebackups.velero.io", "-o", "jsonpath={.metadata.generation}")
    assert (before, after) == ("1", "1")


def test_kubectl_explains(applied: ApiServer) -> None:
    text = kubectl(applied, "explain", "podvolumebackup.spec", "--recursive")
    for field in (
        "backupStorageLocation",
        "repoIdentifier",
        "uploaderSettings",
        "fieldPath",
        "cancel",
        "parentSnapshot",
    ):
        assert field in text
    assert 'enum: "", kopia, restic' in text
    assert "What to back up, and where to." in text
    assert "Only that node's agent acts" not in text
    assert "only that node's agent acts" in kubectl(applied, "explain", "pvb.spec.node")
    text = kubectl(applied, "explain", "podvolumerestore.spec", "--recursive")
    for field in ("snapshotID", "sourceNamespace", "uploaderSettings", "snapshotSize", "backupStorageLocation"):
        assert field in text
    assert "Namespace that was backed up and names the repository" in kubectl(
        applied, "explain", "pvr.spec.sourceNamespace"
    )
    text = kubectl(applied, "explain", "resticrepository.spec", "--recursive")
    for field in ("volumeNamespace", "resticIdentifier", "maintenanceFrequency"):
        assert field in text
    assert "RecoveryKeyMissing" in kubectl(applied, "explain", "resticrepositories.status.conditions")
    assert "RecoveryKeyMissing" in kubectl(applied, "explain", "repo.status.conditions")
    assert "PEM in base64" in kubectl(applied, "explain", "bsl.spec.objectStorage.caCert")


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
@pytest.mark.parametrize("planted", [False, True])
def test_every_field_round_trips(request_json: Http, namespace: str, sample: dict[str, Any], planted: bool) -> None:
    sent = with_unknown(sample) if planted else copy.deepcopy(sample)
    sent["metadata"] = {"name": sent["metadata"]["name"], "namespace": namespace, **sent["metadata"]}
    status, made = request_json("POST", path_of(sent["kind"], namespace), sent)
    assert status == http.HTTPStatus.CREATED, made
    status, stored = request_json("GET", path_of(sent["kind"], namespace, sent["metadata"]["name"]))
    assert status == http.HTTPStatus.OK
    assert content(stored, sent) == json.dumps(sent, sort_keys=True).encode()


def test_merge_patch_of_status_needs_no_subresource_and_keeps_the_rest(request_json: Http, namespace: str) -> None:
    sent = with_unknown(SAMPLES["podvolumebackup-1.18"])
    name = sent["metadata"]["name"]
    assert request_json("POST", path_of(sent["kind"], namespace), sent)[0] == http.HTTPStatus.CREATED
    ours = {
        "node": "node-a",
        "instance": "agent-x-1",
        "progress": {"filesDone": 3, "totalFiles": 4, "bytesPerSecond": 5},
    }
    patch = {"status": {"phase": "InProgress", "completionTimestamp": None, **ours}}
    status, answer = request_json(
        "PATCH", path_of(sent["kind"], namespace, name), patch, kind="application/merge-patch+json"
    )
    assert status == http.HTTPStatus.OK, answer
    expected = copy.deepcopy(sent)
    del expected["status"]["completionTimestamp"]
    expected["status"] |= {**ours, "phase": "InProgress", "progress": expected["status"]["progress"] | ours["progress"]}
    _, stored = request_json("GET", path_of(sent["kind"], namespace, name))
    assert content(stored, sent) == json.dumps(expected, sort_keys=True).encode()


def test_repository_keeps_our_own_status(request_json: Http, namespace: str) -> None:
    sent = copy.deepcopy(SAMPLES["backuprepository-1.18"])
    sent["status"] |= {
        "logHead": "0123",
        "conditions": [
            {
                "type": "RecoveryKeyMissing",
                "status": "True",
                "reason": "NoRecoverySlot",
                "message": "no recovery slot and no export",
                "lastTransitionTime": "2026-11-21T09:30:00Z",
                "zzNew": {"kept": True},
            }
        ],
    }
    status, stored = request_json("POST", path_of(sent["kind"], namespace), sent)
    assert status == http.HTTPStatus.CREATED, stored
    assert stored["status"] == sent["status"]


@pytest.mark.parametrize(
    ("sample", "field"),
    [
        ("podvolumebackup-1.18", "uploaderSettings"),
        ("podvolumerestore-1.18", "uploaderSettings"),
        ("backuprepository-1.18", "repositoryConfig"),
    ],
)
def test_map_that_velero_lets_be_null_stays_null(request_json: Http, namespace: str, sample: str, field: str) -> None:
    sent = copy.deepcopy(SAMPLES[sample])
    sent["spec"][field] = None
    status, answer = request_json("POST", path_of(sent["kind"], namespace), sent)
    assert status == http.HTTPStatus.CREATED and answer["spec"] == sent["spec"], answer


# What servers before 1.10 and after 1.17 leave out.
LEFT_OUT = [
    ("podvolumebackup-1.9", ("uploaderType", "uploaderSettings", "tags", "cancel")),
    ("podvolumerestore-1.9", ("uploaderType", "sourceNamespace")),
    ("backuprepository-1.18", ("resticIdentifier", "repositoryType", "repositoryConfig")),
    ("backupstoragelocation-1.9", ("credential", "config", "default", "accessMode", "objectStorage")),
]


@pytest.mark.parametrize(("sample", "fields"), LEFT_OUT)
def test_what_some_version_leaves_out_is_not_required(
    request_json: Http, namespace: str, sample: str, fields: tuple[str, ...]
) -> None:
    sent = copy.deepcopy(SAMPLES[sample])
    sent["spec"] = {name: value for name, value in sent["spec"].items() if name not in fields}
    del sent["status"]
    status, answer = request_json("POST", path_of(sent["kind"], namespace), sent)
    assert status == http.HTTPStatus.CREATED, answer


NONSENSE: list[tuple[str, str, str, Any]] = [
    ("podvolumebackup-1.18", "spec", "uploaderType", "borg"),
    ("podvolumebackup-1.18", "spec", "node", 5),
    ("podvolumebackup-1.18", "spec", "node", ...),
    ("podvolumebackup-1.18", "spec", "pod", ...),
    ("podvolumebackup-1.18", "spec", "tags", {"ns": 1}),
    ("podvolumebackup-1.18", "spec", "cancel", "yes"),
    ("podvolumebackup-1.18", "status", "phase", "Dozing"),
    ("podvolumebackup-1.18", "status", "startTimestamp", "yesterday"),
    ("podvolumebackup-1.18", "status", "progress", {"bytesDone": "many"}),
    ("podvolumebackup-1.18", "status", "incrementalBytes", 1.5),
    ("podvolumerestore-1.18", "spec", "snapshotID", ...),
    ("podvolumerestore-1.18", "spec", "snapshotSize", "1Gi"),
    ("podvolumerestore-1.18", "status", "phase", "Gone"),
    ("resticrepository-1.9", "spec", "resticIdentifier", ...),
    ("resticrepository-1.9", "status", "phase", "Broken"),
    ("backuprepository-1.18", "spec", "repositoryType", "borg"),
    ("backuprepository-1.18", "spec", "maintenanceFrequency", ...),
    ("backuprepository-1.18", "status", "recentMaintenance", [{"result": "Perhaps"}]),
    ("backuprepository-1.18", "status", "conditions", [{"status": "True"}]),
    ("backupstoragelocation-1.9", "spec", "provider", ...),
    ("backupstoragelocation-1.9", "spec", "accessMode", "WriteOnly"),
    ("backupstoragelocation-1.9", "spec", "objectStorage", {"prefix": "no-bucket"}),
    ("backupstoragelocation-1.9", "spec", "objectStorage", {"bucket": "b", "caCert": "not base64!"}),
    ("backupstoragelocation-1.9", "spec", "config", {"s3ForcePathStyle": True}),
    ("backupstoragelocation-1.9", "spec", "credential", {"name": "cloud"}),
    ("backupstoragelocation-1.9", "status", "phase", "Sulking"),
]


@pytest.mark.parametrize(("sample", "part", "field", "value"), NONSENSE)
def test_nonsense_is_refused_by_name(
    request_json: Http, namespace: str, sample: str, part: str, field: str, value: Any
) -> None:
    sent = copy.deepcopy(SAMPLES[sample])
    if value is ...:
        del sent[part][field]
    else:
        sent[part][field] = value
    status, answer = request_json("POST", path_of(sent["kind"], namespace), sent)
    assert status == http.HTTPStatus.UNPROCESSABLE_ENTITY, answer
    assert f"{part}.{field}" in answer["message"]


def test_columns_and_short_names(applied: ApiServer, request_json: Http, namespace: str) -> None:
    sent = SAMPLES["podvolumebackup-1.18"]
    assert request_json("POST", path_of(sent["kind"], namespace), sent)[0] == http.HTTPStatus.CREATED
    header, row = kubectl(applied, "get", "pvb", "-n", namespace, "-o", "wide").splitlines()
    assert header.split("  ")[0] == "NAME"
    for title in ("STATUS", "BYTES DONE", "INCREMENTAL BYTES", "STORAGE LOCATION", "UPLOADER", "POD", "SNAPSHOT"):
        assert title in header
    assert "Canceling" in row
    assert "9007199254740993" in row
    for short in ("pvr", "repo", "bsl", "resticrepositories"):
        kubectl(applied, "get", short, "-n", namespace)
