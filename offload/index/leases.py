"""Jobs that one process at a time does, and periodic ones that are due."""

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from offload.index import clock
from offload.index.dialects import engines_of
from offload.index.schema import leases


def acquire(tx: sa.Connection, name: str, *, holder: str, lease: timedelta) -> bool:
    """Take or renew the lease `name`; False while another holder's is alive."""
    until = clock.moment(sa.literal(lease.total_seconds()))
    free = leases.c.holder.is_(None) | (leases.c.holder == holder) | (leases.c.held_until <= clock.NOW)
    return _put(tx, name, free, holder=holder, held_until=until)


def release(tx: sa.Connection, name: str, *, holder: str) -> None:
    """Give the lease back, if it is still this holder's."""
    mine = sa.update(leases).where(leases.c.name == name, leases.c.holder == holder)
    tx.execute(mine.values(holder=None, held_until=None))


def due(tx: sa.Connection, name: str, *, every: timedelta) -> bool:
    """Whether the job `name` was never done, or last at least `every` ago."""
    return due_in(tx, name, every=every) <= timedelta(0)


def due_in(tx: sa.Connection, name: str, *, every: timedelta) -> timedelta:
    """How long until the job `name` is due; not above zero where it is."""
    asked = sa.select(leases.c.done_at, clock.NOW).where(leases.c.name == name)
    last, now = tx.execute(asked).one_or_none() or (None, None)
    return timedelta(0) if last is None else last + every - now


def done(tx: sa.Connection, name: str) -> None:
    """Say that the job `name` ended now."""
    _put(tx, name, sa.true(), done_at=clock.NOW)


def keep_up(tx: sa.Connection, name: str, *, lapse: timedelta) -> None:
    """Say that `name` goes on; it begins now where that was not said for `lapse`."""
    until = clock.moment(sa.literal(lapse.total_seconds()))
    begun = sa.case((leases.c.held_until > clock.NOW, leases.c.done_at), else_=clock.NOW)
    insert = engines_of(tx).insert(leases).values(name=name, done_at=clock.NOW, held_until=until)
    goes_on = {"done_at": begun, "held_until": until}
    tx.execute(insert.on_conflict_do_update(index_elements=[leases.c.name], set_=goes_on))


def kept_up_since(tx: sa.Connection, name: str) -> datetime | None:
    """Since when `name` has gone on; None where it does not."""
    goes_on = (leases.c.name == name) & (leases.c.held_until > clock.NOW)
    return tx.execute(sa.select(leases.c.done_at).where(goes_on)).scalar_one_or_none()


def _put(tx: sa.Connection, name: str, where: sa.ColumnElement[bool], **values: Any) -> bool:
    """Write `values` into the row `name`, which is made where there is none; whether `where` let it."""
    insert = engines_of(tx).insert(leases).values(name=name, **values)
    put = insert.on_conflict_do_update(index_elements=[leases.c.name], set_=values, where=where)
    return tx.execute(put.returning(leases.c.name)).one_or_none() is not None
