"""The service over real HTTP: uvicorn in a thread, SQLite, the AgentRun stand-in, objects in memory.

Every answer that a test gets through `Service.http` is held against the OpenAPI document: its operation must
describe the status.
"""

import base64
import contextlib
import hashlib
import http.client
import itertools
import re
import socket
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import uvicorn

from offload.cli import http_server
from offload.cluster.standin.server import StandIn
from offload.domain.access import Permission
from offload.domain.artifact import Location
from offload.http.parts import Parts
from offload.http.shortcut import Shortcut
from offload.index import Index, migrate
from offload.objects.interface import ObjectInfo, Objects, OpenUpload
from offload.objects.memory import MemoryObjects
from offload.settings import Settings
from offload.tokens_file import create_token
from offload.wiring.serving import make_app

NAMESPACE = "agents"
AGENTRUNS = "/apis/agents.proompteng.ai/v1alpha1/namespaces/{}/agentruns"
_numbers = itertools.count(1)


class Shelf(MemoryObjects):
    """Objects in memory that count the downloads in progress."""

    downloads = 0

    @asynccontextmanager
    async def get(
        self, location: Location, *, first: int = 0, last: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        async with super().get(location, first=first, last=last) as stream:
            self.downloads += 1
            try:
                yield stream
            finally:
                self.downloads -= 1


@dataclass(frozen=True)
class RunAt:
    """An AgentRun of the stand-in, and where the service has it."""

    namespace: str
    name: str
    uid: str
    http: httpx.Client

    @property
    def path(self) -> str:
        return f"/v1/namespaces/{self.namespace}/agentruns/{self.name}"

    @property
    def artifacts(self) -> str:
        return f"{self.path}/artifacts"

    def at(self, name: str) -> str:
        return f"{self.artifacts}/{quote(name)}"

    def put(self, name: str, data: Any = b"x", **arguments: Any) -> httpx.Response:
        return self.http.put(self.at(name), content=data, **arguments)

    def stored(self, name: str, data: bytes = b"x", **arguments: Any) -> dict[str, Any]:
        """PUT that must succeed, and its artifact."""
        answer = self.put(name, data, **arguments)
        assert answer.status_code in {200, 201}, answer.text
        artifact: dict[str, Any] = answer.json()
        return artifact

    def history(self, **query: Any) -> list[dict[str, Any]]:
        answer = self.http.get(self.artifacts, params={"limit": 1000, "uid": self.uid, **query})
        assert answer.status_code == 200, answer.text
        items: list[dict[str, Any]] = answer.json()["items"]
        return items


@dataclass
class Service:
    """A running service, what it stands on, and a client with a token for everything."""

    url: str
    http: httpx.Client
    objects: Objects
    index: Index
    standin: StandIn
    api: httpx.Client
    tokens_file: Path
    database: Path
    app: Any
    server: uvicorn.Server
    _tokens: dict[str, str] = field(default_factory=dict)

    @property
    def parts(self) -> Parts:
        parts: Parts = self.app._app._app.state.parts
        return parts

    def run(self, name: str = "", namespace: str = NAMESPACE, **spec: Any) -> RunAt:
        """Create an AgentRun in the cluster."""
        name = name or f"run-{next(_numbers)}"
        labels = spec.pop("labels", {})
        body = {
            "apiVersion": "agents.proompteng.ai/v1alpha1",
            "kind": "AgentRun",
            "metadata": {"name": name, "labels": labels},
            "spec": {"agentRef": {"name": "coder"}, **spec},
        }
        created = self.api.post(AGENTRUNS.format(namespace), json=body)
        assert created.status_code == 201, created.text
        return RunAt(namespace, name, created.json()["metadata"]["uid"], self.http)

    def delete_run(self, run: RunAt) -> None:
        """Delete it in the cluster; the index learns it as it would from the watch."""
        from offload.index import runs  # noqa: PLC0415 - one use

        self.api.delete(f"{AGENTRUNS.format(run.namespace)}/{run.name}").raise_for_status()
        with self.index.begin() as tx:
            runs.mark_deleted(tx, run.uid)

    def create_again(self, run: RunAt) -> RunAt:
        """Delete it and create another of the same name, long enough ago for nobody to remember the old."""
        self.delete_run(run)
        self.parts.ingest._known_runs.forget()
        return self.run(run.name)

    def token(
        self,
        *permissions: Permission,
        namespaces: tuple[str, ...] = (NAMESPACE,),
        runs: tuple[str, ...] = ("*",),
        expires_at: datetime | None = None,
    ) -> dict[str, str]:
        """Request headers with a new token of these scopes."""
        new = create_token(
            f"test-{next(_numbers)}",
            namespaces=namespaces,
            permissions=permissions or tuple(Permission),
            runs=runs,
            expires_at=expires_at,
        )
        text = self.tokens_file.read_text() + new.entry
        fresh = self.tokens_file.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.tokens_file)
        return {"Authorization": f"Bearer {new.token}"}

    def keys(self, run: RunAt) -> list[str]:
        """Objects that the store has of a run, by key."""
        return [info.location.key for info in self.objects_of(run)]

    def objects_of(self, run: RunAt) -> list[ObjectInfo]:
        return list(self.objects.list(f"{run.namespace}/{run.name}/{run.uid}/"))

    def open_uploads(self) -> list[OpenUpload]:
        return list(self.objects.open_uploads(""))

    def assert_nothing_left(self, run: RunAt, *, objects: int = 0, rows: int = 0) -> None:
        """No row, no object, no open upload beside those given."""
        eventually(lambda: not self.open_uploads())
        eventually(lambda: len(self.keys(run)) == objects)
        assert len(run.history()) == rows

    def held(self, connection: socket.socket) -> bool:
        """Whether the server still has its end of a connection."""
        here = connection.getsockname()
        ours = (open_one.transport for open_one in self.server.server_state.connections)
        return any(transport.get_extra_info("peername") == here for transport in ours)

    @contextmanager
    def connect(self) -> Iterator[socket.socket]:
        """A bare connection."""
        host, port = self.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=15) as connection:
            yield connection

    def request(self, method: str, path: str, *headers: str) -> bytes:
        """The head of a request, as bytes, with the token for everything."""
        lines = [
            f"{method} {path} HTTP/1.1",
            "Host: service",
            f"Authorization: {self.http.headers['Authorization']}",
            *headers,
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


def answer_on(connection: socket.socket, method: str = "PUT") -> http.client.HTTPResponse:
    """The next final answer on a bare connection, head read."""
    response = http.client.HTTPResponse(connection, method=method)
    response.begin()
    return response


@pytest.fixture(scope="session")
def read_answer() -> Callable[..., http.client.HTTPResponse]:
    return answer_on


def eventually(fact: Callable[[], bool], seconds: float = 10) -> None:
    """Poll until `fact` holds."""
    until = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < until, "it did not come true in time"
        time.sleep(0.01)


@pytest.fixture(scope="session", name="eventually")
def _eventually() -> Callable[..., None]:
    return eventually


@pytest.fixture(scope="session")
def digest() -> Callable[..., str]:
    """`sha-256=:…:` of some bytes, or of another algorithm's."""

    def format_digest(data: bytes, algorithm: str = "sha-256") -> str:
        raw = hashlib.new(algorithm.replace("-", ""), data).digest()
        return f"{algorithm}=:{base64.b64encode(raw).decode()}:"

    return format_digest


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("index") / "index.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path.read_bytes()


@pytest.fixture(scope="session")
def standin() -> Iterator[StandIn]:
    with StandIn().running() as running:
        yield running


Serve = Callable[..., Service]


@pytest.fixture(scope="session")
def serving(
    migrated: bytes, standin: StandIn, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., contextlib.AbstractContextManager[Service]]:
    """Start a service of its own, with settings and a store; stopped when left."""

    @contextmanager
    def start(
        *, objects: Objects | None = None, around: Callable[[Any], Any] = lambda app: app, **settings: Any
    ) -> Iterator[Service]:
        folder = tmp_path_factory.mktemp("service")
        (folder / "index.db").write_bytes(migrated)
        everything = create_token("all", namespaces=["*"], permissions=tuple(Permission))
        (folder / "tokens.yaml").write_text(f"tokens:\n{everything.entry}")
        values = Settings(
            **{
                "database_url": f"sqlite:///{folder / 'index.db'}",
                "kubeconfig": Path(standin.kubeconfig),
                "tokens_file": folder / "tokens.yaml",
                **settings,
            }
        )
        store = objects or Shelf()
        app = make_app(values, open_store=lambda _settings: store)
        stall = values.upload_stall.total_seconds()
        listener = http_server.listen("127.0.0.1", 0, stall_seconds=stall)
        server = uvicorn.Server(http_server.config(around(app), grace_seconds=1))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        eventually(lambda: server.started or not thread.is_alive())
        assert server.started, "see the server's log"
        url = http_server.address_of(listener)
        index = Index.connect(f"sqlite:///{folder / 'index.db'}")
        headers = {"Authorization": f"Bearer {everything.token}"}
        with (
            httpx.Client(base_url=standin.url) as api,
            httpx.Client(base_url=url, headers=headers, timeout=30) as client,
        ):
            document = client.get("/openapi.json").json()
            client.event_hooks["response"].append(Documented(document))
            yield Service(
                url,
                client,
                store,
                index,
                standin,
                api,
                folder / "tokens.yaml",
                folder / "index.db",
                app,
                server,
            )
        index.close()
        server.should_exit = True
        thread.join(timeout=15)
        listener.close()
        assert not thread.is_alive()

    return start


@pytest.fixture(scope="session")
def service(serving: Callable[..., contextlib.AbstractContextManager[Service]]) -> Iterator[Service]:
    """One service for all tests that need nothing special of it."""
    with serving() as running:
        yield running


@pytest.fixture
def serve(serving: Callable[..., contextlib.AbstractContextManager[Service]]) -> Iterator[Serve]:
    """Start a service with other settings; it ends with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda **settings: stack.enter_context(serving(**settings))


@pytest.fixture
def run(service: Service) -> RunAt:
    """A fresh AgentRun."""
    return service.run()


class Documented:
    """Asserts that an answer's operation describes its status."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._operations = [
            (re.compile(_pattern(path)), methods) for path, methods in document["paths"].items()
        ]

    def __call__(self, response: httpx.Response) -> None:
        path, method = response.request.url.raw_path.partition(b"?")[0].decode(), response.request.method
        for pattern, methods in self._operations:
            if pattern.fullmatch(path) and method.lower() in methods:
                described = methods[method.lower()]["responses"]
                assert str(response.status_code) in described, f"{method} {path}: {response.status_code}"
                return


def _pattern(path: str) -> str:
    return re.sub(r"\\\{(name)\\\}", ".*", re.sub(r"\\\{(?!name)\w+\\\}", "[^/]+", re.escape(path)))


@pytest.fixture(scope="session")
def now() -> Callable[[], datetime]:
    return lambda: datetime.now(UTC)


@pytest.fixture
def closed_port() -> int:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@contextmanager
def _without(database: Path, table: str) -> Iterator[None]:
    """The index with a table out of reach."""

    def rename(old: str, new: str) -> None:
        with contextlib.closing(sqlite3.connect(database, timeout=10)) as connection:
            connection.execute("PRAGMA legacy_alter_table = ON")
            connection.execute(f"ALTER TABLE {old} RENAME TO {new}")

    rename(table, "away")
    try:
        yield
    finally:
        rename("away", table)


@pytest.fixture(scope="session")
def without() -> Callable[[Path, str], contextlib.AbstractContextManager[None]]:
    return _without


@pytest.fixture
def take_the_long_way(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Has requests go through the framework from then on, past the shortcut."""

    async def go_on(self: Any, *request: Any) -> None:
        await self._app(*request)

    return lambda: monkeypatch.setattr(Shortcut, "__call__", go_on)
