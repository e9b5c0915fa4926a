"""Artifacts of a run, by name and in history."""

from collections.abc import Iterable
from datetime import datetime
from typing import Literal
from uuid import UUID

import sqlalchemy as sa

from offload.domain.artifact import Artifact, State
from offload.index import globs
from offload.index.dialects import engines_of
from offload.index.rows import SELECT_ARTIFACT, all_artifacts, in_pieces, one_artifact
from offload.index.schema import artifacts
from offload.index.tombstones import end


def get(tx: sa.Connection, id: UUID) -> Artifact | None:  # noqa: A002 - the column's own name
    """The artifact with this id, whatever its fate."""
    return one_artifact(tx, SELECT_ARTIFACT.where(artifacts.c.id == id))


def current(tx: sa.Connection, run_uid: str, name: str) -> Artifact | None:
    """The newest stored version of a name."""
    named = (artifacts.c.run_uid == run_uid) & (artifacts.c.name == name)
    return one_artifact(tx, SELECT_ARTIFACT.where(named, artifacts.c.current))


def versions(tx: sa.Connection, run_uid: str, name: str) -> list[Artifact]:
    """All versions of a name, newest first, tombstones included."""
    named = (artifacts.c.run_uid == run_uid) & (artifacts.c.name == name)
    return all_artifacts(tx, SELECT_ARTIFACT.where(named).order_by(artifacts.c.seq.desc()))


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
    query = SELECT_ARTIFACT.where(artifacts.c.run_uid == run_uid)
    if type is not None:
        query = query.where(artifacts.c.type == type)
    if name_glob is not None:
        query = query.where(_name_matches(tx, name_glob))
    if state is not None:
        query = query.where(artifacts.c.state == state.value)
    if since is not None:
        query = query.where(artifacts.c.created_at >= since)
    if until is not None:
        query = query.where(artifacts.c.created_at < until)
    newest_first = order == "newest"
    if after is not None:
        query = query.where(artifacts.c.seq < after if newest_first else artifacts.c.seq > after)
    return all_artifacts(
        tx, query.order_by(artifacts.c.seq.desc() if newest_first else artifacts.c.seq).limit(limit)
    )


def newest_current(tx: sa.Connection, run_uid: str, limit: int) -> list[Artifact]:
    """The current versions that came last, newest first."""
    return all_artifacts(tx, _NEWEST_CURRENT, {"of_run": run_uid, "at_most": limit})


_NEWEST_CURRENT = (
    SELECT_ARTIFACT.where(artifacts.c.run_uid == sa.bindparam("of_run"), artifacts.c.current)
    .order_by(artifacts.c.seq.desc())
    .limit(sa.bindparam("at_most"))
)


def known_ids(tx: sa.Connection, ids: Iterable[UUID]) -> set[UUID]:
    """Those of `ids` whose row exists and whose bytes were not erased: no orphan cleaner may touch them."""
    known: set[UUID] = set()
    for piece in in_pieces(ids):
        kept = sa.select(artifacts.c.id).where(artifacts.c.id.in_(piece), artifacts.c.erased_at.is_(None))
        known.update(tx.scalars(kept))
    return known


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
