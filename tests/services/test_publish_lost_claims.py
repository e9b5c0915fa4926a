"""A publish that goes on after another holder took its run, on the AgentRun stand-in.

Cases: an entry of another writer that it listed again, or left out; a pointer that it wrote to bytes that
ended meanwhile, also where the index is away when it confirms; a run that is gone.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from offload.cluster.interface import AgentRun
from offload.domain.artifact import Artifact, State
from offload.domain.projection import Caps
from offload.errors import IndexUnavailableError
from offload.index import externals, publishing, runs, sweeping
from offload.services.echoes import Echoes
from offload.services.publish import Outcome, Publisher
from tests.publishing import Room

CAPS = Caps(count=2)
ELSEWHERE = {"name": "theirs", "url": "https://example.org/theirs"}


class Late:
    """The real cluster, whose answers to patches come after `meanwhile`."""

    def __init__(self, room: Room, meanwhile: Callable[[], None]) -> None:
        self._real, self._meanwhile = room.cluster, meanwhile

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def patch_status(self, run: AgentRun, patch: Mapping[str, Any]) -> AgentRun:
        answer = self._real.patch_status(run, patch)
        self._meanwhile()
        return answer


def late_to_patch(meanwhile: Callable[[], None]) -> Callable[[], datetime]:
    """A publisher's clock: `meanwhile` happens once, when it has loaded what it publishes."""
    left = [meanwhile]

    def now() -> datetime:
        if left:
            left.pop()()
        return datetime.now(UTC)

    return now


def replica(room: Room, holder: str, **values: Any) -> Publisher:
    """A publisher that remembers nothing of what others wrote."""
    room.echoes = Echoes()
    return room.publisher(holder=holder, caps=CAPS, **values)


def publish_as_other(room: Room, run: AgentRun) -> Outcome:
    before, claimed = room.echoes, room.claim(run, "other")
    outcome = replica(room, "other").publish(claimed)
    room.echoes = before
    return outcome


def end(room: Room, artifact: Artifact) -> None:
    with room.index.begin() as tx:
        sweeping.tombstone(tx, [artifact.id], state=State.DELETED, by="token:test")


def state_of_theirs(room: Room, run: AgentRun) -> str:
    with room.index.read() as tx:
        [theirs] = externals.of_run(tx, run.seen.uid)
    return theirs.state


def test_one_that_was_listed_again_is_known_as_left_out_where_that_was_confirmed(room: Room) -> None:
    run = room.create()
    room.write(run.seen.name, {"artifacts": [ELSEWHERE]})
    room.look_again(run, caps=CAPS)
    older, _ = room.upload_logs(run, 2)
    room.publish(run, caps=CAPS)
    assert state_of_theirs(room, run) == "left-out"
    end(room, older)

    def meanwhile() -> None:
        assert room.names(run) == ["theirs", "log-1"]
        room.upload(run, "log-2")
        assert publish_as_other(room, run) is Outcome.WRITTEN

    room.publish(run, replica(room, "test", cluster=Late(room, meanwhile)))
    assert room.names(run) == ["log-1", "log-2"]
    assert state_of_theirs(room, run) == "left-out"
    assert room.publish(run, caps=CAPS) is Outcome.UNCHANGED
    room.look_again(run, caps=Caps(count=3))
    assert room.names(run) == ["theirs", "log-1", "log-2"]


def test_one_that_was_left_out_is_known_as_listed_where_that_was_confirmed(room: Room) -> None:
    run = room.create()
    room.write(run.seen.name, {"artifacts": [ELSEWHERE]})
    room.look_again(run, caps=CAPS)
    room.upload(run, "log-0")
    room.publish(run, caps=CAPS)
    newer = room.upload(run, "log-1")

    def meanwhile() -> None:
        end(room, newer)
        assert publish_as_other(room, run) is Outcome.UNCHANGED
        room.write(run.seen.name, {"phase": "Running"})

    publisher = replica(room, "test", clock=late_to_patch(meanwhile))
    assert room.publish(run, publisher) is Outcome.UNCHANGED
    assert room.publish(run, caps=CAPS) is Outcome.UNCHANGED
    assert room.names(run) == ["theirs", "log-0"]
    assert state_of_theirs(room, run) == "listed"


def test_a_pointer_to_what_ended_meanwhile_is_taken_out_by_the_next_publish(room: Room) -> None:
    run = room.create()
    room.upload(run, "log-0")
    room.publish(run, caps=CAPS)
    ended = room.upload(run, "log-1")

    def meanwhile() -> None:
        end(room, ended)
        assert publish_as_other(room, run) is Outcome.UNCHANGED
        assert room.run(run).dirty_since is None

    publisher = replica(room, "test", clock=late_to_patch(meanwhile))
    assert room.publish(run, publisher) is Outcome.WRITTEN
    assert room.names(run) == ["log-0", "log-1"]
    assert not room.echoes.matches(run.seen.uid, room.status(run), room.read(run).resource_version)
    assert room.run(run).dirty_since is not None
    assert room.publish(run, caps=CAPS) is Outcome.WRITTEN
    assert room.names(run) == ["log-0"]
    assert room.run(run).dirty_since is None


def test_what_could_not_be_confirmed_is_looked_at_when_the_watch_shows_it(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = room.create()
    room.upload(run, "log-0")
    room.publish(run, caps=CAPS)
    ended = room.upload(run, "log-1")

    def away(*_: Any, **__: Any) -> bool:
        raise IndexUnavailableError

    def meanwhile() -> None:
        end(room, ended)
        assert publish_as_other(room, run) is Outcome.UNCHANGED
        monkeypatch.setattr(publishing, "published", away)

    publisher = replica(room, "test", clock=late_to_patch(meanwhile))
    assert room.publish(run, publisher) is Outcome.UNAVAILABLE
    assert room.names(run) == ["log-0", "log-1"]
    assert room.run(run).dirty_since is None
    assert not room.echoes.matches(run.seen.uid, room.status(run), room.read(run).resource_version)


def test_a_run_that_is_gone_is_not_published_again(room: Room) -> None:
    run = room.create()
    room.upload(run, "log")

    def meanwhile() -> None:
        with room.index.begin() as tx:
            runs.mark_deleted(tx, run.seen.uid)

    assert room.publish(run, replica(room, "test", cluster=Late(room, meanwhile))) is Outcome.WRITTEN
    assert room.run(run).dirty_since is None
