"""A node with its cluster for each test."""

import pytest
from tests.unit.controllers.rig import Rig

from longshore.kube.fake import FakeApiServer


@pytest.fixture
def rig(tmp_path):
    with FakeApiServer() as server:
        made = Rig(tmp_path, server)
        try:
            yield made
        finally:
            made.close()
