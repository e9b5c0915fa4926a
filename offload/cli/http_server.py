"""uvicorn, as every command runs it."""

import http.client
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import uvicorn

from offload.cli.http_protocol import Protocol
from offload.cli.lines import url_of
from offload.errors import ConfigError

KEEP_ALIVE_SECONDS = 75
"""Longer than usual proxies keep theirs, so that it is they who close."""

_LOOK_AGAIN_SECONDS = 0.2
_LONGEST_TIMEOUT = 2**31 - 1
"""Milliseconds, some 24 days: what a socket's option holds."""


def listen(host: str, port: int, *, stall_seconds: float = 0) -> socket.socket:
    """A listening socket; where the system can, its connections end once their peers stall for twice as long.

    Twice: the application ends what it knows of itself, and can tell; what it has answered is known to the
    kernel alone. 0: the system's own limits. `::` takes IPv4 too, where the system can.

    Raises:
        ConfigError: the address cannot be bound.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        both = host == "::" and socket.has_dualstack_ipv6()
        listener = socket.create_server((host, port), family=family, backlog=2048, dualstack_ipv6=both)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    # uvloop and asyncio set this only on sockets that name their protocol.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; a peer that takes nothing is not given up otherwise
        milliseconds = min(round(2000 * stall_seconds), _LONGEST_TIMEOUT)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
    listener.set_inheritable(True)
    return listener


def address_of(listener: socket.socket) -> str:
    """The URL that reaches `listener`."""
    host, port = listener.getsockname()[:2]
    return url_of(host, port)


def config(app: Any, *, grace_seconds: float, workers: int = 1) -> uvicorn.Config:
    """How uvicorn serves `app`, or the application that the import string `app` makes."""
    return uvicorn.Config(
        app,
        factory=isinstance(app, str),
        workers=workers,
        http=Protocol,
        ws="none",
        loop="uvloop",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(grace_seconds)),
    )


def run(configured: uvicorn.Config, listener: socket.socket, *, started: Callable[[], None]) -> bool:
    """Serve until SIGTERM or Ctrl-C; whether it ever served. `started` is called once it does."""
    # uvicorn raises the signal again once it has shut down in order: then let this process end in order too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = _Server(configured, started)
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    return server.started


def run_workers(configured: uvicorn.Config, listener: socket.socket, *, started: Callable[[], None]) -> bool:
    """As `run`, in as many processes as `configured` says; `started` is called once one of them answers."""
    from uvicorn.supervisors import Multiprocess  # noqa: PLC0415 - only where there are several

    answered, stop = threading.Event(), threading.Event()

    def watch() -> None:
        while not stop.is_set() and not _answers(listener):
            stop.wait(_LOOK_AGAIN_SECONDS)
        if not stop.is_set():
            answered.set()
            started()

    threading.Thread(target=watch, name="watch-workers", daemon=True).start()
    Multiprocess(configured, sockets=[listener]).run()
    stop.set()
    return answered.is_set()


def _answers(listener: socket.socket) -> bool:
    """Whether a process answers on `listener`: the kernel takes connections before one does."""
    host, port = listener.getsockname()[:2]
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", "/livez")
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class _Server(uvicorn.Server):
    def __init__(self, configured: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(configured)
        self._tell_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._tell_started()
