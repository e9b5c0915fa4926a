"""Where a process learns that runs became dirty."""

import threading
from typing import Any, Protocol

import psycopg
import sqlalchemy as sa

from offload.index.connecting import postgresql_listening_engine

CHANNEL = "offload_dirty"
"""PostgreSQL's NOTIFY channel on which a commit that makes runs dirty is announced."""

NOTIFY = f"NOTIFY {CHANNEL}"

POLL_SECONDS = 0.2
"""How long a wait for dirty runs may last where a wake-up can be missed."""


class Wakeups(Protocol):
    """Where a process waits until runs may have become dirty."""

    def wait(self, timeout: float) -> None:
        """Return at a wake-up, or after `timeout` seconds; early returns are allowed, errors are not.

        Where a commit can pass without a wake-up, it returns within `POLL_SECONDS`.
        """
        ...

    def wake(self) -> None:
        """Called after a commit of this process that announced something."""
        ...

    def close(self) -> None: ...


class LocalWakeups:
    """Of this process; another one that shares the file is noticed by looking."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def wait(self, timeout: float) -> None:
        self._event.wait(min(timeout, POLL_SECONDS))
        self._event.clear()

    def wake(self) -> None:
        self._event.set()

    def close(self) -> None:
        self._event.set()


class NotifyWakeups:
    """Listens on a connection of its own; where that fails it is a plain timed wait until the next try.

    Behind a pooler that shares connections, listening succeeds and nothing is ever heard: it is trusted once
    something was.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = postgresql_listening_engine(engine.url)
        self._listening: sa.Connection | None = None
        self._heard = False
        self._turn = threading.Lock()
        self._closed = threading.Event()

    def wait(self, timeout: float) -> None:
        with self._turn:
            try:
                if self._listening is None:
                    self._listening = self._listen()
                    return  # what was announced before must not be slept over
                driver: Any = self._listening.connection.driver_connection
                most = timeout if self._heard else min(timeout, POLL_SECONDS)
                for _ in driver.notifies(timeout=most, stop_after=1):
                    self._heard = True
            except (sa.exc.DBAPIError, psycopg.Error):
                self._forget()
                self._closed.wait(min(timeout, POLL_SECONDS))

    def wake(self) -> None:
        """Nothing to do: NOTIFY reaches this process too."""

    def close(self) -> None:
        self._closed.set()
        with self._turn:
            self._forget()
            self._engine.dispose()

    def _listen(self) -> sa.Connection:
        connection = self._engine.connect()
        try:
            connection.exec_driver_sql(f"LISTEN {CHANNEL}")
            with self._engine.connect() as another:
                another.exec_driver_sql(NOTIFY)
        except sa.exc.DBAPIError:
            connection.close()
            raise
        return connection

    def _forget(self) -> None:
        self._heard = False
        if self._listening is not None:
            self._listening.invalidate()
            self._listening.close()
            self._listening = None
