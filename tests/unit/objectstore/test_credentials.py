"""Credentials are found in Velero's order, never shown, never fallen through from a place that was named on purpose."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from tests.unit.objectstore.http_server import Answer, Request, serving
from tests.unit.objectstore.locations import aws, secrets

from longshore.errors import StoreDeniedError, StoreUnavailableError
from longshore.objectstore.credentials import Credentials, credentials_for

SECRET = {"name": "cloud", "key": "aws"}
EXPIRES = "2126-11-21T10:00:00Z"


def file_of(access_key: str, *, profile: str = "default", **more: str) -> bytes:
    lines = [f"[{profile}]", f"aws_access_key_id = {access_key}", f"aws_secret_access_key = secret-{access_key}"]
    return "\n".join([*lines, *(f"{name} = {value}" for name, value in more.items()), ""]).encode()


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the machine's own AWS settings, and no metadata service unless a test makes one."""
    import os

    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def every_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Credentials in all five places; tests take them away from the front."""
    (tmp_path / "cloud").write_bytes(file_of("file"))
    (tmp_path / "token").write_text("token")
    with serving(_sts) as sts, serving(_metadata) as metadata:
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "cloud"))
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "environment")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-environment")
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
        monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/backup")
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.url)
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.url)
        yield {"cloud/aws": file_of("secret")}


def _sts(request: Request) -> Answer:
    action = parse_qs(request.body.decode())["Action"][0]
    body = (
        f'<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result><Credentials>'
        f"<AccessKeyId>{action}</AccessKeyId><SecretAccessKey>secret</SecretAccessKey><SessionToken>session</SessionToken>"
        f"<Expiration>{EXPIRES}</Expiration></Credentials></{action}Result></{action}Response>"
    )
    return 200, {"Content-Type": "text/xml"}, body.encode()


def _metadata(request: Request) -> Answer:
    if request.path == "/latest/api/token":
        return 200, {}, b"token"
    if request.path.endswith("/security-credentials/"):
        return 200, {}, b"role"
    keys = {
        "Code": "Success",
        "AccessKeyId": "metadata",
        "SecretAccessKey": "secret",
        "Token": "session",
        "Expiration": EXPIRES,
    }
    return 200, {}, json.dumps(keys).encode()


def test_places_are_asked_in_veleros_order(every_place: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    read = secrets(every_place)
    found = [credentials_for(aws(credential=SECRET), read_secret=read)]
    found.append(credentials_for(aws(), read_secret=read))
    monkeypatch.delenv("AWS_SHARED_CREDENTIALS_FILE")
    found.append(credentials_for(aws(), read_secret=read))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    found.append(credentials_for(aws(), read_secret=read))
    monkeypatch.delenv("AWS_WEB_IDENTITY_TOKEN_FILE")
    found.append(credentials_for(aws(), read_secret=read))
    assert [one.access_key for one in found] == [
        "secret",
        "file",
        "environment",
        "AssumeRoleWithWebIdentity",
        "metadata",
    ]
    expires = datetime(2126, 11, 21, 10, tzinfo=UTC)
    assert [one.expires_at for one in found] == [None, None, None, expires, expires]
    assert [one.session_token for one in found] == [None, None, None, "session", "session"]
    assert [one.origin.split(":")[0] for one in found] == [
        "spec.credential",
        "AWS_SHARED_CREDENTIALS_FILE",
        "environment",
        "web identity",
        "instance metadata",
    ]


def test_nothing_found_names_every_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere/cloud")
    with pytest.raises(StoreDeniedError) as refused:
        credentials_for(aws(), read_secret=secrets())
    for place in (
        "spec.credential: not set",
        "AWS_SHARED_CREDENTIALS_FILE: path=/nowhere/cloud, error=No such file",
        "environment: AWS_ACCESS_KEY_ID not set",
        "web identity: AWS_WEB_IDENTITY_TOKEN_FILE not set",
        "instance metadata: switched off",
    ):
        assert place in refused.value.message
    assert "location=nas" in refused.value.message
    assert "spec.credential" in (refused.value.next_step or "")


def test_metadata_service_without_a_role_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    with serving(lambda _: (404, {}, b"")) as metadata:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.url)
        with pytest.raises(StoreDeniedError, match="instance metadata: no answer or no role"):
            credentials_for(aws(), read_secret=secrets())
    assert metadata.requests


def test_container_endpoint_comes_before_the_machine(
    every_place: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name)
    keys = {"AccessKeyId": "container", "SecretAccessKey": "secret", "Token": "session", "Expiration": EXPIRES}
    with serving(lambda _: (200, {}, json.dumps(keys).encode())) as container:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{container.url}/keys")
        assert credentials_for(aws(), read_secret=secrets()).access_key == "container"


# --- files ---


def test_profile_is_chosen() -> None:
    text = file_of("one") + file_of("two", profile="backup", aws_session_token="session")
    found = credentials_for(
        aws({"profile": "backup"}, credential=SECRET), read_secret=secrets({"cloud/aws": b"\xef\xbb\xbf" + text})
    )
    assert (found.access_key, found.secret_key, found.session_token) == ("two", "secret-two", "session")


def test_profile_of_the_environment_counts_for_the_file_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = file_of("one") + file_of("two", profile="backup")
    (tmp_path / "cloud").write_bytes(text)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "cloud"))
    monkeypatch.setenv("AWS_PROFILE", "backup")
    read = secrets({"cloud/aws": text})
    assert credentials_for(aws(), read_secret=read).access_key == "two"
    assert credentials_for(aws(credential=SECRET), read_secret=read).access_key == "one"


@pytest.mark.parametrize(
    ("text", "config", "said"),
    [
        (None, {}, "the storage location's Secret or its key is not there: location=nas, secret=cloud/aws"),
        (b"", {}, "profile=default"),
        (file_of("x", profile="other"), {}, "it is not in the file"),
        (file_of("x"), {"profile": "backup"}, "it is not in the file"),
        (b"[default]\nregion = x\n", {}, "it has neither keys nor a role"),
        (b"[default]\naws_access_key_id = x\n", {}, "missing: aws_secret_access_key"),
        (b"AKIAHUNTER2 no file at all", {}, "cannot be read as one"),
        (b"\xff\xfe\x00binary", {}, "cannot be read as one"),
        (b"[default]\ncredential_process = /bin/true\n", {}, "neither keys nor a role"),
        (b"[default]\nrole_arn = arn:aws:iam::1:role/x\n", {}, "cannot be fetched"),
        (b"[default]\nrole_arn = r\nweb_identity_token_file = /nowhere/token\n", {}, "cannot be fetched"),
    ],
)
def test_named_secret_never_falls_through(
    every_place: dict[str, bytes], text: bytes | None, config: dict[str, str], said: str
) -> None:
    values = {} if text is None else {"cloud/aws": text}
    with pytest.raises(StoreDeniedError) as refused:
        credentials_for(aws(config, credential=SECRET), read_secret=secrets(values))
    assert said in refused.value.message
    assert "HUNTER2" not in refused.value.text()
    assert refused.value.next_step


def test_profile_that_the_shared_file_lacks_ends_the_search(every_place: dict[str, bytes]) -> None:
    with pytest.raises(StoreDeniedError, match=r"profile=backup"):
        credentials_for(aws({"profile": "backup"}), read_secret=secrets())


def test_shared_file_without_default_is_passed_over(every_place: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "cloud").write_bytes(file_of("x", profile="other"))
    assert credentials_for(aws(), read_secret=secrets()).access_key == "environment"


def test_no_program_is_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    text = f"[default]\ncredential_process = touch {ran}\n".encode()
    with pytest.raises(StoreDeniedError):
        credentials_for(aws(credential=SECRET), read_secret=secrets({"cloud/aws": text}))
    assert not ran.exists()


@pytest.mark.parametrize(
    ("role", "action"),
    [
        ("source_profile = base", "AssumeRole"),
        ("credential_source = Environment", "AssumeRole"),
        ("web_identity_token_file = {folder}/token", "AssumeRoleWithWebIdentity"),
    ],
)
def test_profile_may_assume_a_role(every_place: dict[str, bytes], tmp_path: Path, role: str, action: str) -> None:
    text = file_of("base", profile="base").decode() + "[default]\nrole_arn = arn:aws:iam::123456789012:role/backup\n"
    text += role.format(folder=tmp_path) + "\n"
    found = credentials_for(aws(credential=SECRET), read_secret=secrets({"cloud/aws": text.encode()}))
    assert (found.access_key, found.session_token) == (action, "session")


def test_role_that_asks_for_a_password_does_not_wait_for_one(every_place: dict[str, bytes]) -> None:
    text = file_of("base", profile="base") + (
        b"[default]\nrole_arn = arn:aws:iam::123456789012:role/backup\nsource_profile = base\nmfa_serial = arn:x\n"
    )
    with pytest.raises(StoreDeniedError, match="one-time password"):
        credentials_for(aws(credential=SECRET), read_secret=secrets({"cloud/aws": text}))


def test_shared_config_counts_only_when_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("[profile backup]\naws_access_key_id = shared\naws_secret_access_key = s\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    read = secrets({"cloud/aws": file_of("x")})
    with pytest.raises(StoreDeniedError, match="not in the file"):
        credentials_for(aws({"profile": "backup"}, credential=SECRET), read_secret=read)
    settings = aws({"profile": "backup", "enableSharedConfig": "true"}, credential=SECRET)
    assert credentials_for(settings, read_secret=read).access_key == "shared"


# --- services that fail ---


def test_sts_that_refuses_is_denied(every_place: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    body = (
        b'<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Code>AccessDenied</Code>'
        b"<Message>not for you</Message></Error></ErrorResponse>"
    )
    monkeypatch.delenv("AWS_SHARED_CREDENTIALS_FILE")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with serving(lambda _: (403, {"Content-Type": "text/xml"}, body)) as sts:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.url)
        with pytest.raises(StoreDeniedError, match=r"web identity.*not for you"):
            credentials_for(aws(), read_secret=secrets())


def test_sts_that_is_away_may_come_back(every_place: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SHARED_CREDENTIALS_FILE")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with serving(_sts) as sts:
        pass
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.url)
    with pytest.raises(StoreUnavailableError, match="web identity"):
        credentials_for(aws(), read_secret=secrets())


# --- the value itself ---


def test_rotated_secret_is_found_by_refresh() -> None:
    values = {"cloud/aws": file_of("old")}
    found = credentials_for(aws(credential=SECRET), read_secret=secrets(values))
    values["cloud/aws"] = file_of("new")
    assert found.refresh().access_key == "new"
    assert found.refresh().refresh().access_key == "new"
    del values["cloud/aws"]
    with pytest.raises(StoreDeniedError):
        found.refresh()


def test_secrets_do_not_show() -> None:
    found = credentials_for(aws(credential=SECRET), read_secret=secrets({"cloud/aws": file_of("AKIAHUNTER2")}))
    assert "HUNTER2" not in repr(found) + str(found) + f"{found}"
    assert Credentials("a", "b").refresh() == Credentials("a", "b")
