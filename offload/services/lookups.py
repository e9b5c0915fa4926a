"""Which artifact a name means: one look into the index for all that ask at the same time."""

import asyncio
from uuid import UUID

from offload.domain.artifact import Artifact
from offload.index import Index, artifacts
from offload.index.artifacts import RunAndName
from offload.services.browse import Browse

LOOKS = 2
"""Looks at a time. While both are under way, those who come wait together for the next one."""


class Lookups:
    """Finds artifacts for readers of bytes, on one event loop.

    A look of its own would cost a reader three times what is left with 32 of them: a connection, a thread
    and its turn at Python's lock (docs/decisions/0021-looks-together.md).
    """

    def __init__(self, index: Index, browse: Browse) -> None:
        self._index, self._browse = index, browse
        self._waiting: dict[RunAndName, asyncio.Future[Artifact | None]] = {}
        self._looks: set[asyncio.Task[None]] = set()

    async def named(
        self, namespace: str, run: str, name: str, *, uid: str | None = None, version: UUID | None = None
    ) -> Artifact:
        """As `Browse.run` and `Browse.named`, with all that they raise."""
        if uid is None and version is None and self._browse.watches(namespace):
            current = await self._current((namespace, run, name))
            if current:
                return current
        return await asyncio.to_thread(
            lambda: self._browse.named(self._browse.run(namespace, run, uid), name, version)
        )

    async def _current(self, wanted: RunAndName) -> Artifact | None:
        answer = self._waiting.get(wanted)
        if answer is None:
            answer = self._waiting[wanted] = asyncio.get_running_loop().create_future()
            if len(self._looks) < LOOKS:
                look = asyncio.create_task(self._look())
                self._looks.add(look)
                look.add_done_callback(self._looks.discard)
        return await asyncio.shield(answer)  # others may wait for it too

    async def _look(self) -> None:
        while self._waiting:
            asked, self._waiting = self._waiting, {}
            try:
                found = await asyncio.to_thread(self._find, list(asked))
            except Exception as error:  # noqa: BLE001 - it is told to all who asked
                for answer in asked.values():
                    answer.set_exception(error)
            else:
                for wanted, answer in asked.items():
                    answer.set_result(found.get(wanted))

    def _find(self, wanted: list[RunAndName]) -> dict[RunAndName, Artifact]:
        with self._index.read() as tx:
            return artifacts.currents(tx, wanted)
