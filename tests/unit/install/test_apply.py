"""Applying: what a server that is a little late, or keeps nothing, makes of it."""

import pytest

from longshore.errors import NotFoundError
from longshore.install.apply import apply
from longshore.install.values import merged
from longshore.kube.fake import ManualClock

VALUES = merged({"location": {"enabled": True, "bucket": "b"}})


class Late:
    """Answers 404 for objects of a kind until it has been asked so often; keeps the names of what it took."""

    def __init__(self, plural, refusals):
        self.plural = plural
        self.refusals = refusals
        self.taken = []

    def apply(self, resource, body, **_options):
        if resource.plural == self.plural and self.refusals:
            self.refusals -= 1
            raise NotFoundError("not found")
        self.taken.append((body["kind"], body["metadata"]["name"]))

    def delete(self, *_words, **_options):
        raise NotFoundError("not found")


class Passing(ManualClock):
    """Whoever waits on it moves it."""

    def wait(self, event, seconds):
        self.advance(seconds)
        return event.is_set()


def run(server, **options):
    said = []
    apply(
        server,
        VALUES,
        namespace="velero",
        told=lambda what, one: said.append((what, one["kind"])),
        clock=Passing(),
        **options,
    )
    return said


def test_kind_that_is_served_late_is_awaited():
    server = Late("backupstoragelocations", 5)
    said = run(server)
    assert said.count(("applied", "BackupStorageLocation")) == 1
    assert server.taken.count(("BackupStorageLocation", "default")) == 1


def test_kind_that_is_never_served_ends_it():
    with pytest.raises(NotFoundError):
        run(Late("backupstoragelocations", 10**9))


def test_missing_namespace_is_not_awaited():
    server = Late("serviceaccounts", 1)
    with pytest.raises(NotFoundError):
        run(server)


def test_dry_run_goes_on_without_what_only_a_real_run_makes():
    said = run(Late("backupstoragelocations", 10**9), dry_run=True)
    assert ("not judged", "BackupStorageLocation") in said
    assert ("applied", "BackupStorageLocation") not in said
    assert ("applied", "DaemonSet") in said
