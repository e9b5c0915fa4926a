"""What the header fields of an upload say of its bytes, also those of one part of several."""

from collections.abc import Mapping

from starlette.datastructures import Headers

from offload.domain.digests import parse_digests
from offload.errors import InvalidDigestError, InvalidHeaderError, UnsupportedMediaTypeError
from offload.http.multipart import Part

_PLAIN = {
    "content-encoding": ("identity",),
    "transfer-encoding": ("chunked",),
    "content-transfer-encoding": ("7bit", "8bit", "binary"),
}
"""By header, the codings that leave a body's bytes as they are."""

_NOT_SAID = frozenset({"", "application/x-www-form-urlencoded"})
"""Content types that mean the sender said nothing: the second is what curl -d adds unasked."""


def whole_fields(headers: Headers) -> dict[str, str]:
    """A field that came in several lines is one list (RFC 9110, section 5.3)."""
    return {name: ", ".join(headers.getlist(name)) for name in headers}


def content_type_of(headers: Mapping[str, str]) -> str | None:
    """What the sender calls the bytes; None where it says nothing. Refuses what is coded."""
    refuse_coding(headers)
    content_type = headers.get("content-type", "").strip()
    return None if content_type in _NOT_SAID else content_type


def part_content_type(part: Part) -> str | None:
    """As `content_type_of`, of one part of several.

    Curl and browsers write application/octet-stream where they do not know better than we do.
    """
    refuse_coding(part.headers)
    content_type = part.headers.get("content-type", "").strip()
    return None if content_type in {*_NOT_SAID, "application/octet-stream"} else content_type


def digests_of(headers: Mapping[str, str]) -> dict[str, bytes]:
    """By algorithm, the digests that the bytes must have (RFC 9530). Raises `InvalidDigestError`."""
    digests: dict[str, bytes] = {}
    for field in ("repr-digest", "content-digest"):
        value = headers.get(field)
        if value is not None:
            for algorithm, digest in parse_digests(field.title(), value).items():
                if digests.setdefault(algorithm, digest) != digest:
                    raise InvalidDigestError(field.title(), "must not contradict Repr-Digest", value)
    return digests


def only_new_name(headers: Mapping[str, str]) -> bool:
    """Whether a name that exists is to be refused. Raises `InvalidHeaderError` for any other condition."""
    for field in ("if-match", "if-modified-since", "if-unmodified-since", "content-range"):
        if field in headers:
            raise InvalidHeaderError(field.title(), "is not supported on uploads", headers[field])
    condition = headers.get("if-none-match")
    if condition not in {None, "*"}:
        raise InvalidHeaderError("If-None-Match", "must be * on uploads", condition)
    return condition is not None


def refuse_coding(headers: Mapping[str, str]) -> None:
    """Refuse coded bytes: they are stored as they come, and nobody takes the coding off again."""
    for field, plain in _PLAIN.items():
        coding = headers.get(field, "")
        if coding.strip().lower() not in {"", *plain}:
            raise UnsupportedMediaTypeError(
                f"{field.title()} {coding!r} would hide what the bytes are; send a compressed file as it is"
            )
