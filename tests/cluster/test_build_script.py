"""The script that builds the real components, run with a compiler that only pretends: what is tested is what the script promises about
its cache, whatever the compiler does.

The pretended `go` writes down its arguments, and its `build` writes a program that answers a version call; where the environment names a
package in FAIL it fails, and in HANG it sleeps.
"""

import contextlib
import os
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest

_SCRIPT = Path(__file__).resolve().parents[1] / "tools" / "build.sh"
_GO = r"""#!/usr/bin/env bash
echo "$PWD: $*" >>"$CALLS"
case "$1 ${2:-}" in
  "mod init") echo "module $3" >go.mod ;;
  "mod download") printf 'k8s.io/api v0.0.0\n' >kube.mod; echo "\"GoMod\": \"$PWD/kube.mod\"," ;;
esac
[ "$1" = build ] || exit 0
package=${!#}
while [ "$1" != -o ]; do shift; done
[[ -z "${HANG:-}" || "$package" != *"$HANG"* ]] || { echo half >"$2"; echo $$ >"$CALLS.hanging"; sleep 600; }
[[ -z "${FAIL:-}" || "$package" != *"$FAIL"* ]] || { echo "no such module: the reason" >&2; exit 1; }
sleep "${BUILD_SECONDS:-0}"
printf '#!/bin/sh\nexit %s\n' "${ANSWER:-0}" >"$2"
chmod +x "$2"
"""


class Room:
    """A cache folder of its own, and a PATH on which `go` pretends."""

    def __init__(self, folder: Path) -> None:
        self.tools = folder / "tools"
        self.calls = folder / "calls"
        path = folder / "path"
        path.mkdir()
        (path / "go").write_text(_GO)
        (path / "go").chmod(0o755)
        self.env = {"PATH": f"{path}:/usr/bin:/bin", "HOME": str(folder), "CALLS": str(self.calls)}
        self.env["LONGSHORE_TOOLS_DIR"] = str(self.tools)

    def start(self, *names: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", _SCRIPT, *names],
            env={**self.env, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *names: str, **env: str) -> tuple[int, str]:
        process = self.start(*names, **env)
        out, _ = process.communicate(timeout=120)
        return process.returncode, out

    def built(self) -> list[str]:
        return sorted(p.name for p in (self.tools / "bin").iterdir() if not p.is_symlink())

    def builds(self) -> int:
        return sum(": build " in line for line in self.calls.read_text().splitlines())


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def test_what_is_there_is_left_alone(room: Room) -> None:
    code, out = room.run("etcd")
    assert (code, room.builds()) == (0, 1), out
    assert (room.tools / "bin" / "etcd").readlink().name == room.built()[0]
    code, out = room.run("etcd")
    assert (code, room.builds()) == (0, 1), out
    assert "there already" in out


def test_no_name_means_what_make_test_needs(room: Room) -> None:
    code, out = room.run()
    assert code == 0, out
    names = [name.rpartition("-")[0] for name in room.built()]
    assert names == ["etcd", "helm", "kube-apiserver", "kubectl", "promtool", "restic", "velero", "velero", "versitygw"]


def test_set_is_built_by_its_name(room: Room) -> None:
    code, out = room.run("--set", "node", FAIL="cmd/ctr")  # the pretended compiler cannot unpack Debian's packages
    names = {name.rpartition("-")[0] for name in room.built()}
    assert {"kubelet", "kube-controller-manager", "kube-scheduler", "containerd", "containerd-shim-runc-v2"} <= names, (
        out
    )
    assert code == 1 and "ctr-2.2.7" in out.splitlines()[-1]
    assert "etcd" not in names
    code, out = room.run("--set", "nonesuch")
    assert code == 2 and "no such set: nonesuch; known are: extra node test" in out


def test_one_failure_is_named_and_the_others_are_built(room: Room) -> None:
    code, out = room.run("etcd", "restic", "kopia", FAIL="restic")
    assert code == 1
    assert "restic 0.19.1: failed" in out
    assert "no such module: the reason" in out
    assert out.splitlines()[-1] == "not built: restic-0.19.1"
    assert [name.rpartition("-")[0] for name in room.built()] == ["etcd", "kopia"]


def test_program_that_cannot_answer_is_not_installed(room: Room) -> None:
    code, out = room.run("etcd", ANSWER="3")
    assert code == 1, out
    assert room.built() == []
    assert not (room.tools / "bin" / "etcd").exists()


def test_bare_name_and_older_version_of_one_component(room: Room) -> None:
    assert room.run("velero-1.9.3")[0] == 0
    assert room.built() == ["velero-1.9.3"]
    assert not (room.tools / "bin" / "velero").exists()
    assert room.run("velero")[0] == 0
    assert room.built() == ["velero-1.18.2", "velero-1.9.3"]
    assert (room.tools / "bin" / "velero").readlink() == Path("velero-1.18.2")


def test_unknown_name_is_a_usage_error_and_builds_nothing(room: Room) -> None:
    code, out = room.run("etcd", "nonesuch")
    assert code == 2
    assert "no such component: nonesuch" in out
    assert not room.calls.exists()


def test_kubernetes_staging_modules_are_replaced_by_their_release(room: Room) -> None:
    assert room.run("kube-apiserver")[0] == 0
    calls = room.calls.read_text()
    version = room.built()[0].rpartition("-")[2]
    assert f"mod edit -replace=k8s.io/api=k8s.io/api@v0.{version.removeprefix('1.')}" in calls
    assert f"version.gitVersion=v{version} " in calls


def test_two_runs_build_once(room: Room) -> None:
    first, second = (room.start("etcd", BUILD_SECONDS="1") for _ in range(2))
    outs = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outs
    assert room.builds() == 1, outs
    assert "waiting for another build" in "".join(outs)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
def test_signal_ends_the_compiler_and_leaves_no_half_program(room: Room, number: signal.Signals) -> None:
    process = room.start("etcd", HANG="etcd")
    hanging = room.calls.with_suffix(".hanging")
    deadline = time.monotonic() + 60
    while not (hanging.exists() and hanging.read_text().strip()):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    compiler = int(hanging.read_text())
    try:
        process.send_signal(number)
        process.communicate(timeout=60)
        assert process.returncode == 128 + number
        with pytest.raises(ProcessLookupError):
            while time.monotonic() < deadline:
                os.kill(compiler, 0)
                time.sleep(0.05)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(compiler, signal.SIGKILL)
    assert room.built() == []
    code, out = room.run("etcd")  # and the lock is free
    assert code == 0, out
    assert stat.S_IMODE((room.tools / "bin" / room.built()[0]).stat().st_mode) & 0o111
