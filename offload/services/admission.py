"""Admission: which uploads run at once, so that a crowd is told at once and no run takes all places."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from offload.errors import ShuttingDownError, TooManyUploadsError


class Admission:
    """The places of one process. Used from one event loop."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._running, self._running_of = 0, Counter[str]()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    @property
    def most_of_a_run(self) -> int:
        """Places that one run may have: a quarter is for others."""
        return self._places - self._places // 4

    def check(self) -> None:
        """Raise `ShuttingDownError` or `TooManyUploadsError` where nobody could begin now."""
        if self._closed:
            raise ShuttingDownError
        if self._running >= self._places:
            raise TooManyUploadsError(f"{self._running} uploads run already", retry_after=1)

    @contextmanager
    def place(self, run: str, *, equal: bool = True) -> Iterator[None]:
        """One of the places, for an upload of `run`; raises as `check` does.

        While fewer than a quarter are free, a run may have no more than an equal share of all: if `equal`.
        """
        self.check()
        runs = len(self._running_of) + (run not in self._running_of)
        scarce = equal and self._running > self.most_of_a_run
        if self._running_of[run] >= (self._places // runs if scarce else self.most_of_a_run):
            raise TooManyUploadsError(
                f"{self._running_of[run]} uploads of this run run already", retry_after=1
            )
        self._running += 1
        self._running_of[run] += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._running -= 1
            self._running_of[run] -= 1
            if not self._running_of[run]:
                del self._running_of[run]
            if not self._running:
                self._idle.set()

    def close(self) -> None:
        """Admit nobody any more."""
        self._closed = True

    async def settled(self, within: float) -> None:
        """Return once no upload runs any more, at the latest after `within` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._idle.wait()
