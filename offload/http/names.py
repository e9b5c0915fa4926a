"""An artifact's name as a part of the path."""

from typing import Annotated
from urllib.parse import unquote_to_bytes

from fastapi import Path, Request
from starlette.convertors import PathConvertor, register_url_convertor

from offload.errors import InvalidNameError


class _AnyText(PathConvertor):
    regex = "(?s:.*)"
    """Line ends too, which the framework's `path` would answer with a bare 404."""


register_url_convertor("name", _AnyText())

_NO_CONTROL = r"\u0000-\u001f\u007f-\u009f"
NAMED_PATH = "/v1/namespaces/{namespace}/agentruns/{run}/artifacts/{name:name}"

Name = Annotated[
    str,
    Path(
        description="1 to 512 bytes of UTF-8, at most 255 between two slashes.",
        # Told, not enforced here: `check_name` says which rule is broken.
        json_schema_extra={
            "pattern": rf"^(?!\s)(?!(.*/)?\.{{0,2}}(/|$))[^{_NO_CONTROL}]*[^\s{_NO_CONTROL}]$"
        },
    ),
]


def exact_name(request: Request, name: str) -> str:
    """The name as it stands in the URL. Servers decode paths leniently; a name must be valid UTF-8.

    Raises:
        InvalidNameError: it is not.
    """
    path = unquote_to_bytes(request.scope["raw_path"])
    try:
        path.decode()
    except UnicodeDecodeError as error:
        raise InvalidNameError("name", "must be UTF-8", path.rpartition(b"/artifacts/")[2]) from error
    return name
