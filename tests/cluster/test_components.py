"""The real components are real, and the harness that starts them keeps its promises.

What later tests lean on is pinned here once: the server's version, watches, RBAC, create-only writes under contention, data that outlives
a restart, and that no process outlives the run.
"""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from kubernetes import client, watch

from tests.support import tools
from tests.support.components import (
    ApiServer,
    ComponentFailedError,
    ComponentMissingError,
    S3Server,
    find_tool,
    require_tool,
)
from tests.support.processes import ChildProcess, ReservedPort

_ROOT = Path(__file__).resolve().parents[2]
_WRITERS = 8


def _pinned(name: str) -> str:
    return next(v for n, v in tools.pinned_versions() if n == name)


def _status(call: Callable[..., Any], *args: Any) -> int:
    """Call the official client and tell the HTTP status."""
    try:
        call(*args)
    except client.ApiException as err:
        return int(err.status)
    return 200


# --- kube-apiserver ---


def test_api_server_answers_its_pinned_version(api_client: Any) -> None:
    assert client.VersionApi(api_client).get_code().git_version == f"v{_pinned('kube-apiserver')}"


def test_config_map_is_created_patched_and_watched(api_client: Any, namespace: str) -> None:
    core: Any = client.CoreV1Api(api_client)
    made = core.create_namespaced_config_map(namespace, {"metadata": {"name": "note"}, "data": {"colour": "red"}})
    core.patch_namespaced_config_map("note", namespace, {"data": {"colour": "blue", "size": "1"}})
    core.patch_namespaced_config_map("note", namespace, {"data": {"size": None}})  # merge patch: null removes
    core.delete_namespaced_config_map("note", namespace)

    seen = []
    watcher: Any = watch.Watch  # untyped in the client
    stream = watcher().stream(
        core.list_namespaced_config_map,
        namespace,
        resource_version=made.metadata.resource_version,
        timeout_seconds=30,
        field_selector="metadata.name=note",
    )
    for event in stream:
        seen.append((event["type"], event["object"].data))
        if event["type"] == "DELETED":
            break
    assert seen == [
        ("MODIFIED", {"colour": "blue", "size": "1"}),
        ("MODIFIED", {"colour": "blue"}),
        ("DELETED", {"colour": "blue"}),
    ]


def test_stale_write_conflicts(api_client: Any, namespace: str) -> None:
    core: Any = client.CoreV1Api(api_client)
    stale = core.create_namespaced_config_map(namespace, {"metadata": {"name": "note"}})
    core.patch_namespaced_config_map("note", namespace, {"data": {"a": "1"}})
    stale.data = {"a": "2"}
    assert _status(core.replace_namespaced_config_map, "note", namespace, stale) == 409


def test_rbac_decides(api_server: ApiServer, api_client: Any, namespace: str) -> None:
    path = api_server.issue_kubeconfig(f"reader-{namespace}")
    with api_server.client(path) as reader_client:
        reader = client.CoreV1Api(reader_client)
        assert _status(reader.list_namespaced_config_map, namespace) == 403

        rbac: Any = client.RbacAuthorizationV1Api(api_client)
        rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]
        rbac.create_namespaced_role(namespace, {"metadata": {"name": "reader"}, "rules": rules})
        rbac.create_namespaced_role_binding(
            namespace,
            {
                "metadata": {"name": "reader"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": f"reader-{namespace}"}],
            },
        )
        # The authorizer reads roles from a watch, so the grant holds a moment later.
        deadline = time.monotonic() + 30
        while (status := _status(reader.list_namespaced_config_map, namespace)) == 403 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert status == 200
        assert _status(reader.list_namespaced_secret, namespace) == 403


def test_kubectl_applies_server_side(kubectl: Callable[..., str], namespace: str) -> None:
    manifest = '{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"k": "v"}}'
    kubectl("apply", "--server-side", "-n", namespace, "-f", "-", stdin=manifest)
    assert kubectl("get", "configmap", "applied", "-n", namespace, "-o", "jsonpath={.data.k}") == "v"
    with pytest.raises(AssertionError, match="not found"):
        kubectl("get", "configmap", "absent", "-n", namespace)


@pytest.mark.parametrize("crash", [False, True], ids=["graceful", "crash"])
def test_api_server_keeps_data_and_address_over_a_restart(own_api_server: ApiServer, crash: bool) -> None:
    def core() -> Any:
        return client.CoreV1Api(own_api_server.client())

    made = core().create_namespaced_config_map("default", {"metadata": {"name": "kept"}, "data": {"k": "v"}})
    own_api_server.stop_apiserver(crash=crash)
    with pytest.raises(OSError, match="refused"):
        http.client.HTTPSConnection(own_api_server.url.removeprefix("https://"), timeout=5).connect()
    own_api_server.start_apiserver()
    kept = core().read_namespaced_config_map("kept", "default")
    assert kept.data == {"k": "v"}
    assert kept.metadata.resource_version == made.metadata.resource_version


# --- S3 ---


def test_object_makes_the_round_trip(s3_server: S3Server, bucket: str) -> None:
    s3 = s3_server.client()
    body = os.urandom(300_000)
    s3.put_object(Bucket=bucket, Key="a/b/object", Body=body)
    assert s3.get_object(Bucket=bucket, Key="a/b/object")["Body"].read() == body
    part = s3.get_object(Bucket=bucket, Key="a/b/object", Range="bytes=1000-1999")
    assert part["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert part["Body"].read() == body[1000:2000]
    assert [o["Key"] for o in s3.list_objects_v2(Bucket=bucket, Prefix="a/")["Contents"]] == ["a/b/object"]
    s3.delete_object(Bucket=bucket, Key="a/b/object")
    with pytest.raises(s3.exceptions.NoSuchKey):
        s3.get_object(Bucket=bucket, Key="a/b/object")


def test_damaged_file_is_served_as_it_is(s3_server: S3Server, bucket: str) -> None:
    s3 = s3_server.client(response_checksum_validation="when_required")
    s3.put_object(Bucket=bucket, Key="a/object", Body=b"sound bytes")
    path = s3_server.object_path(bucket, "a/object")
    assert path.read_bytes() == b"sound bytes"
    path.write_bytes(b"Sound bytes")
    assert s3.get_object(Bucket=bucket, Key="a/object")["Body"].read() == b"Sound bytes"


def test_create_only_put_is_refused_when_the_object_is_there(s3_server: S3Server, bucket: str) -> None:
    s3 = s3_server.client()
    s3.put_object(Bucket=bucket, Key="once", Body=b"first", IfNoneMatch="*")
    with pytest.raises(ClientError) as refused:
        s3.put_object(Bucket=bucket, Key="once", Body=b"second", IfNoneMatch="*")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    assert s3.get_object(Bucket=bucket, Key="once")["Body"].read() == b"first"


def test_one_of_many_create_only_puts_wins(s3_server: S3Server, bucket: str) -> None:
    clients = [s3_server.client(retries={"total_max_attempts": 1}) for _ in range(_WRITERS)]
    for race in range(20):
        key = f"race/{race}"
        start = threading.Barrier(_WRITERS)

        def put(writer: int, *, key: str = key, start: threading.Barrier = start) -> int:
            start.wait()
            try:
                clients[writer].put_object(Bucket=bucket, Key=key, Body=b"%d" % writer * 50_000, IfNoneMatch="*")
            except ClientError as err:
                return int(err.response["ResponseMetadata"]["HTTPStatusCode"])
            return 200

        with ThreadPoolExecutor(_WRITERS) as pool:
            statuses = list(pool.map(put, range(_WRITERS)))
        assert sorted(statuses) == [200] + [412] * (_WRITERS - 1)
        winner = statuses.index(200)
        assert clients[0].get_object(Bucket=bucket, Key=key)["Body"].read() == b"%d" % winner * 50_000


@pytest.mark.parametrize("crash", [False, True], ids=["graceful", "crash"])
def test_s3_server_keeps_data_and_address_over_a_restart(own_s3_server: S3Server, crash: bool) -> None:
    bucket = own_s3_server.bucket("kept")
    own_s3_server.client().put_object(Bucket=bucket, Key="object", Body=b"bytes")
    own_s3_server.restart(crash=crash)
    assert own_s3_server.bucket("kept") == bucket
    assert own_s3_server.client().get_object(Bucket=bucket, Key="object")["Body"].read() == b"bytes"


def test_wrong_secret_is_refused(s3_server: S3Server, bucket: str) -> None:
    s3 = s3_server.client()
    s3._request_signer._credentials.secret_key = "wrong"
    with pytest.raises(ClientError) as refused:
        s3.list_objects_v2(Bucket=bucket)
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


# --- the harness ---


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def _gone(pid: int, *, within_seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + within_seconds
    while _alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda s: s.name)
def test_no_process_outlives_its_starter(s3_server: S3Server, tmp_path: Path, number: signal.Signals) -> None:
    del s3_server  # only for its skip when the program is not built
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from tests.support.components import S3Server, interrupt_on_sigterm\n"
        "interrupt_on_sigterm()\n"
        "with S3Server() as s3:\n"
        "    print(s3._child.pid, s3.folder, flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as starter:
        assert starter.stdout is not None
        pid, folder = starter.stdout.readline().split()
        assert _alive(int(pid))
        starter.send_signal(number)
        starter.wait(30)
    try:
        assert _gone(int(pid))
        if number != signal.SIGKILL:  # nothing can clean up after that one but the kernel
            assert not Path(folder).exists()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
        if number == signal.SIGKILL:
            subprocess.run(["rm", "-rf", folder], check=True)


def test_child_that_dies_is_reported_with_its_log(tmp_path: Path) -> None:
    child = ChildProcess("doomed", ["/bin/sh", "-c", "echo the reason; exit 7"], log_path=tmp_path / "log")
    with child, pytest.raises(ComponentFailedError, match=r"(?s)doomed ended: exit_code=7, .*the reason"):
        child.wait_ready(lambda: "not yet", timeout_seconds=30)


def test_child_that_never_gets_ready_is_reported(tmp_path: Path) -> None:
    child = ChildProcess("slow", ["/bin/sh", "-c", "echo thinking; sleep 600"], log_path=tmp_path / "log")
    with child, pytest.raises(ComponentFailedError, match=r"(?s)slow is not ready after 0.3 s: no answer.*thinking"):
        child.wait_ready(lambda: "no answer", timeout_seconds=0.3)
    assert _gone(child.pid)


@pytest.mark.parametrize("grace_seconds", [0, 30], ids=["kill", "terminate"])
def test_stop_ends_the_whole_group(tmp_path: Path, grace_seconds: float) -> None:
    script = (
        "trap '' TERM; sleep 600 & echo $!; trap 'exit 0' TERM; wait"  # the grandchild ignores SIGTERM, the child obeys
    )
    child = ChildProcess("family", ["/bin/sh", "-c", script], log_path=tmp_path / "log")
    with child:
        child.wait_ready(lambda: None if (tmp_path / "log").read_text().strip() else "no pid", timeout_seconds=30)
        grandchild = int((tmp_path / "log").read_text())
        assert _alive(grandchild)
        child.stop(grace_seconds=grace_seconds)
    assert _gone(grandchild)


def test_child_is_not_started_outside_the_main_thread(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(ChildProcess, "orphan", ["/bin/sleep", "600"], log_path=tmp_path / "log")
    with pytest.raises(RuntimeError, match="main thread"):
        started.result()


@pytest.mark.parametrize(("ci", "outcome"), [("true", "1 error"), ("", "1 skipped")])
def test_component_that_cannot_be_had_is_skipped_but_fails_in_ci(tmp_path: Path, ci: str, outcome: str) -> None:
    one = f"{__file__}::test_wrong_secret_is_refused"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-ra", one],
        cwd=_ROOT,
        env={**os.environ, "LONGSHORE_TOOLS_DIR": str(tmp_path), "CI": ci},
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome in done.stdout.splitlines()[-1]
    assert "versitygw is not built, run `make tools`" in done.stdout
    assert done.returncode == (1 if ci else 0)


def test_reserved_port_is_given_to_nobody_else_but_can_be_listened_on() -> None:
    ports = [ReservedPort() for _ in range(200)]
    try:
        assert len({p.number for p in ports}) == len(ports)
        server = socket.create_server(("127.0.0.1", ports[0].number))  # sets SO_REUSEADDR, as Go does
        server.close()
    finally:
        for port in ports:
            port.close()


def test_missing_tool_says_how_to_build_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGSHORE_TOOLS_DIR", str(tmp_path))
    assert find_tool("etcd") is None
    with pytest.raises(ComponentMissingError, match=r"etcd is not built, run `make tools`.*build\.sh etcd"):
        require_tool("etcd")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "velero-1.9.3").write_text("")
    assert find_tool("velero", version="1.9.3") is None  # there, but not executable
    (tmp_path / "bin" / "velero-1.9.3").chmod(0o755)
    assert find_tool("velero", version="1.9.3") == tmp_path / "bin" / "velero-1.9.3"
    assert find_tool("velero") is None  # the bare name means the first row
    with pytest.raises(ValueError, match="no such component"):
        find_tool("velero", version="0.1.0")
