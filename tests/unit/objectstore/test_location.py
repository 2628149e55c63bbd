"""Every field of a location is understood, or refused by its name with what to write instead."""

import base64
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.unit.objectstore.locations import aws, filesystem, location, secrets

from longshore.errors import StoreUnavailableError, UnsupportedError, UsageError
from longshore.objectstore.location import settings_of
from longshore.objectstore.settings import (
    CHECKSUM_OFF,
    AwsSettings,
    FilesystemSettings,
    SecretKey,
    repository_prefix,
)


def _certificate() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    start = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


CERTIFICATE = _certificate()


# --- aws ---


def test_least_location_is_enough() -> None:
    assert aws() == AwsSettings(location="nas", read_only=False, prefix="", bucket="backups")


def test_every_field_is_taken() -> None:
    config = {
        "region": "eu-west-1",
        "s3Url": "https://s3.example.com:9000/",
        "publicUrl": "http://public.example.com",
        "s3ForcePathStyle": "T",
        "insecureSkipTLSVerify": "1",
        "profile": "backup",
        "enableSharedConfig": "true",
        "serverSideEncryption": "aws:kms",
        "kmsKeyId": "alias/backup",
        "checksumAlgorithm": "SHA256",
        "tagging": "team=db&empty=",
        "signatureVersion": "4",
        "resticRepoPrefix": "s3:elsewhere",
    }
    storage = {"prefix": "/clusters/one/", "caCert": base64.b64encode(CERTIFICATE).decode()}
    assert aws(
        config, storage=storage, credential={"name": "cloud", "key": "aws"}, accessMode="ReadOnly"
    ) == AwsSettings(
        location="nas",
        read_only=True,
        prefix="clusters/one",
        bucket="backups",
        region="eu-west-1",
        endpoint_url="https://s3.example.com:9000",
        public_url="http://public.example.com",
        force_path_style=True,
        insecure_skip_tls_verify=True,
        ca_bundle_pem=CERTIFICATE,
        credential=SecretKey("cloud", "aws"),
        profile="backup",
        enable_shared_config=True,
        server_side_encryption="aws:kms",
        kms_key_id="alias/backup",
        checksum_algorithm="SHA256",
        tagging="team=db&empty=",
    )


@pytest.mark.parametrize("provider", ["aws", "velero.io/aws", "example.com/ceph", "minio"])
def test_unknown_provider_with_an_address_speaks_s3(provider: str) -> None:
    assert aws({"s3Url": "http://127.0.0.1:9000"}, provider=provider).endpoint_url == "http://127.0.0.1:9000"


@pytest.mark.parametrize(
    ("provider", "config"),
    [("minio", {}), ("azure", {"s3Url": "http://a"}), ("velero.io/gcp", {"s3Url": "http://a"}), ("", {})],
)
def test_other_providers_are_refused(provider: str, config: dict[str, str]) -> None:
    with pytest.raises(UnsupportedError, match=f"field=provider, value='{provider}'") as refused:
        aws(config, provider=provider)
    assert "filesystem" in (refused.value.next_step or "")


def test_kms_key_alone_means_kms() -> None:
    assert aws({"kmsKeyId": "k"}).server_side_encryption == "aws:kms"


@pytest.mark.parametrize(
    ("config", "wanted"),
    [({}, None), ({"checksumAlgorithm": ""}, CHECKSUM_OFF), ({"checksumAlgorithm": " "}, CHECKSUM_OFF)],
)
def test_empty_checksum_is_an_off_switch(config: dict[str, str], wanted: str | None) -> None:
    assert aws(config).checksum_algorithm == wanted


def test_empty_values_count_as_absent() -> None:
    assert aws({"region": "", "s3Url": " ", "s3ForcePathStyle": "", "profile": ""}) == aws()


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"regoin": "eu-west-1"}, "config.regoin"),
        ({"region": "eu west"}, "config.region"),
        ({"region": "eu-west-1\nx"}, "config.region"),
        ({"s3ForcePathStyle": "yes"}, "config.s3ForcePathStyle"),
        ({"insecureSkipTLSVerify": "TrUe"}, "config.insecureSkipTLSVerify"),
        ({"enableSharedConfig": "on"}, "config.enableSharedConfig"),
        ({"s3Url": "s3.example.com"}, "config.s3Url"),
        ({"s3Url": "ftp://s3.example.com"}, "config.s3Url"),
        ({"s3Url": "https://"}, "config.s3Url"),
        ({"s3Url": "https://s3.example.com:99999"}, "config.s3Url"),
        ({"s3Url": "https://s3.example.com/path"}, "config.s3Url"),
        ({"s3Url": "https://s3.example.com?x=1"}, "config.s3Url"),
        ({"s3Url": "https://[::1"}, "config.s3Url"),
        ({"publicUrl": "example.com"}, "config.publicUrl"),
        ({"serverSideEncryption": "rot13"}, "config.serverSideEncryption"),
        ({"kmsKeyId": "k", "serverSideEncryption": "AES256"}, "config.kmsKeyId"),
        ({"checksumAlgorithm": "MD5"}, "config.checksumAlgorithm"),
        ({"serverSideEncryption": "aws:kms:dsse"}, "config.serverSideEncryption"),
        ({"tagging": "no tags"}, "config.tagging"),
        ({"tagging": "a=1&a=2"}, "config.tagging"),
        ({"tagging": "=1"}, "config.tagging"),
        ({"tagging": "&".join(f"k{n}=v" for n in range(11))}, "config.tagging"),
        ({"customerKeyEncryptionFile": "/credentials/key"}, "config.customerKeyEncryptionFile"),
        ({"customerKeyEncryptionSecret": "name/key"}, "config.customerKeyEncryptionSecret"),
        ({"credentialsFile": "/credentials/cloud"}, "config.credentialsFile"),
        ({"path": "/backups"}, "config.path"),
    ],
)
def test_wrong_setting_is_refused_by_name(config: dict[str, str], field: str) -> None:
    with pytest.raises(UsageError) as refused:
        aws(config)
    assert f"location=nas, field={field}" in refused.value.message
    assert refused.value.next_step


@pytest.mark.parametrize(
    ("storage", "field"),
    [
        ({"bucket": ""}, "objectStorage.bucket"),
        ({"bucket": "a/b"}, "objectStorage.bucket"),
        ({"bucket": ".."}, "objectStorage.bucket"),
        ({"bucket": "a..b"}, "objectStorage.bucket"),
        ({"bucket": "bucket name"}, "objectStorage.bucket"),
        ({"prefix": "a//b"}, "objectStorage.prefix"),
        ({"prefix": "a/../b"}, "objectStorage.prefix"),
        ({"prefix": ".."}, "objectStorage.prefix"),
        ({"prefix": "a\x00b"}, "objectStorage.prefix"),
        ({"caCert": "!!!"}, "objectStorage.caCert"),
        ({"caCert": base64.b64encode(b"no certificate").decode()}, "objectStorage.caCert"),
        ({"caCertRef": {"name": "ca", "key": "none"}}, "objectStorage.caCertRef"),
        ({"caCertRef": {"name": "ca", "key": "junk"}}, "objectStorage.caCertRef"),
        ({"caCertRef": {"name": "ca", "key": "good"}, "caCert": "eA=="}, "objectStorage.caCertRef"),
    ],
)
def test_wrong_place_is_refused_by_name(storage: dict[str, Any], field: str) -> None:
    with pytest.raises(UsageError) as refused:
        aws(storage=storage, values={"ca/good": CERTIFICATE, "ca/junk": b"\xffjunk"})
    assert f"location=nas, field={field}" in refused.value.message
    assert refused.value.next_step


def test_location_without_object_storage_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"field=objectStorage\.bucket"):
        settings_of(location("aws"), read_secret=secrets())


def test_credentials_in_an_address_are_not_repeated() -> None:
    with pytest.raises(UsageError, match=r"field=config\.s3Url") as refused:
        aws({"s3Url": "https://user:hunter2@s3.example.com"})
    assert "hunter2" not in refused.value.text()


def test_certificates_come_from_a_secret() -> None:
    reference = {"name": "ca", "key": "bundle"}
    assert aws(storage={"caCertRef": reference}, values={"ca/bundle": CERTIFICATE}).ca_bundle_pem == CERTIFICATE
    assert aws(storage={"caCertRef": reference | {"optional": True}}).ca_bundle_pem is None


# --- where repositories lie ---


def test_repositories_lie_below_plugins() -> None:
    assert aws().repository_url("shop") == "s3://backups/plugins/longshore/shop"
    assert aws(storage={"prefix": "one/"}).repository_url("shop") == "s3://backups/one/plugins/longshore/shop"


@pytest.mark.parametrize("namespace", ["", "..", "a/b", "Shop", "-a", "a-", "a.b", "a" * 64, "shop\n", "shöp"])
def test_only_names_of_namespaces_become_keys(namespace: str) -> None:
    with pytest.raises(UsageError, match="not the name of a namespace"):
        repository_prefix("p", namespace=namespace)


# --- filesystem ---


def test_folder_is_taken(tmp_path: Path) -> None:
    assert filesystem(tmp_path) == FilesystemSettings(location="nas", read_only=False, prefix="", path=tmp_path)
    full = filesystem(tmp_path, objectStorage={"bucket": "backups", "prefix": "/one/"}, accessMode="ReadOnly")
    assert (full.root, full.prefix, full.read_only) == (tmp_path / "backups", "one", True)
    assert full.url == f"file://{tmp_path}/backups/one"
    assert full.repository_url("shop") == f"file://{tmp_path}/backups/one/plugins/longshore/shop"
    assert settings_of(
        location("velero.io/filesystem", config={"path": str(tmp_path)}), read_secret=secrets()
    ) == filesystem(tmp_path)


@pytest.mark.parametrize("text", ["relative", "./x", "~/x", "/a/../b", "/a//b", "/./a", "//a", "/a/.", "file:///a"])
def test_path_must_be_absolute_and_normal(text: str) -> None:
    with pytest.raises(UsageError, match="not absolute and normal") as refused:
        filesystem(text)
    assert "field=config.path" in refused.value.message


def test_path_is_required(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"missing: location=nas, field=config\.path"):
        filesystem("")


def test_folder_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="cannot be opened") as refused:
        filesystem(tmp_path / "not-mounted")
    assert "mount" in (refused.value.next_step or "")


def test_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="not a folder"):
        filesystem(tmp_path / "file")


@pytest.mark.parametrize("place", ["link", "link/inner"])
def test_links_are_refused_and_the_real_path_is_told(tmp_path: Path, place: str) -> None:
    (tmp_path / "real" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(UsageError, match="symbolic link") as refused:
        filesystem(tmp_path / place)
    assert str(tmp_path / place.replace("link", "real")) in (refused.value.next_step or "")


@pytest.mark.parametrize("place", ["pods", "pods/uid/volumes", ".", "agent/cache"])
def test_folder_in_or_above_a_forbidden_one_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "pods" / "uid" / "volumes").mkdir(parents=True)
    (tmp_path / "agent" / "cache").mkdir(parents=True)
    (tmp_path / "pods-of-others").mkdir()
    forbidden = (tmp_path / "pods", tmp_path / "agent", tmp_path / "never-made")
    with pytest.raises(UsageError, match="lies in or above"):
        filesystem(tmp_path / place, forbidden=forbidden)
    filesystem(tmp_path / "pods-of-others", forbidden=forbidden)


def test_forbidden_folder_behind_a_link_is_still_forbidden(tmp_path: Path) -> None:
    (tmp_path / "kubelet" / "pods").mkdir(parents=True)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "host_pods").symlink_to("../kubelet/pods")
    for place in ("kubelet/pods", "kubelet", "."):
        with pytest.raises(UsageError, match="lies in or above"):
            filesystem(tmp_path / place, forbidden=(tmp_path / "links" / "host_pods",))


def test_root_is_above_everything(tmp_path: Path) -> None:
    for forbidden in (tmp_path, tmp_path / "never-made"):
        with pytest.raises(UsageError, match="lies in or above"):
            filesystem("/", forbidden=(forbidden,))


def test_folder_above_one_that_is_yet_to_be_made_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="lies in or above"):
        filesystem(tmp_path, forbidden=(tmp_path / "agent" / "cache",))


def test_same_folder_under_another_name_is_forbidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bind mount shows one folder at two places; device and inode tell."""
    (tmp_path / "pods" / "uid").mkdir(parents=True)
    (tmp_path / "alias" / "uid").mkdir(parents=True)
    real_stat = Path.stat

    def stat(self: Path, **options: Any) -> os.stat_result:
        return real_stat(Path(str(self).replace("/alias", "/pods")), **options)

    monkeypatch.setattr(Path, "stat", stat)
    for place in ("alias", "alias/uid"):
        with pytest.raises(UsageError, match="lies in or above"):
            filesystem(tmp_path / place, forbidden=(tmp_path / "pods",))
    with pytest.raises(UsageError, match="lies in or above"):
        filesystem(tmp_path / "alias", forbidden=(tmp_path / "pods" / "uid",))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"config": {"s3Url": "http://a"}}, "config.s3Url"),
        ({"credential": {"name": "a", "key": "b"}}, "credential"),
        ({"objectStorage": {"bucket": "b", "caCert": "eA=="}}, "objectStorage.caCert"),
        ({"objectStorage": {"bucket": "../b"}}, "objectStorage.bucket"),
        ({"objectStorage": {"bucket": "b", "prefix": "../x"}}, "objectStorage.prefix"),
    ],
)
def test_what_a_folder_has_no_use_for_is_refused(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    with pytest.raises(UsageError) as refused:
        filesystem(tmp_path, **change)
    assert f"field={field}" in refused.value.message


def test_settings_are_frozen() -> None:
    with pytest.raises(AttributeError):
        aws().bucket = "x"  # type: ignore[misc]
    assert replace(aws(), region="r").region == "r"
