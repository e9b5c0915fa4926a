"""Waiting in the foreground until asked to stop."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set, in place of what they do otherwise."""
    stop = threading.Event()
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: stop.set()) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler or signal.SIG_DFL)


def wait_for(stop: threading.Event) -> None:
    """Return once `stop` is set.

    Never asleep for long: a signal that comes just before, or that another thread gets, wakes nothing.
    """
    while not stop.wait(0.5):
        pass
