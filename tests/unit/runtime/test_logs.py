"""Records have the same keys everywhere, in both styles, and secrets do not come out."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from longshore import logs
from longshore.errors import NoSpaceError

KEY_LINE = "longshore-key-1:" + "ab" * 32


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    logs.configure(level="info", stream=stream)
    yield stream
    logs.configure(level="warning", format="text")


def records(out: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_record_has_its_keys_first_and_its_fields_after(out: io.StringIO) -> None:
    logs.get_logger("longshore.x", node="n1").info("Accepted PodVolumeBackup", key="ns/a", bytes=7)
    (record,) = records(out)
    assert list(record) == ["ts", "level", "logger", "msg", "node", "key", "bytes"]
    assert (record["level"], record["logger"], record["msg"]) == ("info", "longshore.x", "Accepted PodVolumeBackup")
    assert str(record["ts"]).endswith("Z")


def test_level_is_obeyed_and_follows_a_later_call(out: io.StringIO) -> None:
    log = logs.get_logger("longshore.x")
    log.debug("Hidden")
    logs.configure(level="error", stream=out)
    log.warning("Hidden")
    log.error("Shown")
    assert [record["msg"] for record in records(out)] == ["Shown"]


def test_exception_comes_with_its_traceback_in_one_record(out: io.StringIO) -> None:
    try:
        raise NoSpaceError("no space: bytes=1")
    except NoSpaceError as err:
        logs.get_logger("x").exception("Failed", error=err)
    (record,) = records(out)
    assert record["error"] == "NoSpaceError: no space: bytes=1"
    assert "Traceback" in str(record["exception"])


def test_other_libraries_speak_through_the_same_chain_from_warning_on(out: io.StringIO) -> None:
    logs.configure(level="debug", stream=out)
    logging.getLogger("urllib3").debug("request with %s", "hunter2")
    logging.getLogger("urllib3").warning("retry %d Bearer abcdefghijk", 3)
    (record,) = records(out)
    assert (record["level"], record["logger"], record["msg"]) == ("warning", "urllib3", "retry 3 Bearer ***")


def test_text_is_one_line_and_quotes_what_needs_it(out: io.StringIO) -> None:
    logs.configure(level="info", format="text", stream=out)
    logs.get_logger("longshore.x").info("Accepted PodVolumeBackup", key="ns/a", note="two words\nand a line", empty="")
    (line,) = out.getvalue().splitlines()
    assert "INFO" in line
    assert "Accepted PodVolumeBackup  key=ns/a note='two words\\nand a line' empty=''  [longshore.x]" in line


@pytest.mark.parametrize("style", ["json", "text"])
@pytest.mark.parametrize(
    ("fields", "secret"),
    [
        ({"password": "hunter2"}, "hunter2"),
        ({"repo_passphrase": "hunter2"}, "hunter2"),
        ({"aws_secret_access_key": "hunter2"}, "hunter2"),
        ({"session_token": "hunter2"}, "hunter2"),
        ({"line": KEY_LINE}, "abab"),
        ({"deep": {"a": [{"client_secret": "hunter2"}]}}, "hunter2"),
        ({"obj": {"kind": "Secret", "data": {"x": "aHVudGVy"}}}, "aHVudGVy"),
        ({"header": "Authorization: Bearer hunter2hunter2"}, "hunter2"),
        ({"url": "https://user:hunter2@example.com/x"}, "hunter2"),
        ({"url": "https://b.example.com/x?X-Amz-Signature=hunter2&a=b"}, "hunter2"),
        ({"text": "aws_secret_access_key = hunter2"}, "hunter2"),
        ({"token_text": "eyJhbGciOiJSUzI1.eyJpc3MiOiJrdWJl.c2lnbmF0dXJl"}, "eyJ"),
        ({"pem": "-----BEGIN RSA PRIVATE KEY-----\nhunter2\n-----END RSA PRIVATE KEY-----"}, "hunter2"),
        ({"raw": b"hunter2"}, "hunter2"),
        ({"error": ValueError(f"bad key {KEY_LINE}")}, "abab"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_secrets_do_not_come_out(out: io.StringIO, style: str, fields: dict[str, object], secret: str) -> None:
    logs.configure(level="info", format=style, stream=out)
    logs.get_logger("x").info("Did it", **fields)
    text = out.getvalue()
    assert "Did it" in text
    assert secret not in text


def test_secret_in_a_traceback_does_not_come_out(out: io.StringIO) -> None:
    try:
        raise ValueError(f"cannot use {KEY_LINE}")
    except ValueError:
        logs.get_logger("x").exception("Failed")
    assert "abab" not in out.getvalue()


def test_harmless_fields_stay_readable(out: io.StringIO) -> None:
    fields = {
        "key": "ns/a",
        "keys": 3,
        "token_count": 5,
        "secret_name": "creds",
        "url": "s3://bucket/prefix",
        "data": {"a": 1},
    }
    logs.get_logger("x").info("Did it", **fields)
    (record,) = records(out)
    assert {name: record[name] for name in fields} == fields


def test_endless_nesting_ends(out: io.StringIO) -> None:
    loop: list[object] = []
    loop.append(loop)
    logs.get_logger("x").info("Did it", loop=loop)
    assert logs.REDACTED in out.getvalue()


@pytest.mark.parametrize("options", [{"level": "loud"}, {"format": "xml"}])
def test_unknown_level_or_format_is_refused(options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"loud|xml"):
        logs.configure(**options)  # type: ignore[arg-type]
