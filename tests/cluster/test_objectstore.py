"""A storage location on a real S3 server: found credentials, looked-up region, objects, errors an operator can act on."""

import uuid
from typing import Any

import pytest

from longshore.api import BackupStorageLocation
from longshore.errors import DeniedError, LongshoreError, NotFoundError, StoreDeniedError, UsageError
from longshore.objectstore.location import settings_of
from longshore.objectstore.opening import open_store
from longshore.objectstore.settings import SecretReader
from longshore.objectstore.store import ObjectStore, validate_layout
from tests.support.components import S3Server


def secrets_of(server: S3Server) -> SecretReader:
    """The server's keys as a Secret `cloud/aws`, in profile `backup`; `cloud/wrong` holds wrong ones."""

    def read(name: str, key: str) -> bytes:
        secret_key = {"aws": server.secret_key, "wrong": "wrong"}.get(key)
        if name != "cloud" or secret_key is None:
            raise NotFoundError(f"no such key: name={name}, key={key}")
        return f"[backup]\naws_access_key_id={server.access_key}\naws_secret_access_key={secret_key}\n".encode()

    return read


def open_location(
    server: S3Server, bucket: str, *, key: str = "aws", config: dict[str, str] | None = None, **spec: Any
) -> ObjectStore:
    location = BackupStorageLocation.from_dict(
        {
            "metadata": {"name": "default"},
            "spec": {
                "provider": "velero.io/aws",
                "objectStorage": {"bucket": bucket, "prefix": "clusters/one"},
                "credential": {"name": "cloud", "key": key},
                "config": {
                    "s3Url": server.endpoint_url,
                    "s3ForcePathStyle": "true",
                    "profile": "backup",
                    **(config or {}),
                },
                **spec,
            },
        }
    )
    read = secrets_of(server)
    return open_store(settings_of(location, read_secret=read), read_secret=read)


def test_objects_come_and_go(s3_server: S3Server, bucket: str) -> None:
    store = open_location(s3_server, bucket)
    assert validate_layout(store) == ()
    keys = [f"backups/{name}/velero-backup.json" for name in ("a", "b", "ä ö")]
    for key in keys:
        store.put(key, key.encode())
    store.put("metadata/revision", b"old")
    store.put("metadata/revision", b"new")
    assert validate_layout(store) == ("backups", "metadata")
    assert store.list_common_prefixes("backups/") == ("backups/a/", "backups/b/", "backups/ä ö/")
    assert list(store.list("backups/")) == keys
    assert [store.get(key) for key in keys] == [key.encode() for key in keys]
    assert store.get("metadata/revision") == b"new"
    assert (store.exists(keys[0]), store.exists("backups/c"), store.exists("backups/a")) == (True, False, False)
    store.delete(keys[0])
    store.delete(keys[0])
    with pytest.raises(NotFoundError):
        store.get(keys[0])
    assert store.list_common_prefixes("backups/") == ("backups/b/", "backups/ä ö/")
    assert s3_server.object_path(bucket, "clusters/one/metadata/revision").read_bytes() == b"new"
    store.close()


def test_more_keys_than_one_page(s3_server: S3Server, bucket: str) -> None:
    folder = s3_server.object_path(bucket, "clusters/one/backups")
    for number in range(1005):
        (folder / f"b{number:04}").mkdir(parents=True)
        (folder / f"b{number:04}" / "x").touch()
    store = open_location(s3_server, bucket)
    assert len(store.list_common_prefixes("backups/")) == 1005
    assert sum(1 for _ in store.list("")) == 1005


def test_strangers_at_the_top_are_named(s3_server: S3Server, bucket: str) -> None:
    store = open_location(s3_server, bucket)
    store.put("photos/cat.jpg", b"")
    with pytest.raises(UsageError, match=r"folders=\[photos\]"):
        validate_layout(store)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"bucket": True}, NotFoundError, "the bucket is not there"),
        ({"key": "wrong"}, StoreDeniedError, "does not know these credentials"),
        ({"key": "none"}, StoreDeniedError, "Secret or its key is not there"),
        ({"config": {"profile": "other"}}, StoreDeniedError, "profile=other"),
        ({"config": {"region": "mars-1"}}, UsageError, "another region"),
    ],
)
def test_what_is_wrong_is_said(
    s3_server: S3Server, bucket: str, change: dict[str, Any], error: type[LongshoreError], said: str
) -> None:
    bucket = f"none-{uuid.uuid4().hex}" if change.pop("bucket", False) else bucket
    with pytest.raises(error) as refused:
        open_location(s3_server, bucket, **change).probe()
    assert said in refused.value.message
    assert "location=default" in refused.value.message
    assert refused.value.next_step
    assert s3_server.secret_key not in refused.value.text()


def test_read_only_location_stays_as_it_was(s3_server: S3Server, bucket: str) -> None:
    open_location(s3_server, bucket).put("backups/a/x", b"1")
    before = sorted(s3_server.data_dir.rglob("*"))
    store = open_location(s3_server, bucket, accessMode="ReadOnly")
    for write in (lambda: store.put("backups/a/x", b"2"), lambda: store.delete("backups/a/x")):
        with pytest.raises(DeniedError):
            write()
    assert validate_layout(store) == ("backups",)
    assert store.get("backups/a/x") == b"1"
    assert sorted(s3_server.data_dir.rglob("*")) == before
