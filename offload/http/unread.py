"""An answer that comes before the body was read must reach a sender that is still sending.

Closing at once would make the sender's kernel drop the answer (a reset beats what is still unread), so the
answer goes out whole, and what comes is read and discarded for a while before the connection ends. A client
that waits for `100 Continue` has sent nothing, and gets its answer alone.
"""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

DISCARD_SECONDS = 5.0
DISCARD_BYTES = 64 * 2**20


class UnreadBodies:
    """ASGI middleware, the outermost: whatever is inside may answer early."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _has_body(scope):
            await self._app(scope, receive, send)
            return
        waits = _header(scope, b"expect").lower() == b"100-continue"
        asked = ended = closing = False

        async def receive_noting() -> Message:
            nonlocal asked, ended
            asked = True
            message = await receive()
            ended = message["type"] == "http.disconnect" or not message.get("more_body", False)
            return message

        async def send_early(message: Message) -> None:
            nonlocal closing
            if message["type"] == "http.response.start" and not ended:
                closing = True
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            last = message["type"] == "http.response.body" and not message.get("more_body", False)
            if not (closing and last) or (waits and not asked):
                await send(message)
                return
            await send({**message, "more_body": True})
            await _discard(receive)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self._app(scope, receive_noting, send_early)


async def _discard(receive: Receive) -> None:
    discarded = 0
    try:
        async with asyncio.timeout(DISCARD_SECONDS):
            while discarded < DISCARD_BYTES:
                message = await receive()
                discarded += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except (TimeoutError, asyncio.CancelledError):
        return  # cancelled by shut-down: the answer is out, so end in order


def _has_body(scope: Scope) -> bool:
    length = _header(scope, b"content-length")
    return bool(_header(scope, b"transfer-encoding")) or (bool(length) and length != b"0")


def _header(scope: Scope, name: bytes) -> bytes:
    return next((value for key, value in scope["headers"] if key == name), b"")
