"""The stand-in as a server: in a thread of its own, on a port that is bound before anything else starts."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import uvicorn

from offload.cluster.standin.app import build
from offload.cluster.standin.resources import ACCESS_REVIEWS, EVENTS, NAMESPACES, crd_file, load_crd
from offload.cluster.standin.schema import count_cel_rules
from offload.cluster.standin.store import Key, Store
from offload.cluster.standin.writes import Request, Writes
from offload.errors import ConfigError

FIRST_NAMESPACES = ("default", "agents")


class StandIn:
    """AgentRuns, their namespaces and events over HTTP, for kubectl and `KubernetesCluster` alike.

    Usable once: after `stop` make another one.
    """

    def __init__(
        self,
        crd: Path | None = None,
        data: Path | None = None,
        *,
        log_length: int = 1000,
        bookmark_seconds: float = 10,
    ) -> None:
        """Serve AgentRuns as `crd` describes them, and keep them in folder `data` (None: in memory).

        A watch can resume over the last `log_length` writes, and hears a bookmark every `bookmark_seconds`.

        Raises:
            ConfigError: `crd` is not usable, or `data` is not writable or in use.
        """
        agentruns = load_crd(crd or crd_file())
        resources = (agentruns, NAMESPACES, EVENTS, ACCESS_REVIEWS)
        self._store = Store(data, log_length=log_length)
        writes = Writes(self._store, resources)
        for name in FIRST_NAMESPACES:
            if not self._store.get(Key(NAMESPACES.qualified, "", name)):
                body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
                writes.create(Request(NAMESPACES, "", ""), body)
        self._app = build(self._store, writes, resources, bookmark_seconds=bookmark_seconds)
        self._rules = count_cel_rules(agentruns.schema)
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._address = ("127.0.0.1", 0)
        self._folder: TemporaryDirectory[str] | None = None

    @property
    def notice(self) -> str:
        """One line for whoever starts it: what must not be expected of it."""
        return (
            f"AgentRun stand-in, for development only: {self._rules} CEL rules of the CRD are not evaluated, "
            "everyone may do everything, and server-side apply, JSON patch and dry runs are refused."
        )

    @property
    def url(self) -> str:
        host, port = self._address
        return f"http://{'127.0.0.1' if host in ('', '0.0.0.0') else host}:{port}"  # noqa: S104 - a comparison

    @property
    def kubeconfig(self) -> str:
        """The path of a kubeconfig that is removed at `stop`."""
        if self._folder is None:
            self._folder = TemporaryDirectory(prefix="offload-standin-")
            self.write_kubeconfig(Path(self._folder.name) / "kubeconfig")
        return str(Path(self._folder.name) / "kubeconfig")

    def write_kubeconfig(self, path: Path, *, server: str | None = None) -> None:
        """Write a kubeconfig, whole or not at all; `server` is the address for others than this host."""
        name = "offload-standin"
        config: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": server or self.url}}],
            "users": [{"name": name, "user": {}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
        }
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        partial.replace(path)

    def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Serve in a thread and return once requests are answered; port 0 takes a free one.

        Raises:
            ConfigError: the address cannot be bound.
        """
        try:
            listener = socket.create_server((host, port))
        except OSError as error:
            self._store.close()
            raise ConfigError(f"the stand-in cannot listen on {host}:{port}: {error.strerror}") from error
        # asyncio sets this only on sockets that name their protocol; without it an answer can wait 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._address = (host, listener.getsockname()[1])
        config = uvicorn.Config(
            self._app,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_keep_alive=75,
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(config)
        ready = threading.Event()
        self._thread = threading.Thread(
            target=self._serve, args=(listener, ready), name="standin", daemon=True
        )
        self._thread.start()
        ready.wait()

    def stop(self) -> None:
        """End watches, connections and the thread; what was kept in `data` stays. May be repeated."""
        if self._server and self._loop and self._thread and self._thread.is_alive():
            self._server.should_exit = True
            self._loop.call_soon_threadsafe(self._store.close)
            self._thread.join()
        else:
            self._store.close()
        if self._folder:
            self._folder.cleanup()
            self._folder = None

    @contextmanager
    def running(self, host: str = "127.0.0.1", port: int = 0) -> Iterator[Self]:
        """`start` and `stop` as a block."""
        self.start(host, port)
        try:
            yield self
        finally:
            self.stop()

    def _serve(self, listener: socket.socket, ready: threading.Event) -> None:
        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            # The listener takes connections already: what comes now waits for the server, it is not refused.
            self._loop.call_soon(ready.set)
            assert self._server  # noqa: S101 - set by start
            await self._server.serve(sockets=[listener])

        asyncio.run(main())
