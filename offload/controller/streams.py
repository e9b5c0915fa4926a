"""One event loop in a thread, for the streams that a process of threads moves."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from offload.errors import ShuttingDownError

T = TypeVar("T")

END_SECONDS = 2.0
"""How long what is ended may take for its own clearing up."""


class StreamLoop:
    """Runs coroutines for threads."""

    def __init__(self) -> None:
        self._waiting: set[Future[Any]] = set()
        self._closing, self._lock = False, threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="streams", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run it on the loop, and answer or raise what it does.

        Raises:
            ShuttingDownError: `close` was called, before or meanwhile.
        """
        with self._lock:
            if self._closing:
                coroutine.close()
                raise ShuttingDownError
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
            self._waiting.add(future)
        try:
            return future.result()
        except CancelledError as error:
            raise ShuttingDownError from error
        finally:
            with self._lock:
                self._waiting.discard(future)

    def close(self) -> None:
        """Take nothing more, and end what still runs, the loop and its thread."""
        with self._lock:
            self._closing = True
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        # A thread that waited for ever would keep the process from ending.
        with self._lock:
            left = list(self._waiting)
        for future in left:
            future.cancel()
        self._loop.close()

    async def _end(self) -> None:
        if running := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in running:
                task.cancel()
            await asyncio.wait(running, timeout=END_SECONDS)
        await self._loop.shutdown_asyncgens()
