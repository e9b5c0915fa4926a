"""A connection to the index, and its transactions."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import sqlalchemy as sa
from sqlalchemy import exc

from offload import metrics
from offload.errors import ConfigError, IndexUnavailableError
from offload.index.dialects import Engines, announced, engines_for, is_refusal

Transaction = sa.Connection
"""What the index's functions take; services name it without knowing SQLAlchemy."""


class Index:
    """The index of one process; threads share it."""

    def __init__(self, engines: Engines, engine: sa.Engine) -> None:
        """Use `Index.connect`."""
        self._engine = engine
        self._reading, self._single = engines.reading(engine), engines.single(engine)
        self._writer_lock = engines.writer_lock()
        self._wakeups = engines.wakeups(engine)

    @classmethod
    def connect(cls, url: str, *, connections: int = 10) -> Self:
        """Open the index that `url` names, with at most `connections` beside the one that listens.

        Takes `sqlite:///PATH` and `postgresql://…`; `migrate.upgrade` makes the tables. Nothing is connected
        yet: an index that is away is found out by its first use.

        Raises:
            ConfigError: `url` names another kind of database, or none.
        """
        parsed = parse_url(url)
        engines = engines_of_url(parsed)
        return cls(engines, engines.engine(parsed, connections=connections))

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """A transaction that writes: committed at the end, rolled back by an exception.

        Raises:
            IndexUnavailableError: the database failed; what it said is the cause. Whether a commit whose
                reply was lost took place is not known.
        """
        with translated(), metrics.INDEX_SECONDS.labels("write").time(), self._writer_lock:
            with self._engine.begin() as tx:
                try:
                    yield tx
                finally:
                    dirtied = announced(tx)
            if dirtied:
                self._wakeups.wake()

    @contextmanager
    def begin_single(self) -> Iterator[sa.Connection]:
        """A transaction of one statement that makes no run dirty: where it can be, at one round trip.

        Raises as `begin` does.
        """
        seconds = metrics.INDEX_SECONDS.labels("write")
        with translated(), seconds.time(), self._writer_lock, self._single.begin() as tx:
            yield tx

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """For statements that only read. Each may see more than the one before. Raises as `begin` does."""
        with translated(), metrics.INDEX_SECONDS.labels("read").time(), self._reading.connect() as tx:
            yield tx

    def wait_for_dirty(self, timeout: float) -> None:
        """Return when runs may have become dirty, at the latest after `timeout` seconds.

        A commit of this process, or on PostgreSQL of any, ends it early; it may also end for no reason. It
        never raises: where it cannot listen it is a timed wait.
        """
        self._wakeups.wait(timeout)

    def close(self) -> None:
        """End all connections."""
        self._wakeups.close()
        self._engine.dispose()


def parse_url(url: str) -> sa.URL:
    """Read a database URL; its password is in no message."""
    try:
        parsed = sa.make_url(url)
    except exc.ArgumentError as error:
        raise ConfigError("the database URL is not sqlite:///PATH or postgresql://…") from error
    except ValueError:  # it has the port's text, which can be part of the password
        raise ConfigError(
            "the database URL's port is no number; several hosts are written ?host=ONE:5432&host=TWO:5432"
        ) from None
    if "@" in (parsed.host or ""):  # it begins with the password's end, which the driver would tell
        raise ConfigError("in the database URL, `@` in the user's name or the password is written %40")
    return parsed


def engines_of_url(url: sa.URL) -> Engines:
    """The kind of database, or `ConfigError`."""
    engines = engines_for(url)
    if engines is None:
        raise ConfigError(
            f"the database URL is not sqlite:///PATH or postgresql://…; got {url.drivername}://…"
        )
    return engines


@contextmanager
def translated() -> Iterator[None]:
    """Let failures of the database leave as `IndexUnavailableError`; that it refused a value is none."""
    try:
        yield
    except (exc.DBAPIError, exc.TimeoutError) as error:
        if is_refusal(error):
            raise
        raise IndexUnavailableError(_told_by(error)) from error


def _told_by(error: exc.SQLAlchemyError) -> str | None:
    """With the first line of what the driver said: SQLAlchemy's own has the statement and its values."""
    lines = str(getattr(error, "orig", error)).strip().splitlines()
    return f"{IndexUnavailableError.sentence().rstrip('.')}: {lines[0]}" if lines else None
