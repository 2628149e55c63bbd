"""Sends requests to the API server and brings answers back, obeying Retry-After and renewing credentials.

Promises
- `Retry-After` is obeyed: while a kind is held off, no thread sends another request for it, and the wait ends early when the transport is closed. A caller's
  `timeout_seconds` bounds everything, waiting included; what does not fit is raised as TooManyRequestsError with the time still to wait.
- Reads are tried again after a broken connection; a write only when it certainly never left. A write whose answer was lost is raised as
  ApiUnavailableError and may have happened: callers read again before they decide.
- A 401 makes it read the credentials again, once, before it is raised.
- No log record holds a body, a header or a token.

It does not know kinds' meanings, nor what an object is.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping
from typing import Any, Final

import urllib3

from longshore.errors import ApiDeniedError, ApiUnavailableError, TooManyRequestsError
from longshore.kube.clock import Clock
from longshore.kube.connection import Connector
from longshore.kube.requests import query_of, translate
from longshore.kube.resource import Resource
from longshore.kube.skew import ClockComparison
from longshore.logs import get_logger

__all__ = ["Transport"]

_log = get_logger(__name__)

_CONNECT_TIMEOUT_SECONDS: Final = 10.0
_READ_TRIES_MAX: Final = 3
_WAIT_TRIES_MAX: Final = 10
_RELOAD_PERIOD_SECONDS: Final = 10.0


class Transport:
    """One way to one API server, shared by all threads."""

    def __init__(
        self, connector: Connector, *, clock: Clock, rng: random.Random, user_agent: str, timeout_seconds: float
    ) -> None:
        self._connector = connector
        self._clock = clock
        self._rng = rng
        self._user_agent = user_agent
        self._timeout_seconds = timeout_seconds
        self.closed: Final = threading.Event()
        self._lock = threading.Lock()
        self._api_client: Any = None
        self._loaded_at = float("-inf")
        self._held_until: dict[str, float] = {}
        self._clocks = ClockComparison(clock)

    def close(self) -> None:
        """End waiting requests with ApiUnavailableError and drop the connections."""
        self.closed.set()
        with self._lock:
            if self._api_client is not None:
                self._api_client.close()

    def call(
        self,
        verb: str,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        resource: Resource | None = None,
        name: str | None = None,
        timeout_seconds: float | None = None,
        read_timeout_seconds: float | None = None,
        stream: bool = False,
    ) -> Any:
        """Send until there is an answer worth giving back.

        Args:
            verb: as RBAC names it, for messages.
            body: what is sent as JSON; bytes go as they are.
            resource: None for paths that are no kind's.
            timeout_seconds: for everything together, waiting included; None takes the default.
            read_timeout_seconds: for each read of a stream.
            stream: give back the open response instead of its body.

        Returns:
            The body's bytes, or the open `urllib3.HTTPResponse` of a stream.

        Raises:
            LongshoreError: as the answer says, or ApiUnavailableError when there is none.
        """
        started = self._clock.monotonic()
        deadline = started + (self._timeout_seconds if timeout_seconds is None else timeout_seconds)
        kind = resource.qualified if resource is not None else path
        text = query_of(query or {})
        target = f"{path}?{text}" if text else path
        tries = waits = 0
        reloaded = False
        while True:
            self._wait_out_hold(kind, deadline)
            left = max(0.1, deadline - self._clock.monotonic())
            timeout = (
                min(_CONNECT_TIMEOUT_SECONDS, left),
                left if read_timeout_seconds is None else read_timeout_seconds,
            )
            tries += 1
            try:
                response = self._send(method, target, body=body, content_type=content_type, timeout=timeout)
                self._clocks.see(response.headers)
                ok = 200 <= response.status < 300
                if ok and stream:
                    return response
                data: bytes = response.data
            except (urllib3.exceptions.HTTPError, OSError) as err:
                never_left = isinstance(
                    err, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError
                )
                if self._may_try_again(method, never_left=never_left, tries=tries, deadline=deadline):
                    continue
                doubt = "" if method == "GET" or never_left else ", effect=unknown"
                raise ApiUnavailableError(
                    f"the API server does not answer: verb={verb}, resource={kind}, cause={type(err).__name__}{doubt}",
                    "check the network and the API server; Longshore tries again by itself",
                ) from err
            _log.debug(
                "Called the API server",
                verb=verb,
                path=path,
                status=response.status,
                seconds=round(self._clock.monotonic() - started, 4),
            )
            if ok:
                return data
            error = translate(
                response.status, headers=response.headers, body=data, verb=verb, resource=resource, name=name
            )
            if isinstance(error, TooManyRequestsError):
                waits += 1
                self._hold(kind, error.retry_after_seconds)
                # A 429 was not carried out; a write that got a 503 or 504 may have been.
                if waits < _WAIT_TRIES_MAX and (response.status == 429 or method == "GET"):
                    continue
            if isinstance(error, ApiDeniedError) and response.status == 401 and not reloaded:
                reloaded = True
                if self._reload():
                    continue
            raise error

    def _send(self, method: str, target: str, *, body: Any, content_type: str, timeout: tuple[float, float]) -> Any:
        if self.closed.is_set():
            raise ApiUnavailableError("the client is closed")
        api_client = self._connected()
        headers: dict[str, str] = {**api_client.default_headers, "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = content_type
        api_client.update_params_for_auth(headers, [], ["BearerToken"], target, method, body)
        try:
            answer = api_client.call_api(
                method, api_client.configuration.host + target, headers, body=body, _request_timeout=timeout
            )
        except Exception as err:
            # The package turns TLS failures into its own exception with status 0.
            if type(err).__name__ == "ApiException":
                raise ApiUnavailableError(
                    f"no trusted connection to the API server: cause={getattr(err, 'reason', '')!s}",
                    "check the cluster's CA certificate and this machine's clock",
                ) from err
            raise
        return answer.response

    def _connected(self) -> Any:
        with self._lock:
            if self._api_client is None:
                self._api_client = self._connector.connect(user_agent=self._user_agent)
                self._loaded_at = self._clock.monotonic()
            return self._api_client

    def _reload(self) -> bool:
        """Read the credentials again after a 401; not more often than every ten seconds, for exec plugins can be dear."""
        with self._lock:
            now = self._clock.monotonic()
            if now - self._loaded_at < _RELOAD_PERIOD_SECONDS:
                return False
            # The old connections end with their requests; closing them here would break other threads' calls.
            self._api_client = self._connector.connect(user_agent=self._user_agent)
            self._loaded_at = now
        _log.info("Read the credentials for the API server again", source=self._connector.described)
        return True

    def _may_try_again(self, method: str, *, never_left: bool, tries: int, deadline: float) -> bool:
        if tries >= _READ_TRIES_MAX or not (method == "GET" or never_left):
            return False
        pause = 0.1 * 2**tries * self._rng.uniform(0.5, 1.5)
        if self._clock.monotonic() + pause >= deadline:
            return False
        return not self._clock.wait(self.closed, pause)

    def _hold(self, kind: str, seconds: float) -> None:
        until = self._clock.monotonic() + seconds * self._rng.uniform(1.0, 1.2)
        with self._lock:
            self._held_until[kind] = max(self._held_until.get(kind, 0.0), until)

    def _wait_out_hold(self, kind: str, deadline: float) -> None:
        while True:
            with self._lock:
                until = self._held_until.get(kind)
            now = self._clock.monotonic()
            if until is None or now >= until:
                return
            if until > deadline:
                error = TooManyRequestsError(
                    f"the API server asked to wait longer than this request may take: resource={kind}, seconds={until - now:.1f}"
                )
                error.retry_after_seconds = until - now
                raise error
            if self._clock.wait(self.closed, until - now):
                raise ApiUnavailableError("the client is closed")
