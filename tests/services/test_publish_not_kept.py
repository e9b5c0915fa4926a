"""Patches that the API server accepts and does not keep, on the AgentRun stand-in.

Cases: never sent again unchanged, whatever the time; another one is made for its own time; forgotten once
another replica published; not remembered without bound.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from offload.cluster.interface import AgentRun
from offload.domain.projection import Caps
from offload.services import publish
from offload.services.publish import Outcome, Publisher
from tests.publishing import Room

JANUARY, JUNE = (datetime(2026, month, 1, tzinfo=UTC) for month in (1, 6))


class Losing:
    """The real cluster, which keeps nothing of a patch, or what `keeps` says."""

    def __init__(
        self, room: Room, keeps: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda _: {}
    ) -> None:
        self._real, self._keeps = room.cluster, keeps
        self.patches = 0
        self.mended = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def patch_status(self, run: AgentRun, patch: Mapping[str, Any]) -> AgentRun:
        self.patches += 1
        return self._real.patch_status(run, patch if self.mended else self._keeps(patch))


class Replica:
    """A publisher of its own, on a cluster that loses what it writes, with a clock that stands still."""

    def __init__(self, room: Room, **how: Any) -> None:
        self.cluster, self.now = Losing(room, **how), JANUARY
        self.publisher: Publisher = room.publisher(
            cluster=self.cluster, caps=Caps(count=2), clock=lambda: self.now
        )


def transitions(room: Room, run: AgentRun) -> list[str]:
    return [condition["lastTransitionTime"] for condition in room.status(run).get("conditions", ())]


def test_what_is_not_kept_is_an_error_and_never_sent_again_unchanged(room: Room) -> None:
    run = room.create()
    room.upload_logs(run, 3)
    replica = Replica(room, keeps=lambda patch: {"artifacts": patch["artifacts"][:1]})
    assert room.publish(run, replica.publisher) is Outcome.FAILED
    assert "did not keep artifacts, conditions" in (room.run(run).publish_error or "")
    for _ in range(2):
        replica.now += timedelta(minutes=1)
        assert room.publish(run, replica.publisher) is Outcome.FAILED
    assert replica.cluster.patches == 1
    assert room.run(run).dirty_since is not None
    room.upload(run, "log-3")
    room.publish(run, replica.publisher)
    assert replica.cluster.patches == 2


def test_another_patch_than_one_that_was_not_kept_is_made_for_its_own_time(room: Room) -> None:
    run, replica = room.create(), Replica(room)
    room.upload_logs(run, 3)
    assert room.publish(run, replica.publisher) is Outcome.FAILED
    replica.now, replica.cluster.mended = JUNE, True
    room.upload(run, "log-3")
    assert room.publish(run, replica.publisher) is Outcome.WRITTEN
    assert transitions(room, run) == ["2026-06-01T00:00:00Z"]


def test_what_was_not_kept_is_forgotten_once_another_replica_published(room: Room) -> None:
    run, replica = room.create(), Replica(room)
    room.upload_logs(run, 2)
    assert room.publish(run, replica.publisher) is Outcome.FAILED
    assert room.look_again(run) is Outcome.WRITTEN

    # The same patch is due again, once another writer has taken the list out.
    room.write(run.seen.name, {"artifacts": None})
    room.echoes.forget(run.seen.uid)
    replica.now, replica.cluster.mended = JUNE, True
    assert room.look_again(run, replica.publisher) is Outcome.WRITTEN
    assert room.names(run) == ["log-0", "log-1"]


def test_no_more_than_so_many_patches_are_remembered(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that a list no longer has is gone without a word."""
    monkeypatch.setattr(publish, "_REMEMBERED_MOST", 2)
    replica = Replica(room)
    for _ in range(5):
        run = room.create()
        room.upload(run, "log")
        assert room.publish(run, replica.publisher) is Outcome.FAILED
        assert 1 <= len(replica.publisher._not_kept) <= 2
    assert room.look_again(run, replica.publisher) is Outcome.FAILED
    assert replica.cluster.patches == 5
