"""All that a location says reaches the data path: a row for each field of its settings, and a field without a row fails."""

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.unit.objectstore.http_server import Answer, Request, serving

from longshore import datapath
from longshore.controllers.engine import EngineDataPath, store_of
from longshore.controllers.ports import Place, RootKey, RootKeyKind
from longshore.errors import LongshoreError, StoreUnavailableError
from longshore.objectstore.credentials import Credentials
from longshore.objectstore.settings import CHECKSUM_OFF, AwsSettings, FilesystemSettings, SecretKey

LEAST = {"location": "nas", "read_only": False, "prefix": "", "bucket": "backups"}
AWS_ROWS = {
    "prefix": ("one/two", {"prefix": "one/two/plugins/longshore/shop"}),
    "bucket": ("other", {"bucket": "other"}),
    "region": ("eu-west-1", {"region": "eu-west-1"}),
    "endpoint_url": ("http://s3:9000", {"endpoint_url": "http://s3:9000", "allow_http": True}),
    "force_path_style": (True, {"force_path_style": True}),
    "insecure_skip_tls_verify": (True, {"insecure_skip_tls_verify": True}),
    "ca_bundle_pem": (b"-----BEGIN", {"ca_cert_pem": "-----BEGIN"}),
    "server_side_encryption": ("AES256", {"server_side_encryption": "AES256"}),
    "kms_key_id": ("alias/k", {"kms_key_id": "alias/k"}),
    "checksum_algorithm": ("SHA256", {"checksum_algorithm": "SHA256"}),
}
AWS_ELSEWHERE = {
    "read_only": "of the place",
    "location": "for messages",
    "public_url": "for signed links, which the data path does not make",
    "credential": "resolved: Place.credentials",
    "profile": "resolved: Place.credentials",
    "enable_shared_config": "resolved: Place.credentials",
    "tagging": "for the objects of the control plane; the guide says so",
}
S3_ELSEWHERE = {
    "read_only": "of the place: a reader's is read-only whatever the location says",
    "credentials": "of the place",
    "customer_key_base64": "refused by name: no location can hand a key over",
}
FOLDER_ELSEWHERE = {"location": "for messages", "read_only": "of the place", "forbidden": "checked by the location"}


def names(model) -> set[str]:
    return {field.name for field in dataclasses.fields(model)}


def s3(**fields) -> datapath.StoreSettings:
    return store_of(Place(AwsSettings(**{**LEAST, **fields}), "shop"))


def test_each_field_of_a_location_has_a_row() -> None:
    assert AWS_ROWS.keys() | AWS_ELSEWHERE.keys() == names(AwsSettings)
    reached = {target for _value, wanted in AWS_ROWS.values() for target in wanted}
    assert reached | S3_ELSEWHERE.keys() == names(datapath.S3Store)
    assert FOLDER_ELSEWHERE.keys() | {"prefix", "path", "bucket"} == names(FilesystemSettings)
    assert names(datapath.FolderStore) == {"path", "read_only"}


@pytest.mark.parametrize("name", AWS_ROWS)
def test_field_arrives(name: str) -> None:
    value, wanted = AWS_ROWS[name]
    plain, changed = s3(), s3(**{name: value})
    assert isinstance(changed, datapath.S3Store)
    assert {field: getattr(changed, field) for field in wanted} == wanted
    assert all(getattr(plain, field) != was for field, was in wanted.items())
    assert changed == dataclasses.replace(plain, **wanted)


def test_what_the_place_says_arrives() -> None:
    ends = datetime(2030, 1, 1, tzinfo=UTC)
    settings = AwsSettings(**LEAST, credential=SecretKey("cloud", "aws"))
    store = store_of(Place(settings, "shop", True, Credentials("a", "s", "t", ends), "eu-west-2"))
    assert isinstance(store, datapath.S3Store)
    assert (store.read_only, store.region) == (True, "eu-west-2")
    assert store.credentials == datapath.Credentials("a", "s", "t", ends)
    assert store.url == "s3://backups/plugins/longshore/shop"


def test_folder_arrives(tmp_path: Path) -> None:
    settings = FilesystemSettings(location="nas", read_only=False, prefix="one", path=tmp_path, bucket="b")
    assert store_of(Place(settings, "shop", True)) == datapath.FolderStore(
        str(tmp_path / "b/one/plugins/longshore/shop"), read_only=True
    )
    gone = dataclasses.replace(settings, path=tmp_path / "gone")
    with pytest.raises(StoreUnavailableError, match="folder is not there"):
        store_of(Place(gone, "shop"))


def puts_of(**settings: Any) -> list[Request]:
    """What goes up for a repository in a place of these settings, to a server that then takes nothing."""
    empty = b'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>false</IsTruncated></ListBucketResult>'

    def answer(request: Request) -> Answer:
        if request.method == "GET" and "list-type=2" in request.path:
            return 200, {"Content-Type": "application/xml"}, empty
        return 403 if request.method == "PUT" else 404, {}, b""

    with serving(answer) as server:
        aws = AwsSettings(**{**LEAST, "endpoint_url": server.url, "force_path_style": True, **settings})
        place = Place(aws, "shop", credentials=Credentials("a", "s"))
        with pytest.raises(LongshoreError):
            EngineDataPath().init(place, RootKey(RootKeyKind.SECRET, b"k" * 32), label="test")
    puts = [request for request in server.requests if request.method == "PUT"]
    assert puts
    return puts


@pytest.mark.parametrize(
    ("checksum", "sent"),
    [(None, "x-amz-checksum-crc64nvme"), ("CRC32", "x-amz-checksum-sha256"), (CHECKSUM_OFF, None)],
)
def test_checksum_that_goes_up(checksum: str | None, sent: str | None) -> None:
    """A server that refuses the header can be used at all only where none is sent."""
    for put in puts_of(checksum_algorithm=checksum):
        found = [name for name in put.headers if name.startswith("x-amz-checksum")]
        assert found == ([] if sent is None else [sent])


@pytest.mark.parametrize(
    ("settings", "sent"),
    [
        ({}, {}),
        ({"server_side_encryption": "AES256"}, {"x-amz-server-side-encryption": "AES256"}),
        (
            {"server_side_encryption": "aws:kms", "kms_key_id": "a-key"},
            {"x-amz-server-side-encryption": "aws:kms", "x-amz-server-side-encryption-aws-kms-key-id": "a-key"},
        ),
    ],
)
def test_encryption_that_is_asked_for(settings: dict[str, str], sent: dict[str, str]) -> None:
    """Of every object: one that is sent without would lie there as the bucket has it."""
    for put in puts_of(**settings):
        found = {name: value for name, value in put.headers.items() if name.startswith("x-amz-server-side-encryption")}
        assert found == sent
