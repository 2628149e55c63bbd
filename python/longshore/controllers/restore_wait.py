"""The protocol by which a restored pod is held until its volumes are filled, seen from the agent.

A pod that comes back has a first init container, `restore-wait` (`restic-wait` up to Velero 1.9), which looks once a second whether every volume has a file
`.velero/<restore UID>`; then it removes `.velero` and ends. It has no time limit of its own.

Promises
- A `.velero` that is left from before is gone before anything else happens: a stale done-file would let the pod start over half a volume.
- The done-file comes last, after the root's own metadata, and writing it does not change the root's times.
- Tenants own every name in the volume. All of this works from the root's descriptor, follows no link, never opens what is no directory, and makes the
  done-file as a new file. A `.velero` of any kind (link, FIFO, device, deep tree) is removed, never written into.
- The container can reach the done-file: where its user could not search the root, the root is given o+x, and :func:`close_root` takes it back.
- Nothing of the protocol stays in the volume: `.velero` belongs to the container's user, who removes it; where that user may not write the root, the agent
  removes it afterwards (:func:`remove_done_file`).

It does not know clients or objects of ours.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from longshore.api.core import Container, ContainerStatus, Pod
from longshore.api.names import WAIT_CONTAINER_NAMES
from longshore.errors import LongshoreError, NoSpaceError, StoreUnavailableError, UsageError, VolumeNotFoundError
from longshore.volumes import VolumePath

__all__ = [
    "WAIT_FOLDER_NAME",
    "WaiterUser",
    "Waiting",
    "close_root",
    "has_done_file",
    "is_left_behind",
    "remove_done_file",
    "remove_leftovers",
    "started",
    "true_mode_if_hidden",
    "waiter_of",
    "waiter_user",
    "waiting",
    "write_done_file",
]

WAIT_FOLDER_NAME: Final = ".velero"
_FOLDER_MODE: Final = 0o755
_FILE_MODE: Final = 0o644
_UID: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{0,62}", re.ASCII)
_DEPTH_MAX: Final = 256
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_POWERS: Final = {"ALL", "DAC_OVERRIDE", "DAC_READ_SEARCH", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"}


class Waiting(StrEnum):
    """How the waiting container is."""

    ABSENT = "absent"
    """The pod has none."""
    PENDING = "pending"
    """Not started yet, or it is started again."""
    RUNNING = "running"
    OVER = "over"
    """It ended well: every volume of the pod had its done-file."""


@dataclass(frozen=True, slots=True)
class WaiterUser:
    """As whom the waiting container looks; None where nobody says."""

    uid: int | None
    gids: frozenset[int]
    has_powers: bool
    """Whether it is root with the capability to search any directory."""

    def can_search(self, status: os.stat_result) -> bool:
        """Whether it can reach names in a directory of that owner and mode."""
        return self.has_powers or self._granted(status, stat.S_IXOTH)

    def can_write(self, status: os.stat_result) -> bool:
        """Whether it can remove names of its own from a directory of that owner and mode."""
        return self.has_powers or self._granted(status, stat.S_IWOTH)

    def _granted(self, status: os.stat_result, others_bit: int) -> bool:
        """The bit of others stands three places below the group's, and that three below the owner's."""
        if self.uid is not None and self.uid == status.st_uid:
            return bool(status.st_mode & others_bit << 6)
        if status.st_gid in self.gids:
            return bool(status.st_mode & others_bit << 3)
        return bool(status.st_mode & others_bit)


def waiter_of(pod: Pod) -> Container | None:
    """Find the waiting container of a pod, by either of its names."""
    return next((one for one in pod.spec.init_containers if one.name in WAIT_CONTAINER_NAMES), None)


def _status_of_waiter(pod: Pod) -> ContainerStatus | None:
    container = waiter_of(pod)
    if container is None:
        return None
    return next((one for one in pod.status.init_container_statuses if one.name == container.name), None)


def waiting(pod: Pod) -> Waiting:
    """Tell how the waiting container is."""
    if waiter_of(pod) is None:
        return Waiting.ABSENT
    status = _status_of_waiter(pod)
    if status is None:
        return Waiting.PENDING
    if status.state.running is not None:
        return Waiting.RUNNING
    ended = status.state.terminated
    # Ended in any other way it is started again, and its done-files are still there.
    return Waiting.OVER if ended is not None and ended.exit_code == 0 else Waiting.PENDING


def started(pod: Pod) -> str:
    """Tell when the waiting container that runs now was started; empty when none runs or nobody says.

    A node that boots runs the init containers of its pods once more, those of pods that had long gone on (velero#8018).
    """
    status = _status_of_waiter(pod)
    running = None if status is None else status.state.running
    when = None if running is None else running.get("startedAt")
    return when if isinstance(when, str) else ""


def waiter_user(pod: Pod) -> WaiterUser:
    """Tell as whom the waiting container runs: its own securityContext, then the pod's; what neither says is unknown."""
    container = waiter_of(pod)
    pod_context = pod.spec.security_context
    own = container.security_context if container is not None else None
    uid = own.run_as_user if own is not None and own.run_as_user is not None else pod_context.run_as_user
    gid = own.run_as_group if own is not None and own.run_as_group is not None else pod_context.run_as_group
    groups = {one for one in (gid, pod_context.fs_group, *pod_context.supplemental_groups) if one is not None}
    extra = (own.model_extra or {}) if own is not None else {}
    dropped = _dropped(extra.get("capabilities"))
    return WaiterUser(uid, frozenset(groups), has_powers=uid == 0 and not dropped & _POWERS)


def remove_leftovers(path: VolumePath) -> bool:
    """Remove `.velero` from the root of a volume, whatever it is.

    Returns:
        Whether there was one.

    Raises:
        LongshoreError: it cannot be removed.
    """
    with path.opened() as root, _translated(path, "removed"):
        return _remove(root, WAIT_FOLDER_NAME, depth=0)


def has_done_file(path: VolumePath, restore_uid: str) -> bool:
    """Whether the done-file of this restore is there, as a regular file of ours.

    Raises:
        LongshoreError: the volume cannot be looked at.
    """
    check_restore_uid(restore_uid)
    with path.opened() as root, _translated(path, "looked at"):
        try:
            folder = os.open(WAIT_FOLDER_NAME, _FOLDER, dir_fd=root)
        except OSError:
            return False
        try:
            found = os.stat(restore_uid, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        finally:
            os.close(folder)
        return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()


def true_mode_if_hidden(path: VolumePath, user: WaiterUser) -> int | None:
    """Tell the root's mode where the waiting container could not search it; None where it can.

    Raises:
        LongshoreError: the volume cannot be looked at.
    """
    with path.opened() as root:
        status = os.fstat(root)
    return None if user.can_search(status) else stat.S_IMODE(status.st_mode)


def is_left_behind(path: VolumePath, user: WaiterUser) -> bool:
    """Whether the container will not be able to remove `.velero`.

    Raises:
        LongshoreError: the volume cannot be looked at.
    """
    with path.opened() as root:
        return not user.can_write(os.fstat(root))


def write_done_file(path: VolumePath, restore_uid: str, *, open_to_others: bool, owner: int | None = None) -> None:
    """Let the waiting container go on.

    Args:
        restore_uid: the file's name.
        open_to_others: give the root o+x first, so that the container can reach the file.
        owner: the container's user, who gets `.velero` so as to be able to empty it; the file itself stays ours, for by that it is known.

    Raises:
        UsageError: `restore_uid` is no name of a file.
        LongshoreError: it cannot be written.
    """
    check_restore_uid(restore_uid)
    with path.opened() as root, _translated(path, "written"):
        before = os.fstat(root)
        _remove(root, WAIT_FOLDER_NAME, depth=0)
        os.mkdir(WAIT_FOLDER_NAME, _FOLDER_MODE, dir_fd=root)
        folder = os.open(WAIT_FOLDER_NAME, _FOLDER, dir_fd=root)
        try:
            # The process's umask may have taken bits that the container needs.
            os.fchmod(folder, _FOLDER_MODE)
            if owner is not None and owner != os.geteuid():
                # A share that knows no owners, or an agent that may not give files away: then somebody else clears up.
                with contextlib.suppress(OSError):
                    os.fchown(folder, owner, -1)
            if open_to_others:
                os.fchmod(root, stat.S_IMODE(before.st_mode) | stat.S_IXOTH)
            os.utime(root, ns=(before.st_atime_ns, before.st_mtime_ns))
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.open(restore_uid, flags, _FILE_MODE, dir_fd=folder)
            try:
                os.fchmod(file, _FILE_MODE)
            finally:
                os.close(file)
        finally:
            os.close(folder)


def remove_done_file(path: VolumePath, restore_uid: str) -> bool:
    """Take away what the container of this restore could not, and nothing of another restore; the root keeps its times.

    The container may have emptied `.velero` and only not been able to remove it.

    Returns:
        Whether `.velero` was there and is gone.

    Raises:
        LongshoreError: it cannot be removed.
    """
    ours = has_done_file(path, restore_uid)
    with path.opened() as root, _translated(path, "removed"):
        before = os.fstat(root)
        if ours:
            folder = os.open(WAIT_FOLDER_NAME, _FOLDER, dir_fd=root)
            try:
                os.unlink(restore_uid, dir_fd=folder)
            finally:
                os.close(folder)
        try:
            os.rmdir(WAIT_FOLDER_NAME, dir_fd=root)
        except OSError:
            # Not there, no folder, or with another restore's file in it: that one will clear up.
            return False
        os.utime(root, ns=(before.st_atime_ns, before.st_mtime_ns))
    return True


def close_root(path: VolumePath, true_mode: int) -> bool:
    """Take back the o+x that :func:`write_done_file` gave.

    Returns:
        False when the root has another mode by now: then somebody in the pod has set it, and it is left.

    Raises:
        LongshoreError: the volume cannot be looked at or changed.
    """
    with path.opened() as root, _translated(path, "changed"):
        if stat.S_IMODE(os.fstat(root).st_mode) != true_mode | stat.S_IXOTH:
            return False
        os.fchmod(root, true_mode)
        return True


def check_restore_uid(text: str) -> str:
    """Let a UID pass that can be a file's name.

    Raises:
        UsageError: it cannot.
    """
    if not _UID.fullmatch(text):
        raise UsageError(
            f"not the UID of a restore: value={text[:80]!r}",
            "give the PodVolumeRestore an owner of kind Restore, or the label velero.io/restore-uid",
        )
    return text


def _dropped(capabilities: Any) -> set[str]:
    found = capabilities.get("drop") if isinstance(capabilities, dict) else None
    return {str(one).upper() for one in found} if isinstance(found, list) else set()


def _remove(parent: int, name: str, *, depth: int) -> bool:
    """Remove a name and all below it without following a link; tell whether it was there."""
    if depth > _DEPTH_MAX:
        raise OSError(0, f"more than {_DEPTH_MAX} levels below {WAIT_FOLDER_NAME}")
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(name, dir_fd=parent)
        return True
    handle = os.open(name, _FOLDER, dir_fd=parent)
    try:
        if os.fstat(handle).st_dev != os.fstat(parent).st_dev:
            raise OSError(0, f"another filesystem is mounted at {name}")
        with os.scandir(handle) as entries:
            names = [entry.name for entry in entries]
        for one in names:
            _remove(handle, one, depth=depth + 1)
    finally:
        os.close(handle)
    os.rmdir(name, dir_fd=parent)
    return True


@contextlib.contextmanager
def _translated(path: VolumePath, what: str) -> Iterator[None]:
    try:
        yield
    except LongshoreError:
        raise
    except OSError as err:
        text = f"{WAIT_FOLDER_NAME} in the volume cannot be {what}: path={path}, error={err.strerror}"
        match err.errno:
            case errno.ENOSPC | errno.EDQUOT:
                raise NoSpaceError(text, "make room in the volume") from err
            case errno.EIO | errno.ESTALE | errno.ETIMEDOUT:
                raise StoreUnavailableError(text, "see why the volume does not answer; it is tried again") from err
        raise VolumeNotFoundError(text, "see whether the volume is mounted writable on the node") from err
