"""The application, put together."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPBearer
from starlette.types import ASGIApp

from offload import __version__
from offload.http import batches, contents, health, history, problems, uploads
from offload.http.access import authorise, open_to_all
from offload.http.parts import Parts
from offload.http.requests import Requests
from offload.http.shortcut import Shortcut
from offload.http.unread import UnreadBodies

_ABOUT = """Artifacts of AgentRuns: bytes in, pointers and a full history out.

Errors are RFC 9457 problems. Lists answer `{items, next}` and `Link: rel="next"`.
"""

Opening = Callable[[], AbstractAsyncContextManager[Parts]]


def create_app(opening: Opening) -> ASGIApp:
    """The service over the parts that `opening` gives, from start-up to shut-down."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with opening() as parts:
            app.state.parts = parts
            yield

    app = FastAPI(
        title="offload",
        version=__version__,
        description=_ABOUT,
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(authorise)],
    )
    for router in (uploads.router, batches.router, contents.router, history.router, health.router):
        app.include_router(router)
    app.add_api_route("/openapi.json", _openapi, include_in_schema=False)
    problems.install(app)
    app.add_middleware(Shortcut)
    return UnreadBodies(Requests(app))


@open_to_all
async def _openapi(request: Request) -> Response:
    """The OpenAPI document."""
    return JSONResponse(document(request.app))


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of `app`: as FastAPI writes it, with the bearer scheme and without its 422s."""
    if app.openapi_schema:
        return app.openapi_schema
    written = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    scheme = HTTPBearer(description="A token of `offload token create`.").model
    components = written.setdefault("components", {})
    components["securitySchemes"] = {
        "token": scheme.model_dump(mode="json", by_alias=True, exclude_none=True)
    }
    for path, methods in written["paths"].items():
        for operation in methods.values():
            if not path.endswith("z"):
                operation["security"] = [{"token": []}]
            unprocessable = operation["responses"].get("422", {})
            if "HTTPValidationError" in str(unprocessable):
                del operation["responses"]["422"]
    for unused in ("HTTPValidationError", "ValidationError"):
        components.get("schemas", {}).pop(unused, None)
    app.openapi_schema = written
    return written
