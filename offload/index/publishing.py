"""Which runs' status is behind, who is at it, and how it went."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Literal

import sqlalchemy as sa

from offload.domain.run import TERMINAL_PHASES, Run
from offload.index import clock
from offload.index.dialects import engines_of
from offload.index.dirty import dirty_since, lock
from offload.index.rows import SELECT_RUN, all_runs
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
    """Take up to `limit` dirty runs of `namespaces` (empty: all) `apart_from` some, for `lease`, in `order`.

    A claim that is alive, its own holder's too, is left alone, and so is a run before its next attempt.
    Urgent are runs that ended or were never published, then come those that wait longest; `age`: those that
    wait longest, whatever they are; `turn`: those whose next attempt has been due longest.
    """
    now = clock.now(tx)
    ended = runs.c.finished_at.is_not(None) | runs.c.phase.in_(sorted(TERMINAL_PHASES))
    query = SELECT_RUN.where(
        runs.c.dirty_since.is_not(None),
        runs.c.deleted_at.is_(None),
        runs.c.claimed_until.is_(None) | (runs.c.claimed_until <= now),
        runs.c.next_attempt_at.is_(None) | (runs.c.next_attempt_at <= now),
    )
    if namespaces:
        query = query.where(runs.c.namespace.in_(sorted(namespaces)))
    if apart_from:
        query = query.where(runs.c.namespace.not_in(sorted(apart_from)))
    urgent = sa.case((ended | runs.c.published_at.is_(None), 0), else_=1)
    turn = sa.func.coalesce(runs.c.next_attempt_at, runs.c.dirty_since)
    ranks = {"urgent": (urgent, runs.c.dirty_since), "age": (runs.c.dirty_since,), "turn": (turn,)}
    query = query.order_by(*ranks[order]).limit(limit)
    claimed = all_runs(tx, query.with_for_update(skip_locked=True))
    if claimed:
        tx.execute(
            sa.update(runs)
            .where(runs.c.uid.in_([run.uid for run in claimed]))
            .values(claimed_by=holder, claimed_until=now + lease)
        )
    return claimed


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
    now = clock.now(tx)
    behind = runs.c.revision > revision
    done = tx.execute(
        sa.update(runs)
        .where(runs.c.uid == uid, runs.c.claimed_by == holder, runs.c.published_revision <= revision)
        .values(
            published_revision=revision,
            published_at=now,
            listed_count=listed_count,
            publish_error=None,
            publish_failures=0,
            next_attempt_at=now + not_before,
            dirty_since=sa.case((behind, now), else_=sa.null()),
            claimed_by=None,
            claimed_until=None,
        )
    )
    return done.rowcount == 1


def failed(  # noqa: PLR0913 - what one update sets
    tx: sa.Connection, uid: str, *, holder: str, error: str, retry_in: timedelta, counts: bool = True
) -> bool:
    """Say that a publish failed, and when to try again; one that `counts` makes later pauses longer.

    False where `holder` lost its claim.
    """
    done = tx.execute(
        sa.update(runs)
        .where(runs.c.uid == uid, runs.c.claimed_by == holder)
        .values(
            publish_error=error.replace("\0", "")[:ERROR_LENGTH],
            publish_failures=runs.c.publish_failures + int(counts),
            next_attempt_at=clock.now(tx) + retry_in,
            claimed_by=None,
            claimed_until=None,
        )
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
    tx.execute(sa.update(runs).where(waits).values(next_attempt_at=None))


def oldest_dirty(tx: sa.Connection) -> datetime | None:
    """Since when the run that waits longest has waited."""
    oldest: datetime | None = tx.execute(_OLDEST_DIRTY).scalar_one()
    return oldest


_OLDEST_DIRTY = sa.select(sa.func.min(runs.c.dirty_since)).where(runs.c.dirty_since.is_not(None))


def dirty_count(tx: sa.Connection) -> int:
    """How many runs wait."""
    waiting = sa.select(sa.func.count()).select_from(runs).where(runs.c.dirty_since.is_not(None))
    return tx.execute(waiting).scalar_one()
