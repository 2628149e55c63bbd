"""The room: nothing is left of what was started in it, however it ends. The machine is looked at from outside, as far as the test itself is."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.lacking import lacks

_ROOT = Path(__file__).resolve().parents[2]
_CGROUPS = Path("/sys/fs/cgroup")
# A process that has left its parent, a mount, a link, a bridge, a group below the room's and a changed setting of the machine.
_MESS = """
setsid sleep 600 &
mkdir -p /run/mess /var/lib/mess && mount -t tmpfs tmpfs /run/mess && mount -t tmpfs tmpfs /var/lib/mess
ip link add mess0 type veth peer name mess1 && ip link add mess type bridge
for group in /sys/fs/cgroup/*"$LONGSHORE_NODE_CGROUP" /sys/fs/cgroup"$LONGSHORE_NODE_CGROUP"; do
  [ -d "$group" ] && mkdir -p "$group/below" && echo $$ >"$group/below/cgroup.procs"
done 2>/dev/null # where a new group has no processor yet
echo 7 >/proc/sys/kernel/panic
echo "$LONGSHORE_NODE_ROOM $(ip -o link show dev mess | wc -l)"
"""


@pytest.fixture
def rooted():
    if os.geteuid() != 0:
        lacks("rooms are made by root only: run as root")


def machine():
    """What of this machine a room must leave alone; processes are judged apart, for others come and go."""
    mounts = Path("/proc/self/mountinfo").read_text()
    links = sorted(path.name for path in Path("/sys/class/net").iterdir())
    groups = sorted(map(str, [*_CGROUPS.glob("longshore-node-*"), *_CGROUPS.glob("*/longshore-node-*")]))
    folders = [place for place in ("/run/mess", "/var/lib/mess") if os.path.exists(place)]
    return mounts, links, groups, folders, Path("/proc/sys/kernel/panic").read_text()


def start(script, *before):
    return subprocess.Popen(
        [*before, sys.executable, "-m", "tests.node.room", "bash", "-c", script],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def members(folder):
    """Processes that have the room's folder in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"LONGSHORE_NODE_ROOM={folder}".encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_nothing_is_left(rooted):
    before = machine()
    room = start(f"{_MESS}\nexit 3")
    told, said = room.communicate(timeout=120)
    assert room.returncode == 3, said
    folder, links = told.split()
    assert links == "1" and said == ""
    assert machine() == before
    assert not Path(folder).exists() and members(folder) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda one: one.name)
def test_no_process_outlives_the_room(rooted, number):
    before = machine()
    room = start(f"{_MESS}\nexec sleep 600")
    folder = room.stdout.readline().split()[0]
    assert members(folder)
    # Ctrl-C on a terminal reaches all of the group, the command too.
    (os.killpg if number == signal.SIGINT else os.kill)(room.pid, number)
    room.communicate(timeout=120)
    assert room.returncode == (-number if number == signal.SIGKILL else 128 + number)
    ends = time.monotonic() + 30
    while members(folder):
        assert time.monotonic() < ends, "processes are left"
        time.sleep(0.05)
    if number != signal.SIGKILL:
        assert machine() == before and not Path(folder).exists()
    else:
        # Who is killed outright cannot take away what no namespace holds. The next room does; the setting is the test's to put back.
        Path("/proc/sys/kernel/panic").write_text(before[-1])
        subprocess.run(["rm", "-rf", folder], check=True)
        assert start("true").wait(timeout=60) == 0
        assert machine() == before


def test_command_that_is_not_there(rooted):
    room = start("exec /no/such/program")
    assert room.communicate(timeout=60)[0] == "" and room.returncode == 127


@pytest.mark.parametrize(
    ("ci", "code", "says"), [("true", 1, "error: what CI must have"), ("", 0, "SKIPPED: ")], ids=["in CI", "elsewhere"]
)
def test_machine_on_which_no_room_can_be_made(rooted, monkeypatch, ci, code, says):
    """As in a container whose root may make no namespaces: in CI that is a failure and never a pass."""
    monkeypatch.setenv("CI", ci)
    before = machine()
    room = start("echo something was run", "setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")
    told, said = room.communicate(timeout=60)
    assert (room.returncode, told) == (code, ""), said
    assert said.startswith(says) and "Operation not permitted" in said
    assert machine() == before
