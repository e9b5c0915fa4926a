"""The AgentRun stand-in, where runs on it are published, and where a sweep happens."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from offload.cluster.standin.server import StandIn
from offload.index import Index, migrate
from tests.publishing import Room, migrated_index, publishing_room
from tests.services.sweep_world import World


@pytest.fixture(scope="module")
def standin() -> Iterator[StandIn]:
    with StandIn().running() as standin:
        yield standin


@pytest.fixture
def room(standin: StandIn, tmp_path: Path) -> Iterator[Room]:
    with publishing_room(standin, tmp_path) as room:
        yield room


@pytest.fixture(scope="session")
def sweep_postgres(postgres_url: str) -> str:
    """A server whose database `template_offload` has the tables."""
    _create_database(postgres_url, "template_offload", "template1")
    migrate.upgrade(postgres_url.rpartition("/")[0] + "/template_offload")
    return postgres_url


@pytest.fixture(params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    if request.param == "sqlite":
        url = migrated_index(tmp_path)
    else:
        server = request.getfixturevalue("sweep_postgres")
        name = f"sweep_{uuid4().hex}"
        _create_database(server, name, "template_offload")
        url = server.rpartition("/")[0] + "/" + name
    index = Index.connect(url)
    yield World(index)
    index.close()


def _create_database(server: str, name: str, template: str) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
