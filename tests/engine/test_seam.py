"""What holds both languages together: error classes, field names, secrets that stay inside, log records that come out."""

import base64
import copy
import io
import json
import pickle
from dataclasses import fields

import pytest

from longshore import _native, datapath, errors, logs
from longshore.datapath import enginelog, results
from longshore.errors import RepositoryNotFoundError, StoreDeniedError, UnsupportedError, UsageError
from tests.engine.conftest import Place

CUSTOMER_KEY = base64.b64encode(bytes(range(32))).decode()
# Two kinds of the engine may share a class where the caller does the same next.
CLASSES = {
    "repository-not-found": "RepositoryNotFoundError",
    "repository-exists": "RepositoryExistsError",
    "wrong-key": "WrongKeyError",
    "newer-format": "NewerFormatError",
    "snapshot-not-found": "SnapshotNotFoundError",
    "path-not-found": "SnapshotNotFoundError",
    "ambiguous": "UsageError",
    "corrupt": "CorruptError",
    "store-unavailable": "StoreUnavailableError",
    "store-denied": "StoreDeniedError",
    "no-space": "NoSpaceError",
    "unsupported": "UnsupportedError",
    "volume": "VolumeError",
    "usage": "UsageError",
    "cancelled": "CancelledError",
    "internal": "InternalError",
}


def test_every_kind_of_error_has_one_class() -> None:
    told = _native.error_classes()
    assert len(told) == len(dict(told)), "a kind comes twice"
    assert dict(told) == CLASSES
    for name in CLASSES.values():
        assert errors.by_name(name).__name__ == name, "the tree has no such class"


@pytest.mark.parametrize(
    "ours", [results.Progress, results.BackupResult, results.RestoreResult, results.CheckResult, results.RepairResult, results.Snapshot, results.KeySlot,
             results.RepositoryStatus, results.Entry],
)  # fmt: skip
def test_results_have_the_same_fields_on_both_sides(ours: type) -> None:
    native = getattr(_native, ours.__name__)
    assert {f.name for f in fields(ours)} == {name for name in vars(native) if not name.startswith("_")}


def test_errors_carry_the_next_step_and_survive_a_copy(tmp_path) -> None:
    with pytest.raises(RepositoryNotFoundError) as caught:
        datapath.open(datapath.FolderStore(str(tmp_path / "none")), datapath.Key.generate())
    error = caught.value
    assert "none" in error.message and "longshore repo init" in str(error.next_step)
    assert (error.code, error.exit_code) == ("repository_not_found", 10)
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (type(twin), twin.message, twin.next_step) == (type(error), error.message, error.next_step)
    assert not (tmp_path / "none").exists(), "looking for a repository made its folder"


def test_no_representation_shows_a_secret(place: Place) -> None:
    text = place.key.to_file_text()
    digits = text.strip().removeprefix("longshore-key-1:")
    assert len(digits) == 64
    credentials = datapath.Credentials("AKIAKEY", "topsecret", "toptoken")
    bucket = datapath.S3Store(
        "bucket",
        endpoint_url="http://127.0.0.1:9",
        allow_http=True,
        customer_key_base64=CUSTOMER_KEY,
        credentials=credentials,
    )
    passphrase = datapath.Key.from_passphrase(b"topphrase")
    native = datapath.stores.native_store(bucket)
    shown = repr(
        [place.key, place.repository, credentials, bucket, passphrase, native, place.key._native, passphrase._native]
    )
    for secret in (digits, "AKIAKEY", "topsecret", "toptoken", CUSTOMER_KEY, "topphrase"):
        assert secret not in shown
    for key in (place.key, passphrase):
        with pytest.raises(TypeError):
            pickle.dumps(key)


@pytest.mark.parametrize(
    "text", ["", "longshore-key-1:", "longshore-key-1:" + "0" * 63, "longshore-key-1:" + "g" * 64, "topsecret" * 10]
)
def test_a_damaged_key_file_is_refused_without_being_told(tmp_path, text: str) -> None:
    (tmp_path / "key").write_text(text)
    with pytest.raises(UsageError) as caught:
        datapath.Key.from_file(tmp_path / "key")
    assert "topsecret" not in str(caught.value.text())
    with pytest.raises(UsageError):
        datapath.Key.from_file(tmp_path / "absent")


@pytest.mark.parametrize("secret", [b"", b"x" * 31, b"x" * 33])
def test_a_secret_of_another_length_is_refused(secret: bytes) -> None:
    with pytest.raises(UsageError):
        datapath.Key.from_secret(secret)


def test_the_engines_log_comes_out_with_its_fields(place: Place) -> None:
    segment = place.folder / "index" / ("0" * 32)
    segment.parent.mkdir(exist_ok=True)
    segment.write_bytes(b"not a segment")
    enginelog.forward()
    out = io.StringIO()
    logs.configure(level="info", format="json", stream=out)
    try:
        place.repository.status()
    finally:
        logs.configure(level="warning", format="text")
    ours = [record for record in map(json.loads, out.getvalue().splitlines()) if "segment" in record]
    assert [(r["level"], r["segment"]) for r in ours] == [("warning", "0" * 32)]
    assert ours[0]["msg"][0].isupper() and ours[0]["logger"].startswith("longshore_engine.")


KEYS = datapath.Credentials("a", "s", None)


@pytest.mark.parametrize(
    ("url", "settings"),
    [
        ("file:///a/b%20c", datapath.FolderStore("/a/b c")),
        ("/a/b", datapath.FolderStore("/a/b")),
        ("file://localhost/a", datapath.FolderStore("/a")),
        ("file:///%ff", datapath.FolderStore("/\udcff")),
        ("s3://bucket/a/b/", datapath.S3Store("bucket", "a/b", credentials=KEYS)),
        ("s3://bucket", datapath.S3Store("bucket", "", credentials=KEYS)),
    ],
)
def test_urls_become_settings(url: str, settings: datapath.StoreSettings) -> None:
    environ = {"AWS_ACCESS_KEY_ID": KEYS.access_key, "AWS_SECRET_ACCESS_KEY": KEYS.secret_key}
    assert datapath.store_from_url(url, environ=environ) == settings


@pytest.mark.parametrize("missing", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_a_bucket_without_credentials_names_what_is_not_set(missing: str) -> None:
    environ = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s", missing: ""}
    with pytest.raises(StoreDeniedError, match=rf"store=s3://bucket, not_set=\[{missing}\]"):
        datapath.store_from_url("s3://bucket", environ=environ)


def test_a_buckets_environment_is_read(tmp_path) -> None:
    (tmp_path / "ca.pem").write_text("PEM")
    environ = {
        "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t", "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_CA_BUNDLE": str(tmp_path / "ca.pem"),
    }  # fmt: skip
    assert datapath.store_from_url("s3://b/p", environ=environ) == datapath.S3Store(
        "b",
        "p",
        region="eu-central-1",
        endpoint_url="http://127.0.0.1:1",
        allow_http=True,
        ca_cert_pem="PEM",
        credentials=datapath.Credentials("a", "s", "t"),
    )


@pytest.mark.parametrize(
    "url",
    [
        "",
        "repo",
        "file://relative",
        "file:///a%00b",
        "s3://",
        "s3:///prefix",
        "s3://b?x=1",
        "s3://k:topsecret@b/x",
        "ftp://h/x",
    ],
)
def test_urls_that_make_no_sense_are_refused(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        datapath.store_from_url(url, environ={})
    assert "topsecret" not in caught.value.text() and caught.value.next_step


@pytest.mark.parametrize("url", ["gs://bucket/x", "az://container"])
def test_kinds_of_stores_that_are_still_to_come_are_told(url: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        datapath.store_from_url(url, environ={})
    assert "s3://" in str(caught.value.next_step)
