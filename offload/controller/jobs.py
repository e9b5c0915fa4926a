"""Periodic jobs that one controller at a time does: the sweep, the orphan cleaner."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

import structlog

from offload.errors import IndexUnavailableError
from offload.index import Index, leases

LEASE = timedelta(seconds=60)
RENEW_SECONDS = 15.0
LOOK_SECONDS = 30.0
"""The most time between two looks at whether a job is due."""
POLL_SECONDS = 0.25
FIRST_PAUSE = 1.0
"""Seconds until a job that failed is tried again; more failures double them, up to a tenth of `every`."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Job:
    """Something to do every so often."""

    name: str
    every: timedelta
    """Counted from the end of the last one that succeeded, by any controller."""
    run: Callable[[threading.Event], None]
    """Does it; returns soon after the event is set, at shutdown or since the lease was lost."""
    ready: Callable[[], bool] = lambda: True
    """Whether this controller can do it now. Where not, it takes no lease: that would keep others from it.

    Asked again before it is said to be done: where not, it was not done.
    """
    shared_as: str = ""
    """What those who do it for each other call it in the index; empty: by its name."""


class JobLoop:
    """Looks whether one job is due, and does it under its lease."""

    def __init__(self, index: Index, job: Job, *, holder: str) -> None:
        """`holder` names this process among those that share the index."""
        self._index, self._job, self._holder = index, job, holder
        self._shared_as = job.shared_as or job.name
        self._failures, self._again_at = 0, 0.0

    def failing(self) -> bool:
        """Whether the job failed here last, and no controller has done it since."""
        return self._failures > 0

    def run(self, stop: threading.Event) -> None:
        """Go on until `stop` is set. Raises what the job raises, after giving its lease back.

        Called again after a failure, it leaves the job to others for a while: what failed can be costly.
        """
        look = min(LOOK_SECONDS, self._job.every.total_seconds() / 10)
        while not stop.is_set():
            rest = self._due_in()
            if rest > 0:
                self._failures, self._again_at = 0, 0.0
            pause = self._again_at - time.monotonic()
            if pause > 0:
                stop.wait(min(LOOK_SECONDS, pause))
                continue
            if rest <= 0 and self._job.ready() and self._take():
                self._try(stop)
            # Not due before then, whoever does it; a moment later it is.
            stop.wait(min(LOOK_SECONDS, max(look, rest)))

    def _try(self, stop: threading.Event) -> None:
        try:
            self._do(stop)
        except Exception:
            longest = self._job.every.total_seconds() / 10
            # It can go on failing for longer than a float has powers of two.
            self._again_at = time.monotonic() + min(longest, FIRST_PAUSE * 2.0 ** min(self._failures, 30))
            self._failures += 1
            raise
        self._failures = 0

    def _due_in(self) -> float:
        with self._index.read() as tx:
            return leases.due_in(tx, self._shared_as, every=self._job.every).total_seconds()

    def _take(self) -> bool:
        name, every = self._shared_as, self._job.every
        with self._index.begin() as tx:
            if not leases.acquire(tx, name, holder=self._holder, lease=LEASE):
                return False
            # Another controller may have done it between the look and the lease.
            due = leases.due(tx, name, every=every)
            if not due:
                leases.release(tx, name, holder=self._holder)
            return due

    def _do(self, stop: threading.Event) -> None:
        cut_short, finished = threading.Event(), threading.Event()
        renewal = threading.Thread(
            target=self._hold, args=(stop, cut_short, finished), name=f"{self._job.name}-lease", daemon=True
        )
        renewal.start()
        log.info("job.started", job=self._job.name)
        succeeded = False
        try:
            self._job.run(cut_short)
            succeeded = not cut_short.is_set()
        finally:
            finished.set()
            renewal.join()
            succeeded = self._give_back(done=succeeded)
        log.info("job.ended", job=self._job.name, succeeded=succeeded)

    def _give_back(self, *, done: bool) -> bool:
        """Give the lease back, and say that the job is done if it is; whether that was said."""
        with suppress(_NotReadyError), self._index.begin() as tx:
            leases.release(tx, self._shared_as, holder=self._holder)
            if done:
                leases.done(tx, self._shared_as)
                # After it is written: a process that was frozen until now would say it of a later time.
                if not self._job.ready():
                    raise _NotReadyError
            return done
        return self._give_back(done=False)

    def _hold(self, stop: threading.Event, cut_short: threading.Event, finished: threading.Event) -> None:
        """Renew the lease while the job runs; cut the job short at shutdown or where the lease is lost."""
        renewed = time.monotonic()
        while not finished.wait(POLL_SECONDS) and not cut_short.is_set():
            since = time.monotonic() - renewed
            if stop.is_set() or since > LEASE.total_seconds():
                cut_short.set()
            elif since > RENEW_SECONDS:
                try:
                    with self._index.begin() as tx:
                        held = leases.acquire(tx, self._shared_as, holder=self._holder, lease=LEASE)
                except IndexUnavailableError as error:
                    log.warning("job.lease_not_renewed", job=self._job.name, problem=str(error))
                    continue
                renewed = time.monotonic()
                if not held:
                    cut_short.set()


class _NotReadyError(Exception):
    """Rolls back that the job is done."""
