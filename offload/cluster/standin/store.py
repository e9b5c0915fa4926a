"""Objects, their one counter, and the log that watches read. Used from one thread only."""

import asyncio
import json
import sqlite3
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from offload.errors import ConfigError

Object = dict[str, Any]


class Key(NamedTuple):
    """Where an object is; `namespace` is empty for a cluster-scoped one."""

    resource: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Change:
    """One write: `before` is None for a creation, `after` for a deletion."""

    revision: int
    key: Key
    before: Object | None
    after: Object | None


class TooOldError(Exception):
    """The log no longer reaches back to the revision."""


class Store:
    """Objects are never changed in place: each write puts a new one."""

    def __init__(self, data: Path | None = None, *, log_length: int = 1000) -> None:
        """Keep objects in memory, and in `data` where given (one process at a time).

        A store that starts empty counts from the time of day, so that a client of an earlier one is told
        that its revision is too old instead of waiting for it in vain.
        """
        self._objects: dict[Key, Object] = {}
        self._log: deque[Change] = deque(maxlen=log_length)
        self._changed = asyncio.Event()
        self._file = _open(data) if data else None
        self.revision = int(time.time())
        self.closed = False
        if self._file:
            for resource, namespace, name, body in self._file.execute("SELECT * FROM objects"):
                self._objects[Key(resource, namespace, name)] = json.loads(body)
            row = self._file.execute("SELECT value FROM revision").fetchone()
            self.revision = row[0] if row else self.revision
        self._oldest = self.revision

    def get(self, key: Key) -> Object | None:
        return self._objects.get(key)

    def put(self, key: Key, body: Object) -> Object:
        """Store `body` with the next resourceVersion, and answer it."""
        revision = self.revision + 1
        stored = {**body, "metadata": {**body["metadata"], "resourceVersion": str(revision)}}
        self._write(Change(revision, key, self._objects.get(key), stored))
        return stored

    def remove(self, key: Key) -> None:
        self._write(Change(self.revision + 1, key, self._objects[key], None))

    def snapshot(
        self, resource: str, namespace: str = "", revision: int | None = None
    ) -> list[tuple[Key, Object]]:
        """Objects in key order, as they were at `revision` (None: now). Raises `TooOldError`."""
        objects = self._objects if revision in (None, self.revision) else self._at(revision or 0)
        return sorted(
            (
                (key, body)
                for key, body in objects.items()
                if key.resource == resource and namespace in ("", key.namespace)
            ),
            key=lambda entry: entry[0],
        )

    def since(self, revision: int) -> list[Change]:
        """Writes after `revision`, oldest first. Raises `TooOldError`."""
        if revision < self._oldest:
            raise TooOldError
        newer = []
        for change in reversed(self._log):
            if change.revision <= revision:
                break
            newer.append(change)
        return newer[::-1]

    async def wait(self, seconds: float) -> None:
        """Return after the next write, on `close`, or after some seconds."""
        changed = self._changed
        if not self.closed:
            try:
                await asyncio.wait_for(changed.wait(), seconds)
            except TimeoutError:
                return

    def close(self) -> None:
        self.closed = True
        self._changed.set()
        if self._file:
            self._file.close()
            self._file = None

    def _at(self, revision: int) -> dict[Key, Object]:
        objects = dict(self._objects)
        for change in reversed(self.since(revision)):
            if change.before is None:
                del objects[change.key]
            else:
                objects[change.key] = change.before
        return objects

    def _write(self, change: Change) -> None:
        if self._file:
            _save(self._file, change)
        self.revision = change.revision
        if change.after is None:
            del self._objects[change.key]
        else:
            self._objects[change.key] = change.after
        if len(self._log) == self._log.maxlen:
            self._oldest = self._log[0].revision
        self._log.append(change)
        self._changed.set()
        self._changed = asyncio.Event()


def _open(data: Path) -> sqlite3.Connection:
    try:
        data.mkdir(parents=True, exist_ok=True)
        file = sqlite3.connect(
            data / "standin.sqlite", isolation_level=None, check_same_thread=False, timeout=0
        )
        # The lock is held until the file is closed: a second stand-in on the same folder must not start.
        _run(file, ("PRAGMA locking_mode=EXCLUSIVE", "PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL"))
        _run(file, ("BEGIN IMMEDIATE", _OBJECTS, _REVISION, "COMMIT"))
    except (OSError, sqlite3.Error) as error:
        raise ConfigError(f"the stand-in cannot keep its objects in {data}: {error}") from error
    return file


_OBJECTS = """CREATE TABLE IF NOT EXISTS objects (resource TEXT, namespace TEXT, name TEXT,
    body TEXT NOT NULL, PRIMARY KEY (resource, namespace, name))"""
_REVISION = (
    "CREATE TABLE IF NOT EXISTS revision (id INTEGER PRIMARY KEY CHECK (id = 1), value INTEGER NOT NULL)"
)


def _save(file: sqlite3.Connection, change: Change) -> None:
    with file:
        file.execute("BEGIN IMMEDIATE")
        if change.after is None:
            file.execute("DELETE FROM objects WHERE resource = ? AND namespace = ? AND name = ?", change.key)
        else:
            file.execute("REPLACE INTO objects VALUES (?, ?, ?, ?)", (*change.key, json.dumps(change.after)))
        file.execute("REPLACE INTO revision VALUES (1, ?)", (change.revision,))


def _run(file: sqlite3.Connection, statements: Iterable[str]) -> None:
    for statement in statements:
        file.execute(statement)
