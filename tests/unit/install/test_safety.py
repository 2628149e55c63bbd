"""What is said of each volume, from objects as a cluster has them; and of what could not be looked at."""

from datetime import UTC, datetime, timedelta

import pytest

from longshore.controllers.volume_history import VolumeKey, histories
from longshore.errors import NotFoundError
from longshore.kube.client import KubeList
from longshore.safety import State, Survey, judge, look_at_installation

NOW = datetime(2026, 1, 10, 12, 0, tzinfo=UTC)


def at(hours_ago):
    return (NOW - timedelta(hours=hours_ago)).strftime("%Y-%m-%dT%H:%M:%SZ")


def backup(name, phase, hours_ago, *, claim="", pod="db-0", volume="data", message="", size=100):
    ended = {"completionTimestamp": at(hours_ago)} if phase in {"Completed", "Failed", "Canceled"} else {}
    return {
        "metadata": {"name": name, "creationTimestamp": at(hours_ago), "labels": {"velero.io/pvc-uid": claim}},
        "spec": {
            "node": "n",
            "pod": {"namespace": "shop", "name": pod},
            "volume": volume,
            "backupStorageLocation": "default",
            "repoIdentifier": "",
        },
        "status": {
            "phase": phase,
            "startTimestamp": at(hours_ago + 0.5),
            **ended,
            "message": message,
            "snapshotID": f"ls0-{name}" if phase == "Completed" else "",
            "progress": {"totalBytes": size},
        },
    }


def pod(name, *volumes, phase="Running", **annotations):
    metadata = {"name": name, "namespace": "shop", "uid": f"uid-{name}", "annotations": annotations}
    return {"metadata": metadata, "spec": {"volumes": list(volumes), "containers": []}, "status": {"phase": phase}}


def claim(name, *, bound="", mode="Filesystem"):
    return {
        "metadata": {"name": name, "namespace": "shop", "uid": f"uid-{name}"},
        "spec": {"volumeName": bound, "volumeMode": mode},
    }


def of_claim(name, volume="data"):
    return {"name": volume, "persistentVolumeClaim": {"claimName": name}}


def survey(pods=(), claims=(), backups=(), volumes=(), only=frozenset(), stale_hours=26):
    made = Survey()
    listed = {"pods": list(pods), "claims": list(claims), "volumes": list(volumes), "backups": list(backups)}
    judge(made, listed, only=only, now=NOW, stale_seconds=stale_hours * 3600)
    return made


def row_of(backups, **more):
    (row,) = survey([pod("db-0", of_claim("orders"))], [claim("orders")], backups, **more).rows
    return row


@pytest.mark.parametrize(
    ("backups", "state"),
    [
        ([backup("a", "Completed", 2, claim="uid-orders")], State.SAFE),
        ([backup("a", "Completed", 30, claim="uid-orders")], State.STALE),
        ([backup("a", "Completed", 20, claim="uid-orders"), backup("b", "Failed", 2, claim="uid-orders")], State.FAILING),
        ([backup("b", "Failed", 20, claim="uid-orders"), backup("a", "Completed", 2, claim="uid-orders")], State.SAFE),
        ([backup("b", "Canceled", 2, claim="uid-orders")], State.FAILING),
        ([backup("a", "New", 2, claim="uid-orders")], State.NEVER),
        ([backup("a", "InProgress", 2, claim="uid-orders")], State.NEVER),
        ([], State.NEVER),
        # Without the label, by the pod's name.
        ([backup("a", "Completed", 2)], State.SAFE),
        # Another claim had this name before; its backups are not ours.
        ([backup("a", "Completed", 2, claim="uid-older", pod="other")], State.NEVER),
        # Of a phase that only a newer version knows.
        ([backup("a", "Completed", 3, claim="uid-orders"), backup("b", "Pondering", 1, claim="uid-orders")], State.SAFE),
    ],
)  # fmt: skip
def test_state_of_a_claim(backups, state):
    for order in (backups, backups[::-1]):
        assert row_of(order).state is state


def test_row_says_what_an_operator_asks():
    good = backup("good", "Completed", 4, claim="uid-orders", size=4096)
    row = row_of([good, backup("bad", "Failed", 1, claim="uid-orders", message="the store is full: add space")])
    assert (row.age_seconds, row.size_bytes, row.snapshot_id, row.backup) == (4 * 3600, 4096, "ls0-good", "good")
    assert row.reason == "the store is full: add space"
    assert row_of([good, backup("next", "InProgress", 1, claim="uid-orders")]).running
    assert row_of([good], stale_hours=3).state is State.STALE


def test_claim_survives_its_pods():
    backups = [backup("a", "Completed", 2, claim="uid-orders", pod="db-old")]
    assert row_of(backups).state is State.SAFE
    (row,) = survey([], [claim("orders")], backups).rows
    assert (row.state, row.pod) == (State.SAFE, "")
    (row,) = survey([], [claim("orders")], []).rows
    assert row.state is State.NEVER and "no running pod" in row.reason


def test_claim_of_two_pods_is_one_volume():
    assert len(survey([pod("a", of_claim("orders")), pod("b", of_claim("orders"))], [claim("orders")]).rows) == 1


def test_what_is_left_out_is_named_and_needs_nobody():
    excluded = pod("a", of_claim("orders"), **{"backup.velero.io/backup-volumes-excludes": "x, data"})
    made = survey([excluded], [claim("orders")])
    assert [row.state for row in made.rows] == [State.LEFT_OUT] and made.is_safe
    made = survey([pod("a", {"name": "logs", "hostPath": {"path": "/var/log"}})])
    assert "hostPath" in made.rows[0].reason and made.rows[0].state is State.LEFT_OUT
    made = survey([pod("a", of_claim("disk"))], [claim("disk", mode="Block")])
    assert "block volume" in made.rows[0].reason


def test_scratch_space_is_counted_and_what_kubernetes_fills_is_not():
    filled = [{"name": "s", "secret": {"secretName": "x"}}, {"name": "p", "projected": {"sources": []}}]
    made = survey([pod("a", {"name": "tmp", "emptyDir": {}}, *filled)])
    assert (made.rows, made.scratch) == ([], 1)
    backed = [backup("a", "Completed", 1, pod="a", volume="tmp")]
    made = survey([pod("a", {"name": "tmp", "emptyDir": {}})], backups=backed)
    assert [row.state for row in made.rows] == [State.SAFE] and made.scratch == 0


def test_pods_that_have_ended_and_other_namespaces_do_not_count():
    assert survey([pod("job", {"name": "d", "hostPath": {"path": "/"}}, phase="Succeeded")]).rows == []
    assert survey([pod("a", of_claim("orders"))], [claim("orders")], only=frozenset({"other"})).rows == []


def test_what_was_not_looked_at_is_not_safe():
    made = survey()
    assert made.is_safe
    made.blind.append("no right to list pods")
    assert not made.is_safe


def test_nonsense_is_passed_over():
    nonsense = [{"metadata": {"name": "x"}, "spec": []}, {"metadata": {"name": "y"}, "status": {"phase": 3}}]
    assert list(histories([*nonsense, backup("a", "Completed", 1)])) == [VolumeKey("shop", pod="db-0", volume="data")]


class OneRepository:
    """A cluster in which there is one repository and nothing else."""

    def __init__(self, **status):
        self.status = status

    def get(self, resource, name, *, namespace):
        raise NotFoundError(f"not there: kind={resource.kind}, name={name}, namespace={namespace}")

    def list(self, resource, *, namespace):
        there = resource.kind == "BackupRepository"
        found = [{"metadata": {"name": "r", "namespace": namespace}, "status": self.status}] if there else []
        return KubeList(items=found, resource_version="1")


def repository_part(**status):
    (part,) = [
        one for one in look_at_installation(OneRepository(**status), namespace="velero").parts if one.name == "r"
    ]
    return part


def test_repository_tells_of_its_upkeep():
    last = {"lastMaintenanceTime": "2026-01-10T00:00:00Z", "lastVerificationTime": "2026-01-09T00:00:00Z"}
    part = repository_part(phase="Ready", **last)
    assert part.ok
    assert part.text == "Ready; maintained 2026-01-10T00:00:00Z; verified 2026-01-09T00:00:00Z"


@pytest.mark.parametrize("type_", ["RecoveryKeyMissing", "MaintenanceFailed", "VerificationFailed"])
def test_repository_at_risk_is_not_safe_and_says_it_once(type_):
    condition = {"type": type_, "status": "True", "message": "see to it"}
    part = repository_part(phase="Ready", message="the last one failed: see to it", conditions=[condition])
    assert not part.ok and part.text.count("see to it") == 1
    assert "see to it" in repository_part(phase="Ready", conditions=[condition]).text
    assert repository_part(phase="Ready", conditions=[{**condition, "status": "False"}]).ok
