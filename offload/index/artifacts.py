"""Artifacts of a run, by name and in history."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Literal
from uuid import UUID

import sqlalchemy as sa

from offload.domain.artifact import Artifact, State
from offload.index import globs
from offload.index.dialects import engines_of
from offload.index.rows import SELECT_ARTIFACT, all_artifacts, in_pieces, newest_incarnation, one_artifact
from offload.index.schema import artifacts, runs
from offload.index.tombstones import end

_ROWS_AT_ONCE = 50_000
"""So many rows are read within a second or two, also from a slow disk."""

RunAndName = tuple[str, str, str]
"""A namespace, the name of a run in it, and that of an artifact."""


def get(tx: sa.Connection, id: UUID) -> Artifact | None:  # noqa: A002 - the column's own name
    """The artifact with this id, whatever its fate."""
    return one_artifact(tx, _BY_ID, {"the_id": id})


def current(tx: sa.Connection, run_uid: str, name: str) -> Artifact | None:
    """The newest stored version of a name."""
    return one_artifact(tx, _CURRENT, {"the_run": run_uid, "the_name": name})


def currents(tx: sa.Connection, names: Sequence[RunAndName]) -> dict[RunAndName, Artifact]:
    """The current version of each name in the newest incarnation of its run, where there is one."""
    storable = [name for name in names if _can_be_stored(name[2])]
    if not storable:
        return {}
    engines = engines_of(tx)
    found = all_artifacts(tx, _select_currents(engines.words(3)), engines.words_given(storable))
    return {(one.namespace, one.run_name, one.name): one for one in found}


def versions(tx: sa.Connection, run_uid: str, name: str) -> list[Artifact]:
    """All versions of a name, newest first, tombstones included."""
    return all_artifacts(tx, _VERSIONS, {"the_run": run_uid, "the_name": name})


def versions_by_name(tx: sa.Connection, run_uid: str, names: Iterable[str]) -> dict[str, list[Artifact]]:
    """All versions of those of `names` that have any, tombstones included."""
    found: dict[str, list[Artifact]] = {}
    for piece in in_pieces(names):
        for one in all_artifacts(tx, _OF_RUN.where(artifacts.c.name.in_(piece)), {"the_run": run_uid}):
            found.setdefault(one.name, []).append(one)
    return found


def history(  # noqa: PLR0913 - each filter that is offered
    tx: sa.Connection,
    run_uid: str,
    *,
    type: str | None = None,  # noqa: A002 - the word of the domain
    name_glob: str | None = None,
    state: State | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    order: Literal["newest", "oldest"] = "newest",
    after: int | None = None,
    limit: int,
) -> list[Artifact]:
    """A run's artifacts in order of `seq`; `after` is the `seq` of the last one already shown.

    `name_glob` is as `fnmatch.fnmatchcase` takes it; `since` is inclusive, `until` exclusive, both of
    `created_at`.
    """
    filters = {
        "the_type": type,
        "the_state": state and state.value,
        "the_since": since,
        "the_until": until,
        "the_after": after,
    }
    given = {name: value for name, value in filters.items() if value is not None}
    query = _history(order, frozenset(given))
    if name_glob is not None:
        query = query.where(_name_matches(tx, name_glob))
    return all_artifacts(tx, query, {**given, "the_run": run_uid, "the_most": limit})


def newest_current(tx: sa.Connection, run_uid: str, limit: int) -> list[Artifact]:
    """The current versions that came last, newest first."""
    return all_artifacts(tx, _NEWEST_CURRENT, {"the_run": run_uid, "the_most": limit})


@cache
def _select_currents(asked: sa.FromClause) -> sa.Select[Any]:
    same_name = runs.alias()
    newest = (
        sa.select(same_name.c.uid)
        .where(same_name.c.namespace == asked.c.first, same_name.c.name == asked.c.second)
        .order_by(*newest_incarnation(same_name))
        .limit(1)
        .scalar_subquery()
    )
    named = (artifacts.c.run_uid == newest) & (artifacts.c.name == asked.c.third)
    return SELECT_ARTIFACT.join(asked, named).where(artifacts.c.current)


@cache
def _history(order: Literal["newest", "oldest"], filters: frozenset[str]) -> sa.Select[Any]:
    """The query of a page; built once for each choice of filters, which takes as long as asking it."""
    seq, newest_first = artifacts.c.seq, order == "newest"
    conditions = {
        "the_type": artifacts.c.type == sa.bindparam("the_type"),
        "the_state": artifacts.c.state == sa.bindparam("the_state"),
        "the_since": artifacts.c.created_at >= sa.bindparam("the_since"),
        "the_until": artifacts.c.created_at < sa.bindparam("the_until"),
        "the_after": seq < sa.bindparam("the_after") if newest_first else seq > sa.bindparam("the_after"),
    }
    query = _OF_RUN.where(*(condition for name, condition in conditions.items() if name in filters))
    return query.order_by(seq.desc() if newest_first else seq).limit(sa.bindparam("the_most"))


_BY_ID = SELECT_ARTIFACT.where(artifacts.c.id == sa.bindparam("the_id"))
_OF_RUN = SELECT_ARTIFACT.where(artifacts.c.run_uid == sa.bindparam("the_run"))
_NAMED = _OF_RUN.where(artifacts.c.name == sa.bindparam("the_name"))
_CURRENT = _NAMED.where(artifacts.c.current)
_VERSIONS = _NAMED.order_by(artifacts.c.seq.desc())
_NEWEST_CURRENT = (
    _OF_RUN.where(artifacts.c.current).order_by(artifacts.c.seq.desc()).limit(sa.bindparam("the_most"))
)


def known_ids(tx: sa.Connection, ids: Iterable[UUID]) -> set[UUID]:
    """Those of `ids` whose row exists and whose bytes were not erased: no orphan cleaner may touch them."""
    return _ids(tx, ids, artifacts.c.erased_at.is_(None))


def erased_ids(tx: sa.Connection, ids: Iterable[UUID]) -> set[UUID]:
    """Those of `ids` whose row says that their bytes were erased."""
    return _ids(tx, ids, artifacts.c.erased_at.is_not(None))


def are_stored_under(tx: sa.Connection, bucket: str, start: str) -> bool:
    """Whether an artifact that is stored by now is in `bucket` by a key that begins with `start`.

    Reads all rows if not; some at a time, since one statement may not take long.
    """
    under = sa.func.substr(artifacts.c.key, 1, len(start)) == start
    there = (artifacts.c.state == State.STORED.value) & (artifacts.c.bucket == bucket) & under
    ids = sa.select(artifacts.c.id)
    newest = tx.scalar(ids.order_by(artifacts.c.id.desc()).limit(1))
    after = UUID(int=0)
    while newest is not None and after < newest:
        rest = ids.where(artifacts.c.id > after)
        last = tx.scalar(rest.order_by(artifacts.c.id).offset(_ROWS_AT_ONCE - 1).limit(1))
        until = newest if last is None else min(last, newest)
        if tx.scalar(rest.where(artifacts.c.id <= until, there).limit(1)) is not None:
            return True
        after = until
    return False


def mark_lost(tx: sa.Connection, id: UUID) -> None:  # noqa: A002 - the column's own name
    """Say that the store no longer has a stored artifact's bytes. They are never deleted for it."""
    end(tx, [id], state=State.LOST, by="store")


def _name_matches(tx: sa.Connection, pattern: str) -> sa.ColumnElement[bool]:
    """`pattern` on the name, with its literal beginning as a range, which an index can use."""
    if not _can_be_stored(pattern):
        return sa.false()
    glob = globs.parse(pattern)
    prefix = globs.literal_prefix(glob)
    if glob == (globs.Literal(prefix),):
        return artifacts.c.name == prefix
    conditions = [engines_of(tx).matches(artifacts.c.name, glob)]
    if prefix:
        conditions.append(artifacts.c.name >= prefix)
        if (end_of_range := globs.after_prefix(prefix)) is not None:
            conditions.append(artifacts.c.name < end_of_range)
    return sa.and_(*conditions)


def _can_be_stored(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _ids(tx: sa.Connection, ids: Iterable[UUID], having: sa.ColumnElement[bool]) -> set[UUID]:
    found: set[UUID] = set()
    for piece in in_pieces(ids):
        found.update(tx.scalars(sa.select(artifacts.c.id).where(artifacts.c.id.in_(piece), having)))
    return found
