"""The AgentRun stand-in, and where runs on it are published."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from offload.cluster.standin.server import StandIn
from tests.publishing import Room, publishing_room


@pytest.fixture(scope="module")
def standin() -> Iterator[StandIn]:
    with StandIn().running() as standin:
        yield standin


@pytest.fixture
def room(standin: StandIn, tmp_path: Path) -> Iterator[Room]:
    with publishing_room(standin, tmp_path) as room:
        yield room
