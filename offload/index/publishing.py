"""Which runs' status is behind, who is at it, and how it went."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Literal

import sqlalchemy as sa

from offload.domain.run import TERMINAL_PHASES, Run
from offload.index import clock
from offload.index.dialects import engines_of
from offload.index.dirty import dirty_since, lock
from offload.index.rows import RUN_COLUMNS, in_pieces
from offload.index.schema import runs

Order = Literal["urgent", "age", "turn"]

ERROR_LENGTH = 2000
"""Characters of a publish error that are kept."""


def claim(  # noqa: PLR0913 - who, how many, which
    tx: sa.Connection,
    *,
    holder: str,
    limit: int,
    lease: timedelta,
    namespaces: Collection[str] = (),
    apart_from: Collection[str] = (),
    order: Order = "urgent",
) -> list[Run]:
    """Take up to `limit` dirty runs of `namespaces` (empty: all) `apart_from` some, for `lease`.

    A claim that is alive, its own holder's too, is left alone, and so is a run before its next attempt.
    `order` says which are taken, not how they are answered. Urgent are runs that ended or were never
    published, then come those that wait longest; `age`: those that wait longest, whatever they are; `turn`:
    those whose next attempt has been due longest.
    """
    given = {
        "by": holder,
        "pause": lease.total_seconds(),
        "at_most": limit,
        "namespaces": sorted(namespaces),
        "apart_from": sorted(apart_from),
    }
    return [Run(*row) for row in tx.execute(_claim(order, bool(namespaces), bool(apart_from)), given)]


def renew(tx: sa.Connection, uids: Collection[str], *, holder: str, lease: timedelta) -> None:
    """Make claims of `holder` that are still its own last for another `lease`."""
    lock(tx, uids, (runs.c.uid,))
    tx.execute(
        sa.update(runs)
        .where(runs.c.uid.in_(uids), runs.c.claimed_by == holder)
        .values(claimed_until=clock.now(tx) + lease)
    )


def published(  # noqa: PLR0913 - what one update sets
    tx: sa.Connection, uid: str, *, holder: str, revision: int, listed_count: int, not_before: timedelta
) -> bool:
    """Say that a status that reflects `revision` was read back.

    The next publish is at least `not_before` away. The run stays dirty where its revision has moved on.
    False, and nothing changes, where `holder` lost its claim: who has it now publishes again.
    """
    done = tx.execute(
        _PUBLISHED,
        {
            "of_uid": uid,
            "by": holder,
            "of_revision": revision,
            "listed": listed_count,
            "pause": not_before.total_seconds(),
        },
    )
    return done.rowcount == 1


def failed(  # noqa: PLR0913 - what one update sets
    tx: sa.Connection, uid: str, *, holder: str, error: str, retry_in: timedelta, counts: bool = True
) -> bool:
    """Say that a publish failed, and when to try again; one that `counts` makes later pauses longer.

    False where `holder` lost its claim.
    """
    done = tx.execute(
        _FAILED,
        {
            "of_uid": uid,
            "by": holder,
            "error": error.replace("\0", "")[:ERROR_LENGTH],
            "counts": int(counts),
            "pause": retry_in.total_seconds(),
        },
    )
    return done.rowcount == 1


def touch(tx: sa.Connection, uid: str) -> None:
    """Have the run's status looked at again; nothing happens for a deleted run."""
    marked = tx.execute(
        sa.update(runs)
        .where(runs.c.uid == uid, runs.c.deleted_at.is_(None))
        .values(revision=runs.c.revision + 1, dirty_since=dirty_since(clock.now(tx)))
    )
    if marked.rowcount:
        engines_of(tx).announce(tx)


def try_again(tx: sa.Connection, namespace: str | None) -> None:
    """Have the runs of `namespace` (None: all) whose publish failed wait no longer."""
    waits = runs.c.dirty_since.is_not(None) & (runs.c.publish_failures > 0)
    if namespace is not None:
        waits &= runs.c.namespace == namespace
    waiting = tx.scalars(sa.select(runs.c.uid).where(waits).order_by(runs.c.uid).with_for_update())
    for piece in in_pieces(waiting):
        tx.execute(sa.update(runs).where(runs.c.uid.in_(piece)).values(next_attempt_at=None))


def oldest_dirty(tx: sa.Connection, namespaces: Collection[str] = ()) -> datetime | None:
    """Since when the run of `namespaces` (empty: of all) that waits longest has waited."""
    given = {"namespaces": sorted(namespaces)} if namespaces else {}
    oldest: datetime | None = tx.execute(_oldest_dirty(bool(namespaces)), given).scalar_one()
    return oldest


_AFTER_PAUSE = clock.moment(sa.bindparam("pause", type_=sa.Float))
_DUE = sa.select(runs.c.uid).where(
    runs.c.dirty_since.is_not(None),
    runs.c.deleted_at.is_(None),
    runs.c.claimed_until.is_(None) | (runs.c.claimed_until <= clock.NOW),
    runs.c.next_attempt_at.is_(None) | (runs.c.next_attempt_at <= clock.NOW),
)
_IN_NAMESPACES = runs.c.namespace.in_(sa.bindparam("namespaces", expanding=True))
_ENDED = runs.c.finished_at.is_not(None) | runs.c.phase.in_(sorted(TERMINAL_PHASES))
_RANKS: Mapping[Order, Sequence[sa.ColumnElement[Any]]] = {
    "urgent": (sa.case((_ENDED | runs.c.published_at.is_(None), 0), else_=1), runs.c.dirty_since),
    "age": (runs.c.dirty_since,),
    "turn": (sa.func.coalesce(runs.c.next_attempt_at, runs.c.dirty_since),),
}


@cache
def _claim(order: Order, of_namespaces: bool, apart: bool) -> sa.Executable:
    due = _DUE
    if of_namespaces:
        due = due.where(_IN_NAMESPACES)
    if apart:
        due = due.where(runs.c.namespace.not_in(sa.bindparam("apart_from", expanding=True)))
    due = due.order_by(*_RANKS[order]).limit(sa.bindparam("at_most"))
    # As a table of its own it is looked up once, whatever the plan.
    found = due.with_for_update(skip_locked=True).cte("due")
    return (
        sa.update(runs)
        .where(runs.c.uid.in_(sa.select(found.c.uid)))
        .values(claimed_by=sa.bindparam("by"), claimed_until=_AFTER_PAUSE)
        .returning(*RUN_COLUMNS)
    )


_CLAIMED = sa.update(runs).where(
    runs.c.uid == sa.bindparam("of_uid"), runs.c.claimed_by == sa.bindparam("by")
)
_RELEASED = {"claimed_by": None, "claimed_until": None, "next_attempt_at": _AFTER_PAUSE}
_REVISION = sa.bindparam("of_revision", type_=sa.BigInteger)
_PUBLISHED = _CLAIMED.where(runs.c.published_revision <= _REVISION).values(
    published_revision=_REVISION,
    published_at=clock.NOW,
    listed_count=sa.bindparam("listed"),
    publish_error=None,
    publish_failures=0,
    dirty_since=sa.case((runs.c.revision > _REVISION, clock.NOW), else_=sa.null()),
    **_RELEASED,
)
_FAILED = _CLAIMED.values(
    publish_error=sa.bindparam("error"),
    publish_failures=runs.c.publish_failures + sa.bindparam("counts"),
    **_RELEASED,
)


@cache
def _oldest_dirty(of_namespaces: bool) -> sa.Select[Any]:
    oldest = sa.select(sa.func.min(runs.c.dirty_since)).where(runs.c.dirty_since.is_not(None))
    return oldest.where(_IN_NAMESPACES) if of_namespaces else oldest


def dirty_count(tx: sa.Connection, namespaces: Collection[str] = ()) -> int:
    """How many runs of `namespaces` (empty: of all) wait."""
    waiting = sa.select(sa.func.count()).select_from(runs).where(runs.c.dirty_since.is_not(None))
    if namespaces:
        waiting = waiting.where(runs.c.namespace.in_(sorted(namespaces)))
    return tx.execute(waiting).scalar_one()
