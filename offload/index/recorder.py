"""The recorder: one thread that commits together what waits."""

import asyncio
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from datetime import timedelta

from offload.domain.artifact import NewArtifact
from offload.errors import IndexUnavailableError, ShuttingDownError
from offload.index.database import Index
from offload.index.recording import Recorded, record_all

__all__ = ["Recorded", "Recorder"]

REPLAY_SECONDS = 5.0
"""How long a failed batch is replayed row by row; what is left then fails, so an outage is told in time."""


class Recorder:
    """Records artifacts, many callers to one transaction."""

    def __init__(
        self, index: Index, *, grace: timedelta, linger: float = 0.0, largest_batch: int = 256
    ) -> None:
        """Start the thread.

        A row is refused once half of `grace` has passed since its bytes were complete. A batch is what waits
        when the one before it is committed, and what comes within `linger` seconds after its first row, at
        most `largest_batch` rows.
        """
        self._index, self._grace, self._linger, self._largest_batch = index, grace, linger, largest_batch
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._closed = False
        self._closing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    async def record(self, new: NewArtifact) -> Recorded:
        """Record one artifact; when this returns, its row is committed.

        A caller that is cancelled has no answer, but its row may be committed all the same.

        Raises:
            RunChangedError: the run is not known, or deleted while only a living one will do.
            NameExistsError: the name has a current version, and only a new name will do, or it is an upload,
                and only a name beside uploads will.
            UploadOutlivedError: more than half the grace has passed since the bytes were complete.
            IndexUnavailableError: the database failed; the row may be committed all the same.
            ShuttingDownError: `close` was called before.
        """
        waiting = _Awaiting(new)
        self._enqueue(waiting)
        return await waiting.answer

    def record_blocking(self, new: NewArtifact) -> Recorded:
        """As `record`, for a thread."""
        waiting = _Blocking(new)
        self._enqueue(waiting)
        return waiting.answer.result()

    def close(self) -> None:
        """Record what waits, then end the thread; from now on `record` refuses."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _enqueue(self, waiting: "_Waiting") -> None:
        with self._closing:
            if self._closed:
                raise ShuttingDownError
            self._queue.put(waiting)

    def _run(self) -> None:
        open_ended = True
        while open_ended:
            batch, open_ended = self._next_batch()
            if batch:
                self._commit(batch)

    def _next_batch(self) -> "tuple[list[_Waiting], bool]":
        """What to commit next, and whether more may come."""
        first = self._queue.get()
        if first is None:
            return [], False
        batch = [first]
        until = time.monotonic() + self._linger
        while len(batch) < self._largest_batch:
            try:
                left = until - time.monotonic()
                waiting = self._queue.get(timeout=left) if left > 0 else self._queue.get_nowait()
            except queue.Empty:
                break
            if waiting is None:
                return batch, False
            batch.append(waiting)
        return batch, True

    def _commit(self, batch: "Sequence[_Waiting]") -> None:
        try:
            outcomes = self._transact(batch, again=False)
        except Exception:  # noqa: BLE001 - whatever it was, each row's own transaction tells whose it is
            outcomes = self._replay(batch)
        _answer(batch, outcomes)

    def _replay(self, batch: "Sequence[_Waiting]") -> list[Recorded | Exception]:
        outcomes: list[Recorded | Exception] = []
        until = time.monotonic() + REPLAY_SECONDS
        for waiting in batch:
            if time.monotonic() > until:
                outcomes.append(IndexUnavailableError())
                continue
            try:
                outcomes += self._transact([waiting], again=True)
            except Exception as error:  # noqa: BLE001 - it is this caller's, and the thread goes on
                outcomes.append(error)
        return outcomes

    def _transact(self, batch: "Sequence[_Waiting]", *, again: bool) -> Sequence[Recorded | Exception]:
        with self._index.begin() as tx:
            return record_all(tx, [waiting.new for waiting in batch], grace=self._grace, again=again)


class _Blocking:
    """A thread that waits."""

    def __init__(self, new: NewArtifact) -> None:
        self.new, self.answer = new, Future[Recorded]()


class _Awaiting:
    """A task that waits, on the loop that runs it."""

    def __init__(self, new: NewArtifact) -> None:
        self.new, self.loop = new, asyncio.get_running_loop()
        self.answer: asyncio.Future[Recorded] = self.loop.create_future()


_Waiting = _Blocking | _Awaiting


def _answer(batch: Sequence[_Waiting], outcomes: Sequence[Recorded | Exception]) -> None:
    """Give each its outcome; a loop is woken once for all its tasks: each wake-up is a system call."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Awaiting, Recorded | Exception]]] = defaultdict(list)
    for waiting, outcome in zip(batch, outcomes, strict=True):
        if isinstance(waiting, _Awaiting):
            by_loop[waiting.loop].append((waiting, outcome))
        else:
            _settle(waiting.answer, outcome)
    for loop, answers in by_loop.items():
        with suppress(RuntimeError):  # the loop has ended, and its tasks with it
            loop.call_soon_threadsafe(_settle_all, answers)


def _settle_all(answers: Sequence[tuple[_Awaiting, Recorded | Exception]]) -> None:
    for waiting, outcome in answers:
        if not waiting.answer.done():  # its task may have been cancelled meanwhile
            _settle(waiting.answer, outcome)


def _settle(answer: "Future[Recorded] | asyncio.Future[Recorded]", outcome: Recorded | Exception) -> None:
    if isinstance(outcome, Exception):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)
