"""The event loop that threads share.

Cases: what a coroutine answers or raises; one that still runs when the loop is closed, one that comes then,
and one that goes on.
"""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import pytest

from offload.controller import streams as module
from offload.controller.streams import StreamLoop
from offload.errors import ShuttingDownError, StoreUnavailableError


async def _answer() -> str:
    return "stored"


async def _raise() -> None:
    raise StoreUnavailableError("away")


def test_a_thread_gets_what_its_coroutine_answers_or_raises() -> None:
    streams = StreamLoop()
    assert streams.run(_answer()) == "stored"
    with pytest.raises(StoreUnavailableError, match="away"):
        streams.run(_raise())
    streams.close()


def waiting(streams: StreamLoop, coroutine: Coroutine[Any, Any, None]) -> threading.Event:
    """Run it in a thread; set once that is told that all ends."""
    told = threading.Event()

    def wait() -> None:
        with pytest.raises(ShuttingDownError):
            streams.run(coroutine)
        told.set()

    threading.Thread(target=wait, daemon=True).start()
    return told


def test_a_thread_that_waits_when_the_loop_is_closed_is_told() -> None:
    streams, begun = StreamLoop(), threading.Event()

    async def never() -> None:
        begun.set()
        await asyncio.Event().wait()

    told = waiting(streams, never())
    assert begun.wait(5)
    streams.close()
    assert told.wait(5)


def test_a_thread_that_comes_while_the_loop_is_closed_is_told() -> None:
    streams, begun, ending = StreamLoop(), threading.Event(), threading.Event()

    async def clears_up() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await asyncio.sleep(0.5)

    async def never() -> None:
        await asyncio.Event().wait()

    told = waiting(streams, clears_up())
    assert begun.wait(5)
    closing = threading.Thread(target=streams.close)
    closing.start()
    assert ending.wait(5)
    told_late = waiting(streams, never())
    closing.join(5)
    assert told.wait(5)
    assert told_late.wait(5)
    with pytest.raises(ShuttingDownError):
        streams.run(never())


def test_a_thread_whose_coroutine_does_not_end_in_time_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "END_SECONDS", 0.1)
    streams, begun = StreamLoop(), threading.Event()

    async def goes_on() -> None:
        begun.set()
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    told = waiting(streams, goes_on())
    assert begun.wait(5)
    streams.close()
    assert told.wait(5)
