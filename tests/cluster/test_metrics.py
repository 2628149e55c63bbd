"""What a real agent says of a real S3 server that fails on purpose: its metrics move, while backups go on."""

import contextlib
import urllib.request
from datetime import datetime

import pytest

from tests.cluster.node_rig import AGENT, LEASES, Cluster, credentials_of, fill, location_of, wait_for
from tests.support.fault_proxy import Fault, FaultProxy, share
from tests.support.processes import ReservedPort


@pytest.fixture
def proxy(s3_server):
    with FaultProxy(s3_server.endpoint_url) as made:
        yield made


@pytest.fixture
def site(crds, namespace, s3_server, bucket, proxy, tmp_path):
    """A node whose way to the store leads through the proxy."""
    location = location_of(s3_server, bucket)
    location["config"]["s3Url"] = proxy.endpoint_url
    made = Cluster(crds, namespace, tmp_path / "node", location=location, credentials=credentials_of(s3_server))
    yield made
    made.close()


@pytest.fixture
def port():
    with contextlib.closing(ReservedPort()) as made:
        yield made


def start(site, port):
    """Start an agent whose metrics listen where we know; gives the way to read them."""
    code = AGENT.replace("LEASE_TIMES", LEASES["short"]).replace("127.0.0.1:0", f"127.0.0.1:{port.number}")
    site.agent("-c", code, site.api_server.kubeconfig, site.namespace, site.pods_root, site.cache)

    def scrape():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port.number}/metrics", timeout=10) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return None
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}

    return lambda: wait_for(scrape, seconds=60, what="the agent serves its metrics")


def errors(told):
    head = 'longshore_store_errors_total{kind="'
    return {name.removeprefix(head).partition('"')[0]: value for name, value in told.items() if name.startswith(head)}


def lookups(told, what):
    name = 'longshore_cache_lookups_total{{node="node-1",result="{}",what="{}"}}'
    return told[name.format("hit", what)], told[name.format("miss", what)]


def requests(told, verb):
    return told[f'longshore_store_requests_total{{node="node-1",verb="{verb}"}}']


def test_errors_that_are_ridden_out_and_hits_of_the_cache_are_counted(site, proxy, port):
    uid, path = site.pod("db-0")
    fill(path, seed=31, megabytes=40, files=50)
    scrape = start(site, port)
    first = scrape()
    assert set(errors(first).values()) == {0.0} and requests(first, "list") == 0.0

    site.backup("quiet", "db-0", uid)
    assert site.wait_phase("podvolumebackups", "quiet")["phase"] == "Completed"
    quiet = scrape()
    # Whether something is there is asked before it is made; nothing else went wrong.
    assert {kind for kind, count in errors(quiet).items() if count} <= {"not_found"}
    # Of the others one call may take two requests.
    for verb, http in (("put_new", "PUT"), ("list", "LIST"), ("delete", "DELETE")):
        assert requests(quiet, verb) == proxy.counts[http] > 0, (verb, proxy.counts)
    assert lookups(quiet, "volume") == (0.0, 0.0)

    proxy.plan = share(0.3, [Fault.slow_down(), Fault.reset()], seed=5)
    site.backup("pressed", "db-0", uid, parentSnapshot="none")
    assert site.wait_phase("podvolumebackups", "pressed")["phase"] == "Completed"
    pressed = scrape()
    assert errors(pressed)["unavailable"] >= 3.0, errors(pressed)
    others = {kind: count for kind, count in errors(pressed).items() if kind not in ("unavailable", "not_found")}
    assert set(others.values()) == {0.0}, others
    assert lookups(pressed, "index")[0] >= 1.0, "the second backup has the index in its cache"

    proxy.plan = lambda _request: None
    site.backup("again", "db-0", uid)
    assert site.wait_phase("podvolumebackups", "again")["phase"] == "Completed"
    again = scrape()
    assert errors(again)["unavailable"] == errors(pressed)["unavailable"]
    assert lookups(again, "volume") == (1.0, 0.0)

    proxy.plan = lambda request: Fault.error(403, "AccessDenied") if request.verb == "PUT" else None
    site.backup("denied", "db-0", uid, parentSnapshot="none")
    assert site.wait_phase("podvolumebackups", "denied")["phase"] == "Failed"
    denied = scrape()
    assert errors(denied)["denied"] >= 1.0 and errors(denied)["unavailable"] == errors(again)["unavailable"]


def seconds_of(text):
    return datetime.fromisoformat(text).timestamp()


def test_last_success_and_duration_are_those_of_the_status(site, port):
    """And stay when the next backup fails."""
    uid, path = site.pod("db-0")
    fill(path, seed=33, megabytes=4, files=10)
    scrape = start(site, port)
    labels = f'{{claim="",namespace="{site.namespace}",pod="db-0",volume="data"}}'

    def told(name):
        # The agent's informer may see an object's end a moment after we do.
        return scrape().get(f"longshore_volume_{name}{labels}")

    assert told("last_success_timestamp_seconds") is None
    site.backup("first", "db-0", uid)
    status = site.wait_phase("podvolumebackups", "first")
    assert status["phase"] == "Completed"
    began, ended = seconds_of(status["startTimestamp"]), seconds_of(status["completionTimestamp"])
    wait_for(lambda: told("last_success_timestamp_seconds") == ended, seconds=30, what="the success is told")
    assert told("last_duration_seconds") == ended - began
    assert told("size_bytes") == status["progress"]["totalBytes"] > 4_000_000
    assert told("last_read_bytes") == status["incrementalBytes"]
    assert told("last_backup_failed") == 0.0
    # Under Velero's name how long its job took, without the look around before it.
    gauge = "podVolume_pod_volume_operation_latency_seconds_gauge{"
    (took,) = [value for name, value in scrape().items() if name.startswith(gauge)]
    assert 0.0 < took <= ended - began + 1.0, (took, status)

    site.backup("second", "db-0", uid, backupStorageLocation="nonesuch")
    assert site.wait_phase("podvolumebackups", "second")["phase"] == "Failed"
    wait_for(lambda: told("last_backup_failed") == 1.0, seconds=30, what="the failure is told")
    assert (told("last_success_timestamp_seconds"), told("last_duration_seconds")) == (ended, ended - began)


def test_agent_without_its_cache_misses(site, port):
    """A new agent on an empty cache folder asks the store, and says so."""
    uid, path = site.pod("db-0")
    fill(path, seed=32, megabytes=8, files=20)
    agent = site.agent()
    site.backup("first", "db-0", uid)
    assert site.wait_phase("podvolumebackups", "first")["phase"] == "Completed"
    agent.stop()
    site.cache = site.folder / "another-cache"
    scrape = start(site, port)
    site.backup("second", "db-0", uid)
    assert site.wait_phase("podvolumebackups", "second")["phase"] == "Completed"
    told = scrape()
    assert lookups(told, "volume") == (0.0, 1.0) and lookups(told, "index")[1] >= 1.0
