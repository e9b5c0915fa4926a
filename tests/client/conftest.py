"""A small server that follows the documented HTTP surface and fails as it is told, on a real uvicorn."""

import asyncio
import base64
import fnmatch
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs
from uuid import UUID, uuid4

import pytest
import uvicorn

from offload.client import Client

RUN_UID = "0b7f3c52-6e0e-4c1a-9a55-2f0d6f4f9e11"


@dataclass
class Seen:
    """A request as the server got it."""

    method: str
    path: str
    raw_path: bytes
    query: dict[str, str]
    headers: dict[str, str]
    body_bytes: int = 0


@dataclass
class Trouble:
    """How the next request fails: an answer before (`early`) or after its body, or a cut connection."""

    status: int = 503
    early: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    problem: dict[str, Any] = field(default_factory=dict)
    cut_after: int | None = None
    """Download bytes after which the connection ends."""
    lose_reply: bool = False
    """Store the upload, then end the connection without an answer."""
    corrupt: bool = False
    """Send other bytes than were announced."""


class FakeServer:
    def __init__(self) -> None:
        self.url = ""
        self.forget()

    def forget(self) -> None:
        self.seen: list[Seen] = []
        self.troubles: list[Trouble | None] = []
        self.artifacts: list[dict[str, Any]] = []
        self.content: dict[str, bytes] = {}
        self.page_size = 2
        self.early_digest = True
        self.redirects = False
        """Downloads are sent to a store, which has tags of its own and tells no digest."""
        self.pace: Callable[[], None] = lambda: None

    @property
    def current(self) -> dict[str, bytes]:
        """What the server stores, by name."""
        return {a["name"]: self.content[a["id"]] for a in self.artifacts if a["current"]}

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        headers = {k.decode().lower(): v.decode("latin-1") for k, v in scope["headers"]}
        query = {k: v[0] for k, v in parse_qs(scope["query_string"].decode()).items()}
        seen = Seen(scope["method"], scope["path"], scope["raw_path"], query, headers)
        self.seen.append(seen)
        exchange = _Exchange(self, seen, receive, send)
        trouble = self.troubles.pop(0) if self.troubles else None
        if trouble and trouble.cut_after is None and not trouble.lose_reply and not trouble.corrupt:
            await exchange.fail(trouble)
            return
        parts = scope["path"].split("/", 7)
        if seen.method == "PUT":
            await exchange.put(parts[3], parts[5], parts[7], trouble)
        elif len(parts) == 8 and parts[6] == "artifacts":
            await exchange.content(parts[7], trouble)
        else:
            await exchange.read(parts)


class _Exchange:
    def __init__(self, server: FakeServer, seen: Seen, receive: Any, send: Any) -> None:
        self.server, self.seen, self.receive, self.send_event = server, seen, receive, send
        self.drained = False

    async def put(self, namespace: str, run: str, name: str, trouble: Trouble | None) -> None:
        if "uid" in self.seen.query and self.seen.query["uid"] != RUN_UID:
            await self.fail(
                Trouble(409, early=True, problem={"type": "urn:offload:problem:run-uid-mismatch"})
            )
            return
        existing = next((a for a in self.server.artifacts if a["current"] and a["name"] == name), None)
        if existing and self.seen.headers.get("if-none-match") == "*":
            await self.fail(
                Trouble(412, problem={"type": "urn:offload:problem:name-exists", "detail": "taken"})
            )
            return
        digest = self.seen.headers.get("repr-digest")
        if existing and self.server.early_digest and digest == _digest(bytes.fromhex(existing["sha256"])):
            await self.answer(200, existing, early=True)
            return
        body = await self.drain()
        if body is None:
            return
        if digest and digest != _digest(hashlib.sha256(body).digest()):
            await self.fail(
                Trouble(400, problem={"type": "urn:offload:problem:digest-mismatch", "detail": "other bytes"})
            )
            return
        if existing and existing["sha256"] == hashlib.sha256(body).hexdigest():
            await self.answer(200, existing)
            return
        if existing:
            existing["current"] = False
        made = self.record(namespace, run, name, body)
        if trouble and trouble.lose_reply:
            raise ConnectionError("cut")
        await self.answer(201, made)

    def record(self, namespace: str, run: str, name: str, body: bytes) -> dict[str, Any]:
        made = {
            "id": str(uuid4()),
            "name": name,
            "type": self.seen.query.get("type", "log"),
            "uri": f"s3://bucket/{name}",
            "contentType": self.seen.headers.get("content-type", "application/octet-stream"),
            "sizeBytes": len(body),
            "sha256": hashlib.sha256(body).hexdigest(),
            "createdAt": f"2026-01-01T00:00:{len(self.server.artifacts) % 60:02d}Z",
            "expiresAt": None,
            "state": "stored",
            "current": True,
            "seq": len(self.server.artifacts) + 1,
            "run": {"namespace": namespace, "name": run, "uid": RUN_UID},
            "historyUrl": "http://elsewhere/history",
            "addedLater": {"newField": 1},
        }
        self.server.artifacts.append(made)
        self.server.content[made["id"]] = body
        return made

    async def content(self, name: str, trouble: Trouble | None) -> None:
        wanted = self.seen.query.get("version")
        found = next(
            (
                a
                for a in self.server.artifacts
                if a["name"] == name and (a["id"] == wanted or (not wanted and a["current"]))
            ),
            None,
        )
        if found is None:
            await self.fail(
                Trouble(
                    404,
                    problem={"type": "urn:offload:problem:artifact-not-found", "detail": "no such artifact"},
                )
            )
            return
        body = self.server.content[found["id"]]
        etag = f'"{found["sha256"]}"'
        told = [("etag", etag), ("repr-digest", _digest(bytes.fromhex(found["sha256"])))]
        if self.server.redirects:
            if "presigned" not in self.seen.query:
                await self.begin(307, [*told, ("location", f"{self.seen.path}?presigned=1")])
                await self.send_event({"type": "http.response.body", "body": b""})
                return
            etag = '"of-the-store"'
            told = [("etag", etag)]
        start = 0
        requested = self.seen.headers.get("range")
        if requested and self.seen.headers.get("if-range", etag) == etag:
            start = int(requested.removeprefix("bytes=").removesuffix("-"))
        if start and start >= len(body):
            await self.begin(416, [("content-length", "0")])
            await self.send_event({"type": "http.response.body", "body": b""})
            return
        headers = [
            *told,
            ("content-length", str(len(body) - start)),
            ("content-type", found["contentType"]),
        ]
        if start:
            headers.append(("content-range", f"bytes {start}-{len(body) - 1}/{len(body)}"))
        await self.begin(206 if start else 200, headers)
        end = len(body)
        if trouble and trouble.corrupt:
            body = bytes(len(body))
        if trouble and trouble.cut_after is not None:
            await self.send_event(
                {
                    "type": "http.response.body",
                    "body": body[start : start + trouble.cut_after],
                    "more_body": True,
                }
            )
            raise ConnectionError("cut")
        for at in range(start, end, 65536):
            await self.send_event(
                {"type": "http.response.body", "body": body[at : at + 65536], "more_body": True}
            )
        await self.send_event({"type": "http.response.body", "body": b""})

    async def read(self, parts: list[str]) -> None:
        server, query = self.server, self.seen.query
        if parts[2] == "artifacts":
            found = next((a for a in server.artifacts if a["id"] == parts[3]), None)
            if found:
                await self.answer(200, found)
            else:
                await self.fail(Trouble(404, problem={"type": "urn:offload:problem:artifact-not-found"}))
        elif parts[-1] == "artifacts":
            items = [
                a
                for a in reversed(server.artifacts)
                if fnmatch.fnmatchcase(a["name"], query.get("name", "*"))
            ]
            if query.get("order") == "oldest":
                items.reverse()
            await self.page(items)
        elif parts[-1] == "agentruns":
            await self.page(
                [self.run(parts[3], "one"), self.run(parts[3], "two"), self.run(parts[3], "three")]
            )
        elif parts[-1] == "explanation":
            run = self.run(parts[3], parts[5])
            status = [{"position": 1, "name": "a.log", "uri": "s3://bucket/a", "ours": True}]
            left = {"id": str(UUID(int=7)), "name": "b.log", "type": "log", "sizeBytes": 2048}
            left |= {"createdAt": "2026-01-01T00:00:00Z", "reason": "CountLimit", "detail": "50 newer ones"}
            pending = [{"of": "condition", "name": "C", "before": None, "after": "True Why: so"}]
            pending += [{"of": "entry", "name": "old.log", "before": "s3://bucket/old", "after": None}]
            others = [{"name": "theirs", "uri": "https://e.org/theirs", "state": "left-out"}]
            explanation = {"run": run, "status": status, "leftOut": [left], "externals": others}
            explanation["pending"] = pending
            await self.answer(200, {**explanation, "publish": run["publish"]})
        else:
            await self.answer(200, self.run(parts[3], parts[5]))

    def run(self, namespace: str, name: str) -> dict[str, Any]:
        counts = {"total": 2, "current": 2, "stored": 2, "storedBytes": 4096, "listed": 1, "leftOut": 1}
        publish = {"mode": "on", "publishedAt": "2026-01-01T00:00:01Z", "behind": True}
        publish |= {"dirtySince": "2026-01-01T00:00:02Z", "error": "conflict"}
        return {
            "namespace": namespace,
            "name": name,
            "uid": RUN_UID,
            "createdAt": "2026-01-01T00:00:00Z",
            "labels": {},
            "agent": "coder",
            "phase": "Running",
            "finishedAt": None,
            "deletedAt": None,
            "artifacts": counts,
            "publish": publish,
        }

    async def page(self, items: list[dict[str, Any]]) -> None:
        at = int(self.seen.query.get("cursor", "0"))
        end = at + self.server.page_size
        following = None
        if end < len(items):
            # Another host on purpose: a client must not carry its token there.
            others = "".join(f"&{k}={v}" for k, v in self.seen.query.items() if k != "cursor")
            following = f"http://not-this-host.invalid/v1/somewhere?cursor={end}{others}"
        await self.answer(200, {"items": items[at:end], "next": following})

    async def fail(self, trouble: Trouble) -> None:
        if not trouble.early and not self.drained and await self.drain() is None:
            return
        content = {"title": "It failed", "status": trouble.status, "requestId": "req-1", **trouble.problem}
        await self.answer(trouble.status, content, early=trouble.early, headers=trouble.headers)

    async def answer(
        self,
        status: int,
        content: dict[str, Any],
        *,
        early: bool = False,
        headers: dict[str, str] | None = None,
    ) -> None:
        body = json.dumps(content).encode()
        pairs = [
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            *(headers or {}).items(),
        ]
        if not early:
            await self.begin(status, pairs)
            await self.send_event({"type": "http.response.body", "body": body})
            return
        await self.begin(status, [*pairs, ("connection", "close")])
        await self.send_event({"type": "http.response.body", "body": body, "more_body": True})
        if "expect" not in self.seen.headers:
            try:
                async with asyncio.timeout(1):
                    await self.drain()
            except TimeoutError:
                pass
        await self.send_event({"type": "http.response.body", "body": b""})

    async def begin(self, status: int, headers: list[tuple[str, str]]) -> None:
        encoded = [(k.lower().encode(), v.encode()) for k, v in headers]
        await self.send_event({"type": "http.response.start", "status": status, "headers": encoded})

    async def drain(self) -> bytes | None:
        """The body; None where the connection ended before it."""
        body = bytearray()
        while True:
            event = await self.receive()
            if event["type"] == "http.disconnect":
                return None
            body += event.get("body", b"")
            self.seen.body_bytes = len(body)
            self.server.pace()
            if not event.get("more_body"):
                self.drained = True
                return bytes(body)


def _digest(sha256: bytes) -> str:
    return f"sha-256=:{base64.b64encode(sha256).decode()}:"


@pytest.fixture
def server(running_server: FakeServer) -> FakeServer:
    running_server.forget()
    return running_server


@pytest.fixture(scope="session", params=["h11", "httptools"])
def running_server(request: pytest.FixtureRequest) -> Iterator[FakeServer]:
    fake = FakeServer()
    config = uvicorn.Config(
        fake, host="127.0.0.1", port=0, http=request.param, log_level="critical", lifespan="off"
    )
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        time.sleep(0.005)
    fake.url = f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    yield fake
    running.should_exit = True
    running.force_exit = True
    thread.join(10)


@pytest.fixture
def client(server: FakeServer) -> Iterator[Client]:
    with Client(server.url, retry_for=5) as made:
        yield made


@pytest.fixture
def trouble() -> type[Trouble]:
    return Trouble
