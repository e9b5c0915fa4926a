"""Requests that carry bytes to and from S3: boto3 finds the address and the credentials, aiohttp sends.

boto3 takes 1.2 ms of CPU for a put of 4 KiB, this 0.15 ms (docs/decisions/0016-bytes-over-aiohttp.md).
"""

import asyncio
import hashlib
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qs, quote, urlsplit
from urllib.request import getproxies, proxy_bypass
from xml.etree import ElementTree as ET

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload
from botocore.credentials import Credentials, ReadOnlyCredentials
from botocore.exceptions import ClientError
from yarl import URL

from offload.domain.artifact import Location
from offload.errors import StoreRefusedError, StoreUnavailableError
from offload.objects.parts import Part
from offload.objects.s3_client import S3Connection, trust_of
from offload.objects.s3_errors import code_of, is_elsewhere, translated
from offload.objects.s3_signing import UNSIGNED, signed

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_T = TypeVar("_T")

_CREDENTIALS_SECONDS = 60.0
"""botocore renews credentials 15 minutes before they end; asked more often, it would cost each request."""
_SMALL = 64 * 2**10
"""Bytes hashed without a hop to a thread, which costs more, and sent in one packet with their headers."""
_AT_ONCE = 2**20
"""Bytes handed to the socket together; each such stretch must be taken within the read time-out."""
_READ_AHEAD = 512 * 2**10
_ERROR_BYTES = 64 * 2**10
_REDIRECTED = 300
_EMPTY = hashlib.sha256().hexdigest()
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


@dataclass(frozen=True, slots=True)
class _Address:
    """Where a bucket's objects are."""

    origin: str
    host: str
    path: str
    region: str
    proxy: str | None


@dataclass(frozen=True, slots=True)
class _Request:
    """What is asked of one object."""

    method: str
    location: Location
    query: str
    headers: Mapping[str, str]
    payload: str
    """What its signature says of the body."""
    body: "_Body | None" = None


@dataclass(frozen=True, slots=True)
class _Opened:
    """What belongs to one event loop."""

    session: aiohttp.ClientSession
    places: asyncio.Semaphore
    until_the_end: AsyncGenerator[aiohttp.ClientSession]


class S3Wire:
    """Signed requests on whichever event loop asks; each loop has connections of its own until it ends."""

    def __init__(
        self,
        connection: S3Connection,
        client: "S3Client",
        credentials: Credentials,
        pool: ThreadPoolExecutor,
        *,
        at_once: int,
    ) -> None:
        """`pool` takes what blocks; at most `at_once` bodies are sent at a time."""
        self._connection, self._client, self._credentials = connection, client, credentials
        self._pool, self._at_once = pool, at_once
        self._tls = trust_of(connection)
        self._known: tuple[float, ReadOnlyCredentials] | None = None
        self._addresses: dict[str, _Address] = {}
        self._opened: dict[asyncio.AbstractEventLoop, _Opened] = {}

    async def put(  # noqa: PLR0913 - what a request is, and when it is not worth another try
        self,
        doing: str,
        location: Location,
        part: Part,
        *,
        query: str = "",
        headers: Mapping[str, str],
        given_up: Callable[[], bool] = lambda: False,
    ) -> Mapping[str, str]:
        """Send a body; answer the headers of the reply. `doing` opens the message of what goes wrong."""
        opened = await self._here()
        payload = await self._payload(part)

        async def ask() -> Mapping[str, str]:
            async with opened.places:
                if given_up():
                    raise StoreRefusedError(f"{doing}: the upload was given up")
                body = _Body(part, within=self._connection.read_timeout)
                request = _Request("PUT", location, query, headers, payload, body)
                async with await self._ask(request) as answer:
                    # As to a request to complete, the answer can be 200 with an error.
                    if not answer.headers.get("ETag"):
                        raise await _refusal("PUT", answer, otherwise="without an ETag")
                    return answer.headers

        return await self._insist(doing, ask)

    @asynccontextmanager
    async def get(
        self, location: Location, headers: Mapping[str, str]
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open an object's bytes; leaving closes the connection unless all were read."""
        query = f"versionId={quote(location.version_id, safe='')}" if location.version_id else ""
        doing = "reading an object"
        request = _Request("GET", location, query, headers, _EMPTY)
        answer = await self._insist(doing, lambda: self._ask(request))
        try:
            if "Range" in headers and answer.status != HTTPStatus.PARTIAL_CONTENT:
                raise StoreRefusedError(
                    f"{doing}: the store answered {answer.status} where a range was asked"
                )
            yield _pieces(answer, doing)
        finally:
            answer.close()

    async def _insist(self, doing: str, ask: Callable[[], Awaitable[_T]]) -> _T:
        """As botocore's standard mode: so many tries, further and further apart, each at random."""
        tried = 0
        while True:
            try:
                with translated(doing):
                    return await ask()
            except StoreUnavailableError as failure:
                tried += 1
                gone = code_of(failure.__cause__) == "NoSuchUpload"
                if gone or isinstance(failure, StoreRefusedError) or tried >= self._connection.attempts:
                    raise
            await asyncio.sleep(random.random() * 2**tried)  # noqa: S311 - spreads load, keeps no secret

    async def _ask(self, request: _Request) -> aiohttp.ClientResponse:
        try:
            return await self._ask_once(request)
        except ClientError as error:
            if not is_elsewhere(error):
                raise
        loop = asyncio.get_running_loop()
        bucket = request.location.bucket
        self._addresses[bucket] = await loop.run_in_executor(self._pool, self._look_for, bucket)
        return await self._ask_once(request)

    async def _ask_once(self, request: _Request) -> aiohttp.ClientResponse:
        address, opened = await self._address(request.location.bucket), await self._here()
        path = f"{address.path}/{quote(request.location.key, safe='/~')}"
        sent = signed(
            request.method,
            path,
            request.query,
            {**request.headers, "Host": address.host},
            payload=request.payload,
            credentials=await self._frozen_credentials(),
            region=address.region,
            now=datetime.now(UTC),
        )
        query = f"?{request.query}" if request.query else ""
        answer = await opened.session.request(
            request.method,
            URL(f"{address.origin}{path}{query}", encoded=True),
            headers=sent,
            data=request.body,
            proxy=address.proxy,
            allow_redirects=False,
        )
        if answer.status < _REDIRECTED:
            return answer
        async with answer:
            raise await _refusal(request.method, answer, otherwise=str(answer.status))

    async def _payload(self, part: Part) -> str:
        """What the signature says of the body: its SHA-256, or nothing where that costs much unasked."""
        if sum(map(len, part)) <= _SMALL:
            return _sha256(part)
        if not self._connection.sign_bodies:
            return UNSIGNED
        return await asyncio.get_running_loop().run_in_executor(self._pool, _sha256, part)

    async def _address(self, bucket: str) -> _Address:
        known = self._addresses.get(bucket)
        if known is None:
            loop = asyncio.get_running_loop()
            known = self._addresses[bucket] = await loop.run_in_executor(self._pool, self._presume, bucket)
        return known

    def _presume(self, bucket: str) -> _Address:
        """A bucket's address by the settings alone."""
        return _address_in(self._client.generate_presigned_url("head_bucket", Params={"Bucket": bucket}))

    def _look_for(self, bucket: str) -> _Address:
        """The address of a bucket in another region, which boto3 finds by asking around."""
        region = self._client.head_bucket(Bucket=bucket).get("BucketRegion")
        address = self._presume(bucket)
        return replace(address, region=region) if region else address

    async def _frozen_credentials(self) -> ReadOnlyCredentials:
        if self._known is None or time.monotonic() - self._known[0] > _CREDENTIALS_SECONDS:
            loop = asyncio.get_running_loop()  # to renew them is a request
            frozen = await loop.run_in_executor(self._pool, self._credentials.get_frozen_credentials)
            self._known = (time.monotonic(), frozen)
        return self._known[1]

    async def _here(self) -> _Opened:
        loop = asyncio.get_running_loop()
        opened = self._opened.get(loop)
        if opened is None:
            until_the_end = self._sessions(loop)
            session = await anext(until_the_end)
            opened = _Opened(session, asyncio.Semaphore(self._at_once), until_the_end)
            self._opened[loop] = opened
        return opened

    async def _sessions(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[aiohttp.ClientSession]:
        """One session, closed when `loop` ends: a loop that ends in order ends its generators first."""
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._tls),
            timeout=aiohttp.ClientTimeout(
                total=None,
                sock_connect=self._connection.connect_timeout,
                sock_read=self._connection.read_timeout,
            ),
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=_READ_AHEAD,
        )
        try:
            async with session:
                yield session
        finally:
            self._opened.pop(loop, None)
            await asyncio.sleep(0)  # transports are closed by the loop's next turn


class _Body(Payload):
    """The chunks of a part, given to the socket as they are: to join them first costs 1 s of CPU a GiB."""

    _autoclose = True

    def __init__(self, part: Part, *, within: float) -> None:
        super().__init__(part)
        self._size, self._within = sum(map(len, part)), within
        self._joins = self._size <= _SMALL

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return b"".join(self._value).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: Any, content_length: int | None) -> None:  # noqa: ARG002 - ours
        """Send all; raises `TimeoutError` where a stretch is not taken in time."""
        if self._joins:
            await writer.write(b"".join(self._value))  # with the headers in one packet
            return
        writer.send_headers()
        try:
            for stretch in _stretches(self._value):
                _transport_of(writer).writelines(stretch)
                async with asyncio.timeout(self._within):
                    await writer.drain()
        except BaseException:
            if writer.transport is not None:
                writer.transport.abort()  # to close it would keep the bytes for as long as nobody takes them
            raise


def _transport_of(writer: Any) -> asyncio.WriteTransport:
    transport: asyncio.WriteTransport | None = writer.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError
    return transport


def _stretches(part: Part) -> Iterator[Part]:
    """The same bytes, some `_AT_ONCE` at a time."""
    stretch: Part = []
    held = 0
    for chunk in part:
        for start in range(0, len(chunk), _AT_ONCE):
            stretch.append(chunk[start : start + _AT_ONCE])
            held += len(stretch[-1])
            if held >= _AT_ONCE:
                yield stretch
                stretch, held = [], 0
    if stretch:
        yield stretch


async def _pieces(answer: aiohttp.ClientResponse, doing: str) -> AsyncIterator[bytes]:
    while True:
        with translated(doing):
            piece = await answer.content.readany()
        if not piece:
            return
        yield piece


def _address_in(signed_url: str) -> _Address:
    """A bucket's address and region, as a signed URL of botocore's has them."""
    url = urlsplit(signed_url)
    region = parse_qs(url.query)["X-Amz-Credential"][0].split("/")[2]
    host = url.netloc.removesuffix(_DEFAULT_PORTS[url.scheme])
    proxy = None if proxy_bypass(url.netloc) else getproxies().get(url.scheme)
    return _Address(f"{url.scheme}://{url.netloc}", host, url.path.rstrip("/"), region, proxy)


async def _refusal(method: str, answer: aiohttp.ClientResponse, *, otherwise: str) -> ClientError:
    """An answer of the store's that is no success, as botocore raises it, with its code or `otherwise`."""
    body = b""
    while len(body) < _ERROR_BYTES and (piece := await answer.content.read(_ERROR_BYTES - len(body))):
        body += piece
    try:
        code = ET.fromstring(body).findtext("Code") or otherwise  # noqa: S314 - the store is trusted, the size bounded
    except ET.ParseError:
        code = otherwise
    said: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": answer.status}}
    return ClientError(said, "GetObject" if method == "GET" else "PutObject")


def _sha256(part: Part) -> str:
    digest = hashlib.sha256()
    for chunk in part:
        digest.update(chunk)
    return digest.hexdigest()
