"""Entries of other writers in a run's status that point elsewhere."""

from collections.abc import Iterable
from dataclasses import replace

import sqlalchemy as sa

from offload.domain.external import External
from offload.index import clock
from offload.index.dialects import engines_of
from offload.index.dirty import dirty_since, lock
from offload.index.rows import in_pieces
from offload.index.schema import externals, runs

REMOVED_KEPT = 50
"""Removed ones that a run keeps, the newest. They save a place: what is brought back stands where it stood,
and what was forgotten comes as a new one. A writer that renews a signed address removes one each time."""


def of_run(tx: sa.Connection, run_uid: str) -> list[External]:
    """A run's externals in order of `seq`, removed ones included."""
    return [External(*row) for row in tx.execute(_OF_RUN, {"of_run": run_uid})]


_OF_RUN = (
    sa.select(
        externals.c.seq,
        externals.c.fingerprint,
        externals.c.entry,
        externals.c.state,
    )
    .where(externals.c.run_uid == sa.bindparam("of_run"))
    .order_by(externals.c.seq)
)


def save(tx: sa.Connection, run_uid: str, found: Iterable[External]) -> list[External]:
    """Keep externals, and answer them with their `seq`.

    One whose fingerprint is known keeps its `seq` and takes the new entry and state. Each new one takes the
    next revision of the run, in the order given, which makes the run dirty (read its revision after this).
    Of the removed ones, the newest stay.
    """
    [run] = lock(tx, [run_uid], (runs.c.revision,))
    known = {external.fingerprint: external for external in of_run(tx, run_uid)}
    revision = run.revision
    saved = []
    for external in found:
        before = known.get(external.fingerprint)
        revision += before is None
        saved.append(replace(external, seq=before.seq if before else revision))
        known[external.fingerprint] = saved[-1]
    if saved:
        statement = engines_of(tx).insert(externals)
        statement = statement.on_conflict_do_update(
            index_elements=[externals.c.run_uid, externals.c.fingerprint],
            set_={"entry": statement.excluded.entry, "state": statement.excluded.state},
        )
        tx.execute(
            statement,
            [
                {
                    "seq": external.seq,
                    "run_uid": run_uid,
                    "fingerprint": external.fingerprint,
                    "entry": dict(external.entry),
                    "state": external.state,
                }
                for external in saved
            ],
        )
    removed = sorted((one for one in known.values() if one.state == "removed"), key=lambda one: one.seq)
    for piece in in_pieces(one.fingerprint for one in removed[:-REMOVED_KEPT]):
        tx.execute(
            sa.delete(externals).where(externals.c.run_uid == run_uid, externals.c.fingerprint.in_(piece))
        )
    if revision != run.revision:
        tx.execute(
            sa.update(runs)
            .where(runs.c.uid == run_uid)
            .values(revision=revision, dirty_since=dirty_since(clock.now(tx)))
        )
        engines_of(tx).announce(tx)
    return saved
