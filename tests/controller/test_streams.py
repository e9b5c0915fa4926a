"""The event loop that threads share.

Cases: what a coroutine answers or raises; one that still runs when the loop is closed.
"""

import asyncio
import threading

import pytest

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


def test_a_thread_that_waits_when_the_loop_is_closed_is_told() -> None:
    streams = StreamLoop()
    begun, told = threading.Event(), threading.Event()

    async def never() -> None:
        begun.set()
        await asyncio.Event().wait()

    def wait() -> None:
        with pytest.raises(ShuttingDownError):
            streams.run(never())
        told.set()

    threading.Thread(target=wait, daemon=True).start()
    assert begun.wait(5)
    streams.close()
    assert told.wait(5)
