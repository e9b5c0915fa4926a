"""How an artifact ends: the row stays, as a tombstone."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from offload.domain.artifact import State
from offload.index import clock
from offload.index.dialects import engines_of
from offload.index.dirty import dirty_since, lock
from offload.index.rows import in_pieces
from offload.index.schema import artifacts, runs


def end(tx: sa.Connection, ids: Iterable[UUID], *, state: State, by: str) -> list[UUID]:
    """Set tombstones on those of `ids` that are stored, and answer which.

    The newest stored version that is left of a name becomes its current one; the run's counters follow, and
    it becomes dirty.
    """
    wanted = sorted(set(ids))
    owners: set[str] = set()
    for piece in in_pieces(wanted):
        owners.update(tx.scalars(sa.select(artifacts.c.run_uid).distinct().where(artifacts.c.id.in_(piece))))
    for uids in in_pieces(sorted(owners)):
        lock(tx, uids, (runs.c.uid,))
    by_run: dict[str, list[Any]] = defaultdict(list)
    for piece in in_pieces(wanted):
        stored = sa.select(
            artifacts.c.id, artifacts.c.run_uid, artifacts.c.name, artifacts.c.size_bytes, artifacts.c.current
        ).where(artifacts.c.id.in_(piece), artifacts.c.state == State.STORED.value)
        for row in tx.execute(stored):
            by_run[row.run_uid].append(row)
    fate = _Fate(state, by, clock.now(tx))
    for uid, rows in by_run.items():
        _end_in_run(tx, uid, rows, fate)
    if by_run:
        engines_of(tx).announce(tx)
    return [row.id for rows in by_run.values() for row in rows]


@dataclass(frozen=True, slots=True)
class _Fate:
    state: State
    by: str
    at: datetime


def _end_in_run(tx: sa.Connection, uid: str, rows: list[Any], fate: "_Fate") -> None:
    revision = tx.execute(sa.select(runs.c.revision).where(runs.c.uid == uid)).scalar_one() + 1
    for piece in in_pieces(row.id for row in rows):
        tx.execute(
            sa.update(artifacts)
            .where(artifacts.c.id.in_(piece))
            .values(
                state=fate.state.value,
                current=False,
                ended_at=fate.at,
                ended_by=fate.by,
                ended_revision=None if fate.state is State.LOST else revision,
            )
        )
    names = [row.name for row in rows if row.current]
    promoted = sum(_promote(tx, uid, piece) for piece in in_pieces(names))
    tx.execute(
        sa.update(runs)
        .where(runs.c.uid == uid)
        .values(
            revision=revision,
            dirty_since=dirty_since(fate.at),
            stored_count=runs.c.stored_count - len(rows),
            stored_bytes=runs.c.stored_bytes - sum(row.size_bytes for row in rows),
            current_count=runs.c.current_count - len(names) + promoted,
        )
    )


def _promote(tx: sa.Connection, uid: str, names: Iterable[str]) -> int:
    newest = (
        sa.select(sa.func.max(artifacts.c.seq))
        .where(
            artifacts.c.run_uid == uid,
            artifacts.c.name.in_(list(names)),
            artifacts.c.state == State.STORED.value,
        )
        .group_by(artifacts.c.name)
    )
    seqs = tx.scalars(newest).all()
    if seqs:
        tx.execute(
            sa.update(artifacts)
            .where(artifacts.c.run_uid == uid, artifacts.c.seq.in_(seqs))
            .values(current=True)
        )
    return len(seqs)
