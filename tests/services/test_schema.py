"""The served schema as threads share it.

Cases: while one thread reads it anew, the others have the one last read at once; who needs the first one
waits for the thread that reads it, and reads it no second time; an API server that says nothing is waited
for by one thread alone; a read that is refused leaves the one last read.
"""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from offload.domain.projection import Caps
from offload.errors import ClusterUnavailableError, StatusRefusedError
from offload.services import schema
from offload.services.schema import ServedSchema

CRD = Path(__file__).parents[2] / "deploy" / "crd" / "agentruns.yaml"


class Cluster:
    """Serves the schema once it may."""

    def __init__(self) -> None:
        document = yaml.safe_load(CRD.read_text())
        version = document["spec"]["versions"][0]
        self._status = version["schema"]["openAPIV3Schema"]["properties"]["status"]
        self.may, self.asked = threading.Event(), 0

    def status_schema(self) -> Mapping[str, Any]:
        self.asked += 1
        self.may.wait(10)
        return self._status


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def served(cluster: Cluster) -> ServedSchema:
    return ServedSchema(cluster, caps=Caps(count=10, size_bytes=10_000))


def test_a_known_schema_is_there_while_it_is_read_anew(cluster: Cluster, served: ServedSchema) -> None:
    cluster.may.set()
    known = served.current()
    cluster.may.clear()
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(served.refresh)
        _eventually(lambda: cluster.asked == 2)
        served.refresh()
        assert served.current() is known
        assert not reading.done()
        cluster.may.set()


def test_a_refused_read_leaves_the_schema_last_read(
    cluster: Cluster, served: ServedSchema, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.may.set()
    known = served.current()

    def refuse() -> Mapping[str, Any]:
        raise StatusRefusedError("GET /openapi/v3: 406")

    monkeypatch.setattr(cluster, "status_schema", refuse)
    served.refresh()
    assert served.current() is known


def test_the_first_schema_is_read_once_for_all(cluster: Cluster, served: ServedSchema) -> None:
    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(served.current)
        _eventually(lambda: cluster.asked == 1)
        others = [pool.submit(served.current) for _ in range(4)]
        time.sleep(0.05)
        cluster.may.set()
        assert {id(one.result()) for one in [first, *others]} == {id(first.result())}
    assert cluster.asked == 1


def test_nobody_waits_long_for_another_s_question(
    cluster: Cluster, served: ServedSchema, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "FIRST_SECONDS", 0.05)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(served.refresh)
        _eventually(lambda: cluster.asked == 1)
        with pytest.raises(ClusterUnavailableError):
            served.current()
        cluster.may.set()


def _eventually(fact: Callable[[], bool]) -> None:
    until = time.monotonic() + 5
    while not fact():
        assert time.monotonic() < until, "it did not come true in time"
        time.sleep(0.005)
