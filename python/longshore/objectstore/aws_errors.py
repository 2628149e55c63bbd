"""Sorts what botocore raises into our errors by what the operator does next.

Promises: every error names location, bucket and key, says the store's own code and message, and shows no credential.

It holds the codes of Amazon's S3 and of servers that speak its protocol; an unknown code is sorted by its HTTP status. It reads the errors' shape and imports
nothing of botocore before there is one.
"""

from __future__ import annotations

from typing import Final

from longshore.errors import (
    LongshoreError,
    NoSpaceError,
    NotFoundError,
    StoreDeniedError,
    StoreUnavailableError,
    UsageError,
)
from longshore.objectstore.settings import AwsSettings

__all__ = ["error_from"]

_NO_BUCKET: Final = frozenset({"NoSuchBucket"})
_WRONG_REGION: Final = frozenset(
    {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
)
_EXPIRED: Final = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"})
_SKEWED: Final = frozenset({"RequestTimeTooSkewed"})
_WRONG_KEYS: Final = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidClientTokenId"})
_FULL: Final = frozenset({"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "EntityTooLarge"})
_LATER: Final = frozenset(
    {"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "ThrottlingException", "Throttling"}
)


def error_from(err: Exception, *, settings: AwsSettings, key: str) -> LongshoreError:
    """Translate an error of botocore.

    Args:
        err: what was raised.
        settings: whose store it was.
        key: what was asked for; empty for the bucket itself.
    """
    from botocore.exceptions import ClientError, SSLError

    about = f"location={settings.location}, bucket={settings.bucket}, key={key}"
    if isinstance(err, ClientError):
        return _from_answer(err.response, about=about)
    if isinstance(err, SSLError):
        return StoreUnavailableError(
            f"the store's certificate is not trusted: {about}, error={err}",
            "put its authority's certificate in objectStorage.caCert or caCertRef",
        )
    where = settings.endpoint_url or "Amazon S3"
    return StoreUnavailableError(
        f"the store does not answer: {about}, address={where}, error={err}",
        "check config.s3Url and the network; it is tried again",
    )


def _from_answer(answer: object, *, about: str) -> LongshoreError:
    fields = answer if isinstance(answer, dict) else {}
    error, metadata = fields.get("Error", {}), fields.get("ResponseMetadata", {})
    code, status = str(error.get("Code", "")), int(metadata.get("HTTPStatusCode", 0))
    about = f"{about}, status={status}, code={code}, answer={error.get('Message', '')!r}"
    if code in _NO_BUCKET:
        return NotFoundError(f"the bucket is not there: {about}", "create it, or correct objectStorage.bucket")
    if code in _WRONG_REGION or status in {301, 307}:
        return UsageError(f"the bucket lies in another region: {about}", "correct config.region, or leave it out")
    if code in _SKEWED:
        return StoreDeniedError(f"the clocks of node and store differ too much: {about}", "set the node's clock")
    if code in _EXPIRED:
        return StoreDeniedError(f"the credentials have ended: {about}", "renew them where the location takes them from")
    if code in _WRONG_KEYS:
        return StoreDeniedError(f"the store does not know these credentials: {about}", "correct the credentials file")
    if code in _FULL or status == 507:
        return NoSpaceError(f"the store is full: {about}", "free space, or raise the bucket's quota")
    if code in _LATER or status == 429 or status >= 500:
        return StoreUnavailableError(f"the store is in trouble: {about}", "wait; it is tried again")
    if status == 404:
        return NotFoundError(f"the object or its bucket is not there: {about}", "check objectStorage.bucket and prefix")
    if status in {401, 403}:
        step = "let the credentials list the bucket and get, put and delete its objects"
        return StoreDeniedError(f"the store refuses these credentials: {about}", step)
    return UsageError(f"the store does not take the request: {about}", "check the location's config")
