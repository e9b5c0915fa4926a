"""The way of a request for one artifact by name to its route, past the framework.

Of 1.0 ms of CPU that a PUT of 4 KiB took, FastAPI's routers, exit stacks and dependency solving took 0.25 ms
(docs/decisions/0019-small-requests.md). The routes, their access checks and their answers are the same; a
request that breaks a rule of the query goes the framework's way and is refused there.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from offload.errors import OffloadError
from offload.http import contents, problems, uploads
from offload.http.access import authorise
from offload.http.names import NAMED_PATH

_NAMED = re.compile(
    "/v1/namespaces/(?P<namespace>[^/]+)/agentruns/(?P<run>[^/]+)/artifacts/(?P<name>(?s:.*))"
)

_WAYS: dict[str, tuple[Callable[..., Awaitable[Response]], type[BaseModel]]] = {
    "GET": (contents.named_content, contents.VersionQuery),
    "PUT": (uploads.put_artifact, uploads.UploadQuery),
}


class Shortcut:
    """ASGI middleware inside the application, before its routes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._routes: dict[str, Any] = {
            method: route
            for route in (*contents.router.routes, *uploads.router.routes)
            for method in getattr(route, "methods", ())
            if method in _WAYS and getattr(route, "path", "") == NAMED_PATH
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        place = _NAMED.fullmatch(scope["path"]) if scope.get("method") in _WAYS else None
        if place is None:
            await self._app(scope, receive, send)
            return
        endpoint, kind = _WAYS[scope["method"]]
        try:
            query = kind.model_validate(_asked(scope))
        except ValidationError:
            await self._app(scope, receive, send)
            return
        scope.update(route=self._routes[scope["method"]], path_params=place.groupdict())
        request, begun = Request(scope, receive), False

        async def send_noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await authorise(request)
            answer = await endpoint(request, **place.groupdict(), query=query)
            await answer(scope, receive, send_noting)
        except OffloadError as error:
            if begun:
                raise  # all that is left is to break the connection
            request.state.problem = error.type
            await problems.answer(error, problems.request_id_of(request))(scope, receive, send)


def _asked(scope: Scope) -> dict[str, str]:
    query: bytes = scope["query_string"]
    return dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True)) if query else {}
