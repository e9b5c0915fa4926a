"""Which artifacts names mean: one look into the index for all that ask at the same time."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import cast

from offload.domain.artifact import Artifact
from offload.index import Index, artifacts
from offload.index.artifacts import RunAndName
from offload.services.incarnations import Incarnations

LOOKS = 2
"""Looks at a time. While both are under way, those who come wait together for the next one."""


class Lookups:
    """Finds current versions for readers of bytes, on one event loop.

    A look of its own would cost each of many readers a thread, a connection and its turn at Python's lock:
    more than all the rest of a small read (docs/decisions/0021-looks-together.md).
    """

    def __init__(self, index: Index, incarnations: Incarnations) -> None:
        self._index, self._incarnations = index, incarnations
        self._threads = ThreadPoolExecutor(LOOKS, thread_name_prefix="look")
        self._waiting: dict[RunAndName, asyncio.Future[Artifact | None]] = {}
        self._looks: set[asyncio.Task[None]] = set()

    async def current(self, namespace: str, run: str, name: str) -> Artifact | None:
        """The current version of `name` in the newest incarnation that the index knows of `run`.

        None says only that there is none: whether there was one, or there is such a run, `Browse` tells.

        Raises:
            IndexUnavailableError: the index is away.
        """
        if not self._incarnations.watches(namespace):
            return None
        wanted = (namespace, run, name)
        answer = self._waiting.get(wanted)
        if answer is None:
            answer = self._waiting[wanted] = asyncio.get_running_loop().create_future()
            if len(self._looks) < LOOKS:
                self._looks.add(asyncio.create_task(self._look()))
        return await asyncio.shield(answer)  # others may wait for it too

    def close(self) -> None:
        """End the threads; what hangs in one of them is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _look(self) -> None:
        try:
            while self._waiting:
                await self._look_once()
        finally:
            # Not by a callback, which comes a turn later: who asked in between would wait for nobody.
            self._looks.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _look_once(self) -> None:
        asked, self._waiting = self._waiting, {}
        try:
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(self._threads, self._find, list(asked))
        except Exception as error:  # noqa: BLE001 - it is told to all who asked
            for answer in asked.values():
                answer.set_exception(error)
        else:
            for wanted, answer in asked.items():
                answer.set_result(found.get(wanted))

    def _find(self, wanted: list[RunAndName]) -> dict[RunAndName, Artifact]:
        with self._index.read() as tx:
            return artifacts.currents(tx, wanted)
