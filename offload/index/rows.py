"""Rows as the domain's words."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from offload.domain.artifact import Artifact, Location, State
from offload.domain.run import Run
from offload.index.schema import artifacts, runs

T = TypeVar("T")

IDS_A_STATEMENT = 500
"""Values in one IN list: SQLite takes 32,766 parameters, and long lists cost planning time."""

RUN_COLUMNS = (
    runs.c.uid,
    runs.c.namespace,
    runs.c.name,
    runs.c.created_at,
    runs.c.labels,
    runs.c.agent,
    runs.c.phase,
    runs.c.finished_at,
    runs.c.deleted_at,
    runs.c.revision,
    runs.c.published_revision,
    runs.c.published_at,
    runs.c.dirty_since,
    runs.c.stored_count,
    runs.c.stored_bytes,
    runs.c.total_count,
    runs.c.current_count,
    runs.c.listed_count,
    runs.c.publish_error,
    runs.c.publish_failures,
)

_ARTIFACT_COLUMNS = (
    artifacts.c.id,
    artifacts.c.run_uid,
    runs.c.namespace,
    runs.c.name.label("run_name"),
    artifacts.c.seq,
    artifacts.c.name,
    artifacts.c.type,
    artifacts.c.content_type,
    artifacts.c.size_bytes,
    artifacts.c.sha256,
    artifacts.c.bucket,
    artifacts.c.key,
    artifacts.c.version_id,
    artifacts.c.created_at,
    artifacts.c.current,
    artifacts.c.state,
    artifacts.c.expires_at,
    artifacts.c.origin,
    artifacts.c.ended_at,
    artifacts.c.ended_by,
    artifacts.c.erased_at,
)

SELECT_RUN = sa.select(*RUN_COLUMNS)
SELECT_ARTIFACT = sa.select(*_ARTIFACT_COLUMNS).join(runs, runs.c.uid == artifacts.c.run_uid)


def newest_incarnation(runs: sa.FromClause) -> Sequence[sa.ColumnElement[Any]]:
    """The order in which the newest incarnation of a name comes first."""
    # One that lives came last: Kubernetes counts creation in whole seconds, and by clocks that differ.
    # Of deleted ones, the one that came later was deleted later, and that is dated by the index's clock.
    deleted_last = (runs.c.deleted_at.is_(None).desc(), runs.c.deleted_at.desc())
    return *deleted_last, runs.c.created_at.desc(), runs.c.first_seen_at.desc()


def one_run(
    tx: sa.Connection, query: sa.Select[Any], parameters: Mapping[str, Any] | None = None
) -> Run | None:
    """The run that a `SELECT_RUN` finds."""
    row = tx.execute(query, parameters).one_or_none()
    return None if row is None else Run(*row)


def all_runs(tx: sa.Connection, query: sa.Select[Any]) -> list[Run]:
    """The runs that a `SELECT_RUN` finds."""
    return [Run(*row) for row in tx.execute(query)]


def one_artifact(tx: sa.Connection, query: sa.Select[Any], parameters: Mapping[str, Any]) -> Artifact | None:
    """The artifact that a `SELECT_ARTIFACT` finds."""
    row = tx.execute(query, parameters).one_or_none()
    return None if row is None else _artifact(row)


def all_artifacts(
    tx: sa.Connection, query: sa.Select[Any], parameters: Mapping[str, Any] | None = None
) -> list[Artifact]:
    """The artifacts that a `SELECT_ARTIFACT` finds."""
    # Row by row, as a result is when it is looped over, a page takes a tenth longer.
    return [_artifact(row) for row in tx.execute(query, parameters).all()]


def in_pieces(values: Iterable[T]) -> Iterator[Sequence[T]]:
    """`values` in lists short enough for one statement."""
    rest = list(values)
    for start in range(0, len(rest), IDS_A_STATEMENT):
        yield rest[start : start + IDS_A_STATEMENT]


def _artifact(row: Sequence[Any]) -> Artifact:
    location, state = Location(*row[10:13]), State(row[15])
    fields: tuple[Any, ...] = (*row[:10], location, *row[13:15], state, *row[16:])
    return Artifact(*fields)
