"""A repository behind TLS with a certificate of a private authority: whom the data path trusts, and that it says whom it does not."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from longshore import datapath
from longshore.errors import LongshoreError
from tests.cluster.conftest import running
from tests.cluster.test_s3_repository import assert_restores, backup, fill
from tests.support.components import S3Server
from tests.support.pki import Authority

# The test makes its bucket without a look at the certificate.
pytestmark = pytest.mark.filterwarnings("ignore:Unverified HTTPS request")

OURS, STRANGERS = Authority("ours"), Authority("a stranger's")


def server(certified: str | None) -> Iterator[S3Server]:
    for made in running(S3Server(authority=OURS, certified=certified)):
        made.bucket("backups")
        yield made


@pytest.fixture(scope="module")
def right() -> Iterator[S3Server]:
    """A server with a certificate of its address."""
    yield from server(None)


@pytest.fixture(scope="module")
def wrong() -> Iterator[S3Server]:
    """A server with a certificate of another name."""
    yield from server("elsewhere.example")


def store(server: S3Server, prefix: str, *, ca: Authority | None = None, skip: bool = False) -> datapath.S3Store:
    return datapath.S3Store(
        "backups",
        prefix,
        region=server.region,
        endpoint_url=server.endpoint_url,
        force_path_style=True,
        credentials=datapath.Credentials(server.access_key, server.secret_key),
        ca_cert_pem=None if ca is None else ca.certificate.decode(),
        insecure_skip_tls_verify=skip,
    )


KEY = datapath.Key.from_secret(b"k" * 32)


@pytest.mark.parametrize(("prefix", "ca", "skip"), [("authority", OURS, False), ("nobody-asked", None, True)])
def test_volume_goes_out_and_back(
    right: S3Server, tmp_path: Path, prefix: str, ca: Authority | None, skip: bool
) -> None:
    volume = fill(tmp_path / "volume", files=3, file_bytes=100_000, seed=1)
    repository = datapath.init(store(right, prefix, ca=ca, skip=skip), KEY)
    made = backup(repository, volume)
    assert_restores(
        datapath.open(store(right, prefix, ca=ca, skip=skip), KEY), made.snapshot_id, volume, tmp_path / "out"
    )


@pytest.mark.parametrize("ca", [None, STRANGERS], ids=["nobody", "another authority"])
def test_who_is_not_trusted_gets_nothing(right: S3Server, ca: Authority | None) -> None:
    with pytest.raises(LongshoreError) as caught:
        datapath.init(store(right, "refused", ca=ca), KEY)
    assert "certificate of the store is not trusted; name its CA" in str(caught.value)
    assert not right.object_path("backups", "refused").exists()


def test_certificate_of_another_name(wrong: S3Server) -> None:
    with pytest.raises(LongshoreError) as caught:
        datapath.init(store(wrong, "refused", ca=OURS), KEY)
    assert "certificate" in str(caught.value)
    assert not wrong.object_path("backups", "refused").exists()
    datapath.init(store(wrong, "skipped", skip=True), KEY)
