"""What goes over the wire to an S3 server and what its answers mean, against a server that answers as each test says."""

import base64
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.support.pki import Authority
from tests.unit.objectstore.http_server import Answer, Request, Server, serving
from tests.unit.objectstore.locations import aws

from longshore.errors import (
    DeniedError,
    LongshoreError,
    NoSpaceError,
    NotFoundError,
    StoreDeniedError,
    StoreUnavailableError,
    UnsupportedError,
    UsageError,
)
from longshore.objectstore import aws as aws_module
from longshore.objectstore.aws import AwsStore, lookup_region
from longshore.objectstore.credentials import Credentials

KEYS = Credentials("AKIDEXAMPLE", "hunter2")
XML = {"Content-Type": "application/xml"}


@pytest.fixture(autouse=True)
def _one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting between attempts is botocore's, and long."""
    monkeypatch.setattr(aws_module, "_ATTEMPTS_MAX", 1)


def store_at(server: Server, config: dict[str, str] | None = None, **options: object) -> AwsStore:
    settings = {"s3Url": server.url, "s3ForcePathStyle": "true", "region": "eu-west-1", **(config or {})}
    return AwsStore(
        aws({name: value for name, value in settings.items() if value}, **options), credentials=lambda: KEYS
    )  # type: ignore[arg-type]


def error_body(code: str, message: str = "no") -> bytes:
    return f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


def test_listing_goes_through_all_pages_below_the_prefix() -> None:
    def answer(request: Request) -> Answer:
        query = {name: values[0] for name, values in parse_qs(urlsplit(request.path).query).items()}
        assert urlsplit(request.path).path == "/backups"
        assert query["prefix"] == "one/"
        more = "continuation-token" not in query
        name = "b" if more else "a"
        folders = f"<CommonPrefixes><Prefix>one/{name}/</Prefix></CommonPrefixes>" if "delimiter" in query else ""
        contents = f"<Contents><Key>one/{name}/x</Key></Contents><Contents><Key>one/{name}/</Key></Contents>"
        token = "<NextContinuationToken>t</NextContinuationToken>" if more else ""
        body = f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{token}{contents}{folders}</ListBucketResult>"
        return 200, XML, body.encode()

    with serving(answer) as server:
        store = store_at(server, storage={"prefix": "one"})
        assert store.probe() == ("a", "b")
        assert store.list_common_prefixes("") == ("a/", "b/")
        assert list(store.list("")) == ["b/x", "a/x"]
        store.close()
    assert len(server.requests) == 6


def test_put_carries_what_the_location_says_and_no_checksum_of_its_own() -> None:
    with serving(lambda _: (200, {"ETag": '"x"'}, b"")) as server:
        store_at(server).put("metadata/a", b"data")
        config = {"kmsKeyId": "alias/k", "checksumAlgorithm": "SHA256", "tagging": "team=db"}
        store_at(server, config, storage={"prefix": "one"}).put("metadata/a", b"data")
        store_at(server, {"checksumAlgorithm": ""}).put("metadata/a", b"data")
    plain, full, off = server.requests
    assert not [name for name in off.headers if "checksum" in name or name.startswith("x-amz-trailer")]
    assert (plain.method, plain.path, plain.body) == ("PUT", "/backups/metadata/a", b"data")
    assert not [
        name for name in plain.headers if name.startswith(("x-amz-checksum", "x-amz-sdk-checksum", "x-amz-trailer"))
    ]
    assert "x-amz-server-side-encryption" not in plain.headers
    assert "/eu-west-1/s3/aws4_request" in plain.headers["authorization"]
    assert full.path == "/backups/one/metadata/a"
    assert full.headers["x-amz-server-side-encryption"] == "aws:kms"
    assert full.headers["x-amz-server-side-encryption-aws-kms-key-id"] == "alias/k"
    assert full.headers["x-amz-tagging"] == "team=db"
    assert "x-amz-checksum-sha256" in full.headers


def test_location_alone_says_where_the_store_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_PROFILE", "nobody-made-this")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "other")
    with serving(lambda _: (200, {}, b"x")) as server:
        assert store_at(server).get("a") == b"x"
    assert "Credential=AKIDEXAMPLE/" in server.requests[0].headers["authorization"]
    store = AwsStore(aws({"region": "eu-west-1"}), credentials=lambda: KEYS)
    assert store._connected().meta.endpoint_url == "https://s3.eu-west-1.amazonaws.com"


def test_read_only_location_is_never_asked_to_write() -> None:
    with serving(lambda _: (200, {}, b"")) as server:
        store = store_at(server, accessMode="ReadOnly")
        for write in (lambda: store.put("a", b""), lambda: store.delete("a")):
            with pytest.raises(DeniedError, match="read-only: location=nas"):
                write()
    assert not server.requests


def test_object_longer_than_expected_is_not_taken() -> None:
    with serving(lambda _: (200, {}, b"12345")) as server:
        assert store_at(server).get("a", size_bytes_max=5) == b"12345"
        with pytest.raises(UnsupportedError, match="size_bytes_max=4"):
            store_at(server).get("a", size_bytes_max=4)


def test_object_cut_short_is_not_taken() -> None:
    with (
        serving(lambda _: (200, {"Content-Length": "9", "Connection": "close"}, b"12345")) as server,
        pytest.raises(StoreUnavailableError),
    ):
        store_at(server).get("a")


@pytest.mark.parametrize("method", ["exists", "delete"])
def test_missing_object_is_told_from_missing_bucket(method: str) -> None:
    with serving(lambda r: (404 if r.path != "/backups" else 200, {}, b"")) as server:
        assert not getattr(store_at(server), method)("a")
    with serving(lambda _: (404, {}, b"")) as server, pytest.raises(NotFoundError):
        getattr(store_at(server), method)("a")


@pytest.mark.parametrize(
    ("status", "code", "error", "said"),
    [
        (404, "NoSuchBucket", NotFoundError, "the bucket is not there"),
        (404, "NoSuchKey", NotFoundError, "the object or its bucket is not there"),
        (403, "AccessDenied", StoreDeniedError, "refuses these credentials"),
        (403, "InvalidAccessKeyId", StoreDeniedError, "does not know these credentials"),
        (403, "SignatureDoesNotMatch", StoreDeniedError, "does not know these credentials"),
        (400, "ExpiredToken", StoreDeniedError, "the credentials have ended"),
        (403, "RequestTimeTooSkewed", StoreDeniedError, "clocks"),
        (400, "AuthorizationHeaderMalformed", UsageError, "another region"),
        (400, "InvalidRequest", UsageError, "does not take the request"),
        (503, "SlowDown", StoreUnavailableError, "in trouble"),
        (500, "InternalError", StoreUnavailableError, "in trouble"),
        (429, "TooMany", StoreUnavailableError, "in trouble"),
        (507, "XMinioStorageFull", NoSpaceError, "full"),
        (403, "QuotaExceeded", NoSpaceError, "full"),
    ],
)
def test_answers_are_sorted_by_what_to_do(status: int, code: str, error: type[LongshoreError], said: str) -> None:
    with serving(lambda _: (status, XML, error_body(code))) as server, pytest.raises(error) as refused:
        store_at(server).get("metadata/a")
    assert type(refused.value) is error
    assert said in refused.value.message
    for part in ("location=nas", "bucket=backups", "key=metadata/a", f"code={code}"):
        assert part in refused.value.message
    assert refused.value.next_step
    assert "hunter2" not in refused.value.text()


def test_server_that_is_away_may_come_back() -> None:
    with serving(lambda _: (200, {}, b"")) as server:
        pass
    with pytest.raises(StoreUnavailableError, match="does not answer") as refused:
        store_at(server).probe()
    assert "s3Url" in (refused.value.next_step or "")


# --- TLS ---


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("store authority")


@pytest.fixture
def secure_server(authority: Authority, tmp_path: Path) -> Iterator[Server]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pair = authority.issue_server("store", dns_names=["localhost"], addresses=["127.0.0.1"])
    context.load_cert_chain(*pair.write(tmp_path, "store"))
    with serving(lambda _: (200, {}, b"x"), tls=context) as server:
        yield server


def test_certificate_nobody_vouches_for_is_refused(secure_server: Server) -> None:
    other = base64.b64encode(Authority("other").certificate).decode()
    for storage in ({}, {"caCert": other}):
        with pytest.raises(StoreUnavailableError, match="certificate is not trusted") as refused:
            store_at(secure_server, storage=storage).get("a")
        assert "caCert" in (refused.value.next_step or "")
    assert not secure_server.requests


def test_certificate_of_the_location_is_trusted(secure_server: Server, authority: Authority) -> None:
    store = store_at(secure_server, storage={"caCert": base64.b64encode(authority.certificate).decode()})
    assert store.get("a") == b"x"
    store.close()


def test_certificate_is_not_looked_at_when_told_so(secure_server: Server) -> None:
    with pytest.warns(Warning, match="Unverified HTTPS"):
        assert store_at(secure_server, {"insecureSkipTLSVerify": "true"}).get("a") == b"x"


# --- region ---


def test_region_is_looked_up_and_used() -> None:
    with serving(lambda _: (200, {"x-amz-bucket-region": "mars-1"}, b"")) as server:
        store = store_at(server, {"region": ""})
        store.put("a", b"")
        store.put("a", b"")
        assert store.region == "mars-1"
    assert [request.method for request in server.requests] == ["HEAD", "PUT", "PUT"]
    assert "/mars-1/s3/" in server.requests[1].headers["authorization"]


def test_region_on_a_refusal_counts_too() -> None:
    with serving(lambda _: (403, {"x-amz-bucket-region": "mars-1"}, b"")) as server:
        settings = aws({"s3Url": server.url, "s3ForcePathStyle": "true"})
        assert lookup_region(settings, credentials=lambda: KEYS) == "mars-1"


def test_server_that_does_not_tell_is_taken_as_most_are() -> None:
    with serving(lambda _: (200, {}, b"")) as server:
        assert store_at(server, {"region": ""}).region == "us-east-1"


def test_wrong_region_is_not_put_right_in_silence() -> None:
    """The data path takes the location at its word, so the control plane must not know better."""

    def answer(request: Request) -> Answer:
        if "/mars-1/" in request.headers["authorization"]:
            return 200, {}, b"x"
        return 301, {**XML, "x-amz-bucket-region": "mars-1"}, error_body("PermanentRedirect")

    with serving(answer) as server, pytest.raises(UsageError, match="another region") as refused:
        store_at(server).get("a")
    assert "config.region" in (refused.value.next_step or "")
    with serving(answer) as server:
        assert store_at(server, {"region": ""}).get("a") == b"x"


def test_wrong_region_is_seen_without_a_body_too() -> None:
    with serving(lambda _: (301, {}, b"")) as server, pytest.raises(UsageError, match="another region"):
        store_at(server).exists("a")


def test_region_that_is_written_is_not_looked_up() -> None:
    def nobody() -> Credentials:
        raise AssertionError

    assert lookup_region(aws({"region": "eu-west-1"}), credentials=nobody) == "eu-west-1"


# --- credentials ---


class Renewing:
    """Credentials that end, and what was handed out."""

    def __init__(self, start: datetime) -> None:
        self.now = start
        self.handed_out = 0
        self.fails = False

    def __call__(self) -> Credentials:
        if self.fails:
            raise StoreUnavailableError("the credentials service is away")
        self.handed_out += 1
        expires_at = self.now + timedelta(hours=1)
        return Credentials(f"KEY{self.handed_out}", "s", "t", expires_at, _source=self)


def test_credentials_are_renewed_before_they_end() -> None:
    source = Renewing(datetime(2026, 11, 21, tzinfo=UTC))
    with serving(lambda _: (200, {}, b"x")) as server:
        settings = aws({"s3Url": server.url, "s3ForcePathStyle": "true", "region": "r"})
        store = AwsStore(settings, credentials=source, now=lambda: source.now)
        for minutes in (0, 54, 2):
            source.now += timedelta(minutes=minutes)
            store.get("a")
    used = [request.headers["authorization"].split("Credential=")[1].split("/")[0] for request in server.requests]
    assert used == ["KEY1", "KEY1", "KEY2"]


def test_credentials_that_still_last_outlive_a_failed_renewal() -> None:
    source = Renewing(datetime(2026, 11, 21, tzinfo=UTC))
    with serving(lambda _: (200, {}, b"x")) as server:
        settings = aws({"s3Url": server.url, "s3ForcePathStyle": "true", "region": "r"})
        store = AwsStore(settings, credentials=source, now=lambda: source.now)
        store.get("a")
        source.fails = True
        source.now += timedelta(minutes=57)
        assert store.get("a") == b"x"
        source.now += timedelta(minutes=4)
        with pytest.raises(StoreUnavailableError, match="credentials service"):
            store.get("a")


def test_refused_credentials_are_looked_for_again() -> None:
    found = iter([Credentials("OLD", "s"), Credentials("NEW", "s")])

    def answer(request: Request) -> Answer:
        if "Credential=OLD/" in request.headers["authorization"]:
            return 403, XML, error_body("InvalidAccessKeyId")
        return 200, {}, b"x"

    with serving(answer) as server:
        settings = aws({"s3Url": server.url, "s3ForcePathStyle": "true", "region": "r"})
        store = AwsStore(settings, credentials=lambda: next(found))
        with pytest.raises(StoreDeniedError):
            store.get("a")
        assert store.get("a") == b"x"
