"""Publishing one run to the AgentRun stand-in.

Cases: pointers and order; nothing to do writes nothing; caps with condition and Event; each dialect;
conflicts are projected again; gone and recreated runs; refusals with back-off; outages; observe mode; strict
mode; one patch a second; a run that trips a bug.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from offload.cluster.interface import AgentRun
from offload.cluster.standin.server import StandIn
from offload.domain.artifact import State
from offload.domain.conditions import rfc3339
from offload.domain.projection import Caps
from offload.errors import ClusterUnavailableError, StatusConflictError, StatusRefusedError
from offload.index import sweeping
from offload.index.schema import runs as runs_table
from offload.services.preview import preview
from offload.services.publish import Outcome
from tests.publishing import Room, open_schema, publishing_room

CRDS = Path(__file__).parents[1] / "cluster" / "crds"


class Cluster:
    """The real one with one call replaced."""

    def __init__(self, room: Room, **replaced: Callable[..., Any]) -> None:
        self._real, self._replaced = room.cluster, replaced
        self.patches: list[Mapping[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return self._replaced.get(name) or getattr(self._real, name)

    def patch_status(self, run: AgentRun, patch: Mapping[str, Any]) -> AgentRun:
        self.patches.append(patch)
        replaced = self._replaced.get("patch_status")
        answer: AgentRun = replaced(run, patch) if replaced else self._real.patch_status(run, patch)
        return answer


def test_pointers_reach_status_oldest_first_and_the_run_is_clean(room: Room) -> None:
    run = room.create()
    artifacts = room.upload_logs(run, 3)
    assert room.publish(run) is Outcome.WRITTEN
    assert [entry["uri"] for entry in room.status(run)["artifacts"]] == [a.location.uri for a in artifacts]
    kept = room.run(run)
    assert kept.published_revision == kept.revision
    assert kept.dirty_since is None
    assert kept.listed_count == 3


def test_publishing_again_writes_nothing(room: Room) -> None:
    run = room.create()
    room.upload(run, "log")
    room.publish(run)
    before = room.read(run).resource_version
    assert room.look_again(run) is Outcome.UNCHANGED
    assert room.read(run).resource_version == before


def test_what_others_wrote_stays(room: Room) -> None:
    run = room.create()
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "R",
        "message": "m",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    room.write(run.seen.name, {"phase": "Running", "theirs": {"a": 1}, "conditions": [ready]})
    room.upload_logs(run, 3)
    room.publish(run, caps=Caps(count=2))
    status = room.status(run)
    assert status["phase"] == "Running"
    assert status["theirs"] == {"a": 1}
    assert status["conditions"][0] == ready


def test_a_cap_is_told_by_one_condition_and_one_event(room: Room) -> None:
    run = room.create()
    room.upload_logs(run, 5)
    publisher = room.publisher(caps=Caps(count=3))
    room.publish(run, publisher)
    assert room.names(run) == ["log-2", "log-3", "log-4"]
    [condition] = room.status(run)["conditions"]
    assert (condition["type"], condition["status"]) == ("ArtifactsTruncated", "True")
    assert f"offload history agents/{run.seen.name}" in condition["message"]
    room.upload(run, "log-5")
    room.publish(run, publisher)
    assert [event["reason"] for event in room.events(run)] == ["ArtifactsTruncated"]


def test_a_condition_that_another_writer_takes_out_is_told_once(room: Room) -> None:
    run = room.create()
    room.upload_logs(run, 5)
    publisher = room.publisher(caps=Caps(count=3))
    room.publish(run, publisher)
    before = room.status(run)
    for _ in range(3):
        room.write(run.seen.name, {"artifacts": before["artifacts"][:1], "conditions": []})
        publisher.note(room.run(run), room.read(run))
        assert room.look_again(run, publisher) is Outcome.WRITTEN
        assert room.status(run) == before
    assert len(room.events(run)) == 1


def test_a_condition_that_is_said_again_after_it_was_not_is_told_again(room: Room) -> None:
    run = room.create()
    first, *_ = room.upload_logs(run, 3)
    publisher = room.publisher(caps=Caps(count=2))
    room.publish(run, publisher)
    with room.index.begin() as tx:
        sweeping.tombstone(tx, [first.id], state=State.DELETED, by="token:test")
    room.write(run.seen.name, {"conditions": []})
    publisher.note(room.run(run), room.read(run))
    room.publish(run, publisher)
    assert not room.status(run).get("conditions")
    room.upload(run, "log-3")
    room.publish(run, publisher)
    assert len(room.events(run)) == 2


@pytest.mark.parametrize("crd", ["early.yaml", "legacy.yaml"])
def test_an_installed_schema_gets_the_entries_it_keeps(crd: str, tmp_path: Path) -> None:
    with StandIn(CRDS / crd).running() as standin, publishing_room(standin, tmp_path) as room:
        run = room.create()
        artifact = room.upload(run, "log")
        assert room.publish(run) is Outcome.WRITTEN
        assert room.status(run)["artifacts"] == [
            {"name": "log", "key": artifact.location.key, "url": artifact.location.uri}
        ]
        assert room.look_again(run) is Outcome.UNCHANGED


def test_a_conflict_is_answered_by_reading_and_projecting_again(room: Room) -> None:
    run = room.create()
    room.upload(run, "log")
    raced = []

    def racing(read: AgentRun, patch: Mapping[str, Any]) -> AgentRun:
        if not raced:
            raced.append(1)
            room.write(run.seen.name, {"phase": "Running"})
        return room.cluster.patch_status(read, patch)

    cluster = Cluster(room, patch_status=racing)
    assert room.publish(run, cluster=cluster) is Outcome.WRITTEN
    assert len(cluster.patches) == 2
    assert room.status(run)["phase"] == "Running"
    assert room.names(run) == ["log"]


def test_a_run_that_was_seen_is_published_by_one_request(room: Room) -> None:
    run = room.create()
    room.upload(run, "log-1")
    room.publish(run)
    reads = []

    def get(namespace: str, name: str) -> AgentRun:
        reads.append(name)
        return room.cluster.get(namespace, name)

    cluster = Cluster(room, get=get)
    room.upload(run, "log-2")
    assert room.publish(run, cluster=cluster) is Outcome.WRITTEN
    assert reads == []
    assert room.look_again(run, cluster=cluster) is Outcome.UNCHANGED
    assert len(reads) == 1


def test_what_was_seen_too_long_ago_is_read_again(room: Room) -> None:
    run = room.create()
    room.upload(run, "log-1")
    room.publish(run)
    theirs = {"name": "theirs", "uri": "https://example.org/x"}
    room.write(run.seen.name, {"artifacts": [theirs], "phase": "Running"})
    room.upload(run, "log-2")
    assert room.publish(run) is Outcome.WRITTEN
    assert sorted(room.names(run)) == ["log-1", "log-2", "theirs"]
    assert room.status(run)["phase"] == "Running"


def test_conflicts_without_end_are_a_failure_that_is_tried_later(room: Room) -> None:
    run = room.create()
    room.upload(run, "log")

    def racing(read: AgentRun, patch: Mapping[str, Any]) -> AgentRun:
        room.write(run.seen.name, {"theirs": str(len(cluster.patches))})
        return room.cluster.patch_status(read, patch)

    cluster = Cluster(room, patch_status=racing)
    assert room.publish(run, cluster=cluster) is Outcome.FAILED
    assert len(cluster.patches) == 5
    assert "status-conflict" in (room.run(run).publish_error or "")
    assert room.publish(run) is Outcome.WRITTEN


def test_conflicts_never_put_a_run_off_for_long(room: Room) -> None:
    """A writer that is quicker every time and then falls silent must find status ours within 5 s."""
    run = room.create()
    room.upload(run, "log")

    def racing(*_: object) -> AgentRun:
        raise StatusConflictError

    publisher = room.publisher(cluster=Cluster(room, patch_status=racing), between=timedelta(seconds=1))
    claimed = replace(room.claim(run), publish_failures=9)
    began = datetime.now(UTC)
    assert publisher.publish(claimed) is Outcome.FAILED
    with room.index.read() as tx:
        next_attempt = tx.execute(
            sa.select(runs_table.c.next_attempt_at).where(runs_table.c.uid == run.seen.uid)
        ).scalar_one()
    assert timedelta(seconds=2) <= next_attempt - began < timedelta(seconds=4)


def test_a_run_that_is_gone_or_was_created_again_is_deleted_in_the_index(room: Room) -> None:
    gone, again = room.create(), room.create()
    for run in (gone, again):
        room.upload(run, "log")
        room.delete(run.seen.name)
    successor = room.create(again.seen.name, observe=False)
    for run in (gone, again):
        assert room.publish(run) is Outcome.GONE
        assert room.run(run).deleted_at is not None
    assert "artifacts" not in room.status(successor)


def test_a_refusal_is_kept_as_the_runs_error_and_tried_later(room: Room) -> None:
    run = room.create()
    room.upload(run, "log")

    def refuse(*_: object) -> AgentRun:
        raise StatusRefusedError("a rule says no")

    assert room.publish(run, cluster=Cluster(room, patch_status=refuse)) is Outcome.FAILED
    assert room.run(run).publish_error == "status-refused: a rule says no"
    assert room.publish(run) is Outcome.WRITTEN
    assert room.run(run).publish_error is None


def test_an_outage_is_told_apart_and_the_run_stays_dirty(room: Room) -> None:
    run = room.create()
    room.upload(run, "log")
    room.schema.refresh()

    def away(*_: object) -> AgentRun:
        raise ClusterUnavailableError("no route", retry_after=0.1)

    assert room.publish(run, cluster=Cluster(room, get=away)) is Outcome.UNAVAILABLE
    assert room.run(run).dirty_since is not None
    assert room.publish(run) is Outcome.WRITTEN


def test_a_run_that_trips_over_a_bug_waits_like_any_that_fails(room: Room) -> None:
    run = room.create()
    room.upload(run, "log")

    def broken(*_: object) -> AgentRun:
        raise KeyError("oops")

    assert room.publish(run, cluster=Cluster(room, patch_status=broken)) is Outcome.FAILED
    assert "unexpected KeyError" in (room.run(run).publish_error or "")


def test_a_second_publish_waits_a_second(room: Room) -> None:
    run = room.create()
    publisher = room.publisher(between=timedelta(seconds=1))
    room.upload(run, "log-1")
    room.publish(run, publisher)
    written = time.monotonic()
    room.upload(run, "log-2")
    assert room.publish(run, publisher) is Outcome.WRITTEN
    assert time.monotonic() - written >= 0.9


def test_observing_writes_nothing_and_confirms_only_what_points_at_nothing_ended(room: Room) -> None:
    run = room.create()
    kept, ended = room.upload(run, "kept"), room.upload(run, "ended")
    observer = room.publisher(mode="observe", caps=Caps(count=1))
    before = room.read(run).resource_version
    assert room.publish(run, observer) is Outcome.OBSERVED
    assert room.read(run).resource_version == before
    assert room.run(run).dirty_since is None

    room.write(run.seen.name, {"artifacts": [{"name": "ended", "uri": ended.location.uri}]})
    with room.index.begin() as tx:
        sweeping.tombstone(tx, [ended.id], state=State.DELETED, by="token:test")
    revision = room.run(run).revision
    assert room.publish(run, observer) is Outcome.FAILED
    assert room.run(run).published_revision < revision
    room.write(run.seen.name, {"artifacts": [{"name": "kept", "uri": kept.location.uri}]})
    assert room.publish(run, observer) is Outcome.OBSERVED
    assert room.run(run).published_revision == revision


def test_a_pointer_that_is_brought_back_is_removed_by_the_next_publish(room: Room) -> None:
    run = room.create()
    artifact = room.upload(run, "log")
    room.publish(run)
    old = room.status(run)["artifacts"]
    with room.index.begin() as tx:
        sweeping.tombstone(tx, [artifact.id], state=State.DELETED, by="token:test")
    room.publish(run)
    assert room.names(run) == []
    room.write(run.seen.name, {"artifacts": old})
    assert room.look_again(run) is Outcome.WRITTEN
    assert room.names(run) == []


@pytest.mark.parametrize("says_when", [False, True])
@pytest.mark.parametrize(("judged_from", "phase"), [(-60, "Failed"), (60, "Succeeded")])
def test_strict_mode_fails_no_run_that_succeeded_before_it_was_turned_on(
    room: Room, judged_from: int, phase: str, *, says_when: bool
) -> None:
    run = room.create()
    room.upload_logs(run, 3)
    now = datetime.now(UTC)
    finished = {"finishedAt": rfc3339(now + timedelta(seconds=2))} if says_when else {}
    room.write(run.seen.name, {"phase": "Succeeded", **finished})
    room.judge_from(now + timedelta(seconds=judged_from))
    room.publish(run, caps=Caps(count=2), strict=True)
    assert room.status(run)["phase"] == phase


def test_a_verdict_that_was_given_is_given_again_whenever_strict_mode_began(room: Room) -> None:
    run = room.create()
    room.upload_logs(run, 3)
    room.publish(run, caps=Caps(count=2), strict=True)
    assert room.status(run)["phase"] == "Failed"
    room.judge_from(datetime.now(UTC) + timedelta(hours=1))
    room.write(run.seen.name, {"phase": "Succeeded"})
    room.look_again(run, caps=Caps(count=2), strict=True)
    assert room.status(run)["phase"] == "Failed"


def test_strict_mode_fails_the_run_and_loses_nothing(room: Room) -> None:
    run = room.create()
    room.write(run.seen.name, {"phase": "Running"})
    room.upload_logs(run, 3)
    publisher = room.publisher(caps=Caps(count=2), strict=True)
    room.publish(run, publisher)
    status = room.status(run)
    assert (status["phase"], status["reason"]) == ("Failed", "ArtifactsOverLimit")
    assert room.run(run).current_count == 3
    room.write(run.seen.name, {"phase": "Running", "conditions": []})
    room.look_again(run, publisher)
    assert room.status(run)["phase"] == "Failed"


@pytest.mark.parametrize("finished", ["2026-01-01T00:00:00Z", "2126-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_strict_mode_fails_a_succeeded_run_only_for_earlier_excess(room: Room, finished: str) -> None:
    run = room.create()
    room.write(run.seen.name, {"phase": "Succeeded", "finishedAt": finished})
    room.upload_logs(run, 3)
    room.publish(run, caps=Caps(count=2), strict=True)
    assert room.status(run)["phase"] == ("Succeeded" if finished < "2100" else "Failed")


def test_a_preview_needs_no_cluster(room: Room) -> None:
    run = room.create()
    room.upload_logs(run, 3)
    with room.index.read() as tx:
        projection = preview(
            tx,
            run.seen.uid,
            {},
            schema=open_schema(),
            caps=Caps(count=2),
            strict=False,
            public_url=None,
        )
    assert [entry["name"] for entry in projection.artifacts] == ["log-1", "log-2"]
