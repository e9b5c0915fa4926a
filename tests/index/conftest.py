"""The index on SQLite and on PostgreSQL, and words to fill it with."""

import hashlib
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from offload.domain.artifact import Artifact, Location, NewArtifact
from offload.domain.run import Run, SeenRun
from offload.index import Index, migrate, runs
from offload.index.recording import record_all
from offload.index.schema import metadata

ENGINES = ("sqlite", "postgresql")
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the tables, to be copied."""
    path = tmp_path_factory.mktemp("index") / "migrated.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def migrated_postgres(postgres_url: str) -> str:
    """A PostgreSQL database with the tables, to be emptied."""
    url = create_database(postgres_url)
    migrate.upgrade(url)
    return url


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an index that has its tables and no rows, on each engine."""
    if request.param == "sqlite":
        path = tmp_path / "index.db"
        shutil.copy(request.getfixturevalue("migrated_file"), path)
        return f"sqlite:///{path}"
    url: str = request.getfixturevalue("migrated_postgres")
    engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"))
    with engine.begin() as tx:
        for table in reversed(metadata.sorted_tables):
            if table.name != "meta":
                tx.execute(sa.delete(table))
    engine.dispose()
    return url


@pytest.fixture
def index(url: str) -> Iterator[Index]:
    """An index without rows, on each engine."""
    index = Index.connect(url)
    yield index
    index.close()


@pytest.fixture(params=ENGINES)
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without tables, on each engine."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    return create_database(request.getfixturevalue("postgres_url"))


@pytest.fixture
def new_database(postgres_url: str) -> Callable[[], str]:
    """Makes PostgreSQL databases without tables, and gives their URLs."""
    return lambda: create_database(postgres_url)


@pytest.fixture
def given(index: Index) -> "Given":
    """Fills the index."""
    return Given(index)


class Given:
    """Puts runs and artifacts in, by the functions of the room."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self._numbers = itertools.count(1)

    def seen(self, name: str = "", **fields: Any) -> SeenRun:
        number = next(self._numbers)
        defaults: dict[str, Any] = {
            "uid": f"uid-{number:05}",
            "namespace": "agents",
            "name": name or f"run-{number}",
            "created_at": LONG_AGO + timedelta(seconds=number),
            "resource_version": str(number),
        }
        return SeenRun(**{**defaults, **fields})

    def run(self, name: str = "", **fields: Any) -> Run:
        with self.index.begin() as tx:
            return runs.observe(tx, self.seen(name, **fields))

    def new(self, run_uid: str, name: str, data: bytes = b"", **fields: Any) -> NewArtifact:
        artifact_id = fields.pop("id", None) or uuid4()
        defaults: dict[str, Any] = {
            "type": "log",
            "content_type": "text/plain",
            "size_bytes": len(data),
            "sha256": hashlib.sha256(data).digest(),
            "location": Location("bucket", f"offload/{artifact_id}/{name}"),
            "stored_since": datetime.now(UTC),
        }
        return NewArtifact(id=artifact_id, run_uid=run_uid, name=name, **{**defaults, **fields})

    def artifact(self, run_uid: str, name: str, data: bytes = b"", **fields: Any) -> Artifact:
        [artifact] = self.artifacts([self.new(run_uid, name, data, **fields)])
        return artifact

    def artifacts(self, batch: list[NewArtifact]) -> list[Artifact]:
        with self.index.begin() as tx:
            outcomes = record_all(tx, batch, grace=timedelta(hours=1), again=False)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
        return [outcome.artifact for outcome in outcomes]

    def get_run(self, uid: str) -> Run:
        with self.index.read() as tx:
            run = runs.get(tx, uid)
        assert run is not None
        return run


def create_database(server_url: str) -> str:
    """A new database on the server; its URL."""
    name = f"test_{UUID(bytes=os.urandom(16)).hex}"
    url = sa.make_url(server_url)
    engine = sa.create_engine(url.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return url.set(database=name).render_as_string(hide_password=False)
