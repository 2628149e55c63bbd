"""Cancelling and deleting while a real agent is at work against a real store that is slow: the job ends, nothing comes of it, and the agent goes on.

The store is so slow that the job would have most of a minute to go; what is under way to it when the request comes may still arrive.
"""

import contextlib
import os
import random
import urllib.request

import pytest

from tests.cluster.node_rig import (
    AGENT,
    LEASES,
    Cluster,
    credentials_of,
    fill,
    location_of,
    tree,
    visible_snapshots,
    wait_for,
)
from tests.support.fault_proxy import FaultProxy
from tests.support.processes import ReservedPort

SLOW_BYTES_PER_SECOND = 4 << 20
LARGE_BYTES = 160 << 20


class Site:
    """A node whose store is behind a proxy, with a volume that is backed up once by `begin`, and an agent whose metrics can be read."""

    def __init__(self, cluster, proxy, port, *, store_url):
        self.cluster, self.proxy, self._port, self._store_url = cluster, proxy, port, store_url
        code = AGENT.replace("LEASE_TIMES", LEASES["short"]).replace("127.0.0.1:0", f"127.0.0.1:{port.number}")
        cluster.agent("-c", code, cluster.api_server.kubeconfig, cluster.namespace, cluster.pods_root, cluster.cache)
        self.uid, self.path = cluster.pod("db-0")
        fill(self.path, seed=41, megabytes=8, files=40)

    def grow(self):
        (self.path / "large").write_bytes(random.Random(42).randbytes(LARGE_BYTES))

    def begin(self):
        self.cluster.backup("before", "db-0", self.uid)
        status = self.cluster.wait_phase("podvolumebackups", "before")
        assert status["phase"] == "Completed", (status, self.cluster.logs())
        self.proxy.forget()
        self.proxy.bytes_per_second = SLOW_BYTES_PER_SECOND
        return status["snapshotID"]

    def request_end(self, plural, name, how):
        where = ("velero.io", "v1", self.cluster.namespace, plural, name)
        if how == "cancelled":
            self.cluster.custom.patch_namespaced_custom_object(*where, {"spec": {"cancel": True}})
            status = self.cluster.wait_phase(plural, name)
            assert status["phase"] == "Canceled" and status["completionTimestamp"], (status, self.cluster.logs())
            assert "snapshotID" not in status, status
        else:
            self.cluster.custom.delete_namespaced_custom_object(*where)
            found = self.cluster.custom.list_namespaced_custom_object(*where[:-1])["items"]
            assert name not in {one["metadata"]["name"] for one in found}
        wait_for(lambda: self.jobs() == 0.0, seconds=60, what="the job has ended")

    def snapshots(self):
        return [one["pvb"] for one in visible_snapshots(self.cluster, endpoint_url=self._store_url)]

    def jobs(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port.number}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("longshore_jobs_running{"))


@pytest.fixture
def site(crds, namespace, s3_server, bucket, tmp_path):
    with FaultProxy(s3_server.endpoint_url) as proxy, contextlib.closing(ReservedPort()) as port:
        location = location_of(s3_server, bucket)
        location["config"]["s3Url"] = proxy.endpoint_url
        cluster = Cluster(crds, namespace, tmp_path / "node", location=location, credentials=credentials_of(s3_server))
        with contextlib.closing(cluster):
            yield Site(cluster, proxy, port, store_url=s3_server.endpoint_url)


@pytest.mark.parametrize("how", ["cancelled", "deleted"])
def test_backup_is_ended_in_the_middle(site, how):
    cluster, proxy = site.cluster, site.proxy
    site.begin()
    site.grow()
    cluster.backup("out", "db-0", site.uid)
    wait_for(lambda: proxy.body_bytes["PUT"] > 1 << 20, seconds=120, what="a part is under way to the store")
    assert cluster.status("podvolumebackups", "out")["phase"] == "InProgress" and site.jobs() == 1.0
    site.request_end("podvolumebackups", "out", how)
    assert proxy.body_bytes["PUT"] < LARGE_BYTES
    assert site.snapshots() == ["before"]
    proxy.bytes_per_second = 0
    cluster.backup("following", "db-0", site.uid)
    status = cluster.wait_phase("podvolumebackups", "following")
    assert status["phase"] == "Completed", (status, cluster.logs())
    assert site.snapshots() == ["before", "following"]


@pytest.mark.parametrize("how", ["cancelled", "deleted"])
def test_restore_is_ended_in_the_middle(site, how):
    cluster, proxy = site.cluster, site.proxy
    site.grow()
    expected = tree(site.path)
    snapshot = site.begin()
    back, target = cluster.pod("back-0", waits=True, user=os.geteuid())
    cluster.restore("in", "back-0", back, snapshot)
    wait_for(lambda: proxy.body_bytes["GET"] > 1 << 20, seconds=120, what="a part has come from the store")
    assert cluster.status("podvolumerestores", "in")["phase"] == "InProgress" and site.jobs() == 1.0
    site.request_end("podvolumerestores", "in", how)
    assert proxy.body_bytes["GET"] < LARGE_BYTES
    assert not (target / ".velero").exists(), "a volume that is not whole lets no pod go"
    assert site.snapshots() == ["before"]
    proxy.bytes_per_second = 0
    again, target = cluster.pod("back-1", waits=True, user=os.geteuid())
    cluster.restore("again", "back-1", again, snapshot)
    status = cluster.wait_phase("podvolumerestores", "again")
    assert status["phase"] == "Completed" and tree(target) == expected, (status, cluster.logs())
