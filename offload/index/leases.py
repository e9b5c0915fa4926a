"""Jobs that one process at a time does, and periodic ones that are due."""

from datetime import timedelta

import sqlalchemy as sa

from offload.index import clock
from offload.index.dialects import engines_of
from offload.index.schema import leases


def acquire(tx: sa.Connection, name: str, *, holder: str, lease: timedelta) -> bool:
    """Take or renew the lease `name`; False while another holder's is alive."""
    now = clock.now(tx)
    _add(tx, name)
    free = leases.c.holder.is_(None) | (leases.c.holder == holder) | (leases.c.held_until <= now)
    taken = tx.execute(
        sa.update(leases).where(leases.c.name == name, free).values(holder=holder, held_until=now + lease)
    )
    return taken.rowcount == 1


def release(tx: sa.Connection, name: str, *, holder: str) -> None:
    """Give the lease back, if it is still this holder's."""
    mine = sa.update(leases).where(leases.c.name == name, leases.c.holder == holder)
    tx.execute(mine.values(holder=None, held_until=None))


def due(tx: sa.Connection, name: str, *, every: timedelta) -> bool:
    """Whether the job `name` was never done, or last at least `every` ago."""
    return due_in(tx, name, every=every) <= timedelta(0)


def due_in(tx: sa.Connection, name: str, *, every: timedelta) -> timedelta:
    """How long until the job `name` is due; not above zero where it is."""
    last = tx.execute(sa.select(leases.c.done_at).where(leases.c.name == name)).scalar_one_or_none()
    return timedelta(0) if last is None else last + every - clock.now(tx)


def done(tx: sa.Connection, name: str) -> None:
    """Say that the job `name` ended now."""
    _add(tx, name)
    tx.execute(sa.update(leases).where(leases.c.name == name).values(done_at=clock.now(tx)))


def _add(tx: sa.Connection, name: str) -> None:
    tx.execute(
        engines_of(tx).insert(leases).on_conflict_do_nothing(index_elements=[leases.c.name]), {"name": name}
    )
