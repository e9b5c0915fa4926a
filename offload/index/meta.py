"""What the index knows of itself."""

from uuid import UUID

import sqlalchemy as sa

from offload.index.schema import meta


def identity(tx: sa.Connection) -> UUID:
    """The index's id, made once by its first migration."""
    there: UUID = tx.execute(sa.select(meta.c.identity)).scalar_one()
    return there
