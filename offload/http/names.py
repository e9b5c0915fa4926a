"""An artifact's name as a part of the path."""

from urllib.parse import unquote_to_bytes

from fastapi import Request
from starlette.convertors import PathConvertor, register_url_convertor

from offload.errors import InvalidNameError


class _AnyText(PathConvertor):
    regex = "(?s:.*)"
    """Line ends too, which the framework's `path` would answer with a bare 404."""


register_url_convertor("name", _AnyText())

NAMED_PATH = "/v1/namespaces/{namespace}/agentruns/{run}/artifacts/{name:name}"


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
