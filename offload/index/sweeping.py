"""What a sweep reads and writes: what is stored, what has ended, what may be erased, what is parked."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa

from offload.domain.artifact import Artifact, State
from offload.domain.run import Run
from offload.index import clock
from offload.index.dialects import engines_of
from offload.index.dirty import lock
from offload.index.rows import (
    RUN_COLUMNS,
    SELECT_ARTIFACT,
    SELECT_RUN,
    all_artifacts,
    all_runs,
    in_pieces,
)
from offload.index.schema import artifacts, plans, runs
from offload.index.tombstones import end


@dataclass(frozen=True, slots=True)
class ParkedPlan:
    """A retention plan that is too large to be carried out unasked. Its sums are of what is left to do."""

    id: UUID
    at: datetime
    """The time that the plan was made for."""
    count: int
    bytes: int
    policy_digest: str
    scope: str
    """Whose it is, where several sweep one index; empty: the one who sweeps all."""
    parked_at: datetime
    confirmed_at: datetime | None


def stored_totals(tx: sa.Connection) -> tuple[int, int]:
    """Stored artifacts and their bytes, of all runs."""
    totals = sa.select(
        sa.func.coalesce(sa.func.sum(runs.c.stored_count), 0),
        sa.func.coalesce(sa.func.sum(runs.c.stored_bytes), 0),
    )
    count, size = tx.execute(totals).one()
    return int(count), int(size)


def known_runs(tx: sa.Connection, uids: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Namespace and name of those of `uids` that are runs of this index."""
    known = {}
    for piece in in_pieces(sorted(set(uids))):
        named = sa.select(runs.c.uid, runs.c.namespace, runs.c.name).where(runs.c.uid.in_(piece))
        known.update({uid: (namespace, name) for uid, namespace, name in tx.execute(named)})
    return known


def runs_with_stored(tx: sa.Connection, *, after: str | None = None, limit: int) -> list[Run]:
    """Runs that have stored artifacts, in uid order; `after` is the last uid already seen."""
    query = SELECT_RUN.where(runs.c.stored_count > 0)
    if after is not None:
        query = query.where(runs.c.uid > after)
    return all_runs(tx, query.order_by(runs.c.uid).limit(limit))


def stored_of(tx: sa.Connection, run_uid: str) -> list[Artifact]:
    """A run's stored artifacts, oldest first."""
    stored = SELECT_ARTIFACT.where(artifacts.c.run_uid == run_uid, artifacts.c.state == State.STORED.value)
    return all_artifacts(tx, stored.order_by(artifacts.c.seq))


def versions_to_end(
    tx: sa.Connection, planned: Collection[Artifact], *, newest: int
) -> list[tuple[Run, list[Artifact]]]:
    """The runs of `planned`, and what is stored: of these, and of their names the `newest` versions.

    The runs are locked until the transaction ends, so nothing of this changes before.
    """
    locked = [Run(*row) for row in lock(tx, {one.run_uid for one in planned}, RUN_COLUMNS)]
    found: dict[UUID, Artifact] = {}
    for piece in in_pieces(sorted(one.id for one in planned)):
        there = all_artifacts(tx, _SELECT_STORED.where(artifacts.c.id.in_(piece)))
        found.update((one.id, one) for one in there)
    if newest:
        engines = engines_of(tx)
        names = engines.words_given(sorted({(one.run_uid, one.name) for one in planned}))
        there = all_artifacts(tx, _select_newest(engines.words(2)), {**names, "newest": newest})
        found.update((one.id, one) for one in there)
    versions: dict[str, list[Artifact]] = defaultdict(list)
    for artifact in found.values():
        versions[artifact.run_uid].append(artifact)
    return [(run, versions[run.uid]) for run in locked]


def tombstone(tx: sa.Connection, ids: Iterable[UUID], *, state: State, by: str) -> list[UUID]:
    """End those of `ids` that are stored, and answer which.

    The newest stored version that is left of a name becomes its current one, the run's counters follow, and a
    run that is not deleted becomes dirty. `by` is `rule:NAME` or `token:NAME`.
    """
    return end(tx, ids, state=state, by=by)


def erasable(tx: sa.Connection, limit: int) -> list[Artifact]:
    """Tombstones whose bytes may be deleted: no pointer is left in status, or there is no status any more."""
    unlinked = runs.c.deleted_at.is_not(None) | (runs.c.published_revision >= artifacts.c.ended_revision)
    query = SELECT_ARTIFACT.where(
        artifacts.c.ended_revision.is_not(None), artifacts.c.erased_at.is_(None), unlinked
    )
    return all_artifacts(tx, query.order_by(artifacts.c.run_uid, artifacts.c.ended_revision).limit(limit))


def unerased_count(tx: sa.Connection) -> int:
    """Tombstones whose bytes have not been seen deleted, whether they may go yet or not."""
    waiting = sa.select(sa.func.count()).where(
        artifacts.c.ended_revision.is_not(None), artifacts.c.erased_at.is_(None)
    )
    return int(tx.execute(waiting).scalar_one())


def erased(tx: sa.Connection, ids: Iterable[UUID]) -> None:
    """Say that the bytes of tombstones were seen deleted."""
    now = clock.now(tx)
    unerased = sa.select(artifacts.c.id).where(
        artifacts.c.ended_revision.is_not(None), artifacts.c.erased_at.is_(None)
    )
    for piece in in_pieces(sorted(set(ids))):
        # An UPDATE alone locks in any order, and two sweeps may have seen the same bytes deleted.
        in_order = unerased.where(artifacts.c.id.in_(piece)).order_by(artifacts.c.id).with_for_update()
        gone = tx.scalars(in_order).all()
        tx.execute(sa.update(artifacts).where(artifacts.c.id.in_(gone)).values(erased_at=now))


def park(  # noqa: PLR0913 - each field once
    tx: sa.Connection,
    *,
    at: datetime,
    count: int,
    bytes: int,  # noqa: A002 - what it counts
    policy_digest: str,
    scope: str = "",
) -> UUID:
    """Keep a plan until someone confirms it; answers the id to confirm it by."""
    plan_id = uuid4()
    tx.execute(
        sa.insert(plans).values(
            id=plan_id,
            at=at,
            artifact_count=count,
            total_bytes=bytes,
            policy_digest=f"{policy_digest}:{scope}" if scope else policy_digest,
            parked_at=clock.now(tx),
        )
    )
    return plan_id


def parked(tx: sa.Connection, scope: str = "") -> list[ParkedPlan]:
    """Plans of a scope that are not finished, oldest first; confirmed ones included."""
    of_all = (_plan(row) for row in tx.execute(_SELECT_PLAN.order_by(plans.c.parked_at, plans.c.id)))
    return [plan for plan in of_all if plan.scope == scope]


def confirm(tx: sa.Connection, id: UUID) -> ParkedPlan | None:  # noqa: A002 - the column's own name
    """Let a parked plan go ahead; None where there is no such plan. Confirming twice is confirming once."""
    open_plan = sa.update(plans).where(plans.c.id == id, plans.c.confirmed_at.is_(None))
    tx.execute(open_plan.values(confirmed_at=clock.now(tx)))
    row = tx.execute(_SELECT_PLAN.where(plans.c.id == id)).one_or_none()
    return None if row is None else _plan(row)


def done_of_plan(tx: sa.Connection, id: UUID, *, count: int, bytes: int) -> None:  # noqa: A002 - the column's own name, and what it counts
    """Take what was ended from what a plan still has to end, in the transaction that ends it."""
    tx.execute(
        sa.update(plans)
        .where(plans.c.id == id)
        .values(artifact_count=plans.c.artifact_count - count, total_bytes=plans.c.total_bytes - bytes)
    )


def finish(tx: sa.Connection, id: UUID) -> None:  # noqa: A002 - the column's own name
    """Forget a plan: it was carried out, or is void."""
    tx.execute(sa.delete(plans).where(plans.c.id == id))


def _plan(row: Sequence[Any]) -> ParkedPlan:
    # One column has both. To a release that knows no scopes, a plan of one is a plan of other rules: void.
    digest, _, scope = row[4].partition(":")
    fields: list[Any] = [*row[:4], digest, scope, *row[5:]]
    return ParkedPlan(*fields)


_SELECT_PLAN = sa.select(
    plans.c.id,
    plans.c.at,
    plans.c.artifact_count,
    plans.c.total_bytes,
    plans.c.policy_digest,
    plans.c.parked_at,
    plans.c.confirmed_at,
)


_SELECT_STORED = SELECT_ARTIFACT.where(artifacts.c.state == State.STORED.value)


@cache
def _select_newest(asked: sa.FromClause) -> sa.Select[Any]:
    version = artifacts.alias()
    of_name = (version.c.run_uid == asked.c.first) & (version.c.name == asked.c.second)
    last = (
        sa.select(version.c.seq)
        .where(of_name, version.c.state == State.STORED.value)
        .order_by(version.c.seq.desc())
        .offset(sa.bindparam("newest") - 1)
        .limit(1)
        .scalar_subquery()
    )
    # As a table of its own it is looked up once a name, whatever the plan.
    names = sa.select(asked.c.first, asked.c.second, sa.func.coalesce(last, 0).label("last")).cte("names")
    names = names.prefix_with("MATERIALIZED", dialect="postgresql")
    named = (artifacts.c.run_uid == names.c.first) & (artifacts.c.name == names.c.second)
    return _SELECT_STORED.join(names, named & (artifacts.c.seq >= names.c.last))
