"""The sweep, on SQLite and PostgreSQL.

Cases: a plan and its sums are what the sweep does; bytes wait for their pointer, and for nothing where the
run is gone; namespaces that are not watched; the guard parks, keeps one plan, and is confirmed, outgrown,
voided by other rules, resumed; a stale view refuses before and in the middle; a plan that grows in the middle
stops; bytes that the store does not delete, and a store that is away; erasing on request, twice, and what is
unknown; two sweeps at once, and a sweep beside a recorder.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from prometheus_client import REGISTRY

from offload.domain.artifact import Artifact, Location, State
from offload.domain.retention import (
    KEEP_FOREVER,
    KeepFor,
    KeepForever,
    KeepLast,
    Match,
    Policy,
    Rule,
    Since,
    Total,
    Version,
)
from offload.errors import (
    ArtifactNotFoundError,
    PlanNotFoundError,
    StoreUnavailableError,
)
from offload.index import leases, runs, sweeping
from offload.index.recorder import Recorder
from offload.objects.memory import MemoryObjects
from offload.services import sweep as service
from offload.services.sweep import (
    WATCH,
    Outcome,
    erase_artifact,
    erase_ready,
    plan,
    preview,
    sweep,
    why_watch_is_stale,
)
from tests.services.sweep_world import DAY, ONE_DAY, World


def test_what_has_ended_gets_a_tombstone_with_its_rule(world: World) -> None:
    run = world.run()
    log, diff = world.send(run, "a.log") + world.send(run, "b.diff", type="diff")
    policy = Policy((Rule("logs", Match(type="log"), KeepFor(DAY)),), KeepForever())
    report = world.sweep(policy)
    assert report.outcome is Outcome.DONE
    ended = world.artifact(log.id)
    assert (ended.state, ended.ended_by) == (State.EXPIRED, "rule:logs")
    assert ended.ended_at is not None
    assert world.artifact(diff.id) == diff


def test_bytes_are_kept_until_their_pointer_is_gone(world: World) -> None:
    run = world.run()
    [artifact] = world.send(run, "a.log")
    world.publish()
    world.sweep()
    assert world.states([artifact]) == [State.EXPIRED]
    assert world.has_bytes(artifact)
    assert world.sweep().erased.gone == Total()
    world.publish()
    assert world.sweep().erased.gone == Total(1, 10)
    assert not world.has_bytes(artifact)
    assert world.artifact(artifact.id).erased_at is not None
    assert world.sweep().erased.gone == Total()


def test_bytes_of_a_deleted_run_wait_for_no_status(world: World) -> None:
    run = world.run()
    [artifact] = world.send(run, "a.log")
    with world.index.begin() as tx:
        runs.mark_deleted(tx, run.uid)
    world.sweep()
    assert not world.has_bytes(artifact)


def test_the_plan_is_what_the_sweep_does(world: World) -> None:
    one, other = (
        world.run("one", phase="Succeeded", finished_at=datetime(2026, 2, 1, tzinfo=UTC)),
        world.run("two"),
    )
    sent = [
        *world.send(one, "a", "a", "a", "b"),
        *world.send(other, "a", "a", type="diff"),
        *world.send(other, "c", expires_at=world.now + DAY),
    ]
    policy = Policy(
        (
            Rule("diffs", Match(type="diff"), KeepLast(1)),
            Rule("finished", Match(name="a"), KeepFor(DAY, Since.FINISHED)),
        ),
        KeepForever(),
    )
    now = world.now + 2 * DAY
    previewed = [d for run_plan in preview(world.index, policy, now=now) for d in run_plan.deletions]
    made = plan(world.index, policy, now=now)
    assert made.ends == Total(5, 50)
    assert made.stored == Total(7, 70)
    assert dict(made.by_rule) == {"finished": Total(3, 30), "diffs": Total(1, 10), "own-expiry": Total(1, 10)}
    report = sweep(world.index, world.objects, policy, now=now)
    assert report.planned == report.done == made
    ended = {a.id: world.artifact(a.id).ended_by for a in sent if world.artifact(a.id).state is State.EXPIRED}
    assert ended == {deletion.artifact.id: deletion.by for deletion in previewed}
    assert plan(world.index, policy, now=now).ends == Total()


def test_namespaces_that_are_not_watched_are_never_swept(world: World) -> None:
    mine, theirs = world.run("mine"), world.run("theirs", namespace="other")
    sent = world.send(mine, "a") + world.send(theirs, "a")
    assert plan(world.index, ONE_DAY, now=world.now + 2 * DAY, namespaces=["agents"]).stored == Total(1, 10)
    world.sweep(namespaces=["agents"])
    assert world.states(sent) == [State.EXPIRED, State.STORED]
    world.sweep()
    assert world.states(sent) == [State.EXPIRED, State.EXPIRED]


def test_without_rules_nothing_ends(world: World) -> None:
    sent = world.send(world.run(), "a", "b")
    assert world.sweep(KEEP_FOREVER, after=10_000 * DAY).done is not None
    assert world.states(sent) == [State.STORED] * 2


def _much(world: World, count: int = 101) -> list[Artifact]:
    return world.send(world.run("much"), *(f"n{n}" for n in range(count)))


def test_a_plan_beyond_the_guard_is_parked_and_nothing_ends(world: World) -> None:
    sent = _much(world)
    report = world.sweep()
    assert report.outcome is Outcome.PARKED
    assert report.parked is not None
    assert (report.parked.count, report.parked.bytes) == (101, 1010)
    assert set(world.states(sent)) == {State.STORED}


def test_a_hundred_are_not_beyond_the_guard(world: World) -> None:
    sent = _much(world, 100)
    assert world.sweep().outcome is Outcome.DONE
    assert set(world.states(sent)) == {State.EXPIRED}


def test_what_lies_in_other_namespaces_does_not_widen_the_guard(world: World) -> None:
    _much(world)
    world.send(world.run("theirs", namespace="other"), *(f"n{n}" for n in range(500)))
    assert world.sweep(namespaces=["agents"]).outcome is Outcome.PARKED


def test_later_sweeps_keep_the_plan_that_waits(world: World) -> None:
    _much(world)
    first, second = world.sweep(), world.sweep(after=3 * DAY)
    assert first.parked == second.parked
    assert world.parked() == [first.parked]


def test_a_confirmed_plan_is_carried_out_and_forgotten(world: World) -> None:
    sent = _much(world)
    parked = world.sweep().parked
    assert parked is not None
    report = world.sweep(confirm=parked.id)
    assert report.outcome is Outcome.DONE
    assert set(world.states(sent)) == {State.EXPIRED}
    assert world.parked() == []
    with pytest.raises(PlanNotFoundError):
        world.sweep(confirm=parked.id)


def test_a_confirmed_plan_ends_only_what_had_ended_at_its_own_time(world: World) -> None:
    old = _much(world)
    policy = Policy((Rule("later", Match(name="later"), KeepFor(9 * DAY)),), KeepFor(DAY))
    later = world.send(world.run("other"), "later")
    parked = world.sweep(policy).parked
    assert parked is not None
    world.sweep(policy, after=20 * DAY, confirm=parked.id)
    assert set(world.states(old)) == {State.EXPIRED}
    assert world.states(later) == [State.STORED]


def test_a_confirmed_plan_that_has_grown_is_parked_anew(world: World) -> None:
    sent = _much(world)
    parked = world.sweep().parked
    assert parked is not None
    more = world.send(world.run("more"), "a")
    report = world.sweep(confirm=parked.id)
    assert report.outcome is Outcome.PARKED
    assert report.parked is not None
    assert report.parked.id != parked.id
    assert (report.parked.at, report.parked.count) == (parked.at, 102)
    assert world.parked() == [report.parked]
    assert set(world.states(sent + more)) == {State.STORED}
    assert world.sweep(confirm=report.parked.id).outcome is Outcome.DONE
    assert set(world.states(sent + more)) == {State.EXPIRED}


def test_a_confirmed_plan_that_has_shrunk_is_carried_out(world: World) -> None:
    sent = _much(world, 150)
    parked = world.sweep().parked
    assert parked is not None
    erase_artifact(world.index, sent[0].id, by="token:t")
    assert world.sweep(confirm=parked.id).outcome is Outcome.DONE
    assert world.states(sent) == [State.DELETED] + [State.EXPIRED] * 149


def test_other_rules_void_a_plan_that_waits(world: World) -> None:
    sent = _much(world)
    parked = world.sweep().parked
    assert parked is not None
    report = world.sweep(Policy((), KeepFor(timedelta(hours=1))), confirm=parked.id)
    assert report.outcome is Outcome.REFUSED
    assert set(world.states(sent)) == {State.STORED}
    assert world.parked() == []


def test_a_plan_of_other_rules_takes_the_place_of_the_one_that_waits(world: World) -> None:
    _much(world)
    first, second = world.sweep(), world.sweep(Policy((), KeepFor(timedelta(hours=1))))
    assert second.parked is not None
    assert second.parked != first.parked
    assert world.parked() == [second.parked]


def test_a_plan_that_waits_is_forgotten_when_the_guard_no_longer_holds(world: World) -> None:
    _much(world)
    world.sweep()
    world.send(world.run("young"), *(f"n{n}" for n in range(500)), type="young")
    report = world.sweep(Policy((Rule("y", Match(type="young"), KeepForever()),), KeepFor(DAY)))
    assert report.outcome is Outcome.DONE
    assert world.parked() == []


def test_a_confirmed_sweep_that_was_interrupted_is_continued_by_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "DELETE_BATCH", 20)
    sent = _much(world, 300)
    parked = world.sweep().parked
    assert parked is not None
    heard = iter([None, None, None, "the controller is down"])
    report = world.sweep(confirm=parked.id, why_stale=lambda: next(heard))
    assert (report.outcome, report.why) == (Outcome.REFUSED, "the controller is down")
    assert world.states(sent).count(State.EXPIRED) == 40
    assert world.sweep().outcome is Outcome.DONE
    assert set(world.states(sent)) == {State.EXPIRED}
    assert world.parked() == []


def test_an_interrupted_sweep_ends_no_more_than_was_confirmed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What became current since then ends by the same rule, and would fill the place of what was ended."""
    monkeypatch.setattr(service, "DELETE_BATCH", 40)
    names = [f"n{n}" for n in range(60)]
    sent = [one for run in ("a", "b") for _ in range(3) for one in world.send(world.run(run), *names)]
    policy = Policy((Rule("current", Match(version=Version.CURRENT), KeepFor(DAY)),), KeepForever())
    parked = world.sweep(policy).parked
    assert parked is not None
    assert (parked.count, parked.bytes) == (120, 1200)
    heard = iter([None, None, None, "the controller is down"])
    assert world.sweep(policy, confirm=parked.id, why_stale=lambda: next(heard)).outcome is Outcome.REFUSED
    assert world.states(sent).count(State.EXPIRED) == 80
    [left] = world.parked()
    assert (left.id, left.count, left.bytes) == (parked.id, 40, 400)

    report = world.sweep(policy)

    assert report.outcome is Outcome.PARKED
    assert world.states(sent).count(State.EXPIRED) == 80
    assert [plan.confirmed_at for plan in world.parked()] == [None]


def test_a_stale_view_refuses_and_changes_nothing(world: World) -> None:
    [ended, wanted] = world.send(world.run(), "a", "b")
    erase_artifact(world.index, ended.id, by="token:t")
    world.publish()
    report = world.sweep(why_stale=lambda: "no watch")
    assert (report.outcome, report.why) == (Outcome.REFUSED, "no watch")
    assert world.states([ended, wanted]) == [State.DELETED, State.STORED]
    assert world.has_bytes(ended)


def test_a_confirmation_under_a_stale_view_is_not_remembered(world: World) -> None:
    sent = _much(world)
    parked = world.sweep().parked
    assert parked is not None
    world.sweep(confirm=parked.id, why_stale=lambda: "no watch")
    assert world.sweep().outcome is Outcome.PARKED
    assert set(world.states(sent)) == {State.STORED}


def test_a_plan_that_grows_past_the_guard_in_the_middle_stops(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "DELETE_BATCH", 50)
    monkeypatch.setattr(service, "_RUNS_AT_ONCE", 1)
    world.send(world.run("a"), *(f"n{n}" for n in range(60)))
    checks = iter(range(10))

    def floods_after_the_first_batch() -> None:
        if next(checks) == 1:
            world.send(world.run("zzz"), *(f"n{n}" for n in range(200)))

    report = world.sweep(why_stale=floods_after_the_first_batch)
    assert report.outcome is Outcome.REFUSED
    assert report.why is not None
    assert "grew" in report.why
    assert report.done is not None
    assert report.done.ends.count <= 100


def test_a_watch_that_was_not_heard_is_a_stale_view(world: World) -> None:
    assert "controller" in str(why_watch_is_stale(world.index))
    with world.index.begin() as tx:
        leases.done(tx, WATCH)
    assert why_watch_is_stale(world.index) is None
    assert why_watch_is_stale(world.index, at_most=timedelta()) is not None


def test_bytes_go_in_batches_and_what_the_store_keeps_blocks_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "DELETE_BATCH", 10)
    sent = world.send(world.run(), *(f"n{n}" for n in range(35)))
    world.sweep()
    world.publish()
    stuck = {artifact.location for artifact in sent[:15]}
    deleting = world.objects.delete
    requests: list[int] = []

    def keeps_some(locations: Sequence[Location]) -> Sequence[Location]:
        requests.append(len(locations))
        return deleting([location for location in locations if location not in stuck])

    with monkeypatch.context() as patch:
        patch.setattr(MemoryObjects, "delete", lambda _self, locations: keeps_some(locations))
        erased = erase_ready(world.index, world.objects)
    assert max(requests) == 10
    assert sum(requests) == 35
    assert erased.gone == Total(20, 200)
    assert erased.left == Total(15, 150)
    assert [world.has_bytes(artifact) for artifact in sent] == [
        artifact.location in stuck for artifact in sent
    ]
    assert erase_ready(world.index, world.objects).gone == Total(15, 150)
    assert list(world.objects.list("")) == []


def test_deleting_bytes_stops_between_two_requests(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "DELETE_BATCH", 10)
    world.send(world.run(), *(f"n{n}" for n in range(35)))
    world.sweep()
    world.publish()
    asked = iter([None, None, "shutting down"])
    erased = erase_ready(world.index, world.objects, why_stale=lambda: next(asked))
    assert erased.gone == Total(20, 200)
    assert len(list(world.objects.list(""))) == 15


def test_metrics_count_deletions_by_rule_and_what_is_left_to_erase(world: World) -> None:
    def deletions() -> float:
        return REGISTRY.get_sample_value("offload_sweep_deletions_total", {"rule": "counted"}) or 0

    before = deletions()
    run = world.run()
    world.send(run, "a", "b")
    world.sweep(Policy((Rule("counted", Match(name="a"), KeepFor(DAY)),), KeepForever()))
    assert deletions() == before + 1
    assert REGISTRY.get_sample_value("offload_sweep_backlog_artifacts") == 1
    world.publish()
    erase_ready(world.index, world.objects)
    assert REGISTRY.get_sample_value("offload_sweep_backlog_artifacts") == 0


def test_a_store_that_is_away_leaves_tombstones_that_the_next_sweep_erases(world: World) -> None:
    run = world.run()
    sent = world.send(run, "a", "b")
    with world.index.begin() as tx:
        runs.mark_deleted(tx, run.uid)

    def away(operation: str, _key: str) -> None:
        if operation == "delete":
            raise StoreUnavailableError

    world.objects.before = away
    with pytest.raises(StoreUnavailableError):
        world.sweep()
    assert world.states(sent) == [State.EXPIRED] * 2
    world.objects.before = lambda _operation, _key: None
    assert world.sweep().erased.gone == Total(2, 20)


def test_an_erased_artifact_is_a_tombstone_at_once_and_its_bytes_follow_the_pointer(world: World) -> None:
    run = world.run()
    older, newer = world.send(run, "a", "a")
    world.publish()
    erased = erase_artifact(world.index, newer.id, by="token:kim")
    assert (erased.state, erased.ended_by) == (State.DELETED, "token:kim")
    assert world.artifact(older.id).current
    assert erase_ready(world.index, world.objects).gone == Total()
    world.publish()
    assert erase_ready(world.index, world.objects).gone == Total(1, 10)
    assert world.has_bytes(older)
    assert not world.has_bytes(newer)


def test_erasing_twice_is_erasing_once(world: World) -> None:
    [artifact] = world.send(world.run(), "a")
    first = erase_artifact(world.index, artifact.id, by="token:kim")
    assert erase_artifact(world.index, artifact.id, by="token:lee") == first


def test_what_has_expired_keeps_its_fate_when_it_is_erased(world: World) -> None:
    [artifact] = world.send(world.run(), "a")
    world.sweep()
    assert erase_artifact(world.index, artifact.id, by="token:kim").state is State.EXPIRED


def test_what_is_not_there_cannot_be_erased(world: World) -> None:
    with pytest.raises(ArtifactNotFoundError):
        erase_artifact(world.index, uuid4(), by="token:kim")


def test_two_sweeps_at_once_do_what_one_does(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "DELETE_BATCH", 7)
    sent = [a for n in range(10) for a in world.send(world.run(f"run-{n}"), *(f"n{n}" for n in range(9)))]
    with ThreadPoolExecutor(2) as pool:
        reports = [future.result() for future in [pool.submit(world.sweep) for _ in range(2)]]
    assert {report.outcome for report in reports} == {Outcome.DONE}
    assert sum(report.done.ends.count for report in reports if report.done) == len(sent)
    assert set(world.states(sent)) == {State.EXPIRED}
    with world.index.read() as tx:
        assert sweeping.stored_totals(tx) == (0, 0)


def test_a_sweep_and_a_recorder_do_not_hinder_each_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "DELETE_BATCH", 5)
    policy = Policy(
        (Rule("logs", Match(type="log"), KeepFor(DAY)), Rule("r", Match(type="x"), KeepLast(1))),
        KeepForever(),
    )
    known = [world.run(f"run-{n}") for n in range(6)]
    for run in known:
        world.send(run, *(f"n{n}" for n in range(9)))
        world.send(run, "x", "x", type="x")
    new = [world.new(run, f"m{n}", os.urandom(10), type="diff") for n in range(10) for run in known]
    recorder = Recorder(world.index, grace=timedelta(hours=1))
    with ThreadPoolExecutor(3) as pool:
        sweeping_on = [pool.submit(world.sweep, policy) for _ in range(2)]
        recorded = list(pool.map(recorder.record_blocking, new))
        for future in sweeping_on:
            assert future.result().outcome is Outcome.DONE
    recorder.close()
    assert all(answer.created for answer in recorded)
    with world.index.read() as tx:
        assert sweeping.stored_totals(tx) == (6 + len(new), 10 * (6 + len(new)))
