"""One transaction that records what waits: sequence, current version, sameness, counters and dirty marks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from offload.domain.artifact import Artifact, NewArtifact, State
from offload.errors import NameExistsError, OffloadError, RunChangedError, UploadOutlivedError
from offload.index.dialects import UtcDateTime, engines_of, rows_given
from offload.index.dirty import dirty_since, lock_timed
from offload.index.rows import SELECT_ARTIFACT, all_artifacts
from offload.index.schema import artifacts, runs


@dataclass(frozen=True, slots=True)
class Recorded:
    """The artifact that stands for the bytes now."""

    artifact: Artifact
    created: bool
    """False where the current version had these bytes, not expired: the new object is then an orphan."""


def record_all(
    tx: sa.Connection, batch: Sequence[NewArtifact], *, grace: timedelta, again: bool
) -> list[Recorded | OffloadError]:
    """Record `batch` in order, and answer each row's outcome in its place; a refused row leaves no trace.

    With `again`, an earlier transaction with these rows failed, and its commit may have taken place all the
    same: a row whose id is there is answered as recorded.
    """
    locked, now = lock_timed(tx, {new.run_uid for new in batch}, _LEDGER_COLUMNS)
    ledgers = {row.uid: _Ledger(*row[:-1]) for row in locked}
    there = _by_id(tx, batch) if again else {}
    book = _Book(ledgers, _current_versions(tx, batch), now)
    outcomes: list[Recorded | OffloadError] = []
    for new in batch:
        if new.id in there:
            outcomes.append(Recorded(there[new.id], created=True))
            continue
        try:
            if now - new.stored_since > grace / 2:
                raise UploadOutlivedError
            outcomes.append(book.enter(new))
        except OffloadError as refusal:
            outcomes.append(refusal)
    book.write(tx)
    return outcomes


@dataclass(slots=True)
class _Ledger:
    """A run's row while it is locked."""

    uid: str
    namespace: str
    name: str
    deleted_at: datetime | None
    revision: int
    stored_count: int
    stored_bytes: int
    total_count: int
    current_count: int
    changed: bool = False


_LEDGER_COLUMNS = (
    runs.c.uid,
    runs.c.namespace,
    runs.c.name,
    runs.c.deleted_at,
    runs.c.revision,
    runs.c.stored_count,
    runs.c.stored_bytes,
    runs.c.total_count,
    runs.c.current_count,
)


_COUNTERS = (
    runs.c.uid,
    runs.c.revision,
    runs.c.stored_count,
    runs.c.stored_bytes,
    runs.c.total_count,
    runs.c.current_count,
)


class _Book:
    """What a batch decides, row by row, and then writes at once."""

    def __init__(
        self, ledgers: Mapping[str, _Ledger], current: dict[tuple[str, str], Artifact], now: datetime
    ) -> None:
        self._ledgers, self._current, self._now = ledgers, current, now
        self._entered: list[Artifact] = []
        self._superseded: set[UUID] = set()

    def enter(self, new: NewArtifact) -> Recorded:
        run = self._ledgers.get(new.run_uid)
        # An older incarnation is marked deleted when a newer one is observed, so living means newest.
        if run is None or (new.newest_run_only and run.deleted_at is not None):
            raise RunChangedError
        before = self._current.get((new.run_uid, new.name))
        if before is not None and new.only_new_name:
            raise NameExistsError
        if before is not None and self._stands_for(before, new):
            return Recorded(before, created=False)
        if before is not None and new.beside_uploads and before.origin is None:
            raise NameExistsError
        run.changed = True
        run.revision += 1
        run.stored_count += 1
        run.stored_bytes += new.size_bytes
        run.total_count += 1
        run.current_count += before is None
        if before is not None:
            self._superseded.add(before.id)
        artifact = _artifact(new, run, self._now)
        self._entered.append(artifact)
        self._current[new.run_uid, new.name] = artifact
        return Recorded(artifact, created=True)

    def _stands_for(self, before: Artifact, new: NewArtifact) -> bool:
        """The same bytes, which no sweep may end by their sender's limit yet."""
        same = (before.sha256, before.size_bytes) == (new.sha256, new.size_bytes)
        return same and not before.is_over(self._now)

    def write(self, tx: sa.Connection) -> None:
        if not self._entered:
            return
        older = self._superseded.difference(artifact.id for artifact in self._entered)
        if older:
            tx.execute(sa.update(artifacts).where(artifacts.c.id.in_(sorted(older))).values(current=False))
        engines = engines_of(tx)
        engines.insert_all(
            tx,
            artifacts,
            [_values(artifact, current=artifact.id not in self._superseded) for artifact in self._entered],
        )
        changed = [
            {column.name: getattr(run, column.name) for column in _COUNTERS}
            for run in self._ledgers.values()
            if run.changed
        ]
        update = _update_runs(engines.given(*_COUNTERS))
        engines.announce_by(tx, update, {**rows_given(changed), "at": self._now})


@cache
def _update_runs(given: sa.FromClause) -> sa.Update:
    """One statement for all runs."""
    counters = {column.name: column for column in given.c if column.name != runs.c.uid.name}
    at = sa.bindparam("at", type_=UtcDateTime)
    return sa.update(runs).where(runs.c.uid == given.c.uid).values(**counters, dirty_since=dirty_since(at))


def _by_id(tx: sa.Connection, batch: Sequence[NewArtifact]) -> dict[UUID, Artifact]:
    there = all_artifacts(tx, SELECT_ARTIFACT.where(artifacts.c.id.in_([new.id for new in batch])))
    return {artifact.id: artifact for artifact in there}


def _current_versions(tx: sa.Connection, batch: Sequence[NewArtifact]) -> dict[tuple[str, str], Artifact]:
    engines = engines_of(tx)
    names = engines.words_given(sorted({(new.run_uid, new.name) for new in batch}))
    found = all_artifacts(tx, _select_current(engines.words(2)), names)
    return {(artifact.run_uid, artifact.name): artifact for artifact in found}


@cache
def _select_current(asked: sa.FromClause) -> sa.Select[Any]:
    named = (artifacts.c.run_uid == asked.c.first) & (artifacts.c.name == asked.c.second)
    return SELECT_ARTIFACT.join(asked, named).where(artifacts.c.current)


def _artifact(new: NewArtifact, run: _Ledger, now: datetime) -> Artifact:
    return Artifact(
        id=new.id,
        run_uid=new.run_uid,
        namespace=run.namespace,
        run_name=run.name,
        seq=run.revision,
        name=new.name,
        type=new.type,
        content_type=new.content_type,
        size_bytes=new.size_bytes,
        sha256=new.sha256,
        location=new.location,
        created_at=now,
        current=True,
        state=State.STORED,
        expires_at=new.expires_at,
        origin=new.origin,
    )


def _values(artifact: Artifact, *, current: bool) -> dict[str, Any]:
    return {
        "id": artifact.id,
        "run_uid": artifact.run_uid,
        "seq": artifact.seq,
        "name": artifact.name,
        "type": artifact.type,
        "content_type": artifact.content_type,
        "size_bytes": artifact.size_bytes,
        "sha256": artifact.sha256,
        "bucket": artifact.location.bucket,
        "key": artifact.location.key,
        "version_id": artifact.location.version_id,
        "created_at": artifact.created_at,
        "current": current,
        "state": artifact.state.value,
        "expires_at": artifact.expires_at,
        "origin": artifact.origin,
    }
