"""Bytes: by id, and by name."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

import structlog
from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.types import Message, Receive, Scope, Send

from offload import errors
from offload.domain.access import Permission
from offload.domain.artifact import Artifact, Location
from offload.domain.digests import format_digest
from offload.domain.ranges import parse_range
from offload.errors import ObjectMissingError, TooManyDownloadsError
from offload.http.access import needs, reach_artifact
from offload.http.conditions import has_them, range_header, refuse_other_bytes
from offload.http.names import NAMED_PATH, Name, exact_name
from offload.http.parts import Parts, parts_of
from offload.http.problems import described
from offload.http.queries import NO_QUERY
from offload.services.missing_bytes import refuse_ended

router = APIRouter()
log = structlog.get_logger("offload.http")

PRESIGNED_SECONDS = 300
_SHORT = 64 * 2**10

_SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "private, no-cache",
}
"""Stored bytes are never a page of our own origin, whatever they are."""

_RUNNABLE = ("html", "xml", "svg", "javascript", "ecmascript", "pdf", "flash")

_REFUSALS = (
    errors.ArtifactNotFoundError,
    errors.ArtifactExpiredError,
    errors.ArtifactDeletedError,
    errors.ArtifactLostError,
    errors.PreconditionFailedError,
    errors.RangeNotSatisfiableError,
    errors.StoreUnavailableError,
    errors.StoreRefusedError,
    errors.TooManyDownloadsError,
)
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The bytes.",
        "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}},
    },
    206: {"description": "The range that was asked for.", "content": {"*/*": {}}},
    304: {"description": "The client has these bytes (If-None-Match)."},
    307: {"description": "The bytes are at a presigned URL of the store."},
    **described(*_REFUSALS),
}
# Described anew as a whole: a status has one description, and these share theirs with the refusals above.
_NAMED_ANSWERS = {
    **_ANSWERS,
    **described(*_REFUSALS, errors.RunNotFoundError, errors.RunUidMismatchError),
}


class VersionQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: UUID | None = Field(None, description="The id of a version; default: the current one.")
    uid: str | None = Field(None, description="The incarnation that is meant.", pattern="^[!-~]{1,128}$")


@router.get(
    "/v1/artifacts/{id}/content",
    operation_id="getContent",
    tags=["bytes"],
    responses=_ANSWERS,
    dependencies=[NO_QUERY],
)
@router.head(
    "/v1/artifacts/{id}/content",
    operation_id="headContent",
    tags=["bytes"],
    responses=_ANSWERS,
    dependencies=[NO_QUERY],
)
@needs(Permission.READ, over="artifact")
async def content(request: Request, id: UUID) -> Response:  # noqa: A002 - its name in the path
    """The bytes of one artifact."""
    artifact = await run_in_threadpool(parts_of(request).browse.artifact, id)
    return await _serve(request, reach_artifact(request, artifact))


@router.get(
    NAMED_PATH,
    operation_id="getNamed",
    tags=["bytes"],
    responses=_NAMED_ANSWERS,
)
@router.head(
    NAMED_PATH,
    operation_id="headNamed",
    tags=["bytes"],
    responses=_NAMED_ANSWERS,
)
@needs(Permission.READ, over="run")
async def named_content(
    request: Request, namespace: str, run: str, name: Name, query: Annotated[VersionQuery, Query()]
) -> Response:
    """The bytes of the current version of a name: what was PUT can be got."""
    name, parts = exact_name(request, name), parts_of(request)
    pinned = query.uid is not None or query.version is not None
    found = None if pinned else await parts.lookups.current(namespace, run, name)
    if found is None:
        browse = parts.browse
        found = await run_in_threadpool(
            lambda: browse.named(browse.run(namespace, run, query.uid), name, query.version)
        )
    return await _serve(request, found)


async def _serve(request: Request, artifact: Artifact) -> Response:
    request.state.noted = {"run": artifact.run_uid, "artifact": str(artifact.id)}
    refuse_ended(artifact)
    refuse_other_bytes(request, artifact)
    parts = parts_of(request)
    headers = {
        **_SAFE,
        "ETag": artifact.etag,
        "Repr-Digest": format_digest(artifact.sha256),
        "Accept-Ranges": "bytes",
        "Content-Disposition": disposition(artifact.name),
        "X-Artifact-Id": str(artifact.id),
    }
    if has_them(request, artifact):
        return Response(status_code=304, headers=headers)
    if request.method == "GET" and parts.redirects:
        elsewhere = await run_in_threadpool(_presigned, parts, artifact)
        if elsewhere:
            # The store's own answer cannot say what the bytes must be; who follows can verify them by this.
            known = {name: headers[name] for name in ("ETag", "Repr-Digest", "X-Artifact-Id")}
            return RedirectResponse(elsewhere, 307, {"Cache-Control": "no-store", **known})
    wanted = parse_range(range_header(request, artifact), artifact.size_bytes)
    if wanted:
        headers["Content-Range"] = f"bytes {wanted.first}-{wanted.last}/{artifact.size_bytes}"
    headers["Content-Length"] = str(wanted.length if wanted else artifact.size_bytes)
    headers["Content-Type"] = artifact.content_type
    status = 206 if wanted else 200
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    first, last = (wanted.first, wanted.last) if wanted else (0, None)
    answer = _Bytes if int(headers["Content-Length"]) > _SHORT else _ShortBytes
    return answer(request, artifact, first, last, status, headers)


class _Bytes(StreamingResponse):
    """Bytes from the store, opened when they are sent, so that whatever ends the answer closes them."""

    def __init__(  # noqa: PLR0913, PLR0917 - what, which part of it, and how it is told
        self,
        request: Request,
        artifact: Artifact,
        first: int,
        last: int | None,
        status: int,
        headers: dict[str, str],
    ) -> None:
        super().__init__((), status, headers)
        self._request, self._parts = request, parts_of(request)
        self._artifact, self._first, self._last = artifact, first, last

    async def stream_response(self, send: Send) -> None:
        artifact, places = self._artifact, self._parts.downloads
        if places.locked():
            raise TooManyDownloadsError(retry_after=1)
        async with places:
            try:
                await self._stream_from(artifact.location, send)
            except ObjectMissingError:
                elsewhere = await run_in_threadpool(self._parts.find_again, artifact)
                await self._stream_from(elsewhere, send)

    async def _stream_from(self, location: Location, send: Send) -> None:
        connection = self._request.scope["extensions"]["offload.connection"]
        async with self._parts.objects.get(location, first=self._first, last=self._last) as stream:
            await self._pass_on(stream, _timed(send, self._parts.stall_seconds, **connection))

    async def _pass_on(self, stream: AsyncIterator[bytes], send: Send) -> None:
        self.body_iterator = stream
        await super().stream_response(send)


class _ShortBytes(_Bytes):
    """So few that nobody need listen for a reader that leaves, which takes a group of tasks.

    They are read before the answer begins: what goes wrong until then is told, and does not break it off.
    """

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await self.stream_response(send)

    async def _pass_on(self, stream: AsyncIterator[bytes], send: Send) -> None:
        body = b"".join([piece async for piece in stream])
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": body})


def _timed(send: Send, seconds: float, *, untaken: Callable[[], int], abort: Callable[[], None]) -> Send:
    """`send`, which ends a connection whose reader takes nothing for so long: its place is for others.

    One that takes little is waited for: it may have megabytes to take before what is sent leaves us.
    """
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def look(before: int) -> None:
        nonlocal timer
        left = untaken()
        if left and left == before:
            log.warning("download.stalled", seconds=seconds)
            abort()  # ends what is being sent, as after a reader that has gone
        else:
            timer = loop.call_later(seconds, look, left)

    async def send_in_time(message: Message) -> None:
        nonlocal timer
        timer = loop.call_later(seconds, look, untaken())
        try:
            await send(message)
        finally:
            timer.cancel()

    return send_in_time


def disposition(name: str) -> str:
    """A `Content-Disposition` that saves under the last segment of `name` (RFC 6266, RFC 8187)."""
    base = name.rpartition("/")[2]
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\%' else "_" for c in base)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(base, safe='')}"


def _presigned(parts: Parts, artifact: Artifact) -> str | None:
    runs = any(word in artifact.content_type.lower() for word in _RUNNABLE)
    return parts.objects.presign(
        artifact.location,
        seconds=PRESIGNED_SECONDS,
        content_type="application/octet-stream" if runs else artifact.content_type,
        content_disposition=disposition(artifact.name),
    )
