"""Requests and answers: the address, the token, what is tried again, and which answer is which error."""

import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from offload import __version__
from offload.client.errors import (
    BusyError,
    ClientError,
    OutOfReachError,
    Problem,
    SourceSpentError,
    StrangeAnswerError,
    error_of,
    is_passing,
    is_refusal,
)
from offload.client.retries import Patience, retry_after
from offload.client.transport import Transport, check_host, origin_of
from offload.errors import ConfigError, InvalidInputError

Token = str | Callable[[], str] | None
"""A token, or a function that is asked before each request, because mounted tokens rotate."""

Notice = Callable[[str], None]
"""Told in one sentence why something is tried again, and when."""

_CONNECT_SECONDS = 10.0
_CLOSED = "the client is closed"
_NEVER_SENT = httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError


class Exchange:
    """Speaks with one server. Safe to share between threads."""

    def __init__(
        self, url: str, token: Token, *, timeout: float, retry_for: float, notice: Notice | None
    ) -> None:
        base = _checked(url)
        self._token = token
        self._retry_for = retry_for
        self._notice = notice
        self._closed = threading.Event()
        self._http = httpx.Client(
            base_url=base,
            transport=Transport(base),
            trust_env=False,  # the transport reads the proxy; nothing else of the environment is meant for it
            timeout=httpx.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS), pool=None),
            headers={"User-Agent": f"offload/{__version__}", "Accept": "application/json"},
        )

    def close(self) -> None:
        """Close all connections. What other threads still send or fetch fails, and is not tried again."""
        self._closed.set()
        self._http.close()

    def patience(self) -> Patience:
        return Patience(self._retry_for)

    def ask(self, path: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """GET `path` and answer its JSON object."""
        return json_of(self.send("GET", path, params=params))

    def send(  # noqa: PLR0913 - the parts of a request
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Callable[[], Iterator[bytes]] | None = None,
        spent: Callable[[], bool] = lambda: False,
    ) -> httpx.Response:
        """Send until there is an answer that stands; only what may be repeated must come here.

        `body` makes the body anew for each attempt; `spent` says, after a failure, that it cannot.

        Raises:
            AnswerError: the answer is a problem.
            OutOfReachError: no answer came in all the time that failures are borne.
            SourceSpentError: another attempt would have come, but for its body.
        """
        patience = self.patience()
        may_be_done = False
        while True:
            request = self._request(method, path, params, headers, body() if body else None)
            try:
                with self._told(request):
                    response = self._http.send(request)
            except httpx.TransportError as error:
                failure, asked = self.failure_of(error), None
                may_be_done |= not isinstance(error, _NEVER_SENT)
            else:
                if not is_passing(response.status_code):
                    return accepted(response, may_be_done=may_be_done)
                problem = problem_of(response)
                may_be_done |= not is_refusal(problem)
                failure, asked = BusyError(problem), problem.retry_after
            if spent():
                raise SourceSpentError(f"{failure}; {SourceSpentError.remedy}") from failure
            self.wait(patience, failure, asked=asked)

    @contextmanager
    def stream(
        self, path: str, params: Mapping[str, Any], headers: Mapping[str, str]
    ) -> Iterator[httpx.Response]:
        """One GET whose content is read as it comes; its errors are httpx's, or `AnswerError`."""
        request = self._request("GET", path, params, {"Accept": "*/*", **headers}, None)
        with self._told(request):
            response = self._http.send(request, stream=True, follow_redirects=True)
        try:
            if response.is_error:
                with self._told(request):
                    response.read()
                raise error_of(problem_of(response))
            yield response
        finally:
            response.close()

    def wait(self, patience: Patience, failure: Exception, *, asked: float | None) -> None:
        """Wait until the next attempt, or raise `failure` where there is to be none."""
        delay = patience.delay(now=time.monotonic(), asked=asked)
        if delay is None:
            raise failure
        if self._notice and not self._closed.is_set():
            self._notice(f"{failure}; trying again in {delay:.1f} s")
        if self._closed.wait(delay):
            raise ClientError(_CLOSED) from failure

    def failure_of(self, error: httpx.TransportError) -> OutOfReachError:
        """What a failed connection means here. Raises it where another attempt would end the same."""
        base, origin = self._http.base_url, origin_of(error.request.url)
        where = base if origin == origin_of(base) else f"{origin}, where {base} redirects to"
        failure = OutOfReachError(f"no answer from {where}: {_said(error)}")
        failure.__cause__ = error
        if isinstance(error, httpx.LocalProtocolError | httpx.UnsupportedProtocol) or _is_of_handshake(error):
            raise failure
        return failure

    @contextmanager
    def _told(self, request: httpx.Request) -> Iterator[None]:
        """Turn into our words what no other attempt mends; failed connections stay `httpx.TransportError`."""
        try:
            yield
        except httpx.TransportError:
            raise
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            # Endless redirects, content that is not as encoded.
            raise StrangeAnswerError(
                f"{request.url} does not answer as an offload server: {error}"
            ) from error
        except RuntimeError as error:
            if self._closed.is_set():
                raise ClientError(_CLOSED) from error
            raise

    def _request(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None,
        content: Iterator[bytes] | None,
    ) -> httpx.Request:
        present = {name: value for name, value in (params or {}).items() if value is not None}
        try:
            request = self._http.build_request(method, path, params=present, headers=headers, content=content)
        except UnicodeEncodeError as error:
            raise InvalidInputError("parameter", "must be UTF-8", error.object) from error
        except httpx.InvalidURL as error:
            raise InvalidInputError("request", f"makes no address: {error}", path) from error
        token = self._token() if callable(self._token) else self._token
        if token:
            request.headers["Authorization"] = f"Bearer {_printable(token.strip())}"
        return request


def json_of(response: httpx.Response) -> dict[str, Any]:
    """The JSON object that an answer holds."""
    try:
        content = response.json()
    except ValueError as error:
        raise StrangeAnswerError(_strange(response)) from error
    if not isinstance(content, dict):
        raise StrangeAnswerError(_strange(response))
    return content


def problem_of(response: httpx.Response) -> Problem:
    """The RFC 9457 problem of a failed answer, also where something in between answered."""
    try:
        content = response.json()
    except ValueError:
        content = {}
    if not isinstance(content, dict):
        content = {}
    title = content.get("title") or response.reason_phrase or "unknown"
    detail = content.get("detail") or ""
    if response.history and not detail:  # the server that was asked says more
        detail = f"{title}, says {origin_of(response.request.url)}"
    return Problem(
        type=str(content.get("type") or "about:blank"),
        title=str(title),
        status=response.status_code,
        detail=str(detail),
        request_id=content.get("requestId") or response.headers.get("X-Request-Id"),
        retry_after=retry_after(response.headers.get("Retry-After")),
    )


def accepted(response: httpx.Response, *, may_be_done: bool) -> httpx.Response:
    """Answer `response` if it is a success; raise what else it says."""
    if response.is_error:
        error = error_of(problem_of(response))
        error.may_be_done = may_be_done
        raise error
    if not response.is_success:
        where = response.headers.get("Location", "elsewhere")
        raise StrangeAnswerError(
            f"{response.request.url} points to {where} ({response.status_code});"
            " if that is the server, use its address"
        )
    return response


def _checked(url: str) -> httpx.URL:
    if "@" in url:  # not shown: what is before it may be a password
        raise ConfigError("the server's address must have no '@': instead of user and password, give a token")
    if "?" in url or "#" in url:  # nor these: some put a token there
        raise ConfigError("the server's address must have no query and no fragment ('?' and '#')")
    try:
        parsed = httpx.URL(url.rstrip("/") + "/")
        if parsed.scheme not in {"http", "https"}:
            raise ConfigError(f"the server's address must start with http:// or https://; got {url!r}")
        check_host(parsed)
    except (httpx.InvalidURL, ValueError) as error:
        raise ConfigError(f"the server's address {url!r} is no URL: {error}") from error
    return parsed


def _printable(token: str) -> str:
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ConfigError("the token must be printable ASCII without spaces")
    return token


def _strange(response: httpx.Response) -> str:
    kind = response.headers.get("Content-Type", "nothing that has a type")
    return f"{response.request.url} answered {response.status_code} with {kind}: is this an offload server?"


def _said(error: httpx.TransportError) -> str:
    if isinstance(error, httpx.ConnectTimeout):
        return "connecting took too long"
    if isinstance(error, httpx.TimeoutException):
        return "the connection was silent for too long"
    return str(error) or type(error).__name__


def _is_of_handshake(error: BaseException | None) -> bool:
    """Whether both sides can't agree on TLS: a certificate that is not trusted, or a server without TLS."""
    if not isinstance(error, httpx.ConnectError):
        return False
    while error is not None:
        if isinstance(error, ssl.SSLError) and not isinstance(
            error, ssl.SSLEOFError | ssl.SSLZeroReturnError
        ):
            return True
        error = error.__cause__ or error.__context__
    return False
