"""Claims of dirty runs, handed to workers."""

import threading
import time
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog

from offload import metrics
from offload.domain.run import Run
from offload.index import Index, publishing
from offload.services.publish import Outcome, Publisher
from offload.services.schema import ServedSchema

LEASE = timedelta(seconds=3)
"""A claim's life: what a killed controller's runs wait before another one publishes them."""
RENEW_SECONDS = 1.0
"""Between two renewals of the claims of publishes that take long."""
OLDEST_EVERY = 4
"""One claim in so many takes the runs that wait longest, so that urgent ones never hold them up for good."""
GATHER_SECONDS = 0.02
"""The least time between two claims: together they cost less."""
LOOK_SECONDS = 0.2
"""The most time between two looks for dirty runs while some wait: for the end of a claim, or their turn."""
IDLE_SECONDS = 1.0
"""The same while none waits: then a wake-up ends it."""
GAUGE_SECONDS = 1.0
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 4.0

log = structlog.get_logger()


class Dispatcher:
    """One thread that claims as many runs as workers are free, and no more: no claim waits in a queue."""

    def __init__(  # noqa: PLR0913 - parts and values, each once
        self,
        index: Index,
        publisher: Publisher,
        schema: ServedSchema,
        *,
        holder: str,
        workers: int,
        namespaces: Sequence[str],
    ) -> None:
        """`workers` publishes run at a time, of runs in `namespaces` (none: all)."""
        self._index, self._publisher, self._schema = index, publisher, schema
        self._holder, self._workers, self._namespaces = holder, workers, tuple(namespaces)
        self._pace, self._suspects_pace = Pace(workers), Pace(workers)
        # Where the last publish met an outage. It may be this namespace's own, as a webhook's is.
        self._suspects: set[str] = set()
        self._looked_at = self._renewed_at = self._claimed_at = 0.0
        self._claims, self._found = 0, False

    def run(self, stop: threading.Event) -> None:
        """Dispatch until `stop` is set, then wait for the publishes that run."""
        with ThreadPoolExecutor(self._workers, thread_name_prefix="publish") as pool:
            running: dict[Future[None], Run] = {}
            while not stop.wait(max(0.0, self._claimed_at + GATHER_SECONDS - time.monotonic())):
                running = {future: run for future, run in running.items() if not future.done()}
                self._renew(running.values())
                if self._schema.problem:
                    self._gauge()
                    stop.wait(LOOK_SECONDS)
                    continue
                free = self._workers - len(running)
                claimed = self._claim(running.values())
                # A claim can end while the index is busy. This one renews it then: its publish still runs.
                busy = {run.uid for future, run in running.items() if not future.done()}
                begun = [run for run in claimed or () if run.uid not in busy]
                running |= {pool.submit(self._publish, run): run for run in begun}
                self._gauge()
                if free <= 0:
                    wait(running, timeout=LOOK_SECONDS, return_when="FIRST_COMPLETED")
                elif claimed is None:
                    self._index.wait_for_dirty(IDLE_SECONDS)
                elif len(claimed) < free:
                    self._index.wait_for_dirty(LOOK_SECONDS)

    def _claim(self, running: Collection[Run]) -> list[Run] | None:
        """Runs to publish now; None where no run is dirty."""
        suspects = frozenset(self._suspects)
        suspected = sum(run.namespace in suspects for run in running)
        free = self._workers - len(running)
        places = min(free, self._pace.places(len(running) - suspected))
        suspect_places = min(free, self._suspects_pace.places(suspected)) if suspects else 0
        if places <= 0 and suspect_places <= 0:
            return []
        # After claims that found none: a look costs less than a claim, which is a write.
        if not self._found and self._oldest_dirty() is None:
            return None
        self._claims += 1
        order: publishing.Order = "urgent" if self._claims % OLDEST_EVERY else "age"
        claim = partial(publishing.claim, holder=self._holder, lease=LEASE)
        transaction = self._index.begin if suspects else self._index.begin_single
        with transaction() as tx:
            claimed = []
            if places > 0:
                spaces = self._namespaces
                claimed = claim(tx, limit=places, namespaces=spaces, apart_from=suspects, order=order)
            suspect_places = min(free - len(claimed), suspect_places)
            if suspect_places > 0:
                claimed += claim(tx, limit=suspect_places, namespaces=suspects, order="turn")
        self._claimed_at, self._found = time.monotonic(), bool(claimed)
        return claimed

    def _renew(self, running: Collection[Run]) -> None:
        """Keep what is being published from being claimed again while the API server is slow."""
        if not running:
            self._renewed_at = time.monotonic()
        elif time.monotonic() - self._renewed_at > RENEW_SECONDS:
            self._renewed_at = time.monotonic()
            with self._index.begin() as tx:
                publishing.renew(tx, [run.uid for run in running], holder=self._holder, lease=LEASE)

    def _publish(self, run: Run) -> None:
        suspected = run.namespace in self._suspects
        well = self._publisher.publish(run) is not Outcome.UNAVAILABLE
        (self._suspects_pace if suspected else self._pace).note(well=well)
        if well:
            self._suspects.discard(run.namespace)
        else:
            self._suspects.add(run.namespace)

    def _gauge(self) -> None:
        if time.monotonic() - self._looked_at >= GAUGE_SECONDS:
            self._oldest_dirty()

    def _oldest_dirty(self) -> datetime | None:
        with self._index.read() as tx:
            oldest = publishing.oldest_dirty(tx, self._namespaces)
        self._looked_at = time.monotonic()
        metrics.OLDEST_DIRTY.set((datetime.now(UTC) - oldest).total_seconds() if oldest else 0)
        return oldest


class Pace:
    """As many publishes at a time as there are workers; in an outage one, ever later, until one succeeds.

    So an outage is met by each worker once, not by every dirty run in turn. Threads share it.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pause = self._resume_at = 0.0

    def places(self, running: int) -> int:
        """How many more may begin now, where so many run."""
        if time.monotonic() < self._resume_at:
            return 0
        return (1 if self._pause else self._workers) - running

    def note(self, *, well: bool) -> None:
        """Say that one ended, and whether all parts that it needed were there."""
        self._pause = 0.0 if well else min(LONGEST_PAUSE, max(FIRST_PAUSE, self._pause * 2))
        self._resume_at = time.monotonic() + self._pause
