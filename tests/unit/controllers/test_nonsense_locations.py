"""Nonsense in any field of a BackupStorageLocation: the server says what is wrong, a backup to it ends with a message, and both go on with the others."""

import pytest
from tests.unit.controllers.fake_datapath import wait_for
from tests.unit.controllers.rig import BSL, NAMESPACE, PVB, TERMINAL
from tests.unit.controllers.test_keys import lay_down
from tests.unit.controllers.test_nonsense import NONSENSE, put_in
from tests.unit.controllers.test_server import REPOSITORY, serve  # noqa: F401 - a fixture

from longshore.kube.fake.status import StatusError

EVERYWHERE = [
    ("metadata", "annotations"),
    ("spec",),
    ("spec", "provider"),
    ("spec", "config"),
    ("spec", "config", "resticRepoPrefix"),
    ("spec", "config", "unheard-of"),
    ("spec", "objectStorage"),
    ("spec", "objectStorage", "bucket"),
    ("spec", "objectStorage", "prefix"),
    ("spec", "objectStorage", "caCert"),
    ("spec", "objectStorage", "caCertRef"),
    ("spec", "objectStorage", "caCertRef", "name"),
    ("spec", "credential"),
    ("spec", "credential", "name"),
    ("spec", "credential", "key"),
    ("spec", "accessMode"),
    ("spec", "default"),
    ("spec", "backupSyncPeriod"),
    ("spec", "validationFrequency"),
    ("status",),
    ("status", "phase"),
    ("status", "message"),
    ("status", "lastValidationTime"),
]
OF_A_BUCKET = [
    "region",
    "s3Url",
    "publicUrl",
    "s3ForcePathStyle",
    "profile",
    "serverSideEncryption",
    "kmsKeyId",
    "customerKeyEncryptionFile",
    "checksumAlgorithm",
    "insecureSkipTLSVerify",
    "enableSharedConfig",
    "signatureVersion",
    "tagging",
]
FIELDS = {
    "filesystem": [*EVERYWHERE, ("spec", "config", "path")],
    "aws": [*EVERYWHERE, *(("spec", "config", name) for name in OF_A_BUCKET)],
}
# Every value at some field, four of them at each.
SHARE = 4
PATIENCE_SECONDS = 300.0
"""A hundred locations of which nobody answers take their second each, one after another."""


def template(rig, provider):
    spec = {"provider": "filesystem", "config": {"path": str(rig.store)}}
    if provider == "aws":
        lay_down(rig, "cloud", keys="[default]\naws_access_key_id = a\naws_secret_access_key = s\n")
        # Nobody listens there.
        config = {"region": "us-east-1", "s3Url": "http://127.0.0.1:1", "s3ForcePathStyle": "true"}
        credential = {"name": "cloud", "key": "keys"}
        spec = {"provider": "aws", "objectStorage": {"bucket": "bucket"}, "config": config, "credential": credential}
    return {"metadata": {}, "spec": spec}


@pytest.mark.parametrize("provider", FIELDS)
def test_nonsense_in_each_field_of_a_location(rig, serve, provider):  # noqa: F811 - the fixture
    pod, path = rig.pod()
    (path / "a").write_bytes(b"x")
    planted = {}
    for number, field in enumerate(FIELDS[provider]):
        for value in NONSENSE[number % SHARE :: SHARE]:
            name = f"odd-{len(planted)}"
            obj = put_in(template(rig, provider), field, value)
            obj["metadata"]["name"] = name
            try:
                rig.server.put(BSL, obj, namespace=NAMESPACE)
            except StatusError:
                # Metadata has types that every API server insists on; the rest comes through.
                assert field[0] == "metadata"
                continue
            planted[name] = (field, value)
    agent = rig.agent(concurrency=8, outage_seconds_max=0.0).wait_ready()
    running = serve(store_validation_frequency_seconds=0.0)
    for name in planted:
        rig.backup(pod, name=name, backupStorageLocation=name)
    for name, what in planted.items():
        status = wait_for(lambda name=name: looked_at(rig, name), seconds=PATIENCE_SECONDS, what=f"{what} is looked at")
        assert status["phase"] == "Available" or len(status["message"]) > 20, (what, status)
        ended = rig.wait_phase(PVB, name, seconds=PATIENCE_SECONDS)
        assert ended["phase"] in TERMINAL and ended["completionTimestamp"], (what, ended)
        assert ended["phase"] == "Completed" or len(ended["message"]) > 20, (what, ended)
        for told in (status.get("message", ""), ended.get("message", "")):
            assert "report it" not in told, (what, told)
    assert rig.done_backup(pod)["phase"] == "Completed"
    rig.wait_phase(REPOSITORY, "shop-default-kopia", "Ready")
    rig.location("after")
    assert rig.wait_phase(BSL, "after", "Available") and rig.wait_phase(BSL, "default", "Available")
    wait_for(lambda: running.server.manager.ready().ok)
    assert running.error is None and agent.error is None


def looked_at(rig, name):
    status = rig.status(BSL, name)
    fresh = isinstance(status.get("lastValidationTime"), str) and status["lastValidationTime"].startswith("20")
    return status if fresh and status.get("phase") in {"Available", "Unavailable"} else None
