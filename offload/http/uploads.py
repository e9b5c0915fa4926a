"""Uploads of one artifact: the body of a PUT is its bytes."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect

from offload import errors, metrics
from offload.domain.access import Permission
from offload.domain.digests import format_digest
from offload.errors import OffloadError, UploadInterruptedError
from offload.http.access import needs
from offload.http.names import NAMED_PATH, Name, exact_name
from offload.http.parts import Parts, parts_of
from offload.http.problems import described
from offload.http.schemas import ArtifactOut, artifact_out, base_url
from offload.http.upload_fields import content_type_of, digests_of, only_new_name, whole_fields
from offload.services.ingest import Ingested, Upload

router = APIRouter()

REFUSALS = (
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
"""What an upload may be answered, by itself or as one of several."""


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
        **described(*REFUSALS, errors.LengthMismatchError, errors.NameExistsError),
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
    headers = whole_fields(request.headers)
    upload = Upload(
        namespace=namespace,
        run=run,
        name=exact_name(request, name),
        uid=query.uid,
        type=query.type,
        content_type=content_type_of(headers),
        size_bytes=int(headers["content-length"]) if "content-length" in headers else None,
        digests=digests_of(headers),
        expires=query.expires,
        only_new_name=only_new_name(headers),
    )
    return _answer(request, await ingest(parts_of(request), upload, body_of(request)))


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


async def ingest(
    parts: Parts, upload: Upload, body: AsyncIterator[bytes], *, of_several: bool = False
) -> Ingested:
    """Take an upload, and count what became of it. Raises as `Ingest.put` does."""
    try:
        ingested = await parts.ingest.put(upload, body, of_several=of_several)
    except OffloadError as error:
        metrics.INGESTS.labels(error.type).inc()
        raise
    outcome = "created" if ingested.created else "same"
    metrics.INGESTS.labels(outcome).inc()
    metrics.INGEST_BYTES.labels(outcome).inc(ingested.artifact.size_bytes)
    return ingested


def body_of(request: Request) -> AsyncIterator[bytes]:
    """What is sent, as it comes. Raises `UploadInterruptedError`, and as `Ingest.steady` does."""
    return parts_of(request).ingest.steady(_sent(request))


async def _sent(request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            if chunk:
                yield chunk
    except ClientDisconnect as error:
        raise UploadInterruptedError from error
