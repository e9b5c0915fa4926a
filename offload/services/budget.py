"""One budget of bytes for all bodies of a process, first come first served."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from offload import metrics
from offload.errors import TooManyUploadsError

PATIENCE_SECONDS = 30.0


class ByteBudget:
    """Bytes that may be held at once. Used from one event loop only."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        metrics.BUDGET.set(total)

    @asynccontextmanager
    async def reserve(self, size: int) -> AsyncIterator[None]:
        """Hold `size` bytes of the budget, after all who asked before; more than the total counts as all.

        Raises:
            TooManyUploadsError: others held it for longer than anyone should wait without a word.
        """
        size = min(size, self.total)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._take(size)
        except TimeoutError as error:
            raise TooManyUploadsError("the memory for uploads is in use by others") from error
        metrics.BYTES_IN_FLIGHT.inc(size)
        try:
            yield
        finally:
            metrics.BYTES_IN_FLIGHT.dec(size)
            self._give_back(size)

    async def _take(self, size: int) -> None:
        if not self._waiting and self.used + size <= self.total:
            self.used += size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._admit()  # who came after may fit where this one did not
            else:
                self._give_back(size)
            raise

    def _give_back(self, size: int) -> None:
        self.used -= size
        self._admit()

    def _admit(self) -> None:
        while self._waiting:
            size, turn = self._waiting[0]
            if not turn.cancelled():
                if self.used + size > self.total:
                    return
                self.used += size
                turn.set_result(None)
            self._waiting.popleft()
