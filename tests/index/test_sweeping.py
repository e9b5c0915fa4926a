"""What a sweep reads and writes.

- a tombstone: fate and time, counters, a dirty run, once only, many at once
- ending the current version gives the name to the newest stored one before it
- bytes may go once a status without the pointer was published, or the run is deleted
- totals, runs with something stored page by page, and what is stored of one
- what a plan ends, and the newest of its names, before it is ended
- which uids are those of runs, and what the runs are called
- plans: parked, confirmed, done in part, finished; each in its scope
"""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

from offload.domain.artifact import Artifact, State
from offload.index import Index, artifacts, publishing, runs, sweeping


def tombstone(index: Index, *ended: Artifact, state: State = State.EXPIRED) -> list[Any]:
    with index.begin() as tx:
        return sweeping.tombstone(tx, [artifact.id for artifact in ended], state=state, by="rule:short")


def erasable(index: Index, limit: int = 100) -> list[Any]:
    with index.read() as tx:
        return [artifact.id for artifact in sweeping.erasable(tx, limit)]


def publish(index: Index) -> None:
    with index.begin() as tx:
        for run in publishing.claim(tx, holder="h", limit=100, lease=timedelta(minutes=1)):
            publishing.published(
                tx, run.uid, holder="h", revision=run.revision, listed_count=0, not_before=timedelta(0)
            )


def test_a_tombstone_says_what_became_of_an_artifact(given: Any) -> None:
    run = given.run()
    kept, gone = given.artifact(run.uid, "kept", b"12"), given.artifact(run.uid, "gone", b"345")
    publish(given.index)
    assert tombstone(given.index, gone) == [gone.id]
    with given.index.read() as tx:
        ended = artifacts.get(tx, gone.id)
        assert ended is not None
        assert (ended.state, ended.ended_by, ended.current) == (State.EXPIRED, "rule:short", False)
        assert ended.ended_at is not None
        assert ended.ended_at >= ended.created_at
        assert sweeping.stored_of(tx, run.uid) == [kept]
    after = given.get_run(run.uid)
    assert (after.stored_count, after.stored_bytes, after.total_count, after.current_count) == (1, 2, 2, 1)
    assert after.revision == 3
    assert after.dirty_since is not None


def test_an_artifact_ends_once(given: Any) -> None:
    run = given.run()
    gone = given.artifact(run.uid, "a")
    tombstone(given.index, gone, gone, state=State.DELETED)
    before = given.get_run(run.uid)
    assert tombstone(given.index, gone) == []
    with given.index.begin() as tx:
        assert sweeping.tombstone(tx, [uuid4()], state=State.EXPIRED, by="rule:r") == []
        assert sweeping.tombstone(tx, [], state=State.EXPIRED, by="rule:r") == []
        ended = artifacts.get(tx, gone.id)
    assert ended is not None
    assert ended.state is State.DELETED
    assert given.get_run(run.uid) == before


def test_the_version_before_becomes_current(given: Any) -> None:
    run = given.run()
    one, two, three = (given.artifact(run.uid, "a", data) for data in (b"1", b"2", b"3"))
    other = given.artifact(run.uid, "b")

    def current() -> Any:
        with given.index.read() as tx:
            artifact = artifacts.current(tx, run.uid, "a")
        return artifact and artifact.id

    tombstone(given.index, two)
    assert current() == three.id
    tombstone(given.index, three)
    assert current() == one.id
    assert given.get_run(run.uid).current_count == 2
    tombstone(given.index, one, other)
    assert current() is None
    assert given.get_run(run.uid).current_count == 0
    assert given.artifact(run.uid, "a", b"2").id != two.id


def test_many_artifacts_of_many_runs_end_in_one_call(given: Any) -> None:
    uids = [given.run().uid for _ in range(3)]
    everything = given.artifacts(
        [given.new(uid, f"{number}", bytes([number % 2])) for uid in uids for number in range(400)]
    )
    assert sorted(tombstone(given.index, *everything)) == sorted(artifact.id for artifact in everything)
    for uid in uids:
        run = given.get_run(uid)
        assert (run.stored_count, run.stored_bytes, run.current_count, run.total_count) == (0, 0, 0, 400)
    publish(given.index)
    assert len(erasable(given.index, limit=1000)) == 1000


def test_bytes_may_go_once_a_status_without_their_pointer_is_published(given: Any) -> None:
    run = given.run()
    first, second = given.artifact(run.uid, "a"), given.artifact(run.uid, "b")
    publish(given.index)
    tombstone(given.index, first)
    assert erasable(given.index) == []
    publish(given.index)
    tombstone(given.index, second)
    assert erasable(given.index) == [first.id]
    publish(given.index)
    assert erasable(given.index) == [first.id, second.id]
    assert erasable(given.index, limit=1) == [first.id]
    with given.index.begin() as tx:
        sweeping.erased(tx, [first.id, second.id])
        ended = artifacts.get(tx, first.id)
    assert ended is not None
    assert ended.erased_at is not None
    assert erasable(given.index) == []


def test_bytes_of_a_deleted_run_may_go_at_once(given: Any) -> None:
    run = given.run()
    before, after = given.artifact(run.uid, "a"), given.artifact(run.uid, "b")
    tombstone(given.index, before)
    with given.index.begin() as tx:
        runs.mark_deleted(tx, run.uid)
    assert erasable(given.index) == [before.id]
    tombstone(given.index, after)
    assert erasable(given.index) == [before.id, after.id]
    assert given.get_run(run.uid).dirty_since is None


def test_totals_and_runs_with_something_stored(given: Any) -> None:
    with given.index.read() as tx:
        assert sweeping.stored_totals(tx) == (0, 0)
    uids = [given.run().uid for _ in range(5)]
    stored = [given.artifact(uid, "a", b"123") for uid in uids[:4]]
    tombstone(given.index, stored[1])
    with given.index.begin() as tx:
        runs.mark_deleted(tx, uids[2])
        assert sweeping.stored_totals(tx) == (3, 9)
        first = sweeping.runs_with_stored(tx, limit=2)
        assert [run.uid for run in first] == [uids[0], uids[2]]
        second = sweeping.runs_with_stored(tx, after=first[-1].uid, limit=2)
        assert [run.uid for run in second] == [uids[3]]


def test_what_was_planned_is_answered_by_run_with_the_newest_of_its_names(given: Any) -> None:
    one, other = given.run(), given.run()
    first, second, gone, third, fourth = (given.artifact(one.uid, "a", bytes([n])) for n in range(5))
    given.artifact(one.uid, "b")
    given.artifact(other.uid, "a")
    alone = given.artifact(other.uid, "b")
    tombstone(given.index, gone)
    planned = [alone, first, gone, first]

    def answered(newest: int) -> list[set[Any]]:
        with given.index.begin() as tx:
            assert sweeping.versions_to_end(tx, [], newest=newest) == []
            found = sweeping.versions_to_end(tx, planned, newest=newest)
        assert [run for run, _ in found] == [given.get_run(one.uid), given.get_run(other.uid)]
        return [{version.id for version in versions} for _, versions in found]

    assert answered(0) == [{first.id}, {alone.id}]
    assert answered(1) == [{first.id, fourth.id}, {alone.id}]
    assert answered(3) == [{first.id, second.id, third.id, fourth.id}, {alone.id}]
    assert answered(9) == answered(3) == answered(4)
    with given.index.begin() as tx:
        [(_, versions)] = sweeping.versions_to_end(tx, [gone], newest=0)
    assert versions == []


def test_runs_are_known_by_their_uid(given: Any) -> None:
    runs_there = [given.run() for _ in range(3)]
    uids = [*(run.uid for run in runs_there), *(f"unknown-{number}" for number in range(1000))]
    with given.index.read() as tx:
        known = sweeping.known_runs(tx, uids)
        assert sweeping.known_runs(tx, []) == {}
    assert known == {run.uid: (run.namespace, run.name) for run in runs_there}


def test_a_parked_plan_waits_for_its_confirmation(given: Any) -> None:
    at = given.seen().created_at
    with given.index.begin() as tx:
        plan_id = sweeping.park(tx, at=at, count=5, bytes=2**40, policy_digest="abc")
        other_id = sweeping.park(tx, at=at, count=6, bytes=1, policy_digest="def")
    with given.index.begin() as tx:
        plan, other = sweeping.parked(tx)
        assert (plan.id, plan.at, plan.count, plan.bytes, plan.policy_digest) == (
            plan_id,
            at,
            5,
            2**40,
            "abc",
        )
        assert plan.confirmed_at is None
        confirmed = sweeping.confirm(tx, plan_id)
        assert confirmed is not None
        assert confirmed.confirmed_at is not None
        assert sweeping.confirm(tx, plan_id) == confirmed
        assert sweeping.confirm(tx, uuid4()) is None
        assert sweeping.parked(tx) == [confirmed, other]
        sweeping.done_of_plan(tx, plan_id, count=2, bytes=2**39)
        assert sweeping.parked(tx) == [replace(confirmed, count=3, bytes=2**39), other]
        sweeping.finish(tx, plan_id)
        sweeping.finish(tx, plan_id)
        assert [plan.id for plan in sweeping.parked(tx)] == [other_id]
        assert sweeping.confirm(tx, plan_id) is None


def test_plans_of_a_scope_are_apart(given: Any) -> None:
    at = given.seen().created_at
    with given.index.begin() as tx:
        plain = sweeping.park(tx, at=at, count=1, bytes=1, policy_digest="abc")
        scoped = sweeping.park(tx, at=at, count=1, bytes=1, policy_digest="abc", scope="123")
    with given.index.begin() as tx:
        assert [plan.id for plan in sweeping.parked(tx)] == [plain]
        [plan] = sweeping.parked(tx, "123")
        assert (plan.id, plan.policy_digest, plan.scope) == (scoped, "abc", "123")
        assert sweeping.parked(tx, "456") == []
