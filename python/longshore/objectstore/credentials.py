"""Whose credentials reach a bucket: Velero's order, one place after another, and an error that names each place when none has any.

1. `spec.credential`: a Secret that holds an AWS shared-credentials file, profile `config.profile`.
2. The file that `AWS_SHARED_CREDENTIALS_FILE` names, profile `config.profile`.
3. The environment (`AWS_ACCESS_KEY_ID` and its companions).
4. Web identity (`AWS_WEB_IDENTITY_TOKEN_FILE` and `AWS_ROLE_ARN`: a service account with a role).
5. Instance metadata: the container's endpoint where one is named, then the machine's.

Promises: a place that was named on purpose and does not give credentials (1; or 2 with a profile that the file lacks) ends the search: falling through to
another identity could read or write somebody else's bucket. Files are read at each call, so that rotated ones count; botocore's own providers do the talking;
no program is ever run because a file says so (`credential_process`). Secrets never show in `repr` or messages.

Profiles may assume a role (`role_arn` with `source_profile`, `credential_source` or `web_identity_token_file`).
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from longshore.errors import LongshoreError, NotFoundError, StoreDeniedError, StoreUnavailableError
from longshore.logs import get_logger
from longshore.objectstore.settings import AwsSettings, SecretReader

__all__ = ["CredentialSource", "Credentials", "credentials_for", "new_session"]

log = get_logger(__name__)

_METADATA_TIMEOUT_SECONDS: Final = 1
_METADATA_ATTEMPTS: Final = 2
_STS_TIMEOUT_SECONDS: Final = 10
_FILE_SIZE_BYTES_MAX: Final = 1024 * 1024

CredentialSource = Callable[[], "Credentials"]
_Profiles = dict[str, dict[str, str]]


@dataclass(frozen=True, slots=True)
class Credentials:
    """Keys for a bucket, as long as they last."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    expires_at: datetime | None = None
    """In UTC; None when they last until someone takes them back."""
    origin: str = ""
    """Where they were found, for logs."""
    _source: CredentialSource | None = field(default=None, repr=False, compare=False)

    def refresh(self) -> Credentials:
        """Look again, in the same order; rotated and renewed ones are found.

        Raises:
            StoreDeniedError: there are none any more.
            StoreUnavailableError: the place that gave these does not answer.
        """
        return self if self._source is None else self._source()


def credentials_for(settings: AwsSettings, *, read_secret: SecretReader) -> Credentials:
    """Find the credentials of a location.

    Args:
        read_secret: reads Secrets of the location's namespace.

    Raises:
        StoreDeniedError: no place has any; the message names each that was tried, and why it has none.
        StoreUnavailableError: a place that should have some does not answer.
    """
    tried: list[str] = []
    search = _Search(settings, read_secret)
    for place in (search.secret, search.shared_file, search.environment, search.web_identity, search.instance_metadata):
        found, said = place()
        if found is not None:
            log.debug("Found credentials", location=settings.location, origin=said)
            return replace(found, origin=said, _source=lambda: credentials_for(settings, read_secret=read_secret))
        tried.append(said)
    raise StoreDeniedError(
        f"no credentials were found for the storage location: location={settings.location}, tried=[{'; '.join(tried)}]",
        "put an AWS credentials file in a Secret and name it in spec.credential",
    )


class _Search:
    """The places in turn: each gives credentials and their origin, or None and why."""

    def __init__(self, settings: AwsSettings, read_secret: SecretReader) -> None:
        self._settings = settings
        self._read_secret = read_secret

    def secret(self) -> tuple[Credentials | None, str]:
        reference = self._settings.credential
        if reference is None:
            return None, "spec.credential: not set"
        where = f"spec.credential: secret={reference.name}, key={reference.key}"
        try:
            text = self._read_secret(reference.name, reference.key)
        except NotFoundError as err:
            raise StoreDeniedError(
                f"the storage location's Secret or its key is not there: location={self._settings.location}, secret={reference}",
                "create it with an AWS credentials file in it, or correct spec.credential",
            ) from err
        return self._from_file(where, text, profile=self._settings.profile or "default", must=True)

    def shared_file(self) -> tuple[Credentials | None, str]:
        path = os.environ.get("AWS_SHARED_CREDENTIALS_FILE")
        if not path:
            return None, "AWS_SHARED_CREDENTIALS_FILE: not set"
        where = f"AWS_SHARED_CREDENTIALS_FILE: path={path}"
        try:
            with Path(path).open("rb") as file:
                text = file.read(_FILE_SIZE_BYTES_MAX)
        except OSError as err:
            return None, f"{where}, error={err.strerror}"
        profile = self._settings.profile or os.environ.get("AWS_PROFILE") or "default"
        return self._from_file(where, text, profile=profile, must=self._settings.profile is not None)

    def environment(self) -> tuple[Credentials | None, str]:
        from botocore.credentials import EnvProvider

        where = "environment: AWS_ACCESS_KEY_ID"
        found = self._load(where, EnvProvider(os.environ).load)
        return (found, where) if found else (None, f"{where} not set")

    def web_identity(self) -> tuple[Credentials | None, str]:
        from botocore.credentials import AssumeRoleWithWebIdentityProvider

        where = "web identity: AWS_WEB_IDENTITY_TOKEN_FILE"
        if not os.environ.get("AWS_WEB_IDENTITY_TOKEN_FILE"):
            return None, f"{where} not set"
        provider = AssumeRoleWithWebIdentityProvider(dict, self._sts_client, "default")
        return self._load(where, provider.load), where

    def instance_metadata(self) -> tuple[Credentials | None, str]:
        from botocore.credentials import ContainerProvider, InstanceMetadataProvider

        where = "container credentials: AWS_CONTAINER_CREDENTIALS_FULL_URI"
        if found := self._load(where, ContainerProvider(os.environ).load):
            return found, where
        if os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
            return None, f"{where} not set; instance metadata: switched off"
        where = "instance metadata"
        found = self._load(where, InstanceMetadataProvider(self._metadata_fetcher()).load)
        return (found, where) if found else (None, f"{where}: no answer or no role")

    def _metadata_fetcher(self) -> Any:
        from botocore.utils import InstanceMetadataFetcher

        return InstanceMetadataFetcher(
            timeout=_METADATA_TIMEOUT_SECONDS,
            num_attempts=_METADATA_ATTEMPTS,
            env=os.environ,
            config={
                "ec2_metadata_service_endpoint": os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT"),
                "ec2_metadata_service_endpoint_mode": os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE"),
                "ec2_metadata_v1_disabled": None,
            },
        )

    def _from_file(self, where: str, text: bytes, *, profile: str, must: bool) -> tuple[Credentials | None, str]:
        """Take a profile from the text of a credentials file: a role if it names one, else its keys."""
        from botocore.credentials import (
            AssumeRoleProvider,
            AssumeRoleWithWebIdentityProvider,
            CanonicalNameCredentialSourcer,
            ContainerProvider,
            EnvProvider,
            InstanceMetadataProvider,
            SharedCredentialProvider,
        )

        where = f"{where}, profile={profile}"
        profiles = self._profiles(where, text)

        def loaded() -> Mapping[str, Any]:
            return {"profiles": profiles}

        sourcer = CanonicalNameCredentialSourcer(
            [
                EnvProvider(os.environ),
                ContainerProvider(os.environ),
                InstanceMetadataProvider(self._metadata_fetcher()),
            ]
        )
        providers = (
            AssumeRoleWithWebIdentityProvider(loaded, self._sts_client, profile, disable_env_vars=True),
            AssumeRoleProvider(loaded, self._sts_client, {}, profile, self._ask_nobody, credential_sourcer=sourcer),
            SharedCredentialProvider("", profile, ini_parser=lambda _: profiles),
        )
        for provider in providers:
            if found := self._load(where, provider.load):
                return found, where
        why = "has neither keys nor a role" if profile in profiles else "is not in the file"
        if must:
            raise StoreDeniedError(
                f"the profile gives no credentials, it {why}: location={self._settings.location}, {where}",
                "add aws_access_key_id and aws_secret_access_key under that profile, or correct config.profile",
            )
        return None, f"{where} {why}"

    def _ask_nobody(self, prompt: str) -> str:
        raise StoreDeniedError(
            f"the role asks for a one-time password: location={self._settings.location}, prompt={prompt!r}",
            "use a role without mfa_serial",
        )

    def _profiles(self, where: str, text: bytes) -> _Profiles:
        profiles = _parse(text.decode("utf-8-sig", errors="replace"))
        if profiles is None:
            # The parser's own words quote the line that it stumbled over, which may be a key.
            raise StoreDeniedError(
                f"the credentials file cannot be read as one: location={self._settings.location}, {where}",
                "write it as [default], aws_access_key_id = ..., aws_secret_access_key = ..., each in a line of its own",
            )
        if not self._settings.enable_shared_config:
            return profiles
        path = Path(os.environ.get("AWS_CONFIG_FILE") or "~/.aws/config").expanduser()
        try:
            shared = _parse(path.read_text(encoding="utf-8", errors="replace")) or {}
        except OSError:
            return profiles
        # In the configuration file a section is called `profile NAME`; where both files set a value, the credentials file's counts.
        named = {name.removeprefix("profile ").strip(): values for name, values in shared.items()}
        return {name: named.get(name, {}) | profiles.get(name, {}) for name in named.keys() | profiles.keys()}

    def _load(self, where: str, load: Callable[[], Any]) -> Credentials | None:
        """Ask one of botocore's providers, and fetch at once what it would put off."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            found = load()
            if found is None:
                return None
            frozen = found.get_frozen_credentials()
        except (BotoCoreError, ClientError, OSError) as err:
            raise self._refused(where, err) from err
        if not frozen.access_key or not frozen.secret_key:
            return None
        expires_at = getattr(found, "_expiry_time", None)
        return Credentials(
            frozen.access_key,
            frozen.secret_key,
            frozen.token,
            expires_at.astimezone(UTC) if isinstance(expires_at, datetime) else None,
        )

    def _refused(self, where: str, err: Exception) -> LongshoreError:
        from botocore.exceptions import (
            ClientError,
            HTTPClientError,
            MetadataRetrievalError,
        )
        from botocore.exceptions import (
            ConnectionError as BotoConnectionError,
        )

        status = 0
        if isinstance(err, ClientError):
            status = err.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        text = f"the credentials cannot be fetched: location={self._settings.location}, {where}, error={err}"
        if isinstance(err, (BotoConnectionError, HTTPClientError, MetadataRetrievalError)) or status >= 500:
            return StoreUnavailableError(text, "check that the node reaches the credentials service; it is tried again")
        return StoreDeniedError(text, "correct the profile, the role and its trust, or the token's file")

    def _sts_client(self, service: str, **options: Any) -> Any:
        from botocore.config import Config

        region = (
            self._settings.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        )
        config = Config(
            connect_timeout=_STS_TIMEOUT_SECONDS,
            read_timeout=_STS_TIMEOUT_SECONDS,
            retries={"mode": "standard", "total_max_attempts": 3},
        )
        given = options.get("config")
        options["config"] = config if given is None else config.merge(given)
        options.setdefault("region_name", region)
        return new_session().create_client(service, **options)


def new_session() -> Any:
    """Make a botocore session that takes nothing from the AWS files and profiles of whoever started us."""
    from botocore.session import Session

    nothing = (None, None, None, None)
    return Session(
        session_vars={
            "profile": nothing,
            "config_file": (None, None, os.devnull, None),
            "credentials_file": (None, None, os.devnull, None),
        }
    )


def _parse(text: str) -> _Profiles | None:
    """Read a credentials file; nested settings (`s3 =` and indented lines) are kept as text that nobody reads."""
    parser = configparser.RawConfigParser(default_section="\0none", strict=False)
    try:
        parser.read_string(text)
    except configparser.Error:
        return None
    return {section: dict(parser.items(section)) for section in parser.sections()}
