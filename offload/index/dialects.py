"""What differs between SQLite and PostgreSQL, all of it but how they are connected to."""

import json
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from functools import cache
from typing import Any, Protocol
from uuid import UUID

import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from offload.index import connecting, globs
from offload.index.wakeups import CHANNEL, NOTIFY, LocalWakeups, NotifyWakeups, Wakeups

_DIRTIED = "offload_dirtied"
_MIGRATION_LOCK = 0x6F66666C6F6164  # "offload"

# Words compare and sort by code point on both, so that pages, globs and indices agree.
Words = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
Json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


class UtcDateTime(sa.TypeDecorator[datetime]):
    """An aware datetime, kept in UTC; SQLite's text of fixed width sorts in order of time."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002 - the signature is SQLAlchemy's
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("the index takes aware datetimes only")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002 - the signature is SQLAlchemy's
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def partial_index(
    name: str, *columns: sa.Column[Any], where: sa.ColumnElement[bool], unique: bool = False
) -> sa.Index:
    """An index over the rows for which `where` is true."""
    return sa.Index(name, *columns, unique=unique, sqlite_where=where, postgresql_where=where)


class Engines(Protocol):
    """One kind of database."""

    def engine(self, url: sa.URL, *, connections: int) -> sa.Engine:
        """The engine of a serving process, which opens at most `connections`."""
        ...

    def migration_engine(self, url: sa.URL) -> sa.Engine:
        """An engine without a pool whose transactions may change tables."""
        ...

    def reading(self, engine: sa.Engine) -> sa.Engine:
        """The same pool, for transactions that only read."""
        ...

    def single(self, engine: sa.Engine) -> sa.Engine:
        """The same pool, for transactions of one statement, which may write."""
        ...

    def writer_lock(self) -> AbstractContextManager[Any]:
        """Held by a thread of this process for as long as it writes."""
        ...

    def wakeups(self, engine: sa.Engine) -> Wakeups:
        """Where this process learns that runs became dirty."""
        ...

    def now(self, tx: sa.Connection) -> datetime:
        """The database's clock."""
        ...

    def lock_text(self, tx: sa.Connection, text: str) -> None:
        """Exclude other transactions that lock the same `text`, until this one ends."""
        ...

    def lock_migrations(self, tx: sa.Connection) -> None:
        """Exclude other migrations until this transaction ends."""
        ...

    def announce(self, tx: sa.Connection) -> None:
        """Wake who waits for dirty runs, when this transaction commits."""
        ...

    def announce_by(self, tx: sa.Connection, update: sa.Update, parameters: Mapping[str, Any]) -> None:
        """Execute `update`, always the same object, and announce: where it can be, at one round trip."""
        ...

    def words(self, width: int) -> sa.FromClause:
        """A table of so many of the columns `first`, `second` and `third`, to join with.

        One statement does for any number of its rows.
        """
        ...

    def words_given(self, rows: Sequence[Sequence[str]]) -> dict[str, Any]:
        """The parameters with which a statement that joins with `words` is executed."""
        ...

    def given(self, *columns: sa.Column[Any]) -> sa.FromClause:
        """A table of these columns of words and numbers, whose rows are a parameter: see `rows_given`."""
        ...

    def insert(self, table: sa.Table) -> Any:
        """An INSERT that has `on_conflict_do_nothing` and `on_conflict_do_update`."""
        ...

    def insert_all(self, tx: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert `rows`, which all name the same columns."""
        ...

    def matches(self, column: sa.ColumnElement[str], glob: globs.Glob) -> sa.ColumnElement[bool]:
        """Whether `column` matches `glob`, case-sensitive."""
        ...


def engines_for(url: sa.URL) -> Engines | None:
    """The kind of database that `url` names, None where it is not one of ours."""
    return _BY_NAME.get(url.get_backend_name())


def engines_of(tx: sa.Connection) -> Engines:
    """The kind of database that `tx` is open on."""
    return _BY_NAME[tx.dialect.name]


def announced(tx: sa.Connection) -> bool:
    """Whether `announce` was called in this transaction; asked once, at its end."""
    return not tx.invalidated and bool(tx.info.pop(_DIRTIED, False))  # no connection, no info


def is_refusal(error: sa.exc.SQLAlchemyError) -> bool:
    """Whether the database refused a value, as it would again: a mistake of who gave it, and no outage."""
    limit = isinstance(getattr(error, "orig", None), psycopg.errors.ProgramLimitExceeded)
    return limit or isinstance(error, sa.exc.DataError)


_COLUMNS = ("first", "second", "third")


@cache  # the same object for the same table: statements that join with it are cached by it
def _words(query: str, columns: tuple[str, ...]) -> sa.FromClause:
    return sa.text(query).columns(**dict.fromkeys(columns, Words)).subquery("words")


def rows_given(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The parameter of a statement that takes its rows from `given`."""
    return {"given": json.dumps(rows, default=_as_text, ensure_ascii=False)}


def _as_text(value: bytes | datetime | UUID) -> str:
    """As PostgreSQL reads it."""
    if isinstance(value, bytes):
        return rf"\x{value.hex()}"
    return value.isoformat() if isinstance(value, datetime) else str(value)


class Sqlite:
    """One file on one host, for one process that serves and one that controls."""

    def engine(self, url: sa.URL, *, connections: int) -> sa.Engine:
        return connecting.sqlite_engine(url, connections=connections)

    def migration_engine(self, url: sa.URL) -> sa.Engine:
        return connecting.sqlite_migration_engine(url)

    def reading(self, engine: sa.Engine) -> sa.Engine:
        return engine.execution_options(offload_begin="BEGIN")

    def single(self, engine: sa.Engine) -> sa.Engine:
        return engine

    def writer_lock(self) -> AbstractContextManager[Any]:
        # SQLite's own waiting is a sleep with back-off: threads of one process pass the turn by a lock.
        # Reentrant, so that a write inside a write is SQLite's error and not a silence for ever.
        return threading.RLock()

    def wakeups(self, engine: sa.Engine) -> Wakeups:  # noqa: ARG002 - PostgreSQL's needs it
        return LocalWakeups()

    def now(self, tx: sa.Connection) -> datetime:  # noqa: ARG002 - the database's clock is this host's
        return datetime.now(UTC)

    def lock_text(self, tx: sa.Connection, text: str) -> None:
        """Nothing to do: BEGIN IMMEDIATE has excluded every other writer."""

    def lock_migrations(self, tx: sa.Connection) -> None:
        """Nothing to do, as above."""

    def announce(self, tx: sa.Connection) -> None:
        tx.info[_DIRTIED] = True

    def announce_by(self, tx: sa.Connection, update: sa.Update, parameters: Mapping[str, Any]) -> None:
        tx.execute(update, parameters)
        self.announce(tx)

    def words(self, width: int) -> sa.FromClause:
        columns = _COLUMNS[:width]
        fields = ", ".join(f"json_extract(value, '$[{place}]') AS {it}" for place, it in enumerate(columns))
        return _words(f"SELECT {fields} FROM json_each(:words)", columns)  # noqa: S608 - names of ours

    def words_given(self, rows: Sequence[Sequence[str]]) -> dict[str, Any]:
        return {"words": json.dumps(rows)}

    def given(self, *columns: sa.Column[Any]) -> sa.FromClause:
        return _extracted(columns)

    def insert(self, table: sa.Table) -> sqlite.Insert:
        return sqlite.insert(table)

    def insert_all(self, tx: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        tx.execute(sa.insert(table), rows)

    def matches(self, column: sa.ColumnElement[str], glob: globs.Glob) -> sa.ColumnElement[bool]:
        return column.op("GLOB", is_comparison=True)(globs.as_sqlite_glob(glob))


class PostgreSQL:
    """A server, for any number of processes; psycopg 3."""

    def engine(self, url: sa.URL, *, connections: int) -> sa.Engine:
        return connecting.postgresql_engine(url, connections=connections)

    def migration_engine(self, url: sa.URL) -> sa.Engine:
        return connecting.postgresql_migration_engine(url)

    def reading(self, engine: sa.Engine) -> sa.Engine:
        # Each statement sees what is committed when it starts, as in READ COMMITTED, at one round trip, not
        # three.
        return engine.execution_options(isolation_level="AUTOCOMMIT")

    def single(self, engine: sa.Engine) -> sa.Engine:
        return self.reading(engine)  # a statement by itself is its own transaction

    def writer_lock(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def wakeups(self, engine: sa.Engine) -> Wakeups:
        return NotifyWakeups(engine)

    def now(self, tx: sa.Connection) -> datetime:
        # Not now(): that is the transaction's start, which can be before the end of one it waited for.
        moment: datetime = tx.exec_driver_sql("SELECT clock_timestamp()").scalar_one()
        return moment.astimezone(UTC)

    def lock_text(self, tx: sa.Connection, text: str) -> None:
        tx.execute(_LOCK_TEXT, {"text": text})

    def lock_migrations(self, tx: sa.Connection) -> None:
        tx.execute(_LOCK_NUMBER, {"number": _MIGRATION_LOCK})

    def announce(self, tx: sa.Connection) -> None:
        if not tx.info.get(_DIRTIED):
            tx.info[_DIRTIED] = True
            tx.exec_driver_sql(NOTIFY)

    def announce_by(self, tx: sa.Connection, update: sa.Update, parameters: Mapping[str, Any]) -> None:
        tx.execute(_announcing(update), parameters)

    def words(self, width: int) -> sa.FromClause:
        columns = _COLUMNS[:width]
        arrays = ", ".join(f"CAST(:every_{column} AS text[])" for column in columns)
        query = f"SELECT * FROM unnest({arrays}) AS words({', '.join(columns)})"  # noqa: S608 - names of ours
        return _words(query, columns)

    def words_given(self, rows: Sequence[Sequence[str]]) -> dict[str, Any]:
        by_column = list(zip(*rows, strict=True)) or [()] * len(_COLUMNS)
        return {f"every_{it}": list(values) for it, values in zip(_COLUMNS, by_column, strict=False)}

    def given(self, *columns: sa.Column[Any]) -> sa.FromClause:
        return _recordset(columns)

    def insert(self, table: sa.Table) -> postgresql.Insert:
        return postgresql.insert(table)

    def insert_all(self, tx: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        # executemany sends a statement for each (docs/decisions/0024-a-batch-by-few-statements.md).
        tx.execute(_insert_recordset(table, tuple(rows[0])), rows_given(rows))

    def matches(self, column: sa.ColumnElement[str], glob: globs.Glob) -> sa.ColumnElement[bool]:
        return column.op("~", is_comparison=True)(globs.as_regex(glob))


_BY_NAME: Mapping[str, Engines] = {"sqlite": Sqlite(), "postgresql": PostgreSQL(), "postgres": PostgreSQL()}

_GIVEN = sa.bindparam("given", type_=sa.Text)


# Below, each the same object for the same columns, so that statements are cached by it.


@cache
def _extracted(columns: tuple[sa.Column[Any], ...]) -> sa.FromClause:
    rows = sa.func.json_each(_GIVEN).table_valued("value")
    fields = (sa.func.json_extract(rows.c.value, f"$.{it.name}", type_=it.type) for it in columns)
    return sa.select(*(field.label(it.name) for field, it in zip(fields, columns, strict=True))).subquery(
        "given"
    )


@cache
def _recordset(columns: tuple[sa.Column[Any], ...]) -> sa.FromClause:
    rows = sa.func.json_to_recordset(sa.cast(_GIVEN, postgresql.JSON))
    fields = (sa.column(it.name, it.type) for it in columns)
    return rows.table_valued(*fields).render_derived(name="given", with_types=True)


@cache
def _insert_recordset(table: sa.Table, names: tuple[str, ...]) -> sa.Insert:
    given = _recordset(tuple(table.c[name] for name in names))
    return sa.insert(table).from_select(names, sa.select(given))


@cache
def _announcing(update: sa.Update) -> sa.Executable:
    # Once a row, of which PostgreSQL keeps one a transaction.
    return update.returning(sa.func.pg_notify(CHANNEL, ""))


_LOCK_TEXT = sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:text, 0))")
_LOCK_NUMBER = sa.text("SELECT pg_advisory_xact_lock(:number)")
