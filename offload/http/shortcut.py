"""The way of a request for one artifact by name, or for a page of a run's, to its route, past the framework.

Of 1.0 ms of CPU that a PUT of 4 KiB took, FastAPI's routers, exit stacks and dependency solving took 0.25 ms
(docs/decisions/0019-small-requests.md). The routes, their access checks and their answers are the same; a
request that breaks a rule of the query goes the framework's way and is refused there.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from offload.errors import OffloadError
from offload.http import contents, history, problems, uploads
from offload.http.access import authorise

_ARTIFACTS = "/v1/namespaces/(?P<namespace>[^/]+)/agentruns/(?P<run>[^/]+)/artifacts"


@dataclass(frozen=True, slots=True)
class _Way:
    place: re.Pattern[str]
    route: Any
    query: type[BaseModel]


class Shortcut:
    """ASGI middleware inside the application, before its routes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        listed, named = re.compile(_ARTIFACTS), re.compile(f"{_ARTIFACTS}/(?P<name>(?s:.*))")
        self._ways = {
            "GET": (
                _Way(named, _route("GET", contents.named_content), contents.VersionQuery),
                _Way(listed, _route("GET", history.list_artifacts), history.HistoryQuery),
            ),
            "PUT": (_Way(named, _route("PUT", uploads.put_artifact), uploads.UploadQuery),),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for way in self._ways.get(scope.get("method", ""), ()):
            if place := way.place.fullmatch(scope["path"]):
                await self._go(way, place.groupdict(), scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _go(self, way: _Way, place: dict[str, str], scope: Scope, receive: Receive, send: Send) -> None:
        try:
            query = way.query.model_validate(_asked(scope))
        except ValidationError:
            await self._app(scope, receive, send)
            return
        scope.update(route=way.route, path_params=place)
        request, begun = Request(scope, receive), False

        async def send_noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await authorise(request)
            answer = await way.route.endpoint(request, **place, query=query)
            await answer(scope, receive, send_noting)
        except OffloadError as error:
            if begun:
                raise  # all that is left is to break the connection
            request.state.problem = error.type
            await problems.answer(error, problems.request_id_of(request))(scope, receive, send)


def _route(method: str, endpoint: Callable[..., Awaitable[Response]]) -> Any:
    routes: list[Any] = [*contents.router.routes, *history.router.routes, *uploads.router.routes]
    return next(route for route in routes if route.endpoint is endpoint and method in route.methods)


def _asked(scope: Scope) -> dict[str, str]:
    query: bytes = scope["query_string"]
    return dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True)) if query else {}
