"""Keys of repositories: made once, stored first, never replaced, never shown."""

import base64
import gc
import json
import os
import threading
import weakref
from datetime import UTC, datetime, timedelta

import pytest
from tests.unit.controllers.fake_datapath import FakeDataPath, wait_for
from tests.unit.controllers.rig import BSL, NAMESPACE, PVB, PVR
from tests.unit.objectstore.http_server import serving

from longshore.controllers.cluster import ClusterReader
from longshore.controllers.ports import RootKeyKind
from longshore.controllers.repositories import Repositories
from longshore.controllers.repository_keys import SECRET_RECOVERY, SECRET_ROOT, RepositoryKeys, mark_exported, parse_key
from longshore.errors import DeniedError, NotFoundError, StoreUnavailableError, UsageError, WrongKeyError
from longshore.kube.client import KubeClient
from longshore.kube.clock import SYSTEM_CLOCK
from longshore.kube.fake import Answer, DropConnection
from longshore.kube.fake.clock import ManualClock
from longshore.kube.resource import EVENTS, SECRETS

KEY_TEXT = "longshore-key-1:" + "ab" * 32


def repositories(rig, client=None, *, clock=SYSTEM_CLOCK):
    client = client or rig.client
    cluster = ClusterReader(client, namespace=NAMESPACE)
    keys = RepositoryKeys(client, namespace=NAMESPACE, cluster=cluster)
    return Repositories(FakeDataPath(rig.world), cluster=cluster, keys=keys, clock=clock)


def bucket_location(rig, **spec):
    body = {
        "provider": "aws",
        "objectStorage": {"bucket": "bucket"},
        "config": {"region": "us-east-1", "s3Url": "http://127.0.0.1:1"},
        **spec,
    }
    rig.server.put(BSL, {"metadata": {"name": "s3"}, "spec": body}, namespace=NAMESPACE)


def lay_down(rig, name=SECRET_ROOT, **entries):
    data = {key.replace("_", "-"): base64.b64encode(value.encode()).decode() for key, value in entries.items()}
    rig.server.put(SECRETS, {"metadata": {"name": name}, "data": data}, namespace=NAMESPACE)


def secret(rig):
    found = rig.server.get(SECRETS, SECRET_ROOT, namespace=NAMESPACE)
    return None if found is None else {key: base64.b64decode(value) for key, value in found["data"].items()}


def test_key_is_stored_before_the_repository_is_made(rig):
    class Watched(FakeDataPath):
        def init(self, place, key, *, label):
            stored = secret(rig)
            assert stored and parse_key(stored["repository-key"], secret="s", name="n").value == key.value
            return super().init(place, key, label=label)

    opener = repositories(rig)
    opener._datapath = Watched(rig.world)
    opened = opener.open(location="default", namespace="shop", write=True)
    assert opened.made and opened.recovery_missing
    assert opened.url.endswith("/plugins/longshore/shop")


def test_no_repository_without_a_stored_key(rig):
    rig.server.faults.inject(Answer(500), resource="secrets", verb="create", times=None)
    with pytest.raises(Exception, match="failed"):
        repositories(rig).open(location="default", namespace="shop", write=True)
    assert rig.world.repositories == {}


def test_lost_answer_of_the_create_makes_no_second_key(rig):
    rig.server.faults.inject(DropConnection(applied=True), resource="secrets", verb="create")
    opener = repositories(rig)
    try:
        opener.open(location="default", namespace="shop", write=True)
    except Exception:
        before = secret(rig)
        opener.open(location="default", namespace="shop", write=True)
        assert secret(rig) == before


def test_many_at_once_agree_on_one_key(rig):
    clients = [KubeClient.from_kubeconfig(rig.server.kubeconfig_path) for _ in range(6)]
    openers = [repositories(rig, client) for client in clients]
    start, errors = threading.Barrier(6), []

    def open_one(opener, number):
        start.wait()
        try:
            opener.open(location="default", namespace=f"shop-{number % 2}", write=True)
        except Exception as err:
            errors.append(err)

    threads = [threading.Thread(target=open_one, args=(one, number)) for number, one in enumerate(openers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    slots = {key for stored in rig.world.repositories.values() for key, _label in stored.slots.values()}
    assert len(rig.world.repositories) == 2 and len(slots) == 1
    for client in clients:
        client.close()


def test_operators_key_is_used_and_kept(rig):
    lay_down(rig, repository_key=KEY_TEXT + "\n")
    repositories(rig).open(location="default", namespace="shop", write=True)
    (stored,) = rig.world.repositories.values()
    assert [key for key, _label in stored.slots.values()] == [(RootKeyKind.SECRET, bytes.fromhex("ab" * 32))]
    assert secret(rig) == {"repository-key": (KEY_TEXT + "\n").encode()}


def test_secret_with_a_recovery_key_alone_is_completed(rig):
    lay_down(rig, recovery_key=KEY_TEXT)
    opened = repositories(rig).open(location="default", namespace="shop", write=True)
    assert set(secret(rig)) == {"repository-key", "recovery-key"} and not opened.recovery_missing
    (stored,) = rig.world.repositories.values()
    assert [label for _key, label in stored.slots.values()] == ["cluster", "recovery"]


@pytest.mark.parametrize("name", [SECRET_ROOT, SECRET_RECOVERY])
def test_recovery_slot_is_added_later(rig, name):
    assert repositories(rig).open(location="default", namespace="shop", write=True).recovery_missing
    entries = {"recovery_passphrase": "correct horse battery"}
    if name == SECRET_ROOT:
        entries["repository_key"] = secret(rig)["repository-key"].decode()
    lay_down(rig, name, **entries)
    assert not repositories(rig).open(location="default", namespace="shop", write=True).recovery_missing
    (stored,) = rig.world.repositories.values()
    assert ((RootKeyKind.PASSPHRASE, b"correct horse battery"), "recovery") in stored.slots.values()


def test_recovery_key_alone_opens_after_the_loss_of_the_cluster(rig):
    lay_down(rig, SECRET_RECOVERY, recovery_key=KEY_TEXT)
    repositories(rig).open(location="default", namespace="shop", write=True)
    rig.client.delete(SECRETS, SECRET_ROOT, namespace=NAMESPACE)
    repositories(rig).open(location="default", namespace="shop", write=False)
    assert secret(rig) is None


def test_existing_repository_gets_no_new_key(rig):
    repositories(rig).open(location="default", namespace="shop", write=True)
    rig.client.delete(SECRETS, SECRET_ROOT, namespace=NAMESPACE)
    for write in (True, False):
        with pytest.raises(WrongKeyError) as caught:
            repositories(rig).open(location="default", namespace="shop", write=write)
        assert "another key" in caught.value.text() and SECRET_ROOT in caught.value.text()
        assert secret(rig) is None


def test_wrong_key_says_where_to_bring_it(rig):
    repositories(rig).open(location="default", namespace="shop", write=True)
    old = secret(rig)["repository-key"].decode()
    lay_down(rig, repository_key=KEY_TEXT)
    with pytest.raises(WrongKeyError) as caught:
        repositories(rig).open(location="default", namespace="shop", write=True)
    assert "made with another key" in str(caught.value) and "put its secret in" in caught.value.next_step
    assert "abab" not in caught.value.text()
    lay_down(rig, repository_key=KEY_TEXT, repository_key_old=old)
    repositories(rig).open(location="default", namespace="shop", write=True)


def test_export_ends_the_warning(rig):
    assert repositories(rig).open(location="default", namespace="shop", write=True).recovery_missing
    mark_exported(
        rig.client,
        namespace=NAMESPACE,
        at=SYSTEM_CLOCK.now(),
        keys=RepositoryKeys(rig.client, namespace=NAMESPACE, cluster=ClusterReader(rig.client, namespace=NAMESPACE))
        .read()
        .roots,
    )
    assert not repositories(rig).open(location="default", namespace="shop", write=True).recovery_missing


def test_read_only_location_gets_nothing(rig):
    rig.location("default", accessMode="ReadOnly")
    with pytest.raises(DeniedError, match="read-only"):
        repositories(rig).open(location="default", namespace="shop", write=True)
    with pytest.raises(NotFoundError):
        repositories(rig).open(location="default", namespace="shop", write=False)
    assert rig.world.repositories == {} and secret(rig) is None


@pytest.mark.parametrize("namespace", ["", "..", "a/b", "A", "x" * 64, "-a"])
def test_namespace_that_is_none_is_refused(rig, namespace):
    with pytest.raises(UsageError):
        repositories(rig).open(location="default", namespace=namespace, write=True)


@pytest.mark.parametrize(
    "value",
    [b"", b"hunter2-hunter2", b"longshore-key-1:abc", b"longshore-key-2:" + b"a" * 64, b"longshore-key-1:" + b"g" * 64],
)
def test_bad_keys_are_refused_and_not_shown(value):
    with pytest.raises(UsageError) as caught:
        parse_key(value, secret="s", name="repository-key")
    assert not value or value.decode() not in caught.value.text()


def test_keys_do_not_show():
    key = parse_key(KEY_TEXT.encode(), secret="s", name="n")
    assert "ab" * 8 not in repr(key) and "\\xab" not in repr(key)


def test_rotated_credentials_reach_an_open_repository(rig):
    file = "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n"
    lay_down(rig, "cloud", keys=file.format("first", "s1"))
    bucket_location(rig, credential={"name": "cloud", "key": "keys"})
    opener = repositories(rig)
    repository = opener.writable(location="s3", namespace="shop")
    assert repository.credentials.access_key == "first" and opener.renew_now() == 0
    lay_down(rig, "cloud", keys=file.format("second", "s2"))
    assert opener.renew_now() == 1 and repository.credentials.access_key == "second"
    # One that is given to nobody any more has them as long as somebody works with it, and is let go then.
    opener.forget(location="s3", namespace="shop")
    lay_down(rig, "cloud", keys=file.format("third", "s3"))
    assert opener.renew_now() == 1 and repository.credentials.access_key == "third"
    gone = weakref.ref(repository)
    del repository
    gc.collect()
    assert gone() is None and opener.renew_now() == 0
    for _ in range(3):
        opener.writable(location="s3", namespace="shop")
        opener.forget(location="s3", namespace="shop")
        gc.collect()
    assert len(opener._old) <= 1


class Lender:
    """A service that lends keys for an hour: the n-th from the beginning of the test's n-th hour less one."""

    def __init__(self, place, begins):
        self.place, self.begins, self.lent = place, begins, 0

    def __call__(self, request):
        if self.place == "instance metadata" and request.path == "/latest/api/token":
            return 200, {}, b"token"
        if self.place == "instance metadata" and request.path.endswith("/security-credentials/"):
            return 200, {}, b"role"
        self.lent += 1
        ends = (self.begins + timedelta(hours=self.lent)).strftime("%Y-%m-%dT%H:%M:%SZ")
        keys = {"AccessKeyId": f"key-{self.lent}", "SecretAccessKey": "s", "Expiration": ends}
        if self.place == "instance metadata":
            keys |= {"Code": "Success", "Token": "session"}
            return 200, {"Content-Type": "application/json"}, json.dumps(keys).encode()
        keys["SessionToken"] = "session"
        told = "".join(f"<{name}>{value}</{name}>" for name, value in keys.items())
        action = "AssumeRoleWithWebIdentity"
        body = (
            f"<{action}Response><{action}Result><Credentials>{told}</Credentials></{action}Result></{action}Response>"
        )
        return 200, {"Content-Type": "text/xml"}, body.encode()


@pytest.mark.parametrize("place", ["web identity", "instance metadata"])
def test_credentials_that_end_are_renewed_shortly_before(rig, monkeypatch, tmp_path, place):
    """Not before, for whoever lends them counts how often; and then at once, for a job that runs needs them."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "token").write_text("token")
    # botocore compares with the true time, which goes on by little meanwhile.
    clock = ManualClock(start=datetime.now(UTC).replace(microsecond=0))
    lender = Lender(place, clock.now())
    bucket_location(rig)
    with serving(lender) as service:
        if place == "web identity":
            monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
            monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/backup")
            monkeypatch.setenv("AWS_ENDPOINT_URL_STS", service.url)
        else:
            monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.url)
        opener = repositories(rig, clock=clock)
        repository = opener.writable(location="s3", namespace="shop")
        assert repository.credentials.access_key == "key-1" and repository.credentials.expires_at is not None
        for hour in (1, 2):
            assert opener.renew_now() == 0 and lender.lent == hour
            clock.advance(55 * 60 - 1)
            assert opener.renew_now() == 0 and lender.lent == hour, "five minutes and a second are left"
            clock.advance(1)
            assert opener.renew_now() == 1 and lender.lent == hour + 1
            assert repository.credentials.access_key == f"key-{hour + 1}"
            clock.advance(5 * 60)


def test_location_that_was_changed_is_opened_again(rig):
    opener = repositories(rig)
    first = opener.open(location="default", namespace="shop", write=True)
    assert opener.open(location="default", namespace="shop", write=True).repository is first.repository
    other = rig.folder / "other"
    other.mkdir()
    rig.location("default", config={"path": str(other)})
    assert opener.open(location="default", namespace="shop", write=True).url != first.url


def test_store_that_is_away_makes_no_key(rig):
    rig.world.down = True
    with pytest.raises(StoreUnavailableError):
        repositories(rig).open(location="default", namespace="shop", write=True)
    assert secret(rig) is None


def test_second_cluster_with_the_exported_key_restores(rig, tmp_path):
    from tests.unit.controllers.rig import Rig

    from longshore.kube.fake import FakeApiServer

    pod, path = rig.pod()
    (path / "a").write_bytes(b"survives")
    agent = rig.agent()
    snapshot = rig.done_backup(pod)["snapshotID"]
    assert wait_for(lambda: [one for one in rig.server.objects(EVENTS) if one["reason"] == "RecoveryKeyMissing"])
    agent.terminate()
    exported = secret(rig)["repository-key"].decode()
    with FakeApiServer() as server:
        (tmp_path / "second").mkdir()
        second = Rig(tmp_path / "second", server)
        try:
            second.world = rig.world
            second.location("default", config={"path": str(rig.store)})
            back, target = second.waiting_pod()
            second.agent()
            status = second.wait_phase(PVR, second.restore(back, snapshot))
            assert status["phase"] == "Failed" and "made with another key" in status["message"], status
            status = second.wait_phase(PVB, second.backup(back))
            assert status["phase"] == "Failed" and "made with another key" in status["message"], status
            lay_down(second, repository_key=exported)
            assert second.wait_phase(PVR, second.restore(back, snapshot))["phase"] == "Completed"
            assert (target / "a").read_bytes() == b"survives"
        finally:
            second.close()
