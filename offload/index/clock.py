"""The database's clock, which every process shares."""

from datetime import datetime

import sqlalchemy as sa

from offload.index.dialects import engines_of


def now(tx: sa.Connection) -> datetime:
    """The time now. It can go on within a transaction."""
    return engines_of(tx).now(tx)
