"""Shut-down: what runs may finish, what would not finish in time is ended cleanly."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

import structlog

log = structlog.get_logger("offload")


def call_on_terminate(action: Callable[[], None], *, after: float, killed_after: float) -> None:
    """Call `action` on the running loop, `after` seconds after SIGTERM or Ctrl-C reached this process.

    After `killed_after` seconds the process ends whatever still hangs in it: every state that it can leave
    behind is one that a crash can leave. The server's own handlers go on as they were. Signals reach the main
    thread only; a loop elsewhere is ended by whoever started it.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()

    def begin() -> None:
        loop.call_soon_threadsafe(loop.call_later, after, action)
        last_resort = threading.Timer(killed_after, _end_now)
        last_resort.daemon = True
        last_resort.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        _chain(number, begin)


def _end_now() -> None:
    log.error("shutdown.forced", remedy="something hangs; the log before this line says what")
    os._exit(1)


def _chain(number: signal.Signals, also: Callable[[], object]) -> None:
    before = signal.getsignal(number)

    def handle(received: int, frame: FrameType | None) -> None:
        also()
        if callable(before):
            before(received, frame)

    signal.signal(number, handle)
