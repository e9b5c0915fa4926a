"""How each database is connected to, and how long it is waited for."""

import sqlite3
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from offload.errors import ConfigError

SQLITE_CLOCK = "offload_clock"
"""The SQL function of every SQLite connection that answers the time, so many seconds from now."""

SQLITE_OLDEST = (3, 35)
"""The first version whose UPDATE can be asked what it changed."""

BUSY_SECONDS = 10
"""How long a writer waits for another one before it gives up."""
IDLE_SECONDS = 5
"""How long a transaction may do nothing on PostgreSQL: a process that froze in one holds up no one longer."""

SILENCE_SECONDS = 20.0
"""How long one answer of PostgreSQL may take: past any lock's wait, and below the patience of clients."""


def sqlite_engine(url: sa.URL, *, connections: int) -> sa.Engine:
    """An engine whose transactions write from their first statement on."""
    engine = sa.create_engine(url, pool_size=connections, max_overflow=0, pool_timeout=BUSY_SECONDS)
    _prepare(engine, foreign_keys=True)
    return engine.execution_options(offload_begin="BEGIN IMMEDIATE")


def sqlite_migration_engine(url: sa.URL) -> sa.Engine:
    """The same without a pool, for transactions that change tables."""
    engine = sa.create_engine(url, poolclass=NullPool)
    # Rebuilding a table drops it, which with foreign keys on would delete what refers to it.
    _prepare(engine, foreign_keys=False)
    return engine.execution_options(offload_begin="BEGIN IMMEDIATE")


def postgresql_engine(url: sa.URL, *, connections: int) -> sa.Engine:
    """An engine whose every wait is bounded."""
    engine = sa.create_engine(
        _psycopg(url),
        pool_size=connections,
        max_overflow=0,
        pool_timeout=BUSY_SECONDS,
        pool_use_lifo=True,
    )
    _end_where_silent(engine)
    _bound_sessions(engine)
    return engine


def postgresql_listening_engine(url: sa.URL) -> sa.Engine:
    """An engine without a pool, whose wait for an answer is bounded, and that for notifications is not."""
    engine = sa.create_engine(_psycopg(url), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    _end_where_silent(engine)
    return engine


def postgresql_migration_engine(url: sa.URL) -> sa.Engine:
    """An engine without a pool, whose transactions may take their time."""
    return sa.create_engine(_psycopg(url), poolclass=NullPool)


def _prepare(engine: sa.Engine, *, foreign_keys: bool) -> None:
    if sqlite3.sqlite_version_info < SQLITE_OLDEST:
        oldest = ".".join(map(str, SQLITE_OLDEST))
        raise ConfigError(f"this Python brings SQLite {sqlite3.sqlite_version}; {oldest} or newer is needed")

    @sa.event.listens_for(engine, "connect")
    def connected(connection: Any, record: Any) -> None:  # noqa: ARG001 - the signature is SQLAlchemy's
        connection.isolation_level = None  # we say BEGIN, not the driver
        _write_ahead(connection)
        for pragma in (
            f"busy_timeout={BUSY_SECONDS * 1000}",
            "synchronous=FULL",  # acknowledged means durable; WAL's NORMAL can lose the last commits
            f"foreign_keys={'ON' if foreign_keys else 'OFF'}",
        ):
            connection.execute(f"PRAGMA {pragma}")
        connection.create_function(SQLITE_CLOCK, 1, _this_hosts_clock)

    @sa.event.listens_for(engine, "begin")
    def begun(connection: sa.Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options()["offload_begin"])


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Give a new file its log. SQLite's own waiting is not for this: who comes second is refused at once."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _this_hosts_clock(seconds: float) -> str:
    """As SQLAlchemy writes a datetime into SQLite."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%d %H:%M:%S.%f")


def _psycopg(url: sa.URL) -> sa.URL:
    defaults = {
        "connect_timeout": "5",
        "keepalives_idle": "15",
        "keepalives_interval": "5",
        "keepalives_count": "3",
        "tcp_user_timeout": "20000",
        "application_name": "offload",
        "target_session_attrs": "read-write",  # a hot standby reads, and refuses every write
    }
    given = dict(url.query)
    return url.set(drivername="postgresql+psycopg", query={**defaults, **given})


class _Impatient(psycopg.Connection[Any]):
    """A connection that ends where the server is silent.

    A server that is stopped, or whose disk hangs, keeps its TCP connections alive.
    """

    def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
        """As psycopg's, which is how it waits for every answer; its waits for notifications have an end."""
        bounded = self._bounded(gen) if options.get("timeout") is None else gen
        return super().wait(bounded, *args, **options)

    def _bounded(self, gen: Any) -> Any:
        until = time.monotonic() + SILENCE_SECONDS
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > until:
                    self.pgconn.finish()  # in the middle of an answer it is of no more use
                    raise psycopg.OperationalError(f"the database was silent for {SILENCE_SECONDS:.0f} s")
                wanted = gen.send(ready)
        except StopIteration as end:
            return end.value


def _end_where_silent(engine: sa.Engine) -> None:
    @sa.event.listens_for(engine, "do_connect")
    def connecting(dialect: Any, record: Any, args: Any, options: Any) -> Any:  # noqa: ARG001 - the signature is SQLAlchemy's
        return _Impatient.connect(*args, **options)


def _bound_sessions(engine: sa.Engine) -> None:
    @sa.event.listens_for(engine, "connect")
    def connected(connection: Any, record: Any) -> None:  # noqa: ARG001 - the signature is SQLAlchemy's
        connection.execute(
            # Times come back in the session's zone, in which the calendar's first and last have no name.
            "SET timezone = 'UTC'; "
            f"SET lock_timeout = '{BUSY_SECONDS}s'; "
            f"SET idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'"
        )
        connection.commit()
