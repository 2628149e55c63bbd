"""What a stream makes of bytes that come in pieces, end too soon, or mean nothing."""

from collections.abc import Iterator

import pytest

from longshore.errors import ApiUnavailableError, GoneError
from longshore.kube.resource import CONFIG_MAPS
from longshore.kube.watch import WatchStream

ADDED = b'{"type":"ADDED","object":{"metadata":{"name":"a","resourceVersion":"7"}}}'


class Response:
    """As much of a urllib3 response as a stream needs."""

    def __init__(self, *parts: bytes) -> None:
        self.closed = False
        self._parts = parts

    def stream(self, *, amt: int | None, decode_content: bool) -> Iterator[bytes]:
        yield from self._parts

    def close(self) -> None:
        self.closed = True

    def shutdown(self) -> None:
        raise RuntimeError("as when the connection was given back already")


def names(*parts: bytes) -> list[str]:
    response = Response(*parts)
    try:
        return [event.object["metadata"]["name"] for event in WatchStream(response, resource=CONFIG_MAPS)]
    finally:
        assert response.closed


def test_events_may_come_in_any_pieces() -> None:
    text = ADDED + b"\n" + ADDED + b"\n"
    assert names(text) == ["a", "a"]
    assert names(*(text[at : at + 1] for at in range(len(text)))) == ["a", "a"]
    assert names(ADDED, b"\n\n", ADDED, b"\n") == ["a", "a"]


def test_end_in_the_middle_of_an_event_is_a_broken_connection() -> None:
    with pytest.raises(ApiUnavailableError, match="middle"):
        names(ADDED + b"\n" + ADDED[:20])


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b"[]",
        b"{}",
        b'{"type":"ADDED"}',
        b'{"type":"ADDED","object":{}}',
        b'{"type":"ADDED","object":null}',
        b'{"type":"WHAT","object":{"metadata":{"resourceVersion":"1"}}}',
    ],
)
def test_nonsense_is_a_broken_connection(line: bytes) -> None:
    with pytest.raises(ApiUnavailableError, match="no event"):
        names(line + b"\n")


def test_error_in_the_stream_is_raised_as_what_it_says() -> None:
    with pytest.raises(GoneError):
        names(b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}\n')


def test_closed_stream_gives_nothing_more() -> None:
    response = Response(ADDED + b"\n" + ADDED + b"\n" + ADDED[:5])
    with WatchStream(response, resource=CONFIG_MAPS) as stream:
        for _event in stream:
            stream.close()
    assert response.closed
