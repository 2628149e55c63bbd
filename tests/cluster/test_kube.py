"""A real kube-apiserver does what the fake one is said to do; the statements stand in tests/unit/kube/conformance.py."""

from collections.abc import Iterator

import pytest

from longshore.kube.client import KubeClient
from longshore.kube.resource import NAMESPACES
from tests.support.api_server import ApiServer
from tests.unit.kube.conformance import Conformance, Place, install


@pytest.fixture(scope="module")
def client(api_server: ApiServer) -> Iterator[KubeClient]:
    with KubeClient.from_kubeconfig(api_server.kubeconfig) as made:
        install(made)
        yield made


@pytest.fixture
def place(client: KubeClient) -> Place:
    made = client.create(NAMESPACES, {"metadata": {"generateName": "test-"}})
    return Place(client, made["metadata"]["name"])


class TestReal(Conformance):
    """The real one."""
