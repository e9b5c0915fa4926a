"""The index: whether it is there and usable, and what it says of how the work goes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from offload.domain.quantities import format_size
from offload.index import Index, clock, leases, migrate, publishing, sweeping
from offload.services.doctor.findings import Check, Verdict, ok, warning
from offload.services.doctor.store import judge_clock
from offload.services.sweep import scope_of, why_watch_is_stale

PART = "index"
_BEHIND_LONG = timedelta(minutes=5)
_REACH = "see whether OFFLOAD_DATABASE_URL is right and its server runs"
_MIGRATE = "offload migrate"


@dataclass(frozen=True, slots=True)
class IndexPart:
    """The index as it is, at whatever revision. What a check writes there is rolled back."""

    index: Callable[[], Index]
    publishes: bool
    namespaces: Sequence[str] = ()
    """Those that are watched; none: all."""

    def checks(self) -> Sequence[Check]:
        return [
            Check(PART, "reachable", self._reachable, _REACH),
            Check(PART, "revision", self._revision, _MIGRATE),
            Check(PART, "write", self._write, f"{_MIGRATE}; let the database's user write"),
            Check(PART, "clock", self._clock, _REACH),
            Check(PART, "watch", self._watch, _MIGRATE),
            Check(PART, "publishing", self._publishing, _MIGRATE),
            Check(PART, "sweep plans", self._plans, _MIGRATE),
        ]

    def _reachable(self) -> Iterator[Verdict]:
        with self.index().read() as tx:
            clock.now(tx)
            migrate.revision_of(tx)
        yield ok("answers")

    def _revision(self) -> Iterator[Verdict]:
        with self.index().read() as tx:
            there = migrate.revision_of(tx)
        migrate.check(self.index())
        head = migrate.head()
        yield ok(f"at {there}" if there == head else f"at {there}, which this release ({head}) can use")

    def _write(self) -> Iterator[Verdict]:
        with suppress(_RolledBackError), self.index().begin() as tx:
            leases.acquire(tx, "doctor", holder="doctor", lease=timedelta(seconds=1))
            raise _RolledBackError
        yield ok("allowed")

    def _clock(self) -> Iterator[Verdict]:
        with self.index().read() as tx:
            there = clock.now(tx)
        yield judge_clock(there - datetime.now(UTC))

    def _watch(self) -> Iterator[Verdict]:
        stale = why_watch_is_stale(self.index(), self.namespaces)
        if stale is None:
            yield ok("a controller watches the cluster")
        else:
            yield warning(stale, "start `offload controller`, or see its log")

    def _publishing(self) -> Iterator[Verdict]:
        with self.index().read() as tx:
            count = publishing.dirty_count(tx, self.namespaces)
            since, now = publishing.oldest_dirty(tx, self.namespaces), clock.now(tx)
        if since is None:
            yield ok("no status is behind")
            return
        waited = now - since
        found = f"{count} runs wait, the longest for {waited.total_seconds():.0f} s"
        if not self.publishes:
            yield ok(f"{found}; publishing is not on")
        elif waited < _BEHIND_LONG:
            yield ok(found)
        else:
            yield warning(found, "`offload explain NS/NAME` tells why; the controller's log has more")

    def _plans(self) -> Iterator[Verdict]:
        with self.index().read() as tx:
            parked = sweeping.parked(tx, scope_of(self.namespaces))
        waiting = [plan for plan in parked if plan.confirmed_at is None]
        if not waiting:
            yield ok("none waits for a person")
        for plan in waiting:
            yield warning(
                f"plan {plan.id} would end {plan.count} artifacts, {format_size(plan.bytes)}, and waits",
                f"look: offload retention plan; then: offload sweep --confirm {plan.id}",
            )


class _RolledBackError(Exception):
    """Nothing of this stays."""
