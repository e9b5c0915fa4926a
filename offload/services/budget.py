"""One budget of bytes for all bodies of a process, which runs share in turn."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from offload import metrics
from offload.errors import TooManyUploadsError

PATIENCE_SECONDS = 30.0

_Turn = tuple[int, asyncio.Future[None]]
"""How many bytes one waits for, and what tells it that it has them."""


class ByteBudget:
    """Bytes that may be held at once. Used from one event loop only."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0
        self._held = Counter[str]()
        # By run; the first one's turn is next.
        self._waiting: dict[str, deque[_Turn]] = {}
        metrics.BUDGET.set(total)

    @property
    def pressed(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiting)

    @asynccontextmanager
    async def reserve(self, size: int, run: str) -> AsyncIterator[None]:
        """Hold `size` bytes of the budget; more than the total counts as all.

        The last quarter is for runs that hold nothing: none can keep the others out. Runs that wait take
        turns, however many uploads each has; within a run, first come first served. Nobody overtakes a run
        that holds nothing and whose turn it is, so that large windows are not starved by small ones.

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
            self._give_back(size, run)

    async def _take(self, size: int, run: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(run, deque()).append((size, turn))
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._admit()  # who came after may fit where this one did not
            else:
                self._give_back(size, run)
            raise

    def _give_back(self, size: int, run: str) -> None:
        self.used -= size
        self._held[run] -= size
        if not self._held[run]:
            del self._held[run]
        self._admit()

    def _admit(self) -> None:
        while (run := self._next()) is not None:
            queue = self._waiting[run]
            size, turn = queue.popleft()
            if not queue:
                del self._waiting[run]
            if turn.cancelled():
                continue
            self.used += size
            self._held[run] += size
            turn.set_result(None)
            if queue:
                self._waiting[run] = self._waiting.pop(run)  # last in the order: the next turn is another's

    def _next(self) -> str | None:
        """The run whose turn can end now."""
        for run, queue in self._waiting.items():
            size, turn = queue[0]
            held = self._held[run]
            if turn.cancelled() or self.used + size <= self.total - (self.total // 4 if held else 0):
                return run
            if not held:
                return None
        return None
