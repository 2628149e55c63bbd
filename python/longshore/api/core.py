"""Slim models of Kubernetes' own kinds: what is needed to find a pod's volume on a node and to follow a waiting container.

Only fields that Longshore reads are named. These objects are read, never written back.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import Field

from longshore.api.meta import ObjectMeta, ObjectReference
from longshore.api.model import ApiModel
from longshore.api.values import Timestamp

__all__ = [
    "ANNOTATION_CONFIG_MIRROR",
    "ANNOTATION_MIGRATED_TO",
    "ANNOTATION_PROVISIONED_BY",
    "Container",
    "ContainerState",
    "ContainerStateTerminated",
    "ContainerStatus",
    "CsiVolumeSource",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "PersistentVolumeClaimSpec",
    "PersistentVolumeClaimVolumeSource",
    "PersistentVolumeSpec",
    "Pod",
    "PodSecurityContext",
    "PodSpec",
    "PodStatus",
    "SecurityContext",
    "Volume",
    "VolumeDevice",
    "VolumeMount",
]

ANNOTATION_CONFIG_MIRROR: Final = "kubernetes.io/config.mirror"
"""On a static pod's mirror: the hash by which its folder on the node is called instead of the UID."""
ANNOTATION_PROVISIONED_BY: Final = "pv.kubernetes.io/provisioned-by"
ANNOTATION_MIGRATED_TO: Final = "pv.kubernetes.io/migrated-to"


class PersistentVolumeClaimVolumeSource(ApiModel):
    """A pod volume that is a claim."""

    claim_name: str = ""
    read_only: bool = False


class CsiVolumeSource(ApiModel):
    """A volume of a CSI driver, inline in a pod or as a PersistentVolume's source."""

    driver: str = ""
    volume_handle: str = ""


class Volume(ApiModel):
    """One entry of a pod's spec.volumes. The source's name is the field that is set; sources that need no reading stay raw."""

    name: str = ""
    persistent_volume_claim: PersistentVolumeClaimVolumeSource | None = None
    csi: CsiVolumeSource | None = None
    ephemeral: dict[str, Any] | None = None
    host_path: dict[str, Any] | None = None
    empty_dir: dict[str, Any] | None = None
    secret: dict[str, Any] | None = None
    config_map: dict[str, Any] | None = None
    projected: dict[str, Any] | None = None
    downward_api: dict[str, Any] | None = None


class VolumeMount(ApiModel):
    """A volume mounted into a container as files."""

    name: str = ""
    mount_path: str = ""
    sub_path: str = ""
    read_only: bool = False


class VolumeDevice(ApiModel):
    """A volume given to a container as a block device."""

    name: str = ""
    device_path: str = ""


class SecurityContext(ApiModel):
    """As whom a container runs; what is absent comes from the pod."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None


class PodSecurityContext(SecurityContext):
    """As whom a pod's containers run; what is absent comes from the image."""

    fs_group: int | None = None
    supplemental_groups: list[int] = Field(default_factory=list)


class Container(ApiModel):
    """A container or init container."""

    name: str = ""
    image: str = ""
    command: list[str] = Field(default_factory=list)
    args: list[str] = Field(default_factory=list)
    volume_mounts: list[VolumeMount] = Field(default_factory=list)
    volume_devices: list[VolumeDevice] = Field(default_factory=list)
    security_context: SecurityContext = SecurityContext()


class PodSpec(ApiModel):
    """What a pod is made of."""

    node_name: str = ""
    volumes: list[Volume] = Field(default_factory=list)
    containers: list[Container] = Field(default_factory=list)
    init_containers: list[Container] = Field(default_factory=list)
    security_context: PodSecurityContext = PodSecurityContext()
    service_account_name: str = ""

    def volume(self, name: str) -> Volume | None:
        """Find a volume by its name."""
        return next((volume for volume in self.volumes if volume.name == name), None)


class ContainerStateTerminated(ApiModel):
    """A container that has ended."""

    exit_code: int = 0
    reason: str = ""
    finished_at: Timestamp | None = None


class ContainerState(ApiModel):
    """At most one of the three is set; none means waiting."""

    waiting: dict[str, Any] | None = None
    running: dict[str, Any] | None = None
    terminated: ContainerStateTerminated | None = None


class ContainerStatus(ApiModel):
    """How one container is."""

    name: str = ""
    ready: bool = False
    restart_count: int = 0
    container_id: str = ""
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()


class PodStatus(ApiModel):
    """How a pod is."""

    phase: str = ""
    init_container_statuses: list[ContainerStatus] = Field(default_factory=list)
    container_statuses: list[ContainerStatus] = Field(default_factory=list)


class Pod(ApiModel):
    """A pod."""

    metadata: ObjectMeta = ObjectMeta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class PersistentVolumeClaimSpec(ApiModel):
    """What is claimed, and what was bound."""

    volume_name: str = ""
    volume_mode: str = ""
    storage_class_name: str | None = None
    access_modes: list[str] = Field(default_factory=list)


class PersistentVolumeClaim(ApiModel):
    """A claim."""

    metadata: ObjectMeta = ObjectMeta()
    spec: PersistentVolumeClaimSpec = PersistentVolumeClaimSpec()
    status: dict[str, Any] = Field(default_factory=dict)


class PersistentVolumeSpec(ApiModel):
    """Where a volume's bytes are. Sources that need no reading stay raw or unknown."""

    csi: CsiVolumeSource | None = None
    host_path: dict[str, Any] | None = None
    local: dict[str, Any] | None = None
    nfs: dict[str, Any] | None = None
    volume_mode: str = ""
    claim_ref: ObjectReference | None = None
    access_modes: list[str] = Field(default_factory=list)


class PersistentVolume(ApiModel):
    """A volume of the cluster."""

    metadata: ObjectMeta = ObjectMeta()
    spec: PersistentVolumeSpec = PersistentVolumeSpec()

    @property
    def is_block(self) -> bool:
        """Whether the volume is a bare block device."""
        return self.spec.volume_mode == "Block"
