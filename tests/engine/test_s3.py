"""Repositories in a bucket of a real S3 server: made, filled, read back; credentials that change, servers that stop."""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from longshore import datapath
from longshore.errors import RepositoryExistsError, RepositoryNotFoundError, StoreDeniedError
from tests.engine.conftest import assert_same, done
from tests.support.components import ComponentMissingError, S3Server
from tests.support.lacking import lacks


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    own = S3Server()
    try:
        try:
            own.start()
        except ComponentMissingError as err:
            lacks(str(err))
        yield own
    finally:
        own.stop()


@pytest.fixture
def bucket(server: S3Server, request: pytest.FixtureRequest) -> datapath.S3Store:
    name = server.bucket(f"b{abs(hash(request.node.name)) % 10**9}")
    store = datapath.store_from_url(f"s3://{name}/some/prefix", environ=server.environment())
    assert isinstance(store, datapath.S3Store)
    return store


def test_out_and_back(bucket: datapath.S3Store, small: Path, tmp_path: Path) -> None:
    key = datapath.Key.generate()
    assert not datapath.exists(bucket)
    with pytest.raises(RepositoryNotFoundError):
        datapath.open(bucket, key)
    (small / "large").write_bytes(os.urandom(40 << 20))
    repository = datapath.init(bucket, key)
    with pytest.raises(RepositoryExistsError):
        datapath.init(bucket, key)
    first = done(repository.backup(datapath.BackupOptions(str(small), source="v")))
    assert first.exit_code == 0
    assert done(repository.backup(datapath.BackupOptions(str(small), source="v"))).bytes_read == 0
    opened = datapath.open(bucket, key, cache_dir=tmp_path / "cache")
    assert done(opened.check(read_data=True)).exit_code == 0
    result = done(opened.restore(datapath.RestoreOptions(opened.find("latest").id, target=str(tmp_path / "out"))))
    assert result.exit_code == 0
    assert_same(small, tmp_path / "out")


def test_wrong_credentials_are_refused_until_they_are_renewed(bucket: datapath.S3Store, small: Path) -> None:
    key = datapath.Key.generate()
    repository = datapath.init(bucket, key)
    assert bucket.credentials is not None
    wrong = replace(bucket.credentials, secret_key="wrong")
    with pytest.raises(StoreDeniedError) as caught:
        datapath.open(replace(bucket, credentials=wrong), key)
    assert "wrong" not in caught.value.message.split()
    with pytest.raises(StoreDeniedError):
        datapath.exists(replace(bucket, credentials=None))
    repository.set_credentials(wrong)
    with pytest.raises(StoreDeniedError):
        repository.snapshots()
    repository.set_credentials(bucket.credentials)
    assert done(repository.backup(datapath.BackupOptions(str(small), source="v"))).exit_code == 0


def test_a_backup_rides_out_a_server_that_stops(bucket: datapath.S3Store, server: S3Server, tmp_path: Path) -> None:
    (tmp_path / "large").mkdir()
    for number in range(12):
        (tmp_path / "large" / f"f{number}").write_bytes(os.urandom(8 << 20))
    repository = datapath.init(bucket, datapath.Key.generate())
    job = repository.backup(
        datapath.BackupOptions(str(tmp_path / "large"), source="v", workers=1, memory_limit_bytes=64 << 20)
    )
    while not job.progress().bytes_moved:
        assert not job.wait(0.002)
    server.halt(crash=True)
    assert not job.wait(1.0)
    server.restart()
    result = done(job)
    assert (result.exit_code, result.bytes_total) == (0, 96 << 20)
    assert done(repository.verify(str(result.snapshot_id))).exit_code == 0


def test_a_job_that_waits_for_a_dead_server_can_be_cancelled(
    server: S3Server, bucket: datapath.S3Store, small: Path
) -> None:
    repository = datapath.init(bucket, datapath.Key.generate())
    server.halt(crash=True)
    try:
        job = repository.backup(datapath.BackupOptions(str(small), source="v"))
        assert not job.wait(1.5)
        job.cancel()
        began = time.monotonic()
        assert job.wait(30)
        assert time.monotonic() - began < 20, "cancelling waited for the retries' budget"
        assert job.progress().stage == "finished"
    finally:
        server.restart()
