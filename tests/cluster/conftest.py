"""The real components as fixtures: one of each for a whole session, and so one for each worker of pytest-xdist.

Promises: a component that is not built is a failure where `CI` is `true`, and elsewhere a skip that says why and how to build it; one that
is built and does not start is a failure everywhere. Tests share the servers, so each makes its own namespace and bucket (fixtures
`namespace`, `bucket`). A test that stops or restarts a server starts one of its own (`own_api_server`, `own_s3_server`).

Does not know: longshore.
"""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from kubernetes import client

from tests.cluster import node_rig
from tests.support.components import ApiServer, ComponentMissingError, S3Server, interrupt_on_sigterm, require_tool
from tests.support.lacking import lacks


def require(start: Callable[[], object]) -> None:
    try:
        start()
    except ComponentMissingError as err:
        lacks(str(err))


_Server = TypeVar("_Server", ApiServer, S3Server)


def running(server: _Server) -> Iterator[_Server]:
    try:
        require(server.start)
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session", autouse=True)
def _sigterm_ends_servers() -> None:
    interrupt_on_sigterm()


@pytest.fixture(scope="session")
def api_server() -> Iterator[ApiServer]:
    """Run a kube-apiserver with etcd for the session."""
    yield from running(ApiServer())


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """Run an S3 server for the session."""
    yield from running(S3Server())


@pytest.fixture
def own_api_server() -> Iterator[ApiServer]:
    """Run a kube-apiserver with an empty etcd for one test, which may stop and restart it."""
    yield from running(ApiServer())


@pytest.fixture
def own_s3_server() -> Iterator[S3Server]:
    """Run an empty S3 server for one test, which may stop and restart it."""
    yield from running(S3Server())


@pytest.fixture(scope="session")
def api_client(api_server: ApiServer) -> Iterator[Any]:
    """Give the official client, as administrator of `api_server`."""
    with api_server.client() as made:
        yield made


@pytest.fixture
def kubectl(api_server: ApiServer) -> Callable[..., str]:
    """Give `ApiServer.kubectl`, where the program is built."""
    require(lambda: require_tool("kubectl"))
    return api_server.kubectl


@pytest.fixture
def namespace(api_client: Any) -> str:
    """Make a namespace for one test. It stays: without a controller manager none is ever gone."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    core: Any = client.CoreV1Api(api_client)
    core.create_namespace({"metadata": {"name": name}})
    return name


@pytest.fixture
def bucket(s3_server: S3Server) -> str:
    """Make an empty bucket for one test."""
    return s3_server.bucket(f"test-{uuid.uuid4().hex[:12]}")


@pytest.fixture
def crds(api_server: ApiServer, kubectl: Callable[..., str]) -> ApiServer:
    """Give the session's API server with our custom resource definitions."""
    kubectl("apply", "--server-side", "-f", str(node_rig.ROOT / "daemonset" / "crds"))
    return api_server


@pytest.fixture
def cluster(
    crds: ApiServer, namespace: str, s3_server: S3Server, bucket: str, tmp_path: Path
) -> Iterator[node_rig.Cluster]:
    """Give a node with a location in the S3 server."""
    made = node_rig.Cluster(
        crds,
        namespace,
        tmp_path / "node",
        location=node_rig.location_of(s3_server, bucket),
        credentials=node_rig.credentials_of(s3_server),
    )
    yield made
    made.close()
