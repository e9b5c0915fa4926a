"""A TLS reverse proxy in front of the API server that fails as it is told, and keeps what was asked."""

import asyncio
import base64
import json
import random
import re
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from tests.kube.control_plane import ControlPlane

NEVER = 3600.0


@dataclass
class Asked:
    """One request as it came in."""

    method: str
    path: str
    query: dict[str, str]
    user: str
    token: str
    at: float = field(default_factory=time.monotonic)
    passed: bool = False
    """Whether the API server got it."""


Fault = Callable[[asyncio.StreamWriter], Awaitable[bool]]
"""Deals with a request; whether it goes on to the API server."""


def answer(code: int, *, retry_after: int | None = None, after: float = 0.0, message: str = "no") -> Fault:
    """Answer it as the API server would, after some seconds."""
    status = {
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message,
        "reason": HTTPStatus(code).phrase.replace(" ", ""),
    }  # fmt: skip
    more = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return _reply(code, json.dumps(status).encode(), after, more)


def expired_event() -> Fault:
    """Begin a watch, and end it by the event that its revision is too old."""
    status = {"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"}
    return _reply(200, json.dumps({"type": "ERROR", "object": status}).encode() + b"\n", 0, {})


def delay(seconds: float) -> Fault:
    """Pass it on later."""

    async def later(_: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(seconds)
        return True

    return later


async def cut(client: asyncio.StreamWriter) -> bool:
    """End the connection without an answer."""
    client.transport.abort()
    return False


async def silence(_: asyncio.StreamWriter) -> bool:
    """Keep the connection and say nothing, ever."""
    await asyncio.sleep(NEVER)
    return False


class Faults:
    """Runs in a thread while it is entered. Bearer tokens are passed on; client certificates are not."""

    def __init__(self, plane: ControlPlane) -> None:
        self.asked: list[Asked] = []
        self.url = ""
        self._port = plane.port
        self._mine = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._mine.load_cert_chain(*plane.server_certificate("faults"))
        self._theirs = ssl.create_default_context(cafile=plane.ca_file)
        self._rules: list[_Rule] = []
        self._generation = 0
        self._loop = asyncio.new_event_loop()
        self._running: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._loop.run_forever, name="faults", daemon=True)
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._mine))
        self.url = f"https://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @contextmanager
    def failing(
        self,
        fault: Fault,
        *,
        method: str = "",
        path: str = "",
        user: str = "",
        watch: bool | None = None,
        share: float = 1.0,
        count: int | None = None,
    ) -> Iterator[None]:
        """Have requests fail: by method, a pattern found in path and query, the end of the user's name.

        Of those a `share`, and at most `count`.
        """
        rule = _Rule(fault, method, re.compile(path), user, watch, share, count)
        self._rules.append(rule)
        try:
            yield
        finally:
            self._rules.remove(rule)

    def deaden(self) -> None:
        """Have every connection that is open now stay open, and say nothing any more; new ones are well."""
        self._generation += 1

    def since(self, at: float, **wanted: Any) -> list[Asked]:
        """What was asked since a monotonic time; `wanted` are values of `Asked`."""
        return [
            one
            for one in list(self.asked)
            if one.at >= at and all(getattr(one, name) == value for name, value in wanted.items())
        ]

    def _do(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _end(self) -> None:
        self._server.close()
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._running.add(task)
        try:
            with suppress(
                OSError, asyncio.IncompleteReadError, ssl.SSLError, asyncio.CancelledError, ValueError
            ):
                await self._converse(reader, client)
        finally:
            client.transport.abort()
            self._running.discard(task)

    async def _converse(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        generation, server = self._generation, None
        try:
            while True:
                head, headers = await _head(reader)
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                asked = _asked(head, headers)
                self.asked.append(asked)
                if generation != self._generation:
                    await silence(client)
                rule = next((one for one in list(self._rules) if one.is_for(asked)), None)
                if rule and not await rule.fault(client):
                    continue
                if server is None:
                    server = await asyncio.open_connection("127.0.0.1", self._port, ssl=self._theirs)
                server[1].write(head + body)
                asked.passed = True
                async for piece in _answer(server[0]):
                    if generation != self._generation:
                        await silence(client)
                    client.write(piece)
                    await client.drain()
        finally:
            if server:
                server[1].transport.abort()


@dataclass
class _Rule:
    fault: Fault
    method: str
    path: re.Pattern[str]
    user: str
    watch: bool | None
    share: float
    left: int | None

    def is_for(self, asked: Asked) -> bool:
        wanted = (
            (not self.method or asked.method == self.method)
            and self.path.search(asked.path + "?" + "&".join(asked.query))
            and asked.user.endswith(self.user)
            and self.watch in {None, "watch" in asked.query}
            and self.left != 0
            and random.random() < self.share
        )
        if wanted and self.left:
            self.left -= 1
        return bool(wanted)


def _reply(code: int, body: bytes, after: float, more: dict[str, str]) -> Fault:
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **more}
    lines = [f"HTTP/1.1 {code} {HTTPStatus(code).phrase}", *(f"{k}: {v}" for k, v in headers.items())]

    async def reply(client: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(after)
        client.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        await client.drain()
        return False

    return reply


async def _head(reader: asyncio.StreamReader) -> tuple[bytes, dict[str, str]]:
    head = await reader.readuntil(b"\r\n\r\n")
    pairs = (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:] if line)
    return head, {name.lower(): value.strip() for name, _, value in pairs}


async def _answer(server: asyncio.StreamReader) -> Any:
    """One answer in pieces, as they come."""
    head, headers = await _head(server)
    yield head
    if headers.get("transfer-encoding") != "chunked":
        yield await server.readexactly(int(headers.get("content-length", 0)))
        return
    size = -1
    while size:
        line = await server.readline()
        size = int(line, 16)
        yield line + await server.readexactly(size + 2)


def _asked(head: bytes, headers: dict[str, str]) -> Asked:
    method, target, _ = head.decode("latin-1").split(" ", 2)
    url = urlsplit(target)
    token = headers.get("authorization", "").partition(" ")[2]
    return Asked(method, url.path, dict(parse_qsl(url.query)), _user(token), token)


def _user(token: str) -> str:
    """Who a service account's token says that it is."""
    claims = token.split(".")[1] if token.count(".") == 2 else ""
    padded = claims + "=" * (-len(claims) % 4)
    return str(json.loads(base64.urlsafe_b64decode(padded))["sub"]) if claims else ""
