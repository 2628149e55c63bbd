"""The fake API server does what a real one does; tests/cluster/test_kube.py asks the real one the same."""

from collections.abc import Iterator

import pytest
from tests.unit.kube.conformance import Conformance, Place, install

from longshore.kube.client import KubeClient
from longshore.kube.fake import FakeApiServer
from longshore.kube.resource import NAMESPACES


@pytest.fixture(scope="module")
def server() -> Iterator[FakeApiServer]:
    with FakeApiServer() as running:
        yield running


@pytest.fixture(scope="module")
def client(server: FakeApiServer) -> Iterator[KubeClient]:
    with KubeClient.from_kubeconfig(server.kubeconfig_path) as made:
        install(made)
        yield made


@pytest.fixture
def place(client: KubeClient) -> Place:
    made = client.create(NAMESPACES, {"metadata": {"generateName": "test-"}})
    return Place(client, made["metadata"]["name"])


class TestFake(Conformance):
    """The fake."""
