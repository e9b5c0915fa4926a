"""Rules for an artifact's name, type and content type, and the defaults where the sender says nothing."""

import mimetypes
import re
import unicodedata

from offload.domain.limits import NAME_BYTES, SEGMENT_BYTES
from offload.errors import InvalidContentTypeError, InvalidNameError, InvalidTypeError

UNKNOWN_CONTENT = "application/octet-stream"

_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_TCHARS = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = rf'[ \t]*;[ \t]*{_TCHARS}=(?:{_TCHARS}|"(?:[\t !#-\[\]-~]|\\[\t !-~])*")'
_MEDIA_TYPE = re.compile(rf"{_TCHARS}/{_TCHARS}(?:{_PARAMETER})*")
_CONTENT_TYPE_LENGTH = 255

# Ours before the platform's table: what runners produce, and what mimetypes does not know everywhere.
_CONTENT_TYPE_BY_SUFFIX = {
    ".diff": "text/x-diff",
    ".patch": "text/x-diff",
    ".log": "text/plain",
    ".jsonl": "application/x-ndjson",
    ".ndjson": "application/x-ndjson",
    ".md": "text/markdown",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}

_TYPE_BY_CONTENT_TYPE = {
    "text/x-diff": "diff",
    "text/x-patch": "diff",
    "text/plain": "log",
    "text/x-log": "log",
    "application/json": "report",
    "application/x-ndjson": "log",
    "application/xml": "report",
    "text/xml": "report",
    "text/html": "report",
    "text/markdown": "report",
    "text/csv": "report",
    "application/pdf": "report",
    "application/yaml": "report",
    "application/zip": "archive",
    "application/gzip": "archive",
    "application/x-tar": "archive",
    "application/zstd": "archive",
}
_TYPE_BY_FAMILY = {"image": "image", "video": "video", "audio": "audio", "text": "text"}


def check_name(name: str) -> str:
    """Answer `name` if it may name an artifact: 1 to 512 bytes of UTF-8, `/` between segments allowed.

    Raises:
        InvalidNameError: with the rule that it breaks.
    """
    for broken, rule in (
        (not name, "must not be empty"),
        (_surrogates(name), "must be UTF-8"),
        (any(unicodedata.category(c) == "Cc" for c in name), "must have no control characters"),
        (name != name.strip(), "must not start or end with white space"),
        # A list of pointers that held it would look like one with content, to policies and schemas as well.
        (name.lower().startswith("data:"), "must not start with data:"),
        (name.startswith("/") or name.endswith("/"), "must not start or end with a slash"),
    ):
        if broken:
            raise InvalidNameError("name", rule, name)
    if len(name.encode()) > NAME_BYTES:
        raise InvalidNameError("name", f"must be at most {NAME_BYTES} bytes of UTF-8", name)
    for segment in name.split("/"):
        if segment in {"", ".", ".."}:
            raise InvalidNameError("name", "must have no empty, '.' or '..' segment", name)
        if len(segment.encode()) > SEGMENT_BYTES:
            raise InvalidNameError(
                "name", f"must have at most {SEGMENT_BYTES} bytes between two slashes", segment
            )
    return name


def check_type(type_: str) -> str:
    """Answer `type_` if it is a DNS label (RFC 1123, section 2.1). Raises `InvalidTypeError`."""
    if not _DNS_LABEL.fullmatch(type_):
        raise InvalidTypeError(
            "type", "must be a DNS label: 1 to 63 of a-z, 0-9 and '-', not at either end", type_
        )
    return type_


def check_content_type(content_type: str) -> str:
    """Answer `content_type` if it is a media type (RFC 9110, section 8.3.1), at most 255 characters.

    Raises:
        InvalidContentTypeError: it is not.
    """
    if len(content_type) > _CONTENT_TYPE_LENGTH or not _MEDIA_TYPE.fullmatch(content_type):
        raise InvalidContentTypeError(
            "contentType",
            f"must be a media type such as text/plain, at most {_CONTENT_TYPE_LENGTH} characters",
            content_type,
        )
    return content_type


def default_content_type(name: str) -> str:
    """The content type that `name` suggests; `application/octet-stream` where it suggests none."""
    suffix = "." + name.rpartition(".")[2].lower()
    if suffix in _CONTENT_TYPE_BY_SUFFIX:
        return _CONTENT_TYPE_BY_SUFFIX[suffix]
    guessed, encoding = mimetypes.guess_type(f"file:{name.rpartition('/')[2]}", strict=False)
    if encoding:
        return {"gzip": "application/gzip"}.get(encoding, UNKNOWN_CONTENT)
    return guessed or UNKNOWN_CONTENT


def default_type(content_type: str) -> str:
    """The artifact type that a content type suggests; `file` where it suggests none."""
    essence = content_type.partition(";")[0].strip().lower()
    if essence in _TYPE_BY_CONTENT_TYPE:
        return _TYPE_BY_CONTENT_TYPE[essence]
    if essence.endswith(("+json", "+xml")):
        return "report"
    return _TYPE_BY_FAMILY.get(essence.partition("/")[0], "file")


def _surrogates(name: str) -> bool:
    return any("\ud800" <= c <= "\udfff" for c in name)
