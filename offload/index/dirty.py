"""How a run becomes dirty."""

from collections.abc import Iterable
from datetime import datetime
from functools import cache
from typing import Any

import sqlalchemy as sa

from offload.index import clock
from offload.index.dialects import engines_of
from offload.index.schema import runs


def dirty_since(now: datetime | sa.BindParameter[Any]) -> sa.ColumnElement[Any]:
    """The value of `runs.dirty_since` after a change: a deleted run is never dirty."""
    return sa.case((runs.c.deleted_at.is_(None), sa.func.coalesce(runs.c.dirty_since, now)), else_=sa.null())


def lock(tx: sa.Connection, uids: Iterable[str], columns: tuple[sa.Column[Any], ...]) -> list[Any]:
    """`columns` of the runs, locked until the transaction ends.

    No two transactions wait for each other for ever as long as all take their locks in one order: first the
    names of new runs, which `runs.observe` locks, then rows of runs, by uid, and what belongs to a run after
    its row. One that wants more than one statement locks takes all that it will want by this first.
    """
    engines = engines_of(tx)
    asked = engines.words_given([(uid,) for uid in sorted(uids)])
    return list(tx.execute(_select_locking(columns, engines.words(1)), asked))


def lock_timed(
    tx: sa.Connection, uids: Iterable[str], columns: tuple[sa.Column[Any], ...]
) -> tuple[list[Any], datetime]:
    """As `lock`, each row with the time when it was locked at its end; and the time when all were."""
    engines = engines_of(tx)
    asked = engines.words_given([(uid,) for uid in sorted(uids)])
    rows = list(tx.execute(_select_timed(columns, engines.words(1)), asked))
    return rows, max((row[-1] for row in rows), default=None) or clock.now(tx)


@cache
def _select_locking(columns: tuple[sa.Column[Any], ...], asked: sa.FromClause) -> sa.Select[Any]:
    wanted = runs.c.uid.in_(sa.select(asked.c.first))
    return sa.select(*columns).where(wanted).order_by(runs.c.uid).with_for_update()


@cache
def _select_timed(columns: tuple[sa.Column[Any], ...], asked: sa.FromClause) -> sa.Select[Any]:
    # Around the one that locks: inside, PostgreSQL reads the clock before it waits for the lock.
    locked = _select_locking(columns, asked).subquery()
    return sa.select(*locked.c, clock.NOW.label("locked_at"))
