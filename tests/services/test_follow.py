"""Following the watch into the index, on the AgentRun stand-in.

Cases: runs, phases and deletions; runs gone while nobody watched; a run created again; freshness; our own
writes are no news; what others change is looked at again, ever later while they go on; an index that is away
loses nothing; caps and schemas that changed; a run that cannot be looked at, or kept, beside others; two
controllers whose lists come in other orders; a run kept while a list waits, or the host does; what is kept of
repairs.
"""

import string
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
import structlog

from offload.cluster.interface import Change, Clock, Fresh, Listed, Present
from offload.cluster.standin.server import StandIn
from offload.domain.projection import Caps
from offload.errors import IndexUnavailableError
from offload.index import Index, runs
from offload.services.echoes import Echoes
from offload.services.follow import QUIET_SECONDS, Follower, Repairs
from offload.services.publish import Outcome
from tests.publishing import NAMESPACE, Room, eventually, publishing_room


@pytest.fixture(scope="module")
def standin() -> Iterator[StandIn]:
    with StandIn(bookmark_seconds=0.2).running() as standin:
        yield standin


@pytest.fixture
def room(standin: StandIn, tmp_path: Path) -> Iterator[Room]:
    with publishing_room(standin, tmp_path) as room:
        yield room


@contextmanager
def following(follower: Follower) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=follower.run, args=(stop,))
    thread.start()
    try:
        eventually(lambda: follower.age() < 5)
        yield
    finally:
        stop.set()
        thread.join(10)
        assert not thread.is_alive()


def found(room: Room, name: str) -> Any:
    with room.index.read() as tx:
        return runs.find(tx, NAMESPACE, name)


def test_runs_their_phases_and_deletions_reach_the_index(room: Room) -> None:
    before = room.create(observe=False)
    with following(room.follower()):
        after = room.create(observe=False)
        eventually(lambda: found(room, before.seen.name) and found(room, after.seen.name))
        assert found(room, after.seen.name).agent == "coder"
        room.write(after.seen.name, {"phase": "Running"})
        eventually(lambda: found(room, after.seen.name).phase == "Running")
        room.delete(after.seen.name)
        eventually(lambda: found(room, after.seen.name).deleted_at is not None)


def test_a_run_deleted_while_nobody_watched_is_found_out(room: Room) -> None:
    gone = room.create()
    room.delete(gone.seen.name)
    with following(room.follower()):
        eventually(lambda: found(room, gone.seen.name).deleted_at is not None)


def test_a_run_created_again_is_two_incarnations(room: Room) -> None:
    with following(room.follower()):
        first = room.create(observe=False)
        room.delete(first.seen.name)
        second = room.create(first.seen.name, observe=False)
        eventually(lambda: (one := found(room, first.seen.name)) and one.uid == second.seen.uid)
        eventually(lambda: room.run(first).deleted_at is not None)
        assert room.run(second).deleted_at is None


def test_the_view_is_fresh_only_after_the_first_list(room: Room) -> None:
    follower = room.follower()
    assert follower.age() == float("inf")
    with following(follower):
        assert follower.age() < 5


def test_our_own_writes_are_no_news(room: Room) -> None:
    run = room.create()
    with following(room.follower()):
        for n in range(3):
            room.upload(run, f"log-{n}")
            assert room.publish(run) is Outcome.WRITTEN
        version = room.read(run).resource_version
        marker = room.create(observe=False)
        eventually(lambda: found(room, marker.seen.name) is not None)
        assert room.read(run).resource_version == version
        assert room.run(run).revision == 3
        assert room.run(run).dirty_since is None


def test_what_another_writer_changed_is_put_right(room: Room) -> None:
    run = room.create()
    with following(room.follower()):
        room.upload(run, "log")
        room.publish(run)
        ours = room.status(run)["artifacts"]
        for theirs in ([], [{"name": "log"}]):
            room.write(run.seen.name, {"artifacts": theirs})
            room.publish(run)
            assert room.status(run)["artifacts"] == ours
        assert room.run(run).dirty_since is None


def test_a_status_changed_while_nobody_followed_is_looked_at_again(room: Room) -> None:
    run, quiet = room.create(), room.create()
    for one in (run, quiet):
        room.upload(one, "log")
        room.publish(one)
    room.write(run.seen.name, {"artifacts": []})
    for one in (run, quiet):
        room.echoes.forget(one.seen.uid)
    with following(room.follower()):
        eventually(lambda: room.run(run).dirty_since is not None)
        assert room.run(quiet).dirty_since is None


def test_lower_caps_since_the_last_start_reach_runs_that_do_not_change(room: Room) -> None:
    run, small = room.create(), room.create()
    room.upload_logs(run, 3)
    room.upload(small, "log")
    for one in (run, small):
        room.publish(one)
    with following(room.follower(publisher=room.publisher(caps=Caps(count=2)))):
        eventually(lambda: room.run(run).dirty_since is not None)
        assert room.run(small).dirty_since is None


def test_another_schema_has_every_status_looked_at_again(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    legacy = {"name": {"type": "string"}, "key": {"type": "string"}, "url": {"type": "string"}}
    artifacts = {"type": "array", "items": {"type": "object", "properties": legacy}}
    served = room.cluster.status_schema()
    with monkeypatch.context() as patch:
        before = {**served, "properties": {**served["properties"], "artifacts": artifacts}}
        patch.setattr(room.cluster, "status_schema", lambda: before)
        run = room.create()
        room.upload(run, "log")
        room.publish(run)
    with following(room.follower()):
        eventually(lambda: room.echoes.matches(run.seen.uid, room.status(run), "9" * 9) is True)
        assert room.run(run).dirty_since is None
        room.schema.refresh()
        eventually(lambda: room.run(run).dirty_since is not None)


def test_what_others_changed_while_no_schema_was_usable_is_looked_at_later(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = room.create()
    room.upload(run, "log")
    room.publish(run)
    with following(room.follower()):
        with monkeypatch.context() as patch:
            patch.setattr(room.cluster, "status_schema", lambda: {"type": "object"})
            room.schema.refresh()
            room.write(run.seen.name, {"artifacts": None})
            eventually(lambda: room.echoes.last_seen(run.seen.uid).status.get("artifacts") is None)
        room.schema.refresh()
        eventually(lambda: room.run(run).dirty_since is not None)


def test_without_a_publisher_nothing_is_marked(room: Room) -> None:
    run = room.create()
    room.write(run.seen.name, {"artifacts": [{"name": "theirs"}]})
    with following(room.follower(publisher=None)):
        pass
    assert room.run(run).dirty_since is None


def test_a_writer_that_goes_on_is_answered_ever_later_but_within_five_seconds() -> None:
    repairs = Repairs()
    marked = []
    for tick in range(60 * 10):
        now = tick / 10
        repairs.note("run", now)
        for uid in repairs.due(now):
            repairs.done(uid, now)
            marked.append(now)
    pauses = [later - earlier for earlier, later in pairwise(marked)]
    assert marked[0] == 0
    assert pauses[:3] == pytest.approx([1, 2, 3], abs=0.11)
    assert max(pauses) <= 3.2
    repairs.note("run", 100)
    assert repairs.due(100) == ["run"]


def test_of_runs_that_were_repaired_only_the_last_are_kept() -> None:
    repairs = Repairs()
    for n in range(1000):
        repairs.note(f"run-{n}", n)
        for uid in repairs.due(n):
            repairs.done(uid, n)
    assert max(map(len, vars(repairs).values())) <= QUIET_SECONDS


def test_a_run_that_cannot_be_looked_at_holds_up_no_other(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd, other = room.create(), room.create()
    publisher = room.publisher()
    would_change = publisher.would_change

    def looks(run: Any, status: Any) -> bool:
        if run.uid == odd.seen.uid:
            raise TypeError("a status of some shape")
        return would_change(run, status)

    monkeypatch.setattr(publisher, "would_change", looks)
    with following(room.follower(publisher=publisher)):
        for one in (odd, other):
            room.write(one.seen.name, {"artifacts": [{"name": "theirs"}]})
        eventually(lambda: room.run(other).dirty_since is not None)
        room.delete(odd.seen.name)
        eventually(lambda: room.run(odd).deleted_at is not None)


class Told:
    """A cluster that tells of these changes, is fresh, and tells of none any more."""

    def __init__(self, changes: Sequence[Change]) -> None:
        self._changes = changes

    def changes(self, stop: threading.Event, _clock: Clock) -> Iterator[Change]:
        yield from self._changes
        yield Fresh(time.monotonic())
        stop.wait()


def follower_of(index: Index, room: Room, changes: Sequence[Change]) -> Follower:
    """One that is told of these, by a room's schema."""
    cluster: Any = Told(changes)
    return Follower(index, cluster, Echoes(), room.schema, publisher=None)


@pytest.mark.parametrize(
    "odd", [{"phase": "Run\0ning"}, {"agent": "".join(Random(1).choices(string.printable, k=8000))}]
)
def test_a_run_that_the_index_cannot_keep_holds_up_no_other(
    room: Room, create_database: Callable[[], str], odd: dict[str, str]
) -> None:
    before, refused, after = (room.create(observe=False) for _ in range(3))
    refused = replace(refused, seen=replace(refused.seen, **odd))
    changes = list(map(Present, (before, refused, after)))
    index = Index.connect(create_database())
    with closing(index), following(follower_of(index, room, changes)), index.read() as tx:
        assert runs.get(tx, refused.seen.uid) is None
        assert runs.get(tx, before.seen.uid)
        assert runs.get(tx, after.seen.uid)


def test_two_controllers_whose_lists_come_in_other_orders_never_wait_in_a_circle(
    room: Room, create_database: Callable[[], str]
) -> None:
    example = room.create(observe=False)

    def run(namespace: str, number: int) -> Present:
        uid = f"{namespace}-{number}"
        seen = replace(example.seen, uid=uid, namespace=namespace, name=uid, resource_version=str(number))
        return Present(replace(example, seen=seen))

    def follow(changes: Sequence[Change]) -> None:
        index = Index.connect(url)
        with closing(index), following(follower_of(index, room, changes)):
            pass

    url = create_database()
    one, other = ([run(namespace, number) for number in range(120)] for namespace in ("one", "other"))
    with structlog.testing.capture_logs() as told, ThreadPoolExecutor(2) as threads:
        list(threads.map(follow, ([*one, *other], [*other, *one])))
    assert [line for line in told if line["event"] == "follow.index_unavailable"] == []


def test_a_run_that_another_keeps_while_a_list_waits_for_the_index_is_not_gone(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the process is frozen, or the one writer of SQLite is at work: being gone is for good."""
    run = room.create(observe=False)
    real, listed = Index.begin, Listed(NAMESPACE, frozenset(), time.monotonic())

    def begin(index: Index) -> Any:
        with real(index) as tx:
            runs.observe(tx, run.seen)
        time.sleep(time.monotonic() - listed.began + 0.1)
        return real(index)

    follower = follower_of(room.index, room, [listed])
    with monkeypatch.context() as patch:
        patch.setattr(Index, "begin", begin)
        with following(follower):
            pass
    assert room.run(run).deleted_at is None


def test_a_run_that_another_keeps_while_this_host_stands_still_is_not_gone(room: Room) -> None:
    """As where it is suspended during a list: its own clock tells nothing of that."""
    run = room.create(observe=False)

    class Suspended:
        def changes(self, stop: threading.Event, clock: Clock) -> Iterator[Change]:
            began_at = clock()
            time.sleep(0.1)
            with room.index.begin() as tx:
                runs.observe(tx, run.seen)
            time.sleep(0.1)
            yield Listed(NAMESPACE, frozenset(), began=0.0, began_at=began_at)
            yield Fresh(0.0)
            stop.wait()

    cluster: Any = Suspended()
    follower = Follower(room.index, cluster, Echoes(), room.schema, publisher=None, monotonic=lambda: 0.0)
    with following(follower):
        pass
    assert room.run(run).deleted_at is None


def test_a_change_waits_for_an_index_that_is_away(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    real, away = Index.begin, threading.Event()

    def begin(index: Index) -> Any:
        if away.is_set():
            raise IndexUnavailableError
        return real(index)

    monkeypatch.setattr(Index, "begin", begin)
    with following(room.follower()):
        away.set()
        run = room.create(observe=False)
        eventually(lambda: room.read(run).resource_version != "")
        away.clear()
        eventually(lambda: found(room, run.seen.name) is not None)
