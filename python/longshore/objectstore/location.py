"""A BackupStorageLocation becomes StoreSettings, or an error that says which field is wrong and what to write instead.

Providers: `aws` (also written `velero.io/aws`, and every provider that we do not know but that has `config.s3Url`, as Velero does it) and `filesystem`. All of
Velero's config keys for aws are known; those that matter to nobody here (`signatureVersion`, `resticRepoPrefix`) are accepted, those that we cannot keep
(customer-provided encryption keys, a credentials file by path) are refused rather than ignored.

It looks at the local filesystem only for provider filesystem, and never at the network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from longshore.api import BackupStorageLocation
from longshore.errors import NotFoundError, UnsupportedError
from longshore.objectstore.fields import Fields
from longshore.objectstore.folders import check_folder
from longshore.objectstore.settings import (
    CHECKSUM_OFF,
    AwsSettings,
    FilesystemSettings,
    SecretKey,
    SecretReader,
    StoreSettings,
)

__all__ = ["AWS", "FILESYSTEM", "settings_of"]

AWS: Final = "aws"
FILESYSTEM: Final = "filesystem"
_VELERO_PREFIX: Final = "velero.io/"
_OTHERS: Final = {"azure", "gcp", "alibabacloud", "csi", "digitalocean", "openstack", "swift"}

_AWS_KEYS: Final = frozenset(
    {
        "checksumAlgorithm",
        "enableSharedConfig",
        "insecureSkipTLSVerify",
        "kmsKeyId",
        "profile",
        "publicUrl",
        "region",
        "resticRepoPrefix",
        "s3ForcePathStyle",
        "s3Url",
        "serverSideEncryption",
        "signatureVersion",
        "tagging",
    }
)
_AWS_REFUSED: Final = {
    "customerKeyEncryptionFile": "keys for encryption by the store cannot be handed over with each request",
    "customerKeyEncryptionSecret": "keys for encryption by the store cannot be handed over with each request",
    "credentialsFile": "a credentials file cannot be named by its path",
}
_AWS_REFUSED_STEP: Final = {
    "customerKeyEncryptionFile": "remove it, repository data is encrypted before it leaves the node; or use kmsKeyId",
    "customerKeyEncryptionSecret": "remove it, repository data is encrypted before it leaves the node; or use kmsKeyId",
    "credentialsFile": "put the file in a Secret and name it in spec.credential",
}
_ENCRYPTIONS: Final = ("AES256", "aws:kms")
"""What both sides can ask for; a location that only the control plane could write to would be Available and fail each backup."""
_CHECKSUMS: Final = ("CRC32", "CRC32C", "SHA1", "SHA256")


def settings_of(
    location: BackupStorageLocation, *, read_secret: SecretReader, forbidden_folders: tuple[Path, ...] = ()
) -> StoreSettings:
    """Check a location and take from it what a store needs.

    Args:
        read_secret: reads Secrets of the location's namespace; asked only for `caCertRef`.
        forbidden_folders: the pods root and the agent's own folders, with which a filesystem location may not overlap.

    Raises:
        UsageError: a field is wrong; the message names it.
        UnsupportedError: the provider is not served.
        StoreUnavailableError: the folder of a filesystem location is not there.
    """
    config = location.spec.config
    fields = Fields(location.metadata.name, config)
    provider = location.spec.provider.removeprefix(_VELERO_PREFIX)
    if provider == FILESYSTEM:
        return _filesystem(location, fields, forbidden_folders)
    if provider == AWS or (provider not in _OTHERS and config.get("s3Url")):
        return _aws(location, fields, read_secret)
    raise UnsupportedError(
        f"the storage location's provider is not served: location={location.metadata.name}, field=provider, value={location.spec.provider!r}",
        f"use {AWS}, another name with config.s3Url for a store that speaks S3, or {FILESYSTEM}",
    )


def _filesystem(location: BackupStorageLocation, fields: Fields, forbidden: tuple[Path, ...]) -> FilesystemSettings:
    fields.only({"path", "resticRepoPrefix"}, provider=FILESYSTEM)
    if location.spec.credential is not None:
        raise fields.refuse("credential", "a folder needs no credentials", next_step="remove it")
    storage = location.spec.object_storage
    if storage is not None and (storage.ca_cert or storage.ca_cert_ref):
        raise fields.refuse(
            "objectStorage.caCert", "a folder has no certificate", next_step="remove caCert and caCertRef"
        )
    path = fields.text("path")
    if path is None:
        raise fields.refuse(
            "config.path", "it is missing", next_step="write the absolute path of a folder or NAS mount"
        )
    return FilesystemSettings(
        location=location.metadata.name,
        read_only=location.spec.is_read_only,
        prefix=fields.prefix(storage.prefix) if storage else "",
        path=check_folder(path, forbidden=forbidden, refuse=fields.refuse),
        bucket=fields.bucket(storage.bucket) if storage and storage.bucket else "",
        forbidden=forbidden,
    )


def _aws(location: BackupStorageLocation, fields: Fields, read_secret: SecretReader) -> AwsSettings:
    for key, cause in _AWS_REFUSED.items():
        if location.spec.config.get(key):
            raise fields.refuse(f"config.{key}", cause, next_step=_AWS_REFUSED_STEP[key])
    fields.only(_AWS_KEYS, provider=AWS, looked_at=_AWS_REFUSED)
    storage = location.spec.object_storage
    if storage is None or not storage.bucket:
        raise fields.refuse("objectStorage.bucket", "it is missing", next_step="write the bucket's name")
    encryption, kms_key_id = fields.choice("serverSideEncryption", _ENCRYPTIONS), fields.text("kmsKeyId")
    if kms_key_id is not None and encryption == "AES256":
        raise fields.refuse(
            "config.kmsKeyId",
            "serverSideEncryption AES256 takes no key",
            next_step="set serverSideEncryption to aws:kms",
        )
    credential = location.spec.credential
    if credential is not None and not (credential.name and credential.key):
        raise fields.refuse("credential", "name or key is empty", next_step="name a Secret and the key inside it")
    return AwsSettings(
        location=location.metadata.name,
        read_only=location.spec.is_read_only,
        prefix=fields.prefix(storage.prefix),
        bucket=fields.bucket(storage.bucket),
        region=fields.region("region"),
        endpoint_url=fields.address("s3Url"),
        public_url=fields.address("publicUrl"),
        force_path_style=fields.flag("s3ForcePathStyle"),
        insecure_skip_tls_verify=fields.flag("insecureSkipTLSVerify"),
        ca_bundle_pem=_ca_bundle(location, fields, read_secret),
        credential=None if credential is None else SecretKey(credential.name, credential.key),
        profile=fields.text("profile"),
        enable_shared_config=fields.flag("enableSharedConfig"),
        server_side_encryption=encryption or ("aws:kms" if kms_key_id else None),
        kms_key_id=kms_key_id,
        checksum_algorithm=_checksum(fields),
        tagging=fields.tags("tagging"),
    )


def _checksum(fields: Fields) -> str | None:
    # Velero's switch: a value that is there and empty turns checksums off.
    found = fields.choice("checksumAlgorithm", _CHECKSUMS)
    return CHECKSUM_OFF if found is None and fields.has("checksumAlgorithm") else found


def _ca_bundle(location: BackupStorageLocation, fields: Fields, read_secret: SecretReader) -> bytes | None:
    storage = location.spec.object_storage
    if storage is None:
        return None
    reference = storage.ca_cert_ref
    if storage.ca_cert and reference is not None:
        raise fields.refuse("objectStorage.caCertRef", "caCert is set too", next_step="keep one of the two")
    if storage.ca_cert:
        field = "objectStorage.caCert"
        return fields.certificates(field, fields.base64_bytes(field, storage.ca_cert))
    if reference is None:
        return None
    field = "objectStorage.caCertRef"
    try:
        pem = read_secret(reference.name, reference.key)
    except NotFoundError as err:
        if reference.optional:
            return None
        step = "create the Secret, or correct its name and key"
        raise fields.refuse(
            field, "there is no such Secret or key", next_step=step, value=f"{reference.name}/{reference.key}"
        ) from err
    return fields.certificates(field, pem)
