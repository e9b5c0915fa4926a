"""HTTP/1.1 that listens while it talks.

A server may answer before it has read a body: the token is not valid, the run is unknown, the bytes are
stored already. httpx hears that only when a write fails, after up to a whole upload was sent for nothing,
and cannot wait for `100 Continue`. Here a body can ask, before each piece, whether the answer has come.

The piece in between is a network backend of httpcore, which is public there but cannot be handed to
`httpx.HTTPTransport`; so this makes the connection pool itself, and with it the choice of a proxy.
"""

import os
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx

from offload.errors import ConfigError

_MOST_CONNECTIONS = 100
_KEEPALIVE_SECONDS = 4.0  # below the 5 s after which uvicorn closes an idle connection
_LAST_PORT = 65535
_HEAR_BYTES = 64 * 1024
_SHORTEST_READ = 0.001
_INTERIM = b"HTTP/1.1 1"

_talking = threading.local()


class AnsweredEarly(httpcore.WriteError):
    """The server's answer is there. httpcore takes a `WriteError` as: stop sending, and read."""


def answered(wait: float = 0) -> bool:
    """Whether the request that this thread is sending has its final answer, or its connection has ended.

    Waits up to `wait` seconds for a sign; `100 Continue` is one, and means no.
    """
    stream: _ListeningStream | None = getattr(_talking, "stream", None)
    return stream is not None and stream.hears_answer(wait)


class Transport(httpx.BaseTransport):
    """Connections to a server and where it redirects to, or to the proxies that the environment names."""

    def __init__(self, base_url: httpx.URL) -> None:
        self._pools: dict[str, httpcore.ConnectionPool] = {}
        self._making = threading.Lock()
        self._pool_for(base_url)  # what is wrong in the environment is told at once

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.SyncByteStream)  # noqa: S101 - httpx.Client makes no other
        inner = httpcore.Request(
            method=request.method,
            url=httpcore.URL(
                scheme=request.url.raw_scheme,
                host=request.url.raw_host,
                port=request.url.port,
                target=request.url.raw_path,
            ),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        pool = self._pool_for(request.url)
        _talking.stream = None
        with _translated(request):
            response = pool.handle_request(inner)
        assert isinstance(response.stream, Iterable)  # noqa: S101 - a synchronous pool makes no other
        return httpx.Response(
            status_code=response.status,
            headers=response.headers,
            stream=_AnswerStream(response, request),
            extensions=response.extensions,
        )

    def close(self) -> None:
        with self._making:
            for pool in self._pools.values():
                pool.close()

    def _pool_for(self, url: httpx.URL) -> httpcore.ConnectionPool:
        origin = origin_of(url)
        with self._making:
            if origin not in self._pools:
                self._pools[origin] = _pool(httpx.URL(origin))
            return self._pools[origin]


class _AnswerStream(httpx.SyncByteStream):
    def __init__(self, response: httpcore.Response, request: httpx.Request) -> None:
        self._response, self._request = response, request

    def __iter__(self) -> Iterator[bytes]:
        with _translated(self._request):
            yield from self._response.iter_stream()

    def close(self) -> None:
        self._response.close()


class _ListeningBackend(httpcore.NetworkBackend):
    def __init__(self) -> None:
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            stream = self._backend.connect_tcp(host, port, timeout, local_address, socket_options)
        except (UnicodeError, OverflowError) as error:  # a host or port that can't be, named by a redirect
            raise httpcore.ConnectError(f"{host!r}, port {port}: {error}") from error
        return _ListeningStream(stream)

    def sleep(self, seconds: float) -> None:
        self._backend.sleep(seconds)


class _ListeningStream(httpcore.NetworkStream):
    """Can tell whether the other side spoke, and loses nothing of what it said."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream
        self._heard = b""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._heard:
            heard, self._heard = self._heard[:max_bytes], self._heard[max_bytes:]
            return heard
        return self._stream.read(max_bytes, timeout)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        _talking.stream = self
        try:
            self._stream.write(buffer, timeout)
        except httpcore.WriteTimeout as error:
            if self.hears_answer(0):
                raise AnsweredEarly("the server answered and reads no more") from error
            raise

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _ListeningStream(self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> object:
        if info == "is_readable" and self._heard:
            return True
        return self._stream.get_extra_info(info)

    def hears_answer(self, wait: float) -> bool:
        until = time.monotonic() + wait
        while not self._has_final_answer():
            left = until - time.monotonic()
            if left <= 0 and not self._stream.get_extra_info("is_readable"):
                return False
            try:
                said = self._stream.read(_HEAR_BYTES, max(left, _SHORTEST_READ))
            except httpcore.ReadTimeout:  # also after a TLS session ticket, which is readable but no data
                return False
            except httpcore.ReadError:
                return True
            if not said:
                return True
            self._heard += said
            if not self._has_final_answer() and not self._heard:
                return False  # an interim answer: go on sending
        return True

    def _has_final_answer(self) -> bool:
        while self._heard.startswith(_INTERIM):
            _, end, rest = self._heard.partition(b"\r\n\r\n")
            if not end:
                return False
            self._heard = rest
        return len(self._heard) >= len(_INTERIM)


def origin_of(url: httpx.URL) -> str:
    """Where `url` leads, without its path and query: of a presigned one they let everyone read."""
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def check_host(url: httpx.URL) -> None:
    """See that a connection could be tried; sockets say so by errors that are none of connections.

    Raises:
        ValueError: a part of the host or the port can't be.
    """
    if not url.host:
        raise ValueError("it names no host")
    try:
        url.raw_host.decode("ascii").encode("idna")
    except UnicodeError as error:
        raise ValueError("a part of its host is empty or longer than 63 characters") from error
    if not 0 <= (url.port or 0) <= _LAST_PORT:
        raise ValueError(f"there is no port {url.port}")


def _pool(origin: httpx.URL) -> httpcore.ConnectionPool:
    common = {
        "ssl_context": _tls() if origin.scheme == "https" else None,
        "max_connections": _MOST_CONNECTIONS,
        "keepalive_expiry": _KEEPALIVE_SECONDS,
        "network_backend": _ListeningBackend(),
    }
    proxy = _proxy_for(origin)
    if proxy is None:
        return httpcore.ConnectionPool(**common)  # type: ignore[arg-type]
    if proxy.url.scheme not in {"http", "https"}:
        raise ConfigError(f"the proxy {proxy.url} for {origin} is not one of HTTP; unset it or set NO_PROXY")
    return httpcore.HTTPProxy(
        proxy_url=str(proxy.url.copy_with(username=None, password=None)),
        proxy_auth=proxy.raw_auth,
        **common,  # type: ignore[arg-type]
    )


def _proxy_for(url: httpx.URL) -> httpx.Proxy | None:
    """The proxy that HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY choose; this host needs none."""
    if url.host in {"localhost", "127.0.0.1", "::1"} or proxy_bypass(url.netloc.decode("ascii")):
        return None
    proxies = getproxies()
    address = proxies.get(url.scheme) or proxies.get("all")
    if not address:
        return None
    try:
        proxy = httpx.Proxy(address if "://" in address else f"http://{address}")
        check_host(proxy.url)
    except (httpx.InvalidURL, ValueError) as error:
        # Neither the address nor what httpx says of it: a password may be in both.
        raise ConfigError(
            f"the proxy for {url}, of {url.scheme.upper()}_PROXY or ALL_PROXY, is no address of one;"
            " mend it, unset it or set NO_PROXY"
        ) from error
    return proxy


def _tls() -> ssl.SSLContext:
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        file = os.environ.get("SSL_CERT_FILE")
        if not file:
            raise
        raise ConfigError(f"SSL_CERT_FILE names {file!r}: {error.strerror or error}") from error


_TRANSLATED: list[tuple[type[Exception], type[httpx.TransportError]]] = [
    (httpcore.ConnectTimeout, httpx.ConnectTimeout),
    (httpcore.ReadTimeout, httpx.ReadTimeout),
    (httpcore.WriteTimeout, httpx.WriteTimeout),
    (httpcore.PoolTimeout, httpx.PoolTimeout),
    (httpcore.ConnectError, httpx.ConnectError),
    (httpcore.ReadError, httpx.ReadError),
    (httpcore.WriteError, httpx.WriteError),
    (httpcore.ProxyError, httpx.ProxyError),
    (httpcore.RemoteProtocolError, httpx.RemoteProtocolError),
    (httpcore.LocalProtocolError, httpx.LocalProtocolError),
    (httpcore.UnsupportedProtocol, httpx.UnsupportedProtocol),
]


@contextmanager
def _translated(request: httpx.Request) -> Iterator[None]:
    try:
        yield
    except tuple(ours for ours, _ in _TRANSLATED) as error:
        kind = next(theirs for ours, theirs in _TRANSLATED if isinstance(error, ours))
        raise kind(str(error), request=request) from error
