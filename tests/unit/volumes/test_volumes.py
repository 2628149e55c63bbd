"""A pod's volume is found exactly where Velero looks, once, and nowhere else."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshore.api.core import PersistentVolume, PersistentVolumeClaim, Pod
from longshore.errors import LongshoreError, StoreUnavailableError, UnsupportedError, UsageError, VolumeNotFoundError
from longshore.volumes import (
    check_supported,
    claim_name_of,
    filled_by_kubernetes,
    folder_of,
    identity_of,
    locate,
    system_mounts,
    volume_of,
)

UID = "5ad80e40-7d4d-4b1f-9d0b-6d5b1d6e8f10"
NONE = frozenset()


def pod_of(uid=UID, volumes=(), **fields):
    metadata = {"name": "db-0", "namespace": "shop", "uid": uid, **fields.pop("metadata", {})}
    return Pod.from_dict({"metadata": metadata, "spec": {"volumes": list(volumes), **fields}})


def claim_of(name="orders", volume="pv-1", **spec):
    metadata = {"name": name, "namespace": "shop", "uid": "claim-uid"}
    return PersistentVolumeClaim.from_dict({"metadata": metadata, "spec": {"volumeName": volume, **spec}})


def pv_of(annotations=None, **spec):
    return PersistentVolume.from_dict({"metadata": {"name": "pv-1", "annotations": annotations or {}}, "spec": spec})


def folders(root, *names):
    for name in names:
        (root / UID / "volumes" / name).mkdir(parents=True)


def test_one_match(tmp_path):
    folders(tmp_path, "kubernetes.io~csi/pv-1/mount", "kubernetes.io~csi/pv-11/mount", "kubernetes.io~nfs/other")
    found = locate(pod_of(), ("pv-1", "mount"), host_root=tmp_path, mounts=NONE)
    assert str(found) == f"{tmp_path}/{UID}/volumes/kubernetes.io~csi/pv-1/mount"
    with found.opened() as handle:
        assert os.path.samestat(os.fstat(handle), os.stat(str(found)))


def test_no_match_and_two_matches(tmp_path):
    folders(tmp_path, "a~b/data")
    with pytest.raises(VolumeNotFoundError, match="not on this node"):
        locate(pod_of(), ("dat?",), host_root=tmp_path, mounts=NONE)
    folders(tmp_path, "c~d/data")
    with pytest.raises(VolumeNotFoundError, match="more than once"):
        locate(pod_of(), ("data",), host_root=tmp_path, mounts=NONE)


def test_pod_without_a_folder(tmp_path):
    with pytest.raises(VolumeNotFoundError, match="no volumes on this node"):
        locate(pod_of(), ("data",), host_root=tmp_path, mounts=NONE)
    with pytest.raises(StoreUnavailableError, match="folder of pods"):
        locate(pod_of(), ("data",), host_root=tmp_path / "gone", mounts=NONE)


def test_mirror_pod_is_found_by_its_hash(tmp_path):
    folders(tmp_path, "a~b/data")
    pod = pod_of(uid="another", metadata={"annotations": {"kubernetes.io/config.mirror": UID}})
    assert UID in str(locate(pod, ("data",), host_root=tmp_path, mounts=NONE))


@pytest.mark.parametrize("step", ["uid", "volumes", "plugin", "volume", "mount"])
def test_links_are_not_followed(tmp_path, step):
    outside = tmp_path / "outside"
    (outside / "volumes" / "p" / "pv-1" / "mount").mkdir(parents=True)
    root = tmp_path / "pods"
    base = root / UID
    places = {
        "uid": (base, outside),
        "volumes": (base / "volumes", outside / "volumes"),
        "plugin": (base / "volumes" / "p", outside / "volumes" / "p"),
        "volume": (base / "volumes" / "p" / "pv-1", outside / "volumes" / "p" / "pv-1"),
        "mount": (base / "volumes" / "p" / "pv-1" / "mount", outside / "volumes" / "p" / "pv-1" / "mount"),
    }
    link, target = places[step]
    link.parent.mkdir(parents=True)
    os.symlink(target, link)
    with pytest.raises(VolumeNotFoundError):
        locate(pod_of(), ("pv-1", "mount"), host_root=root, mounts=NONE)


def test_file_is_no_volume(tmp_path):
    folders(tmp_path, "a~b")
    (tmp_path / UID / "volumes" / "a~b" / "data").write_text("x")
    with pytest.raises(VolumeNotFoundError):
        locate(pod_of(), ("data",), host_root=tmp_path, mounts=NONE)


def test_csi_volume_that_is_not_mounted_here_is_refused(tmp_path):
    folders(tmp_path, "kubernetes.io~csi/pv-1/mount")
    (tmp_path / UID / "volumes" / "kubernetes.io~csi" / "pv-1" / "vol_data.json").write_text("{}")
    with pytest.raises(VolumeNotFoundError, match="not where the agent sees it") as caught:
        locate(pod_of(), ("pv-1", "mount"), host_root=tmp_path, mounts=frozenset({"/"}))
    assert "HostToContainer" in caught.value.next_step
    real = os.path.realpath(tmp_path / UID / "volumes" / "kubernetes.io~csi" / "pv-1" / "mount")
    locate(pod_of(), ("pv-1", "mount"), host_root=tmp_path, mounts=frozenset({"/", real}))


def test_mounts_of_this_machine_are_read():
    assert "/" in system_mounts() and "/proc" in system_mounts()


@given(uid=st.text(max_size=80), folder=st.lists(st.text(max_size=40), min_size=1, max_size=2))
def test_nonsense_finds_nothing_and_leaves_the_root(tmp_path_factory, uid, folder):
    root = tmp_path_factory.getbasetemp() / "nonsense" / "pods"
    (root / UID / "volumes").mkdir(parents=True, exist_ok=True)
    (root.parent / "secret").mkdir(exist_ok=True)
    with pytest.raises(LongshoreError):
        locate(pod_of(uid=uid), tuple(folder), host_root=root, mounts=NONE)


@pytest.mark.parametrize("uid", ["", ".", "..", "../pods", f"{UID}/..", "a\0b", "-x", "a" * 200])
def test_uid_that_is_no_name(tmp_path, uid):
    with pytest.raises(UsageError, match="not a pod's UID"):
        locate(pod_of(uid=uid), ("data",), host_root=tmp_path, mounts=NONE)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b", "x" * 256])
def test_folder_that_is_no_name(tmp_path, name):
    with pytest.raises(UsageError, match="not a name of a folder"):
        locate(pod_of(), (name,), host_root=tmp_path, mounts=NONE)


@pytest.mark.parametrize(
    ("volume", "claim", "pv", "drivers", "found"),
    [
        ({"name": "data", "emptyDir": {}}, None, None, (), ("data",)),
        ({"name": "data", "csi": {"driver": "x"}}, None, None, (), ("data", "mount")),
        ({"name": "data"}, claim_of(), pv_of(csi={"driver": "x"}), (), ("pv-1", "mount")),
        ({"name": "data"}, claim_of(), pv_of(nfs={"server": "x"}), (), ("pv-1",)),
        ({"name": "data"}, claim_of(), pv_of({"pv.kubernetes.io/migrated-to": "ebs"}), ("ebs",), ("pv-1", "mount")),
        ({"name": "data"}, claim_of(), pv_of({"pv.kubernetes.io/provisioned-by": "ebs"}), ("ebs",), ("pv-1", "mount")),
        ({"name": "data"}, claim_of(), pv_of({"pv.kubernetes.io/provisioned-by": "in-tree"}), ("ebs",), ("pv-1",)),
    ],
)
def test_names_of_folders_are_veleros(volume, claim, pv, drivers, found):
    one = volume_of(pod_of(volumes=[volume]), "data")
    assert folder_of(one, claim=claim, pv=pv, csi_drivers=drivers) == found


def test_claim_that_is_not_bound():
    one = volume_of(pod_of(volumes=[{"name": "data"}]), "data")
    with pytest.raises(VolumeNotFoundError, match="not bound"):
        folder_of(one, claim=claim_of(volume=""), pv=None, csi_drivers=())


def test_volume_that_the_pod_does_not_have():
    with pytest.raises(VolumeNotFoundError, match=r"volumes=\[a, b\]"):
        volume_of(pod_of(volumes=[{"name": "b"}, {"name": "a"}]), "data")


def test_claims():
    volumes = [
        {"name": "a", "persistentVolumeClaim": {"claimName": "orders"}},
        {"name": "b", "ephemeral": {}},
        {"name": "c", "emptyDir": {}},
    ]
    pod = pod_of(volumes=volumes)
    assert [claim_name_of(pod, volume) for volume in pod.spec.volumes] == ["orders", "db-0-b", None]


def test_refused_and_left_out():
    volumes = [{"name": "data", "hostPath": {"path": "/"}}, {"name": "s", "secret": {}}, {"name": "raw"}, {"name": "e"}]
    pod = pod_of(volumes=volumes, containers=[{"name": "x", "volumeDevices": [{"name": "raw", "devicePath": "/d"}]}])
    data, secret, raw, plain = pod.spec.volumes
    with pytest.raises(UnsupportedError, match="hostPath"):
        check_supported(pod, data, claim=None, pv=None)
    with pytest.raises(UnsupportedError, match="hostPath"):
        check_supported(pod, plain, claim=claim_of(), pv=pv_of(hostPath={"path": "/"}))
    for claim, pv, one in (
        (None, None, raw),
        (claim_of(volumeMode="Block"), pv_of(), plain),
        (claim_of(), pv_of(volumeMode="Block"), plain),
    ):
        with pytest.raises(UnsupportedError, match="block"):
            check_supported(pod, one, claim=claim, pv=pv)
    check_supported(pod, plain, claim=claim_of(), pv=pv_of(local={"path": "/x"}))
    assert "its Secret" in filled_by_kubernetes(secret) and filled_by_kubernetes(plain) is None


def owned(kind, name, **metadata):
    owner = {"kind": kind, "name": name, "uid": "u", "controller": True, "apiVersion": "apps/v1"}
    return pod_of(volumes=[{"name": "data"}], metadata={"ownerReferences": [owner], **metadata})


@pytest.mark.parametrize(
    ("pod", "found"),
    [
        (pod_of(volumes=[{"name": "data"}]), "pod/shop/db-0/data"),
        (owned("StatefulSet", "db"), "pod/shop/db-0/data"),
        (owned("ReplicaSet", "web-7d9", labels={"pod-template-hash": "7d9"}), "pod/shop/web/data"),
        (owned("DaemonSet", "logs"), "pod/shop/logs/node-1/data"),
        (owned("Job", "night"), "pod/shop/night/data"),
    ],
)
def test_identity_outlives_the_pods_name(pod, found):
    assert identity_of(pod, pod.spec.volumes[0], claim=None, node="node-1") == found


def test_identity_with_a_claim_knows_no_pod():
    pod = pod_of(volumes=[{"name": "data"}])
    other = pod_of(volumes=[{"name": "files"}], metadata={"name": "db-1"})
    names = {
        identity_of(one, one.spec.volumes[0], claim=claim_of(), node=node) for one, node in ((pod, "a"), (other, "b"))
    }
    assert names == {"pvc/shop/orders/claim-uid"}
