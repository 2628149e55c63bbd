"""What is said of each volume, from objects as a cluster has them; and of what could not be looked at."""

from datetime import UTC, datetime, timedelta

import pytest

from longshore.controllers.volume_history import VolumeKey, histories
from longshore.errors import ApiDeniedError, NotFoundError
from longshore.kube.client import KubeList
from longshore.safety import State, Survey, judge, look_at_installation, why_not_ready

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


def skewed(name, phase, hours_ago, **years):
    """A backup by an agent whose clock is off."""
    made = backup(name, phase, hours_ago, claim="uid-orders")
    for field in ("startTimestamp", "completionTimestamp"):
        moved = datetime.fromisoformat(made["status"][field]) + timedelta(days=365 * years["years"])
        made["status"][field] = moved.strftime("%Y-%m-%dT%H:%M:%SZ")
    return made


def test_success_that_is_dated_in_the_future_is_not_safe():
    row = row_of([skewed("a", "Completed", 2, years=10)])
    assert row.state is State.STALE and "set the clock, node=n" in row.reason


@pytest.mark.parametrize("years", [10, -10])
def test_success_of_a_clock_that_was_off_does_not_hide_a_later_failure(years):
    backups = [skewed("a", "Completed", 20, years=years), backup("b", "Failed", 2, claim="uid-orders")]
    for order in (backups, backups[::-1]):
        assert row_of(order).state is State.FAILING


def test_objects_that_came_from_another_cluster_count_by_their_own_dates():
    """They are all made anew, at once, long after the backups ended."""
    backups = [backup("b", "Failed", 20, claim="uid-orders"), backup("a", "Completed", 2, claim="uid-orders")]
    for number, one in enumerate(backups):
        one["metadata"]["creationTimestamp"] = (NOW - timedelta(minutes=number)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert row_of(backups).state is State.SAFE


def test_row_says_what_an_operator_asks():
    good = backup("good", "Completed", 4, claim="uid-orders", size=4096)
    row = row_of([good, backup("bad", "Failed", 1, claim="uid-orders", message="the store is full: add space")])
    assert (row.age_seconds, row.size_bytes, row.snapshot_id, row.backup) == (4 * 3600, 4096, "ls0-good", "good")
    assert row.reason == "the store is full: add space" and row.failed_backup == "bad"
    assert row_of([good]).failed_backup == ""
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
    assert "hostPath" in made.rows[0].reason and made.rows[0].state is State.LEFT_OUT and made.rows[0].of_node
    asked = [backup("a", "Failed", 1, pod="a", volume="logs", message="it is the node's")]
    (row,) = survey([pod("a", {"name": "logs", "hostPath": {"path": "/var/log"}})], backups=asked).rows
    assert row.state is State.FAILING and not row.of_node
    # What a claim holds is somebody's data, wherever it lies.
    bound = {"metadata": {"name": "pv"}, "spec": {"hostPath": {"path": "/data"}}}
    (row,) = survey([pod("a", of_claim("disk"))], [claim("disk", bound="pv")], volumes=[bound]).rows
    assert row.state is State.LEFT_OUT and not row.of_node
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


def test_what_cannot_be_understood_is_said_and_not_safe():
    broken = {"metadata": {"name": "db-1", "namespace": "shop"}, "spec": {"volumes": "none"}}
    made = survey([broken, pod("db-0", of_claim("orders"))], [claim("orders")])
    assert [row.claim for row in made.rows] == ["orders"]
    (said,) = made.blind
    assert said.startswith("a Pod cannot be understood: key=shop/db-1, error=") and not made.is_safe


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


def agent_pod(name, *, node="n1", ready=False, state=None, last=None, scheduled=None):
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    if scheduled:
        conditions.append({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": scheduled})
    container = {"name": "node-agent", "ready": ready, "state": state or {}, "lastState": last or {}}
    return {
        "metadata": {"name": name},
        "spec": {"nodeName": node} if node else {},
        "status": {"conditions": conditions, "containerStatuses": [container] if state else []},
    }


WAITING = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s restarting failed container"}}
ENDED = {"terminated": {"reason": "Error", "exitCode": 1, "message": "a\nexec /velero: exec format error\n"}}


@pytest.mark.parametrize(
    ("pod", "says"),
    [
        (agent_pod("a", state=WAITING, last=ENDED), "ended with Error, exit_code=1: exec /velero: exec format error"),
        (agent_pod("a", state=ENDED), "another processor"),
        (agent_pod("a", state={"waiting": {"reason": "ErrImagePull", "message": "no match for platform in manifest"}}), "another processor"),
        (agent_pod("a", state={"waiting": {"reason": "ErrImageNeverPull", "message": "x is not present"}}), "ErrImageNeverPull: x is not present"),
        (agent_pod("a", node="", scheduled="0/3 nodes are available"), "Unschedulable: 0/3 nodes are available"),
        (agent_pod("a", state={"running": {}}), "see kubectl logs a"),
        (agent_pod("a"), "it has not begun"),
    ],
)  # fmt: skip
def test_why_a_pod_is_not_ready(pod, says):
    assert says in why_not_ready(pod)


def test_pod_that_is_ready_has_nothing_to_tell():
    assert why_not_ready(agent_pod("a", ready=True, state={"running": {}}, last=ENDED)) == ""


class Agents(OneRepository):
    """A cluster with a DaemonSet and its pods."""

    def __init__(self, *pods, denied=False, missing=0):
        super().__init__()
        self.pods, self.denied, self.missing = pods, denied, missing

    def get(self, resource, name, *, namespace):
        if resource.kind != "DaemonSet":
            return super().get(resource, name, namespace=namespace)
        wanted = len(self.pods) + self.missing
        ready = sum(not why_not_ready(one) for one in self.pods)
        return {
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"selector": {"matchLabels": {"name": "node-agent"}}},
            "status": {"desiredNumberScheduled": wanted, "numberReady": ready},
        }

    def list(self, resource, *, namespace, label_selector=None):
        if resource.kind != "Pod":
            return super().list(resource, namespace=namespace)
        assert label_selector == "name=node-agent"
        if self.denied:
            raise ApiDeniedError("no right to list pods")
        return KubeList(items=list(self.pods), resource_version="1")


def agents_part(*pods, **how):
    (part,) = [
        one for one in look_at_installation(Agents(*pods, **how), namespace="velero").parts if one.kind == "DaemonSet"
    ]
    return part


def test_node_without_its_agent_is_named():
    pods = [agent_pod("a", ready=True, node="n1"), agent_pod("b", node="n2", state=ENDED)]
    part = agents_part(*pods)
    assert not part.ok and part.text.startswith("1 of 2 ready; n2: ended with Error") and "n1" not in part.text
    assert agents_part(*pods, denied=True).text == "1 of 2 ready"


def test_many_nodes_without_their_agents_are_counted():
    part = agents_part(*[agent_pod(f"p{number}", node=f"n{number}", state=WAITING) for number in range(9)])
    assert part.text.count("CrashLoopBackOff") == 5 and part.text.endswith("and 4 more")


def test_nodes_that_get_no_pod_are_counted():
    """As in a namespace whose pod-security level forbids it."""
    part = agents_part(agent_pod("a", ready=True, state={"running": {}}), missing=2)
    assert part.text == "1 of 3 ready; no pod on 2 of the nodes: see kubectl describe daemonset node-agent"
