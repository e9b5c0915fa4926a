"""The metrics port: `/metrics`, and for a process without HTTP of its own `/livez` and `/readyz`."""

import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import REGISTRY, CollectorRegistry, make_wsgi_app
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from offload.errors import ConfigError

MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"
"""Set before the first metric is made, it makes all processes write their values there."""

Ready = Callable[[], Sequence[str]]


@contextmanager
def serving_metrics(host: str, port: int, *, ready: Ready | None = None) -> Iterator[int]:
    """Serve until left; gives the port. `ready` answers what is wrong now; port 0 serves nothing.

    Raises:
        ConfigError: the port cannot be bound.
    """
    if not port:
        yield 0
        return
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family = found[0][0]
        kind = _Server6 if family == socket.AF_INET6 else _Server
        server = make_server(host, port, _app(ready), server_class=kind, handler_class=_Quiet)
    except OSError as error:
        raise ConfigError(
            f"cannot serve metrics on {host}:{port}: {error.strerror};"
            " OFFLOAD_METRICS_PORT names another port, or 0 for none"
        ) from error
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Server6(_Server):
    """Serves IPv6; on `::` IPv4 too, where the system can."""

    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        if self.server_address[0] == "::" and socket.has_dualstack_ipv6():
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_args: object) -> None:
        """Say nothing: probes and scrapes are not news."""


def _app(ready: Ready | None) -> Callable[[dict[str, Any], Any], Iterable[bytes]]:
    registry = REGISTRY
    if MULTIPROCESS_DIR in os.environ:
        registry = CollectorRegistry()
        registry.register(_AllProcesses(registry=None))  # type: ignore[no-untyped-call] # it ships no types
    metrics = make_wsgi_app(registry)

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            answer: Iterable[bytes] = metrics(environ, start_response)
            return answer
        if ready is None or path not in {"/livez", "/readyz"}:
            return _plain(start_response, "404 Not Found", "there is only /metrics here")
        problems = ready() if path == "/readyz" else []
        return _plain(
            start_response, "503 Service Unavailable" if problems else "200 OK", "\n".join(problems) or "ok"
        )

    return app


class _AllProcesses(MultiProcessCollector):
    """All workers' values; gauges of those that ended are dropped first."""

    def collect(self) -> Any:
        for file in Path(os.environ[MULTIPROCESS_DIR]).glob("gauge_live*_*.db"):
            process = int(file.stem.rpartition("_")[2])
            if not Path(f"/proc/{process}").exists():
                mark_process_dead(process)  # type: ignore[no-untyped-call] # it ships no types
        return super().collect()  # type: ignore[no-untyped-call] # it ships no types


def _plain(start_response: Any, status: str, text: str) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [text.encode() + b"\n"]
