"""Uploads: one raw body by PUT, several files by POST."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect

from offload import errors, metrics
from offload.domain.access import Permission
from offload.domain.digests import format_digest, parse_digests
from offload.domain.limits import NAME_BYTES
from offload.errors import (
    InvalidHeaderError,
    InvalidNameError,
    OffloadError,
    UnsupportedMediaTypeError,
    UploadInterruptedError,
)
from offload.http.access import needs
from offload.http.multipart import Part, read_parts
from offload.http.names import NAMED_PATH, Name, exact_name
from offload.http.parts import Parts, parts_of
from offload.http.problems import described, problem_of, request_id_of, status_of
from offload.http.schemas import ArtifactOut, UploadResult, UploadResults, artifact_out, base_url
from offload.services.ingest import Ingested, Upload
from offload.services.pieces import joined, start_of

router = APIRouter()

_AT_ONCE = 32
"""Small files of one POST that are on their way together, and so in one commit: 2,700 files/s; 16, 2,000."""

_PLAIN = {
    "content-encoding": ("identity",),
    "transfer-encoding": ("chunked",),
    "content-transfer-encoding": ("7bit", "8bit", "binary"),
}
"""By header, the codings that leave a body's bytes as they are."""

_NOT_SAID = frozenset({"", "application/x-www-form-urlencoded"})
"""Content types that mean the sender said nothing: the second is what curl -d adds unasked."""

_REFUSALS = (
    errors.InvalidNameError,
    errors.InvalidTypeError,
    errors.InvalidContentTypeError,
    errors.InvalidDigestError,
    errors.InvalidExpiryError,
    errors.InvalidHeaderError,
    errors.DigestMismatchError,
    errors.UploadInterruptedError,
    errors.RunNotFoundError,
    errors.UploadTimedOutError,
    errors.RunDeletedError,
    errors.RunUidMismatchError,
    errors.UploadTooLargeError,
    errors.UnsupportedMediaTypeError,
    errors.StoreUnavailableError,
    errors.StoreRefusedError,
    errors.RunChangedError,
    errors.UploadOutlivedError,
    errors.TooManyUploadsError,
    errors.ShuttingDownError,
)


class UploadQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    type: str | None = Field(
        None,
        description="The artifact's type, a DNS label; default: by the content type.",
        json_schema_extra={"pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"},
    )
    uid: str | None = Field(None, description="The incarnation that is meant.", pattern="^[!-~]{1,128}$")
    expires: str | None = Field(
        None, description="A duration such as 7d, or an RFC 3339 time; may only shorten what the rules give."
    )


@router.put(
    NAMED_PATH,
    operation_id="putArtifact",
    tags=["uploads"],
    status_code=201,
    response_model=ArtifactOut,
    responses={
        200: {"model": ArtifactOut, "description": "The current version has these bytes already."},
        **described(*_REFUSALS, errors.LengthMismatchError, errors.NameExistsError),
    },
    openapi_extra={
        "requestBody": {
            "description": "The artifact's bytes.",
            "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}},
        },
        "parameters": [
            {"name": name, "in": "header", "required": False, "schema": schema, "description": text}
            for name, schema, text in (
                (
                    "Repr-Digest",
                    {"type": "string", "pattern": "^sha-256=:[A-Za-z0-9+/]{43}=:$"},
                    "RFC 9530; verified before anything is visible. 200 without the body where it is known.",
                ),
                (
                    "Content-Digest",
                    {"type": "string", "pattern": "^sha-256=:[A-Za-z0-9+/]{43}=:$"},
                    "As Repr-Digest: the body is the representation.",
                ),
                ("If-None-Match", {"type": "string", "enum": ["*"]}, "Only a new name: 412 where it exists."),
            )
        ],
    },
)
@needs(Permission.WRITE, over="run")
async def put_artifact(
    request: Request, namespace: str, run: str, name: Name, query: Annotated[UploadQuery, Query()]
) -> Response:
    """Store one artifact: the whole body is its bytes."""
    headers = _whole_fields(request.headers)
    upload = Upload(
        namespace=namespace,
        run=run,
        name=exact_name(request, name),
        uid=query.uid,
        type=query.type,
        content_type=_content_type(headers),
        size_bytes=int(headers["content-length"]) if "content-length" in headers else None,
        digests=_digests(headers),
        expires=query.expires,
        only_new_name=_only_new_name(headers),
    )
    return _answer(request, await _ingest(parts_of(request), upload, _body(request)))


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
        **described(*_REFUSALS, errors.InvalidMultipartError, errors.NameExistsError),
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
    headers = _whole_fields(request.headers)
    _refuse_coding(headers)
    each = Upload(
        namespace,
        run,
        name="",
        uid=query.uid,
        type=query.type,
        expires=query.expires,
        only_new_name=_only_new_name(headers),
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
        async for part in read_parts(request.headers.get("content-type", ""), _body(request)):
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
                content_type=_part_content_type(part),
                size_bytes=len(start) if rest is None else None,
                digests=_digests(part.headers),
            )
            body = joined(start, rest)
            ingested = await _ingest(parts_of(self._request), upload, body, of_several=True)
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


async def _ingest(
    parts: Parts, upload: Upload, body: AsyncIterator[bytes], *, of_several: bool = False
) -> Ingested:
    try:
        ingested = await parts.ingest.put(upload, body, of_several=of_several)
    except OffloadError as error:
        metrics.INGESTS.labels(error.type).inc()
        raise
    outcome = "created" if ingested.created else "same"
    metrics.INGESTS.labels(outcome).inc()
    metrics.INGEST_BYTES.labels(outcome).inc(ingested.artifact.size_bytes)
    return ingested


def _body(request: Request) -> AsyncIterator[bytes]:
    return parts_of(request).ingest.steady(_sent(request))


async def _sent(request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            if chunk:
                yield chunk
    except ClientDisconnect as error:
        raise UploadInterruptedError from error


def _answer(request: Request, ingested: Ingested) -> Response:
    artifact = ingested.artifact
    request.state.noted = {"run": artifact.run_uid, "artifact": str(artifact.id)}
    return Response(
        artifact_out(request, artifact, ingested.expires_at).model_dump_json(by_alias=True),
        201 if ingested.created else 200,
        {
            "Content-Type": "application/json",
            "Location": f"{base_url(request)}/v1/artifacts/{artifact.id}",
            "ETag": artifact.etag,
            "Repr-Digest": format_digest(artifact.sha256),
        },
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


def _whole_fields(headers: Headers) -> dict[str, str]:
    """A field that came in several lines is one list (RFC 9110, section 5.3)."""
    return {name: ", ".join(headers.getlist(name)) for name in headers}


def _content_type(headers: Mapping[str, str]) -> str | None:
    _refuse_coding(headers)
    content_type = headers.get("content-type", "").strip()
    return None if content_type in _NOT_SAID else content_type


def _part_content_type(part: Part) -> str | None:
    """Curl and browsers write application/octet-stream where they do not know better than we do."""
    _refuse_coding(part.headers)
    content_type = part.headers.get("content-type", "").strip()
    return None if content_type in {*_NOT_SAID, "application/octet-stream"} else content_type


def _digests(headers: Mapping[str, str]) -> dict[str, bytes]:
    digests: dict[str, bytes] = {}
    for field in ("repr-digest", "content-digest"):
        value = headers.get(field)
        if value is not None:
            for algorithm, digest in parse_digests(field.title(), value).items():
                if digests.setdefault(algorithm, digest) != digest:
                    raise errors.InvalidDigestError(field.title(), "must not contradict Repr-Digest", value)
    return digests


def _only_new_name(headers: Mapping[str, str]) -> bool:
    for field in ("if-match", "if-modified-since", "if-unmodified-since", "content-range"):
        if field in headers:
            raise InvalidHeaderError(field.title(), "is not supported on uploads", headers[field])
    condition = headers.get("if-none-match")
    if condition not in {None, "*"}:
        raise InvalidHeaderError("If-None-Match", "must be * on uploads", condition)
    return condition is not None


def _refuse_coding(headers: Mapping[str, str]) -> None:
    """Refuse what is coded: the bytes are stored as they come, and nobody takes the coding off again."""
    for field, plain in _PLAIN.items():
        coding = headers.get(field, "")
        if coding.strip().lower() not in {"", *plain}:
            raise UnsupportedMediaTypeError(
                f"{field.title()} {coding!r} would hide what the bytes are; send a compressed file as it is"
            )
