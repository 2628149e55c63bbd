"""Where a repository lies: settings of a folder or a bucket, and how a URL is read.

Settings are values: making them touches nothing. Credentials are kept out of every representation.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TypeAlias

from longshore import _native
from longshore.errors import StoreDeniedError, UnsupportedError, UsageError

__all__ = ["Credentials", "FolderStore", "S3Store", "StoreSettings", "native_store", "store_from_url"]


@dataclass(frozen=True, slots=True)
class Credentials:
    """Keys for a bucket."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    expires_at: datetime | None = None
    """When they end; whoever owns them renews them in time with :meth:`Repository.set_credentials`."""


@dataclass(frozen=True, slots=True)
class FolderStore:
    """A repository in a folder."""

    path: str
    """Absolute; it is made when the repository is, and never before."""
    read_only: bool = False

    @property
    def url(self) -> str:
        """The same as a URL, for messages."""
        return f"file://{urllib.parse.quote_from_bytes(self.path.encode('utf-8', 'surrogateescape'))}"


@dataclass(frozen=True, slots=True)
class S3Store:
    """A repository under a prefix of a bucket."""

    bucket: str
    prefix: str = ""
    _: KW_ONLY
    region: str | None = None
    endpoint_url: str | None = None
    """`https://host[:port]` of a server that is not Amazon's."""
    force_path_style: bool = False
    allow_http: bool = False
    insecure_skip_tls_verify: bool = False
    ca_cert_pem: str | None = None
    """Certificates to trust beside the system's."""
    server_side_encryption: str | None = None
    """`AES256` or `aws:kms`."""
    kms_key_id: str | None = None
    customer_key_base64: str | None = field(default=None, repr=False)
    checksum_algorithm: str | None = None
    """What guards bodies on their way up: None for CRC-64, `SHA256`, or `none` for servers that refuse the header."""
    read_only: bool = False
    credentials: Credentials | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """The same as a URL, for messages."""
        return "s3://" + "/".join(part for part in (self.bucket, self.prefix.strip("/")) if part)


StoreSettings: TypeAlias = FolderStore | S3Store


def store_from_url(url: str, *, environ: Mapping[str, str], read_only: bool = False) -> StoreSettings:
    """Read a repository's URL.

    Args:
        url: `file:///folder`, an absolute path, or `s3://bucket/prefix`.
        environ: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION` or `AWS_DEFAULT_REGION`, `AWS_ENDPOINT_URL_S3` or
            `AWS_ENDPOINT_URL`, and `AWS_CA_BUNDLE` are taken from it for a bucket. An endpoint named with `http://` is used without TLS.
        read_only: refuse every write.

    Raises:
        StoreDeniedError: a bucket, and no credentials for it.
        UnsupportedError: a kind of store that this version cannot use.
        UsageError: the URL makes no sense.
    """
    if url.startswith("/"):
        return FolderStore(url, read_only=read_only)
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise UsageError(
            f"repository is no URL: repository={url!r}", "write file:///folder, s3://bucket/prefix or an absolute path"
        )
    if "@" in rest.partition("/")[0]:
        # Not repeated: it may hold a password.
        raise UsageError(
            "repository URL must not hold credentials", "hand them in by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    match scheme:
        case "file":
            return FolderStore(_file_path(rest), read_only=read_only)
        case "s3":
            return _bucket(rest, environ=environ, read_only=read_only)
        case "gs" | "az":
            raise UnsupportedError(
                f"this version cannot use stores of this kind yet: kind={scheme}",
                "use s3:// (Google Cloud Storage speaks it too) or file://",
            )
        case _:
            raise UsageError(f"unknown kind of store: kind={scheme!r}", "use file:// or s3://")


def _file_path(rest: str) -> str:
    path = rest.removeprefix("localhost") if rest.startswith("localhost/") else rest
    if not path.startswith("/"):
        raise UsageError(f"file URL must hold an absolute path: path={path!r}", "write file:///folder")
    decoded = urllib.parse.unquote_to_bytes(path)
    if b"\0" in decoded:
        raise UsageError("file URL holds a zero byte", "write file:///folder")
    return decoded.decode("utf-8", "surrogateescape")


def _bucket(rest: str, *, environ: Mapping[str, str], read_only: bool) -> S3Store:
    if any(mark in rest for mark in "?#%"):
        raise UsageError("bucket URL may hold only a bucket and a prefix", "write s3://bucket/prefix")
    bucket, _, prefix = rest.partition("/")
    if not bucket:
        raise UsageError("bucket URL names no bucket", "write s3://bucket/prefix")
    endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or None
    access, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    if not access or not secret:
        missing = [
            name for name, value in (("AWS_ACCESS_KEY_ID", access), ("AWS_SECRET_ACCESS_KEY", secret)) if not value
        ]
        raise StoreDeniedError(
            f"no credentials were found for the store: store=s3://{bucket}, not_set=[{', '.join(missing)}]",
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_SESSION_TOKEN where they are temporary",
        )
    return S3Store(
        bucket,
        prefix.strip("/"),
        region=environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or None,
        endpoint_url=endpoint,
        # Whoever names an endpoint without TLS has said so.
        allow_http=endpoint is not None and endpoint.startswith("http://"),
        ca_cert_pem=_pem(environ.get("AWS_CA_BUNDLE")),
        read_only=read_only,
        credentials=Credentials(access, secret, environ.get("AWS_SESSION_TOKEN") or None),
    )


def _pem(path: str | None) -> str | None:
    if not path:
        return None
    try:
        return Path(path).read_text(encoding="ascii", errors="replace")
    except OSError as err:
        raise UsageError(
            f"file of certificates cannot be read: path={path}, error={err.strerror}", "mend AWS_CA_BUNDLE"
        ) from err


def native_store(settings: StoreSettings) -> _native.Store:
    """Give the extension's side of settings; sends no request.

    Raises:
        UsageError: the settings make no sense.
    """
    match settings:
        case FolderStore():
            return _native.Store.folder(settings.path, read_only=settings.read_only)
        case S3Store():
            keys = settings.credentials
            return _native.Store.s3(
                bucket=settings.bucket,
                prefix=settings.prefix,
                region=settings.region,
                endpoint_url=settings.endpoint_url,
                force_path_style=settings.force_path_style,
                allow_http=settings.allow_http,
                insecure_skip_tls_verify=settings.insecure_skip_tls_verify,
                ca_cert_pem=settings.ca_cert_pem,
                server_side_encryption=settings.server_side_encryption,
                kms_key_id=settings.kms_key_id,
                customer_key_base64=settings.customer_key_base64,
                checksum_algorithm=settings.checksum_algorithm,
                read_only=settings.read_only,
                credentials=None if keys is None else (keys.access_key, keys.secret_key, keys.session_token),
            )
