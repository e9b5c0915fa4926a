"""Uploads of several files by one POST: each part is an artifact of its own, with an answer of its own."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from offload import errors
from offload.domain.access import Permission
from offload.domain.limits import NAME_BYTES
from offload.errors import InvalidNameError, OffloadError
from offload.http.access import needs
from offload.http.multipart import Part, read_parts
from offload.http.parts import parts_of
from offload.http.problems import described, problem_of, request_id_of, status_of
from offload.http.schemas import UploadResult, UploadResults, artifact_out
from offload.http.upload_fields import (
    digests_of,
    only_new_name,
    part_content_type,
    refuse_coding,
    whole_fields,
)
from offload.http.uploads import REFUSALS, UploadQuery, body_of, ingest
from offload.services.ingest import Upload
from offload.services.pieces import joined, start_of

router = APIRouter()

_AT_ONCE = 32
"""Small files of one POST that are on their way together, and so in one commit: 2,700 files/s; 16, 2,000."""


@router.post(
    "/v1/namespaces/{namespace}/agentruns/{run}/artifacts",
    operation_id="postArtifacts",
    tags=["uploads"],
    status_code=201,
    response_model=UploadResults,
    responses={
        200: {"model": UploadResults, "description": "All are stored, and none is new."},
        201: {"description": "All are stored, and at least one is new."},
        422: {
            "model": UploadResults,
            "description": "At least one was refused; sending it again will not help.",
        },
        **described(*REFUSALS, errors.InvalidMultipartError, errors.NameExistsError),
        503: {
            "description": "At least one failed and may succeed later; the results tell which. Or a problem.",
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/UploadResults"}},
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}},
            },
        },
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "properties": {
                            "file": {
                                "type": "array",
                                "minItems": 1,
                                "items": {"type": "string", "format": "binary"},
                            }
                        },
                        "required": ["file"],
                        "additionalProperties": False,
                    }
                }
            },
        }
    },
)
@needs(Permission.WRITE, over="run")
async def post_artifacts(
    request: Request, namespace: str, run: str, query: Annotated[UploadQuery, Query()]
) -> Response:
    """Store several files in one round trip: each part is an artifact, named by its `filename`."""
    headers = whole_fields(request.headers)
    refuse_coding(headers)
    each = Upload(
        namespace,
        run,
        name="",
        uid=query.uid,
        type=query.type,
        expires=query.expires,
        only_new_name=only_new_name(headers),
    )
    async with parts_of(request).ingest.expect(each):
        results = await _send_all(request, each)
    return JSONResponse(
        UploadResults(results=results).model_dump(mode="json", by_alias=True), *_whole(results)
    )


async def _send_all(request: Request, each: Upload) -> list[UploadResult]:
    """What became of each file; raises what is wrong with the body where it is wrong from the start."""
    sending = _Sending(request, each)
    broken = None
    try:
        async for part in read_parts(request.headers.get("content-type", ""), body_of(request)):
            await sending.send(part)
    except OffloadError as error:
        broken = error
    finally:
        await sending.settle()
    results = [result.result() for result in sending.results]
    if broken and not results:
        raise broken
    if broken:  # the files before it are stored: their sender is told so
        results.append(_refused(request, None, broken))
    return results


class _Sending:
    """The files of one POST: small ones go together, a large one alone."""

    def __init__(self, request: Request, each: Upload) -> None:
        """`each` is what is said of all files."""
        self._request, self._each = request, each
        self._free = asyncio.Semaphore(min(_AT_ONCE, parts_of(request).ingest.most_of_a_run))
        self._latest: dict[str | None, asyncio.Task[UploadResult]] = {}
        self.results: list[asyncio.Task[UploadResult]] = []

    async def send(self, part: Part) -> None:
        """Take one part; when this returns, its body was read."""
        before = self._latest.get(part.filename)
        if before:
            await asyncio.wait([before])  # two versions of one name: the later one becomes current
        await self._free.acquire()
        start, rest = await start_of(part.body)
        task = asyncio.create_task(self._store(part, start, rest))
        self._latest[part.filename] = task
        task.add_done_callback(lambda done: self._done(part.filename, done))
        self.results.append(task)
        if rest is not None:
            await asyncio.wait([task])

    def _done(self, name: str | None, task: "asyncio.Task[UploadResult]") -> None:
        self._free.release()
        if self._latest.get(name) is task:
            del self._latest[name]

    async def settle(self) -> None:
        """Wait for what is on its way."""
        if self.results:
            await asyncio.wait(self.results)

    async def _store(self, part: Part, start: bytes, rest: AsyncIterator[bytes] | None) -> UploadResult:
        try:
            if part.filename is None:
                raise InvalidNameError("filename", "every part must have one: it names the artifact", None)
            upload = replace(
                self._each,
                name=part.filename,
                content_type=part_content_type(part),
                size_bytes=len(start) if rest is None else None,
                digests=digests_of(part.headers),
            )
            body = joined(start, rest)
            ingested = await ingest(parts_of(self._request), upload, body, of_several=True)
        except OffloadError as error:
            return _refused(self._request, part.filename, error)
        return UploadResult(
            name=part.filename,
            status=201 if ingested.created else 200,
            artifact=artifact_out(self._request, ingested.artifact, ingested.expires_at),
        )


def _refused(request: Request, name: str | None, error: OffloadError) -> UploadResult:
    shown = name and name[:NAME_BYTES].encode(errors="replace").decode()
    return UploadResult(
        name=shown, status=status_of(error), problem=problem_of(error, request_id_of(request))
    )


def _whole(results: list[UploadResult]) -> tuple[int, dict[str, str]]:
    """The status of several results, and the headers that go with it."""
    statuses = {result.status for result in results}
    # Server errors (RFC 9110, section 15.6), and a sender that was too slow this time (section 15.5.9).
    if any(status >= 500 or status == 408 for status in statuses):  # noqa: PLR2004 - see above
        return 503, {"Retry-After": "5"}
    if any(status >= 400 for status in statuses):  # noqa: PLR2004 - client errors (section 15.5)
        return 422, {}
    return (201 if 201 in statuses else 200), {}  # noqa: PLR2004 - Created
