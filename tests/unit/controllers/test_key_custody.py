"""What an operator does with the keys of a cluster's repositories: nothing is replaced, nothing counts as kept that is not, the last way in stays."""

import base64

import pytest
from tests.unit.controllers.fake_datapath import FakeDataPath, FakeRepository, wait_for
from tests.unit.controllers.rig import NAMESPACE, RESOURCES, Rig
from tests.unit.controllers.test_keys import KEY_TEXT, lay_down, repositories, secret
from tests.unit.controllers.test_server import REPOSITORY, RunningServer, condition, repository

from longshore.controllers.key_custody import KeyCustody, RepositoryName
from longshore.controllers.ports import RootKey, RootKeyKind
from longshore.controllers.repository_keys import (
    ANNOTATION_EXPORTED,
    SECRET_RECOVERY,
    SECRET_ROOT,
    fingerprint_of,
    key_file_text,
)
from longshore.errors import AlreadyExistsError, DeniedError, NotFoundError, UsageError
from longshore.kube.fake import FakeApiServer
from longshore.kube.resource import EVENTS, SECRETS

NAME = RepositoryName("shop", "default")
OWN = RootKey(RootKeyKind.SECRET, bytes.fromhex("cd" * 32))


def custody(rig):
    return KeyCustody(rig.client, FakeDataPath(rig.world), namespace=NAMESPACE)


def made(rig):
    """Have an agent's repository there, and the server's object for it."""
    repositories(rig).open(location="default", namespace="shop", write=True)
    repository(rig)
    (stored,) = rig.world.repositories.values()
    return stored


def at_risk(rig, **where):
    return (
        repositories(rig).open(**{"location": "default", "namespace": "shop", "write": True, **where}).recovery_missing
    )


def test_export_gives_the_root_key_and_ends_the_risk(rig):
    made(rig)
    (entry,) = custody(rig).root_entries()
    assert key_file_text(entry.key).encode() == secret(rig)["repository-key"]
    assert at_risk(rig), "nothing is noted before the caller has the key on a disk"
    custody(rig).note_exported([entry])
    assert not at_risk(rig)


def test_export_of_one_key_vouches_for_no_other(rig):
    made(rig)
    custody(rig).note_exported(custody(rig).root_entries())
    # The cluster's Secret was exchanged: what is made with the new key is in this cluster only.
    old = secret(rig)["repository-key"].decode()
    annotations = rig.client.get(SECRETS, SECRET_ROOT, namespace=NAMESPACE)["metadata"]["annotations"]
    lay_down(rig, repository_key=KEY_TEXT, repository_key_old=old)
    rig.client.patch(SECRETS, SECRET_ROOT, {"metadata": {"annotations": annotations}}, namespace=NAMESPACE)
    assert not at_risk(rig) and at_risk(rig, namespace="other")
    names = [entry.name for entry in custody(rig).root_entries()]
    assert names == ["repository-key", "repository-key-old"]
    custody(rig).note_exported(custody(rig).root_entries())
    assert not at_risk(rig, namespace="other")


def test_date_written_by_hand_vouches_for_all(rig):
    made(rig)
    change = {"metadata": {"annotations": {ANNOTATION_EXPORTED: "2026-11-21"}}}
    rig.client.patch(SECRETS, SECRET_ROOT, change, namespace=NAMESPACE)
    assert not at_risk(rig)
    custody(rig).note_exported(custody(rig).root_entries())
    assert not at_risk(rig)


def test_export_needs_a_key_that_makes_a_file(rig):
    with pytest.raises(NotFoundError, match="no repository key"):
        custody(rig).root_entries()
    lay_down(rig, repository_key="correct horse battery staple, and more of it")
    with pytest.raises(UsageError) as caught:
        custody(rig).root_entries()
    assert "key add --new-key-file" in caught.value.next_step and "horse" not in caught.value.text()


def test_import_is_create_only(rig):
    assert custody(rig).import_root(OWN, beside=False) == "repository-key"
    assert secret(rig) == {"repository-key": key_file_text(OWN).encode()}
    assert custody(rig).import_root(OWN, beside=False) == "repository-key"
    other = RootKey(RootKeyKind.SECRET, b"\x01" * 32)
    before = rig.client.get(SECRETS, SECRET_ROOT, namespace=NAMESPACE)
    with pytest.raises(AlreadyExistsError, match="another repository key"):
        custody(rig).import_root(other, beside=False)
    assert rig.client.get(SECRETS, SECRET_ROOT, namespace=NAMESPACE) == before
    entry = custody(rig).import_root(other, beside=True)
    assert entry == f"repository-key-{fingerprint_of(other)[:8]}"
    assert secret(rig) == {"repository-key": key_file_text(OWN).encode(), entry: key_file_text(other).encode()}
    assert not at_risk(rig), "what came from outside is kept outside"


def test_import_completes_a_secret_that_holds_a_recovery_key_alone(rig):
    lay_down(rig, recovery_key=KEY_TEXT)
    assert custody(rig).import_root(OWN, beside=True) == "repository-key"
    assert set(secret(rig)) == {"repository-key", "recovery-key"}


def test_import_opens_what_was_made_elsewhere(rig, tmp_path):
    made(rig)
    (entry,) = custody(rig).root_entries()
    with FakeApiServer() as server:
        (tmp_path / "second").mkdir()
        second = Rig(tmp_path / "second", server)
        try:
            second.world = rig.world
            second.location("default", config={"path": str(rig.store)})
            # An agent was quicker, and has made a key for a repository of its own.
            repositories(second).open(location="default", namespace="other", write=True)
            custody(second).import_root(entry.key, beside=True)
            repositories(second).open(location="default", namespace="shop", write=False)
        finally:
            second.close()


@pytest.mark.parametrize("kind", RootKeyKind)
def test_recovery_key_gets_a_slot_everywhere_and_in_what_comes(rig, kind):
    stored = made(rig)
    key = RootKey(kind, b"correct horse battery staple 123" if kind is RootKeyKind.PASSPHRASE else OWN.value)
    one = custody(rig)
    assert one.lay_down_recovery(key) and not one.lay_down_recovery(key)
    assert one.repositories() == [NAME]
    assert one.add_slot(NAME, key) in stored.slots and one.add_slot(NAME, key) is None
    assert len(stored.slots) == 2 and not at_risk(rig) and not at_risk(rig, namespace="later")
    with pytest.raises(AlreadyExistsError, match="another recovery key"):
        one.lay_down_recovery(RootKey(RootKeyKind.SECRET, b"\x02" * 32))
    data = rig.server.get(SECRETS, SECRET_RECOVERY, namespace=NAMESPACE)["data"]
    assert len(data) == 1 and key.value.hex() not in str(data)


def test_recovery_passphrase_that_agents_would_refuse_is_not_laid_down(rig):
    with pytest.raises(UsageError):
        custody(rig).lay_down_recovery(RootKey(RootKeyKind.PASSPHRASE, b"hunter2"))
    assert rig.server.get(SECRETS, SECRET_RECOVERY, namespace=NAMESPACE) is None


def test_repositories_are_known_without_a_server(rig):
    pod, _path = rig.pod()
    rig.backup(pod)
    rig.server.put(
        RESOURCES["ResticRepository"],
        {"metadata": {"name": "x"}, "spec": {"volumeNamespace": "old", "backupStorageLocation": "default"}},
        namespace=NAMESPACE,
    )
    assert custody(rig).repositories() == [RepositoryName("old", "default"), NAME]


def test_read_only_location_gets_no_slot(rig):
    stored = made(rig)
    rig.location("default", accessMode="ReadOnly")
    with pytest.raises(DeniedError, match="read-only"):
        custody(rig).add_slot(NAME, OWN)
    assert len(stored.slots) == 1


def test_last_way_in_stays(rig):
    stored = made(rig)
    one = custody(rig)
    (root,) = one.slots(NAME)
    assert root.opened_here
    with pytest.raises(UsageError, match="last key slot"):
        one.remove_slot(root)
    one.add_slot(NAME, OWN)
    with pytest.raises(UsageError, match="through which the cluster opens"):
        one.remove_slot(root)
    (own,) = [found for found in one.slots(NAME) if found.slot.name != root.slot.name]
    # As long as agents have its key, they would give the slot back.
    one.lay_down_recovery(OWN)
    with pytest.raises(UsageError, match="again"):
        one.remove_slot(own)
    assert len(stored.slots) == 2
    rig.client.delete(SECRETS, SECRET_RECOVERY, namespace=NAMESPACE)
    one.remove_slot(own)
    assert list(stored.slots) == [root.slot.name]


def test_root_slot_may_go_when_another_key_of_the_cluster_opens(rig):
    stored = made(rig)
    one = custody(rig)
    (root,) = one.slots(NAME)
    one.add_slot(NAME, OWN)
    one.import_root(OWN, beside=True)
    one.remove_slot(root)
    assert len(stored.slots) == 1 and one.open(NAME).repository.slots()


def test_two_who_remove_the_clusters_two_slots_at_once_leave_it_one(rig, monkeypatch):
    stored = made(rig)
    one, other = custody(rig), custody(rig)
    (root,) = one.slots(NAME)
    one.add_slot(NAME, OWN)
    one.import_root(OWN, beside=True)
    (own,) = [found for found in one.slots(NAME) if found.slot.name != root.slot.name]
    one.add_slot(NAME, RootKey(RootKeyKind.SECRET, b"f" * 32))
    real, met = FakeRepository.remove_slot, []

    def remove(repository, name):
        # The other comes between the look and the removal.
        if not met:
            met.append(name)
            other.remove_slot(own)
        real(repository, name)

    monkeypatch.setattr(FakeRepository, "remove_slot", remove)
    with pytest.raises(UsageError, match="at the same time") as caught:
        one.remove_slot(root)
    assert caught.value.next_step and met == [root.slot.name]
    assert root.slot.name not in stored.slots and own.slot.name not in stored.slots
    assert any(slot.opened_here for slot in custody(rig).slots(NAME)) and len(stored.slots) == 2


def test_open_handle_learns_of_export_and_of_a_recovery_key(rig):
    made(rig)
    opener = repositories(rig)
    first = opener.open(location="default", namespace="shop", write=True)
    assert first.recovery_missing
    custody(rig).note_exported(custody(rig).root_entries())
    second = opener.open(location="default", namespace="shop", write=True)
    assert second.repository is first.repository and not second.recovery_missing
    lay_down(rig, SECRET_RECOVERY, recovery_key=KEY_TEXT)
    opener.open(location="default", namespace="shop", write=True)
    assert [slot.label for slot in first.repository.slots()] == ["cluster", "recovery"]


def test_open_handle_survives_a_secret_that_cannot_be_read(rig):
    made(rig)
    opener = repositories(rig)
    first = opener.open(location="default", namespace="shop", write=True)
    lay_down(rig, SECRET_RECOVERY, recovery_key="longshore-key-1:short")
    assert opener.open(location="default", namespace="shop", write=True).repository is first.repository


def test_condition_and_event_follow_an_export_at_once(rig):
    made(rig)
    # A look every hour: only the word to look again can be the cause of what follows.
    server = RunningServer(rig, repository_look_seconds=3600.0)
    try:
        name = "shop-default-kopia"
        rig.wait_phase(REPOSITORY, name, "Ready")
        found = wait_for(lambda: condition(rig, name, "RecoveryKeyMissing"), what="the condition")
        assert found["status"] == "True" and "longshore repo key export" in found["message"]
        custody(rig).note_exported(custody(rig).root_entries())
        wait_for(lambda: condition(rig, name, "RecoveryKeyMissing")["status"] == "False", what="the condition ends")
        wait_for(lambda: [one for one in rig.server.objects(EVENTS) if one["reason"] == "RecoveryKeyKept"])
    finally:
        server.end()


def test_no_key_shows_in_what_is_noted(rig):
    made(rig)
    entries = custody(rig).root_entries()
    custody(rig).note_exported(entries)
    noted = rig.client.get(SECRETS, SECRET_ROOT, namespace=NAMESPACE)["metadata"]["annotations"][ANNOTATION_EXPORTED]
    (entry,) = entries
    assert entry.key.value.hex()[:8] not in noted and base64.b64encode(entry.key.value).decode()[:8] not in noted
    assert noted.split()[1:] == [fingerprint_of(entry.key)]
