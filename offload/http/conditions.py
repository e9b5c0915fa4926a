"""What a request wants to be true of an artifact's bytes (RFC 9110, section 13)."""

from fastapi import Request

from offload.domain.artifact import Artifact
from offload.errors import PreconditionFailedError


def refuse_other_bytes(request: Request, artifact: Artifact) -> None:
    """Raise `PreconditionFailedError` where If-Match is for other bytes: compared strongly (13.1.1)."""
    if "if-match" in request.headers and not {"*", artifact.etag} & set(_tags(request, "if-match")):
        raise PreconditionFailedError(f"If-Match is for other bytes; these are {artifact.etag}")


def has_them(request: Request, artifact: Artifact) -> bool:
    """Whether If-None-Match names these bytes: compared weakly (13.1.2)."""
    tags = {tag.removeprefix("W/") for tag in _tags(request, "if-none-match")}
    return bool({"*", artifact.etag} & tags)


def range_header(request: Request, artifact: Artifact) -> str | None:
    """The Range header, unless If-Range names other bytes (13.1.5)."""
    if request.method != "GET" or request.headers.get("if-range", artifact.etag) != artifact.etag:
        return None
    return request.headers.get("range")


def _tags(request: Request, field: str) -> list[str]:
    return [tag.strip() for line in request.headers.getlist(field) for tag in line.split(",")]
