"""Running jobs, the queue before them and the cache, as Prometheus sees them."""

import threading

from prometheus_client import CollectorRegistry, generate_latest
from tests.unit.controllers.fake_datapath import FakeProgress, wait_for

from longshore.controllers.job_metrics import JobMetrics
from longshore.controllers.tasks import Tasks
from longshore.kube.fake.clock import ManualClock


class Held:
    """A job that goes on until the test says so."""

    def __init__(self):
        self.go = threading.Event()
        self.counters = FakeProgress(files_total=4, files_done=1, bytes_total=100, bytes_done=30)

    def progress(self):
        return self.counters

    def cancel(self):
        self.go.set()

    def wait(self, timeout_seconds):
        return self.go.wait(timeout_seconds)

    def result(self):
        return "done"


def told(registry):
    lines = generate_latest(registry).decode().splitlines()
    return dict(line.rpartition(" ")[::2] for line in lines if not line.startswith("#"))


def test_running_jobs_the_queue_and_the_cache(tmp_path):
    clock, registry = ManualClock(), CollectorRegistry()
    tasks, job = Tasks(concurrency=1, clock=clock), Held()
    registry.register(JobMetrics(tasks, node="n", cache_dir=tmp_path / "cache", clock=clock))
    assert told(registry) == {'longshore_jobs_waiting{node="n"}': "0.0"} | {
        f'longshore_cache_{what}{{node="n"}}': "0.0" for what in ("bytes", "files")
    }
    (tmp_path / "cache" / "deep").mkdir(parents=True)
    (tmp_path / "cache" / "deep" / "segment").write_bytes(b"x" * 10_000)
    slot = tasks.reserve("PodVolumeBackup", "velero/b-1", wake=lambda: None)
    task = slot.start(uid="u", work=lambda task: task.run(lambda: job), on_end=lambda: None)
    wait_for(lambda: task.progress() is not None)
    assert tasks.reserve("PodVolumeRestore", "velero/r-1", wake=lambda: None) is None
    clock.advance(59)
    found = told(registry)
    labels = '{kind="PodVolumeBackup",name="b-1",node="n"}'
    assert found[f"longshore_job_bytes_done{labels}"] == "30.0" and found[f"longshore_job_files_total{labels}"] == "4.0"
    assert found[f"longshore_job_seconds{labels}"] == "59.0" and found['longshore_jobs_waiting{node="n"}'] == "1.0"
    # The folder was walked less than a minute ago.
    assert found['longshore_cache_files{node="n"}'] == "0.0"
    clock.advance(1)
    job.counters.bytes_done = 90
    found = told(registry)
    assert found[f"longshore_job_bytes_done{labels}"] == "90.0"
    assert (
        found['longshore_cache_files{node="n"}'] == "1.0" and float(found['longshore_cache_bytes{node="n"}']) >= 10_000
    )
    job.go.set()
    assert task.wait(20)
    assert not [name for name in told(registry) if "b-1" in name]
