"""A repository in a bucket of a real S3 server, through the data path: what works, and what becomes of it when server or line misbehave.

The server is real; between it and us stands, where a test needs one, a proxy that lies by plan. Packs are kept at 4 MiB by the least memory that
the engine takes, so that small volumes make many requests. What is claimed of the store is read from the server's own folder.

Over 500 lines because all cases share one server, one proxy and the helpers that count its requests.
"""

import io
import os
import random
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from longshore import datapath, logs
from longshore.errors import (
    CorruptError,
    LongshoreError,
    RepositoryExistsError,
    RepositoryNotFoundError,
    SnapshotNotFoundError,
    StoreDeniedError,
    UsageError,
    WrongKeyError,
)
from tests.oracle.compare import compare
from tests.oracle.make_tree import make_tree, remove_tree
from tests.support.components import S3Server
from tests.support.fault_proxy import Fault, FaultProxy, Request, nth, share

PATIENCE_SECONDS = 180
SMALL_MEMORY_BYTES = 64 << 20
PACK_BYTES = 4 << 20


@dataclass
class Place:
    """A prefix of a bucket, the way to it, and the key of the repository there."""

    server: S3Server
    proxy: FaultProxy
    bucket: str
    key: datapath.Key
    prefix: str = "repository"

    def store(self, **changes: Any) -> datapath.S3Store:
        return datapath.S3Store(
            self.bucket,
            self.prefix,
            **{
                "region": self.server.region,
                "endpoint_url": self.proxy.endpoint_url,
                "force_path_style": True,
                "allow_http": True,
                "credentials": datapath.Credentials(self.server.access_key, self.server.secret_key),
                **changes,
            },
        )

    def init(self) -> datapath.Repository:
        return datapath.init(self.store(), self.key)

    def open(self, **changes: Any) -> datapath.Repository:
        return datapath.open(self.store(**changes), self.key)

    @property
    def folder(self) -> Path:
        return self.server.object_path(self.bucket, self.prefix)

    def objects(self) -> dict[str, bytes]:
        """What the server holds under the prefix."""
        return {str(p.relative_to(self.folder)): p.read_bytes() for p in sorted(self.folder.rglob("*")) if p.is_file()}


def done(job: datapath.Job[Any]) -> Any:
    assert job.wait(PATIENCE_SECONDS), f"job does not end: {job.progress()}"
    return job.result()


def start(repository: datapath.Repository, path: Path, **options: Any) -> datapath.Job[datapath.BackupResult]:
    options = {"source": "volume", "memory_limit_bytes": SMALL_MEMORY_BYTES, **options}
    return repository.backup(datapath.BackupOptions(str(path), **options))


def backup(repository: datapath.Repository, path: Path, **options: Any) -> datapath.BackupResult:
    result = done(start(repository, path, **options))
    assert result.exit_code == 0
    return result  # type: ignore[no-any-return]


def restore(repository: datapath.Repository, snapshot_id: str | None, target: Path) -> datapath.RestoreResult:
    options = datapath.RestoreOptions(
        snapshot_id or "latest", target=str(target), memory_limit_bytes=SMALL_MEMORY_BYTES
    )
    return done(repository.restore(options.trusting()))  # type: ignore[no-any-return]


def assert_restores(repository: datapath.Repository, snapshot_id: str | None, volume: Path, target: Path) -> None:
    assert restore(repository, snapshot_id, target).exit_code == 0
    differences = compare(volume, target)
    assert not differences, "\n".join(map(str, differences[:20]))
    shutil.rmtree(target)


def assert_sound(repository: datapath.Repository) -> None:
    found = done(repository.check(read_data=True))
    assert (found.exit_code, found.errors) == (0, 0), found.findings


def fill(root: Path, *, files: int, file_bytes: int, seed: int) -> Path:
    """Files that do not compress, and differ from those of any other seed; old enough to be believed unchanged."""
    root.mkdir(exist_ok=True)
    chance = random.Random(seed)
    for number in range(files):
        path = root / f"f{number}"
        path.write_bytes(chance.randbytes(file_bytes))
        os.utime(path, ns=(1_600_000_000_000_000_000 + seed, 1_600_000_000_000_000_000 + seed))
    return root


def until(what: str, condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(s3_server.endpoint_url) as made:
        yield made


@pytest.fixture
def place(s3_server: S3Server, proxy: FaultProxy, bucket: str) -> Place:
    return Place(s3_server, proxy, bucket, datapath.Key.generate())


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A volume of 24 MB, six packs."""
    return fill(tmp_path / "volume", files=24, file_bytes=1_000_000, seed=1)


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """A volume of 10 kB in three files."""
    return fill(tmp_path / "volume", files=3, file_bytes=3_333, seed=1)


# --- what works ---


def test_a_volume_goes_out_and_comes_back(place: Place, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    make_tree(volume, depth=100, large_bytes=6_000_000)
    try:
        assert not datapath.exists(place.store())
        repository = place.init()
        assert datapath.exists(place.store())
        first = backup(repository, volume)
        assert first.bytes_read > 6_000_000
        second = backup(place.open(), volume)
        assert (second.parent_id, second.bytes_read, second.files_changed) == (first.snapshot_id, 0, 0)
        assert [s.id for s in repository.snapshots().rows] == [first.snapshot_id, second.snapshot_id]
        assert repository.find("latest").id == second.snapshot_id
        assert {b"one-byte", b"files"} <= {entry.path for entry in repository.entries(str(second.snapshot_id)).rows}
        for result in (first, second):
            restored = restore(repository, result.snapshot_id, tmp_path / "target")
            assert (restored.exit_code, compare(volume, tmp_path / "target")) == (0, [])
            remove_tree(tmp_path / "target")
        assert done(repository.verify(str(first.snapshot_id))).exit_code == 0
        repository.remove(str(first.snapshot_id), by="test")
        assert [s.id for s in repository.snapshots().rows] == [second.snapshot_id]
        with pytest.raises(SnapshotNotFoundError):
            repository.find(str(first.snapshot_id))
        assert_sound(repository)
        assert not [key for key in place.objects() if key.startswith("sessions/")], "markers are left"
    finally:
        remove_tree(volume)


def test_two_processes_back_up_at_once(place: Place, tmp_path: Path) -> None:
    repository = place.init()
    common = fill(tmp_path / "common", files=8, file_bytes=1_000_000, seed=7)
    volumes = [fill(tmp_path / name, files=8, file_bytes=1_000_000, seed=seed) for seed, name in enumerate("ab")]
    for volume in volumes:
        shutil.copytree(common, volume / "common")
    (tmp_path / "key").write_text(place.key.to_file_text())
    program = (
        "import sys; from longshore import datapath as d; import os\n"
        "store = d.store_from_url(sys.argv[1], environ=os.environ); repository = d.open(store, d.Key.from_file(sys.argv[2]))\n"
        "print(flush=True); sys.stdin.readline()\n"
        f"options = d.BackupOptions(sys.argv[3], source=sys.argv[3], memory_limit_bytes={SMALL_MEMORY_BYTES})\n"
        "result = repository.backup(options).result(); print(result.snapshot_id, result.exit_code)"
    )
    place.proxy.bytes_per_second = 10_000_000  # so that both are at it for seconds
    env = os.environ | place.server.environment() | {"AWS_ENDPOINT_URL": place.proxy.endpoint_url}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", program, place.store().url, str(tmp_path / "key"), str(volume)],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for volume in volumes
    ]
    try:
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()
        markers = place.folder / "sessions"
        until("they never ran at once", lambda: markers.is_dir() and len(list(markers.iterdir())) == 2)
        ended = [child.communicate(timeout=PATIENCE_SECONDS)[0].split() for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait()
    place.proxy.bytes_per_second = 0
    assert [code for _, code in ended] == ["0", "0"]
    for volume, (snapshot_id, _) in zip(volumes, ended, strict=True):
        assert_restores(repository, snapshot_id, volume, tmp_path / "target")
    assert_sound(repository)


def test_repositories_in_one_bucket_do_not_see_one_another(place: Place, few: Path, tmp_path: Path) -> None:
    # One is the beginning of another's name, and one lies inside another.
    places = [replace(place, prefix=prefix, key=datapath.Key.generate()) for prefix in ("one", "one-more", "one/below")]
    repositories = [each.init() for each in places]
    assert len({repository.id for repository in repositories}) == 3
    others = [replace(few_place).objects() for few_place in places[1:]]
    result = backup(repositories[0], few)
    assert [each.objects() for each in places[1:]] == others
    assert [len(repository.snapshots().rows) for repository in repositories] == [1, 0, 0]
    assert [repository.status().packs > 0 for repository in repositories] == [True, False, False]
    assert done(repositories[0].check()).exit_code == 0
    with pytest.raises(WrongKeyError):
        datapath.open(places[1].store(), places[0].key)
    for repository in repositories[1:]:
        with pytest.raises(SnapshotNotFoundError):
            repository.find(str(result.snapshot_id))
    assert_restores(repositories[0], result.snapshot_id, few, tmp_path / "target")


# --- what is refused ---


def test_a_second_init_touches_nothing(place: Place) -> None:
    place.init()
    before = place.objects()
    with pytest.raises(RepositoryExistsError) as refused:
        datapath.init(place.store(), datapath.Key.generate())
    assert refused.value.next_step
    assert place.objects() == before
    place.open()


def test_wrong_key_and_no_repository_are_told_apart(place: Place) -> None:
    with pytest.raises(RepositoryNotFoundError):
        place.open()
    place.init()
    with pytest.raises(WrongKeyError) as refused:
        datapath.open(place.store(), datapath.Key.generate())
    assert refused.value.next_step


def test_wrong_credentials_are_denied_at_once(place: Place) -> None:
    place.init()
    place.proxy.forget()
    for access, secret in ((place.server.access_key, "wrong"), ("nobody", place.server.secret_key)):
        with pytest.raises(StoreDeniedError) as refused:
            place.open(credentials=datapath.Credentials(access, secret))
        assert "check the credentials" in refused.value.text()
        assert "verb=" in refused.value.message and place.bucket in refused.value.message
    with pytest.raises(StoreDeniedError, match="name a credentials file or a secret"):
        place.open(credentials=None)
    assert place.proxy.counts.total() == 2, "denied is not to be tried again"


def test_credentials_that_end_in_a_backup_end_it_and_name_the_verb(place: Place, many: Path) -> None:
    repository = place.init()
    place.proxy.forget()
    ended = threading.Event()

    def plan(request: Request) -> Fault | None:
        if request.verb == "PUT" and "/packs/" in request.path:
            ended.set()
        return Fault.error(403, "AccessDenied") if ended.is_set() else None

    place.proxy.plan = plan
    began = time.monotonic()
    with pytest.raises(StoreDeniedError, match="verb=PUT"):
        done(start(repository, many))
    assert time.monotonic() - began < 30
    place.proxy.plan = lambda _: None
    assert repository.snapshots().rows == []


def test_a_missing_bucket_is_said(place: Place) -> None:
    place.bucket = f"none-{uuid.uuid4().hex}"
    for call in (place.init, place.open):
        with pytest.raises(UsageError, match="make the bucket, or name another"):
            call()


def test_read_only_settings_write_nothing(place: Place, few: Path, tmp_path: Path) -> None:
    snapshot_id = str(backup(place.init(), few).snapshot_id)
    before = place.objects()
    place.proxy.forget()
    repository = place.open(read_only=True)
    assert [s.id for s in repository.snapshots().rows] == [snapshot_id]
    assert repository.status().snapshots == 1
    assert repository.entries(snapshot_id).rows
    assert_restores(repository, snapshot_id, few, tmp_path / "target")
    assert done(repository.check(read_data=True)).exit_code == 0
    assert done(repository.verify(snapshot_id)).exit_code == 0
    assert done(repository.backup(datapath.BackupOptions(str(few), source="volume", dry_run=True))).snapshot_id is None
    writes = [
        lambda: done(start(repository, few)),
        lambda: repository.remove(snapshot_id, by="test"),
        lambda: repository.add_slot(datapath.Key.generate(), label="x"),
        lambda: datapath.init(replace(place, prefix="other").store(read_only=True), place.key),
    ]
    for write in writes:
        with pytest.raises(StoreDeniedError):
            write()
    assert set(place.proxy.counts) <= {"GET", "HEAD", "LIST"}
    assert place.objects() == before
    assert not datapath.exists(replace(place, prefix="other").store())


# --- what is ridden out ---


def test_three_of_ten_requests_fail(place: Place, many: Path, tmp_path: Path) -> None:
    def run(prefix: str) -> int:
        here = replace(place, prefix=prefix)
        place.proxy.counts.clear()
        repository = here.init()
        result = backup(repository, many)
        assert backup(repository, many).bytes_read == 0
        assert_restores(repository, result.snapshot_id, many, tmp_path / "target")
        repository.remove(str(result.snapshot_id), by="test")
        assert done(repository.check()).exit_code == 0
        return place.proxy.counts.total()

    # Three runs each: of the few requests of one alone, chance may fail many.
    undisturbed = sum(run(f"undisturbed-{n}") for n in range(3))
    faults = [Fault.error(500, "InternalError"), Fault.slow_down(retry_after_seconds=1), Fault.reset(), Fault.lost()]
    place.proxy.plan = share(0.3, faults, seed=3)
    disturbed = sum(run(f"disturbed-{n}") for n in range(3))
    assert {request.verb for request, _ in place.proxy.struck} >= {"PUT", "GET", "LIST", "DELETE"}
    assert {fault for _, fault in place.proxy.struck} == set(faults)
    # At most 1.6 requests for one when three of ten fail: of these, seven of ten pass. How many chance struck must not decide.
    passed = disturbed - len(place.proxy.struck)
    assert passed <= 1.6 * 0.7 * undisturbed, (disturbed, passed, undisturbed)
    place.proxy.forget()
    assert_sound(replace(place, prefix="disturbed-0").open())


def test_no_lost_answer_to_a_put_is_a_failure(place: Place, tmp_path: Path) -> None:
    repository = place.init()
    puts = puts_of_a_backup(place, repository, tmp_path)
    assert puts >= 7, "what it asks the store with, marker, packs, index, usage, snapshot"
    for number in range(1, puts + 1):
        volume = fill(tmp_path / "volume", files=5, file_bytes=1_000_000, seed=number)
        place.proxy.forget()
        place.proxy.plan = nth("PUT", number, Fault.lost())
        result = backup(repository, volume, parent="none")
        assert len(place.proxy.struck) == 1
        assert_restores(repository, result.snapshot_id, volume, tmp_path / "target")
    assert len(repository.snapshots().rows) == puts + 2
    assert_sound(repository)


def puts_of_a_backup(place: Place, repository: datapath.Repository, tmp_path: Path) -> int:
    """How many there are in each but the first, which leaves behind what stores are asked with."""
    for seed in (1000, 0):
        place.proxy.forget()
        backup(repository, fill(tmp_path / "volume", files=5, file_bytes=1_000_000, seed=seed), parent="none")
    return place.proxy.counts["PUT"]


def test_init_outlives_each_lost_answer(place: Place) -> None:
    place.proxy.forget()
    place.init()
    for number in range(1, place.proxy.counts["PUT"] + 1):
        here = replace(place, prefix=f"lost-{number}")
        place.proxy.forget()
        place.proxy.plan = nth("PUT", number, Fault.lost())
        repository = here.init()
        assert len(place.proxy.struck) == 1
        assert here.open().id == repository.id


def test_no_put_that_was_acknowledged_and_dropped_breaks_a_snapshot(place: Place, tmp_path: Path) -> None:
    repository = place.init()
    puts = puts_of_a_backup(place, repository, tmp_path)
    found = set()
    for number in range(1, puts + 1):
        volume = fill(tmp_path / "volume", files=5, file_bytes=1_000_000, seed=number)
        before = {s.id for s in repository.snapshots().rows}
        place.proxy.forget()
        place.proxy.plan = nth("PUT", number, Fault.swallow())
        job = start(repository, volume, parent="none")
        job.wait(PATIENCE_SECONDS)
        ((struck, _),) = place.proxy.struck
        kind = struck.path.split("/")[-2]
        try:
            result = job.result()
        except CorruptError as error:
            found.add(kind)
            assert struck.path.rpartition("/")[2].split("-")[0] in error.message  # noqa: PT017 - not every one is an error
            assert {s.id for s in repository.snapshots().rows} == before
        else:
            assert_restores(place.open(), result.snapshot_id, volume, tmp_path / "target")
    assert {"packs", "snapshots"} <= found


@pytest.mark.parametrize("fault", [Fault.flip(), Fault.cut()], ids=["flipped", "cut"])
def test_damage_on_the_way_is_no_alarm(place: Place, few: Path, tmp_path: Path, fault: Fault) -> None:
    snapshot_id = str(backup(place.init(), few).snapshot_id)

    def read() -> None:
        repository = place.open()
        assert [s.id for s in repository.snapshots().rows] == [snapshot_id]
        assert repository.snapshots().damaged == []
        assert repository.status().index_damaged == 0
        assert_restores(repository, snapshot_id, few, tmp_path / "target")
        assert_sound(repository)

    place.proxy.forget()
    read()
    gets = place.proxy.counts["GET"]
    assert gets >= 8
    wrong = {}
    for number in range(1, gets + 1):
        place.proxy.forget()
        place.proxy.plan = nth("GET", number, fault)
        try:
            read()
        except (AssertionError, LongshoreError) as error:
            wrong[number, place.proxy.struck[0][0].path] = repr(error)
        assert len(place.proxy.struck) == 1
    assert not wrong


def test_an_object_damaged_at_rest_is_named_and_the_rest_comes_back(place: Place, many: Path, tmp_path: Path) -> None:
    repository = place.init()
    snapshot_id = str(backup(repository, many).snapshot_id)
    pack = max((place.folder / "packs").iterdir(), key=lambda path: path.stat().st_size)
    body = bytearray(pack.read_bytes())
    body[len(body) // 2] ^= 1
    pack.write_bytes(body)
    result = restore(repository, snapshot_id, tmp_path / "target")
    assert (result.exit_code, result.items_damaged) == (4, len(result.lost))
    assert 1 <= len(result.lost) <= 2, "one chunk, so one file, or two that share a frame"
    assert all(pack.name in lost.message and lost.reason == "damaged" for lost in result.lost)
    damaged = {lost.path.decode() for lost in result.lost}
    for number in range(24):
        name = f"f{number}"
        if name not in damaged:
            assert (tmp_path / "target" / name).read_bytes() == (many / name).read_bytes()
    found = done(repository.check(read_data=True))
    assert found.exit_code == 4
    assert any(pack.name in finding.object for finding in found.findings if finding.severity == "error")
    pack.unlink()
    found = done(repository.check())
    assert found.exit_code == 4, "a listing alone must tell that a pack is gone"


def test_an_outage_of_twenty_seconds_is_ridden_out(own_s3_server: S3Server, many: Path, tmp_path: Path) -> None:
    bucket = own_s3_server.bucket("outage")
    with FaultProxy(own_s3_server.endpoint_url) as proxy:
        place = Place(own_s3_server, proxy, bucket, datapath.Key.generate())
        repository = place.init()
        proxy.bytes_per_second = 8_000_000
        job = start(repository, many)
        until("nothing is stored", lambda: job.progress().bytes_stored > 0)
        own_s3_server.halt(crash=True)
        assert job.progress().stage == "running"
        assert not job.wait(20)
        own_s3_server.start()
        proxy.bytes_per_second = 0
        result = done(job)
        assert result.exit_code == 0
        assert_restores(repository, result.snapshot_id, many, tmp_path / "target")
        assert_sound(repository)


def test_credentials_that_change_every_two_seconds(place: Place, many: Path, tmp_path: Path) -> None:
    """New ones are handed over only when a request with the old ones was refused as expired."""
    accounts = [datapath.Credentials(*place.server.account()) for _ in range(12)]
    now = [0]

    def plan(request: Request) -> Fault | None:
        valid = accounts[now[0]].access_key in request.headers["authorization"]
        return None if valid else Fault.expired_token()

    repository = datapath.init(place.store(credentials=accounts[0]), place.key)
    place.proxy.forget()
    place.proxy.plan = plan
    place.proxy.delay_seconds = 0.6  # some fourteen steps of a backup come one after another
    job = start(repository, many)
    while not job.wait(1.8):
        refused = len(place.proxy.struck)
        now[0] += 1
        while not job.wait(0.02) and len(place.proxy.struck) == refused:
            pass
        repository.set_credentials(accounts[now[0]])
    place.proxy.delay_seconds = 0
    result = job.result()
    assert now[0] >= 3, "the backup was over too soon to show anything"
    assert len(place.proxy.struck) >= now[0] - 1
    assert len({request.headers["authorization"].split("/")[0] for request in place.proxy.requests}) >= now[0]
    assert_restores(repository, result.snapshot_id, many, tmp_path / "target")


def test_no_secret_is_ever_told(place: Place, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = f"token{uuid.uuid4().hex}"
    wrong = f"wrong{uuid.uuid4().hex}"
    secrets = [
        place.server.access_key,
        place.server.secret_key,
        token,
        wrong,
        place.key.to_file_text().split(":")[1].strip(),
    ]
    good = datapath.Credentials(place.server.access_key, place.server.secret_key)
    # The server refuses every token.
    tokened = replace(good, session_token=token)
    said = io.StringIO()
    # Without the net that hides what callers let slip.
    monkeypatch.setattr(logs.chain, "_redact_record", lambda _logger, _name, record: record)
    logs.configure(level="debug", stream=said)
    datapath.set_log_level("debug")
    try:
        repository = datapath.init(place.store(credentials=good), place.key)
        calls: list[Any] = [
            lambda: datapath.init(place.store(credentials=good), place.key),
            lambda: place.open(credentials=datapath.Credentials(place.server.access_key, wrong, token)),
            lambda: place.open(credentials=datapath.Credentials(wrong, place.server.secret_key, token)),
            lambda: datapath.open(place.store(credentials=good), datapath.Key.generate()),
            lambda: datapath.exists(place.store(credentials=good, bucket=f"none-{uuid.uuid4().hex}")),
            lambda: backup(repository, few, parent="none"),
            lambda: restore(repository, None, tmp_path / "target"),
            lambda: done(repository.check(read_data=True)),
            lambda: place.open(credentials=tokened),
            lambda: (repository.set_credentials(tokened), repository.snapshots()),
            lambda: repository.set_credentials(good),
        ]
        faults = [
            Fault.error(403, "AccessDenied"),
            Fault.error(403, "InvalidAccessKeyId"),
            Fault.error(400, "Nonsense"),
            Fault.expired_token(),
            Fault.lost(),
            Fault.cut(),
            Fault.flip(),
        ]
        for seed, call in enumerate(calls * 3):
            place.proxy.plan = share(0.25, faults, seed=seed)
            try:
                print(repr(call()), file=said)
            except (LongshoreError, AssertionError, TypeError) as error:
                print(repr(error), str(error), getattr(error, "text", str)(), file=said)
        print(repr(place.store(credentials=tokened)), repr(tokened), repr(repository), repr(place.key), file=said)
    finally:
        datapath.set_log_level("info")
        logs.configure(level="warning")
    text = said.getvalue()
    assert "Store unavailable, retrying" in text and "StoreDeniedError" in text and "S3Store(" in text
    for secret in secrets:
        assert secret not in text, secret
