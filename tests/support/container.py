"""Runs one program the way a container runtime would: its own root, read-only, as some user, with some capabilities, as process 1, under a seccomp filter.

    python -m tests.support.container '{"root": "/tmp/x", "user": 65532, "capabilities": ["CHOWN"], "binds": {"/data": "/tmp/d"}}' /velero version

What a runtime does is done here by the same system calls, so that a test needs no runtime: mounts in a namespace of their own, `chroot`, capabilities
out of every set, `no_new_privs`, the filter, `exec`. SIGTERM is passed on. Promises: nothing of it reaches the machine's own mounts, and all of it is
gone with the program. Needs root. It does not know images: `root` is a folder.
"""

import ctypes
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

__all__ = ["CAPABILITIES", "Container"]

CAPABILITIES = (  # noqa: SIM905 - a table in the kernel's order
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW "
    "IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD "
    "LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
).split()
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
_CLONE_NEWNS, _CLONE_NEWPID = 0x20000, 0x20000000
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _PR_CAP_AMBIENT = 1, 24, 38, 22, 47
_CAP_AMBIENT_CLEAR_ALL, _SECCOMP_MODE_FILTER, _CAPSET_VERSION = 4, 2, 0x20080522


@dataclass(frozen=True)
class Container:
    """How a program is to be run; `command` gives the words for it."""

    root: str
    user: int = 65532
    capabilities: Sequence[str] = ()
    binds: dict[str, str] = field(default_factory=dict)
    """Place in the container → folder outside; writable."""
    filter_path: str = ""
    """A file with a compiled seccomp program (`struct sock_filter`), loaded last."""

    def command(self, *words: str) -> list[str]:
        """Give the words that run `words` in it."""
        return [sys.executable, "-m", "tests.support.container", json.dumps(asdict(self)), *words]


class _Libc:
    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def __call__(self, name: str, *arguments: object) -> int:
        answer = int(getattr(self._libc, name)(*arguments))
        if answer < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{name}: {os.strerror(number)}")
        return answer


def _mount(libc: _Libc, source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    words = [one.encode() if one is not None else None for one in (source, target, kind, data)]
    libc("mount", words[0], words[1], words[2], ctypes.c_ulong(flags), words[3])


def _lay_out(libc: _Libc, root: str, binds: dict[str, str]) -> None:
    _mount(libc, "none", "/", None, _MS_REC | _MS_PRIVATE)
    _mount(libc, root, root, None, _MS_BIND | _MS_REC)
    _mount(libc, "tmpfs", f"{root}/tmp", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=1777")
    _mount(libc, "proc", f"{root}/proc", "proc", _MS_NOSUID | _MS_NODEV)
    _mount(libc, "/dev", f"{root}/dev", None, _MS_BIND)
    for place, folder in binds.items():
        # A runtime makes the mount point; the caller has made it in `root`.
        _mount(libc, folder, root + place, None, _MS_BIND)
    _mount(libc, root, root, None, _MS_BIND | _MS_REMOUNT | _MS_RDONLY)


def _keep(libc: _Libc, capabilities: Sequence[str], user: int) -> None:
    numbers = {CAPABILITIES.index(name) for name in capabilities}
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    libc("prctl", _PR_CAP_AMBIENT, _CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for number in set(range(last + 1)) - numbers:
        libc("prctl", _PR_CAPBSET_DROP, number, 0, 0, 0)
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
    mask = sum(1 << number for number in numbers) if user == 0 else 0
    header = (ctypes.c_uint32 * 2)(_CAPSET_VERSION, 0)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    sets = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    libc("capset", ctypes.byref(header), ctypes.byref(sets))


class _SockFprog(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _filter(libc: _Libc, program: bytes) -> None:
    described = _SockFprog(len(program) // 8, program)
    libc("prctl", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(described), 0, 0)


def main(words: Sequence[str]) -> int:
    """Become the container; returns only as its parent, with its exit code."""
    how, command = Container(**json.loads(words[0])), list(words[1:])
    libc = _Libc()
    libc("unshare", _CLONE_NEWNS | _CLONE_NEWPID)
    child = os.fork()
    if child:
        signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code
    # When who started us ends us, the container ends with us.
    libc("prctl", _PR_SET_PDEATHSIG, 9, 0, 0, 0)
    program = Path(how.filter_path).read_bytes() if how.filter_path else b""
    _lay_out(libc, how.root, how.binds)
    os.chroot(how.root)
    os.chdir("/")
    libc("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _keep(libc, how.capabilities, how.user)
    if program:
        _filter(libc, program)
    return os.execve(command[0], command, {"PATH": "/usr/bin", "HOME": "/tmp", **_passed_on()})


def _passed_on() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(("LONGSHORE_", "VELERO_"))}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
