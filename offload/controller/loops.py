"""Threads that go on."""

import random
import threading
import time
from collections.abc import Callable

import structlog

from offload import metrics
from offload.errors import OffloadError

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0
STEADY_SECONDS = 10.0
"""A loop that ran for so long is well again."""

log = structlog.get_logger()


class Loop:
    """A thread that runs `body` until it is stopped, and starts it again when it fails.

    Restarting is chosen over ending the process: all state is in the index, the cluster and the store, so a
    body starts afresh at no cost, and one that fails for good (a permission that is missing) must not take
    down the others. `problem` tells readiness of it.
    """

    def __init__(
        self,
        name: str,
        body: Callable[[threading.Event], None],
        *,
        failing: Callable[[], bool] = lambda: False,
    ) -> None:
        """`body` returns soon after its argument is set. While it is `failing`, it runs and is not well."""
        self.name, self._body, self._failing = name, body, failing
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._problem: str | None = None
        self._began: float | None = None

    @property
    def problem(self) -> str | None:
        """Why the body ended last; None once it has run well again for a while."""
        began = self._began
        steady = began is not None and time.monotonic() - began > STEADY_SECONDS
        return None if steady and not self._failing() else self._problem

    def start(self) -> None:
        self._thread.start()

    def ask_to_stop(self) -> None:
        self._stop.set()

    def join(self, timeout: float) -> bool:
        """Whether the thread has ended within `timeout` seconds."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        pause = FIRST_PAUSE
        while not self._stop.is_set():
            self._began = began = time.monotonic()
            try:
                self._body(self._stop)
            except Exception as error:
                told = error.told if isinstance(error, OffloadError) else str(error)
                self._began, self._problem = None, f"{self.name}: {told}"
                metrics.LOOP_FAILURES.labels(self.name).inc()
                log.exception("loop.failed", loop=self.name)
                steady = time.monotonic() - began > STEADY_SECONDS
                pause = FIRST_PAUSE if steady else min(LONGEST_PAUSE, pause * 2)
                self._stop.wait(pause * random.uniform(0.5, 1))  # noqa: S311 - jitter, so that replicas spread
