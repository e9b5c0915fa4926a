"""One object's bytes on their way from S3."""

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from offload.objects.s3_errors import translated

if TYPE_CHECKING:
    from botocore.response import StreamingBody

PIECE = 2**20
"""Bytes of one read: large enough that the hop to a thread costs little."""


class S3Download:
    """Pieces of an open answer; the next one is read while the caller is busy with the last."""

    def __init__(self, pool: ThreadPoolExecutor, body: "StreamingBody") -> None:
        self._pool, self._body = pool, body
        self._ahead = pool.submit(self._read)

    def __aiter__(self) -> "S3Download":
        return self

    async def __anext__(self) -> bytes:
        piece = await asyncio.wrap_future(self._ahead)
        if not piece:
            raise StopAsyncIteration
        self._ahead = self._pool.submit(self._read)
        return piece

    def close(self) -> None:
        """End the connection as soon as the read in flight has ended, without waiting for it."""
        self._ahead.cancel()
        self._ahead.add_done_callback(lambda _: self._body.close())

    def _read(self) -> bytes:
        with translated("reading an object"):
            return self._body.read(PIECE)


def close_when_open(opening: "Future[StreamingBody]") -> None:
    """Close an answer that nobody waits for any more, once it is there."""

    def close(opened: "Future[StreamingBody]") -> None:
        if not opened.cancelled() and opened.exception() is None:
            opened.result().close()

    opening.add_done_callback(close)
