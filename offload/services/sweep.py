"""Carry retention out: tombstone, wait until the pointer is gone from status, delete the bytes, mark erased.

Every step is a transaction or an idempotent request of its own, so a sweep that dies anywhere is continued by
the next one. Bytes go only after a status without their pointer was read back, or the run is gone.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from uuid import UUID

from offload import metrics
from offload.domain.artifact import Artifact, State
from offload.domain.limits import DELETE_BATCH
from offload.domain.quantities import format_duration
from offload.domain.retention import Deletion, KeepLast, Plan, Policy, Total, plan_run
from offload.domain.run import Run
from offload.errors import ArtifactNotFoundError, PlanNotFoundError
from offload.index import Index, artifacts, leases, sweeping
from offload.index.sweeping import ParkedPlan
from offload.objects.interface import Objects

WATCH = "watch"
"""The periodic job (`job_of`) of whoever watches runs: every watched namespace was heard just now."""

WATCH_AGE = timedelta(minutes=3)
"""Older views of the runs are no ground to delete on; a living watch is heard at least every 50 s."""

_RUNS_AT_ONCE = 500

WhyStale = Callable[[], str | None]
"""Answers why nothing may be deleted now, or None."""


class Outcome(StrEnum):
    """What became of a sweep."""

    DONE = "done"
    PARKED = "parked"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Erased:
    """Bytes that were deleted, and those that the store did not delete this time."""

    gone: Total = field(default_factory=Total)
    left: Total = field(default_factory=Total)


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What a sweep did. `done` sums what it tombstoned, by rule."""

    outcome: Outcome
    why: str | None = None
    """Why it was parked or refused."""
    planned: Plan | None = None
    done: Plan | None = None
    parked: ParkedPlan | None = None
    """What waits to be confirmed."""
    erased: Erased = field(default_factory=Erased)


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What ends of one run, out of what it has stored."""

    run: Run
    stored: Total
    deletions: tuple[Deletion, ...]


def preview(
    index: Index, policy: Policy, *, now: datetime, namespaces: Collection[str] = ()
) -> Iterator[RunPlan]:
    """The plan at `now`, run by run, of the watched `namespaces` (empty: all)."""
    last = None
    while True:
        with index.read() as tx:
            runs = sweeping.runs_with_stored(tx, after=last, limit=_RUNS_AT_ONCE)
        for run in runs:
            last = run.uid
            if not namespaces or run.namespace in namespaces:
                with index.read() as tx:
                    stored = sweeping.stored_of(tx, run.uid)
                yield RunPlan(run, Total().plus(stored), plan_run(run, stored, policy, now=now))
        if len(runs) < _RUNS_AT_ONCE:
            return


def plan(index: Index, policy: Policy, *, now: datetime, namespaces: Collection[str] = ()) -> Plan:
    """The sums of `preview`."""
    made = Plan(now, policy.digest)
    for run_plan in preview(index, policy, now=now, namespaces=namespaces):
        made = made.including(run_plan.deletions, stored=run_plan.stored)
    return made


def sweep(  # noqa: PLR0913 - two adapters, the rules, and what bounds them
    index: Index,
    objects: Objects,
    policy: Policy,
    *,
    now: datetime,
    namespaces: Collection[str] = (),
    confirm: UUID | None = None,
    why_stale: WhyStale = lambda: None,
) -> SweepReport:
    """Carry the plan at `now` out, or park it where it is beyond the guard.

    With `confirm` (or where a confirmed sweep was interrupted) the parked plan is made again for its own time
    and carried out unless it has grown. A plan that waits already is not parked twice. Without `namespaces`
    all are watched. Plans of other `namespaces` are those of other sweeps.

    Raises:
        PlanNotFoundError: no plan of these namespaces waits under the id in `confirm`.
    """
    if why := why_stale():
        return SweepReport(Outcome.REFUSED, why)
    scope = scope_of(namespaces)
    confirmed = _confirmed(index, scope, confirm)
    if confirmed and confirmed.policy_digest != policy.digest:
        _forget_plans(index, scope)
        return SweepReport(
            Outcome.REFUSED, "the rules are not those that the plan was made with; sweep again"
        )
    made = plan(index, policy, now=confirmed.at if confirmed else now, namespaces=namespaces)
    if not _may_go(made, confirmed):
        waiting = _park(index, scope, made, confirmed)
        why = "it is larger than what was confirmed" if confirmed else "it is beyond the guard"
        return SweepReport(
            Outcome.PARKED, why, made, parked=waiting, erased=erase_ready(index, objects, why_stale=why_stale)
        )
    done, why = _carry_out(index, policy, made, confirmed, namespaces, why_stale)
    if why:
        return SweepReport(Outcome.REFUSED, why, made, done)
    _forget_plans(index, scope)
    return SweepReport(
        Outcome.DONE, None, made, done, erased=erase_ready(index, objects, why_stale=why_stale)
    )


def erase_ready(index: Index, objects: Objects, *, why_stale: WhyStale = lambda: None) -> Erased:
    """Delete the bytes of tombstones that no status points to any more, and mark them erased.

    What the store does not delete stays for the next time, and keeps nothing else from going. Stops between
    two requests when `why_stale` answers something.
    """
    gone, failed = Total(), dict[UUID, Artifact]()
    while True:
        with index.read() as tx:
            ready = sweeping.erasable(tx, DELETE_BATCH + len(failed))
        batch = [artifact for artifact in ready if artifact.id not in failed][:DELETE_BATCH]
        if not batch or why_stale():
            metrics.SWEEP_BACKLOG.set(_backlog(index))
            return Erased(gone, Total().plus(failed.values()))
        deleted = set(objects.delete([artifact.location for artifact in batch]))
        erased = [artifact for artifact in batch if artifact.location in deleted]
        with index.begin() as tx:
            sweeping.erased(tx, [artifact.id for artifact in erased])
        gone = gone.plus(erased)
        failed |= {artifact.id: artifact for artifact in batch if artifact.location not in deleted}


def erase_artifact(index: Index, artifact_id: UUID, *, by: str) -> Artifact:
    """End one artifact on request of `by` (`token:NAME`), and answer its tombstone.

    Its content is refused from now on; its bytes go like those of an expired one. One that has ended already
    keeps its fate, so asking twice is fine.

    Raises:
        ArtifactNotFoundError: there is none with this id.
    """
    with index.begin() as tx:
        sweeping.tombstone(tx, [artifact_id], state=State.DELETED, by=by)
        artifact = artifacts.get(tx, artifact_id)
    if artifact is None:
        raise ArtifactNotFoundError
    return artifact


def why_watch_is_stale(
    index: Index, namespaces: Collection[str] = (), *, at_most: timedelta = WATCH_AGE
) -> str | None:
    """Why the index is no ground to delete on: no watch of `namespaces` was heard for `at_most`; or None."""
    # Who watches all namespaces watches these as well.
    watches = {WATCH, job_of(WATCH, namespaces)}
    with index.read() as tx:
        if all(leases.due(tx, watch, every=at_most) for watch in watches):
            return (
                f"the watch of runs was not heard for {format_duration(at_most)}; "
                "is a controller with the same OFFLOAD_NAMESPACES up?"
            )
    return None


def job_of(name: str, namespaces: Collection[str]) -> str:
    """What the periodic job `name` is called in the index: each set of watched namespaces has its own."""
    scope = scope_of(namespaces)
    return f"{name}:{scope}" if scope else name


def scope_of(namespaces: Collection[str]) -> str:
    """What stands for a set of watched namespaces among those who share an index; empty for all."""
    # Not the names themselves: hundreds of them do not fit into the key of a job.
    names = ",".join(sorted(set(namespaces)))
    return sha256(names.encode()).hexdigest()[:16] if names else ""


def _backlog(index: Index) -> int:
    with index.read() as tx:
        return sweeping.unerased_count(tx)


def _confirmed(index: Index, scope: str, confirm: UUID | None) -> ParkedPlan | None:
    with index.begin() as tx:
        waiting = sweeping.parked(tx, scope)
        if confirm is None:
            return next((plan for plan in waiting if plan.confirmed_at), None)
        known = any(plan.id == confirm for plan in waiting)
        confirmed = sweeping.confirm(tx, confirm) if known else None
    if confirmed is None:
        raise PlanNotFoundError(f"no sweep plan of the namespaces watched here waits under the id {confirm}")
    return confirmed


def _may_go(made: Plan, confirmed: ParkedPlan | None) -> bool:
    if not made.exceeds_guard():
        return True
    return confirmed is not None and not made.exceeds(Total(confirmed.count, confirmed.bytes))


def _park(index: Index, scope: str, made: Plan, outgrown: ParkedPlan | None) -> ParkedPlan:
    """The plan that waits, of the same rules: one that was confirmed since, else the oldest, else `made`."""
    with index.begin() as tx:
        waiting = sweeping.parked(tx, scope)
        fit = [
            plan
            for plan in waiting
            if plan.policy_digest == made.policy_digest and not (outgrown and plan.id == outgrown.id)
        ]
        stays = next((plan for plan in fit if plan.confirmed_at), fit[0] if fit else None)
        for plan in waiting:
            if plan != stays:
                sweeping.finish(tx, plan.id)
        if stays is None:
            ends = made.ends
            sweeping.park(
                tx,
                at=made.at,
                count=ends.count,
                bytes=ends.bytes,
                policy_digest=made.policy_digest,
                scope=scope,
            )
        return sweeping.parked(tx, scope)[0]


def _forget_plans(index: Index, scope: str) -> None:
    with index.begin() as tx:
        for plan in sweeping.parked(tx, scope):
            sweeping.finish(tx, plan.id)


def _carry_out(  # noqa: PLR0913, PLR0917 - what was planned, what bounds it, and where
    index: Index,
    policy: Policy,
    made: Plan,
    confirmed: ParkedPlan | None,
    namespaces: Collection[str],
    why_stale: WhyStale,
) -> tuple[Plan, str | None]:
    """Tombstone what ends at the plan's time; answers what was done, and why it stopped early.

    It reads again instead of remembering the plan, which can be long; so it watches for the plan to grow.
    """
    done = Plan(made.at, made.policy_digest, stored=made.stored)
    for batch in _batches(preview(index, policy, now=made.at, namespaces=namespaces)):
        if why := why_stale():
            return done, why
        if not _may_go(done.including(batch), confirmed):
            return done, "the plan grew past its limit while it was carried out; sweep again"
        done = done.including(_tombstone(index, policy, made.at, batch, confirmed))
    return done, None


def _batches(run_plans: Iterable[RunPlan]) -> Iterator[list[Deletion]]:
    batch: list[Deletion] = []
    for run_plan in run_plans:
        for deletion in run_plan.deletions:
            batch.append(deletion)
            if len(batch) == DELETE_BATCH:
                yield batch
                batch = []
    if batch:
        yield batch


def _tombstone(
    index: Index, policy: Policy, at: datetime, batch: Collection[Deletion], confirmed: ParkedPlan | None
) -> list[Deletion]:
    """End what the rules still end of `batch`, as of `at`, and answer it.

    A run may have changed since it was planned: what was superseded then can be all that is left of its name.
    What was `confirmed` shrinks with it: a sweep that goes on later must not end so much once more.
    """
    planned = {deletion.artifact.id for deletion in batch}
    by_rule: dict[str, list[Deletion]] = defaultdict(list)
    of_batch = [deletion.artifact for deletion in batch]
    with index.begin() as tx:
        # What is neither planned nor among as many as a rule keeps has no say, and there can be too many of
        # it to be read under a lock.
        for run, versions in sweeping.versions_to_end(tx, of_batch, newest=_most_kept(policy)):
            for deletion in plan_run(run, versions, policy, now=at):
                if deletion.artifact.id in planned:
                    by_rule[deletion.rule].append(deletion)
        for deletions in by_rule.values():
            ids = [deletion.artifact.id for deletion in deletions]
            sweeping.tombstone(tx, ids, state=State.EXPIRED, by=deletions[0].by)
        ended = [deletion for deletions in by_rule.values() for deletion in deletions]
        if confirmed:
            total = Total().plus(deletion.artifact for deletion in ended)
            sweeping.done_of_plan(tx, confirmed.id, count=total.count, bytes=total.bytes)
    for rule, deletions in by_rule.items():
        metrics.SWEEP_DELETIONS.labels(rule=rule).inc(len(deletions))
    return ended


def _most_kept(policy: Policy) -> int:
    """The most versions of a name that a rule keeps by their number: no older one is kept by its place."""
    keeps = [*(rule.keep for rule in policy.rules), policy.default]
    return max((keep.versions for keep in keeps if isinstance(keep, KeepLast)), default=0)
