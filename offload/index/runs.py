"""AgentRuns, by uid, and their incarnations, by name."""

from collections.abc import Collection
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import sqlalchemy as sa

from offload.domain.run import Run, SeenRun
from offload.index import clock, dirty
from offload.index.dialects import UtcDateTime, Words, engines_of
from offload.index.rows import SELECT_RUN, all_runs, in_pieces, newest_incarnation, one_run
from offload.index.schema import runs

CLOCKS_APART = timedelta(minutes=1)
"""How far the clocks of API servers are taken to differ at most."""


def lock(tx: sa.Connection, seen: Collection[SeenRun], gone: Collection[str] = ()) -> dict[str, Run]:
    """Take the locks that observing all of `seen` and marking `gone` deleted will want.

    They come in the order that `dirty.lock` tells of: a transaction that does so to more than one run calls
    this first. Answers, by uid, runs that `observe` would answer as they are: most of what a watch tells is
    the echo of our own writes, and needs no other look.
    """
    if len(seen) + len(gone) < 2:  # noqa: PLR2004 - one alone takes its locks in order
        return {}
    engines = engines_of(tx)
    uids = engines.words_given([(uid,) for uid in sorted({one.uid for one in seen})])
    known = {row.uid: row for row in tx.execute(_select_known(engines.words(1)), uids)}
    names = {_text(one): (one.namespace, one.name) for one in seen if one.uid not in known}
    for text in sorted(names):
        engines.lock_text(tx, text)
    news = {one.uid for one in seen if one.uid in known and _is_news(one, known[one.uid])}
    rows = {*gone, *news}
    if names:
        # What became known meanwhile is among those that live.
        named = engines.words_given(sorted(names.values()))
        rows.update(tx.scalars(_select_living(engines.words(2)), named))
    if rows:
        dirty.lock(tx, rows, (runs.c.uid,))
    return {uid: Run(*row[:-1]) for uid, row in known.items() if uid not in rows}


def observe(tx: sa.Connection, seen: SeenRun) -> Run:
    """Keep what the API server showed, and answer the run as the index now has it.

    A run not yet known is added; older incarnations of its name become deleted, and where a newer one lives
    the added one is deleted from the start. A known run is updated, unless it is deleted (that is
    final) or a newer resourceVersion of it was seen.
    """
    known = tx.execute(_KNOWN, {"of_uid": seen.uid}).one_or_none()
    if known is not None and not _is_news(seen, known):
        return Run(*known[:-1])
    if known is None:
        _add(tx, seen)
    else:
        latest = tx.execute(_KNOWN_LOCKED, {"of_uid": seen.uid}).one()
        if _is_news(seen, latest):
            tx.execute(sa.update(runs).where(runs.c.uid == seen.uid).values(_changing(seen)))
    run = get(tx, seen.uid)
    if run is None:
        raise LookupError(f"run {seen.uid} vanished from the index")  # rows of runs are never deleted
    return run


def get(tx: sa.Connection, uid: str) -> Run | None:
    """The run with this uid."""
    return one_run(tx, _BY_UID, {"of_uid": uid})


def find(tx: sa.Connection, namespace: str, name: str, uid: str | None = None) -> Run | None:
    """The newest incarnation of a name, or the one with this `uid`: None if that never had the name."""
    given = {"of_namespace": namespace, "of_name": name, "of_uid": uid}
    return one_run(tx, _NEWEST_NAMED if uid is None else _NAMED_WITH_UID, given)


def mark_deleted(tx: sa.Connection, uid: str) -> bool:
    """Say that the run is gone from the cluster; whether that was news."""
    return _delete(tx, [uid]) == 1


def mark_deleted_except(
    tx: sa.Connection, namespace: str | None, uids: Collection[str], *, before: datetime
) -> int:
    """Say that of `namespace` (None: of all) only `uids` are still in the cluster; how many were news.

    `before` is when the list began, by the index's clock: runs first seen later may not be in it and are
    left.
    """
    living = sa.select(runs.c.uid).where(runs.c.deleted_at.is_(None), runs.c.first_seen_at < before)
    if namespace is not None:
        living = living.where(runs.c.namespace == namespace)
    present = frozenset(uids)
    return _delete(tx, [uid for uid in tx.scalars(living) if uid not in present])


def page(  # noqa: PLR0913 - each filter that is offered
    tx: sa.Connection,
    namespace: str,
    *,
    agent: str | None = None,
    phase: str | None = None,
    deleted: bool | None = None,
    after: tuple[datetime, str] | None = None,
    limit: int,
) -> list[Run]:
    """Runs of a namespace, newest first; `after` is `(created_at, uid)` of the last one already shown."""
    query = SELECT_RUN.where(runs.c.namespace == namespace)
    if agent is not None:
        query = query.where(runs.c.agent == agent)
    if phase is not None:
        query = query.where(runs.c.phase == phase)
    if deleted is not None:
        query = query.where(runs.c.deleted_at.is_not(None) if deleted else runs.c.deleted_at.is_(None))
    if after is not None:
        created_at, uid = after
        last = sa.tuple_(sa.literal(created_at, UtcDateTime), sa.literal(uid, Words))
        query = query.where(sa.tuple_(runs.c.created_at, runs.c.uid) < last)
    return all_runs(tx, query.order_by(runs.c.created_at.desc(), runs.c.uid.desc()).limit(limit))


_NAMED = SELECT_RUN.where(
    runs.c.namespace == sa.bindparam("of_namespace"), runs.c.name == sa.bindparam("of_name")
)
_NEWEST_NAMED = _NAMED.order_by(*newest_incarnation(runs)).limit(1)
_NAMED_WITH_UID = _NAMED.where(runs.c.uid == sa.bindparam("of_uid"))
_BY_UID = SELECT_RUN.where(runs.c.uid == sa.bindparam("of_uid"))
_KNOWN = _BY_UID.add_columns(runs.c.resource_version)
_KNOWN_LOCKED = _KNOWN.with_for_update()


@cache
def _select_known(asked: sa.FromClause) -> sa.Select[Any]:
    return SELECT_RUN.add_columns(runs.c.resource_version).join(asked, runs.c.uid == asked.c.first)


@cache
def _select_living(asked: sa.FromClause) -> sa.Select[Any]:
    named = (runs.c.namespace == asked.c.first) & (runs.c.name == asked.c.second)
    return sa.select(runs.c.uid).join(asked, named).where(runs.c.deleted_at.is_(None))


def _is_news(seen: SeenRun, known: Any) -> bool:
    """A resourceVersion alone is not worth a write; and what is deleted, or was seen later, stands."""
    if known.deleted_at is not None or _version(seen.resource_version) < _version(known.resource_version):
        return False
    facts = (known.labels, known.agent, known.phase, known.finished_at)
    return facts != (dict(seen.labels), seen.agent, seen.phase, seen.finished_at)


def _add(tx: sa.Connection, seen: SeenRun) -> None:
    engines = engines_of(tx)
    # Two incarnations observed at once must see each other, or both would count as the newest.
    engines.lock_text(tx, _text(seen))
    # One that was deleted came before, however it is dated.
    others = tx.execute(
        sa.select(runs.c.uid, runs.c.created_at, runs.c.resource_version).where(
            runs.c.namespace == seen.namespace,
            runs.c.name == seen.name,
            runs.c.uid != seen.uid,
            runs.c.deleted_at.is_(None),
        )
    ).all()
    newer = {other.uid for other in others if _is_newer(other, seen)}
    now = clock.now(tx)
    tx.execute(
        engines.insert(runs).on_conflict_do_nothing(index_elements=[runs.c.uid]),
        {
            "uid": seen.uid,
            "namespace": seen.namespace,
            "name": seen.name,
            "created_at": seen.created_at,
            "first_seen_at": now,
            "deleted_at": now if newer else None,
            "revision": 0,
            "published_revision": 0,
            "listed_count": 0,
            "publish_failures": 0,
            "stored_count": 0,
            "stored_bytes": 0,
            "total_count": 0,
            "current_count": 0,
            **_changing(seen),
        },
    )
    _delete(tx, [other.uid for other in others if other.uid not in newer])


def _is_newer(one: Any, than: SeenRun) -> bool:
    """Which of two incarnations came later, where both count as living."""
    apart = one.created_at - than.created_at
    version, other = _version(one.resource_version), _version(than.resource_version)
    # No version of the older one is higher than any of the newer one's. That holds within one etcd: restored
    # from a backup, or in another cluster, it counts anew, and then creations are far apart.
    if min(version, other) >= 0 and abs(apart) <= CLOCKS_APART:
        return (version, apart) > (other, timedelta(0))
    return (apart, version) > (timedelta(0), other)


def _text(seen: SeenRun) -> str:
    """What stands for the run's name among locks."""
    return f"{seen.namespace}/{seen.name}"


def _changing(seen: SeenRun) -> dict[str, object]:
    return {
        "resource_version": seen.resource_version,
        "labels": dict(seen.labels),
        "agent": seen.agent,
        "phase": seen.phase,
        "finished_at": seen.finished_at,
    }


def _delete(tx: sa.Connection, uids: Collection[str]) -> int:
    count = 0
    for piece in in_pieces(sorted(uids)):
        living = sa.select(runs.c.uid).where(runs.c.uid.in_(piece), runs.c.deleted_at.is_(None))
        locked = tx.scalars(living.order_by(runs.c.uid).with_for_update()).all()
        if locked:
            tx.execute(
                sa.update(runs)
                .where(runs.c.uid.in_(locked))
                .values(
                    deleted_at=clock.now(tx),
                    dirty_since=None,
                    publish_error=None,
                    claimed_by=None,
                    claimed_until=None,
                )
            )
        count += len(locked)
    return count


def _version(resource_version: str) -> int:
    """Its place in time (from Kubernetes 1.35 on, they are numbers that compare); -1 where it is none."""
    return int(resource_version) if resource_version.isascii() and resource_version.isdigit() else -1
