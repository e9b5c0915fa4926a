"""One budget of bytes for all bodies of a process, which runs share in turn."""

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
        # By run; the first one's turn is next.
        self._waiting: dict[str, deque[tuple[int, asyncio.Future[None]]]] = {}
        metrics.BUDGET.set(total)

    @property
    def pressed(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiting)

    @asynccontextmanager
    async def reserve(self, size: int, run: str = "") -> AsyncIterator[None]:
        """Hold `size` bytes of the budget; more than the total counts as all.

        Runs that wait take turns, however many uploads each has; within a run, first come first served.
        Nobody overtakes one whose turn it is, so that large windows are not starved by small ones.

        Raises:
            TooManyUploadsError: others held it for longer than anyone should wait without a word.
        """
        size = min(size, self.total)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._take(size, run)
        except TimeoutError as error:
            raise TooManyUploadsError("the memory for uploads is in use by others") from error
        metrics.BYTES_IN_FLIGHT.inc(size)
        try:
            yield
        finally:
            metrics.BYTES_IN_FLIGHT.dec(size)
            self._give_back(size)

    async def _take(self, size: int, run: str) -> None:
        if not self._waiting and self.used + size <= self.total:
            self.used += size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(run, deque()).append((size, turn))
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
            run, queue = next(iter(self._waiting.items()))
            size, turn = queue[0]
            if not turn.cancelled():
                if self.used + size > self.total:
                    return
                self.used += size
                turn.set_result(None)
                del self._waiting[run]
                self._waiting[run] = queue  # last in the order: the next turn is another run's
            queue.popleft()
            if not queue:
                del self._waiting[run]
