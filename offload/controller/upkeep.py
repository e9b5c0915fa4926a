"""What is to be done every so often, whatever is uploaded: the sweep, the orphan cleaner, what both need."""

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog

from offload import metrics
from offload.controller.jobs import Job
from offload.domain.retention import Policy
from offload.domain.times import format_time
from offload.errors import OffloadError
from offload.index import Index, clock
from offload.objects.interface import Objects
from offload.services.continuity import note_continuity
from offload.services.orphans import claim_prefix, clean_orphans
from offload.services.strictness import note_strictness
from offload.services.sweep import (
    WATCH,
    Outcome,
    SweepReport,
    erase_ready,
    job_of,
    sweep,
    why_watch_is_stale,
)

WATCH_EVERY = timedelta(seconds=30)
WATCH_HEARD = timedelta(seconds=75)
"""A watch that was heard so lately is well: each is every 50 s, and of several the last one counts."""
ERASE_EVERY = timedelta(seconds=15)
STRICTNESS_EVERY = timedelta(seconds=60)
CONTINUITY_EVERY = timedelta(seconds=60)

log = structlog.get_logger("offload")


@dataclass(frozen=True, slots=True, kw_only=True)
class Upkeep:
    """The jobs of a controller, and what they work with."""

    index: Index
    objects: Objects
    policy: Policy
    namespaces: Collection[str]
    prefix: str
    watch_age: Callable[[], float]
    """Seconds since this controller's watch was heard."""
    sweep_every: timedelta
    orphan_grace: timedelta
    strict: bool
    """Whether status is published in strict mode."""

    def jobs(self) -> Sequence[Job]:
        """All of them; called once."""
        for outcome in Outcome:
            metrics.SWEEPS.labels(outcome=outcome.value)  # there from the start: the first one is growth
        watch, swept = job_of(WATCH, self.namespaces), job_of("sweep", self.namespaces)
        jobs = [
            # There is nothing to do: that it was done says that some controller like this hears its watch.
            Job(WATCH, WATCH_EVERY, lambda _stop: None, ready=self._hears, shared_as=watch),
            Job("sweep", self.sweep_every, self._sweep, shared_as=swept),
            Job("erase", ERASE_EVERY, self._erase),
            Job("continuity", CONTINUITY_EVERY, lambda _stop: note_continuity(self.index)),
            Job("orphans", self.orphan_grace, self._clean),
        ]
        if self.strict:
            note_strictness(self.index)
            jobs.append(Job("strictness", STRICTNESS_EVERY, lambda _stop: note_strictness(self.index)))
        return jobs

    def _hears(self) -> bool:
        return self.watch_age() <= WATCH_HEARD.total_seconds()

    def _sweep(self, stop: threading.Event) -> None:
        while why_watch_is_stale(self.index, self.namespaces) and not stop.wait(1):
            pass
        if stop.is_set():
            return
        with self.index.read() as tx:
            now = clock.now(tx)
        report = sweep(
            self.index,
            self.objects,
            self.policy,
            now=now,
            namespaces=self.namespaces,
            why_stale=lambda: _why_end(stop) or why_watch_is_stale(self.index, self.namespaces),
        )
        _tell(report)
        if report.outcome is Outcome.REFUSED and not stop.is_set():
            raise OffloadError(f"the sweep was refused: {report.why}")

    def _erase(self, stop: threading.Event) -> None:
        erase_ready(self.index, self.objects, why_stale=lambda: _why_end(stop))

    def _clean(self, _stop: threading.Event) -> None:
        claim_prefix(self.index, self.objects, prefix=self.prefix)
        report = clean_orphans(self.index, self.objects, prefix=self.prefix, grace=self.orphan_grace)
        metrics.ORPHANS_REMOVED.inc(report.removed + report.aborted_uploads)
        log.info(
            "orphans",
            seen=report.seen,
            removed=report.removed,
            aborted=report.aborted_uploads,
            in_doubt=report.in_doubt,
            unbroken_since=report.unbroken_since and format_time(report.unbroken_since),
            stopped_because=report.stopped_because,
            left_alone=report.left_alone,
        )


def _why_end(stop: threading.Event) -> str | None:
    return "shutting down" if stop.is_set() else None


def _tell(report: SweepReport) -> None:
    metrics.SWEEPS.labels(outcome=report.outcome.value).inc()
    if report.parked:
        # By every sweep, as long as it waits: the first time may be days ago.
        log.warning("sweep", outcome=report.outcome.value, why=report.why, plan=str(report.parked.id))
    else:
        log.info("sweep", outcome=report.outcome.value, why=report.why)
