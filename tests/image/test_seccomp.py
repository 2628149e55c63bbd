"""The agent's own seccomp profile: all of its work goes on under it, and what leads out of a container is refused.

Promises: what is refused here is refused by the filter alone: the programs have the capabilities that the calls ask for, and without the filter it
gets through or fails in another way. Needs root and libseccomp, and says so.
"""

import json
import os
from pathlib import Path

import pytest
from scripts.image import assembly

from tests.image.conftest import Built
from tests.image.test_rights import READING, WRITING, Node, _target, node
from tests.oracle.compare import compare
from tests.support.lacking import lacks
from tests.support.seccomp import SeccompMissingError, compile_profile

__all__ = ["node"]
pytestmark = [pytest.mark.usefixtures("rooted"), pytest.mark.timeout(1200)]

PROFILE = assembly.ROOT / "daemonset/seccomp/agent.json"
REFUSED = {
    "open_by_handle_at": "libc.open_by_handle_at(at, ctypes.byref(handle), 0)",
    "mount": "libc.mount(b'tmpfs', b'/tmp', b'tmpfs', 0, None)",
    "umount2": "libc.umount2(b'/tmp', 0)",
    "ptrace": "libc.ptrace(0, 0, 0, 0)",
    "bpf": "libc.syscall(321, 0, ctypes.byref((ctypes.c_uint64 * 16)(1, 1 << 35 | 4, 1)), 128)",
    "unshare": "libc.unshare(0x20000)",
    "setns": "libc.setns(os.open('/proc/self/ns/uts', os.O_RDONLY), 0)",
    "userfaultfd": "libc.syscall(323, 1)",
    "io_uring_setup": "libc.syscall(425, 1, ctypes.byref((ctypes.c_uint64 * 32)()))",
    "process_vm_readv": "libc.syscall(310, os.getpid(), None, 0, None, 0, 0)",
    "keyctl": "libc.syscall(250, 0, -3, 0)",
    "chroot": "libc.chroot(b'/')",
    "clone into a namespace": "libc.syscall(56, 0x04000000 | 17, 0, 0, 0, 0) or os._exit(0)",
}
_PROGRAM = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
class Handle(ctypes.Structure):
    _fields_ = (("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("data", ctypes.c_char * 128))
handle, mount_id, at = Handle(128), ctypes.c_int(), os.open("/data", os.O_RDONLY)
libc.name_to_handle_at(at, b"volume", ctypes.byref(handle), ctypes.byref(mount_id), 0)
answer = {call}
print("refused" if answer == -1 and ctypes.get_errno() == errno.EPERM else "let through")
"""


@pytest.fixture(scope="session")
def filter_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("seccomp") / "filter"
    try:
        compile_profile(PROFILE, path)
    except SeccompMissingError as err:
        lacks(str(err))
    return str(path)


def test_agents_work_goes_on(node: Node, filter_path: str) -> None:
    target = _target(node)
    os.mkfifo(node.volume / "queue")
    os.symlink("secret/key", node.volume / "link")
    os.setxattr(node.volume / "shared", "user.note", b"x")
    os.truncate(node.volume / "secret/key", 50 << 20)
    # As an agent's jobs do: their threads stand behind others.
    behind = ("--nice", "10", "--ionice", "best-effort")
    for _ in range(2):
        words = ("volume", "backup", "/data/volume", *behind)
        summary = node.longshore(*words, capabilities=READING, filter_path=filter_path)
        assert summary["exit_code"] == 0
        assert "was not taken" not in summary["said"], summary["said"]
    for words in (
        ("volume", "restore", "latest", "/data/target"),
        ("repo", "check"),
        ("repo", "prune", "--keep-last", "1"),
    ):
        summary = node.longshore(*words, capabilities=WRITING, filter_path=filter_path)
        assert summary["exit_code"] == 0, summary["said"]
    assert compare(node.volume, target) == []


@pytest.mark.parametrize("call", REFUSED)
def test_way_out_is_refused(image: Built, tmp_path: Path, filter_path: str, call: str) -> None:
    (tmp_path / "volume").mkdir()
    how = {
        "user": 0,
        "capabilities": ["DAC_READ_SEARCH", "SYS_ADMIN", "SYS_CHROOT", "SYS_PTRACE"],
        "binds": {"/data": str(tmp_path)},
    }
    words = ("/usr/bin/python3.11", "-ISBXutf8", "-c", _PROGRAM.format(call=REFUSED[call]))
    without, under = image.run(*words, **how), image.run(*words, **how, filter_path=filter_path)
    assert under.stdout == "refused\n", under.stderr
    assert without.stdout != "refused\n"


def test_network_and_threads_work(image: Built, filter_path: str) -> None:
    program = """
import asyncio, http.server, socket, threading, urllib.request
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
try:
    socket.getaddrinfo("name.invalid", 443)
except socket.gaierror:
    pass
async def ask():
    reader, writer = await asyncio.open_connection("127.0.0.1", server.server_port)
    writer.write(b"GET /tmp/ HTTP/1.0\\r\\n\\r\\n")
    return await reader.readline()
print(asyncio.run(ask()))
"""
    answer = image.run("/usr/bin/python3.11", "-ISBXutf8", "-c", program, user=0, filter_path=filter_path)
    assert answer.stdout == "b'HTTP/1.0 200 OK\\r\\n'\n", answer.stderr


def test_profile_is_what_runtimes_read() -> None:
    said = json.loads(PROFILE.read_text())
    names = [name for rule in said["syscalls"] for name in rule["names"]]
    assert len(names) == len(set(names))
    assert said["defaultAction"] == "SCMP_ACT_ERRNO"
    assert {"open_by_handle_at", "mount", "ptrace", "bpf", "io_uring_setup", "userfaultfd"} & set(names) == set()
