"""Every request gets an id, one line in the log, its place in the metrics, and an answer."""

import re
import secrets
import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from offload import metrics
from offload.errors import InternalError
from offload.http import problems

_USABLE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
"""A label has few values, whatever clients send."""
_QUIET = frozenset({"/livez", "/readyz"})

log = structlog.get_logger("offload.http")


class Requests:
    """ASGI middleware around the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        started, status, complete = time.perf_counter(), 0, False

        async def send_named(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            complete = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        # Each request is a task of its own, whose context ends with it: nothing is to be taken back.
        structlog.contextvars.bind_contextvars(request=request_id)
        try:
            await self._app(scope, receive, send_named)
        except Exception:
            log.exception("request.failed", method=scope["method"], path=scope["path"])
            if status and not complete:
                raise  # the answer has begun: all that is left is to break the connection
            if not status:
                await problems.answer(InternalError(), request_id)(scope, receive, send_named)
        finally:
            _note(scope, status, time.perf_counter() - started)


def _request_id(scope: Scope) -> str:
    """The client's own id where it is usable, so that its log and ours can be joined."""
    sent = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    text = sent.decode("latin-1")
    return text if _USABLE_ID.fullmatch(text) else secrets.token_hex(8)


def _note(scope: Scope, status: int, seconds: float) -> None:
    route = getattr(scope.get("route"), "path", "none")
    method = scope["method"] if scope["method"] in _METHODS else "other"
    metrics.REQUESTS.labels(route, method, str(status)).inc()
    metrics.REQUEST_SECONDS.labels(route, method).observe(seconds)
    if route not in _QUIET:
        log.info(
            "request",
            method=scope["method"],
            path=scope["path"],
            status=status,
            problem=scope["state"].get("problem"),
            milliseconds=round(seconds * 1000, 1),
            **scope["state"].get("noted", {}),
        )
