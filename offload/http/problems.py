"""Errors as RFC 9457 problems: the only place that knows status numbers."""

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from offload import errors
from offload.errors import InvalidQueryError, OffloadError

MEDIA_TYPE = "application/problem+json"
_TYPE_PREFIX = "urn:offload:problem:"

STATUS: Mapping[type[OffloadError], int] = {
    errors.InvalidInputError: 400,
    errors.InvalidMultipartError: 400,
    errors.DigestMismatchError: 400,
    errors.LengthMismatchError: 400,
    errors.UploadInterruptedError: 400,
    errors.UnauthenticatedError: 401,
    errors.NotFoundError: 404,
    errors.MethodNotAllowedError: 405,
    errors.UploadTimedOutError: 408,
    errors.RunDeletedError: 409,
    errors.RunUidMismatchError: 409,
    errors.ArtifactGoneError: 410,
    errors.NameExistsError: 412,
    errors.PreconditionFailedError: 412,
    errors.UploadTooLargeError: 413,
    errors.UnsupportedMediaTypeError: 415,
    errors.RangeNotSatisfiableError: 416,
    errors.UnavailableError: 503,
    errors.OffloadError: 500,
}
"""Status by error class; a class that is not here has its nearest ancestor's."""


class Problem(BaseModel):
    """A problem details object (RFC 9457, section 3)."""

    type: str = Field(description="Stable: `urn:offload:problem:` and a word of docs/errors.md.")
    title: str = Field(description="The type in words.")
    status: int
    detail: str = Field(description="What happened this time.")
    requestId: str | None = Field(None, description="Names this request in the server's log.")  # noqa: N815 - its name on the wire


def status_of(error: OffloadError) -> int:
    """The HTTP status that `error` is answered with."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def problem_of(error: OffloadError, request_id: str | None) -> Problem:
    """`error` as it is told to a client."""
    return Problem(
        type=_TYPE_PREFIX + error.type,
        title=_title(error),
        status=status_of(error),
        detail=error.told,
        requestId=request_id,
    )


def answer(error: OffloadError, request_id: str | None) -> Response:
    """The whole response to `error`."""
    problem = problem_of(error, request_id)
    return JSONResponse(
        problem.model_dump(exclude_none=True), problem.status, headers_of(error), media_type=MEDIA_TYPE
    )


def headers_of(error: OffloadError) -> dict[str, str]:
    """What goes with the problem: when to come back, how to authenticate, how much there is."""
    match error:
        case errors.UnavailableError():
            return {"Retry-After": str(max(1, math.ceil(error.retry_after)))}
        case errors.UnauthenticatedError():
            return {"WWW-Authenticate": 'Bearer realm="offload"'}
        case errors.RangeNotSatisfiableError():
            return {"Content-Range": f"bytes */{error.size}", "Accept-Ranges": "bytes"}
    return {}


def install(app: FastAPI) -> None:
    """Answer every error of `app`, the framework's own included, with a problem."""

    @app.exception_handler(OffloadError)
    async def ours(request: Request, error: OffloadError) -> Response:
        request.state.problem = error.type
        return answer(error, request_id_of(request))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, _error: Exception) -> Response:
        return await ours(request, errors.InternalError())

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return await ours(request, _query_error(error))

    @app.exception_handler(HTTPException)
    async def framework(request: Request, error: HTTPException) -> Response:
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            refused = await ours(request, errors.MethodNotAllowedError())
            refused.headers["Allow"] = ", ".join(_methods_at(request))
            return refused
        return await ours(request, errors.NotFoundError(f"there is nothing at {request.url.path}"))


def _methods_at(request: Request) -> list[str]:
    """The methods of every route at this path: the framework names those of one route."""
    return [
        method
        for method in ("DELETE", "GET", "HEAD", "POST", "PUT")
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]


def request_id_of(request: Request) -> str | None:
    """The id that the request got on its way in."""
    request_id: str | None = request.scope.get("state", {}).get("request_id")
    return request_id


def described(*kinds: type[OffloadError]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for `kinds`, several of one status together, and those that any route can give."""
    by_status: dict[int, list[type[OffloadError]]] = {}
    for kind in (*kinds, *_ANYWHERE):
        status = next(STATUS[ancestor] for ancestor in kind.__mro__ if ancestor in STATUS)
        by_status.setdefault(status, []).append(kind)
    return {
        status: {
            "model": Problem,
            "description": "; ".join(
                f"`{kind.type}`: {_sentence(kind)}" for kind in dict.fromkeys(kinds_here)
            ),
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status, kinds_here in sorted(by_status.items())
    }


_ANYWHERE = (
    errors.InvalidQueryError,
    errors.UnauthenticatedError,
    errors.NotFoundError,
    errors.IndexUnavailableError,
    errors.ClusterUnavailableError,
    errors.ClusterForbiddenError,
    errors.InternalError,
)


def _query_error(error: RequestValidationError) -> InvalidQueryError:
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part not in {"query", "path", "header"}]
    return InvalidQueryError(
        ".".join(place) or "request", str(first["msg"]).removeprefix("Value error, "), first.get("input")
    )


def _title(error: OffloadError) -> str:
    """The sentence of the class that gives the type its name, not of one that only carries more."""
    named = next(kind for kind in type(error).__mro__ if "type" in vars(kind))
    return _sentence(named).removesuffix(".")


def _sentence(kind: type[OffloadError]) -> str:
    return (kind.__doc__ or "").strip().splitlines()[0]
