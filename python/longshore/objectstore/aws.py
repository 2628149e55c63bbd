"""An object store in a bucket behind the S3 protocol, by botocore.

Promises: every call ends (connect and read timeouts, a bounded number of tries); checksums that many S3 servers do not know are sent only where a location asks
for them; credentials are renewed before they end; nothing is written to a ReadOnly location; an answer becomes exactly one error that says what to do.

botocore, the part of boto3 that talks, stays out of sight: it is imported when the first client is made, and no type of its leaves this file.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from longshore.errors import NotFoundError, StoreDeniedError, UnavailableError, UnsupportedError, UsageError
from longshore.objectstore.aws_errors import error_from
from longshore.objectstore.credentials import Credentials, CredentialSource, new_session
from longshore.objectstore.settings import CHECKSUM_OFF, AwsSettings
from longshore.objectstore.store import OBJECT_SIZE_BYTES_MAX, check_key, check_prefix, refuse_write

__all__ = ["AwsStore", "lookup_region"]

_CONNECT_TIMEOUT_SECONDS: Final = 10
_READ_TIMEOUT_SECONDS: Final = 60
_ATTEMPTS_MAX: Final = 4
_RENEW_BEFORE: Final = timedelta(minutes=5)
_REGION_OF_OTHERS: Final = "us-east-1"
"""What an S3 server that is not Amazon's and does not say its region is most often set up with."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


class AwsStore:
    """The store of an aws location."""

    def __init__(
        self, settings: AwsSettings, *, credentials: CredentialSource, now: Callable[[], datetime] = _utc_now
    ) -> None:
        """Keep the settings; nothing is asked yet.

        Args:
            settings: where it is.
            credentials: finds credentials; asked at first use.
            now: the time in UTC.
        """
        self._settings = settings
        self._source = credentials
        self._now = now
        self._lock = threading.RLock()
        self._client: Any = None
        self._credentials: Credentials | None = None
        self._region = settings.region
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def url(self) -> str:
        """The location, for messages."""
        return self._settings.url

    @property
    def region(self) -> str:
        """The bucket's region: as configured, else looked up once.

        Raises:
            LongshoreError: as every call of an ObjectStore.
        """
        self._connected()
        return self._region or _REGION_OF_OTHERS

    def probe(self) -> tuple[str, ...]:
        """See :class:`longshore.objectstore.store.ObjectStore`."""
        return tuple(one.removesuffix("/") for one in self.list_common_prefixes(""))

    def list_common_prefixes(self, prefix: str) -> tuple[str, ...]:
        """See :class:`longshore.objectstore.store.ObjectStore`."""
        found = [
            one["Prefix"][len(self._key("")) :]
            for page in self._pages(check_prefix(prefix), Delimiter="/")
            for one in page.get("CommonPrefixes", ())
        ]
        return tuple(sorted(found))

    def list(self, prefix: str) -> Iterator[str]:
        """See :class:`longshore.objectstore.store.ObjectStore`."""
        for page in self._pages(check_prefix(prefix)):
            for one in page.get("Contents", ()):
                # A key that ends with a slash is how consoles make a "folder"; it holds nothing.
                if not one["Key"].endswith("/"):
                    yield one["Key"][len(self._key("")) :]

    def exists(self, key: str) -> bool:
        """See :class:`longshore.objectstore.store.ObjectStore`."""
        try:
            self._call(key, "head_object", Key=self._key(check_key(key)))
        except NotFoundError:
            # A HEAD has no body to tell a missing object from a missing bucket.
            self._call("", "head_bucket")
            return False
        return True

    def get(self, key: str, *, size_bytes_max: int = OBJECT_SIZE_BYTES_MAX) -> bytes:
        """See :class:`longshore.objectstore.store.ObjectStore`."""
        answer = self._call(key, "get_object", Key=self._key(check_key(key)))
        with contextlib.closing(answer["Body"]) as body, self._translated(key):
            data: bytes = body.read(size_bytes_max + 1)
            if len(data) <= size_bytes_max:
                # botocore compares the length that was announced only when the end is read.
                body.read(1)
                return data
        raise UnsupportedError(
            f"the object is longer than expected: url={self.url}, key={key}, size_bytes_max={size_bytes_max}"
        )

    def put(self, key: str, data: bytes) -> None:
        """See :class:`longshore.objectstore.store.ObjectStore`."""
        settings = self._settings
        if settings.read_only:
            raise refuse_write(location=settings.location, key=key)
        checksum = settings.checksum_algorithm
        options = {
            "ServerSideEncryption": settings.server_side_encryption,
            "SSEKMSKeyId": settings.kms_key_id,
            "ChecksumAlgorithm": None if checksum == CHECKSUM_OFF else checksum,
            "Tagging": settings.tagging,
        }
        given = {name: value for name, value in options.items() if value is not None}
        self._call(key, "put_object", Key=self._key(check_key(key)), Body=data, **given)

    def delete(self, key: str) -> None:
        """See :class:`longshore.objectstore.store.ObjectStore`."""
        if self._settings.read_only:
            raise refuse_write(location=self._settings.location, key=key)
        try:
            self._call(key, "delete_object", Key=self._key(check_key(key)))
        except NotFoundError:
            self._call("", "head_bucket")

    def close(self) -> None:
        """See :class:`longshore.objectstore.store.ObjectStore`."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None
            if self._folder is not None:
                self._folder.cleanup()
                self._folder = None

    def _key(self, key: str) -> str:
        return f"{self._settings.prefix}/{key}" if self._settings.prefix else key

    def _pages(self, prefix: str, **options: str) -> Iterator[dict[str, Any]]:
        with self._translated(prefix):
            paginator = self._connected().get_paginator("list_objects_v2")
            yield from paginator.paginate(Bucket=self._settings.bucket, Prefix=self._key(prefix), **options)

    def _call(self, key: str, operation: str, **options: Any) -> dict[str, Any]:
        with self._translated(key):
            answer: dict[str, Any] = getattr(self._connected(), operation)(Bucket=self._settings.bucket, **options)
            return answer

    @contextlib.contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError, OSError) as err:
            error = error_from(err, settings=self._settings, key=key)
            if isinstance(error, StoreDeniedError):
                # Keys may have been rotated: the next call looks for them again.
                self._forget()
            raise error from err

    def _forget(self) -> None:
        with self._lock:
            self._client = self._credentials = None

    def _connected(self) -> Any:
        """Give a client whose credentials still last."""
        with self._lock:
            held = self._credentials
            if (
                self._client is not None
                and held is not None
                and (held.expires_at is None or self._now() < held.expires_at - _RENEW_BEFORE)
            ):
                return self._client
            credentials = self._source() if held is None else self._renewed(held)
            if self._region is None:
                with self._translated(""):
                    self._region = _region_of_bucket(
                        self._settings, self._new_client(credentials, region=_REGION_OF_OTHERS)
                    )
            client = self._new_client(credentials, region=self._region)
            if self._client is not None:
                self._client.close()
            self._client, self._credentials = client, credentials
            return client

    def _renewed(self, held: Credentials) -> Credentials:
        try:
            return held.refresh()
        except UnavailableError:
            if held.expires_at is None or self._now() >= held.expires_at:
                raise
            return held

    def _new_client(self, credentials: Credentials, *, region: str) -> Any:
        from botocore.config import Config

        settings = self._settings
        config = Config(
            connect_timeout=_CONNECT_TIMEOUT_SECONDS,
            read_timeout=_READ_TIMEOUT_SECONDS,
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS_MAX},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            signature_version="s3v4",
            s3={"addressing_style": "path" if settings.force_path_style else "auto"},
            user_agent_appid="longshore",
            # The location alone says where the store is; the data path does not know AWS_ENDPOINT_URL either.
            ignore_configured_endpoint_urls=True,
        )
        client = new_session().create_client(
            "s3",
            region_name=region,
            endpoint_url=settings.endpoint_url,
            verify=self._verify(),
            aws_access_key_id=credentials.access_key,
            aws_secret_access_key=credentials.secret_key,
            aws_session_token=credentials.session_token,
            config=config,
        )
        client.meta.events.register_last("before-parameter-build.s3", _stay_in_region)
        return client

    def _verify(self) -> bool | str:
        """Tell botocore what to trust: nothing to check, the system's authorities, or those and the location's own."""
        if self._settings.insecure_skip_tls_verify:
            return False
        if self._settings.ca_bundle_pem is None:
            return True
        from botocore.httpsession import get_cert_path

        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="longshore-ca-")
            bundle = Path(self._folder.name) / "bundle.pem"
            bundle.write_bytes(
                Path(get_cert_path(verify=True)).read_bytes() + b"\n" + self._settings.ca_bundle_pem + b"\n"
            )
        return str(Path(self._folder.name) / "bundle.pem")


def lookup_region(settings: AwsSettings, *, credentials: CredentialSource) -> str:
    """Tell the region of a location's bucket, asking the store where the location does not say it.

    Raises:
        UsageError: the bucket's server does not tell; `config.region` must.
        LongshoreError: as every call of an ObjectStore.
    """
    if settings.region is not None:
        return settings.region
    store = AwsStore(settings, credentials=credentials)
    try:
        return store.region
    finally:
        store.close()


def _region_of_bucket(settings: AwsSettings, client: Any) -> str:
    """Ask for the bucket's region: the header stands on refusals and redirects too."""
    from botocore.exceptions import ClientError

    try:
        answer = client.head_bucket(Bucket=settings.bucket)
    except ClientError as err:
        answer = err.response
        if not _region_header(answer) and settings.endpoint_url is None:
            raise
    finally:
        client.close()
    if region := _region_header(answer):
        return region
    if settings.endpoint_url is not None:
        return _REGION_OF_OTHERS
    raise UsageError(
        f"the bucket's region cannot be looked up: location={settings.location}, bucket={settings.bucket}, "
        "field=config.region",
        "check the bucket's name, and write its region in config.region",
    )


def _stay_in_region(context: dict[str, Any], **_: object) -> None:
    """Keep botocore from asking again in the right region by itself.

    A location with a wrong region would look sound here, and fail in the data path, which takes the location at its word.
    """
    context.setdefault("s3_redirect", {})["redirected"] = True


def _region_header(answer: dict[str, Any]) -> str | None:
    region: str | None = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("x-amz-bucket-region")
    return region
