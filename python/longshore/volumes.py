"""Where a pod's volume lies on this node, and by what name its snapshots are found again.

The lookup is Velero's: a PVC's data lies in `<pods root>/<pod uid>/volumes/<some plugin>/<PV name>`, any other volume's in the folder of its own name, and one
level deeper, in `mount`, when a CSI driver made it. Exactly one plugin may have such a folder.

Promises
- Nothing is guessed: no folder, or more than one, is VolumeNotFoundError; hostPath and block volumes are UnsupportedError.
- Pod UID and folder names come from objects that tenants write. They are checked to be single names, compared and never used as patterns, and each step
  from the pods root down is opened relative to the one before without following a link.
- A CSI volume whose `mount` is not mounted where we look (the agent's mount lacks `mountPropagation: HostToContainer`) is refused: it would look empty.

It has no client: pod, PVC, PV and the names of CSI drivers are handed in. It never looks below a volume's root.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from longshore.api.core import (
    ANNOTATION_CONFIG_MIRROR,
    ANNOTATION_MIGRATED_TO,
    ANNOTATION_PROVISIONED_BY,
    PersistentVolume,
    PersistentVolumeClaim,
    Pod,
    Volume,
)
from longshore.errors import StoreUnavailableError, UnsupportedError, UsageError, VolumeNotFoundError

__all__ = [
    "MountTable",
    "VolumePath",
    "check_supported",
    "claim_name_of",
    "filled_by_kubernetes",
    "folder_of",
    "identity_of",
    "locate",
    "system_mounts",
    "volume_of",
]

MountTable = frozenset[str]
"""Paths of all mount points that this process sees."""

_POD_FOLDER: Final = re.compile(r"[0-9A-Za-z](?:[0-9A-Za-z.-]{0,126}[0-9A-Za-z])?", re.ASCII)
_CSI_VOLUME_DATA: Final = "vol_data.json"
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOUNT: Final = "mount"
_NAMED_MAX: Final = 5
_HASH_LABEL: Final = "pod-template-hash"

_FILLED: Final = {
    "secret": ("secret", "its Secret"),
    "config_map": ("configMap", "its ConfigMap"),
    "projected": ("projected", "the objects that it is made of"),
    "downward_api": ("downwardAPI", "the pod"),
}


@dataclass(frozen=True, slots=True)
class VolumePath:
    """A volume's root on this node. It existed when it was found; it may vanish with the pod."""

    root: Path
    """Where the kubelet's folder of pods is seen, e.g. `/host_pods`."""
    parts: tuple[str, ...]
    """Names from there on."""

    def __str__(self) -> str:
        return str(self.root.joinpath(*self.parts))

    @contextlib.contextmanager
    def opened(self) -> Iterator[int]:
        """Open the root of the volume, step by step, as a directory descriptor.

        Raises:
            VolumeNotFoundError: it is gone, or a step of it is no directory any more.
        """
        with contextlib.ExitStack() as stack:
            try:
                handle = _open_root(self.root, stack)
                for part in self.parts:
                    handle = _open_below(handle, part, stack)
            except OSError as err:
                raise VolumeNotFoundError(
                    f"the volume's folder cannot be opened: path={self}, error={err.strerror}",
                    "check that the pod still runs on this node",
                ) from err
            yield handle


def volume_of(pod: Pod, name: str) -> Volume:
    """Find a volume of a pod by its name.

    Raises:
        VolumeNotFoundError: the pod has none of that name.
    """
    found = pod.spec.volume(name)
    if found is None:
        known = ", ".join(sorted(volume.name for volume in pod.spec.volumes)[:_NAMED_MAX])
        raise VolumeNotFoundError(
            f"the pod has no such volume: pod={_name(pod)}, volume={name!r}, volumes=[{known}]",
            "name one of the pod's volumes",
        )
    return found


def claim_name_of(pod: Pod, volume: Volume) -> str | None:
    """Tell the name of the PVC behind a volume; None when there is none.

    A generic ephemeral volume has a PVC that Kubernetes names after pod and volume.
    """
    if volume.persistent_volume_claim is not None:
        return volume.persistent_volume_claim.claim_name
    if volume.ephemeral is not None:
        return f"{pod.metadata.name}-{volume.name}"
    return None


def filled_by_kubernetes(volume: Volume) -> str | None:
    """Say why a volume needs no backup because Kubernetes fills it; None when it does."""
    for field, (kind, source) in _FILLED.items():
        if getattr(volume, field) is not None:
            return f"a {kind} volume is filled by Kubernetes and comes back with {source}, so no snapshot was taken: volume={volume.name}"
    return None


def check_supported(
    pod: Pod, volume: Volume, *, claim: PersistentVolumeClaim | None, pv: PersistentVolume | None
) -> None:
    """Refuse volumes that are not files of the pod's own.

    Raises:
        UnsupportedError: a hostPath or block volume.
    """
    if volume.host_path is not None or (pv is not None and pv.spec.host_path is not None):
        raise UnsupportedError(
            f"a hostPath volume belongs to the node and is not backed up: pod={_name(pod)}, volume={volume.name}",
            "leave the volume out of the backup, or move its data to a persistent volume",
        )
    containers = (*pod.spec.containers, *pod.spec.init_containers)
    as_device = any(device.name == volume.name for container in containers for device in container.volume_devices)
    block = (pv is not None and pv.is_block) or (claim is not None and claim.spec.volume_mode == "Block")
    if as_device or block:
        raise UnsupportedError(
            f"a block volume has no files to back up: pod={_name(pod)}, volume={volume.name}",
            "leave the volume out of the backup, or use a CSI snapshot for it",
        )


def folder_of(
    volume: Volume, *, claim: PersistentVolumeClaim | None, pv: PersistentVolume | None, csi_drivers: Collection[str]
) -> tuple[str, ...]:
    """Tell how a volume's folder is called below a plugin's: one name, or two when its data lies in `mount`.

    Args:
        claim: the PVC behind it, if there is one.
        pv: what the PVC is bound to.
        csi_drivers: names of all CSIDriver objects; they decide for PVs that were migrated from an in-tree plugin.

    Raises:
        VolumeNotFoundError: the PVC is not bound.
    """
    if claim is None:
        return (volume.name, _MOUNT) if volume.csi is not None else (volume.name,)
    name = claim.spec.volume_name
    if not name or pv is None:
        raise VolumeNotFoundError(
            f"the volume's PVC is not bound to a volume: pvc={claim.metadata.namespace}/{claim.metadata.name}, volume={volume.name}",
            "see why with kubectl describe pvc",
        )
    annotations = pv.metadata.annotations
    drivers = {annotations.get(ANNOTATION_PROVISIONED_BY), annotations.get(ANNOTATION_MIGRATED_TO)}
    is_csi = pv.spec.csi is not None or any(driver in csi_drivers for driver in drivers if driver)
    return (name, _MOUNT) if is_csi else (name,)


def locate(pod: Pod, folder: tuple[str, ...], *, host_root: Path, mounts: MountTable | None = None) -> VolumePath:
    """Find a pod's volume on this node.

    Args:
        pod: whose volume it is; only its UID and annotations are read.
        folder: from :func:`folder_of`.
        host_root: where the kubelet's folder of pods is mounted, e.g. `/host_pods`.
        mounts: what is mounted; None asks the system.

    Raises:
        UsageError: pod UID or folder is not a name.
        VolumeNotFoundError: no such folder, or more than one.
        StoreUnavailableError: the pods root itself cannot be opened.
    """
    uid = pod.metadata.annotations.get(ANNOTATION_CONFIG_MIRROR) or pod.metadata.uid
    if not _POD_FOLDER.fullmatch(uid):
        raise UsageError(f"not a pod's UID: pod={_name(pod)}, uid={uid!r}", "look at the pod's metadata.uid")
    for part in folder:
        _check_name(part, pod)
    with contextlib.ExitStack() as stack:
        try:
            root = _open_root(host_root, stack)
        except OSError as err:
            raise StoreUnavailableError(
                f"the folder of pods cannot be opened: path={host_root}, error={err.strerror}",
                "mount the kubelet's pods folder into the agent, and give its path with --host-pods-root",
            ) from err
        base = (uid, "volumes")
        try:
            handle = root
            for part in base:
                handle = _open_below(handle, part, stack)
            with os.scandir(handle) as entries:
                plugins = sorted(entry.name for entry in entries)
        except OSError as err:
            raise VolumeNotFoundError(
                f"the pod has no volumes on this node: pod={_name(pod)}, path={host_root.joinpath(*base)}, error={err.strerror}",
                "check that the pod runs on this node and that --host-pods-root is the kubelet's folder of pods",
            ) from err
        found = [plugin for plugin in plugins if _is_there(handle, (plugin, *folder))]
    where = host_root.joinpath(*base, "*", *folder)
    if not found:
        raise VolumeNotFoundError(
            f"the volume is not on this node: pod={_name(pod)}, expected={where}",
            "check that the volume is mounted by a container of the pod, and that the agent mounts the pods folder with HostToContainer",
        )
    if len(found) > 1:
        raise VolumeNotFoundError(
            f"the volume is on this node more than once: pod={_name(pod)}, expected={where}, plugins=[{', '.join(found[:_NAMED_MAX])}]",
            "remove the folder that is left from an earlier mount",
        )
    path = VolumePath(host_root, (*base, found[0], *folder))
    _check_mounted(path, system_mounts() if mounts is None else mounts)
    return path


def identity_of(pod: Pod, volume: Volume, *, claim: PersistentVolumeClaim | None, node: str) -> str:
    """Name a volume so that its snapshots are found again, whatever the pod is called next time.

    With a PVC its namespace, name and UID; a PVC that was made anew is another volume. Without one the pod's owner, as far as it outlives the pod, and the
    volume's name in it.
    """
    metadata = pod.metadata
    if claim is not None:
        return f"pvc/{claim.metadata.namespace or metadata.namespace}/{claim.metadata.name}/{claim.metadata.uid}"
    owner = metadata.controller_owner
    match None if owner is None else owner.kind:
        case None | "StatefulSet" | "Node":
            holder = metadata.name
        case "ReplicaSet" if owner is not None:
            holder = owner.name.removesuffix(f"-{metadata.labels.get(_HASH_LABEL, '')}")
        case "DaemonSet" if owner is not None:
            holder = f"{owner.name}/{node}"
        case _:
            holder = metadata.name if owner is None else owner.name
    return f"pod/{metadata.namespace}/{holder}/{volume.name}"


def system_mounts() -> MountTable:
    """Read what is mounted where this process sees it; empty where the system does not say."""
    try:
        text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return frozenset()
    points = (line.split(" ", 5)[4] for line in text.splitlines() if line.count(" ") > 5)
    return frozenset(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), point) for point in points)


def _check_mounted(path: VolumePath, mounts: MountTable) -> None:
    if path.parts[-1] != _MOUNT or not mounts or os.path.realpath(str(path)) in mounts:
        return
    folder = VolumePath(path.root, path.parts[:-1])
    with folder.opened() as handle:
        # The kubelet leaves this file beside each `mount` of its own; where it is absent, no kubelet made the folder.
        if not _exists(handle, _CSI_VOLUME_DATA):
            return
    raise VolumeNotFoundError(
        f"the volume is mounted on the node but not where the agent sees it: path={path}",
        "set mountPropagation: HostToContainer on the agent's mount of the pods folder",
    )


def _check_name(part: str, pod: Pod) -> None:
    if not part or part in {".", ".."} or "/" in part or "\0" in part or len(os.fsencode(part)) > 255:
        raise UsageError(
            f"not a name of a folder: pod={_name(pod)}, name={part!r}",
            "correct the volume's name in the pod, or the PVC's",
        )


def _is_there(handle: int, parts: tuple[str, ...]) -> bool:
    with contextlib.ExitStack() as stack:
        try:
            for part in parts:
                handle = _open_below(handle, part, stack)
        except OSError:
            return False
        return True


def _exists(handle: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=handle, follow_symlinks=False)
    except OSError:
        return False
    return True


def _open_root(root: Path, stack: contextlib.ExitStack) -> int:
    # The root's own path is the operator's, and may lead through links.
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, handle)
    return handle


def _open_below(handle: int, name: str, stack: contextlib.ExitStack) -> int:
    opened = os.open(name, _FOLDER, dir_fd=handle)
    stack.callback(os.close, opened)
    return opened


def _name(pod: Pod) -> str:
    return f"{pod.metadata.namespace}/{pod.metadata.name}"
