"""The database's clock, which every process shares."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from offload.index.connecting import SQLITE_CLOCK
from offload.index.dialects import UtcDateTime, engines_of


def now(tx: sa.Connection) -> datetime:
    """The time now. It can go on within a transaction."""
    return engines_of(tx).now(tx)


class moment(FunctionElement[datetime]):  # noqa: N801 - reads as the SQL function that it is
    """The time at which a statement is executed, and so many seconds more: `now` without its round trip."""

    inherit_cache = True
    type = UtcDateTime()

    def __init__(self, seconds: sa.ColumnElement[float]) -> None:
        super().__init__(seconds)


NOW = moment(sa.literal(0.0))


@compiles(moment, "postgresql")
def _of_postgresql(element: moment, compiler: Any, **options: Any) -> str:
    return f"clock_timestamp() + {compiler.process(element.clauses, **options)} * interval '1 second'"


@compiles(moment, "sqlite")
def _of_sqlite(element: moment, compiler: Any, **options: Any) -> str:
    return f"{SQLITE_CLOCK}({compiler.process(element.clauses, **options)})"
