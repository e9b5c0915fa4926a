"""The controller's loops together, on SQLite and the AgentRun stand-in.

- a burst of uploads is a handful of patches; stopping is quick and leaves no thread
- an outage costs few requests and ends by itself; one namespace's outage is paced apart;
  a failed claim of its runs keeps no others
- a slow publish is not claimed again, nor begun again where a busy index let its claim end
- urgent runs hold up others for a while only
- an unusable schema is told, and publishing starts once it is mended
- a controller that rewrites status is answered at most once a second, and status is ours soon after
- runs of namespaces that are not watched are neither claimed nor counted as waiting
- how old the watch is is told also where nothing is published
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from offload import metrics
from offload.cluster.interface import AgentRun
from offload.cluster.standin.server import StandIn
from offload.controller import Controller, dispatch
from offload.controller import controller as controller_module
from offload.controller.dispatch import Dispatcher
from offload.controller.loops import Loop
from offload.domain.projection import Caps
from offload.domain.run import Run
from offload.errors import ClusterUnavailableError, IndexUnavailableError
from offload.index import publishing, runs
from offload.services.follow import Follower
from offload.services.publish import Outcome
from offload.services.schema import ServedSchema
from tests.publishing import HOLDER, Room, eventually, publishing_room


@pytest.fixture(scope="module")
def standin() -> Iterator[StandIn]:
    with StandIn(bookmark_seconds=0.2).running() as standin:
        yield standin


@pytest.fixture
def room(standin: StandIn, tmp_path: Path) -> Iterator[Room]:
    with publishing_room(standin, tmp_path) as room:
        yield room


class Faulty:
    """The real cluster, counted, and away while told to be."""

    def __init__(self, room: Room) -> None:
        self._real = room.cluster
        self.away = threading.Event()
        self.calls: list[tuple[str, float]] = []
        self.schema: Mapping[str, Any] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def get(self, namespace: str, name: str) -> AgentRun:
        self._count("get")
        return self._real.get(namespace, name)

    def patch_status(self, run: AgentRun, patch: Mapping[str, Any]) -> AgentRun:
        self._count("patch")
        return self._real.patch_status(run, patch)

    def status_schema(self) -> Mapping[str, Any]:
        return self.schema or self._real.status_schema()

    def count(self, name: str) -> int:
        return sum(1 for call, _ in self.calls if call == name)

    def _count(self, name: str) -> None:
        self.calls.append((name, time.monotonic()))
        if self.away.is_set():
            raise ClusterUnavailableError("away", retry_after=0.2)


@contextmanager
def controlling(room: Room, cluster: Any, **values: Any) -> Iterator[Controller]:
    schema = ServedSchema(cluster, caps=Caps())
    room.schema = schema
    publisher = room.publisher(cluster=cluster, between=timedelta(seconds=1), **values)
    follower = Follower(room.index, cluster, room.echoes, schema, publisher=publisher)
    controller = Controller(room.index, schema, follower, publisher, holder=HOLDER, workers=4)
    controller.start()
    try:
        yield controller
    finally:
        assert controller.stop()


def test_a_burst_of_uploads_is_a_handful_of_patches(room: Room) -> None:
    cluster = Faulty(room)
    runs = [room.create() for _ in range(4)]
    with controlling(room, cluster) as controller:
        began = time.monotonic()
        for n in range(60):
            for run in runs:
                room.upload(run, f"log-{n}")
        newest = [f"log-{n}" for n in range(10, 60)]
        for run in runs:
            eventually(lambda run=run: room.names(run) == newest)  # type: ignore[misc]
        seconds = time.monotonic() - began
        assert cluster.count("patch") <= len(runs) * (seconds + 2)
        eventually(lambda: controller.ready() == [])
        eventually(lambda: all(room.run(run).dirty_since is None for run in runs))
        assert not [event for run in runs for event in room.events(run)[1:]]


def test_stopping_is_quick_and_leaves_no_thread(room: Room) -> None:
    before = set(threading.enumerate())
    with controlling(room, Faulty(room)):
        room.upload(room.create(), "log")
        began = time.monotonic()
    assert time.monotonic() - began < 5
    eventually(lambda: not [t for t in set(threading.enumerate()) - before if "standin" not in t.name])


def test_an_outage_costs_few_requests_and_ends_by_itself(room: Room) -> None:
    cluster = Faulty(room)
    runs = [room.create() for _ in range(20)]
    with controlling(room, cluster) as controller:
        eventually(lambda: controller.ready() == [])
        cluster.away.set()
        for run in runs:
            room.upload(run, "log")
        eventually(lambda: len(cluster.calls) > 0)
        began = time.monotonic()
        while time.monotonic() - began < 3:
            time.sleep(0.1)
        assert len(cluster.calls) < 30
        cluster.away.clear()
        eventually(lambda: all(room.names(run) == ["log"] for run in runs))


class Scripted:
    """In place of a publisher: tells which runs it was given, and how it went as `script` says."""

    def __init__(self, room: Room, script: Callable[[Run], Outcome]) -> None:
        self.given: list[Run] = []
        self._room, self._script = room, script

    def publish(self, run: Run) -> Outcome:
        self.given.append(run)
        outcome = self._script(run)
        with self._room.index.begin() as tx:
            if outcome is Outcome.UNAVAILABLE:
                publishing.failed(
                    tx, run.uid, holder=HOLDER, error="away", retry_in=timedelta(0), counts=False
                )
            else:
                publishing.published(
                    tx, run.uid, holder=HOLDER, revision=run.revision, listed_count=1, not_before=timedelta(0)
                )
        return outcome


@contextmanager
def dispatching(room: Room, script: Callable[[Run], Outcome], *, workers: int) -> Iterator[Scripted]:
    publisher = Scripted(room, script)
    room.schema.refresh()
    dispatcher = Dispatcher(room.index, publisher, room.schema, holder=HOLDER, workers=workers, namespaces=[])
    loop = Loop("publish", dispatcher.run)
    loop.start()
    try:
        yield publisher
    finally:
        loop.ask_to_stop()
        assert loop.join(5)


def test_urgent_runs_hold_up_others_for_a_while_only(room: Room) -> None:
    calm = room.create()
    room.upload(calm, "first")
    room.publish(calm)
    room.upload(calm, "second")
    for _ in range(20):
        room.upload(room.create(), "log")
    with dispatching(room, lambda _: Outcome.WRITTEN, workers=1) as publisher:
        eventually(lambda: len(publisher.given) == 21)
    order = [run.uid for run in publisher.given]
    assert 0 < order.index(calm.seen.uid) <= 4


def test_a_slow_publish_is_not_claimed_again(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "LEASE", timedelta(seconds=0.6))
    monkeypatch.setattr(dispatch, "RENEW_SECONDS", 0.2)
    room.upload(room.create(), "log")
    go_on = threading.Event()

    def hang(_: Run) -> Outcome:
        assert go_on.wait(10)
        return Outcome.WRITTEN

    with dispatching(room, hang, workers=4) as publisher:
        eventually(lambda: len(publisher.given) == 1)
        time.sleep(1.5)
        given = len(publisher.given)
        go_on.set()
    assert given == 1


def test_a_publish_whose_claim_ended_while_the_index_was_busy_is_not_begun_again(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "LEASE", timedelta(seconds=0.5))
    monkeypatch.setattr(dispatch, "RENEW_SECONDS", 0.3)
    monkeypatch.setattr(dispatch, "LOOK_SECONDS", 0.02)
    claim, claimed = publishing.claim, []

    def noting(tx: Any, **asked: Any) -> list[Run]:
        found = claim(tx, **asked)
        claimed.extend(found)
        return found

    monkeypatch.setattr(publishing, "claim", noting)
    room.upload(room.create(), "log")
    go_on = threading.Event()

    def hang(_: Run) -> Outcome:
        assert go_on.wait(20)
        return Outcome.WRITTEN

    def busy() -> bool:
        with room.index.begin():
            time.sleep(0.7)
        time.sleep(0.1)
        return len(claimed) > 1

    with dispatching(room, hang, workers=4) as publisher:
        eventually(lambda: len(publisher.given) == 1)
        eventually(busy)
        given = len(publisher.given)
        go_on.set()
    assert given == 1


def test_one_namespaces_outage_is_paced_apart(room: Room) -> None:
    struck = [room.create() for _ in range(12)]
    well = replace(room.create(observe=False).seen, namespace="well", uid="well", name="well")
    with room.index.begin() as tx:
        runs.observe(tx, well)
    other = AgentRun(well, "1", {})
    for run in struck:
        room.upload(run, "log")

    def fail_there(run: Run) -> Outcome:
        return Outcome.WRITTEN if run.namespace == "well" else Outcome.UNAVAILABLE

    with dispatching(room, fail_there, workers=4) as publisher:
        eventually(lambda: len(publisher.given) > 4)
        for number in range(3):
            room.upload(other, f"log-{number}")
            eventually(lambda: room.run(other).dirty_since is None, seconds=6)
        tried = [run.uid for run in publisher.given if run.namespace != "well"]
    assert len(tried) < 20


def test_publishing_starts_by_itself_once_the_schema_is_mended(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller_module, "SCHEMA_SECONDS_IN_DOUBT", 0.2)
    cluster = Faulty(room)
    cluster.schema = {"type": "object", "properties": {"phase": {"type": "string"}}}
    run = room.create()
    room.upload(run, "log")
    with controlling(room, cluster) as controller:
        eventually(lambda: "the served AgentRun schema has no status.artifacts" in controller.ready())
        assert cluster.count("patch") == 0
        cluster.schema = None
        eventually(lambda: room.names(run) == ["log"])
        eventually(lambda: controller.ready() == [])


def test_a_controller_that_rewrites_status_is_never_fought_in_a_hot_loop(room: Room) -> None:
    cluster = Faulty(room)
    run = room.create()
    with controlling(room, cluster):
        room.upload(run, "log")
        eventually(lambda: room.names(run) == ["log"])
        before = cluster.count("patch")
        began = time.monotonic()
        theirs = 0
        while time.monotonic() - began < 5:
            room.write(run.seen.name, {"artifacts": [], "message": str(theirs)})
            theirs += 1
            time.sleep(0.1)
        ours = cluster.count("patch") - before
        eventually(lambda: room.names(run) == ["log"], seconds=5)
        assert ours <= 5
        assert ours < theirs
        assert room.status(run)["message"] == str(theirs - 1)


def test_a_loop_that_fails_is_started_again_and_told() -> None:
    failures = iter([RuntimeError("once"), None])
    running = threading.Event()

    def body(stop: threading.Event) -> None:
        if error := next(failures):
            raise error
        running.set()
        stop.wait()

    loop = Loop("test", body)
    loop.start()
    assert running.wait(5)
    assert loop.problem == "test: once"
    loop.ask_to_stop()
    assert loop.join(5)


def test_a_failed_claim_of_suspects_keeps_no_other_run(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    run = room.create()
    room.upload(run, "log")
    claim = publishing.claim

    def failing(tx: Any, *, order: publishing.Order, **more: Any) -> list[Run]:
        if order == "turn":
            raise IndexUnavailableError
        return claim(tx, order=order, **more)

    cluster = Faulty(room)
    schema = ServedSchema(cluster, caps=Caps())
    publisher = room.publisher(cluster=cluster)
    dispatcher = Dispatcher(room.index, publisher, schema, holder=HOLDER, workers=4, namespaces=())
    dispatcher._suspects.add("elsewhere")
    monkeypatch.setattr(publishing, "claim", failing)
    with pytest.raises(IndexUnavailableError):
        dispatcher._claim([])
    with room.index.begin() as tx:
        [claimed] = claim(tx, holder="another", limit=4, lease=timedelta(seconds=4))
    assert claimed.uid == run.seen.uid


def test_a_run_of_a_namespace_that_is_not_watched_does_not_wait(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = room.create()
    room.upload(run, "log")
    claims, looks = [], []
    monkeypatch.setattr(publishing, "claim", lambda *_, **given: claims.append(given) or [])
    monkeypatch.setattr(metrics.OLDEST_DIRTY, "set", looks.append)
    publisher = room.publisher()
    dispatcher = Dispatcher(
        room.index, publisher, room.schema, holder=HOLDER, workers=4, namespaces=["elsewhere"]
    )
    loop = Loop("publish", dispatcher.run)
    loop.start()
    eventually(lambda: len(looks) > 1)
    loop.ask_to_stop()
    assert loop.join(5)
    assert set(looks) == {0}
    assert claims == []
    assert room.run(run).dirty_since is not None


def test_how_old_the_watch_is_is_told_where_nothing_is_published(room: Room) -> None:
    class Heard:
        seconds = 0.0

        def run(self, stop: threading.Event) -> None:
            stop.wait()

        def age(self) -> float:
            return self.seconds

    follower: Any = Heard()
    controller = Controller(room.index, room.schema, follower, None, holder=HOLDER)
    controller.start()
    for follower.seconds in (3.0, 200.0):
        assert REGISTRY.get_sample_value("offload_watch_age_seconds") == follower.seconds
    assert controller.stop()


def test_what_the_database_said_is_not_told_to_a_probe() -> None:
    def body(_stop: threading.Event) -> None:
        raise IndexUnavailableError("connection to server at db.internal failed")

    loop = Loop("test", body)
    loop.start()
    eventually(lambda: loop.problem == "test: The retention index is out of reach.")
    loop.ask_to_stop()
    assert loop.join(5)
