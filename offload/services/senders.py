"""Senders: how long one may stall, how slow one may be, and their end when the process shuts down."""

import asyncio
from collections.abc import AsyncIterator, Callable

from offload.domain.quantities import format_size
from offload.errors import ShuttingDownError, UploadTimedOutError

SLOW_SECONDS = 60.0
"""How long a sender that holds a window may be waited for before its rate is looked at."""
PRESSED_SECONDS = 10.0
"""The same while others wait for memory: soon enough for them to be served in their own patience."""


class Senders:
    """The bodies that are being read. Used from one event loop."""

    def __init__(self, *, stall_seconds: float, min_rate: int) -> None:
        """`min_rate`: bytes a second, of a sender that holds a window."""
        self._stall_seconds, self._min_rate = stall_seconds, min_rate
        self._deadlines: set[asyncio.Timeout] = set()
        self._ended = False

    async def steady(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """`body`, ended by an error where it stalls or the process is shutting down."""
        while (chunk := await self._next(body)) is not None:
            yield chunk

    async def paced(self, body: AsyncIterator[bytes], *, pressed: Callable[[], bool]) -> AsyncIterator[bytes]:
        """`body`, ended by an error where its sender is too slow for the window that it holds.

        `pressed` tells whether others wait for what it holds.
        Only the time that the sender is waited for counts: the store may be as slow as it is.
        """
        clock = asyncio.get_running_loop().time
        waited, size = 0.0, 0
        while True:
            asked = clock()
            chunk = await anext(body, None)
            if chunk is None:
                return
            waited, size = waited + clock() - asked, size + len(chunk)
            if waited >= (PRESSED_SECONDS if pressed() else SLOW_SECONDS):
                least = self._min_rate
                if size < least * waited:
                    raise UploadTimedOutError(
                        f"{size} bytes came in {waited:.0f} s; {format_size(least)} a second is least"
                    )
                waited, size = 0.0, 0
            yield chunk

    def end(self) -> None:
        """End all bodies that are still being read, by `ShuttingDownError`."""
        self._ended = True
        now = asyncio.get_running_loop().time()
        for deadline in self._deadlines:
            if not deadline.expired():
                deadline.reschedule(now)

    async def _next(self, body: AsyncIterator[bytes]) -> bytes | None:
        if self._ended:
            raise ShuttingDownError
        try:
            async with asyncio.timeout(self._stall_seconds) as deadline:
                self._deadlines.add(deadline)
                try:
                    return await anext(body, None)
                finally:
                    self._deadlines.discard(deadline)
        except TimeoutError as error:
            if self._ended:
                raise ShuttingDownError from error
            raise UploadTimedOutError(f"no byte came for {self._stall_seconds:.0f} s") from error
