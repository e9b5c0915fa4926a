"""Claims of dirty runs, handed to workers."""

import threading
import time
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta

import structlog

from offload import metrics
from offload.domain.run import Run
from offload.index import Index, publishing
from offload.services.follow import Follower
from offload.services.publish import Outcome, Publisher
from offload.services.schema import ServedSchema

LEASE = timedelta(seconds=4)
"""A claim's life: what a killed controller's runs wait before another one publishes them."""
RENEW_SECONDS = 1.5
"""Between two renewals of the claims of publishes that take long."""
OLDEST_EVERY = 4
"""One claim in so many takes the runs that wait longest, so that urgent ones never hold them up for good."""
LOOK_SECONDS = 0.2
"""The most time between two looks for dirty runs while some wait: for the end of a claim, or their turn."""
IDLE_SECONDS = 1.0
"""The same while none waits: then a wake-up ends it."""
GAUGE_SECONDS = 2.0
"""The most time between two looks while none is needed: for the metrics."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 4.0

log = structlog.get_logger()


class Dispatcher:
    """One thread that claims as many runs as workers are free, and no more: no claim waits in a queue."""

    def __init__(  # noqa: PLR0913 - parts and values, each once
        self,
        index: Index,
        publisher: Publisher,
        schema: ServedSchema,
        follower: Follower,
        *,
        holder: str,
        workers: int,
        namespaces: Sequence[str],
    ) -> None:
        """`workers` publishes run at a time, of runs in `namespaces` (none: all)."""
        self._index, self._publisher, self._schema, self._follower = index, publisher, schema, follower
        self._holder, self._workers, self._namespaces = holder, workers, tuple(namespaces)
        self._resume_at = 0.0
        self._pause = 0.0
        self._looked_at = self._renewed_at = 0.0
        self._claims = 0

    def run(self, stop: threading.Event) -> None:
        """Dispatch until `stop` is set, then wait for the publishes that run."""
        with ThreadPoolExecutor(self._workers, thread_name_prefix="publish") as pool:
            running: dict[Future[None], str] = {}
            while not stop.is_set():
                self._gauge()
                running = {future: uid for future, uid in running.items() if not future.done()}
                self._renew(running.values())
                if self._schema.problem or time.monotonic() < self._resume_at:
                    stop.wait(LOOK_SECONDS)
                    continue
                # One run finds out whether an outage is over.
                free = (1 if self._pause else self._workers) - len(running)
                claimed = self._claim(free) if free > 0 else []
                running |= {pool.submit(self._publish, run): run.uid for run in claimed or ()}
                if free <= 0:
                    wait(running, timeout=LOOK_SECONDS, return_when="FIRST_COMPLETED")
                elif claimed is None:
                    self._index.wait_for_dirty(IDLE_SECONDS)
                elif len(claimed) < free:
                    self._index.wait_for_dirty(LOOK_SECONDS)

    def _claim(self, limit: int) -> list[Run] | None:
        """Runs to publish now; None where no run is dirty."""
        if self._oldest_dirty() is None:  # a look costs less than a claim, which is a write
            return None
        self._claims += 1
        with self._index.begin() as tx:
            return publishing.claim(
                tx,
                holder=self._holder,
                limit=limit,
                lease=LEASE,
                namespaces=self._namespaces,
                by_age=self._claims % OLDEST_EVERY == 0,
            )

    def _renew(self, claimed: Collection[str]) -> None:
        """Keep what is being published from being claimed again while the API server is slow."""
        if not claimed:
            self._renewed_at = time.monotonic()
        elif time.monotonic() - self._renewed_at > RENEW_SECONDS:
            self._renewed_at = time.monotonic()
            with self._index.begin() as tx:
                publishing.renew(tx, claimed, holder=self._holder, lease=LEASE)

    def _publish(self, run: Run) -> None:
        if self._publisher.publish(run) is Outcome.UNAVAILABLE:
            # One outage is met by each worker once, not by every dirty run in turn.
            self._pause = min(LONGEST_PAUSE, max(FIRST_PAUSE, self._pause * 2))
            self._resume_at = time.monotonic() + self._pause
        else:
            self._pause = 0.0

    def _gauge(self) -> None:
        if time.monotonic() - self._looked_at >= GAUGE_SECONDS:
            self._oldest_dirty()

    def _oldest_dirty(self) -> datetime | None:
        with self._index.read() as tx:
            oldest = publishing.oldest_dirty(tx)
        self._looked_at = time.monotonic()
        metrics.OLDEST_DIRTY.set((datetime.now(UTC) - oldest).total_seconds() if oldest else 0)
        metrics.WATCH_AGE.set(self._follower.age())
        return oldest
