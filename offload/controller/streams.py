"""One event loop in a thread, for the streams that a process of threads moves."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from offload.errors import ShuttingDownError

T = TypeVar("T")

END_SECONDS = 2.0
"""How long what is ended may take for its own clearing up."""


class StreamLoop:
    """Runs coroutines for threads."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="streams", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run it on the loop; answers or raises what it does, or `ShuttingDownError` once `close` ends it."""
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()
        except CancelledError as error:
            raise ShuttingDownError from error

    def close(self) -> None:
        """End what still runs, the loop and its thread."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        # A thread that waited for ever would keep the process from ending.
        if running := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in running:
                task.cancel()
            await asyncio.wait(running, timeout=END_SECONDS)
        await self._loop.shutdown_asyncgens()
