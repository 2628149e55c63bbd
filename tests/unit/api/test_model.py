"""Models take what any supported Velero writes and give it back unchanged, and say what is wrong with what they refuse."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.api.samples import SAMPLES, with_unknown

from longshore.api import (
    ApiObject,
    BackupRepository,
    BackupStorageLocation,
    DataMoveProgress,
    ObjectMeta,
    ObjectReference,
    Pod,
    PodVolumeBackup,
    PodVolumeBackupSpec,
    PodVolumeBackupStatus,
    PodVolumePhase,
    PodVolumeRestore,
    RepositoryPhase,
    ResticRepository,
)
from longshore.errors import InvalidObjectError

MODELS: dict[str, type[ApiObject]] = {
    model.definition.kind: model
    for model in (PodVolumeBackup, PodVolumeRestore, ResticRepository, BackupRepository, BackupStorageLocation)
}
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(max_size=5)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def without_known_nulls(value: Any) -> Any:
    """Drop the nulls of known fields: those of the samples; unknown fields' nulls lie below `nothing`."""
    if isinstance(value, dict):
        return {name: without_known_nulls(one) for name, one in value.items() if one is not None or name == "nothing"}
    return [without_known_nulls(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
@pytest.mark.parametrize("planted", [False, True])
def test_every_version_round_trips(sample: dict[str, Any], planted: bool) -> None:
    wire = with_unknown(sample) if planted else copy.deepcopy(sample)
    before = copy.deepcopy(wire)
    assert MODELS[wire["kind"]].from_dict(wire).to_dict() == without_known_nulls(before)
    assert wire == before


@given(st.dictionaries(st.text(max_size=12), JSON_VALUES, max_size=5))
def test_unknown_fields_survive_whatever_they_are(unknown: dict[str, Any]) -> None:
    known = {"phase", "message", "node", "instance", "acceptedTimestamp", "startTimestamp", "completionTimestamp"}
    known |= {"progress", "path", "snapshotID", "incrementalBytes"}
    unknown = {name: value for name, value in unknown.items() if name not in known}
    assert PodVolumeBackupStatus.from_dict(unknown).to_dict() == unknown


def test_absent_reads_as_zero_and_stays_absent() -> None:
    wire = {"spec": {"node": "n", "pod": {}, "volume": "v", "backupStorageLocation": "b", "repoIdentifier": ""}}
    found = PodVolumeBackup.from_dict(wire)
    assert (found.phase, found.status.message, found.spec.tags, found.spec.cancel) == (
        PodVolumePhase.NEW,
        "",
        {},
        False,
    )
    assert found.status.start_timestamp is None
    assert found.to_dict() == {"apiVersion": "velero.io/v1", "kind": "PodVolumeBackup"} | wire


def test_empty_stays_empty() -> None:
    wire = {"phase": "", "message": "", "progress": {}}
    assert PodVolumeBackupStatus.from_dict(wire).to_dict() == wire


def test_built_in_python_goes_out_under_wire_names() -> None:
    made = PodVolumeBackup(
        metadata=ObjectMeta(generate_name="a-"),
        spec=PodVolumeBackupSpec(
            node="n", pod=ObjectReference(name="p"), volume="v", backup_storage_location="b", repo_identifier=""
        ),
        status=PodVolumeBackupStatus(
            phase=PodVolumePhase.COMPLETED,
            snapshot_id="s",
            progress=DataMoveProgress(bytes_done=1),
            start_timestamp=None,
        ),
    )
    assert made.to_dict() == {
        "apiVersion": "velero.io/v1",
        "kind": "PodVolumeBackup",
        "metadata": {"generateName": "a-"},
        "spec": {"node": "n", "pod": {"name": "p"}, "volume": "v", "backupStorageLocation": "b", "repoIdentifier": ""},
        "status": {"phase": "Completed", "snapshotID": "s", "progress": {"bytesDone": 1}},
    }


def test_unknown_field_with_a_python_name_is_not_taken_for_ours() -> None:
    status = PodVolumeBackupStatus.from_dict({"snapshot_id": "x", "start_timestamp": 5})
    assert (status.snapshot_id, status.start_timestamp) == ("", None)
    assert status.to_dict() == {"snapshot_id": "x", "start_timestamp": 5}
    both = {"snapshot_id": "x", "snapshotID": ""}
    assert PodVolumeBackupStatus.from_dict(both).to_dict() == both


def test_word_of_a_newer_version_is_kept_and_final_for_nobody() -> None:
    status = PodVolumeBackupStatus.from_dict({"phase": "Dozing"})
    assert (status.phase, status.is_terminal, status.to_dict()) == ("Dozing", False, {"phase": "Dozing"})


def test_terminal_phases() -> None:
    assert {phase for phase in PodVolumePhase if phase.is_terminal} == {"Completed", "Failed", "Canceled"}
    assert not any(phase.is_terminal for phase in RepositoryPhase)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"spec": {"node": 5}}, "spec.node: input should be a valid string"),
        ({"spec": {"node": None}}, "spec.node: field required"),
        ({"spec": {"cancel": "true"}}, "spec.cancel: input should be a valid boolean"),
        ({"spec": {"tags": {"ns": 1}}}, "spec.tags.ns: input should be a valid string"),
        ({"spec": {"pod": "db-0"}}, "spec.pod: input should be"),
        ({"status": {"progress": {"totalBytes": "5"}}}, "status.progress.totalBytes: input should be a valid integer"),
        ({"status": {"progress": {"totalBytes": True}}}, "status.progress.totalBytes: input should be a valid integer"),
        ({"status": {"startTimestamp": 7}}, "status.startTimestamp: input should be a valid string"),
        ({"metadata": {"labels": ["a"]}}, "metadata.labels: input should be a valid dictionary"),
    ],
)
def test_nonsense_is_refused_by_name(change: dict[str, Any], named: str) -> None:
    wire = copy.deepcopy(SAMPLES["podvolumebackup-1.18"])
    for part, fields in change.items():
        wire[part] = wire[part] | fields
    with pytest.raises(InvalidObjectError) as refused:
        PodVolumeBackup.from_dict(wire)
    assert named in refused.value.message
    assert "name=nightly-x7k2p" in refused.value.message
    assert refused.value.next_step


def test_object_without_spec_is_refused_by_name() -> None:
    with pytest.raises(InvalidObjectError, match="spec: field required"):
        PodVolumeBackup.from_dict({"metadata": {"name": "a"}})


@pytest.mark.parametrize("other", [{"kind": "PodVolumeRestore"}, {"apiVersion": "velero.io/v2"}])
def test_object_of_another_kind_is_refused(other: dict[str, str]) -> None:
    with pytest.raises(InvalidObjectError, match="of another kind"):
        PodVolumeBackup.from_dict(SAMPLES["podvolumebackup-1.9"] | other)


def test_models_are_frozen() -> None:
    status = PodVolumeBackupStatus()
    with pytest.raises(ValueError, match="frozen"):
        status.message = "x"  # type: ignore[misc]


def test_pod_tells_volumes_and_states() -> None:
    wire = {
        "metadata": {"name": "db-0", "uid": "u", "annotations": {"kubernetes.io/config.mirror": "hash"}},
        "spec": {
            "nodeName": "node-a",
            "volumes": [
                {"name": "data", "persistentVolumeClaim": {"claimName": "data-db-0"}},
                {"name": "info", "downwardAPI": {"items": []}},
                {"name": "odd", "flexVolume": {"driver": "x"}},
            ],
            "initContainers": [{"name": "restore-wait", "args": ["r"], "securityContext": {"runAsUser": 1000}}],
        },
        "status": {"initContainerStatuses": [{"name": "restore-wait", "containerID": "c", "state": {"running": {}}}]},
    }
    pod = Pod.from_dict(wire)
    volume = pod.spec.volume("data")
    assert volume is not None
    assert volume.persistent_volume_claim is not None
    assert volume.persistent_volume_claim.claim_name == "data-db-0"
    assert pod.spec.volume("none") is None
    assert pod.spec.init_containers[0].security_context.run_as_user == 1000
    assert pod.status.init_container_statuses[0].state.running == {}
    assert pod.to_dict() == wire
